"""What is forgotten and what never: a photo that lies in its folder is not painted again."""

import os
import time
from dataclasses import replace

import pytest
from rig import Rig

from stylewatch.domain import Identity
from stylewatch.state import retention
from stylewatch.state.retention import ROWS, tidy
from stylewatch.state.wording import PAINTING

YEAR = 365 * 86400.0


class Later(Rig):
    """A rig whose wall clock can be set on."""

    def build(self):
        self.ahead = 0.0
        super().build()
        self.daemon._wall_clock = lambda: time.time() + self.ahead
        return self

    def tidied(self, ahead, days=30):
        self.ahead = ahead
        for _ in tidy(self.daemon._ledger, days):
            pass
        return self

    def rows(self):
        ask = self.daemon._ledger.ask
        return tuple(ask(f"SELECT COUNT(*) FROM {name}")[0][0] for name in ("jobs", "files"))


@pytest.fixture
def rig(tmp_path):
    rig = Later(tmp_path, rescan_seconds=1).start()
    yield rig
    rig.daemon.stop()


def paint(rig, *names):
    for name in names:
        rig.drop(name, name.encode())
    rig.until(lambda: len(rig.results()) == len(names) and rig.idle())
    rig.daemon._look_around(1e9)  # what comes after a photo is done


def touch(rig, name):
    os.utime(rig.input / name, (1, 1))
    ledger = rig.daemon._ledger
    rig.until(lambda: 10**9 in {job.identity.mtime_ns for job in ledger.jobs()} and rig.idle())


def test_what_is_done_is_remembered_for_as_long_as_its_photo_lies_there(rig):
    paint(rig, "a.jpg", "b.jpg")
    assert rig.tidied(10 * YEAR).rows() == (2, 2)
    touch(rig, "a.jpg")
    assert len(rig.executor.ran) == 2
    assert rig.counts() == {"done": 2}


def test_a_preset_that_has_changed_paints_what_is_touched_and_not_what_only_looks_new(rig):
    paint(rig, "a.jpg")
    rig.tidied(YEAR)
    plain = rig.config()
    presets = {name: replace(each, digest="other") for name, each in plain.presets.items()}
    rig.daemon._load = lambda: replace(plain, presets=presets)
    rig.asked("reload")
    photo = rig.input / "a.jpg"
    photo.chmod(0o600)
    changed = Identity.of(photo.stat())
    rig.until(lambda: [job.identity for job in rig.daemon._ledger.jobs()] == [changed])
    rig.until(rig.idle)
    assert rig.counts() == {"done": 1}
    assert len(rig.executor.ran) == 1
    os.utime(photo)
    rig.until(lambda: len(rig.executor.ran) == 2 and rig.idle())
    assert rig.results() == ["a--painting.jpg"]


def test_a_photo_edited_after_years_still_replaces_its_own_result(rig):
    paint(rig, "a.jpg", "b.jpg")
    rig.tidied(YEAR)
    rig.drop("a.jpg", b"edited")
    rig.until(lambda: (rig.output / "a--painting.jpg").read_bytes() == b"painting:edited")
    assert rig.results() == ["a--painting.jpg", "b--painting.jpg"]
    rig.drop("a.jpg", b"a.jpg")  # and back
    rig.until(lambda: (rig.output / "a--painting.jpg").read_bytes() == b"painting:a.jpg")
    assert len(rig.executor.ran) == 4
    rig.until(rig.idle)
    assert rig.tidied(2 * YEAR).rows() == (2, 2)


def test_a_photo_is_forgotten_when_it_has_been_gone_for_so_long_and_not_before(rig):
    paint(rig, "a.jpg", "b.jpg")
    for number, data in enumerate((b"edited", b"a.jpg"), 3):  # and back: the first is remembered
        rig.drop("a.jpg", data)
        rig.until(lambda number=number: len(rig.executor.ran) == number and rig.idle())
    (rig.input / "a.jpg").unlink()
    rig.tidied(0).tidied(29 * 86400)
    earlier = "SELECT COUNT(*) FROM results"
    assert (rig.rows(), rig.daemon._ledger.ask(earlier)[0][0]) == ((3, 2), 1)
    rig.tidied(31 * 86400)
    assert (rig.rows(), rig.daemon._ledger.ask(earlier)[0][0]) == ((1, 1), 0)


@pytest.mark.parametrize("state", PAINTING)
def test_a_photo_that_is_in_work_is_not_forgotten(rig, state):
    paint(rig, "a.jpg")
    (rig.input / "a.jpg").unlink()
    rig.tidied(0)
    rig.daemon._ledger.change("UPDATE jobs SET state = ?", state)
    assert rig.tidied(31 * 86400).rows() == (1, 1)
    rig.daemon._ledger.change("UPDATE jobs SET state = 'done'")
    assert rig.tidied(31 * 86400).rows() == (0, 0)


def test_bytes_that_come_back_after_that_are_painted_again(rig):
    """Their result from before this ledger was replaced long ago."""
    paint(rig, "a.jpg")
    result, ledger = rig.output / "a--painting.jpg", rig.daemon._ledger
    ledger.change("INSERT INTO results (key, output, sha256) SELECT key, output, sha256 FROM jobs")
    rig.drop("a.jpg", b"edited")
    rig.until(lambda: rig.counts() == {"done": 1, "superseded": 1})
    rig.tidied(31 * 86400)
    rig.drop("a.jpg", b"a.jpg")
    rig.until(lambda: result.read_bytes() == b"painting:a.jpg")


