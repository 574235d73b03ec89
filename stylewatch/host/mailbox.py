"""Commands for the daemon: asked for in any thread, done in its own.

Knows nothing of what the commands do.
"""

import queue
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from stylewatch.errors import LedgerError

_Letter = tuple[Callable[[], Any], Future[Any]]


class Mailbox:
    """Takes commands by name and answers each by a future; calls `wake` when one comes in."""

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
        """Answer all commands that have come in with an error."""
        for _, answer in self._opened():
            answer.set_exception(error)

    def obey(self) -> None:
        """Do all commands that have come in, and answer them.

        Raises:
            LedgerError: a command has failed with it; whoever asked for that gets it too.
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
        """Those that have come in by now; who asks without end keeps nobody from all else."""
        for _ in range(self._letters.qsize()):
            yield self._letters.get_nowait()
