"""Whether a photo that the ledger knows still lies where it lay.

Knows nothing of the ledger, and nothing of what follows from it.
"""

import stat
from pathlib import Path

from stylewatch.domain import Identity


def is_missing(file: Path) -> bool:
    """Surely, as where a folder has its name; what can't be looked at may be there."""
    try:
        return stat.S_ISDIR(file.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def is_still(file: Path, before: Identity) -> bool:
    """Whether it surely is there with the same bytes."""
    found = _identity(file)
    return found is not None and found.is_still(before)


def looks_like(file: Path, before: Identity) -> bool:
    """Whether it surely is there, or its copy; what has its name only is another."""
    found = _identity(file)
    return found is not None and found.looks_like(before)


def _identity(file: Path) -> Identity | None:
    try:
        return Identity.of(file.lstat())
    except OSError:
        return None
