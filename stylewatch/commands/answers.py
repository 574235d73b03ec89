"""What commands give: results on stdout, everything else on stderr, one line each.

With `--log-format json` each line on stderr is an object, those of events and ours alike.
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import typer

from stylewatch.commands.options import GlobalOptions
from stylewatch.errors import ConfigError, OutputError
from stylewatch.faces.lines import jsonable, visible, wrapped
from stylewatch.settings.paths import default_state_dir


def complain(line: str) -> None:
    """Say on stderr, in one line, what went wrong."""
    _note(line, "error", "stylewatch: ")


def note(line: str) -> None:
    """Say on stderr, in one line, what was done."""
    _note(line, "info")


def _note(line: str, level: str, start: str = "") -> None:
    """Write a line to stderr; that it is gone or full is no further trouble."""
    words = start + visible(line)
    if GlobalOptions.log_format == "json":
        words = json.dumps({"level": level, "message": visible(line)})
    else:
        words = folded(words, 0, sys.stderr)
    try:
        typer.echo(words, err=True)
    except OSError:
        _give_up(sys.stderr)


def answer(data: object, text: str, *, as_json: bool) -> None:
    """Print the command's result on stdout, for programs or for people."""
    if as_json:
        say_json(data)
    else:
        say(text)


def say_json(data: object) -> None:
    """Print a result on stdout, for programs."""
    say(json.dumps(jsonable(data), indent=2))


def say_json_list(data: Iterable[object]) -> None:
    """Print a list on stdout, each part as it comes: all of it may not fit into memory."""
    before = "["
    for part in data:
        say(before + "\n  " + json.dumps(jsonable(part), indent=2).replace("\n", "\n  "), end="")
        before = ","
    say("[]" if before == "[" else "\n]")


def say_path(path: Path) -> None:
    """Print a path on stdout: made safe for a terminal, byte for byte for a program."""
    say(visible(path) if sys.stdout.isatty() else os.fsencode(path))


def say_noted(path: Path) -> None:
    """Print a path that a note has named already, unless both would show on one terminal."""
    if not are_together():
        say_path(path)


def are_together() -> bool:
    """Whether a terminal shows results and notes side by side."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def width(stream: TextIO | None = None) -> int:
    """How wide a line on stdout, or there, may be: as the terminal, or of any width if none."""
    stream = stream or sys.stdout
    if not (stream and stream.isatty()):
        return sys.maxsize
    from stylewatch.faces.terminal import size_of  # noqa: PLC0415  (rich is slow to import)

    return size_of(stream)[0]


def folded(line: str, indent: int, stream: TextIO | None = None) -> str:
    """A line, broken between words where the terminal that it is for is too narrow."""
    return "\n".join(wrapped(line, width(stream), indent))


def say(words: str | bytes, *, end: str = "\n") -> None:
    """Print a result on stdout."""
    try:
        typer.echo(words, nl=bool(end))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise stdout_lost(error) from error


def stdout_lost(error: OSError) -> OutputError:
    """The error for a stdout that can't be written."""
    _give_up(sys.stdout)
    remedy = "Give it a place to write to"
    return OutputError(f"stdout can't be written: {error.strerror}", remedy=remedy)


def _give_up(stream: TextIO) -> None:
    """Let the stream lead nowhere, as what is in its buffer could not be written either."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def report_errors(errors: Sequence[ConfigError], fine: str, *, as_json: bool) -> None:
    """Tell each error, and the others of its file, in a line of its own, and exit with its code.

    Where there are none, tell that all is fine.
    """
    errors = [each for error in errors for each in (error, *error.others)]
    for error in errors:
        error.others = ()  # each has its own line
    if as_json:
        told = [vars(error) | {"exit_code": error.exit_code} for error in errors]
        for one in told:
            del one["others"]
        say_json(told)
    else:
        for error in errors:
            complain(str(error))
        if not errors:
            note(fine)
    if errors:  # the code of what is wrong is lower than of what can't be read for now
        raise typer.Exit(min(error.exit_code for error in errors))


def chatter() -> Path:
    """The file for what libraries write to stderr while a command runs."""
    from stylewatch.faces.terminal import CHATTER  # noqa: PLC0415  (rich is slow to import)

    with suppress(OSError):
        default_state_dir().mkdir(parents=True, exist_ok=True, mode=0o700)
    return default_state_dir() / CHATTER
