"""The daemon with all that is around it: its parts, its face, its signals.

What `watch` and `run` do. Knows nothing of the command line.
"""

import math
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from stylewatch import __version__
from stylewatch.domain import EngineSettings, Event, JobRequest, OnStep, Outcome
from stylewatch.engine.endings import structural_end
from stylewatch.engine.images import probe
from stylewatch.engine.results import read_facts
from stylewatch.errors import EngineLost, LedgerError, WeightsError
from stylewatch.faces.console import LiveConsole, open_console
from stylewatch.faces.control import ControlServer
from stylewatch.faces.lines import LogFormat
from stylewatch.faces.metrics import Metrics, MetricsServer
from stylewatch.faces.notify import Notifier
from stylewatch.faces.terminal import CHATTER, on_signals
from stylewatch.host.daemon import Daemon, Parts
from stylewatch.jobs.executors import open_executor
from stylewatch.settings.config import Config, Folder
from stylewatch.settings.weights import downloaded
from stylewatch.state.locks import Locks

LOOK_SECONDS = 2.0  # how often the config's files are looked at
RESTLESS_SECONDS = 10.0  # photos wait no longer for files that somebody is at
SIGNAL_SECONDS = 0.2  # the longest a signal waits to be obeyed
STATUS_SECONDS = 5.0  # for the daemon to answer whoever reads the metrics


def run_in_worker(request: JobRequest, engine: EngineSettings, *, report: OnStep) -> Outcome:
    """One job, in the worker's process: only there are the network's libraries loaded."""
    from stylewatch.jobs.worker import run_job  # noqa: PLC0415

    return run_job(request, engine, report=report)


def serve(load: Callable[[], Config], log_format: LogFormat) -> None:
    """Run the daemon until a signal, `q` or a command ends it.

    Raises:
        LockedError: another daemon has the state directory or one of the folders.
        EngineLost: stylewatch was upgraded, and systemd is there to start it anew.
    """
    config = load()
    _refuse_a_second(config)
    sinks: list[Callable[[Event], None]] = []

    def tell(event: Event) -> None:
        for sink in sinks:
            sink(event)

    daemon = Daemon(
        config,
        _parts(),
        tell,
        load=load,
        is_outdated=lambda now: on_change.is_outdated(now),  # noqa: PLW0108  (it is made below)
    )
    notifier = Notifier(lambda: not daemon.lost, lambda: daemon.config.grace_seconds)
    metrics = Metrics(lambda: daemon.ask("status").result(STATUS_SECONDS))
    on_change = _OnChange(daemon)
    stop = threading.Event()
    asked: deque[Callable[[], None]] = deque()

    def end() -> None:
        stop.set()
        daemon.wake()

    def reload() -> None:
        notifier.reloading()
        daemon.ask("reload").add_done_callback(lambda _: notifier.ready())

    def pause(wanted: bool) -> None:
        daemon.ask("pause" if wanted else "resume")  # what comes of it is told as an event

    def after_tick(now: float) -> None:
        notifier.beat(now)
        on_change.look(now)
        if daemon.outlived and notifier.watched:
            problem, remedy = "stylewatch was upgraded while it ran", "systemd starts it anew"
            raise EngineLost(problem, remedy=remedy, reason=EngineLost.replaced)

    port = config.metrics_port
    about = {"version": __version__, "config": config.file and str(config.file.absolute())}
    with (
        open_console(
            log_format=log_format,
            title=__version__,
            on_quit=end,
            on_pause=pause,
            chatter=config.state_dir / CHATTER,
        ) as console,
        ControlServer(config.state_dir, daemon.ask, about) as control,
        MetricsServer(port, metrics.text) if port else nullcontext(),
        # Handlers only leave word: they may interrupt a holder of any lock.
        # A terminal that is closed ends us; a service without one is asked to reload.
        on_signals(
            partial(asked.append, end),
            hang_up=partial(asked.append, end if isinstance(console, LiveConsole) else reload),
        ),
        ThreadPoolExecutor(1, thread_name_prefix="daemon") as pool,
    ):
        sinks += [console, control, notifier, *([metrics] if port else [])]
        for folder in config.folders:
            tell(_watching(folder))
        _wait(pool.submit(daemon.run, stop, after_tick), asked)


