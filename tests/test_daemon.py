"""The daemon on real files, real inotify and a real ledger; only the painting is quick."""

import errno
import itertools
import os
import shutil
import threading
import time
from collections import deque
from concurrent.futures import CancelledError
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from rig import ThreadExecutor, add_jobs, rendered, statements
from waiting import wait_until

from stylewatch.app.reloading import OnChange
from stylewatch.domain import TURN_SECONDS, Failure, FailureKind, Identity, JobState
from stylewatch.errors import (
    LACKING,
    ConfigError,
    EngineLost,
    JobTimeout,
    LockedError,
    OutputError,
    OutputFullError,
    UsageError,
    WorkerDied,
)
from stylewatch.faces.board import Board
from stylewatch.folders import scans, settle, sources
from stylewatch.host import delivery, flight, intake
from stylewatch.host.daemon import LOOK_SECONDS
from stylewatch.host.delivery import AFTER_SECONDS
from stylewatch.host.dispatch import COPY_COST, FIRST_COST
from stylewatch.settings.loading import load_config
from stylewatch.settings.rules import Rule
from stylewatch.settings.weights import BYTES, keras_weights
from stylewatch.state import retries
from stylewatch.state.reader import LedgerReader


def test_photos_already_there_and_new_ones_become_results_and_stay(rigs, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "old.jpg").write_bytes(b"old")
    rig = rigs()
    rig.until(lambda: len(rig.results()) == 1)
    rig.drop("sub/new.jpg")
    rig.until(lambda: len(rig.results()) == 2)
    assert rig.results() == ["old--painting.jpg", "sub/new--painting.jpg"]
    assert (rig.input / "old.jpg").read_bytes() == b"old"
    assert (rig.output / "old--painting.jpg").read_bytes() == b"painting:old"
    told = [event for event in rig.events if event.kind == "done"]
    assert [(event.path, event.output, event.seconds) for event in told] == [
        ("old.jpg", str(rig.output / "old--painting.jpg"), 0.01),
        ("sub/new.jpg", str(rig.output / "sub/new--painting.jpg"), 0.01),
    ]


def test_a_daemon_with_nothing_to_do_sleeps(rigs, monkeypatch):
    monkeypatch.setattr(sources, "ROOT_SECONDS", 2.0)  # as it is in use
    rig = rigs(start=False).with_folders({"after": "delete"}).start()
    rig.paint("a.jpg")

    def asleep():
        now = time.monotonic()
        return not rig.daemon._wake.is_set() and rig.daemon._next_due(now) > now + 0.5

    rig.until(asleep)


def test_a_sub_folder_named_after_a_preset_chooses_it(rigs):
    rig = rigs()
    rig.drop("draft/a.jpg")
    rig.until(lambda: rig.results() == ["draft/a--draft.jpg"])


def test_a_sub_folder_that_is_almost_named_after_a_preset_is_told_of_once(rigs):
    rig = rigs()
    for name in ("drafft/a.jpg", "drafft/b.jpg", "drafft/c/d.jpg", "drift/a.jpg", "draft.jpg"):
        rig.drop(name, name.encode())
    rig.until(lambda: len(rig.results()) == 5)
    [told] = [event for event in rig.events if event.kind == "warning"]
    assert (told.folder, told.path, told.reason) == ("in", "drafft", "near")
    words = "drafft: treated as any other folder, as no preset has its name. Did you mean 'draft'?"
    assert told.message == words
    rig.drop("drafft/e.jpg", b"later")
    rig.until(lambda: len(rig.results()) == 6)
    assert [event for event in rig.events if event.kind == "warning"] == [told]


