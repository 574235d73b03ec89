"""The daemon: moves photos from folder to ledger to worker to result, one tick at a time.

Its thread alone writes the ledger. Everything that happens elsewhere (finished jobs, progress,
commands) comes in through queues. It never imports the network's libraries: what runs a job is
handed in. Knows nothing of terminals, sockets and systemd.
"""

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from stylewatch import outputs
from stylewatch.config import Config, Folder
from stylewatch.domain import (
    Event,
    Failure,
    FailureKind,
    JobRequest,
    JobState,
    Outcome,
    PhotoFacts,
    Rendered,
    Step,
    job_key,
)
from stylewatch.errors import (
    ConfigError,
    EngineLost,
    JobTimeout,
    OutputError,
    OutputFullError,
    StylewatchError,
    UsageError,
    WorkerDied,
)
from stylewatch.fairness import FairShare
from stylewatch.intake import Intake
from stylewatch.ledger import PENDING, Job, Ledger
from stylewatch.locks import Locks
from stylewatch.publication import Publisher
from stylewatch.watches import Watches

LONGEST_SLEEP = 5.0  # seconds between two ticks at most
SPACE_SECONDS = 5.0  # how often free space is looked at
FIRST_COST = 30.0  # seconds that a photo is thought to take before any was painted
PRUNE_SECONDS = 86400.0
HEALTH_SECONDS = 1.0


class Executor(Protocol):
    """What runs jobs; see `stylewatch.executors`."""

    @property
    def slots(self) -> int:
        """How many jobs run at once."""

    def submit(
        self, job_id: int, fn: Callable[..., Any], /, *args: Any, timeout: float | None = None
    ) -> "Future[Any]":
        """Start a job; `fn(*args, report=…)` runs elsewhere."""

    def cancel(self, job_id: int, /) -> None:
        """Kill a running job."""

    def release(self) -> None:
        """Give idle memory back."""

    def close(self) -> None:
        """End all processes."""


