"""The ledger's questions and answers: what the daemon, `status` and `jobs` read of it.

Never writes, so that anybody may ask while a daemon runs.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from stylewatch.domain import Identity, JobState, Photo
from stylewatch.errors import LACKING, LedgerError
from stylewatch.state.schema import VERSION, ledger_error, version_error
from stylewatch.state.wording import (
    BROKEN_PRESET,
    HELD,
    IGNORED,
    NO_PRESET,
    PAINTING,
    WAITING,
    explained,
    word_of,
)

_NO_FAILURES: Final = ", ".join(f"'{note}'" for note in ("", NO_PRESET, BROKEN_PRESET, *IGNORED))
"""Notes of files that did not fail. The index `files_failed` is of all others: it stays small."""
_FAILED_FILES: Final = (
    f"FROM files INDEXED BY files_failed WHERE note NOT IN ({_NO_FAILURES}) AND gone = 0"
)
_HELD_FILES: Final = f"FROM files INDEXED BY files_held WHERE note = '{BROKEN_PRESET}' AND gone = 0"
_NOTED_FILES: Final = (
    f"FROM files WHERE note NOT IN ('', '{NO_PRESET}', '{BROKEN_PRESET}') AND gone = 0"
)

_WAITING_STATES: Final = ", ".join(f"'{state}'" for state in WAITING)
WAITING_JOBS: Final = f"FROM jobs INDEXED BY jobs_waiting WHERE state IN ({_WAITING_STATES})"

NONE_PAINTED_SINCE: Final = (
    "NOT EXISTS (SELECT 1 FROM jobs AS later WHERE later.state = 'done' AND later.seconds > 0"
    " AND later.preset = jobs.preset AND later.changed > jobs.changed)"
)
"""Of a job that failed: nothing was painted in its preset after that."""

APART = 2
"""`after_done` of a job whose photo is gone, and whose name another photo has by now."""

_LATEST: Final = "changed DESC, id DESC"
_AT_ONCE = 500  # files read in one query
_RECENT = 20  # results from which a pace is told
_REMEMBERED = 1000  # files by which a folder is recognised
_SAME = 5  # results that may be copied: people delete some, so one would not do
_NOTHING_TO_DO = (JobState.DONE, JobState.SUPERSEDED, JobState.VANISHED)
_IDENTITY = ("dev", "ino", "size", "mtime_ns", "ctime_ns")
_AS_THEY_ARE = (
    "id", "folder", "preset", "key", "digest", "reason", "message", "attempts", "crashes",
    "created", "changed", "extension", "sha256", "seconds", "loss", "note",
)  # fmt: skip
"""The columns of `jobs` whose values are a job's own."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One photo times one preset, as the ledger has it."""

    id: int
    folder: str
    path: Path
    """Relative to its folder's input."""
    preset: str
    key: str
    digest: str
    target: Path
    """The result's intended path without extension."""
    identity: Identity
    state: JobState
    reason: str
    message: str
    attempts: int
    crashes: int
    created: float
    changed: float
    """Wall-clock times of its making and of its last change of state."""
    temporary: Path | None
    extension: str
    sha256: str
    output: Path | None
    seconds: float
    loss: float | None
    note: str

    @property
    def word(self) -> str:
        """Where it stands, for people; right of a superseded job only as `told` gives it."""
        return word_of(self.state, has_result=self.output is not None)

    @property
    def is_on_its_way(self) -> bool:
        """Nothing keeps it from being done: if it has a `reason`, that is of the past."""
        return self.state in {JobState.READY, *PAINTING}

    @property
    def trouble(self) -> str:
        """What keeps it from being done, with the remedy; else empty."""
        match self.state:
            case JobState.QUARANTINED:
                return explained(self.reason, self.message)
            case JobState.RETRY_WAIT | JobState.BLOCKED:
                return self.message
            case JobState.HELD:
                return HELD.get(self.reason, self.reason)
        return ""


