"""Crashes, full disks and changed configs: what was begun is finished, once, by itself."""

import errno
import itertools
import json
import math
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from unittest.mock import Mock

import jobs_for_tests as jobs
import pytest
from faults.steps import COMMITS, STEPS
from rig import ThreadExecutor, copy_job
from test_ledger import Clock, failure, photo, planned, rendered
from waiting import wait_until

from stylewatch.domain import (
    LEARNING,
    REFUSED,
    EngineSettings,
    Failure,
    FailureKind,
    Identity,
    JobState,
)
from stylewatch.errors import EngineLost, LedgerError, LockedError, OutputError
from stylewatch.faces.board import Board
from stylewatch.folders import contents, naming, outputs, painted, scans, settle, space
from stylewatch.host import daemon as daemon_module
from stylewatch.host import delivery, disks, intake, inventory, publication
from stylewatch.host.inventory import find_results
from stylewatch.jobs.executors import LocalExecutor
from stylewatch.state import retries, schema
from stylewatch.state.ledger import Ledger, Planned
from stylewatch.state.marks import MARKS, marked
from stylewatch.state.reader import LedgerReader

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def _pauses_are_short(monkeypatch):
    monkeypatch.setattr(retries, "RESOURCE_PAUSE", 0.3)
    monkeypatch.setattr(daemon_module, "RESOURCE_PAUSE", 0.3)
    monkeypatch.setattr(daemon_module, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(daemon_module, "LEDGER_SECONDS", 0.2)
    monkeypatch.setattr(settle, "LAST_PATIENCE", 0.3)
    monkeypatch.setattr(delivery, "AFTER_SECONDS", 0.3)
    monkeypatch.setattr(delivery, "UNNAMED_SECONDS", 0.2)


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path / "ledger.db", clock=Clock(), rng=Random(1))
    yield made
    made.close()


class Disk:
    """A disk for results that is mounted on a folder, as far as the daemon is told."""

    def __init__(self, mount):
        self.mount = self.mounted = mount
        self.aside = mount.with_name("unplugged")

    def mount_of(self, place):
        place = Path(os.path.realpath(place))
        return self.mounted if place.is_relative_to(self.mounted) else self.mount.parent

    def unplug(self):
        self.mount.rename(self.aside)
        self.mount.mkdir()
        self.mounted = self.mount.parent

    def plug(self):
        for folder in self.mount.iterdir():
            folder.rmdir()
        self.mount.rmdir()
        self.aside.rename(self.mount)
        self.mounted = self.mount


@pytest.fixture
def disk(tmp_path, monkeypatch):
    disk = Disk(tmp_path / "mount")
    monkeypatch.setattr(disks, "mount_of", disk.mount_of)
    return disk


def ends_with(kind, reason="x", message="why"):
    return lambda request: Failure(kind=kind, reason=reason, message=message)


# --- crashes -------------------------------------------------------------------------------------


def kill_at(tmp_path, points):
    """Two programs at a time: they mostly wait."""
    programs = [
        subprocess.Popen(
            [sys.executable, TESTS / "killed_daemon.py", tmp_path / f"run{number}", *points[number::2]],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(TESTS.parent), "PYTHONSAFEPATH": ""},
        )
        for number in range(2)
    ]  # fmt: skip
    for program in programs:
        output, _ = program.communicate(timeout=100)
        yield from map(json.loads, output.splitlines())


def nothing_lost_torn_or_twice(case):
    return (
        case["ended"] == 0
        and {
            "jobs": [["a.jpg", "done"], ["b.jpg", "done"], ["sub/c.jpg", "done"]],
            "results": {
                "a--painting.jpg": "painting:one",
                "b--painting.jpg": "painting:one",
                "sub/c--painting.jpg": "painting:two",
            },
            "moved": {"a.jpg": "one", "b.jpg": "one", "sub/c.jpg": "two"},
            "left": {},
        }.items()
        <= case.items()
    )


def test_a_kill_between_any_two_steps_of_a_job_changes_only_when_it_is_done(tmp_path):
    cases = list(kill_at(tmp_path, [f"{step}:1" for step in STEPS] + ["ledger.committed:4"]))
    assert [case["point"] for case in cases if not case["killed"]] == []
    assert [case for case in cases if not nothing_lost_torn_or_twice(case)] == []
    assert len(cases) == len(STEPS) + 1


@pytest.mark.slow
def test_a_kill_at_any_time_that_any_step_is_passed_changes_only_when_it_is_done(tmp_path):
    points = [f"{step}:{number}" for step in STEPS for number in (1, 2, 3)]
    points += [f"{step}:{number}" for step in COMMITS for number in range(1, 23)]
    cases = list(kill_at(tmp_path, points))
    assert len([case for case in cases if case["killed"]]) > 60
    assert [case for case in cases if not nothing_lost_torn_or_twice(case)] == []


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("place", "step"), [(outputs, "remove_earlier"), (Ledger, "done")], ids=["before", "after"]
)
def test_a_kill_around_the_removal_of_a_result_in_another_format(rigs, monkeypatch, place, step):
    rig = rigs()
    rig.paint("a.jpg")
    rig.extension = ".webp"
    rig.drop("a.jpg", b"edited")
    with monkeypatch.context() as patched:
        patched.setattr(place, step, Mock(side_effect=Killed))
        with pytest.raises(Killed):
            rig.until(lambda: rig.counts().get("done") == 2)
    assert rig.results()[-1] == "a--painting.webp"
    rig.daemon._end()
    again = rigs()
    again.until(lambda: again.counts() == {"done": 1, "superseded": 1})
    assert again.results() == ["a--painting.webp"]
    assert again.executor.ran == []


def test_a_photo_that_takes_the_daemon_along_stands_back_and_is_set_aside_in_the_end(ledger):
    ledger.add(photo("bad"), "d", "p", [planned("bad", "k1")])
    ledger.add(photo("good"), "d", "p", [planned("good", "k2")])
    claimed, deaths = [], 0
    while ledger.job(1).state is not JobState.QUARANTINED:
        job = ledger.claim("in")
        if job is None:
            ledger._clock.now += 1000
            continue
        claimed.append(str(job.path))
        if job.id == 1:
            deaths += 1
            ledger.recover()
            ledger._clock.now += 1 if deaths < 5 else 1000
        else:
            ledger.publishing(job.id, rendered())
            ledger.done(job.id, Path("/out/good"))
            ledger._clock.now += 1000
    assert claimed[:4] == ["bad", "bad", "bad", "good"]
    assert deaths == 10
    assert ledger.job(1).reason == "interrupted"
    assert ledger.retry(reason="interrupted") == 1


def test_a_stop_in_order_is_no_interruption(ledger):
    ledger.add(photo(), "d", "p", [planned()])
    for _ in range(20):
        ledger.put_back(ledger.claim("in").id)
    assert ledger.job(1).state is JobState.READY


def test_a_photo_painted_before_a_crash_is_moved_after_it(rigs, tmp_path):
    rig = rigs()
    rig.paint("a.jpg")
    rig.daemon.stop()
    with sqlite3.connect(tmp_path / "state" / "ledger.db") as db:
        db.execute("UPDATE jobs SET after_done = 0")  # as a kill right after `done` leaves it
    db.close()
    again = rigs(start=False)
    again.with_folders({"after": tmp_path / "moved"})
    again.start()
    again.until((tmp_path / "moved" / "a.jpg").exists)
    assert again.executor.ran == []


def test_a_job_of_a_lost_executor_counts_no_attempt_and_costs_no_other_job(rigs):
    opened, healed = [], threading.Event()

    def behave(request):
        if not healed.is_set():
            time.sleep(0.1)
            raise EngineLost("gone")

    rig = rigs(behave, start=False)
    rig.executor.slots = 2
    rig.start()
    rig.open_executor = lambda *_: opened.append(1)
    rig.drop("a.jpg", b"a")
    rig.drop("b.jpg", b"b")
    rig.until(lambda: len(rig.executor.ran) >= 6)
    healed.set()
    rig.until(lambda: rig.counts() == {"done": 2})
    assert not opened  # it heals by itself
    told = {(each.path, each.reason) for each in rig.events if each.kind == "warning"}
    assert told == {("a.jpg", "engine-lost"), ("b.jpg", "engine-lost")}


def test_what_an_executor_lacks_is_told_once(rigs):
    rig = rigs()
    rig.executor.trouble = "no scheduler answers"
    rig.until(lambda: any(e.message == "no scheduler answers" for e in rig.events))
    rig.executor.trouble = ""
    rig.until(lambda: rig.events[-1].kind == "recovered")
    assert len([e for e in rig.events if e.reason == "engine-lost"]) == 2


@pytest.mark.parametrize("state", ["nothing waits", "a pause", "one is painted", "resting"])
def test_workers_that_could_not_start_are_a_reason_to_start_anew_only_where_nothing_goes_on(
    rigs, state
):
    """Nothing tells that all is well again before a photo is begun: systemd ended a mere pause."""
    done = threading.Event()
    rig = rigs(lambda request: done.wait(60) and None)
    if state == "a pause":
        rig.daemon.ask("pause")
    if state != "nothing waits":
        rig.drop("a.jpg")
    goes_on = {"ready": 1} if state == "a pause" else {"running": 1}
    rig.until(lambda: rig.counts() == ({} if state == "nothing waits" else goes_on))
    if state == "one is painted":
        for job_id in rig.daemon._dispatcher.running:
            rig.daemon._dispatcher._on_progress(job_id, "started", os.getpid())
        rig.executor.slots = 2
    rig.executor.trouble = "no worker process could be started"
    if state == "resting":
        rig.executor.slots = 0
    now = time.monotonic()
    for seconds in (0.0, 100.0):
        rig.daemon.tick(now + seconds)
    assert rig.daemon.lost == (["the workers"] if state == "resting" else [])
    done.set()


DIES_OF_A_HEADER = """
import os, signal, sys
from pathlib import Path
from rig import Rig
from stylewatch.domain import PhotoFacts
from stylewatch.settings.rules import Rule

def probe(stream):
    if stream.read() == b"bad":
        os.kill(os.getpid(), signal.SIGSEGV)
    return PhotoFacts(4, 3, "Fuji X100")

rule = Rule(preset=("painting",), camera="*X100*")
rig = Rig(Path(sys.argv[1])).with_folders({"preset": (), "rules": (rule,)})
rig.probe = probe
rig.start()
rig.until(lambda: rig.counts() == {"done": 2} and rig.idle(), 20)
print(rig.daemon._ledger.notes(), *(event.message for event in rig.events if event.kind == "failed"))
rig.stop()
"""


