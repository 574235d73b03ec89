"""A file is given out when it is complete, never earlier, and always decided in the end."""

import contextlib
import errno
import fcntl
import itertools
import mmap
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylewatch.domain import Candidate, Identity, Photo
from stylewatch.folders import settle
from stylewatch.folders.settle import Gone, Settler, Slow, Unsettled, has_writer

END = b"END"


def ends_well(stream):
    """A picture format of the tests: complete when it ends with END; no check without HEAD."""
    if stream.read(4) != b"HEAD":
        return None
    stream.seek(-3, os.SEEK_END)
    return stream.read() == END


def candidate(root: Path, name="a.jpg", *, closed=False, network=False) -> Candidate:
    stat = os.lstat(root / name)
    return Candidate("in", root, Path(name), stat, closed=closed, network=network)


def photo(root: Path, name="a.jpg") -> Photo:
    """As a candidate of that name is now, once it has settled."""
    return Photo("in", root, Path(name), Identity.of(os.lstat(root / name)))


@pytest.fixture
def settler():
    return Settler(ends_well)


def put(root: Path, data=b"HEAD" + END, name="a.jpg") -> Path:
    (root / name).write_bytes(data)
    return root / name


def follow(settler: Settler, now: float, until: float):
    """Look exactly when the settler wants it; everything given out, with its time."""
    given_out = []
    for _ in range(10_000):
        now = settler.next_due(now)
        if now > until:
            break
        given_out += [(now, result) for result in settler.settled(now)]
    return given_out


def test_an_untouched_file_settles_after_the_quiet_time(settler, tmp_path):
    put(tmp_path)
    settler.observe(candidate(tmp_path), 100.0)
    assert settler.settled(101.99) == []
    assert settler.next_due(101.99) == 102.0
    assert settler.settled(102.0) == [photo(tmp_path)]
    assert len(settler._waiting) == 0
    assert settler.next_due(102.0) == float("inf")


def test_a_close_event_shortens_the_wait_but_never_to_nothing(settler, tmp_path):
    put(tmp_path)
    settler.observe(candidate(tmp_path, closed=True), 100.0)
    assert settler.settled(100.4) == []
    assert len(settler.settled(100.5)) == 1


def test_a_close_event_of_a_file_already_waiting_shortens_its_wait(settler, tmp_path):
    put(tmp_path)
    settler.observe(candidate(tmp_path), 100.0)
    settler.observe(candidate(tmp_path, closed=True), 101.0)
    assert settler.settled(101.4) == []
    assert len(settler.settled(101.5)) == 1


def test_a_late_close_event_never_makes_the_wait_longer(settler, tmp_path):
    put(tmp_path)
    settler.observe(candidate(tmp_path), 100.0)
    settler.observe(candidate(tmp_path, closed=True), 101.9)
    assert len(settler.settled(102.0)) == 1


def test_each_change_starts_the_wait_anew(settler, tmp_path):
    path = put(tmp_path)
    settler.observe(candidate(tmp_path), 100.0)
    path.write_bytes(b"HEAD more" + END)  # unseen by any event
    assert settler.settled(102.0) == []
    assert len(settler.settled(104.0)) == 1


def test_a_change_that_is_observed_starts_the_wait_anew(settler, tmp_path):
    path = put(tmp_path)
    settler.observe(candidate(tmp_path), 100.0)
    path.write_bytes(b"HEAD more" + END)
    settler.observe(candidate(tmp_path), 101.5)
    assert settler.settled(103.4) == []
    assert len(settler.settled(103.5)) == 1


def test_a_changed_time_stamp_alone_counts_as_a_change(settler, tmp_path):
    path = put(tmp_path)
    settler.observe(candidate(tmp_path), 100.0)
    os.utime(path, ns=(1, 1))
    assert settler.settled(102.0) == []


def test_a_file_that_is_still_open_for_writing_waits(settler, tmp_path):
    path = put(tmp_path)
    with path.open("ab"):
        settler.observe(candidate(tmp_path), 100.0)
        assert follow(settler, 100.0, 400.0) == []
    settler.observe(candidate(tmp_path, closed=True), 400.0)
    assert [now for now, _ in follow(settler, 400.0, 401.0)] == [400.5]


def test_a_file_that_is_only_mapped_for_writing_waits(settler, tmp_path):
    path = put(tmp_path)
    with path.open("r+b") as stream:
        mapping = mmap.mmap(stream.fileno(), 0)
    settler.observe(candidate(tmp_path), 100.0)
    assert settler.settled(102.0) == []
    mapping.close()
    assert len(follow(settler, 102.0, 105.0)) == 1


