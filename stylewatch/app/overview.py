"""What `status` and `jobs` tell: asked of the running daemon, or read from the ledger.

As stable data for programs, and as text for people. Knows nothing of the command line.
"""

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.cells import cell_len

from stylewatch.app.remote import Client
from stylewatch.domain import Hours, JobState
from stylewatch.errors import LedgerError, NotRunningError, StylewatchError
from stylewatch.faces.board import queue_seconds
from stylewatch.faces.lines import (
    clock,
    duration,
    in_folder,
    jsonable,
    short_path,
    size,
    time_left,
    visible,
)
from stylewatch.faces.wire import lives, step_of
from stylewatch.folders.settle import LACKS
from stylewatch.folders.space import trouble_of
from stylewatch.state.reader import Job, LedgerReader
from stylewatch.state.schema import LEDGER
from stylewatch.state.wording import (
    BROKEN_PRESET,
    IGNORED,
    LACKED,
    NOTES,
    PAINTING,
    by_word,
    explained,
    word_of,
)

Answer = TypeVar("Answer")

_UNTOLD: Final[Mapping[str, Any]] = {
    "paused": False, "paused_why": "", "folders": [], "settling": {}, "slow": {}, "slots": 1,
    "hours": [(0, 1440)], "running": [], "blocked": {}, "trouble": "", "refused": "", "waits": [],
    "lost": [], "counts": {}, "failed_files": {}, "held_files": {}, "pace": 0.0, "work": {},
}  # fmt: skip
"""What a daemon has to tell that waits until its ledger can be written."""
_AT_ONCE: Final = 500  # jobs read at once
_OF_A_JOB: Final = (
    "preset", "attempts", "created", "changed", "output", "seconds", "loss", "note", "key",
)  # fmt: skip
FAILED: Final = (JobState.QUARANTINED, JobState.BLOCKED, JobState.RETRY_WAIT)
"""The jobs that `--failed` lists: what has failed, and what may if its trouble goes on."""
WIDEST: Final = 60
"""The most cells that a column gets: one very long name only moves its own line."""

# --- status ---------------------------------------------------------------------------------------


def look(state_dir: Path, clock: Callable[[], float] = time.time) -> dict[str, Any]:
    """How things stand, for `status`; `running` says whether a daemon answers."""
    about: Mapping[str, Any] | None = None
    try:
        with Client(state_dir) as client:
            about = client.about
            return _from_daemon(about, client.ask("status"), clock())
    except NotRunningError as error:
        about, problem = None, str(error)
    except StylewatchError as error:
        if error.reason != LedgerError.reason:
            raise
        problem = str(error)
    try:
        folders = _from_ledger(state_dir)
    except LedgerError as error:
        folders, problem = [], f"{problem}. {error}"
    if about is None:
        return {"running": False, "folders": folders, "problem": problem}
    found = _from_daemon(about, {"trouble": problem}, clock())
    stands = {"state": "blocked", "detail": "", "arriving": 0}
    return {**found, "folders": [{**_at_rest(each), **stands} for each in folders]}


def _from_daemon(about: Mapping[str, Any], told: Mapping[str, Any], now: float) -> dict[str, Any]:
    told = {**_UNTOLD, **told}
    folders = [
        {
            "name": health["folder"],
            "input": health["root"],
            "state": health["state"],
            "detail": health["detail"],
            "arriving": told["settling"].get(health["folder"], 0),
            **by_word(health["folder"], told["counts"], told["failed_files"], told["held_files"]),
        }
        for health in told["folders"]
    ]
    slow = [
        {"folder": name, "photo": one["path"], "why": one["why"], "since": one["since"]}
        for name, files in told["slow"].items()
        for one in files
    ]
    painting = [
        {
            "id": one["job"]["id"],
            "photo": one["job"]["path"],
            "preset": one["job"]["preset"],
            "seconds": one["seconds"],
            "memory": one.get("memory", 0),
            "step": one["step"],
        }
        for one in told["running"]
    ]
    left = queue_seconds(
        [(one["seconds"], one["step"] and step_of(one["step"]).left) for one in painting],
        [(each["state"], each["waiting"], told["work"].get(each["name"], 0.0)) for each in folders],
        told["pace"],
        told["slots"],
        [Hours(*each) for each in told["hours"]],
        now,
    )
    return {
        "running": True,
        "pid": about.get("pid"),
        "version": about.get("version"),
        "config": about.get("config"),
        "paused": told["paused"],
        "paused_why": told["paused_why"],
        "folders": folders,
        "slow": slow,
        "painting": painting,
        "blocked": told["blocked"],
        "trouble": told["trouble"],
        "refused": told["refused"],
        "waits": told["waits"],
        "lost": told["lost"],
        "seconds_per_photo": told["pace"],
        "queue_seconds": None if told["paused"] else left,
    }


