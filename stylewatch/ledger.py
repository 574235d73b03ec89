"""The ledger: every photo seen and every job, in one SQLite file that survives anything.

One writer, the daemon's thread; any number of readers. Each change is one durable transaction
(WAL, synchronous=FULL), so a `kill -9` loses nothing that was told of. Paths are kept as bytes.
Knows nothing of pictures, processes or folders on disk.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from random import Random
from typing import Any

from stylewatch.domain import Failure, FailureKind, Identity, JobState, Photo, Rendered
from stylewatch.errors import StylewatchError
from stylewatch.failpoints import failpoint
from stylewatch.retries import LONGEST_PAUSE, PERMISSION_PAUSE, judge

VERSION = 1

_SCHEMA = """
CREATE TABLE files (
    folder TEXT NOT NULL, path BLOB NOT NULL,
    dev INTEGER NOT NULL, ino INTEGER NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    plan TEXT NOT NULL,
    note TEXT NOT NULL, seen REAL NOT NULL,
    PRIMARY KEY (folder, path)
) WITHOUT ROWID;
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    folder TEXT NOT NULL, path BLOB NOT NULL, preset TEXT NOT NULL,
    key TEXT NOT NULL, digest TEXT NOT NULL, target BLOB NOT NULL,
    dev INTEGER NOT NULL, ino INTEGER NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0, tries INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0, created REAL NOT NULL, changed REAL NOT NULL,
    temporary BLOB, extension TEXT NOT NULL DEFAULT '', sha256 TEXT NOT NULL DEFAULT '',
    output BLOB, seconds REAL NOT NULL DEFAULT 0, loss REAL, note TEXT NOT NULL DEFAULT '',
    after_done INTEGER NOT NULL DEFAULT 0,
    UNIQUE (folder, path, preset, key)
);
CREATE INDEX jobs_by_state ON jobs (state, folder, id);
CREATE INDEX jobs_by_key ON jobs (key, state);
CREATE INDEX jobs_by_change ON jobs (changed);
CREATE TABLE results (
    key TEXT NOT NULL, output BLOB NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (key, output)
) WITHOUT ROWID;
"""

NO_PRESET = "no-preset"
"""The note of a file that no rule and no folder gave a preset."""

PENDING = (
    JobState.READY, JobState.RUNNING, JobState.PUBLISHING, JobState.RETRY_WAIT, JobState.BLOCKED,
)  # fmt: skip
_CLAIMABLE = (JobState.READY, JobState.RETRY_WAIT, JobState.BLOCKED)


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
    after_done: bool


@dataclass(frozen=True)
class Planned:
    """A job to be added for a photo."""

    preset: str
    key: str
    target: Path


def _path(raw: bytes | None) -> Path | None:
    return None if raw is None else Path(os.fsdecode(raw))


def _raw(path: Path) -> bytes:
    return os.fsencode(path)


def _job(row: sqlite3.Row) -> Job:
    values: dict[str, Any] = {
        name: row[name]
        for name in (
            *("id", "folder", "preset", "key", "digest", "reason", "message", "attempts"),
            *("created", "changed", "extension", "sha256", "seconds", "loss", "note"),
        )
    }
    return Job(
        **values,
        path=Path(os.fsdecode(row["path"])),
        target=Path(os.fsdecode(row["target"])),
        identity=Identity(*(row[name] for name in _IDENTITY)),
        state=JobState(row["state"]),
        temporary=_path(row["temporary"]),
        output=_path(row["output"]),
        after_done=bool(row["after_done"]),
    )


_IDENTITY = ("dev", "ino", "size", "mtime_ns", "ctime_ns")


class LedgerReader:
    """What anybody may ask while a daemon runs, or none does; never writes."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
        self._db.row_factory = sqlite3.Row

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def counts(self) -> dict[str, dict[JobState, int]]:
        """Jobs by folder and state."""
        counts: dict[str, dict[JobState, int]] = {}
        for row in self._db.execute(
            "SELECT folder, state, COUNT(*) AS n FROM jobs GROUP BY state, folder"
        ):
            counts.setdefault(row["folder"], {})[JobState(row["state"])] = row["n"]
        return counts

    def jobs(self, states: Iterable[JobState] = (), limit: int = 100) -> list[Job]:
        """Jobs in these states (all when empty), the latest change first."""
        wanted = [str(state) for state in states]
        where = f"WHERE state IN ({','.join('?' * len(wanted))})" if wanted else ""
        query = f"SELECT * FROM jobs {where} ORDER BY changed DESC, id DESC LIMIT ?"
        return [_job(row) for row in self._db.execute(query, (*wanted, limit))]

    def job(self, job_id: int) -> Job | None:
        """One job, or None."""
        row = self._db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return _job(row) if row else None

    def notes(self, limit: int = 100) -> list[tuple[str, Path, str]]:
        """Files that have no job, the latest first: (folder, relative path, why)."""
        rows = self._db.execute(
            "SELECT folder, path, note FROM files WHERE note != '' ORDER BY seen DESC LIMIT ?",
            (limit,),
        )
        return [(row["folder"], Path(os.fsdecode(row["path"])), row["note"]) for row in rows]

    def pace(self, recent: int = 20) -> float:
        """Seconds per photo, over the last ones done; 0 when there is none."""
        query = (
            "SELECT AVG(seconds) FROM (SELECT seconds FROM jobs WHERE state = ? AND seconds > 0"
            " ORDER BY changed DESC LIMIT ?)"
        )
        return float(self._db.execute(query, (JobState.DONE, recent)).fetchone()[0] or 0.0)


