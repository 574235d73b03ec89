"""Between the ledger and what runs jobs: starts the next ones, and collects what comes of them.

Knows nothing of photos on their way in, and nothing of what is done with a result or a failure.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from stylewatch.domain import (
    TURN_SECONDS,
    Failure,
    FailureKind,
    JobRequest,
    JobState,
    Outcome,
    Preset,
    Rendered,
    job_key,
)
from stylewatch.errors import LACKING, LedgerError, OutputError, UsageError
from stylewatch.folders import outputs
from stylewatch.folders.space import require_room
from stylewatch.host.fairness import FairShare
from stylewatch.host.flight import NOT_SHARED, Executor, Running, outcome_of, seen_from_here
from stylewatch.host.publication import Publisher
from stylewatch.settings.config import Config, Folder
from stylewatch.state.ledger import Ledger
from stylewatch.state.reader import Job
from stylewatch.state.wording import BROKEN_PRESET, CANCELLED, UNFORESEEN, WAITING

FIRST_COST = 30.0  # seconds that a photo is thought to take before its preset has painted any
COPY_COST = 1.0  # the same for a copy: more than it takes, else thousands would go first
OVERDUE_SECONDS = 30.0  # a job that goes on for so long after its time-out can't be ended

OpenExecutor = Callable[[Config, Callable[[int, str, Any], None]], Executor]


class Dispatcher:
    """Keeps the executor of the present config busy, in fairness to all folders."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        publisher: Publisher,
        *,
        open_executor: OpenExecutor,
        run_job: Callable[..., Outcome],
        match_anew: Callable[[Job], int | Failure | None],
        came_back: Callable[[Job, Folder, Outcome, float], None],
        tell: Callable[..., None],
        wake: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        """`match_anew` is asked, before a job is started, for the number of the one to start.

        It may give a failure of the job instead. `came_back` is called with each outcome that is
        not dealt with here.

        It gets the folder as it was when the job was started. Once `stop` is set, nothing more is
        started, and a job whose process dies is ready again: the same signal has ended both of us.
        """
        self._config = config
        self._ledger = ledger
        self._publisher = publisher
        self._open_executor = open_executor
        self._run_job = run_job
        self._match_anew = match_anew
        self._came_back = came_back
        self._tell = tell
        self._wake = wake
        self.running: dict[int, Running] = {}
        self._stop, self._closed = stop, False
        self._finished: queue.SimpleQueue[Running] = queue.SimpleQueue()
        self._fair = FairShare()
        self._next_executor: Executor | None = None  # a new config's, for when nothing runs
        self._executor = open_executor(config, self._on_progress)

    @property
    def slots(self) -> int:
        """How many jobs may run at once now."""
        return self._executor.slots

    @property
    def trouble(self) -> str:
        """Why none can, in one line; else empty."""
        return self._executor.trouble

    def signs(self, now: float) -> dict[str, bool]:
        """For the pulse: each worker that we are to keep alive, and whether it does its work."""
        signs = {
            f"the worker of job {each.job.id}": each.alive
            and now - each.started <= each.timeout + OVERDUE_SECONDS
            for each in self.running.values()
        }
        if self._executor.here:
            signs["the workers"] = not self.trouble or self._can_wait
        return signs

    @property
    def _can_wait(self) -> bool:
        """Whether trouble with the workers is no worry: one runs, or there is no job to try."""
        begun = any(running.pid for running in self.running.values())
        return begun or len(self.running) < self._executor.slots

    def change_config(self, config: Config) -> None:
        """Go by another config; where it has other workers, these take over once nothing runs.

        An error in opening them is raised, and the old config stays.
        """
        before = self._config
        if (config.engine, config.workers) != (before.engine, before.workers):
            executor = self._open_executor(config, self._on_progress)
            if self._next_executor is not None:
                _close(self._next_executor)
            self._next_executor = executor
        self._config = config

    def release_idle(self, now: float) -> None:
        """Let go of the memory of workers that have had nothing to do for a while."""
        if self._config.idle_release:
            self._executor.release(now - self._config.idle_release)

    def close(self, now: float) -> None:
        """Kill all jobs that run. What has just ended is recorded, the others are ready again."""
        self._closed = True
        for executor in (self._next_executor, self._executor):
            if executor is not None:
                _close(executor)
        try:
            self.collect(now)
            for job_id, running in self.running.items():
                job = self._ledger.job(job_id)
                if job is not None and job.state is JobState.RUNNING:
                    if running.cancelled:
                        self._hold(job)
                    else:
                        self._ledger.put_back(job_id)
        except LedgerError:
            pass  # it is left as after a crash: the next start recovers
        finally:
            self.running.clear()

    def start_jobs(
        self, now: float, at_hand: Callable[[float], Mapping[str, Folder]], *, paused: bool
    ) -> None:
        """Fill the free slots, in fairness, with jobs of the folders that are `at_hand` then."""
        if self._next_executor is not None and not self.running:
            before, self._executor, self._next_executor = self._executor, self._next_executor, None
            _close(before)
        idle = paused or self._stop.is_set() or self._next_executor is not None
        until = time.monotonic() + TURN_SECONDS
        while not idle and len(self.running) < self._executor.slots:
            if time.monotonic() > until:  # many that need not be run, such as copies
                self._wake()
                return
            folders = at_hand(now)
            name = self._fair.pick(self._ledger.waiting(folders))
            if name is None:
                return
            self._fair.charge(name, COPY_COST, folders[name].weight)
            if (job := self._claim(folders[name], now)) is not None:
                self._start(job, folders[name], now)

    def _claim(self, folder: Folder, now: float) -> Job | None:
        """The next job of a folder, if one is to be started by what the config says now."""
        job = self._ledger.claim(folder.name)
        while job is not None and (number := self._match_anew(job)) != job.id:
            if isinstance(number, Failure):
                self._came_back(job, folder, number, now)
                return None
            job = self._ledger.claim(folder.name, number) if number else None
        return job

    def _start(self, job: Job, folder: Folder, now: float) -> None:
        """Submit a claimed job, or find that it need not be run."""
        preset = self._config.presets.get(job.preset)
        if preset is None:
            self._ledger.hold(job.id, BROKEN_PRESET)
            return
        key = job_key(job.digest, preset.digest)
        target = folder.output / outputs.target_name(job.path, preset.name)
        if (key, target) != (job.key, job.target):  # the config has changed since
            if not self._ledger.rekey(job, key, target, stays=folder.stays):
                return
            if any(each.job.key == key for each in self.running.values()):
                self._ledger.put_back(job.id)  # it will get a copy
                return
            job = replace(job, key=key, target=target)
        if outcome := self._at_once(job, folder):
            self._came_back(job, folder, outcome, now)
        else:
            self._submit(job, folder, preset, now)

    def _at_once(self, job: Job, folder: Folder) -> Outcome | None:
        """A copy of the same picture, or why none can be written; None: it is to be painted."""
        try:
            self._publisher.prepare(folder.output, job.target)
            require_room(job.target.parent, self._config.min_free)
            return self._publisher.copy_same(job)
        except OutputError as error:
            return error.failure

    def _submit(self, job: Job, folder: Folder, preset: Preset, now: float) -> None:
        request = JobRequest(
            job_id=job.id,
            key=job.key,
            source=folder.input / job.path,
            digest=job.digest,
            preset=preset,
            target=job.target,
            owner=self._publisher.owner,
            crashes=job.crashes,
            earlier=self._publisher.earlier_result(job),
        )
        cost = self._ledger.pace_of(preset.name) or FIRST_COST
        timeout = self._config.job_timeout + (preset.settings.time_budget or 0.0)
        self._fair.charge(folder.name, cost, folder.weight)
        running = self.running[job.id] = Running(job, folder, now, timeout, cost)  # before its news
        running.future = self._executor.submit(
            job.id, self._run_job, request, self._config.engine, timeout=timeout
        )
        self._tell("running", f"{job.path} → {job.preset}", job)
        running.future.add_done_callback(lambda _: self._has_finished(running))

    def _has_finished(self, running: Running) -> None:
        """On the executor's thread."""
        self._finished.put(running)
        self._wake()

    def _on_progress(self, job_id: int, kind: str, info: Any) -> None:
        """On the executor's thread."""
        running = self.running.get(job_id)
        if running is not None and kind == "started" and self._executor.here:
            running.pid = info
        if running is not None and kind == "progress":
            running.step = info
            self._tell("progress", "", running.job, step=info, extra={"memory": running.memory})

    def cancel(self, job: Job) -> None:
        """End it if it runs; it is held then.

        Raises:
            UsageError: nothing is to do for it.
        """
        if job.id in self.running:
            self.running[job.id].cancelled = True
            self._executor.cancel(job.id)
        elif job.state in WAITING:
            self._hold(job)
        else:
            remedy = "Only what waits or is being painted can be cancelled; see `stylewatch jobs`"
            raise UsageError(f"Job {job.id} is {self._ledger.told(job).word}", remedy=remedy)

    def _hold(self, job: Job) -> None:
        self._ledger.hold(job.id, CANCELLED)
        told = f"{job.path}: cancelled; `stylewatch retry {job.id}` brings it back"
        self._tell("warning", told, job, reason=CANCELLED)

    def collect(self, now: float) -> None:
        """Record the jobs that have ended."""
        with contextlib.suppress(queue.Empty):
            while True:
                running = self._finished.get_nowait()
                if self.running.get(running.job.id) is running:
                    self._record(running, outcome_of(running.future), now)
                    del self.running[running.job.id]

    @property
    def _is_ending(self) -> bool:
        return self._closed or self._stop.is_set()

    def _record(self, running: Running, outcome: Outcome, now: float) -> None:
        job = running.job
        if worker := self._executor.worker_of(running.future):
            outcome = seen_from_here(outcome, running.folder.input / job.path, job, worker)
            reason = outcome.reason if isinstance(outcome, Failure) else ""
            if reason in {NOT_SHARED, UNFORESEEN, *LACKING} and not running.cancelled:
                self._executor.shun(worker, briefly=reason == UNFORESEEN)
        if isinstance(outcome, Rendered):
            if not outcome.seconds:  # its picture was there already
                folder = running.folder
                self._fair.give_back(folder.name, running.cost, folder.weight)
        elif running.cancelled:
            self._hold(job)
            return
        elif self._is_ending and outcome.kind in {FailureKind.LOST, FailureKind.CRASH}:
            self._ledger.put_back(job.id)
            return
        self._came_back(job, running.folder, outcome, now)


def _close(executor: Executor) -> None:
    with contextlib.suppress(Exception):  # a cluster that does not answer is left alone
        executor.close()
