"""The command line: composes the commands, and turns every error into one line and a code.

The commands import what they need when they run, so that `--help` comes at once and `status` never
loads the network's libraries.
"""

import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer

from stylewatch import __version__
from stylewatch.commands.answers import complain, say, stdout_lost
from stylewatch.commands.options import SET_UP, GlobalOptions, Group
from stylewatch.commands.painting import app as paint_app
from stylewatch.commands.presets import app as presets_app
from stylewatch.commands.setup import app as setup_app
from stylewatch.commands.setup import config_app, service_app, weights_app
from stylewatch.commands.steering import app as steer_app
from stylewatch.commands.watching import app as watch_app
from stylewatch.errors import ExitCode, StylewatchError, named
from stylewatch.settings.paths import default_state_dir

app = typer.Typer(
    name="stylewatch",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for commands in (paint_app, watch_app, setup_app, steer_app):
    app.add_typer(commands)
app.add_typer(presets_app, name="presets", rich_help_panel=SET_UP)
app.add_typer(config_app, name="config", rich_help_panel=SET_UP)
app.add_typer(weights_app, name="weights", rich_help_panel=SET_UP)
app.add_typer(service_app, name="service", rich_help_panel=SET_UP)


def main(arguments: Sequence[str] | None = None) -> int:  # noqa: PLR0911  (a table of errors)
    """Run one command and give its exit code; every error ends here, as one line on stderr."""
    if not os.environ.get("HOME", "none"):  # as a service may have it; `~` would be `/`
        del os.environ["HOME"]  # now it is as the user database says
    _open_streams()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as by some desktops, it hides deaths
    try:
        code = app(args=arguments, prog_name="stylewatch", standalone_mode=False)
    except StylewatchError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", ExitCode.INTERRUPTED)
    except Exception as error:  # noqa: BLE001  (the last resort)
        if hasattr(error, "format_message"):  # the parser's own: an unknown option, a wrong value
            told = error.format_message().strip()  # nothing, where the help was shown instead
            return _fail(_usage(error), ExitCode.USAGE) if told else int(ExitCode.USAGE)
        if isinstance(error, OSError) and _is_of_stdout(error):
            return _fail(str(stdout_lost(error)), ExitCode.OUTPUT)
        return _fail(_internal(error), ExitCode.INTERNAL)
    if code == ExitCode.INTERRUPTED:  # what typer makes of Ctrl-C, without a word
        return _fail("interrupted", code)
    return code if isinstance(code, int) else ExitCode.OK


def _open_streams() -> None:
    """Let standard streams that were closed (`2>&-`) lead nowhere: no file takes their number.

    What the locale has no sign for is written as its number, on stdout as on stderr.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this
            os.set_inheritable(nowhere, True)  # as all have it; workers need theirs
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _is_of_stdout(error: OSError) -> bool:
    """Whether an error means that stdout can't be written, as when typer prints the help."""
    if error.errno not in {errno.ENOSPC, errno.EIO} or error.filename is not None:
        return False
    try:
        typer.echo()  # the only way to see it
    except OSError:
        return True
    return False


def _fail(line: str, code: int) -> int:
    complain(line)
    return int(code)


def _usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "stylewatch"
    message = " ".join(str(error.format_message()).split()).removesuffix(".")
    message = message.replace("Value error, ", "")  # pydantic's
    message = message.replace("extra argument(s)", "extra argument", 1)  # typer's
    return f"{message}{'' if message.endswith('?') else '.'} See `{command} --help`"


def _internal(error: Exception) -> str:
    where = _write_traceback()
    return f"internal error: {named(error)}. Please report it with the traceback in {where}"


def _write_traceback() -> str:
    try:
        file = default_state_dir() / "last-traceback.txt"
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
    except (OSError, StylewatchError):
        traceback.print_exc()
        return "the lines above"
    return str(file)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"stylewatch {__version__}")
        raise typer.Exit


def _log_format(wanted: Literal["text", "json"]) -> Literal["text", "json"]:
    """Take note of it at once, as what follows it may be wrong, and that is told this way, too."""
    GlobalOptions.log_format = wanted
    return wanted


def _no_colour(wanted: bool) -> None:
    """Take note of it at once, as `--help` ends all else."""
    if wanted:
        os.environ["NO_COLOR"] = "1"


@app.callback()
def stylewatch(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_version,
                     help="Show the version and exit."),
    ] = False,
    log_format: Annotated[
        Literal["text", "json"],
        typer.Option(envvar="STYLEWATCH_LOG_FORMAT", callback=_log_format,
                     help="Events on stderr: for people, or one JSON object per line."),
    ] = "text",
    no_colour: Annotated[
        bool,
        typer.Option("--no-colour", is_eager=True, callback=_no_colour,
                     help="No colours, as with NO_COLOR=1 set."),
    ] = False,
) -> None:  # fmt: skip
    """Watches folders and turns each new photo into a painting.

    First:
      stylewatch demo    paints a photo, to see that it works
      stylewatch init    writes a config and makes the folders
      stylewatch run     watches them; then drop photos in

    Exit codes:
      0 done            1 photo/check failed  2 wrong usage
      3 config, preset  4 photo               5 weights
      6 output, ledger  7 another daemon      8 no daemon
      9 not readable    70 internal           130 interrupted
    """
    del version, log_format, no_colour
