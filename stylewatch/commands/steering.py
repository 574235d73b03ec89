"""Commands that look at a daemon and steer it, by its state directory."""
# ruff: noqa: PLC0415  (what a command needs is imported when it runs)

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from stylewatch.commands.answers import answer, complain, note, say, say_json_list, width
from stylewatch.commands.options import (
    STEER,
    ConfigPath,
    GlobalOptions,
    Json,
    StateDir,
    command,
)
from stylewatch.domain import JobState, counted
from stylewatch.errors import (
    ConfigError,
    LedgerError,
    NotRunningError,
    StylewatchError,
    UsageError,
)

app = typer.Typer()

_SOON = 1.0  # seconds in which a daemon that is well has answered


@command(app, panel=STEER)
def console(*, config: ConfigPath = None, state: StateDir = None) -> None:
    """Show the live view of a running daemon, also of one that systemd started.

    q leaves the view and the daemon running; p pauses and resumes the daemon. Without a terminal
    it writes one line per event, or JSON with `stylewatch --log-format json console`.
    """
    from stylewatch.app.remote import Client, ask, pulse_felt
    from stylewatch.faces.console import open_console
    from stylewatch.faces.terminal import on_signals

    folder = _state_dir(config, state)
    left, asking = threading.Event(), threading.Lock()

    def pause(wanted: bool) -> None:
        """In a thread of its own: while a daemon that hangs is asked, keys are heard."""

        def ask_it() -> None:
            try:
                with suppress(StylewatchError):
                    ask(folder, "pause" if wanted else "resume")
            finally:
                asking.release()

        if asking.acquire(blocking=False):
            threading.Thread(target=ask_it, name="pause", daemon=True).start()

    with _patience():
        client = Client(folder)
    with client:

        def leave() -> None:
            left.set()
            client.hang_up()

        with (
            open_console(
                log_format=GlobalOptions.log_format,
                title=str(client.about.get("version", "")),
                attached=True,
                on_quit=leave,
                on_pause=pause,
            ) as view,
            on_signals(leave),
            pulse_felt(folder, view),
        ):
            try:
                for event in client.events():
                    view(event)
            except NotRunningError:  # who leaves very soon hangs up before the first answer
                if not left.is_set():
                    raise
    if not left.is_set():
        with suppress(NotRunningError), Client(folder) as again:
            if again.about == client.about:
                problem = "the daemon hung up, as this console read too slowly"
                raise StylewatchError(problem, remedy="Start it again")
        raise NotRunningError("the daemon has ended", remedy="`stylewatch run` starts one")


@command(app, panel=STEER)
def status(*, config: ConfigPath = None, state: StateDir = None, as_json: Json = False) -> None:
    """Show what the daemon is doing: folders, pictures in work, queue.

    The exit code is 8 when no daemon runs; what the ledger knows is shown all the same.

    Examples:
      stylewatch status
      stylewatch status --json | jq .folders
    """
    from stylewatch.app.overview import look, overview_text

    folder = _state_dir(config, state)
    with _patience():
        found = look(folder)
    answer(found, overview_text(found, width()), as_json=as_json)
    if not found["running"]:
        raise NotRunningError(found["problem"])


@command(app, panel=STEER)
def jobs(
    *,
    failed: Annotated[
        bool, typer.Option("--failed", help="Those that failed or may fail, and files left alone.")
    ] = False,
    done: Annotated[bool, typer.Option("--done", help="Those that are painted.")] = False,
    waiting: Annotated[bool, typer.Option("--waiting", help="Those still to be painted.")] = False,
    running: Annotated[bool, typer.Option("--running", help="Those being painted.")] = False,
    held: Annotated[
        bool, typer.Option("--held", help="Those held back, such as cancelled ones.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="How many at most: 50, or all with --json."),
    ] = None,
    config: ConfigPath = None,
    state: StateDir = None,
    as_json: Json = False,
) -> None:
    """List jobs: those being painted, those waiting, then the latest. A job: one photo, one style.

    Works without a daemon too. `--failed` and `--held` also name files without a job, and why.

    Examples:
      stylewatch jobs --failed
      stylewatch jobs --done --limit 5 --json
    """
    from stylewatch.app.overview import FAILED, jobs_text, list_jobs
    from stylewatch.faces.lines import short_path
    from stylewatch.state.wording import PAINTING, WAITING

    states = [
        *(FAILED if failed else ()),
        *((JobState.DONE,) if done else ()),
        *(WAITING if waiting else ()),
        *(PAINTING if running else ()),
        *((JobState.HELD,) if held else ()),
    ]
    folder = _state_dir(config, state)
    limit = min(limit or (sys.maxsize if as_json else 50), sys.maxsize)  # as SQLite counts
    found, there = list_jobs(folder, states, limit, notes=failed)
    if as_json:
        say_json_list(found)
    else:
        say(jobs_text([*found], width()))
    if there is None:
        note(f"there is no ledger in {short_path(folder)}: nothing has been painted yet")
    elif there > limit:
        note(f"… and {there - limit} more (`--limit`)")


def _job_number(text: str) -> int:
    """The number, also as `jobs` prints it: `#9`."""
    try:
        return int(text.removeprefix("#"))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no job's number") from error


JobId = typer.Argument(
    metavar="ID", parser=_job_number, help="The job's number, as `jobs` shows it."
)


@command(app, panel=STEER)
def retry(
    job_id: Annotated[int | None, JobId] = None,
    *,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Everything that was set aside, except what was cancelled."),
    ] = False,
    reason: Annotated[
        str, typer.Option(metavar="R", help="What was set aside for this reason, such as crash.")
    ] = "",
    config: ConfigPath = None,
    state: StateDir = None,
) -> None:
    """Paint again what was set aside: one job, all of them, or those with one reason.

    A photo that is copied again needs no retry: its change brings it back by itself.

    Examples:
      stylewatch retry 12
      stylewatch retry --reason disk-full
    """
    if (job_id is not None) + everything + bool(reason) != 1:
        raise UsageError("what to retry is not clear", expected="ID, --all or --reason R")
    folder = _state_dir(config, state)
    count = _ask(folder, "retry", job_id=job_id, reason=reason or None)
    if not count and not everything:
        raise _nothing_to_retry(folder, job_id, reason)
    note(f"{counted(count, 'job')} in the queue again")


