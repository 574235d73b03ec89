"""When a file is complete: it has not changed for a while, nobody writes to it, its end is there.

What is due when goes by times that are handed in: `now`, which is monotonic, and `wall`, the time
of day. So is what knows the end of a picture. Knows nothing of rules, jobs or the ledger.
"""

import contextlib
import errno
import fcntl
import heapq
import itertools
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, Literal

from stylewatch.domain import TURN_SECONDS, Candidate, Identity, Photo
from stylewatch.folders.listing import open_photo

CLOSED_SHARE = 0.25  # of the quiet period suffices after a close or rename, …
CLOSED_QUIET = 0.5  # … but no less than that: scanners close a file and open it again
NETWORK_QUIET = 10.0  # the quiet period where the writer may be on another machine
PATIENCE = 30.0  # the longest pause between two looks at a file that is not complete
LAST_PATIENCE = 60.0  # the pause after it was given out as unsettled, …
LAST_LOOKS = 50  # … or longer, so that all such files get no more looks than that in a second
OLD_LOOKS = 3  # at a file that was old when it came: nobody will bring what it lacks
SLOW_SECONDS = 15.0  # a file that is on its way for so long is named to people
BATCH = 256  # files looked at per call at most, and for no longer than a turn
GONE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}

Reason = Literal["empty", "truncated", "writer", "unreadable"]
LACKS: Final[Mapping[str, str]] = {
    "empty": "it is empty",
    "truncated": "its end is missing",
    "writer": "it is still being written",
    "unreadable": "it can't be read",
}
"""What a file lacks, for people."""


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A file that is still not complete long after its last change.

    Given once for each change, and again when it was asked for (`look_again`).
    """

    file: Photo
    reason: Reason


@dataclass(frozen=True, slots=True)
class Slow:
    """A file that has been on its way for a while, and why."""

    path: Path
    why: str
    since: float
    """Wall-clock time at which it was first seen."""


@dataclass(frozen=True, slots=True)
class Gone:
    """A file that is gone, or has been replaced by something that is no file."""

    file: Photo


@dataclass(slots=True)
class _Waiting:
    """A file on its way."""

    photo: Photo  # what it is if it stays as it is
    network: bool
    seen: float  # when it was first seen …
    seen_wall: float  # … and what time that was
    since: float  # when it was first seen with this identity
    quiet: float  # how long it has to stay so, if the kernel can tell of its writers
    old: bool = False  # it had not changed for long when it was first seen
    lack: Reason | None = None  # at the last look
    blind: bool = False  # the kernel can't tell of its writers
    due: float = math.inf  # when it is looked at
    ticket: int = 0  # its place in the queue
    told: bool = False  # given out as unsettled

    @property
    def quiet_period(self) -> float:
        """How long it has to stay as it is."""
        return self.quiet * (2 if self.blind else 1)


class Settler:
    """Takes one folder's candidates; gives each when it is complete, or tells why it is not."""

    def __init__(
        self,
        structural_end: Callable[[BinaryIO], bool | None],
        *,
        quiet_seconds: float = 2.0,
        settle_max_seconds: float = 600.0,
        max_bytes: float = math.inf,
    ) -> None:
        """A file larger than `max_bytes` need not have an end, as nobody will read it."""
        self._structural_end = structural_end
        self._max_bytes = max_bytes
        self._quiet_seconds = max(quiet_seconds, 0.1)
        self._settle_max_seconds = settle_max_seconds
        self._waiting: dict[Path, _Waiting] = {}  # by path
        self._queue: list[tuple[float, int, _Waiting]] = []  # due, ticket; may be outdated
        self._tickets = itertools.count(1)

    @property
    def arriving(self) -> int:
        """How many files are on their way, without those given out as unsettled."""
        return sum(not file.told for file in self._waiting.values())

    def slow(self, now: float, most: int) -> list[Slow]:
        """Up to `most` files that have lacked something or changed for long, the first ones first.

        Not one that only waits to be looked at, as where thousands have come at once.
        """
        files = (
            file
            for file in self._waiting.values()
            if not file.told and now - file.seen >= SLOW_SECONDS
            if file.lack or (file.since - file.seen >= SLOW_SECONDS and now < file.due)
        )
        return [
            Slow(
                file.photo.path,
                LACKS[file.lack] if file.lack else "it keeps changing",
                file.seen_wall,
            )
            for file in heapq.nsmallest(most, files, key=lambda file: file.seen)
        ]

    def observe(self, candidate: Candidate, now: float, wall: float = 0.0) -> None:
        """Take note of a file as it is now.

        `wall` is the time of day, 0 if unknown. It only serves to tell that a file is old, so that
        what it lacks is waited for less long. So a clock that is changed does no harm.
        """
        identity = Identity.of(candidate.stat)
        quiet = self._quiet(network=candidate.network, closed=candidate.closed)
        file = self._waiting.get(candidate.path)
        if file is None or file.photo.identity != identity:
            photo = Photo(candidate.folder, candidate.root, candidate.path, identity)
            seen, seen_wall = (file.seen, file.seen_wall) if file else (now, wall)
            changed = identity.mtime_ns / 1e9
            old = file is None and 0.0 < changed < wall - self._settle_max_seconds
            file = self._waiting[photo.path] = _Waiting(
                photo, candidate.network, seen, seen_wall, since=now, quiet=quiet, old=old
            )
            self._look_at(now + quiet, file)
        elif candidate.closed:
            file.quiet = quiet
            self._look_at(min(file.due, now + quiet), file)

    def take_back(self, photo: Photo, now: float, wall: float) -> None:
        """Give a file that was complete, and then could not be read, once more: after a while."""
        file = self._waiting[photo.path] = _Waiting(
            photo,
            network=True,  # nobody was writing to it, and not every kernel can tell that
            seen=now,
            seen_wall=wall,
            since=now,
            quiet=self._quiet_seconds,
            told=True,
        )
        self._wait_on(file, "unreadable", now)

    def look_again(self, path: Path) -> None:
        """Give a file (relative to the root), if it was given out as unsettled, once more."""
        file = self._waiting.get(path)
        if file and file.told:
            file.told = False
            self._look_at(file.since, file)

    def settled(self, now: float, share: float = 1.0) -> list[Photo | Unsettled | Gone]:
        """Files found to be complete, unsettled or gone, by a bounded number of looks.

        They take no longer than this share of a turn.
        """
        results: list[Photo | Unsettled | Gone] = []
        until = time.monotonic() + share * TURN_SECONDS
        for _ in range(BATCH):
            if self.next_due(now) > now:
                break
            _, _, file = heapq.heappop(self._queue)
            if result := self._look(file, now):
                results.append(result)
            if time.monotonic() > until:
                break
        return results

    def next_due(self, now: float) -> float:
        """When `settled` has something to do; infinite when nothing waits."""
        while self._queue:
            due, ticket, file = self._queue[0]
            if self._waiting.get(file.photo.path) is file and file.ticket == ticket:
                return max(now, due)
            heapq.heappop(self._queue)
        return math.inf

    def _look(self, file: _Waiting, now: float) -> Photo | Unsettled | Gone | None:
        """Look at a file that is due; what it is now, if that is settled."""
        try:
            with open_photo(file.photo) as stream:
                lack = self._lack(stream, file)
                identity = Identity.of(os.fstat(stream.fileno()))
        except OSError as error:
            if error.errno in GONE:
                del self._waiting[file.photo.path]
                return Gone(file.photo)
            lack, identity = "unreadable", file.photo.identity
        if identity != file.photo.identity:
            file.photo = replace(file.photo, identity=identity)
            file.since, file.told, file.old, file.lack = now, False, False, None
            file.quiet = self._quiet(network=file.network, closed=False)
        if now < (due := file.since + file.quiet_period):
            self._look_at(due, file)
            return None
        file.lack = lack
        if lack:
            return self._wait_on(file, lack, now)
        del self._waiting[file.photo.path]
        return file.photo

    def _lack(self, stream: BinaryIO, file: _Waiting) -> Reason | None:
        """What an open file lacks to be complete, if it stays as it is."""
        writer = None if file.network else has_writer(stream.fileno())
        if writer:
            return "writer"
        if writer is None and not file.network:
            file.blind = True
        if file.photo.identity.size == 0:
            return "empty"
        if os.fstat(stream.fileno()).st_size > self._max_bytes:
            return None
        try:
            return "truncated" if self._structural_end(stream) is False else None
        except OSError:
            raise
        except Exception:  # noqa: BLE001
            return None  # the check stumbled over strange bytes: the decoder has the last word

    def _wait_on(self, file: _Waiting, lack: Reason, now: float) -> Unsettled | None:
        """Look again later, ever more rarely; `Unsettled`, once, when it takes too long."""
        deadline = file.since + self._patience(file, lack)
        news = now >= deadline and not file.told
        file.told |= news
        if file.told:
            self._look_at(now + max(LAST_PATIENCE, len(self._waiting) / LAST_LOOKS), file)
        else:
            pause = min(max((now - file.since) / 4, file.quiet), PATIENCE)
            self._look_at(min(now + pause, max(deadline, now)), file)
        return Unsettled(file.photo, lack) if news else None

    def _patience(self, file: _Waiting, lack: Reason) -> float:
        """How long a file may lack something; not long if it was old when it came."""
        if file.old and lack in {"empty", "truncated"}:
            return min(OLD_LOOKS * file.quiet_period, self._settle_max_seconds)
        return self._settle_max_seconds

    def _look_at(self, due: float, file: _Waiting) -> None:
        file.due, file.ticket = due, next(self._tickets)
        heapq.heappush(self._queue, (due, file.ticket, file))

    def _quiet(self, *, network: bool, closed: bool) -> float:
        if network:
            return max(self._quiet_seconds, NETWORK_QUIET)
        if not closed:
            return self._quiet_seconds
        return max(CLOSED_SHARE * self._quiet_seconds, min(self._quiet_seconds, CLOSED_QUIET))


def has_writer(descriptor: int) -> bool | None:
    """Whether any process here has this file open, or mapped, for writing; None: can't be told.

    The kernel grants a read lease only on a file without writers. We give it back at once. If
    somebody opens the file in between, the kernel signals that to us: by SIGURG, which is ignored,
    as its usual SIGIO would kill us.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None  # another owner's file, or a file system without leases
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
