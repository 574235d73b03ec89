"""The control socket: real sockets, real users, a stand-in only for the daemon behind it."""

import contextlib
import json
import math
import os
import queue
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_until

from stylewatch.app import remote, unit
from stylewatch.app.remote import Client, ask, find_state_dir, pulse_felt
from stylewatch.app.unit import render_unit, shipped_unit
from stylewatch.domain import REFUSED, Event, JobState, Step
from stylewatch.errors import (
    ConfigError,
    ExitCode,
    LedgerError,
    LockedError,
    NotRunningError,
    StylewatchError,
    UsageError,
)
from stylewatch.faces import control
from stylewatch.faces.board import Board
from stylewatch.faces.control import MAX_ASKED, ControlServer
from stylewatch.faces.lines import event_dict
from stylewatch.faces.recent import KEPT_EVENTS, Recent
from stylewatch.faces.wire import SOCKET, address_of, dial, error_of, event_of, line_of, lives
from stylewatch.settings.paths import default_state_dir

STEP = Step(
    scale=1, scales=3, width=64, height=48, evaluation=5, evaluations=80, loss=0.5, content=0.25,
    style=0.25, tv=0.0, fraction=0.1, seconds=2.0, eta_seconds=18.0,
)  # fmt: skip


def event(kind, **more):
    return Event(kind=kind, message=more.pop("message", kind), **more)


class Daemon:
    """Answers at once what it was told to answer."""

    def __init__(self):
        self.asked = []
        self.answers = {}

    def ask(self, command, **arguments):
        self.asked.append((command, arguments))
        answer, future = self.answers.get(command), Future()
        if isinstance(answer, Future):
            return answer
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future


@pytest.fixture
def daemon():
    return Daemon()


@pytest.fixture
def server(daemon, tmp_path):
    with ControlServer(tmp_path, daemon.ask, {"version": "1.2", "config": "/c.yaml"}) as made:
        yield made


@pytest.fixture
def raw(server, tmp_path):
    """A program of its own, in the protocol's own words."""
    with dial(tmp_path / SOCKET, 60.0) as connection, connection.makefile("rwb", 0) as line:
        yield line


def test_who_connects_is_told_who_answers(raw):
    assert json.loads(raw.readline()) == {
        "stylewatch": 1, "pid": os.getpid(), "version": "1.2", "config": "/c.yaml",
    }  # fmt: skip


def test_a_command_is_handed_on_and_its_answer_comes_back(server, daemon, tmp_path):
    daemon.answers = {
        "status": {"paused": False, "counts": {"in": {JobState.READY: 2}}},
        "retry": 3,
    }
    with Client(tmp_path) as client:
        assert client.about["version"] == "1.2"
        assert client.ask("status") == {"paused": False, "counts": {"in": {"ready": 2}}}
        assert client.ask("retry", job_id=7, reason="crash") == 3
        assert client.ask("retry", job_id=None) == 3
    assert ask(tmp_path, "pause") is None
    assert daemon.asked == [
        ("status", {}), ("retry", {"job_id": 7, "reason": "crash"}), ("retry", {}), ("pause", {}),
    ]  # fmt: skip


