"""A watched folder gives every file, whatever events are lost, late or never come at all."""

import ctypes
import errno
import itertools
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from importlib.metadata import version
from pathlib import Path

import pytest
from waiting import wait_until

from stylewatch.folders import listing, scans, sources, watches
from stylewatch.folders.sources import FolderSource
from stylewatch.folders.watches import Inbox, Watches, watched_inodes

FOREVER = float("inf")


class Watched:
    """A source with real events and a clock that stands still until it is moved."""

    def __init__(self, root: Path, **options) -> None:
        self.root = root
        self.woken = threading.Event()
        self.watches = Watches(self.woken.set)
        self.source = FolderSource("in", root, self.watches, **options)
        self.now = 1000.0
        self.found = {}
        self.lost = []

    def drain(self):
        news = []
        while True:
            news += self.source.drain(self.now)
            self.lost += self.source.missed()
            if self.source.next_due(self.now) > self.now:
                break
        self.found |= {str(each.path): each for each in news}
        return sorted(str(each.path) for each in news)

    def later(self, seconds):
        """Move the clock, stopping wherever the source wants to be drained."""
        until, news = self.now + seconds, []
        while True:
            news += self.drain()
            if self.source.next_due(self.now) > until:
                break
            self.now = self.source.next_due(self.now)
        self.now = until
        return news + self.drain()

    def missed(self):
        """What was missed since this was last asked."""
        lost, self.lost = self.lost, []
        return sorted(map(str, lost))

    def hear(self, *names, seconds=60.0):
        """Wait for real events, without moving the clock, until these names were found."""
        until = time.monotonic() + seconds
        while not set(names) <= set(self.found):
            assert time.monotonic() < until, f"{set(names) - set(self.found)} not found"
            self.woken.wait(0.05)
            self.woken.clear()
            self.drain()

    def hears(self, name="a.jpg"):
        """A file is put there, and heard of."""
        put(self.root, name)
        self.hear(name)

    def hear_nothing(self, seconds=0.3):
        time.sleep(seconds)  # real events need real time
        assert self.drain() == []

    @property
    def health(self):
        return self.source.health(self.now)

    def close(self):
        self.source.close()
        self.watches.close()


@pytest.fixture
def watched(tmp_path):
    (tmp_path / "in").mkdir()
    made = Watched(tmp_path / "in")
    yield made
    made.close()


def put(root: Path, name="a.jpg", data=b"x") -> Path:
    (root / name).write_bytes(data)
    return root / name


def test_files_already_there_are_found_at_once(watched):
    (watched.root / "sub").mkdir()
    put(watched.root)
    put(watched.root, "sub/b.jpg")
    assert watched.drain() == ["a.jpg", "sub/b.jpg"]
    assert watched.health.state == "watching"
    assert watched.health.detail == ""
    assert watched.health.scan_age == 0
    folders = {watched.root.stat().st_ino, (watched.root / "sub").stat().st_ino}
    assert folders <= watched_inodes()


@pytest.fixture
def deep(tmp_path):
    """More folders within each other than Python's stack has room for."""
    deepest = tmp_path / "deep" / "/".join(["d"] * 1100)
    for place in [*reversed(deepest.parents), deepest]:
        place.mkdir(exist_ok=True)
    put(deepest)
    yield tmp_path / "deep"
    subprocess.run(["rm", "-rf", tmp_path / "in", tmp_path / "deep"], check=True)  # shutil recurses


def test_a_very_deep_tree_is_scanned(watched, deep):
    deep.rename(watched.root / "deep")
    assert [Path(name).name for name in watched.drain()] == ["a.jpg"]
    assert watched.health.state == "scanning"
    assert "more than 500 folders within each other" in watched.health.detail


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_photo_in_a_very_deep_tree_that_comes_later_is_found(watched, deep):
    """Before Python 3.12 its events end watchdog's thread, and it is scanned."""
    watched.drain()
    deep.rename(watched.root / "deep")
    state = "scanning" if sys.version_info < (3, 12) else "watching"
    until = time.monotonic() + 60.0
    while not (watched.found and watched.health.state == state):
        assert time.monotonic() < until
        watched.woken.wait(0.05)
        watched.later(sources.ROOT_SECONDS)
    assert [Path(name).name for name in watched.found] == ["a.jpg"]