def test_the_end_of_a_file_that_is_too_large_anyway_is_not_looked_for(tmp_path):
    looked_at = []
    settler = Settler(lambda stream: looked_at.append(stream.seek(0, os.SEEK_END)), max_bytes=1000)
    for name, size in (("large.jpg", 1000), ("larger.jpg", 1 << 40)):
        os.truncate(put(tmp_path, name=name), size)  # without a byte on disk
        settler.observe(candidate(tmp_path, name), 100.0)
    assert len(follow(settler, 100.0, 110.0)) == 2
    assert looked_at == [1000]


def test_readers_do_not_matter(settler, tmp_path):
    with put(tmp_path).open("rb"):
        settler.observe(candidate(tmp_path), 100.0)
        assert len(settler.settled(102.0)) == 1


def test_the_probe_leaves_no_lease_behind(tmp_path):
    path = put(tmp_path)
    with path.open("rb") as stream:
        assert has_writer(stream.fileno()) is False
        assert fcntl.fcntl(stream.fileno(), fcntl.F_GETLEASE) == fcntl.F_UNLCK


def test_a_writer_that_comes_during_the_probe_does_not_kill_us(tmp_path):
    """Without F_SETSIG the kernel's SIGIO ends the process within a fraction of a second."""
    path = put(tmp_path)
    write = f"import os\nwhile True: os.close(os.open({str(path)!r}, os.O_WRONLY))"
    writer = subprocess.Popen([sys.executable, "-c", write])
    probe = (
        "import os, time; from stylewatch.folders.settle import has_writer\n"
        f"fd, end, seen = os.open({str(path)!r}, os.O_RDONLY), time.monotonic() + 1, set()\n"
        "while time.monotonic() < end or seen != {True, False}: seen.add(has_writer(fd))"
    )
    try:
        subprocess.run([sys.executable, "-c", probe], timeout=60, check=True)
    finally:
        writer.kill()
        writer.wait()


def test_where_the_kernel_cannot_tell_the_wait_is_doubled(settler, tmp_path, monkeypatch):
    monkeypatch.setattr(settle, "has_writer", lambda descriptor: None)
    put(tmp_path)
    settler.observe(candidate(tmp_path), 100.0)
    assert [now for now, _ in follow(settler, 100.0, 200.0)] == [104.0]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as another user")
def test_the_kernel_does_not_tell_of_another_user_s_file():
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).chmod(0o644)
        ask = (
            "import os; from stylewatch.folders.settle import has_writer; os.setuid(65534)\n"
            f"assert has_writer(os.open({file.name!r}, os.O_RDONLY)) is None"
        )
        subprocess.run([sys.executable, "-c", ask], check=True, timeout=60)


def test_on_a_network_folder_the_wait_is_long_and_no_lease_is_asked(settler, tmp_path, monkeypatch):
    monkeypatch.setattr(settle, "has_writer", lambda descriptor: 1 / 0)
    put(tmp_path)
    settler.observe(candidate(tmp_path, closed=True, network=True), 100.0)
    assert [now for now, _ in follow(settler, 100.0, 200.0)] == [110.0]


@pytest.mark.parametrize(
    ("quiet", "closed", "open_"), [(2.0, 0.5, 2.0), (60.0, 15.0, 60.0), (0.2, 0.2, 0.2)]
)
def test_since_it_was_closed_a_quarter_of_the_quiet_period_is_enough(
    tmp_path, quiet, closed, open_
):
    for was_closed, wait in ((True, closed), (False, open_)):
        settler = Settler(ends_well, quiet_seconds=quiet)
        put(tmp_path)
        settler.observe(candidate(tmp_path, closed=was_closed), 100.0)
        assert [now for now, _ in follow(settler, 100.0, 300.0)] == [pytest.approx(100.0 + wait)]


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty"), (b"HEAD and then", "truncated")], ids=["empty", "cut"]
)
def test_an_incomplete_file_is_told_once_and_comes_back_when_it_changes(
    settler, tmp_path, data, reason
):
    path = put(tmp_path, data)
    settler.observe(candidate(tmp_path), 100.0)
    assert follow(settler, 100.0, 5000.0) == [(700.0, Unsettled(photo(tmp_path), reason))]
    assert settler.slow(5000.0, 5) == []  # it was told of
    settler.observe(candidate(tmp_path), 5000.0)  # a rescan: nothing new
    assert follow(settler, 5000.0, 9000.0) == []
    path.write_bytes(b"HEAD" + END)
    settler.observe(candidate(tmp_path), 9000.0)
    assert [type(result) for _, result in follow(settler, 9000.0, 9010.0)] == [Photo]


DAY = 86_400.0


