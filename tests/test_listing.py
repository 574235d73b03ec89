"""A listing tells every new and changed name once, and never leaves its root."""

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylewatch import places
from stylewatch.domain import Identity
from stylewatch.folders import listing as listings
from stylewatch.folders.listing import Listing, is_temporary, open_below

MOUNTS = r"""
23 28 0:22 / /sys rw,relatime shared:7 - sysfs sysfs rw
28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
90 28 0:50 / /home/me/My\040Photos rw,relatime shared:2 - nfs4 nas:/photos rw,vers=4.2
91 28 0:51 / /mnt/smb rw,relatime - smb3 //nas/photos rw,vers=3.1.1,serverino,mapposix
92 28 0:52 / /home/me/cloud rw,nosuid - fuse.rclone remote: rw
93 28 8:17 / /media/stick rw,nosuid - fuseblk /dev/sdb1 rw
94 28 0:54 / /host rw - 9p host rw
95 28 0:55 / /cifs rw - cifs //old/share rw,vers=1.0,serverino
96 28 0:56 / /mnt/dav rw,nosuid - fuse https://cloud/dav rw
97 28 8:33 / /media/card rw,nosuid - exfat /dev/sdc1 rw
98 28 8:49 / /media/old\040card rw,nosuid - vfat /dev/sdd1 rw
99 28 0:57 / /mnt/ssh rw,nosuid - fuse.sshfs me@nas:photos rw
100 28 0:58 / /mnt/router rw - cifs //router/stick rw,vers=3.1.1,uid=1000,mapposix
101 28 0:59 / /run/user/1000/gvfs rw,nosuid - fuse.gvfsd-fuse gvfsd-fuse rw,user_id=1000
102 28 0:60 / /media/sf_photos rw - vboxsf photos rw
103 28 0:61 / /mnt/old rw,relatime - nfs nas:/old rw,vers=3
""".strip()


def tell(listing, **options):
    return [found for found in listing.walk([""], full=True, **options) if found]


def told(listing):
    return sorted(str(found.path) for found in tell(listing))


def test_a_folder_whose_disk_fails_while_it_is_listed_has_lost_nothing(tmp_path, monkeypatch):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    listing, scandir = Listing("in", tmp_path), os.scandir
    assert told(listing) == ["a.jpg", "b.jpg"]

    @contextlib.contextmanager
    def fails(folder):
        def some(entries):
            yield next(entries)
            raise OSError(errno.EIO, "Input/output error")

        with scandir(folder) as entries:
            yield some(entries)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", fails)
        assert told(listing) == []
    assert (listing.missed, listing.unreadable) == (set(), {"": "Input/output error"})
    assert told(listing) == []
    assert (listing.missed, listing.unreadable) == (set(), {})


@pytest.fixture
def listing(tmp_path):
    return Listing("in", tmp_path)


def test_names_that_say_they_are_not_finished():
    for name in [
        ".hidden", "._mac", "~$office.jpg", "photo.jpg.part", "x.TMP", "x.partial", "x.filepart",
        "x.crdownload", "x.download", "x.tacitpart", "backup.jpg~", ".nfs0001", ".a\nb",
        "a.jpg_exiftool_tmp", "a.jpg.nextcloud", "$RECYCLE.BIN", "Thumbs.db", "@eaDir", "#recycle",
        "@Recycle", "#snapshot", "~snapshot", "@Recently-Snapshot", "System Volume Information",
        "lost+found",
    ]:  # fmt: skip
        assert is_temporary(name), name
    for name in [
        "a.jpg", "part.jpg", "~.jpg", "tmp", "x.part.jpg", "$~.jpg", "a.tmp.b", "\n.jpg", "@.jpg",
        "snapshot", "lost found",
    ]:  # fmt: skip
        assert not is_temporary(name), name


def test_network_file_systems_are_known_by_their_device(tmp_path, monkeypatch):
    (tmp_path / "mountinfo").write_text(MOUNTS)
    monkeypatch.setattr(places, "MOUNTS", tmp_path / "mountinfo")
    expected = {os.makedev(0, minor) for minor in (50, 51, 52, 54, 55, 56, 57, 58, 59, 60, 61)}
    assert places.network_devices() == expected


def test_so_are_those_that_make_up_the_numbers_of_files(tmp_path, monkeypatch):
    (tmp_path / "mountinfo").write_text(MOUNTS)
    monkeypatch.setattr(places, "MOUNTS", tmp_path / "mountinfo")
    expected = {os.makedev(8, 33), os.makedev(8, 49)} | {os.makedev(0, n) for n in (57, 58, 59, 60)}
    assert places.numberless_devices() == expected


