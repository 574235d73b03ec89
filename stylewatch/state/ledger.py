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
from stylewatch.errors import LACKING, OutputFullError
from stylewatch.failpoints import failpoint
from stylewatch.state.reader import APART, Job, LedgerReader, identity_of, job_of, marks
from stylewatch.state.retries import after_interruption, judge, kind_of
from stylewatch.state.schema import ledger_error, open_ledger
from stylewatch.state.wording import BROKEN_PRESET, NO_PRESET, PAINTING, TOO_LARGE, WAITING

PLANNED_NOTES = {NO_PRESET, BROKEN_PRESET, TOO_LARGE}
"""Notes that another config may make untrue."""
PASSING_NOTES = {"writer", "unreadable"}
"""Notes that may become untrue without a change of the file itself."""

AGAIN = "again"
"""Why a job is done whose photo has come again, as the very same, after its result was made."""

_INTERRUPTED = "interrupted"
_REBUILT = 0x5354594C  # the file's application_id once `rebuild` is through

_SUPERSEDABLE = (
    JobState.READY, JobState.RETRY_WAIT, JobState.BLOCKED, JobState.PUBLISHING,
    JobState.DONE, JobState.QUARANTINED, JobState.HELD,
)  # fmt: skip
_RETRYABLE = (JobState.QUARANTINED, JobState.BLOCKED, JobState.RETRY_WAIT, JobState.HELD)


@dataclass(frozen=True)
class Planned:
    """A job to be added for a photo."""

    preset: str
    key: str
    target: Path