def own_preset(tmp_path, style="waves.png"):
    """A folder of presets with one, `own`, and its image, `waves.png`."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "waves.png").write_bytes(b"picture")
    (mine / "own.yaml").write_text(f"style: {style}")
    return mine


@pytest.mark.parametrize("becomes", ["mended", "removed"])
def test_a_sub_folder_of_a_preset_that_is_broken_for_now_waits_for_it(rigs, tmp_path, becomes):
    mine = own_preset(tmp_path, style="wave.png")
    rig = rigs(presets=[str(mine)])
    photo = rig.drop("own/a.jpg")
    noted = "SELECT 1 FROM files WHERE note = 'preset'"
    rig.until(lambda: rig.daemon._ledger.ask(noted))
    assert rig.counts() == {}
    assert photo.exists()
    (told,) = [event.message for event in rig.events if event.kind == "warning"]
    assert told.startswith(f"photos for own wait: {mine}/own.yaml:1:1")
    rig.daemon.tick(time.monotonic() + 60)
    assert (told_of(rig)["held"], told_of(rig)["failures"]) == (1, [])
    assert rig.daemon._status()["held_files"] == {"in": 1}
    if becomes == "mended":
        (mine / "own.yaml").write_text("style: waves.png")
    else:
        (mine / "own.yaml").unlink()
    rig.daemon.ask("reload")
    preset = "own" if becomes == "mended" else "painting"
    rig.until(lambda: rig.results() == [f"own/a--{preset}.jpg"])
    assert rig.daemon._status()["held_files"] == {}


def test_that_a_sub_folder_s_preset_is_gone_is_told(rigs, tmp_path):
    mine = own_preset(tmp_path)
    rig = rigs(presets=[str(mine)])
    rig.drop("Own/a.jpg", b"a")
    rig.until(lambda: rig.results() == ["Own/a--own.jpg"])
    (mine / "own.yaml").unlink()
    rig.asked("reload")
    rig.drop("Own/b.jpg", b"b")
    rig.until(lambda: len(rig.results()) == 2)
    (told,) = [event for event in rig.events if event.kind == "warning"]
    assert "as the preset of its name is not there any more" in told.message


def test_photos_for_vgg19_wait_for_its_weights_and_no_worker_tries_them(rigs, tmp_path):
    weights = tmp_path / "vgg19.h5"
    rig = rigs(weights=str(weights))
    rig.drop("a.jpg")
    noted = "SELECT 1 FROM files WHERE note = 'preset'"
    rig.until(lambda: rig.daemon._ledger.ask(noted))
    assert rig.counts() == {}
    (told,) = [event.message for event in rig.events if event.kind == "warning"]
    assert told.startswith("photos for all presets wait: weights: the weights file does not exist")
    assert rig.daemon._status()["waits"] == [told]
    look = OnChange(rig.daemon).look
    weights.write_bytes(b"weights")
    look(1.0)
    look(11.0)  # it has rested
    rig.until(lambda: rig.results() == ["a--painting.jpg"])
    assert rig.daemon._status()["waits"] == []


@pytest.mark.parametrize(
    ("reason", "mended"),
    [
        *((reason, by) for reason in LACKING for by in ("reload", "restart")),
        ("weights-missing", "weights fetch"),
    ],
)
def test_what_a_preset_lacks_is_told_once_and_tried_again_when_something_changes(
    rigs, monkeypatch, reason, mended
):
    monkeypatch.setattr(retries, "_backoff", lambda *_: 900.0)
    message = "They can't be used. Take others"
    away = [True]

    def behave(request):
        kind = FailureKind.TRANSIENT
        failure = Failure(kind=kind, reason=reason, message=message)
        return failure if away else None

    rig = rigs(behave)
    for number in range(4):
        rig.drop(f"{number}.jpg", b"%d" % number)
    rig.until(lambda: rig.counts() == {"retry-wait": 1, "ready": 3})
    rig.drop("4.jpg", b"late")
    rig.until(lambda: rig.counts() == {"retry-wait": 1, "ready": 4})
    assert rig.daemon._status()["waits"] == [f"photos for painting wait: {message}"]
    assert [event.message.endswith(message) for event in rig.events].count(True) == 1
    look = OnChange(rig.daemon).look
    look(1.0)
    away.clear()
    if mended == "weights fetch":
        keras_weights().parent.mkdir(parents=True)
        keras_weights().touch()
        os.truncate(keras_weights(), BYTES)
        look(11.0)
    elif mended == "reload":
        rig.daemon.ask("reload")
    else:
        rig.stop()
        rig.start()
    rig.until(lambda: len(rig.results()) == 5)
    assert rig.daemon._status()["waits"] == []


@pytest.mark.parametrize("away", ["waves.png", "mine"])
def test_photos_wait_for_a_named_preset_whose_image_or_folder_is_away(rigs, tmp_path, away):
    """As at boot, before a disk or the network is there; it is no reason to end."""
    mine = own_preset(tmp_path)
    place = mine if away == "mine" else mine / away
    place.rename(tmp_path / "unplugged")
    rig = rigs(start=False, preset="own", presets=[str(mine)])
    rig.start()
    rig.drop("a.jpg")
    rig.drop("draft/b.jpg", b"other")  # its preset is sure only where all folders are there
    noted = "SELECT 1 FROM files WHERE note = 'preset'"
    rig.until(lambda: len(rig.daemon._ledger.ask(noted)) == 1 + (place == mine) and rig.idle())
    assert "a--own.jpg" not in rig.results()
    (told,) = [event.message for event in rig.events if event.kind == "warning"]
    assert told.startswith("photos for ")
    look = OnChange(rig.daemon).look
    (tmp_path / "unplugged").rename(place)
    look(1.0)
    look(11.0)  # it has rested
    rig.until(lambda: rig.results() == ["a--own.jpg", "draft/b--draft.jpg"])


def test_what_is_queued_waits_for_a_preset_whose_image_goes_away(rigs, tmp_path):
    mine = own_preset(tmp_path)
    rig = rigs(preset="own", presets=[str(mine)])
    rig.queue("a.jpg")
    (mine / "waves.png").rename(tmp_path / "unplugged")
    rig.daemon.ask("reload")
    rig.daemon._resume()
    rig.until(lambda: rig.counts() == {"held": 1})
    (tmp_path / "unplugged").rename(mine / "waves.png")
    rig.daemon.ask("reload")
    rig.until(lambda: rig.results() == ["a--own.jpg"])


def test_a_preset_is_not_said_to_be_gone_for_good_while_its_folder_is_away(rigs, tmp_path):
    mine = own_preset(tmp_path)
    rig = rigs(presets=[str(mine)])
    rig.queue("own/a.jpg")
    mine.rename(tmp_path / "unplugged")
    rig.asked("reload")
    assert rig.counts() == {"held": 1}
    [told] = rig.daemon._status()["waits"]
    assert told.startswith("photos for all presets wait: ")


def test_a_photo_that_is_taken_away_waits_no_longer_for_a_preset(rigs, tmp_path):
    mine = own_preset(tmp_path)
    rig = rigs(preset="own", presets=[str(mine)], rescan_seconds=1)
    photo = rig.queue("a.jpg")
    (mine / "waves.png").rename(tmp_path / "unplugged")
    rig.daemon.ask("reload")
    rig.daemon._resume()
    rig.until(lambda: rig.counts() == {"held": 1})
    photo.rename(tmp_path / "kept.jpg")
    rig.until(lambda: rig.counts() == {"vanished": 1})
    (tmp_path / "kept.jpg").rename(photo)
    (tmp_path / "unplugged").rename(mine / "waves.png")
    rig.daemon.ask("reload")
    rig.until(lambda: rig.results() == ["a--own.jpg"])


def test_a_photo_that_is_taken_away_while_it_waits_waits_no_longer_and_may_come_back(
    rigs, tmp_path
):
    rig = rigs(rescan_seconds=1)
    photo = rig.queue("a.jpg")
    photo.rename(tmp_path / "kept.jpg")
    rig.until(lambda: rig.counts() == {"vanished": 1})
    (tmp_path / "kept.jpg").rename(photo)
    rig.until(lambda: rig.counts() == {"ready": 1})
    rig.daemon.ask("resume")
    rig.until(lambda: rig.results() == ["a--painting.jpg"])
    assert not {"retry", "failed"} & {event.kind for event in rig.events}


def test_a_restart_does_nothing_twice(rigs, tmp_path):
    first = rigs()
    for number in range(5):
        first.drop(f"{number}.jpg", b"%d" % number)
    first.until(lambda: len(first.results()) == 5)
    first.daemon.stop()
    second = rigs()
    second.until(lambda: second.daemon._intake.health(time.monotonic())[0].scan_age < 60)
    second.until(second.idle)
    assert second.executor.ran == []


def test_features_that_the_config_asks_for_by_now_make_another_picture_of_a_touched_photo(rigs):
    rig = rigs(features="builtin")
    rig.paint("a.jpg")
    rig.executor.suffix = b" by VGG19"
    rig.settings["features"] = "vgg19"
    rig.asked("reload")
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"done": 1, "superseded": 1})
    assert (rig.output / "a--painting.jpg").read_bytes() == b"painting:photo by VGG19"
    rig.drop("b.jpg")  # is the same photo: copied from the new one
    rig.until(lambda: rig.results() == ["a--painting.jpg", "b--painting.jpg"])
    assert (rig.output / "b--painting.jpg").read_bytes() == b"painting:photo by VGG19"
    assert [name for name, _ in rig.executor.ran] == ["a.jpg", "a.jpg"]


def test_a_result_that_was_touched_up_by_hand_is_not_copied(rigs):
    rig = rigs()
    rig.paint("a.jpg", b"same")
    (rig.output / "a--painting.jpg").write_bytes(b"touched up")
    rig.drop("b.jpg", b"same")
    rig.until(lambda: rig.counts() == {"done": 2})
    assert (rig.output / "b--painting.jpg").read_bytes() == b"painting:same"


def test_a_changed_photo_replaces_its_own_result_and_nothing_else(rigs):
    rig = rigs()
    rig.output.mkdir()
    (rig.output / "b--painting.jpg").write_bytes(b"somebody's own")
    rig.drop("a.jpg", b"one")
    rig.drop("b.jpg", b"two")
    rig.until(lambda: len(rig.results()) == 3)
    rig.drop("a.jpg", b"one, edited")
    rig.until(lambda: (rig.output / "a--painting.jpg").read_bytes() == b"painting:one, edited")
    assert rig.results() == ["a--painting.jpg", "b--painting.jpg", "b--painting~2.jpg"]
    assert (rig.output / "b--painting.jpg").read_bytes() == b"somebody's own"


def test_a_result_in_another_format_replaces_the_one_before(rigs, tmp_path):
    rig = rigs()
    photos = {name: rig.drop(f"{name}.jpg", name.encode()) for name in ("a", "b", "c")}
    rig.until(lambda: len(rig.results()) == 3)
    (rig.output / "b--painting.jpg").write_bytes(b"touched up by hand")
    (rig.output / "c--painting.webp").write_bytes(b"somebody's own")
    rig.extension = ".webp"
    for photo in photos.values():
        photo.write_bytes(photo.read_bytes() + b", edited")
    rig.until(lambda: rig.counts() == {"done": 3, "superseded": 3})
    assert rig.results() == [
        *("a--painting.webp", "b--painting.jpg", "b--painting.webp"),
        *("c--painting.webp", "c--painting~2.webp"),
    ]


def test_a_result_in_an_output_of_before_stays_though_the_format_has_changed(rigs, tmp_path):
    rig = rigs()
    rig.drop("a.jpg", b"one")
    rig.until(rig.results)
    rig.with_folders({"output": tmp_path / "new"}).extension = ".png"
    rig.daemon.ask("reload")
    rig.drop("a.jpg", b"two")
    rig.until(lambda: rig.results() == ["a--painting.png"] and rig.idle())
    assert (tmp_path / "out" / "a--painting.jpg").read_bytes() == b"painting:one"


def test_bytes_that_come_back_are_painted_again_and_published(rigs):
    rig = rigs()
    result = rig.output / "a--painting.jpg"
    for data in (b"one", b"another one", b"one"):
        rig.drop("a.jpg", data)
        rig.until(lambda data=data: result.exists() and result.read_bytes() == b"painting:" + data)
    rig.until(rig.idle)
    result.unlink()
    (rig.input / "a.jpg").unlink()
    rig.drop("a.jpg", b"one")
    rig.until(rig.daemon._ledger.after_pending)
    rig.look_around()
    rig.until(lambda: result.exists() and result.read_bytes() == b"painting:one")


def test_a_file_larger_than_allowed_is_not_even_read_until_it_is_allowed(rigs):
    rig = rigs()
    small = replace(rig.config().engine, max_bytes=100)
    whole = rig.daemon._load
    rig.daemon._load = lambda: replace(whole(), engine=small)
    rig.daemon.ask("reload")
    rig.until(lambda: rig.daemon.config.engine.max_bytes == 100)
    rig.drop("a.jpg", b"x" * 101)
    rig.until(lambda: any(event.reason == "too-large" for event in rig.events))
    assert rig.counts() == {}
    assert [note for _, _, note in rig.daemon._ledger.notes()] == ["too-large"]
    rig.daemon.tick(time.monotonic() + 60)
    assert told_of(rig)["failures"][0]["message"].startswith("a.jpg: it has more bytes than")
    rig.daemon._load = whole
    rig.daemon.ask("reload")
    rig.until(lambda: rig.results() == ["a--painting.jpg"])


def test_a_bug_behind_a_command_is_its_answer_and_not_the_end(rigs):
    rig = rigs()
    answer = rig.daemon.ask("cancel", job_id=1 << 70)  # more than SQLite can hold
    rig.daemon.tick(time.monotonic())
    assert answer.exception(0) is not None
    rig.daemon._load = lambda: (_ for _ in ()).throw(OSError(5, "the disk is asleep"))
    answer = rig.daemon.ask("reload")
    rig.daemon.tick(time.monotonic())
    assert isinstance(answer.exception(0), OSError)
    rig.drop("a.jpg")
    rig.until(lambda: rig.results() == ["a--painting.jpg"])


def test_who_asks_again_and_again_does_not_keep_photos_from_being_painted(rigs):
    rig = rigs()
    asked = 0

    def ask_again(_answer):
        nonlocal asked
        asked += 1
        if asked < 1000:  # before the last answer is even told
            rig.daemon.ask("status").add_done_callback(ask_again)

    rig.daemon.ask("status").add_done_callback(ask_again)
    rig.daemon.tick(time.monotonic())
    assert asked == 1


def test_what_only_a_start_can_change_is_said(rigs, tmp_path):
    rig = rigs()
    rig.settings |= {"state_dir": str(tmp_path / "new"), "metrics_port": 9464}
    rig.asked("reload")
    assert rig.daemon.config.state_dir == tmp_path / "state"
    assert rig.daemon.config.engine.checkpoint_dir == tmp_path / "state/checkpoints"
    said = [event.message for event in rig.events]
    assert "state_dir and metrics_port: in effect from the next start" in said


def test_of_a_config_s_refusals_for_whatever_reasons_the_newest_stands(rigs, tmp_path):
    rig, board, file = rigs(), Board(), tmp_path / "stylewatch.yaml"
    rig.daemon._load = lambda: load_config(file)
    for text in ("foldrs: []", "folders: [{input: in, output: out, preset: inc}]"):
        file.write_text(text)
        rig.daemon.ask("reload")
        rig.daemon.tick(time.monotonic())
    for event in rig.events:
        board.apply(event, 1.0)
    [row] = board.problems
    assert "unknown preset 'inc'" in row.message


def test_a_photo_that_can_t_be_moved_is_tried_again_later(rigs, tmp_path):
    rig = rigs()
    moved = tmp_path / "painted"
    moved.write_text("a file where the folder should be")
    rig.with_folders({"after": moved})
    rig.daemon.ask("reload")
    rig.drop("a.jpg")
    rig.until(lambda: any("could not be moved" in event.message for event in rig.events))
    moved.unlink()
    now = time.monotonic()
    rig.daemon.tick(now + LOOK_SECONDS)
    assert (rig.input / "a.jpg").exists()
    rig.daemon.tick(now + AFTER_SECONDS + 60)
    assert (moved / "a.jpg").exists()


def test_another_config_deletes_at_once_what_could_not_be_deleted(rigs, stuck):
    rig = rigs(start=False).with_folders({"after": "delete"}).start()
    photo = rig.drop("a.jpg")
    rig.until(lambda: any("could not be moved or deleted" in each.message for each in rig.events))
    stuck.clear()
    rig.look_around()
    assert photo.exists()
    rig.daemon.ask("reload")
    rig.look_around()
    assert not photo.exists()


def test_a_bad_photo_is_set_aside_with_its_reason_and_the_others_go_on(rigs):
    def behave(request):
        if request.source.name == "bad.jpg":
            return Failure(kind=FailureKind.BAD_INPUT, reason="truncated", message="cut")
        return None

    rig = rigs(behave)
    rig.drop("bad.jpg")
    rig.drop("good.jpg", b"good")
    rig.until(lambda: rig.results() == ["good--painting.jpg"] and rig.idle())
    assert rig.counts() == {"done": 1, "quarantined": 1}
    assert [e.reason for e in rig.events if e.kind == "failed"] == ["truncated"]
    assert rig.asked("retry", reason="truncated") == 1
    rig.until(lambda: len(rig.executor.ran) == 3)


def test_a_crash_is_tried_again_and_a_second_one_sets_the_photo_aside(rigs):
    crashes = []

    def behave(request):
        crashes.append(request.crashes)
        raise WorkerDied("killed")

    rig = rigs(behave)
    rig.daemon._ledger._rng = type("Rng", (), {"uniform": staticmethod(lambda a, b: 0.0)})()
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"quarantined": 1})
    assert crashes == [0, 1]
    assert (rig.input / "a.jpg").exists()


def test_a_photo_that_takes_too_long_is_tried_as_often_as_the_config_says(rigs):
    def behave(request):
        raise JobTimeout("it was stopped")

    rig = rigs(behave, max_attempts=3)
    rig.daemon._ledger._rng = type("Rng", (), {"uniform": staticmethod(lambda a, b: 0.0)})()
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"quarantined": 1})
    assert len(rig.executor.ran) == 3
    assert [event.reason for event in rig.events if event.kind == "failed"] == ["timeout"]


def test_a_photo_deleted_before_its_turn_is_no_failure(rigs):
    def behave(request):
        request.source.unlink(missing_ok=True)
        return Failure(kind=FailureKind.CHANGED, reason="vanished", message="gone")

    rig = rigs(behave)
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"vanished": 1})
    assert "failed" not in {event.kind for event in rig.events}


def test_whoever_paints_a_changed_photo_is_told_of_its_earlier_result_while_that_is_untouched(rigs):
    told = []
    rig = rigs(lambda request: told.append(request.earlier))
    result = rig.output / "a--painting.jpg"
    for count, content in enumerate((b"first", b"second", b"third"), start=1):
        rig.drop("a.jpg", content)
        rig.until(lambda count=count: len(told) == count and rig.idle())
        if count == 2:
            result.write_bytes(b"touched up by hand")
    rig.drop("b.jpg", b"another")
    rig.until(lambda: len(told) == 4 and rig.idle())
    assert told == [None, result, None, None]


def test_after_move_takes_the_photo_away_only_when_all_its_results_are_there(rigs, tmp_path):
    moved = tmp_path / "painted"
    seen = []

    def behave(request):
        seen.append(request.source.exists())

    rig = rigs(behave, start=False)
    rig.with_folders({"preset": ("painting", "draft"), "after": moved}).start()
    rig.drop("sub/a.jpg")
    rig.until((moved / "sub/a.jpg").exists)
    assert seen == [True, True]
    assert rig.results() == ["sub/a--draft.jpg", "sub/a--painting.jpg"]
    assert not (rig.input / "sub/a.jpg").exists()


def test_an_album_is_painted_in_the_order_of_its_names(rigs, tmp_path):
    rig = rigs()
    names = [f"IMG_{number}.jpg" for number in (10, 2, 1, 11, 3, 20)] + ["img_4.jpg", "À 1.jpg"]
    (tmp_path / "album").mkdir()
    for name in names:
        (tmp_path / "album" / name).write_bytes(name.encode())
    rig.until(rig.idle)
    (tmp_path / "album").rename(rig.input / "album")
    rig.until(lambda: rig.counts() == {"done": len(names)})
    wanted = [f"IMG_{number}.jpg" for number in (1, 2, 3, 4, 10, 11, 20)] + ["À 1.jpg"]
    assert [name.replace("img", "IMG") for name, _ in rig.executor.ran] == wanted


def test_two_daemons_never_share_a_folder(rigs, tmp_path):
    rigs()
    with pytest.raises(LockedError, match="uses"):
        rigs()
    with pytest.raises(LockedError, match="watches"):
        rigs(state_dir=str(tmp_path / "other-state"))


def test_a_folder_that_comes_later_is_locked_then(rigs, tmp_path):
    first = rigs(start=False)
    first.input.rmdir()
    first.start()
    second = rigs(start=False, state_dir=str(tmp_path / "other"))
    for number in range(2):
        first.daemon.tick(time.monotonic() + number * LOOK_SECONDS)
        with pytest.raises(LockedError):
            second.start()
        first.input.rename(tmp_path / f"before {len(list(tmp_path.iterdir()))}")
        first.input.mkdir()  # another one in its place


@pytest.mark.parametrize("place", [".", "out", "out/in"])
def test_a_folder_that_comes_later_is_not_taken_up_where_results_would_come_in(
    rigs, tmp_path, place
):
    rig = rigs(start=False)
    rig.input.rmdir()
    (rig.output / "in").mkdir(parents=True)
    (tmp_path / place / "a.jpg").write_bytes(b"photo")
    rig.start()
    rig.input.symlink_to(tmp_path / place)
    rig.until(lambda: "the output of 'in'" in rig.daemon._health(time.monotonic())[0].detail)
    rig.input.unlink()
    rig.drop("b.jpg")
    rig.until(lambda: "b--painting.jpg" in rig.results())
    assert not [name for name in rig.results() if "a--painting" in name]


def test_pause_and_resume(rigs):
    rig = rigs()
    rig.queue("a.jpg")
    for _ in range(10):
        rig.daemon.tick(time.monotonic())
    assert rig.executor.ran == []
    rig.daemon.ask("resume")
    rig.until(lambda: len(rig.results()) == 1)


def letting_go(rig, event):
    """How an executor closes: the job that waits for the event ends, and that has been heard of."""

    def close():
        event.set()
        wait_until(lambda: not rig.daemon._dispatcher._finished.empty())

    return close


@pytest.mark.parametrize("lost", [EngineLost("it was closed"), WorkerDied("crashed (SIGTERM)")])
def test_a_stop_leaves_no_trace_of_a_failure_at_what_it_interrupts(rigs, tmp_path, lost):
    ended = threading.Event()

    def behave(request):
        ended.wait(60)
        raise lost

    rig = rigs(behave, grace_seconds=0)
    rig.executor.close = letting_go(rig, ended)
    rig.drop("a.jpg")
    rig.until(lambda: rig.daemon._dispatcher.running)
    rig.daemon.stop()
    [stopping] = [event for event in rig.events if event.kind == "stopping"]
    assert "the rest goes on at the next start" in stopping.message
    assert rig.events[-1] is stopping
    with closing(LedgerReader(tmp_path / "state" / "ledger.db")) as reader:
        [job] = reader.jobs()
    assert (job.state, job.reason, job.message) == (JobState.READY, "", "")


def test_a_stop_in_the_middle_of_a_long_tick_is_no_crash_of_what_it_interrupts(rigs, tmp_path):
    """Who asks all processes of a group to end ends workers at once, whatever the daemon does."""
    stop, ended = threading.Event(), threading.Event()

    def behave(request):
        ended.wait(60)
        raise WorkerDied("crashed (SIGTERM)")

    rig = rigs(behave, start=False).build()

    def long_part():
        for running in rig.daemon._dispatcher.running.values():
            stop.set()
            ended.set()
            running.future.exception(60)

    rig.drop("a.jpg")
    rig.daemon._mailbox.obey = long_part
    rig.daemon.run(stop)
    with closing(LedgerReader(tmp_path / "state" / "ledger.db")) as reader:
        [job] = reader.jobs()
    assert (job.state, job.reason, job.crashes) == (JobState.READY, "", 0)
    assert job.attempts == 1, "nothing is begun any more"


def told_of(rig, folder="in"):
    """What was told last of the folder as a whole."""
    return [event for event in rig.events if event.kind == "folder"][-1].extra


def a_bad_one(request):
    if request.source.name != "bad.jpg":
        return None
    message = "This is not an image"
    return Failure(kind=FailureKind.BAD_INPUT, reason="not-an-image", message=message)


def test_whoever_comes_is_told_what_failed_and_what_is_done_before(rigs, tmp_path):
    first = rigs(a_bad_one)
    for name in ("bad.jpg", "good.jpg"):
        first.drop(name, name.encode())
    first.until(lambda: first.counts() == {"done": 1, "quarantined": 1})
    first.daemon.stop()
    second = rigs(a_bad_one)
    second.until(lambda: any(event.kind == "folder" for event in second.events))
    told = told_of(second)
    counts = [told[name] for name in ("waiting", "done", "failed", "held")]
    assert counts == [0, 1, 1, 0]
    assert [each["message"] for each in told["failures"]] == [
        "bad.jpg: This is not an image. Remove it, or export it as JPEG"
    ]
    [result] = told["results"]
    assert result["source"] == str(second.input / "good.jpg")
    assert result["output"] == str(second.output / "good--painting.jpg")
    second.daemon.ask("retry", job_id=told["failures"][0]["id"])
    second.executor.behave = lambda request: None
    second.until(lambda: second.counts() == {"done": 2})
    second.daemon.tick(time.monotonic() + 60)
    assert (told_of(second)["failures"], told_of(second)["failed"]) == ([], 0)


def test_what_waits_has_waited_since_it_came_whenever_the_config_is_read_again(rigs, tmp_path):
    """A file that is on its way, and a folder that is away."""
    away = {"name": "away", "input": tmp_path / "away", "output": tmp_path / "other"}
    rig = rigs(start=False).with_folders({}, away).start()
    clock, began = [1000.0], time.monotonic()
    rig.daemon._ledger._clock = lambda: clock[0]
    rig.drop("empty.jpg", b"")
    rig.until(lambda: rig.daemon._intake.settling()["in"])

    def waiting_since(later):
        rig.daemon.tick(began + later)
        told = {event.folder: event.extra for event in rig.events if event.kind == "folder"}
        return told["away"]["since"], [since for _, _, since in told["in"]["slow"]]

    assert waiting_since(60) == (1000.0, [1000.0])
    clock[0] = 2000.0
    rig.daemon.ask("reload")
    assert waiting_since(120) == (1000.0, [1000.0])
    as_before = rig.daemon._load
    rig.daemon._load = lambda: replace(as_before(), settle_max_seconds=500.0)
    rig.daemon.ask("reload")  # by these rules it settles anew
    rig.daemon.tick(began + 180)
    assert waiting_since(240) == (1000.0, [2000.0])


def test_a_file_that_never_becomes_whole_is_arriving_and_then_failed(rigs):
    rig = rigs(settle_max_seconds=2)
    rig.drop("empty.jpg", b"")
    rig.until(lambda: told_of(rig).get("arriving") == 1 if rig.events[1:] else False)
    rig.until(lambda: any(event.kind == "failed" for event in rig.events))
    rig.daemon.tick(time.monotonic() + 60)
    told = told_of(rig)
    assert (told["arriving"], told["failed"]) == (0, 1)
    (failure,) = told["failures"]
    assert failure["message"] == "empty.jpg: it is empty. Copy it again from its source"
    assert failure["id"] == 0
    last = rig.events[-1]
    assert last.path == str(rig.input)
    rig.daemon.tick(time.monotonic() + 120)
    assert rig.events[-1] is last  # nothing has changed
    assert rig.daemon._status()["failed_files"] == {"in": 1}


def test_a_folder_that_leaves_the_config_is_told_to_have_left(rigs, tmp_path):
    rig = rigs()
    rig.until(lambda: rig.daemon._survey._told)
    (tmp_path / "other").mkdir()
    rig.input = tmp_path / "other"
    rig.daemon.ask("reload")
    rig.until(lambda: "other" in rig.daemon._survey._told)
    left = [event.folder for event in rig.events if event.reason == "left"]
    assert left == ["in"]


def test_what_waits_can_be_cancelled_and_comes_back(rigs, monkeypatch):
    rig = rigs()
    rig.queue("a.jpg")
    [job] = rig.daemon._ledger.jobs()
    assert rig.asked("cancel", job_id=job.id) is None
    assert rig.counts() == {"held": 1}
    [told] = [event for event in rig.events if event.reason == "cancelled"]
    assert (told.kind, told.job_id) == ("warning", job.id)
    with pytest.raises(UsageError, match=f"Job {job.id} is held"):
        rig.asked("cancel", job_id=job.id)
    rig.daemon._resume()
    rig.daemon.tick(time.monotonic())
    assert rig.executor.ran == []
    monkeypatch.setattr(rig.daemon, "_hold_others", None)  # all others need not be looked at for it
    assert rig.asked("retry", job_id=job.id) == 1
    rig.until(lambda: rig.counts() == {"done": 1})
    with pytest.raises(UsageError, match=f"Job {job.id} is done"):
        rig.asked("cancel", job_id=job.id)


def test_a_photo_that_was_cancelled_is_painted_when_it_changes_whatever_else_becomes_of_it(
    rigs, tmp_path
):
    rig = rigs(rescan_seconds=1)
    photo = rig.queue("a.jpg")
    rig.asked("cancel", job_id=1)
    rig.daemon._resume()
    assert rig.asked("retry") == 0
    photo.chmod(0o600)
    changed = Identity.of(photo.stat())
    rig.until(lambda: rig.daemon._ledger.job(1).identity == changed)
    assert rig.counts() == {"held": 1}
    photo.rename(tmp_path / "aside.jpg")
    rig.until(lambda: rig.look_around(1) or rig.counts() == {"vanished": 1})
    (tmp_path / "aside.jpg").rename(photo)
    rig.until(lambda: rig.counts() == {"held": 1})
    assert rig.executor.ran == []
    os.utime(photo)
    rig.until(lambda: rig.counts() == {"done": 1})


def test_what_is_painted_can_be_cancelled_and_is_held_not_failed(rigs):
    release = threading.Event()

    def behave(request):
        release.wait(60)
        raise CancelledError

    rig = rigs(behave)
    rig.executor.cancel = lambda job_id: release.set()
    rig.drop("a.jpg")
    rig.until(lambda: rig.daemon._dispatcher.running)
    [job_id] = rig.daemon._dispatcher.running
    rig.asked("cancel", job_id=job_id)
    rig.until(lambda: rig.counts() == {"held": 1})
    assert not any(event.kind == "failed" for event in rig.events)
    assert [event.job_id for event in rig.events if event.reason == "cancelled"] == [job_id]


def test_what_was_cancelled_is_held_whatever_else_ends_it(rigs):
    release = threading.Event()

    def behave(request):
        release.wait(60)
        raise JobTimeout("it was too late anyway")

    rig = rigs(behave)
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"running": 1})
    [job] = rig.daemon._ledger.jobs()
    rig.asked("cancel", job_id=job.id)
    rig.daemon._stop.set()  # it may even be the end
    release.set()
    rig.until(lambda: rig.counts() == {"held": 1})
    assert [event.job_id for event in rig.events if event.reason == "cancelled"] == [job.id]


def test_what_was_cancelled_is_held_where_it_has_not_ended_before_the_daemon(rigs):
    """As on a cluster that takes its time."""
    release = threading.Event()
    rig = rigs(lambda request: release.wait(60) and None)
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"running": 1})
    [job] = rig.daemon._ledger.jobs()
    rig.asked("cancel", job_id=job.id)
    rig.daemon._dispatcher.close(time.monotonic())
    assert rig.counts() == {"held": 1}
    release.set()


@pytest.mark.parametrize("edited", [False, True])
def test_the_same_picture_is_not_painted_twice_at_once(rigs, edited):
    """Also where its preset was edited while both photos waited."""
    release = threading.Event()
    rig = rigs(lambda request: release.wait(60) and None)
    rig.executor.slots = 2
    rig.daemon.ask("pause")
    for name in ("a.jpg", "a (1).jpg"):
        rig.drop(name)
    rig.until(lambda: rig.counts() == {"ready": 2})
    if edited:
        plain = rig.config()
        presets = {name: replace(each, digest="other") for name, each in plain.presets.items()}
        rig.daemon._load = lambda: replace(plain, presets=presets)
        rig.asked("reload")
    rig.asked("resume")
    for _ in range(5):
        rig.daemon.tick(time.monotonic())
    assert rig.counts() == {"running": 1, "ready": 1}
    release.set()
    rig.until(lambda: rig.counts() == {"done": 2})
    assert len(rig.executor.ran) == 1
    assert len(rig.results()) == 2


@pytest.mark.parametrize("command", ["cancel", "retry"])
def test_a_job_that_there_is_not_is_said(rigs, command):
    with pytest.raises(UsageError, match="There is no job 9999"):
        rigs().asked(command, job_id=9999)


def test_a_photo_of_a_folder_that_is_not_watched_can_t_be_retried(rigs, tmp_path):
    rig = rigs()
    rig.queue("a.jpg")
    (tmp_path / "other").mkdir()
    rig.input = tmp_path / "other"
    rig.asked("reload")
    assert rig.counts() == {"held": 1}
    with pytest.raises(UsageError, match="is not watched now"):
        rig.asked("retry", job_id=1)


def test_photos_of_a_folder_that_has_left_the_config_are_told_of(rigs, tmp_path):
    rig = rigs()
    rig.queue("a.jpg")
    first, rig.input = rig.input, tmp_path / "other"
    rig.input.mkdir()
    rig.asked("reload")
    held = "held: 1 photo, as the folder in is not watched now"
    assert rig.daemon._status()["waits"] == [held]
    assert [event.message for event in rig.events].count(held) == 1
    rig.input = first
    rig.asked("reload")
    assert rig.daemon._status()["waits"] == []


def test_a_photo_whose_preset_can_t_be_used_can_t_be_retried(rigs, tmp_path):
    mine = own_preset(tmp_path)
    rig = rigs(presets=[str(mine)])
    rig.queue("own/a.jpg")
    (mine / "waves.png").unlink()
    rig.asked("reload")
    assert rig.counts() == {"held": 1}
    with pytest.raises(UsageError, match="the preset own, which can't be used now.* status`"):
        rig.asked("retry", job_id=1)
    assert rig.asked("retry") == rig.asked("retry", reason="preset") == 0
    assert rig.counts() == {"held": 1}
    (mine / "waves.png").write_bytes(b"picture")
    rig.asked("reload")
    assert rig.counts() == {"ready": 1}


@pytest.mark.parametrize("lacks", ["folder", "preset"])
def test_only_what_is_tried_again_now_is_counted_as_retried(rigs, tmp_path, lacks):
    bad = Failure(kind=FailureKind.BAD_INPUT, reason="truncated", message="cut")
    rig = rigs(lambda request: bad)
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"quarantined": 1})
    if lacks == "folder":
        rig.input = tmp_path / "other"
        rig.input.mkdir()
    config = rig.config()
    rig.daemon._load = lambda: config if lacks == "folder" else replace(config, presets={})
    rig.asked("reload")
    for _ in range(2):
        assert rig.asked("retry") == 0
        assert rig.counts() == {"held": 1}
    if lacks == "preset":
        rig.daemon._load = lambda: config
        rig.asked("reload")
        rig.until(lambda: rig.counts() == {"quarantined": 1})
        assert rig.asked("retry") == 1


def test_a_queued_photo_whose_preset_changes_and_changes_back_is_painted_once(rigs):
    rig = rigs()
    rig.queue("a.jpg")
    plain = rig.config()
    other = plain.presets | {rig.preset: replace(plain.presets[rig.preset], digest="other")}
    rig.daemon._load = lambda: replace(plain, presets=other)
    rig.asked("reload")
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"ready": 1, "superseded": 1})
    rig.daemon._load = rig.config
    rig.asked("reload")
    rig.daemon._resume()
    rig.until(lambda: rig.counts() == {"done": 1, "superseded": 1})
    assert len(rig.executor.ran) == 1


@pytest.mark.parametrize("restart", [False, True])
def test_what_waits_is_painted_as_the_config_says_when_its_turn_comes(rigs, restart):
    """In its old place in the queue, before what came later. What is painted stays as it is."""
    rig = rigs()
    rig.paint("done.jpg", b"done")
    rig.daemon.ask("pause")
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        rig.drop(name, name.encode())
    rig.until(lambda: rig.counts() == {"done": 1, "ready": 3})
    rig.preset = "draft"
    if restart:
        rig.stop()
        rig.start()
    else:
        rig.asked("reload")
    rig.drop("new.jpg", b"new")
    rig.until(lambda: rig.counts() == {"done": 1, "ready": 4})
    rig.daemon.ask("resume")
    rig.until(lambda: rig.counts() == {"done": 5, "superseded": 3})
    names = ["a", "b", "c", "new"]
    assert rig.results() == sorted(
        ["done--painting.jpg", *(f"{name}--draft.jpg" for name in names)]
    )
    assert rig.executor.ran[1:] == [(f"{name}.jpg", "draft") for name in names]
    queued = [event.message for event in rig.events if event.kind == "queued"]
    assert queued[-1] == "c.jpg: queued for draft"


def test_a_preset_that_is_added_is_for_what_waits_and_not_for_what_is_painted(rigs):
    rig = rigs()
    painted = rig.paint("done.jpg", b"done")
    rig.daemon.ask("pause")
    photo = rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"done": 1, "ready": 1})
    rig.with_folders({"preset": ("painting", "draft"), "after": "delete"})
    rig.asked("reload")
    rig.daemon.ask("resume")
    rig.until(lambda: not photo.exists())
    assert rig.results() == ["a--draft.jpg", "a--painting.jpg", "done--painting.jpg"]
    assert painted.exists()


def test_what_waits_and_is_to_be_left_alone_by_now_is_not_painted(rigs):
    rig = rigs()
    rig.queue("a.jpg")
    rig.with_folders({"rules": (Rule(preset=(), max_side=600),)})
    rig.asked("reload")
    rig.asked("resume")
    assert (rig.counts(), rig.executor.ran) == ({"superseded": 1}, [])
    rig.with_folders({"rules": ()})
    rig.asked("reload")
    rig.until(lambda: rig.results() == ["a--painting.jpg"])


def test_a_rule_that_asks_for_the_header_of_a_photo_that_is_gone_by_its_turn_is_no_trouble(rigs):
    rig = rigs()
    photo = rig.queue("a.jpg")
    rig.with_folders({"rules": (Rule(preset=(), max_side=600),)})
    rig.asked("reload")
    photo.unlink()
    rig.daemon.ask("resume")
    rig.until(lambda: rig.counts() == {"vanished": 1})
    assert rig.executor.ran == []


def test_a_photo_whose_header_can_t_be_read_for_a_moment_is_not_painted_in_the_old_preset(
    rigs, monkeypatch
):
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.1)
    rig = rigs()
    rig.queue("a.jpg")
    rig.with_folders({"rules": (Rule(preset=("draft",), max_side=600),)})
    rig.asked("reload")
    with monkeypatch.context() as patched:
        broken = OSError(errno.EIO, os.strerror(errno.EIO))
        patched.setattr(intake, "open_photo", Mock(side_effect=broken))
        rig.daemon.ask("resume")
        rig.until(lambda: rig.counts() == {"retry-wait": 1})
    rig.until(lambda: rig.counts() == {"done": 1, "superseded": 1})
    assert rig.executor.ran == [("a.jpg", "draft")]
    [told, *_] = [event for event in rig.events if event.kind == "retry"]
    assert told.message == "a.jpg: can't be read: Input/output error"
    assert told.reason == "eio"


def test_what_failed_or_was_cancelled_stays_so_when_another_preset_is_added(rigs):
    rig = rigs(start=False).with_folders({"preset": ("painting", "draft", "ink")}).start()
    rig.daemon.ask("pause")
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"ready": 3})
    ledger = rig.daemon._ledger
    failed, cancelled, waiting = ledger.jobs_with([1, 2, 3])
    bad = Failure(kind=FailureKind.BAD_INPUT, reason="truncated", message="cut")
    ledger.fail(failed.id, bad, 3)
    rig.asked("cancel", job_id=cancelled.id)
    rig.with_folders({"preset": ("painting", "draft", "ink", "mosaic")})
    rig.asked("reload")
    rig.daemon.ask("resume")
    rig.until(lambda: rig.counts() == {"quarantined": 1, "held": 1, "done": 2})
    assert ledger.job(waiting.id).state is JobState.DONE
    assert rig.results() == ["a--ink.jpg", "a--mosaic.jpg"]


def test_what_failed_in_a_preset_that_is_not_wanted_any_more_is_not_painted_in_it_by_a_retry(rigs):
    """Nor does it keep the photo from being deleted then, which is done in all that is wanted."""
    rig = rigs(start=False).with_folders({"preset": ("ink", "painting"), "after": "delete"}).start()
    rig.daemon.ask("pause")
    photo = rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"ready": 2})
    bad = Failure(kind=FailureKind.BAD_INPUT, reason="truncated", message="cut")
    rig.daemon._ledger.fail(1, bad, 3)
    rig.with_folders({"preset": ("painting",), "after": "delete"})
    rig.asked("reload")
    rig.daemon.ask("resume")
    rig.until(lambda: rig.counts() == {"quarantined": 1, "done": 1})
    rig.look_around()
    assert photo.exists()
    assert rig.asked("retry") == 1
    rig.until(lambda: rig.look_around(1) or not photo.exists())
    assert rig.executor.ran == [("a.jpg", "painting")]


def test_a_new_preset_changes_nothing_but_for_what_waits_in_a_folder_of_its_name(rigs, tmp_path):
    mine = own_preset(tmp_path)
    (mine / "own.yaml").rename(tmp_path / "own.yaml")
    rig = rigs(presets=[str(mine)])
    rig.daemon.ask("pause")
    for name in ("a.jpg", "own/b.jpg"):
        rig.drop(name, name.encode())
    rig.until(lambda: rig.counts() == {"ready": 2})
    (tmp_path / "own.yaml").rename(mine / "own.yaml")
    rig.asked("reload")
    rig.daemon.ask("resume")
    rig.until(lambda: rig.counts() == {"done": 2, "superseded": 1})
    assert rig.results() == ["a--painting.jpg", "own/b--own.jpg"]
    assert [job.attempts for job in rig.daemon._ledger.jobs([JobState.DONE])] == [1, 1]


def test_what_waits_is_held_where_the_config_names_a_preset_whose_image_is_away(rigs, tmp_path):
    mine = own_preset(tmp_path)
    rig = rigs(presets=[str(mine)])
    rig.queue("a.jpg")
    (mine / "waves.png").rename(tmp_path / "unplugged")
    rig.preset = "own"
    rig.asked("reload")
    rig.asked("resume")
    assert (rig.counts(), rig.executor.ran) == ({"superseded": 1}, [])
    assert rig.daemon._status()["held_files"] == {"in": 1}
    (tmp_path / "unplugged").rename(mine / "waves.png")
    rig.asked("reload")
    rig.until(lambda: rig.results() == ["a--own.jpg"])


@pytest.mark.parametrize("now", ["own", "draft"])
def test_a_photo_is_not_deleted_before_it_is_painted_in_what_the_config_names_now(
    rigs, tmp_path, now
):
    """Though it is done in one preset, and what it waited for is not wanted any more.

    Nor is it painted again in that one, whose result was taken away meanwhile.
    """
    mine, release = own_preset(tmp_path), threading.Event()

    def behave(request):
        if request.preset.name == "painting":
            rig.daemon.ask("pause")
        if request.preset.name == "draft":
            release.wait(60)

    rig = rigs(behave, start=False, presets=[str(mine)])
    rig.with_folders({"after": "delete", "preset": ("painting", "ink")}).start()
    path = rig.drop("a.jpg")
    rig.until(lambda: rig.results() == ["a--painting.jpg"])
    (rig.output / "a--painting.jpg").rename(tmp_path / "collected.jpg")
    (mine / "waves.png").rename(tmp_path / "unplugged")
    rig.config = lambda config=rig.config: replace(
        config(),
        folders=tuple(replace(each, preset=("painting", now)) for each in config().folders),
    )
    rig.daemon._load = rig.config
    rig.asked("reload")
    rig.asked("resume")
    rig.look_around()
    assert path.exists()
    release.set()
    (tmp_path / "unplugged").rename(mine / "waves.png")
    rig.asked("reload")
    rig.until(lambda: rig.results() == [f"a--{now}.jpg"] and not path.exists())
    assert rig.executor.ran == [("a.jpg", "painting"), ("a.jpg", now)]


def test_what_is_held_for_a_broken_preset_is_painted_in_the_one_that_the_config_chooses_now(
    rigs, tmp_path
):
    mine = own_preset(tmp_path)
    rig = rigs(presets=[str(mine)])
    rig.preset = "own"
    rig.asked("reload")
    rig.daemon.ask("pause")
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"ready": 1})
    (mine / "waves.png").unlink()
    rig.asked("reload")
    rig.until(lambda: rig.counts() == {"held": 1})
    rig.preset = "painting"
    rig.asked("reload")
    rig.asked("resume")
    rig.until(lambda: rig.results() == ["a--painting.jpg"])


def test_a_photo_of_two_presets_does_not_wait_for_the_image_of_one(rigs, tmp_path):
    mine = own_preset(tmp_path)
    rig = rigs(start=False, presets=[str(mine)])
    rig.with_folders({"preset": ("own", "painting")}).start()
    rig.daemon.ask("pause")
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"ready": 2})
    (mine / "waves.png").rename(tmp_path / "unplugged")
    rig.asked("reload")
    rig.daemon.ask("resume")
    rig.until(lambda: rig.counts() == {"held": 1, "done": 1})
    (tmp_path / "unplugged").rename(mine / "waves.png")
    rig.asked("reload")
    rig.until(lambda: rig.counts() == {"done": 2})
    assert rig.results() == ["a--own.jpg", "a--painting.jpg"]


@pytest.mark.parametrize("data", [b"photo", b"edited"])
def test_what_was_painted_when_the_config_changed_is_not_begun_again_for_the_old_one(rigs, data):
    """Though its photo was touched, and so matched, or saved anew before its worker was lost."""
    release = threading.Event()

    def behave(request):
        if request.preset.name == "painting":
            release.wait(60)
            return Failure(kind=FailureKind.LOST, reason="engine-lost", message="lost")
        return None

    rig = rigs(behave, rescan_seconds=1)
    photo = rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"running": 1})
    rig.preset = "draft"
    rig.asked("reload")
    photo.write_bytes(data)
    rig.until(lambda: rig.counts() == {"running": 1, "ready": 1})
    release.set()
    rig.until(lambda: rig.counts() == {"done": 1, "superseded": 1})
    assert rig.executor.ran == [("a.jpg", "painting"), ("a.jpg", "draft")]
    assert (rig.output / "a--draft.jpg").read_bytes() == b"draft:" + data


def test_what_was_painted_when_it_was_to_be_left_alone_is_not_begun_again(rigs):
    release = threading.Event()

    def behave(request):
        release.wait(60)
        return Failure(kind=FailureKind.LOST, reason="engine-lost", message="lost")

    rig = rigs(behave, rescan_seconds=1)
    photo = rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"running": 1})
    rig.with_folders({"preset": ()})
    rig.asked("reload")
    os.utime(photo)
    rig.until(lambda: rig.daemon._ledger.ask("SELECT 1 FROM files WHERE note = 'no-preset'"))
    release.set()
    rig.until(lambda: rig.counts() == {"superseded": 1})
    assert rig.executor.ran == [("a.jpg", "painting")]


def test_what_is_held_for_a_preset_that_was_renamed_is_painted_as_the_config_says(rigs, tmp_path):
    """In its turn, without being read again. But not what waits in a sub-folder of the old name."""
    mine = own_preset(tmp_path)
    rig = rigs(preset="own", presets=[str(mine)], rescan_seconds=1)
    rig.daemon.ask("pause")
    rig.drop("a.jpg", b"a")
    photo = rig.drop("Own/b.jpg", b"b")
    rig.until(lambda: rig.counts() == {"ready": 2})
    (mine / "own.yaml").rename(mine / "other.yaml")
    rig.preset = "other"
    rig.asked("reload")
    assert rig.counts() == {"ready": 1, "held": 1}
    rig.daemon.ask("resume")
    rig.until(lambda: rig.results() == ["a--other.jpg"] and rig.idle())
    assert rig.counts() == {"done": 1, "held": 1, "superseded": 1}
    gone = "held: 1 photo, as the preset own is not there any more"
    held = f"{gone}. Bring it back, or `touch` the photos"
    assert rig.daemon._status()["waits"] == [held]
    assert [event.message for event in rig.events].count(held) == 1
    os.utime(photo)
    rig.until(lambda: rig.results() == ["Own/b--other.jpg", "a--other.jpg"])
    assert rig.daemon._status()["waits"] == []


def queue_in_both(rig, count, one, other):
    """Let so many photos called `one` wait in the first folder, as many in `other`, then begin."""
    rig.daemon.ask("pause")
    for number in range(count):
        rig.drop(f"{one}{number}.jpg", b"%d" % number)
        rig.drop(f"../other/{other}{number}.jpg", f"{other} {number}".encode())
    waiting = [{"ready": count}, {"ready": count}]
    rig.until(lambda: [*rig.daemon._ledger.counts().values()] == waiting)
    rig.daemon.ask("resume")


def test_a_folder_has_as_many_turns_as_its_weight_says(rigs, tmp_path):
    def behave(request):
        return rendered(request, request.digest.encode(), seconds=FIRST_COST)

    rig = rigs(behave, start=False)
    (tmp_path / "other").mkdir()
    other = {"input": tmp_path / "other", "name": "other"}
    rig.with_folders({"weight": 3.0}, other).start()
    queue_in_both(rig, 8, "often", "rarely")
    rig.until(lambda: len(rig.executor.ran) >= 8)
    first = [name for name, _ in rig.executor.ran[:8]]
    assert sum(name.startswith("often") for name in first) == 6


def test_photos_that_keep_their_picture_do_not_wait_for_one_that_is_painted_each(rigs, tmp_path):
    def behave(request):
        if request.source.name.startswith("starred"):
            return rendered(request, request.digest.encode(), seconds=0.0)
        return rendered(request, request.digest.encode(), seconds=10.0)

    rig = rigs(behave, start=False)
    (tmp_path / "other").mkdir()
    rig.with_folders({}, {"input": tmp_path / "other", "name": "other"}).start()
    queue_in_both(rig, 5, "starred", "new")
    rig.until(lambda: len(rig.results()) == 10)
    first = [name for name, _ in rig.executor.ran[:6]]
    assert sum(name.startswith("starred") for name in first) == 5


def test_a_photo_that_keeps_its_picture_costs_its_folder_nothing_whatever_was_learnt_meanwhile(
    rigs,
):
    painted = threading.Event()

    def behave(request):
        if request.source.name == "starred.jpg":
            assert painted.wait(60)
            return rendered(request, request.digest.encode(), seconds=0.0)
        return rendered(request, request.digest.encode(), seconds=10.0)

    rig = rigs(behave)
    rig.executor.slots = 2
    for name in ("starred.jpg", "new.jpg"):
        rig.drop(name, name.encode())
    rig.until(lambda: rig.counts() == {"done": 1, "running": 1})
    painted.set()
    rig.until(lambda: rig.counts() == {"done": 2})
    assert rig.daemon._dispatcher._fair._clocks["in"] == FIRST_COST + 2 * COPY_COST


def test_what_a_preset_takes_is_known_of_each_and_after_a_restart(rigs):
    seconds = {"draft": 3.0, "painting": 40.0}

    def behave(request):
        name = request.preset.name
        return rendered(request, f"{name} {request.digest}".encode(), seconds=seconds[name])

    rig = rigs(behave, start=False).with_folders({"preset": tuple(seconds)}).start()
    rig.drop("a.jpg", b"a")
    rig.until(lambda: rig.counts() == {"done": 2})
    rig.stop()
    rig.start()
    rig.daemon.ask("pause")
    rig.drop("b.jpg", b"b")
    rig.until(lambda: rig.counts() == {"done": 2, "ready": 2})
    assert rig.daemon._status()["work"] == {"in": 43.0}
    rig.daemon.tick(time.monotonic() + 60)
    assert told_of(rig)["work"] == 43.0
    rig.daemon.ask("resume")
    rig.until(lambda: rig.counts() == {"done": 4})
    assert rig.daemon._dispatcher._fair._clocks["in"] == 43.0 + 2 * COPY_COST


def test_stop_waits_for_the_running_job_within_its_grace_then_puts_it_back(rigs, tmp_path):
    go, closed = threading.Event(), []

    def behave(request):
        go.wait(60)
        raise CancelledError

    first = rigs(behave, grace_seconds=1)
    first.drop("a.jpg")
    first.until(lambda: first.executor.ran)
    first.executor.close = lambda: closed.append(time.monotonic())
    asked = time.monotonic()
    first.daemon.stop()
    assert closed[0] - asked >= 1
    go.set()
    with closing(LedgerReader(tmp_path / "state" / "ledger.db")) as reader:
        assert [job.state for job in reader.jobs()] == [JobState.READY]
    second = rigs()
    second.until(lambda: len(second.results()) == 1)


def test_a_photo_that_is_painted_within_the_grace_of_a_stop_is_published(rigs):
    go = threading.Event()
    rig = rigs(lambda request: go.wait(60) and None, grace_seconds=60)
    rig.drop("a.jpg")
    rig.until(lambda: rig.executor.ran)
    threading.Timer(0.2, go.set).start()
    rig.daemon.stop()
    assert rig.results() == ["a--painting.jpg"]


def test_one_that_fails_within_that_time_is_set_aside(rigs, tmp_path):
    go = threading.Event()
    rig = rigs(lambda request: go.wait(60) and a_bad_one(request), grace_seconds=60)
    rig.drop("bad.jpg")
    rig.until(lambda: rig.executor.ran)
    threading.Timer(0.2, go.set).start()
    rig.daemon.stop()
    with closing(LedgerReader(tmp_path / "state" / "ledger.db")) as reader:
        assert [(job.state, job.reason) for job in reader.jobs()] == [
            (JobState.QUARANTINED, "not-an-image")
        ]


def test_a_photo_that_is_painted_as_its_worker_is_ended_is_published(rigs):
    go = threading.Event()
    rig = rigs(lambda request: go.wait(60) and None, grace_seconds=0)
    rig.executor.close = letting_go(rig, go)
    rig.drop("a.jpg")
    rig.until(lambda: rig.daemon._dispatcher.running)
    rig.daemon.stop()
    assert rig.results() == ["a--painting.jpg"]


def test_workers_that_are_to_take_over_are_ended_with_those_at_work(rigs):
    go, closed = threading.Event(), []
    rig = rigs(lambda request: go.wait(60) and None, grace_seconds=0)
    rig.executor.close = lambda: closed.append("old")
    follower = ThreadExecutor()
    follower.close = lambda: closed.append("new")
    rig.open_executor = lambda config, on_event: follower
    rig.drop("a.jpg")
    rig.until(lambda: rig.daemon._dispatcher.running)
    rig.settings["workers"] = 2
    rig.asked("reload")
    rig.daemon.stop()
    assert sorted(closed) == ["new", "old"]
    go.set()


def test_many_photos_that_are_complete_at_once_take_many_short_ticks(rigs, monkeypatch):
    now, added, taken = [0.0], [], rigs().daemon._intake
    monkeypatch.setattr(intake, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def add(photo):
        now[0] += intake.TURN_SECONDS / 2
        added.append(photo)

    monkeypatch.setattr(taken, "_add", add)
    taken.ways["in"].complete.extend(range(5))
    for expected in ([0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4]):
        assert taken.next_due(7.0) == 7.0
        taken._add_jobs(7.0)
        assert added == expected


def test_many_folders_on_slow_shares_take_many_short_ticks(rigs, tmp_path, monkeypatch):
    """Twenty of them, each for a turn, kept a command waiting for longer than it is asked for."""
    places = [tmp_path / f"{number}" for number in range(10)]
    for place in places:
        (place / "in").mkdir(parents=True)
        for number in range(30):
            (place / f"in/{number}.jpg").write_bytes(b"photo")
    folders = ({"name": each.name, "input": each / "in", "output": each / "out"} for each in places)
    taken = rigs(start=False).with_folders(*folders).start().daemon._intake
    clock, began = itertools.count(step=TURN_SECONDS / 20), time.monotonic()
    for module in (scans, settle):  # they ask for the time at each look
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    def ticks(now, left):
        while sum(taken.settling().values()) != left:
            before = next(clock)
            taken.tick(now)
            assert next(clock) - before <= 6 * TURN_SECONDS
            yield now

    assert 5 <= len([*ticks(began, left=300)]) <= 100
    assert 5 <= len([*ticks(began + 10, left=0)]) <= 500


def test_many_pictures_that_have_no_name_take_many_short_ticks_to_get_one(rigs, monkeypatch):
    now, tried, rig = [0.0], [], rigs()
    delivering = rig.daemon._delivery
    monkeypatch.setattr(delivery, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def complete(job_id, at):
        now[0] += delivery.TURN_SECONDS / 2
        tried.append(job_id)
        delivering._name_later(job_id, OutputError("it can't be named"), at)

    monkeypatch.setattr(delivering, "complete", complete)
    for number in range(5):
        delivering._name_later(number, OutputError("it can't be named"), 2.0)
    for expected in ([0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4]):
        assert delivering.next_due() <= 7.0
        delivering.name_again(7.0)
        assert tried == expected
    assert delivering.next_due() == 12.0
    told = [event for event in rig.events if event.kind == "blocked"]
    assert len(told) == 5  # each once, however often it is tried


@pytest.mark.parametrize("after", ["keep", "delete"])
def test_a_photo_costs_no_more_where_thousands_are_done(rigs, tmp_path, after):
    """But for what is counted: with 400 000 each photo took 0.3 s of the daemon's thread."""
    rig, many = rigs(start=False).with_folders({"after": after}).start(), 5000
    add_jobs(rig.daemon._ledger, many)
    with statements(rig.daemon._ledger) as ran:
        for number, data in enumerate((b"one", b"other"), 1):
            rig.drop("a.jpg", data)
            rig.until(lambda number=number: len(rig.executor.ran) == number and rig.idle())
            rig.look_around()
        if after == "keep":  # it comes again as it was, but for its number
            again = shutil.copy2(rig.input / "a.jpg", tmp_path / "again.jpg")
            os.replace(again, rig.input / "a.jpg")
            rig.until(lambda: any(event.kind == "known" for event in rig.events))
    steps, statement = max((steps, each) for each, steps in ran if "COUNT(*)" not in each)
    assert steps < many, statement