@pytest.mark.parametrize("data", [b"", b"HEAD and then"], ids=["empty", "cut"])
def test_what_a_file_has_lacked_for_long_is_told_soon(settler, tmp_path, data):
    path = put(tmp_path, data)
    os.utime(path, (DAY, DAY))
    settler.observe(candidate(tmp_path), 100.0, wall=10 * DAY)
    ((now, told),) = follow(settler, 100.0, 5000.0)
    assert (type(told), now) == (Unsettled, 106.0)
    assert (len(settler._waiting), settler.arriving) == (1, 0)
    path.write_bytes(b"HEAD, and more")  # somebody works at it after all
    settler.observe(candidate(tmp_path), 5000.0, wall=10 * DAY)
    assert settler.arriving == 1
    ((now, _),) = follow(settler, 5000.0, 9000.0)
    assert now == 5600.0


def test_an_old_file_that_somebody_works_at_unseen_is_waited_for_as_long_as_others(
    settler, tmp_path
):
    path = put(tmp_path, b"HEAD and then")
    os.utime(path, (DAY, DAY))
    settler.observe(candidate(tmp_path), 100.0, wall=10 * DAY)
    path.write_bytes(b"HEAD, and more")
    ((now, _),) = follow(settler, 100.0, 5000.0)
    assert now == 702.0  # the change was seen at the first look


def test_however_many_files_are_not_whole_few_are_looked_at_in_a_second(
    settler, tmp_path, monkeypatch
):
    monkeypatch.setattr(settle, "LAST_LOOKS", 0.1)
    for number in range(60):
        put(tmp_path, b"", name=f"{number}.jpg")
        settler.observe(candidate(tmp_path, f"{number}.jpg"), 100.0)
    assert len(follow(settler, 100.0, 1000.0)) == 60
    looks, look = [], settler._look
    monkeypatch.setattr(settler, "_look", lambda *given: looks.append(1) or look(*given))
    assert follow(settler, 1000.0, 4000.0) == []
    assert len(looks) == 300


@pytest.mark.parametrize("wall", [0.0, DAY - 3600.0, DAY, DAY + 599.0])
def test_a_clock_that_leaps_makes_no_file_old(settler, tmp_path, wall):
    os.utime(put(tmp_path, b"HEAD and then"), (DAY, DAY))
    settler.observe(candidate(tmp_path), 100.0, wall=wall)
    ((now, _),) = follow(settler, 100.0, 5000.0)
    assert now == 700.0


def test_an_old_file_with_a_writer_is_waited_for_as_long_as_others(settler, tmp_path):
    path = put(tmp_path)
    with path.open("ab"):
        os.utime(path, (DAY, DAY))
        settler.observe(candidate(tmp_path), 100.0, wall=10 * DAY)
        ((now, _),) = follow(settler, 100.0, 1000.0)
    assert now == 700.0


def test_a_file_that_is_long_on_its_way_is_named_with_what_it_lacks(settler, tmp_path):
    put(tmp_path, b"HEAD and then")
    settler.observe(candidate(tmp_path), 100.0, wall=1000.0)
    assert follow(settler, 100.0, 114.0) == []
    assert settler.slow(114.9, 5) == []
    for now in (110.0, 118.0, 126.0):
        put(tmp_path, b"HEAD" * int(now), name="grows.jpg")
        settler.observe(candidate(tmp_path, "grows.jpg"), now, wall=now + 900.0)
    assert settler.slow(126.0, 5) == [
        Slow(Path("a.jpg"), "its end is missing", 1000.0),
        Slow(Path("grows.jpg"), "it keeps changing", 1010.0),
    ]
    assert len(settler.slow(126.0, 1)) == 1


@pytest.mark.parametrize("quiet", [2.0, 30.0])
def test_a_file_that_only_waits_to_be_looked_at_is_not_said_to_change(tmp_path, quiet):
    """Behind thousands of others, or as its quiet period is long."""
    settler = Settler(ends_well, quiet_seconds=quiet)
    put(tmp_path, name="was there.jpg")
    settler.observe(candidate(tmp_path, "was there.jpg"), 100.0)
    for now in (100.0, 101.0):
        put(tmp_path, b"HEAD" * int(now) + END, name="copied.jpg")
        settler.observe(candidate(tmp_path, "copied.jpg"), now)
    assert settler.slow(120.0, 5) == []


def test_nor_is_one_that_has_changed_for_long_once_it_is_to_be_looked_at(settler, tmp_path):
    for now in (100.0, 116.0):
        put(tmp_path, b"HEAD" * int(now) + END)
        settler.observe(candidate(tmp_path), now)
    assert len(settler.slow(117.0, 5)) == 1
    assert settler.slow(118.0, 5) == []