def test_the_daemon_s_no_comes_back_as_it_was_said(server, daemon, tmp_path):
    daemon.answers = {
        "cancel": UsageError("Job 5 is not running", remedy="See `stylewatch jobs`"),
        "reload": ConfigError("no such key", file=Path("/c.yaml"), line=3, column=1, key="foldres"),
        "status": ValueError("a bug"),
    }
    with pytest.raises(StylewatchError, match="Job 5 is not running. See") as told:
        ask(tmp_path, "cancel", job_id=5)
    assert (told.value.exit_code, told.value.reason) == (ExitCode.USAGE, "usage")
    with pytest.raises(StylewatchError, match=r"/c.yaml:3:1: foldres: no such key") as told:
        ask(tmp_path, "reload")
    assert told.value.exit_code == ExitCode.CONFIG
    with pytest.raises(StylewatchError, match="ValueError: a bug"):
        ask(tmp_path, "status")


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (b"no json", "not a line of JSON"),
        (b"\xff\xfe", "not a line of JSON"),
        (b"", "not a line of JSON"),
        (b"[" * 60_000, "not a line of JSON"),
        (b"3", "not a request"),
        (b'{"id": {"a": 1}, "do": "status"}', "not an id"),
        (b'{"do": "status", "id": ' + b"[" * 900 + b"]" * 900 + b"}", "not an id"),
        (b"{}", "unknown command"),
        (b'{"do": ["status"]}', "unknown command"),
        (b'{"do": "explode"}', "unknown command"),
        (b'{"do": "ask"}', "unknown command"),
        (b'{"do": "cancel"}', "missing argument: cancel"),
        (b'{"do": "cancel", "with": {"job_id": "5"}}', "wrong job_id: cancel"),
        (b'{"do": "cancel", "with": {"job_id": true}}', "wrong job_id: cancel"),
        (b'{"do": "cancel", "with": {"job_id": 1.5}}', "wrong job_id: cancel"),
        (b'{"do": "pause", "with": {"self": 1}}', "wrong arguments: pause"),
        (b'{"do": "pause", "with": 7}', "wrong arguments: pause"),
        (b'{"do": "retry", "job_id": 16}', "unknown keys"),
        (b'{"do": "retry", "with": []}', "wrong arguments: retry"),
        (b'{"do": "retry", "with": ""}', "wrong arguments: retry"),
        (b'{"do": "retry", "with": false}', "wrong arguments: retry"),
        (b'{"do": "retry", "with": {"reason": ""}}', "wrong reason: retry"),
        (b'{"do": "retry", "with": {}, "": 1, "reason": null}', "unknown keys"),
        (b'{"do": "events", "since": 1}', "unknown keys"),
        (b'{"do": "events", "with": {"since": 1}}', "wrong arguments: events"),
    ],
)
def test_what_can_t_be_asked_never_reaches_the_daemon(raw, daemon, request_, said):
    raw.readline()
    raw.write(request_ + b"\n")
    answer = json.loads(raw.readline())
    assert answer["ok"] is False
    assert answer["error"]["problem"] == said
    assert answer["error"]["exit_code"] == ExitCode.USAGE
    assert daemon.asked == []
    raw.write(b'{"id": "x", "do": "pause"}\n')
    assert json.loads(raw.readline()) == {"id": "x", "ok": True, "answer": None}
    raw.write(b'{"id": "\\ud83d", "do": "pause"}\n')  # half of an emoji
    assert json.loads(raw.readline()) == {"id": "?", "ok": True, "answer": None}


@pytest.mark.parametrize(
    ("request_", "expected", "received"),
    [
        (b'{"do": "retry", "with": {"job": 1}}', "job_id, reason", "{'job': 1}"),
        (b'{"do": "pause", "with": 7}', "none", "7"),
        (b'{"do": "pause", "b": 1, "a": 2}', "id, do, with", "['a', 'b']"),
    ],
)
def test_what_can_be_asked_is_told_instead(raw, request_, expected, received):
    raw.readline()
    raw.write(request_ + b"\n")
    error = json.loads(raw.readline())["error"]
    assert (error["expected"], error["received"]) == (expected, received)


def test_answers_carry_the_request_s_id_and_need_not_wait_for_each_other(raw, daemon):
    daemon.answers["reload"] = slow = Future()
    raw.readline()
    raw.write(b'{"id": 1, "do": "reload"}\n{"id": 2, "do": "pause"}\n')
    assert json.loads(raw.readline())["id"] == 2
    slow.set_result(None)
    assert json.loads(raw.readline())["id"] == 1


def test_requests_may_come_in_pieces(raw):
    raw.readline()
    for piece in (b'{"do": "pa', b'use"', b'}\n{"do": "resume"}\n'):
        raw.write(piece)
        time.sleep(0.02)
    assert [json.loads(raw.readline())["ok"] for _ in range(2)] == [True, True]


