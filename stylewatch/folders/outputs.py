"""Results on disk: written aside, made durable, and then given their name in one step.

A result's name never shows partial bytes, never replaces a file that is not ours, and never
lies outside its output folder. Knows nothing of pictures, presets or the ledger.
"""

import contextlib
import errno
import hashlib
import itertools
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

from stylewatch.domain import FailureKind
from stylewatch.errors import OutputError, OutputFullError, kind_of
from stylewatch.failpoints import failpoint
from stylewatch.folders import contents
from stylewatch.folders.listing import walk
from stylewatch.folders.naming import (
    LONGEST_NAME,
    TEMPORARY_SUFFIX,
    as_listed,
    cut,
    make_folder,
    mark_of,
    name_exclusively,
    numbered,
    removed_on_error,
    sync_folder,
)
from stylewatch.places import nearest_existing

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_FOREIGN = {errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM}  # no file, or not for us
_MAKE_ROOM = "Make room there; a daemon then goes on"
_PLAINER = "Give the photo, or the folder it is in, a plainer name: this disk can't hold it"
REMEDIES: Final[Mapping[int | None, str]] = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.ENAMETOOLONG: "Give the photo, or the folder it is in, a shorter name",
    errno.EINVAL: _PLAINER,  # FAT and NTFS want no colon, …
    errno.EILSEQ: _PLAINER,  # … and text
}
"""What to do, by the number of an error that tells of a disk without room, or of a bad name."""
_KINDS = {
    errno.EEXIST: FailureKind.PERMISSION,  # a file lies in its way
    errno.ENOTDIR: FailureKind.PERMISSION,
    errno.EISDIR: FailureKind.PERMISSION,
    errno.ELOOP: FailureKind.PERMISSION,
    errno.EINVAL: FailureKind.BAD_INPUT,
    errno.EILSEQ: FailureKind.BAD_INPUT,
}
"""What means something else here than where a photo is read."""