def test_a_written_file_is_heard_of_with_its_close(watched):
    watched.drain()
    watched.hears()
    while not watched.found["a.jpg"].closed:
        watched.found.clear()
        watched.hear("a.jpg")
    watched.hear_nothing()


def test_a_file_renamed_into_place_is_heard_of_with_its_rename(watched):
    watched.drain()
    put(watched.root, "a.part").rename(watched.root / "a.jpg")
    watched.hear("a.jpg")
    assert watched.found["a.jpg"].closed
    assert "a.part" not in watched.found


def test_files_that_appear_without_a_close_are_heard_of(watched, tmp_path):
    watched.drain()
    put(tmp_path, "moved.jpg").rename(watched.root / "moved.jpg")
    os.link(put(tmp_path, "linked.jpg"), watched.root / "linked.jpg")
    unnamed = os.open(watched.root, os.O_TMPFILE | os.O_WRONLY)
    os.link(f"/proc/self/fd/{unnamed}", watched.root / "named.jpg", src_dir_fd=unnamed)
    os.close(unnamed)
    (watched.root / "link.jpg").symlink_to("moved.jpg")
    watched.hear("moved.jpg", "linked.jpg", "named.jpg", "link.jpg")
    assert watched.found["link.jpg"].ignored == "symlink"


def test_reading_and_slow_writing_make_no_events(watched):
    path = put(watched.root)
    watched.drain()
    path.read_bytes()
    with path.open("ab", buffering=0) as stream:
        for _ in range(3):
            stream.write(b"more")
        watched.hear_nothing()
    watched.found.clear()
    watched.hear("a.jpg")


def test_a_tree_that_is_copied_in_is_found_without_a_rescan(watched, tmp_path):
    names = []
    for number in range(60):
        (tmp_path / f"tree/{number}/deep").mkdir(parents=True)
        names += [f"tree/{number}/a.jpg", f"tree/{number}/deep/b.jpg"]
    for name in names:
        put(tmp_path, name)
    watched.drain()
    subprocess.run(["cp", "-r", tmp_path / "tree", watched.root], check=True)
    watched.hear(*names)
    assert watched.health.state == "watching"


def test_a_tree_that_is_moved_in_is_found_and_files_that_come_into_it_later(watched, tmp_path):
    (tmp_path / "tree/deep").mkdir(parents=True)
    put(tmp_path, "tree/deep/early.jpg")
    watched.drain()
    (tmp_path / "tree").rename(watched.root / "tree")
    watched.hear("tree/deep/early.jpg")
    watched.later(1.1)  # well before the next scan
    watched.hears("tree/deep/late.jpg")


def test_a_folder_moved_out_and_back_under_another_name_stays_watched(watched, tmp_path):
    (watched.root / "sub").mkdir()
    watched.drain()
    (watched.root / "sub").rename(tmp_path / "out")
    watched.later(1.1)
    (tmp_path / "out").rename(watched.root / "again")
    watched.hear_nothing()
    watched.later(1.1)
    watched.hears("again/a.jpg")
    assert watched.health.state == "watching"


def test_a_file_that_no_event_told_of_is_found_by_the_next_scan(watched, monkeypatch):
    watched.drain()
    monkeypatch.setattr(Inbox, "dispatch", lambda self, event: None)
    put(watched.root)
    watched.hear_nothing()
    assert watched.later(29.0) == []
    assert watched.later(1.0) == ["a.jpg"]


def test_watches_that_miss_a_file_are_rebuilt_and_trusted_again(watched, monkeypatch):
    watched.drain()
    with monkeypatch.context() as patch:
        patch.setattr(Inbox, "dispatch", lambda self, event: None)
        put(watched.root)
        watched.hear_nothing()
    assert "a.jpg" in watched.later(33.0)
    assert watched.health.state == "watching"
    watched.hears("b.jpg")


def test_watches_that_stay_silent_are_given_up_visibly_and_tried_again_later(watched, monkeypatch):
    watched.drain()
    with monkeypatch.context() as patch:
        patch.setattr(Inbox, "dispatch", lambda self, event: None)
        for name in ("a.jpg", "b.jpg"):
            put(watched.root, name)
            assert name in watched.later(33.0)
        assert watched.health.state == "scanning"
        assert "no events come from it, so it is scanned every 10 s" in watched.health.detail
        put(watched.root, "c.jpg")
        assert "c.jpg" in watched.later(10.0)
    watched.later(600.0)
    assert watched.health.state == "watching"
    watched.hears("d.jpg")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_reader_of_the_kernel_s_queue_is_replaced(watched):
    """What an error inside watchdog does: its observer and emitters look alive, and are deaf."""
    watched.drain()
    observer = watched.watches._observer
    reader = getattr(observer, "_inotify_fd", None) or next(iter(observer.emitters))._inotify
    reader.stop()
    put(watched.root)
    watched.hear_nothing()
    assert "a.jpg" in watched.later(33.0)
    watched.hears("b.jpg")
    assert watched.health.state == "watching"


