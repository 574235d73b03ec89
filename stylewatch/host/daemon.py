"""The daemon: moves photos from folder to ledger to worker to result, one tick at a time.

Its thread alone writes the ledger. Everything that happens elsewhere (finished jobs, progress,
commands) comes in through queues. It never imports the network's libraries: what runs a job is
handed in. Knows nothing of terminals, sockets and systemd.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from stylewatch.domain import (
    AT_HAND,
    REFUSED,
    Event,
    EventKind,
    Failure,
    FailureKind,
    JobState,
    Outcome,
    PhotoFacts,
    Rendered,
    counted,
)
from stylewatch.errors import LACKING, EngineLost, LedgerError, LockedError, UsageError
from stylewatch.folders import outputs
from stylewatch.folders.sources import FolderHealth
from stylewatch.folders.space import FULL, Space
from stylewatch.folders.watches import Watches
from stylewatch.host.delivery import Delivery
from stylewatch.host.disks import note_mounts
from stylewatch.host.dispatch import Dispatcher, OpenExecutor
from stylewatch.host.intake import Intake
from stylewatch.host.inventory import Stopped, learn
from stylewatch.host.mailbox import Mailbox
from stylewatch.host.publication import Publisher
from stylewatch.host.pulse import Pulse
from stylewatch.host.recognition import recognise, require_apart
from stylewatch.host.rest import Rest
from stylewatch.host.survey import Survey, waits
from stylewatch.places import mount_of
from stylewatch.settings.config import Config, Folder
from stylewatch.state.ledger import Ledger
from stylewatch.state.locks import Locks
from stylewatch.state.marks import MARKS, forget_marks
from stylewatch.state.reader import Job
from stylewatch.state.retention import tidy
from stylewatch.state.retries import LONGEST_PAUSE, RESOURCE_PAUSE
from stylewatch.state.schema import LEDGER
from stylewatch.state.wording import explained

LONGEST_SLEEP = 5.0  # seconds between two ticks at most
LOOK_SECONDS = 5.0  # how often free space is looked at, and photos whose results are done
LEDGER_SECONDS = 5.0  # between two attempts to go on with a ledger that could not be written
PAUSED = "paused"  # in the state folder: a person has said so
FIXED = ("state_dir", "metrics_port")  # settings that a running daemon can't change
TIDY_SECONDS = 86400.0  # how often the ledger is tidied, more often where it remembers less
HEALTH_SECONDS = 1.0  # how often the folders' health is told, if it has changed


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the daemon uses without importing it: what runs jobs, and what reads photos."""

    open_executor: OpenExecutor
    run_job: Callable[..., Outcome]
    probe: Callable[[BinaryIO], PhotoFacts]
    begins_as_image: Callable[[bytes], bool]
    structural_end: Callable[[BinaryIO], bool | None]
    read_facts: Callable[[bytes], dict[str, str]]