def test_a_whole_archive_that_is_read_keeps_no_other_folder_waiting(rigs, monkeypatch):
    added, taken = [], rigs().daemon._intake
    now = itertools.count()
    monkeypatch.setattr(intake, "time", SimpleNamespace(monotonic=lambda: next(now)))
    monkeypatch.setattr(intake, "TURN_SECONDS", 1.5)
    monkeypatch.setattr(taken, "_add", added.append)
    complete = {"archive": deque(range(1000)), "in": deque(["new"])}
    way = taken.ways["in"]
    taken.ways = {name: replace(way, complete=queue) for name, queue in complete.items()}
    taken._add_jobs(7.0)
    assert added == [0, "new"]


@pytest.mark.parametrize("after", ["keep", "delete"])
def test_only_a_photo_that_is_to_go_waits_for_its_results_in_all_presets(rigs, after):
    """Thousands that stay were looked at again and again for a preset that was gone for good."""
    lost = Failure(kind=FailureKind.BAD_INPUT, reason="truncated", message="half a photo")
    rig = rigs(lambda request: lost if request.preset.name == "draft" else None, start=False)
    rig.with_folders({"after": after, "preset": ("painting", "draft")}).start()
    path = rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"done": 1, "quarantined": 1})
    rig.look_around()
    assert bool(rig.daemon._ledger.after_pending()) is (after == "delete")
    assert path.exists()


