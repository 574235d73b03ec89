"""The shipped unit under a real systemd, with a small stand-in for the daemon.

What systemd does to a daemon and its worker, without anything that takes time to load.
"""

import os
import re
import sys
from pathlib import Path

import pytest
from booted import Machine, why_not

from stylewatch.app.unit import UNIT, render_unit, shipped_unit

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=why_not())]

STAND_IN = """
import os, signal, subprocess, sys, threading, time
from pathlib import Path
from stylewatch.domain import Event
from stylewatch.faces.notify import Notifier

state = Path(os.environ["STATE_DIRECTORY"])
if (state / "broken").exists():
    sys.exit(int((state / "broken").read_text()))
notifier, stop, reload = Notifier(), threading.Event(), threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
signal.signal(signal.SIGHUP, lambda *_: reload.set())
worker = subprocess.Popen(["sleep", "1000"])
(state / "worker").write_text(str(worker.pid))

tried = []
for place in ("/srv/photos/out/new", "/srv/elsewhere", "/home/painter/new", "/usr/new", "/tmp/new",
              state / "new", os.environ["CACHE_DIRECTORY"] + "/new"):
    try:
        Path(place).write_text("x")
        tried.append(f"+{place}")
    except OSError:
        tried.append(f"-{place}")
os.close(os.open("/opt/gpu", os.O_RDWR))
(state / "tried").write_text(" ".join(tried))

notifier(Event(kind="started", message="watching café"))
while not stop.wait(0.05):
    notifier.beat(time.monotonic())
    if reload.is_set():
        reload.clear()
        notifier.reloading()
        time.sleep(0.3)
        (state / "reloaded").touch()
        notifier.ready("read again")
notifier(Event(kind="stopping", message=""))
(state / "worker-at-the-end").write_text(str(worker.poll()))
worker.kill()
"""

FASTER = """
[Service]
WatchdogSec=2
RestartSec=0.2
"""


@pytest.fixture(scope="module")
def machine():
    with Machine() as made:
        made.write("/opt/stand_in.py", STAND_IN)
        # FUSE's number: like a GPU, it is none of the devices that everyone may have.
        made.run("mknod", "-m", "666", "/opt/gpu", "c", "10", "229")
        for folder in ("/srv/photos/out", "/srv/elsewhere"):
            made.run("install", "-d", "-o", "painter", folder)
        text = render_unit(
            shipped_unit(user=False).read_text(encoding="utf-8"),
            command=[sys.executable, "/opt/stand_in.py"],
            account="painter",
            writable=[Path("/srv/photos/out"), Path("/srv/gone")],
        )
        made.write(f"/etc/systemd/system/{UNIT}", text)
        made.write(f"/etc/systemd/system/{UNIT}.d/faster.conf", FASTER)
        made.run("systemctl", "daemon-reload")
        made.run("systemctl", "start", UNIT)
        yield made


def state(machine, name):
    file = machine.root / "var/lib/stylewatch" / name
    return file.read_text() if file.exists() else None


def alive(machine, pid):
    return (machine.root / "proc" / str(pid)).exists()


def restarted(machine, before):
    """Wait until the service runs again as another process."""

    def check():
        pid = machine.show("MainPID")
        return pid not in {"0", before} and machine.show("ActiveState") == "active"

    machine.wait_for(check, 20, "it was not started again")


def test_start_returns_when_the_daemon_is_ready(machine):
    assert machine.show("ActiveState") == "active"
    assert machine.show("StatusText") == "watching café"
    assert os.stat(machine.root / "var/lib/stylewatch").st_mode & 0o777 == 0o700


def test_it_writes_to_its_folders_and_to_nothing_else(machine):
    """A folder of the config that is missing has not kept it from starting."""
    tried = state(machine, "tried").split()
    assert tried == [
        "+/srv/photos/out/new", "-/srv/elsewhere", "-/home/painter/new", "-/usr/new", "+/tmp/new",
        "+/var/lib/stylewatch/new", "+/var/cache/stylewatch/new",
    ]  # fmt: skip
    assert not (machine.root / "tmp/new").exists()  # a /tmp of its own
    seen = machine.run("cat", f"/proc/{machine.show('MainPID')}/status").stdout
    assert re.search(r"^Uid:\s+4242\b", seen, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", seen, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", seen, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", seen, re.MULTILINE)


def test_reload_waits_until_the_config_is_read(machine):
    pid = machine.show("MainPID")
    machine.run("systemctl", "reload", UNIT)
    machine.wait_for(lambda: state(machine, "reloaded") is not None, 5, "not reloaded")
    machine.wait_for(lambda: machine.show("StatusText") == "read again", 5, "not ready again")
    assert machine.show("ActiveState") == "active"
    assert machine.show("MainPID") == pid


def test_a_daemon_that_is_killed_is_started_again_and_its_worker_ends(machine):
    pid, worker = machine.show("MainPID"), state(machine, "worker")
    machine.run("kill", "-9", pid)
    restarted(machine, pid)
    assert not alive(machine, worker)
    assert state(machine, "worker") != worker


def test_a_daemon_that_hangs_is_started_again_by_the_watchdog(machine):
    pid, worker = machine.show("MainPID"), state(machine, "worker")
    machine.run("kill", "-STOP", pid)
    restarted(machine, pid)
    assert "watchdog" in machine.journal().lower()
    assert not alive(machine, worker)


def test_a_busy_daemon_is_left_alone_by_the_watchdog(machine):
    pid = machine.show("MainPID")
    machine.run("sleep", "3")
    assert machine.show("MainPID") == pid


def test_stop_asks_the_daemon_alone_and_the_worker_is_there_to_the_end(machine):
    worker = state(machine, "worker")
    machine.run("systemctl", "stop", UNIT)
    assert machine.show("ActiveState") == "inactive"
    assert machine.show("Result") == "success"
    assert state(machine, "worker-at-the-end") == "None"
    assert not alive(machine, worker)


def test_an_error_in_the_config_is_not_tried_again_and_again(machine):
    machine.write("/var/lib/stylewatch/broken", "3")
    done = machine.run("systemctl", "start", UNIT, check=False)
    assert done.returncode != 0
    machine.run("sleep", "1")
    assert machine.show("ActiveState") == "failed"
    assert machine.show("ExecMainStatus") == "3"
    assert machine.show("NRestarts") == "0"
    (machine.root / "var/lib/stylewatch/broken").unlink()


def test_a_config_whose_disk_is_mounted_later_is_tried_again_until_it_is_there(machine):
    machine.write("/var/lib/stylewatch/broken", "9")
    machine.run("systemctl", "start", UNIT, check=False)
    machine.wait_for(lambda: int(machine.show("NRestarts")) > 1, 10, "it was not tried again")
    (machine.root / "var/lib/stylewatch/broken").unlink()
    machine.wait_for(lambda: machine.show("ActiveState") == "active", 10, "it does not run")