def test_who_asks_much_at_once_is_answered_bit_by_bit_and_keeps_nobody_waiting(
    server, daemon, tmp_path
):
    daemon.answers["status"] = slow = Future()
    with dial(tmp_path / SOCKET, 60.0) as greedy, greedy.makefile("rb") as lines:
        greedy.sendall(b'{"do": "status"}\n' * 1000)
        wait_until(lambda: len(daemon.asked) == MAX_ASKED)
        assert ask(tmp_path, "pause") is None
        assert len(daemon.asked) == MAX_ASKED + 1
        greedy.shutdown(socket.SHUT_WR)
        slow.set_result(None)
        assert len(lines.read().splitlines()) == 1 + 1000  # the greeting, too


def test_others_have_their_turn_before_one_is_heard_out_whatever_it_says(server, daemon, tmp_path):
    begun, go_on = threading.Event(), threading.Event()
    real = server._ask

    def ask_slowly(command):
        begun.set()
        assert go_on.wait(60)
        return real(command)

    server._ask = ask_slowly
    with dial(tmp_path / SOCKET, 60.0) as talker, dial(tmp_path / SOCKET, 60.0) as other:
        talker.sendall(b'{"do": "status"}\n' + b"\n" * 1000 + b'{"do": "reload"}\n')
        assert begun.wait(60)
        other.sendall(b'{"do": "pause"}\n')
        go_on.set()
        wait_until(lambda: len(daemon.asked) == 3)
    assert [command for command, _ in daemon.asked] == ["status", "pause", "reload"]


def test_who_is_hung_up_on_is_not_heard_out(server, tmp_path, pace):
    for number in range(KEPT_EVENTS):
        server(event("warning", message="x" * 10_000, path=f"{number}.jpg"))
    with dial(tmp_path / SOCKET, 60.0) as lazy:
        lazy.sendall(b'{"do": "events"}\n' * 4000)  # half a megabyte for each
        started = time.process_time()
        with Client(tmp_path):
            assert time.process_time() - started < 1.0 * pace


def test_a_line_without_end_is_not_collected_for_ever(raw):
    raw.readline()
    with contextlib.suppress(OSError):
        for _ in range(200):
            raw.write(b"x" * 65536)
    with contextlib.suppress(ConnectionError):
        assert raw.readline() == b""


# --- events ---------------------------------------------------------------------------------------


def listening(client, number):
    """So many events, and that they came in time."""
    found = []
    for each in client.events():
        found.append(each)
        if len(found) == number:
            return found
    raise AssertionError(found)


def test_whoever_listens_hears_each_event_as_it_was(server, tmp_path):
    sent = [
        event("queued", folder="in", path="sub/é\n.jpg"),
        event("progress", message="", job_id=4, path="a.jpg", preset="ink", step=STEP),
        event("done", job_id=4, output="/out/a.jpg", seconds=1.5, extra={"note": "", "n": 0}),
    ]
    server(event("paused"))
    with Client(tmp_path) as one, Client(tmp_path) as two:
        streams = [one.events(), two.events()]
        assert [next(stream).kind for stream in streams] == ["paused", "paused"]
        for each in sent:
            server(each)
        heard = [[next(stream) for _ in sent] for stream in streams]
    assert heard == [sent, sent]


def test_a_newcomer_is_told_how_things_stand(server, tmp_path):
    for each in (
        event("watching", message="in → out", folder="in", path="/in"),
        event("started", extra={"slots": 2}),
        event("done", job_id=1, folder="in", output="/out/1.jpg", seconds=9.0),
        event("running", job_id=2, folder="in", path="2.jpg", preset="ink"),
        event("failed", job_id=2, folder="in", message="2.jpg: truncated"),
        event("running", job_id=3, folder="in", path="3.jpg", preset="ink"),
        event("progress", job_id=3, path="3.jpg", preset="ink", step=STEP),
        event(
            "folder", message="", folder="in", path="/in", reason="watching", extra={"waiting": 7}
        ),
        event("paused", extra={"why": "until 22:00"}),
    ):
        server(each)
    board = Board()
    with Client(tmp_path) as client:
        for each in listening(client, 7):
            assert abs(each.extra["at"] - time.time()) < 60
            board.apply(each, time.time())
    assert [row.path for row in board.running()] == ["3.jpg"]
    assert board.jobs[3].step == STEP
    assert [row.output for row in board.results] == ["/out/1.jpg"]
    assert [row.message for row in board.problems] == ["2.jpg: truncated"]
    assert (board.waiting, board.slots, board.paused) == (7, 2, "until 22:00")
    assert board.folders["in"].path == "/in"