def test_a_photo_whose_header_kills_the_daemon_is_set_aside_and_the_others_are_painted(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.heic", "bad.heic", "c.heic"):
        (tmp_path / "in" / name).write_bytes(Path(name).stem.encode())
    program = [sys.executable, "-c", DIES_OF_A_HEADER, tmp_path]
    paths = os.environ | {"PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
    runs = [
        subprocess.run(program, env=paths, capture_output=True, text=True, timeout=60, check=False)
        for _ in range(3)
    ]
    ended = [run.returncode for run in runs]
    assert ended == [-signal.SIGSEGV, -signal.SIGSEGV, 0], runs[-1].stderr
    assert "Path('bad.heic'), 'crash'" in runs[-1].stdout
    assert "crashed twice on reading its header. Save it again, or as JPEG, or `touch` it" in (
        runs[-1].stdout
    )
    assert len([*(tmp_path / "state" / MARKS).iterdir()]) == 1


def test_a_photo_that_was_looked_at_when_the_power_went_is_looked_at_again(tmp_path):
    before = replace(photo().identity, dev=7)  # its disk had another number before
    (tmp_path / "1").mkdir()
    for _ in range(5):
        with marked(tmp_path / "1", before):
            shutil.copytree(tmp_path / "1", tmp_path / "2")  # as it is when all ends here
        assert list((tmp_path / "1").iterdir()) == []
        with marked(tmp_path / "2", photo().identity):
            pass
        (tmp_path / "2").rmdir()


def test_marks_of_what_was_looked_at_long_ago_are_forgotten(rigs, tmp_path):
    folder = tmp_path / "state" / MARKS
    folder.mkdir(parents=True)
    for name in ("old", "new"):
        (folder / name).write_bytes(b"..")
    os.utime(folder / "old", (1e9, 1e9))
    rig = rigs()
    rig.until(lambda: [mark.name for mark in folder.iterdir()] == ["new"])


# --- the ledger ----------------------------------------------------------------------------------


def test_a_full_disk_under_the_ledger_only_delays(rigs, monkeypatch):
    starts, real = [], daemon_module.Ledger

    def small_disk(*arguments, **settings):
        ledger = real(*arguments, **settings)
        starts.append(1)
        if len(starts) == 1:
            [pages] = ledger._db.execute("PRAGMA page_count").fetchone()
            ledger._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own SQLITE_FULL
        return ledger

    monkeypatch.setattr(daemon_module, "Ledger", small_disk)
    rig, stop = rigs(start=False).build(), threading.Event()
    for number in range(15):
        rig.drop(f"{number}{'x' * 200}.jpg", b"%d" % number)
    thread = threading.Thread(target=rig.daemon.run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: len(rig.results()) == 15)
    finally:
        stop.set()
        rig.daemon.wake()
        thread.join()
    assert len([name for name in rig.results() if "--painting" in name]) == 15
    assert len(starts) > 1
    kinds = [event.kind for event in rig.events if event.kind in {"blocked", "recovered"}]
    assert kinds == ["blocked", "recovered"]


@pytest.mark.parametrize("at", ["a command", "a photo"])
def test_what_could_not_be_written_down_is_no_command_s_and_no_photo_s_fault(rigs, monkeypatch, at):
    """The daemon drops all and recovers; it does not go on as if that were done."""
    rig = rigs()
    rig.drop("a.jpg")
    with monkeypatch.context() as patched:
        patched.setattr(
            Ledger, "retry" if at == "a command" else "add", Mock(side_effect=LedgerError("full"))
        )
        if at == "a command":
            answer = rig.daemon.ask("retry")
        with pytest.raises(LedgerError, match="full"):
            rig.until(lambda: False)
    if at == "a command":
        assert isinstance(answer.exception(0), LedgerError)
    assert rig.daemon._ledger.notes() == []


def test_a_picture_that_got_its_name_as_the_ledger_failed_is_not_painted_again(rigs, monkeypatch):
    rig = rigs(start=False).with_folders({"after": "delete"}).start()
    photo = rig.drop("a.jpg")
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "done", Mock(side_effect=LedgerError("full")))
        with pytest.raises(LedgerError, match="full"):
            rig.until(lambda: False)
    rig.daemon._drop_all(LedgerError("full"), told=False)
    rig.daemon.start(time.monotonic())
    rig.until(lambda: not photo.exists())
    assert rig.results() == ["a--painting.jpg"]
    assert len(rig.executor.ran) == 1


def test_what_runs_while_nothing_can_be_written_down_is_left_as_after_a_crash(rigs, monkeypatch):
    go = threading.Event()
    rig = rigs(lambda request: go.wait(60) and None)
    rig.drop("a.jpg")
    rig.until(lambda: rig.daemon._dispatcher.running)
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "put_back", Mock(side_effect=LedgerError("full")))
        rig.daemon._drop_all(LedgerError("full"), told=False)
    assert rig.daemon._dispatcher.running == {}, "a stop would wait for it"
    go.set()
    rig.daemon.start(time.monotonic())
    rig.until(lambda: rig.results() == ["a--painting.jpg"])


def test_a_ledger_that_another_program_holds_is_tried_again(rigs, tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.1)
    rig, stop = rigs(start=False).build(), threading.Event()
    told, done = threading.Event(), threading.Event()
    kinds = {"blocked": told, "done": done}
    rig.daemon._tell_event = lambda event: kinds.get(event.kind, threading.Event()).set()
    thread = threading.Thread(target=rig.daemon.run, args=(stop,))
    thread.start()
    try:
        rig.daemon.ask("status").result(60)
        with closing(sqlite3.connect(tmp_path / "state" / "ledger.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            rig.drop("a.jpg")
            assert told.wait(60)
            with pytest.raises(LedgerError, match="End the program that holds it"):
                rig.daemon.ask("status").result(60)
        assert done.wait(60)
    finally:
        stop.set()
        rig.daemon.wake()
        thread.join()
    assert rig.results() == ["a--painting.jpg"]


@pytest.mark.parametrize("unit", ["stylewatch.service", "user/stylewatch.service"])
def test_a_ledger_that_another_program_holds_does_not_silence_the_daemon_for_long(unit):
    """Every tick, its end and the new start may each wait for it once, or a few times."""
    assert 5 * schema.BUSY_SECONDS < watchdog_of(unit)


@pytest.mark.parametrize("unit", ["stylewatch.service", "user/stylewatch.service"])
def test_a_large_photo_on_a_slow_share_does_not_silence_the_daemon_for_too_long(unit):
    """A tick may have to read it, to copy it elsewhere, and to read that: at 1 MB/s."""
    assert 3 * EngineSettings().max_bytes / 1e6 <= watchdog_of(unit)


def watchdog_of(unit):
    text = (TESTS.parent / "systemd" / unit).read_text()
    (seconds,) = re.findall(r"^WatchdogSec=(\d+)$", text, re.MULTILINE)
    return int(seconds)


def test_a_commit_that_fails_leaves_nothing_half_done(ledger):
    [pages] = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    names = [f"{number}{'x' * 200}" for number in range(100)]
    with pytest.raises(LedgerError, match="full"):
        [ledger.add(photo(name), "d", "p", [planned(name, name)]) for name in names]
    assert not ledger._db.in_transaction
    ledger._db.execute("PRAGMA max_page_count = 100000")
    assert ledger.add(photo("again"), "d", "p", [planned("again", "k")])


def test_a_rebuild_that_was_interrupted_is_begun_anew(tmp_path):
    path = tmp_path / "ledger.db"
    path.touch()  # an empty file is as fresh as none
    for _ in range(2):
        ledger = Ledger(path)
        assert ledger.fresh
        ledger.close()
    ledger = Ledger(path)
    ledger.rebuild([])
    ledger.close()
    ledger = Ledger(path)
    assert not ledger.fresh
    ledger.close()


def test_a_lost_ledger_is_learnt_again_from_results_whatever_else_lies_there(rigs, tmp_path):
    rig = rigs()
    for number in range(3):
        rig.drop(f"{number}.jpg", b"%d" % number)
    rig.until(lambda: rig.counts() == {"done": 3})
    with closing(LedgerReader(tmp_path / "state" / "ledger.db")) as reader:
        keys = {job.output.read_bytes(): job.key for job in reader.jobs()}
    rig.daemon.stop()
    (rig.output / "strange--thing.jpg").write_bytes(os.urandom(3000))
    (tmp_path / "state" / "ledger.db").write_bytes(os.urandom(4096))
    again = rigs(start=False)
    again.read_facts = lambda data: {"job_key": keys[data]}
    hours = itertools.count(step=3600.0)
    again.build().daemon._clock = lambda: next(hours)
    again.daemon.start(time.monotonic())
    again.daemon._clock = time.monotonic
    told = [event.message for event in again.events if event.reason == LEARNING]
    assert len(told) == 5  # with the strange thing: the service waits for a sign of life
    assert "a new ledger: 1 result read so far" in told
    assert told[3:] == [
        "a new ledger: 3 results read so far",
        "a new ledger: 3 results found, not painted again",
    ]
    again.until(lambda: again.counts() == {"done": 3})
    again.until(again.idle)
    assert again.executor.ran == []
    assert len(again.results()) == 4


@pytest.mark.parametrize("facts", [{"job_key": "key"}, {}])
@pytest.mark.parametrize("lost", ["before it starts", "while it runs"])
def test_a_daemon_whose_new_ledger_learns_ends_at_once(rigs, tmp_path, monkeypatch, facts, lost):
    """Also where it comes upon no result for long."""
    rig, path = rigs(start=False).build(), tmp_path / "state" / "ledger.db"
    stop, read = threading.Event(), []

    def lose(_):
        path.unlink(missing_ok=True)
        for name in ("out/a--painting.jpg", "out/b--painting.jpg"):
            (tmp_path / name).write_bytes(b"painted before")

    def fails(_):
        raise LedgerError("The ledger can't be written: disk full")

    def read_facts(data):
        read.append(data)
        stop.set()
        return facts

    rig.daemon._parts = replace(rig.daemon._parts, read_facts=read_facts)
    monkeypatch.setattr(rig.daemon, "tick", fails)
    rig.output.mkdir()
    if lost == "before it starts":
        lose(0.0)
    rig.daemon.run(stop, lose)
    assert len(read) == 1
    assert rig.events[-1].kind == "stopping"
    with closing(Ledger(path)) as ledger:
        assert ledger.fresh, "the next start learns all of it"


def results_that_tell_of_themselves(rig):
    """Have each result tell by which job it was made, and of which photo."""

    def run_job(request, engine, *, report):
        facts = {"job_key": request.key, "photo": request.digest, "name": request.source.name}
        return copy_job(request, engine, report=report, suffix=json.dumps(facts).encode())

    rig.run_job = run_job
    rig.read_facts = lambda data: json.loads(data[data.index(b"{") :])
    return rig


def test_a_lost_ledger_gives_each_of_two_photos_that_are_the_same_its_own_result(rigs, tmp_path):
    rig = results_that_tell_of_themselves(rigs(start=False))
    rig.with_folders({"after": "delete"})
    for ran in (1, 0):
        rig.executor.ran.clear()
        rig.start()
        photos = [rig.drop(name, b"the same") for name in ("a.jpg", "a.jpeg")]
        rig.until(lambda photos=photos: not any(photo.exists() for photo in photos))
        assert rig.results() == ["a--painting.jpg", "a--painting~2.jpg"]
        assert len(rig.executor.ran) == ran
        rig.stop()
        (tmp_path / "state" / "ledger.db").unlink()


def test_a_lost_ledger_takes_results_from_before_a_preset_was_changed_for_what_they_are(
    rigs, tmp_path
):
    rig, changed = results_that_tell_of_themselves(rigs(start=False)), []
    plain = rig.config

    def config():
        presets = {name: replace(each, digest="other") for name, each in plain().presets.items()}
        return replace(plain(), presets=presets) if changed else plain()

    rig.config = config
    rig.start()
    for number in range(3):
        rig.drop(f"{number}.jpg", b"%d" % number)
    rig.until(lambda: rig.counts() == {"done": 3})
    rig.stop()
    (tmp_path / "state" / "ledger.db").unlink()
    rig.executor.ran.clear()
    changed.append(True)
    rig.start()
    rig.drop("copy/0.jpg", b"0")
    rig.until(lambda: rig.counts() == {"done": 4})
    assert rig.executor.ran == [("0.jpg", "painting")], "new, and to be painted as it is now"
    before = rig.results()
    assert len(before) == 4
    rig.drop("1.jpg", b"1")  # touched
    rig.until(lambda: rig.counts() == {"done": 4, "superseded": 1})
    assert rig.executor.ran[1:] == [("1.jpg", "painting")]
    assert rig.results() == before, "in the earlier one's place"


@pytest.mark.parametrize("seed", range(6))
def test_damage_of_any_kind_is_set_aside_or_harmless_never_the_end(tmp_path, seed):
    path, rng = tmp_path / "ledger.db", Random(seed)
    ledger = Ledger(path)
    with ledger.transaction():
        for number in range(200):
            ledger.add(photo(f"{number}"), "d", "p", [planned(f"{number}", f"{number}")])
    ledger.close()
    data = bytearray(path.read_bytes())
    if seed % 3 == 0:
        del data[rng.randrange(len(data)) :]
    for _ in range(20 if seed % 3 == 1 else 2000):
        if data:
            data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data)
    again = Ledger(path)
    assert again.set_aside is None or again.set_aside.read_bytes() == data
    assert again.set_aside is not None or len(again.jobs()) <= 200
    again.close()


def damage_the_jobs(path):
    """Of a ledger; all its other tables stay whole."""
    with closing(sqlite3.connect(path)) as db:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'jobs'"
        [(page,)], [(size,)] = (db.execute(each) for each in (query, "PRAGMA page_size"))
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(size))