def _wait(daemon: "Future[None]", asked: deque[Callable[[], None]]) -> None:
    """Until the daemon ends, doing what signals ask for; never without a time-out.

    A signal that comes in the instant before an endless wait begins would be handled only when
    that wait is over.
    """
    while not daemon.done():
        futures.wait([daemon], timeout=SIGNAL_SECONDS)
        while asked:
            asked.popleft()()
    daemon.result()


def _watching(folder: Folder) -> Event:
    message = f"{folder.input} → {folder.output}"
    return Event(kind="watching", message=message, folder=folder.name, path=str(folder.input))


_States = dict[Path, tuple[int, int, int]]


class _OnChange:
    """Has the config read again when its file or a preset's has changed and then rested.

    Photos that are complete meanwhile wait: who saves a preset and then drops a photo means that
    preset. What the daemon could not do for its ledger's sake it is asked for again. Photos that
    wait for Keras's own weights are tried as soon as these are there, whoever fetched them.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._read: _States = {}
        self._images: _States = {}
        with suppress(OSError):  # a folder is closed to us for now: all is new when it is not
            self._read, self._images = self._find()
        self._seen = (self._read, self._images)
        self._downloaded = downloaded()
        self._next = -math.inf
        self._rested = math.inf  # when all was last seen as it was read
        self._answer: Future[Any] = Future()  # to what was asked last

    def look(self, now: float) -> None:
        """In the daemon's thread, after each of its ticks."""
        if now < self._next:
            return
        self._next = now + LOOK_SECONDS
        self._rested = min(self._rested, now)
        before, self._downloaded = self._downloaded, downloaded()
        if self._downloaded and not before:
            self._daemon.ask("retry", reason=WeightsError.not_downloaded)
        try:
            seen = self._find()
        except OSError:  # a folder that is closed to us for now
            return
        answer = self._answer
        refused = answer.done() and isinstance(answer.exception(), LedgerError)
        if self._is_read(seen) and not refused:
            self._images, self._rested = seen[1], now
        elif seen != self._seen:
            self._seen = seen  # somebody is at it: one more look
        else:
            self._read, self._images = seen
            self._answer = self._daemon.ask("reload")

    def is_outdated(self, now: float) -> bool:
        """Whether a change is about to be read; files that never rest hold nothing up."""
        try:
            return now < self._rested + RESTLESS_SECONDS and not self._is_read(self._find())
        except OSError:
            return False

    def _is_read(self, seen: tuple[_States, _States]) -> bool:
        files, images = seen
        known = images | self._images  # those of a new preset are as its reader saw them
        return files == self._read and images.items() <= known.items()

    def _find(self) -> tuple[_States, _States]:
        """The config, the folders of presets with their files, and the files that these need."""
        config = self._daemon.config
        files = [file for folder in config.preset_dirs for file in (folder, *folder.glob("*.y*ml"))]
        files += [config.file] if config.file else []
        return _states_of(files), _states_of(config.files)


def _states_of(files: Iterable[Path]) -> _States:
    return {file: _state_of(file) for file in files}


def _state_of(file: Path) -> tuple[int, int, int]:
    try:
        info = file.stat()
    except OSError:
        return (0, 0, 0)
    if stat.S_ISDIR(info.st_mode):  # its presets have states of their own
        return (info.st_ino, info.st_mode, info.st_uid)
    return (info.st_ino, info.st_size, info.st_ctime_ns)  # of new rights, too


def _refuse_a_second(config: Config) -> None:
    """Say it before the screen is taken; the daemon locks again, and for good."""
    locks = Locks()
    try:
        locks.hold_state(config.state_dir)
        for folder in config.folders:
            locks.hold_folder(folder.input)
    finally:
        locks.release()


def _parts() -> Parts:
    return Parts(
        open_executor=lambda config, on_event: open_executor(
            config.workers, config.engine, on_event, log=config.state_dir / CHATTER
        ),
        run_job=run_in_worker,
        probe=probe,
        structural_end=structural_end,
        read_facts=read_facts,
    )
