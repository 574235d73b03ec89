"""Names, places and results that several photos, folders or daemons lay claim to."""

import contextlib
import errno
import itertools
import os
import shutil
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rig import ThreadExecutor, copy_job
from waiting import wait_until

from stylewatch.domain import Failure, FailureKind, Identity, JobState, PhotoFacts
from stylewatch.errors import LedgerError
from stylewatch.faces.board import Board
from stylewatch.folders import painted, scans
from stylewatch.folders.listing import Listing
from stylewatch.folders.outputs import owner_of
from stylewatch.folders.settle import Settler
from stylewatch.host import daemon, delivery, recognition
from stylewatch.host.daemon import LOOK_SECONDS
from stylewatch.jobs.worker import failure_of
from stylewatch.settings.rules import Rule
from stylewatch.state import ledger
from stylewatch.state.ledger import Ledger
from stylewatch.state.locks import Locks
from stylewatch.state.retention import tidy


@pytest.fixture
def rig(rigs):
    return rigs(start=False)


# --- results -------------------------------------------------------------------------------------


def words(rig):
    """What people are told of each job."""
    ledger = rig.daemon._ledger
    jobs = ledger.jobs_with(sorted(ledger.numbers(JobState, 1000)))
    return {job.id: ledger.told(job).word for job in jobs}


def test_another_photo_under_the_name_of_one_that_was_deleted_keeps_both_results(rig):
    rig.with_folders({"after": "delete"}).start()
    for number, data in enumerate((b"holiday 2025", b"wedding 2026"), start=1):
        photo = rig.drop("IMG_0001.jpg", data)
        rig.until(lambda number=number: len(rig.results()) == number)
        rig.until(lambda photo=photo: not photo.exists())
    found = {path.read_bytes() for path in rig.output.iterdir()}
    assert found == {b"painting:holiday 2025", b"painting:wedding 2026"}
    assert words(rig) == {1: "kept", 2: "done"}
    rig.drop("IMG_0001.jpg", b"holiday 2027")
    rig.until(lambda: len(rig.results()) == 3)
    assert words(rig) == {1: "kept", 2: "kept", 3: "done"}


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_only_a_result_that_was_replaced_is_told_as_such(rig, extension):
    rig.start()
    rig.paint("a.jpg", b"one")
    rig.daemon.ask("pause")
    rig.drop("a.jpg", b"two")
    rig.until(lambda: rig.counts() == {"superseded": 1, "ready": 1})
    assert words(rig) == {1: "kept", 2: "waiting"}  # as yet
    rig.extension = extension
    rig.daemon.ask("resume")
    rig.until(lambda: rig.counts() == {"superseded": 1, "done": 1})
    assert rig.results() == [f"a--painting{extension}"]
    assert words(rig) == {1: "replaced", 2: "done"}


def test_a_new_result_is_the_only_one_though_what_was_in_the_first_one_s_way_is_gone(rig):
    rig.start()
    rig.output.mkdir()
    foreign = rig.output / "a--painting.jpg"
    foreign.write_bytes(b"foreign")
    rig.paint("a.jpg", b"one")
    assert rig.results() == ["a--painting.jpg", "a--painting~2.jpg"]
    foreign.unlink()
    rig.drop("a.jpg", b"two")
    rig.until(lambda: rig.counts() == {"superseded": 1, "done": 1})
    assert paintings(rig) == [b"painting:two"]
    assert words(rig) == {1: "replaced", 2: "done"}


@pytest.mark.parametrize(
    ("extension", "second"), [(".jpg", "a--painting~2.jpg"), (".png", "a--painting.png")]
)
def test_it_does_so_where_the_first_could_not_be_deleted_yet(rig, stuck, extension, second):
    rig.with_folders({"after": "delete"}).start()
    photo = rig.paint("a.jpg", b"one")
    rig.extension = extension
    rig.drop("a.jpg", b"two")
    rig.until(lambda: rig.counts() == {"done": 1, "superseded": 1})
    stuck.clear()
    rig.daemon._delivery.forget_pauses()
    rig.look_around()
    assert not photo.exists()
    assert rig.results() == ["a--painting.jpg", second]
    assert (rig.output / "a--painting.jpg").read_bytes() == b"painting:one"


@pytest.mark.parametrize("after", ["delete", "moved"])
def test_it_does_so_when_photos_are_kept_from_then_on(rig, tmp_path, after):
    rig.with_folders({"after": after if after == "delete" else tmp_path / after}).start()
    photo = rig.drop("IMG_0001.jpg", b"holiday 2025")
    rig.until(lambda: not photo.exists())
    rig.with_folders({"after": "keep"})
    reload(rig)
    for data in (b"wedding 2026", b"wedding 2026, brighter"):
        rig.drop("IMG_0001.jpg", data)
        rig.until(lambda data=data: data in b"".join(paintings(rig)))
    assert paintings(rig) == [b"painting:holiday 2025", b"painting:wedding 2026, brighter"]


def test_it_does_so_where_photos_stay_and_somebody_took_the_first_away(rig, tmp_path):
    rig.settings["rescan_seconds"] = 1
    rig.start()
    photo = rig.paint("IMG_0001.jpg", b"holiday 2025")
    photo.unlink()
    rig.until(lambda: gone(rig) == 1)
    rig.drop("IMG_0001.jpg", b"wedding 2026")
    rig.until(lambda: rig.counts() == {"superseded": 1, "done": 1})
    assert paintings(rig) == [b"painting:holiday 2025", b"painting:wedding 2026"]