def test_damage_that_does_not_show_when_it_is_opened_is_set_aside_again_and_again(tmp_path):
    path = tmp_path / "ledger.db"
    for number in (1, 2):
        with closing(Ledger(path)) as ledger:
            ledger.add(photo(f"{number}"), "d", "p", [planned()])
        damage_the_jobs(path)
        with closing(Ledger(path)) as ledger:
            assert ledger.set_aside == tmp_path / f"ledger.db.damaged-{number}"
            assert ledger.fresh
    assert (tmp_path / "ledger.db.damaged-1").is_file(), "the first is kept"


def test_a_ledger_that_is_only_held_by_another_program_is_not_set_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.1)
    path = tmp_path / "ledger.db"
    with closing(Ledger(path)) as ledger:
        ledger.add(photo(), "d", "p", [planned()])
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="can't be opened.* End the program that holds it"):
            Ledger(path)
    with closing(Ledger(path)) as ledger:
        assert (ledger.set_aside, len(ledger.jobs())) == (None, 1)


def test_a_state_folder_that_can_t_be_made_is_one_plain_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="Check the state folder's disk and permissions"):
        Ledger(tmp_path / "file" / "ledger.db")


def test_what_is_asked_of_a_big_ledger_is_answered_at_once(ledger, tmp_path, pace):
    with ledger.transaction():
        ledger.add(photo("first"), "d", "p", [planned("first", "first")])
        ledger._db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
            " INSERT INTO jobs (folder, path, preset, key, digest, target, dev, ino, size,"
            " mtime_ns, ctime_ns, state, created, changed, seconds)"
            " SELECT 'in', CAST(i AS BLOB), 'soft', 'k' || i, 'd', CAST(i AS BLOB), 1, i, 1, 1, 1,"
            " iif(i % 1000, iif(i % 2, 'done', 'ready'), 'quarantined'), i, i, 2.0 FROM n"
        )
    with closing(LedgerReader(tmp_path / "ledger.db")) as reader:
        questions = (
            *(reader.counts, reader.pace, reader.work, reader.notes),
            *(
                partial(reader.numbers, states, 100)
                for states in (JobState, [JobState.DONE], [JobState.QUARANTINED])
            ),
        )
        for question in questions:
            spent = []
            for _ in range(3):
                started = time.process_time()
                assert question() is not None
                spent.append(time.process_time() - started)
            assert min(spent) < 0.1 * pace, question
        latest = reader.jobs_with(reader.numbers([JobState.QUARANTINED], 2))
        assert [job.changed for job in latest] == [100_000, 99_000]


def test_no_ledger_is_one_plain_error(tmp_path):
    with pytest.raises(LedgerError, match="can't be opened"):
        LedgerReader(tmp_path / "ledger.db")


def test_messages_with_names_that_are_no_text_can_be_written_down(ledger):
    ledger.add(photo(), "d", "p", [planned()])
    name = os.fsdecode(b"caf\xe9.jpg")
    told = Failure(kind=FailureKind.BAD_INPUT, reason="x", message=f"{name} is cut")
    ledger.fail(ledger.claim("in").id, told, 3)
    assert ledger.job(1).message == "caf\\udce9.jpg is cut"


# --- failures ------------------------------------------------------------------------------------


def test_failures_of_one_kind_do_not_count_for_another(ledger):
    ledger.add(photo(), "d", "p", [planned()])
    for kind, reason, state in [
        *[(FailureKind.RESOURCE, "disk-full", JobState.BLOCKED)] * 5,
        *[(FailureKind.PERMISSION, "eacces", JobState.BLOCKED)] * 2,
        (FailureKind.PERMISSION, "eacces", JobState.QUARANTINED),
    ]:
        ledger._clock.now += 5000
        assert ledger.fail(ledger.claim("in").id, failure(kind, reason), 3) is state


def test_a_photo_whose_permissions_were_mended_is_tried_at_once(ledger):
    ledger.add(photo(mtime=1), "d", "p", [planned()])
    ledger.claim("in")
    ledger.fail(1, failure(FailureKind.PERMISSION, "eacces"), 3)
    assert ledger.claim("in") is None
    ledger.add(photo(mtime=2), "d", "p", [planned()])
    assert ledger.claim("in").id == 1


def test_a_full_output_is_paused_as_a_whole_and_goes_on_by_itself(rigs, monkeypatch):
    monkeypatch.setattr(daemon_module, "RESOURCE_PAUSE", 1.0)
    full = [True]

    def behave(request):
        return ends_with(FailureKind.RESOURCE, "disk-full")(request) if full else None

    rig = rigs(behave)
    monkeypatch.setattr("stylewatch.state.retries.RESOURCE_PAUSE", 1.0)
    for number in range(5):
        rig.drop(f"{number}.jpg", b"%d" % number)
    rig.until(lambda: rig.counts() == {"ready": 4, "blocked": 1})
    for _ in range(5):
        rig.daemon.tick(time.monotonic())
    assert len(rig.executor.ran) == 1
    (told,) = rig.daemon._status()["folders"]
    assert (told.state, told.detail) == ("blocked", f"{rig.output} is full")
    full.clear()
    rig.until(lambda: rig.counts() == {"done": 5})
    assert [told.state for told in rig.daemon._status()["folders"]] == ["watching"]


def test_a_quota_that_no_disk_tells_of_costs_ever_fewer_paintings(rigs, monkeypatch):
    monkeypatch.setattr(daemon_module, "RESOURCE_PAUSE", 30.0)
    now = 0.0
    full = ends_with(FailureKind.RESOURCE, "disk-full")
    rig = rigs(full, start=False).build()
    rig.daemon._clock, rig.daemon._wall_clock = (lambda: now), (lambda: 1e9 + now)
    rig.daemon.start(now)
    rig.drop("a.jpg")
    for _ in range(4):  # quarters of an hour
        before = len(rig.executor.ran)
        for _ in range(180):
            now += 5.0
            rig.daemon.tick(now)
            while rig.daemon._dispatcher.running:
                rig.daemon.tick(now)
    assert len(rig.executor.ran) < 20
    assert len(rig.executor.ran) > before, "it is still tried"


def test_a_photo_whose_part_of_the_output_is_full_again_and_again_is_not_shown_as_painted(rigs):
    """It was told that it is painted: so it has to be told each time that it is no more."""
    rig = rigs(ends_with(FailureKind.RESOURCE, "edquot"))
    rig.drop("a.jpg")
    rig.until(lambda: len(rig.executor.ran) == 3)
    rig.until(lambda: not rig.daemon._dispatcher.running)
    board = Board()
    for event in rig.events:
        board.apply(event, 0.0)
    assert not board.jobs


def problems_told(rig):
    """The lines under `Problems` of a live view that has heard all events."""
    board = Board()
    for event in rig.events:
        board.apply(event, 0.0)
    return [row.message for row in board.problems]


def test_a_full_output_is_told_of_until_it_has_room_or_has_left_the_config(
    rigs, tmp_path, monkeypatch
):
    one, two = {"output": tmp_path / "one"}, {"output": tmp_path / "two"}
    two |= {"input": tmp_path / "in2", "name": "in2"}
    two["input"].mkdir()
    free = {one["output"]: 1, two["output"]: 1}
    monkeypatch.setattr(space, "free_space", free.__getitem__)
    rig = rigs(start=False, min_free=100).with_folders(one, two).start()
    rig.look_around()
    assert len(problems_told(rig)) == 2
    free[one["output"]] = 200
    rig.look_around()
    [left] = problems_told(rig)
    assert left.startswith(f"{two['output']}: only 0 MB free")
    rig.with_folders(one)
    rig.asked("reload")
    rig.look_around()
    assert problems_told(rig) == []


def test_a_photo_that_could_not_be_read_for_a_moment_is_read_later(rigs, monkeypatch):
    real, failed = intake._open_unchanged, []

    def flaky(photo):
        if not failed:
            failed.append(1)
            raise OSError(errno.EIO, "Input/output error")
        return real(photo)

    monkeypatch.setattr(intake, "_open_unchanged", flaky)
    rig = rigs()
    rig.drop("a.jpg")
    rig.until(lambda: failed)
    assert [note for _, _, note in rig.daemon._ledger.notes()] == ["unreadable"]
    told = "a.jpg: can't be read: Input/output error. It is tried again in a minute"
    assert told in [event.message for event in rig.events]
    rig.until(lambda: rig.results() == ["a--painting.jpg"])


def test_a_folder_that_takes_the_name_of_a_complete_photo_is_not_left_open(rigs):
    rig = rigs()
    rig.daemon._intake._is_outdated = lambda now: True
    photo = rig.drop("a.jpg")
    rig.until(lambda: rig.daemon._intake.ways["in"].complete)
    photo.unlink()
    rig.drop("a.jpg/b.jpg")
    rig.daemon._intake._is_outdated = lambda now: False
    rig.until(lambda: rig.results() == ["a.jpg/b--painting.jpg"])
    opened = [file.resolve() for file in Path("/proc/self/fd").iterdir()]
    assert photo not in opened
    assert rig.daemon._ledger.failed_files() == {}


def test_a_file_that_was_being_written_at_the_last_stop_is_taken_up_when_it_is_whole(rigs):
    rig = rigs(settle_max_seconds=0.2)
    with (rig.input / "a.jpg").open("wb") as stream:
        stream.write(b"whole")
        stream.flush()
        rig.until(lambda: any(e.reason == "writer" for e in rig.events))
        rig.daemon.stop()
    again = rigs()
    again.until(lambda: again.results() == ["a--painting.jpg"])


