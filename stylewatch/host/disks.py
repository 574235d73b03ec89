"""The disks that are written to, each known by its mount point, which the ledger remembers.

While a disk is away nothing is written at its mount point: that would land on the disk below, and
be hidden as soon as the right one is back. Knows nothing of what is written.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from stylewatch.errors import OutputFullError
from stylewatch.folders.listing import walk
from stylewatch.places import mount_of
from stylewatch.state.ledger import Ledger


def note_mounts(folders: Iterable[Path], ledger: Ledger) -> None:
    """Remember the disks that these folders lie on, so that they are missed when they are away."""
    for mount in {mount_of(folder) for folder in folders} - ledger.mounts():
        ledger.note_mount(mount)


def missing_mount(place: Path, ledger: Ledger) -> Path | None:
    """The mount point of the disk on which this place lies, if that disk is away now."""
    mount, real = mount_of(place), Path(os.path.realpath(place))
    away = (
        known
        for known in ledger.mounts()
        if known != mount and known.is_relative_to(mount) and real.is_relative_to(known)
    )
    return next(away, None)


def require_mounted(folder: Path, place: Path, ledger: Ledger) -> None:
    """Make sure that a place in this folder can be written to, as far as its disk goes.

    Raises:
        OutputFullError: its disk is away. To go on without it, a person puts a file into `folder`,
            or where the disk was mounted.
    """
    if mount := missing_mount(place, ledger):
        away = folder if Path(os.path.realpath(folder)).is_relative_to(mount) else mount
        if not holds_files(away):
            raise not_mounted(away, mount)
        ledger.forget_mount(mount)
    note_mounts([place.parent], ledger)  # that look may have mounted it


def holds_files(folder: Path) -> bool:
    """Whether any file lies in it that is not hidden, as unfinished results are."""
    return any(not name.startswith(".") for _, names in walk(folder) for name in names)


def not_mounted(folder: Path, mount: Path) -> OutputFullError:
    """The error for a folder whose disk is away."""
    return OutputFullError(
        f"{folder} lies on a disk that is away: nothing is mounted on {mount}",
        remedy="It goes on by itself when it is back; to go on without it, put a file there",
        reason=OutputFullError.away,
    )
