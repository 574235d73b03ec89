"""The console: what people and logs see, made from events alone."""

import fcntl
import io
import json
import math
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path

import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from stylewatch.domain import LEARNING, REFUSED, Event, Step
from stylewatch.faces import console as console_module
from stylewatch.faces.board import KEPT_LOSSES, Board, JobRow
from stylewatch.faces.console import (
    LiveConsole,
    OnItsTerminal,
    _Bars,
    _columns,
    farewell,
    open_bars,
    open_console,
)
from stylewatch.faces.lines import Lines, duration, event_dict, is_journal, size, visible
from stylewatch.faces.preview import thumbnail
from stylewatch.faces.recent import Recent
from stylewatch.faces.terminal import (
    CHATTER_BYTES,
    LEAVE,
    Screen,
    is_live,
    on_signals,
    pressed,
    stderr_for_us,
)
from stylewatch.faces.view import draw_board, draw_pictures, sparkline

HERE = Path(__file__).parent
NASTY = "a\x1b[31m[red]b[/red]\n\udcff\u202e\r.jpg"


def a_step(scale=1, evaluation=5, loss=2.0, fraction=0.5):
    return Step(
        scale=scale,
        scales=3,
        width=192,
        height=128,
        evaluation=evaluation,
        evaluations=80,
        loss=loss,
        content=1.0,
        style=1.0,
        tv=0.0,
        fraction=fraction,
        seconds=3.0,
        eta_seconds=12.0,
    )


def events():
    """A story with every kind of event, three jobs, a failure and a blocked folder."""
    yield Event(kind="started", message="3 workers", extra={"slots": 3})
    yield Event(kind="watching", message="", folder="in", path="/photos/in")
    yield Event(kind="watching", message="", folder="nas", path="/mnt/nas/" + "long/" * 30)
    for job in range(1, 8):
        yield Event(kind="queued", message="", folder="in", path=f"{job}.jpg", job_id=job)
    for job in range(1, 4):
        yield Event(
            kind="running", message="", folder="in", path=NASTY, preset="starry", job_id=job
        )
        yield Event(
            kind="progress", message="", path=NASTY, preset="starry", job_id=job, step=a_step()
        )
    yield Event(
        kind="done", message="done", folder="in", path="1.jpg", preset="starry", job_id=1,
        output="/photos/out/1--starry.jpg", seconds=9.3,
    )  # fmt: skip
    yield Event(
        kind="failed", message=f"{NASTY} is cut off. Copy it again", folder="in", path=NASTY,
        job_id=2, reason="truncated",
    )  # fmt: skip
    yield Event(kind="retry", message="the worker died", folder="in", job_id=3, reason="crash")
    yield Event(
        kind="folder", message="/mnt/nas/in can not be read. Mount it again", folder="nas",
        reason="unreadable",
    )  # fmt: skip
    yield Event(kind="reload", message="1 preset changed")
    yield Event(kind="warning", message="polling")
    yield Event(kind="paused", message="paused")
    yield Event(kind="resumed", message="going on")
    yield Event(kind="stopping", message="finishing")


def a_board(now=1000.0):
    board = Board()
    for event in events():
        board.apply(event, now)
    return board


def folder_event(**extra):
    """What the daemon tells of a folder as a whole."""
    return Event(
        kind="folder", message="", folder="in", path="/photos/in", reason="watching",
        extra={"waiting": 0, "scanned": True} | extra,
    )  # fmt: skip


def failure(number, path):
    message = f"{path}: bad. Do this"
    return {"id": number, "at": 1.0, "path": path, "reason": "not-an-image", "message": message}


def result(number, **more):
    return {
        "id": number, "at": 2.0, "path": f"{number}.jpg", "preset": "ink", "seconds": 3.0,
        "source": f"/photos/in/{number}.jpg", "output": f"/out/{number}.jpg", "note": "", "new": 1,
    } | more  # fmt: skip


def text_of(board, width=80, height=24, now=1010.0, pictures=()):
    return "\n".join(line.plain for line in draw_board(board, width, height, now, pictures))


class TestVisible:
    def test_nothing_that_a_terminal_obeys_gets_through(self):
        assert visible(NASTY) == r"a\x1b[31m[red]b[/red]\n\xff\u202e\r.jpg"

    def test_names_in_any_language_stay_as_they_are(self):
        names = "café.jpg", "写真 1.jpg", "Bildschirmfoto\u202f10.png", "🎨.png"
        for name in (*names, "👨\u200d👩\u200d👧.jpg", "می\u200cخواهم.jpg"):
            assert visible(name) == name

    @given(st.text() | st.binary().map(os.fsdecode))
    def test_any_name_becomes_one_printable_line_of_valid_unicode(self, name):
        shown = visible(name)
        assert shown.encode("utf-8").decode() == shown
        assert len(shown.splitlines()) <= 1
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e]", shown)

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(-1, "0 s"), (8.4, "8 s"), (187, "3:07"), (7500, "2:05:00"), (71 * 3600, "3 days")],
    )
    def test_durations_are_short(self, seconds, text):
        assert duration(seconds) == text

    @pytest.mark.parametrize(
        ("count", "text"),
        [(640e6, "640 MB"), (999.4e6, "999 MB"), (999.5e6, "1.0 GB"), (2_130_000_000, "2.1 GB")],
    )
    def test_sizes_are_short(self, count, text):
        assert size(count) == text


