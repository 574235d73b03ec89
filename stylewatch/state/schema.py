"""The ledger's file: opened durably, made with its tables, set aside when damaged.

Its tables; paths are bytes, times are seconds since 1970, sizes and identities as `os.stat` has
them:

* `files`: each file that was seen in a watched folder, as it was then. `note` says why it has no
  job, if it has none, and `plan` stands for what the config said then. `seen` is when the row
  was written, `gone` since when the file is missing, 0 if it is not. The `ctime_ns` -1, which no
  file has, means that it is to be looked at again.
* `jobs`: a photo times a preset. `key` tells pictures apart (`domain.job_key`), `digest` is the
  SHA-256 of the photo's bytes, `target` the result's path without its extension. `attempts` counts
  all starts; `failures` and `crashes` count what is held against the photo; `tries` counts the
  failures with the same reason in a row, those of a GPU with all photos of the preset. A pause ends
  at `not_before`. `temporary` to `note` are about the result. `after_done` is 0 as long as the
  photo is to be moved, deleted or left; then 1; and 2 once another photo has its name
  (`reader.APART`).
* `results`: more files that are ours: those that a new ledger has found in the outputs, with the
  SHA-256 of their photo, and those that a newer result of the same job may replace.
* `folders`: where each watched folder lies, and which one it is: device, inode, and name of disk.
* `mounts`: where the disks are mounted that are written to.
"""

import contextlib
import os
import sqlite3
from pathlib import Path

from stylewatch.errors import LedgerError

LEDGER = "ledger.db"
"""In the state directory."""
BUSY_SECONDS = 10.0
"""How long another program may hold the ledger before that is an error, which is tried again: the
service's watchdog has to hear of us in time, and a tick may meet it several times."""

_TABLES = """
CREATE TABLE files (
    folder TEXT NOT NULL, path BLOB NOT NULL,
    dev INTEGER NOT NULL, ino INTEGER NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    plan TEXT NOT NULL,
    note TEXT NOT NULL, seen REAL NOT NULL,
    gone REAL NOT NULL DEFAULT 0,
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
CREATE TABLE results (
    key TEXT NOT NULL, output BLOB NOT NULL, sha256 TEXT NOT NULL,
    photo TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (key, output)
) WITHOUT ROWID;
CREATE TABLE folders (
    name TEXT PRIMARY KEY, input BLOB NOT NULL, dev INTEGER, ino INTEGER,
    volume TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE mounts (path BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE INDEX jobs_by_state ON jobs (state, folder, id);
CREATE INDEX jobs_by_recency ON jobs (state, changed, id);
CREATE INDEX jobs_unattended ON jobs (folder) WHERE state = 'done' AND after_done = 0;
CREATE INDEX jobs_by_output ON jobs (output) WHERE state = 'done';
CREATE INDEX jobs_by_key ON jobs (key) WHERE state = 'done';
CREATE INDEX jobs_waiting ON jobs (folder, preset)
    WHERE state IN ('ready', 'retry-wait', 'blocked');
CREATE INDEX jobs_painted ON jobs (preset, changed) WHERE state = 'done' AND seconds > 0;
CREATE INDEX files_gone ON files (gone) WHERE gone > 0;
CREATE INDEX files_failed ON files (folder, seen, note, gone) WHERE gone = 0 AND note NOT IN
    ('', 'no-preset', 'preset', 'symlink', 'fifo', 'socket', 'device', 'raw', 'no-photo');
CREATE INDEX files_held ON files (folder, seen, note, gone) WHERE gone = 0 AND note = 'preset';
CREATE INDEX results_by_photo ON results (photo) WHERE photo != ''
"""
VERSION = 12
"""The `user_version` of these tables. What changes them raises it, and brings 12 up to date."""


def open_ledger(path: Path) -> tuple[sqlite3.Connection, Path | None]:
    """The ledger at `path`, made if need be, and where a damaged one was moved to.

    Raises:
        LedgerError: it can't be opened, or is of another version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _opened(path), None
        except sqlite3.OperationalError:
            raise  # the disk, the rights or another process, not the ledger's content
        except (sqlite3.DatabaseError, UnicodeDecodeError):  # its words hold damaged ones
            aside = _set_aside(path)
            db = _opened(path)
            db.executemany("INSERT INTO mounts VALUES (?)", _mounts_in(aside))
            return db, aside
    except (sqlite3.Error, OSError) as error:
        raise ledger_error(error, f"The ledger {path} can't be opened") from error


def ledger_error(
    error: Exception, problem: str = "The ledger can't be read or written"
) -> LedgerError:
    """What SQLite or the disk says, with what to do."""
    match getattr(error, "sqlite_errorcode", None):
        case sqlite3.SQLITE_BUSY:
            remedy = "End the program that holds it"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            remedy = "The next start sets it aside and learns from the results what is done"
        case _:
            remedy = "Check the state folder's disk and permissions"
    return LedgerError(f"{problem}: {error}", remedy=remedy)


def version_error(path: Path, version: int) -> LedgerError:
    """The error for a ledger whose version this program does not know."""
    whose, remedy = "is from an older", "Give another state_dir: results tell there what is done"
    if version > VERSION:
        whose, remedy = "belongs to a newer", "Upgrade stylewatch, or give another state_dir"
    return LedgerError(
        f"The ledger {path} {whose} stylewatch",
        expected=f"version {VERSION}",
        received=str(version),
        remedy=remedy,
    )


def _opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
    try:
        db.row_factory = sqlite3.Row
        db.create_function("dirname", 1, os.path.dirname, deterministic=True)
        _check(db, path)  # before anything of it is written
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file only
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA journal_size_limit = 4000000")  # bytes: it stays so long
        _make_tables(db)
    except BaseException:
        db.close()
        raise
    return db


def _check(db: sqlite3.Connection, path: Path) -> None:
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(found)
    if (version := _version(db)) not in {0, VERSION}:
        raise version_error(path, version)


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _make_tables(db: sqlite3.Connection) -> None:
    if _version(db) == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    for statement in _TABLES.split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")


def _mounts_in(damaged: Path) -> list[tuple[bytes]]:
    """The disks that a damaged ledger knows, if it can still tell: one of them may be away now."""
    with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
        uri = f"{damaged.absolute().as_uri()}?immutable=1"  # it is kept as it is
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            return db.execute("SELECT path FROM mounts WHERE typeof(path) = 'blob'").fetchall()
    return []


def _set_aside(path: Path) -> Path:
    """Move a damaged ledger out of the way, with its log, which may hold the last changes."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(aside)
    for ending in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(aside.with_name(aside.name + ending))
    return aside
