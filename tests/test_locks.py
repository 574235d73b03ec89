"""Locks: one daemon per state directory and per folder, and nothing that is left open."""

import errno
import fcntl
import os

import pytest

from stylewatch.errors import ExitCode, LedgerError, LockedError
from stylewatch.state.locks import Locks


@pytest.fixture
def locks():
    made = Locks()
    yield made
    made.release()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def is_free(folder):
    """Whether another daemon could have it."""
    others = Locks()
    try:
        others.hold_folder(folder)
    except LockedError:
        return False
    others.release()
    return True


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def without_locks(monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture
def dies():
    """Has what a descriptor is open on die, as a share does whose connection ends."""
    fstat = os.fstat
    monkeypatch = pytest.MonkeyPatch()

    def dies(dead):
        def stat_of(descriptor):
            if descriptor == dead:
                raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
            return fstat(descriptor)

        monkeypatch.setattr(os, "fstat", stat_of)

    yield dies
    monkeypatch.undo()  # before the locks are released


def test_a_state_folder_that_can_t_be_written_is_one_clear_error(locks, tmp_path):
    (tmp_path / "state").write_text("a file lies where the folder should be")
    with pytest.raises(LedgerError, match="can't be written") as caught:
        locks.hold_state(tmp_path / "state")
    assert caught.value.exit_code is ExitCode.OUTPUT


def test_so_is_one_that_can_t_be_locked(locks, tmp_path, without_locks):
    before = open_files()
    with pytest.raises(LedgerError, match="state can't be locked: No locks available"):
        locks.hold_state(tmp_path / "state")
    assert open_files() == before


def test_a_lock_that_is_a_link_is_not_followed(locks, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"photo")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "lock").symlink_to(tmp_path / "a.jpg")
    with pytest.raises(LedgerError, match="can't be written"):
        locks.hold_state(tmp_path / "state")
    assert (tmp_path / "a.jpg").read_bytes() == b"photo"


def test_a_folder_on_a_share_without_locks_is_watched_all_the_same(locks, folder, without_locks):
    before = open_files()
    locks.hold_folder(folder)
    assert open_files() == before


def test_a_folder_that_is_ours_is_not_let_go_for_a_moment_when_it_is_locked_again(locks, folder):
    locks.hold_folder(folder)
    before = dict(locks._held), open_files()
    locks.hold_folder(folder)
    assert (locks._held, open_files()) == before
    assert not is_free(folder)


def test_whoever_is_refused_leaves_nothing_open(locks, folder, tmp_path):
    locks.hold_folder(folder)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "lock").write_text("1234567890, of a process of before\n")
    locks.hold_state(tmp_path / "state")
    before = open_files()
    assert not is_free(folder)
    with pytest.raises(LockedError, match=rf"process {os.getpid()}\)"):
        Locks().hold_state(tmp_path / "state")
    assert open_files() == before


def test_another_folder_in_the_place_of_the_first_is_locked_instead_of_it(locks, folder, tmp_path):
    locks.hold_folder(folder)
    folder.rename(tmp_path / "aside")
    folder.mkdir()
    locks.hold_folder(folder)
    assert is_free(tmp_path / "aside")
    assert not is_free(folder)


def test_a_share_that_died_and_is_mounted_again_is_locked_anew(locks, folder, tmp_path, dies):
    locks.hold_folder(folder)
    before = open_files()
    dies(locks._held[folder])
    folder.rename(tmp_path / "aside")
    folder.mkdir()
    locks.hold_folder(folder)
    assert not is_free(folder)
    assert open_files() == before


def test_a_share_that_died_keeps_no_other_folder_from_being_locked(locks, folder, tmp_path, dies):
    locks.hold_folder(folder)
    dies(locks._held[folder])
    (tmp_path / "other").mkdir()
    locks.hold_folder(tmp_path / "other")
    assert not is_free(tmp_path / "other")


def test_a_folder_with_two_names_is_kept_by_either(locks, folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    locks.hold_folder(folder)
    locks.hold_folder(tmp_path / "link")
    locks.keep_folders([tmp_path / "link"])
    assert not is_free(folder)
    locks.keep_folders([])
    assert is_free(folder)


def test_who_lets_go_of_folders_keeps_the_state(locks, folder, tmp_path):
    locks.hold_state(tmp_path / "state")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    locks.hold_folder(folder)
    locks.keep_folders([])
    assert is_free(folder)
    with pytest.raises(LockedError):
        Locks().hold_state(tmp_path / "state")