class TestLines:
    def written(self, some_events, **options):
        stream = io.StringIO()
        sink = Lines(stream, clock=lambda: 0.5, **options)
        for event in some_events:
            sink(event)
        return stream.getvalue().splitlines()

    def test_one_safe_line_for_each_event(self):
        told = [event for event in events() if event.kind != "progress" and event.message]
        lines = self.written(told)
        assert len(lines) == len(told)
        assert not any("\x1b" in line for line in lines)
        assert lines[-1].endswith("stopping finishing")

    def test_progress_is_told_once_per_scale_and_every_half_minute(self):
        now = 0.0
        stream = io.StringIO()
        sink = Lines(stream, clock=lambda: now)
        for number in range(140):
            now += 1.0
            sink(Event(kind="progress", message="", path="a.jpg", preset="ink", job_id=1,
                       step=a_step(scale=1 + number // 70, evaluation=number % 70 + 1)))  # fmt: skip
        lines = stream.getvalue().splitlines()
        assert len(lines) == 6
        assert "a.jpg → ink: scale 1/3, 192x128, evaluation 1/80, loss 2" in lines[0]
        assert "evaluation 31/80, loss 2, 12 s left" in lines[1]

    def test_json_lines_are_valid_for_strict_readers_and_hold_every_field(self):
        lines = self.written(events(), log_format="json")
        read = [json.loads(line) for line in lines]
        assert all(line.isascii() and "\\ud" not in line for line in lines)
        done = next(entry for entry in read if entry["event"] == "done")
        assert done["time"] == "1970-01-01T00:00:00.500+00:00"
        assert done["output"] == "/photos/out/1--starry.jpg"
        assert done["level"] == "info"
        failed = next(entry for entry in read if entry["event"] == "failed")
        assert (failed["level"], failed["reason"]) == ("error", "truncated")
        assert "\\xff" in failed["path"]

    def test_json_is_the_same_in_a_locale_without_the_signs(self):
        ask = "from stylewatch.faces.lines import jsonable; import os; "
        ask += r"print(ascii(jsonable('\u2192 ' + os.fsdecode(b'\xc3\xa4'))))"
        for old in ({}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
            command = [sys.executable, "-c", ask]
            told = subprocess.check_output(command, env=os.environ | old, text=True)
            assert told == r"'\u2192 \xe4'" + "\n"

    def test_the_journal_gets_levels_and_no_times(self):
        lines = self.written(events(), journal=True)
        assert next(line for line in lines if "failed" in line).startswith("<3>failed")
        assert next(line for line in lines if "died" in line).startswith("<4>waiting")
        assert next(line for line in lines if "done" in line).startswith("<6>done")

    def test_where_photos_stand_is_told_in_the_words_of_status(self):
        kinds = ("queued", "running", "retry", "blocked", "done", "failed")
        told = [Event(kind=kind, message="m", job_id=1) for kind in kinds]
        told += [Event(kind="warning", message="m", reason="cancelled"),
                 Event(kind="retry", message="m", reason="vanished"),
                 Event(kind="retry", message="m", reason="changed"),
                 Event(kind="blocked", message="/out is full")]  # fmt: skip
        assert [line.split()[1] for line in self.written(told)] == [
            *("waiting", "painting", "waiting", "waiting", "done", "failed"),
            *("held", "gone", "replaced", "blocked"),
        ]

    def test_old_events_have_their_own_time_and_each_day_its_date(self):
        """`console` is told what happened before it came."""
        stream, noon = io.StringIO(), time.mktime((2026, 5, 5, 12, 0, 0, 0, 0, -1))
        sink = Lines(stream, clock=lambda: noon)
        for at in (noon - 86_400.0, noon - 3600.0, noon):
            sink(Event(kind="done", message="a.jpg", extra={"at": at}))
        assert stream.getvalue().splitlines() == [
            "04 May 12:00:00 done     a.jpg", "05 May 11:00:00 done     a.jpg",
            "12:00:00 done     a.jpg",
        ]  # fmt: skip
        told = Event(kind="done", message="a.jpg", extra={"at": 0.25})
        [line] = self.written([told], log_format="json")
        assert json.loads(line)["time"] == "1970-01-01T00:00:00.250+00:00"

    def test_where_there_are_several_folders_a_photo_s_is_named(self):
        told = [Event(kind="failed", message="a.jpg: bad", folder="in", path="a.jpg"),
                Event(kind="folder", message="", extra={"slots": 2}),
                Event(kind="retry", message="a.jpg: why", folder="in", path="a.jpg"),
                Event(kind="watching", message="/mnt/nas → /out", folder="nas", path="/mnt/nas"),
                Event(kind="failed", message="a.jpg: bad", folder="in", path="a.jpg"),
                Event(kind="progress", message="", folder="in", path="a.jpg", step=a_step()),
                Event(kind="done", message="/out/a.jpg in 2 s", folder="in", path="a.jpg"),
                Event(kind="folder", message="gone", folder="nas", reason="left"),
                Event(kind="failed", message="a.jpg: bad", folder="in", path="a.jpg")]  # fmt: skip
        assert [line.split()[2] for line in self.written(told)] == [
            "a.jpg:", "a.jpg:", "/mnt/nas", "in/a.jpg:", "in/a.jpg", "/out/a.jpg", "gone", "a.jpg:",
        ]  # fmt: skip

    def test_a_folder_s_trouble_is_told_once_however_often_its_counts_change(self):
        told = [replace(folder_event(waiting=number), message=message)
                for number, message in enumerate(("", "away", "away", "", "", "away"))]  # fmt: skip
        assert [line.split(maxsplit=2)[2] for line in self.written(told)] == [
            "away", "/photos/in: watching again", "away",
        ]  # fmt: skip

    @pytest.mark.parametrize(("state", "mark"), [("missing", "<4>"), ("scanning", "<6>")])
    def test_a_folder_that_can_t_be_worked_on_is_a_warning(self, state, mark):
        told = replace(folder_event(), message="why", reason=state)
        assert self.written([told], journal=True)[0].startswith(mark)

    def test_a_closed_stream_does_not_stop_the_work(self):
        stream = io.StringIO()
        stream.close()
        Lines(stream)(Event(kind="done", message="x"))

    def test_the_journal_is_known_by_device_and_inode(self, tmp_path):
        with (tmp_path / "log").open("w") as stream:
            stat = os.fstat(stream.fileno())
            assert is_journal(stream, {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"})
            assert not is_journal(stream, {"JOURNAL_STREAM": "1:2"})
            assert not is_journal(stream, {})
        assert not is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})

    @given(st.builds(Event, kind=st.just("done"), message=st.text(), path=st.text(),
                     extra=st.dictionaries(st.text(), st.binary() | st.none() | st.floats())))  # fmt: skip
    def test_any_event_can_be_told_to_programs(self, event):
        json.dumps(event_dict(event)).encode("ascii")


class TestBoard:
    def test_counts_follow_the_events(self):
        board = a_board()
        assert (board.waiting, board.done, len(board.failed)) == (7 - 3 + 1, 1, 1)
        assert list(board.jobs) == []
        assert board.folders["in"].failed == 1
        assert board.folders["nas"].state == "unreadable"
        assert board.stopping
        assert not board.paused

    def test_a_folder_that_recovers_takes_its_problem_off_the_board(self):
        board = a_board()
        assert any(row.folder == "nas" for row in board.problems)
        board.apply(Event(kind="folder", message="back", folder="nas"), 1.0)
        assert not any(row.folder == "nas" for row in board.problems)
        assert board.folders["nas"].state == "watching"

    def test_a_folder_that_was_left_does_not_come_back_with_its_last_job(self):
        board = a_board()
        board.apply(Event(kind="folder", message="", folder="in", reason="left"), 1.0)
        for kind in ("done", "failed", "retry"):
            board.apply(Event(kind=kind, message="x", folder="in", path="a.jpg", job_id=1), 2.0)
        assert "in" not in board.folders

    def test_an_output_that_has_space_again_takes_its_problem_alone_off_the_board(self):
        board = Board()
        troubles = [("disk-full", "/out"), ("disk-full", "/other"), ("ledger", "")]
        for reason, output in troubles:
            board.apply(Event(kind="blocked", message=output, reason=reason, output=output), 1.0)
        for reason, output in troubles:
            row = board.problems[-1]
            assert (row.reason, row.output) == (reason, output)
            over = Event(kind="recovered", message="over", reason=reason, output=output)
            board.apply(over, 2.0)
        assert not board.problems

    def test_a_folder_whose_output_is_full_is_told_once(self):
        board = Board()
        board.apply(Event(kind="blocked", message="/out: only 3 MB free"), 1.0)
        board.apply(Event(kind="folder", message="/out is full", reason="blocked", folder="in"), 1)
        assert (board.folders["in"].state, board.folders["in"].note) == ("blocked", "/out is full")
        assert [row.message for row in board.problems] == ["/out: only 3 MB free"]

    def test_what_the_ledger_knows_fills_the_lists_and_the_counts(self):
        board = Board()
        told = [failure(4, "bad.jpg")]
        board.apply(folder_event(done=9, failed=1, held=2, results=[result(1)], failures=told), 1.0)
        assert [row.source for row in board.results] == ["/photos/in/1.jpg"]
        assert [row.message for row in board.problems] == ["bad.jpg: bad. Do this"]
        assert [board.total(name) for name in ("done", "failed", "held")] == [9, 1, 2]
        assert (board.done, board.failed) == (0, [])  # none of it in this session
        board.apply(folder_event(done=10, failures=[], results=[result(1), result(4)]), 2.0)
        assert not board.problems
        assert len(board.results) == 2

    @pytest.mark.parametrize("kind", ["queued", "running", "done"])
    def test_a_problem_that_is_solved_is_none(self, kind):
        board = Board()
        photo = {"folder": "in", "path": "a.jpg"}
        board.apply(Event(kind="failed", message="bad", job_id=4, **photo), 1.0)
        board.apply(Event(kind="failed", message="empty", folder="in", path="b.jpg"), 1.0)
        assert len(board.failed) == len(board.problems) == 2
        number = {} if kind == "queued" else {"job_id": 4}
        board.apply(Event(kind=kind, message="", **photo, **number), 2.0)
        assert [row.path for row in board.problems] == ["b.jpg"]
        assert [row.path for row in board.failed] == ["b.jpg"]

    def test_what_is_cancelled_is_held_and_no_failure(self):
        board = Board()
        photo = {"folder": "in", "path": "a.jpg", "job_id": 4}
        board.apply(Event(kind="running", message="", **photo), 1.0)
        board.apply(Event(kind="warning", message="", reason="cancelled", **photo), 1.0)
        assert (list(board.jobs), board.failed, list(board.problems)) == ([], [], [])
        assert board.folders["in"].held == 1
        assert farewell(board) == ["stylewatch: 0 done\n"]

    @pytest.mark.parametrize("reason", ["vanished", "changed"])
    def test_what_is_taken_away_or_replaced_is_no_problem(self, reason):
        board = Board()
        photo = {"folder": "in", "path": "a.jpg", "job_id": 4}
        board.apply(Event(kind="queued", message="", **photo), 1.0)
        board.apply(Event(kind="running", message="", **photo), 1.0)
        board.apply(Event(kind="retry", message="", reason=reason, **photo), 1.0)
        assert (list(board.jobs), board.waiting, list(board.problems)) == ([], 0, [])
        board.apply(Event(kind="failed", message="", reason="changed", **photo), 1.0)
        assert [row.kind for row in board.problems] == ["failed"], "as apply tells of one"

    def test_a_config_that_was_mended_is_no_problem_any_more(self):
        board = Board()
        board.apply(Event(kind="warning", message="the old config goes on", reason=REFUSED), 1.0)
        board.apply(Event(kind="warning", message="dead", reason="dead"), 1.0)
        board.apply(Event(kind="reload", message="config read again"), 2.0)
        assert [row.message for row in board.problems] == ["dead"]

    def test_workers_that_are_back_are_no_problem_any_more(self):
        board = Board()
        board.apply(Event(kind="warning", message="no workers", reason="engine-lost"), 1.0)
        board.apply(Event(kind="recovered", message="workers", reason="engine-lost"), 2.0)
        assert not board.problems

    def test_a_trouble_that_has_become_another_is_told_once(self):
        """As when the cluster has no free worker, then no scheduler, and then no worker at all."""
        board, recent = Board(), Recent()
        for reason, message in [
            (LEARNING, "a new ledger: 3 results read so far"),
            (LEARNING, "a new ledger: 4 results found"),
            ("dead", "the scans: dead"),
            ("dead", "the workers: dead"),
            ("preset", "photos for ink wait: no ink.png"),
            ("preset", "photos for oil wait: no oil.png"),
            ("preset", "photos for ink wait: no ink.png"),  # all begins anew with the ledger
            ("preset", "photos for oil wait: no oil.png"),
            ("", "the ledger was damaged"),
            (REFUSED, "the old config goes on: x"),
            ("engine-lost", "no scheduler answers"),
            (REFUSED, "the old config goes on: y"),
            ("engine-lost", "the scheduler has no workers"),
        ]:
            event = Event(kind="warning", reason=reason, message=message)
            board.apply(event, 1.0)
            recent.note(event, 1.0)
        job = {"folder": "in", "path": "a.jpg", "job_id": 7}
        board.apply(Event(kind="warning", reason="engine-lost", message="a.jpg", **job), 2.0)
        board.apply(Event(kind="running", message="", **job), 3.0)
        told = [row.message for row in reversed(board.problems)]
        assert told == [event.message for event in recent.replay()]
        assert told == [
            "a new ledger: 4 results found", "the scans: dead", "the workers: dead",
            "photos for ink wait: no ink.png", "photos for oil wait: no oil.png",
            "the ledger was damaged", "the old config goes on: y", "the scheduler has no workers",
        ]  # fmt: skip

    def test_no_number_of_failures_pushes_a_trouble_away_that_still_holds(self):
        board = Board()
        lost = Event(kind="warning", message="no workers", reason="engine-lost")
        board.apply(lost, 1.0)
        for number in range(50):
            about = {"folder": "in", "path": f"{number}.jpg", "job_id": number + 1}
            board.apply(Event(kind="failed", message=f"{number}.jpg: bad", **about), 2.0)
        assert "warning: no workers" in text_of(board)
        told = [failure(number + 1, f"{number}.jpg") | {"at": 3.0} for number in range(50)]
        board.apply(folder_event(failed=50, failures=told), 4.0)
        assert "warning: no workers" in text_of(board)
        assert [row.message for row in board.problems].count("no workers") == 1
        board.apply(replace(lost, kind="recovered"), 5.0)
        assert "no workers" not in text_of(board)

    def test_failures_stand_before_what_a_new_ledger_has_learned(self):
        board = Board()
        board.apply(Event(kind="warning", message="9 results found", reason=LEARNING), 1.0)
        board.apply(Event(kind="failed", message="bad", folder="in", path="a.jpg"), 2.0)
        assert [row.message for row in board.problems] == ["bad", "9 results found"]

    def test_a_folder_that_left_the_config_leaves_the_board(self):
        board = a_board()
        board.apply(Event(kind="folder", message="", folder="in", reason="left"), 2.0)
        assert list(board.folders) == ["nas"]
        assert not any(row.folder == "in" for row in board.problems)

    def test_the_last_words_are_of_this_session_and_name_what_failed(self):
        board = Board()
        board.apply(Event(kind="started", message=""), 1000.0)
        since = time.strftime("%H:%M", time.localtime(1000.0))
        board.apply(folder_event(done=400, failed=3, failures=[failure(1, "old.jpg")]), 1000.0)
        for job, kind in ((7, "failed"), (8, "failed"), (8, "running"), (8, "done")):
            photo = {"folder": "in", "path": f"{job}.jpg", "job_id": job}
            board.apply(Event(kind=kind, message=f"{job}.jpg: {kind}", **photo), 1001.0)
        board.apply(folder_event(done=401, failed=4, arriving=2, waiting=1), 1002.0)
        assert farewell(board) == [
            "failed: 7.jpg: failed\n",
            f"stylewatch: 1 done, 1 failed since {since}, 3 left for the next start\n",
        ]

    def test_the_last_words_say_how_many_failures_they_do_not_name(self):
        board = Board()
        for job in range(7):
            photo = {"folder": "in", "path": f"{job}.jpg", "job_id": job}
            board.apply(Event(kind="failed", message=f"{job}.jpg: why", **photo), 1.0 + job)
        told = farewell(board)
        assert told[4:6] == ["failed: 6.jpg: why\n", "2 more: `stylewatch jobs --failed`\n"]

    def test_old_events_fill_the_lists_but_not_the_counts(self):
        board = Board()
        board.apply(Event(kind="done", message="", output="/out/a.jpg", extra={"at": 5.0}), 100.0)
        assert [row.at for row in board.results] == [5.0]
        assert board.done == 0

    def test_the_daemons_own_count_beats_ours(self):
        board = a_board()
        board.apply(Event(kind="queued", message="", folder="in", extra={"waiting": 400}), 1.0)
        assert board.waiting == 400

    def test_the_end_of_the_queue_is_beyond_the_hours_in_which_photos_are_not_begun(self):
        board, noon = Board(), time.mktime((2026, 6, 15, 12, 0, 0, 0, 0, -1))
        board.apply(Event(kind="done", message="", folder="in", seconds=3600.0), noon)
        board.apply(Event(kind="queued", message="", folder="in", extra={"waiting": 6}), noon)
        assert board.queue_seconds(noon) == 6 * 3600
        hours = [[720, 790], [1320, 420]]  # 12:00-13:10, 22:00-07:00
        board.apply(Event(kind="folder", message="", extra={"slots": 1, "hours": hours}), noon)
        assert board.queue_seconds(noon) == 14 * 3600 + 50 * 60

    def test_attaching_in_the_middle_of_a_job_shows_it(self):
        board = Board()
        board.apply(
            Event(kind="progress", message="", path="a.jpg", preset="ink", job_id=5, step=a_step()),
            100.0,
        )
        assert [row.path for row in board.running()] == ["a.jpg"]
        assert board.jobs[5].since == 97.0

    def test_the_pace_and_the_end_of_the_queue_come_from_what_was_done(self):
        board = Board()
        assert board.queue_seconds(0.0) == 0.0
        for number in range(20):
            board.apply(Event(kind="queued", message="", folder="in", job_id=number), 0.0)
        assert board.queue_seconds(0.0) == 0.0
        for number in range(10):
            board.apply(Event(kind="running", message="", folder="in", job_id=number), 0.0)
            board.apply(
                Event(kind="done", message="", folder="in", job_id=number, seconds=10.0),
                10.0 * number,
            )
        assert board.per_hour == pytest.approx(360.0)
        assert board.queue_seconds(100.0) == pytest.approx(100.0)
        board.slots = 2  # two at once, and they may well end together
        assert board.per_hour == pytest.approx(720.0)
        assert board.queue_seconds(100.0) == pytest.approx(50.0)
        assert "queue empty in 50 s" in text_of(board, now=100.0)
        board.apply(Event(kind="paused", message=""), 100.0)
        assert "queue empty" not in text_of(board, now=100.0)
        board.apply(Event(kind="resumed", message=""), 100.0)
        assert "queue empty in 50 s" in text_of(board, now=100.0)
        lost = Event(kind="warning", message="no workers", reason="engine-lost")
        board.apply(lost, 100.0)
        assert "queue empty" not in text_of(board, now=100.0)
        board.apply(replace(lost, kind="recovered"), 100.0)
        assert "queue empty in 50 s" in text_of(board, now=100.0)
        full = Event(kind="folder", message="/out is full", folder="in", reason="blocked")
        board.apply(full, 100.0)
        assert "queue empty" not in text_of(board, now=100.0)

    def test_the_slow_first_evaluations_say_nothing_of_the_end_of_the_queue(self):
        board = Board()
        ends = []
        for number, left in ((1, 0.0), (3, 0.0), (4, 12.0)):
            step = replace(a_step(1, number), eta_seconds=left)  # 0: it can't be told yet
            for event in (
                Event(kind="progress", message="", job_id=1, step=step),
                folder_event(waiting=2),
            ):
                board.apply(event, 3.0)
            ends.append(board.queue_seconds(3.0))
        assert ends == [0.0, 0.0, 3 * 12.0 + 2 * 3.0]

    def test_the_end_of_the_queue_goes_by_what_the_daemon_knows_of_what_waits(self):
        board = Board()
        done = Event(kind="done", message="", folder="in", seconds=10.0)
        for event in (done, folder_event(waiting=2, work=300.0)):
            board.apply(event, 0.0)
        assert board.queue_seconds(0.0) == 300.0
        board.apply(folder_event(waiting=2, work=None), 0.0)  # their preset's image is away
        assert board.queue_seconds(0.0) == 0.0

    def test_the_header_does_not_praise_a_config_that_was_refused_since(self):
        board = Board()
        for event in (
            Event(kind="reload", message="config read again: 1 folder"),
            Event(kind="warning", message="state_dir: in effect from the next start"),
            Event(kind="warning", message="the workers: dead", reason="dead"),
        ):
            board.apply(event, 1.0)
        assert "config read again" in text_of(board).splitlines()[0]
        refused = Event(kind="warning", message="the old config goes on: x", reason=REFUSED)
        board.apply(refused, 2.0)
        board.apply(Event(kind="failed", message="a.jpg", path="a.jpg", reason="crash"), 3.0)
        assert "the old config goes on: x" in text_of(board).splitlines()[0]

    def test_thousands_of_failures_are_folded_in_no_time(self, pace):
        board, started = Board(), time.process_time()
        for number in range(5000):
            about = {"folder": "in", "path": f"{number}.jpg", "job_id": number}
            board.apply(Event(kind="failed", message="no image", **about), 1.0)
        board.apply(Event(kind="queued", message="", folder="in", path="7.jpg"), 2.0)
        assert len(board.failed) == 4999
        assert time.process_time() - started < 5.0 * pace

    def test_memory_stays_small_over_any_number_of_events(self):
        board = Board()
        for number in range(2000):
            for event in events():
                board.apply(event, float(number))
        assert len(board.results) + len(board.problems) < 100
        for number in range(100):  # what failed once, and was painted then
            about = {"folder": "in", "path": f"{number}.jpg", "job_id": 100 + number}
            board.apply(Event(kind="failed", message="no image", **about), 1.0)
            board.apply(Event(kind="done", message="", **about), 2.0)
        assert not [path for _, path in board._failed if path.removesuffix(".jpg").isdigit()]
        row = JobRow(1, "a", "b", 0.0)
        for number in range(10_000):
            row.note_loss(float(number))
            row.note_loss(float("nan"))  # of a step that was too long: no curve can show it
        assert len(row.losses) < KEPT_LOSSES
        assert row.losses[0] == 0.0
        assert row.losses[-1] == 9999.0


class TestView:
    @pytest.mark.parametrize(
        "size", [(80, 24), (200, 60), (20, 6), (40, 10), (139, 24), (140, 20), (20, 1)]
    )
    def test_every_size_is_filled_exactly(self, size):
        width, height = size
        lines = draw_board(a_board(), width, height, 1010.0)
        assert len(lines) == height
        assert all(line.cell_len <= width for line in lines)

    def test_it_says_what_is_watched_done_and_wrong_and_what_to_do(self):
        text = " ".join(text_of(a_board()).split())
        for words in ("/photos/in", "5 waiting", "1 done", "1 failed", "unreadable", "1--starry.jpg",
                      "Mount it again", "Copy it again", "stopping", "9 s", "#2 failed"):  # fmt: skip
            assert words in text, words

    def test_work_shows_scale_evaluation_loss_and_time_left(self):
        board = Board()
        board.apply(Event(kind="running", message="", path="a.jpg", preset="ink", job_id=1), 1.0)
        assert "getting ready" in text_of(board)
        for number in range(1, 30):
            board.apply(
                Event(kind="progress", message="", job_id=1, step=a_step(2, number, 3.0 / number)),
                1.0,
            )
        text = text_of(board)
        for words in ("a.jpg → ink", "50%", "scale 2/3", "29/80", "loss 0.103", "12 s left", "█"):
            assert words in text, words
        assert "192x128" in text_of(board, 100, 30)
        assert "loss 0.103\n" in text_of(board, 60, 24)  # whole, as there is room for it

    def test_names_can_neither_style_nor_steer_the_terminal(self):
        for width, height in ((80, 24), (200, 60)):
            text = text_of(a_board(), width, height)
            assert "\x1b" not in text
            assert r"\x1b[31m[red]b[/red]" in text

    def test_files_on_their_way_are_counted_and_named_when_they_take_long(self):
        board = Board()
        since = 1000.0
        board.apply(folder_event(arriving=2, slow=[("half.jpg", "its end is missing", since)]), 1.0)
        text = text_of(board)
        when = time.strftime("%H:%M", time.localtime(since))
        assert f"half.jpg: its end is missing, waiting since {when}" in text
        day = time.strftime("%d %b", time.localtime(since))
        assert f"waiting since {day} {when}" in text_of(board, now=1e9)
        assert "2 arriving" in text.splitlines()[0]
        board.apply(folder_event(arriving=0, slow=[]), 1.0)
        assert "arriving" not in text_of(board)

    def test_a_folder_s_trouble_is_as_old_as_it_is_whatever_else_changes(self):
        board, since = Board(), 1000.0
        for waiting in (1, 2):
            away = folder_event(waiting=waiting, since=since)
            board.apply(replace(away, message="so it is", reason="missing"), 5000.0)
        assert [row.at for row in board.problems] == [since]

    def test_a_watched_folder_of_which_a_part_can_t_be_read_says_so(self):
        board = Board()
        text = "1 folder can't be read, such as private: Permission denied"
        board.apply(replace(folder_event(), message=text), 1.0)
        assert text[:30] in text_of(board).partition("Painting")[0]
        problems = " ".join(text_of(board).partition("Problems")[2].split())
        assert f"warning: {text}" in problems
        board.apply(folder_event(), 2.0)
        assert "private" not in text_of(board)

    def test_what_waits_next_is_listed_where_there_is_room(self):
        board = Board()
        names = [(f"{number}.jpg", "ink") for number in range(20)]
        board.apply(folder_event(waiting=60, next=names), 1.0)
        text = text_of(board, 200, 60)
        assert "── Next" in text
        assert "19.jpg → ink" in text
        assert "… 40 more" in text
        assert "── Next" not in text_of(board)
        board.apply(folder_event(waiting=60, next=names), 1.0)
        assert "more" in text_of(board, 200, 20)

    def test_what_paints_instead_of_vgg19_is_said_once(self):
        board = Board()
        note = "built-in features: VGG19 could not be downloaded"
        told = [result(number, note=note) for number in range(3)]
        told[0]["note"] += "; time budget spent"
        board.apply(folder_event(done=3, results=told), 1.0)
        text = text_of(board, 120, 30)
        assert text.count(note) == 1
        assert text.count("time budget spent") == 1
        assert text.count(time.strftime("%H:%M:%S", time.localtime(2.0))) == 3
        board.apply(folder_event(done=4, results=[result(3, seconds=0.0, note="copied")]), 2.0)
        assert text_of(board, 120, 30).count(note) == 1  # the latest says nothing of it

    def test_while_it_stops_no_keys_are_offered_that_do_nothing(self):
        board = Board()
        board.apply(Event(kind="stopping", message="finishing in 5 s"), 1.0)
        last = text_of(board).splitlines()[-1]
        assert last.strip() == "finishing in 5 s"

    def test_another_day_s_times_are_days(self):
        board = Board()
        board.apply(folder_event(results=[result(1, at=0.0)]), 1.0)
        assert time.strftime("%d %b", time.localtime(0.0)) in text_of(board, now=1e9)

    def test_where_there_are_several_folders_a_problem_s_is_named(self):
        board = Board()
        board.apply(folder_event(failed=1, failures=[failure(1, "a.jpg")]), 1.0)
        assert "failed: a.jpg: bad" in text_of(board)
        board.apply(Event(kind="watching", message="", folder="nas", path="/mnt/nas"), 1.0)
        assert "failed: in/a.jpg: bad" in text_of(board)

    def test_results_are_links(self):
        board = a_board()
        board.apply(
            Event(kind="done", message="", job_id=9, output="/out/a b\udcff.jpg", seconds=1), 1.0
        )
        styles = [span.style for line in draw_board(board, 80, 24, 2.0) for span in line.spans]
        links = [style.link for style in styles if getattr(style, "link", None)]
        assert "file:///out/a%20b%FF.jpg" in links

    def test_an_idle_view_says_what_to_do(self):
        board = Board()
        board.apply(Event(kind="watching", message="", folder="in", path="/photos/in"), 1.0)
        assert "looking through the folder…" in text_of(board)
        board.apply(folder_event(arriving=2, scanned=True), 1.0)
        assert "2 arriving: painted when they are whole" in text_of(board)
        board.apply(folder_event(arriving=0, scanned=True), 1.0)
        assert "nothing to paint: drop a photo into /photos/in" in text_of(board)
        board.apply(folder_event(arriving=0, held=2, scanned=True), 1.0)
        assert "nothing to paint; 2 held: stylewatch jobs --held" in text_of(board)

    def test_many_folders_do_not_push_the_rest_away(self):
        board = a_board()
        for number in range(50):
            board.apply(Event(kind="watching", message="", folder=f"f{number}", path="/x"), 1.0)
        text = text_of(board)
        assert "more lines" in text
        assert "── Done" in text

    @pytest.mark.parametrize(("size", "number"), [((80, 24), 12), ((200, 60), 31), ((60, 15), 5)])
    def test_folders_have_what_nothing_else_needs(self, size, number):
        board = Board()
        for n in range(number):
            board.apply(Event(kind="watching", message="", folder=f"f{n}", path=f"/x/{n}"), 1.0)
        text = text_of(board, *size)
        assert all(f"/x/{n}" in text for n in range(number))
        assert "more lines" not in text

    @pytest.mark.parametrize("size", [(80, 24), (200, 24), (40, 15)])
    def test_a_folder_that_is_not_well_is_not_cut_off(self, size):
        board = Board()
        for n in range(50):
            board.apply(Event(kind="watching", message="", folder=f"f{n}", path="/x"), 1.0)
        gone = Event(kind="folder", message="/x is away", folder="f49", reason="missing")
        board.apply(gone, 1.0)
        assert "▲ f49" in text_of(board, *size)

    def test_a_scanned_folder_is_well_and_paused_as_any_other(self):
        board = Board()
        for n, state in enumerate(("scanning", "watching", "missing")):
            board.apply(Event(kind="watching", message="", folder=f"f{n}", path="/x"), 1.0)
            board.apply(Event(kind="folder", message="so it is", folder=f"f{n}", reason=state), 1.0)
        board.apply(Event(kind="paused", message="", extra={"why": "until 22:00"}), 1.0)
        board.title = "1.2"
        text = text_of(board)
        assert text.startswith("stylewatch 1.2 paused until 22:00")
        assert "\n  paused until 22:00" in text
        assert not re.search("arriving|failed|held", text)  # none is
        shown = [line.split()[1:3] for line in text.splitlines() if " f" in line[:6]]
        assert shown == [["f2", "missing"], ["f0", "paused"], ["f1", "paused"]]

    def test_a_message_that_is_too_long_ends_in_one_ellipsis(self):
        board = Board()
        long = "x" * 70
        board.apply(Event(kind="warning", message=" ".join([*"abcd", *[long] * 5])), 1.0)
        problems = text_of(board).partition("── Problems")[2]
        assert (problems.count(long), problems.count("…")) == (3, 1)

    def test_jobs_that_are_cut_off_are_counted(self):
        board = Board()
        for n in range(20):
            board.apply(Event(kind="running", message="", path=f"{n}.jpg", job_id=n), 1.0)
        assert "… 35 more lines" in text_of(board)

    def test_without_any_worker_it_says_why_nothing_is_painted(self):
        board = Board()
        board.apply(folder_event(waiting=3, slots=0), 1.0)
        assert "nothing is painted right now" in text_of(board)

    def test_pictures_appear_in_half_blocks_where_there_is_room(self):
        picture = [[(255, 0, 0)] * 10 for _ in range(9)]
        lines = draw_pictures(picture, picture)
        assert len(lines) == 5
        assert "▀" * 10 in text_of(a_board(), 200, 60, pictures=lines)
        assert "▀" not in text_of(a_board(), 80, 24, pictures=lines)
        assert "▀" not in text_of(a_board(), 200, 12, pictures=lines)
        assert draw_pictures((), ()) == []
        assert len(draw_pictures(picture, [*picture, *picture])) == 9  # one is the higher

    @pytest.mark.parametrize("name", ["a.heic", "a.jpg"])
    def test_a_heic_is_shown_under_any_name(self, tmp_path, name):
        """In a process that has not read one before, as the daemon's."""
        file = tmp_path / name
        pillow_heif.from_pillow(Image.new("RGB", (64, 48), "red")).save(file)
        code = (
            "import json, pathlib, sys\n"
            "from stylewatch.faces.preview import thumbnail\n"
            "print(json.dumps(thumbnail(pathlib.Path(sys.argv[1]), 8, 8)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, file], capture_output=True, text=True, check=True
        )
        rows = json.loads(done.stdout)
        assert (len(rows), len(rows[0])) == (6, 8)
        red, green, blue = rows[3][4]
        assert red > 240 > 15 > max(green, blue)

    @pytest.mark.parametrize("kind", ["ppm", "link", "pipe"])
    def test_what_no_worker_would_open_is_not_shown_whatever_its_name(self, tmp_path, kind):
        """A PPM, or what Pillow reads by other programs; a pipe would be waited for."""
        file, other = tmp_path / "a.jpg", tmp_path / "b.jpg"
        Image.new("RGB", (64, 48)).save(other)
        assert len(thumbnail(other, 8, 8)) == 6
        if kind == "ppm":
            Image.new("RGB", (64, 48)).save(file, format="PPM")
        elif kind == "link":
            file.symlink_to(other)
        else:
            os.mkfifo(file)
        with pytest.raises(OSError):
            thumbnail(file, 8, 8)

    def test_keys_are_named_only_where_they_are_heard(self):
        board = Board()
        shown, unheard = (draw_board(board, 80, 24, 1.0, keys=keys)[-1] for keys in (True, False))
        assert "q quit  p pause" in shown.plain
        assert unheard.plain.strip() == "Ctrl-C quit"
        board.attached = True  # the daemon goes on, and p is for that
        assert "q leave  p pause" in draw_board(board, 80, 24, 1.0)[-1].plain

    @pytest.mark.parametrize(
        ("seconds", "pace"), [(12000.0, "0.3"), (1000.0, "3.6"), (361.0, "10"), (40.0, "90")]
    )
    def test_a_pace_is_never_rounded_to_none(self, seconds, pace):
        board = Board()
        board.apply(Event(kind="started", message="watching 1 folder"), 1.0)
        board.apply(Event(kind="done", message="", output="/out/a.jpg", seconds=seconds), 1.0)
        assert draw_board(board, 80, 24, 1.0)[-1].plain.endswith(f" {pace} photos/h")

    @pytest.mark.parametrize(
        ("width", "first", "last"),
        [
            (20, "2 arriving · 47 wai…", ""),
            (40, "2 arriving · 47 waiting · 1 done · 3 fa…", "queue empty in 31:20"),
            (
                60,
                "2 arriving · 47 waiting · 1 done · 3 failed · 4 held",
                "90 photos/h · queue empty in 31:20",
            ),
        ],
    )
    def test_where_little_fits_counts_and_keys_come_first(self, width, first, last):
        board = Board()
        board.apply(Event(kind="started", message="watching 30 folders"), 1.0)
        board.apply(Event(kind="done", message="", output="/out/a.jpg", seconds=40.0), 1.0)
        board.apply(folder_event(arriving=2, waiting=47, done=1, failed=3, held=4), 1.0)
        header, *_, footer = draw_board(board, width, 8, 10.0)
        assert (header.plain.endswith(first), header.cell_len) == (True, width)
        assert footer.plain.removeprefix("q quit  p pause").strip() == last

    @given(st.lists(st.floats(0, 1e12), max_size=200), st.integers(2, 40))
    def test_sparklines_fit(self, values, width):
        assert cell_len(sparkline(values, width)) <= width

    def test_a_falling_loss_falls(self):
        assert sparkline([1000.0, 100.0, 10.0, 1.0], 10) == "█▆▃▁"


LIVE = """
import os, sys, time
from stylewatch.faces.console import open_bars, open_console
from test_console import events
quits = []
with open_console(on_quit=lambda: quits.append(1), chatter=sys.argv[1]) as console:
    for event in events():
        console(event)
    os.write(2, b"chatter of a library\\n")
    while not quits and not os.path.exists(sys.argv[1] + ".end"):
        time.sleep(0.05)
if quits:
    print("quit", len(quits), flush=True)
"""


@pytest.fixture
def terminal(tmp_path):
    """A function that runs LIVE on a pseudo-terminal of 100x30 and gives process and descriptor."""
    started = []

    def start(**environ):
        main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        env = {
            "PATH": os.environ["PATH"],
            "TERM": "xterm-256color",
            "PYTHONPATH": f"{HERE.parent}:{HERE}",
            **environ,
        }
        process = subprocess.Popen(
            [sys.executable, "-c", LIVE, str(tmp_path / "chatter")],
            stdin=other, stdout=other, stderr=other, env=env,
        )  # fmt: skip
        before = termios.tcgetattr(main)
        os.close(other)
        started.append((process, main))
        return process, main, before

    yield start
    for process, main in started:
        process.kill()
        process.wait()
        os.close(main)


def read_until(descriptor, needle, seconds=60.0):
    seen, end = b"", time.monotonic() + seconds
    while needle not in seen and time.monotonic() < end:
        if select.select([descriptor], [], [], 0.1)[0]:
            try:
                seen += os.read(descriptor, 65536)
            except OSError:  # the other end is closed
                break
    assert needle in seen, seen[-2000:]
    return seen


class TestLiveConsole:
    def test_it_draws_once_stays_still_and_gives_the_terminal_back(self, terminal, tmp_path):
        process, main, before = terminal()
        seen = read_until(main, b"finishing")
        assert b"\x1b[?1049h" in seen.partition(b"1--starry.jpg")[0]
        while select.select([main], [], [], 0.3)[0]:
            seen += os.read(main, 65536)
        assert b"\x1b[36m" in seen  # colours, where nobody said no
        # Nothing happens: nothing is written, so nothing can flicker.
        assert not select.select([main], [], [], 1.0)[0]
        assert not termios.tcgetattr(main)[3] & termios.ECHO
        assert not termios.tcgetattr(main)[0] & termios.IXON  # nor does Ctrl-S
        keys = termios.tcgetattr(main)[6]
        assert keys[termios.VSUSP] == keys[termios.VQUIT] == b"\0"
        os.write(main, b"\x1a\x1cq")  # neither Ctrl-Z nor Ctrl-\\ does anything
        seen = read_until(main, b"quit")
        assert b"\x1b[?1049l" in seen
        assert b"\x1b[?25h" in seen
        assert b"1 done, 1 failed" in seen
        assert process.wait(60) == 0
        assert termios.tcgetattr(main)[3] == before[3]
        assert (tmp_path / "chatter").read_text() == "chatter of a library\n"

    def test_a_job_in_the_background_leaves_the_terminal_alone(self):
        """As `stylewatch run &` has it, which would be stopped when it took the screen."""
        main, other = pty.openpty()
        code = (
            "import os, fcntl, sys, termios\n"
            "from stylewatch.faces.terminal import is_live, single_keys\n"
            "os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
            "def told():\n"
            "    with single_keys() as keys: return is_live(sys.stderr, {'TERM': 'xterm'}), keys\n"
            "print(told(), flush=True)\n"
            "if not os.fork():\n"
            "    os.setpgid(0, 0)\n"
            "    print(told(), flush=True)\n"
            "    os._exit(0)\n"
            "os.wait()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], stdin=other, stdout=subprocess.PIPE, stderr=other,
            text=True, check=True, timeout=60,
        )  # fmt: skip
        assert done.stdout.splitlines() == ["(True, 0)", "(False, None)"]
        os.close(main)
        os.close(other)

    def test_a_view_that_hangs_still_gives_the_terminal_back(self):
        """As it does when a thumbnail lies on a share that does not answer."""
        main, other = pty.openpty()
        code = (
            "import os, sys, time\n"
            "from stylewatch.faces.console import LiveConsole, open_console\n"
            "LiveConsole._loop = lambda *_: time.sleep(60)\n"
            "with open_console(chatter=os.devnull): time.sleep(0.5)\n"
        )
        env = {"PATH": os.environ["PATH"], "TERM": "xterm", "PYTHONPATH": str(HERE.parent)}
        before = termios.tcgetattr(main)[3]
        done = subprocess.run(
            [sys.executable, "-c", code], stdin=other, stdout=other, stderr=other, env=env,
            check=False, timeout=30,
        )  # fmt: skip
        assert done.returncode == 0
        assert b"\x1b[?1049l" in read_until(main, b"\x1b[?1049l")
        assert termios.tcgetattr(main)[3] == before
        os.close(main)
        os.close(other)

    def test_bars_are_as_wide_as_the_terminal_that_they_are_on(self):
        """In `while read f; do stylewatch apply "$f" >> list; done < files` it is stderr's."""
        main, other = pty.openpty()
        for columns, seen in ((50, 50), (43, 43), (0, 80)):  # a serial line's is not known
            rows = 24 if columns else 0
            fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            with open(os.dup(other), "w") as stream:
                assert OnItsTerminal(file=stream, force_terminal=True).size == (seen, 24)
        os.close(main)
        os.close(other)

    def test_no_colour_where_none_is_wanted(self, terminal):
        _, main, _ = terminal(NO_COLOR="1")
        seen = read_until(main, b"1--starry.jpg")
        assert b"\x1b[?1049h" in seen
        codes = {code for run in re.findall(rb"\x1b\[([0-9;]*)m", seen) for code in run.split(b";")}
        assert not {code for code in codes if code[:1] in {b"3", b"4", b"9"} and len(code) > 1}

    def test_a_resized_terminal_is_drawn_anew(self, terminal):
        _, main, _ = terminal()
        read_until(main, b"1--starry.jpg")
        fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 70, 0, 0))
        assert b"\x1b[2J" in read_until(main, b"\x1b[20;1H")

    def test_a_terminal_that_the_shell_has_had_meanwhile_is_taken_anew(self, terminal):
        """As after SIGSTOP and `fg`."""
        _, main, before = terminal()
        read_until(main, b"finishing")
        termios.tcsetattr(main, termios.TCSANOW, before)
        seen = read_until(main, b"\x1b[?1049h")
        os.write(main, b"q")
        seen += read_until(main, b"quit")
        assert b"1--starry.jpg" in seen.partition(b"\x1b[?1049h")[2]

    def test_a_name_that_comes_out_wider_or_narrower_than_reckoned_spoils_nothing(self, terminal):
        """Terminals don't agree on emoji, flags and many scripts."""
        _, main, _ = terminal()
        seen = read_until(main, b"finishing")
        assert b"\x1b[?7l" in seen.partition(b"1--starry.jpg")[0]  # the next line is left alone
        assert re.search(rb"\x1b\[4;1H\x1b\[K", seen)  # nothing of an older line is left
        os.write(main, b"q")
        assert b"\x1b[?7h" in read_until(main, b"quit")
        screen = Screen(io.StringIO())
        screen.draw([Text.assemble((name := "👍🏽 हिन्दी.jpg", "bold"), "    12 s   left")])
        column = cell_len(name) + 5
        assert re.search(rf"\.jpg\S* {{4}}\x1b\[{column}G12 s   left", screen._stream.getvalue())

    def test_the_path_of_a_photo_that_is_dropped_on_it_is_no_keys(self, terminal):
        """Terminals type it, quoted, and in Jacqqueline's home are q and p."""
        _, main, _ = terminal()
        read_until(main, b"finishing")
        os.write(main, "'/home/Jacqqueline/équipe.jpg' ".encode())
        for rows in (20, 25):  # drawn twice: in between it was read
            fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 70, 0, 0))
            read_until(main, b"\x1b[%d;1H" % rows)
        os.write(main, b"q")
        read_until(main, b"quit 1\r\n")

    def test_a_terminal_that_hung_up_is_read_with_pauses(self):
        main, other = pty.openpty()
        os.close(main)
        began = time.monotonic()
        assert pressed(other, 0.2) == ""
        assert time.monotonic() - began >= 0.2
        os.close(other)

    def test_a_terminal_that_is_closed_is_no_error(self, terminal, tmp_path):
        process, main, _ = terminal()
        read_until(main, b"1--starry.jpg")
        other = os.open("/dev/null", os.O_RDONLY)
        os.dup2(other, main)
        os.close(other)
        (tmp_path / "chatter.end").touch()
        assert process.wait(60) == 0
        assert "Traceback" not in (told := (tmp_path / "chatter").read_text()), told

    def test_a_dumb_terminal_gets_lines(self, terminal):
        _, main, _ = terminal(TERM="dumb")
        seen = read_until(main, b"stopping finishing")
        assert b"\x1b" not in seen


