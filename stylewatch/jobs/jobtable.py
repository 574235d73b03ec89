"""What all executors have in common: a table of jobs in flight, each of which ends exactly once.

There is no queue in here: never more jobs in flight than slots. Knows nothing of processes.
"""

import contextlib
import itertools
import math
import pickle
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

from stylewatch.errors import DeviceError, EngineLost, ExecutorError, JobTimeout, StylewatchError
from stylewatch.jobs.child import JobName, read_answer

KILL_SECONDS = 12.0  # after that a process that can't be killed is given up
CLOSE_SECONDS = 4.0  # closing waits no longer for killed processes: a daemon must end in time
REST_SECONDS = 5.0  # without slots after the engine was lost: it recovers, but not at once
MOST_DOUBLINGS = 4  # of that time, if the engine is lost again and again
_OF_THE_PROCESS = {ExecutorError, DeviceError}  # errors that may stay until it ends

OnEvent = Callable[[int, str, Any], None]
"""`(job_id, "started", pid)` and `(job_id, "progress", info)`, from other threads.

The last ones may come after the job's future has ended.
"""


@dataclass(eq=False)
class InFlight:
    """A job, from `submit` until its future ends."""

    job_id: int
    serial: int
    task: bytes  # what to call, pickled
    out: Future[Any] = field(default_factory=Future)
    place: Any = None  # where it runs: a pool here, a future on a cluster
    timer: threading.Timer | None = None
    started: threading.Event = field(default_factory=threading.Event)
    doomed: bool = False  # it is being killed: an answer that still comes is too late

    @property
    def name(self) -> JobName:
        """What its process knows it by."""
        return self.job_id, self.serial