def test_a_result_is_replaced_however_long_its_edited_photo_had_to_wait(rig):
    paint(rig, "a.jpg")
    rig.asked("pause")
    rig.drop("a.jpg", b"edited")
    rig.until(lambda: rig.counts() == {"ready": 1, "superseded": 1})
    rig.tidied(31 * 86400)
    rig.asked("resume")
    rig.until(rig.idle)
    assert (rig.output / "a--painting.jpg").read_bytes() == b"painting:edited"
    assert rig.results() == ["a--painting.jpg"]
    rig.tidied(40 * 86400)
    assert rig.counts() == {"done": 1}


def test_a_photo_that_came_back_meanwhile_is_kept(rig):
    paint(rig, "a.jpg")
    aside = rig.root / "aside"
    (rig.input / "a.jpg").rename(aside)
    rig.tidied(0)
    aside.rename(rig.input / "a.jpg")
    rig.tidied(YEAR)
    assert rig.rows() == (1, 1)


def test_a_disk_that_is_away_for_a_year_loses_nothing(rig):
    paint(rig, "a.jpg")
    aside = rig.root / "aside"
    rig.input.rename(aside)
    rig.input.mkdir()  # the empty folder where it is mounted
    for _ in range(2):
        rig.daemon._intake.ways["in"].source._next_root = 0.0
        rig.daemon.tick(time.monotonic())
        rig.tidied(0).tidied(YEAR)
        assert rig.rows() == (1, 1)
        rig.ahead = 0.0
        rig.daemon.stop()
        rig.start()
    rig.input.rmdir()
    aside.rename(rig.input)
    rig.tidied(YEAR)
    assert rig.rows() == (1, 1)


def test_the_file_gets_smaller_again(rig):
    ledger = rig.daemon._ledger
    with ledger.transaction():
        for number in range(3000):
            ledger.change(
                "INSERT INTO jobs (folder, path, preset, key, digest, target, dev, ino, size, mtime_ns,"
                " ctime_ns, state, created, changed) VALUES"
                " ('in', ?, 'p', ?, 'd', x'00', 1, 1, 1, 1, 1, 'vanished', 1, 1)",
                b"%d" % number,
                f"{number:064}",
            )
    pages = ledger.ask("PRAGMA page_count")[0][0]
    rig.tidied(0)
    assert ledger.ask("PRAGMA page_count")[0][0] < pages / 2


def test_unfinished_paintings_of_which_nothing_comes_are_forgotten(rig, tmp_path):
    paint(rig, "a.jpg", "b.jpg")
    ledger = rig.daemon._ledger
    done, failed = ledger.jobs()
    ledger.change("UPDATE jobs SET state = 'quarantined' WHERE id = ?", failed.id)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    kept = ["model.npz", f"{failed.key}.npz", f"{failed.key}.tmp"]  # one is no checkpoint of ours
    for name in (*kept, f"{done.key}.npz", f"{'0' * 64}.tmp"):
        (folder / name).write_bytes(b"")
    for _ in tidy(ledger, 30, folder):
        pass
    assert sorted(path.name for path in folder.iterdir()) == sorted(kept)
    os.utime(folder / kept[1], (1, 1))  # nobody has asked for it for years
    for _ in tidy(ledger, 30, folder):
        pass
    assert sorted(path.name for path in folder.iterdir()) == sorted([kept[0], kept[2]])


def test_many_unfinished_paintings_are_asked_for_at_once(rig, tmp_path):
    """Each question reads all jobs, as few of them are unfinished."""
    asked, folder = [], tmp_path / "checkpoints"
    folder.mkdir()
    for number in range(ROWS):
        (folder / f"{number:064}.npz").write_bytes(b"")
    rig.daemon._ledger._db.set_trace_callback(asked.append)
    for _ in tidy(rig.daemon._ledger, 30, folder):
        pass
    assert not [*folder.iterdir()]
    assert sum("FROM jobs WHERE key IN" in query for query in asked) == 1
    assert len(asked) < ROWS


def test_on_a_slow_share_photos_are_looked_at_in_small_steps(rig, monkeypatch):
    paint(rig, "a.jpg", "b.jpg", "c.jpg")
    (rig.input / "c.jpg").unlink()
    monkeypatch.setattr(retention, "TURN_SECONDS", -1.0)
    steps = tidy(rig.daemon._ledger, 30)
    missing = []
    for _ in range(3):
        next(steps)
        [[count]] = rig.daemon._ledger.ask("SELECT COUNT(*) FROM files WHERE gone > 0")
        missing.append(count)
    assert missing == [0, 0, 1]
    assert next(steps, "through") == "through"


def test_a_photo_that_came_back_is_not_forgotten_while_its_disk_is_away(rig, tmp_path):
    paint(rig, "a.jpg")
    (rig.input / "a.jpg").rename(tmp_path / "a.jpg")
    rig.tidied(0)
    (tmp_path / "a.jpg").rename(rig.input / "a.jpg")
    rig.input.rename(tmp_path / "away")
    assert rig.tidied(31 * 86400).rows() == (1, 1)
    (tmp_path / "away").rename(rig.input)
    touch(rig, "a.jpg")
    assert len(rig.executor.ran) == 1