@given(
    st.lists(
        st.builds(
            Event,
            kind=st.sampled_from(["running", "progress", "done", "failed", "retry", "folder",
                                  "watching", "paused", "resumed", "recovered", "started", "queued"]),
            message=st.just("m"),
            folder=st.sampled_from("ab"),
            job_id=st.integers(1, 5),
            step=st.just(STEP),
        )
    )
)  # fmt: skip
def test_what_a_newcomer_is_told_agrees_with_what_everyone_saw(events):
    recent, all_along, newcomer = Recent(), Board(), Board()
    for number, each in enumerate(events):
        if each.kind != "progress" or each.job_id in all_along.jobs:
            recent.note(each, float(number))
            all_along.apply(each, float(number))
    for each in recent.replay():
        newcomer.apply(each, 1000.0)
    assert newcomer.jobs.keys() == all_along.jobs.keys()
    assert newcomer.paused == all_along.paused
    assert len(newcomer.results) == len(all_along.results)


def test_the_memory_of_a_daemon_that_never_ends_stays_small():
    recent = Recent()
    for number in range(5000):
        recent.note(event("running", job_id=number), 0.0)
        recent.note(event("progress", job_id=number, step=STEP), 0.0)
        recent.note(event("done", job_id=number), 0.0)
    assert len(recent.replay()) == KEPT_EVENTS


def test_a_client_that_does_not_read_is_dropped_and_holds_nobody_up(server, daemon, tmp_path):
    big = event("warning", message="x" * 50_000)
    with dial(tmp_path / SOCKET, 60.0) as lazy, Client(tmp_path) as busy:
        lazy.sendall(b'{"do": "events"}\n')
        heard = busy.events()
        server(event("paused"))
        assert next(heard).kind == "paused"
        for _ in range(60):
            server(big)
            assert next(heard).message == big.message
        got = sum(map(len, iter(lambda: lazy.recv(65536), b"")))  # ends, for it hung up
        assert got < 2_000_000
    assert ask(tmp_path, "pause") is None


def test_a_newcomer_is_given_the_time_to_read_what_was_however_many_folders_there_are(
    server, tmp_path
):
    results = [{"id": number, "output": "/写真/" * 100} for number in range(20)]
    for number in range(100):
        server(event("folder", folder=f"{number}", extra={"results": results}))
    with Client(tmp_path) as client:
        heard = client.events()
        first = next(heard)
        wait_until(lambda: [each for each in server._clients if each.listens])
        assert [first.folder, *(next(heard).folder for _ in range(99))] == [*map(str, range(100))]


def test_listening_ends_with_the_daemon_and_not_while_that_has_nothing_to_tell(daemon, tmp_path):
    with ControlServer(tmp_path, daemon.ask, {}) as server, Client(tmp_path) as client:
        server(event("paused"))
        heard = client.events()
        assert next(heard).kind == "paused"
        assert client._socket.gettimeout() is None
        server.__exit__()
        assert list(heard) == []


def once(so, act):
    """Act in another thread, as soon as it is so."""
    thread = threading.Thread(target=lambda: (wait_until(so), act()))
    thread.start()
    return thread


def is_heard(server):
    return lambda: any(client.listens for client in [*server._clients])


def test_listening_ends_when_another_thread_hangs_up(server, tmp_path):
    with Client(tmp_path) as client:
        other = once(is_heard(server), client.hang_up)
        assert list(client.events()) == []
        other.join()


