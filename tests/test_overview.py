"""What `status` and `jobs` tell, of a ledger with all kinds of jobs and of a daemon that answers."""

import re
import socket
import sys
import time
import tracemalloc
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from test_control import STEP, Daemon

from stylewatch.app import overview
from stylewatch.domain import Failure, FailureKind, Identity, JobState, Photo
from stylewatch.errors import LedgerError, StylewatchError
from stylewatch.faces.control import ControlServer
from stylewatch.faces.wire import SOCKET
from stylewatch.state.ledger import Ledger, Planned
from stylewatch.state.wording import WAITING


@pytest.fixture
def daemon(tmp_path):
    made = Daemon()
    with ControlServer(tmp_path, made.ask, {"version": "1.2"}):
        yield made


@pytest.fixture
def state(tmp_path):
    """A ledger with jobs of every kind in two folders of one name."""
    ledger = Ledger(tmp_path / "ledger.db", clock=lambda: 1000.0)
    for name, place in (("in", "/a/in"), ("in (2)", "/b/in")):
        ledger.note_folder(name, Path(place), None)
    for number, folder in enumerate(["in"] * 6 + ["in (2)"], 1):
        photo = Photo(folder, Path("/"), Path(f"{number}.jpg"), Identity(1, number, 9, 9, 9))
        ledger.add(photo, "d", "", [Planned("ink", f"key {number}", Path(f"/out/{number}"))])
    for number in (1, 2, 3):
        assert ledger.claim("in").id == number
    bad = {"kind": FailureKind.BAD_INPUT, "reason": "not-an-image", "message": "no image"}
    closed = {"kind": FailureKind.LOST, "reason": "engine-lost", "message": "the executor closed"}
    ledger.fail(1, Failure(**bad), 3)
    ledger.fail(2, Failure(**closed), 3)  # ready again
    ledger.hold(4, "cancelled")
    ledger.hold(5, "folder")
    ledger.note_file("in", Path("half.jpg"), Identity(1, 20, 9, 9, 9), note="truncated")
    ledger.note_file("in", Path("link.jpg"), Identity(1, 21, 9, 9, 9), note="symlink")
    ledger.close()
    return tmp_path


def listed(*arguments, **more):
    return [*overview.list_jobs(*arguments, **more)[0]]


def rows(found):
    return [line.split() for line in overview.jobs_text(found).splitlines()]


def test_jobs_are_told_in_one_vocabulary_what_is_painted_first(state, daemon):
    found = listed(state, (), 50)
    assert [(row[0], row[1]) for row in rows(found)] == [
        *(("#3", "painting"), ("#2", "waiting"), ("#6", "waiting"), ("#7", "waiting")),
        *(("#5", "held"), ("#4", "held"), ("#1", "failed")),
    ]
    assert [row["state"] for row in found][:2] == ["running", "ready"]  # for programs as ever
    assert [len(listed(state, (), limit)) for limit in (1, 3)] == [1, 3]
    assert {row["seconds"] for row in found} == {None}  # none of them is painted
    assert not any(value == "" for row in found for value in row.values())
    assert [row["reason"] for row in found] == [
        *(None, None, None, None, "folder", "cancelled", "not-an-image"),
    ]
    assert "executor" not in overview.jobs_text(found)
    assert "no image. Remove it, or export it as JPEG" in overview.jobs_text(found)


def test_a_folder_whose_only_file_failed_is_told_of_too(tmp_path):
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        ledger.note_file("in", Path("half.jpg"), Identity(1, 20, 9, 9, 9), note="truncated")
    (found,) = overview._from_ledger(tmp_path)
    assert (found["name"], found["failed"]) == ("in", 1)


