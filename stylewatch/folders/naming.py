"""Names on disk: given in one step, durably, and never in place of another file.

Knows nothing of what lies under them.
"""

import codecs
import contextlib
import ctypes
import errno
import hashlib
import itertools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

TEMPORARY_SUFFIX = ".sw-tmp"
"""Ends the names of files that are being written; they begin with a dot."""

LONGEST_NAME = 255
"""Bytes, on every file system in use."""

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
_RENAME_NOREPLACE = 1
_AT_FDCWD = -100


def as_people_sort(path: Path) -> list[str | int]:
    """What paths are sorted by in file managers: without regard to case, IMG_2 before IMG_10."""
    parts: list[str | int] = [*re.split(r"(\d+)", str(path).casefold())]
    parts[1::2] = map(int, parts[1::2])
    return parts


def numbered(target: Path, extension: str) -> Iterator[Path]:
    """`name.jpg`, then `name~2.jpg`, `name~3.jpg` and so on; a long name is cut."""
    yield target.with_name(f"{target.name}{extension}")
    for number in itertools.count(2):
        ending = f"~{number}{extension}"
        room = LONGEST_NAME - len(os.fsencode(ending))
        yield target.with_name(f"{cut(os.fsencode(target.name), room)}{ending}")


def cut(name: bytes, room: int) -> str:
    """The first `room` bytes of a name, without half a character, which some shares refuse."""
    decoder = codecs.getincrementaldecoder(sys.getfilesystemencoding())
    return decoder(sys.getfilesystemencodeerrors()).decode(name[:room])


def as_listed(path: Path) -> Path:
    """The path as its folder has it: a disk that ignores case has `img.jpg` for `IMG.jpg`."""
    try:
        names = os.listdir(path.parent)  # noqa: PTH208  (of bytes that are no text, too)
    except OSError:  # a folder that may be written to and not be listed
        return path
    alike = (name for name in names if name.casefold() == path.name.casefold())
    return path if path.name in names else path.with_name(next(alike, path.name))


def name_exclusively(file: Path, final: Path) -> None:
    """Give a file a second name, or, where there are no links (exFAT, some shares), rename it.

    Raises:
        FileExistsError: the name is another's.
    """
    try:
        os.link(file, final, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EEXIST and os.path.samestat(file.lstat(), final.lstat()):
            return  # a share did it, lost its answer, and was asked again
        if error.errno not in _NO_LINKS:
            raise
        rename_exclusively(file, final)


def rename_exclusively(temporary: Path, final: Path) -> None:
    """Rename a file, replacing none; on an old kernel or file system that is not quite sure."""
    libc = ctypes.CDLL(None, use_errno=True)
    old, new = os.fsencode(temporary), os.fsencode(final)
    if libc.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_NOREPLACE) == 0:
        return
    code = ctypes.get_errno()
    if code not in {errno.EINVAL, errno.ENOSYS}:
        raise OSError(code, os.strerror(code), str(final))
    if os.path.lexists(final):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
    temporary.rename(final)


def make_folder(folder: Path) -> None:
    """Make a folder, and all that are missing above it, durably one after the other."""
    places = (folder, *folder.parents)
    for each in reversed([*itertools.takewhile(lambda place: not os.path.isdir(place), places)]):
        each.mkdir(exist_ok=True)
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in it durable."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # it may be written to and not be listed
        os.sync()
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network shares can't
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def removed_on_error(path: Path) -> Iterator[None]:
    """Within it a file is written; if that fails, it is removed."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def mark_of(path: Path, size: int) -> str:
    """A hash of a path on this machine, `size` bytes as hex.

    On a network share it tells two machines apart that use the same path.
    """
    try:
        machine = Path("/etc/machine-id").read_bytes()
    except OSError:
        machine = b""
    here = (machine or os.fsencode(os.uname().nodename)) + os.fsencode(path)
    return hashlib.blake2b(here, digest_size=size).hexdigest()
