"""Which folder lies in a watched place: the one of before, one that was moved there, or another.

The ledger's history follows a folder. Knows nothing of what lies in it but whether it is still so.
"""

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

from stylewatch.domain import Identity
from stylewatch.settings.config import Config, Folder
from stylewatch.settings.layout import overlap
from stylewatch.state.ledger import Ledger
from stylewatch.state.presence import is_still, looks_like

VOLUMES: Final = Path("/dev/disk/by-uuid")
"""Where Linux names each disk as it was named when it was formatted, by a link to its device.

Two cards in one reader have the same numbers.
"""


def recognise(folder: Folder, config: Config, ledger: Ledger) -> None:
    """Write down which folder lies in this place.

    Raises:
        OSError: it can't be looked at, or is empty and not the one that was there: its disk may
            be away.
    """
    inode = known = ledger.inode_of(folder.input)
    volume = ""
    try:
        stat = folder.input.stat()
        found = Identity.of(stat).inode
        if known not in {None, found} and not any(folder.input.iterdir()):
            why = "Empty and not the folder that it was (is its disk away?)"
            raise OSError(errno.ENODEV, why)
        inode, volume = found, _volume_of(stat.st_dev)
    finally:
        moved = _moved(folder, inode, config, ledger) if inode and known is None else None
        changed = inode and known and inode[1] != known[1]  # a device's number says nothing
        another = bool(changed) and _is_another(folder.input, ledger)
        ledger.note_folder(folder.name, folder.input, inode, moved, volume, another=another)


def require_apart(folder: Folder, config: Config, ledger: Ledger) -> None:
    """For a folder that has come: where it lies could not be seen when the config was read.

    Raises:
        OSError: results would come in as photos, or it can't be looked at.
    """
    known = ledger.inode_of(folder.input)
    if Identity.of(folder.input.stat()).inode != known and (trouble := overlap(config, folder)):
        raise OSError(errno.ELOOP, trouble)


def require_same(place: Path, ledger: Ledger) -> None:
    """For whoever misses a photo there: it may only be that its disk is away.

    Raises:
        OSError: another folder lies in this place, or none.
    """
    known = ledger.inode_of(place)
    if known and Identity.of(place.stat()).inode != known:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), str(place))


def _volume_of(device: int) -> str:
    """The name of the disk with that number; empty where it has none, as on a network."""
    with contextlib.suppress(OSError):
        for link in VOLUMES.iterdir():
            with contextlib.suppress(OSError):  # unplugged just now
                if link.stat().st_rdev == device:
                    return link.name
    return ""


def _moved(folder: Folder, inode: tuple[int, int], config: Config, ledger: Ledger) -> str | None:
    """What the folder in this place was called where it lay before, if it was moved.

    Moving it has left its files as they were; in any other folder they are not. Nothing tells
    against it where none was known, or all were moved or deleted when they were painted; where
    photos stay, one that is gone may have been deleted with its folder, and its number given again.
    """
    names = ledger.alike(inode, (each.input for each in config.folders))
    for name in names:
        if any(is_still(folder.input / path, before) for path, before in ledger.remembered(name)):
            return name
    stay = folder.stays
    return next((name for name in names if not ledger.remembered(name, missed=stay)), None)


def _is_another(place: Path, ledger: Ledger) -> bool:
    """Whether nothing in it is as it was in the folder that lay there before, or in its copy."""
    name = next(name for name, lies in ledger.places().items() if lies == place)
    return not any(
        looks_like(place / path, before) for path, before in ledger.remembered(name, missed=False)
    )