def test_a_photo_stays_while_one_of_its_presets_has_failed(rigs):
    def behave(request):
        if request.preset.name == "draft" and broken:
            return ends_with(FailureKind.BAD_INPUT)(request)
        return None

    broken = [True]
    rig = (
        rigs(behave, start=False)
        .with_folders({"preset": ("draft", "painting"), "after": "delete"})
        .start()
    )
    path = rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"done": 1, "quarantined": 1})
    rig.look_around()
    assert path.exists()
    broken.clear()
    rig.daemon.ask("retry")
    rig.until(lambda: not path.exists())
    assert rig.results() == ["a--draft.jpg", "a--painting.jpg"]


@pytest.mark.parametrize("mount_point", [False, True])
def test_a_photo_that_was_away_when_it_was_painted_is_dealt_with_when_it_is_back(
    rigs, tmp_path, monkeypatch, mount_point
):
    apply_after = painted.apply_after

    asked = []

    def without_the_disk(*arguments):
        if not asked:
            rig.input.rename(tmp_path / "away")
            if mount_point:
                rig.input.mkdir()
        asked.append(arguments)
        return apply_after(*arguments)

    monkeypatch.setattr(painted, "apply_after", without_the_disk)
    rig = rigs(start=False, rescan_seconds=1).with_folders({"after": "delete"}).start()
    rig.drop("a.jpg")
    rig.until(lambda: rig.results() and rig.idle())
    if mount_point:
        rig.daemon._intake.ways["in"].source._next_root = 0.0
        rig.daemon._delivery._after_failed = dict.fromkeys(
            rig.daemon._delivery._after_failed, 0.0
        )  # minutes later
        rig.daemon._next_look = 0.0
        rig.daemon.tick(time.monotonic())
        assert rig.daemon._delivery._after_failed
        rig.input.rmdir()
    assert [event.reason for event in rig.events if event.kind == "warning"] == ["after"]
    (tmp_path / "away").rename(rig.input)
    assert (rig.input / "a.jpg").exists()
    rig.until(lambda: not (rig.input / "a.jpg").exists())
    assert rig.daemon._delivery._after_failed == {}
    assert len(rig.executor.ran) == 1


@pytest.mark.parametrize("min_free", [1000, 0])
def test_photos_wait_to_be_moved_to_a_full_disk_which_is_told_once(
    rigs, tmp_path, monkeypatch, min_free
):
    """Each move is a copy: it is not begun, or, where nothing is to stay free, one of them fails."""
    done, free, tried = tmp_path / "done", [100], []
    real = painted.apply_after

    def apply_after(*arguments):
        tried.append(arguments)
        if free[0] == 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(painted, "apply_after", apply_after)
    monkeypatch.setattr(publication, "mount_of", lambda place: place.is_relative_to(done))
    monkeypatch.setattr(
        space, "free_space", lambda folder: free[0] if folder.is_relative_to(done) else math.inf
    )
    rig = rigs(start=False, min_free=min_free).with_folders({"after": done}).start()
    for name in "abc":
        rig.drop(f"{name}.jpg", name.encode())
    rig.until(lambda: rig.counts() == {"done": 3} and rig.idle())
    tried.clear()
    failed = rig.daemon._delivery._after_failed
    for _ in range(3):
        failed |= dict.fromkeys(failed, 0.0)  # minutes later
        rig.look_around(1)
    assert len(tried) == (0 if min_free else 3)
    [told] = [event for event in rig.events if event.kind == "warning"]
    assert (told.reason, "Make room there" in told.message) == ("disk-full", True)
    free[0] = 10**9
    rig.until(lambda: not list(rig.input.iterdir()))
    assert len(list(done.iterdir())) == 3


def test_a_photo_whose_name_can_t_be_held_where_it_is_moved_to_needs_another(
    rigs, tmp_path, monkeypatch
):
    bad = OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    monkeypatch.setattr(painted, "apply_after", Mock(side_effect=bad))
    rig = rigs(start=False).with_folders({"after": tmp_path / "done"}).start()
    rig.drop("12:30.jpg")
    rig.until(lambda: rig.counts() == {"done": 1} and rig.idle())
    [told] = [event.message for event in rig.events if event.kind == "warning"]
    assert "Invalid argument. Give the photo" in told
    assert "a plainer name" in told


def test_a_picture_that_can_t_be_read_for_a_moment_is_not_painted_anew(rigs, monkeypatch):
    whole, broken = contents.file_hash, [True]

    def file_hash(path):
        if broken and path.name.endswith(naming.TEMPORARY_SUFFIX):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return whole(path)

    monkeypatch.setattr(contents, "file_hash", file_hash)
    rig = rigs()
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"publishing": 1})
    broken.clear()
    rig.until(lambda: rig.results() == ["a--painting.jpg"] and rig.idle())
    assert len(rig.executor.ran) == 1
    assert [event.kind for event in rig.events].count("done") == 1
    assert rig.daemon._delivery.next_due() == math.inf, "it would be looked at without a pause"


def test_an_output_whose_disk_is_away_waits_and_says_so_once(rigs, tmp_path, monkeypatch):
    mount = tmp_path / "mount"
    mount.write_bytes(b"")  # nothing can be made below it
    rig = rigs(start=False).with_folders({"output": mount / "out"}).start()
    rig.drop("a.jpg", b"a")
    rig.drop("b.jpg", b"b")
    rig.until(lambda: "blocked" in rig.counts())
    end = time.monotonic() + 1.5
    rig.until(lambda: time.monotonic() > end)
    assert len([event for event in rig.events if event.kind == "blocked"]) == 1
    assert rig.executor.ran == []
    [health] = rig.daemon._health(time.monotonic())
    assert (health.state, health.detail) == ("blocked", f"{rig.output} is not there")
    mount.unlink()
    mount.mkdir()
    rig.until(lambda: rig.results() == ["a--painting.jpg", "b--painting.jpg"])


def test_a_picture_that_is_lost_before_it_has_its_name_is_painted_anew_at_once(rigs, monkeypatch):
    monkeypatch.setattr(publication, "failpoint", Mock(side_effect=KeyboardInterrupt))
    rig = rigs()
    rig.drop("a.jpg")
    with pytest.raises(KeyboardInterrupt):
        rig.until(lambda: False)
    rig.daemon._end()
    [lost] = rig.output.iterdir()
    lost.unlink()
    monkeypatch.setattr(publication, "failpoint", Mock())
    rig.start()
    rig.until(lambda: rig.results() == ["a--painting.jpg"])
    assert len(rig.executor.ran) == 2


def test_a_picture_that_stays_unreadable_is_painted_anew(rigs, monkeypatch):
    monkeypatch.setattr(delivery, "UNREADABLE_SECONDS", 1.0)
    whole, broken = contents.file_hash, []

    def file_hash(path):
        if path.name.endswith(naming.TEMPORARY_SUFFIX) and len(rig.executor.ran) == 1:
            broken.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return whole(path)

    monkeypatch.setattr(contents, "file_hash", file_hash)
    rig = rigs()
    rig.drop("a.jpg")
    rig.until(lambda: rig.results() == ["a--painting.jpg"] and rig.idle())
    assert len(broken) > 2
    assert len(rig.executor.ran) == 2


@pytest.mark.parametrize("edited", [b"edited", b"phot\xf6"], ids=["of another size", "as large"])
def test_an_earlier_result_that_stays_unreadable_gets_the_new_one_beside_it(
    rigs, monkeypatch, edited
):
    monkeypatch.setattr(delivery, "UNREADABLE_SECONDS", 1.0)
    real, broken = contents.open_regular, []

    def open_regular(path):
        if broken and path in broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path)

    monkeypatch.setattr(contents, "open_regular", open_regular)
    rig = rigs()
    rig.paint("a.jpg")
    broken.append(rig.output / "a--painting.jpg")
    rig.drop("a.jpg", edited)
    rig.until(lambda: rig.counts() == {"superseded": 1, "publishing": 1})
    rig.until(lambda: rig.counts() == {"superseded": 1, "done": 1})
    assert rig.results() == ["a--painting.jpg", "a--painting~2.jpg"]
    assert len(rig.executor.ran) == 2


def test_an_earlier_result_in_another_format_that_stays_unreadable_holds_up_nothing(
    rigs, monkeypatch
):
    monkeypatch.setattr(delivery, "UNREADABLE_SECONDS", 1.0)
    rig = rigs()
    rig.paint("a.jpg")
    rig.extension = ".webp"
    broken = OSError(errno.EIO, os.strerror(errno.EIO))
    monkeypatch.setattr(outputs, "remove_earlier", Mock(side_effect=broken))
    rig.drop("a.jpg", b"edited")
    rig.until(lambda: rig.counts() == {"done": 1, "superseded": 1})
    assert outputs.remove_earlier.call_count > 1
    assert rig.results() == ["a--painting.jpg", "a--painting.webp"]


def test_only_what_may_be_a_result_is_read_for_one(tmp_path, monkeypatch):
    monkeypatch.setattr(inventory, "LARGEST_RESULT", 10)
    for name in ("a--ink.jpg", ".b--ink.jpg.1-owner.sw-tmp", "photo.jpg"):
        (tmp_path / name).write_bytes(b"small")
    (tmp_path / "c--ink.jpg").write_bytes(b"a large one")
    (tmp_path / "d--ink.jpg").symlink_to("a--ink.jpg")
    os.mkfifo(tmp_path / "e--ink.jpg")
    found = filter(None, find_results([tmp_path], lambda data: {"job_key": data.decode()}))
    assert [(key, path.name) for key, path, *_ in found] == [("small", "a--ink.jpg")]