class JobTable(ABC):
    """A place where jobs run: each ends exactly once, its future on another thread."""

    here = True
    """Whether the workers are of this machine."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._jobs: dict[int, InFlight] = {}
        self._serials = itertools.count(1)
        self._lock = threading.RLock()
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._rests_until = 0.0
        self._trouble = ""
        self._losses, self._loss = 0, ""  # of the engine, since a job last began

    @abstractmethod
    def _capacity(self) -> int:
        """How many workers there are."""

    @abstractmethod
    def _launch(self, job: InFlight) -> None:
        """Start the job, and have `_finish` called in the end; an ExecutorError if it can't run."""

    @abstractmethod
    def _kill(self, job: InFlight) -> None:
        """End the job's process; returns when that is gone."""

    # By themselves the next ones do nothing: not every place has a use for them.

    def _free(self, job: InFlight) -> None:  # noqa: B027
        """Make the job's place ready for the next one, before anyone is told that it has ended."""

    def release(self, before: float = math.inf) -> None:  # noqa: B027
        """Give back the memory of workers that are idle since `before`; others start when needed.

        That is a time of `time.monotonic`.
        """

    def worker_of(self, out: "Future[Any]") -> str:  # noqa: ARG002
        """The address of the worker elsewhere that has run the job with this future; else empty."""
        return ""

    def shun(self, worker: str, *, briefly: bool = False) -> None:  # noqa: B027
        """Prefer other machines to that of the worker with this address: it lacks something."""

    @property
    def slots(self) -> int:
        """How many jobs may be in flight now; 0 while no job could run."""
        return self._capacity() if time.monotonic() >= self._rests_until else 0

    @property
    def trouble(self) -> str:
        """Why no job can run, in one line; after a loss, until one has begun again. Else empty."""
        return self._loss if self.slots else self._trouble

    def submit(
        self, job_id: int, fn: Callable[..., Any], /, *args: Any, timeout: float | None = None
    ) -> Future[Any]:
        """Run `fn(*args, report=…)` in another process.

        The future ends with its result or its error, or with WorkerDied, JobTimeout (both: this
        job's fault), EngineLost (no one's) or CancelledError; never before the process is gone.
        Call it from a thread that stays: workers die with their starter.
        """
        task = pickle.dumps((fn, args))
        with self._lock:
            job = InFlight(job_id, next(self._serials), task)
            self._jobs[job.serial] = job
        try:
            if self._closed:
                raise EngineLost("the executor is closed")
            self._watch_the_clock(job, timeout)  # first: it may end before it is launched
            self._launch(job)
        except ExecutorError as error:
            self._finish(job, error=error)
        return job.out

    def cancel(self, job_id: int) -> None:
        """Kill this job's process; its future tells when that is done."""
        for job in list(self._jobs.values()):
            if job.job_id == job_id:
                self._doom(job, CancelledError(f"job {job_id} was cancelled"))

    def close(self) -> None:
        """Kill what runs, and end."""
        self._closed = True
        for job in list(self._jobs.values()):
            self._doom(job, EngineLost("the executor was closed"))
        self.release()
        until = time.monotonic() + CLOSE_SECONDS
        for thread in list(self._threads):
            thread.join(max(0.0, until - time.monotonic()))

    def _watch_the_clock(self, job: InFlight, timeout: float | None) -> None:
        if timeout is not None:
            late = JobTimeout(
                f"job {job.job_id} did not end within {timeout:g} s",
                remedy="Raise job_timeout, or lower the preset's max_side or evaluations",
            )
            job.timer = threading.Timer(timeout, self._doom, (job, late))
            job.timer.daemon = True
            job.timer.start()

    def _doom(self, job: InFlight, error: BaseException) -> None:
        """Have a job's process killed, and then its future end with this error."""
        with self._lock:
            if job.doomed or job.serial not in self._jobs:
                return
            job.doomed = True
        job.started.set()  # nobody needs to wait for that any more
        self._in_background(self._put_down, job, error)

    def _put_down(self, job: InFlight, error: BaseException) -> None:
        killer = threading.Thread(target=self._kill, args=(job,), daemon=True)
        killer.start()
        killer.join(KILL_SECONDS)
        self._finish(job, error=error, killed=True)

    def _finish(
        self,
        job: InFlight,
        result: Any = None,
        *,
        error: BaseException | None = None,
        killed: bool = False,
    ) -> None:
        with self._lock:
            if job.doomed != killed or self._jobs.pop(job.serial, None) is None:
                return
            self._free(job)
            if isinstance(error, EngineLost) and not killed:
                self._rest(error)
        if job.timer:
            job.timer.cancel()
        if error:
            job.out.set_exception(error)
        else:
            job.out.set_result(result)

    def _rest(self, error: EngineLost) -> None:
        """Have no slots for a while, longer each time; for good if stylewatch was upgraded."""
        if (now := time.monotonic()) < self._rests_until:  # the same loss, told of another job
            return
        rest = REST_SECONDS * 2 ** min(self._losses, MOST_DOUBLINGS)
        rest = math.inf if error.reason == EngineLost.replaced else rest
        self._rests_until = now + rest
        self._losses += 1
        self._loss = self._trouble = str(error)

    def _read(self, job: InFlight, answer: bytes) -> None:
        """The job has ended by itself: its result or its error is in the answer."""
        self._began(job)  # in case the message that it has is slower
        try:
            result = read_answer(answer)
        except Exception as error:  # noqa: BLE001  (the job's own, whatever it is)
            if isinstance(error, StylewatchError) and type(error) not in _OF_THE_PROCESS:
                self._finish(job, error=error)
            else:  # unforeseen: an error of a GPU stays until its process ends
                self._doom(job, error)
        else:
            self._finish(job, result)

    def _hear(self, message: bytes) -> None:
        """Take a worker's message; the last ones may come after the job's end."""
        with contextlib.suppress(Exception):  # only news: nothing depends on it
            (job_id, serial), kind, info = pickle.loads(message)  # noqa: S301  (our own worker's)
            if kind == "started" and serial in self._jobs:
                self._began(self._jobs[serial])
            self._on_event(job_id, kind, info)

    def _began(self, job: InFlight) -> None:
        job.started.set()
        self._losses, self._loss = 0, ""

    def _in_background(self, target: Callable[..., None], *args: Any) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, daemon=True)
        with self._lock:
            self._threads = [each for each in self._threads if each.is_alive()]
            thread.start()
            self._threads.append(thread)
        return thread
