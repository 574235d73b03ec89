"""Results on disk: written aside, made durable, and then given their name in one step.

A result's name never shows partial bytes, never replaces a file that is not ours, and never
lies outside its output folder. Painted photos are moved by the same means, or deleted. Knows
nothing of pictures, presets or the ledger.
"""

import codecs
import contextlib
import ctypes
import errno
import hashlib
import itertools
import os
import shutil
import stat
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import Literal

from stylewatch.domain import Identity
from stylewatch.errors import OutputError, OutputFullError
from stylewatch.failpoints import failpoint
from stylewatch.folders.listing import walk
from stylewatch.folders.space import nearest_existing

TEMPORARY_SUFFIX = ".sw-tmp"
"""Ends the names of files that are being written; they begin with a dot."""

_LONGEST_NAME = 255  # bytes, on every file system in use
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FOREIGN = {errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM}  # no file, or not for us
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
_PIECE = 1 << 16  # bytes that are read at once of files that are compared
_RENAME_NOREPLACE = 1
_AT_FDCWD = -100


def target_name(photo: Path, preset: str) -> Path:
    """A result's relative path without extension: `sub/IMG_1.jpg` → `sub/IMG_1--starry`.

    What would be longer than a file system allows is cut, and told apart by a hash.
    """
    room = _LONGEST_NAME - len(f"~999.tiff{TEMPORARY_SUFFIX}..123456789-12345678")
    name = os.fsencode(f"{photo.stem}--{preset}")
    if len(name) > room:
        mark = f"~{hashlib.sha256(name).hexdigest()[:12]}"
        ending = _cut(os.fsencode(f"--{preset}"), room // 2)
        beginning = _cut(name, room - len(mark) - len(os.fsencode(ending)))
        return photo.parent / f"{beginning}{mark}{ending}"
    return photo.parent / os.fsdecode(name)


def _cut(name: bytes, room: int) -> str:
    """What of a name has room; no half character, which some shares refuse."""
    decoder = codecs.getincrementaldecoder(sys.getfilesystemencoding())
    return decoder(sys.getfilesystemencodeerrors()).decode(name[:room])


def prepare(output: Path, target: Path) -> None:
    """Make the folder of a result; never outside `output`.

    Raises:
        OutputError: a link or `..` would lead out of the output folder, or it can't be made.
        OutputFullError: the output folder itself can't be made, or the result's folder, or what
            is there above it, can't be written: the disk is away, or was made read-only. No photo
            is at fault.
    """
    folder = target.parent
    try:
        outside = not folder.resolve().is_relative_to(output.resolve())
        if not outside:
            _require_writable(output, folder)
            _make_folder(folder)
            outside = not folder.resolve().is_relative_to(output.resolve())
    except (OSError, RuntimeError) as error:
        if not os.path.isdir(output):
            raise OutputFullError(
                f"{output} can't be made: {getattr(error, 'strerror', error)}",
                remedy="Is its disk there? It goes on by itself when the folder can be made",
                reason=OutputFullError.away,
            ) from error
        raise _output_error(target, error) from error
    if outside:
        raise OutputError(
            f"{folder} leads out of the output folder",
            expected=f"a folder inside {output}",
            received=str(folder.resolve()),
            remedy="Remove the link",
            reason="escape",
        )


def _require_writable(output: Path, folder: Path) -> None:
    there = nearest_existing(folder)
    if os.path.isdir(output) and os.path.isdir(there) and not can_be_written(there):
        raise _forbidden(there)


def can_be_written(folder: Path) -> bool:
    """Whether we may make files in it just now."""
    return os.access(folder, os.W_OK | os.X_OK)


def owner_of(state_dir: Path) -> str:
    """What ends the names of one daemon's temporary files: others may write beside it."""
    return f"-{_mark_of(state_dir, 4)}"


def _mark_of(path: Path, size: int) -> str:
    """So many bytes, as hex, that tell a path from all others, also from itself elsewhere.

    On a share, two machines of one person meet, and their paths are often the same.
    """
    try:
        machine = Path("/etc/machine-id").read_bytes()
    except OSError:
        machine = b""
    here = (machine or os.fsencode(os.uname().nodename)) + os.fsencode(path)
    return hashlib.blake2b(here, digest_size=size).hexdigest()


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
        _make_folder(target.parent)
        temporary.unlink(missing_ok=True)  # left by an earlier attempt of the same job
        with _removed_on_error(temporary):
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
    temporary: Path,
    target: Path,
    extension: str,
    ours: Callable[[Path, str], bool] | None = None,
) -> Path:
    """Give a finished file its name in one step, never in place of a foreign file.

    An existing file is replaced only when `ours` knows its path and SHA-256 as an earlier result
    for the same photo; otherwise the next free `name~2`, `name~3` … is taken. Returns the final
    path.
    """
    try:
        for final in _names(target, extension):
            try:
                _name_exclusively(temporary, final)
            except FileExistsError:
                if ours is None or not _can_be_ours(final := _as_listed(final), ours):
                    continue
                temporary.replace(final)
            break
        failpoint("outputs.named")
        temporary.unlink(missing_ok=True)
        _sync_folder(final.parent)
        failpoint("outputs.folder-synced")
    except OSError as error:
        raise _output_error(target, error) from error
    return final


