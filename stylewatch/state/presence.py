"""Whether a photo that is remembered still lies where it lay.

Where that can't be told, as on a disk that does not answer, each of these is false. Knows nothing
of the ledger, and nothing of what follows.
"""

import stat
from pathlib import Path

from stylewatch.domain import Identity


def is_missing(file: Path) -> bool:
    """Whether there is surely no file of that name; a folder is none."""
    try:
        return stat.S_ISDIR(file.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def is_still(file: Path, before: Identity) -> bool:
    """Whether the file is surely there, untouched."""
    found = _identity(file)
    return found is not None and found.is_still(before)


def looks_like(file: Path, before: Identity) -> bool:
    """Whether the file, or a copy of it, is surely there: size and time are the same."""
    found = _identity(file)
    return found is not None and found.looks_like(before)


def _identity(file: Path) -> Identity | None:
    try:
        return Identity.of(file.lstat())
    except OSError:
        return None