def test_results_that_can_t_be_listed_are_not_taken_for_none(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    scandir = os.scandir

    def stale(path):
        if str(path).endswith("sub"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", stale)
    with pytest.raises(OutputError, match="sub can't be listed: Stale"):
        list(find_results([tmp_path], lambda data: {}))
    assert list(find_results([tmp_path / "none"], lambda data: {})) == []


def test_a_result_of_another_preset_whose_name_only_begins_like_that_is_none(ledger):
    ledger.rebuild([("old", Path("/out/a--ink-2.jpg"), "s", "d")])
    wanted = Planned("ink", "k", Path("/out/a--ink"))
    assert ledger.add(photo("a.jpg"), "d", "p", [wanted], stays=True)


# --- the same photo again ------------------------------------------------------------------------


def test_a_photo_whose_rights_change_brings_back_no_result_that_was_deleted(rigs):
    rig = rigs(rescan_seconds=1)
    path = rig.drop("a.jpg")
    rig.until(lambda: rig.results() and rig.idle())
    (rig.output / "a--painting.jpg").unlink()
    path.chmod(0o600)
    changed = Identity.of(path.stat())
    rig.until(lambda: rig.daemon._ledger.jobs()[0].identity == changed)
    rig.look_around()
    rig.until(rig.idle)
    assert (len(rig.executor.ran), rig.results()) == (1, [])


def test_a_photo_that_comes_again_goes_where_the_first_went(rigs, tmp_path):
    rig = rigs(start=False).with_folders({"after": tmp_path / "moved"}).start()
    for _ in range(2):
        path = rig.drop("a.jpg", b"same")
        rig.until(lambda path=path: not path.exists())
    assert len(rig.executor.ran) == 1


def test_a_photo_that_comes_again_is_painted_again_when_its_result_is_gone(rigs):
    rig = rigs(start=False).with_folders({"after": "delete"}).start()
    path = rig.drop("a.jpg")
    rig.until(lambda: not path.exists())
    (rig.output / "a--painting.jpg").unlink()
    path = rig.drop("a.jpg")
    rig.until(lambda: not path.exists())
    assert rig.results() == ["a--painting.jpg"]


def test_a_photo_that_comes_again_leaves_a_result_alone_that_was_touched_up_by_hand(rigs):
    rig = rigs()
    rig.paint("a.jpg")
    (rig.output / "a--painting.jpg").write_bytes(b"touched up")
    rig.daemon._next_look = math.inf  # not before we do: that it is pending would go unseen
    rig.drop("a.jpg")
    rig.until(rig.daemon._ledger.after_pending)
    rig.look_around()
    rig.until(lambda: rig.idle() and not rig.daemon._ledger.after_pending())
    assert rig.results() == ["a--painting.jpg"]
    assert len(rig.executor.ran) == 1


def test_a_photo_that_comes_again_waits_while_its_output_is_away(rigs, tmp_path):
    rig = rigs(start=False).with_folders({"after": "delete"}).start()
    path = rig.drop("a.jpg")
    rig.until(lambda: not path.exists())
    rig.output.rename(tmp_path / "aside")
    rig.output.write_bytes(b"")  # it can't be made either
    path = rig.drop("a.jpg")
    rig.until(rig.daemon._ledger.after_pending)
    rig.look_around()
    assert rig.counts() == {"done": 1}
    rig.output.unlink()
    (tmp_path / "aside").rename(rig.output)
    rig.look_around()
    assert not path.exists()
    assert rig.results() == ["a--painting.jpg"]
    assert len(rig.executor.ran) == 1


def test_a_photo_that_comes_again_waits_while_its_result_can_t_be_read(rigs, monkeypatch):
    rig = rigs(start=False)
    rig.with_folders({"after": "delete"}).start()
    path = rig.drop("a.jpg")
    rig.until(lambda: not path.exists())
    with monkeypatch.context() as patched:
        broken = Mock(side_effect=OSError(errno.EIO, os.strerror(errno.EIO)))
        patched.setattr(contents, "file_hash", broken)
        rig.drop("a.jpg")
        rig.until(lambda: any("Input/output error" in event.message for event in rig.events))
        assert path.exists()
    rig.until(lambda: not path.exists())
    assert len(rig.executor.ran) == 1


@pytest.mark.parametrize("why", ["the config is read again", "the ledger failed"])
def test_a_photo_that_was_deleted_before_the_scans_begin_anew_keeps_its_result(rigs, why):
    """They can't miss what they have not seen."""
    rig = rigs(rescan_seconds=1)
    photo = rig.paint("a.jpg", b"one")
    photo.unlink()
    if why == "the ledger failed":
        rig.daemon._drop_all(LedgerError("full"), told=False)
        rig.daemon.start(time.monotonic())
    else:
        rig.daemon.ask("reload")
    rig.until(lambda: rig.daemon._ledger.ask("SELECT 1 FROM files WHERE gone > 0"))
    rig.drop("a.jpg", b"two")
    rig.until(lambda: len(rig.executor.ran) == 2 and rig.idle())
    assert rig.results() == ["a--painting.jpg", "a--painting~2.jpg"]


def test_a_photo_whose_name_a_folder_had_for_a_while_keeps_its_result(rigs):
    rig = rigs(rescan_seconds=1)
    photo = rig.paint("a.jpg", b"one")
    photo.unlink()
    photo.mkdir()
    rig.until(lambda: rig.daemon._ledger.ask("SELECT 1 FROM files WHERE gone > 0"))
    photo.rmdir()
    rig.drop("a.jpg", b"two")
    rig.until(lambda: len(rig.executor.ran) == 2 and rig.idle())
    assert rig.results() == ["a--painting.jpg", "a--painting~2.jpg"]


def test_thousands_of_photos_deleted_before_the_scans_begin_anew_are_missed_by_the_first(
    rigs, monkeypatch
):
    """The ledger's own look through all photos takes an hour, so that no tick waits for it."""
    monkeypatch.setattr(scans, "TURN_SECONDS", math.inf)  # on a busy machine, too
    rig = rigs()
    rig.until(rig.idle)
    with rig.daemon._ledger.transaction():
        for number in range(6000):
            identity = Identity(1, number, 1, 1, 1)
            rig.daemon._ledger.note_file("in", Path(f"{number}.jpg"), identity)
    rig.daemon.ask("reload")
    for _ in range(5):
        rig.daemon.tick(time.monotonic())
    [(missed,)] = rig.daemon._ledger.ask("SELECT COUNT(*) FROM files WHERE gone > 0")
    assert missed == 6000


@pytest.mark.parametrize("after", ["keep", "delete"])
def test_a_result_that_is_gone_is_painted_again_beside_one_of_a_changed_preset(rigs, after):
    rig = rigs(start=False)
    rig.with_folders({"after": after, "preset": ("painting", "ink")})
    plain, versions = rig.config, ["one"]

    def config():
        presets = plain().presets
        ink = replace(presets["ink"], digest=versions[-1])
        return replace(plain(), presets={**presets, "ink": ink})

    rig.config = config
    rig.start()
    path = rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"done": 2} and path.exists() == (after == "keep"))
    (rig.output / "a--painting.jpg").unlink()
    versions.append("two")
    rig.daemon.ask("reload")
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"done": 2, "superseded": 1})
    rig.look_around()
    rig.until(lambda: rig.idle() and path.exists() == (after == "keep"))
    assert "a--painting.jpg" in rig.results()
    assert [preset for _, preset in rig.executor.ran].count("ink") == 2


def give_its_name_to_another(rig):
    """Take away the result of a.jpg; that of a.png gets its name, as both are called alike."""
    rig.paint("a.jpg")
    (rig.output / "a--painting.jpg").unlink()
    rig.drop("a.png", b"other")
    rig.until(lambda: rig.counts() == {"done": 2})


def test_a_result_is_gone_too_when_another_photo_s_has_its_name(rigs):
    rig = rigs()
    give_its_name_to_another(rig)
    assert rig.results() == ["a--painting.jpg"]
    rig.drop("a.jpg")
    rig.until(lambda: rig.results() == ["a--painting.jpg", "a--painting~2.jpg"])
    assert (rig.output / "a--painting~2.jpg").read_bytes() == b"painting:photo"


def test_a_result_whose_name_another_s_had_before_is_its_own_photo_s(rigs):
    """That was taken away: both photos are called alike, but for what they end in."""
    rig = rigs()
    give_its_name_to_another(rig)
    rig.daemon._next_look = math.inf  # not before we do: that it is pending would go unseen
    rig.drop("a.png", b"other")  # touched
    rig.until(rig.daemon._ledger.after_pending)
    rig.look_around()
    rig.until(lambda: rig.idle() and not rig.daemon._ledger.after_pending())
    assert len(rig.executor.ran) == 2
    rig.drop("a.png", b"edited")
    rig.until(lambda: rig.counts() == {"done": 2, "superseded": 1})
    assert rig.results() == ["a--painting.jpg"]
    assert (rig.output / "a--painting.jpg").read_bytes() == b"painting:edited"


def test_so_it_is_found_after_a_kill(rigs, monkeypatch):
    rig = rigs()
    rig.paint("a.jpg")
    (rig.output / "a--painting.jpg").unlink()
    rig.drop("a.png", b"other")
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "done", Mock(side_effect=Killed))
        with pytest.raises(Killed):
            rig.until(lambda: False)
    rig.daemon._end()
    again = rigs()
    again.until(lambda: again.counts() == {"done": 2})
    assert (again.results(), again.executor.ran) == (["a--painting.jpg"], [])


def test_bytes_that_come_back_replace_their_own_result(rigs):
    def behave(request):
        return (
            ends_with(FailureKind.BAD_INPUT)(request)
            if b"bad" in request.source.read_bytes()
            else None
        )

    rig = rigs(behave)
    rig.paint("a.jpg", b"good")
    rig.drop("a.jpg", b"bad!")
    rig.until(lambda: "quarantined" in rig.counts())
    first = (rig.output / "a--painting.jpg").read_bytes()
    rig.executor.suffix = b", painted anew"  # no two runs write the same bytes
    rig.drop("a.jpg", b"good")
    rig.until(lambda: (rig.output / "a--painting.jpg").read_bytes() != first)
    assert rig.results() == ["a--painting.jpg"]


def test_a_photo_stays_whose_result_was_damaged_before_it_could_be_deleted(rigs, stuck):
    rig = rigs(start=False, rescan_seconds=1)
    rig.with_folders({"after": "delete"}).start()
    photo, other = rig.drop("a.jpg"), rig.drop("b.jpg", b"other")
    rig.until(lambda: rig.counts() == {"done": 2})
    (rig.output / "a--painting.jpg").write_bytes(b"")
    stuck.clear()
    rig.daemon.ask("reload")
    rig.until(lambda: any(event.reason == "damaged" for event in rig.events))
    end = time.monotonic() + 1
    rig.until(lambda: time.monotonic() > end)
    assert (photo.exists(), other.exists()) == (True, False)
    assert len(rig.executor.ran) == 2
    warnings = [event.reason for event in rig.events if event.kind == "warning"]
    assert warnings == ["after", "after", "damaged"]
    os.utime(photo)
    rig.until(lambda: not photo.exists())
    assert (rig.output / "a--painting~2.jpg").read_bytes() == b"painting:photo"


def test_a_photo_stays_while_its_result_can_t_be_read(rigs, stuck, monkeypatch):
    rig = rigs(start=False).with_folders({"after": "delete"}).start()
    photo = rig.paint("a.jpg")
    stuck.clear()
    with monkeypatch.context() as patched:
        broken = OSError(errno.EIO, os.strerror(errno.EIO))
        patched.setattr(contents, "file_hash", Mock(side_effect=broken))
        rig.daemon._delivery.forget_pauses()
        rig.look_around()
        contents.file_hash.assert_called()
        assert photo.exists()
    rig.until(lambda: not photo.exists())


@pytest.mark.parametrize("restart", [False, True])
def test_a_result_taken_away_before_its_photo_could_be_moved_is_not_painted_again(
    rigs, stuck, tmp_path, restart
):
    rig = rigs(start=False)
    rig.with_folders({"after": tmp_path / "moved"}).start()
    photo = rig.paint("a.jpg")
    (rig.output / "a--painting.jpg").rename(tmp_path / "mine.jpg")
    if restart:
        rig.stop()
        rig.start()
    else:
        rig.daemon.ask("reload")
    rig.look_around()
    stuck.clear()
    rig.until(lambda: not photo.exists())
    assert (tmp_path / "moved" / "a.jpg").exists()
    assert len(rig.executor.ran) == 1


# --- folders and configs -------------------------------------------------------------------------