def test_a_dead_emitter_is_noticed_at_the_next_drain(watched):
    watched.drain()
    for emitter in watched.watches._observer.emitters:
        emitter.stop()
        emitter.join()
    put(watched.root)
    assert watched.drain() == ["a.jpg"]
    watched.hears("b.jpg")


def test_a_dead_observer_is_replaced(watched):
    watched.drain()
    watched.watches._observer.stop()
    watched.watches._observer.join()
    put(watched.root)
    assert watched.drain() == ["a.jpg"]
    watched.hears("b.jpg")


def test_threads_that_have_lost_count_of_folders_are_replaced(watched, tmp_path):
    """One left the tree, and the next one of its name was renamed: watchdog's own books are wrong."""
    sub = watched.root / "sub"
    sub.mkdir()
    watched.drain()
    steps = [
        lambda: sub.rename(tmp_path / "away"),
        sub.mkdir,
        lambda: sub.rename(watched.root / "other"),
        watched.watches.renew,
    ]
    for number, step in enumerate(steps):
        step()
        put(watched.root, f"{number}.jpg")
        watched.hear(f"{number}.jpg")
    put(watched.root / "other")
    watched.hear("other/a.jpg")


def test_an_error_in_the_wake_up_call_does_not_stop_the_events(watched, monkeypatch):
    monkeypatch.setattr(watched.watches, "wake", lambda: 1 / 0)
    watched.drain()
    watched.hears()
    watched.hears("b.jpg")


def lose_events(watched, monkeypatch):
    """Put a photo of which no event tells, as watchdog warns."""
    with monkeypatch.context() as patch:
        patch.setattr(Inbox, "dispatch", lambda self, event: None)
        put(watched.root)
        watched.hear_nothing()
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed")


def test_a_warning_of_watchdog_makes_a_full_scan(watched, monkeypatch):
    watched.drain()
    lose_events(watched, monkeypatch)
    assert watched.woken.is_set()
    assert watched.drain() == ["a.jpg"]
    assert watched.later(29.0) == []
    assert watched.source._strikes == 0  # a known loss is no reason for mistrust


def test_a_known_loss_is_no_reason_for_mistrust_when_the_next_scan_has_to_wait(
    watched, monkeypatch
):
    (watched.root / "sub").mkdir()
    watched.drain()
    lose_events(watched, monkeypatch)
    assert watched.drain() == ["a.jpg"]
    watched.later(29.0)
    watched.now += 1.0
    monkeypatch.setattr(scans, "SLICE", 1)
    watched.source._inbox.note(folders=["sub"])  # which is looked through first
    watched.later(5.0)
    assert watched.source._strikes == 0


def test_more_names_than_the_inbox_holds_make_a_full_scan(watched, monkeypatch):
    monkeypatch.setattr(watches, "INBOX_LIMIT", 3)
    watched.drain()
    names = [f"{number}.jpg" for number in range(20)]
    for name in names:
        put(watched.root, name)
    watched.hear(*names)


def test_a_root_that_vanishes_is_a_state_and_comes_back_by_itself(watched):
    put(watched.root)
    watched.drain()
    shutil.rmtree(watched.root)
    watched.later(2.0)
    assert watched.health.state == "missing"
    assert str(watched.root) in watched.health.detail
    assert watched.source._watch is None
    watched.root.mkdir()
    put(watched.root, "b.jpg")
    assert watched.later(2.0) == ["b.jpg"]
    assert watched.health.state == "watching"
    watched.hears("c.jpg")


def test_a_root_that_is_not_there_yet_is_waited_for(tmp_path):
    watched = Watched(tmp_path / "later")
    try:
        assert watched.drain() == []
        assert watched.health.state == "missing"
        assert watched.health.scan_age == FOREVER
        assert watched.source.next_due(watched.now) == watched.now + 2
        watched.root.mkdir()
        put(watched.root)
        assert watched.later(2.0) == ["a.jpg"]
    finally:
        watched.close()