def test_a_writer_that_never_closes_is_told_and_its_close_is_noticed_without_any_event(
    settler, tmp_path
):
    path = put(tmp_path)
    with path.open("ab"):
        settler.observe(candidate(tmp_path), 100.0)
        ((_, told),) = follow(settler, 100.0, 1000.0)
        assert told.reason == "writer"
    ((now, photo),) = follow(settler, 1000.0, 1100.0)
    assert isinstance(photo, Photo)


def test_a_close_that_no_event_tells_of_is_noticed_within_half_a_minute(settler, tmp_path):
    with put(tmp_path).open("ab"):
        settler.observe(candidate(tmp_path), 100.0)
        assert follow(settler, 100.0, 550.0) == []
    ((now, result),) = follow(settler, 550.0, 1000.0)
    assert result == photo(tmp_path)
    assert now <= 580.0


def test_an_unsettled_file_that_is_asked_for_is_told_of_once_more(settler, tmp_path):
    put(tmp_path, b"")
    settler.observe(candidate(tmp_path), 100.0)
    settler.look_again(Path("a.jpg"))  # nobody was told of it yet
    told = Unsettled(photo(tmp_path), "empty")
    assert follow(settler, 100.0, 1000.0) == [(700.0, told)]
    settler.look_again(Path("a.jpg"))
    assert follow(settler, 1000.0, 2000.0) == [(1000.0, told)]


def test_an_unreadable_file_is_told(settler, tmp_path, like_anybody):
    put(tmp_path).chmod(0)
    settler.observe(candidate(tmp_path), 100.0)
    ((_, told),) = like_anybody(follow, settler, 100.0, 1000.0)
    assert told.reason == "unreadable"


def test_a_file_whose_reading_fails_is_told(tmp_path):
    def broken_disk(stream):
        raise OSError(5, "Input/output error")

    settler = Settler(broken_disk)
    put(tmp_path)
    settler.observe(candidate(tmp_path), 100.0)
    ((_, told),) = follow(settler, 100.0, 1000.0)
    assert told.reason == "unreadable"


def test_a_file_that_could_not_be_read_when_it_was_complete_is_given_again_in_a_minute(
    settler, tmp_path
):
    put(tmp_path)
    settler.take_back(photo(tmp_path), 100.0, 0.0)
    settler.observe(candidate(tmp_path), 101.0)
    assert settler.arriving == 0
    assert follow(settler, 100.0, 1000.0) == [(160.0, photo(tmp_path))]
    settler.take_back(photo(tmp_path), 1000.0, 0.0)
    put(tmp_path, b"HEAD")
    ((now, told),) = follow(settler, 1000.0, 2000.0)
    assert (now, told.reason) == (1660.0, "truncated")  # as of any file that has changed


