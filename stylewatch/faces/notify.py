"""What a daemon tells the systemd that started it: a few lines over a datagram socket.

Written here, as the libraries for it lose what is not ASCII, or need headers to build. Silent where
nobody listens. Knows nothing of what the daemon does.
"""

import contextlib
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

from stylewatch.domain import LEARNING, Event
from stylewatch.faces.lines import visible

NOTIFY_SECONDS: Final = 1.0
END_SECONDS: Final = 25.0
"""What the daemon needs to end, beyond the time that a running photo is given."""
LEARN_SECONDS: Final = 600.0
"""How long systemd is asked to wait for the next word while a new ledger learns from results."""
MOST_NAMED: Final = 3
"""Of the photos that are painted at once so many are named."""
LONGEST_STATUS: Final = 500
"""Characters: a message of more than 4096 bytes is lost as a whole, and `READY=1` with it."""


def notify(*lines: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send the lines as one message; False when nobody listens, which is no error."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(NOTIFY_SECONDS)
            sender.sendto("\n".join(lines).encode("utf-8", "backslashreplace"), address)
    except OSError:
        return False
    return True


def watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Seconds within which systemd wants to hear of us, again and again; None if it doesn't."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with contextlib.suppress(ValueError):
        return int(environ.get("WATCHDOG_USEC", "")) / 1e6 or None
    return None


class Notifier:
    """A sink for the daemon's events that tells systemd how it stands."""

    def __init__(
        self,
        alive: Callable[[], bool] = lambda: True,
        grace: Callable[[], float] = lambda: 0.0,
        *,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._alive = alive
        self._grace = grace
        self._environ = environ
        self._interval = watchdog_interval(environ)
        self._next_beat = -math.inf
        self._running: dict[int, str] = {}
        self._counts: dict[str, Mapping[str, int]] = {}  # by folder
        self._rest = self._paused = ""
        self._said = ""

    def __call__(self, event: Event) -> None:
        """Follow the daemon: ready once it has started, then what it works at, then stopping."""
        match event.kind:
            case "started":
                self._rest = event.message
                self.ready(event.message)
                return
            case "stopping":
                self.stopping()
                return
            case "warning" if event.reason == LEARNING:
                self._learning(event.message)
                return
            case "running":
                self._running[event.job_id] = f"{event.path} → {event.preset}"
            case _ if event.stops_work:
                self._running.pop(event.job_id, None)
            case "paused":
                self._paused = event.message
            case "resumed":
                self._rest, self._paused = event.message, ""
            case "reload":
                self._rest = event.message
            case "folder":
                self._counts[event.folder] = {} if event.reason == "left" else event.extra
            case _:
                return
        names = [*self._running.values()]
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        work = ", ".join(names[:MOST_NAMED]) + more
        text = f"painting {work}" if work else self._paused or self._rest
        self.status("; ".join(filter(None, [text, self._counted()])))

    def _counted(self) -> str:
        """How many photos of all folders wait, and how many have failed."""
        found = [
            (sum(counts.get(word, 0) for counts in self._counts.values()), word)
            for word in ("waiting", "failed")
        ]
        return ", ".join(f"{count} {word}" for count, word in found if count)

    def ready(self, status: str = "") -> None:
        """Started, or the config is read again."""
        self._said = status or self._said
        self._send("READY=1", *_status_line(self._said))

    def status(self, text: str) -> None:
        """What is going on, in one line."""
        if text != self._said:
            self._said = text
            self._send(*_status_line(text))

    def reloading(self) -> None:
        """The config is about to be read again; `ready` ends this, whatever came of it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def _learning(self, status: str) -> None:
        """The start takes long: ask systemd to wait, as a restart would only begin anew."""
        more = f"EXTEND_TIMEOUT_USEC={int(1e6 * LEARN_SECONDS)}"
        self._send("WATCHDOG=1", more, *_status_line(status))

    def stopping(self) -> None:
        """The end has begun: ask systemd for the grace time, whatever the unit says."""
        micros = int(1e6 * (self._grace() + END_SECONDS))
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={micros}", *_status_line("stopping"))

    @property
    def watched(self) -> bool:
        """Whether systemd starts us anew when we fail."""
        return self._interval is not None

    def beat(self, now: float) -> None:
        """Feed the watchdog when it is time, and only while all is alive."""
        if self._interval is None or now < self._next_beat or not self._alive():
            return
        if self._send("WATCHDOG=1"):
            self._next_beat = now + self._interval / 3

    def _send(self, *lines: str) -> bool:
        return notify(*lines, environ=self._environ)


def _status_line(text: str) -> tuple[str, ...]:
    """One line, whatever bytes a file name brings."""
    return (f"STATUS={visible(text)[:LONGEST_STATUS]}",) if text else ()
