"""How a folder tree is looked through, slice by slice: all of it with rests, and where hints lead.

Where nothing tells what comes and goes, polls between two scans look for just that. Knows nothing
of events and watches, and of a root that comes and goes.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from stylewatch.domain import Candidate
from stylewatch.folders.listing import Listing
from stylewatch.places import network_devices

SLICE = 4000  # names looked at per call …
SLICE_SECONDS = 0.25  # … and for how long at most: on a share each takes a while
POLL_SECONDS = 10.0  # how often what comes and goes is looked for, where it can't be watched
REST = 19  # times as long as a scan took nothing is scanned, so that it takes a twentieth at most …
LONGEST_REST = 600.0  # … but for no longer
LONGEST_POLL_REST = 60.0  # the same after a poll: what comes is to be found soon
LATE_SECONDS = 15.0  # a scan that has not gone on for so long hangs


class _Walk(NamedTuple):
    """On its way through the tree."""

    names: Iterator[Candidate | None]
    began: float
    kind: Literal["scan", "poll", "other"] = "other"


class Scans:
    """The walks through one tree; `watched` says whether events tell what comes and goes there."""

    def __init__(
        self, folder: str, root: Path, rescan_seconds: float, known: Callable[[], Iterable[str]]
    ) -> None:
        """`known` gives the files that lay there before: the first scan can't miss them itself."""
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
        self._stirred = -math.inf  # when a walk last went on
        self._wonder = False  # a file that this scan finds new should have been heard of
        self.begin_anew()

    def begin_anew(self) -> None:
        """Another tree lies there: nothing of it was seen before."""
        self.listing = Listing(self._folder, self._root)
        self._left_out: frozenset[str] | None = None  # unreadable when compared; None: not yet

    def scan_at_once(self) -> None:
        """Whatever was or was not heard of, all of it is to be looked through."""
        self._at_once, self._wonder, self._next_poll = True, False, math.inf

    def walk_first(self, folders: Iterable[str], now: float) -> None:
        """Look through these folders, before all else."""
        self._walks.appendleft(_Walk(self.listing.walk(_topmost(folders)), now))

    def stop(self) -> None:
        """Look no further."""
        self._walks.clear()

    def begin_due(self, now: float, *, watched: bool) -> None:
        """Begin what it is time for, unless it is under way."""
        if not self._is_scanning and (self._at_once or now >= self._next_scan):
            self._wonder, self._at_once = watched and not self._at_once, False
            self.note_networks()
            self._walks.append(_Walk(self.listing.walk([""], full=True), now, "scan"))
        elif now >= self._next_poll and not self._walks:
            self._walks.append(_Walk(self.listing.walk_changed(), now, "poll"))

    def go_on(self, now: float, *, watched: bool) -> Iterator[Candidate]:
        """A slice of the walks at hand: new and changed names."""
        self._stirred = now
        until = time.monotonic() + SLICE_SECONDS
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
        """A file that should have been heard of, as it was found by a scan; told once."""
        found = self.listing.surprise if self._wonder else ""
        if found:
            self.listing.surprise = ""
        return found

    def missed(self) -> Iterator[Path]:
        """Files that were found no more; a slice of those not told yet. They may be back."""
        missed, until = self.listing.missed, time.monotonic() + SLICE_SECONDS
        for _ in range(min(SLICE, len(missed))):
            yield Path(missed.pop())
            if time.monotonic() > until:  # whoever asks looks at each, which on a share takes long
                break

    def next_due(self, now: float) -> float:
        """When something is to be done."""
        if self._walks or self.listing.missed:
            return now
        return min(self._next_scan, self._next_poll)

    def are_late(self, now: float) -> bool:
        """Whether they hang."""
        return now >= (self._stirred if self._is_scanning else self._next_scan) + LATE_SECONDS

    def note_networks(self) -> None:
        """Files on a share settle by other rules, and one may be mounted in a sub-folder later."""
        self.listing.network = network_devices()

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
        """What went away before the first scan began is missed after it.

        Where that could not look, after the first one that can.
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
