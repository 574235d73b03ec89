"""Where jobs run: in processes of this machine, or on a cluster; both behave alike.

A crash, a time-out or a cancel costs exactly one job. Knows nothing of photos, presets or the
ledger.
"""

import contextlib
import functools
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path

from pebble import ProcessExpired, ProcessPool

from stylewatch.domain import EngineSettings
from stylewatch.errors import EngineLost, WorkerDied
from stylewatch.jobs.child import CODE, boot, run
from stylewatch.jobs.jobtable import InFlight, JobTable, OnEvent

NEWS_SECONDS = 0.5  # by then the last words of a dead process have been read
START_SECONDS = 5.0  # for an idle worker to begin the job that it is given
TERM_SECONDS = 1.0  # who has ended a worker by SIGTERM may be about to end the daemon, too
WELL = 256  # stands for the exit code 0; no process has it
HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""A painting takes 3 to 8 % less time, as fewer pages are looked up, and 0 to 5 % more memory.

The C library reads it when a process starts: so it is set here, and not in the worker.
"""


def open_executor(
    workers: int | str, engine: EngineSettings, on_event: OnEvent, *, log: Path | None = None
) -> JobTable:
    """The executor that the config's `workers` names: so many processes here, or an address."""
    if isinstance(workers, int):
        return LocalExecutor(engine, on_event, workers=workers, log=log)
    from stylewatch.jobs.cluster import DaskExecutor  # noqa: PLC0415  (only who uses Dask loads it)

    return DaskExecutor(workers, engine, on_event)


class _Process(SpawnProcess):
    """A process whose exit code is never 0: Pebble takes no note of one that has ended well.

    None should, but a library may call `exit(0)`.
    """

    @property
    def exitcode(self) -> int | None:
        """None while it runs."""
        code = super().exitcode
        return WELL if code == 0 else code


class _Context(SpawnContext):
    Process = _Process


class LocalExecutor(JobTable):
    """Worker processes of this machine, each in a pool of its own: one job after the other.

    A job that crashes takes its pool along.
    """

    def __init__(
        self,
        engine: EngineSettings,
        on_event: OnEvent,
        *,
        workers: int = 1,
        log: Path | None = None,
    ) -> None:
        super().__init__(on_event)
        os.environ.setdefault("GLIBC_TUNABLES", HUGE_PAGES)
        os.environ.setdefault("PYTHONSAFEPATH", "1")  # else a worker imports from where we are
        self._workers = workers
        self._idle: list[tuple[ProcessPool, float]] = []  # since when, the longest first
        self._context = _Context()
        self._messages, self._mouth = self._context.Pipe(duplex=False)
        os.set_blocking(self._mouth.fileno(), False)  # a job never waits for its listener
        self._boot = (self._mouth, engine, log, CODE)
        self._listener = threading.Thread(target=self._listen, name="progress", daemon=True)
        self._listener.start()

    def _capacity(self) -> int:
        return self._workers

    def release(self, before: float = math.inf) -> None:
        """End the workers that are idle since `before`; the next job may start a new one."""
        with self._lock:
            unused = [pool for pool, since in self._idle if since <= before]
            del self._idle[: len(unused)]
        for pool in unused:
            self._in_background(_stop, pool)

    def close(self) -> None:
        """Kill what runs, and end."""
        super().close()
        self._mouth.close()
        self._listener.join(1.0)
        self._messages.close()

    def _launch(self, job: InFlight) -> None:
        with self._lock:
            assert len(self._jobs) <= self._workers, "more jobs in flight than slots"
            pool = self._idle.pop()[0] if self._idle else None
        try:
            job.place = pool or self._new_pool()
            if job.doomed:  # just now: who cancelled it has found no process to end
                self._in_background(_stop, job.place)
                return
            answer = job.place.schedule(run, (job.name, job.task))
        except (BrokenExecutor, RuntimeError, OSError) as error:
            self._lose(job, error, was_idle=pool is not None)
        else:
            answered = functools.partial(self._answered, job, was_idle=pool is not None)
            answer.add_done_callback(answered)
            if pool:
                self._in_background(self._expect_a_start, job)

    def _expect_a_start(self, job: InFlight) -> None:
        """End a worker that was idle and does not begin its job: it may have been killed.

        If it was only swapped out, it may begin after all while it is ended: that counts no more.
        """
        if not job.started.wait(START_SECONDS):
            self._doom(job, _lost_while_idle())

    def _new_pool(self) -> ProcessPool:
        pool = ProcessPool(
            max_workers=1, context=self._context, initializer=boot, initargs=self._boot
        )
        with _interrupts_held():
            assert pool.active  # starts it here and now
        return pool

    def _answered(self, job: InFlight, answer: Future[bytes], *, was_idle: bool) -> None:
        error = answer.exception()
        if error is None:
            self._read(job, answer.result())
        elif isinstance(error, ProcessExpired) and not job.doomed:
            self._drop(job)  # or Pebble has a new process ready, which counts as an idle one
            if error.exitcode == -signal.SIGTERM:
                time.sleep(TERM_SECONDS)
            self._finish(job, error=WorkerDied(f"the job's process {_death(error.exitcode)}"))
        elif not job.doomed:
            self._lose(job, error, was_idle=was_idle)

    def _lose(self, job: InFlight, error: BaseException, *, was_idle: bool) -> None:
        """A pool is broken, which is the job's fault only if it had begun."""
        self._drop(job)
        began = not job.doomed and job.started.wait(NEWS_SECONDS)
        if job.doomed:  # perhaps only just now
            return
        if began:
            time.sleep(TERM_SECONDS)  # it may have been SIGTERM
            self._finish(job, error=WorkerDied("the job's process died as soon as it began"))
        elif was_idle:
            self._doom(job, _lost_while_idle())
        else:
            remedy = "It needs memory, file descriptors, room in /dev/shm, and its log, chatter.log"
            told = "no worker process could be started"
            lost = EngineLost(told, received=repr(error), remedy=remedy)
            self._finish(job, error=lost)

    def _drop(self, job: InFlight) -> None:
        """End the job's pool: no other job is to get it."""
        if job.place:
            self._in_background(_stop, job.place)
            job.place = None

    def _free(self, job: InFlight) -> None:
        if job.place and not job.doomed:
            self._idle.append((job.place, time.monotonic()))

    def _kill(self, job: InFlight) -> None:
        if job.place:
            _stop(job.place)

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._hear(self._messages.recv_bytes())


def _stop(pool: ProcessPool) -> None:
    """End a pool and its process, by force after 3 s."""
    pool.stop()
    pool.join()


def _lost_while_idle() -> EngineLost:
    """The error for a job whose idle worker was gone; the daemon submits the job again at once."""
    return EngineLost("an idle worker has ended, or can't start", remedy="Another takes the job")


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Within it processes and threads are started that never see Ctrl-C, not even at first."""
    resource_tracker.ensure_running()  # starting it would let them through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _death(code: int) -> str:
    with contextlib.suppress(ValueError):
        if code == -signal.SIGKILL:
            return "was killed (SIGKILL), as when memory runs out"
        return f"crashed ({signal.Signals(-code).name})"
    return f"ended by itself (exit code {code % WELL})"