def test_two_folders_of_one_name_are_two_folders(rigs, tmp_path):
    ran = []
    for name in ("one", "two", "one"):
        (tmp_path / name).mkdir(exist_ok=True)
        rig = rigs(base=tmp_path / name, state_dir=str(tmp_path / "state"), start=False)
        rig.drop("a.jpg", b"the same photo") if not (rig.input / "a.jpg").exists() else None
        rig.start()
        rig.until(lambda rig=rig: rig.results() == ["a--painting.jpg"] and rig.idle())
        rig.daemon.stop()
        ran.append(len(rig.executor.ran))
    assert ran == [1, 0, 0]  # the second is a copy of the first, the third is known


@pytest.fixture
def elsewhere(rigs, tmp_path):
    """Makes daemons with one ledger over folders of the same names in other places."""

    def make(place, start=True, **values):
        (tmp_path / place).mkdir(exist_ok=True)
        state = str(tmp_path / "state")
        rig = rigs(base=tmp_path / place, state_dir=state, start=False, rescan_seconds=1)
        rig.with_folders(values)
        return rig.start() if start else rig

    return make


@pytest.mark.parametrize(("digest", "grain"), [("", 1), ("changed", 1), ("changed", 10**9)])
def test_photos_and_results_that_were_copied_to_another_disk_are_not_painted_again(
    elsewhere, tmp_path, digest, grain
):
    """By whatever their preset is now, and to a disk that keeps whole seconds."""
    rig = elsewhere("old")
    rig.drop("sub/a.jpg")
    rig.until(lambda: rig.results() == ["sub/a--painting.jpg"] and rig.idle())
    rig.stop()
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    shutil.rmtree(tmp_path / "old")
    copy = tmp_path / "new/in/sub/a.jpg"
    os.utime(copy, ns=(0, copy.stat().st_mtime_ns // grain * grain))
    rig = elsewhere("new", start=False)
    plain = rig.config()
    presets = {name: replace(each, digest=digest) for name, each in plain.presets.items()}
    rig.config = lambda: replace(plain, presets=presets) if digest else plain
    rig.start()
    copied = Identity.of((rig.input / "sub/a.jpg").stat())
    rig.until(lambda: [job.identity for job in rig.daemon._ledger.jobs()] == [copied])
    rig.until(rig.idle)
    assert (rig.results(), rig.executor.ran) == (["sub/a--painting.jpg"], [])
    [job] = rig.daemon._ledger.jobs()
    assert (job.state, job.output) == (JobState.DONE, rig.output / "sub/a--painting.jpg")
    os.utime(rig.input / "sub/a.jpg", (0, 1_000_000_000))  # not within the seconds that are cut
    rig.until(lambda: len(rig.executor.ran) == bool(digest) and rig.idle())
    assert rig.results() == ["sub/a--painting.jpg"]


@pytest.mark.parametrize("before", ["nothing", "a mount point"])
def test_so_they_are_known_where_that_disk_comes_after_the_config(elsewhere, tmp_path, before):
    rig = elsewhere("old")
    rig.paint("a.jpg")
    rig.until(rig.idle)
    rig.stop()
    shutil.copytree(tmp_path / "old", tmp_path / "disk")
    shutil.rmtree(tmp_path / "old")
    rig = elsewhere("new", start=False)
    plain = rig.config()
    presets = {name: replace(each, digest="changed") for name, each in plain.presets.items()}
    rig.config = lambda: replace(plain, presets=presets)
    (tmp_path / "disk/out").rename(rig.output)
    if before == "nothing":
        rig.input.rmdir()
    rig.start()
    state = "missing" if before == "nothing" else "watching"
    rig.until(lambda: [each.state for each in rig.daemon._health(time.monotonic())] == [state])
    (tmp_path / "disk/in").rename(rig.input)
    copied = Identity.of((rig.input / "a.jpg").stat())
    rig.until(lambda: [job.identity for job in rig.daemon._ledger.jobs()] == [copied])
    rig.until(rig.idle)
    assert (rig.results(), rig.executor.ran) == (["a--painting.jpg"], [])
    [job] = rig.daemon._ledger.jobs()
    assert (job.folder, job.output) == ("in", rig.output / "a--painting.jpg")


def test_photos_that_were_copied_without_their_results_get_them(elsewhere, tmp_path):
    rig = elsewhere("old")
    rig.paint("a.jpg")
    rig.stop()
    shutil.copytree(rig.input, tmp_path / "new/in")
    rig = elsewhere("new")
    rig.until(lambda: rig.results() == ["a--painting.jpg"])


def test_another_folder_of_the_same_name_with_some_of_the_photos_has_results_of_its_own(
    elsewhere, tmp_path
):
    rig = elsewhere("old", output=tmp_path / "out")
    for name in ("logo.jpg", "IMG_1.jpg"):
        rig.drop(name, b"of the first")
    rig.until(lambda: rig.counts() == {"done": 2} and rig.idle())
    rig.stop()
    shutil.copytree(rig.input, tmp_path / "new/in")
    (tmp_path / "new/in/IMG_1.jpg").write_bytes(b"of the second")
    rig = elsewhere("new", output=tmp_path / "out")
    rig.until(lambda: len(rig.results()) == 4 and rig.idle())
    assert (rig.output / "IMG_1--painting.jpg").read_bytes() == b"painting:of the first"
    assert (rig.output / "IMG_1--painting~2.jpg").read_bytes() == b"painting:of the second"


def test_a_folder_keeps_its_past_when_it_is_moved_or_called_otherwise(ledger):
    ledger.note_folder("in", Path("/one"), (1, 10))
    ledger.add(photo(), "d", "p", [planned()])
    for name, path, inode, moved in [
        ("in", "/moved", (1, 10), "in"),
        ("photos", "/moved", (1, 10), None),
        ("photos", "/moved", (2, 77), None),  # another disk, mounted at the same place
        ("photos", "/moved", None, None),
    ]:
        ledger.note_folder(name, Path(path), inode, moved)
        assert list(ledger.counts()) == [name]
    ledger.note_folder("photos", Path("/another"), (1, 11))
    assert list(ledger.counts()) == ["photos (/moved)"]
    ledger.note_folder("photos", Path("/moved"), None)
    assert list(ledger.counts()) == ["photos"]


def test_what_is_known_of_a_folder_is_not_written_again(ledger):
    for known in [("in", Path("/in"), None), ("in", Path("/in"), (1, 10), None, "disk")]:
        ledger.note_folder(*known)
        before = ledger.changes
        ledger.note_folder(*known)
        assert ledger.changes == before
    ledger.note_folder("in", Path("/in"), (1, 10))
    assert ledger.changes == before, "where its disk is not known, it is the same"


def test_a_folder_whose_name_is_no_text_is_watched_like_any_other(rigs, tmp_path):
    rig = rigs(start=False)
    rig.input = tmp_path / os.fsdecode(b"caf\xe9")
    rig.input.mkdir()
    rig.start()
    rig.drop("a.jpg")
    rig.until(lambda: rig.results() == ["a--painting.jpg"])


def test_queued_photos_follow_an_output_that_was_moved(rigs, tmp_path):
    rig = rigs()
    rig.queue("a.jpg")
    rig.with_folders({"output": tmp_path / "elsewhere"})
    rig.daemon.ask("reload")
    rig.daemon.ask("resume")
    rig.until((tmp_path / "elsewhere" / "a--painting.jpg").exists)


@pytest.mark.parametrize(
    "moved", ["with its photos", "alone", "not at all", "in part", "another of the name"]
)
def test_results_that_were_moved_are_told_where_they_lie(rigs, tmp_path, moved):
    """And are known there: the same photo gets a copy, and nothing is painted again."""
    rig = rigs()
    for name in ("a.jpg", os.fsdecode(b"sub/\xff/b.jpg")):
        rig.drop(name, name.encode(errors="surrogateescape"))
    rig.until(lambda: rig.counts() == {"done": 2})
    names = rig.results()
    rig.stop()
    elsewhere = tmp_path / "new/out"
    if moved in {"not at all", "in part"}:
        elsewhere.mkdir(parents=True)
        if moved == "in part":
            (rig.output / "sub").rename(elsewhere / "sub")
    else:
        elsewhere.parent.mkdir()
        rig.output.rename(elsewhere)
    if moved == "another of the name":
        for name in names:
            (elsewhere / name).write_bytes(b"of another")
    if moved == "with its photos":
        rig.input.rename(tmp_path / "new/in")
        rig.input = tmp_path / "new/in"
    before = rig.output
    rig.with_folders({"output": elsewhere}).start()
    told = {str(job.output) for job in rig.daemon._ledger.jobs()}
    follows = moved in {"with its photos", "alone"}
    assert told == {str((elsewhere if follows else before) / name) for name in names}
    rig.drop("same.jpg", b"a.jpg")
    rig.until(rig.idle)
    rig.until(lambda: rig.counts() == {"done": 3})
    ran = [name for name, _ in rig.executor.ran[2:]]
    assert ran == (["same.jpg"] if moved == "another of the name" else [])


@pytest.mark.parametrize("running", [False, True])
def test_a_folder_that_was_moved_when_all_in_it_was_painted_keeps_its_past(rigs, tmp_path, running):
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "in").mkdir(parents=True)
    rig = rigs(start=False)
    rig.input = old / "in"
    rig.with_folders({"output": old / "out", "after": old / "painted"}).start()
    rig.drop("a.jpg", b"one")
    rig.until((old / "painted/a.jpg").exists)
    if not running:
        rig.stop()
    old.rename(new)
    if running:
        away = ["missing"]
        rig.until(lambda: [each.state for each in rig.daemon._health(time.monotonic())] == away)
    rig.input = new / "in"
    rig.with_folders({"output": new / "out", "after": new / "painted"})
    if running:
        rig.daemon.ask("reload")
    else:
        rig.start()
    rig.drop("b.jpg", b"one")
    rig.until((new / "painted/b.jpg").exists)
    assert rig.daemon._ledger.places() == {"in": new / "in"}
    told = {str(job.path): job.output for job in rig.daemon._ledger.jobs()}
    assert told == {name: new / f"out/{name[0]}--painting.jpg" for name in ("a.jpg", "b.jpg")}
    assert [name for name, _ in rig.executor.ran] == ["a.jpg"]  # the other got a copy


def test_a_folder_with_the_number_of_one_that_was_deleted_is_no_moved_one(rigs, tmp_path):
    """A disk gives it again at once: the photos of a second try were taken for painted."""
    rig = rigs(rescan_seconds=1)

    def drop():
        os.utime(rig.drop("a.jpg"), (1e9, 1e9))

    drop()
    rig.until(lambda: rig.counts() == {"done": 1})
    shutil.rmtree(rig.input)
    shutil.rmtree(rig.output)
    rig.until(lambda: rig.daemon._ledger.ask("SELECT 1 FROM files WHERE gone > 0"))
    rig.input = tmp_path / "in2"
    rig.input.mkdir()
    inode = Identity.of(rig.input.stat()).inode
    rig.daemon._ledger.change("UPDATE folders SET dev = ?, ino = ?", *inode)
    rig.with_folders({"output": tmp_path / "out2"})
    rig.asked("reload")
    drop()
    rig.until(lambda: rig.results() == ["a--painting.jpg"])


def test_a_config_whose_folder_another_daemon_has_changes_nothing(rigs, tmp_path):
    (tmp_path / "other").mkdir()
    other, rig = rigs(base=tmp_path / "other"), rigs()
    before = rig.daemon.config
    rig.with_folders({"input": other.input})
    answer = rig.daemon.ask("reload")
    rig.daemon.tick(time.monotonic())
    assert isinstance(answer.exception(0), LockedError)
    assert rig.daemon.config is before
    assert any(event.message.startswith("the old config goes on") for event in rig.events)
    assert rig.daemon._status()["refused"] == str(answer.exception(0))
    rig.daemon.ask("reload")
    rig.daemon.tick(time.monotonic())
    assert [event.reason for event in rig.events].count(REFUSED) == 1, "it is tried again and again"
    rig.with_folders({"input": before.folders[0].input})
    rig.asked("reload")
    assert rig.daemon._status()["refused"] == ""
    rig.drop("a.jpg")
    rig.until(lambda: rig.results() == ["a--painting.jpg"])


def test_a_folder_taken_out_of_the_config_is_free_for_another_daemon(rigs, tmp_path):
    rig = rigs()
    (tmp_path / "new").mkdir()
    rig.with_folders({"input": tmp_path / "new"})
    rig.asked("reload")
    other = rigs(state_dir=str(tmp_path / "other"))
    assert other.daemon._locks._held


def test_another_engine_is_taken_up_once_what_runs_has_ended(rigs):
    go, opened = threading.Event(), []
    rig = rigs(lambda request: go.wait(60) and None)
    plain = rig.config

    def open_executor(config, on_event):
        opened.append((config.engine.threads, ThreadExecutor()))
        return opened[-1][1]

    rig.open_executor = open_executor
    rig.drop("a.jpg", b"a")
    rig.until(lambda: rig.executor.ran)
    rig.daemon._load = lambda: replace(plain(), engine=EngineSettings(threads=3))
    rig.daemon.ask("reload")
    rig.drop("b.jpg", b"b")
    rig.until(lambda: rig.counts() == {"running": 1, "ready": 1})
    [(threads, follower)] = opened
    assert (threads, follower.ran) == (3, [])
    go.set()
    rig.until(lambda: rig.counts() == {"done": 2})
    assert follower.ran == [("b.jpg", "painting")]


def test_a_pause_that_is_over_does_not_keep_a_daemon_with_full_hands_busy(ledger):
    ledger.add(photo(), "d", "p", [planned()])
    ledger.claim("in")
    ledger.fail(1, failure(FailureKind.TRANSIENT, "eio"), 3)
    assert ledger.next_due() > ledger._clock.now
    ledger._clock.now += 60
    assert ledger.next_due() is None


# --- with real workers ---------------------------------------------------------------------------


@pytest.mark.usefixtures("light_workers")
def test_photos_are_painted_in_processes_of_their_own_and_a_crash_costs_one(rigs):
    rig = rigs(start=False)
    rig.open_executor = lambda config, tell: LocalExecutor(config.engine, tell, workers=2)
    rig.run_job, rig.settings["max_attempts"] = jobs.copy_or_crash, 1
    rig.start()
    for name in ("a.jpg", "crash.jpg", "sub/b.jpg"):
        rig.drop(name, name.encode())
    rig.until(lambda: rig.counts() == {"done": 2, "quarantined": 1}, 60)
    [crashed] = rig.daemon._ledger.jobs([JobState.QUARANTINED])
    assert (str(crashed.path), crashed.reason, crashed.attempts) == ("crash.jpg", "crash", 1)
    assert (rig.output / "sub/b--painting.jpg").read_bytes() == b"sub/b.jpg"


@pytest.mark.usefixtures("light_workers")
def test_a_photo_whose_idle_worker_was_killed_is_painted_by_another(rigs):
    rig, opened = rigs(start=False), []

    def open_executor(config, tell):
        opened.append(LocalExecutor(config.engine, tell))
        return opened[0]

    rig.open_executor, rig.run_job = open_executor, jobs.copy_or_crash
    rig.start()
    os.kill(opened[0].submit(0, jobs.pid).result(60), signal.SIGKILL)
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"done": 1})
    [done] = rig.daemon._ledger.jobs([JobState.DONE])
    assert done.crashes == 0
    assert [each.reason for each in rig.events if each.kind == "warning"] == ["engine-lost"]


