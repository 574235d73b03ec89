"""Which folder lies at a watched place: the same as before, one that was moved there, or another.

The ledger's history of photos follows a folder when it is moved. Knows nothing of what its files
are, only whether they are as they were.
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
from stylewatch.state.presence import is_missing, is_still, looks_like

VOLUMES: Final = Path("/dev/disk/by-uuid")
"""Links from the name that each file system got when it was made to its device (Linux).

Device and inode numbers can't tell two cards in one reader apart.
"""
_RESULTS = 20  # by which it is told whether they were copied: people delete some


def recognise(folder: Folder, config: Config, ledger: Ledger) -> None:
    """Write down which folder lies at this place, also where this raises.

    Raises:
        OSError: it can't be looked at; or it is empty and not the one that was there, so that its
            disk is probably away.
    """
    known = ledger.inode_of(folder.input)
    try:
        stat = _look_at(folder.input, known)
    except OSError:
        ledger.note_folder(folder.name, folder.input, known)
        raise
    inode, moved, another = Identity.of(stat).inode, None, False
    name = next((name for name, lies in ledger.places().items() if lies == folder.input), "")
    if known is None or not ledger.has_files(name):
        moved = _moved(folder, inode, config, ledger)
    elif known[1] != inode[1]:  # a device's number says nothing
        before = ledger.remembered(name, missed=False)
        another = not any(looks_like(folder.input / path, file) for path, file in before)
    volume = _volume_of(stat.st_dev)
    ledger.note_folder(folder.name, folder.input, inode, moved, volume, another=another)


def require_apart(folder: Folder, config: Config, ledger: Ledger) -> None:
    """Make sure that a folder that has just appeared overlaps with no other of the config.

    When the config was read, that could not be seen yet.

    Raises:
        OSError: results would come in as photos, or it can't be looked at.
    """
    known = ledger.inode_of(folder.input)
    if Identity.of(folder.input.stat()).inode != known and (trouble := overlap(config, folder)):
        raise OSError(errno.ELOOP, trouble)


def require_same(place: Path, ledger: Ledger) -> None:
    """Make sure that a photo which is missing there is not just on a disk that is away.

    Raises:
        OSError: another folder lies at this place, or none.
    """
    known = ledger.inode_of(place)
    if known and Identity.of(place.stat()).inode != known:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), str(place))


def _look_at(place: Path, known: tuple[int, int] | None) -> os.stat_result:
    """What lies there now, where `known` lay before."""
    stat = place.stat()
    if known not in {None, Identity.of(stat).inode} and not any(place.iterdir()):
        raise OSError(
            errno.ENODEV, "Empty, and not the folder that was here before (is its disk away?)"
        )
    return stat


def _volume_of(device: int) -> str:
    """The name of the disk with that number; empty where it has none, as on a network."""
    with contextlib.suppress(OSError):
        for link in VOLUMES.iterdir():
            with contextlib.suppress(OSError):  # unplugged just now
                if link.stat().st_rdev == device:
                    return link.name
    return ""


def _moved(folder: Folder, inode: tuple[int, int], config: Config, ledger: Ledger) -> str | None:
    """The name that the ledger has for the folder at this place, if it was moved here.

    Candidates are the folders with this inode that lay elsewhere: disks and file systems give such
    numbers again. The right one is the one of whose files one lies here, untouched. Failing that,
    it is one of this name that was copied here, as to another disk. Else a candidate of which the
    ledger knows no files that should be here will do. Where photos stay, that is only one without
    any known file: else its photos were deleted with it, and another folder has got its number.
    """
    watched = [each.input for each in config.folders]
    elsewhere = {name: lay for name, lay in ledger.places().items() if lay not in watched}
    names = [name for name, lay in elsewhere.items() if ledger.inode_of(lay) == inode]
    for name in names:
        if any(is_still(folder.input / path, before) for path, before in ledger.remembered(name)):
            return name
    set_aside = f"{folder.name} ("  # so begins what it is called since this place has its name
    for name in elsewhere:
        is_namesake = name == folder.name or name.startswith(set_aside)
        if is_namesake and _is_copy(folder, name, ledger):
            return name
    stay = folder.stays
    return next((name for name in names if not ledger.remembered(name, missed=stay)), None)


def _is_copy(folder: Folder, name: str, ledger: Ledger) -> bool:
    """Whether the folder that the ledger calls so was copied here, with its results.

    All of its files that are here look as they did: another may have some of its photos, too.
    """
    if not any(
        os.path.lexists(folder.output / photo.parent / result.name)
        for photo, result, _ in ledger.last_results(name, _RESULTS)
    ):
        return False
    known = [(folder.input / path, before) for path, before in ledger.remembered(name)]
    here = [(file, before) for file, before in known if not is_missing(file)]
    return bool(here) and all(looks_like(file, before) for file, before in here)