class TestOpenConsole:
    def test_without_a_terminal_there_are_lines_and_chatter_stays_out(self, tmp_path, capfd):
        with open_console(chatter=tmp_path / "chatter") as console:
            os.write(2, b"chatter of a library\n")
            console(Event(kind="done", message="a.jpg is painted"))
        os.write(2, b"after\n")
        lines = capfd.readouterr().err.splitlines()
        assert lines[0].endswith("done     a.jpg is painted")
        assert lines[1:] == ["after"]
        assert (tmp_path / "chatter").read_text() == "chatter of a library\n"

    def test_bars_become_lines_too(self, capfd):
        with open_bars(log_format="json") as console:
            console(Event(kind="done", message="a.jpg is painted"))
        assert json.loads(capfd.readouterr().err)["message"] == "a.jpg is painted"

    def test_below_a_finished_picture_no_bar_is_left(self):
        terminal, about = io.StringIO(), {"path": "a.jpg", "preset": "ink", "job_id": 1}
        console = Console(file=terminal, force_terminal=True, width=80)
        with Progress(console=console, auto_refresh=False) as progress:
            bars = _Bars(progress)
            bars(Event(kind="running", message="", **about))
            assert "a.jpg → ink" in terminal.getvalue()
            bars(Event(kind="done", message="out/a--ink.jpg", **about))
            assert "a.jpg → ink" not in terminal.getvalue().partition("✓")[2]

    @pytest.mark.parametrize(
        ("width", "rest"), [(120, "loss 2  12 s left"), (80, "12 s left"), (50, "12 s left")]
    )
    def test_a_long_name_leaves_room_for_how_far_it_is(self, width, rest):
        terminal = io.StringIO()
        console = Console(file=terminal, force_terminal=True, width=width, color_system=None)
        about = {"path": f"{'IMG_20261129_' * 9}.jpg", "preset": "watercolour", "job_id": 1}
        with Progress(*_columns(width), console=console, auto_refresh=False) as progress:
            bars = _Bars(progress)
            bars(Event(kind="running", message="", **about))
            bars(Event(kind="progress", message="", step=a_step(), **about))
            progress.refresh()
        assert re.search(rf"IMG_20261129_IMG_.*… ━+╸? +50% .*{rest}", terminal.getvalue())

    def test_an_interrupt_leaves_no_second_bar(self):
        """The terminal's own `^C` behind a bar as wide as itself begins a new line."""
        main, other = pty.openpty()
        code = (
            "from stylewatch.faces.console import open_bars\n"
            "from stylewatch.domain import Event\n"
            "with open_bars() as bars:\n"
            "    bars(Event(kind='running', message='', path='a.jpg', preset='ink', job_id=1))\n"
            "    raise SystemExit"
        )
        env = {"PATH": os.environ["PATH"], "TERM": "xterm", "PYTHONPATH": str(HERE.parent)}
        subprocess.run([sys.executable, "-c", code], stderr=other, env=env, check=True, timeout=60)
        seen = read_until(main, b"\x1b[?25h\r\x1b[1A")
        assert seen.rpartition(b"\x1b[2K")[2] == b""
        os.close(main)
        os.close(other)

    def test_a_second_signal_gives_the_cursor_back(self):
        main, other = pty.openpty()
        code = (
            "import signal\n"
            "from stylewatch.faces.console import open_bars\n"
            "from stylewatch.faces.terminal import on_signals\n"
            "with open_bars(), on_signals(lambda: None):\n"
            "    signal.raise_signal(signal.SIGTERM)\n"
            "    signal.raise_signal(signal.SIGTERM)"
        )
        env = {"PATH": os.environ["PATH"], "TERM": "xterm", "PYTHONPATH": str(HERE.parent)}
        done = subprocess.run(
            [sys.executable, "-c", code], stderr=other, env=env, check=False, timeout=60
        )
        os.close(other)
        assert done.returncode == 128 + signal.SIGTERM
        assert b"\x1b[?25l" in read_until(main, b"\x1b[?25h").partition(b"\x1b[?25h")[0]
        os.close(main)

    def test_a_closed_stream_is_not_live(self):
        stream = io.StringIO()
        stream.close()
        assert not is_live(stream, {"TERM": "xterm"})