class Daemon:
    """One daemon over one config; `start`, then `tick` until `stop`.

    `start` opens the ledger and all that works with it. It does so anew after the ledger could not
    be written; what is made in `__init__` lives on.
    """

    def __init__(
        self,
        config: Config,
        parts: Parts,
        on_event: Callable[[Event], None],
        *,
        load: Callable[[], Config],
        is_outdated: Callable[[float], bool] = lambda _now: False,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self._parts = parts
        self._tell_event = on_event
        self._load, self._is_outdated = load, is_outdated
        self._clock, self._wall_clock = clock, wall_clock
        self._wake, self._stop = threading.Event(), threading.Event()
        commands: dict[str, Callable[..., Any]] = {
            "pause": self._pause,
            "resume": self._resume,
            "cancel": self._cancel,
            "retry": self._retry,
            "reload": self._reload,
            "status": self._status,
        }
        self._mailbox = Mailbox(commands, self._wake.set)
        self._space = Space()
        self._locks = Locks()
        self._survey = Survey()
        self._pulse = Pulse()
        self._rest = Rest(config.state_dir / PAUSED)
        self._replaced = False  # stylewatch was upgraded: workers are of another program than we
        self._trouble = self._refused = ""  # why no worker runs; what is wrong with a new config
        self._figures: dict[str, Any] = {}
        self._next_look = self._next_health = -math.inf
        self._tidying: Iterator[None] | None = None
        self._opened = contextlib.ExitStack()

    # --- life -------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Lock, recover, watch; then everything that is new is found by the first ticks.

        Raises:
            LockedError: another daemon runs.
            Stopped: it is to stop while a new ledger learns.
        """
        with contextlib.ExitStack() as opened:
            opened.callback(self._locks.release)
            self._locks.hold_state(self.config.state_dir)
            self._lock_folders(self.config)
            ledger = self._ledger = Ledger(self.config.state_dir / LEDGER, clock=self._wall_clock)
            opened.callback(ledger.close)
            self._tidying, self._last_tidy = None, -math.inf
            owner = outputs.owner_of(self.config.state_dir)
            self._publisher = Publisher(ledger, owner, lambda: self.config.min_free)
            self._delivery = Delivery(ledger, self._publisher, self._folder_of, self._tell)
            self._recover(now)
            self._watches = Watches(self._wake.set)
            opened.callback(self._watches.close)
            self._intake = self._open_intake()
            opened.callback(lambda: self._intake.close())  # noqa: PLW0108  (a reload opens another)
            self._dispatcher = self._open_dispatcher()
            opened.callback(lambda: self._dispatcher.close(self._clock()))
            self._opened = opened.pop_all()
        self._figures = self._figures_now()
        self._tell("started", f"watching {_folders(self.config)}", extra=self._figures)
        if self._rest.why:
            self._tell_rest()

    def tick(self, now: float) -> float:
        """One round of everything; returns when the next one is due.

        Raises:
            LedgerError: nothing can be written down; `run` goes on when it can.
        """
        self._wake.clear()
        self._mailbox.obey()
        self._intake.tick(now)
        self._dispatcher.collect(now)
        self._delivery.name_again(now)
        self._look_around(now)
        self._keep_hours()
        self._dispatcher.start_jobs(now, self._at_hand, paused=bool(self._rest.why))
        self._dispatcher.release_idle(now)
        self._tidy(now)
        self._tell_health(now)
        self._feel_pulse(self._intake.signs(now) | self._dispatcher.signs(now), now)
        return self._next_due(now)

    def run(
        self, stop: threading.Event, after_tick: Callable[[float], None] = lambda _: None
    ) -> None:
        """Tick until `stop` is set, then stop in order.

        Nothing goes on that can't be written down: when the ledger fails (its disk is full), all
        is dropped, and recovered as after a crash as soon as it can be written again.
        """
        self._stop = stop
        try:
            self.start(self._clock())
        except Stopped:
            self._tell("stopping", "the next start reads the results again")
            return
        failed = False
        try:
            while not stop.is_set():
                try:
                    if failed:
                        self.start(self._clock())
                    due = self.tick(self._clock())
                    if failed:
                        told = "the ledger can be written again"
                        self._tell("recovered", told, reason=LedgerError.reason)
                    failed = False
                except Stopped:
                    break
                except LedgerError as error:
                    self._drop_all(error, told=failed)
                    failed = True
                    self._wait_for_the_ledger(error, stop, after_tick)
                    continue
                after_tick(self._clock())
                self._wake.wait(max(0.0, due - self._clock()))
        finally:
            self.stop()

    def _drop_all(self, error: LedgerError, *, told: bool) -> None:
        """End all jobs, and say so: what would come of them could not be written down."""
        if not told:
            self._tell("blocked", f"{error}; it goes on by itself", reason=error.reason)
        for running in self._dispatcher.running.values():
            message = f"{running.job.path}: stopped, as the ledger can't be written"
            self._tell("retry", message, running.job, reason=error.reason)
        self._feel_pulse({}, self._clock())  # nothing needs to move now
        self._end()

    def _wait_for_the_ledger(
        self, error: LedgerError, stop: threading.Event, after_tick: Callable[[float], None]
    ) -> None:
        """Pause before the next try; who asks for something meanwhile gets the error as answer."""
        due = self._clock() + LEDGER_SECONDS
        while not stop.is_set() and self._clock() < due:
            self._wake.clear()
            self._mailbox.refuse(error)
            after_tick(self._clock())
            self._wake.wait(max(0.0, due - self._clock()))

    def wake(self) -> None:
        """Tick now; safe from any thread."""
        self._wake.set()

    @property
    def lost(self) -> list[str]:
        """The parts that stand still and have not recovered: a reason to restart the daemon."""
        return self._pulse.lost

    @property
    def outlived(self) -> bool:
        """Whether stylewatch was upgraded, so that this daemon paints no more, and nothing runs."""
        return self._replaced and not self._dispatcher.running

    def stop(self) -> None:
        """End: running jobs may finish within the grace time, then they are put back."""
        self._stop.set()
        dispatcher = self._dispatcher
        grace = f"{self.config.grace_seconds:g} s"
        rest = f"finishing what can be finished in {grace}, the rest goes on at the next start"
        self._tell("stopping", rest if dispatcher.running else "nothing is in work")
        until = self._clock() + self.config.grace_seconds
        try:
            while dispatcher.running and self._clock() < until:
                self._wake.wait(min(0.2, max(0.01, until - self._clock())))
                self._wake.clear()
                self._mailbox.obey()
                dispatcher.collect(self._clock())
        except LedgerError as error:
            self._tell("warning", f"{error}; the next start recovers", reason=error.reason)
        finally:
            self._end()

    def _end(self) -> None:
        """Kill what runs and let go of everything; can be done twice."""
        self._opened.close()

    # --- commands from other threads --------------------------------------------------------

    def ask(self, command: str, **arguments: Any) -> "Future[Any]":
        """Have a command done in the daemon's own thread; the answer comes in the future.

        `pause`, `resume`, `cancel(job_id)`, `retry(job_id, reason)`, `reload`, `status`.
        """
        return self._mailbox.ask(command, **arguments)

    def _pause(self) -> None:
        self._rest.pause()
        self._tell_rest()

    def _resume(self) -> None:
        self._rest.resume()
        self._tell_rest()

    def _cancel(self, job_id: int) -> None:
        self._dispatcher.cancel(self._job(job_id))

    def _retry(self, job_id: int | None = None, reason: str = "") -> int:
        job = None if job_id is None else self._job(job_id)
        if job and self._folder_of(job) is None:
            raise UsageError(
                f"Job {job_id} is of the folder {job.folder}, which is not watched now",
                remedy="Its photos go on when it is watched again",
            )
        if job and job.preset not in self.config.presets:
            raise UsageError(
                f"Job {job_id} is for the preset {job.preset}, which can't be used now",
                remedy="`stylewatch status` tells why, or `stylewatch presets check` with its name",
            )
        again = self._ledger.retry(job_id=job_id, reason=reason)
        return again if job else again - self._hold_others()

    def _job(self, job_id: int) -> Job:
        job = self._ledger.job(job_id)
        if job is None:
            raise UsageError(f"There is no job {job_id}", remedy="See `stylewatch jobs`")
        return job

    def _reload(self) -> None:
        """Read the config again: all of it holds from now on, or, after any error, none of it."""
        try:
            wanted = self._load()
            fixed = {name: getattr(self.config, name) for name in FIXED}
            checkpoints = self.config.engine.checkpoint_dir  # in the state folder
            engine = replace(wanted.engine, checkpoint_dir=checkpoints)
            config = replace(wanted, engine=engine, **fixed)
            self._lock_folders(config)
            self._dispatcher.change_config(config)
            self.config, self._refused = config, ""
        except Exception as error:
            told, self._refused = self._refused, str(error)
            if told != self._refused or not isinstance(error, LockedError):  # that is tried again
                self._tell("warning", f"the old config goes on: {error}", reason=REFUSED)
            raise
        finally:
            self._locks.keep_folders(folder.input for folder in self.config.folders)
        self._delivery.forget_pauses()
        self._apply_config()
        self._intake.close()
        self._tell("reload", f"config read again: {_folders(config)}")
        self._intake = self._open_intake(self._intake)
        if waiting := [name for name in FIXED if getattr(wanted, name) != fixed[name]]:
            self._tell("warning", f"{' and '.join(waiting)}: in effect from the next start")

    def _status(self) -> dict[str, Any]:
        now = self._clock()
        return {
            "paused": bool(self._rest.why),
            "paused_why": self._rest.why,
            "folders": self._health(now),
            "settling": self._intake.settling(),
            "slow": self._intake.slow(now),
            **self._figures_now(),
            "running": [
                {
                    "job": running.job,
                    "step": running.step,
                    "seconds": now - running.started,
                    "memory": running.memory,
                }
                for running in self._dispatcher.running.values()
            ],
            "blocked": {str(path): why for path, why in self._space.paused.items()},
            "trouble": self._dispatcher.trouble,
            "refused": self._refused,
            "waits": waits(self.config, self._ledger),
            "lost": self.lost,
            "counts": self._ledger.counts(),
            "failed_files": self._ledger.failed_files(),
            "held_files": self._ledger.held_files(),
            "pace": self._ledger.pace(),
            "work": self._ledger.work(),
        }

    def _figures_now(self) -> dict[str, Any]:
        """What tells when the queue is empty, besides what is in it."""
        hours = [(each.begin, each.end) for each in self.config.hours]
        return {"slots": self._dispatcher.slots, "hours": hours}

    # --- the start, and another config ------------------------------------------------------

    def _recover(self, now: float) -> None:
        """Take up what a crash or a stop has left behind."""
        if self._ledger.set_aside:
            self._tell("warning", f"the ledger was damaged; it lies in {self._ledger.set_aside}")
        places = {folder.output for folder in self.config.folders}
        if self._ledger.fresh:
            stopped = self._stop.is_set
            learn(self._ledger, places, self._parts.read_facts, self._tell, self._clock, stopped)
        for job in self._ledger.recover():
            self._tell("failed", f"{job.path}: {job.trouble}", job, reason=job.reason)
        self._apply_config()
        for job in self._ledger.jobs([JobState.PUBLISHING]):
            self._delivery.complete(job.id, now)
        begun = self._ledger.jobs([JobState.PUBLISHING])
        pending = {job.temporary for job in begun if job.temporary}
        for output in places:
            outputs.sweep(output, self._publisher.owner, keep=pending)

    def _apply_config(self) -> None:
        """Bring the ledger in line with the config's folders and presets.

        Jobs whose folder or preset the config lacks are held, those that were held for one that it
        has go on. Jobs that lacked weights or an image of their preset are tried again.
        """
        for reason in LACKING:
            self._ledger.retry(reason=reason)
        for folder in self.config.folders:
            with contextlib.suppress(OSError):
                recognise(folder, self.config, self._ledger)
            self._publisher.find_moved_results(folder.name, folder.output)
        note_mounts(self.config.written_folders(), self._ledger)
        self._hold_others()

    def _hold_others(self) -> int:
        """Hold the jobs of folders and presets that the config lacks, bring back all others.

        Also those for presets that a folder does not name any more, as it has others by now.
        """
        folders = self.config.folders
        held = self._ledger.hold_others((each.name for each in folders), self.config.presets)
        for folder in folders:
            ruled = (name for rule in folder.rules for name in rule.preset)
            held -= self._ledger.let_go(folder.name, [*folder.preset, *ruled])
        return held

    def _open_intake(self, before: Intake | None = None) -> Intake:
        return Intake(
            self.config,
            self._ledger,
            self._watches,
            probe=self._parts.probe,
            begins_as_image=self._parts.begins_as_image,
            structural_end=self._parts.structural_end,
            take_up=self._take_up,
            is_outdated=self._is_outdated,
            tell=self._tell,
            before=before,
        )

    def _open_dispatcher(self) -> Dispatcher:
        return Dispatcher(
            self.config,
            self._ledger,
            self._publisher,
            open_executor=self._parts.open_executor,
            run_job=self._parts.run_job,
            match_anew=lambda job: self._intake.match_anew(job),  # noqa: PLW0108  (see `_reload`)
            came_back=self._came_back,
            tell=self._tell,
            wake=self._wake.set,
            stop=self._stop,
        )

    def _lock_folders(self, config: Config) -> None:
        for folder in config.folders:
            self._locks.hold_folder(folder.input)

    def _take_up(self, folder: Folder) -> None:
        """Lock a folder that has appeared, or was replaced by another, and find its history.

        Raises:
            LockedError: another daemon watches it.
            OSError: it is not there, its disk is not mounted, or results would come in as photos.
        """
        self._locks.hold_folder(folder.input)
        require_apart(folder, self.config, self._ledger)
        recognise(folder, self.config, self._ledger)
        self._publisher.find_moved_results(folder.name, folder.output)
        self._ledger.bring_back([folder.name], [*self.config.presets])  # if it was moved here

    def _folder_of(self, job: Job) -> Folder | None:
        return next((each for each in self.config.folders if each.name == job.folder), None)

    # --- what comes of jobs -----------------------------------------------------------------

    def _came_back(self, job: Job, folder: Folder, outcome: Outcome, now: float) -> None:
        """A job has ended; `folder` is its folder as it was when the job was started."""
        if isinstance(outcome, Rendered):
            self._delivery.publish(job.id, outcome, folder, now)
        else:
            self._fail(job, outcome, now)

    def _fail(self, job: Job, failure: Failure, now: float) -> None:
        """Write a failure down, do what follows from it, and tell of it."""
        job = self._ledger.job(job.id) or job  # its folder may have another name by now
        self._replaced |= failure.reason == EngineLost.replaced
        with self._ledger.transaction():
            state = self._ledger.fail(job.id, failure, self.config.max_attempts)
            if failure.kind is FailureKind.CHANGED:
                self._intake.look_again(job.folder, job.path)
                if failure.reason == "vanished":
                    self._ledger.vanished(job.id)
        if failure.kind is FailureKind.RESOURCE and (folder := self._folder_of(job)):
            if self._nothing_fits(folder.output, job, failure):
                # of a quota nothing tells but another painting: that is tried ever more rarely
                pause = min(RESOURCE_PAUSE * job.attempts, LONGEST_PAUSE)
                self._space.pause(folder.output, now + pause, failure.reason)
            elif job.reason == failure.reason and job.id not in self._dispatcher.running:
                return  # of a part of the output, and told before
        kind, message = _news_of(failure, state)
        self._tell(kind, f"{job.path}: {message}", job, reason=failure.reason)

    def _nothing_fits(self, output: Path, job: Job, failure: Failure) -> bool:
        """Whether no result can be written to an output, and not just this job's.

        A part of the output may lie on a disk of its own.
        """
        is_full = failure.reason == FULL and mount_of(job.target) == mount_of(output)
        return is_full or not self._publisher.can_publish(output)

    # --- the parts of a tick ----------------------------------------------------------------

    def _look_around(self, now: float) -> None:
        """See to free space, and to photos that are to be moved."""
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            places = {folder.output for folder in self.config.folders}
            usable, min_free = self._publisher.can_publish, self.config.min_free
            for output, kind, message, why in self._space.look(places, min_free, now, usable):
                self._tell(kind, message, reason=why, output=str(output))
            self._delivery.find_after(now)
        if self._delivery.apply_pending_after(now):
            self._wake.set()

    def _keep_hours(self) -> None:
        """Pause and go on as the config wants it at this time of day, and on battery."""
        before = self._rest.why
        self._rest.follow(self.config, self._wall_clock())
        if self._rest.why != before:
            self._tell_rest()

    def _tell_rest(self) -> None:
        if why := self._rest.why:
            message = f"paused {why}: no more photos are begun; `stylewatch resume` begins them"
            self._tell("paused", message, extra={"why": why})
        else:
            self._tell("resumed", "resumed")

    def _at_hand(self, now: float) -> dict[str, Folder]:
        """The folders whose photos can be painted now, as they and their outputs are there."""
        health = {each.folder: each.state for each in self._health(now)}
        return {
            folder.name: folder for folder in self.config.folders if health[folder.name] in AT_HAND
        }

    def _tell_health(self, now: float) -> None:
        """Tell how the workers and each folder stand, where that has changed."""
        if now < self._next_health:
            return
        self._next_health = now + HEALTH_SECONDS
        if self._dispatcher.trouble != self._trouble:
            self._trouble = self._dispatcher.trouble
            message = self._trouble or "there are workers again"
            self._tell("warning" if self._trouble else "recovered", message, reason="engine-lost")
        figures = self._figures_now()
        if figures["slots"] and figures != self._figures:
            self._figures = figures
            self._tell("folder", "", extra=figures)
        arriving, slow = self._intake.settling(), self._intake.slow(now)
        health = self._health(now)
        for event in self._survey.news(self._ledger, self.config.folders, health, arriving, slow):
            self._tell_event(event)

    def _health(self, now: float) -> list[FolderHealth]:
        """How each folder stands: as its source sees it, or blocked where results have no room."""
        paused = {
            folder.name: trouble
            for folder in self.config.folders
            if (trouble := self._space.trouble(folder.output))
        }
        return [
            replace(health, state="blocked", detail=paused[health.folder])
            if health.folder in paused and health.state in AT_HAND
            else health
            for health in self._intake.health(now)
        ]

    def _feel_pulse(self, signs: Mapping[str, bool], now: float) -> None:
        """Tell when a scan, one of inotify's threads or a worker stands still for too long.

        Also when it does so no more; those that still do are told again then.
        """
        before, dead = self._pulse.lost, self._pulse.feel(signs, now)
        if over := [name for name in before if name not in self._pulse.lost]:
            self._tell("recovered", f"{', '.join(over)}: alive again", reason="dead")
            dead = self._pulse.lost
        for name in dead:
            self._tell(
                "warning", f"{name}: no sign of life, and no recovery by itself", reason="dead"
            )

    def _tidy(self, now: float) -> None:
        """Let the ledger forget what is old, one small step in each tick."""
        days = self.config.retention_days
        every = min(TIDY_SECONDS, days * TIDY_SECONDS / 4)
        if self._tidying is None and now >= self._last_tidy + every:
            self._last_tidy = now
            self._tidying = tidy(self._ledger, days, self.config.engine.checkpoint_dir)
            forget_marks(self.config.state_dir / MARKS, self._wall_clock() - days * 86400.0)
        if self._tidying is not None and next(self._tidying, "through"):
            self._tidying = None

    def _next_due(self, now: float) -> float:
        due = min(self._intake.next_due(now), now + LONGEST_SLEEP)
        pause_ends = self._ledger.next_due()
        if pause_ends is not None:
            due = min(due, now + max(0.1, pause_ends - self._wall_clock()))
        return min(due, self._delivery.next_due())

    def _tell(
        self,
        kind: EventKind,
        message: str,
        job: Job | None = None,
        *,
        reason: str = "",
        **more: Any,
    ) -> None:
        """Tell of an event, which may be about a job."""
        about: dict[str, Any] = {}
        if job is not None:
            about = {"folder": job.folder, "path": str(job.path), "job_id": job.id}
            about["preset"] = job.preset
        self._tell_event(Event(kind=kind, message=message, reason=reason, **about, **more))


def _news_of(failure: Failure, state: JobState) -> tuple[EventKind, str]:
    """The kind of event that tells of a failure, and its message, given the job's state by now."""
    match failure.kind, state:
        case FailureKind.CHANGED, _:
            return "retry", failure.message
        case FailureKind.LOST, _:
            return "warning", failure.message
        case _, JobState.RETRY_WAIT:
            return "retry", failure.message
        case _, JobState.BLOCKED:
            return "blocked", failure.message
    return "failed", explained(failure.reason, failure.message)


def _folders(config: Config) -> str:
    return counted(len(config.folders), "folder")