def _from_ledger(state_dir: Path) -> list[dict[str, Any]]:
    alive = lives(state_dir)

    def read(reader: LedgerReader) -> list[dict[str, Any]]:
        counts, places = reader.counts(), reader.places()
        failed, held = reader.failed_files(), reader.held_files()
        names = sorted(counts.keys() | failed.keys() | held.keys())
        stand = {name: by_word(name, counts, failed, held) for name in names}
        return [
            {
                "name": name,
                "input": jsonable(places.get(name, "")),
                **(found if alive else _at_rest(found)),
            }
            for name, found in stand.items()
        ]

    return _read(state_dir, read) or []


def _at_rest(counts: dict[str, Any]) -> dict[str, Any]:
    """The counts while nothing is painted: what was in work when that ended waits."""
    return {**counts, "waiting": counts["waiting"] + counts["painting"], "painting": 0}


def overview_text(found: Mapping[str, Any], width: int = sys.maxsize) -> str:
    """What `look` has found, as text for a terminal of that width."""
    head = "no daemon answers"
    if found["running"]:
        head = f"stylewatch {found['version']} runs as process {found['pid']}"
        head += f", paused {found['paused_why']}".rstrip() if found["paused"] else ""
    names = ["waiting", "painting", "done", "failed"]
    if found["running"]:
        names.insert(0, "arriving")
    if any(folder["held"] for folder in found["folders"]):
        names.append("held")
    lines = [head, *_folders_text(found["folders"], names, width)]
    several = len(found["folders"]) > 1
    for one in found.get("slow", ()):
        since = clock(one["since"], time.time(), "%H:%M")
        text = f"{one['photo']}: {one['why']}, waiting since {since}"
        lines.append(in_folder(text, one["folder"] if several else "", one["photo"]))
    lines += [
        f"#{one['id']} {one['photo']} → {one['preset']}  {_step_text(one)}"
        for one in found.get("painting", ())
    ]
    lines += [found["trouble"]] if found.get("trouble") else []
    lines += [f"the old config goes on: {found['refused']}"] if found.get("refused") else []
    lines += found.get("waits", ())
    lines += [f"does not answer: {part}" for part in found.get("lost", ())]
    blocked = [trouble_of(path, why) for path, why in found.get("blocked", {}).items()]
    told = {folder.get("detail") for folder in found["folders"]}
    lines += [f"blocked: {trouble}" for trouble in blocked if trouble not in told]
    if found.get("queue_seconds"):
        lines.append(f"the queue is empty in about {duration(found['queue_seconds'])}")
    return "\n".join(visible(line) for line in lines)


def _folders_text(
    folders: Sequence[Mapping[str, Any]], names: Sequence[str], width: int
) -> list[str]:
    """A table of the folders, or, if that is too wide, a few words about each."""
    rows, words = [["folder", "state", *names, ""]], []
    for folder in folders:
        about = visible(folder.get("detail") or short_path(folder.get("input", "")))
        state = folder.get("state", "")
        rows.append([folder["name"], state or "-", *(str(folder[n]) for n in names), about])
        counts = [f"{folder[name]} {name}" for name in names if folder[name]]
        words.append(f"{folder['name']}: {', '.join(filter(None, [state, *counts]))}")
        words += [f"  {about}"] if about else []
    return _table(rows, words, width) if folders else []


