"""Which results there are, as the files alone tell: all that a new ledger knows of the past."""

import contextlib
import hashlib
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from stylewatch.errors import OutputError
from stylewatch.folders.listing import walk

LARGEST_RESULT = 1 << 29
"""Bytes; what is larger is nothing of ours."""


def find_results(
    folders: Iterable[Path], read_facts: Callable[[bytes], Mapping[str, str]]
) -> Iterator[tuple[str, Path, str, str]]:
    """Every result in these folders, as told by the files alone.

    Job key, path, SHA-256, and that of its photo where the result knows it.

    Raises:
        OutputError: a folder can't be listed now; without its results all would be painted again.
    """

    def passed_over(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
            raise OutputError(
                f"{error.filename} can't be listed: {error.strerror}",
                remedy="The ledger is new, and finds there what was painted: start again "
                "when the folder can be read",
                reason="unlisted",
            ) from error

    for folder in folders:
        for inside, names in walk(folder, passed_over):
            for path in (Path(inside, name) for name in names):
                if "--" in path.name and not path.name.startswith("."):
                    with contextlib.suppress(Exception):  # any strange file may lie there
                        info = path.lstat()
                        if stat.S_ISREG(info.st_mode) and info.st_size <= LARGEST_RESULT:
                            data = path.read_bytes()
                            facts, sha256 = read_facts(data), hashlib.sha256(data).hexdigest()
                            yield facts["job_key"], path, sha256, facts.get("photo", "")
