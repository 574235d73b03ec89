"""Which photo is being looked at: a mark on disk, which stays if that ends the process.

A decoder's C library may die of a strange file, and whoever starts us again would meet it again.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from stylewatch.domain import Identity
from stylewatch.errors import InputError
from stylewatch.state.wording import ENDED_US, NOTES

MARKS = "looked-at"  # in the state folder
_MOST = 2  # a power cut may come just then, but not twice


def forget_marks(folder: Path, before: float) -> None:
    """Delete the marks in `folder` that are older: the ledger knows of the file, or it is gone."""
    with contextlib.suppress(OSError):
        for mark in folder.iterdir():
            if mark.stat().st_mtime < before:
                mark.unlink()


@contextlib.contextmanager
def marked(folder: Path, photo: Identity) -> Iterator[None]:
    """Keep a photo's mark in `folder` while it is looked at; for a disk that is full, none.

    Raises:
        InputError: that ended the process each time. The marks stay until the file is another.
    """
    mark = folder / "-".join(map(str, (photo.ino, photo.size, photo.mtime_ns, photo.ctime_ns)))
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        with mark.open("ab") as stream:
            if stream.tell() >= _MOST:
                raise InputError(NOTES[ENDED_US], reason=ENDED_US)
            stream.write(b".")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            mark.unlink()