def test_what_a_killed_daemon_had_in_work_waits(state):
    waiting, running = WAITING, [JobState.RUNNING, JobState.PUBLISHING]
    assert [row[1] for row in rows(listed(state, waiting, 50))] == ["waiting"] * 4
    assert overview.list_jobs(state, waiting, 1)[1] == 4
    assert "painting" not in overview.jobs_text(listed(state, (), 50))
    found, there = overview.list_jobs(state, running, 50)
    assert ([*found], there) == ([], 0)


def test_what_a_daemon_that_does_not_answer_has_in_work_is_painted_all_the_same(state):
    """Only it hangs, or is stopped: its worker may go on."""
    with socket.socket(socket.AF_UNIX) as hangs:
        hangs.bind(str(state / SOCKET))
        hangs.listen()
        assert [row["id"] for row in listed(state, [JobState.RUNNING], 50)] == [3]
        first, _ = overview._from_ledger(state)
    assert (first["waiting"], first["painting"]) == (2, 1)


@pytest.mark.parametrize(
    ("states", "notes", "number"),
    [((), False, 7), (overview.FAILED, True, 3), ([JobState.DONE], False, 0)],
)
def test_what_a_limit_cuts_off_is_counted(state, states, notes, number):
    assert overview.list_jobs(state, states, 1, notes=notes)[1] == number
    assert len(listed(state, states, sys.maxsize, notes=notes)) == number


def test_few_of_many_jobs_are_in_memory(tmp_path):
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        ledger.change(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)"
            " INSERT INTO jobs (folder, path, preset, key, digest, target, dev, ino, size,"
            " mtime_ns, ctime_ns, state, created, changed)"
            " SELECT 'in', CAST(i AS BLOB), 'soft', 'k' || i, 'd', CAST(i AS BLOB), 1, i, 1, 1, 1,"
            " iif(i % 2, 'done', 'vanished'), i, i FROM n"
        )
    peaks = []
    for _ in range(2):  # the table of Python's interned strings may double meanwhile, but just once
        tracemalloc.start()
        try:
            found, there = overview.list_jobs(tmp_path, (), sys.maxsize)
            numbers = [job["id"] for job in found]
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert (numbers, there) == ([*range(10_000, 0, -1)], 10_000)
    assert min(peaks) < 4e6  # all of them at once: 18 MB


def test_a_job_that_goes_on_while_the_list_is_read_is_told_as_it_is_then(state, daemon):
    waiting, _ = overview.list_jobs(state, WAITING, 50)
    every, _ = overview.list_jobs(state, (), 50)
    with closing(Ledger(state / "ledger.db")) as ledger:
        ledger.hold(2, "cancelled")
        ledger.change("DELETE FROM jobs WHERE id = 6")
    assert [job["id"] for job in waiting] == [7]
    assert [(job["id"], job["state"]) for job in every][:3] == [
        *((3, "running"), (2, "held"), (7, "ready")),
    ]


def test_why_a_job_is_not_done_is_told_before_where_its_result_once_was(state):
    found = listed(state, [JobState.HELD], 50)
    text = overview.jobs_text([job | {"output": "/out/old.jpg"} for job in found])
    assert "its folder is not watched now" in text
    assert "cancelled" in text
    assert "/out/old.jpg" not in text


def test_a_table_s_columns_stand_below_each_other_whatever_is_in_them(state):
    """Some signs are two cells wide, and some have no width of their own."""
    [job, *_] = listed(state, (), 1)
    names = ("a.jpg", "\u5199\u771f.jpg", "cafe\u0301.jpg")
    found = [job | {"photo": name, "message": "|"} for name in names]
    places = [cell_len(line[: line.index("|")]) for line in overview.jobs_text(found).splitlines()]
    assert len(set(places)) == 1
    found = [job | {"photo": name} for name in ("a.jpg", "deep/" * 100)]
    short, _ = overview.jobs_text(found).splitlines()
    assert cell_len(short) < 120


def test_folders_are_told_apart_where_there_are_several(state):
    text = overview.jobs_text(listed(state, (), 50))
    assert " /a/in " in text
    assert " /b/in " in text
    failed = listed(state, [JobState.QUARANTINED], 50)
    assert "/a/in" not in overview.jobs_text(failed)


