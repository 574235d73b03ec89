"""The ledger: every photo seen and every job, in one SQLite file that survives anything.

One writer, the daemon's thread; any number of readers. Each change is one durable transaction
(WAL, synchronous=FULL), so a `kill -9` loses nothing that was told of. Paths are kept as bytes.
Knows nothing of pictures, processes or folders on disk.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from stylewatch.domain import Failure, FailureKind, Identity, JobState, Photo, Rendered
from stylewatch.errors import LACKING, DeviceError, OutputFullError
from stylewatch.failpoints import failpoint
from stylewatch.state.reader import (
    APART,
    NONE_PAINTED_SINCE,
    WAITING_JOBS,
    Job,
    LedgerReader,
    identity_of,
    job_of,
    marks,
)
from stylewatch.state.retries import after_interruption, judge
from stylewatch.state.schema import ledger_error, open_ledger
from stylewatch.state.wording import (
    BROKEN_PRESET,
    CANCELLED,
    LACKED,
    NO_PRESET,
    PAINTING,
    TOO_LARGE,
    WAITING,
)

PLANNED_NOTES = {NO_PRESET, BROKEN_PRESET, TOO_LARGE}
"""Notes that hold only as long as the config stays the same."""
PASSING_NOTES = {"writer", "unreadable"}
"""Notes that may stop being true though the file itself does not change."""

AGAIN = "again"
"""The reason of a job that is done, and whose photo has arrived once more, unchanged, since then.

Its result may have been deleted meanwhile, which is looked at before the new file is moved.
"""

_INTERRUPTED = "interrupted"
_REBUILT = 0x5354594C  # the file's application_id once `rebuild` is through

_SUPERSEDABLE = (
    JobState.READY, JobState.RETRY_WAIT, JobState.BLOCKED, JobState.PUBLISHING,
    JobState.DONE, JobState.QUARANTINED, JobState.HELD,
)  # fmt: skip
_RETRYABLE = (JobState.QUARANTINED, JobState.BLOCKED, JobState.RETRY_WAIT, JobState.HELD)
_NAMED_AFTER_IT = "lower(substr(CAST(path AS TEXT), 1, length(preset) + 1)) = lower(preset) || '/'"
"""Of a job: its photo lies in a sub-folder of its preset's name."""


@dataclass(frozen=True)
class Planned:
    """A job to be added for a photo."""

    preset: str
    key: str
    target: Path


class Result(NamedTuple):
    """A result as its file alone tells of it, which is all that a new ledger knows of the past."""

    key: str
    """Of the job that it was made by."""
    path: Path
    sha256: str
    photo: str
    """The SHA-256 of its photo; empty where the result does not say it."""


