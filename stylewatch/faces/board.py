"""What a person sees of the daemon at one moment, put together from its events.

Pure: it changes only by `apply(event, now)`. Knows nothing of terminals, threads or the ledger.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice, zip_longest
from typing import Any

from stylewatch.domain import (
    ALL_DAY,
    AT_HAND,
    LASTING,
    LEARNING,
    REFUSED,
    Event,
    Hours,
    Step,
    with_rests,
)
from stylewatch.faces.lines import in_folder

KEPT_RESULTS = 50
KEPT_PROBLEMS = 40
KEPT_LOSSES = 64
PACE_RESULTS = 20
_HEADLINES = frozenset({"started", "reload", "known"})
_COUNTS = ("arriving", "waiting", "done", "failed", "held")


@dataclass
class FolderRow:
    """One watched folder."""

    name: str
    path: str = ""
    state: str = "watching"
    note: str = ""
    scanned: bool = False
    """Whether it was looked through to its end since the daemon began to watch it."""
    arriving: int = 0
    waiting: int = 0
    work: float | None = 0.0
    """Seconds that those which wait will take; 0 where that is not known, None where it can't."""
    done: int = 0
    failed: int = 0
    held: int = 0
    slow: list[tuple[str, str, float]] = field(default_factory=list)
    """Files that take long to arrive: path, why, since when."""
    next: list[tuple[str, str]] = field(default_factory=list)
    """The photos whose turn comes first: path, preset."""


@dataclass
class JobRow:
    """One photo that is being painted."""

    job_id: int
    path: str
    preset: str
    since: float
    step: Step | None = None
    memory: int = 0
    """Bytes of RAM that its worker holds; 0 where that is not known."""
    losses: list[float] = field(default_factory=list)

    def note_loss(self, loss: float) -> None:
        """Remember the loss; of a long course every second value is dropped, again and again."""
        if not math.isfinite(loss):
            return
        self.losses.append(loss)
        if len(self.losses) >= KEPT_LOSSES:
            del self.losses[1:-1:2]


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One finished picture."""

    at: float
    path: str
    preset: str
    output: str
    seconds: float
    job_id: int = 0
    source: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ProblemRow:
    """One thing that went wrong, with what to do about it."""

    at: float
    kind: str
    message: str
    job_id: int = 0
    folder: str = ""
    path: str = ""
    reason: str = ""
    output: str = ""

    @property
    def of_photo(self) -> bool:
        """Whether it is about a photo; all else still holds, as far as we have heard."""
        return bool(self.job_id or self.path)

    @property
    def lasts(self) -> bool:
        """Whether it is a folder's own trouble, which is over when the folder is well again."""
        return bool(self.folder) and not self.of_photo

    @property
    def general(self) -> bool:
        """Whether it is about no photo and no folder."""
        return not (self.folder or self.of_photo)

    def is_of(self, event: Event) -> bool:
        """Whether that event is about the same photo."""
        if event.job_id and self.job_id:
            return event.job_id == self.job_id
        return bool(event.path) and (event.folder, event.path) == (self.folder, self.path)


