"""The disks that are written to, each known by where it was mounted.

Nothing is written there while one is away: it would be hidden as soon as that disk is back. The
ledger remembers them. Knows nothing of what is written.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from stylewatch.errors import OutputFullError
from stylewatch.folders.listing import walk
from stylewatch.places import mount_of
from stylewatch.state.ledger import Ledger


def note_mounts(folders: Iterable[Path], ledger: Ledger) -> None:
    """Remember the disks that these are on: without them nothing is written there."""
    for mount in {mount_of(folder) for folder in folders} - ledger.mounts():
        ledger.note_mount(mount)


def missing_mount(place: Path, ledger: Ledger) -> Path | None:
    """Where a disk was mounted on which this place lies, if nothing is mounted there now."""
    mount, real = mount_of(place), Path(os.path.realpath(place))
    away = (
        known
        for known in ledger.mounts()
        if known != mount and known.is_relative_to(mount) and real.is_relative_to(known)
    )
    return next(away, None)


def require_mounted(folder: Path, place: Path, ledger: Ledger) -> None:
    """For whoever is to write to a place in this folder.

    Raises:
        OutputFullError: nothing is mounted where its disk was, and no file there, or in the
            `folder` on it, says that it is to go on without.
    """
    if mount := missing_mount(place, ledger):
        away = folder if Path(os.path.realpath(folder)).is_relative_to(mount) else mount
        if not holds_files(away):
            raise not_mounted(away, mount)
        ledger.forget_mount(mount)
    note_mounts([place.parent], ledger)  # that look may have mounted it


def holds_files(folder: Path) -> bool:
    """Whether anything lies in it but folders and what is hidden, as results in the making are."""
    return any(not name.startswith(".") for _, names in walk(folder) for name in names)


def not_mounted(folder: Path, mount: Path) -> OutputFullError:
    """For whoever would write to this folder."""
    return OutputFullError(
        f"{folder} lies on a disk that is away: nothing is mounted on {mount}",
        remedy="It goes on by itself when it is back; to go on without it, put a file there",
        reason=OutputFullError.away,
    )
