"""What systemd is told, over a real datagram socket."""

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from waiting import wait_until

import stylewatch
from stylewatch.app.remote import ask
from stylewatch.domain import LEARNING, Event, JobState
from stylewatch.faces.notify import Notifier, notify, watchdog_interval
from stylewatch.host import inventory
from stylewatch.state.reader import LedgerReader


class Listener:
    """systemd's end of the notify socket."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.settimeout(60)
        self.socket.bind(address)
        name = "@" + address[1:] if address.startswith("\0") else address
        self.environ = {"NOTIFY_SOCKET": name}

    def hear(self):
        """The next message's lines, and who sent it."""
        data, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(12))
        pid, _, _ = struct.unpack("3i", ancillary[0][2])
        return data.decode().split("\n"), pid

    def lines(self):
        return self.hear()[0]

    def silent(self):
        self.socket.setblocking(False)
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(60)
        return False


@pytest.fixture(params=["path", "abstract"])
def listener(request, tmp_path):
    name = f"\0stylewatch-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "n")
    made = Listener(name)
    yield made
    made.socket.close()


def event(kind, **more):
    return Event(kind=kind, message=more.pop("message", kind), **more)


def test_a_message_arrives_whole_and_in_utf_8(listener):
    assert notify("READY=1", "STATUS=写真 café", environ=listener.environ)
    assert listener.lines() == ["READY=1", "STATUS=写真 café"]


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all", "vsock:2:1234", "@gone"])
def test_nobody_to_tell_is_no_trouble(address):
    assert not notify("READY=1", environ={"NOTIFY_SOCKET": address})


def test_the_watchdog_s_interval_is_ours_only_when_it_names_us():
    ours = str(os.getpid())
    assert watchdog_interval({"WATCHDOG_USEC": "6000000"}) == 6.0
    assert watchdog_interval({"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": ours}) == 6.0
    assert watchdog_interval({"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": "1"}) is None
    for nothing in ({}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}):
        assert watchdog_interval(nothing) is None


def test_the_daemon_s_events_become_systemd_s_words(listener):
    notifier = Notifier(environ=listener.environ)
    notifier(event("watching", message="in → out"))
    notifier(event("started", message="watching 1 folder"))
    assert listener.lines() == ["READY=1", "STATUS=watching 1 folder"]
    notifier(event("running", path="a.jpg", preset="ink", job_id=1))
    assert listener.lines() == ["STATUS=painting a.jpg → ink"]
    notifier(event("running", path="b.jpg", preset="ink", job_id=2))
    assert listener.lines() == ["STATUS=painting a.jpg → ink, b.jpg → ink"]
    notifier(event("done", job_id=1))
    assert listener.lines() == ["STATUS=painting b.jpg → ink"]
    notifier(event("warning", job_id=2, reason="cancelled"))
    assert listener.lines() == ["STATUS=watching 1 folder"]
    notifier(event("running", job_id=2, path="b.jpg", preset="ink"))
    notifier(event("failed", job_id=2))
    assert listener.lines() == ["STATUS=painting b.jpg → ink"]
    assert listener.lines() == ["STATUS=watching 1 folder"]
    notifier(event("progress", job_id=2))
    notifier(event("done", job_id=2))
    notifier(event("stopping"))
    assert listener.lines() == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=25000000", "STATUS=stopping"]
    assert listener.silent()


def test_so_is_how_many_wait_and_have_failed(listener):
    notifier = Notifier(environ=listener.environ)
    notifier(event("started", message="watching 2 folders"))
    notifier(event("folder", folder="in", extra={"waiting": 2, "failed": 0, "done": 9}))
    notifier(event("folder", folder="nas", extra={"waiting": 40, "failed": 1}))
    notifier(event("running", path="a.jpg", preset="ink", job_id=1))
    notifier(event("folder", folder="nas", reason="left"))
    notifier(event("folder", folder="in", extra={"waiting": 0, "failed": 0}))
    assert [listener.lines()[-1] for _ in range(6)] == [
        "STATUS=watching 2 folders",
        "STATUS=watching 2 folders; 2 waiting",
        "STATUS=watching 2 folders; 42 waiting, 1 failed",
        "STATUS=painting a.jpg → ink; 42 waiting, 1 failed",
        "STATUS=painting a.jpg → ink; 2 waiting",
        "STATUS=painting a.jpg → ink",
    ]


