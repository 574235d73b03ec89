"""The ledger: states, durability, recovery, damage; and what becomes of failures."""

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import astuple, replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig import add_jobs, statements

from stylewatch.domain import Failure, FailureKind, Identity, JobState, Photo, Rendered
from stylewatch.errors import LedgerError, OutputFullError
from stylewatch.state.ledger import AGAIN, Ledger, Planned
from stylewatch.state.reader import LedgerReader
from stylewatch.state.retention import tidy
from stylewatch.state.retries import LONGEST_PAUSE, after_interruption, judge
from stylewatch.state.schema import _TABLES, VERSION
from stylewatch.state.wording import BROKEN_PRESET, NO_PRESET, TOO_LARGE


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


def photo(name="a.jpg", mtime=1, folder="in"):
    return Photo(folder, Path("/in"), Path(name), Identity(1, hash(name) % 1000, 10, mtime, mtime))


def planned(name="a", key="k1", preset="soft"):
    return Planned(preset, key, Path(f"/out/{name}--{preset}"))


def rendered(sha256="s", name="/out/.tmp"):
    return Rendered(
        temporary=Path(name), extension=".jpg", sha256=sha256, width=1, height=1,
        seconds=2.0, evaluations=1, loss=0.5, facts={},
    )  # fmt: skip


def failure(kind, reason="x"):
    return Failure(kind=kind, reason=reason, message="why")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledger(tmp_path, clock):
    made = Ledger(tmp_path / "ledger.db", clock=clock, rng=Random(1))
    yield made
    made.close()


def test_adding_the_same_photo_twice_makes_one_job(ledger):
    assert len(ledger.add(photo(), "d", "p", [planned()])) == 1
    assert ledger.add(photo(), "d", "p", [planned()]) == []
    assert ledger.counts() == {"in": {JobState.READY: 1}}


def test_an_attempt_is_on_disk_before_the_job_starts(ledger, tmp_path):
    ledger.add(photo(), "d", "p", [planned()])
    job = ledger.claim("in")
    with closing(LedgerReader(tmp_path / "ledger.db")) as reader:
        assert reader.job(job.id).state is JobState.RUNNING
        assert reader.job(job.id).attempts == 1
    assert ledger.claim("in") is None


def test_claims_are_first_in_first_out_within_a_folder_whatever_their_presets(ledger):
    for name, preset in zip("abc", ("soft", "ink", "soft"), strict=True):
        ledger.add(photo(name), name, "p", [planned(name, name, preset)])
    assert [str(ledger.claim("in").path) for _ in range(3)] == ["a", "b", "c"]


def test_changed_bytes_supersede_what_was_there(ledger):
    [first] = ledger.add(photo(mtime=1), "d1", "p", [planned(key="k1")])
    [second] = ledger.add(photo(mtime=2), "d2", "p", [planned(key="k2")])
    assert ledger.job(first).state is JobState.SUPERSEDED
    assert ledger.job(second).state is JobState.READY


def test_a_touched_photo_with_the_same_bytes_is_not_done_again(ledger):
    [job_id] = ledger.add(photo(mtime=1), "d", "p", [planned()])
    ledger.claim("in")
    ledger.publishing(job_id, rendered())
    ledger.done(job_id, Path("/out/a--soft.jpg"))
    assert ledger.add(photo(mtime=2), "d", "p", [planned()]) == []
    assert ledger.job(job_id).state is JobState.DONE


def finish(ledger, job_id, output="/out/a--soft.jpg"):
    ledger.claim("in")
    ledger.publishing(job_id, rendered())
    ledger.done(job_id, Path(output))


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64 - 1])
def test_numbers_that_sqlite_has_no_room_for_are_no_trouble(ledger, number):
    """Inodes of 64 bits (mergerfs), and photos that say they are of the year 2300."""
    info = SimpleNamespace(
        st_dev=1, st_ino=number, st_size=10, st_mtime_ns=number, st_ctime_ns=number
    )
    seen, other = Identity.of(info), Identity.of(SimpleNamespace(**vars(info) | {"st_ino": 7}))
    [job_id] = ledger.add(replace(photo(), identity=seen), "d", "p", [planned()])
    assert ledger.job(job_id).identity == seen
    assert ledger.knows("in", Path("a.jpg"), seen, "p")
    assert not ledger.knows("in", Path("a.jpg"), other, "p")
    ledger.note_folder("in", Path("/in"), seen.inode)
    assert ledger.places() == {"in": Path("/in")}
    assert ledger.inode_of(Path("/in")) == seen.inode


def test_a_photo_that_has_to_be_looked_at_again_is_not_finished(ledger):
    """What its second look brings may be a job, and the photo must still be there then."""
    first, second = ledger.add(photo(), "d", "p", [planned(), planned(key="k2", preset="hard")])
    finish(ledger, first)
    assert ledger.after_pending() == [first]
    assert not ledger.after_is_due(first)
    ledger.claim("in")
    ledger.fail(second, failure(FailureKind.CHANGED, "vanished"), 3)
    assert ledger.after_is_due(first)
    ledger.forget_file("in", Path("a.jpg"))
    assert not ledger.after_is_due(first)
    ledger.note_file("in", Path("a.jpg"), photo().identity, "p")
    assert ledger.after_is_due(first)


def test_bytes_that_come_back_are_overtaken_by_nothing(ledger):
    [first] = ledger.add(photo(mtime=1), "d1", "p", [planned(key="k1")])
    finish(ledger, first)
    [second] = ledger.add(photo(mtime=2), "d2", "p", [planned(key="k2")])
    assert ledger.is_overtaken(ledger.job(first))
    assert not ledger.is_overtaken(ledger.job(second))
    ledger.claim("in")
    ledger.add(photo(mtime=3), "d1", "p", [planned(key="k1")])
    assert not ledger.is_overtaken(ledger.job(first))
    assert ledger.is_overtaken(ledger.job(second))