def test_it_does_so_where_one_of_the_first_photo_s_pictures_had_failed(rigs):
    def behave(request):
        if request.preset.name == "woodcut" and b"holiday" in request.source.read_bytes():
            return Failure(kind=FailureKind.BAD_INPUT, reason="odd", message="odd")
        return None

    rig = rigs(behave, start=False, rescan_seconds=1)
    rig.with_folders({"preset": ("ink", "woodcut")}).start()
    photo = rig.drop("IMG_0001.jpg", b"holiday 2025")
    rig.until(lambda: rig.counts() == {"done": 1, "quarantined": 1} and rig.idle())
    photo.unlink()
    rig.until(lambda: gone(rig) == 1)
    rig.drop("IMG_0001.jpg", b"wedding 2026")
    rig.until(lambda: len(rig.results()) == 3)
    assert (rig.output / "IMG_0001--ink.jpg").read_bytes() == b"ink:holiday 2025"


def test_another_card_in_the_place_of_the_first_keeps_both_results(rig, tmp_path):
    rig.start()
    rig.paint("IMG_0001.jpg", b"holiday 2025")
    rig.input.rename(tmp_path / "first")
    rig.until(lambda: gone(rig) == 1)
    (tmp_path / "first").rename(rig.input)
    rig.until(lambda: gone(rig) == 0)
    rig.input.rename(tmp_path / "first")
    rig.until(lambda: gone(rig) == 1)
    rig.input.mkdir()
    rig.drop("IMG_0001.jpg", b"wedding 2026")
    rig.until(lambda: len(rig.results()) == 2)
    assert paintings(rig) == [b"painting:holiday 2025", b"painting:wedding 2026"]


def test_so_does_one_for_which_a_photo_of_the_first_seems_to_wait(rigs, tmp_path):
    """The config has changed meanwhile, so what waits is matched anew before it is painted."""

    def behave(request):
        if len(rig.executor.ran) == 1:
            rig.executor.slots = 0

    rig = rigs(behave, start=False).with_folders({"preset": ("ink", "woodcut")}).start()
    rig.drop("IMG_0001.jpg", b"holiday 2025")
    rig.until(lambda: rig.counts() == {"done": 1, "ready": 1})
    rig.input.rename(tmp_path / "first")
    rig.until(lambda: gone(rig) == 1)
    rig.with_folders({"preset": ("ink", "woodcut"), "subfolders": False})
    reload(rig)
    (tmp_path / "second").mkdir()
    (tmp_path / "second/IMG_0001.jpg").write_bytes(b"wedding 2026")
    (tmp_path / "second").rename(rig.input)
    rig.executor.slots = 1
    rig.until(lambda: b"woodcut:wedding 2026" in paintings(rig) and rig.idle())
    pictures = [b"ink:holiday 2025", b"ink:wedding 2026", b"woodcut:wedding 2026"]
    assert paintings(rig) == pictures


@pytest.mark.parametrize(
    ("volumes", "both"),
    [(("A", "B"), True), (("A", "A"), False), (("A", ""), False), (("", "B"), False)],
)
def test_so_does_one_that_came_while_the_daemon_was_stopped(rig, monkeypatch, volumes, both):
    """In one reader both have the same numbers; what is on the same disk has been changed."""
    for volume, data in zip(volumes, (b"holiday 2025", b"wedding 2026"), strict=True):
        monkeypatch.setattr(recognition, "_volume_of", lambda _, found=volume: found)
        rig.drop("IMG_0001.jpg", data)
        rig.start()
        rig.until(lambda data=data: data in b"".join(paintings(rig)))
        rig.stop()
    assert paintings(rig) == [b"painting:holiday 2025"] * both + [b"painting:wedding 2026"]


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(("copied", "both"), [(False, True), (True, False)])
def test_so_does_another_folder_in_the_place_of_the_first(rig, tmp_path, running, copied, both):
    """On the same disk, in one step. In a copy of the first, as a backup, a photo was edited."""
    other, output = tmp_path / "other", rig.output
    rig.drop("IMG_0001.jpg", b"holiday 2025")
    rig.drop("IMG_0002.jpg", b"the same")
    beside = {"name": "beside", "input": tmp_path / "beside", "output": tmp_path / "beside's"}
    rig.with_folders(beside, {}).output = output
    rig.start()
    rig.until(lambda: rig.counts() == {"done": 2} and rig.idle())
    if not running:
        rig.stop()
    other.mkdir()
    if copied:
        shutil.copy2(rig.input / "IMG_0002.jpg", other)
    (other / "IMG_0001.jpg").write_bytes(b"wedding 2026")
    rig.input.rename(tmp_path / "first")
    other.rename(rig.input)
    if not running:
        rig.start()
    rig.until(lambda: b"painting:wedding 2026" in paintings(rig))
    found = set(paintings(rig))
    first = {b"painting:holiday 2025"} if both else set()
    assert found == {*first, b"painting:wedding 2026", b"painting:the same"}


def test_two_folders_that_take_turns_in_one_place_keep_their_results(rig, tmp_path):
    rig.drop("IMG_0001.jpg", b"holiday 2025")
    rig.drop("IMG_0002.jpg", b"only there")
    rig.start()
    rig.until(lambda: rig.counts() == {"done": 2} and rig.idle())
    (tmp_path / "other").mkdir()
    (tmp_path / "other/IMG_0001.jpg").write_bytes(b"wedding 2026")
    rig.input.rename(tmp_path / "first")
    (tmp_path / "other").rename(rig.input)
    rig.until(lambda: len(rig.results()) == 3 and rig.idle())
    (tmp_path / "first/IMG_0001.jpg").write_bytes(b"holiday, brighter")
    rig.input.rename(tmp_path / "other")
    (tmp_path / "first").rename(rig.input)
    rig.until(lambda: b"painting:holiday, brighter" in paintings(rig))
    assert b"painting:wedding 2026" in paintings(rig)