def test_listening_ends_in_the_middle_of_a_signal(server, tmp_path):
    """As with Ctrl-C in the console: the handler runs inside the reading itself."""
    before = signal.signal(signal.SIGALRM, lambda *_: client.hang_up())
    reader = threading.get_ident()
    try:
        with Client(tmp_path) as client:
            other = once(is_heard(server), lambda: signal.pthread_kill(reader, signal.SIGALRM))
            assert list(client.events()) == []
            other.join()
    finally:
        signal.signal(signal.SIGALRM, before)


# --- who is let in, and where it lies -------------------------------------------------------------


def test_the_socket_is_ours_alone_and_goes_with_us(daemon, tmp_path):
    with ControlServer(tmp_path / "new", daemon.ask, {}):
        path = tmp_path / "new" / SOCKET
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [each.name for each in path.parent.iterdir()] == [SOCKET]
    assert not path.exists()


STRANGER = """
import os, sys
from pathlib import Path
from stylewatch.errors import NotRunningError
from stylewatch.app.remote import ask
os.setgroups([])
os.setuid(65534)
try:
    ask(Path(sys.argv[1]), "pause")
except NotRunningError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_another_user_is_refused_even_if_the_file_let_him_in(daemon, mode):
    with tempfile.TemporaryDirectory() as folder, ControlServer(Path(folder), daemon.ask, {}):
        Path(folder).chmod(0o711)
        Path(folder, SOCKET).chmod(mode)
        command = [sys.executable, "-c", STRANGER, folder]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "belongs to another user" in result.stdout, result.stderr
    assert daemon.asked == []


def test_root_may_ask_another_s_daemon(server, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setattr(control, "_uid_of", lambda connection: 0)
    assert ask(tmp_path, "pause") is None


def test_what_a_dead_daemon_left_is_replaced(daemon, tmp_path):
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / SOCKET))
    dead.close()
    with pytest.raises(NotRunningError):
        ask(tmp_path, "pause")
    with ControlServer(tmp_path, daemon.ask, {}):
        assert ask(tmp_path, "pause") is None


def test_a_second_daemon_takes_nothing_from_the_first(server, daemon, tmp_path):
    with pytest.raises(LockedError), ControlServer(tmp_path, daemon.ask, {}):
        pass
    assert ask(tmp_path, "pause") is None


def test_a_successor_s_socket_is_left_alone(daemon, tmp_path):
    first = ControlServer(tmp_path, daemon.ask, {}).__enter__()
    (tmp_path / SOCKET).unlink()
    with ControlServer(tmp_path, daemon.ask, {}):
        first.__exit__(None, None, None)
        assert ask(tmp_path, "pause") is None


def test_a_path_longer_than_a_socket_s_address_works(daemon, tmp_path):
    deep = tmp_path.joinpath(*["a folder with a long name"] * 8)
    with ControlServer(deep, daemon.ask, {}):
        assert ask(deep, "pause") is None
    assert not list(deep.iterdir())
    before = os.listdir("/proc/self/fd")
    with address_of(deep / SOCKET):
        pass
    assert os.listdir("/proc/self/fd") == before


def test_more_clients_than_there_is_room_for_are_told_so(server, tmp_path):
    with contextlib.ExitStack() as stack:
        for _ in range(control.MAX_CLIENTS):
            stack.enter_context(Client(tmp_path))
        with pytest.raises(NotRunningError, match="32 others"):
            Client(tmp_path)

    def answered():
        with contextlib.suppress(NotRunningError):
            return ask(tmp_path, "pause") is None

    wait_until(answered)  # those who hung up make room


# --- nobody there ---------------------------------------------------------------------------------


def test_no_daemon_is_said_in_clear_words(tmp_path):
    with pytest.raises(NotRunningError) as told:
        ask(tmp_path, "status")
    assert str(told.value) == (
        f"no stylewatch daemon for {tmp_path}. `stylewatch run` starts one; "
        "`stylewatch service status [--user]` tells of the service"
    )
    assert told.value.exit_code == ExitCode.NOT_RUNNING


def answered_by(path, data):
    """Something that listens there and says only this."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.sendall(data)
            connection.recv(100)
            if data:
                connection.recv(100)

    threading.Thread(target=serve, daemon=True).start()
    return listener


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (line_of({"stylewatch": 2}), "another version"),
        (b"HTTP/1.1 400 Bad Request\r\n", "it hung up"),
        (b"", "^the stylewatch daemon for .* does not answer. It hangs"),
    ],
)
def test_who_answers_in_another_way_is_no_daemon_of_ours(tmp_path, data, why):
    with answered_by(tmp_path / SOCKET, data), pytest.raises(NotRunningError, match=why):
        Client(tmp_path, timeout=10.0 if data else 0.2)