def test_nothing_is_written_where_an_output_s_disk_is_only_mounted(rigs, disk):
    rig = rigs(start=False).with_folders({"output": disk.mount / "out", "after": "delete"}).start()
    rig.drop("a.jpg")
    rig.until(lambda: rig.results() == ["a--painting.jpg"] and rig.idle())
    disk.unplug()
    rig.drop("b.jpg", b"b")
    rig.until(lambda: rig.counts() == {"done": 1, "blocked": 1})
    (health,) = rig.daemon._status()["folders"]
    assert (health.state, health.detail) == ("blocked", f"{rig.output} is not there")
    assert rig.daemon._status()["blocked"] == {str(rig.output): "away"}
    rig.look_around()
    assert list(disk.mount.iterdir()) == []
    assert (rig.input / "b.jpg").exists()
    assert [event.reason for event in rig.events if event.kind == "blocked"] == ["away"]
    disk.plug()
    rig.until(lambda: rig.results() == ["a--painting.jpg", "b--painting.jpg"])
    rig.until(lambda: list(rig.input.iterdir()) == [])


def test_results_on_a_disk_that_is_away_when_the_ledger_is_damaged_are_not_painted_again(
    rigs, disk, tmp_path
):
    rig = results_that_tell_of_themselves(rigs(start=False))
    rig.with_folders({"output": disk.mount / "out"}).start()
    rig.paint("a.jpg")
    rig.stop()
    rig.executor.ran.clear()
    damage_the_jobs(tmp_path / "state" / "ledger.db")
    disk.unplug()
    for _ in range(2):  # also once the damaged one is out of the way
        with pytest.raises(OutputError, match="nothing is mounted on .* A new ledger"):
            rig.start()
    disk.plug()
    rig.start()
    rig.until(lambda: rig.counts() == {"done": 1})
    assert (rig.results(), rig.executor.ran) == (["a--painting.jpg"], [])


def test_an_output_that_was_moved_to_another_disk_for_good_goes_on(rigs, disk, tmp_path):
    disk.mounted = tmp_path / "out"
    rig = rigs()
    rig.drop("a.jpg")
    rig.until(lambda: rig.results() == ["a--painting.jpg"])
    disk.mounted = tmp_path  # with all that was on it
    rig.drop("b.jpg", b"b")
    rig.until(lambda: rig.results() == ["a--painting.jpg", "b--painting.jpg"])
    assert tmp_path / "out" not in rig.daemon._ledger.mounts()


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("link", [False, True])
def test_what_else_lies_where_a_disk_was_mounted_does_not_stand_for_it(rigs, disk, tmp_path, link):
    disk.mount.mkdir()
    (tmp_path / "link").symlink_to(disk.mount)
    output = (tmp_path / "link" if link else disk.mount) / "out"
    rig = rigs(start=False).with_folders({"output": output, "after": "delete"}).start()
    rig.drop("a.jpg")
    rig.until(lambda: rig.results() == ["a--painting.jpg"] and rig.idle())
    disk.unplug()
    output.mkdir()
    strange = [disk.mount / "note.txt", disk.mount / "out" / ".in-the-making"]
    for file in strange:
        file.touch()
    photo = rig.drop("b.jpg", b"b")
    rig.until(lambda: rig.counts() == {"done": 1, "blocked": 1})
    rig.look_around()
    assert sorted(files_below(disk.mount)) == sorted(strange)
    assert photo.exists()


def test_a_result_is_not_gone_while_its_disk_is_away_though_the_output_is_another(
    rigs, disk, tmp_path
):
    rig = rigs(start=False).with_folders({"output": disk.mount / "out", "after": "delete"}).start()
    photo = rig.drop("a.jpg")
    rig.until(lambda: not photo.exists())
    rig.with_folders({"output": tmp_path / "new", "after": "delete"})
    rig.daemon.ask("reload")
    disk.unplug()
    rig.drop("a.jpg")
    rig.until(lambda: any(event.reason == "away" for event in rig.events))
    rig.look_around()
    assert photo.exists()
    assert rig.counts() == {"done": 1}
    disk.plug()
    rig.until(lambda: not photo.exists())
    assert len(rig.executor.ran) == 1


@pytest.mark.parametrize("use", ["output", "after"])
def test_a_disk_is_missed_though_nothing_was_written_there_yet(rigs, disk, use):
    disk.mount.mkdir()
    rig = rigs(start=False)
    rig.with_folders({"after": "delete", use: disk.mount / "folder"}).start()
    disk.unplug()
    photo = rig.drop("a.jpg")
    rig.until(lambda: any(event.reason in {"away", "after"} for event in rig.events))
    rig.look_around()
    assert files_below(disk.mount) == []
    assert photo.exists()
    disk.plug()
    rig.until(lambda: not photo.exists())
    assert len(files_below(disk.mount / "folder")) == 1
    assert len(rig.executor.ran) == 1


def test_a_disk_that_goes_away_while_a_photo_is_moved_there_gets_it_when_it_is_back(
    rigs, disk, monkeypatch
):
    disk.mount.mkdir()
    real, moves = painted.make_folder, []

    def make_folder(folder):
        if not moves:
            disk.unplug()  # nothing has seen that yet
        moves.append(folder)
        real(folder)

    monkeypatch.setattr(painted, "make_folder", make_folder)
    rig = rigs(start=False, rescan_seconds=1)
    rig.with_folders({"after": disk.mount / "moved"}).start()
    photo = rig.drop("a.jpg")
    rig.until(lambda: any(event.reason == "away" for event in rig.events))
    rig.look_around()
    assert files_below(disk.mount) == []
    assert photo.exists()
    disk.plug()
    rig.until(lambda: not photo.exists())
    assert files_below(disk.mount) == [disk.mount / "moved" / "a.jpg"]
    assert len(rig.executor.ran) == 1


def test_a_photo_lies_on_the_disk_that_goes_away_when_its_folder_there_is_held(
    rigs, disk, monkeypatch
):
    """As with `umount --lazy`: without that it is busy as long as the folder is held."""
    disk.mount.mkdir()
    real = painted._move

    def move(*arguments):
        disk.unplug()
        real(*arguments)

    monkeypatch.setattr(painted, "_move", move)
    rig = rigs(start=False).with_folders({"after": disk.mount / "moved"}).start()
    photo = rig.drop("a.jpg")
    rig.until(lambda: not photo.exists())
    assert files_below(disk.mount) == []
    assert files_below(disk.aside) == [disk.aside / "moved" / "a.jpg"]


def test_a_disk_is_missed_though_the_config_names_another_folder_on_it(rigs, disk):
    rig = rigs(start=False)
    rig.with_folders({"output": disk.mount / "one", "after": "delete"}).start()
    rig.paint("a.jpg")
    disk.unplug()
    rig.with_folders({"output": disk.mount / "two", "after": "delete"})
    rig.daemon.ask("reload")
    photo = rig.drop("b.jpg", b"b")
    rig.until(lambda: "blocked" in rig.counts())
    assert files_below(disk.mount) == []
    disk.plug()
    rig.until(lambda: not photo.exists())
    assert rig.results() == ["b--painting.jpg"]