def test_a_kill_as_soon_as_that_card_is_known_changes_nothing(rig, monkeypatch):
    def killed(step):
        known = "SELECT 1 FROM folders WHERE volume = 'B'"
        if step == "ledger.committed" and rig.daemon._ledger.ask(known):
            raise KeyboardInterrupt

    monkeypatch.setattr(recognition, "_volume_of", lambda _: "A")
    rig.drop("IMG_0001.jpg", b"holiday 2025")
    rig.start()
    rig.until(lambda: rig.counts() == {"done": 1})
    rig.stop()
    monkeypatch.setattr(recognition, "_volume_of", lambda _: "B")
    rig.drop("IMG_0001.jpg", b"wedding 2026")
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "failpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            rig.start()
    rig.start()
    rig.until(lambda: len(paintings(rig)) == 2)


def test_a_disk_s_name_is_remembered_while_it_can_t_be_told(tmp_path):
    with contextlib.closing(Ledger(tmp_path / "ledger.db")) as ledger:
        ledger.note_file("other", Path("b.jpg"), Identity(1, 4, 9, 9, 9))
        for volume, known in (("A", 1), ("", 1), ("A", 1), ("", 1), ("B", 0)):
            ledger.note_folder("in", tmp_path, (1, 2), volume=volume)
            if not ledger.remembered("in"):
                ledger.note_file("in", Path("a.jpg"), Identity(1, 3, 9, 9, 9))
            assert len(ledger.remembered("in", missed=False)) == known
        assert ledger.remembered("other", missed=False), "no business of that folder's"


def test_a_disk_is_known_by_the_name_that_leads_to_its_device(tmp_path, monkeypatch):
    monkeypatch.setattr(recognition, "VOLUMES", tmp_path / "none")
    assert recognition._volume_of(os.stat("/dev/null").st_rdev) == ""
    monkeypatch.setattr(recognition, "VOLUMES", tmp_path)
    for name, device in (("1-2", "/dev/gone"), ("3-4", "/dev/zero"), ("5-6", "/dev/null")):
        (tmp_path / name).symlink_to(device)
    assert recognition._volume_of(os.stat("/dev/null").st_rdev) == "5-6"
    assert recognition._volume_of(1) == ""


def test_a_config_that_is_changed_before_its_folder_is_moved_loses_no_history(rig, tmp_path):
    rig.start()
    rig.paint("a.jpg")
    old, rig.input = rig.input, tmp_path / "new"
    reload(rig)
    rig.until(lambda: rig.daemon._intake.health(time.monotonic())[0].state == "missing")
    old.rename(rig.input)
    rig.until(lambda: rig.daemon._intake.health(time.monotonic())[0].state == "watching")
    rig.drop("b.jpg", b"b")
    rig.until(lambda: rig.counts() == {"done": 2})
    assert rig.executor.ran == [("a.jpg", "painting"), ("b.jpg", "painting")]


def test_a_folder_that_was_moved_while_it_was_empty_is_known_when_it_is_moved_back(rig, tmp_path):
    rig.start()
    first, second = rig.input, tmp_path / "new"
    first.rename(second)
    rig.input = second
    reload(rig)
    rig.paint("a.jpg")
    second.rename(first)
    rig.input = first
    reload(rig)
    rig.drop("b.jpg", b"b")
    rig.until(lambda: (rig.output / "b--painting.jpg").exists() and rig.idle())
    assert rig.results() == ["a--painting.jpg", "b--painting.jpg"]


def test_photos_that_were_away_for_a_while_are_still_the_same(rig, tmp_path):
    rig.settings["rescan_seconds"] = 1
    rig.start()
    for name in "ab":
        rig.drop(f"sub/{name}.jpg", name.encode())
    rig.until(lambda: rig.counts() == {"done": 2} and rig.idle())
    (rig.input / "sub").rename(tmp_path / "aside")
    rig.until(lambda: gone(rig) == 2)
    (tmp_path / "aside").rename(rig.input / "sub")
    rig.until(lambda: gone(rig) == 0)
    rig.drop("sub/a.jpg", b"edited")
    rig.until(lambda: rig.counts() == {"superseded": 1, "done": 2})
    assert rig.results() == ["sub/a--painting.jpg", "sub/b--painting.jpg"]
    assert len(rig.executor.ran) == 3


def test_photos_that_are_dropped_again_as_they_were_are_told_to_be_known_in_one_line(
    rigs, tmp_path
):
    """Nothing came of it, and nothing was said, where somebody had deleted the paintings too."""
    rig = rigs(rescan_seconds=1)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        rig.drop(name, name.encode())
    rig.until(lambda: rig.counts() == {"done": 3} and rig.idle())
    shutil.copytree(rig.input, tmp_path / "kept")
    shutil.rmtree(rig.output)
    for photo in rig.input.iterdir():
        photo.unlink()
    rig.until(lambda: gone(rig) == 3)
    shutil.copytree(tmp_path / "kept", rig.input, dirs_exist_ok=True)
    rig.until(lambda: any(event.kind == "known" for event in rig.events))
    rig.until(rig.idle)
    [known] = [event for event in rig.events if event.kind == "known"]
    assert known.message == (
        f"{known.path}: painted before, like 2 others, so not painted again;"
        " `touch` it to have it repainted"
    )
    assert rig.results() == []
    (rig.input / "a.jpg").touch()
    rig.until(lambda: rig.results() == ["a--painting.jpg"])
    assert [event.kind for event in rig.events].count("known") == 1