def _step_text(one: Mapping[str, Any]) -> str:
    step = step_of(one["step"]) if one["step"] else None
    far = [f"{step.fraction:.0%}", time_left(step)] if step else [f"for {duration(one['seconds'])}"]
    return ", ".join(filter(None, [*far, size(one["memory"]) if one.get("memory") else ""]))


# --- jobs -----------------------------------------------------------------------------------------


def list_jobs(
    state_dir: Path, states: Iterable[JobState], limit: int, *, notes: bool = False
) -> tuple[Iterator[dict[str, Any]], int | None]:
    """Jobs in these states (all if empty), and how many there are without the limit.

    First those in work, then those that wait, in their order, then the latest change. Files without
    a job follow: held ones if that is among the states, failed and ignored ones with `notes`. The
    number is None if there is no ledger yet.

    A job is read when its turn comes: so of hundreds of thousands few are in memory, and a reader
    that takes its time does not hold up the ledger. When no daemon is alive, jobs that were in work
    when it was killed are told as waiting.
    """
    alive, asked = lives(state_dir), set(states)
    wanted, held = _wanted(asked, alive=alive), JobState.HELD in asked

    def read(reader: LedgerReader) -> tuple[Iterator[dict[str, Any]], int]:
        numbers = reader.numbers(wanted, limit)
        left = limit - len(numbers)
        files = reader.notes(left) if notes else []
        files += reader.last_held_files(left - len(files)) if held else []
        jobs, places = _jobs(state_dir, numbers, wanted, alive=alive), reader.places()
        rows = chain(
            (_job_dict(job, places.get(job.folder)) for job in jobs),
            (_file_dict(*file, places.get(file[0])) for file in files),
        )
        return rows, _how_many(reader, wanted, notes=notes, held=held)

    return _read(state_dir, read) or (iter(()), None)


def reasons_aside(state_dir: Path) -> set[str]:
    """The reasons of all jobs that were set aside and can be retried."""

    def read(reader: LedgerReader) -> set[str]:
        held = reader.reasons([JobState.HELD]) - LACKED
        return reader.reasons(FAILED) | held

    return _read(state_dir, read) or set()


def word_of_job(state_dir: Path, job_id: int) -> str:
    """Where one job stands, in the words that all commands use."""

    def read(reader: LedgerReader) -> str:
        job = reader.job(job_id)
        return reader.told(job).word if job else "gone"

    return _read(state_dir, read) or "gone"


def _wanted(states: set[JobState], *, alive: bool) -> set[JobState]:
    """The states to ask the ledger for, given those that are asked for here (all if empty).

    They differ when no daemon is `alive`: then jobs in work are told as ready.
    """
    wanted = states or set(JobState)
    if alive:
        return wanted
    return wanted | {*PAINTING} if JobState.READY in wanted else wanted - {*PAINTING}


def _how_many(
    reader: LedgerReader, wanted: Collection[JobState], *, notes: bool, held: bool
) -> int:
    """How many jobs and files `list_jobs` would give without a limit."""
    counts = [each for folder in reader.counts().values() for each in folder.items()]
    count = sum(number for state, number in counts if state in wanted)
    count += reader.count_notes() if notes else 0
    return count + (sum(reader.held_files().values()) if held else 0)


def _jobs(
    state_dir: Path, numbers: Sequence[int], wanted: Collection[JobState], *, alive: bool
) -> Iterator[Job]:
    """The jobs with these numbers that are still in a state that is wanted, some read at a time."""
    for start in range(0, len(numbers), _AT_ONCE):
        some = partial(_jobs_with, numbers=numbers[start : start + _AT_ONCE])
        for job in _read(state_dir, some) or ():
            if job.state in wanted:
                at_rest = not alive and job.state in PAINTING
                yield replace(job, state=JobState.READY) if at_rest else job