def test_a_disk_is_missed_on_which_only_a_part_of_the_output_lies(rigs, disk, tmp_path):
    disk.mounted = disk.mount = tmp_path / "out" / "sub"
    disk.aside = tmp_path / "unplugged"
    rig = rigs(start=False)
    rig.with_folders({"after": "delete"}).start()
    rig.paint("sub/a.jpg")
    disk.unplug()
    photo = rig.drop("sub/b.jpg", b"b")
    rig.until(lambda: "blocked" in rig.counts())
    rig.drop("c.jpg", b"c")
    rig.until(lambda: rig.results() == ["c--painting.jpg"])
    rig.until(lambda: rig.daemon._ledger.jobs([JobState.BLOCKED])[0].attempts > 2)
    assert photo.exists()
    assert [event.reason for event in rig.events if event.kind == "blocked"] == ["away"]
    disk.plug()
    rig.until(lambda: not photo.exists())
    assert rig.results() == [f"{name}--painting.jpg" for name in ("c", "sub/a", "sub/b")]


def test_a_disk_that_goes_away_while_the_output_is_changed_gets_no_result_below_it(
    rigs, disk, tmp_path
):
    started, go = threading.Event(), threading.Event()
    rig = rigs(lambda request: started.set() or go.wait(60) and None, start=False)
    rig.with_folders({"output": disk.mount, "after": "delete"}).start()
    photo = rig.drop("a.jpg")
    rig.until(started.is_set)
    rig.with_folders({"output": tmp_path / "new", "after": "delete"})
    rig.asked("reload")
    disk.unplug()
    go.set()
    rig.until(lambda: not photo.exists())
    assert files_below(disk.mount) == []
    assert rig.results() == ["a--painting.jpg"]


@pytest.mark.parametrize("then", ["the disk is back", "it is to go on without"])
def test_a_result_that_was_named_before_a_kill_is_waited_for_while_its_disk_is_away(
    rigs, disk, monkeypatch, then
):
    def killed(step):
        if step == "publication.published" and not rig.executor.suffix:
            raise KeyboardInterrupt

    monkeypatch.setattr(publication, "failpoint", killed)
    rig = rigs(start=False)
    rig.with_folders({"output": disk.mount}).start()
    rig.drop("a.jpg")
    with pytest.raises(KeyboardInterrupt):
        rig.until(lambda: False)
    rig.daemon._end()
    rig.executor.suffix = b", painted anew"
    disk.unplug()
    rig.start()
    rig.look_around()
    assert rig.counts() == {"publishing": 1}
    if then == "the disk is back":
        disk.plug()
    else:
        (disk.mount / "go on").touch()
    rig.until(lambda: rig.counts() == {"done": 1})
    assert "a--painting.jpg" in rig.results()
    assert len(rig.executor.ran) == 1 + (then != "the disk is back")


def test_an_output_that_is_read_only_for_a_while_waits_as_a_whole(rigs, monkeypatch):
    forbidden = [True]
    monkeypatch.setattr(outputs, "can_be_written", lambda folder: not forbidden)
    rig = rigs()
    rig.output.mkdir()
    for number in range(5):
        rig.drop(f"{number}.jpg", b"%d" % number)
    rig.until(lambda: rig.counts() == {"blocked": 1, "ready": 4})
    rig.look_around()
    (health,) = rig.daemon._status()["folders"]
    assert (health.state, health.detail) == ("blocked", f"{rig.output} can't be written")
    assert rig.daemon._status()["blocked"] == {str(rig.output): "forbidden"}
    assert [event.reason for event in rig.events if event.kind == "blocked"] == ["forbidden"]
    assert rig.executor.ran == []
    forbidden.clear()
    rig.until(lambda: rig.counts() == {"done": 5})
    assert len(rig.executor.ran) == 5


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
@pytest.mark.parametrize(
    ("closed", "opened", "why"),
    [
        ("ro", "rw", "can't be written"),
        ("size=64k", "size=9m", "less than the 1 MB of `min_free` are free"),
    ],
)
@pytest.mark.parametrize("name", ["sub/a.jpg", "sub/new/a.jpg"])
def test_a_part_of_an_output_that_can_t_be_written_keeps_no_other_photo_waiting(
    rigs, name, closed, opened, why
):
    rig = rigs(min_free=1_000_000)
    sub = rig.output / "sub"
    sub.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", closed, "tmpfs", str(sub)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        rig.drop(name, b"one")
        rig.until(lambda: rig.counts() == {"blocked": 1})
        rig.drop("b.jpg", b"two")
        rig.drop(name.replace("a.jpg", "c.jpg"), b"three")
        rig.until(lambda: rig.look_around(1) or rig.results() == ["b--painting.jpg"])
        rig.until(lambda: rig.counts() == {"blocked": 1, "done": 1, "ready": 1})
        assert [ran for ran, _ in rig.executor.ran] == ["b.jpg"]  # nothing is painted in vain
        told = [event.message for event in rig.events if event.kind == "blocked"]
        assert len(told) == 1
        assert str(sub) in told[0]
        assert why in told[0]
        subprocess.run(["mount", "-o", f"remount,{opened}", str(sub)], check=True)
        rig.until(lambda: rig.counts() == {"done": 3})
    finally:
        rig.stop()
        subprocess.run(["umount", str(sub)], check=True)


@pytest.mark.parametrize(
    ("kind", "state"),
    [(FailureKind.BAD_INPUT, "quarantined"), (FailureKind.TRANSIENT, "retry-wait")],
)
def test_a_photo_that_failed_and_was_taken_away_is_no_longer_shown_and_may_come_back(
    rigs, kind, state
):
    rig = rigs(lambda request: ends_with(kind)(request) if bad else None, rescan_seconds=1)
    rig.daemon._ledger._rng = Mock(uniform=lambda least, most: 3600.0)
    bad = [True]
    path = rig.drop("a.jpg", b"bad")
    rig.until(lambda: rig.counts() == {state: 1} and problems_told(rig))
    aside = rig.root / "aside.jpg"
    path.rename(aside)
    rig.until(lambda: rig.counts() == {"vanished": 1} and not problems_told(rig))
    assert rig.daemon._ledger.retry() == 0
    bad.clear()
    aside.rename(path)
    rig.until(lambda: rig.counts() == {"done": 1})


def test_what_failed_is_over_where_another_preset_finds_its_photo_gone_before_a_scan_does(rigs):
    def behave(request):
        if request.preset.name == "painting":
            return ends_with(FailureKind.BAD_INPUT)(request)
        request.source.unlink()
        return ends_with(FailureKind.CHANGED, "vanished")(request)

    rig = rigs(behave, start=False, rescan_seconds=3600)
    rig.with_folders({"preset": ("painting", "ink")}).start()
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"vanished": 2})
    assert len(rig.executor.ran) == 2


@pytest.mark.parametrize("sub", ["", "sub/"])
def test_a_disk_that_goes_away_while_a_photo_is_painted_gets_its_result_when_it_is_back(
    rigs, disk, sub
):
    started, go = threading.Event(), threading.Event()

    def behave(request):
        if request.source.name == "b.jpg":
            started.set()
            go.wait(60)

    rig = rigs(behave, start=False).with_folders({"output": disk.mount, "after": "delete"}).start()
    rig.drop("a.jpg")
    rig.until(lambda: rig.results() == ["a--painting.jpg"] and rig.idle())
    rig.drop(f"{sub}b.jpg", b"b")
    rig.until(started.is_set)
    rig.drop(f"{sub}c.jpg", b"c")
    rig.until(lambda: rig.counts().get("ready") == 1)
    disk.unplug()
    go.set()
    rig.until(lambda: rig.daemon._status()["blocked"] == {str(disk.mount): "away"})
    rig.look_around()
    assert [path for path in disk.mount.rglob("*") if path.is_file()] == []
    assert (rig.input / f"{sub}b.jpg").exists()
    disk.plug()
    rig.until(lambda: len(rig.results()) == 3)
    assert rig.results() == sorted(["a--painting.jpg", *(f"{sub}{n}--painting.jpg" for n in "bc")])


def test_what_is_wrong_with_a_preset_shows_after_a_reload(rigs, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "waves.png").write_bytes(b"x")
    (mine / "own.yaml").write_text("style: waves.png")
    rig = rigs(presets=[str(mine)])
    (mine / "own.yaml").write_text("style: wave.png")
    rig.asked("reload")
    (problem,) = problems_told(rig)
    assert "wave.png" in problem


def test_a_result_on_a_disk_that_is_away_at_the_start_is_not_painted_again(rigs, disk, stuck):
    rig = rigs(start=False).with_folders({"output": disk.mount, "after": "delete"}).start()
    rig.paint("a.jpg")
    rig.daemon.stop()
    disk.unplug()
    stuck.clear()
    rig.start()
    rig.look_around()
    assert rig.counts() == {"done": 1}
    disk.plug()
    rig.until(lambda: not list(rig.input.iterdir()))
    assert len(rig.executor.ran) == 1


def test_what_failed_is_not_forgotten_in_the_moment_in_which_its_disk_goes_away(rigs, tmp_path):
    rig = rigs(ends_with(FailureKind.BAD_INPUT))
    for number in range(3):
        rig.drop(f"{number}.jpg", b"%d" % number)
    rig.until(lambda: rig.counts() == {"quarantined": 3})
    rig.input.rename(tmp_path / "aside")
    rig.input.mkdir()
    source = rig.daemon._intake.ways["in"].source
    source._next_root = time.monotonic() + 60  # nothing tells of it
    source._scans.listing.missed.update(f"{number}.jpg" for number in range(3))
    rig.daemon._intake.tick(time.monotonic())
    assert len(rig.daemon._ledger.ask("SELECT 1 FROM files WHERE gone > 0")) == 3
    assert rig.counts() == {"quarantined": 3}


def test_what_failed_and_was_deleted_while_its_disk_was_away_is_no_longer_shown(rigs, tmp_path):
    rig = rigs(ends_with(FailureKind.BAD_INPUT))
    for name in ("a.jpg", "b.jpg"):
        rig.drop(name, name.encode())
    rig.until(lambda: rig.counts() == {"quarantined": 2})
    rig.input.rename(tmp_path / "aside")
    gone = "SELECT 1 FROM files WHERE gone > 0"
    rig.until(lambda: len(rig.daemon._ledger.ask(gone)) == 2)
    assert rig.counts() == {"quarantined": 2}
    (tmp_path / "aside/a.jpg").unlink()
    (tmp_path / "aside").rename(rig.input)
    rig.until(lambda: rig.counts() == {"quarantined": 1, "vanished": 1})


def test_failures_are_listed_before_what_is_ignored(rigs):
    ledger = rigs().daemon._ledger
    ledger.note_file("in", Path("real.jpg"), Identity(1, 2, 3, 4, 5), "", "truncated")
    for number in range(60):
        ledger.note_file("in", Path(f"{number}.xmp"), Identity(1, 9, 3, 4, 5), "", "no-photo")
    assert ledger.notes(50)[0] == ("in", Path("real.jpg"), "truncated")
    assert ledger.failed_files() == {"in": 1}