def test_a_root_that_is_renamed_and_made_anew_is_watched_anew(watched, tmp_path):
    watched.drain()
    watched.root.rename(tmp_path / "old")
    watched.root.mkdir()
    watched.later(2.0)
    put(tmp_path, "old/wrong.jpg")
    watched.hears()
    time.sleep(0.3)
    watched.drain()
    assert set(watched.found) == {"a.jpg"}


def test_a_root_that_is_a_link_is_watched_and_followed_when_it_changes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "in").symlink_to("one")
    watched = Watched(tmp_path / "in")
    try:
        watched.drain()
        put(tmp_path, "one/a.jpg")
        watched.hear("a.jpg")
        assert watched.found["a.jpg"].root == tmp_path / "in"
        (tmp_path / "in").unlink()
        (tmp_path / "in").symlink_to("two")
        watched.later(2.0)
        put(tmp_path, "two/b.jpg")
        watched.hear("b.jpg")
    finally:
        watched.close()


def test_a_root_that_is_a_file_is_missing(watched):
    watched.root.rmdir()
    put(watched.root.parent, "in")
    assert watched.drain() == []
    assert watched.health.state == "missing"


def test_a_root_that_cannot_be_read_is_unreadable(watched, monkeypatch):
    def denied(root):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(sources, "_folder_key", denied)
    assert watched.drain() == []
    assert watched.health.state == "unreadable"
    assert "Permission denied" in watched.health.detail


@pytest.mark.parametrize("interrupted", [False, True])
def test_what_went_away_before_the_first_scan_is_missed_after_it(watched, monkeypatch, interrupted):
    (watched.root / "sub").mkdir()
    for name in ("a.jpg", "sub/b.jpg"):
        put(watched.root, name)
    gone = ["c.jpg", "sub/d.jpg", "gone/e.jpg"]
    watched.source._scans._known = lambda: iter(["a.jpg", *gone, "sub/b.jpg"])
    if interrupted:
        monkeypatch.setattr(scans, "SLICE", 1)
        while watched.health.scan_age == FOREVER:
            watched.source.drain(watched.now)
        watched.source._start(watched.now)
        monkeypatch.setattr(scans, "SLICE", 4000)
    watched.drain()
    assert watched.missed() == sorted(gone)
    put(watched.root, "c.jpg").unlink()
    watched.later(200.0)
    assert watched.missed() == []


def test_what_is_missed_on_a_slow_share_is_looked_at_in_slices(watched, monkeypatch):
    """Whoever asks looks at each once more: of thousands at once that took seconds."""
    watched.drain()
    watched.source._scans.listing.missed |= {"a.jpg", "b.jpg"}
    monkeypatch.setattr(scans, "TURN_SECONDS", -1.0)
    told = [*watched.source.missed()]
    assert len(told) == 1
    assert watched.source.next_due(watched.now) == watched.now
    assert sorted(map(str, [*told, *watched.source.missed()])) == ["a.jpg", "b.jpg"]


def test_where_the_first_scan_can_t_look_what_went_away_is_missed_once_one_can(
    watched, monkeypatch
):
    """As in a sub-folder that is closed to us, or on a share that does not answer for a moment."""
    asked, opened = [], listing.open_below

    def closed(root, folder, *flags):
        if folder == "sub":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(root, folder, *flags)

    (watched.root / "sub").mkdir()
    put(watched.root, "sub/a.jpg")
    watched.source._scans._known = lambda: asked.append(1) or ["sub/a.jpg", "sub/deep/gone.jpg"]
    with monkeypatch.context() as trouble:
        trouble.setattr(listing, "open_below", closed)
        watched.later(100.0)
        assert len(asked) == 1
        assert watched.missed() == ["sub/a.jpg", "sub/deep/gone.jpg"]
    watched.later(100.0)
    assert watched.missed() == ["sub/deep/gone.jpg"]
    watched.later(100.0)
    assert (watched.missed(), len(asked)) == ([], 2)


