"""Painted photos: gone from their folder only when they are safe, and nobody's else with them."""

import contextlib
import errno
import os
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from stylewatch.domain import Identity
from stylewatch.errors import LedgerError
from stylewatch.folders import contents, painted


def photo_in(folder, name="sub/a.jpg", data=b"photo"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Path(name), Identity.of(path.lstat())


def test_after_move_mirrors_sub_folders_and_replaces_nothing(tmp_path):
    photo, identity = photo_in(tmp_path / "in")
    (tmp_path / "done/sub").mkdir(parents=True)
    (tmp_path / "done/sub/a.jpg").write_bytes(b"other")
    assert painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity)
    assert (tmp_path / "done/sub/a~2.jpg").read_bytes() == b"photo"
    assert (tmp_path / "done/sub/a.jpg").read_bytes() == b"other"
    assert not (tmp_path / "in" / photo).exists()


def test_a_photo_with_the_longest_name_goes_beside_another_of_that_name(tmp_path):
    photo, identity = photo_in(tmp_path / "in", f"{'é' * 125}a.jpg")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / photo).write_bytes(b"other")
    assert painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity)
    assert (tmp_path / "done" / f"{'é' * 124}~2.jpg").read_bytes() == b"photo"
    assert (tmp_path / "done" / photo).read_bytes() == b"other"


def test_a_photo_that_would_be_moved_to_where_it_lies_stays(tmp_path):
    photo, identity = photo_in(tmp_path / "in")
    (tmp_path / "done").symlink_to(tmp_path / "in")
    with pytest.raises(OSError, match="in/sub leads back"):
        painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity)
    assert (tmp_path / "in" / photo).read_bytes() == b"photo"


@pytest.mark.parametrize("action", ["delete", Path("done")])
def test_a_photo_that_has_changed_since_is_not_touched(tmp_path, action):
    photo, identity = photo_in(tmp_path / "in")
    (tmp_path / "in" / photo).write_bytes(b"a newer version")
    action = action if action == "delete" else tmp_path / action
    assert not painted.apply_after(action, tmp_path / "in", photo, identity)
    assert (tmp_path / "in" / photo).read_bytes() == b"a newer version"


@pytest.mark.parametrize("action", ["delete", Path("done")])
def test_a_photo_that_a_share_still_takes_for_the_old_one_is_not_touched(
    tmp_path, monkeypatch, action
):
    """NFS answers a look at a name from memory, and asks its server when a file is opened."""
    photo, identity = photo_in(tmp_path / "in")
    source, real = tmp_path / "in" / photo, Path.lstat
    before = real(source)

    def remembered(path):
        return before if path.name == source.name else real(path)

    source.write_bytes(b"a newer version")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "lstat", remembered)
        action = action if action == "delete" else tmp_path / action
        assert not painted.apply_after(action, tmp_path / "in", photo, identity)
    assert source.read_bytes() == b"a newer version"


@pytest.mark.parametrize("newer", [b"a newer version", None])
def test_a_photo_that_comes_while_the_old_one_is_moved_is_not_deleted(tmp_path, monkeypatch, newer):
    photo, identity = photo_in(tmp_path / "in")
    source = tmp_path / "in" / photo
    (tmp_path / "done" / photo).parent.mkdir(parents=True)
    real = painted.sync_folder

    def somebody_is_quick(folder):
        real(folder)
        if folder.resolve() != (tmp_path / "done" / photo).parent:
            return
        source.unlink(missing_ok=True)
        if newer:
            source.write_bytes(newer)

    monkeypatch.setattr(painted, "sync_folder", somebody_is_quick)
    painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity)
    assert (tmp_path / "done" / photo).read_bytes() == b"photo"
    assert source.exists() is bool(newer)


def test_a_photo_is_not_moved_through_a_link_among_the_moved_photos(tmp_path):
    photo, identity = photo_in(tmp_path / "in")
    for place in ("done", "private"):
        (tmp_path / place).mkdir()
    (tmp_path / "done/sub").symlink_to(tmp_path / "private")
    with pytest.raises(OSError, match="done/sub can only be reached by a link"):
        painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity)
    assert list((tmp_path / "private").iterdir()) == []
    assert (tmp_path / "in" / photo).read_bytes() == b"photo"


