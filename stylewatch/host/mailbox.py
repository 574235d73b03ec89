"""Commands for the daemon from other threads: put in anywhere, done in its own thread.

Knows nothing of what the commands do.
"""

import contextlib
import queue
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from stylewatch.errors import LedgerError

_Letter = tuple[Callable[[], Any], Future[Any]]


class Mailbox:
    """Commands by name, each answered by a future; `wake` is called when one comes in."""

    def __init__(
        self, commands: Mapping[str, Callable[..., Any]], wake: Callable[[], None]
    ) -> None:
        self._commands = commands
        self._wake = wake
        self._letters: queue.SimpleQueue[_Letter] = queue.SimpleQueue()

    def ask(self, command: str, **arguments: Any) -> "Future[Any]":
        """Have a command done; safe from any thread."""
        answer: Future[Any] = Future()
        self._letters.put((partial(self._commands[command], **arguments), answer))
        self._wake()
        return answer

    def refuse(self, error: Exception) -> None:
        """Answer all that was asked for with an error."""
        for _, answer in self._opened():
            answer.set_exception(error)

    def obey(self) -> None:
        """Do all that was asked for.

        Raises:
            LedgerError: as a command has met with it; whoever asked is told too.
        """
        for command, answer in self._opened():
            try:
                answer.set_result(command())
            except LedgerError as error:
                answer.set_exception(error)
                raise
            except Exception as error:  # noqa: BLE001  (arguments come from outside)
                answer.set_exception(error)

    def _opened(self) -> Iterator[_Letter]:
        """All that came in by now."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._letters.get_nowait()