class Ledger(LedgerReader):
    """The ledger, open to be written.

    Raises:
        LedgerError: by every method; nothing was changed then, so that it can be called again.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng or Random()  # noqa: S311  (jitter, no secret)
        self._idle: dict[str, tuple[float, tuple[int, float | None]]] = {}  # see `waiting`
        self._db, self.set_aside = open_ledger(path)
        """`set_aside`: where a damaged ledger was moved to."""

    @property
    def fresh(self) -> bool:
        """Whether it is new, and has not yet learnt from the results on disk (`rebuild`)."""
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
        """A counter that is higher after anything was written."""
        return self._db.total_changes

    @property
    def now(self) -> float:
        """The wall-clock time, by the clock that all times in the ledger come from."""
        return self._clock()

    def change(self, query: str, *values: Any) -> int:
        """Run a statement that changes rows; how many it changed."""
        with self.transaction():
            return self._db.execute(query, values).rowcount

    def shrink(self, pages: int) -> bool:
        """Return up to `pages` unused pages of the file to the disk; whether there may be more."""
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
        """Write down which folder lies at `place`, which the config calls `name`.

        Jobs and files belong to the place. If they were known under another name, because the
        config has renamed the folder, or because it was moved here from elsewhere (`moved` is what
        it was called there), they get the new name.

        `inode` is None as long as no folder was ever seen at `place`. `volume` is the name of its
        disk, empty if unknown. If `another` folder lies there now, or another disk is mounted, all
        its photos count as missing until they are seen there.
        """
        raw, (dev, ino) = os.fsencode(place), inode or (None, None)
        with self.transaction():
            if moved:  # no photo has ever been there: the config was changed before
                self.change("DELETE FROM folders WHERE input = ?", raw)
            known = self._one(
                "SELECT * FROM folders WHERE input = ? OR name = ? ORDER BY input != ?",
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
            row = (name, raw, dev, ino, volume or before)
            if known is None or tuple(known) != row:  # it is looked at again and again while away
                self.change("INSERT OR REPLACE INTO folders VALUES (?,?,?,?,?)", *row)
            if another or (volume and before not in {"", volume}):
                query = "UPDATE files SET gone = ? WHERE folder = ? AND gone = 0"
                self.change(query, self._clock(), name)

    def _rename_folder(self, name: str, new: str) -> None:
        self.change("UPDATE OR REPLACE folders SET name = ? WHERE name = ?", new, name)
        for table in ("jobs", "files"):
            query = f"UPDATE OR REPLACE {table} SET folder = ? WHERE folder = ?"
            self.change(query, new, name)

    def note_mount(self, mount: Path) -> None:
        """Remember that a disk belongs at this mount point."""
        self.change("INSERT OR IGNORE INTO mounts VALUES (?)", os.fsencode(mount))

    def forget_mount(self, mount: Path) -> None:
        """Expect no disk at this mount point any more."""
        self.change("DELETE FROM mounts WHERE path = ?", os.fsencode(mount))

    def results_moved(self, folder: str, before: Path, now: Path) -> None:
        """A folder's results were moved, together with the whole output folder."""
        old, new = (os.fsencode(place) + b"/" for place in (before, now))
        self.change(
            "UPDATE jobs SET output = CAST(? || substr(output, ?) AS BLOB)"
            " WHERE folder = ? AND substr(output, 1, ?) = ?",
            *(new, len(old) + 1, folder, len(old), old),
        )

    # --- photos -----------------------------------------------------------------------------

    def knows(
        self,
        folder: str,
        path: Path,
        identity: Identity,
        plan: str,
        *,
        numberless: bool = False,
        stays: bool = False,
    ) -> bool:
        """Whether nothing is to be done for this file, as it is unchanged since it was dealt with.

        A file that only the config kept from being painted is looked at again when `plan`, which
        stands for what the config says about that, is another. A known file that was missing
        counts as present again.

        One that is `numberless` is known by its size and time. `stays` says whether photos stay in
        this folder when they are painted: else one that is done may have come once more.
        """
        place = (folder, os.fsencode(path))
        row = self._file(folder, path)
        if (
            row is None
            or row["note"] in PASSING_NOTES
            or (row["note"] in PLANNED_NOTES and row["plan"] != plan)
        ):
            return False
        before = identity_of(row)
        alike = numberless and before.ctime_ns != -1 and identity.looks_like(before)
        if not (alike or identity.is_still(before)):
            return False
        if alike and (row["gone"] or identity != before):
            if any(job.state is not JobState.DONE for job in self.jobs_of(folder, path)):
                self._renumber(place, before, identity)  # else its number is of no use
            elif not (stays or row["note"]):
                return False
        if row["gone"]:
            self.change("UPDATE files SET gone = 0 WHERE folder = ? AND path = ?", *place)
        return True

    def _renumber(self, place: tuple[str, bytes], before: Identity, now: Identity) -> None:
        """A file and its jobs are known by another identity from now on; all else is as it was."""
        for table in ("files", "jobs"):
            self.change(
                f"UPDATE {table} SET dev = ?, ino = ?, mtime_ns = ?, ctime_ns = ?"
                " WHERE folder = ? AND path = ? AND (ino, size, mtime_ns, ctime_ns) = (?, ?, ?, ?)",
                *(now.dev, now.ino, now.mtime_ns, now.ctime_ns, *place, *astuple(before)[1:]),
            )

    def missed(self, folder: str, path: Path) -> None:
        """Note that a photo is missing: its disk may be away, or it is gone for good."""
        self.change(
            "UPDATE files SET gone = ? WHERE folder = ? AND path = ? AND gone = 0",
            *(self._clock(), folder, os.fsencode(path)),
        )

    def _set_apart(self, folder: str, path: Path, digest: str = "") -> bool:
        """If a photo was missing, a new file under its name must not replace the old one's results.

        So these are marked as of an earlier photo; but not those that were made of the same bytes,
        as this `digest` tells. Returns whether it was missing.
        """
        place = (folder, os.fsencode(path))
        where = "WHERE folder = ? AND path = ?"
        was_gone = self.change(f"UPDATE files SET gone = 0 {where} AND gone > 0", *place) > 0
        if was_gone:
            apart = f"UPDATE jobs SET after_done = {APART} {where} AND digest != ?"
            self.change(apart, *place, digest)
        return was_gone

    def note_file(
        self, folder: str, path: Path, identity: Identity, plan: str = "", note: str = ""
    ) -> None:
        """Remember a file as it is now; `note` says why it has no job, if it has none."""
        with self.transaction():
            self._set_apart(folder, path)
            self.change(
                "INSERT OR REPLACE INTO files VALUES (?,?,?,?,?,?,?,?,?,?,0)",
                *(folder, os.fsencode(path), *astuple(identity), plan, _text(note), self._clock()),
            )

    def forget_file(self, folder: str, path: Path) -> None:
        """Have the file looked at again, by making its row differ from it: no ctime is -1."""
        query = "UPDATE files SET ctime_ns = -1, note = '' WHERE folder = ? AND path = ?"
        self.change(query, folder, os.fsencode(path))

    def let_go(self, folder: str, presets: Sequence[str]) -> int:
        """Bring back what is held for a preset that is none of these, which a folder has; how many.

        The config has another one for these photos by now: that they get when they have their turn.
        But what is in a sub-folder of a preset's name is meant for that.
        """
        return self.change(
            "UPDATE jobs SET state = ?, reason = '', changed = ? WHERE state = ? AND folder = ?"
            f" AND reason = ? AND preset NOT IN ({marks(presets)}) AND NOT {_NAMED_AFTER_IT}",
            *(JobState.READY, self._clock(), JobState.HELD, folder, BROKEN_PRESET, *presets),
        )

    def add(
        self,
        photo: Photo,
        digest: str,
        plan: str,
        planned: Sequence[Planned],
        *,
        stays: bool = False,
        note: str = "",
        having: Collection[str] = (),
    ) -> list[int]:
        """Add the photo's jobs, and supersede those of its earlier bytes; the jobs to do now.

        What waits in a preset that is not `planned` is superseded, too; if none is, `note` says
        why. `stays` says whether photos stay in this folder when they are painted. In presets in
        which the photo is known to be `having` jobs these stay as they are.
        """
        added = []
        with self.transaction():
            others_run = self._supersede_unplanned(photo, [wanted.preset for wanted in planned])
            was_gone = self._set_apart(photo.folder, photo.path, digest)
            for wanted in (each for each in planned if each.preset not in having):
                place = (photo.folder, os.fsencode(photo.path), wanted.preset)
                settled = self._settled_at(place, photo, digest, stays=stays)
                job = settled or self._job_at(place, wanted.key)
                self._supersede_others(place, job.key if job else wanted.key)
                if job:
                    added += self._renew(
                        job, photo.identity, wanted.target, stays=stays, was_gone=was_gone
                    )
                elif row := self._found(place, wanted, digest if stays else ""):
                    self._insert_done(photo, digest, wanted, row)
                else:
                    added.append(self._insert(photo, digest, wanted, wanted.key))
            matched = "" if others_run else plan  # they may come back: then it is matched anew
            self.note_file(photo.folder, photo.path, photo.identity, matched, note)
        return added

    def _supersede_unplanned(self, photo: Photo, presets: Sequence[str]) -> bool:
        """Supersede what waits for a photo in other presets than these; whether one is painted."""
        jobs = self.jobs_of(photo.folder, photo.path)
        others = [job for job in jobs if job.preset not in presets]
        for job in others:
            if job.state in WAITING or (job.state, job.reason) == (JobState.HELD, BROKEN_PRESET):
                self.supersede(job.id)
        return any(job.state in PAINTING for job in others)

    def _supersede_others(self, place: tuple[str, bytes, str], key: str) -> None:
        """Supersede the jobs of the same photo and preset that have another key."""
        self.change(
            "UPDATE jobs SET state = ?, reason = 'changed', changed = ?"
            " WHERE folder = ? AND path = ? AND preset = ? AND key != ?"
            f" AND state IN ({marks(_SUPERSEDABLE)})",
            *(JobState.SUPERSEDED, self._clock(), *place, key, *_SUPERSEDABLE),
        )

    def _settled_at(
        self, place: tuple[str, bytes, str], photo: Photo, digest: str, *, stays: bool
    ) -> Job | None:
        """The job of this very photo that is done or was cancelled, if the photo looks as before.

        Whatever its preset is by now: where photos stay, who wants them painted anew touches them.
        """
        query = (
            "SELECT * FROM jobs WHERE folder = ? AND path = ? AND preset = ? AND digest = ?"
            " AND (state = ? AND ? OR state IN (?, ?) AND reason = ?)"
        )
        cancelled = (JobState.HELD, JobState.VANISHED, CANCELLED)
        rows = self.ask(query, *place, digest, JobState.DONE, stays, *cancelled)
        jobs = map(job_of, rows)
        return next((job for job in jobs if _looks_as(job.identity, photo.identity)), None)

    def _job_at(self, place: tuple[str, bytes, str], key: str) -> Job | None:
        where = "folder = ? AND path = ? AND preset = ? AND key = ?"
        row = self._one(f"SELECT * FROM jobs WHERE {where}", *place, key)
        return job_of(row) if row else None

    def _insert(self, photo: Photo, digest: str, wanted: Planned, key: str) -> int:
        """A new job, ready; its number."""
        now = self._clock()
        values = (
            *(photo.folder, os.fsencode(photo.path), wanted.preset, key, digest),
            *(os.fsencode(wanted.target), *astuple(photo.identity), JobState.READY, now, now),
        )
        cursor = self._db.execute(
            "INSERT INTO jobs (folder, path, preset, key, digest,"
            " target, dev, ino, size, mtime_ns, ctime_ns, state, created, changed)"
            f" VALUES ({marks(values)})",
            values,
        )
        return int(cursor.lastrowid or 0)

    def _insert_done(self, photo: Photo, digest: str, wanted: Planned, result: sqlite3.Row) -> None:
        """A new job whose result exists already."""
        self._set(
            self._insert(photo, digest, wanted, result["key"]),
            JobState.DONE,
            output=result["output"],
            sha256=result["sha256"],
            reason=AGAIN,
        )

    def _renew(
        self, job: Job, identity: Identity, target: Path, *, stays: bool, was_gone: bool = False
    ) -> list[int]:
        """A job's photo has arrived again, as another file with the same bytes; the job, if to do.

        What had failed is tried again. What is done is not painted again, but the new file is to
        be moved or deleted as well. Where photos stay in the folder, a file with the old size and
        time is not taken for a new arrival: its disk was mounted again, or its rights were
        changed. Then a result that somebody has deleted is not made again. Nor is, in any folder,
        what somebody has cancelled. Nor has an untouched file arrived that was not missing
        (`was_gone`): it was only looked at again.
        """
        if job.state in PAINTING:
            target = job.target  # its temporary file lies there
        looks_the_same = _looks_as(job.identity, identity)
        only_seen = identity.is_still(job.identity) and not was_gone
        settled = job.state is JobState.DONE and (only_seen or (stays and looks_the_same))
        reason = AGAIN if job.state is JobState.DONE and not settled else job.reason
        self.change(
            "UPDATE jobs SET dev=?, ino=?, size=?, mtime_ns=?, ctime_ns=?, target=?, reason=?,"
            " tries=0, after_done=(after_done > 0 AND ?) WHERE id=?",
            *(*astuple(identity), os.fsencode(target), reason, settled, job.id),
        )
        if job.is_on_its_way or job.state is JobState.DONE:
            return []
        if job.reason == CANCELLED and looks_the_same:
            self.hold(job.id, CANCELLED)  # also where it had vanished
            return []
        self._set(job.id, JobState.READY, failures=0, crashes=0, not_before=0)
        return [job.id]

    def _found(
        self, place: tuple[str, bytes, str], wanted: Planned, digest: str
    ) -> sqlite3.Row | None:
        """A result that `rebuild` has found on disk, and that is this very job's.

        For a photo that is new to the ledger, and whose `digest` is given, a result that an earlier
        version of the preset has made of it will do. The same photo may lie there twice, as in two
        folders with one output: each has a result of its own.
        """
        stem = os.fsencode(wanted.target)
        query = (
            "SELECT * FROM results WHERE (key = ? OR photo = ? AND photo != '' AND NOT EXISTS"
            " (SELECT 1 FROM jobs WHERE folder = ? AND path = ? AND preset = ?)) AND NOT EXISTS"
            " (SELECT 1 FROM jobs WHERE jobs.output = results.output AND state = 'done')"
            " ORDER BY key != ?, output"
        )
        for row in self.ask(query, wanted.key, digest, *place, wanted.key):
            rest = bytes(row["output"])[len(stem) :]
            if bytes(row["output"]).startswith(stem) and rest[:1] in {b".", b"~"}:
                return row
        return None

    def rebuild(self, results: Iterable[Result]) -> int:
        """Learn from the results on disk what was painted earlier; how many results there are."""
        with self.transaction():
            rows = ((key, os.fsencode(path), sha, photo) for key, path, sha, photo in results)
            self._db.executemany("INSERT OR REPLACE INTO results VALUES (?,?,?,?)", rows)
            self.change(f"PRAGMA application_id = {_REBUILT}")
            return int(self._value("SELECT COUNT(*) FROM results"))

    # --- jobs -------------------------------------------------------------------------------

    def waiting(self, folders: Iterable[str]) -> list[str]:
        """Those of the folders that have a job to claim now.

        To find that a folder has none may mean to look at hundreds of thousands of jobs that have
        to wait. So the answer is remembered until something is written, the next pause ends, or
        the clock is set back.
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

    def claim(self, folder: str, first: int = 0) -> Job | None:
        """Start the folder's next job: its attempt is on disk before anything is done.

        None with a lower number than `first`.
        """
        with self.transaction():
            job_id = self._next(folder, first)
            if job_id is None:
                return None
            self.change(
                "UPDATE jobs SET state=?, attempts=attempts+1, changed=? WHERE id=?",
                *(JobState.RUNNING, self._clock(), job_id),
            )
        return self.job(job_id)

    def _next(self, folder: str, first: int = 0) -> int | None:
        """The folder's oldest job, from the number `first` on, that need not wait.

        A job waits until its own pause has ended; one that is ready has none, whatever its row
        says. A job also waits while another of the same preset waits for weights or an image, as it
        would lack the same; and while another's result can't be written into the same folder. Else
        thousands of jobs would be tried in turn, for nothing. And while the same picture is being
        painted, as it will get a copy. A clock that was set back ends all pauses.

        Each preset is asked for by itself, so that those of one that lacks something, which may be
        a hundred thousand, are not passed by one by one. Those of its photos that a GPU has failed
        come last, the one that waits longest first: each may itself be what is too much for it.
        """
        now = "(SELECT now FROM asked)"  # no ?2: until Python 3.12.4 that warns
        waiting = f"{WAITING_JOBS} AND folder = (SELECT folder FROM asked)"
        paused = f"AND not_before > {now} AND changed <= {now} AND reason IN"
        lacking = f"FROM jobs WHERE state = '{JobState.RETRY_WAIT}' {paused}"
        closed = f"FROM jobs WHERE state = '{JobState.BLOCKED}' {paused}"
        output = OutputFullError.reasons
        failed = f"state = '{JobState.RETRY_WAIT}' AND reason = '{DeviceError.reason}'"
        free = (
            "AND preset = name AND id >= (SELECT least FROM asked)"
            f" AND (state = '{JobState.READY}' OR not_before <= {now} OR changed > {now})"
            f" AND dirname(target) NOT IN (SELECT dirname(target) {closed} ({marks(output)}))"
            f" AND key NOT IN (SELECT key FROM jobs WHERE state = '{JobState.RUNNING}')"
        )
        query = (
            "WITH RECURSIVE asked(folder, now, least) AS (VALUES (?, ?, ?)),"
            f" presets(name) AS (SELECT MIN(preset) {waiting} UNION ALL"
            f" SELECT (SELECT MIN(preset) {waiting} AND preset > name) FROM presets"
            " WHERE name IS NOT NULL)"
            " SELECT MIN(ifnull("
            f"(SELECT id {waiting} AND NOT ({failed}) {free} ORDER BY id LIMIT 1),"
            f" (SELECT id {waiting} AND {failed} {free} ORDER BY changed LIMIT 1)))"
            f" FROM presets WHERE name NOT IN (SELECT preset {lacking} ({marks(LACKING)}))"
        )
        values = (folder, self._clock(), first, *output, *output, *LACKING)
        oldest: int | None = self._value(query, *values)
        return oldest

    def next_due(self) -> float | None:
        """Wall-clock time when the next pause ends; None when nothing waits for one."""
        query = "SELECT MIN(not_before) FROM jobs WHERE state IN (?, ?) AND not_before > ?"
        due: float | None = self._value(query, JobState.RETRY_WAIT, JobState.BLOCKED, self._clock())
        return due

    def publishing(self, job_id: int, rendered: Rendered) -> None:
        """The result is complete under its temporary name; from now on it is to be published."""
        with self.transaction():
            self.change(  # the result that it may replace is remembered as ours
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
        """An older result of the same photo and preset, under another name, was removed."""
        self.change(
            "UPDATE jobs SET output = NULL"
            " WHERE folder = ? AND path = ? AND preset = ? AND output = ? AND state = ?",
            *(job.folder, os.fsencode(job.path), job.preset, os.fsencode(output)),
            JobState.SUPERSEDED,
        )

    def after_done(self, job: Job, *, acted: bool = True) -> None:
        """The photo was moved, deleted or left, as the config wants it, for all of its jobs.

        With `acted` false nothing was done, as another file lies there by now: then this is true
        only of those jobs that know the same file as this one.
        """
        others = "" if acted else " AND (dev, ino, size, mtime_ns, ctime_ns) = (?, ?, ?, ?, ?)"
        self.change(
            "UPDATE jobs SET after_done = 1, reason = ''"
            # +: else SQLite goes by the state, and reads all that is done in the folder
            f" WHERE folder = ? AND path = ? AND digest = ? AND +state = ?{others}",
            *(job.folder, os.fsencode(job.path), job.digest, JobState.DONE),
            *(() if acted else astuple(job.identity)),
        )

    def fail(self, job_id: int, failure: Failure, max_attempts: int) -> JobState:
        """Write a failure down; returns what becomes of the job."""
        row = self._one("SELECT * FROM jobs WHERE id = ?", job_id)
        assert row is not None
        again = row["tries"] if row["reason"] == failure.reason else 0
        if failure.reason == DeviceError.reason:  # those of a preset try in turn, ever more rarely
            query = (
                "SELECT ifnull(MAX(tries), 0) FROM jobs"
                " WHERE state = ? AND preset = ? AND reason = ? AND not_before <= ?"
                f" AND {NONE_PAINTED_SINCE}"
            )
            waits = (JobState.RETRY_WAIT, row["preset"], failure.reason, self._clock())
            again = max(again, self._value(query, *waits))
        verdict = judge(
            failure.kind,
            failures=row["failures"],
            crashes=row["crashes"],
            tries=again,
            max_attempts=max_attempts,
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
        """Ready again, though not done: no fault of the job's, so nothing is counted."""
        self._set(job_id, JobState.READY, temporary=None)

    def vanished(self, job_id: int) -> None:
        """Its photo is gone; that it was cancelled is remembered, as its folder may be back."""
        self.change(
            "UPDATE jobs SET state = ?, changed = ?, reason ="
            " CASE WHEN state = ? AND reason = ? THEN reason ELSE 'vanished' END WHERE id = ?",
            *(JobState.VANISHED, self._clock(), JobState.HELD, CANCELLED, job_id),
        )

    def supersede(self, job_id: int) -> None:
        """Its photo has newer bytes, or its preset newer numbers."""
        self._set(job_id, JobState.SUPERSEDED, reason="changed", temporary=None)

    def hold(self, job_id: int, reason: str) -> None:
        """It waits until what it needs is back in the config."""
        self._set(job_id, JobState.HELD, reason=reason)

    def rekey(self, job: Job, key: str, target: Path, *, stays: bool) -> bool:
        """Give a job another key and target, as its preset or its output has changed.

        False where the photo has a job with that key already: then this one is superseded by it.
        `stays` says whether photos stay in this folder when they are painted.
        """
        with self.transaction():
            other = self._job_at((job.folder, os.fsencode(job.path), job.preset), key)
            if other is None or other.id == job.id:
                query = "UPDATE jobs SET key = ?, target = ? WHERE id = ?"
                self.change(query, key, os.fsencode(target), job.id)
                return True
            self.supersede(job.id)
            file = self._file(job.folder, job.path)  # as it was last seen
            if file and identity_of(file) == job.identity != other.identity:
                self._renew(other, job.identity, target, stays=stays)
            elif other.state in {JobState.SUPERSEDED, JobState.VANISHED}:  # by this one, before
                self.put_back(other.id)
        return False

    def retry(self, *, job_id: int | None = None, reason: str = "") -> int:
        """Make ready again what was set aside: one job, those with a reason, or all; how many.

        Jobs that were cancelled, or whose photo had vanished, only when asked for by number or
        reason; none that is held for what the config lacks, see `bring_back`. Their photos are
        matched anew: what the config does not want any more is superseded instead.
        """
        meant = job_id is not None or bool(reason)
        states = (*_RETRYABLE, JobState.VANISHED) if meant else _RETRYABLE
        held = [*LACKED] if meant else [*LACKED, CANCELLED]
        which = (
            f"state IN ({marks(states)}) AND NOT (state = ? AND reason IN ({marks(held)}))"
            " AND id = ifnull(?, id) AND reason = ifnull(?, reason)"
        )
        values = (*states, JobState.HELD, *held, job_id, reason or None)
        with self.transaction():
            self.change(
                "UPDATE files SET plan = '' WHERE (folder, path) IN"
                f" (SELECT folder, path FROM jobs WHERE {which})",
                *values,
            )
            return self.change(
                "UPDATE jobs SET state=?, failures=0, crashes=0, tries=0, not_before=0, changed=?"
                f" WHERE {which}",
                *(JobState.READY, self._clock(), *values),
            )

    def recover(self) -> list[Job]:
        """At the start: jobs that ran when the daemon ended are to do again.

        Returns those that are given up instead, as the daemon has ended too often in them.
        """
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

    def hold_others(self, folders: Iterable[str], presets: Iterable[str]) -> int:
        """Hold the jobs of all other folders and presets, and bring back those of these.

        Returns how many were not held before.

        In a few statements: to change hundreds of thousands of jobs one by one would take the
        better part of an hour.
        """
        kept, usable = [*folders], [*presets]
        with self.transaction():
            self.bring_back(kept, usable)
            # each pair's first word is the name of a column, and the reason why the job is held
            return sum(
                self.change(
                    "UPDATE jobs SET state = ?, reason = ?, changed = ?"
                    f" WHERE state IN ({marks(WAITING)}) AND {column} NOT IN ({marks(known)})",
                    *(JobState.HELD, column, self._clock(), *WAITING, *known),
                )
                for column, known in (("folder", kept), (BROKEN_PRESET, usable))
            )

    def bring_back(self, folders: Sequence[str], presets: Sequence[str]) -> None:
        """Make ready again what was held because one of these folders or presets was not there."""
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


def _looks_as(before: Identity, now: Identity) -> bool:
    """Whether a photo with the same bytes as before looks so, too, whatever the clocks say now."""
    return now.looks_like(before, shifted=True)


def _text(text: str) -> str:
    """The text as SQLite can keep it: file names in messages may hold bytes that are no UTF-8."""
    return text.encode(errors="backslashreplace").decode()
