"""Watched folders: events are hints of where to look and when, the listing is the truth.

Believes the watches only while they prove themselves; else the folder is scanned more often.
Knows nothing of pictures, rules, jobs or the ledger.
"""

import errno
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from stylewatch.domain import Candidate, Identity, counted
from stylewatch.errors import LockedError
from stylewatch.folders.listing import Listing, walk
from stylewatch.folders.watches import Inbox, Watch, Watches, watch_limit, watched_inodes
from stylewatch.places import network_devices

SLICE = 4000  # names looked at per drain …
SLICE_SECONDS = 0.25  # … and for how long at most: on a share each takes a while
ROOT_SECONDS = 2.0  # how often the root itself is looked at
POLL_SECONDS = 10.0  # how often what comes and goes is, where it can't be watched
REST = 19  # times as long as a scan took nothing is scanned, so that it takes a twentieth at most …
LONGEST_REST = 600.0  # … but for no longer
LONGEST_POLL_REST = 60.0  # the same after a poll: what comes is to be found soon
PATIENCE = 2.0  # an event that is this late is lost
REGISTER_SECONDS = 1.0  # a new folder that is not watched by then never will be
LATE_SECONDS = 15.0  # a scan that has not gone on for so long hangs
RETRY_SECONDS = 600.0  # until a folder that had to be scanned is watched again
DEEPEST = 500  # folders within each other: watchdog's walk recurses before Python 3.12

FolderState = Literal["watching", "scanning", "missing", "unreadable", "locked", "blocked"]
"""Blocked: it is watched, but its results have no room."""


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


class _Walk(NamedTuple):
    """On its way through the tree."""

    names: Iterator[Candidate | None]
    began: float
    kind: Literal["scan", "poll", "other"] = "other"


