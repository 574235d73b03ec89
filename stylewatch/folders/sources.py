"""Watched folders: events are hints of where to look and when, the listing is the truth.

The kernel's watches are trusted only as long as they miss nothing; else the folder is scanned more
often. Knows nothing of pictures, rules, jobs or the ledger.
"""

import errno
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stylewatch.domain import Candidate, Identity, counted
from stylewatch.errors import LockedError
from stylewatch.folders.listing import walk
from stylewatch.folders.naming import as_people_sort
from stylewatch.folders.scans import Scans
from stylewatch.folders.watches import Inbox, Watch, Watches, watch_limit, watched_inodes

ROOT_SECONDS = 2.0  # how often the root itself is looked at
PATIENCE = 2.0  # an event that has not come within that time is lost
REGISTER_SECONDS = 1.0  # a new folder that is not watched by then never will be
RETRY_SECONDS = 600.0  # between two attempts to watch a folder that has to be scanned
DEEPEST = 500  # folders within each other: watchdog's walk recurses before Python 3.12

FolderState = Literal["watching", "scanning", "missing", "unreadable", "locked", "blocked"]
"""`scanning`: it can't be watched. `blocked`: its results can't be written."""


@dataclass(frozen=True, kw_only=True)
class FolderHealth:
    """How well a folder is looked after."""

    folder: str
    root: Path
    state: FolderState
    detail: str
    """One line when a person should know something, with the remedy; else empty."""
    scan_age: float
    """Seconds since the last full scan ended; infinite before the first one."""