class Board:
    """Folders, photos in work, results and problems."""

    def __init__(self) -> None:
        self.title = ""
        self.attached = False
        """The daemon is another process, which goes on when the view ends."""
        self.slots = 1
        self.hours: Sequence[Hours] = ALL_DAY
        self.paused = ""
        """The words after `paused`; empty while photos are begun."""
        self.stopping = False
        self.folders: dict[str, FolderRow] = {}
        self.jobs: dict[int, JobRow] = {}
        self.results: deque[ResultRow] = deque(maxlen=KEPT_RESULTS)
        self.problems: list[ProblemRow] = []
        self.since: float | None = None
        """When this session of the daemon began; None if that was before we listened."""
        self.done = 0
        """Photos painted in this session; the folders' rows count all that the ledger knows."""
        self.headline = ""
        self.stop_message = ""
        self._failed: dict[tuple[str, str], dict[int, ProblemRow]] = {}  # by photo, by job

    @property
    def waiting(self) -> int:
        """Photos in the queue, those in work not counted."""
        return sum(row.waiting for row in self.folders.values())

    @property
    def failed(self) -> list[ProblemRow]:
        """Photos that failed in this session and were not painted since, the first ones first."""
        rows = [row for jobs in self._failed.values() for row in jobs.values()]
        return sorted(rows, key=lambda row: row.at)

    def total(self, name: str) -> int:
        """All folders together: `arriving`, `waiting`, `done`, `failed` or `held`."""
        return sum(getattr(row, name) for row in self.folders.values())

    def told(self, row: ProblemRow) -> str:
        """Its message, with the folder's name where there are several folders."""
        several = len(self.folders) > 1
        return in_folder(row.message, row.folder, row.path) if several else row.message

    def next_photos(self) -> list[tuple[str, str]]:
        """The photos whose turn comes first, one of each folder in turn."""
        turns = zip_longest(*(row.next for row in self.folders.values()))
        return [photo for turn in turns for photo in turn if photo]

    def apply(self, event: Event, now: float) -> None:  # noqa: C901, PLR0912  (a table of the kinds)
        """Take note of an event; one with `extra["at"]` is an old one, of that time."""
        if event.kind == "started" and "at" not in event.extra and self.since is None:
            self.since = now
        now = float(event.extra.get("at", now))
        match event.kind:
            case "started" | "watching" | "folder":
                self.slots = max(1, int(event.extra.get("slots", self.slots)))
                if "hours" in event.extra:
                    self.hours = [Hours(*each) for each in event.extra["hours"]]
                if event.kind == "started":
                    self.done = int(event.extra.get("done", self.done))
                if event.folder:
                    self._note_folder(event, now)
            case "queued":
                self._solved(event)
                self.folder(event.folder).waiting += 1
            case "running":
                self._begin(event, now)
            case "progress":
                self._note_step(event, now)
            case "done":
                self._finish(event, now)
            case _ if event.stops_work:
                self._forget_ended_by(event)
                self._note_problem(event, now)
            case "paused":
                self.paused = str(event.extra.get("why", "by hand"))
            case "resumed":
                self.paused = ""
            case "recovered" | "reload":
                self._forget_ended_by(event)
            case "stopping":
                self.stopping, self.stop_message = True, event.message
        if event.kind in _HEADLINES or event.reason == REFUSED:
            self.headline = event.message
        if "waiting" in event.extra:  # the daemon's own counts replace ours
            self._believe(event)

    @property
    def pace(self) -> float:
        """Seconds that a photo takes, from the last ones that were painted; 0 before the first."""
        seconds = [row.seconds for row in islice(self.results, PACE_RESULTS) if row.seconds > 0]
        return sum(seconds) / len(seconds) if seconds else 0.0

    @property
    def per_hour(self) -> float:
        """Photos per hour while there are enough of them; 0 before the first."""
        return 3600.0 * self.slots / self.pace if self.pace else 0.0

    def queue_seconds(self, now: float) -> float:
        """When the queue will be empty; 0 while that can't be known, and while nobody paints."""
        if self.paused or any(row.general and row.reason in LASTING for row in self.problems):
            return 0.0
        running = [
            (now - row.since, row.step.left if row.step else None) for row in self.jobs.values()
        ]
        waiting = [(row.state, row.waiting, row.work) for row in self.folders.values()]
        return queue_seconds(running, waiting, self.pace, self.slots, self.hours, now)

    def running(self) -> list[JobRow]:
        """Photos in work, in the order in which they began."""
        return sorted(self.jobs.values(), key=lambda row: (row.since, row.job_id))

    def folder(self, name: str) -> FolderRow:
        """The row of that folder, made when it is new."""
        return self.folders.setdefault(name, FolderRow(name))

    def _note_folder(self, event: Event, now: float) -> None:
        self._keep(lambda problem: problem.folder != event.folder or not problem.lasts)
        if event.reason == "left":  # the config does not have it any more
            self.folders.pop(event.folder, None)
            self._keep(lambda problem: problem.folder != event.folder)
            return
        row = self.folder(event.folder)
        row.path = event.path or row.path
        row.state = event.reason or "watching"
        row.note = event.message if event.reason else ""
        if row.note and row.state != "blocked":  # the output's own line says more of that
            since = float(event.extra.get("since", now))
            kind = "warning" if row.state == "watching" else row.state
            self._add_problems(ProblemRow(at=since, kind=kind, message=row.note, folder=row.name))

    def _believe(self, event: Event) -> None:
        """Take over what the daemon tells of a folder as a whole, whatever we have counted."""
        row, told = self.folder(event.folder), event.extra
        for name in _COUNTS:
            setattr(row, name, int(told.get(name, getattr(row, name))))
        row.work = told.get("work", row.work)
        row.scanned = bool(told.get("scanned", row.scanned))
        row.slow = [(path, why, since) for path, why, since in told.get("slow", row.slow)]
        row.next = [(path, preset) for path, preset in told.get("next", row.next)]
        if "results" in told:
            self._believe_results(told["results"])
        if "failures" in told:
            self._believe_failures(row.name, told["failures"])

    def _believe_results(self, told: Iterable[Mapping[str, Any]]) -> None:
        """Take over results: these say more than their events did, and are also of earlier ones."""
        rows = [ResultRow(**_known(ResultRow, each)) for each in told]
        numbers = {row.job_id for row in rows}
        others = [row for row in self.results if row.job_id not in numbers]
        latest = sorted([*rows, *others], key=lambda row: row.at, reverse=True)
        self.results = deque(latest[:KEPT_RESULTS], maxlen=KEPT_RESULTS)

    def _believe_failures(self, folder: str, told: Iterable[Mapping[str, Any]]) -> None:
        rows = [
            ProblemRow(**{**_known(ProblemRow, each), "kind": "failed", "folder": folder})
            for each in told
        ]
        self._keep(lambda row: row.kind != "failed" or row.folder != folder)
        self._add_problems(*rows)

    def _solved(self, event: Event) -> None:
        """Forget what went wrong with the event's photo: it is tried again, or painted."""
        self._keep(lambda row: not row.is_of(event))
        jobs = self._failed.get((event.folder, event.path), {})
        for number in [number for number, row in jobs.items() if row.is_of(event)]:
            del jobs[number]
        if not jobs:
            self._failed.pop((event.folder, event.path), None)

    def _forget_ended_by(self, event: Event) -> None:
        self._keep(
            lambda row: (
                not row.general or not event.ends(row.kind, row.reason, row.message, row.output)
            )
        )

    def _keep(self, wanted: Callable[[ProblemRow], bool]) -> None:
        self.problems = [*filter(wanted, self.problems)]

    def _add_problems(self, *rows: ProblemRow) -> None:
        """Take in new ones. What still holds comes first, so that no photo's pushes it away.

        What a new ledger has learned is just told.
        """
        problems = [*rows, *self.problems]
        problems.sort(
            key=lambda row: (not row.of_photo and row.reason != LEARNING, row.at), reverse=True
        )
        self.problems = problems[:KEPT_PROBLEMS]

    def _begin(self, event: Event, now: float) -> None:
        row = self.folder(event.folder)
        row.waiting = max(0, row.waiting - 1)
        self._solved(event)
        self.jobs[event.job_id] = JobRow(event.job_id, event.path, event.preset, now)

    def _note_step(self, event: Event, now: float) -> None:
        if event.step is None:
            return
        row = self.jobs.get(event.job_id)
        if row is None:  # attached in the middle of the job
            since = now - event.step.seconds
            row = JobRow(event.job_id, event.path, event.preset, since)
            self.jobs[event.job_id] = row
        if row.step and row.step.scale != event.step.scale:
            row.losses.clear()  # another size has another loss
        row.step = event.step
        row.memory = int(event.extra.get("memory", 0))
        row.note_loss(event.step.loss)

    def _finish(self, event: Event, now: float) -> None:
        self.jobs.pop(event.job_id, None)
        self._solved(event)
        if "at" not in event.extra:
            self.done += 1
            if row := self.folders.get(event.folder):  # it may have been left since
                row.done += 1
        self.results.appendleft(ResultRow(at=now, **_known(ResultRow, vars(event))))

    def _note_problem(self, event: Event, now: float) -> None:
        self.jobs.pop(event.job_id, None)
        self._solved(event)
        row = self.folders.get(event.folder)
        replaced = (event.kind, event.reason) == ("retry", "changed")
        wanted = replaced or event.reason in {"cancelled", "vanished"}  # by somebody
        if row and "at" not in event.extra:
            row.failed += event.kind == "failed"
            row.waiting += event.kind == "retry" and not wanted
            row.held += event.reason == "cancelled"
        if wanted:
            return
        problem = ProblemRow(at=now, **_known(ProblemRow, vars(event)))
        self._add_problems(problem)
        if event.kind == "failed" and "at" not in event.extra:
            self._failed.setdefault((event.folder, event.path), {})[event.job_id] = problem