def test_photos_that_wait_to_be_moved_are_looked_for_with_rests(rigs, monkeypatch):
    """Each for another preset, as where its weights can't be had: thousands in a day."""
    daemon, asked, clock = rigs().daemon, [], itertools.count(step=TURN_SECONDS)
    waiting = SimpleNamespace(after_pending=lambda: range(100), job=asked.append)
    monkeypatch.setattr(daemon._delivery, "_ledger", waiting)
    monkeypatch.setattr(delivery, "time", SimpleNamespace(monotonic=lambda: next(clock) / 2))
    now = 0.0
    while now < 1000.0:
        daemon._delivery.find_after(now)
        while daemon._delivery.apply_pending_after(now):
            now += 0.25
        now += LOOK_SECONDS
    assert 100 <= len(asked) <= 300
    daemon._delivery.forget_pauses()
    daemon._delivery.find_after(now)
    assert daemon._delivery.apply_pending_after(now)


def test_workers_give_their_memory_back_once_they_have_been_idle_for_so_long(rigs):
    go = threading.Event()
    rig = rigs(lambda request: go.wait(60) and None, idle_release=60)
    released = []
    rig.executor.release = released.append
    rig.drop("a.jpg")
    rig.until(lambda: rig.daemon._dispatcher.running)
    now = time.monotonic()
    rig.daemon.tick(now)
    go.set()
    assert released[-1] == now - 60, "also while another one works"