def test_a_photo_whose_disk_was_away_when_it_was_painted_is_deleted_when_it_is_back(rig, tmp_path):
    """A card that is mounted inside of the watched folder."""
    rig.settings["rescan_seconds"] = 1
    card, go = rig.input / "card", threading.Event()

    def run(request, engine, *, report, suffix=b""):
        rendered = copy_job(request, engine, report=report)
        go.wait(60)
        return rendered

    rig.run_job = run
    rig.with_folders({"after": "delete"}).start()
    photo = rig.drop("card/a.jpg")
    rig.until(lambda: list(rig.output.rglob("*.sw-tmp")))
    card.rename(tmp_path / "aside")
    card.mkdir()
    go.set()
    rig.until(lambda: rig.counts() == {"done": 1})
    rig.until(
        lambda: not rig.daemon._intake.ways["in"].source._scans.listing._folders["card"].names
    )
    card.rmdir()
    (tmp_path / "aside").rename(card)
    rig.until(lambda: rig.look_around(1) or not photo.exists())
    assert len(rig.executor.ran) == 1


def gone(rig):
    return rig.daemon._ledger.ask("SELECT COUNT(*) FROM files WHERE gone > 0")[0][0]


def paintings(rig):
    return [(rig.output / name).read_bytes() for name in rig.results()]


def test_a_result_of_another_photo_is_never_replaced_though_its_bytes_are_the_same(rig):
    rig.start()
    rig.paint("a.jpg", b"same")
    rig.drop("a.jpeg", b"same")
    rig.until(lambda: rig.counts() == {"done": 2})
    assert rig.results() == ["a--painting.jpg", "a--painting~2.jpg"]
    rig.drop("a.jpg", b"edited")
    rig.until(lambda: rig.counts() == {"done": 2, "superseded": 1})
    outputs = {str(job.path): job.output for job in rig.daemon._ledger.jobs([JobState.DONE])}
    assert outputs["a.jpeg"].read_bytes() == b"painting:same"
    assert outputs["a.jpg"].read_bytes() == b"painting:edited"


def test_a_result_in_whose_place_a_fifo_lies_is_not_read(rig):
    rig.start()
    rig.paint("a.jpg", b"same")
    result = rig.output / "a--painting.jpg"
    result.unlink()
    os.mkfifo(result)
    rig.drop("b.jpg", b"same")
    rig.until(lambda: "b--painting.jpg" in os.listdir(rig.output))


def test_temporary_files_of_another_daemon_are_left_alone(rig, tmp_path):
    theirs = rig.output / f".a--painting.jpg.1{owner_of(tmp_path / 'other')}.sw-tmp"
    ours = rig.output / f".a--painting.jpg.1{owner_of(tmp_path / 'state')}.sw-tmp"
    rig.output.mkdir()
    for file in (theirs, ours):
        file.write_bytes(b"half")
    rig.start()
    assert theirs.exists()
    assert not ours.exists()


def test_a_photo_that_changes_while_it_is_painted_is_no_longer_shown_as_painted(rig):
    read, go = threading.Event(), threading.Event()

    def run(request, engine, *, report, suffix=b""):
        rendered = copy_job(request, engine, report=report)
        read.set()
        go.wait(60)
        return rendered

    rig.run_job = run
    rig.start()
    rig.drop("a.jpg", b"one")
    rig.until(read.is_set)
    rig.drop("a.jpg", b"two")
    rig.until(lambda: rig.counts() == {"running": 1, "ready": 1})
    go.set()
    rig.until(lambda: rig.counts() == {"superseded": 1, "done": 1})
    assert [event.reason for event in rig.events if event.kind == "retry"] == ["changed"]
    assert len(rig.executor.ran) == 2, "what was overtaken is not painted once more"
    board = Board()
    for event in rig.events:
        board.apply(event, 0.0)
    assert list(board.running()) == []


def test_a_file_that_is_missing_to_the_effect_is_held_against_the_photo():
    """Only who reads the photo can say that it is gone."""
    failure = failure_of(FileNotFoundError(errno.ENOENT, "no brush", "brush.png"))
    assert (failure.kind, failure.reason) == (FailureKind.RENDER, "enoent")


# --- folders -------------------------------------------------------------------------------------


def test_a_folder_that_comes_while_another_daemon_has_it_is_left_to_that_one(rig, tmp_path):
    rig.drop("a.jpg")
    rig.start()
    rig.until(lambda: rig.counts() == {"done": 1})
    moved = tmp_path / "moved"
    rig.input.rename(moved)
    now = time.monotonic() + LOOK_SECONDS
    rig.daemon.tick(now)
    other = Locks()
    rig.input.mkdir()
    other.hold_folder(rig.input)
    rig.drop("b.jpg", b"b")
    for number in range(1, 5):
        rig.daemon.tick(now + number * LOOK_SECONDS)
    [health] = rig.daemon._status()["folders"]
    assert health.state == "locked"
    assert "Another stylewatch watches" in health.detail
    assert rig.counts() == {"done": 1}
    other.release()
    rig.daemon._intake.ways["in"].source._next_root = 0.0
    rig.until(lambda: rig.counts() == {"done": 2})