def test_every_photo_in_work_is_seen_even_when_nobody_said_how_many_there_may_be():
    board = Board()
    for number in (1, 2, 3):
        board.apply(Event(kind="running", message="", path=f"{number}.jpg", job_id=number), 1.0)
    text = "\n".join(line.plain for line in draw_board(board, 80, 24, 2.0))
    assert all(f"{number}.jpg" in text for number in (1, 2, 3))


def test_the_course_of_the_loss_begins_anew_with_each_scale():
    board = Board()
    for scale, loss in ((1, 9.0), (1, 8.0), (2, 700.0), (2, 600.0)):
        step = a_step(scale, loss=loss)
        board.apply(Event(kind="progress", message="", job_id=1, step=step), 1.0)
    assert board.jobs[1].losses == [700.0, 600.0]


def test_of_an_effect_without_a_loss_none_is_shown():
    board, terminal = Board(), io.StringIO()
    about = {"path": "a.jpg", "preset": "flat", "job_id": 1}
    console = Console(file=terminal, force_terminal=True, width=120, color_system=None)
    with Progress(*_columns(120), console=console, auto_refresh=False) as progress:
        bars = _Bars(progress)
        for kind, step in (("running", None), ("progress", a_step(loss=math.nan))):
            event = Event(kind=kind, message="", step=step, **about)
            board.apply(event, 1.0)
            bars(event)
        progress.refresh()
    for text in (text_of(board), terminal.getvalue()):
        assert re.search("scale 1/3 +5/80", text)
        assert "loss" not in text