def _jobs_with(reader: LedgerReader, numbers: Sequence[int]) -> list[Job]:
    return [reader.told(job) for job in reader.jobs_with(numbers)]


def _job_dict(job: Job, place: Path | None) -> dict[str, Any]:
    return {
        "id": job.id,
        "state": str(job.state),
        "folder": job.folder,
        "input": jsonable(place),
        "photo": jsonable(job.path),
        "preset": job.preset,
        "reason": None if job.is_on_its_way or job.state is JobState.DONE else job.reason or None,
        "message": jsonable(job.trouble) or None,
        "attempts": job.attempts,
        "created": job.created,
        "changed": job.changed,
        "output": jsonable(job.output),
        "seconds": job.seconds or None,  # nobody painted it: it failed, waits, or was copied
        "loss": job.loss,
        "note": job.note or None,
        "key": job.key,
    }


def _file_dict(folder: str, path: Path, why: str, place: Path | None) -> dict[str, Any]:
    """A file that never became a job, with the same keys as a job."""
    return {
        **dict.fromkeys(("id", *_OF_A_JOB)),
        "state": "no job",
        "folder": folder,
        "input": jsonable(place),
        "photo": jsonable(path),
        "reason": why,
        "message": explained(why, {**LACKS, **NOTES}.get(why, "")) or None,
    }


def jobs_text(found: Sequence[Mapping[str, Any]], width: int = sys.maxsize) -> str:
    """What `list_jobs` gives: a table, or, where a terminal of that width has no room, words."""
    if not found:
        return "no such jobs"
    several = len({job["folder"] for job in found}) > 1
    rows: list[list[str]] = []
    words: list[str] = []
    for job in found:
        is_job = job["id"] is not None
        when = time.strftime("%d %b %H:%M", time.localtime(job["changed"])) if is_job else ""
        about = job["message"] or short_path(job["output"] or job["reason"] or "")
        number = f"#{job['id']}" if is_job else "-"
        place = [short_path(job["input"] or job["folder"])] if several else []
        rows.append([number, _word(job), when, job["preset"] or "", *place, job["photo"], about])
        what = "/".join([*place, job["photo"]]) + (f" → {job['preset']}" if is_job else "")
        words += [f"{number} {_word(job)}: {what}", *([f"  {about}"] if about else [])]
    return "\n".join(map(visible, _table(rows, words, width)))


def _word(job: Mapping[str, Any]) -> str:
    """Where a photo stands, in the words that all commands use."""
    if job["id"] is None:
        reason = job["reason"]
        return "ignored" if reason in IGNORED else "held" if reason == BROKEN_PRESET else "failed"
    return word_of(JobState(job["state"]), has_result=bool(job["output"]))


def _table(rows: Sequence[Sequence[str]], words: list[str], width: int) -> list[str]:
    """The rows in columns, a last cell without room below its line; else, if too wide, `words`."""
    cells = [[visible(cell) for cell in row] for row in rows]
    widths = [min(max(map(cell_len, column)), WIDEST) for column in zip(*cells, strict=True)]
    lines: list[str] = []
    for *first, last in cells:
        padded = zip(first, widths, strict=False)
        start = "".join(f"{cell}{' ' * (w - cell_len(cell))}  " for cell, w in padded)
        whole = f"{start}{last}".rstrip()
        if cell_len(start.rstrip()) > width:
            return words
        below = last.rstrip() and cell_len(whole) > width
        lines += [start.rstrip(), f"    {last.rstrip()}"] if below else [whole]
    return lines


def _read(state_dir: Path, question: Callable[[LedgerReader], Answer]) -> Answer | None:
    """What the ledger answers to a question; None if there is no ledger yet."""
    file = state_dir / LEDGER
    try:
        if not file.exists():
            return None
    except OSError as error:
        raise LedgerError(
            f"{state_dir} can't be read: {error.strerror}",
            remedy="Ask as the user that the daemon runs as",
        ) from error
    with closing(LedgerReader(file)) as reader:
        return question(reader)