def _known(kind: type, told: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that are fields of a row of that kind; `id` is its `job_id`."""
    names = {each.name for each in fields(kind)}
    found = {name: value for name, value in told.items() if name in names}
    return {"job_id": told.get("id", 0), **found}


def queue_seconds(
    running: Sequence[tuple[float, float | None]],
    waiting: Iterable[tuple[str, int, float | None]],
    pace: float,
    slots: int,
    hours: Sequence[Hours],
    now: float,
) -> float:
    """When all is painted; 0 while that can't be known, as in a folder that is blocked.

    Of each running photo: the seconds since it began, and those that are left, once that is known.
    Of each folder: its state, how many photos wait, and the seconds that these will take: None
    where some wait for what they lack, 0 where that is not known. Then `pace` counts, what a photo
    took before, 0 when none is known. `hours` are those in which photos are begun; what was begun
    is finished.
    """
    places = [place for place in waiting if place[1]]
    whole = [spent + left for spent, left in running if left is not None]
    each = pace or (sum(whole) / len(whole) if whole else 0.0)
    queued = [known or number * each for _, number, known in places]
    at_hand = all(state in AT_HAND and known is not None for state, _, known in places)
    if places and not (all(queued) and slots and at_hand):
        return 0.0
    rest = [max(0.0, pace - spent) if left is None else left for spent, left in running]
    work = max([(sum(rest) + sum(queued)) / max(1, slots), *rest])
    last = min(work, sum(queued) / sum(number for _, number, _ in places)) if queued else work
    local = time.localtime(now)
    return with_rests(work - last, hours, 60 * local.tm_hour + local.tm_min) + last