def target_name(photo: Path, preset: str) -> Path:
    """A result's relative path without extension: `sub/IMG_1.jpg` → `sub/IMG_1--starry`.

    A name that a file system would find too long is cut, and made unique by a hash.
    """
    room = LONGEST_NAME - len(f"~999.tiff{TEMPORARY_SUFFIX}..123456789-12345678")
    name = os.fsencode(f"{photo.stem}--{preset}")
    if len(name) > room:
        mark = f"~{hashlib.sha256(name).hexdigest()[:12]}"
        ending = cut(os.fsencode(f"--{preset}"), room // 2)
        beginning = cut(name, room - len(mark) - len(os.fsencode(ending)))
        return photo.parent / f"{beginning}{mark}{ending}"
    return photo.parent / os.fsdecode(name)


def prepare(output: Path, target: Path) -> None:
    """Make the folder of a result; never outside `output`.

    Raises:
        OutputError: a link or `..` would lead out of the output folder, or the folder can't be
            made.
        OutputFullError: the output folder itself can't be made, or may not be written to. That is
            no photo's fault: its disk is away, or was made read-only.
    """
    folder = target.parent
    try:
        if folder.resolve().is_relative_to(output.resolve()):
            _require_writable(output, folder)
            make_folder(folder)
            return
    except (OSError, RuntimeError) as error:
        if not os.path.isdir(output):
            raise OutputFullError(
                f"{output} can't be made: {getattr(error, 'strerror', error)}",
                remedy="Is its disk there? It goes on by itself when the folder can be made",
                reason=OutputFullError.away,
            ) from error
        raise _output_error(target, error) from error
    raise OutputError(
        f"{folder} leads out of the output folder",
        expected=f"a folder inside {output}",
        received=str(folder.resolve()),
        remedy="Remove the link on the way there",
        reason="escape",
    )


def _require_writable(output: Path, folder: Path) -> None:
    """An OutputFullError if the folder, or as much of it as exists, may not be written to."""
    there = nearest_existing(folder)
    if os.path.isdir(output) and os.path.isdir(there) and not can_be_written(there):
        raise _forbidden(there)


def can_be_written(folder: Path) -> bool:
    """Whether we may make files in it just now."""
    return os.access(folder, os.W_OK | os.X_OK)


def owner_of(state_dir: Path) -> str:
    """The end of the names of one daemon's temporary files, as others may write beside it."""
    return f"-{mark_of(state_dir, 4)}"


def write_temporary(
    data: bytes, target: Path, extension: str, job_id: int, owner: str = ""
) -> Path:
    """Write `data` durably beside its final place; nothing is left behind on failure.

    Raises:
        OutputFullError: no space.
        OutputError: not writable.
    """
    temporary = target.with_name(f".{target.name}{extension}.{job_id}{owner}{TEMPORARY_SUFFIX}")
    try:
        make_folder(target.parent)
        temporary.unlink(missing_ok=True)  # left by an earlier attempt of the same job
        with removed_on_error(temporary):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            descriptor = os.open(temporary, flags, 0o666)
            failpoint("outputs.created")
            with open(descriptor, "wb") as stream:  # noqa: PTH123  (a descriptor has no path)
                stream.write(data)
                stream.flush()
                failpoint("outputs.written")
                os.fsync(stream.fileno())
        failpoint("outputs.synced")
    except OSError as error:
        raise _output_error(temporary, error) from error
    return temporary


def publish(
    temporary: Path, target: Path, extension: str, ours: Callable[[Path, str], bool] | None = None
) -> Path:
    """Give a finished file its name in one step, never in place of a foreign file.

    An existing file is replaced only if `ours` says, by its path and SHA-256, that it is an earlier
    result for the same photo; otherwise the next free `name~2`, `name~3` … is taken. Returns the
    final path.
    """
    try:
        for final in numbered(target, extension):
            try:
                name_exclusively(temporary, final)
            except FileExistsError:
                if ours is None or not _can_be_ours(final := as_listed(final), ours):
                    continue
                temporary.replace(final)
            break
        failpoint("outputs.named")
        temporary.unlink(missing_ok=True)
        sync_folder(final.parent)
        failpoint("outputs.folder-synced")
    except OSError as error:
        raise _output_error(target, error) from error
    return final


def remove_earlier(path: Path, ours: Callable[[Path, str], bool]) -> bool:
    """Remove a result that a newer one replaces, if `ours` says it is one; whether it is gone."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        if _can_be_ours(path, ours):
            path.unlink()
            sync_folder(path.parent)
    return not os.path.lexists(path)


def _can_be_ours(final: Path, ours: Callable[[Path, str], bool]) -> bool:
    """What `ours` says of a file; what is no file, or closed to us, is not ours."""
    try:
        return ours(final, contents.file_hash(final))
    except OSError as error:
        if error.errno in _FOREIGN:
            return False
        raise


def find_published(
    temporary: Path,
    target: Path,
    extension: str,
    sha256: str,
    taken: Callable[[Path], bool] = lambda _: False,
    *,
    before: Path | None = None,
    patient: bool = True,
) -> Path | None:
    """The final path, if an interrupted `publish` had already given the file its name; else None.

    It is found by its bytes, under the names that `publish` would give it, up to the first that is
    free, or at `before`, where the same job's result once was. A file that is `taken` is another
    photo's result and does not count. A file that can't be read now is an error as long as we are
    `patient`; then it does not count.
    """
    waiting = os.path.lexists(temporary)
    former = [before] if before and os.path.lexists(before) else []
    for final in itertools.chain(former, numbered(target, extension)):
        try:
            if taken(final):
                continue
            if waiting and not contents.same_bytes(temporary, final):
                continue  # thousands may have this name: they need not all be read
            if contents.file_hash(final) != sha256 or taken(final := as_listed(final)):
                continue
        except (FileNotFoundError, NotADirectoryError):
            break
        except OSError as error:
            if (error.errno in _FOREIGN or not patient) and os.path.lexists(final):
                continue
            raise
        temporary.unlink(missing_ok=True)
        sync_folder(final.parent)
        return final
    return None


def sweep(folder: Path, owner: str, keep: Collection[Path]) -> None:
    """Remove what killed workers of this owner left in an output folder, but for what to `keep`."""
    for inside, names in walk(folder):
        for name in names:
            path = Path(inside, name)
            ours = name.startswith(".") and name.endswith(f"{owner}{TEMPORARY_SUFFIX}")
            if ours and path not in keep:
                with contextlib.suppress(OSError):
                    path.unlink()


def _forbidden(folder: Path) -> OutputFullError:
    return OutputFullError(
        f"{folder} can't be written",
        remedy="Check its permissions, and whether its disk is read-only; a daemon then goes on",
        reason=OutputFullError.forbidden,
    )


def _output_error(path: Path, error: Exception) -> OutputError:
    code = error.errno if isinstance(error, OSError) else None
    why = os.strerror(code) if code else str(error)
    if code == errno.EROFS:
        return _forbidden(path.parent)
    if code in NO_ROOM:
        return OutputFullError(f"No space left at {path.parent}", remedy=_MAKE_ROOM)
    remedy = REMEDIES.get(code, "Check the folder and its permissions")
    if code in {errno.EEXIST, errno.ENOTDIR}:
        remedy = "A file lies in its way: move that, or name another folder"
    made = OutputError(
        f"{path.parent} can't be written: {why}",
        remedy=remedy,
        reason=errno.errorcode.get(code, "output").lower() if code else "output",
    )
    if code:
        made.kind = _KINDS.get(code) or kind_of(code)
    return made