def test_queued_photos_of_a_folder_that_is_another_daemon_s_are_not_painted(rig, tmp_path):
    rig.start()
    rig.queue("a.jpg")
    rig.input.rename(tmp_path / "aside")
    rig.input.mkdir()
    other = Locks()
    other.hold_folder(rig.input)
    rig.drop("b.jpg", b"b")
    source = rig.daemon._intake.ways["in"].source
    source._next_root = 0.0
    rig.daemon.ask("resume")
    for _ in range(3):
        rig.daemon.tick(time.monotonic())
    assert rig.counts() == {"ready": 1}
    other.release()
    rig.until(lambda: rig.results() == ["b--painting.jpg"])


def test_queued_photos_wait_for_a_folder_that_is_away(rig, tmp_path):
    rig.start()
    rig.daemon.ask("pause")
    for number in range(5):
        rig.drop(f"{number}.jpg", b"%d" % number)
    rig.until(lambda: rig.counts() == {"ready": 5})
    rig.input.rename(tmp_path / "aside")
    source = rig.daemon._intake.ways["in"].source
    source._next_root = 0.0
    rig.daemon.ask("resume")
    for _ in range(5):
        rig.daemon.tick(time.monotonic())
    assert rig.counts() == {"ready": 5}
    rig.input.mkdir()  # the empty folder where it is mounted
    source._next_root = 0.0
    for _ in range(5):
        rig.daemon.tick(time.monotonic())
    assert rig.counts() == {"ready": 5}
    [health] = rig.daemon._status()["folders"]
    assert "is its disk away?" in health.detail
    before = rig.daemon._ledger.changes
    for _ in range(5):
        source._next_root = 0.0
        rig.daemon.tick(time.monotonic())
    assert rig.daemon._ledger.changes == before, "there is nothing to write"
    rig.input.rmdir()
    (tmp_path / "aside").rename(rig.input)
    rig.until(lambda: rig.counts() == {"done": 5})
    assert len(rig.executor.ran) == 5


@pytest.mark.parametrize("trouble", ["preset", "output"])
def test_jobs_that_can_t_be_started_do_not_keep_another_folder_waiting(rig, tmp_path, trouble):
    (tmp_path / "b").mkdir()
    rig.with_folders(
        {"name": "a"}, {"name": "b", "input": tmp_path / "b", "output": tmp_path / "out b"}
    )
    rig.start()
    rig.daemon.ask("pause")
    for number in range(80):
        rig.drop(f"sub/{number}.jpg", b"%d" % number)
    (tmp_path / "b" / "a.jpg").write_bytes(b"b")
    rig.until(lambda: len(rig.daemon._ledger.jobs([JobState.READY])) == 81)
    if trouble == "preset":
        rig.daemon._ledger.change("UPDATE jobs SET preset = 'none' WHERE folder = 'a'")
    else:
        rig.output.mkdir()
        (rig.output / "sub").symlink_to(tmp_path)
    rig.daemon.ask("resume")
    rig.until(lambda: any(e.kind == "running" and e.folder == "b" for e in rig.events))
    assert rig.daemon._ledger.counts()["a"][JobState.READY] > 70


def test_one_of_many_photos_that_can_be_moved_at_last_does_not_keep_the_rest_waiting(
    rig, tmp_path, monkeypatch
):
    away = [True]

    def apply_after(*arguments):
        if away:
            raise OSError(errno.EIO, "I/O error")
        return real(*arguments)

    real = painted.apply_after
    monkeypatch.setattr(painted, "apply_after", apply_after)
    rig.with_folders({"after": "delete"}).start()
    for number in range(9):
        rig.drop(f"{number}.jpg", b"%d" % number)
    rig.until(lambda: rig.counts() == {"done": 9} and rig.idle())
    rig.daemon._delivery.forget_pauses()
    away.clear()
    slow = SimpleNamespace(monotonic=itertools.count(0, 0.1).__next__)  # a tenth of a second each
    monkeypatch.setattr(delivery, "time", slow)
    rig.daemon._next_look = 0.0
    apply, more, left = rig.daemon._delivery.apply_pending_after, [], []
    rig.daemon._delivery.apply_pending_after = lambda now: more.append(apply(now)) or more[-1]
    while len(list(rig.input.iterdir())) > 0:
        rig.daemon._look_around(1e9)
        left.append(len(list(rig.input.iterdir())))
    assert left == [7, 5, 3, 1, 0]
    assert more == [True, True, True, True, False]


def test_a_result_that_was_deleted_does_not_keep_the_next_from_being_copied(rig):
    rig.start()
    for name in "ab":
        rig.drop(f"{name}.jpg", b"same")
        rig.until(lambda name=name: f"{name}--painting.jpg" in rig.results())
    (rig.output / "b--painting.jpg").unlink()
    rig.drop("c.jpg", b"same")
    rig.until(lambda: "c--painting.jpg" in rig.results())
    assert len(rig.executor.ran) == 1


@pytest.mark.parametrize("link", [False, True])
def test_the_config_follows_a_folder_that_was_renamed_or_is_named_by_a_link(rig, tmp_path, link):
    rig.drop("a.jpg")
    rig.start()
    rig.until(lambda: rig.counts() == {"done": 1})
    new = tmp_path / "new"
    if link:
        new.symlink_to(rig.input)
    else:
        rig.input.rename(new)
    rig.input = new
    reload = rig.daemon.ask("reload")
    rig.daemon.tick(time.monotonic())
    assert reload.exception(0) is None
    rig.drop("b.jpg", b"b")
    rig.until(lambda: rig.counts() == {"done": 2})
    with pytest.raises(Exception, match="Another stylewatch watches"):
        Locks().hold_folder(new)


