"""Photos whose results are durable: moved to where the config wants them, or deleted.

A photo is gone from its folder only when it is safe elsewhere, and only while it is still the one
that was painted. Its folder, and the one that it is moved to, are held open meanwhile: what a link
leads to that takes their place is not touched. Knows nothing of results and the ledger.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

from stylewatch.domain import Identity
from stylewatch.failpoints import failpoint
from stylewatch.folders.contents import open_regular, same_bytes
from stylewatch.folders.listing import WAY, open_below
from stylewatch.folders.naming import (
    TEMPORARY_SUFFIX,
    cut,
    make_folder,
    mark_of,
    name_exclusively,
    numbered,
    removed_on_error,
    rename_exclusively,
    sync_folder,
)

_BEGINNING = 100  # bytes of a photo's name: not all of it, as that may have no room


def apply_after(
    action: Literal["delete"] | Path,
    root: Path,
    photo: Path,
    identity: Identity,
    still_there: Callable[[], object] = lambda: None,
) -> bool:
    """Move or delete a photo whose result is durable, if it is still the same file.

    `action` may be a folder to move to: sub-folders are mirrored, nothing is replaced there. Once
    it is held open, so that it stays this disk's, `still_there` is called, and if that raises, the
    photo stays where it was. Returns whether something was done.
    """
    with contextlib.ExitStack() as held:
        try:
            source = held.enter_context(_held(root, photo.parent)) / photo.name
        except (FileNotFoundError, NotADirectoryError):
            return False
        if not _unchanged(source, identity):
            return False
        if action == "delete":
            source.unlink()
        else:
            make_folder(action / photo.parent)
            goals = held.enter_context(_held(action, photo.parent))
            still_there()
            _move(source, goals / photo.name, identity)
        failpoint("painted.after")
        sync_folder(source.parent)
    return True


@contextlib.contextmanager
def _held(root: Path, folder: Path) -> Iterator[Path]:
    """A folder below a root, under a name that stays its own, whatever is put in its place."""
    try:
        descriptor = open_below(root, folder, WAY)
    except NotADirectoryError as error:
        why = f"{root / folder} can only be reached by a link"
        raise NotADirectoryError(errno.ENOTDIR, why) from error
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _move(source: Path, wanted: Path, identity: Identity) -> None:
    """Give the photo its new name, then remove the old one; a move that a crash left is ended."""
    if source.parent.samefile(wanted.parent):  # it would be its own copy, and be deleted
        raise OSError(errno.ELOOP, f"{wanted.parent.resolve()} leads back to its own folder")
    goal = _named(source, wanted, identity)
    if goal is None:
        return
    failpoint("painted.moved")
    sync_folder(goal.parent)
    if _same_file(source, identity):  # after so long another may lie there
        source.unlink(missing_ok=True)


def _named(source: Path, wanted: Path, identity: Identity) -> Path | None:
    """Where the photo, or its copy on another disk, has its new name; None if it has changed."""
    goals = numbered(wanted.with_suffix(""), wanted.suffix)
    while True:
        goal = next(goals)
        try:
            name_exclusively(source, goal)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.EXDEV}:
                raise
        else:
            return goal
        if not os.path.lexists(goal):
            _copy_durably(source, goal)
            if _unchanged(source, identity):
                return goal
            goal.unlink()
            return None
        if _is_copy(source, goal):  # made before a crash
            return goal


def _unchanged(path: Path, identity: Identity) -> bool:
    """Whether the file is there as it was; an error where that can't be told now.

    A share may answer a look at a name from memory, for a minute, but not who opens it.
    """
    try:
        if not Identity.of(path.lstat()).is_still(identity):
            return False
        with open_regular(path) as photo:
            return Identity.of(os.fstat(photo.fileno())).is_still(identity)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _same_file(path: Path, identity: Identity) -> bool:
    """Whether the file is unchanged but for its ctime, which a second name changes too."""
    try:
        found = Identity.of(path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return False
    return replace(found, ctime_ns=identity.ctime_ns).is_still(identity)


def _is_copy(one: Path, other: Path) -> bool:
    """Whether both are regular files with the same content, as far as can be told."""
    try:
        return same_bytes(one, other)
    except OSError:
        return False


def _copy_durably(source: Path, goal: Path) -> None:
    # A disk that can't hold the photo's name says so before anything is copied. Another daemon may
    # bring a photo of that name here, too.
    beginning = cut(os.fsencode(source.name), _BEGINNING)
    mark = mark_of(source.parent.resolve() / source.name, 8)
    temporary = goal.with_name(f".{beginning}.{mark}{TEMPORARY_SUFFIX}")
    temporary.unlink(missing_ok=True)  # left by an earlier attempt with the same photo
    with (
        open_regular(source) as photo,
        open(temporary, "xb", opener=partial(os.open, mode=_rights(photo))) as copy,
        removed_on_error(temporary),
    ):
        shutil.copyfileobj(photo, copy)
        copy.flush()
        owner = os.fstat(photo.fileno())
        with contextlib.suppress(OSError):  # only root may give files away
            os.chown(copy.fileno(), owner.st_uid, owner.st_gid)
        with contextlib.suppress(OSError):  # FAT keeps no rights
            shutil.copystat(source, temporary, follow_symlinks=False)
        os.fsync(copy.fileno())
        if not same_bytes(source, temporary):
            raise OSError(errno.EIO, "the copy differs from the photo", str(goal))
        rename_exclusively(temporary, goal)


def _rights(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_mode & 0o777
