"""The lines of the control socket's protocol, written and read, and how its socket is found.

`stylewatch.faces.control` documents the protocol. Knows nothing of the daemon.
"""

import contextlib
import json
import math
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from stylewatch.domain import Event, Step
from stylewatch.errors import ExitCode, StylewatchError, UsageError
from stylewatch.faces.lines import jsonable, visible

VERSION: Final = 1
SOCKET: Final = "control.sock"
LONGEST_ADDRESS: Final = 107  # bytes of a Unix socket's name, as the kernel has it

COMMANDS: Final[Mapping[str, Mapping[str, type]]] = {
    "status": {},
    "pause": {},
    "resume": {},
    "reload": {},
    "cancel": {"job_id": int},
    "retry": {"job_id": int, "reason": str},
    "events": {},
}
"""The commands, each with its arguments."""
REQUIRED: Final = {"cancel": "job_id"}
KEYS: Final = ("id", "do", "with")  # of a request
_KINDS: Final = {int: "a whole number", str: "a text that is not empty"}

_PARTS: Final = ("problem", "expected", "received", "remedy", "reason")

# --- lines ----------------------------------------------------------------------------------------


def line_of(words: Mapping[str, Any]) -> bytes:
    """One message."""
    return json.dumps(jsonable(words)).encode() + b"\n"


def request_of(line: bytes) -> dict[str, Any]:
    """The JSON object in a line; nothing else about it is checked.

    Raises:
        UsageError: it is none.
    """
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError("not a line of JSON", received=_shown(line)) from error
    if not isinstance(request, dict):
        raise UsageError("not a request", expected='{"do": COMMAND}', received=_shown(request))
    return request


def id_of(request: Mapping[str, Any]) -> str | float | None:
    """The request's own id, which goes into the answer.

    Raises:
        UsageError: it is neither a text nor a number: anything else may be nested too deeply.
    """
    found = request.get("id")
    if found is not None and not isinstance(found, str | int | float):
        raise UsageError("not an id", expected="a text or a number", received=_shown(found))
    if isinstance(found, str):  # half of a surrogate pair is no text
        return found.encode("utf-8", "replace").decode()
    return found


def call_of(request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The command and its arguments, each of the right type; `null` counts as left out.

    Raises:
        UsageError: there is no such command, or its arguments are wrong.
    """
    if strange := request.keys() - KEYS:  # passed over, they would leave `retry` with everything
        remedy, received = 'Arguments belong in "with"', _shown(sorted(strange))
        raise UsageError("unknown keys", expected=", ".join(KEYS), received=received, remedy=remedy)
    command = request.get("do")
    if not isinstance(command, str) or command not in COMMANDS:
        known = "one of " + ", ".join(COMMANDS)
        raise UsageError("unknown command", expected=known, received=_shown(command))
    types, given = COMMANDS[command], request.get("with")
    if given is None:  # nothing else that is empty: `retry` would take it for everything
        given = {}
    if not isinstance(given, dict) or not given.keys() <= types.keys():
        expected = ", ".join(types) or "none"
        raise UsageError(f"wrong arguments: {command}", expected=expected, received=_shown(given))
    arguments = {name: value for name, value in given.items() if value is not None}
    for name, value in arguments.items():
        large = isinstance(value, int) and abs(value) >= 1 << 63
        if type(value) is not types[name] or large or value == "":
            kind = _KINDS[types[name]]
            raise UsageError(f"wrong {name}: {command}", expected=kind, received=_shown(value))
    needed = REQUIRED.get(command)
    if needed and needed not in arguments:
        raise UsageError(f"missing argument: {command}", expected=needed, received=_shown(given))
    return command, arguments


def event_of(words: Mapping[str, Any]) -> Event:
    """The event that `event_dict` wrote; what a newer daemon adds is passed over."""
    known = {each.name for each in fields(Event)} - {"kind", "message", "step"}
    step = words.get("step")
    return Event(
        kind=words["event"],
        message=words.get("message", ""),
        step=step_of(step) if step else None,
        **{name: value for name, value in words.items() if name in known},
    )


def step_of(words: Mapping[str, Any]) -> Step:
    """The step; `null` stands for a number that JSON can't hold, such as infinity."""
    found: dict[str, Any] = {each.name: words[each.name] for each in fields(Step)}
    found |= {name: math.nan for name, value in found.items() if value is None}
    return Step(**found)


def error_dict(error: StylewatchError) -> dict[str, Any]:
    """An error as it is sent, for people and for programs."""
    parts = {name: getattr(error, name) for name in _PARTS}
    return {"message": str(error), **parts, "exit_code": int(error.exit_code)}


def error_of(words: Mapping[str, Any]) -> StylewatchError:
    """The error that was sent, with its line, its reason and its exit code."""
    error = StylewatchError(
        str(words.get("message", "the daemon refused")), reason=str(words.get("reason", ""))
    )
    with contextlib.suppress(ValueError):
        error.exit_code = ExitCode(words.get("exit_code", ExitCode.FAILED))
    return error


def _shown(value: object) -> str:
    return visible(repr(value)[:80])


# --- the socket -----------------------------------------------------------------------------------


@contextlib.contextmanager
def address_of(path: Path) -> Iterator[str]:
    """The path, or another name of it that is short enough for a socket's address."""
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def lives(state_dir: Path) -> bool:
    """Whether a daemon with that state directory is alive, though it may not answer."""
    try:
        dial(state_dir / SOCKET, timeout=1.0).close()
    except (TimeoutError, BlockingIOError):  # it has no room for more that wait
        return True
    except OSError:
        return False
    return True


def dial(path: Path, timeout: float) -> socket.socket:
    """A connection to that socket."""
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    caller.settimeout(timeout)
    try:
        with address_of(path) as address:
            caller.connect(address)
    except BaseException:
        caller.close()
        raise
    return caller
