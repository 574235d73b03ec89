"""Talks to a running daemon, by the socket that `stylewatch.faces.control` serves and documents.

`ask` is for one question, `Client` for several and for events. Whatever keeps the daemon from
answering is a `NotRunningError`. Knows nothing of what the answers mean.
"""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

from stylewatch.app.unit import installed_unit
from stylewatch.domain import SILENT, Event
from stylewatch.errors import NotRunningError, StylewatchError
from stylewatch.faces.lines import visible
from stylewatch.faces.wire import SOCKET, VERSION, dial, error_of, event_of, line_of, lives
from stylewatch.settings.paths import default_state_dir

SYSTEM_STATE: Final = Path("/var/lib/stylewatch")
"""Where systemd's system service has its state."""
ANSWER_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 300.0  # of hundreds of thousands of jobs


def answer_seconds(command: str) -> float:
    """How long a healthy daemon may take to answer a command."""
    return RETRY_SECONDS if command == "retry" else ANSWER_SECONDS


def ask(state_dir: Path, command: str, /, **arguments: Any) -> Any:
    """One question to the daemon of that state directory.

    Raises:
        NotRunningError: there is no daemon, or it does not answer, or not to us.
        StylewatchError: the daemon's own no.
    """
    with Client(state_dir, answer_seconds(command)) as client:
        return client.ask(command, **arguments)


@contextlib.contextmanager
def pulse_felt(
    state_dir: Path, tell: Callable[[Event], None], seconds: float = ANSWER_SECONDS
) -> Iterator[None]:
    """Within it events tell when the daemon stops answering, and when it answers again."""
    over = threading.Event()

    def feel() -> None:
        trouble = ""
        while not over.wait(seconds):
            before, trouble = trouble, _silence(state_dir, seconds)
            if over.is_set():
                return
            if trouble and not before:
                tell(Event(kind="warning", message=trouble, reason=SILENT))
            elif before and not trouble:
                tell(Event(kind="recovered", message="the daemon answers again", reason=SILENT))

    threading.Thread(target=feel, name="pulse", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _silence(state_dir: Path, seconds: float) -> str:
    """Why a daemon that is alive does not answer; empty if it does, or is not alive."""
    try:
        with Client(state_dir, timeout=seconds) as client:
            client.ask("status")
    except NotRunningError as error:
        return str(error) if lives(state_dir) else ""
    except StylewatchError:  # an answer, too
        pass
    return ""


def find_state_dir(state_dir: Path, config: Path | None) -> Path:
    """The state directory of the daemon that runs with this config, or would.

    That is the config's own `state_dir`; but if no daemon is alive there, and the system's service
    runs with this very config, or is installed for it, it is the one that systemd has chosen.
    """
    if state_dir == SYSTEM_STATE or lives(state_dir):
        return state_dir
    theirs: str | Path | None = config_of(SYSTEM_STATE)
    if config is None:
        return SYSTEM_STATE if theirs is not None else state_dir
    if theirs is None and state_dir == default_state_dir():
        unit = installed_unit(user=False)
        theirs = unit.config if unit else None
    return SYSTEM_STATE if theirs and same_config(theirs, config) else state_dir


def same_config(one: str | Path, other: str | Path) -> bool:
    """Whether both name the same file, be it by a link."""
    return os.path.realpath(one) == os.path.realpath(other)


def config_of(state_dir: Path) -> str | None:
    """The config of the daemon that answers there, empty if it has none; None if none answers."""
    try:
        with Client(state_dir, timeout=2.0) as client:
            return str(client.about.get("config") or "")
    except NotRunningError:
        return None


class Client:
    """A connection to a running daemon; use it in `with`, and, but for `hang_up`, in one thread.

    Raises:
        NotRunningError: there is no daemon, or it does not answer, or not to us.
    """

    def __init__(self, state_dir: Path, timeout: float = ANSWER_SECONDS) -> None:
        self._state_dir = state_dir
        self._socket = self._connect(timeout)
        self._lines = self._socket.makefile("rb")
        try:
            self.about = self._greeting()
            """Who answered: `version`, `pid`, `config`."""
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """The connection is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self.close()

    def hang_up(self) -> None:
        """End a loop over `events`, from any thread, or from a signal's handler."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up and let go of everything; nothing may read any more."""
        self._lines.close()
        self._socket.close()

    def ask(self, command: str, **arguments: Any) -> Any:
        """The daemon's answer; its error is raised here."""
        try:
            self._socket.sendall(line_of({"do": command, "with": arguments}))
        except OSError as error:
            raise self._nobody("it hung up") from error
        if not (words := self._read()):
            raise self._nobody("it ended before it answered")
        if not words["ok"]:
            raise error_of(words.get("error") or {})
        return words.get("answer")

    def events(self) -> Iterator[Event]:
        """First events that tell how things stand, then each new one, until the daemon ends."""
        self.ask("events")
        with contextlib.suppress(OSError):  # closed by ourselves
            self._socket.settimeout(None)
            while words := self._read():
                if "event" in words:
                    yield event_of(words)

    def _connect(self, timeout: float) -> socket.socket:
        try:
            return dial(self._state_dir / SOCKET, timeout)
        except PermissionError as error:
            raise NotRunningError(
                f"the daemon in {visible(self._state_dir)} belongs to another user",
                remedy="Talk to it as that user, or with sudo",
            ) from error
        except (TimeoutError, BlockingIOError) as error:
            raise self._silent() from error
        except OSError as error:
            raise self._nobody() from error

    def _greeting(self) -> dict[str, Any]:
        words = self._read()
        if "error" in words:
            raise NotRunningError(str(error_of(words["error"])))
        if words.get("stylewatch") != VERSION:
            raise self._nobody("it is of another version; restart it" if words else "it hung up")
        return words

    def _read(self) -> dict[str, Any]:
        """The next line; empty when the daemon hung up."""
        try:
            line = self._lines.readline()
        except TimeoutError as error:
            raise self._silent() from error
        except ConnectionError:
            return {}
        with contextlib.suppress(ValueError):
            words = json.loads(line)
            if isinstance(words, dict):
                return words
        return {}

    def _silent(self) -> NotRunningError:
        return NotRunningError(
            f"the stylewatch daemon for {visible(self._state_dir)} does not answer",
            remedy="It hangs, is stopped (as by Ctrl-Z), or has lost its ledger and is reading all "
            "results first; see `stylewatch service status [--user]`",
        )

    def _nobody(self, why: str = "") -> NotRunningError:
        return NotRunningError(
            f"no stylewatch daemon for {visible(self._state_dir)}" + (f": {why}" if why else ""),
            remedy="`stylewatch run` starts one; "
            "`stylewatch service status [--user]` tells of the service",
        )