def test_workers_keep_their_memory_where_it_is_not_to_be_given_back(rigs):
    rig = rigs(idle_release=0)
    released = []
    rig.executor.release = released.append
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"done": 1})
    assert released == []


def test_names_of_all_kinds_survive(rigs):
    rig = rigs()
    names = [
        b"caf\xe9.jpg",
        "写真 ❤.jpg".encode(),
        b"new\nline.jpg",
        b"x" * 250 + b".jpg",
        b"[bold].jpg",
    ]
    for number, name in enumerate(names):
        with open(os.path.join(os.fsencode(rig.input), name), "wb") as stream:
            stream.write(b"%d" % number)
    rig.until(lambda: len(rig.results()) == len(names) and rig.idle())
    assert rig.counts() == {"done": len(names)}


@pytest.mark.parametrize("away", ["in", "in/sub"])
def test_photos_come_through_though_their_folder_is_away_for_a_moment(rigs, tmp_path, away):
    """Renamed and back between two ticks, none of its files tells of it."""
    rig = rigs(rescan_seconds=1)
    names = [f"sub/{number}.jpg" for number in range(40)]
    for name in names:
        rig.drop(name, name.encode())
    rig.until(lambda: rig.daemon._intake.settling()["in"] == len(names))
    (tmp_path / away).rename(tmp_path / "aside")
    rig.daemon._intake.tick(rig.daemon._intake.ways["in"].settler.next_due(0) + 0.3)
    assert rig.daemon._intake.settling()["in"] == 0
    (tmp_path / "aside").rename(tmp_path / away)
    rig.until(lambda: len(rig.results()) == len(names))