def test_failures_that_are_not_shown_are_counted():
    board = Board()
    board.apply(Event(kind="failed", message="a.jpg: bad", folder="in", path="a.jpg"), 1.0)
    board.apply(
        Event(kind="folder", message="", folder="in", extra={"waiting": 0, "failed": 3}), 1.0
    )
    text = "\n".join(line.plain for line in draw_board(board, 80, 24, 2.0))
    assert "… 2 more failed: stylewatch jobs --failed" in text


def test_a_second_p_goes_by_what_came_of_the_first(monkeypatch):
    """Outside of the hours a pause that is asked for twice is one by hand, which never ends."""
    asked = []
    view = LiveConsole(io.StringIO(), on_quit=lambda: None, on_pause=asked.append)

    def pressed(_keys, _seconds):
        if asked == [True]:
            view._events.put(Event(kind="paused", message="paused"))
        if len(asked) == 2:
            view._ended.set()
        return "pp" if not asked else "p"

    monkeypatch.setattr(console_module, "pressed", pressed)
    view._loop(Screen(io.StringIO()), None)
    assert asked[:2] == [True, False]


def test_after_a_view_that_broke_down_lines_are_those_of_a_log():
    stream = io.StringIO()
    view = LiveConsole(stream, on_quit=lambda: None, on_pause=lambda _: None)
    for number in range(3):
        view(Event(kind="progress", message="", path="a.jpg", job_id=1, step=a_step()))
        view(replace(folder_event(waiting=number), message="away"))
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == ["left", "away"]