def path_of(raw: bytes) -> Path:
    """A path from its bytes in the ledger."""
    return Path(os.fsdecode(raw))


def identity_of(row: sqlite3.Row) -> Identity:
    """The identity of the file that a row of `files` or `jobs` is about."""
    return Identity(*(row[name] for name in _IDENTITY))


def job_of(row: sqlite3.Row) -> Job:
    """The job from its row in `jobs`."""
    values: dict[str, Any] = {name: row[name] for name in _AS_THEY_ARE}
    return Job(
        **values,
        path=path_of(row["path"]),
        target=path_of(row["target"]),
        identity=identity_of(row),
        state=JobState(row["state"]),
        temporary=row["temporary"] and path_of(row["temporary"]),
        output=row["output"] and path_of(row["output"]),
    )


class LedgerReader:
    """A ledger, open to be read.

    Raises:
        LedgerError: there is no ledger, or it can't be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
        except sqlite3.Error as error:
            remedy = "The first `stylewatch watch` or `stylewatch run` makes it"
            problem = f"The ledger {path} can't be opened: {error}"
            raise LedgerError(problem, remedy=remedy) from error
        self._db.row_factory = sqlite3.Row
        try:
            self._require_version(path)
        except LedgerError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _require_version(self, path: Path) -> None:
        version = self._value("PRAGMA user_version")
        if version not in {0, VERSION}:  # 0: it is just being made
            raise version_error(path, version)

    def ask(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """All rows that a query gives."""
        return list(self._rows(query, *values))

    def _rows(self, query: str, *values: Any) -> Iterator[sqlite3.Row]:
        try:
            yield from self._db.execute(query, values)
        except sqlite3.Error as error:
            raise ledger_error(error) from error

    def _one(self, query: str, *values: Any) -> sqlite3.Row | None:
        return next(iter(self.ask(query, *values)), None)

    def _value(self, query: str, *values: Any) -> Any:
        """The only value that a query gives: a pragma, or a count."""
        [[value]] = self.ask(query, *values)
        return value

    # --- folders and their files --------------------------------------------------------------

    def places(self) -> dict[str, Path]:
        """Where each folder lies, or lay when it was watched last."""
        rows = self.ask("SELECT name, input FROM folders")
        return {row["name"]: path_of(row["input"]) for row in rows}

    def inode_of(self, place: Path) -> tuple[int, int] | None:
        """Device and inode of the folder that lay at this place when one was last seen there."""
        row = self._one("SELECT dev, ino FROM folders WHERE input = ?", os.fsencode(place))
        return None if row is None or row["dev"] is None else (row["dev"], row["ino"])

    def mounts(self) -> set[Path]:
        """The mount points of all disks that results or photos were to be written to."""
        return {path_of(row["path"]) for row in self.ask("SELECT path FROM mounts")}

    def has_files(self, folder: str) -> bool:
        """Whether any file of a folder is known, be it missing."""
        return self._one("SELECT 1 FROM files WHERE folder = ? LIMIT 1", folder) is not None

    def remembered(self, folder: str, *, missed: bool = True) -> list[tuple[Path, Identity]]:
        """Files of a folder, the last seen first, as each was then; with those that are missing."""
        query = (
            "SELECT * FROM files WHERE folder = ? AND (gone = 0 OR ?)"
            f" ORDER BY seen DESC LIMIT {_REMEMBERED}"
        )
        rows = self.ask(query, folder, missed)
        return [(path_of(row["path"]), identity_of(row)) for row in rows]

    def present(self, folder: str) -> Iterator[str]:
        """The files of a folder without those that are missing, read a few at a time.

        At last missing ones that are told as failed or held: when they went away their disk did,
        too, so that nobody could tell whether they are gone for good.
        """
        last = b""
        query = "SELECT path FROM files WHERE folder = ? AND path > ? AND gone = 0"
        while rows := self.ask(f"{query} ORDER BY path LIMIT {_AT_ONCE}", folder, last):
            yield from (os.fsdecode(row["path"]) for row in rows)
            last = rows[-1]["path"]
        query = (
            "SELECT path FROM jobs JOIN files USING (folder, path)"
            " WHERE state IN (?, ?) AND folder = ? AND gone > 0"
        )
        told = self.ask(query, JobState.QUARANTINED, JobState.HELD, folder)
        yield from (os.fsdecode(row["path"]) for row in told)

    def _file(self, folder: str, path: Path) -> sqlite3.Row | None:
        """The row about the file with that name."""
        query = "SELECT * FROM files WHERE folder = ? AND path = ?"
        return self._one(query, folder, os.fsencode(path))

    def is_matched(self, job: Job, plan: str) -> bool:
        """Whether a job was made by what the config says now, for which `plan` stands."""
        file = self._file(job.folder, job.path)
        if file is None or file["note"] not in {"", NO_PRESET, BROKEN_PRESET}:
            return True
        return bool(file["plan"] == plan)

    def has_come_again(self, photo: Photo) -> bool:
        """Whether a file of its name was known, and was missing, or was another."""
        row = self._file(photo.folder, photo.path)
        return row is not None and (row["gone"] > 0 or row["ino"] != photo.identity.ino)

    def notes(self, limit: int = 100) -> list[tuple[str, Path, str]]:
        """Files that failed or were ignored before they had a job, failures first.

        Each with its folder, its path in it, and why.
        """
        order = f"note IN ({_NO_FAILURES}), seen DESC"
        return self._noted(f"{_NOTED_FILES} ORDER BY {order}", limit)

    def count_notes(self) -> int:
        """How many files `notes` would name without a limit."""
        return int(self._value(f"SELECT COUNT(*) {_NOTED_FILES}"))

    def last_held_files(self, limit: int) -> list[tuple[str, Path, str]]:
        """The latest files that wait for a preset that can't be used now: folder, path, why."""
        return self._noted(f"{_HELD_FILES} ORDER BY seen DESC", limit)

    def _noted(self, which: str, limit: int) -> list[tuple[str, Path, str]]:
        rows = self.ask(f"SELECT folder, path, note {which} LIMIT ?", limit)
        return [(row["folder"], path_of(row["path"]), row["note"]) for row in rows]

    def held_files(self) -> dict[str, int]:
        """How many files of each folder wait for a preset that can't be used now."""
        return self._by_folder(_HELD_FILES)

    def failed_files(self) -> dict[str, int]:
        """How many files of each folder failed before they had a job."""
        return self._by_folder(_FAILED_FILES)

    def _by_folder(self, which: str) -> dict[str, int]:
        rows = self.ask(f"SELECT folder, COUNT(*) AS n {which} GROUP BY folder")
        return {row["folder"]: row["n"] for row in rows}

    def last_failed_files(self, folder: str, limit: int) -> list[tuple[Path, str, float]]:
        """A folder's latest files that failed before they had a job: relative path, why, when."""
        query = f"SELECT path, note, seen {_FAILED_FILES} AND folder = ? ORDER BY seen DESC LIMIT ?"
        rows = self.ask(query, folder, limit)
        return [(path_of(row["path"]), row["note"], row["seen"]) for row in rows]

    # --- jobs ---------------------------------------------------------------------------------

    def counts(self) -> dict[str, dict[JobState, int]]:
        """Jobs by folder and state."""
        counts: dict[str, dict[JobState, int]] = {}
        query = "SELECT folder, state, COUNT(*) AS n FROM jobs GROUP BY state, folder"
        for row in self.ask(query):
            counts.setdefault(row["folder"], {})[JobState(row["state"])] = row["n"]
        return counts

    def job(self, job_id: int) -> Job | None:
        """One job, or None."""
        row = self._one("SELECT * FROM jobs WHERE id = ?", job_id)
        return job_of(row) if row else None

    def jobs(self, states: Iterable[JobState] = JobState) -> list[Job]:
        """Jobs in these states, the latest change first."""
        return [job_of(row) for row in self._in_order("*", states)]

    def numbers(self, states: Iterable[JobState], limit: int) -> list[int]:
        """The numbers of jobs in these states, in the order in which people want to see them.

        First those in work, then those that wait, in their order, then the latest change.
        """
        wanted = set(states)
        painting, waiting = wanted & {*PAINTING}, wanted & {*WAITING}
        rest = wanted - painting - waiting
        found: list[int] = []
        for some, order in ((painting, _LATEST), (waiting, "id"), (rest, _LATEST)):
            found += (row["id"] for row in self._in_order("id, changed", some, order, limit))
        return found[:limit]

    def jobs_with(self, numbers: Sequence[int]) -> list[Job]:
        """The jobs with these numbers, in this order; those that were deleted are left out."""
        rows = self.ask(f"SELECT * FROM jobs WHERE id IN ({marks(numbers)})", *numbers)
        found = {row["id"]: row for row in rows}
        return [job_of(found[number]) for number in numbers if number in found]

    def jobs_of(self, folder: str, path: Path) -> list[Job]:
        """The jobs of one photo without those that are superseded or have vanished.

        Those may be tens of thousands, as where one picture is overwritten each minute.
        """
        query = "SELECT * FROM jobs WHERE folder = ? AND path = ? AND state NOT IN (?, ?)"
        ended = (JobState.SUPERSEDED, JobState.VANISHED)
        return [job_of(row) for row in self.ask(query, folder, os.fsencode(path), *ended)]

    def reasons(self, states: Sequence[JobState]) -> set[str]:
        """The reasons of all jobs in these states."""
        query = f"SELECT DISTINCT reason FROM jobs WHERE state IN ({marks(states)})"
        return {row["reason"] for row in self.ask(query, *states)}

    def _in_order(
        self, columns: str, states: Iterable[JobState], order: str = _LATEST, limit: int = -1
    ) -> Iterator[sqlite3.Row]:
        """Rows of jobs in these states, each state read along an index, no further than needed."""
        if wanted := [*states]:
            each = [f"SELECT {columns} FROM jobs WHERE state = ?"] * len(wanted)
            query = f"{' UNION ALL '.join(each)} ORDER BY {order} LIMIT ?"
            yield from self._rows(query, *wanted, limit)

    def next_jobs(self, folder: str, limit: int) -> list[Job]:
        """Jobs of one folder that wait, in the order of their turns."""
        query = "SELECT * FROM jobs WHERE state = ? AND folder = ? ORDER BY id LIMIT ?"
        found = [job_of(row) for state in WAITING for row in self.ask(query, state, folder, limit)]
        return sorted(found, key=lambda job: job.id)[:limit]

    def last_jobs(self, state: JobState, folder: str, limit: int) -> list[Job]:
        """Jobs of one folder in that state, the last added first."""
        query = "SELECT * FROM jobs WHERE state = ? AND folder = ? ORDER BY id DESC LIMIT ?"
        return [job_of(row) for row in self.ask(query, state, folder, limit)]

    def lacks(self) -> dict[str, str]:
        """Presets in which nothing can be painted now, as weights or images are away, and why.

        Where others were painted since, one photo may be too much for a GPU, but nothing is away.
        """
        query = (
            "SELECT preset, message FROM jobs"
            f" WHERE state = ? AND reason IN ({marks(LACKING)}) AND {NONE_PAINTED_SINCE}"
            " ORDER BY id"
        )
        rows = self.ask(query, JobState.RETRY_WAIT, *LACKING)
        return {row["preset"]: row["message"] for row in rows}

    def held_for(self) -> list[tuple[str, str, int]]:
        """What photos are held for: `folder` or `preset`, its name, and how many."""
        query = (
            "SELECT reason, CASE reason WHEN 'folder' THEN folder ELSE preset END AS name,"
            f" COUNT(*) AS n FROM jobs WHERE state = ? AND reason IN ('folder', '{BROKEN_PRESET}')"
            " GROUP BY reason, name"
        )
        return [(row["reason"], row["name"], row["n"]) for row in self.ask(query, JobState.HELD)]

    def pace(self) -> float:
        """Seconds per photo, the mean of the last results but copies; 0 if there are none."""
        query = (
            "SELECT AVG(nullif(seconds, 0)) FROM"
            f" (SELECT seconds FROM jobs WHERE state = ? ORDER BY {_LATEST} LIMIT ?)"
        )
        return float(self._value(query, JobState.DONE, _RECENT) or 0.0)

    def pace_of(self, preset: str) -> float:
        """Likewise of one preset."""
        query = (
            "SELECT AVG(seconds) FROM (SELECT seconds FROM jobs INDEXED BY jobs_painted"
            " WHERE state = 'done' AND seconds > 0 AND preset = ? ORDER BY changed DESC LIMIT ?)"
        )
        return float(self._value(query, preset, _RECENT) or 0.0)

    def work(self) -> dict[str, float | None]:
        """By folder, the seconds that its jobs that wait will take, as their presets took lately.

        A preset that has painted nothing yet counts like what was painted last. None where some
        wait for what their preset lacks, and nobody knows how long.
        """
        query = f"SELECT folder, preset, COUNT(*) AS n {WAITING_JOBS} GROUP BY folder, preset"
        work: dict[str, float | None] = {}
        lacks = self.lacks()
        for row in self.ask(query):
            seconds = row["n"] * (self.pace_of(row["preset"]) or self.pace())
            before = work.get(row["folder"], 0.0)
            known = before is not None and row["preset"] not in lacks
            work[row["folder"]] = before + seconds if known else None
        return work

    def presets_of(self, job: Job) -> set[str]:
        """The presets in which the photo of this job is painted, is to be, or has failed."""
        jobs = self.jobs_of(job.folder, job.path)
        return {each.preset for each in jobs if each.digest == job.digest}

    def presets_in(self, folder: str, sub_folder: str) -> list[str]:
        """The presets that photos in a sub-folder ever had."""
        query = "SELECT DISTINCT preset FROM jobs WHERE folder = ? AND path > ? AND path < ?"
        name = os.fsencode(sub_folder)
        return [row["preset"] for row in self.ask(query, folder, name + b"/", name + b"0")]

    def is_overtaken(self, job: Job) -> bool:
        """Whether another job for the same photo and preset has taken this one's place.

        That is a job of the file as it was last seen. If this job is of that very file too, the
        other must be the later one: the preset has changed. If the file has changed since, it may
        also be an earlier one: the file may have its former bytes again.
        """
        file = self._file(job.folder, job.path)
        seen = identity_of(file) if file else None
        others = (
            each.id
            for each in self.jobs_of(job.folder, job.path)
            if each.preset == job.preset and each.id != job.id and each.identity == seen
        )
        return any(other > job.id or job.identity != seen for other in others)

    # --- results ------------------------------------------------------------------------------

    def last_results(self, folder: str, limit: int) -> list[tuple[Path, Path, str]]:
        """A folder's latest results: each with its photo, its place, and its SHA-256."""
        query = (
            "SELECT path, output, sha256 FROM jobs"
            " WHERE state = ? AND folder = ? AND output IS NOT NULL ORDER BY id DESC LIMIT ?"
        )
        rows = self.ask(query, JobState.DONE, folder, limit)
        return [(path_of(row["path"]), path_of(row["output"]), row["sha256"]) for row in rows]

    def same_results(self, job: Job) -> list[Job]:
        """The last few jobs that are done and have the same key, and so the same picture."""
        query = (
            "SELECT * FROM jobs INDEXED BY jobs_by_key WHERE key = ? AND state = 'done' AND id != ?"
            f" AND output IS NOT NULL ORDER BY id DESC LIMIT {_SAME}"
        )
        return [job_of(row) for row in self.ask(query, job.key, job.id)]

    def results_of(self, job: Job) -> list[Job]:
        """The jobs of this photo that are done, in all presets."""
        jobs = self.jobs_of(job.folder, job.path)
        return [each for each in jobs if each.state is JobState.DONE and each.digest == job.digest]

    def outputs_of(self, job: Job) -> list[Path]:
        """Where results for this photo and preset were ever published; the files may be gone."""
        query = (
            "SELECT DISTINCT output FROM jobs WHERE folder = ? AND path = ? AND preset = ?"
            " AND output IS NOT NULL"
        )
        rows = self.ask(query, job.folder, os.fsencode(job.path), job.preset)
        return [path_of(row["output"]) for row in rows]

    def was_published(self, job: Job, sha256: str) -> bool:
        """Whether that SHA-256 is a result published earlier for the same photo and preset.

        Results of a former photo, whose name this one has by now, do not count.
        """
        row = self._one(
            "SELECT 1 FROM jobs LEFT JOIN results USING (key)"
            " WHERE folder=? AND path=? AND preset=? AND ? IN (jobs.sha256, results.sha256)"
            f" AND after_done != {APART}",
            *(job.folder, os.fsencode(job.path), job.preset, sha256),
        )
        return row is not None

    def is_taken(self, job: Job, output: Path, sha256: str = "") -> bool:
        """Whether a file is the result of another job than this.

        Where people take a result away, another may get its name: the `sha256` of the file's bytes
        tells whose it is then.
        """
        row = self._one(
            "SELECT 1 FROM jobs WHERE output = ? AND ? IN ('', sha256) AND id != ?"
            " AND state = 'done'",
            *(os.fsencode(output), sha256, job.id),
        )
        return row is not None

    def told(self, job: Job) -> Job:
        """The job as people are told of it.

        A superseded job counts as without a result where another job's result has taken its place.
        """
        if job.state is not JobState.SUPERSEDED or job.output is None:
            return job
        return replace(job, output=None) if self.is_taken(job, job.output) else job

    def after_pending(self) -> list[int]:
        """The jobs that are done, and whose photos still have to be moved, deleted or left."""
        query = (
            "SELECT id FROM jobs INDEXED BY jobs_unattended WHERE state = 'done' AND after_done = 0"
        )
        return [row["id"] for row in self.ask(query)]

    def after_is_due(self, job_id: int, *, stays: bool = False) -> bool:
        """Whether the photo of this job can be moved or deleted now, or left, if it `stays`.

        Not while the photo is missing, nor while it is to be looked at again (`forget_file`) or is
        held for a broken preset, which may bring more jobs; nor, unless it stays, while a job of it
        for another preset waits or has failed.
        """
        query = (
            "SELECT 1 FROM jobs AS job WHERE id = ? AND state = 'done' AND after_done = 0"
            " AND (? OR NOT EXISTS ("
            "SELECT 1 FROM jobs AS other WHERE other.folder = job.folder"
            " AND other.path = job.path AND other.digest = job.digest"
            f" AND other.state NOT IN ({marks(_NOTHING_TO_DO)})))"
            " AND NOT EXISTS (SELECT 1 FROM files WHERE files.folder = job.folder"
            " AND files.path = job.path AND (files.gone > 0 OR files.ctime_ns = -1"
            f" OR files.note = '{BROKEN_PRESET}'))"
        )
        return self._one(query, job_id, stays, *_NOTHING_TO_DO) is not None


def marks(values: Sequence[object]) -> str:
    """A question mark for each value, as in `IN (?,?,?)`."""
    return ",".join("?" * len(values))