class FolderSource:
    """One watched root: hints in, candidates out, each name again only when it changed."""

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
        """`take_up` is called when the root has come; a LockedError of its leaves it alone.

        `known` gives the files that lay there before: the first scan can't miss them itself.
        """
        self.folder = folder
        self.root = root
        self._watches = watches
        self._rescan_seconds = rescan_seconds
        self._take_up = take_up
        self._known = known
        self._left_out: frozenset[str] | None = None  # unreadable when compared; None: not yet
        self._poll_seconds = min(POLL_SECONDS, rescan_seconds)
        self._listing = Listing(folder, root)
        self._inbox = Inbox("", watches.wake)
        self._watch: Watch | None = None
        self._state: FolderState = "missing"
        self._detail = ""
        self._root_key: tuple[int, int] | None = None  # (dev, ino) while the root is there
        self._next_root = -math.inf
        self._walks: deque[_Walk] = deque()
        self._scan_now = False
        self._next_scan = self._last_scan = -math.inf
        self._next_poll = math.inf  # for what comes and goes between two scans, where none tells
        self._poll_rest = self._poll_seconds
        self._stirred = -math.inf  # when a scan last went on
        self._wonder = False  # a file that this scan finds new should have been heard of
        self._suspect = ""  # such a file …
        self._proof_at = math.inf  # … and when it is proof that events get lost
        self._next_check = self._next_retry = math.inf
        self._strikes = 0  # how often in a row the watches were found wanting
        self._heard = False  # any event since they were built
        self._low_limit = 0  # the watch limit that did not suffice

    def drain(self, now: float) -> list[Candidate]:
        """New and changed names since the last call; a long scan goes on in the next one."""
        if now >= self._next_root or (self._watch and not self._watches.alive(self._watch)):
            self._look_at_root(now)
        if self._root_key is None:
            return []
        files, folders = self._hear(now)
        self._judge_watches(now)
        if not self._is_scanning and (self._scan_now or now >= self._next_scan):
            self._begin_scan(now)
        elif now >= self._next_poll and not self._walks:
            self._walks.append(_Walk(self._listing.walk_changed(), now, "poll"))
        if folders:
            self._walks.appendleft(_Walk(self._listing.walk(_topmost(folders)), now))
        return [*self._listing.look(files), *self._go_on(now)]

    def missed(self) -> Iterator[Path]:
        """Files that the scans found no more; a slice of those not told yet. They may be back."""
        missed, until = self._listing.missed, time.monotonic() + SLICE_SECONDS
        for _ in range(min(SLICE, len(missed))):
            yield Path(missed.pop())
            if time.monotonic() > until:  # whoever asks looks at each, which on a share takes long
                break

    def next_due(self, now: float) -> float:
        """When `drain` has something to do; an event may make it earlier."""
        if self._root_key is None:
            return self._next_root
        if self._walks or self._inbox.has_news or self._listing.missed:
            return now
        return min(
            *(self._next_root, self._next_scan, self._next_poll),
            *(self._proof_at, self._next_check, self._next_retry),
        )

    def health(self, now: float) -> FolderHealth:
        """For the console, `status` and the service's own watchdog."""
        detail, unreadable = self._detail, self._listing.unreadable
        if unreadable and not detail:
            first = min(unreadable)
            folders = counted(len(unreadable), "folder")
            detail = f"{folders} can't be read, as {first or '.'}: {unreadable[first]}"
        return FolderHealth(
            folder=self.folder,
            root=self.root,
            state=self._state,
            detail=detail,
            scan_age=now - self._last_scan,
        )

    def signs(self, now: float) -> dict[str, bool]:
        """Whether what has to move here does: the threads that bring events, and the scans.

        A folder that is away needs neither.
        """
        if self._root_key is None:
            return {}
        scans = self._stirred if self._is_scanning else self._next_scan
        return {
            f"events of {self.root}": self._watch is None or self._watches.alive(self._watch),
            f"scans of {self.root}": now < scans + LATE_SECONDS,
        }

    def again(self, path: Path) -> None:
        """Hand out this file (relative to the root) once more, changed or not."""
        self._listing.forget(str(path))
        self._inbox.note(str(path))

    def close(self) -> None:
        """Watch and scan no more."""
        if self._watch:
            self._watches.remove(self._watch)
        self._watch = None
        self._walks.clear()

    def _look_at_root(self, now: float) -> None:
        """Notice a root that went away, came back, was replaced, or that falls silent."""
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
            self._leave(state, f"{error.strerror}: {self.root}; it is taken up when that is over")
            return
        if key != self._root_key:
            self._root_key, self._strikes = key, 0
            self._listing, self._left_out = Listing(self.folder, self.root), None
            self._start(now)
        elif self._watch and not self._watches.alive(self._watch):
            self._start(now)

    def _leave(self, state: FolderState, why: str) -> None:
        self.close()
        if state == "missing":  # what comes back may be another disk
            self._listing.miss_all()
        self._root_key, self._state, self._detail = None, state, why

    def _start(self, now: float) -> None:
        """Watches first, then the scan: nothing can fall in between."""
        self.close()
        self._scan_now, self._suspect, self._proof_at = True, "", math.inf
        self._next_poll = self._next_check = self._next_retry = math.inf
        self._note_networks()
        if self._root_key and self._root_key[0] in self._listing.network:
            self._scan_instead("others may write to this network file system unseen")
            return
        root, limit = os.path.realpath(self.root), watch_limit()
        self._inbox, self._heard = Inbox(root, self._watches.wake), False
        try:
            _check_size(root, limit)
            self._watch = self._watches.add(root, self._inbox)
        except OSError as error:
            self._low_limit, self._next_retry = limit, now + RETRY_SECONDS
            self._scan_instead(f"it can't be watched ({error.strerror or error})")
        else:
            self._state, self._detail = "watching", ""

    def _note_networks(self) -> None:
        """Files on a share settle by other rules, and one may be mounted in a sub-folder later."""
        self._listing.network = network_devices()

    def _scan_instead(self, why: str) -> None:
        self.close()
        self._state = "scanning"
        self._detail = f"{why}, so it is scanned every {self._poll_seconds:g} s"
        self._scan_now = True

    def _hear(self, now: float) -> tuple[dict[str, bool], set[str]]:
        """Take the hints; they also prove that the watches work."""
        files, folders, overflown = self._inbox.take()
        self._heard |= bool(files or folders)
        self._scan_now |= overflown
        self._wonder &= not overflown
        if overflown or self._suspect in files:
            self._suspect, self._proof_at = "", math.inf
        if "" in folders:
            self._next_root = now
            folders.discard("")
        if folders and self._watch:
            self._next_check = now + REGISTER_SECONDS
        return files, folders

    def _judge_watches(self, now: float) -> None:
        """Watches that miss something are built anew, and given up when that does not help."""
        if now >= self._proof_at:
            self._watches.renew()
            self._mistrust("no events come from it", now)
        elif now >= self._next_check:
            self._next_check = math.inf
            inodes, watched = self._listing.inodes, watched_inodes()
            missed = [name for name, inode in inodes.items() if inode not in watched]
            if missed and "" not in missed:  # inodes are comparable on this file system
                self._mistrust(f"{len(missed)} of {len(inodes)} folders can't be watched", now)
            elif self._heard:
                self._strikes = 0
        elif now >= self._next_retry:
            self._next_retry = now + RETRY_SECONDS
            if watch_limit() > self._low_limit:
                self._start(now)

    def _mistrust(self, why: str, now: float) -> None:
        self._strikes += 1
        self._start(now)
        if self._strikes > 1 and self._watch:
            self._low_limit, self._next_retry = 0, now + RETRY_SECONDS
            self._scan_instead(why)

    @property
    def _is_scanning(self) -> bool:
        return any(walk.kind == "scan" for walk in self._walks)

    def _begin_scan(self, now: float) -> None:
        self._wonder = self._watch is not None and not self._scan_now
        self._scan_now = False
        self._note_networks()
        self._walks.append(_Walk(self._listing.walk([""], full=True), now, "scan"))

    def _go_on(self, now: float) -> Iterator[Candidate]:
        """A slice of the walks at hand."""
        self._stirred = now
        until = time.monotonic() + SLICE_SECONDS
        for _ in range(SLICE):
            if not self._walks or time.monotonic() > until:
                break
            try:
                found = next(self._walks[0].names)
            except StopIteration:
                self._end_walk(self._walks.popleft(), now)
            else:
                if found:
                    yield found
        if self._wonder and self._listing.surprise and not self._suspect:
            self._suspect, self._proof_at = self._listing.surprise, now + PATIENCE
            self._listing.surprise = ""

    def _end_walk(self, walk: _Walk, now: float) -> None:
        rest = REST * (now - walk.began)
        if walk.kind == "scan":
            self._end_scan(min(rest, LONGEST_REST), now)
        elif walk.kind == "poll":
            self._poll_rest = max(self._poll_seconds, min(rest, LONGEST_POLL_REST))
        self._next_poll = math.inf if self._watch else now + self._poll_rest

    def _compare(self) -> Iterator[None]:
        """What went away before the first scan began is missed after it.

        Where that could not look, after the first one that can.
        """
        left_out = frozenset(self._listing.unreadable)
        yield from self._listing.miss_unlisted(self._known())
        self._left_out = left_out

    def _end_scan(self, rest: float, now: float) -> None:
        self._last_scan = now
        if self._left_out is None or self._left_out - self._listing.unreadable.keys():
            self._walks.append(_Walk(self._compare(), now))
        every = self._rescan_seconds if self._watch else self._poll_seconds
        self._next_scan = now + max(every, rest)
        if self._watch:
            self._next_check = now + REGISTER_SECONDS


def _folder_key(root: Path) -> tuple[int, int]:
    """Device and inode of a folder that can be listed; OSError otherwise."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return Identity.of(os.fstat(descriptor)).inode
    finally:
        os.close(descriptor)


def _topmost(folders: Iterable[str]) -> list[str]:
    """Those that lie in none of the others: a walk covers the rest."""
    kept: list[str] = []
    for folder in sorted(folders, key=lambda each: each.split("/")):
        if not kept or not folder.startswith(f"{kept[-1]}/"):
            kept.append(folder)
    return kept


def _check_size(root: str, limit: int) -> None:
    """Ask for no watches where they can't suffice: they are shared by all of a user's programs."""
    for count, (folder, _) in enumerate(walk(root), start=1):
        if count > limit:
            why = f"more than {limit} folders; raise it: sysctl fs.inotify.max_user_watches"
            raise OSError(errno.ENOSPC, why)
        if folder.count("/") - root.count("/") > DEEPEST:
            raise OSError(errno.ENAMETOOLONG, f"more than {DEEPEST} folders within each other")