def test_too_few_watches_mean_scanning_and_saying_so(watched, monkeypatch):
    for number in range(5):
        (watched.root / f"{number}").mkdir()
    monkeypatch.setattr(sources, "watch_limit", lambda: 5)
    watched.drain()
    assert watched.health.state == "scanning"
    assert "sysctl fs.inotify.max_user_watches" in watched.health.detail
    put(watched.root, "4/a.jpg")
    assert watched.later(10.0) == ["4/a.jpg"]
    watched.later(600.0)
    assert watched.health.state == "scanning"
    monkeypatch.setattr(sources, "watch_limit", lambda: 6)
    watched.later(600.0)
    assert watched.health.state == "watching"
    watched.hears("4/b.jpg")


def test_folders_that_watchdog_fails_to_watch_are_noticed(watched, monkeypatch):
    """As with a limit that other programs have used up: 7.x says nothing at all."""
    (watched.root / "sub").mkdir()
    watched.drain()
    missing = (watched.root / "sub").stat().st_ino
    seen = watches.watched_inodes
    monkeypatch.setattr(sources, "watched_inodes", lambda: seen() - {missing})
    watched.later(5.0)
    assert watched.health.state == "scanning"
    assert "1 of 2 folders can't be watched" in watched.health.detail


def test_folders_that_are_deleted_with_all_below_them_are_no_reason_to_scan(watched):
    """Of two albums with sub-folders in a row the second made a daemon scan for ten minutes."""
    for name in ("one", "two"):
        (watched.root / name / "day").mkdir(parents=True)
    watched.later(5.0)
    for name in ("one", "two"):
        shutil.rmtree(watched.root / name)
        wait_until(lambda name=name: name in watched.source._inbox._folders)
        watched.later(5.0)
        assert watched.source._strikes == 0
    assert watched.health.state == "watching"


def test_disks_that_are_mounted_in_it_now_and_then_are_no_reason_to_scan(watched, monkeypatch):
    """Each lies on a folder that was watched, and is not watched itself before it is noticed."""
    (watched.root / "card").mkdir()
    watched.drain()
    card, seen, mounted = (watched.root / "card").stat().st_ino, watches.watched_inodes, []
    monkeypatch.setattr(
        sources, "watched_inodes", lambda: seen() - ({card} if mounted and mounted.pop() else set())
    )
    for _ in range(3):
        watched.later(60.0)
        mounted.append("card")
        watched.later(60.0)
        assert not mounted
        assert watched.health.state == "watching"


def test_the_limit_of_the_system_is_known():
    assert 0 < watches.watch_limit() <= 1 << 30


def test_on_a_network_file_system_there_is_no_watching(watched, monkeypatch):
    device = watched.root.stat().st_dev
    monkeypatch.setattr(scans, "network_devices", lambda: frozenset({device}))
    put(watched.root)
    assert watched.drain() == ["a.jpg"]
    assert watched.found["a.jpg"].network
    assert watched.health.state == "scanning"
    assert "network file system" in watched.health.detail
    put(watched.root, "b.jpg")
    assert watched.later(9.0) == []
    assert watched.later(1.0) == ["b.jpg"]


@pytest.fixture
def large(watched, monkeypatch):
    """A hundred photos of long ago, of which one is looked at in a tenth of a second."""
    monkeypatch.setattr(scans, "SLICE", 1)
    for number in range(100):
        put(watched.root, f"{number}.jpg")
    os.utime(watched.root, ns=(1, 1))

    def scan():
        while watched.health.scan_age == FOREVER:
            watched.source.drain(watched.now)
            watched.now += 0.1
        monkeypatch.setattr(scans, "SLICE", 4000)
        return watched

    return scan


def test_a_scan_that_took_long_is_not_repeated_soon(large, monkeypatch):
    monkeypatch.setattr(Inbox, "dispatch", lambda self, event: None)
    watched = large()
    put(watched.root, "new.jpg")
    assert watched.later(180.0) == []
    assert watched.later(20.0) == ["new.jpg"]


def test_a_scan_that_took_very_long_is_repeated_after_ten_minutes(large, monkeypatch):
    monkeypatch.setattr(Inbox, "dispatch", lambda self, event: None)
    monkeypatch.setattr(scans, "REST", 1900)
    watched = large()
    put(watched.root, "new.jpg")
    assert watched.later(590.0) == []
    assert watched.later(20.0) == ["new.jpg"]