def remove_earlier(path: Path, ours: Callable[[Path, str], bool]) -> None:
    """Remove a result that another one has replaced, if `ours` knows it as it is."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        if _can_be_ours(path, ours):
            path.unlink()
            _sync_folder(path.parent)


def _can_be_ours(final: Path, ours: Callable[[Path, str], bool]) -> bool:
    try:
        return ours(final, file_hash(final))
    except OSError as error:
        if error.errno in _FOREIGN:
            return False
        raise


def _names(target: Path, extension: str) -> Iterator[Path]:
    """`name.jpg`, then `name~2.jpg`, `name~3.jpg` and so on."""
    yield target.with_name(f"{target.name}{extension}")
    for number in itertools.count(2):
        yield target.with_name(f"{target.name}~{number}{extension}")


def _as_listed(path: Path) -> Path:
    """As its folder has it: a disk that is blind to case has `img.jpg` where `IMG.jpg` lies."""
    try:
        names = os.listdir(path.parent)  # noqa: PTH208  (of bytes that are no text, too)
    except OSError:  # a folder that may be written to and not be listed
        return path
    alike = (name for name in names if name.casefold() == path.name.casefold())
    return path if path.name in names else path.with_name(next(alike, path.name))


def _name_exclusively(temporary: Path, final: Path) -> None:
    """Link, or rename without replacing where links are not to be had (exFAT, some shares)."""
    try:
        os.link(temporary, final, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EEXIST and _is_linked(temporary, final):
            return  # a share did it, lost its answer, and was asked again
        if error.errno not in _NO_LINKS:
            raise
        _rename_exclusively(temporary, final)


def _is_linked(one: Path, other: Path) -> bool:
    """Whether both are names of one file."""
    return Identity.of(one.lstat()) == Identity.of(other.lstat())


def _rename_exclusively(temporary: Path, final: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    old, new = os.fsencode(temporary), os.fsencode(final)
    if libc.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_NOREPLACE) == 0:
        return
    code = ctypes.get_errno()
    if code not in {errno.EINVAL, errno.ENOSYS}:
        raise OSError(code, os.strerror(code), str(final))
    if os.path.lexists(final):  # the last resort leaves a moment in between
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
    temporary.rename(final)


def find_published(
    temporary: Path,
    target: Path,
    extension: str,
    sha256: str,
    taken: Callable[[Path], bool] = lambda _: False,
    *,
    patient: bool = True,
) -> Path | None:
    """Whether an interrupted `publish` had come to its end: the file under its name, or None.

    A file with the same bytes that is `taken` is another photo's result. One that can't be read is
    an error, or, not `patient`, not ours.
    """
    waiting = os.path.lexists(temporary)
    for final in _names(target, extension):
        try:
            if taken(final):
                continue
            if waiting and not _same_bytes(temporary, final):
                continue  # thousands may have this name: they need not all be read
            if file_hash(final) != sha256 or taken(final := _as_listed(final)):
                continue
        except (FileNotFoundError, NotADirectoryError):
            break
        except OSError as error:
            if (error.errno in _FOREIGN or not patient) and os.path.lexists(final):
                continue
            raise
        temporary.unlink(missing_ok=True)
        _sync_folder(final.parent)
        return final
    return None


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """A regular file, to be read; links are not followed, pipes and devices not waited for."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(errno.EISDIR, "not a regular file", str(path))
        yield stream