def test_a_preset_that_changed_overtakes_its_job_before(ledger):
    [first] = ledger.add(photo(mtime=1), "d", "p", [planned(key="k1")])
    ledger.claim("in")
    ledger.forget_file("in", Path("a.jpg"))
    [second] = ledger.add(photo(mtime=1), "d", "p", [planned(key="k2")])
    assert ledger.is_overtaken(ledger.job(first))
    assert not ledger.is_overtaken(ledger.job(second))


def test_a_result_belongs_to_one_job(ledger):
    [first] = ledger.add(photo("a.jpg"), "d", "p", [planned("a", "k1")])
    [second] = ledger.add(photo("b.jpg"), "e", "p", [planned("b", "k2")])
    finish(ledger, first)
    assert ledger.is_taken(ledger.job(second), Path("/out/a--soft.jpg"))
    assert not ledger.is_taken(ledger.job(first), Path("/out/a--soft.jpg"))
    assert not ledger.is_taken(ledger.job(second), Path("/out/b--soft.jpg"))


@pytest.mark.parametrize("passed_by", ["nothing", "a note", "tidying"])
def test_a_result_is_never_that_of_another_photo_which_has_its_name_later(
    ledger, tmp_path, passed_by
):
    first = replace(photo(), folder="in", root=tmp_path)
    second = replace(first, identity=replace(first.identity, ino=7, size=11, mtime_ns=9))
    ledger.note_folder("in", tmp_path, Identity.of(tmp_path.stat()).inode)
    [job_id] = ledger.add(first, "d1", "p", [planned(key="k1")], stays=True)
    finish(ledger, job_id)
    ledger.after_done(ledger.job(job_id))
    ledger.missed("in", first.path)
    (tmp_path / "a.jpg").write_bytes(b"of the second")
    if passed_by == "tidying":
        list(tidy(ledger, 30))
    if passed_by == "a note":  # it was not whole at first
        ledger.note_file("in", first.path, first.identity, "p", "truncated")
        assert len(ledger.last_failed_files("in", 9)) == 1
    [other] = ledger.add(second, "d2", "p", [planned(key="k2")], stays=True)
    assert not ledger.was_published(ledger.job(other), "s")
    [changed] = ledger.add(
        replace(second, identity=replace(second.identity, mtime_ns=10)),
        *("d3", "p", [planned(key="k3")]),
        stays=True,
    )
    assert not ledger.was_published(ledger.job(changed), "s")


def test_a_photo_that_comes_back_as_another_file_owns_its_result(ledger):
    [job_id] = ledger.add(photo(), "d", "p", [planned()], stays=True)
    finish(ledger, job_id)
    ledger.after_done(ledger.job(job_id))
    for number, passing in enumerate(["", "unreadable"], start=7):
        ledger.missed("in", Path("a.jpg"))
        back = replace(photo(), identity=replace(photo().identity, ino=number, ctime_ns=number))
        if passing:
            ledger.note_file("in", Path("a.jpg"), back.identity, "p", passing)
        assert ledger.add(back, "d", "p", [planned()], stays=True) == []
        assert ledger.after_pending() == []
        assert ledger.was_published(ledger.job(job_id), "s")


@pytest.mark.parametrize("stays", [True, False])
def test_a_disk_mounted_again_brings_no_new_photos_where_they_stay(ledger, stays):
    [job_id] = ledger.add(photo(), "d", "p", [planned()])
    finish(ledger, job_id)
    ledger.after_done(ledger.job(job_id))
    assert ledger.after_pending() == []
    remounted = replace(photo(), identity=replace(photo().identity, dev=9, ino=9, ctime_ns=9))
    assert ledger.add(remounted, "d", "p", [planned()], stays=stays) == []
    assert ledger.after_pending() == ([] if stays else [job_id])


@pytest.mark.parametrize("came", ["", "as another file", "after it was missing"])
@pytest.mark.parametrize("kept", [False, True])
def test_a_photo_that_is_to_go_and_was_only_looked_at_again_has_not_come_again(ledger, came, kept):
    """Its result, which somebody may have taken away meanwhile, is not painted again."""
    [job_id] = ledger.add(photo(), "d", "p", [planned()])
    finish(ledger, job_id)
    if kept:  # it was painted when photos stayed
        ledger.after_done(ledger.job(job_id))
    if came == "after it was missing":
        ledger.missed("in", Path("a.jpg"))
    ledger.forget_file("in", Path("a.jpg"))
    again = renumbered(7) if came == "as another file" else photo()
    assert ledger.add(again, "d", "p", [planned()]) == []
    assert ledger.after_pending() == ([job_id] if came or not kept else [])
    assert ledger.job(job_id).reason == (AGAIN if came else "")


def test_what_is_done_for_a_file_that_is_gone_leaves_the_one_that_is_there_to_the_others(ledger):
    """One preset was taken out of the config before the photo was touched."""
    soft, ink = planned(key="S"), planned(key="I", preset="ink")
    jobs = ledger.add(photo(mtime=1), "d", "p", [soft, ink])
    ledger.add(photo(mtime=2), "d", "p", [soft])
    for job_id in jobs:
        finish(ledger, job_id)
    touched, old = map(ledger.job, jobs)
    ledger.after_done(old, acted=False)
    assert ledger.after_pending() == [touched.id]
    ledger.after_done(touched)
    assert ledger.after_pending() == []


@pytest.mark.parametrize("vanished", [True, False])
@pytest.mark.parametrize("seen", [True, False])
def test_a_job_that_takes_another_s_place_has_the_file_that_is_there_by_now(ledger, seen, vanished):
    [first] = ledger.add(photo(mtime=1), "d", "p", [planned(key="A")])
    if vanished:
        ledger.vanished(first)
    ledger.add(photo(mtime=2), "d", "p", [planned(key="B")])
    if not seen:
        ledger.note_file("in", Path("a.jpg"), photo(mtime=3).identity)
    job = ledger.claim("in")
    assert not ledger.rekey(job, "A", job.target, stays=False)
    job = ledger.claim("in")
    assert (job.id, job.identity) == (first, photo(mtime=2 if seen else 1).identity)