def test_what_comes_to_a_large_share_is_found_soon_and_what_changes_there_by_the_next_scan(
    large, watched, monkeypatch
):
    device = watched.root.stat().st_dev
    monkeypatch.setattr(scans, "network_devices", lambda: frozenset({device}))
    watched = large()
    (watched.root / "7.jpg").write_bytes(b"longer")
    assert watched.later(30.0) == []
    (watched.root / "sub").mkdir()
    put(watched.root, "sub/new.jpg")
    assert watched.later(11.0) == ["7.jpg", "sub/new.jpg"]
    assert watched.later(11.0) == []  # what has changed is listed twice
    (watched.root / "8.jpg").write_bytes(b"longer")
    assert watched.later(130.0) == []
    assert watched.later(20.0) == ["8.jpg"]


@pytest.mark.parametrize(("took", "rest"), [(0.1, 10), (1, 19), (30, 60)])
def test_a_poll_that_took_long_is_not_repeated_soon(watched, monkeypatch, took, rest):
    device = watched.root.stat().st_dev
    monkeypatch.setattr(scans, "network_devices", lambda: frozenset({device}))
    (watched.root / "sub").mkdir()
    os.utime(watched.root, ns=(1, 1))
    watched.drain()
    monkeypatch.setattr(watched.source._scans, "_next_scan", FOREVER)  # only polls
    looked = watched.source._scans.listing._has_changed
    monkeypatch.setattr(scans, "SLICE", 1)
    polls = []

    def looks(folder):
        if folder == "":
            polls.append(watched.now)
        else:
            watched.now += took
        return looked(folder)

    monkeypatch.setattr(watched.source._scans.listing, "_has_changed", looks)
    watched.later(200.0)
    assert polls[1] - polls[0] == pytest.approx(took + rest)


def test_a_slow_share_keeps_the_rest_of_the_daemon_waiting_for_a_moment_only(watched, monkeypatch):
    for number in range(100):
        put(watched.root, f"{number}.jpg")
    clock = itertools.count(step=0.1)
    with monkeypatch.context() as slow:
        slow.setattr(scans.time, "monotonic", lambda: next(clock))
        found = watched.source.drain(watched.now)
    assert 0 < len(found) < 10
    assert len(found) + len(watched.drain()) == 100


def test_a_share_that_is_mounted_later_in_a_sub_folder_is_known_as_one(watched, monkeypatch):
    """There the kernel knows nothing of writers: it says that each file has one, or that none has."""
    put(watched.root)
    assert watched.drain() == ["a.jpg"]
    assert not watched.found["a.jpg"].network
    device = watched.root.stat().st_dev
    monkeypatch.setattr(scans, "network_devices", lambda: frozenset({device}))
    monkeypatch.setattr(Inbox, "dispatch", lambda self, event: None)
    put(watched.root, "b.jpg")
    assert watched.later(31.0) == ["b.jpg"]
    assert watched.found["b.jpg"].network


def test_a_file_can_be_asked_for_again(watched):
    put(watched.root)
    watched.drain()
    watched.source.look_again(Path("a.jpg"))
    assert watched.source.next_due(watched.now) == watched.now
    assert watched.drain() == ["a.jpg"]
    assert watched.drain() == []


def test_names_are_bytes_in_events_too(watched):
    names = [b"\xff\xfe.jpg", "e\u0301.jpg".encode(), b"new\nline.jpg", b"n" * 251 + b".jpg"]
    watched.drain()
    for name in map(os.fsdecode, names):
        put(watched.root, name)
    watched.hear(*map(os.fsdecode, names))


def test_two_folders_share_one_observer(watched, tmp_path):
    (tmp_path / "two").mkdir()
    second = FolderSource("two", tmp_path / "two", watched.watches)
    watched.drain()
    assert second.drain(watched.now) == []
    put(tmp_path, "two/b.jpg")
    watched.hears()
    found = wait_until(lambda: second.drain(watched.now))
    assert [(each.folder, str(each.path)) for each in found] == [("two", "b.jpg")]
    second.close()
    watched.hears("c.jpg")


def test_closing_gives_back_threads_and_descriptors(tmp_path):
    def held():
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    for _ in range(2):  # the first one makes what watchdog keeps for good
        before = held()
        watched = Watched(tmp_path)
        watched.drain()
        watched.close()
        after = held()
    assert after == before