def test_a_daemon_that_hangs_is_not_waited_for_for_ever(server, daemon, tmp_path):
    daemon.answers["status"] = Future()
    with Client(tmp_path) as client:
        client._socket.settimeout(0.2)
        with pytest.raises(NotRunningError, match="not answer"):
            client.ask("status")


def test_a_daemon_may_take_its_time_to_retry_what_failed(server, daemon, tmp_path, monkeypatch):
    """Three hundred thousand jobs take longer than it may be silent otherwise."""
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.1)
    daemon.answers |= {"status": Future(), "retry": Future()}
    with pytest.raises(NotRunningError, match="not answer"):
        ask(tmp_path, "status")
    threading.Timer(0.3, daemon.answers["retry"].set_result, [300_000]).start()
    assert ask(tmp_path, "retry") == 300_000


def test_who_listens_to_events_is_told_when_the_daemon_hangs_and_when_it_goes_on(
    server, daemon, tmp_path
):
    told, board = queue.SimpleQueue(), Board()
    daemon.answers["status"] = Future()
    with pulse_felt(tmp_path, told.put, seconds=0.2):
        hung = told.get(timeout=60)
        assert (hung.kind, "does not answer" in hung.message) == ("warning", True)
        board.apply(hung, 1.0)
        board.apply(event("reload"), 2.0)
        assert [row.message for row in board.problems] == [hung.message]
        daemon.answers["status"] = None
        board.apply(told.get(timeout=60), 3.0)
        assert not board.problems


def test_each_silence_is_told_once_and_so_is_its_end(tmp_path, monkeypatch):
    found, all_seen = ["", "silent", "silent", "", "", "silent", "silent"], threading.Event()

    def silence(*_):
        if len(found) == 1:
            all_seen.set()
        return found[0] if len(found) == 1 else found.pop(0)

    monkeypatch.setattr(remote, "_silence", silence)
    told = []
    with pulse_felt(tmp_path, told.append, seconds=0.01):
        assert all_seen.wait(60)
    assert [event.kind for event in told] == ["warning", "recovered", "warning"]


def test_a_daemon_that_can_t_say_or_has_ended_does_not_hang(server, daemon, tmp_path):
    daemon.answers["status"] = LedgerError("full")
    assert remote._silence(tmp_path, 5.0) == ""
    server.__exit__()
    assert remote._silence(tmp_path, 5.0) == ""


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_daemon_that_hangs_is_there_however_many_wait_for_it(daemon, tmp_path, waiting):
    """No other one takes its place, nor is the system's asked instead."""
    with contextlib.ExitStack() as stack:
        hangs = stack.enter_context(socket.socket(socket.AF_UNIX))
        hangs.bind(str(tmp_path / SOCKET))
        hangs.listen(0)
        for _ in range(waiting):
            stack.enter_context(dial(tmp_path / SOCKET, 1.0))
        assert lives(tmp_path)
        assert find_state_dir(tmp_path, None) == tmp_path
        with pytest.raises(LockedError), ControlServer(tmp_path, daemon.ask, {}):
            pass
    assert not lives(tmp_path)