def test_a_job_that_runs_keeps_the_place_of_its_temporary_file(ledger):
    [job_id] = ledger.add(photo(mtime=1), "d", "p", [planned()])
    ledger.claim("in")
    elsewhere = Planned("soft", "k1", Path("/elsewhere/a--soft"))
    ledger.add(photo(mtime=2), "d", "p", [elsewhere])
    assert ledger.job(job_id).target == Path("/out/a--soft")


def test_what_the_config_keeps_out_is_looked_at_again_under_another_one(ledger):
    for note in (NO_PRESET, BROKEN_PRESET, TOO_LARGE):
        ledger.note_file("in", Path(note), photo(note).identity, "plan", note)
        assert ledger.knows("in", Path(note), photo(note).identity, "plan")
        assert not ledger.knows("in", Path(note), photo(note).identity, "another plan")


def test_a_touched_photo_that_was_set_aside_is_tried_again(ledger):
    [job_id] = ledger.add(photo(mtime=1), "d", "p", [planned()])
    ledger.claim("in")
    ledger.fail(job_id, failure(FailureKind.BAD_INPUT, "truncated"), 3)
    assert ledger.add(photo(mtime=2), "d", "p", [planned()]) == [job_id]
    assert ledger.job(job_id).state is JobState.READY


def test_what_waits_in_a_preset_that_a_touched_photo_does_not_get_any_more_is_superseded(ledger):
    names = ("soft", "hard", "away", "cancelled", "failed")
    wanted = [planned(key=name, preset=name) for name in names]
    jobs = ledger.add(photo(mtime=1), "d", "p", wanted)
    _, _, away, cancelled, failed = jobs
    ledger.hold(away, BROKEN_PRESET)
    ledger.hold(cancelled, "cancelled")
    ledger.fail(failed, failure(FailureKind.BAD_INPUT), 3)
    ledger.add(photo(mtime=2), "d", "p", wanted[:1])
    gone, aside = JobState.SUPERSEDED, [JobState.HELD, JobState.QUARANTINED]
    states = [ledger.job(number).state for number in jobs]
    assert states == [JobState.READY, gone, gone, *aside]
    ledger.add(photo(mtime=3), "", "p", [], note=NO_PRESET)
    assert [ledger.job(number).state for number in jobs] == [gone, gone, gone, *aside]
    assert ledger.knows("in", Path("a.jpg"), photo(mtime=3).identity, "p")


def test_a_missing_photo_that_is_back_keeps_its_results_and_another_in_its_place_does_not(ledger):
    """Also those in presets that it is not painted with any more."""
    soft, ink = planned(key="S"), planned(key="I", preset="ink")
    jobs = ledger.add(photo(mtime=1), "d", "p", [soft, ink])
    for job_id in jobs:
        finish(ledger, job_id)
    for digest, mtime, kept in (("d", 2, True), ("e", 3, False)):
        ledger.missed("in", Path("a.jpg"))
        ledger.add(photo(mtime=mtime), digest, "p", [planned(key=digest)])
        assert ledger.was_published(ledger.job(jobs[1]), "s") is kept


def test_a_known_file_that_is_back_is_there(ledger):
    ledger.add(photo(), "d", "p", [planned()])
    ledger.missed("in", Path("a.jpg"))
    assert [*ledger.present("in")] == []
    assert ledger.knows("in", Path("a.jpg"), photo().identity, "p")
    assert [*ledger.present("in")] == ["a.jpg"]


def test_a_file_that_is_numbered_anew_is_known_with_all_that_is_to_be_done(ledger):
    path = Path("a.jpg")
    [job_id] = ledger.add(photo(), "d", "p", [planned()])
    ledger.claim("in")
    ledger.fail(job_id, failure(FailureKind.CRASH), 3)
    ledger.missed("in", path)
    assert not ledger.knows("in", path, renumbered(7).identity, "p")
    assert ledger.knows("in", path, renumbered(7).identity, "p", numberless=True)
    job = ledger.job(job_id)
    assert (job.state, job.crashes) == (JobState.RETRY_WAIT, 1)
    assert job.identity == renumbered(7).identity
    assert ledger.knows("in", path, renumbered(7).identity, "p")
    assert [*ledger.present("in")] == ["a.jpg"]
    assert not ledger.knows("in", path, photo(mtime=2).identity, "p", numberless=True)
    ledger.forget_file("in", path)
    assert not ledger.knows("in", path, renumbered(8).identity, "p", numberless=True)


def test_a_file_whose_time_was_cut_is_known_by_that_from_then_on(ledger):
    """It is moved or deleted only if it is the very file that was painted."""
    whole = photo(mtime=1_500_000_000)
    cut = replace(whole.identity, ino=7, mtime_ns=1_000_000_000, ctime_ns=7)
    [job_id] = ledger.add(whole, "d", "p", [planned()])
    assert ledger.knows("in", whole.path, cut, "p", numberless=True)
    assert ledger.job(job_id).identity == cut
    before = ledger.changes
    assert ledger.knows("in", whole.path, cut, "p", numberless=True)
    assert ledger.changes == before


@pytest.mark.parametrize("stays", [True, False])
def test_one_that_is_painted_and_numbered_anew_is_looked_at_where_it_is_to_go(ledger, stays):
    """It may have come once more; or it was taken for another when it was to be moved."""

    def is_known(number):
        now = renumbered(number).identity
        return ledger.knows("in", Path("a.jpg"), now, "p", numberless=True, stays=stays)

    first, second = ledger.add(photo(), "d", "p", [planned(), planned(key="k2", preset="hard")])
    finish(ledger, first)
    assert is_known(7)
    finish(ledger, second)
    assert is_known(8) is stays
    ledger.note_file("in", Path("a.jpg"), renumbered(8).identity, "p")
    assert is_known(8)
    ledger.missed("in", Path("a.jpg"))
    assert is_known(8) is stays
    ledger.note_file("in", Path("a.jpg"), photo().identity, "p", NO_PRESET)
    assert is_known(9)


