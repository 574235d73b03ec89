"""Which results lie in the output folders, as their files alone tell: for a new ledger."""

import contextlib
import hashlib
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from stylewatch.errors import OutputError
from stylewatch.folders.listing import walk
from stylewatch.state.ledger import Result

ReadFacts = Callable[[bytes], Mapping[str, str]]
"""What a result says of itself, given its bytes; raises where it is no result."""
LARGEST_RESULT = 1 << 29
"""Bytes; what is larger is nothing of ours."""


def find_results(folders: Iterable[Path], read_facts: ReadFacts) -> Iterator[Result]:
    """Every result in these folders.

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
            for name in names:
                if "--" in name and not name.startswith("."):
                    with contextlib.suppress(Exception):  # any strange file may lie there
                        yield _read(Path(inside, name), read_facts)


def _read(file: Path, read_facts: ReadFacts) -> Result:
    """The result in a file; any exception means that it is none."""
    info = file.lstat()
    if not stat.S_ISREG(info.st_mode) or info.st_size > LARGEST_RESULT:
        raise ValueError(file)
    data = file.read_bytes()
    facts = read_facts(data)
    return Result(facts["job_key"], file, hashlib.sha256(data).hexdigest(), facts.get("photo", ""))