def file_hash(path: Path) -> str:
    """Hex SHA-256 of a regular file."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sweep(folder: Path, owner: str, keep: Collection[Path]) -> None:
    """Remove what killed workers of this owner left in an output folder, but for what to `keep`."""
    for inside, names in walk(folder):
        for name in names:
            path = Path(inside, name)
            ours = name.startswith(".") and name.endswith(f"{owner}{TEMPORARY_SUFFIX}")
            if ours and path not in keep:
                with contextlib.suppress(OSError):
                    path.unlink()


def apply_after(
    action: Literal["delete"] | Path,
    root: Path,
    photo: Path,
    identity: Identity,
    still_there: Callable[[], object] = lambda: None,
) -> bool:
    """Move or delete a photo whose result is durable, if it is still the same file.

    `action` may be a folder to move to: sub-folders are mirrored, nothing is replaced there. When
    the photo has its name there, `still_there` may raise: then it is taken away from there again.
    Returns whether something was done.
    """
    source = root / photo
    if not _unchanged(source, identity):
        return False
    if action == "delete":
        source.unlink()
    else:
        _move(source, action / photo, identity, still_there)
    failpoint("outputs.after")
    _sync_folder(source.parent)
    return True


def _unchanged(path: Path, identity: Identity) -> bool:
    """Whether it is there as it was; an error where that can't be told now."""
    try:
        return Identity.of(path.lstat()).is_still(identity)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _same_file(path: Path, identity: Identity) -> bool:
    """Unchanged but for its ctime, which a second name changes too."""
    try:
        found = Identity.of(path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return False
    return replace(found, ctime_ns=identity.ctime_ns).is_still(identity)


def _move(
    source: Path, wanted: Path, identity: Identity, still_there: Callable[[], object]
) -> None:
    """Under a new name first, then away from the old one; what a crash left half done is ended."""
    _make_folder(wanted.parent)
    if source.parent.samefile(wanted.parent):  # it would be its own copy, and be deleted
        raise OSError(errno.ELOOP, f"{wanted.parent} leads back to its own folder")
    for goal in _names(wanted.with_suffix(""), wanted.suffix):
        try:
            _name_exclusively(source, goal)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.EXDEV}:
                raise
            if os.path.lexists(goal):
                if not _is_copy(source, goal):
                    continue
            else:
                _copy_durably(source, goal)
                if not _unchanged(source, identity):
                    goal.unlink()
                    return
        failpoint("outputs.moved")
        try:
            still_there()
        except Exception:
            goal.unlink(missing_ok=True)
            raise
        _sync_folder(goal.parent)
        if _same_file(source, identity):  # that took its time: another may lie there by now
            source.unlink(missing_ok=True)
        return


def _is_copy(one: Path, other: Path) -> bool:
    """Whether both are regular files with the same content, as far as can be told."""
    try:
        return _same_bytes(one, other)
    except OSError:
        return False


def _same_bytes(one: Path, other: Path) -> bool:
    """Whether both regular files have the same content; the first difference ends the reading."""
    if one.lstat().st_size != other.lstat().st_size:
        return False
    with open_regular(one) as first, open_regular(other) as second:
        while piece := first.read(_PIECE):
            if second.read(_PIECE) != piece:
                return False
        return not second.read(1)


def _copy_durably(source: Path, goal: Path) -> None:
    # Its own name may have no room; another daemon may bring a photo of that name here, too.
    temporary = goal.with_name(f".{_mark_of(source, 8)}{TEMPORARY_SUFFIX}")
    temporary.unlink(missing_ok=True)  # left by an earlier attempt with the same photo
    with open_regular(source) as photo, temporary.open("xb") as copy, _removed_on_error(temporary):
        shutil.copyfileobj(photo, copy)
        copy.flush()
        owner = os.fstat(photo.fileno())
        with contextlib.suppress(OSError):  # only root may give files away
            os.chown(copy.fileno(), owner.st_uid, owner.st_gid)
        with contextlib.suppress(OSError):  # FAT keeps no rights
            shutil.copystat(source, temporary, follow_symlinks=False)
        os.fsync(copy.fileno())
        if not _same_bytes(source, temporary):
            raise OSError(errno.EIO, "the copy differs from the photo", str(goal))
        _rename_exclusively(temporary, goal)


@contextlib.contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def _make_folder(folder: Path) -> None:
    """With all that are missing above it, durably: some file systems promise no order."""
    places = (folder, *folder.parents)
    for each in reversed([*itertools.takewhile(lambda place: not os.path.isdir(place), places)]):
        each.mkdir(exist_ok=True)
        _sync_folder(each.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network shares can't
            raise
    finally:
        os.close(descriptor)


def _forbidden(folder: Path) -> OutputFullError:
    return OutputFullError(
        f"{folder} can't be written",
        remedy="Check its permissions, and whether its disk is read-only; the daemon then goes on",
        reason=OutputFullError.forbidden,
    )


def _output_error(path: Path, error: Exception) -> OutputError:
    code = error.errno if isinstance(error, OSError) else None
    why = os.strerror(code) if code else str(error)
    if code == errno.EROFS:
        return _forbidden(path.parent)
    if code in _FULL:
        return OutputFullError(
            f"No space left at {path.parent}", remedy="Make room there; the daemon then goes on"
        )
    remedy = "Check the folder and its permissions"
    if code == errno.ENAMETOOLONG:
        remedy = "Give the photo, or the folder it is in, a shorter name"
    if code in {errno.EINVAL, errno.EILSEQ}:  # FAT and NTFS want no colon, and text
        remedy = "Give the photo, or the folder it is in, a plainer name: this disk can't hold it"
    return OutputError(
        f"{path.parent} can't be written: {why}",
        remedy=remedy,
        reason=errno.errorcode.get(code, "output").lower() if code else "output",
    )