def test_an_archive_that_is_numbered_anew_at_each_scan_is_not_written_down_each_time(ledger):
    """As exFAT's files are where memory is short: gigabytes a day, on an SD card."""
    [job_id] = ledger.add(photo(), "d", "p", [planned()])
    finish(ledger, job_id)
    ledger.note_file("in", Path("b.txt"), photo("b.txt").identity, "p", "no-photo")
    before = ledger.changes
    for name in ("a.jpg", "b.txt"):
        now = replace(photo(name).identity, ino=7, ctime_ns=7)
        assert ledger.knows("in", Path(name), now, "p", numberless=True, stays=True)
    assert ledger.changes == before


@pytest.mark.parametrize("note", ["writer", "unreadable"])
def test_what_kept_a_file_from_being_read_may_pass_without_a_change_of_it(ledger, note):
    ledger.note_file("in", Path("a.jpg"), photo().identity, "plan", note)
    assert not ledger.knows("in", Path("a.jpg"), photo().identity, "plan")


def test_a_touched_photo_is_tried_as_often_as_a_new_one(ledger):
    [job_id] = ledger.add(photo(mtime=1), "d", "p", [planned()])
    closed = failure(FailureKind.PERMISSION, "eacces")
    states = [ledger.fail(job_id, closed, 3) for _ in range(2)]
    ledger.add(photo(mtime=2), "d", "p", [planned()])
    states += [ledger.fail(job_id, closed, 3) for _ in range(3)]
    assert states == [*[JobState.BLOCKED] * 4, JobState.QUARANTINED]


def test_a_job_that_is_retried_has_a_clean_record(ledger):
    [job_id] = ledger.add(photo(), "d", "p", [planned()])
    wait, aside = JobState.RETRY_WAIT, JobState.QUARANTINED
    for kind, states in (
        (FailureKind.RENDER, [wait, wait, aside]),
        (FailureKind.CRASH, [wait, aside]),
    ):
        for _ in range(2):
            assert [ledger.fail(job_id, failure(kind), 3) for _ in states] == states
            assert ledger.retry() == 1


def test_a_job_whose_photo_had_vanished_is_retried_only_when_it_is_meant(ledger):
    [job_id] = ledger.add(photo(), "d", "p", [planned()])
    for meant in ({"reason": "vanished"}, {"job_id": job_id}):
        ledger.vanished(job_id)
        assert ledger.retry() == 0
        assert ledger.retry(**meant) == 1
        assert ledger.job(job_id).state is JobState.READY


def renumbered(number):
    """The photo with another inode and ctime: its rights have changed, or its disk came back."""
    return replace(photo(), identity=replace(photo().identity, ino=number, ctime_ns=number))


@pytest.mark.parametrize("away", [True, False])
def test_a_photo_that_looks_as_before_is_not_painted_by_a_preset_that_has_changed(ledger, away):
    """Else a whole archive would be, by the first change of its rights after an upgrade."""
    soft, ink = planned(key="k2"), planned(key="I", preset="ink")
    [job_id] = ledger.add(photo(), "d", "p", [planned(key="k1")], stays=True)
    finish(ledger, job_id)
    ledger.after_done(ledger.job(job_id))
    for number in (7, 8):
        if away:
            ledger.missed("in", Path("a.jpg"))
        assert ledger.add(renumbered(number), "d", "p", [soft], stays=True) == []
        assert [(job.state, job.key) for job in ledger.jobs()] == [(JobState.DONE, "k1")]
        assert ledger.after_pending() == []
    [other] = ledger.add(renumbered(9), "d", "p", [soft, ink], stays=True)
    assert ledger.job(other).preset == "ink"
    [touched] = ledger.add(photo(mtime=2), "d", "p", [soft], stays=True)
    assert ledger.job(touched).key == "k2"


HOUR = 3600 * 10**9