def test_a_photo_that_is_gone_when_it_is_read_comes_back_with_its_folder(rigs, tmp_path):
    rig = rigs(rescan_seconds=1)
    rig.drop("sub/a.jpg")
    real = rig.daemon._intake._add

    def away_then(photo):
        (rig.input / "sub").rename(tmp_path / "aside")
        rig.daemon._intake._add = real
        try:
            real(photo)
        finally:
            (tmp_path / "aside").rename(rig.input / "sub")

    rig.daemon._intake._add = away_then
    rig.until(lambda: rig.results() == ["sub/a--painting.jpg"])
    assert rig.daemon._intake._add is real


def test_a_photo_that_is_written_again_while_it_is_read_is_not_painted_too_early(rigs, monkeypatch):
    real, writers = intake.match, []

    def match(folder, path, *rest):
        if not writers:
            writers.append((folder.input / path).open("wb"))
            writers[0].write(b"one half")
            writers[0].flush()
        return real(folder, path, *rest)

    monkeypatch.setattr(intake, "match", match)
    rig = rigs()
    rig.drop("a.jpg")
    rig.until(lambda: writers)
    assert rig.counts() == {}
    writers[0].write(b" and the other")
    writers[0].close()
    rig.until(rig.results)
    assert (rig.output / "a--painting.jpg").read_bytes() == b"painting:one half and the other"
    assert rig.executor.ran == [("a.jpg", "painting")]