class Ledger(LedgerReader):
    """The writer's side: all that changes it, and what is asked on the way.

    Raises:
        LedgerError: nothing was changed then, and all can be tried again.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        rng: Random | None = None,
        max_attempts: int = 3,
    ) -> None:
        self._clock = clock
        self._rng = rng or Random()  # noqa: S311  (jitter, no secret)
        self.max_attempts = max_attempts
        self._idle: dict[str, tuple[float, object]] = {}  # folders without a job, see `waiting`
        self._db, self.set_aside = open_ledger(path)
        """`set_aside`: where a damaged ledger was moved to."""

    @property
    def fresh(self) -> bool:
        """It was never told which results exist: they are all that is known of the past."""
        return bool(self._value("PRAGMA application_id") != _REBUILT)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; nested ones join the outer one."""
        if self._db.in_transaction:
            yield
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            failpoint("ledger.before-commit")
            self._db.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):  # what failed may have done it already
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise ledger_error(error) from error
            raise
        failpoint("ledger.committed")

    @property
    def changes(self) -> int:
        """Another number whenever something was written."""
        return self._db.total_changes

    @property
    def now(self) -> float:
        """The wall-clock time that it writes down."""
        return self._clock()

    def change(self, query: str, *values: Any) -> int:
        """Change rows, alone or within a transaction; how many."""
        with self.transaction():
            return self._db.execute(query, values).rowcount

    def shrink(self, pages: int) -> bool:
        """Give so many unused pages of the file back; whether there are more."""
        before = self._value("PRAGMA freelist_count")
        self.ask(f"PRAGMA incremental_vacuum({int(pages)})")
        return bool(0 < self._value("PRAGMA freelist_count") < before)

    # --- folders ----------------------------------------------------------------------------

    def note_folder(
        self,
        name: str,
        place: Path,
        inode: tuple[int, int] | None,
        moved: str | None = None,
        volume: str = "",
        *,
        another: bool = False,
    ) -> None:
        """Write down which folder lies in a place that the config calls so.

        What is known of photos belongs to the place: where that had another name, its jobs and
        files get the new one. They also follow a folder that was `moved` there and had that name.
        `inode` is None where none has ever been, `volume` the disk's name where it is known: in
        `another` folder and on another disk all photos are `missed`, but are back once seen there.
        """
        raw, (dev, ino) = os.fsencode(place), inode or (None, None)
        with self.transaction():
            if moved:  # a config that was changed before: no folder has ever been there
                self.change("DELETE FROM folders WHERE input = ? AND dev IS NULL", raw)
            known = self._one(
                "SELECT name, volume FROM folders WHERE input = ? OR name = ? ORDER BY input != ?",
                *(raw, moved, raw),
            )
            before = known["volume"] if known else ""
            if known is None or known["name"] != name:
                other = self._one("SELECT input FROM folders WHERE name = ?", name)
                if other:
                    its_place = _text(os.fsdecode(other["input"]))
                    self._rename_folder(name, f"{name} ({its_place})")
                if known:
                    self._rename_folder(known["name"], name)
            query = "INSERT OR REPLACE INTO folders VALUES (?,?,?,?,?)"
            self.change(query, name, raw, dev, ino, volume or before)
            if another or (volume and before not in {"", volume}):
                query = "UPDATE files SET gone = ? WHERE folder = ? AND gone = 0"
                self.change(query, self._clock(), name)

    def _rename_folder(self, name: str, new: str) -> None:
        self.change("UPDATE OR REPLACE folders SET name = ? WHERE name = ?", new, name)
        for table in ("jobs", "files", "painted"):
            query = f"UPDATE OR REPLACE {table} SET folder = ? WHERE folder = ?"
            self.change(query, new, name)

    def note_mount(self, mount: Path) -> None:
        """A disk is mounted there."""
        self.change("INSERT OR IGNORE INTO mounts VALUES (?)", os.fsencode(mount))

    def forget_mount(self, mount: Path) -> None:
        """It is to go on without the disk that was mounted there."""
        self.change("DELETE FROM mounts WHERE path = ?", os.fsencode(mount))

    def results_moved(self, folder: str, before: Path, now: Path) -> None:
        """What is painted of a folder's photos was moved, with the output that it is in."""
        old, new = (os.fsencode(place) + b"/" for place in (before, now))
        with self.transaction():
            for table in ("jobs", "painted"):
                self.change(
                    f"UPDATE {table} SET output = CAST(? || substr(output, ?) AS BLOB)"
                    " WHERE folder = ? AND substr(output, 1, ?) = ?",
                    *(new, len(old) + 1, folder, len(old), old),
                )

    # --- photos -----------------------------------------------------------------------------

    def knows(self, folder: str, path: Path, identity: Identity, plan: str) -> bool:
        """Whether this very file was dealt with; if the config kept it out: this very config.

        One that was `missed` is back then.
        """
        place = (folder, os.fsencode(path))
        row = self._file(folder, path)
        known = (
            row is not None
            and row["note"] not in PASSING_NOTES
            and (row["note"] not in PLANNED_NOTES or row["plan"] == plan)
            and identity.is_still(identity_of(row))
        )
        if row and known and row["gone"]:
            self.change("UPDATE files SET gone = 0 WHERE folder = ? AND path = ?", *place)
        return known

    def missed(self, folder: str, path: Path) -> None:
        """A photo that lay there does not any more: it is away, or gone for good."""
        self.change(
            "UPDATE files SET gone = ? WHERE folder = ? AND path = ? AND gone = 0",
            *(self._clock(), folder, os.fsencode(path)),
        )

    def _set_apart(
        self, folder: str, path: Path, digest: str = "", keys: Sequence[str] = ()
    ) -> None:
        """Where a photo was `missed`, another file has its name: it never replaces its results.

        `digest`: of its bytes, if known; what is painted of these stays the photo's own, and so
        does what was painted long ago with these `keys`.
        """
        place = (folder, os.fsencode(path))
        where = "WHERE folder = ? AND path = ?"
        if self.change(f"UPDATE files SET gone = 0 {where} AND gone > 0", *place):
            apart = f"UPDATE jobs SET after_done = {APART} {where} AND digest != ?"
            self.change(apart, *place, digest)
            other = f"DELETE FROM painted {where} AND key NOT IN ({marks(keys)})"
            self.change(other, *place, *keys)

    def _file(self, folder: str, path: Path) -> sqlite3.Row | None:
        """What is known of the file with that name."""
        query = "SELECT * FROM files WHERE folder = ? AND path = ?"
        return self._one(query, folder, os.fsencode(path))

    def note_file(
        self, folder: str, path: Path, identity: Identity, plan: str = "", note: str = ""
    ) -> None:
        """Remember a file in its present state; `note` says why it has no job, if it has none."""
        with self.transaction():
            self._set_apart(folder, path)
            self.change(
                "INSERT OR REPLACE INTO files VALUES (?,?,?,?,?,?,?,?,?,?,0)",
                *(folder, os.fsencode(path), *astuple(identity), plan, _text(note), self._clock()),
            )

    def forget_file(self, folder: str, path: Path) -> None:
        """Have it looked at again, by making it look changed: no file has the ctime -1."""
        query = "UPDATE files SET ctime_ns = -1, note = '' WHERE folder = ? AND path = ?"
        self.change(query, folder, os.fsencode(path))

    def add(
        self,
        photo: Photo,
        digest: str,
        plan: str,
        planned: Sequence[Planned],
        *,
        stays: bool = False,
    ) -> list[int]:
        """Add the photo's jobs, supersede those of its earlier bytes; returns the jobs to do.

        `stays`: photos stay in this folder when they are painted.
        """
        added = []
        with self.transaction():
            known = self._file(photo.folder, photo.path)
            lay_there = known is not None and photo.identity.looks_like(identity_of(known))
            keys = [wanted.key for wanted in planned]
            self._set_apart(photo.folder, photo.path, digest, keys)
            for wanted in planned:
                job_id = self._add_one(photo, digest, wanted, stays, stays and lay_there)
                if job_id:
                    added.append(job_id)
            self.note_file(photo.folder, photo.path, photo.identity, plan)
        return added

    def _add_one(
        self, photo: Photo, digest: str, wanted: Planned, stays: bool, settled: bool
    ) -> int:
        """`settled`: it lay there before, just so; of a result nothing is left to be done."""
        place = (photo.folder, os.fsencode(photo.path), wanted.preset)
        now = self._clock()
        self.change(
            "UPDATE jobs SET state = ?, reason = 'changed', changed = ?"
            " WHERE folder = ? AND path = ? AND preset = ? AND key != ?"
            f" AND state IN ({marks(_SUPERSEDABLE)})",
            *(JobState.SUPERSEDED, now, *place, wanted.key, *_SUPERSEDABLE),
        )
        row = self._one(
            "SELECT * FROM jobs WHERE folder = ? AND path = ? AND preset = ? AND key = ?",
            *(*place, wanted.key),
        )
        if row is not None:
            return self._renew(job_of(row), photo.identity, wanted.target, stays)
        found = self._painted(place, wanted) or self._found(place, digest if stays else "", wanted)
        state, key, result = JobState.READY, wanted.key, (None, "", False, "")
        if found:
            state, key = JobState.DONE, found["key"]
            result = (found["output"], found["sha256"], settled, "" if settled else AGAIN)
        cursor = self._db.execute(
            "INSERT INTO jobs (folder, path, preset, key, digest, target, dev, ino, size,"
            " mtime_ns, ctime_ns, state, created, changed, output, sha256, after_done, reason)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                *(*place, key, digest, os.fsencode(wanted.target), *astuple(photo.identity)),
                *(state, now, now, *result),
            ),
        )
        return 0 if found else int(cursor.lastrowid or 0)

    def _renew(self, job: Job, identity: Identity, target: Path, stays: bool) -> int:
        """The same photo has come again as another file: what failed is tried anew.

        What is done is not painted again, but its new file is moved or deleted too. Where photos
        stay, one as old as it was has not come anew: its disk was mounted again, or its rights
        were changed. A result that was taken away since stays away.
        """
        if job.state in PAINTING:
            target = job.target  # its temporary file lies there
        settled = stays and identity.looks_like(job.identity) and job.state is JobState.DONE
        reason = AGAIN if job.state is JobState.DONE and not settled else job.reason
        self.change(
            "UPDATE jobs SET dev=?, ino=?, size=?, mtime_ns=?, ctime_ns=?, target=?, reason=?,"
            " tries=0, after_done=(after_done > 0 AND ?) WHERE id=?",
            *(*astuple(identity), os.fsencode(target), reason, settled, job.id),
        )
        if job.is_on_its_way or job.state is JobState.DONE:
            return 0
        self._set(job.id, JobState.READY, failures=0, crashes=0, not_before=0)
        return job.id

    def _painted(self, place: tuple[str, bytes, str], wanted: Planned) -> sqlite3.Row | None:
        """What is left of this very job, done long ago, unless it was painted otherwise since."""
        where = "folder = ? AND path = ? AND preset = ?"
        return self._one(
            f"SELECT * FROM painted WHERE {where} AND key = ? AND NOT EXISTS"
            f" (SELECT 1 FROM jobs WHERE {where} AND sha256 != '')",
            *(*place, wanted.key, *place),
        )

    def _found(
        self, place: tuple[str, bytes, str], stayed: str, wanted: Planned
    ) -> sqlite3.Row | None:
        """A result on disk, from before this ledger, that is this very job's.

        For the digest of a photo that `stayed` in its folder, and is new to the ledger, also one
        from before the preset was changed.
        """
        stem = os.fsencode(wanted.target)
        where = "WHERE folder = ? AND path = ? AND preset = ?"
        query = (
            "SELECT * FROM results WHERE key = ? OR photo = ? AND photo != ''"
            f" AND NOT EXISTS (SELECT 1 FROM jobs {where})"
            f" AND NOT EXISTS (SELECT 1 FROM painted {where}) ORDER BY key != ?, output"
        )
        for row in self.ask(query, wanted.key, stayed, *place, *place, wanted.key):
            rest = bytes(row["output"])[len(stem) :]
            if bytes(row["output"]).startswith(stem) and rest[:1] in {b".", b"~"}:
                return row
        return None

    def rebuild(self, results: Iterable[tuple[str, Path, str, str]]) -> int:
        """Learn what exists from the results: (job key, path, SHA-256, the photo's digest) each."""
        with self.transaction():
            rows = ((key, os.fsencode(path), *digests) for key, path, *digests in results)
            self._db.executemany("INSERT OR REPLACE INTO results VALUES (?,?,?,?)", rows)
            self.change(f"PRAGMA application_id = {_REBUILT}")
            return int(self._value("SELECT COUNT(*) FROM results"))

    # --- jobs -------------------------------------------------------------------------------

    def waiting(self, folders: Iterable[str]) -> list[str]:
        """The folders that have a job to claim now.

        One that had none has none until something is written, a pause ends or the clock is set
        back: to find that out again means to look at each of its hundreds of thousands that wait.
        """
        now, state = self._clock(), (self.changes, self.next_due())
        for folder in (names := [*folders]):
            asked, before = self._idle.get(folder, (now, None))
            if before == state and asked <= now:
                continue
            self._idle.pop(folder, None)
            if self._next(folder) is None:
                self._idle[folder] = now, state
        return [folder for folder in names if folder not in self._idle]

    def claim(self, folder: str) -> Job | None:
        """Start the folder's next job: its attempt is on disk before anything is done."""
        with self.transaction():
            row = self._next(folder)
            if row is None:
                return None
            self.change(
                "UPDATE jobs SET state=?, attempts=attempts+1, changed=? WHERE id=?",
                *(JobState.RUNNING, self._clock(), row["id"]),
            )
        return self.job(row["id"])

    def _next(self, folder: str) -> sqlite3.Row | None:
        """First in, first out; a clock that was set back ends all pauses.

        What is ready has none, though one may be left from before its folder was away. While one
        photo waits for weights or an image of its preset, so do all others of it: they lack the
        same. So do those whose results belong into the same folder while one can't be written
        there: each would be tried in turn, and thousands keep the other photos waiting.
        """
        now = self._clock()
        waits = "FROM jobs WHERE state = ? AND not_before > ? AND changed <= ? AND reason IN"
        output = OutputFullError.reasons
        query = (
            "SELECT id FROM jobs WHERE state = ? AND folder = ?"
            f" AND (state = '{JobState.READY}' OR not_before <= ? OR changed > ?)"
            f" AND preset NOT IN (SELECT preset {waits} ({marks(LACKING)}))"
            f" AND dirname(target) NOT IN (SELECT dirname(target) {waits} ({marks(output)}))"
            " ORDER BY id LIMIT 1"
        )
        lacking = (JobState.RETRY_WAIT, now, now, *LACKING)
        closed = (JobState.BLOCKED, now, now, *output)
        found = [self._one(query, state, folder, now, now, *lacking, *closed) for state in WAITING]
        return min((row for row in found if row), key=lambda row: int(row["id"]), default=None)

    def next_due(self) -> float | None:
        """Wall-clock time when the next pause ends; None when nothing waits for one."""
        query = "SELECT MIN(not_before) FROM jobs WHERE state IN (?, ?) AND not_before > ?"
        due: float | None = self._value(query, JobState.RETRY_WAIT, JobState.BLOCKED, self._clock())
        return due

    def publishing(self, job_id: int, rendered: Rendered) -> None:
        """The result is complete under its temporary name; from here on it will be published."""
        with self.transaction():
            self.change(  # what it may replace is remembered as ours
                "INSERT OR REPLACE INTO results (key, output, sha256)"
                " SELECT key, output, sha256 FROM jobs WHERE id = ? AND output IS NOT NULL",
                job_id,
            )
            self._set(
                job_id,
                JobState.PUBLISHING,
                temporary=os.fsencode(rendered.temporary),
                extension=rendered.extension,
                sha256=rendered.sha256,
                seconds=rendered.seconds,
                loss=rendered.loss,
                note=_text(rendered.note),
            )

    def done(self, job_id: int, output: Path) -> None:
        """The result is durable under its name."""
        self._set(
            job_id, JobState.DONE, output=os.fsencode(output), temporary=None, reason="", message=""
        )

    def replaced(self, job: Job, output: Path) -> None:
        """An older result of the same photo and preset, which had another name, is gone."""
        self.change(
            "UPDATE jobs SET output = NULL"
            " WHERE folder = ? AND path = ? AND preset = ? AND output = ? AND state = ?",
            *(job.folder, os.fsencode(job.path), job.preset, os.fsencode(output)),
            JobState.SUPERSEDED,
        )

    def after_done(self, job: Job, *, acted: bool = True) -> None:
        """Its photo is moved or deleted, or stays as the config wants it.

        Not `acted`: there is another file by now, which other jobs of the same picture may know.
        """
        others = "" if acted else " AND (dev, ino, size, mtime_ns, ctime_ns) = (?, ?, ?, ?, ?)"
        self.change(
            "UPDATE jobs SET after_done = 1, reason = ''"
            f" WHERE folder = ? AND path = ? AND digest = ? AND state = ?{others}",
            *(job.folder, os.fsencode(job.path), job.digest, JobState.DONE),
            *(() if acted else astuple(job.identity)),
        )

    def fail(self, job_id: int, failure: Failure) -> JobState:
        """Write a failure down; returns what becomes of the job."""
        row = self._one("SELECT * FROM jobs WHERE id = ?", job_id)
        assert row is not None
        again = row["tries"] if row["reason"] == failure.reason else 0
        verdict = judge(
            kind_of(failure),
            failures=row["failures"],
            crashes=row["crashes"],
            tries=again,
            max_attempts=self.max_attempts,
            rng=self._rng,
        )
        crashed = failure.kind is FailureKind.CRASH
        self._set(
            job_id,
            verdict.state,
            reason=failure.reason,
            message=_text(failure.message),
            failures=row["failures"] + verdict.counted,
            crashes=row["crashes"] + crashed,
            tries=again + 1,
            not_before=self._clock() + verdict.pause,
            temporary=None,
        )
        return verdict.state

    def put_back(self, job_id: int) -> None:
        """Not done and not its fault: ready again, nothing counted."""
        self._set(job_id, JobState.READY, temporary=None)

    def vanished(self, job_id: int) -> None:
        """Its photo is gone."""
        self._set(job_id, JobState.VANISHED, reason="vanished")

    def supersede(self, job_id: int) -> None:
        """Its photo has newer bytes, or its preset newer numbers."""
        self._set(job_id, JobState.SUPERSEDED, reason="changed", temporary=None)

    def hold(self, job_id: int, reason: str) -> None:
        """It waits until what it needs is back in the config."""
        self._set(job_id, JobState.HELD, reason=reason)

    def rekey(self, job: Job, key: str, target: Path, *, stays: bool) -> bool:
        """Its preset or its output has changed; False when that very job is there already.

        `stays`: photos stay in this folder when they are painted.
        """
        place = (job.folder, os.fsencode(job.path), job.preset, key)
        where = "folder = ? AND path = ? AND preset = ? AND key = ?"
        with self.transaction():
            other = self._one(f"SELECT * FROM jobs WHERE {where} AND id != ?", *place, job.id)
            if other is None:
                query = "UPDATE jobs SET key = ?, target = ? WHERE id = ?"
                self.change(query, key, os.fsencode(target), job.id)
                return True
            self.supersede(job.id)
            file = self._file(job.folder, job.path)  # as it was last seen
            if file and identity_of(file) == job.identity != identity_of(other):
                self._renew(job_of(other), job.identity, target, stays)
            self.change(  # it is the one to do now, should it have been given up for this
                "UPDATE jobs SET state = ? WHERE id = ? AND state IN (?, ?)",
                *(JobState.READY, other["id"], JobState.SUPERSEDED, JobState.VANISHED),
            )
        return False

    def retry(self, *, job_id: int | None = None, reason: str = "") -> int:
        """Ready again what was set aside: one job, those with a reason, or all; how many.

        What is gone only if it is asked for.
        """
        states = _RETRYABLE if job_id is None and not reason else (*_RETRYABLE, JobState.VANISHED)
        return self.change(
            "UPDATE jobs SET state=?, failures=0, crashes=0, tries=0, not_before=0, changed=?"
            f" WHERE state IN ({marks(states)}) AND reason != 'folder'"
            " AND id = ifnull(?, id) AND reason = ifnull(?, reason)",
            *(JobState.READY, self._clock(), *states, job_id, reason or None),
        )

    def recover(self) -> list[Job]:
        """After a start: what ran is to do again, but for what ran too often; returns that."""
        given_up = []
        with self.transaction():
            for row in self.ask("SELECT * FROM jobs WHERE state = ?", JobState.RUNNING):
                times = 1 + (row["tries"] if row["reason"] == _INTERRUPTED else 0)
                verdict = after_interruption(times, self._rng)
                self._set(
                    row["id"],
                    verdict.state,
                    reason=_INTERRUPTED,
                    message=f"stylewatch itself ended in the middle of it, {times} times in a row",
                    tries=times,
                    not_before=self._clock() + verdict.pause,
                )
                if verdict.state is JobState.QUARANTINED:
                    given_up.append(row["id"])
        return [job for job in map(self.job, given_up) if job]

    def hold_others(self, folders: Iterable[str], presets: Iterable[str]) -> None:
        """What waits in other folders, or for other presets, is held; what these have goes on.

        All in one go: one by one, hundreds of thousands would take the better part of an hour.
        """
        kept, usable = [*folders], [*presets]
        with self.transaction():
            self.bring_back(kept, usable)
            for column, known in (("folder", kept), (BROKEN_PRESET, usable)):  # the reason, too
                self.change(
                    "UPDATE jobs SET state = ?, reason = ?, changed = ?"
                    f" WHERE state IN ({marks(WAITING)}) AND {column} NOT IN ({marks(known)})",
                    *(JobState.HELD, column, self._clock(), *WAITING, *known),
                )

    def bring_back(self, folders: Sequence[str], presets: Sequence[str]) -> None:
        """Ready again what is held only for the sake of these folders and presets."""
        self.change(
            "UPDATE jobs SET state = ?, reason = '', changed = ? WHERE state = ?"
            f" AND folder IN ({marks(folders)}) AND (reason = 'folder'"
            f" OR reason = '{BROKEN_PRESET}' AND preset IN ({marks(presets)}))",
            *(JobState.READY, self._clock(), JobState.HELD, *folders, *presets),
        )

    def _set(self, job_id: int, state: JobState, **columns: Any) -> None:
        names = ", ".join(f"{name} = ?" for name in ("state", "changed", *columns))
        values = (state, self._clock(), *columns.values(), job_id)
        self.change(f"UPDATE jobs SET {names} WHERE id = ?", *values)


def _text(text: str) -> str:
    """As SQLite can keep it: names in messages may be bytes that are no text."""
    return text.encode(errors="backslashreplace").decode()
