r"""The socket by which programs talk to a running daemon: `control.sock` in the state directory.

The protocol, version 1 (stable: within a version, fields are only ever added). Each line is one
JSON object in UTF-8.

* On connecting the daemon says who it is: `{"stylewatch": 1, "version": …, "pid": …, "config": …}`.
* A request is `{"id": ID, "do": COMMAND, "with": {ARGUMENTS}}`; `id` (a text or a number) and
  `with` may be left out. Any other key is refused.
* Its answer is `{"id": ID, "ok": true, "answer": …}` or `{"id": ID, "ok": false, "error": {…}}`
  with `message` (one line for people), `problem`, `expected`, `received`, `remedy`, `reason` (a
  stable word) and `exit_code`. Answers may come in another order than requests.

Commands:

* `status`: `paused` and `paused_why` (`by hand`, `until 22:00`, `while on battery`), `folders`,
  `settling`, `slow` (folder → files that are long on their way, and why), `running`, `blocked`,
  `counts` (folder → state → jobs), `failed_files` and `held_files` (folder → photos that never
  became a job, and those that wait for a preset that can't be used now), `pace` (seconds per
  photo), `work` (folder → seconds that the photos which wait there will take, 0 if unknown,
  null if some wait for what is away), `slots` (how many are painted at once), `hours` (when photos
  are begun: from which to which minute of the day, each), `trouble` (why no worker runs, if none
  does), `refused` (what is wrong with the config as it is now, if an older one goes on), `waits`
  (the presets, weights or folders that photos wait for, and why), `lost`.
* `pause`, `resume`: running photos are finished, no new ones are started; `null`. `resume` also
  begins photos outside of the config's hours, until these have come and gone.
* `cancel` with `job_id`: a job that runs is killed, and it or one that waits is set aside; `null`.
* `retry` with `job_id`, or `reason`, or neither (all but what was cancelled): how many jobs are in
  the queue again.
* `reload`: the config is read again, whole or not at all; `null`.
* `events`: `null`, and from then on each event of the daemon as a line of its own with `event` (its
  kind) instead of `id`. Events that tell how things came to be as they are come first; they have
  the time at which they happened in `extra.at` (seconds since 1970). A client that reads too
  slowly is disconnected.

Only the daemon's own user and root are let in: the socket has mode 0600, and the kernel is asked
who calls. Commands are handed on to the daemon by `ask`, which gives a future. Nothing in here
waits for a client. `stylewatch.app.remote` is the other side. Knows nothing of what commands do, of
the ledger or of terminals.
"""

import contextlib
import os
import selectors
import socket
import struct
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from stylewatch.domain import Event
from stylewatch.errors import LedgerError, LockedError, NotRunningError, StylewatchError, named
from stylewatch.faces.lines import event_dict
from stylewatch.faces.recent import Recent
from stylewatch.faces.wire import (
    SOCKET,
    VERSION,
    address_of,
    call_of,
    error_dict,
    id_of,
    line_of,
    lives,
    request_of,
)

MAX_CLIENTS: Final = 32
MAX_REQUEST: Final = 65536
MAX_UNREAD: Final = 1_000_000
"""Bytes that may wait for a client; one that has left more unread is dropped."""
MAX_ASKED: Final = 16
"""Answers that a client may wait for; what it asks beyond that is heard when it has got some.
As many of its lines are heard before it is the others' turn."""
MAX_INBOX: Final = 10_000
"""With so many things to do for our thread it gets no more events."""

Ask = Callable[..., "Future[Any]"]
"""`ask(command, **arguments)`: the daemon's answer, or a `StylewatchError`, in a future."""


@dataclass(eq=False)
class _Client:
    socket: socket.socket
    unread: bytearray = field(default_factory=bytearray)
    request: bytes = b""
    listens: bool = False
    """It wants the events."""
    asked: int = 0
    """So many answers it still waits for."""
    ended: bool = False
    """It will say no more, but may still read: `echo … | nc -N -U`."""