def test_however_much_is_painted_at_once_systemd_takes_the_message(listener):
    """It drops one of more than 4096 bytes, and with it the word that a reload is over."""
    notifier = Notifier(environ=listener.environ)
    notifier(event("folder", folder="in", extra={"waiting": 7}))
    listener.hear()
    for number in range(100):
        notifier(event("running", path=f"2026/Rom/{number}.jpg", preset="ink", job_id=number))
        *_, last = listener.lines()
    first = ", ".join(f"2026/Rom/{number}.jpg → ink" for number in range(3))
    assert last == f"STATUS=painting {first} and 97 more; 7 waiting"
    notifier(event("running", path="写真/" * 800, preset="ink", job_id=0))
    notifier.ready()
    for told in (listener.lines(), listener.lines()):
        assert len("\n".join(told).encode()) < 4096
    assert told[0] == "READY=1"


def test_a_pause_is_told_but_not_before_what_is_still_painted(listener):
    notifier = Notifier(environ=listener.environ)
    notifier(event("running", path="a.jpg", preset="ink", job_id=1))
    notifier(event("paused", message="paused: no new ones"))
    notifier(event("done", job_id=1))
    notifier(event("reload", message="config read again"))
    notifier(event("resumed"))
    said = [listener.lines() for _ in range(3)]
    assert said == [
        ["STATUS=painting a.jpg → ink"],
        ["STATUS=paused: no new ones"],
        ["STATUS=resumed"],
    ]


def test_a_systemd_that_does_not_listen_is_not_waited_for(listener, monkeypatch):
    monkeypatch.setattr("stylewatch.faces.notify.NOTIFY_SECONDS", 0.05)
    assert not all(notify("READY=1", environ=listener.environ) for _ in range(10_000))


def test_a_ledger_that_learns_for_an_hour_is_given_the_time(listener):
    notifier = Notifier(environ=listener.environ)
    notifier(event("warning", message="a new ledger: 9 results read so far", reason=LEARNING))
    more = int(listener.lines()[1].removeprefix("EXTEND_TIMEOUT_USEC=")) / 1e6
    assert more > 1.5 * inventory.LEARN_SECONDS
    assert listener.silent()


def test_the_grace_time_is_asked_of_systemd_too(listener):
    Notifier(grace=lambda: 120.0, environ=listener.environ).stopping()
    assert "EXTEND_TIMEOUT_USEC=145000000" in listener.lines()


def test_a_file_s_name_cannot_speak_to_systemd(listener):
    notifier = Notifier(environ=listener.environ)
    notifier(event("running", path="a\nWATCHDOG=1\n\udcff\x1b.jpg", preset="ink"))
    assert listener.lines() == [r"STATUS=painting a\nWATCHDOG=1\n\xff\x1b.jpg → ink"]


def test_a_reload_says_when_it_began_and_that_it_ended(listener):
    notifier = Notifier(environ=listener.environ)
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    first, second = listener.lines()
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    notifier.ready()
    assert listener.lines() == ["READY=1"]


def test_the_watchdog_is_fed_in_time_but_only_while_alive(listener):
    alive = [True]
    environ = listener.environ | {"WATCHDOG_USEC": "9000000"}
    notifier = Notifier(lambda: alive[0], environ=environ)
    for now in range(100, 110):
        notifier.beat(float(now))
    assert [listener.lines() for _ in range(4)] == [["WATCHDOG=1"]] * 4  # at 100, 103, 106, 109
    alive[0] = False
    notifier.beat(200.0)
    assert listener.silent()