@pytest.mark.parametrize(
    ("mtime", "ctime", "digest", "is_new"),
    [
        (HOUR, HOUR, "d", False), (-HOUR, -HOUR, "d", False),
        (23 * HOUR // 4, 23 * HOUR // 4, "d", False),
        (HOUR, HOUR, "e", True), (HOUR, 0, "d", True), (27 * HOUR, 27 * HOUR, "d", True),
        (HOUR + 2 * 10**9, HOUR + 2 * 10**9, "d", True),
    ],
)  # fmt: skip
def test_a_photo_on_fat_looks_as_before_when_the_clocks_have_changed_but_is_read(
    ledger, mtime, ctime, digest, is_new
):
    """Its times are local ones; that of its last change is the only one that is kept."""
    before = Identity(1, 2, 10, 10**18, 10**18)
    [job_id] = ledger.add(
        replace(photo(), identity=before), "d", "p", [planned(key="k1")], stays=True
    )
    finish(ledger, job_id)
    ledger.after_done(ledger.job(job_id))
    now = replace(before, ino=7, mtime_ns=before.mtime_ns + mtime, ctime_ns=before.ctime_ns + ctime)
    assert not ledger.knows("in", Path("a.jpg"), now, "p", numberless=True, stays=True)
    ledger.missed("in", Path("a.jpg"))
    again = replace(photo(), identity=now)
    assert bool(ledger.add(again, digest, "p", [planned(key="k2")], stays=True)) is is_new
    assert ledger.after_pending() == []


@pytest.mark.parametrize("meanwhile", ["edited", "touched", "moved away"])
def test_a_photo_that_has_changed_since_it_was_painted_is_painted_anew(ledger, meanwhile):
    [job_id] = ledger.add(photo(), "d", "p", [planned(key="k1")], stays=True)
    finish(ledger, job_id)
    digest = "d" if meanwhile == "touched" else "e"
    if meanwhile == "moved away":
        ledger.missed("in", Path("a.jpg"))
    for key in ("k2", "k3"):  # before it is painted, its preset changes once more
        again = replace(renumbered(7), identity=replace(renumbered(7).identity, mtime_ns=2))
        [to_do] = ledger.add(again, digest, "p", [planned(key=key)], stays=True)
        assert ledger.job(to_do).key == key


@pytest.mark.parametrize("key", ["k1", "k2"])  # its preset may have changed meanwhile
def test_what_was_cancelled_stays_so_until_it_is_meant_or_its_photo_changes(ledger, key):
    [job_id] = ledger.add(photo(), "d", "p", [planned(key="k1")])
    [failed] = ledger.add(photo("b.jpg"), "e", "p", [planned("b", key="k3")])
    ledger.hold(job_id, "cancelled")
    ledger.fail(failed, failure(FailureKind.BAD_INPUT), 3)
    assert ledger.retry() == 1
    for number in (7, 8):
        assert ledger.add(renumbered(number), "d", "p", [planned(key=key)]) == []
        assert ledger.job(job_id).state is JobState.HELD
        assert ledger.job(job_id).identity == renumbered(number).identity
        ledger.vanished(job_id)  # its folder may be back
        assert ledger.retry() == 0
    [to_do] = ledger.add(photo(mtime=2), "d", "p", [planned(key=key)])
    assert ledger.job(to_do).state is JobState.READY
    for meant in ({"reason": "cancelled"}, {"job_id": to_do}):
        ledger.hold(to_do, "cancelled")
        assert ledger.retry(**meant) >= 1
        assert ledger.job(to_do).state is JobState.READY


def test_only_interruptions_in_a_row_are_counted(ledger, clock):
    [job_id] = ledger.add(photo(), "d", "p", [planned()])
    for _ in range(5):
        ledger.fail(job_id, failure(FailureKind.TRANSIENT, "eio"), 3)
    clock.now += LONGEST_PAUSE
    assert ledger.claim("in").id == job_id
    assert ledger.recover() == []
    assert ledger.job(job_id).state is JobState.READY


def test_a_result_that_was_moved_with_its_folder_is_still_that_of_its_job(ledger):
    [first] = ledger.add(photo(), "d", "p", [planned()])
    finish(ledger, first)
    [second] = ledger.add(photo("b"), "e", "p", [planned("b", key="k2")])
    ledger.results_moved("in", Path("/out"), Path("/new"))
    assert ledger.job(first).output == Path("/new/a--soft.jpg")
    assert ledger.is_taken(ledger.job(second), Path("/new/a--soft.jpg"))


def test_the_pace_is_that_of_painting_and_not_of_copies(ledger):
    for name, seconds in (("a", 2.0), ("b", 0.0)):
        [job_id] = ledger.add(photo(name), name, "p", [planned(name, name)])
        ledger.claim("in")
        ledger.publishing(job_id, replace(rendered(), seconds=seconds))
        ledger.done(job_id, Path("/out", name))
    assert ledger.pace() == 2.0


def test_known_files_are_not_looked_at_again_until_they_change(ledger):
    ledger.add(photo(mtime=1), "d", "plan", [planned()])
    assert ledger.knows("in", Path("a.jpg"), photo(mtime=1).identity, "another plan")
    assert not ledger.knows("in", Path("a.jpg"), photo(mtime=2).identity, "plan")
    ledger.note_file("in", Path("b.jpg"), photo("b.jpg").identity, "plan", NO_PRESET)
    assert ledger.knows("in", Path("b.jpg"), photo("b.jpg").identity, "plan")
    assert not ledger.knows("in", Path("b.jpg"), photo("b.jpg").identity, "another plan")
    assert ledger.notes() == []
    ledger.note_file("in", Path("c.jpg"), photo("c.jpg").identity, "plan", "truncated")
    assert ledger.notes() == [("in", Path("c.jpg"), "truncated")]


def test_three_failures_set_a_photo_aside_and_retry_brings_it_back(ledger, clock):
    [job_id] = ledger.add(photo(), "d", "p", [planned()])
    states = []
    for _ in range(3):
        clock.now += LONGEST_PAUSE
        assert ledger.claim("in").id == job_id
        states.append(ledger.fail(job_id, failure(FailureKind.RENDER, "not-finite"), 3))
    assert states == [JobState.RETRY_WAIT, JobState.RETRY_WAIT, JobState.QUARANTINED]
    assert ledger.retry(reason="something else") == 0
    assert ledger.retry(reason="not-finite") == 1
    assert ledger.claim("in").id == job_id


def test_a_pause_is_kept_and_a_clock_set_back_does_not_lengthen_it(ledger, clock):
    [job_id] = ledger.add(photo(), "d", "p", [planned()])
    ledger.claim("in")
    ledger.fail(job_id, failure(FailureKind.TRANSIENT, "eio"), 3)
    assert ledger.claim("in") is None
    assert clock.now < ledger.next_due() <= clock.now + 5.0
    clock.now -= 86400
    assert ledger.claim("in").id == job_id


def test_jobs_that_wait_are_not_looked_through_again_for_nothing(ledger, clock, monkeypatch):
    """As for weights: with hundreds of thousands each tick took a tenth of a second and more."""
    looks, look = [], ledger._next
    monkeypatch.setattr(ledger, "_next", lambda folder, *_: looks.append(folder) or look(folder))
    first, second = (ledger.add(photo(name), name, "p", [planned(name, name)])[0] for name in "ab")
    assert ledger.waiting(["in", "empty"]) == ["in"]
    ledger.claim("in")
    ledger.fail(first, failure(FailureKind.TRANSIENT, "weights"), 3)
    looks.clear()
    for _ in range(5):
        assert ledger.waiting(["in", "empty"]) == []
        clock.now += 0.01
    assert looks == ["in", "empty"]
    due = ledger.next_due()
    clock.now = due
    assert ledger.waiting(["in", "empty"]) == ["in"]  # the pause is over
    clock.now = due - 0.1
    assert ledger.waiting(["in"]) == []
    clock.now -= 86400.0
    assert ledger.waiting(["in"]) == ["in"]  # the clock was set back
    clock.now = due - 0.1
    assert ledger.waiting(["in"]) == []
    ledger.vanished(first)
    assert ledger.waiting(["in"]) == ["in"]  # something was written
    assert ledger.claim("in").id == second


@pytest.mark.parametrize("reason", ["weights", "weights-missing"])
def test_what_a_preset_lacks_is_tried_by_one_photo_and_the_others_wait_with_it(
    ledger, clock, reason
):
    (first,), _, (other,) = (
        ledger.add(photo(name), name, "p", [planned(name, name, preset)])
        for name, preset in [("a", "soft"), ("b", "soft"), ("c", "quick")]
    )
    for _ in range(2):
        assert ledger.claim("in").id == first
        ledger.fail(first, failure(FailureKind.TRANSIENT, reason), 3)
        if ledger.job(other).state is JobState.READY:
            assert ledger.claim("in").id == other
        assert ledger.waiting(["in"]) == []
        assert ledger.lacks() == {"soft": "why"}
        clock.now = ledger.next_due()
    clock.now -= 86400
    assert ledger.claim("in").id == first
    ledger.vanished(first)  # whatever becomes of it, another one tries
    assert ledger.waiting(["in"]) == ["in"]


def test_a_photo_that_is_too_much_for_a_gpu_keeps_no_other_from_it(ledger, clock):
    """It was tried first whenever its pause had ended, and nothing else of its preset was."""
    ids = [ledger.add(photo(name), name, "p", [planned(name, name)])[0] for name in "abc"]
    ledger._rng = Mock(uniform=lambda _least, most: most)
    lacks, pauses = failure(FailureKind.TRANSIENT, "device"), []
    for expected in [*ids, *ids]:  # while all of them fail, they take turns
        assert ledger.claim("in").id == expected
        ledger.fail(expected, lacks, 3)
        assert ledger.claim("in") is None
        pauses.append(ledger.next_due() - clock.now)
        clock.now = ledger.next_due()
    assert pauses == sorted({*pauses})  # ever more rarely
    assert ledger.lacks() == {"soft": "why"}
    [other] = ledger.add(photo("d"), "d", "p", [planned("d", "d")])
    assert ledger.claim("in").id == other
    clock.now += 1
    ledger.publishing(other, rendered())
    ledger.done(other, Path("/out/d.jpg"))
    assert ledger.lacks() == {}, "the GPU paints others"
    assert ledger.claim("in").id == ids[0]
    ledger.fail(ids[0], lacks, 3)
    assert ledger.next_due() - clock.now < pauses[-1], "only its own tries count by now"


def test_photos_that_wait_for_what_their_preset_lacks_make_no_other_s_turn_late(ledger):
    """Each turn passed by all of them, twice: with 100 000 it took a tenth of a second."""
    add_jobs(ledger, many := 5000, "ready", "lacking")
    ledger.fail(ledger.claim("in").id, failure(FailureKind.TRANSIENT, "weights"), 3)
    [job_id] = ledger.add(photo(), "d", "p", [planned()])
    with statements(ledger) as ran:
        assert ledger.waiting(["in"]) == ["in"]
        assert ledger.claim("in").id == job_id
    assert max(steps for _, steps in ran) < many


@pytest.mark.parametrize("reason", OutputFullError.reasons)
def test_a_folder_that_can_t_be_written_is_tried_by_one_photo_and_its_others_wait_with_it(
    ledger, clock, reason
):
    """Else thousands of them, each in turn, keep those of other folders waiting."""
    (first,), _, (other,), (inner,) = (
        ledger.add(photo(name), name, "p", [planned(name, name)])
        for name in ("sub/a", "sub/b", "c", "sub/new/d")
    )
    for _ in range(2):
        assert ledger.claim("in").id == first
        ledger.fail(first, failure(FailureKind.RESOURCE, reason), 3)
        for job_id in (other, inner):
            if ledger.job(job_id).state is JobState.READY:
                assert ledger.claim("in").id == job_id
        assert ledger.waiting(["in"]) == []
        clock.now = ledger.next_due()
    clock.now -= 86400
    assert ledger.claim("in").id == first
    ledger.vanished(first)  # whatever becomes of it, another one tries
    assert ledger.waiting(["in"]) == ["in"]


def test_a_photo_that_may_not_be_read_keeps_no_other_waiting(ledger):
    (first,), (other,) = (
        ledger.add(photo(name), name, "p", [planned(name, name)]) for name in ("a", "b")
    )
    ledger.claim("in")
    assert ledger.fail(first, failure(FailureKind.PERMISSION, "eacces"), 3) is JobState.BLOCKED
    assert ledger.claim("in").id == other


def test_what_waits_goes_by_what_its_preset_took_lately(ledger, clock):
    def paint(name, preset, seconds):
        ledger.add(photo(name), "d", "p", [planned(name, name, preset)])
        job = ledger.claim("in")
        ledger.publishing(job.id, replace(rendered(), seconds=seconds))
        ledger.done(job.id, Path(f"/out/{name}"))
        clock.now += 1

    paint("slow", "classic", 30.0)
    for number in range(50):
        paint(f"{number}", "draft", 9.0 if number < 25 else 3.0)
    paint("copy", "classic", 0.0)
    assert ledger.work() == {}
    for number, preset in enumerate(("draft", "draft", "classic", "new")):
        ledger.add(photo(f"next {number}"), "d", "p", [planned("a", f"k{number}", preset)])
    ledger.add(photo(folder="other"), "d", "p", [planned()])
    assert ledger.pace() == 3.0
    assert ledger.work() == {"in": 3.0 + 3.0 + 30.0 + 3.0, "other": 3.0}
    lacking = ledger.claim("other")
    ledger.fail(lacking.id, failure(FailureKind.TRANSIENT, "weights"), 3)
    ledger.vanished(ledger.claim("in").id)
    assert ledger.work() == {"in": 3.0 + 30.0 + 3.0, "other": None}


def test_a_full_disk_is_never_held_against_the_photo(ledger, clock):
    [job_id] = ledger.add(photo(), "d", "p", [planned()])
    for _ in range(20):
        clock.now += 60
        ledger.claim("in")
        assert ledger.fail(job_id, failure(FailureKind.RESOURCE), 3) is JobState.BLOCKED


def test_after_a_crash_what_ran_is_ready_and_what_ran_too_often_is_told(ledger):
    for name in ("a", "b"):
        ledger.add(photo(name), name, "p", [planned(name, name)])
    running, publishing = ledger.claim("in"), ledger.claim("in")
    ledger.publishing(publishing.id, rendered())
    assert ledger.recover() == []
    assert ledger.job(running.id).state is JobState.READY
    assert ledger.job(publishing.id).state is JobState.PUBLISHING
    for _ in range(9):
        ledger.change("UPDATE jobs SET state = 'running' WHERE id = ?", running.id)
        given_up = ledger.recover()
    assert [(job.id, job.state) for job in given_up] == [(running.id, JobState.QUARANTINED)]


def test_folders_taken_out_of_the_config_wait_until_they_are_back(ledger):
    [job_id] = ledger.add(photo(), "d", "p", [planned()])
    ledger.hold_others(["another"], ["soft"])
    assert ledger.job(job_id).state is JobState.HELD
    ledger.hold_others(["in"], ["soft"])
    assert ledger.job(job_id).state is JobState.READY


def test_what_waits_for_a_preset_that_is_away_is_held_until_it_is_back(ledger):
    """And left alone meanwhile: hundreds of thousands were made ready and held again, one by one."""
    [job_id] = ledger.add(photo(), "d", "p", [planned()])
    ledger.hold_others(["in"], ["ink"])
    held = ledger.job(job_id)
    assert (held.state, held.reason) == (JobState.HELD, "preset")
    before = ledger.changes
    ledger.hold_others(["in"], ["ink"])
    assert ledger.changes == before
    ledger.hold_others([], ["soft"])
    assert ledger.job(job_id).state is JobState.HELD
    ledger.hold_others(["in"], ["soft"])
    assert ledger.job(job_id).state is JobState.READY


def test_a_pause_is_over_for_a_folder_that_is_back_in_the_config(ledger):
    """It was nobody's business when: the job stayed ready, and was never claimed."""
    [job_id] = ledger.add(photo(), "d", "p", [planned()])
    ledger.claim("in")
    assert ledger.fail(job_id, failure(FailureKind.PERMISSION), 3) is JobState.BLOCKED
    assert ledger.waiting(["in"]) == []
    ledger.hold_others([], ["soft"])
    ledger.hold_others(["in"], ["soft"])
    assert ledger.next_due() is None
    assert ledger.waiting(["in"]) == ["in"]
    assert ledger.claim("in").id == job_id


def test_the_same_picture_is_found_under_another_name(ledger):
    [first] = ledger.add(photo("a"), "d", "p", [planned("a")])
    [second] = ledger.add(photo("b"), "d", "p", [planned("b")])
    ledger.claim("in")
    assert ledger.same_results(ledger.job(second)) == []
    ledger.publishing(first, rendered())
    ledger.done(first, Path("/out/a--soft.jpg"))
    assert [job.id for job in ledger.same_results(ledger.job(second))] == [first]


@pytest.mark.parametrize("name", ["a--soft.jpg", "a--soft~2.jpg"])
def test_a_damaged_ledger_is_set_aside_and_rebuilt_from_the_results(tmp_path, name):
    path = tmp_path / "ledger.db"
    Ledger(path).close()
    path.write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    ledger = Ledger(path)
    assert ledger.set_aside == tmp_path / "ledger.db.damaged-1"
    assert ledger.set_aside.exists()
    ledger.rebuild([("k1", Path("/out", name), "sha", "d")])
    assert ledger.add(photo(), "d", "p", [planned(key="k1")]) == []
    assert ledger.jobs()[0].state is JobState.DONE
    assert ledger.jobs()[0].output == Path("/out", name)
    assert len(ledger.add(photo("b"), "d", "p", [planned("b", key="k1")])) == 1
    ledger.close()


@pytest.mark.parametrize("stays", [True, False])
def test_a_result_from_before_a_preset_was_changed_is_that_of_a_photo_that_stayed(ledger, stays):
    ledger.rebuild([("before", Path("/out/a--soft.jpg"), "sha", "d")])
    added = ledger.add(photo(), "d", "p", [planned(key="now")], stays=stays)
    assert len(added) == (not stays), "one that comes anew is painted anew"
    assert ledger.jobs()[0].key == ("before" if stays else "now")
    if stays:
        assert ledger.add(photo(), "d", "p", [planned(key="now")], stays=True) == []
        assert ledger.add(photo(mtime=2), "d", "p", [planned(key="now")], stays=True), "touched"


def test_the_log_is_short_again_after_a_change_of_very_much(ledger, tmp_path):
    """As of all jobs, when their folder leaves the config: it stayed so for the daemon's life."""
    log = tmp_path / "ledger.db-wal"
    ledger.change("INSERT INTO mounts VALUES (zeroblob(8000000))")
    assert log.stat().st_size > 8_000_000
    for number in range(2):
        ledger.note_mount(Path(f"/{number}"))
    assert log.stat().st_size <= 4_000_000


@pytest.mark.parametrize(
    ("version", "told"),
    [(10, "older stylewatch.*another state_dir"), (99, "newer stylewatch.*Upgrade stylewatch")],
)
def test_a_ledger_of_another_version_is_left_alone(tmp_path, version, told):
    path = tmp_path / "ledger.db"
    Ledger(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    for opened in (Ledger, LedgerReader):
        with pytest.raises(LedgerError, match=told) as raised:
            opened(path)
        assert f"expected version {VERSION}, received {version}. " in str(raised.value)
    assert path.read_bytes() == before


def test_a_kill_between_two_transactions_loses_only_what_was_not_committed(tmp_path):
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_ledger import *
ledger = Ledger(Path({str(tmp_path / "ledger.db")!r}))
ledger.add(photo("kept"), "d", "p", [planned("kept", "k")])
with ledger.transaction():
    ledger.add(photo("lost"), "d", "p", [planned("lost", "l")])
    os.kill(os.getpid(), signal.SIGKILL)
"""
    died = subprocess.run([sys.executable, "-c", script], check=False)
    assert died.returncode == -9
    ledger = Ledger(tmp_path / "ledger.db")
    assert [str(job.path) for job in ledger.jobs()] == ["kept"]
    ledger.close()


def test_ten_thousand_photos_are_in_the_ledger_within_seconds_and_asked_for_at_once(ledger, pace):
    started = time.process_time()
    for batch in range(40):
        with ledger.transaction():
            for number in range(250):
                name = f"{batch}-{number}"
                ledger.add(photo(name), name, "p", [planned(name, name)])
    assert time.process_time() - started < 15 * pace
    started = time.process_time()
    assert ledger.counts() == {"in": {JobState.READY: 10_000}}
    assert len(ledger.numbers([JobState.READY], 50)) == 50
    assert time.process_time() - started < 0.1 * pace


KINDS = st.sampled_from(list(FailureKind))


@given(KINDS, st.integers(0, 50), st.integers(0, 50), st.integers(0, 500), st.integers(1, 9))
def test_every_failure_has_a_verdict_with_a_bounded_pause(kind, failures, crashes, tries, most):
    verdict = judge(
        kind, failures=failures, crashes=crashes, tries=tries, max_attempts=most, rng=Random(0)
    )
    assert 0 <= verdict.pause <= 3600
    if kind is FailureKind.BAD_INPUT:
        assert verdict.state is JobState.QUARANTINED
    if kind in {FailureKind.TRANSIENT, FailureKind.RESOURCE, FailureKind.LOST}:
        assert verdict.state is not JobState.QUARANTINED
        assert not verdict.counted


def test_time_outs_count_as_failures_and_two_crashes_are_enough():
    def verdict(kind, before):
        same = {"failures": before, "crashes": before, "tries": before}
        return judge(kind, **same, max_attempts=5, rng=Random(0)).state

    assert verdict(FailureKind.CRASH, 1) is JobState.QUARANTINED
    assert verdict(FailureKind.TIMEOUT, 3) is JobState.RETRY_WAIT
    assert verdict(FailureKind.TIMEOUT, 4) is JobState.QUARANTINED


LONGEST = Mock(uniform=lambda least, most: most)


@pytest.mark.parametrize(
    ("kind", "before", "expected"),
    [
        *[(FailureKind.RENDER, n, (JobState.RETRY_WAIT, 5.0 * 2**n, True)) for n in (0, 1, 3)],
        *[(FailureKind.TRANSIENT, n, (JobState.RETRY_WAIT, 5.0 * 2**n, False)) for n in (0, 7)],
        *[(FailureKind.TRANSIENT, n, (JobState.RETRY_WAIT, 900.0, False)) for n in (8, 5000)],
        (FailureKind.CRASH, 0, (JobState.RETRY_WAIT, 5.0, True)),
        (FailureKind.RESOURCE, 99, (JobState.BLOCKED, 30.0, False)),
        *[(FailureKind.PERMISSION, n, (JobState.BLOCKED, 3600.0, False)) for n in (0, 1)],
        (FailureKind.PERMISSION, 2, (JobState.QUARANTINED, 0.0, False)),
        (FailureKind.CHANGED, 0, (JobState.SUPERSEDED, 0.0, False)),
        (FailureKind.LOST, 99, (JobState.READY, 0.0, False)),
    ],
)
def test_pauses_double_with_each_failure_of_a_kind_up_to_a_quarter_of_an_hour(
    kind, before, expected
):
    same = {"failures": before, "crashes": before, "tries": before}
    assert astuple(judge(kind, **same, max_attempts=9, rng=LONGEST)) == expected


def test_so_they_do_with_each_interruption_but_for_the_first_two():
    verdicts = [astuple(after_interruption(times, LONGEST))[:2] for times in range(1, 11)]
    pauses = [10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0]
    assert verdicts == [
        *[(JobState.READY, 0.0)] * 2,
        *((JobState.RETRY_WAIT, pause) for pause in pauses),
        (JobState.QUARANTINED, 0.0),
    ]


STEPS = _TABLES.count(";") + 2  # until all is there but its commit


@pytest.mark.parametrize("done", [0, 1, STEPS // 2, STEPS - 1, STEPS])
def test_a_kill_in_the_middle_of_making_it_leaves_none_of_its_tables(tmp_path, done):
    path = tmp_path / "ledger.db"
    script = f"""
import os, signal, sqlite3
from pathlib import Path
from stylewatch.state import schema

class Killed(sqlite3.Connection):
    left = {done}
    def execute(self, *given):
        Killed.left -= self.in_transaction
        if Killed.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(*given)

connect = sqlite3.connect
schema.sqlite3.connect = lambda *given, **more: connect(*given, factory=Killed, **more)
schema.open_ledger(Path({str(path)!r}))
"""
    died = subprocess.run([sys.executable, "-c", script], check=False)
    with closing(sqlite3.connect(path)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        tables = db.execute("SELECT name FROM sqlite_master").fetchall()
    assert (died.returncode, version, tables) == (-9, 0, [])
    with closing(Ledger(path)) as ledger:
        assert len(ledger.add(photo(), "d", "p", [planned()])) == 1


def test_a_disk_is_remembered_until_it_is_not_expected_any_more(ledger):
    for mount in ("/nas", "/nas", "/usb"):
        ledger.note_mount(Path(mount))
    ledger.forget_mount(Path("/usb"))
    assert ledger.mounts() == {Path("/nas")}