DENIED = Failure(kind=FailureKind.PERMISSION, reason="eacces", message="Permission denied: 'a.jpg'")


@pytest.mark.parametrize("lacks", ["the input", "this input", "the output", "rights", "a disk"])
def test_a_photo_waits_for_a_worker_s_machine_to_have_the_same_folders(rigs, lacks):
    """Where it finds none, or another, the photo is not gone; a result that is not here is none.

    Nor is it set aside where only the worker may not read it, or write its result.
    """

    def behave(request):
        if not elsewhere:
            return None
        if lacks == "the input":
            return Failure(kind=FailureKind.CHANGED, reason="vanished", message="gone")
        if lacks == "this input":
            return Failure(kind=FailureKind.CHANGED, reason="changed", message="other bytes")
        if lacks == "rights":
            return DENIED
        if lacks == "a disk":
            return OutputFullError("out can't be written", reason="forbidden").failure
        done = rendered(request, b"on a disk of the worker's own")
        done.temporary.unlink()
        return done

    elsewhere, rig = [True], rigs(behave, start=False)
    rig.executor.here, rig.executor.worker = False, "tls://there:4001"
    rig.start().daemon._ledger._rng = SimpleNamespace(uniform=lambda least, most: 3600.0)
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"retry-wait": 1})
    [told] = [event.message for event in rig.events if event.reason == "not-shared"]
    found = {"the output": "is not here", "rights": "denied", "a disk": "can't be written"}
    assert found.get(lacks, "as it is here") in told
    assert "needs the config's folders, at the same paths" in told
    assert told.endswith("(worker tls://there:4001)")
    assert rig.executor.shunned == ["tls://there:4001"]
    elsewhere.clear()
    rig.asked("retry", job_id=1)
    rig.until(lambda: rig.counts() == {"done": 1})
    assert len(rig.executor.shunned) == 1


