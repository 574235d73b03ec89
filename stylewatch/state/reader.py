"""What anybody may ask of the ledger while a daemon runs, or none does; never writes.

Knows nothing of what jobs go through.
"""

import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylewatch.domain import Identity, JobState
from stylewatch.errors import LedgerError

NO_PRESET = "no-preset"
"""The note of a file that no rule and no folder gave a preset."""
TOO_LARGE = "too-large"
"""The note of a file with more bytes than the config lets in."""

IDENTITY = ("dev", "ino", "size", "mtime_ns", "ctime_ns")
"""The columns of an `Identity`."""


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


def _path(raw: bytes | None) -> Path | None:
    return None if raw is None else Path(os.fsdecode(raw))


def job_of(row: sqlite3.Row) -> Job:
    """A row of `jobs`."""
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
        identity=Identity(*(row[name] for name in IDENTITY)),
        state=JobState(row["state"]),
        temporary=_path(row["temporary"]),
        output=_path(row["output"]),
        after_done=bool(row["after_done"]),
    )


class LedgerReader:
    """What anybody may ask while a daemon runs, or none does; never writes.

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

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def counts(self) -> dict[str, dict[JobState, int]]:
        """Jobs by folder and state."""
        counts: dict[str, dict[JobState, int]] = {}
        query = "SELECT folder, state, COUNT(*) AS n FROM jobs GROUP BY state, folder"
        for row in self.ask(query):
            counts.setdefault(row["folder"], {})[JobState(row["state"])] = row["n"]
        return counts

    def jobs(self, states: Iterable[JobState] = (), limit: int = 100) -> list[Job]:
        """Jobs in these states (all when empty), the latest change first."""
        query = "SELECT * FROM jobs WHERE state = ? ORDER BY changed DESC, id DESC LIMIT ?"
        rows = [row for state in states or JobState for row in self.ask(query, state, limit)]
        rows.sort(key=lambda row: (row["changed"], row["id"]), reverse=True)
        return [job_of(row) for row in (rows if limit < 0 else rows[:limit])]

    def job(self, job_id: int) -> Job | None:
        """One job, or None."""
        row = self._one("SELECT * FROM jobs WHERE id = ?", job_id)
        return job_of(row) if row else None

    def notes(self, limit: int = 100) -> list[tuple[str, Path, str]]:
        """Files that have no job, the latest first: (folder, relative path, why)."""
        query = "SELECT folder, path, note FROM files WHERE note != '' ORDER BY seen DESC LIMIT ?"
        rows = self.ask(query, limit)
        return [(row["folder"], Path(os.fsdecode(row["path"])), row["note"]) for row in rows]

    def pace(self, recent: int = 20) -> float:
        """Seconds per photo, over the last ones done that were not copied; 0 without any."""
        query = (
            "SELECT AVG(nullif(seconds, 0)) FROM"
            " (SELECT seconds FROM jobs WHERE state = ? ORDER BY changed DESC, id DESC LIMIT ?)"
        )
        row = self._one(query, JobState.DONE, recent)
        return float(row[0] or 0.0) if row else 0.0

    def ask(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """All rows that answer."""
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise ledger_error(error) from error

    def _one(self, query: str, *values: Any) -> sqlite3.Row | None:
        return next(iter(self.ask(query, *values)), None)


def ledger_error(error: sqlite3.Error) -> LedgerError:
    """What SQLite says, with what to do."""
    remedy = "Check the state folder's disk and permissions"
    return LedgerError(f"The ledger can't be read or written: {error}", remedy=remedy)