def test_a_file_on_a_share_that_died_is_not_left_open(settler, tmp_path, monkeypatch):
    def dead(descriptor):
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    put(tmp_path)
    settler.observe(candidate(tmp_path), 100.0)
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", dead)
        assert settler.settled(102.0) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_check_that_stumbles_leaves_the_word_to_the_decoder(tmp_path):
    settler = Settler(lambda stream: 1 // 0)
    put(tmp_path)
    settler.observe(candidate(tmp_path), 100.0)
    assert [type(result) for _, result in follow(settler, 100.0, 110.0)] == [Photo]


def test_a_file_that_went_away_is_forgotten(settler, tmp_path):
    path = put(tmp_path)
    settler.observe(candidate(tmp_path), 100.0)
    before = photo(tmp_path)
    path.unlink()
    assert settler.settled(102.0) == [Gone(before)]
    assert len(settler._waiting) == 0


@pytest.mark.parametrize("kind", ["symlink", "folder", "fifo"])
def test_what_takes_the_place_of_a_file_is_not_given_out(settler, tmp_path, kind):
    path = put(tmp_path)
    settler.observe(candidate(tmp_path), 100.0)
    before = photo(tmp_path)
    path.unlink()
    if kind == "symlink":
        path.symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    open_before = len(os.listdir("/proc/self/fd"))
    assert follow(settler, 100.0, 2000.0) == [(102.0, Gone(before))]
    assert len(settler._waiting) == 0
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_folder_on_the_way_that_became_a_link_is_not_followed(settler, tmp_path):
    (tmp_path / "sub").mkdir()
    put(tmp_path, name="sub/a.jpg")
    settler.observe(candidate(tmp_path, "sub/a.jpg"), 100.0)
    before = photo(tmp_path, "sub/a.jpg")
    (tmp_path / "sub").rename(tmp_path / "moved")
    (tmp_path / "sub").symlink_to("moved")
    assert follow(settler, 100.0, 2000.0) == [(102.0, Gone(before))]


def test_names_are_bytes(settler, tmp_path):
    names = [b"\xff\xfe.jpg", "e\u0301.jpg".encode(), b"new\nline.jpg", b"n" * 251 + b".jpg"]
    for name in map(os.fsdecode, names):
        put(tmp_path, name=name)
        settler.observe(candidate(tmp_path, name), 100.0)
    assert {os.fsencode(photo.path) for photo in settler.settled(102.0)} == set(names)


def test_ten_thousand_files_settle_in_bounded_steps(settler, tmp_path, pace):
    for number in range(10_000):
        os.close(os.open(tmp_path / f"{number}.jpg", os.O_CREAT | os.O_WRONLY))
    (tmp_path / "0.jpg").write_bytes(b"x")
    for number in range(10_000):
        settler.observe(candidate(tmp_path, f"{number}.jpg"), 100.0)
    started = time.process_time()
    settler.settled(102.0)
    assert time.process_time() - started < 1.0 * pace
    assert settler.next_due(102.0) == 102.0  # there is more to do at once
    while settler.next_due(102.0) == 102.0:
        settler.settled(102.0)
    assert len(settler._waiting) == 9_999


def test_a_slow_share_keeps_the_rest_of_the_daemon_waiting_for_a_moment_only(
    settler, tmp_path, monkeypatch
):
    for number in range(100):
        put(tmp_path, name=f"{number}.jpg")
        settler.observe(candidate(tmp_path, f"{number}.jpg", network=True), 100.0)
    clock = itertools.count(step=0.1)
    with monkeypatch.context() as slow:
        slow.setattr(time, "monotonic", lambda: next(clock))
        found = settler.settled(110.0)
    assert 0 < len(found) < 10
    assert settler.next_due(110.0) == 110.0
    while settler.next_due(110.0) == 110.0:
        found += settler.settled(110.0)
    assert len(found) == 100


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["open", "write", "close", "finish", "replace", "event", "close event"]),
        st.sampled_from([0.0, 0.1, 0.4, 0.6, 1.9, 2.1, 7.0, 100.0, 700.0]),
    ),
    max_size=12,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS, quiet=st.sampled_from([0.5, 2.0, 5.0]))
def test_never_early_and_always_decided(tmp_path, operations, quiet):
    """Any schedule of writes, closes and replacements, with or without events told of them."""
    path = tmp_path / "a.jpg"
    path.unlink(missing_ok=True)
    settler = Settler(ends_well, quiet_seconds=quiet)
    with contextlib.ExitStack() as stack:
        follow_a_schedule(settler, path, operations, quiet, stack)


def follow_a_schedule(settler, path, operations, quiet, stack):
    root = path.parent
    writer = stack.enter_context(path.open("wb"))
    complete, told, changed, now = False, 0, 0.0, 0.0
    settler.observe(candidate(root), now)
    for operation, pause in operations:
        if operation == "open" and writer is None:
            writer = stack.enter_context(path.open("ab"))
        elif operation == "write" and writer:
            writer.write(b"HEAD, more")
            writer.flush()
            complete, told, changed = False, 0, now
        elif operation == "finish" and writer:
            writer.write(END if writer.tell() else b"HEAD" + END)
            writer.flush()
            complete, told, changed = True, 0, now
        elif operation in ("close", "close event") and writer:
            writer.close()
            writer = None
        elif operation == "replace" and writer is None:
            (root / "b.tmp").write_bytes(b"HEAD" + END)
            (root / "b.tmp").rename(path)
            complete, told, changed = True, 0, now
        if operation in ("event", "close event"):
            settler.observe(candidate(root, closed=operation == "close event"), now)
        for at, result in follow(settler, now, now + pause):
            if isinstance(result, Photo):
                assert writer is None
                assert complete
                assert at - changed > min(0.5, quiet) - 1e-6
                assert result.identity == Identity.of(path.stat())
                told = 0
            else:
                assert at - changed > 599.999
                told = 1
        now += pause
    if writer:
        writer.close()
    settler.observe(candidate(root), now)
    results = [result for _, result in follow(settler, now, now + 1300)]
    identity = Identity.of(path.stat())
    if complete:
        assert results == [Photo("in", root, Path("a.jpg"), identity)]
    else:
        assert len(settler._waiting) == 1
        assert settler.next_due(now) < float("inf")  # it is looked at for ever
        assert all(isinstance(result, Unsettled) for result in results)
        assert told + len(results) == 1