def test_a_daemon_that_ends_meanwhile_is_noticed(daemon, tmp_path):
    daemon.answers["status"] = Future()
    with ControlServer(tmp_path, daemon.ask, {}) as server, Client(tmp_path) as client:
        other = once(lambda: daemon.asked, server.__exit__)
        with pytest.raises(NotRunningError, match="ended before it answered"):
            client.ask("status")
        other.join()
        with pytest.raises(NotRunningError):
            client.ask("status")


def test_the_system_s_service_is_found_when_it_runs_with_this_config(daemon, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "SYSTEM_STATE", tmp_path / "system")
    mine, config = tmp_path / "mine", Path("/etc/stylewatch.yaml")
    linked = tmp_path / "linked.yaml"
    linked.symlink_to(config)
    assert find_state_dir(mine, config) == mine
    with ControlServer(tmp_path / "system", daemon.ask, {"config": str(config)}):
        assert find_state_dir(mine, config) == tmp_path / "system"
        assert find_state_dir(mine, linked) == tmp_path / "system"
        assert find_state_dir(mine, None) == tmp_path / "system"
        assert find_state_dir(mine, Path("/etc/other.yaml")) == mine
        with ControlServer(mine, daemon.ask, {"config": str(config)}):
            assert find_state_dir(mine, config) == mine
    with ControlServer(tmp_path / "system", daemon.ask, {}):  # that of `watch IN OUT`
        assert find_state_dir(mine, None) == tmp_path / "system"
        assert find_state_dir(mine, config) == mine


def test_the_system_s_service_is_found_while_it_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "SYSTEM_STATE", tmp_path / "system")
    monkeypatch.setattr(unit, "SYSTEM_UNITS", tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "mine"))
    mine, config = default_state_dir(), Path("/etc/stylewatch.yaml")
    assert find_state_dir(mine, config) == mine

    def install(file):
        template = shipped_unit(user=False).read_text(encoding="utf-8")
        text = render_unit(template, command=["/x", "run", "--config", str(file)])
        (tmp_path / "stylewatch.service").write_text(text, encoding="utf-8")

    install(config)
    assert find_state_dir(mine, config) == tmp_path / "system"
    assert find_state_dir(mine, None) == mine
    assert find_state_dir(tmp_path / "named", config) == tmp_path / "named"
    install("/etc/other.yaml")
    assert find_state_dir(mine, config) == mine


# --- words ----------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.builds(
        Event,
        kind=st.sampled_from(["running", "progress", "done", "failed"]),
        message=texts, folder=texts, path=texts, output=texts, reason=texts,
        job_id=st.integers(0), seconds=st.floats(0, 1e9), step=st.sampled_from([None, STEP]),
        extra=st.dictionaries(texts, st.one_of(texts, st.integers(), st.booleans())),
    )
)  # fmt: skip
def test_an_event_is_one_line_and_comes_back_as_it_was(told):
    line = line_of(event_dict(told))
    assert line.count(b"\n") == 1
    assert event_of(json.loads(line)) == told


def test_what_a_newer_daemon_adds_is_passed_over():
    words = {"event": "done", "message": "m", "mood": "good"}
    assert event_of(words) == event("done", message="m")
    error = error_of({"message": "m", "exit_code": 199})
    assert (str(error), error.exit_code) == ("m", StylewatchError("m").exit_code)


def test_who_has_said_all_is_not_read_again_and_again_until_the_answer_is_there(
    server, daemon, tmp_path
):
    daemon.answers["status"] = answer = Future()
    with dial(tmp_path / SOCKET, 60.0) as client, client.makefile("rb") as lines:
        lines.readline()
        client.sendall(b'{"do": "status"}\n')
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: len(server._selector.get_map()) == 2)  # the listener and the alarm
        (served,) = server._clients
        served.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        answer.set_result("x" * 900_000)  # more than it takes at once
        assert json.loads(lines.read())["answer"] == answer.result()


