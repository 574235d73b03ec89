"""How the ledger stays small: photos that are long gone are forgotten, and jobs that have ended.

What is done for a photo that still lies in its folder is never forgotten, else it would be painted
again. Works in small steps, so that no tick of the daemon waits for it.
"""

import contextlib
import re
import time
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from pathlib import Path

from stylewatch.domain import TURN_SECONDS, Identity, JobState
from stylewatch.state.ledger import Ledger
from stylewatch.state.presence import is_missing, looks_like
from stylewatch.state.reader import identity_of, marks, path_of
from stylewatch.state.wording import PAINTING

ROWS = 200  # dealt with in one step at most, and photos looked at for no longer than a turn
PAGES = 256  # of the ledger's file, given back in one step

_CHECKPOINT = re.compile(r"[0-9a-f]{64}\.(npz|tmp)")  # by a job's key
_ENDS = (JobState.SUPERSEDED, JobState.VANISHED)
_OLD_ENDS = (
    "SELECT id FROM jobs AS old WHERE state IN (?, ?) AND changed < ? AND (output IS NULL OR EXISTS"
    " (SELECT 1 FROM jobs AS new WHERE new.folder = old.folder AND new.path = old.path"
    f" AND new.preset = old.preset AND +new.state = '{JobState.DONE}')) LIMIT {ROWS}"
)


def tidy(ledger: Ledger, days: float, checkpoints: Path | None = None) -> Iterator[None]:
    """One round over the whole ledger; each `next` is one small durable step.

    A photo is forgotten when it was found missing at least `days` ago and is missing now too: its
    disk may have been away once. Checkpoints that serve no job are deleted.
    """
    looked_at = []
    for folder, root in ledger.places().items():
        if (yield from _look_through(ledger, folder, root)):
            looked_at.append(folder)
    before = ledger.now - days * 86400.0
    for step in (partial(_forget_gone, folders=looked_at), _forget_ended):
        while step(ledger, before):
            yield
    while ledger.shrink(PAGES):
        yield
    files = _files(checkpoints) if checkpoints else []
    for start in range(0, len(files), ROWS):
        _forget_checkpoints(ledger, files[start : start + ROWS], before)
        yield


def _look_through(ledger: Ledger, folder: str, root: Path) -> Generator[None, None, bool]:
    """Note which files of a folder are missing, or back; whether all of them could be looked at.

    They can't once the folder is away, or another is in its place.
    """
    known, last = ledger.inode_of(root), b""
    while known is not None and _inode(root) == known:
        query = "SELECT * FROM files WHERE folder = ? AND path > ? ORDER BY path LIMIT ?"
        rows = ledger.ask(query, folder, last, ROWS)
        if not rows:
            return True
        until = time.monotonic() + TURN_SECONDS
        with ledger.transaction():
            for row in rows:
                last = row["path"]
                path = path_of(last)
                if is_missing(root / path):
                    ledger.missed(folder, path)
                elif row["gone"]:
                    back = looks_like(root / path, identity_of(row))
                    ledger.change(
                        "UPDATE files SET gone = ? WHERE folder = ? AND path = ?",
                        *(0.0 if back else ledger.now, folder, last),
                    )
                if time.monotonic() > until:
                    break
        yield
    return False


def _inode(root: Path) -> tuple[int, int] | None:
    try:
        return Identity.of(root.stat()).inode
    except OSError:
        return None


def _forget_gone(ledger: Ledger, before: float, folders: Sequence[str]) -> int:
    """Delete all about photos that have been missing for so long, unless one is painted now."""
    place = "folder = ? AND path = ?"
    rows = ledger.ask(
        "SELECT folder, path FROM files WHERE gone > 0 AND gone < ?"
        f" AND folder IN ({marks(folders)}) AND NOT EXISTS (SELECT 1"
        " FROM jobs WHERE jobs.folder = files.folder AND jobs.path = files.path"
        " AND state IN (?, ?)) LIMIT ?",
        *(before, *folders, *PAINTING, ROWS),
    )
    with ledger.transaction():
        for row in rows:
            values = (row["folder"], row["path"])
            keys = f"SELECT key FROM jobs WHERE {place}"
            ledger.change(f"DELETE FROM results WHERE key IN ({keys})", *values)
            for table in ("jobs", "files"):
                ledger.change(f"DELETE FROM {table} WHERE {place}", *values)
    return len(rows)


def _forget_ended(ledger: Ledger, before: float) -> int:
    """Delete old jobs that will never be done, as their photo has changed or vanished.

    One that has a result is kept until there is a newer one, which may have to replace that.
    """
    old = f"FROM jobs WHERE id IN ({_OLD_ENDS})"
    with ledger.transaction():
        ledger.change(f"DELETE FROM results WHERE key IN (SELECT key {old})", *_ENDS, before)
        return ledger.change(f"DELETE {old}", *_ENDS, before)


def _files(folder: Path) -> list[Path]:
    """The checkpoints: any other file there is somebody's who has such a folder of their own."""
    try:
        return [each for each in folder.iterdir() if _CHECKPOINT.fullmatch(each.name)]
    except OSError:
        return []


def _forget_checkpoints(ledger: Ledger, files: Sequence[Path], before: float) -> None:
    """Delete the checkpoints that belong to no unfinished job, or are old themselves."""
    keys = [file.stem for file in files]
    query = f"SELECT key FROM jobs WHERE key IN ({marks(keys)}) AND state NOT IN (?, ?, ?)"
    wanted = {row["key"] for row in ledger.ask(query, *keys, JobState.DONE, *_ENDS)}
    for file in files:
        with contextlib.suppress(OSError):
            if file.stem not in wanted or file.stat().st_mtime < before:
                file.unlink()