@pytest.mark.parametrize("action", ["delete", Path("done")])
@pytest.mark.parametrize("swapped", ["before", "behind the check"])
def test_where_a_link_takes_the_place_of_its_folder_no_file_behind_it_is_touched(
    tmp_path, monkeypatch, action, swapped
):
    """Whoever may put photos there may also do that, at any moment."""
    photo, identity = photo_in(tmp_path / "in")
    private, _ = photo_in(tmp_path / "private", "a.jpg", b"private")
    real = painted._unchanged

    def swap():
        (tmp_path / "in/sub").rename(tmp_path / "in/aside")
        (tmp_path / "in/sub").symlink_to(tmp_path / "private")

    def unchanged(*arguments):
        found = real(*arguments)
        if swapped != "before":
            swap()
        return found

    monkeypatch.setattr(painted, "_unchanged", unchanged)
    if swapped == "before":
        swap()
    action = action if action == "delete" else tmp_path / action
    acted = painted.apply_after(action, tmp_path / "in", photo, identity)
    assert acted is (swapped != "before")
    assert (tmp_path / "private" / private).read_bytes() == b"private"
    moved = [path.read_bytes() for path in tmp_path.glob("done/**/*.jpg")]
    assert moved == ([b"photo"] if acted and action != "delete" else [])


@pytest.fixture
def other_device(monkeypatch):
    """Photos can't be linked, as to another file system."""
    real = os.link

    def link(source, *rest, **options):
        if str(source).endswith("a.jpg"):
            raise OSError(18, "cross-device")
        return real(source, *rest, **options)

    monkeypatch.setattr(os, "link", link)


@pytest.mark.usefixtures("other_device")
def test_a_photo_with_the_longest_name_is_moved_to_another_file_system(tmp_path, monkeypatch):
    """One that keeps no rights, as FAT."""

    def refused(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refused)
    photo, identity = photo_in(tmp_path / "in", "x" * 250 + "a.jpg")
    assert painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity)
    assert (tmp_path / "done" / photo).read_bytes() == b"photo"
    assert not (tmp_path / "in" / photo).exists()


@pytest.mark.usefixtures("other_device")
def test_moving_to_another_file_system_is_a_verified_copy(tmp_path):
    photo, identity = photo_in(tmp_path / "in")
    assert painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity)
    assert (tmp_path / "done" / photo).read_bytes() == b"photo"
    assert [p.name for p in (tmp_path / "done/sub").iterdir()] == ["a.jpg"]


@pytest.mark.usefixtures("other_device")
def test_a_photo_whose_name_the_other_disk_can_t_hold_is_not_copied_for_nothing(
    tmp_path, monkeypatch
):
    """FAT wants no colon."""
    photo, identity = photo_in(tmp_path / "in", "12:30 a.jpg")
    real = os.open

    def fat(path, flags, *rest, **more):
        if flags & os.O_CREAT and ":" in os.fsdecode(path):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(path, flags, *rest, **more)

    copy = Mock()
    monkeypatch.setattr(os, "open", fat)
    monkeypatch.setattr(painted.shutil, "copyfileobj", copy)
    with pytest.raises(OSError, match="Invalid argument"):
        painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity)
    assert copy.mock_calls == []


@pytest.mark.usefixtures("other_device")
def test_a_private_photo_is_private_while_it_is_copied(tmp_path, monkeypatch):
    photo, _ = photo_in(tmp_path / "in")
    source, seen, real = tmp_path / "in" / photo, [], painted.shutil.copyfileobj
    source.chmod(0o600)

    def copy(one, other):
        seen.append(os.fstat(other.fileno()).st_mode & 0o777)
        real(one, other)

    monkeypatch.setattr(painted.shutil, "copyfileobj", copy)
    identity = Identity.of(source.lstat())
    assert painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity)
    assert seen == [0o600]


@pytest.mark.usefixtures("other_device")
def test_a_copy_that_is_not_the_photo_is_no_copy(tmp_path, monkeypatch):
    photo, identity = photo_in(tmp_path / "in")
    monkeypatch.setattr(painted.shutil, "copyfileobj", lambda _, copy: copy.write(b"phot0"))
    with pytest.raises(OSError, match="differs"):
        painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity)
    assert list((tmp_path / "done/sub").iterdir()) == []
    assert (tmp_path / "in" / photo).read_bytes() == b"photo"