def test_what_is_held_is_not_failed(state):
    found = listed(state, overview.FAILED, 50, notes=True)
    assert sorted((row[0], row[1]) for row in rows(found)) == [
        ("#1", "failed"), ("-", "failed"), ("-", "ignored"),
    ]  # fmt: skip
    assert "its end is missing. Copy it again" in overview.jobs_text(found)
    held = {row["id"]: row["message"] for row in listed(state, [JobState.HELD], 50)}
    assert "`stylewatch retry`" in held[4]
    assert held[5] == "its folder is not watched now"


def test_what_waits_for_a_preset_is_held_whether_it_has_a_job_or_not(state):
    with closing(Ledger(state / "ledger.db", clock=lambda: 2000.0)) as ledger:
        ledger.note_file("in", Path("own/a.jpg"), Identity(1, 30, 9, 9, 9), note="preset")
        ledger.note_file("in", Path("own/b.jpg"), Identity(1, 31, 9, 9, 9), note="preset")
        ledger.missed("in", Path("own/b.jpg"))
    held = listed(state, [JobState.HELD], 50)
    assert [(row[0], row[1]) for row in rows(held)] == [
        ("#5", "held"), ("#4", "held"), ("-", "held"),
    ]  # fmt: skip
    assert (held[2]["photo"], held[2]["reason"]) == ("own/a.jpg", "preset")
    assert held[2]["message"] == (
        "its preset can't be used now. `stylewatch status` tells why, and `stylewatch presets check`"
        " with its name"
    )
    assert overview.list_jobs(state, [JobState.HELD], 1)[1] == 3
    assert overview.look(state)["folders"][0]["held"] == 3
    assert "own/a.jpg" not in overview.jobs_text(listed(state, overview.FAILED, 50, notes=True))


def test_what_nobody_foresaw_is_told_with_where_its_traceback_is(state):
    words = "ValueError: shapes differ. Expected (3,)"  # a library's, which says nothing of us
    with closing(Ledger(state / "ledger.db")) as ledger:
        ledger.fail(3, Failure(kind=FailureKind.RENDER, reason="error", message=words), 1)
    told = {job["id"]: job["message"] for job in listed(state, [JobState.QUARANTINED], 50)}
    where = (
        "in `chatter.log` in the state folder, or, on a cluster, in what the `dask worker` prints"
    )
    assert told[3] == f"{words}. The full traceback is {where}"


def test_what_once_was_with_a_job_that_is_done_is_no_reason(state):
    with closing(Ledger(state / "ledger.db")) as ledger:
        ledger.change("UPDATE jobs SET state = 'done', reason = 'again' WHERE id = 6")
    [done] = listed(state, [JobState.DONE], 50)
    assert (done["reason"], done["message"], done["note"]) == (None, None, None)


def test_files_that_no_rule_matches_do_not_crowd_out_those_that_failed(state):
    ledger = Ledger(state / "ledger.db", clock=lambda: 2000.0)
    for number in range(30):
        path = Path(f"screenshot {number}.png")
        ledger.note_file("in", path, Identity(1, 100 + number, 9, 9, 9), note="no-preset")
    ledger.close()
    found = listed(state, overview.FAILED, 5, notes=True)
    assert [row["photo"] for row in found] == ["1.jpg", "half.jpg", "link.jpg"]
    assert {row["input"] for row in found} == {"/a/in"}
    assert len({frozenset(row) for row in found}) == 1  # the same fields
    assert (found[1]["preset"], found[1]["reason"]) == (None, "truncated")
    assert len(listed(state, overview.FAILED, 2, notes=True)) == 2