def _nothing_to_retry(folder: Path, job_id: int | None, reason: str) -> UsageError:
    from stylewatch.app.overview import reasons_aside, word_of_job

    if job_id is not None:
        word = word_of_job(folder, job_id)
        remedy = "Only what was set aside can be retried; see `stylewatch jobs`"
        if word == "done":
            remedy = "`touch` its photo to have a deleted result again, or one in a changed preset"
        return UsageError(f"Job {job_id} is {word}", remedy=remedy)
    known = ", ".join(sorted(reasons_aside(folder) - {""}))
    problem = f"nothing was set aside for {reason!r}"
    return UsageError(problem, expected=known and f"one of {known}")


@command(app, panel=STEER)
def pause(*, config: ConfigPath = None, state: StateDir = None) -> None:
    """Start no new pictures; those in work are finished, new photos are still noticed.

    This lasts until `resume`, even if the daemon is restarted. After a `resume` outside of the
    config's hours or on battery it undoes that: new pictures wait for the hours, or the plug,
    again.
    """
    _ask(_state_dir(config, state), "pause")
    note("paused; `stylewatch resume` goes on")


@command(app, panel=STEER)
def resume(*, config: ConfigPath = None, state: StateDir = None) -> None:
    """Go on after a pause; outside of the config's hours or on battery, begin at once.

    Outside of the hours this lasts until the next ones have ended; on battery, until it has been
    plugged in again.
    """
    _ask(_state_dir(config, state), "resume")
    note("going on")


@command(app, panel=STEER)
def cancel(
    job_id: Annotated[int, JobId], *, config: ConfigPath = None, state: StateDir = None
) -> None:
    """Set one job aside until `retry`.

    It is not painted, or, if it is being painted already, no further.
    """
    from stylewatch.app.overview import word_of_job

    folder = _state_dir(config, state)
    _ask(folder, "cancel", job_id=job_id)
    words = "is being set aside; then"  # its worker is being ended, if it has one
    with suppress(LedgerError):  # an older daemon's, which has done it all the same
        if word_of_job(folder, job_id) == "held":
            words = "is set aside;"
    note(f"job {job_id} {words} `stylewatch retry {job_id}` brings it back")


def _ask(folder: Path, command: str, **arguments: Any) -> Any:
    from stylewatch.app.remote import ask

    with _patience(command):
        return ask(folder, command, **arguments)


@contextmanager
def _patience(command: str = "") -> Iterator[None]:
    """Within it a note tells people that we wait, if the daemon does not answer soon."""
    from stylewatch.app.remote import answer_seconds

    words = f"the daemon has not answered yet; waiting {answer_seconds(command):g} s for it at most"
    timer = threading.Timer(_SOON, note, [words])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _state_dir(config: Path | None, state: str | None) -> Path:
    """The daemon's state directory: as named, as the config says, or the usual one.

    An error in the config need not keep us from the daemon, which goes on with what it had read.
    """
    from stylewatch.app.remote import config_of, find_state_dir, same_config
    from stylewatch.settings.loading import state_dir_of
    from stylewatch.settings.paths import absolute, default_state_dir, find_config

    if state is not None:
        return absolute(state)
    try:
        file = find_config(config)
    except ConfigError:  # there is none
        return find_state_dir(default_state_dir(), None)
    try:
        return find_state_dir(state_dir_of(file), file)
    except ConfigError as error:
        file = absolute(file)
        usual = find_state_dir(default_state_dir(), file)
        theirs = config_of(usual)
        ours = theirs is not None and same_config(theirs, file)
        if not ours and (theirs or config):  # no sign that it is this one's
            raise
        complain(str(error))
        return usual