def test_a_view_that_hangs_hears_no_more_of_progress(monkeypatch):
    monkeypatch.setattr(console_module, "MOST_EVENTS", 2)
    view = LiveConsole(io.StringIO(), on_quit=lambda: None, on_pause=lambda _: None)
    monkeypatch.setattr(view._thread, "is_alive", lambda: True)
    for kind in ("progress", "progress", "progress", "done"):
        view(Event(kind=kind, message=""))
    assert [view._events.get_nowait().kind for _ in range(3)] == ["progress", "progress", "done"]
    assert view._events.empty()


ASKED_TWICE = """
import signal, sys
from stylewatch.faces.terminal import Screen, on_signals
signal.signal(signal.SIGINT, signal.default_int_handler)  # unless it is ignored from the start
Screen(sys.stdout).enter()
with on_signals(lambda: print("asked")):
    signal.raise_signal(signal.SIGINT)
    print("finishing", flush=True)
    signal.raise_signal(signal.SIGTERM)
    print("finished", flush=True)
"""


def test_a_second_signal_ends_at_once_and_gives_the_terminal_back():
    done = subprocess.run([sys.executable, "-c", ASKED_TWICE], capture_output=True, check=False)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stdout.split(b"asked\n")[1].decode() == f"finishing\n{LEAVE}"


def test_a_second_signal_ends_what_waits_for_a_terminal_that_takes_nothing():
    script = ASKED_TWICE.replace("Screen(", "import time; from stylewatch.faces import terminal\n"
        "terminal._UNDO.append(lambda: time.sleep(60)); Screen(")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -signal.SIGALRM


def test_what_is_ignored_stays_ignored_as_nohup_wants_it():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with on_signals(lambda: None, hang_up=lambda: None):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_libraries_say_does_not_grow_for_ever(tmp_path, capfd):
    file = tmp_path / "chatter"
    file.write_bytes(bytes(CHATTER_BYTES + 1))
    with stderr_for_us(file):
        os.write(2, b"news\n")
    assert file.read_bytes() == b"news\n"