class ControlServer:
    """The socket of one daemon, served in a thread of its own while it is entered.

    It is a sink for the daemon's events, callable from any thread and never waiting. `about` is
    told to everyone who connects.
    """

    def __init__(self, state_dir: Path, ask: Ask, about: Mapping[str, Any]) -> None:
        self._path = state_dir / SOCKET
        self._ask = ask
        self._about = {"stylewatch": VERSION, "pid": os.getpid(), **about}
        self._recent = Recent()
        self._clients: set[_Client] = set()
        self._inbox: deque[Callable[[], None]] = deque()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def __enter__(self) -> Self:
        """Listen.

        Raises:
            LockedError: another daemon listens there.
            LedgerError: there can be no socket there.
        """
        try:
            self._listener = _listen(self._path)
        except OSError as error:
            raise LedgerError(
                f"{self._path.parent} can't hold a socket: {error.strerror}",
                remedy="Set state_dir (`watch`: --state) to a folder on a disk of this machine "
                "that is neither full nor FAT nor exFAT",
            ) from error
        self._inode = self._path.stat().st_ino
        self._alarm, self._bell = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._alarm, selectors.EVENT_READ, self._empty_alarm)
        self._alarm.setblocking(False)
        self._bell.setblocking(False)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send what is still to be sent, and hang up."""
        self._later(self._end)
        self._thread.join(timeout=2.0)
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def __call__(self, event: Event) -> None:
        """Tell all clients that want events."""
        if len(self._inbox) < MAX_INBOX:  # else our thread hangs: only answers are kept for it
            self._later(partial(self._spread, event, time.time()))

    def _later(self, do: Callable[[], None]) -> None:
        """Have something done in our thread, from any other."""
        self._inbox.append(do)
        with contextlib.suppress(OSError):  # full: it rings already; closed: we are done
            self._bell.send(b"!")

    # From here on everything happens in our thread alone.

    def _run(self) -> None:
        while not self._ended:
            asking = [client for client in self._clients if self._asks(client)]
            for key, _ in self._selector.select(0 if asking else None):
                self._do(key.data)
            for client in asking:
                self._do(partial(self._serve, client))
            while self._inbox:
                self._do(self._inbox.popleft())
        for client in list(self._clients):
            self._drop(client)
        for each in (self._listener, self._alarm, self._bell, self._selector):
            each.close()

    def _do(self, part: Callable[[], None]) -> None:
        """Do one thing; its error ends neither our thread nor other clients' connections."""
        try:
            part()
        except Exception:  # noqa: BLE001
            traceback.print_exc()  # goes where everything goes that libraries say

    def _end(self) -> None:
        self._ended = True

    def _empty_alarm(self) -> None:
        with contextlib.suppress(OSError):
            self._alarm.recv(4096)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it hung up again, or we have no descriptor left
            time.sleep(0.1)
            return
        connection.setblocking(False)
        client = _Client(connection)
        self._clients.add(client)
        self._selector.register(connection, selectors.EVENT_READ, partial(self._serve, client))
        if _uid_of(connection) not in {os.geteuid(), 0}:
            self._refuse(client, "the daemon belongs to another user")
        elif len(self._clients) > MAX_CLIENTS:
            self._refuse(client, f"the daemon talks to {MAX_CLIENTS} others already")
        else:
            self._say(client, self._about)

    def _refuse(self, client: _Client, why: str) -> None:
        self._say(client, {"ok": False, "error": error_dict(NotRunningError(why))})
        self._drop(client)

    def _serve(self, client: _Client) -> None:
        """Send to this client and hear what it says, as far as its socket and its turn go."""
        try:
            self._send(client)
            if not self._may_ask(client):
                return
            if b"\n" not in client.request:
                data = client.socket.recv(65536)
                client.request += data
                client.ended = not data
        except BlockingIOError:
            return
        except OSError:
            client.ended = True
        for _ in range(MAX_ASKED):
            if self._asks(client):
                line, _, client.request = client.request.partition(b"\n")
                self._obey(client, line)
        if len(client.request) > MAX_REQUEST and b"\n" not in client.request:
            self._drop(client)
        else:
            self._flush(client)

    def _may_ask(self, client: _Client) -> bool:
        return client.asked < MAX_ASKED and client in self._clients

    def _asks(self, client: _Client) -> bool:
        """Whether it has said something that is still to be heard, and may be now."""
        return b"\n" in client.request and self._may_ask(client)

    def _obey(self, client: _Client, line: bytes) -> None:
        number: Any = None
        try:
            request = request_of(line)
            number = id_of(request)
            command, arguments = call_of(request)
        except StylewatchError as error:
            self._say(client, {"id": number, "ok": False, "error": error_dict(error)})
            return
        if command == "events":
            self._subscribe(client, number)
            return
        client.asked += 1
        self._ask(command, **arguments).add_done_callback(
            lambda done: self._later(lambda: self._tell(client, number, done))
        )

    def _tell(self, client: _Client, number: Any, done: "Future[Any]") -> None:
        client.asked -= 1
        self._say(client, {"id": number, **_answer(done)})

    def _subscribe(self, client: _Client, number: Any) -> None:
        self._say(client, {"id": number, "ok": True, "answer": None})
        self._write(client, b"".join(line_of(event_dict(each)) for each in self._recent.replay()))
        client.listens = True

    def _spread(self, event: Event, now: float) -> None:
        self._recent.note(event, now)
        listeners = [client for client in self._clients if client.listens]
        if listeners:
            line = line_of(event_dict(event))
            for client in listeners:
                self._write(client, line)

    def _say(self, client: _Client, words: Mapping[str, Any]) -> None:
        self._write(client, line_of(words))

    def _write(self, client: _Client, lines: bytes) -> None:
        """Send the lines, however many, to a client that has read most of what came before."""
        if len(client.unread) > MAX_UNREAD:
            self._drop(client)
        else:
            client.unread += lines
            self._flush(client)

    def _flush(self, client: _Client) -> None:
        """Send what can be sent; drop a client that says no more and has got all answers."""
        if client not in self._clients:
            return
        try:
            self._send(client)
        except OSError:
            self._drop(client)
        if client.ended and not (client.asked or client.unread or self._asks(client)):
            self._drop(client)

    def _send(self, client: _Client) -> None:
        with contextlib.suppress(BlockingIOError):
            while client.unread:
                del client.unread[: client.socket.send(client.unread)]
        listens = not client.ended and self._may_ask(client)
        wanted = selectors.EVENT_READ if listens else 0
        wanted |= selectors.EVENT_WRITE if client.unread else 0
        key = self._selector.get_map().get(client.socket)
        if key is None:
            if wanted:
                self._selector.register(client.socket, wanted, partial(self._serve, client))
        elif not wanted:
            self._selector.unregister(client.socket)
        elif key.events != wanted:
            self._selector.modify(client.socket, wanted, key.data)

    def _drop(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            if client.socket in self._selector.get_map():
                self._selector.unregister(client.socket)
            client.socket.close()


def _listen(path: Path) -> socket.socket:
    """A listening socket in place of a dead daemon's, closed to other users from the beginning.

    Raises:
        LockedError: the other daemon is alive.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if lives(path.parent):
        raise LockedError(f"Another stylewatch listens at {path}", remedy="Stop it first")
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with address_of(new) as address:
            listener.bind(address)
        new.chmod(0o600)
        listener.listen(MAX_CLIENTS)
        listener.setblocking(False)
        new.replace(path)
    except BaseException:
        listener.close()
        new.unlink(missing_ok=True)
        raise
    return listener


def _uid_of(connection: socket.socket) -> int:
    """The user at the other end, as the kernel knows it."""
    form = struct.Struct("3i")
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, form.size)
    _, uid, _ = form.unpack(told)
    return int(uid)


def _answer(done: "Future[Any]") -> dict[str, Any]:
    """The answer to a command that is done, or its error, even one that is none of ours."""
    error = done.exception()
    if error is None:
        return {"ok": True, "answer": done.result()}
    if not isinstance(error, StylewatchError):
        error = StylewatchError(named(error), reason="internal")
    return {"ok": False, "error": error_dict(error)}
