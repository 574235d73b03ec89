"""What `watch` and `run` do: the daemon with all that is around it, from console to signals.

Knows nothing of the command line.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial

from stylewatch import __version__
from stylewatch.app.reloading import OnChange
from stylewatch.domain import EngineSettings, Event, JobRequest, OnStep, Outcome
from stylewatch.engine.endings import structural_end
from stylewatch.engine.headers import probe
from stylewatch.engine.images import begins_as_image
from stylewatch.engine.results import read_facts
from stylewatch.errors import EngineLost
from stylewatch.faces.console import open_console
from stylewatch.faces.control import ControlServer
from stylewatch.faces.lines import LogFormat
from stylewatch.faces.metrics import Metrics, MetricsServer
from stylewatch.faces.notify import Notifier
from stylewatch.faces.terminal import CHATTER, has_terminal, on_signals
from stylewatch.host.daemon import Daemon, Parts
from stylewatch.jobs.executors import open_executor
from stylewatch.settings.config import Config, Folder
from stylewatch.state.locks import Locks

SIGNAL_SECONDS = 0.2  # the longest a signal waits to be obeyed
STATUS_SECONDS = 5.0  # for the daemon to answer whoever reads the metrics


def run_in_worker(request: JobRequest, engine: EngineSettings, *, report: OnStep) -> Outcome:
    """Do one job in a worker's process; the network's libraries are loaded only there."""
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
    on_change = OnChange(daemon)
    stop = threading.Event()
    asked: deque[Callable[[], None]] = deque()

    def end() -> None:
        stop.set()
        daemon.wake()

    def reload() -> None:
        notifier.reloading()
        daemon.ask("reload").add_done_callback(lambda _: notifier.ready())

    had_terminal = has_terminal()

    def hang_up() -> None:
        """The terminal was closed, or somebody wants the config to be read again."""
        (end if had_terminal and not has_terminal() else reload)()

    def after_tick(now: float) -> None:
        notifier.beat(now)
        on_change.look(now)
        if daemon.outlived and notifier.watched:
            problem, remedy = "stylewatch was upgraded while it ran", "systemd restarts it"
            raise EngineLost(problem, remedy=remedy, reason=EngineLost.replaced)

    port = config.metrics_port
    about = {"version": __version__, "config": config.file and str(config.file.absolute())}
    with (
        open_console(
            log_format=log_format,
            title=__version__,
            on_quit=end,
            on_pause=partial(_pause, daemon, []),
            chatter=config.state_dir / CHATTER,
        ) as console,
        ControlServer(config.state_dir, daemon.ask, about) as control,
        MetricsServer(port, metrics.text) if port else nullcontext(),
        # Handlers only put into `asked`: they may interrupt us while we hold any lock.
        on_signals(partial(asked.append, end), hang_up=partial(asked.append, hang_up)),
        ThreadPoolExecutor(1, thread_name_prefix="daemon") as pool,
    ):
        sinks += [console, control, notifier, *([metrics] if port else [])]
        for folder in config.folders:
            tell(_watching(folder))
        _wait(pool.submit(daemon.run, stop, after_tick), asked)


def _pause(daemon: Daemon, last: "list[Future[None]]", wanted: bool) -> None:
    """Ask for a pause, or for its end; what comes of it is told as an event.

    Who presses again before the last answer has come means the same.
    """
    if all(answer.done() for answer in last):
        last[:] = [daemon.ask("pause" if wanted else "resume")]


def _wait(daemon: "Future[None]", asked: deque[Callable[[], None]]) -> None:
    """Wait until the daemon ends, and do what signals ask for.

    With a time-out, again and again: a signal that comes just before an endless wait begins would
    be handled only when that is over.
    """
    while not daemon.done():
        futures.wait([daemon], timeout=SIGNAL_SECONDS)
        while asked:
            asked.popleft()()
    daemon.result()


def _watching(folder: Folder) -> Event:
    message = f"{folder.input} → {folder.output}"
    return Event(kind="watching", message=message, folder=folder.name, path=str(folder.input))


def _refuse_a_second(config: Config) -> None:
    """A LockedError now, before the screen is taken; the daemon itself locks again, for good."""
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
        begins_as_image=begins_as_image,
        structural_end=structural_end,
        read_facts=read_facts,
    )