OpenExecutor = Callable[[Config, Callable[[int, str, Any], None]], Executor]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the daemon is given, so that it need not know it."""

    open_executor: OpenExecutor
    run_job: Callable[..., Outcome]
    probe: Callable[[bytes], PhotoFacts]
    structural_end: Callable[[BinaryIO], bool | None]
    read_facts: Callable[[bytes], dict[str, str]]


@dataclass(eq=False)
class _Running:
    job: Job
    folder: Folder
    started: float
    future: "Future[Outcome]"
    step: Step | None = None


class Daemon:
    """One daemon over one config; `start`, then `tick` until `stop`."""

    def __init__(
        self,
        config: Config,
        parts: Parts,
        on_event: Callable[[Event], None],
        *,
        load: Callable[[], Config] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self._parts = parts
        self._tell_event = on_event
        self._load = load
        self._clock = clock
        self._wake = threading.Event()
        self._commands: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = (
            queue.SimpleQueue()
        )
        self._finished: queue.SimpleQueue[_Running] = queue.SimpleQueue()
        self._running: dict[int, _Running] = {}
        self._unpublished: dict[int, float] = {}  # job id → when to try again
        self._blocked: dict[Path, str] = {}  # outputs that wait for space
        self._fair = FairShare()
        self._costs: dict[str, float] = {}
        self._locks = Locks()
        self._paused = self._stopping = False
        self._last_busy = self._next_space = self._next_prune = self._next_health = -math.inf
        self._told_health: dict[str, tuple[str, str, int, int]] = {}
        self.last_tick = -math.inf
        """When the last tick ended, for those who watch over the daemon."""

    # --- life -------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Lock, recover, watch; then everything that is new is found by the first ticks.

        Raises:
            LockedError: another daemon runs.
        """
        self._locks.hold_state(self.config.state_dir)
        self._lock_folders()
        self._ledger = Ledger(
            self.config.state_dir / "ledger.db", max_attempts=self.config.max_attempts
        )
        self._publisher = Publisher(self._ledger)
        self._recover(now)
        self._watches = Watches(self._wake.set)
        self._intake = self._open_intake()
        self._executor = self._parts.open_executor(self.config, self._on_progress)
        self._last_busy = now
        count = len(self.config.folders)
        message = f"watching {count} folder{'s' * (count != 1)}"
        self._tell("started", message, extra={"slots": self._executor.slots})

    def tick(self, now: float) -> float:
        """One round of everything; returns when the next one is due."""
        self._wake.clear()
        self._obey()
        self._intake.tick(now)
        self._collect(now)
        self._publish_again(now)
        self._check_space(now)
        self._start_jobs(now)
        self._tell_health(now)
        self._rest(now)
        self.last_tick = now
        return self._next_due(now)

    def run(self, stop: threading.Event, after_tick: Callable[[float], None] | None = None) -> None:
        """Tick until `stop` is set, then stop in order."""
        self.start(self._clock())
        try:
            while not stop.is_set():
                due = self.tick(self._clock())
                if after_tick:
                    after_tick(self._clock())
                self._wake.wait(max(0.0, min(due - self._clock(), LONGEST_SLEEP)))
        finally:
            self.stop(stop)

    def wake(self) -> None:
        """Tick now; safe from any thread and from signal handlers."""
        self._wake.set()

    def stop(self, _: threading.Event | None = None) -> None:
        """End within the grace time: running jobs may finish, then they are put back."""
        self._stopping = True
        self._tell("stopping", "stopping")
        until = self._clock() + self.config.grace_seconds
        while self._running and self._clock() < until:
            self._wake.wait(min(0.2, max(0.01, until - self._clock())))
            self._wake.clear()
            self._obey()
            self._collect(self._clock())
        for job_id in list(self._running):
            self._executor.cancel(job_id)
        self._executor.close()
        self._collect(self._clock())
        for running in list(self._running.values()):
            self._ledger.put_back(running.job.id)
        self._running.clear()
        self._intake.close()
        self._watches.close()
        self._ledger.close()
        self._locks.release()

    # --- commands from other threads --------------------------------------------------------

    def ask(self, command: str, **arguments: Any) -> "Future[Any]":
        """Have a command done in the daemon's own thread; the answer comes in the future.

        `pause`, `resume`, `cancel(job_id)`, `retry(job_id, reason)`, `reload`, `status`.
        """
        commands: dict[str, Callable[..., Any]] = {
            "pause": self._pause,
            "resume": self._resume,
            "cancel": self._cancel,
            "retry": self._retry,
            "reload": self._reload,
            "status": self._status,
        }
        answer: Future[Any] = Future()
        if command not in commands:
            answer.set_exception(
                UsageError(f"Unknown command '{command}'", expected=", ".join(commands))
            )
            return answer
        self._commands.put((lambda: commands[command](**arguments), answer))
        self._wake.set()
        return answer

    def _obey(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                command, answer = self._commands.get_nowait()
                try:
                    answer.set_result(command())
                except StylewatchError as error:
                    answer.set_exception(error)

    def _pause(self) -> None:
        self._paused = True
        self._tell("paused", "paused: running photos are finished, no new ones started")

    def _resume(self) -> None:
        self._paused = False
        self._tell("resumed", "resumed")

    def _cancel(self, job_id: int) -> None:
        if job_id not in self._running:
            raise UsageError(f"Job {job_id} is not running", remedy="See `stylewatch jobs`")
        self._executor.cancel(job_id)

    def _retry(self, job_id: int | None = None, reason: str = "") -> int:
        return self._ledger.retry(job_id=job_id, reason=reason)

    def _reload(self) -> None:
        """A whole new generation of the config, or the old one goes on."""
        if self._load is None:
            return
        try:
            config = self._load()
        except ConfigError as error:
            self._tell("warning", f"the old config goes on: {error}", reason="config")
            raise
        config = replace(config, state_dir=self.config.state_dir)  # the ledger stays where it is
        reopen = (config.engine, config.workers) != (self.config.engine, self.config.workers)
        self.config = config
        self._intake.close()
        self._lock_folders()
        self._intake = self._open_intake()
        self._ledger.hold_others(folder.name for folder in config.folders)
        if reopen and not self._running:
            self._executor.close()
            self._executor = self._parts.open_executor(config, self._on_progress)
        self._tell("reload", f"config read again: {len(config.folders)} folders")

    def _status(self) -> dict[str, Any]:
        now = self._clock()
        return {
            "paused": self._paused,
            "folders": self._intake.health(now),
            "settling": self._intake.settling(),
            "running": [
                {"job": running.job, "step": running.step, "seconds": now - running.started}
                for running in self._running.values()
            ],
            "blocked": {str(path): why for path, why in self._blocked.items()},
            "counts": self._ledger.counts(),
            "pace": self._ledger.pace(),
        }

    # --- the parts of a tick ----------------------------------------------------------------

    def _recover(self, now: float) -> None:
        """Take up what a crash or a stop left; see the ledger's own rules."""
        if self._ledger.set_aside:
            self._tell("warning", f"the ledger was damaged; it lies in {self._ledger.set_aside}")
        if self._ledger.fresh:
            found = self._ledger.rebuild(self._results())
            if found > 0:
                self._tell("warning", f"{found} results found that belong to no ledger: kept")
        for job in self._ledger.recover():
            self._complete(job.id, now)
        pending = {job.temporary for job in self._ledger.jobs([JobState.PUBLISHING], limit=-1)}
        for output in {folder.output for folder in self.config.folders}:
            outputs.sweep(output, keep=[path for path in pending if path])
        self._ledger.hold_others(folder.name for folder in self.config.folders)

    def _results(self) -> list[tuple[str, Path, str]]:
        """Job key, path and hash of every result in the output folders."""
        found = []
        for output in {folder.output for folder in self.config.folders}:
            for path in output.rglob("*--*"):
                with contextlib.suppress(OSError):
                    if path.is_file() and not path.name.startswith("."):
                        key = self._parts.read_facts(path.read_bytes()).get("job_key")
                        if key:
                            found.append((key, path, outputs.file_hash(path)))
        return found

    def _open_intake(self) -> Intake:
        return Intake(
            self.config,
            self._ledger,
            self._watches,
            probe=self._parts.probe,
            structural_end=self._parts.structural_end,
            on_event=self._tell_event,
        )

    def _lock_folders(self) -> None:
        for folder in self.config.folders:
            self._locks.hold_folder(folder.input)

    def _start_jobs(self, now: float) -> None:
        """Fill the free slots, folder by folder in fairness."""
        while not self._paused and len(self._running) < self._executor.slots:
            folders = {
                folder.name: folder
                for folder in self.config.folders
                if folder.output not in self._blocked
            }
            name = self._fair.pick(self._ledger.waiting(folders))
            if name is None:
                return
            job = self._ledger.claim(name)
            if job is not None:
                self._start(job, folders[name], now)

    def _start(self, job: Job, folder: Folder, now: float) -> None:
        """Submit a claimed job, or find that it need not be run."""
        preset = self.config.presets.get(job.preset)
        if preset is None:
            self._ledger.hold(job.id, "preset")
            return
        key = job_key(job.digest, preset.digest)
        if key != job.key:  # the preset has changed since
            if not self._ledger.rekey(job.id, key):
                self._ledger.supersede(job.id)
                return
            job = replace(job, key=key)
        try:
            outputs.prepare(folder.output, job.target)
            copied = self._publisher.copy_same(job)
        except OutputError as error:
            self._fail(job, _output_failure(job.id, error))
            return
        if copied:
            self._publish(copied, now)
            return
        request = JobRequest(
            job_id=job.id,
            key=job.key,
            attempt=job.attempts,
            source=folder.input / job.path,
            identity=job.identity,
            digest=job.digest,
            preset=preset,
            target=job.target,
        )
        self._fair.charge(folder.name, self._costs.get(preset.name, FIRST_COST), folder.weight)
        future = self._executor.submit(
            job.id, self._parts.run_job, request, self.config.engine,
            timeout=self.config.job_timeout,
        )  # fmt: skip
        running = self._running[job.id] = _Running(job, folder, now, future)
        self._tell("running", f"{job.path} → {job.preset}", job)
        future.add_done_callback(lambda _: self._has_finished(running))

    def _has_finished(self, running: _Running) -> None:
        """On the executor's thread."""
        self._finished.put(running)
        self._wake.set()

    def _on_progress(self, job_id: int, kind: str, info: Any) -> None:
        """On the executor's thread."""
        running = self._running.get(job_id)
        if running is not None and kind == "progress":
            running.step = info
            self._tell("progress", "", running.job, step=info)

    def _collect(self, now: float) -> None:
        """Record what has finished."""
        with contextlib.suppress(queue.Empty):
            while True:
                running = self._finished.get_nowait()
                if self._running.pop(running.job.id, None) is not None:
                    self._last_busy = now
                    self._record(running, now)

    def _record(self, running: _Running, now: float) -> None:
        job = running.job
        try:
            outcome = running.future.result()
        except EngineLost as error:
            self._ledger.put_back(job.id)
            self._tell("warning", f"workers lost: {error}", reason=error.reason)
            return  # executors heal by themselves
        except CancelledError:
            if self._stopping:
                self._ledger.put_back(job.id)
                return
            outcome = _failure(job.id, FailureKind.CANCELLED, "cancelled", "cancelled")
        except WorkerDied as error:
            outcome = _failure(job.id, FailureKind.CRASH, error.reason, str(error))
        except JobTimeout as error:
            outcome = _failure(job.id, FailureKind.TIMEOUT, error.reason, str(error))
        except Exception as error:  # noqa: BLE001  (a bug in an effect costs one job, no more)
            message = f"{type(error).__name__}: {error}"
            outcome = _failure(job.id, FailureKind.RENDER, "error", message)
        if isinstance(outcome, Rendered):
            before = self._costs.get(job.preset, outcome.seconds)
            self._costs[job.preset] = 0.7 * before + 0.3 * outcome.seconds
            self._publish(outcome, now)
        else:
            self._fail(job, outcome)

    def _publish(self, rendered: Rendered, now: float) -> None:
        try:
            job = self._publisher.publish(rendered)
        except OutputError as error:
            self._publish_later(rendered.job_id, error, now)
        else:
            self._published(job)

    def _complete(self, job_id: int, now: float) -> None:
        job = self._ledger.job(job_id)
        if job is None or job.state is not JobState.PUBLISHING:
            return
        try:
            job = self._publisher.complete(job)
        except OutputError as error:
            self._publish_later(job_id, error, now)
        else:
            self._published(job)

    def _publish_later(self, job_id: int, error: OutputError, now: float) -> None:
        """The picture is finished and safe; only its name is missing."""
        self._unpublished[job_id] = now + SPACE_SECONDS
        self._tell("blocked", str(error), self._ledger.job(job_id), reason=error.reason)

    def _publish_again(self, now: float) -> None:
        for job_id, due in list(self._unpublished.items()):
            if now >= due:
                del self._unpublished[job_id]
                self._complete(job_id, now)

    def _published(self, job: Job) -> None:
        if job.state is not JobState.DONE:
            return
        message = f"{job.output} in {job.seconds:.1f} s" + (f" ({job.note})" if job.note else "")
        folder = next((f for f in self.config.folders if f.name == job.folder), None)
        extra = {"note": job.note, "source": str(folder.input / job.path) if folder else ""}
        self._tell("done", message, job, output=str(job.output), seconds=job.seconds, extra=extra)
        if folder is not None:
            try:
                self._publisher.afterwards(job, folder.after, folder.input)
            except OutputError as error:
                self._tell("warning", str(error), job, reason=error.reason)

    def _fail(self, job: Job, failure: Failure) -> None:
        state = self._ledger.fail(job.id, failure)
        if failure.kind is FailureKind.CHANGED:
            self._intake.again(job.folder, job.path)
            if failure.reason == "vanished":
                self._ledger.vanished(job.id)
            return
        kinds = {JobState.RETRY_WAIT: "retry", JobState.BLOCKED: "blocked"}
        message = f"{job.path}: {failure.message}"
        self._tell(kinds.get(state, "failed"), message, job, reason=failure.reason)

    def _check_space(self, now: float) -> None:
        """Pause outputs whose disk runs full, and take them up again by themselves."""
        if now < self._next_space:
            return
        self._next_space = now + SPACE_SECONDS
        for output in {folder.output for folder in self.config.folders}:
            try:
                free = outputs.free_space(output)
            except OSError:
                continue
            if free < self.config.min_free and output not in self._blocked:
                self._blocked[output] = "disk-full"
                message = f"{output}: only {free / 1e6:.0f} MB free; it goes on when there is space"
                self._tell("blocked", message, reason="disk-full")
            elif output in self._blocked and free >= self.config.min_free:
                del self._blocked[output]
                self._tell("resumed", f"{output}: there is space again")

    def _tell_health(self, now: float) -> None:
        """How each folder stands, when that has changed."""
        if now < self._next_health:
            return
        self._next_health = now + HEALTH_SECONDS
        counts = self._ledger.counts()
        for health in self._intake.health(now):
            jobs = counts.get(health.folder, {})
            waiting = sum(jobs.get(state, 0) for state in PENDING if state is not JobState.RUNNING)
            told = (health.state, health.detail, waiting, jobs.get(JobState.QUARANTINED, 0))
            if self._told_health.get(health.folder) != told:
                self._told_health[health.folder] = told
                event = Event(
                    kind="folder",
                    message=health.detail,
                    folder=health.folder,
                    path=str(health.root),
                    reason=health.state,
                    extra={"waiting": waiting, "failed": told[3]},
                )
                self._tell_event(event)

    def _rest(self, now: float) -> None:
        """What is done in quiet moments."""
        if self._running:
            self._last_busy = now
        elif 0 < self.config.idle_release <= now - self._last_busy:
            self._executor.release()
            self._last_busy = math.inf
        if now >= self._next_prune:
            self._next_prune = now + PRUNE_SECONDS
            self._ledger.prune(self.config.retention_days)

    def _next_due(self, now: float) -> float:
        due = min(self._intake.next_due(now), now + LONGEST_SLEEP)
        pause_ends = self._ledger.next_due()
        if pause_ends is not None:
            due = min(due, now + max(0.1, pause_ends - time.time()))
        return min([due, *self._unpublished.values()])

    def _tell(
        self, kind: Any, message: str, job: Job | None = None, *, reason: str = "", **more: Any
    ) -> None:
        about: dict[str, Any] = {}
        if job is not None:
            about = {"folder": job.folder, "path": str(job.path), "job_id": job.id}
            about["preset"] = job.preset
        self._tell_event(Event(kind=kind, message=message, reason=reason, **about, **more))


def _failure(job_id: int, kind: FailureKind, reason: str, message: str) -> Failure:
    return Failure(job_id=job_id, kind=kind, reason=reason, message=message)


def _output_failure(job_id: int, error: OutputError) -> Failure:
    full = isinstance(error, OutputFullError)
    kind = FailureKind.RESOURCE if full else FailureKind.PERMISSION
    return _failure(job_id, kind, error.reason, str(error))
