"""The service's watchdog is fed only while everything that must move moves, or heals itself."""

import os
import signal
import subprocess
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from rig import Rig
from test_notify import Listener

from stylewatch.errors import LedgerError
from stylewatch.faces.board import Board
from stylewatch.faces.notify import Notifier
from stylewatch.faces.recent import Recent
from stylewatch.host.pulse import PATIENCE, Pulse


def test_only_what_does_not_heal_itself_in_its_time_is_lost():
    pulse, still, deaf = Pulse(), {"scan": False, "events": True}, {"scan": True, "events": False}
    assert pulse.feel(deaf, 100.0) == pulse.lost == []
    assert pulse.feel(still, 105.0) == pulse.lost == []
    assert pulse.feel(still, 104.9 + PATIENCE) == pulse.lost == []
    assert pulse.feel(still, 105.0 + PATIENCE) == pulse.lost == ["scan"]
    assert pulse.feel({"scan": False, "events": False}, 106.0 + PATIENCE) == []
    assert pulse.lost == ["scan"]
    assert pulse.feel({"events": True}, 111.0 + PATIENCE) == pulse.lost == []
    assert pulse.feel({"events": False}, 1000.0) == pulse.lost == []


class Watched:
    """A daemon with a clock of its own, and the systemd that listens to it."""

    def __init__(self, tmp_path, open_executor=None):
        self.listener = Listener(str(tmp_path / "notify"))
        environ = self.listener.environ | {"WATCHDOG_USEC": "3000000"}
        self.rig = Rig(tmp_path, grace_seconds=0)  # for jobs that never end
        self.rig.open_executor = open_executor or self.rig.open_executor
        self.rig.start()
        self.daemon = self.rig.daemon
        self.notifier = Notifier(lambda: not self.daemon.lost, environ=environ)
        self.now = time.monotonic()

    def fed(self, seconds, step=1.0):
        """How often the watchdog is fed in so many seconds."""
        heard = 0
        for _ in range(int(seconds / step)):
            self.now += step
            self.daemon.tick(self.now)
            self.notifier.beat(self.now)
            heard += not self.listener.silent()  # which takes the message
        return heard

    def quiet(self):
        """Not fed any more after the patience is over."""
        self.fed(PATIENCE + 60)
        return self.fed(10) == 0


@pytest.fixture
def watched(tmp_path):
    made = Watched(tmp_path)
    yield made
    made.daemon.stop()
    made.listener.socket.close()


def emitters(daemon):
    return list(daemon._watches._observer.emitters)


def test_it_is_fed_while_all_is_well(watched):
    assert watched.fed(100) >= 99


def test_a_dead_emitter_heals_itself_and_nothing_is_started_anew(watched):
    watched.fed(1)
    dead = emitters(watched.daemon)
    for emitter in dead:
        emitter.stop()
        emitter.join()
    assert watched.fed(PATIENCE + 30) >= PATIENCE + 29
    healed = emitters(watched.daemon)
    assert [emitter.is_alive() for emitter in healed] == [True] * len(dead)
    assert not set(healed) & set(dead)


def test_emitters_that_stay_dead_starve_it_and_it_is_said_once(watched, monkeypatch):
    watched.fed(1)
    source = watched.daemon._intake.ways["in"].source
    monkeypatch.setattr(source, "_look_at_root", lambda now: None)  # the healing itself is broken
    for emitter in emitters(watched.daemon):
        emitter.stop()
        emitter.join()
    assert watched.fed(PATIENCE / 2) > 0
    assert watched.quiet()
    told = [event.message for event in watched.rig.events if event.reason == "dead"]
    assert told == [f"events of {watched.rig.input}: no sign of life, and no recovery by itself"]


def test_a_scan_that_hangs_starves_it(watched, monkeypatch):
    watched.fed(1)
    source = watched.daemon._intake.ways["in"].source
    monkeypatch.setattr(source, "drain", lambda now, share: [])
    assert watched.quiet()


def test_a_folder_that_is_away_does_not(watched):
    watched.fed(1)
    watched.rig.input.rename(watched.rig.root / "elsewhere")
    assert watched.fed(PATIENCE + 30) >= PATIENCE + 29


class Silent:
    """An executor whose job never ends; its process is a real one."""

    here, slots, trouble = True, 1, ""

    def __init__(self, on_event):
        self.tell = on_event
        self.process = subprocess.Popen(["sleep", "1000"])

    def submit(self, job_id, fn, /, *args, timeout=None):
        self.tell(job_id, "started", self.process.pid)
        return Future()

    def cancel(self, job_id, /): ...
    def release(self, before): ...
    def close(self): ...


@pytest.fixture
def busy(tmp_path):
    """One whose worker is at work."""
    opened = []
    made = Watched(tmp_path, lambda config, tell: opened.append(Silent(tell)) or opened[-1])
    made.rig.drop("a.jpg")
    made.rig.until(lambda: made.daemon._dispatcher.running)
    made.now = time.monotonic()
    yield made, opened[0]
    opened[0].process.kill()
    opened[0].process.wait()
    made.daemon.stop()
    made.listener.socket.close()


def test_a_worker_at_work_is_alive_and_its_memory_is_known(busy):
    made, executor = busy
    assert made.fed(PATIENCE + 30) >= PATIENCE + 29
    (told,) = made.daemon._status()["running"]
    pages = int(Path(f"/proc/{executor.process.pid}/statm").read_text().split()[1])
    assert told["memory"] == pages * os.sysconf("SC_PAGESIZE") > 0


@pytest.mark.parametrize("buried", [True, False])
def test_a_worker_that_is_dead_without_anybody_taking_note_starves_it(busy, buried):
    made, executor = busy
    executor.process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, executor.process.pid, os.WEXITED | (0 if buried else os.WNOWAIT))
    assert made.quiet()


def test_a_job_that_no_time_out_ends_starves_it(busy):
    made, _ = busy
    made.now += 3600.0
    assert made.quiet()


def test_workers_that_cannot_be_started_starve_it(busy):
    made, executor = busy
    (running,) = made.daemon._dispatcher.running.values()
    running.pid = 0  # its photo waits for one
    executor.trouble = "no worker process could be started"
    assert made.quiet()
    executor.trouble = ""
    assert made.fed(20) >= 19


def seen(made):
    """Which parts are dead for a view that was there all the time, and for one that comes now."""
    board, recent, late = Board(), Recent(), Board()
    for event in made.rig.events:
        board.apply(event, 1.0)
        recent.note(event, 1.0)
    for event in recent.replay():
        late.apply(event, 2.0)
    return [
        {row.message.partition(":")[0] for row in one.problems if row.reason == "dead"}
        for one in (board, late)
    ]


def test_of_parts_that_were_dead_those_are_told_that_still_are(busy, monkeypatch):
    made, executor = busy
    (running,) = made.daemon._dispatcher.running.values()
    running.pid = 0  # its photo waits for one
    executor.trouble = "no worker process could be started"
    source = made.daemon._intake.ways["in"].source
    monkeypatch.setattr(source, "drain", lambda now, share: [])
    assert made.quiet()
    scans = f"scans of {made.rig.input}"
    assert seen(made) == [{"the workers", scans}] * 2
    executor.trouble = ""
    made.fed(1)
    assert seen(made) == [{scans}] * 2
    assert made.daemon.lost == [scans]
    made.daemon._drop_all(LedgerError("full"), told=False)  # then nothing needs to move
    assert seen(made) == [set(), set()]
    assert made.daemon.lost == []