def test_a_feeding_that_was_lost_is_made_up_for(tmp_path):
    environ = {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "9000000"}
    notifier = Notifier(environ=environ)
    notifier.beat(1.0)
    listener = Listener(str(tmp_path / "n"))
    notifier.beat(1.1)
    assert listener.lines() == ["WATCHDOG=1"]
    listener.socket.close()


def the_job(state):
    with contextlib.closing(LedgerReader(state / "ledger.db")) as ledger:
        [job] = ledger.jobs()
    return job


@pytest.mark.parametrize("watched", [True, False])
def test_an_upgraded_daemon_ends_where_systemd_starts_it_anew(tmp_path, watched):
    listener = Listener(str(tmp_path / "notify"))
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    config = tmp_path / "stylewatch.yaml"
    config.write_text("folders: [{input: in, output: out, preset: draft}]\nstate_dir: state\n")
    package = tmp_path / "installed" / "stylewatch"
    ours = Path(stylewatch.__file__).parent
    shutil.copytree(ours, package)
    (package.parent / "presets").symlink_to(ours.parent / "presets")
    command = [sys.executable, "-m", "stylewatch", "run", "--config", str(config)]
    environ = os.environ | listener.environ | {"PYTHONPATH": str(package.parent), "TERM": "dumb"}
    environ |= {"WATCHDOG_USEC": "60000000"} if watched else {}
    daemon = subprocess.Popen(
        command, env=environ, cwd=tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        assert listener.hear()[0][0] == "READY=1"
        (package / "__init__.py").write_text('__version__ = "9"\n')
        Image.linear_gradient("L").save(tmp_path / "in" / "a.jpg")
        if watched:
            assert daemon.wait(60) == 1
            assert b"upgraded while it ran. systemd restarts it" in daemon.stderr.read()
        else:
            wait_until(lambda: "upgraded" in ask(tmp_path / "state", "status")["trouble"])
            wait_until(lambda: the_job(tmp_path / "state").reason)
            assert daemon.poll() is None
    finally:
        daemon.kill()
        daemon.wait()
        daemon.stderr.close()
        listener.socket.close()
    job = the_job(tmp_path / "state")
    assert (job.state, job.reason) == (JobState.READY, "replaced")


def test_a_daemon_s_life_as_systemd_hears_it(listener, tmp_path):
    """READY, the watchdog fed again and again, a reload, STOPPING: all from the main process."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    config = tmp_path / "stylewatch.yaml"
    config.write_text("folders: [{input: in, output: out}]\nstate_dir: state\n")
    command = [sys.executable, "-m", "stylewatch", "run", "--config", str(config)]
    environ = os.environ | listener.environ | {"WATCHDOG_USEC": "300000", "TERM": "dumb"}
    ignored = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # by nohup, and then by the daemon too
    daemon = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGHUP, ignored)
    try:
        ready = listener.hear()
        fed = []
        while len(fed) < 3:
            time.sleep(0.1)
            assert ask(tmp_path / "state", "status")["paused"] is False
            fed.append(listener.hear())
        daemon.send_signal(signal.SIGHUP)
        reloaded = []
        while ["READY=1"] not in [lines[:1] for lines, _ in reloaded]:
            assert len(reloaded) < 100  # older feedings may still wait to be heard
            reloaded.append(listener.hear())
        daemon.send_signal(signal.SIGTERM)
        heard = [*fed, *reloaded]
        while heard[-1][0][0] != "STOPPING=1":
            heard.append(listener.hear())
        assert daemon.wait(60) == 0
    finally:
        daemon.kill()
        daemon.wait()
    assert ready[0] == ["READY=1", "STATUS=watching 1 folder"]
    assert {tuple(lines) for lines, _ in fed} == {("WATCHDOG=1",)}
    words = [lines[0] for lines, _ in reloaded]
    assert words.index("RELOADING=1") < words.index("READY=1")
    assert {pid for _, pid in [ready, *heard]} == {daemon.pid}