class Ledger(LedgerReader):
    """The writer's side."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        rng: Random | None = None,
        max_attempts: int = 3,
    ) -> None:
        self._path = path
        self._clock = clock
        self._rng = rng or Random()  # noqa: S311  (jitter, no secret)
        self._max_attempts = max_attempts
        path.parent.mkdir(parents=True, exist_ok=True)
        self.fresh = not path.exists()
        """There was no ledger: results on disk are all that is known of the past."""
        self.set_aside: Path | None = None
        """Where a damaged ledger was moved to."""
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise StylewatchError(f"The ledger {path} can't be opened: {error}") from error
            self._replace_damaged()

    def _open(self) -> None:
        self._db = sqlite3.connect(self._path, isolation_level=None, timeout=30.0)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        if self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("quick_check")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise StylewatchError(
                f"The ledger {self._path} belongs to a newer stylewatch",
                expected=f"version {VERSION} or older",
                received=str(version),
                remedy="Upgrade stylewatch, or give another state_dir",
            )
        if version < VERSION:
            with self.transaction():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {VERSION}")

    def _replace_damaged(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        number = 1
        while (aside := self._path.with_name(f"{self._path.name}.damaged-{number}")).exists():
            number += 1
        self._path.rename(aside)
        for ending in ("-wal", "-shm"):
            self._path.with_name(self._path.name + ending).unlink(missing_ok=True)
        self.fresh, self.set_aside = True, aside
        self._open()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; nested ones join the outer one."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        failpoint("ledger.before-commit")
        self._db.execute("COMMIT")
        failpoint("ledger.committed")

    # --- photos -----------------------------------------------------------------------------

    def knows(self, folder: str, path: Path, identity: Identity, plan: str) -> bool:
        """Whether this very file was dealt with; one without a preset only under the same plan."""
        row = self._db.execute(
            "SELECT * FROM files WHERE folder = ? AND path = ?", (folder, _raw(path))
        ).fetchone()
        return (
            row is not None
            and (row["note"] != NO_PRESET or row["plan"] == plan)
            and Identity(*(row[name] for name in _IDENTITY)) == identity
        )

    def note_file(
        self, folder: str, path: Path, identity: Identity, plan: str = "", note: str = ""
    ) -> None:
        """Remember a file in its present state; `note` says why it has no job, if it has none."""
        with self.transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO files VALUES (?,?,?,?,?,?,?,?,?,?)",
                (folder, _raw(path), *astuple(identity), plan, note, self._clock()),
            )

    def forget_file(self, folder: str, path: Path) -> None:
        """It has to be looked at again."""
        with self.transaction():
            self._db.execute(
                "DELETE FROM files WHERE folder = ? AND path = ?", (folder, _raw(path))
            )

    def add(self, photo: Photo, digest: str, plan: str, planned: Sequence[Planned]) -> list[int]:
        """Add the photo's jobs, supersede those of its earlier bytes; returns the jobs to do."""
        added = []
        with self.transaction():
            for wanted in planned:
                job_id = self._add_one(photo, digest, wanted)
                if job_id:
                    added.append(job_id)
            self.note_file(photo.folder, photo.path, photo.identity, plan)
        return added

    def _add_one(self, photo: Photo, digest: str, wanted: Planned) -> int:
        place = (photo.folder, _raw(photo.path), wanted.preset)
        now = self._clock()
        marks = ",".join("?" * len(_SUPERSEDABLE))
        self._db.execute(
            "UPDATE jobs SET state = ?, reason = 'changed', changed = ?"
            f" WHERE folder = ? AND path = ? AND preset = ? AND key != ? AND state IN ({marks})",
            (JobState.SUPERSEDED, now, *place, wanted.key, *_SUPERSEDABLE),
        )
        row = self._db.execute(
            "SELECT * FROM jobs WHERE folder = ? AND path = ? AND preset = ? AND key = ?",
            (*place, wanted.key),
        ).fetchone()
        if row is not None:
            return self._renew(_job(row), photo.identity, wanted.target)
        found = self._found(wanted)
        state = JobState.DONE if found else JobState.READY
        cursor = self._db.execute(
            "INSERT INTO jobs (folder, path, preset, key, digest, target, dev, ino, size,"
            " mtime_ns, ctime_ns, state, created, changed, output, sha256, after_done)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                *(*place, wanted.key, digest, _raw(wanted.target), *astuple(photo.identity)),
                *(state, now, now),
                *((found["output"], found["sha256"], 1) if found else (None, "", 0)),
            ),
        )
        return 0 if found else int(cursor.lastrowid or 0)

    def _renew(self, job: Job, identity: Identity, target: Path) -> int:
        """The same photo again, as a file of another identity: only what is not done is to do."""
        rearmed = job.state not in {*PENDING, JobState.DONE}
        state = JobState.READY if rearmed else job.state
        self._db.execute(
            "UPDATE jobs SET dev=?, ino=?, size=?, mtime_ns=?, ctime_ns=?, target=?, state=?,"
            " changed=?, failures=failures*?, crashes=crashes*?, tries=0 WHERE id=?",
            (
                *(*astuple(identity), _raw(target), state),
                *(self._clock() if rearmed else job.changed, not rearmed, not rearmed, job.id),
            ),
        )
        return job.id if rearmed else 0

    def _found(self, wanted: Planned) -> sqlite3.Row | None:
        """A result on disk, from before this ledger, that is this very job's."""
        stem = _raw(wanted.target)
        for row in self._db.execute("SELECT * FROM results WHERE key = ?", (wanted.key,)):
            rest = bytes(row["output"])[len(stem) :]
            if bytes(row["output"]).startswith(stem) and rest[:1] in {b".", b"~"}:
                return row  # type: ignore[no-any-return]
        return None

    def rebuild(self, results: Iterable[tuple[str, Path, str]]) -> int:
        """Learn what exists from the results themselves: (job key, path, SHA-256) each."""
        with self.transaction():
            cursor = self._db.executemany(
                "INSERT OR REPLACE INTO results VALUES (?,?,?)",
                ((key, _raw(path), sha256) for key, path, sha256 in results),
            )
        return cursor.rowcount

    # --- jobs -------------------------------------------------------------------------------

    def waiting(self, folders: Iterable[str]) -> list[str]:
        """The folders that have a job to claim now."""
        return [folder for folder in folders if self._next(folder) is not None]

    def claim(self, folder: str) -> Job | None:
        """Start the folder's next job: its attempt is on disk before anything is done."""
        with self.transaction():
            row = self._next(folder)
            if row is None:
                return None
            self._db.execute(
                "UPDATE jobs SET state=?, attempts=attempts+1, changed=?, reason='', message=''"
                " WHERE id=?",
                (JobState.RUNNING, self._clock(), row["id"]),
            )
        return self.job(row["id"])

    def _next(self, folder: str) -> sqlite3.Row | None:
        """First in, first out; a clock that was set back does not make a pause longer."""
        now = self._clock()
        horizon = now + max(LONGEST_PAUSE, PERMISSION_PAUSE)
        row: sqlite3.Row | None = None
        for state in _CLAIMABLE:
            found = self._db.execute(
                "SELECT id, not_before FROM jobs WHERE state = ? AND folder = ?"
                " AND (not_before <= ? OR not_before > ?) ORDER BY id LIMIT 1",
                (state, folder, now, horizon),
            ).fetchone()
            if found is not None and (row is None or found["id"] < row["id"]):
                row = found
        return row

    def next_due(self) -> float | None:
        """Wall-clock time when the next pause ends; None when nothing waits for one."""
        query = "SELECT MIN(not_before) FROM jobs WHERE state IN (?, ?)"
        due = self._db.execute(query, (JobState.RETRY_WAIT, JobState.BLOCKED)).fetchone()[0]
        return None if due is None else float(due)

    def same_result(self, job: Job) -> Job | None:
        """A job that is done and has the very same picture as its result."""
        row = self._db.execute(
            "SELECT * FROM jobs WHERE key = ? AND state = ? AND id != ? AND output IS NOT NULL"
            " ORDER BY id LIMIT 1",
            (job.key, JobState.DONE, job.id),
        ).fetchone()
        return _job(row) if row else None

    def publishing(self, job_id: int, rendered: Rendered) -> None:
        """The result is complete under its temporary name; from here on it will be published."""
        self._set(
            job_id,
            JobState.PUBLISHING,
            temporary=_raw(rendered.temporary),
            extension=rendered.extension,
            sha256=rendered.sha256,
            seconds=rendered.seconds,
            loss=rendered.loss,
            note=rendered.note,
        )

    def done(self, job_id: int, output: Path) -> None:
        """The result is durable under its name."""
        self._set(job_id, JobState.DONE, output=_raw(output), temporary=None, reason="", message="")

    def after_done(self, job_id: int) -> None:
        """What was to be done with the photo itself is done."""
        with self.transaction():
            self._db.execute("UPDATE jobs SET after_done = 1 WHERE id = ?", (job_id,))

    def fail(self, job_id: int, failure: Failure) -> JobState:
        """Write a failure down; returns what becomes of the job."""
        row = self._db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        again = row["tries"] if row["reason"] in {"", failure.reason} else 0
        verdict = judge(
            failure.kind,
            failures=row["failures"],
            crashes=row["crashes"],
            tries=again,
            max_attempts=self._max_attempts,
            rng=self._rng,
        )
        crashed = failure.kind in {FailureKind.CRASH, FailureKind.TIMEOUT}
        self._set(
            job_id,
            verdict.state,
            reason=failure.reason,
            message=failure.message,
            failures=row["failures"] + verdict.counted,
            crashes=row["crashes"] + crashed,
            tries=again + 1,
            not_before=self._clock() + verdict.pause if verdict.pause else 0,
            temporary=None,
        )
        return verdict.state

    def put_back(self, job_id: int) -> None:
        """Not done and not its fault: ready again, nothing counted."""
        self._set(job_id, JobState.READY, temporary=None)

    def vanished(self, job_id: int) -> None:
        """Its photo is gone."""
        self._set(job_id, JobState.VANISHED, reason="vanished")

    def published(self, job: Job, sha256: str) -> bool:
        """Whether that SHA-256 is a result published earlier for the same photo and preset."""
        row = self._db.execute(
            "SELECT 1 FROM jobs WHERE folder=? AND path=? AND preset=? AND sha256=?",
            (job.folder, _raw(job.path), job.preset, sha256),
        ).fetchone()
        return row is not None

    def overtaken(self, job: Job) -> bool:
        """Whether the photo has changed since and has a newer job for the same preset."""
        row = self._db.execute(
            "SELECT 1 FROM jobs WHERE folder=? AND path=? AND preset=? AND id>? AND state != ?",
            (job.folder, _raw(job.path), job.preset, job.id, JobState.SUPERSEDED),
        ).fetchone()
        return row is not None

    def supersede(self, job_id: int) -> None:
        """Its photo has newer bytes, or its preset newer numbers."""
        self._set(job_id, JobState.SUPERSEDED, reason="changed", temporary=None)

    def hold(self, job_id: int, reason: str) -> None:
        """It waits until what it needs is back in the config."""
        self._set(job_id, JobState.HELD, reason=reason)

    def rekey(self, job_id: int, key: str) -> bool:
        """The job's preset has changed; False when the ledger has that very job already."""
        with self.transaction():
            try:
                self._db.execute("UPDATE jobs SET key = ? WHERE id = ?", (key, job_id))
            except sqlite3.IntegrityError:
                return False
        return True

    def siblings_pending(self, job: Job) -> bool:
        """Whether other presets still need the same photo."""
        marks = ",".join("?" * len(PENDING))
        row = self._db.execute(
            f"SELECT 1 FROM jobs WHERE folder=? AND path=? AND id!=? AND state IN ({marks})",
            (job.folder, _raw(job.path), job.id, *PENDING),
        ).fetchone()
        return row is not None

    def retry(self, *, job_id: int | None = None, reason: str = "") -> int:
        """Ready again what was set aside: one job, those with a reason, or all; how many."""
        states = (*_RETRYABLE,)
        query = f"state IN ({','.join('?' * len(states))})"
        values: list[Any] = [*states]
        if job_id is not None:
            query, values = query + " AND id = ?", [*values, job_id]
        if reason:
            query, values = query + " AND reason = ?", [*values, reason]
        with self.transaction():
            cursor = self._db.execute(
                "UPDATE jobs SET state=?, failures=0, crashes=0, tries=0, not_before=0, changed=?"
                f" WHERE {query}",
                (JobState.READY, self._clock(), *values),
            )
        return cursor.rowcount

    def recover(self) -> list[Job]:
        """After a start: what ran is ready again; returns what was being published."""
        with self.transaction():
            self._db.execute(
                "UPDATE jobs SET state = ?, changed = ? WHERE state = ?",
                (JobState.READY, self._clock(), JobState.RUNNING),
            )
        return self.jobs([JobState.PUBLISHING], limit=-1)

    def hold_others(self, folders: Iterable[str]) -> None:
        """Jobs of folders that are not watched any more wait; those of returned ones go on."""
        kept = list(folders)
        marks = ",".join("?" * len(kept))
        now = self._clock()
        waiting = [str(state) for state in _CLAIMABLE]
        with self.transaction():
            self._db.execute(
                f"UPDATE jobs SET state=?, reason='folder', changed=? WHERE folder NOT IN ({marks})"
                f" AND state IN ({','.join('?' * len(waiting))})",
                (JobState.HELD, now, *kept, *waiting),
            )
            self._db.execute(
                "UPDATE jobs SET state=?, reason='', changed=?"
                f" WHERE state=? AND reason IN ('folder', 'preset') AND folder IN ({marks})",
                (JobState.READY, now, JobState.HELD, *kept),
            )

    def prune(self, days: float) -> int:
        """Forget jobs of photos that are gone, and what was superseded, after so many days."""
        before = self._clock() - days * 86400
        with self.transaction():
            cursor = self._db.execute(
                "DELETE FROM jobs WHERE changed < ? AND state IN (?, ?)",
                (before, JobState.SUPERSEDED, JobState.VANISHED),
            )
        return cursor.rowcount

    def _set(self, job_id: int, state: JobState, **columns: Any) -> None:
        names = ", ".join(f"{name} = ?" for name in ("state", "changed", *columns))
        with self.transaction():
            self._db.execute(
                f"UPDATE jobs SET {names} WHERE id = ?",
                (state, self._clock(), *columns.values(), job_id),
            )


_SUPERSEDABLE = (
    *(str(state) for state in PENDING if state is not JobState.RUNNING),
    JobState.QUARANTINED, JobState.HELD, JobState.DONE,
)  # fmt: skip
_RETRYABLE = (
    JobState.QUARANTINED, JobState.BLOCKED, JobState.RETRY_WAIT, JobState.HELD, JobState.VANISHED,
)  # fmt: skip