def test_a_folder_is_called_as_the_config_calls_it_also_while_its_disk_is_away(rig, tmp_path):
    rig.start().paint("a.jpg")
    rig.input.rename(tmp_path / "away")
    rig.with_folders({"name": "photos"}).asked("reload")
    assert rig.daemon._ledger.counts() == {"photos": {"done": 1}}
    (tmp_path / "away").rename(rig.input)
    rig.until(lambda: rig.daemon._health(0.0)[0].state == "watching")
    assert rig.counts() == {"done": 1}


def test_a_disk_that_is_away_does_not_leave_its_history_to_the_next(tmp_path):
    """Two sticks have the same device and inode numbers, one after the other."""
    ledger, places = Ledger(tmp_path / "ledger.db"), [Path("/media/a"), Path("/media/b")]
    ledger.note_folder("a", places[0], (2065, 2))
    one, two = (SimpleNamespace(name=place.name, input=place, stays=True) for place in places)
    for watched, found in ([one, two], None), ([two], "a"):
        config = SimpleNamespace(folders=watched)
        assert recognition._moved(two, (2065, 2), config, ledger) == found
    ledger.close()


def test_another_card_with_the_numbers_of_the_one_before_has_a_history_of_its_own(rig, tmp_path):
    """Two cards, mounted one after the other: both are device 1792, and their root is inode 2."""
    rig.drop("DCIM/IMG_0001.jpg", b"card 1")
    rig.start()
    rig.until(lambda: rig.counts() == {"done": 1} and rig.idle())
    other = tmp_path / "card 2"
    (other / "DCIM").mkdir(parents=True)
    (other / "DCIM/IMG_0001.jpg").write_bytes(b"card 2")
    inode = Identity.of(other.stat()).inode
    rig.daemon._ledger.change("UPDATE folders SET dev = ?, ino = ?", *inode)
    rig.stop()
    rig.input = other
    rig.start()
    rig.until(lambda: len(rig.daemon._ledger.jobs([JobState.DONE])) == 2)
    found = {path.read_bytes() for path in rig.output.glob("DCIM/*.jpg")}
    assert found == {b"painting:card 1", b"painting:card 2"}


def test_copies_in_one_folder_do_not_keep_another_waiting(rig, tmp_path):
    for name in ("b", "out b"):
        (tmp_path / name).mkdir()
    rig.with_folders(
        {"name": "a"}, {"name": "b", "input": tmp_path / "b", "output": tmp_path / "out b"}
    )
    rig.run_job = lambda *arguments, **more: replace(copy_job(*arguments, **more), seconds=30.0)
    rig.start()
    rig.daemon.ask("pause")
    for number in range(80):
        rig.drop(f"{number}.jpg", b"the same")
    for number in range(3):
        (tmp_path / "b" / f"{number}.jpg").write_bytes(b"%d" % number)
    rig.until(lambda: len(rig.daemon._ledger.jobs([JobState.READY])) == 83)
    rig.daemon.ask("resume")
    rig.until(lambda: len(rig.daemon._ledger.jobs([JobState.DONE])) == 83)
    order = [event.folder for event in rig.events if event.kind == "done"]
    turns = [order[:at].count("a") for at, folder in enumerate(order) if folder == "b"]
    assert turns[1] - turns[0] <= 31
    assert turns[2] < 80


def test_a_disk_that_gives_no_answer_says_nothing_about_a_photo_s_camera(rig):
    rule = Rule(preset=("painting",), camera="*X100*")
    rig.with_folders({"preset": (), "rules": (rule,)}).build()
    answers = [OSError(errno.EIO, "I/O error"), PhotoFacts(4, 3, "Fuji X100")]

    def probe(stream):
        stream.read(1)
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    rig.daemon._parts = replace(rig.daemon._parts, probe=probe)
    rig.daemon.start(time.monotonic())
    rig.drop("a.jpg")
    rig.until(lambda: len(answers) == 1)
    assert rig.counts() == {}
    settler = rig.daemon._intake.ways["in"].settler
    [file] = settler._waiting.values()
    settler._look_at(0.0, file)  # a minute later
    rig.until(lambda: rig.counts() == {"done": 1})


def test_a_file_that_is_to_be_told_again_is_not_forgotten_by_a_walk_in_progress(tmp_path):
    folder = tmp_path / "sub"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.jpg").write_bytes(b"photo")
    listing = Listing("in", tmp_path)
    walk = listing.walk([""], full=True)
    first = next(found for found in walk if found)
    listing.forget(str(first.path))
    assert len([found for found in walk if found]) == 19
    assert [found.path for found in listing.walk([""], full=True) if found] == [first.path]


# --- the ledger ----------------------------------------------------------------------------------


def test_a_painted_photo_that_was_touched_and_deleted_is_forgotten_in_the_end(rig):
    rig.start()
    photo = rig.paint("a.jpg")
    photo.write_bytes(b"photo")
    rig.until(lambda: rig.daemon._intake.settling()["in"] == 1)
    photo.unlink()
    rig.until(lambda: rig.daemon._intake.settling()["in"] == 0)
    ledger = rig.daemon._ledger
    for days in (1, 40, 80):
        ledger._clock = lambda days=days: time.time() + days * 86400
        list(tidy(ledger, 30))
    assert rig.counts() == {}