def test_status_without_a_daemon_counts_every_file_once(state):
    found = overview.look(state)
    assert found["folders"] == [
        {"name": "in", "input": "/a/in",
         "waiting": 3, "painting": 0, "done": 0, "failed": 2, "held": 2},
        {"name": "in (2)", "input": "/b/in",
         "waiting": 1, "painting": 0, "done": 0, "failed": 0, "held": 0},
    ]  # fmt: skip
    assert [line.split() for line in overview.overview_text(found).splitlines()[1:3]] == [
        ["folder", "state", "waiting", "painting", "done", "failed", "held"],
        ["in", "-", "3", "0", "0", "2", "2", "/a/in"],
    ]


def test_a_ledger_that_can_t_be_read_does_not_hide_that_no_daemon_runs(state):
    (state / "ledger.db").write_bytes(b"no ledger" * 1000)
    found = overview.look(state)
    assert (found["running"], found["folders"]) == (False, [])
    told = f"^no stylewatch daemon for {state}.*tells of the service. The ledger can't be read .*"
    assert re.match(told, found["problem"])


def test_a_daemon_that_waits_for_its_ledger_is_told_of_with_what_can_be_read_of_it(state, daemon):
    """As while its disk is full: for hours, perhaps."""
    daemon.answers["status"] = a_status()
    whole = overview.look(state)
    daemon.answers["status"] = LedgerError("The ledger can't be written: disk full")
    found = overview.look(state)
    assert (found.keys(), found["running"], found["version"]) == (whole.keys(), True, "1.2")
    assert found["folders"][0].keys() == whole["folders"][0].keys()
    told = [(each["name"], each["state"], each["waiting"]) for each in found["folders"]]
    assert told == [("in", "blocked", 3), ("in (2)", "blocked", 1)]
    text = overview.overview_text(found)
    assert "The ledger can't be written: disk full" in text.splitlines()
    assert "is empty" not in text
    daemon.answers["status"] = KeyError("a mistake of ours")
    with pytest.raises(StylewatchError, match="mistake"):
        overview.look(state)


HEALTH = {"folder": "in", "root": "/in", "state": "watching", "detail": ""}
JOB = {"id": 1, "path": "a.jpg", "preset": "ink"}
RUNNING = {"job": JOB, "seconds": 2.0, "step": STEP}


def a_status(**more):
    return {
        "paused": False, "folders": [HEALTH], "settling": {"in": 3}, "blocked": {}, "pace": 0.0,
        "running": [RUNNING],
        "counts": {"in": {"ready": 2, "quarantined": 1}},
    } | more  # fmt: skip


@pytest.mark.parametrize(
    ("more", "seconds"),
    [
        ({"pace": 10.0}, 38.0),  # what is left of the running one, and two more
        ({"pace": 10.0, "slots": 2}, 19.0),
        ({"pace": 10.0, "work": {"in": 100.0}}, 118.0),  # their preset is a slow one
        ({"work": {"in": 100.0}, "running": []}, 100.0),
        ({"pace": 10.0, "work": {"in": None}}, 0.0),  # its preset's image is away
        ({"pace": 10.0, "counts": {}}, 18.0),
        ({"pace": 10.0, "counts": {}, "slots": 0}, 18.0),  # the last worker's place is gone
        ({}, 58.0),  # as the running one will take
        ({"running": [RUNNING | {"step": replace(STEP, eta_seconds=0.0)}]}, 0.0),  # slow at first
        ({"running": []}, 0.0),
        ({"pace": 10.0, "paused": True}, None),
        ({"pace": 10.0, "slots": 0}, 0.0),
        ({"pace": 10.0, "folders": [HEALTH | {"state": "blocked"}]}, 0.0),
        ({"pace": 10.0, "folders": [HEALTH | {"state": "blocked"}], "counts": {}}, 18.0),
        ({"pace": 10.0, "folders": [HEALTH | {"state": "scanning"}]}, 38.0),
        ({"pace": 10.0, "folders": [HEALTH, HEALTH | {"state": "missing"}]}, 0.0),
    ],
)
def test_the_queue_s_end_includes_what_is_painted(daemon, tmp_path, more, seconds):
    daemon.answers["status"] = a_status(**more)
    assert overview.look(tmp_path)["queue_seconds"] == seconds