def test_what_neither_a_worker_elsewhere_nor_the_daemon_may_do_is_no_matter_of_that_worker(
    rigs, monkeypatch
):
    rig = rigs(lambda request: DENIED, start=False)
    rig.executor.here, rig.executor.worker = False, "tls://there:4001"
    monkeypatch.setattr(flight, "can_be_written", lambda folder: False)
    rig.start().drop("a.jpg")
    rig.until(lambda: rig.counts() == {"blocked": 1})
    assert rig.executor.shunned == []


def test_a_worker_elsewhere_in_which_something_broke_unforeseen_is_shunned_and_named(rigs):
    """Such as one whose TensorFlow can't be loaded: done at once, it would draw the whole queue."""

    def behave(request):
        if len(rig.executor.ran) == 1:
            raise ImportError("no libcudart")

    rig = rigs(behave, start=False)
    rig.executor.here, rig.executor.worker = False, "tls://there:4001"
    rig.start().daemon._ledger._rng = SimpleNamespace(uniform=lambda least, most: 0.0)
    rig.drop("a.jpg")
    rig.until(lambda: rig.counts() == {"done": 1})
    assert rig.executor.shunned == ["tls://there:4001"]
    [told] = [event.message for event in rig.events if event.reason == "error"]
    assert told == "a.jpg: ImportError: no libcudart (worker tls://there:4001)"


def test_who_cancels_a_photo_on_a_worker_elsewhere_says_nothing_of_that_worker(rigs):
    release = threading.Event()

    def behave(request):
        release.wait(60)
        raise CancelledError

    rig = rigs(behave, start=False)
    rig.executor.here, rig.executor.worker = False, "tls://there:4001"
    rig.start().drop("a.jpg")
    rig.until(lambda: rig.daemon._dispatcher.running)
    rig.asked("cancel", job_id=1)
    release.set()
    rig.until(lambda: rig.counts() == {"held": 1})
    assert rig.executor.shunned == []


def test_a_photo_that_is_gone_everywhere_is_gone(rigs):
    def behave(request):
        request.source.unlink()
        return Failure(kind=FailureKind.CHANGED, reason="vanished", message="gone")

    rig = rigs(behave, start=False)
    rig.executor.here, rig.executor.worker = False, "tls://there:4001"
    rig.start().drop("a.jpg")
    rig.until(lambda: rig.counts() == {"vanished": 1})


def test_a_process_elsewhere_is_not_missed_here_once_the_config_names_workers_here(rigs):
    release = threading.Event()
    rig = rigs(lambda request: release.wait(60) and None, start=False)
    rig.executor.here, rig.executor.worker = False, "tls://there:4001"
    rig.start().drop("a.jpg")
    rig.until(lambda: rig.daemon._dispatcher.running)
    rig.open_executor = lambda *_: ThreadExecutor()
    rig.settings["workers"] = 2
    rig.asked("reload")
    [(job_id, running)] = rig.daemon._dispatcher.running.items()
    rig.daemon._dispatcher._on_progress(job_id, "started", 2**22 + 1)  # no process has it
    assert running.alive
    release.set()


def test_a_failure_and_what_follows_from_it_are_written_down_together(rigs, monkeypatch):
    """Or a kill between the two would leave a photo that nobody looks at again."""
    rig = rigs(lambda request: Failure(kind=FailureKind.CHANGED, reason="vanished", message="gone"))

    def killed(job_id):
        raise KeyboardInterrupt

    monkeypatch.setattr(rig.daemon._ledger, "vanished", killed)
    rig.drop("a.jpg")
    with pytest.raises(KeyboardInterrupt):
        rig.until(lambda: False)
    assert rig.counts() == {"running": 1}
    assert rig.daemon._ledger.ask("SELECT COUNT(*) FROM files")[0][0] == 1


def test_workers_that_can_t_be_had_leave_the_old_config_and_its_workers(rigs):
    rig = rigs()
    opened = []

    def open_executor(config, on_event):
        opened.append(config.workers)
        raise ConfigError("TLS is not set up")

    rig.open_executor = open_executor
    rig.settings["workers"] = "tls://localhost:1"
    answer = rig.daemon.ask("reload")
    rig.daemon.tick(time.monotonic())
    assert isinstance(answer.exception(0), ConfigError)
    assert opened == ["tls://localhost:1"]
    rig.drop("a.jpg")
    rig.until(lambda: rig.results() == ["a--painting.jpg"])


def test_other_workers_take_over_when_the_running_photo_is_done(rigs):
    release = threading.Event()
    rig = rigs(lambda request: release.wait(60) and None)
    old, unused, new = rig.executor, ThreadExecutor(), ThreadExecutor()
    old.slots = 2  # one is free, and is not filled any more
    closed, wanted = [], {2: unused, 3: new}
    for executor in (old, unused, new):
        executor.close = lambda executor=executor: closed.append(executor)
    rig.open_executor = lambda config, on_event: wanted.pop(config.workers)
    rig.drop("a.jpg", b"a")
    rig.until(lambda: rig.daemon._dispatcher.running)
    for workers, expected in ((2, []), (3, [unused])):
        rig.settings["workers"] = workers
        rig.asked("reload")
        assert closed == expected
    rig.drop("b.jpg", b"b")
    rig.until(lambda: rig.counts() == {"running": 1, "ready": 1})
    release.set()
    rig.until(lambda: len(rig.results()) == 2)
    assert closed == [unused, old]
    assert [len(executor.ran) for executor in (old, unused, new)] == [1, 0, 1]


def test_a_thousand_copies_take_many_short_ticks(rigs, monkeypatch):
    """Signals, new photos and systemd's watchdog are served in between."""
    rig = rigs()
    rig.daemon._pause()
    for number in range(30):
        rig.drop(f"{number}.jpg", b"the same")
    rig.until(lambda: rig.counts() == {"ready": 30})
    rig.daemon._resume()
    rig.until(lambda: "done" in rig.counts())
    monkeypatch.setattr("stylewatch.host.dispatch.TURN_SECONDS", 0.0)
    before = rig.counts()["done"]
    rig.daemon.tick(time.monotonic())
    assert rig.counts()["done"] <= before + 2
    assert rig.daemon._wake.is_set()
    monkeypatch.undo()
    rig.until(lambda: rig.counts() == {"done": 30})


def test_a_job_keeps_the_time_out_that_it_was_started_with(rigs):
    release = threading.Event()
    rig = rigs(lambda request: release.wait(60) and None, job_timeout=3600)
    rig.drop("a.jpg")
    rig.until(lambda: rig.daemon._dispatcher.running)
    rig.settings["job_timeout"] = 600
    rig.daemon.ask("reload")
    now = time.monotonic()
    for later in (1500, 1501, 1600):
        rig.daemon.tick(now + later)
    assert rig.daemon.lost == []
    for later in (3700, 3800):
        rig.daemon.tick(now + later)
    assert len(rig.daemon.lost) == 1
    release.set()


def test_a_photo_may_take_its_preset_s_time_budget_and_what_the_config_gives_all_jobs(rigs):
    rig, given, release = rigs(start=False, job_timeout=3600), [], threading.Event()
    plain, submit = rig.config, rig.executor.submit

    def unhurried():
        config = plain()
        preset = config.presets["painting"]
        settings = replace(preset.settings, time_budget=7200.0)
        return replace(config, presets={"painting": replace(preset, settings=settings)})

    def noted(*job, timeout):
        given.append(timeout)
        return submit(*job, timeout=timeout)

    rig.config, rig.executor.submit = unhurried, noted
    rig.executor.behave = lambda request: release.wait(60) and None
    rig.start().drop("a.jpg")
    rig.until(lambda: rig.daemon._dispatcher.running)
    [running] = rig.daemon._dispatcher.running.values()
    release.set()
    assert [running.timeout, *given] == [10800.0, 10800.0]


def test_raw_and_side_files_are_told_once_and_are_no_failures(rigs):
    rig = rigs()
    for name in ("1.NEF", "2.NEF", "1.xmp", "2.xmp", "a.jpg"):
        rig.drop(name, name.encode())
    rig.until(lambda: rig.results() == ["a--painting.jpg"])
    warned = [event for event in rig.events if event.kind == "warning"]
    assert sorted(event.reason for event in warned) == ["no-photo", "raw"]
    assert any(
        "it is a RAW file, which is not read. Export it as JPEG" in event.message
        for event in warned
    )
    assert rig.daemon._ledger.failed_files() == {}
    assert sorted(str(path) for _, path, _ in rig.daemon._ledger.notes()) == [
        *("1.NEF", "1.xmp", "2.NEF", "2.xmp"),
    ]


def test_what_neither_name_nor_first_bytes_call_a_photo_is_told_once_and_is_no_failure(rigs):
    """As the previews of a catalogue, a film with an ending of its own, or an album's README."""
    rig = rigs(start=False)
    rig.begins_as_image = lambda head: head.startswith(b"photo")
    engine = replace(rig.config().engine, max_bytes=100)
    whole = rig.config
    rig.config = lambda: replace(whole(), engine=engine)
    others = {"a.lrprev": b"AgHg", "film.360": b"ftyp" * 99, "README": b"text", "Icon\r": b""}
    for name, data in others.items():
        os.utime(rig.drop(name, data), (1e9, 1e9))
    for number, name in enumerate(["noname", "wrong.strange", "b.jpg"]):
        rig.drop(name, b"photo %d" % number)
    rig.drop("damaged.jpg", b"")
    os.utime(rig.input / "damaged.jpg", (1e9, 1e9))
    rig.start()
    rig.until(lambda: len(rig.daemon._ledger.notes()) == 5 and rig.counts() == {"done": 3})
    notes = {str(path): note for _, path, note in rig.daemon._ledger.notes()}
    assert notes == {"damaged.jpg": "empty", **dict.fromkeys(others, "no-photo")}
    assert [event.reason for event in rig.events if event.kind == "warning"] == ["no-photo"]
    assert rig.daemon._ledger.failed_files() == {"in": 1}