@pytest.mark.usefixtures("other_device")
def test_of_a_photo_that_changes_while_it_is_copied_the_copy_goes(tmp_path, monkeypatch):
    photo, identity = photo_in(tmp_path / "in")
    real = painted.rename_exclusively

    def rename(temporary, goal):
        real(temporary, goal)
        (tmp_path / "in" / photo).write_bytes(b"newer")

    monkeypatch.setattr(painted, "rename_exclusively", rename)
    painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity)
    assert list((tmp_path / "done/sub").iterdir()) == []
    assert (tmp_path / "in" / photo).read_bytes() == b"newer"


def test_a_photo_that_is_not_to_be_moved_after_all_stays(tmp_path):
    photo, identity = photo_in(tmp_path / "in")
    away = Mock(side_effect=LedgerError("The ledger can't be read"))
    with pytest.raises(LedgerError):
        painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity, away)
    assert (tmp_path / "in" / photo).read_bytes() == b"photo"
    assert list((tmp_path / "done/sub").iterdir()) == []


@pytest.mark.parametrize("where", ["on this disk", "on another"])
def test_a_photo_is_taken_away_only_when_it_is_on_disk_elsewhere(tmp_path, steps, where, request):
    if where == "on another":
        request.getfixturevalue("other_device")
    photo, identity = photo_in(tmp_path / "in")
    source, goal = tmp_path / "in" / photo, tmp_path / "done" / photo
    goal.parent.mkdir(parents=True)
    assert painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity)
    (what, there), *rest = steps
    assert (what, there.parent) == ("name" if where == "on this disk" else "sync", goal.parent)
    assert rest == [("sync", goal.parent), ("remove", source), ("sync", source.parent)]


@pytest.mark.usefixtures("other_device")
def test_two_daemons_that_move_photos_of_one_name_to_one_place_lose_none(tmp_path, monkeypatch):
    """The second comes when the first has made sure of its copy, which lies there hidden."""
    done, real = tmp_path / "done", painted.rename_exclusively
    mine, identity = photo_in(tmp_path / "in")
    steps = []

    def rename(temporary, goal):
        steps.append(partial(real, temporary, goal))
        if len(steps) == 1:
            second = photo_in(tmp_path / "theirs", data=b"theirs")
            with contextlib.suppress(OSError):  # it tries again
                painted.apply_after(done, tmp_path / "theirs", *second)
        else:
            steps[0]()
            steps[1]()

    monkeypatch.setattr(painted, "rename_exclusively", rename)
    painted.apply_after(done, tmp_path / "in", mine, identity)
    monkeypatch.undo()
    everywhere = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(everywhere) == [b"photo", b"theirs"]


@pytest.mark.usefixtures("other_device")
def test_a_half_copy_that_a_kill_left_is_made_anew(tmp_path, monkeypatch):
    photo, identity = photo_in(tmp_path / "in")
    with monkeypatch.context() as patched:
        patched.setattr(painted, "removed_on_error", contextlib.nullcontext)
        patched.setattr(painted, "rename_exclusively", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity)
    assert len(list((tmp_path / "done/sub").iterdir())) == 1
    assert painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity)
    assert [path.name for path in (tmp_path / "done/sub").iterdir()] == ["a.jpg"]


@pytest.mark.usefixtures("other_device")
@pytest.mark.parametrize("allowed", [True, False])
def test_a_photo_that_is_copied_keeps_its_owner_where_it_may(tmp_path, monkeypatch, allowed):
    chown = Mock(side_effect=None if allowed else PermissionError(1, "not permitted"))
    monkeypatch.setattr(os, "chown", chown)
    photo, identity = photo_in(tmp_path / "in")
    owner = (tmp_path / "in" / photo).stat()
    assert painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity)
    assert chown.call_args.args[1:] == (owner.st_uid, owner.st_gid)
    assert (tmp_path / "done" / photo).read_bytes() == b"photo"


def test_of_photos_that_were_moved_before_only_what_may_be_the_same_is_read(tmp_path, monkeypatch):
    for number in range(5):
        photo, identity = photo_in(tmp_path / "in", "a.jpg", b"earlier" * (number + 1))
        painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity)
    opened, real = [], contents.open_regular
    monkeypatch.setattr(
        contents, "open_regular", lambda path: opened.append(path.name) or real(path)
    )
    photo, identity = photo_in(tmp_path / "in", "a.jpg", b"picture")
    painted.apply_after(tmp_path / "done", tmp_path / "in", photo, identity)
    assert opened == ["a.jpg", "a.jpg"]
    assert (tmp_path / "done/a~6.jpg").read_bytes() == b"picture"