class FolderSource:
    """One watched root: gives each file when it is new, and again whenever it has changed."""

    def __init__(
        self,
        folder: str,
        root: Path,
        watches: Watches,
        *,
        rescan_seconds: float = 30.0,
        take_up: Callable[[], None] = lambda: None,
        known: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """`take_up` is called when the root has appeared; after its error the root is left alone.

        `known` gives the files that lay there before.
        """
        self.folder = folder
        self.root = root
        self._watches = watches
        self._take_up = take_up
        self._scans = Scans(folder, root, rescan_seconds, known)
        self._inbox = Inbox("", watches.wake)
        self._watch: Watch | None = None
        self._state: FolderState = "missing"
        self._detail = ""
        self._root_key: tuple[int, int] | None = None  # (dev, ino) while the root is there
        self._next_root = -math.inf  # when to look at the root
        self._suspect = ""  # a file that no event has told of …
        self._proof_at = math.inf  # … and when that proves that events get lost
        self._next_check = math.inf  # when to see whether all folders are watched
        self._next_retry = math.inf  # when to try again to watch them
        self._strikes = 0  # how often in a row the watches have missed something
        self._sound = False  # whether all folders were found to be watched since they were made
        self._heard = False  # whether any event has come since they were made
        self._low_limit = 0  # the watch limit that did not suffice

    def drain(self, now: float, share: float = 1.0) -> list[Candidate]:
        """New and changed names since the last call; a long scan goes on in the next one.

        They are in the order of their names, in which an album is looked at: a disk lists them in
        none. Its scans go on for no longer than this share of a turn.
        """
        if now >= self._next_root or (self._watch and not self._watches.alive(self._watch)):
            self._look_at_root(now)
        if self._root_key is None:
            return []
        files, folders = self._hear(now)
        self._judge_watches(now)
        watched, scanned = self._watch is not None, self._scans.ended
        found = sorted(
            self._scans.look(files, folders, now, share, watched=watched),
            key=lambda candidate: as_people_sort(candidate.path),
        )
        if watched and self._scans.ended != scanned:
            self._next_check = now + REGISTER_SECONDS
        if not self._suspect and (surprise := self._scans.take_surprise()):
            self._suspect, self._proof_at = surprise, now + PATIENCE
        return found

    def missed(self, share: float = 1.0) -> Iterator[Path]:
        """Files that are gone, some of those not told yet; they may be back by now."""
        return self._scans.missed(share)

    def next_due(self, now: float) -> float:
        """When `drain` has something to do; an event may make it earlier."""
        if self._root_key is None:
            return self._next_root
        if self._inbox.has_news:
            return now
        watches_due = min(self._proof_at, self._next_check, self._next_retry)
        return min(self._next_root, self._scans.next_due(now), watches_due)

    def health(self, now: float) -> FolderHealth:
        """For the console, `status` and the service's own watchdog."""
        detail, unreadable = self._detail, self._scans.listing.unreadable
        if unreadable and not detail:
            first = min(unreadable)
            folders = counted(len(unreadable), "folder")
            detail = f"{folders} can't be read, such as {first or '.'}: {unreadable[first]}"
        return FolderHealth(
            folder=self.folder,
            root=self.root,
            state=self._state,
            detail=detail,
            scan_age=now - self._scans.ended,
        )

    def signs(self, now: float) -> dict[str, bool]:
        """For the pulse: whether the threads that bring events live, and whether scans go on.

        A folder that is away needs neither.
        """
        if self._root_key is None:
            return {}
        return {
            f"events of {self.root}": self._watch is None or self._watches.alive(self._watch),
            f"scans of {self.root}": not self._scans.are_late(now),
        }

    def look_again(self, path: Path) -> None:
        """Give this file (relative to the root) once more, changed or not."""
        self._scans.listing.forget(str(path))
        self._inbox.note(str(path))

    def close(self) -> None:
        """Watch and scan no more."""
        if self._watch:
            self._watches.remove(self._watch)
        self._watch = None
        self._scans.stop()

    def _look_at_root(self, now: float) -> None:
        """Notice that the root has gone, come back or been replaced, or that its watch has died."""
        self._next_root = now + ROOT_SECONDS
        try:
            key = _folder_key(self.root)
            if key != self._root_key:
                self._take_up()
        except LockedError as error:
            self._leave("locked", str(error))
            return
        except OSError as error:
            state: FolderState = "unreadable" if isinstance(error, PermissionError) else "missing"
            self._leave(state, f"{error.strerror}: {self.root}; it is watched once that is over")
            return
        if key != self._root_key:
            self._root_key, self._strikes = key, 0
            self._scans.begin_anew()
            self._start(now)
        elif self._watch and not self._watches.alive(self._watch):
            self._start(now)

    def _leave(self, state: FolderState, why: str) -> None:
        self.close()
        if state == "missing":  # what comes back may be another disk
            self._scans.listing.miss_all()
        self._root_key, self._state, self._detail = None, state, why

    def _start(self, now: float) -> None:
        """Watch the root, and then scan it: so nothing can be missed in between."""
        self.close()
        self._suspect = ""
        self._proof_at = self._next_check = self._next_retry = math.inf
        self._scans.scan_at_once()
        self._scans.note_devices()
        if self._root_key and self._root_key[0] in self._scans.listing.network:
            self._scan_instead("others may write to this network file system unseen")
            return
        root, limit = os.path.realpath(self.root), watch_limit()
        self._inbox, self._heard = Inbox(root, self._watches.wake), False
        self._sound = False
        try:
            _check_size(root, limit)
            self._watch = self._watches.add(root, self._inbox)
        except OSError as error:
            self._low_limit, self._next_retry = limit, now + RETRY_SECONDS
            self._scan_instead(f"it can't be watched ({error.strerror or error})")
        else:
            self._state, self._detail = "watching", ""

    def _scan_instead(self, why: str) -> None:
        self.close()
        self._state = "scanning"
        self._detail = f"{why}, so it is scanned every {self._scans.poll_seconds:g} s"
        self._scans.scan_at_once()

    def _hear(self, now: float) -> tuple[dict[str, bool], set[str]]:
        """Take the hints that events have left: files and folders to look at."""
        files, folders, overflown = self._inbox.take()
        self._heard |= bool(files or folders)
        if overflown:
            self._scans.scan_at_once()
        if overflown or self._suspect in files:
            self._suspect, self._proof_at = "", math.inf
        if "" in folders:
            self._next_root = now
            folders.discard("")
        if folders and self._watch:
            self._next_check = now + REGISTER_SECONDS
        return files, folders

    def _judge_watches(self, now: float) -> None:
        """Look for signs that watches are missing, or that their events get lost."""
        if now >= self._proof_at:
            self._watches.renew()
            self._mistrust("no events come from it", now)
        elif now >= self._next_check:
            self._next_check = math.inf
            inodes, watched = self._scans.listing.inodes, watched_inodes()
            unwatched = {name: inode for name, inode in inodes.items() if inode not in watched}
            comparable = "" not in unwatched  # the inodes of this file system
            if comparable and (missed := sum(self._is_there(*each) for each in unwatched.items())):
                if self._sound:  # no fault of theirs: a disk was mounted there, or ejected
                    self._strikes = 0
                self._mistrust(f"{missed} of {len(inodes)} folders can't be watched", now)
            else:
                self._sound = True
                if self._heard:
                    self._strikes = 0
        elif now >= self._next_retry:
            self._next_retry = now + RETRY_SECONDS
            if watch_limit() > self._low_limit:
                self._start(now)

    def _is_there(self, name: str, inode: int) -> bool:
        """Whether a folder still lies where it was listed: those below one that is gone may not."""
        try:
            return os.lstat(self.root / name).st_ino == inode
        except OSError:
            return False

    def _mistrust(self, why: str, now: float) -> None:
        """Make watches that have missed something anew; the second time, scan instead."""
        self._strikes += 1
        self._start(now)
        if self._strikes > 1 and self._watch:
            self._low_limit, self._next_retry = 0, now + RETRY_SECONDS
            self._scan_instead(why)


def _folder_key(root: Path) -> tuple[int, int]:
    """Device and inode of a folder that can be listed; OSError otherwise."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return Identity.of(os.fstat(descriptor)).inode
    finally:
        os.close(descriptor)


def _check_size(root: str, limit: int) -> None:
    """An OSError if a tree is too large to be watched: all of a user's programs share the limit."""
    for count, (folder, _) in enumerate(walk(root), start=1):
        if count > limit:
            why = f"more than {limit} folders; raise it: sysctl fs.inotify.max_user_watches"
            raise OSError(errno.ENOSPC, why)
        if folder.count("/") - root.count("/") > DEEPEST:
            raise OSError(errno.ENAMETOOLONG, f"more than {DEEPEST} folders within each other")
