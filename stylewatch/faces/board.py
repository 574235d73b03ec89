"""What a person sees of the daemon at one moment, folded from its events.

Pure: `apply(event, now)` is the only way in. Knows nothing of terminals, threads or the ledger.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from stylewatch.domain import Event, Step

KEPT_RESULTS = 50
KEPT_PROBLEMS = 20
KEPT_LOSSES = 64
RECENT_SECONDS = 3600.0
_HEADLINES = frozenset({"started", "reload"})


@dataclass
class FolderRow:
    """One watched folder."""

    name: str
    path: str = ""
    state: str = "watching"
    note: str = ""
    waiting: int = 0
    problems: int = 0


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
        """Remember the loss; the whole course stays, thinned out so that it stays small."""
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
    """Set for a folder's own trouble, which is gone when the folder is well again."""


class Board:
    """Folders, photos in work, results and problems."""

    def __init__(self) -> None:
        self.title = ""
        self.slots = 1
        self.paused = False
        self.stopping = False
        self.folders: dict[str, FolderRow] = {}
        self.jobs: dict[int, JobRow] = {}
        self.results: deque[ResultRow] = deque(maxlen=KEPT_RESULTS)
        self.problems: deque[ProblemRow] = deque(maxlen=KEPT_PROBLEMS)
        self.done = 0
        self.failed = 0
        self.headline = ""
        self._finished: deque[float] = deque(maxlen=500)

    @property
    def waiting(self) -> int:
        """Photos in the queue, those in work not counted."""
        return sum(row.waiting for row in self.folders.values())

    def apply(self, event: Event, now: float) -> None:  # noqa: C901, PLR0912  (a table of the kinds)
        """Take note of one event; `extra["at"]` says that it is an old one, and of when."""
        now = float(event.extra.get("at", now))
        match event.kind:
            case "started" | "watching" | "folder":
                self.slots = int(event.extra.get("slots", self.slots))
                self.done = int(event.extra.get("done", self.done))
                if event.folder:
                    self._note_folder(event, now)
            case "queued":
                self.folder(event.folder).waiting += 1
            case "running":
                self._begin(event, now)
            case "progress":
                self._note_step(event, now)
            case "done":
                self._finish(event, now)
            case "failed" | "retry" | "blocked" | "warning":
                self._note_problem(event, now)
            case "paused":
                self.paused = True
            case "resumed":
                self.paused = False
            case "recovered":
                self._keep(lambda row: row.kind != "blocked" or bool(row.job_id or row.folder))
            case "stopping":
                self.stopping = True
        if event.kind in _HEADLINES:
            self.headline = event.message
        if "waiting" in event.extra:  # the daemon's own counts beat ours
            row = self.folder(event.folder)
            row.waiting = int(event.extra["waiting"])
            row.problems = int(event.extra.get("failed", row.problems))

    def apply_all(self, events: Iterable[Event], now: float) -> None:
        """Take note of several."""
        for event in events:
            self.apply(event, now)

    def per_hour(self, now: float) -> float:
        """Photos per hour, from those that were finished in the last hour."""
        recent = [at for at in self._finished if now - at < RECENT_SECONDS]
        if len(recent) < 2 or now <= recent[0]:
            return 0.0
        return (len(recent) - 1) / max(recent[-1] - recent[0], 1.0) * 3600.0

    def queue_seconds(self, now: float) -> float | None:
        """When the queue will be empty; None while nothing is known of the pace."""
        running = [row.step.eta_seconds for row in self.jobs.values() if row.step]
        if not self.waiting:
            return max(running, default=0.0)
        pace = self.per_hour(now)
        seconds = [row.seconds for row in self.results if row.seconds > 0]
        if pace:
            return self.waiting / pace * 3600.0 + max(running, default=0.0)
        if seconds:
            each = sum(seconds) / len(seconds)
            return self.waiting * each / max(1, self.slots) + max(running, default=0.0)
        return None

    def running(self) -> Iterator[JobRow]:
        """Photos in work, in the order in which they began."""
        yield from sorted(self.jobs.values(), key=lambda row: (row.since, row.job_id))

    def folder(self, name: str) -> FolderRow:
        """The row of that folder, made when it is new."""
        return self.folders.setdefault(name, FolderRow(name))

    def _note_folder(self, event: Event, now: float) -> None:
        row = self.folder(event.folder)
        row.path = event.path or row.path
        row.state = event.reason or "watching"
        row.note = event.message if row.state != "watching" else ""
        self._keep(lambda problem: problem.folder != row.name)
        if row.note:
            self.problems.appendleft(
                ProblemRow(at=now, kind=row.state, message=row.note, folder=row.name)
            )

    def _keep(self, wanted: Callable[[ProblemRow], bool]) -> None:
        self.problems = deque(filter(wanted, self.problems), maxlen=KEPT_PROBLEMS)

    def _begin(self, event: Event, now: float) -> None:
        row = self.folder(event.folder)
        row.waiting = max(0, row.waiting - 1)
        self._keep(lambda problem: problem.job_id != event.job_id)  # it has another chance
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
        if "at" not in event.extra:
            self.done += 1
            self._finished.append(now)
        self.results.appendleft(
            ResultRow(
                at=now,
                path=event.path,
                preset=event.preset,
                output=event.output,
                seconds=event.seconds,
                source=str(event.extra.get("source", "")),
                note=str(event.extra.get("note", "")),
            )
        )

    def _note_problem(self, event: Event, now: float) -> None:
        self.jobs.pop(event.job_id, None)
        row = self.folder(event.folder) if event.folder else None
        if event.kind == "failed" and "at" not in event.extra:
            self.failed += 1
            if row:
                row.problems += 1
        if row and event.kind == "retry" and "at" not in event.extra:
            row.waiting += 1
        self.problems.appendleft(
            ProblemRow(
                at=now,
                kind=event.kind,
                message=event.message,
                job_id=event.job_id,
            )
        )