def test_what_waits_goes_on_in_a_folder_that_is_moved_after_the_config_says_where(rig, tmp_path):
    """It was held until the next reload or start, whatever was done to the photo."""
    rig.start()
    rig.daemon.ask("pause")
    rig.daemon.tick(time.monotonic())
    photo = rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"ready": 1})
    rig.input = tmp_path / "other"
    rig.daemon.ask("reload")
    rig.daemon.tick(time.monotonic())
    assert rig.counts() == {"held": 1}
    photo.parent.rename(rig.input)
    rig.daemon.ask("resume")
    rig.daemon.tick(time.monotonic())
    rig.until(lambda: rig.results() == ["a--painting.jpg"])


@contextlib.contextmanager
def running(rig, monkeypatch):
    """In a thread of its own; while the event is set, nothing can be written down."""
    stop, broken = threading.Event(), threading.Event()
    tick = rig.build().daemon.tick

    def failing(now):
        if broken.is_set():
            raise LedgerError("The ledger can't be written: disk full")
        return tick(now)

    monkeypatch.setattr(rig.daemon, "tick", failing)
    runs = threading.Thread(target=rig.daemon.run, args=(stop,))
    runs.start()
    try:
        yield broken
    finally:
        stop.set()
        rig.daemon.wake()
        runs.join()


def test_who_asks_while_the_ledger_can_t_be_written_is_told_so(rig, monkeypatch):
    with running(rig, monkeypatch) as broken:
        assert rig.daemon.ask("status").result(60)["paused"] is False
        broken.set()
        rig.daemon.wake()
        for _ in range(3):
            with pytest.raises(LedgerError, match="disk full"):
                rig.daemon.ask("status").result(60)
        broken.clear()
        assert [event.kind for event in rig.events].count("blocked") == 1


def test_the_watchdog_hears_of_a_daemon_that_waits_for_its_ledger(rig, monkeypatch):
    monkeypatch.setattr(daemon, "LEDGER_SECONDS", 0.05)
    stop, beats = threading.Event(), []

    def fails(now):
        raise LedgerError("The ledger can't be written: disk full")

    def beat(now):
        beats.append(now)
        if len(beats) == 3:
            stop.set()

    monkeypatch.setattr(rig.build().daemon, "tick", fails)
    runs = threading.Thread(target=rig.daemon.run, args=(stop, beat))
    runs.start()
    try:
        runs.join(10)
        assert len(beats) == 3
    finally:
        stop.set()
        rig.daemon.wake()
        runs.join()


def test_what_is_painted_when_the_ledger_fails_is_painted_no_more(rigs, monkeypatch):
    """A view, systemd and whoever comes later were told of a painting that nobody worked at."""
    go_on = threading.Event()
    monkeypatch.setattr(daemon, "LEDGER_SECONDS", 0.2)
    rig = rigs(lambda request: go_on.wait(60) and None, start=False)
    rig.drop("a.jpg")

    def seen():
        board = Board()
        for event in list(rig.events):
            board.apply(event, 1.0)
        return len(board.jobs), board.waiting, [row.kind for row in board.problems]

    with running(rig, monkeypatch) as broken:
        try:
            wait_until(lambda: seen() == (1, 0, []), told=seen)
            broken.set()
            rig.daemon.wake()
            wait_until(lambda: seen() == (0, 1, ["blocked", "retry"]), told=seen)
            broken.clear()
            wait_until(lambda: seen() == (1, 0, []), told=seen)
        finally:
            go_on.set()


# --- reloading -----------------------------------------------------------------------------------


class Stubborn(ThreadExecutor):
    def close(self):
        raise TimeoutError("the cluster does not answer")


def test_workers_that_can_t_be_closed_do_not_keep_a_reload_from_its_end(rig, tmp_path):
    rig.open_executor = lambda config, on_event: Stubborn()
    rig.start()
    for threads in (2, 3):
        rig.settings["threads"] = threads
        reload = rig.daemon.ask("reload")
        rig.daemon.tick(time.monotonic())
        assert reload.exception(0) is None
    rig.paint("a.jpg")


def test_a_reload_that_fails_for_whatever_reason_keeps_no_new_folder(rig, tmp_path):
    rig.start()

    def load():
        raise RuntimeError("no such luck")

    rig.daemon._locks.hold_folder(tmp_path)
    rig.daemon._load = load
    reload = rig.daemon.ask("reload")
    rig.daemon.tick(time.monotonic())
    assert isinstance(reload.exception(0), RuntimeError)
    Locks().hold_folder(tmp_path)
    assert any("the old config goes on" in event.message for event in rig.events)


def reload(rig):
    answer = rig.daemon.ask("reload")
    rig.daemon.tick(time.monotonic())
    assert answer.exception(0) is None


def test_a_photo_that_vanishes_while_its_folder_is_renamed_gets_all_its_results(rig, tmp_path):
    started, go = threading.Event(), threading.Event()

    def behave(request):
        if request.preset.name == "painting" and not go.is_set():
            started.set()
            go.wait(60)
            (tmp_path / "aside").rename(rig.input / "sub")  # back in the very next moment
            return Failure(kind=FailureKind.CHANGED, reason="vanished", message="gone")
        return None

    rig.executor.behave = behave
    folder = {"preset": ("draft", "painting"), "after": "delete"}
    rig.with_folders(folder).start()
    photo = rig.drop("sub/a.jpg")
    rig.until(started.is_set)
    photo.parent.rename(tmp_path / "aside")
    rig.with_folders(folder | {"name": "photos"})
    reload(rig)
    go.set()
    rig.until(lambda: "running" not in rig.counts())
    rig.look_around()
    rig.until(lambda: not photo.exists())
    assert rig.results() == ["sub/a--draft.jpg", "sub/a--painting.jpg"]