def test_a_client_that_has_said_all_still_gets_its_answers(server, daemon, tmp_path):
    daemon.answers["status"] = {"scan_age": float("inf")}
    with dial(tmp_path / SOCKET, 60.0) as client:
        client.sendall(b'{"do": "status"}\n{"do": "pause"}\n')
        client.shutdown(socket.SHUT_WR)
        lines = client.makefile("rb").read().splitlines()  # to its end: then we are dropped
    told = [json.loads(line, parse_constant=pytest.fail) for line in lines[1:]]
    assert [answer["ok"] for answer in told] == [True, True]
    assert told[0]["answer"] == {"scan_age": None}


def test_a_step_without_a_number_comes_through(server):
    told = Event(kind="progress", message="", job_id=1, step=replace(STEP, loss=float("nan")))
    back = event_of(json.loads(line_of(event_dict(told)), parse_constant=pytest.fail))
    assert math.isnan(back.step.loss)
    assert replace(back.step, loss=1.0) == replace(told.step, loss=1.0)


def test_a_number_too_large_for_the_ledger_is_refused(server, tmp_path):
    with pytest.raises(StylewatchError, match="wrong job_id"):
        ask(tmp_path, "retry", job_id=1 << 63)


def test_no_number_of_events_pushes_an_answer_away(daemon, tmp_path, monkeypatch):
    monkeypatch.setattr(control, "MAX_INBOX", 2)
    go_on, answered = threading.Event(), threading.Event()
    with ControlServer(tmp_path, daemon.ask, {}) as server:
        server._later(lambda: go_on.wait(60))
        server._later(answered.set)
        for number in range(10):
            server(event("done", job_id=number))
        assert len(server._inbox) < 10
        go_on.set()
        assert answered.wait(5)


def test_a_newcomer_is_told_how_many_photos_are_done():
    recent, newcomer = Recent(), Board()
    recent.note(Event(kind="started", message="watching 1 folder"), 1.0)
    for number in range(70):  # more than are remembered one by one
        recent.note(Event(kind="done", message="", job_id=number, output=f"/{number}"), 2.0)
    for each in recent.replay():
        newcomer.apply(each, 3.0)
    assert newcomer.done == 70


def test_a_newcomer_hears_of_a_trouble_that_holds_however_much_is_done_since():
    recent, newcomer = Recent(), Board()
    refused = "the old config goes on: x"
    recent.note(Event(kind="started", message="watching 1 folder"), 1.0)
    recent.note(Event(kind="warning", message=refused, reason=REFUSED), 2.0)
    for number in range(70):
        recent.note(Event(kind="done", message="", job_id=number, path=f"{number}.jpg"), 3.0)
    for each in recent.replay():
        newcomer.apply(each, 4.0)
    assert ([row.message for row in newcomer.problems], newcomer.headline) == ([refused], refused)


def test_a_newcomer_hears_nothing_of_a_trouble_that_is_over():
    recent, newcomer = Recent(), Board()
    for output in ("/out", "/other"):
        full = Event(kind="blocked", message=f"{output}: only 3 MB free", output=output)
        recent.note(full, 1.0)
    recent.note(Event(kind="blocked", message="a.jpg: no permission", job_id=7), 2.0)
    recent.note(Event(kind="recovered", message="there is space again", output="/out"), 3.0)
    for each in recent.replay():
        newcomer.apply(each, 4.0)
    told = [row.message for row in newcomer.problems]
    assert told == ["/other: only 3 MB free", "a.jpg: no permission"]


def test_a_newcomer_hears_nothing_of_a_config_that_is_repaired():
    recent, newcomer = Recent(), Board()
    told = [
        Event(kind="warning", message="the old config goes on: x", reason=REFUSED),
        Event(kind="warning", message="the workers: dead", reason="dead"),
        Event(kind="failed", message="a.jpg: broken", reason="truncated", job_id=7),
        Event(kind="warning", message="no worker could start", reason="engine-lost"),
        Event(kind="recovered", message="there are workers again", reason="engine-lost"),
        Event(kind="reload", message="config read again: 1 folder"),
    ]
    for event in told:
        recent.note(event, 1.0)
    for each in recent.replay():
        newcomer.apply(each, 4.0)
    assert [row.message for row in newcomer.problems] == ["the workers: dead", "a.jpg: broken"]