def test_the_queue_s_end_is_beyond_the_hours_in_which_photos_are_not_begun(daemon, tmp_path):
    night = {"hours": [[1320, 420]], "pace": 600.0, "running": []}  # 22:00-07:00, two photos wait
    daemon.answers["status"] = a_status(**night)
    ends = []
    for minute in (40, 55):
        early = time.mktime((2026, 6, 15, 6, minute, 0, 0, 0, -1))
        ends.append(overview.look(tmp_path, lambda now=early: now)["queue_seconds"])
    assert ends == [20 * 60, 15 * 3600 + 20 * 60]  # the second would begin at 7:05


def test_in_a_pause_nobody_says_when_the_queue_is_empty(daemon, tmp_path):
    daemon.answers["status"] = a_status(paused=True, paused_why="until 22:00", pace=10.0)
    found = overview.look(tmp_path)
    assert found["paused_why"] == "until 22:00"
    text = overview.overview_text(found)
    assert ", paused until 22:00\n" in text
    assert "#1 a.jpg → ink  10%, 18 s left" in text
    assert "empty" not in text


def test_a_photo_that_has_just_begun_is_told_with_its_worker_s_memory(daemon, tmp_path):
    [begun] = a_status()["running"]
    daemon.answers["status"] = a_status(running=[begun | {"step": None, "memory": 640_000_000}])
    text = overview.overview_text(overview.look(tmp_path))
    assert "#1 a.jpg → ink  for 2 s, 640 MB" in text
    first = replace(STEP, eta_seconds=0.0)  # it took long, and says nothing of the others
    daemon.answers["status"] = a_status(running=[begun | {"step": first, "memory": 640_000_000}])
    text = overview.overview_text(overview.look(tmp_path))
    assert "#1 a.jpg → ink  10%, 640 MB" in text


def test_status_says_what_arrives_and_what_failed_before_it_had_a_job(daemon, tmp_path):
    daemon.answers["status"] = a_status(failed_files={"in": 4})
    text = overview.overview_text(overview.look(tmp_path))
    head, row = (line.split() for line in text.splitlines()[1:3])
    assert head == ["folder", "state", "arriving", "waiting", "painting", "done", "failed"]
    assert row == ["in", "watching", "3", "2", "0", "0", "5", "/in"]


def test_status_is_no_table_where_that_is_too_wide(daemon, tmp_path):
    away = HEALTH | {"folder": "nas", "state": "missing", "detail": "/nas does not exist"}
    daemon.answers["status"] = a_status(folders=[HEALTH | {"root": "/x" * 20}, away])
    found = overview.look(tmp_path)
    assert "folder  state     arriving" in overview.overview_text(found, 60)
    assert overview.overview_text(found, 60).splitlines()[3] == f"    {'/x' * 20}"
    assert overview.overview_text(found, 50).splitlines()[1:5] == [
        "in: watching, 3 arriving, 2 waiting, 1 failed", f"  {'/x' * 20}",
        "nas: missing", "  /nas does not exist",
    ]  # fmt: skip


def test_an_output_that_waits_is_told_in_words_and_once(daemon, tmp_path):
    full = HEALTH | {"state": "blocked", "detail": "/out is full"}
    blocked = {"/out": "disk-full", "/b": "forbidden", "/c": "away"}
    daemon.answers["status"] = a_status(folders=[full], blocked=blocked)
    found = overview.look(tmp_path)
    assert found["blocked"] == blocked  # for programs as ever
    text = overview.overview_text(found)
    assert text.count("/out is full") == 1
    assert "blocked: /b can't be written\nblocked: /c is not there" in text
    assert "disk-full" not in text