def test_each_name_is_told_once_until_it_changes(listing, tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.jpg", "sub/b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (found, _) = sorted(tell(listing), key=lambda found: found.path)
    assert (found.folder, found.root, found.path) == ("in", tmp_path, Path("a.jpg"))
    assert Identity.of(found.stat) == Identity.of((tmp_path / "a.jpg").stat())
    assert not found.closed
    assert not found.ignored
    assert told(listing) == []
    (tmp_path / "sub/b.jpg").write_bytes(b"xy")
    assert told(listing) == ["sub/b.jpg"]
    listing.forget("a.jpg")
    assert told(listing) == ["a.jpg"]


def test_only_the_names_asked_for_are_looked_at(listing, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    assert [str(found.path) for found in listing.look({"a.jpg": False})] == ["a.jpg"]
    assert list(listing.look({"a.jpg": False})) == []
    (closed,) = listing.look({"a.jpg": True})  # news of its writer, though unchanged
    assert closed.closed
    assert told(listing) == ["b.jpg"]
    assert list(listing.look({"gone.jpg": True, "no/such.jpg": True, ".x": True})) == []


def test_temporary_names_and_hidden_folders_are_passed_over(listing, tmp_path):
    (tmp_path / ".cache").mkdir()
    for name in ("a.jpg.part", ".b.jpg", ".cache/c.jpg"):
        (tmp_path / name).write_bytes(b"x")
    assert told(listing) == []
    assert list(listing.look(dict.fromkeys(("a.jpg.part", ".b.jpg", ".cache/c.jpg"), True))) == []
    assert [found for found in listing.walk([".cache"]) if found] == []


def test_special_files_are_told_once_with_a_reason(listing, tmp_path):
    (tmp_path / "real.jpg").write_bytes(b"x")
    (tmp_path / "link.jpg").symlink_to("real.jpg")
    os.mkfifo(tmp_path / "fifo.jpg")
    os.mknod(tmp_path / "socket.jpg", stat.S_IFSOCK | 0o600)
    reasons = {found.path.stem: found.ignored for found in tell(listing)}
    assert reasons == {"real": "", "link": "symlink", "fifo": "fifo", "socket": "socket"}
    assert told(listing) == []


def test_links_to_folders_are_not_followed(listing, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "a.jpg").write_bytes(b"x")
    (inner / "loop").symlink_to("..")
    (inner / "self").symlink_to("self")
    (tmp_path / "etc").symlink_to("/etc")
    assert told(listing) == ["etc", "inner/a.jpg", "inner/loop", "inner/self"]
    assert list(listing.look({"etc/passwd": True, "inner/loop/inner/a.jpg": True})) == []
    assert [found for found in listing.walk(["etc"]) if found] == []


def test_a_file_below_is_opened_step_by_step_and_never_through_a_link(tmp_path):
    (tmp_path / "sub/deep").mkdir(parents=True)
    (tmp_path / "sub/deep/a.jpg").write_bytes(b"x")
    (tmp_path / "link").symlink_to("sub")
    (tmp_path / "sub/link.jpg").symlink_to("deep/a.jpg")
    descriptor = open_below(tmp_path, Path("sub/deep/a.jpg"))
    assert os.read(descriptor, 9) == b"x"
    os.close(descriptor)
    before = os.listdir("/proc/self/fd")
    for name in ("link/deep/a.jpg", "sub/link.jpg", "sub/none.jpg", "none/a.jpg"):
        with pytest.raises(OSError):
            open_below(tmp_path, name)
    assert os.listdir("/proc/self/fd") == before


def test_the_root_itself_may_be_reached_by_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.jpg").write_bytes(b"x")
    (tmp_path / "root").symlink_to("real")
    assert told(Listing("in", tmp_path / "root")) == ["a.jpg"]


def test_names_are_bytes(listing, tmp_path):
    names = [b"\xff\xfe.jpg", "e\u0301.jpg".encode(), "\u00e9.jpg".encode(), b"new\nline.jpg"]
    names += [b"n" * 251 + b".jpg", "😀.jpg".encode(), b"A.jpg", b"a.jpg"]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    assert {os.fsencode(found.path) for found in tell(listing)} == set(names)


def test_folders_that_are_gone_are_forgotten(listing, tmp_path):
    (tmp_path / "sub/deep").mkdir(parents=True)
    told(listing)
    assert set(listing.inodes) == {"", "sub", "sub/deep"}
    shutil.rmtree(tmp_path / "sub")
    told(listing)
    assert set(listing.inodes) == {""}


def test_a_file_that_only_the_scan_found_is_a_surprise(listing, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    told(listing)
    assert not listing.surprise  # all was new
    (tmp_path / "b.jpg").write_bytes(b"x")
    list(listing.look({"b.jpg": True}))
    told(listing)
    assert not listing.surprise  # an event had told of it
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/c.jpg").write_bytes(b"x")
    told(listing)
    assert not listing.surprise  # new with its folder
    (tmp_path / "sub/d.jpg").write_bytes(b"x")
    told(listing)
    assert listing.surprise == "sub/d.jpg"


def test_a_file_that_was_looked_at_while_its_folder_was_listed_is_no_surprise(listing, tmp_path):
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    told(listing)
    walk = listing.walk([""], full=True)
    next(walk)  # the system has listed all names by now
    (tmp_path / "new.jpg").write_bytes(b"x")
    assert len(list(listing.look({"new.jpg": True}))) == 1
    assert not [found for found in walk if found]
    assert told(listing) == []
    assert not listing.surprise


def test_a_walk_can_pause_and_holds_few_descriptors(listing, tmp_path):
    for number in range(50):
        (tmp_path / f"{number}").mkdir()
    walk = listing.walk([""], full=True)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(60):
        next(walk)
        assert len(os.listdir("/proc/self/fd")) <= before + 3
    walk.close()
    assert len(os.listdir("/proc/self/fd")) == before


def age(folder):
    """As if nothing had happened in it for a while: clocks of folders may be coarse."""
    os.utime(folder, ns=(1, 1))


def test_what_comes_and_goes_is_told_by_the_folders_that_have_changed(listing, tmp_path):
    for name in ("a.jpg", "sub/b.jpg", "sub/deep/c.jpg", "other/d.jpg", "other/e.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for folder in ("", "sub", "sub/deep", "other"):
        age(tmp_path / folder)
    told(listing)
    assert list(listing.walk_changed()) == [None] * 4  # each folder, and no file in it
    (tmp_path / "sub/b.jpg").write_bytes(b"longer")
    (tmp_path / "sub/deep/new.jpg").write_bytes(b"x")
    (tmp_path / "sub/fresh/inside").mkdir(parents=True)
    (tmp_path / "sub/fresh/inside/f.jpg").write_bytes(b"x")
    (tmp_path / "other/d.jpg").unlink()
    found = [str(each.path) for each in listing.walk_changed() if each]
    assert sorted(found) == ["sub/b.jpg", "sub/deep/new.jpg", "sub/fresh/inside/f.jpg"]
    assert listing.missed == {"other/d.jpg"}
    shutil.rmtree(tmp_path / "sub/deep")
    (tmp_path / "other").rename(tmp_path / "moved")
    assert [str(each.path) for each in listing.walk_changed() if each] == ["moved/e.jpg"]
    assert set(listing.inodes) == {"", "sub", "sub/fresh", "sub/fresh/inside", "moved"}
    assert listing.missed >= {"sub/deep/c.jpg", "sub/deep/new.jpg", "other/e.jpg"}


@pytest.mark.parametrize("folder", ["", "new"])
@pytest.mark.parametrize("by_a_scan", [True, False])
def test_what_comes_in_the_same_tick_of_a_coarse_clock_as_the_one_before_is_told(
    listing, tmp_path, monkeypatch, by_a_scan, folder
):
    """FAT's ticks are of two seconds, those of SFTP and of old disks of one."""
    real, ticks = listings._mark, 0
    monkeypatch.setattr(
        listings, "_mark", lambda seen: ticks if stat.S_ISDIR(seen.st_mode) else real(seen)
    )
    assert told(listing) == []
    ticks += 1
    (tmp_path / folder).mkdir(exist_ok=True)
    for name, walk in (
        ("a.jpg", listing.walk([""], full=True) if by_a_scan else listing.walk_changed()),
        ("b.jpg", listing.walk_changed()),
    ):
        (tmp_path / folder / name).write_bytes(b"x")
        assert [each.path for each in walk if each] == [Path(folder, name)]
    (tmp_path / folder / "b.jpg").write_bytes(b"longer")
    assert list(listing.walk_changed()) == [None] * len(listing.inodes)  # not listed any more


def test_a_file_that_was_changed_in_place_is_told_by_a_full_walk(listing, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    age(tmp_path)
    told(listing)
    (tmp_path / "a.jpg").write_bytes(b"longer")
    assert list(listing.walk_changed()) == [None]
    assert told(listing) == ["a.jpg"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as another user")
def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    check = (
        "import os, pathlib, tempfile, shutil; from stylewatch.folders.listing import Listing\n"
        "os.setuid(65534)\n"
        "root = pathlib.Path(tempfile.mkdtemp())\n"
        "for name in ('locked', 'open'): (root / name).mkdir(); (root / name / 'a.jpg').touch()\n"
        "(root / 'locked').chmod(0)\n"
        "listing = Listing('in', root)\n"
        "assert [str(f.path) for f in listing.walk([''], full=True) if f] == ['open/a.jpg']\n"
        "assert listing.unreadable == {'locked': 'Permission denied'}\n"
        "(root / 'locked').chmod(0o700)\n"
        "assert [str(f.path) for f in listing.walk([''], full=True) if f] == ['locked/a.jpg']\n"
        "assert listing.unreadable == {}\n"
        "shutil.rmtree(root)"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=30)


def test_ten_thousand_files_cost_little_memory_and_time(listing, tmp_path, pace):
    for folder in range(20):
        (tmp_path / f"{folder}").mkdir()
        for number in range(500):
            path = tmp_path / f"{folder}/IMG_20261123_{number:06}.jpg"
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    tracemalloc.start()
    assert sum(1 for found in listing.walk([""], full=True) if found) == 10_000
    memory, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert memory < 5e6
    started = time.process_time()
    assert told(listing) == []
    assert time.process_time() - started < 0.15 * pace  # of the 30 s between two scans: 0.5 %


NAMES = ["a.jpg", "b.jpg", "x/a.jpg", "x/b.jpg", "x/y/a.jpg", "z/a.jpg"]
STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES)),
    st.tuples(st.just("look"), st.sampled_from(NAMES)),
    st.tuples(st.just("remove"), st.sampled_from(NAMES)),
    st.tuples(st.just("rename"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("move folder"), st.sampled_from(["x", "x/y", "z"]), st.sampled_from("zw")),
    st.tuples(st.just("walk"), st.integers(0, 12)),
    st.tuples(st.just("walk changed"), st.none()),
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=25))
def test_whatever_happens_meanwhile_each_file_s_last_state_is_told(tmp_path, steps):
    """Files and folders come, change, move and go in the middle of walks that pause."""
    root = tmp_path / "root"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    listing, seen, walk = Listing("in", root), {}, iter(())
    for number, (kind, *what) in enumerate(steps):
        path = root / str(what[0])
        if kind == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * number)
        elif kind == "remove":
            path.unlink(missing_ok=True)
        elif kind == "rename" and path.exists() and (root / what[1]).parent.exists():
            path.rename(root / what[1])
        elif kind == "move folder" and path.exists() and not (root / what[1]).exists():
            path.rename(root / what[1])
        elif kind == "look":
            found = listing.look({what[0]: False})
            seen |= {str(each.path): Identity.of(each.stat) for each in found}
        elif kind == "walk":
            for _ in range(what[0]):
                try:
                    each = next(walk)
                except StopIteration:
                    walk = listing.walk([""], full=True)
                    continue
                seen |= {str(each.path): Identity.of(each.stat)} if each else {}
        elif kind == "walk changed":
            for each in [*walk, *listing.walk_changed()]:
                seen |= {str(each.path): Identity.of(each.stat)} if each else {}
    for each in [*walk, *listing.walk([""], full=True)]:
        seen |= {str(each.path): Identity.of(each.stat)} if each else {}
    for path in root.rglob("*.jpg"):
        assert seen[str(path.relative_to(root))] == Identity.of(path.stat())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *(("IMG_1.NEF", "raw"), ("a.dng", "raw"), ("b.CR2", "raw"), ("film.MOV", "no-photo")),
        *(("clip.MTS", "no-photo"), ("clip.mkv", "no-photo"), ("a.jpg.txt", "no-photo")),
        *(("notes.txt", "no-photo"), ("IMG_1.xmp", "no-photo"), ("IMG_1.JPG.xmp", "no-photo")),
        *(("IMG_1.NEF.nksc", "no-photo"), ("IMG_1.CR3.cos", "no-photo"), ("M0100.CTG", "no-photo")),
        *(("IMG_1.JPG_original", "no-photo"), ("an_original", ""), ("my.first_original.jpg", "")),
        *(("a.jpg", ""), ("a.JPEG", ""), ("a.heic", ""), ("a.tif", ""), ("a.webp", "")),
        *(("noname", ""), ("a.strange", ""), ("nef", ""), ("a.bmp", ""), ("a.gif", "")),
    ],
)
def test_names_that_are_no_photos(tmp_path, name, why):
    (tmp_path / name).write_bytes(b"x")
    (found,) = (found for found in Listing("in", tmp_path).walk([""]) if found)
    assert found.ignored == why
