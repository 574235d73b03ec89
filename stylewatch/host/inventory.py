"""A new ledger learns what was painted before it: the results in the outputs tell it themselves."""

import contextlib
import hashlib
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from stylewatch.domain import LEARNING, counted
from stylewatch.errors import OutputError, OutputFullError
from stylewatch.folders.listing import walk
from stylewatch.host.disks import require_mounted
from stylewatch.state.ledger import Ledger, Result

ReadFacts = Callable[[bytes], Mapping[str, str]]
"""What a result says of itself, given its bytes; raises where it is no result."""
LARGEST_RESULT = 1 << 29
"""Bytes; what is larger is nothing of ours."""
LEARN_SECONDS = 300.0  # between two signs of life while a ledger learns


class Stopped(Exception):  # noqa: N818  (how learning is left early)
    """The daemon is to end; the ledger is as new as before."""


def learn(
    ledger: Ledger,
    folders: Iterable[Path],
    read_facts: ReadFacts,
    tell: Callable[..., None],
    clock: Callable[[], float],
    is_stopped: Callable[[], bool],
) -> None:
    """Have a new ledger learn from the results in these folders what was painted before it.

    That takes an hour in an archive, so it is told now and then how far it is.

    Raises:
        OutputError: as `find_results`; or the disk of a folder is away.
        Stopped: `is_stopped` says so.
    """
    folders = list(folders)
    for folder in folders:
        try:
            require_mounted(folder, folder / "any", ledger)
        except OutputFullError as error:
            raise _not_now(error.problem) from error

    def told() -> Iterator[Result]:
        count, due = 0, clock() + LEARN_SECONDS
        for result in find_results(folders, read_facts):
            if is_stopped():
                raise Stopped
            count += result is not None
            if clock() >= due:  # also where it comes upon no result for long
                due = clock() + LEARN_SECONDS
                words = f"a new ledger: {counted(count, 'result')} read so far"
                tell("warning", words, reason=LEARNING)
            if result is not None:
                yield result

    if found := ledger.rebuild(told()):
        words = f"a new ledger: {counted(found, 'result')} found, not painted again"
        tell("warning", words, reason=LEARNING)


def find_results(folders: Iterable[Path], read_facts: ReadFacts) -> Iterator[Result | None]:
    """Every result in these folders; None for each other file, so that a walk can be left.

    Raises:
        OutputError: a folder can't be listed now; without its results all would be painted again.
    """

    def passed_over(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
            raise _not_now(f"{error.filename} can't be listed: {error.strerror}") from error

    for folder in folders:
        for inside, names in walk(folder, passed_over):
            for name in names:
                result = None
                if "--" in name and not name.startswith("."):
                    with contextlib.suppress(Exception):  # any strange file may lie there
                        result = _read(Path(inside, name), read_facts)
                yield result


def _not_now(problem: str) -> OutputError:
    return OutputError(
        problem,
        remedy="A new ledger learns there what was painted: start again "
        "when the folder can be read",
        reason="unlisted",
    )


def _read(file: Path, read_facts: ReadFacts) -> Result:
    """The result in a file; any exception means that it is none."""
    info = file.lstat()
    if not stat.S_ISREG(info.st_mode) or info.st_size > LARGEST_RESULT:
        raise ValueError(file)
    data = file.read_bytes()
    facts = read_facts(data)
    return Result(facts["job_key"], file, hashlib.sha256(data).hexdigest(), facts.get("photo", ""))