def test_ten_thousand_files_are_taken_in_slices_with_little_memory(watched):
    for number in range(10_000):
        path = watched.root / f"IMG_20261123_{number:06}.jpg"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    while watched.woken.wait(1.0):  # until all events are in, unless this process rests
        watched.woken.clear()
    tracemalloc.start()
    sizes = []
    while watched.source.next_due(watched.now) <= watched.now:
        sizes.append(len(watched.source.drain(watched.now)))
    ours = tracemalloc.Filter(inclusive=True, filename_pattern="*/stylewatch/folders/*")
    events = tracemalloc.Filter(inclusive=False, filename_pattern="*/watches.py")
    traces = tracemalloc.take_snapshot().filter_traces([ours, events]).statistics("filename")
    tracemalloc.stop()
    assert sum(sizes) == 10_000
    assert max(sizes) <= scans.SLICE
    assert 0.5e6 < sum(each.size for each in traces) < 2.5e6


def test_an_idle_watch_costs_nearly_nothing(watched, pace):
    for folder in range(10):
        (watched.root / f"{folder}").mkdir()
        for number in range(300):
            path = watched.root / f"{folder}/{number}.jpg"
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    watched.drain()
    watched.hear_nothing()
    started = time.process_time()
    watched.later(120.0)
    assert time.process_time() - started < 0.005 * 120 * pace


LIMITED = """
import sys, pathlib
from stylewatch.folders.sources import FolderSource
from stylewatch.folders.watches import Watches
pathlib.Path("/proc/sys/user/max_inotify_watches").write_text("100")
others = Watches(lambda: None)
hog = FolderSource("hog", pathlib.Path(sys.argv[2]), others)
hog.drain(0.0)
source = FolderSource("in", pathlib.Path(sys.argv[1]), others)
now, found = 0.0, []
while now < 30:
    found += source.drain(now)
    hog.drain(now)
    now = max(min(source.next_due(now), hog.next_due(now)), now + 0.001)
health = source.health(now)
print(health.state, len({each.path for each in found}), health.detail)
print(hog.health(now).state)
source.close(); hog.close(); others.close()
"""


def test_a_real_watch_limit_is_survived(tmp_path):
    """In a user namespace of its own, with the limit used up by another folder."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    for name, count in (("in", 60), ("hog", 60)):
        for number in range(count):
            (tmp_path / name / f"{number}").mkdir(parents=True)
            put(tmp_path, f"{name}/{number}/a.jpg")
    command = ["unshare", "-Ur", sys.executable, "-c", LIMITED, tmp_path / "in", tmp_path / "hog"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "max_inotify_watches" in result.stderr or "unshare" in result.stderr:
        pytest.skip(f"no user namespaces here: {result.stderr}")
    state, found, detail = result.stdout.split(" ", 2)
    assert (state, found) == ("scanning", "60"), result
    assert "watched" in detail
    assert detail.endswith("\nwatching\n")  # the other folder keeps what it has


OVERFLOWN = """
import sys, pathlib, threading, time
from stylewatch.folders.sources import FolderSource
from stylewatch.folders.watches import Watches
woken = threading.Event()
hub = Watches(woken.set)
source = FolderSource("in", pathlib.Path(sys.argv[1]), hub, rescan_seconds=float(sys.argv[2]))
found, ready = set(), False
until = time.monotonic() + 100
while len(found) < 9000 and time.monotonic() < until:
    found |= {each.path for each in source.drain(time.monotonic())}
    if not ready:
        ready = print("ready", flush=True) is None
    woken.wait(max(0.0, min(1.0, source.next_due(time.monotonic()) - time.monotonic())))
    woken.clear()
print(len(found), flush=True)
source.close(); hub.close()
"""


def test_a_real_overflow_of_the_event_queue_is_survived(tmp_path):
    """watchdog 6 says nothing of it: there, only the next scan helps."""
    rescan = "3" if version("watchdog").startswith("6") else "1000"
    command = [sys.executable, "-c", OVERFLOWN, tmp_path, rescan]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(19)  # SIGSTOP
        for number in range(9000):
            os.close(os.open(tmp_path / f"{number}.jpg", os.O_CREAT | os.O_WRONLY))
        child.send_signal(18)  # SIGCONT
        assert child.stdout.read() == "9000\n"


def test_what_the_kernel_watches_can_be_asked(tmp_path):
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    libc.inotify_add_watch(descriptor, os.fsencode(tmp_path), 0x100)
    assert tmp_path.stat().st_ino in watches.watched_inodes()
    os.close(descriptor)