def test_a_changed_photo_replaces_its_result_though_its_folder_leaves_the_config(rig, tmp_path):
    started, go = threading.Event(), threading.Event()
    rig.start()
    rig.paint("a.jpg", b"one")
    rig.executor.behave = lambda request: started.set() or go.wait(60) and None
    rig.drop("a.jpg", b"two")
    rig.until(started.is_set)
    (tmp_path / "other").mkdir()
    rig.with_folders({"input": tmp_path / "other", "name": "other"})
    reload(rig)
    go.set()
    rig.until(lambda: rig.counts() == {"superseded": 1, "done": 1})
    assert rig.results() == ["a--painting.jpg"]
    assert (rig.output / "a--painting.jpg").read_bytes() == b"painting:two"


# --- disks that come and go ----------------------------------------------------------------------


def test_an_empty_mount_point_that_can_t_be_listed_once_is_not_taken_for_the_folder(
    rig, tmp_path, monkeypatch
):
    rig.executor.behave = lambda request: Failure(
        kind=FailureKind.BAD_INPUT, reason="x", message="bad"
    )
    rig.start()
    rig.drop("bad.jpg")
    rig.until(lambda: rig.counts() == {"quarantined": 1})
    rig.input.rename(tmp_path / "aside")
    rig.input.mkdir()
    real, broken = Path.iterdir, [OSError(errno.EIO, "I/O error")]

    def iterdir(folder):
        if folder == rig.input and broken:
            raise broken.pop()
        return real(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    for _ in range(3):
        rig.daemon._intake.ways["in"].source._next_root = 0.0
        rig.daemon.tick(time.monotonic())
        [health] = rig.daemon._status()["folders"]
        assert health.state == "missing"
    assert broken == []
    rig.look_around()
    assert rig.counts() == {"quarantined": 1}


@pytest.fixture
def card(rig, monkeypatch):
    """Where the rig's photos lie; its file system numbers files anew whenever it is plugged in."""
    plugged, identity_of = [1], Identity.of

    def of(info):
        found = identity_of(info)
        if not stat.S_ISREG(info.st_mode):
            return found
        return replace(found, ino=found.ino + 1000 * len(plugged), ctime_ns=found.mtime_ns)

    devices = frozenset({rig.input.stat().st_dev})
    monkeypatch.setattr(Identity, "of", of)
    monkeypatch.setattr(scans, "numberless_devices", lambda: devices)
    return SimpleNamespace(plug=lambda: plugged.append(1))


def is_known_as_it_is(rig):
    """Whether all jobs that are not done know their photos as they are by now."""
    jobs = rig.daemon._ledger.jobs({*JobState} - {JobState.DONE})
    return all(job.identity == Identity.of((rig.input / job.path).lstat()) for job in jobs)


def bad_ones(request):
    bad = Failure(kind=FailureKind.BAD_INPUT, reason="x", message="bad")
    return bad if request.source.name == "bad.jpg" else None


def test_a_card_that_is_plugged_in_again_is_not_read_anew(rig, card, monkeypatch):
    """FAT and exFAT keep no inodes: new photos waited behind a whole archive, what failed ran."""
    rig.executor.behave = bad_ones
    rig.start()
    for name in ("bad", "good"):
        rig.drop(f"{name}.jpg", name.encode())
    rig.until(lambda: rig.counts() == {"quarantined": 1, "done": 1})
    rig.daemon.ask("pause")
    rig.drop("cancelled.jpg", b"cancelled")
    rig.until(lambda: rig.counts().get("ready") == 1)
    rig.asked("cancel", job_id=3)
    rig.stop()
    rig.executor.ran.clear()
    settling = []
    monkeypatch.setattr(Settler, "observe", lambda *given: settling.append(given))
    card.plug()
    rig.start()
    assert not is_known_as_it_is(rig)
    rig.until(lambda: is_known_as_it_is(rig))
    assert (settling, rig.executor.ran) == ([], [])
    assert rig.counts() == {"quarantined": 1, "done": 1, "held": 1}


def test_a_photo_on_a_card_that_is_plugged_in_again_is_deleted_once_it_is_painted(rig, card, stuck):
    rig.with_folders({"after": "delete"}).start()
    photo = rig.paint("a.jpg")
    rig.stop()
    stuck.clear()
    card.plug()
    rig.start()
    rig.until(lambda: rig.look_around(1) or not photo.exists())
    assert len(rig.executor.ran) == 1


def test_a_disk_that_has_another_number_after_a_restart_is_known_with_all_that_is_to_be_done(
    rig, stuck
):
    rig.executor.behave = bad_ones
    rig.with_folders({"after": "delete"}).start()
    for name in ("bad", "good"):
        rig.drop(f"{name}.jpg", name.encode())
    rig.until(lambda: rig.counts() == {"quarantined": 1, "done": 1} and rig.idle())
    for table in ("files", "jobs", "folders"):
        rig.daemon._ledger.change(f"UPDATE {table} SET dev = dev + 1")
    rig.stop()
    rig.executor.ran.clear()
    stuck.clear()
    rig.start()
    rig.until(lambda: os.listdir(rig.input) == ["bad.jpg"])
    rig.until(lambda: rig.daemon._intake.health(time.monotonic())[0].scan_age < 100 and rig.idle())
    assert rig.executor.ran == []
    assert rig.counts() == {"quarantined": 1, "done": 1}
    assert not [event for event in rig.events if event.kind == "queued"][2:]