def test_jobs_are_no_table_where_that_is_too_wide(state):
    found = listed(state, [JobState.QUARANTINED], 50, notes=True)
    assert overview.jobs_text(found, 30).splitlines()[:3] == [
        "#1 failed: 1.jpg → ink",
        "  no image. Remove it, or export it as JPEG",
        "- failed: half.jpg",
    ]


def test_what_has_no_room_beside_a_job_stands_below_it(state):
    found = [job | {"message": "because " * 9} for job in listed(state, (), 2)]
    text = overview.jobs_text(found, 60).splitlines()
    assert [line.startswith("    because") for line in text] == [False, True, False, True]
    assert len(overview.jobs_text(found, 200).splitlines()) == 2


def test_status_counts_what_is_held_before_it_had_a_job(daemon, tmp_path):
    daemon.answers["status"] = a_status(held_files={"in": 4}, waits=["photos for ink wait: why"])
    (folder,) = overview.look(tmp_path)["folders"]
    assert (folder["held"], folder["waiting"]) == (4, 2)


def test_status_says_why_nothing_is_painted(daemon, tmp_path):
    daemon.answers["status"] = a_status(trouble="the Dask scheduler has no workers", lost=["disk"])
    found = overview.look(tmp_path)
    assert found["trouble"] == "the Dask scheduler has no workers"
    lines = overview.overview_text(found).splitlines()
    assert "the Dask scheduler has no workers" in lines
    assert "does not answer: disk" in lines


def test_status_says_what_photos_wait_for(daemon, tmp_path):
    daemon.answers["status"] = a_status(waits=["photos for ink wait: no weights"])
    assert "photos for ink wait: no weights" in overview.overview_text(overview.look(tmp_path))


SLOW = {"in": [{"path": "half.jpg", "why": "its end is missing", "since": 1000.0}]}


@pytest.mark.parametrize(("others", "name"), [([], "half.jpg"), ([{"folder": "b"}], "in/half.jpg")])
def test_status_says_what_has_been_arriving_for_long_and_why(daemon, tmp_path, others, name):
    folders = [HEALTH, *(HEALTH | other for other in others)]
    settling = {folder["folder"]: 1 for folder in folders}
    daemon.answers["status"] = a_status(folders=folders, settling=settling, slow=SLOW)
    found = overview.look(tmp_path)
    assert found["slow"] == [
        {"folder": "in", "photo": "half.jpg", "why": "its end is missing", "since": 1000.0}
    ]
    since = time.strftime("%d %b %H:%M", time.localtime(1000.0))  # for more than a day
    lines = overview.overview_text(found).splitlines()
    assert f"{name}: its end is missing, waiting since {since}" in lines


def test_status_says_that_the_old_config_goes_on(daemon, tmp_path):
    daemon.answers["status"] = a_status(refused="/c.yaml:3:1: foldres: unknown key")
    found = overview.look(tmp_path)
    assert found["refused"] == "/c.yaml:3:1: foldres: unknown key"
    lines = overview.overview_text(found).splitlines()
    assert "the old config goes on: /c.yaml:3:1: foldres: unknown key" in lines


def test_the_documents_name_every_field_and_every_state(daemon, state):
    daemon.answers["status"] = a_status(slow=SLOW)
    found = overview.look(state)
    file = Path(__file__).parent.parent / "docs/operating.md"
    sections = file.read_text(encoding="utf-8").split("\n## ")
    of_status, of_jobs = (
        {*re.findall(r"`([\w -]+)`", section)}
        for section in sections
        if section.startswith(("`status --json`", "`jobs --json`"))
    )
    told = [found, found["folders"][0], found["painting"][0]]
    told += found["slow"]
    assert {key for one in told for key in one} <= of_status
    assert {*listed(state, (), 1)[0], *JobState, "no job"} <= of_jobs


def test_a_state_folder_that_cannot_be_looked_into_is_one_clear_error():
    with pytest.raises(LedgerError, match="can't be read"):
        overview._read(Path("/", "x" * 300), lambda reader: reader)
