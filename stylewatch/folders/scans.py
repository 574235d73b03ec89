"""When a folder tree is looked through, in slices that leave the daemon time for other things.

There are three kinds of walks: scans, of everything, now and then; walks through the folders that
events have named; and, where no events are to be had, polls between two scans, which only look for
what has come or gone. Knows nothing of how events are got, and of a root that comes and goes.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from stylewatch.domain import TURN_SECONDS, Candidate
from stylewatch.folders.listing import Listing
from stylewatch.places import network_devices, numberless_devices

SLICE = 4000  # names looked at per call at most, and for no longer than a share of a turn
POLL_SECONDS = 10.0  # between two polls
REST = 19  # after a scan, a pause of so many times its length: it takes a twentieth of the time …
LONGEST_REST = 600.0  # … but no pause is longer than that
LONGEST_POLL_REST = 60.0  # nor this after a poll: new photos are to be found soon
LATE_SECONDS = 15.0  # a scan that has made no step for so long hangs


class _Walk(NamedTuple):
    """A walk under way."""

    names: Iterator[Candidate | None]
    began: float
    kind: Literal["scan", "poll", "other"] = "other"


class Scans:
    """The walks through one tree."""

    def __init__(
        self, folder: str, root: Path, rescan_seconds: float, known: Callable[[], Iterable[str]]
    ) -> None:
        """`known` gives the files that lay there earlier, as the first scan can't know of them."""
        self._folder, self._root = folder, root
        self._rescan_seconds = rescan_seconds
        self.poll_seconds = min(POLL_SECONDS, rescan_seconds)
        self._known = known
        self._walks: deque[_Walk] = deque()
        self._at_once = False
        self.ended = -math.inf
        """When the last scan was through."""
        self._next_scan, self._next_poll = -math.inf, math.inf
        self._poll_rest = self.poll_seconds
        self._last_step = -math.inf  # when a walk last went on
        self._events_expected = False  # of each new file that this scan finds there was an event
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget all that was seen: another tree lies there now."""
        self.listing = Listing(self._folder, self._root)
        self._left_out: frozenset[str] | None = None
        """Folders that could not be read when `known` was last compared; None: it never was."""

    def scan_at_once(self) -> None:
        """Begin a scan as soon as can be, as events may have been lost."""
        self._at_once, self._events_expected, self._next_poll = True, False, math.inf

    def stop(self) -> None:
        """Look no further."""
        self._walks.clear()

    def look(
        self,
        files: Mapping[str, bool],
        folders: Collection[str],
        now: float,
        share: float,
        *,
        watched: bool,
    ) -> Iterator[Candidate]:
        """New and changed files: first those of `files`, then what a slice of the walks meets.

        Events have named `files`, each with whether it was closed, and `folders`, which are looked
        through before all else. The walks take no longer than this `share` of a turn. `watched`
        says whether events tell of changes now.
        """
        self._begin_due(now, watched=watched)
        if folders:
            self._walks.appendleft(_Walk(self.listing.walk(_topmost(folders)), now))
        yield from self.listing.look(files)
        yield from self._go_on(now, share, watched=watched)

    def _begin_due(self, now: float, *, watched: bool) -> None:
        """Begin a scan or a poll if it is time."""
        if not self._is_scanning and (self._at_once or now >= self._next_scan):
            self._events_expected, self._at_once = watched and not self._at_once, False
            self.listing.surprise = ""  # the scan before may have expected none
            self.note_devices()
            self._walks.append(_Walk(self.listing.walk([""], full=True), now, "scan"))
        elif now >= self._next_poll and not self._walks:
            self._walks.append(_Walk(self.listing.walk_changed(), now, "poll"))

    def _go_on(self, now: float, share: float, *, watched: bool) -> Iterator[Candidate]:
        """Do a slice of the walks under way; the new and changed files that it meets."""
        self._last_step = now
        until = time.monotonic() + share * TURN_SECONDS
        for _ in range(SLICE):
            if not self._walks or time.monotonic() > until:
                break
            try:
                found = next(self._walks[0].names)
            except StopIteration:
                self._end_walk(self._walks.popleft(), now, watched=watched)
            else:
                if found:
                    yield found

    def take_surprise(self) -> str:
        """A new file that a scan has found though no event has told of it; each is told once."""
        found = self.listing.surprise if self._events_expected else ""
        if found:
            self.listing.surprise = ""
        return found

    def missed(self, share: float) -> Iterator[Path]:
        """Files that are gone, a slice of those not told yet; they may be back by now."""
        missed, until = self.listing.missed, time.monotonic() + share * TURN_SECONDS
        for _ in range(min(SLICE, len(missed))):
            yield Path(missed.pop())
            if time.monotonic() > until:  # the caller looks at each, which takes long on a share
                break

    def next_due(self, now: float) -> float:
        """When there is something to do."""
        if self._walks or self.listing.missed:
            return now
        return min(self._next_scan, self._next_poll)

    def are_late(self, now: float) -> bool:
        """Whether a scan hangs, or is overdue."""
        return now >= (self._last_step if self._is_scanning else self._next_scan) + LATE_SECONDS

    def note_devices(self) -> None:
        """See on which devices files settle, or are known again, by other rules."""
        self.listing.network = network_devices()
        self.listing.numberless = numberless_devices()

    @property
    def _is_scanning(self) -> bool:
        return any(walk.kind == "scan" for walk in self._walks)

    def _end_walk(self, walk: _Walk, now: float, *, watched: bool) -> None:
        rest = REST * (now - walk.began)
        if walk.kind == "scan":
            self.ended = now
            if self._left_out is None or self._left_out - self.listing.unreadable.keys():
                self._walks.append(_Walk(self._compare(), now))
            every = self._rescan_seconds if watched else self.poll_seconds
            self._next_scan = now + max(every, min(rest, LONGEST_REST))
        elif walk.kind == "poll":
            self._poll_rest = max(self.poll_seconds, min(rest, LONGEST_POLL_REST))
        self._next_poll = math.inf if watched else now + self._poll_rest

    def _compare(self) -> Iterator[None]:
        """Miss the files that went away before the first scan began, now that one has ended.

        Files in a folder that it could not read are compared after the first scan that can.
        """
        left_out = frozenset(self.listing.unreadable)
        yield from self.listing.miss_unlisted(self._known())
        self._left_out = left_out


def _topmost(folders: Iterable[str]) -> list[str]:
    """Those that lie in none of the others: a walk covers the rest."""
    kept: list[str] = []
    for folder in sorted(folders, key=lambda each: each.split("/")):
        if not kept or not folder.startswith(f"{kept[-1]}/"):
            kept.append(folder)
    return kept
