"""The content of regular files: opened, hashed, compared; never a link, a pipe or a device."""

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

_PIECE = 1 << 16  # bytes that are read at once of files that are compared


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file to be read, without following links, or waiting for a pipe.

    Raises:
        IsADirectoryError: it is no regular file, be it a folder or something else.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(errno.EISDIR, "not a regular file", str(path))
        yield stream


def file_hash(path: Path) -> str:
    """Hex SHA-256 of a regular file."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def same_bytes(one: Path, other: Path) -> bool:
    """Whether both regular files have the same content; the first difference ends the reading."""
    if one.lstat().st_size != other.lstat().st_size:
        return False
    with open_regular(one) as first, open_regular(other) as second:
        while piece := first.read(_PIECE):
            if second.read(_PIECE) != piece:
                return False
        return not second.read(1)
