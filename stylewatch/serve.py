"""The daemon with all that is around it: its parts, its face, its signals.

What `watch` and `run` do. Knows nothing of the command line.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stylewatch.config import Config
from stylewatch.console import open_console
from stylewatch.daemon import Daemon, Parts
from stylewatch.domain import EngineSettings, Event, JobRequest, Outcome, Step
from stylewatch.executors import open_executor
from stylewatch.images import probe, read_facts, structural_end
from stylewatch.lines import LogFormat
from stylewatch.locks import Locks
from stylewatch.terminal import on_signals

CHATTER = "chatter.log"
"""In the state directory: what libraries and workers said."""


def run_in_worker(
    request: JobRequest, engine: EngineSettings, *, report: Callable[[Step], None]
) -> Outcome:
    """One job, in the worker's process: only there are the network's libraries loaded."""
    from stylewatch.worker import run_job  # noqa: PLC0415

    return run_job(request, engine, report=report)


def serve(load: Callable[[], Config], *, title: str = "", log_format: LogFormat = "text") -> None:
    """Run the daemon until a signal, `q` or a command ends it.

    Raises:
        LockedError: another daemon has the state directory or one of the folders.
    """
    config = load()
    _refuse_a_second(config)
    sinks: list[Callable[[Event], None]] = []

    def tell(event: Event) -> None:
        for sink in sinks:
            sink(event)

    daemon = Daemon(config, _parts(), tell, load=load)
    stop = threading.Event()

    def end() -> None:
        stop.set()
        daemon.wake()

    with (
        open_console(
            log_format=log_format,
            title=title,
            on_quit=end,
            on_pause=lambda wanted: _ask(daemon, "pause" if wanted else "resume"),
            chatter=config.state_dir / CHATTER,
            thumbnail=_thumbnail,
        ) as console,
        on_signals(end, hang_up=lambda: _ask(daemon, "reload")),
        ThreadPoolExecutor(1, thread_name_prefix="daemon") as pool,
    ):
        sinks.append(console)
        for folder in config.folders:
            message = f"{folder.input} → {folder.output}"
            tell(
                Event(kind="watching", message=message, folder=folder.name, path=str(folder.input))
            )
        # The main thread stays free for signals, whose handlers may then use the daemon's locks.
        pool.submit(daemon.run, stop).result()


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


def _ask(daemon: Daemon, command: str) -> None:
    daemon.ask(command)  # what comes of it is told as an event


def _thumbnail(file: Path, width: int, height: int) -> Any:
    from stylewatch.preview import thumbnail  # noqa: PLC0415

    return thumbnail(file, width, height)
