"""Jobs in flight: what runs them, whether that is alive, and what came of them.

Knows nothing of the ledger, and nothing of what happens to a result.
"""

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from stylewatch.domain import Failure, FailureKind, Outcome, Rendered, Step
from stylewatch.errors import LACKING, OutputFullError, StylewatchError, named
from stylewatch.folders.outputs import can_be_written
from stylewatch.settings.config import Folder
from stylewatch.state.presence import is_still
from stylewatch.state.reader import Job
from stylewatch.state.wording import UNFORESEEN


class Executor(Protocol):
    """What the daemon needs of `stylewatch.jobs.executors`. It heals by itself."""

    here: bool
    """Whether the workers are of this machine."""

    @property
    def slots(self) -> int:
        """How many jobs may be in flight now; 0 while none could run."""

    @property
    def trouble(self) -> str:
        """Why no job can run, in one line; after a loss, until one has begun again. Else empty."""

    def submit(
        self, job_id: int, fn: Callable[..., Any], /, *args: Any, timeout: float | None = None
    ) -> "Future[Any]":
        """Start a job; `fn(*args, report=…)` runs elsewhere."""

    def cancel(self, job_id: int, /) -> None:
        """Kill a running job."""

    def worker_of(self, out: "Future[Any]", /) -> str:
        """The address of the worker elsewhere that has run the job with this future; else empty."""

    def shun(self, worker: str, /, *, briefly: bool = False) -> None:
        """Prefer other machines to that of the worker with this address: it lacks something."""

    def release(self, before: float, /) -> None:
        """Give back the memory of workers that are idle since `before`."""

    def close(self) -> None:
        """End all processes."""


@dataclass(eq=False)
class Running:
    """A job that was handed to the executor."""

    job: Job
    folder: Folder
    started: float
    timeout: float
    cost: float
    """What its folder was charged for it, see `FairShare`."""
    future: "Future[Outcome]" = field(default_factory=Future)
    step: Step | None = None
    pid: int = 0
    """Of the process on this machine that runs it; 0 while that is not known."""
    cancelled: bool = False
    """Somebody asked that it should end, whatever else ends it."""

    @property
    def memory(self) -> int:
        """Bytes that its process holds in RAM; 0 where that can't be told."""
        fields = _proc(self.pid, "statm").split()
        return int(fields[1]) * os.sysconf("SC_PAGESIZE") if len(fields) > 1 else 0

    @property
    def alive(self) -> bool:
        """Its process is there, and has not ended without anybody taking note."""
        state = _proc(self.pid, "stat").rpartition(")")[2].split()
        return not self.pid or (bool(state) and state[0] not in "ZX")


def _proc(pid: int, file: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{file}").read_text(encoding="utf-8", errors="replace")
    return ""


def outcome_of(future: "Future[Outcome]") -> Outcome:
    """How a job ended, with every error turned into a `Failure`."""
    try:
        return future.result()
    except StylewatchError as error:
        return error.failure
    except Exception as error:  # noqa: BLE001  (a bug in an effect costs one job, no more)
        return Failure(kind=FailureKind.RENDER, reason=UNFORESEEN, message=named(error))


NOT_SHARED = "not-shared"
"""The reason if a worker's machine has other files than this one."""


def seen_from_here(outcome: Outcome, photo: Path, job: Job, worker: str) -> Outcome:
    """What came of a job on another machine, if this machine sees the same; a failure tells where.

    The other may have other folders at the same paths, or no right to them. So a photo that it
    finds gone or changed must be so here too, a result that it has written must be here, and what
    it may not read or write must be closed to us. Else this is a failure, to be tried again after a
    pause: otherwise the job would begin anew at once, again and again, or be set aside.
    """
    if told := _seen_otherwise(outcome, photo, job):
        remedy = (
            "Its machine needs the config's folders, at the same paths and with equal permissions"
        )
        message = f"{told.removesuffix('.')}. {remedy}"
        outcome = Failure(kind=FailureKind.TRANSIENT, reason=NOT_SHARED, message=message)
    if isinstance(outcome, Failure):
        return replace(outcome, message=f"{outcome.message} (worker {worker})")
    return outcome


def _seen_otherwise(outcome: Outcome, photo: Path, job: Job) -> str:
    """What a worker tells of files that is not so here; else empty."""
    if isinstance(outcome, Rendered):
        here = os.path.lexists(outcome.temporary)
        return "" if here else f"a worker wrote {outcome.temporary}, which is not here"
    if outcome.kind is FailureKind.CHANGED:
        here = is_still(photo, job.identity)
        return f"a worker does not find {photo} as it is here" if here else ""
    of_files = outcome.kind in {FailureKind.PERMISSION, FailureKind.TRANSIENT}
    of_files = of_files and outcome.reason not in LACKING
    if of_files or outcome.reason == OutputFullError.forbidden:
        here = os.access(photo, os.R_OK) and can_be_written(job.target.parent)
        return f"a worker fails at what works here: {outcome.message}" if here else ""
    return ""
