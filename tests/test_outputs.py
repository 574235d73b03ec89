"""Results on disk: whole or absent, never in place of another's file, never outside."""

import errno
import hashlib
import os
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
from faults.steps import STEPS
from hypothesis import given, settings
from hypothesis import strategies as st

from stylewatch.domain import FailureKind
from stylewatch.errors import OutputError, OutputFullError
from stylewatch.folders import contents, naming, outputs, space


def written(folder, data=b"picture", name="a--soft", job_id=1):
    target = folder / name
    return outputs.write_temporary(data, target, ".jpg", job_id), target


def test_a_temporary_file_is_hidden_and_publishing_leaves_only_the_result(tmp_path):
    temporary, target = written(tmp_path)
    assert temporary.name.startswith(".")
    assert temporary.name.endswith(naming.TEMPORARY_SUFFIX)
    final = outputs.publish(temporary, target, ".jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["a--soft.jpg"]
    assert final.read_bytes() == b"picture"


def test_a_result_is_on_disk_before_it_has_its_name_and_its_name_when_that_is_told(tmp_path, steps):
    temporary, target = written(tmp_path)
    final = outputs.publish(temporary, target, ".jpg")
    whole, named = ("sync", temporary), ("name", final)
    assert steps == [whole, named, ("remove", temporary), ("sync", tmp_path)]
    steps.clear()
    sha256 = hashlib.sha256(b"picture").hexdigest()
    assert outputs.find_published(temporary, target, ".jpg", sha256) == final
    assert steps == [("sync", tmp_path)], "a kill came perhaps before that"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_umask_decides_who_may_read_and_write_a_result(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        final = outputs.publish(*written(tmp_path), ".jpg")
    finally:
        os.umask(before)
    assert stat.S_IMODE(final.stat().st_mode) == mode


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_share_that_can_t_force_a_folder_to_disk_takes_results_a_broken_disk_does_not(
    tmp_path, monkeypatch, code
):
    temporary, target = written(tmp_path)
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(code, os.strerror(code))))
    if code == errno.EIO:
        with pytest.raises(OutputError, match="Input/output error"):
            outputs.publish(temporary, target, ".jpg")
    else:
        assert outputs.publish(temporary, target, ".jpg").read_bytes() == b"picture"


def test_a_foreign_file_is_never_replaced(tmp_path):
    (tmp_path / "a--soft.jpg").write_bytes(b"mine")
    temporary, target = written(tmp_path)
    assert outputs.publish(temporary, target, ".jpg").name == "a--soft~2.jpg"
    assert (tmp_path / "a--soft.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_what_is_no_file_keeps_its_name(tmp_path, kind):
    name = tmp_path / "a--soft.jpg"
    make = {
        "folder": name.mkdir,
        "link": lambda: name.symlink_to("x"),
        "pipe": lambda: os.mkfifo(name),
    }
    make[kind]()
    before = name.lstat()
    temporary, target = written(tmp_path)
    final = outputs.publish(temporary, target, ".jpg", ours=lambda *_: True)
    assert final.name == "a--soft~2.jpg"
    assert name.lstat() == before
    sha256 = hashlib.sha256(b"picture").hexdigest()
    assert outputs.find_published(temporary, target, ".jpg", sha256) == final


def test_another_photo_s_result_of_the_same_bytes_is_not_taken_for_ours(tmp_path):
    first, target = written(tmp_path)
    theirs = outputs.publish(first, target, ".jpg")
    temporary, _ = written(tmp_path, job_id=2)
    sha256 = hashlib.sha256(b"picture").hexdigest()
    find = partial(outputs.find_published, temporary, target, ".jpg", sha256)
    assert find(taken=lambda path: path == theirs) is None
    assert temporary.exists()
    assert find() == theirs


def test_an_output_whose_disk_is_away_is_no_lack_of_rights(tmp_path):
    (tmp_path / "mount").write_bytes(b"")  # nothing can be made below it, not even by root
    output = tmp_path / "mount" / "out"
    with pytest.raises(OutputFullError, match="Is its disk there") as caught:
        outputs.prepare(output, output / "a--soft")
    assert caught.value.reason == "away"


def test_of_many_results_of_one_name_only_those_that_may_be_it_are_read(tmp_path, monkeypatch):
    for number in range(5):
        outputs.publish(*written(tmp_path, b"earlier" * number), ".jpg")
    opened, hashed = [], []
    open_regular, whole = contents.open_regular, contents.file_hash
    monkeypatch.setattr(contents, "file_hash", lambda path: hashed.append(path) or whole(path))
    monkeypatch.setattr(
        contents, "open_regular", lambda path: opened.append(path.name) or open_regular(path)
    )
    temporary, target = written(tmp_path, b"picture")
    sha256 = hashlib.sha256(b"picture").hexdigest()
    assert outputs.find_published(temporary, target, ".jpg", sha256) is None
    assert opened == [temporary.name, "a--soft~2.jpg"]  # seven bytes, too
    assert outputs.publish(temporary, target, ".jpg").name == "a--soft~6.jpg"
    assert hashed == [], "where the first bytes differ, the rest is left unread"


def test_a_name_that_a_share_gave_and_says_was_there_before_is_given(tmp_path, monkeypatch):
    """NFS asks again when an answer is lost, and then hears of its own first attempt."""
    real = os.link

    def link(*names, **options):
        real(*names, **options)
        real(*names, **options)

    monkeypatch.setattr(os, "link", link)
    temporary, target = written(tmp_path)
    assert outputs.publish(temporary, target, ".jpg").name == "a--soft.jpg"
    assert [path.name for path in tmp_path.iterdir()] == ["a--soft.jpg"]


@pytest.fixture
def blind_to_case(monkeypatch):
    """Each `img…` that is asked for is there as `IMG…`, as on FAT."""
    real = os.link

    def link(source, final, **options):
        real(source, final, **options)
        twin = final.with_name(final.name.replace("img", "IMG"))
        if not twin.exists():
            real(final, twin)

    monkeypatch.setattr(os, "link", link)
    listed = os.listdir
    monkeypatch.setattr(
        os, "listdir", lambda folder: [name for name in listed(folder) if name[:3] != "img"]
    )


@pytest.mark.usefixtures("blind_to_case")
def test_on_a_disk_that_is_blind_to_case_another_photo_s_result_is_not_shared(tmp_path):
    theirs = outputs.publish(*written(tmp_path, name="img--soft"), ".jpg")
    theirs = theirs.with_name("IMG--soft.jpg")
    temporary, target = written(tmp_path, name="img--soft", job_id=2)
    sha256 = hashlib.sha256(b"picture").hexdigest()
    find = partial(outputs.find_published, temporary, target, ".jpg", sha256)
    assert find(taken=lambda path: path == theirs) is None
    final = outputs.publish(temporary, target, ".jpg", ours=lambda path, _: path != theirs)
    assert final.name == "img--soft~2.jpg"


def test_a_folder_that_may_not_be_listed_takes_results_all_the_same(tmp_path, like_anybody):
    def publish_twice():
        for job_id in (1, 2):
            temporary, target = written(tmp_path, job_id=job_id)
            final = outputs.publish(temporary, target, ".jpg", ours=lambda *_: True)
            assert final.name == "a--soft.jpg"
        sha256 = hashlib.sha256(b"picture").hexdigest()
        assert outputs.find_published(temporary, target, ".jpg", sha256) == final

    tmp_path.chmod(0o300)
    like_anybody(publish_twice)
    tmp_path.chmod(0o700)


def test_what_can_t_be_read_now_is_not_taken_for_gone(tmp_path, monkeypatch):
    temporary, target = written(tmp_path)
    outputs.publish(temporary, target, ".jpg")

    def broken(path):
        raise OSError(5 if path.exists() else 2, "Input/output error", str(path))

    monkeypatch.setattr(contents, "file_hash", broken)
    monkeypatch.setattr(contents, "open_regular", broken)
    with pytest.raises(OSError, match="Input/output"):
        outputs.find_published(temporary, target, ".jpg", "s")
    assert outputs.find_published(temporary, target, ".jpg", "s", patient=False) is None


def test_our_own_earlier_result_is_replaced(tmp_path):
    first, target = written(tmp_path, b"first")
    outputs.publish(first, target, ".jpg")
    known = {hashlib.sha256(b"first").hexdigest()}
    second, _ = written(tmp_path, b"second")
    assert (
        outputs.publish(second, target, ".jpg", ours=lambda _, sha256: sha256 in known).name
        == "a--soft.jpg"
    )
    assert (tmp_path / "a--soft.jpg").read_bytes() == b"second"


def test_an_earlier_result_that_can_t_be_read_now_is_waited_for(tmp_path, monkeypatch):
    outputs.publish(*written(tmp_path), ".jpg")
    temporary, target = written(tmp_path, b"second", job_id=2)
    with monkeypatch.context() as patched:
        broken = Mock(side_effect=OSError(errno.EIO, os.strerror(errno.EIO)))
        patched.setattr(contents, "file_hash", broken)
        with pytest.raises(OutputError, match="Input/output error"):
            outputs.publish(temporary, target, ".jpg", ours=lambda *_: True)
    assert outputs.publish(temporary, target, ".jpg", ours=lambda *_: True).name == "a--soft.jpg"
    assert [path.name for path in tmp_path.iterdir()] == ["a--soft.jpg"]


def test_without_links_a_rename_that_does_not_replace_is_used(tmp_path, monkeypatch):
    def no_links(*_, **__):
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "a--soft.jpg").write_bytes(b"mine")
    temporary, target = written(tmp_path)
    assert outputs.publish(temporary, target, ".jpg").name == "a--soft~2.jpg"
    assert not temporary.exists()


def test_so_it_is_where_that_is_not_to_be_had_either(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", Mock(side_effect=OSError(errno.EPERM, "not permitted")))
    monkeypatch.setattr(naming.ctypes, "CDLL", Mock())  # its renameat2 fails …
    monkeypatch.setattr(naming.ctypes, "get_errno", lambda: errno.ENOSYS)  # … as on old kernels
    (tmp_path / "a--soft.jpg").write_bytes(b"mine")
    temporary, target = written(tmp_path)
    assert outputs.publish(temporary, target, ".jpg").name == "a--soft~2.jpg"
    assert (tmp_path / "a--soft.jpg").read_bytes() == b"mine"
    assert (tmp_path / "a--soft~2.jpg").read_bytes() == b"picture"


@pytest.mark.parametrize("point", [step for step in STEPS if step.startswith("outputs.")])
def test_a_kill_at_any_step_leaves_the_name_whole_or_absent(tmp_path, point):
    script = (
        "import sys; from pathlib import Path; from stylewatch.folders import outputs\n"
        "target = Path(sys.argv[1]) / 'a--soft'\n"
        "temporary = outputs.write_temporary(b'x' * 100_000, target, '.jpg', 1)\n"
        "outputs.publish(temporary, target, '.jpg')\n"
    )
    env = {**os.environ, "STYLEWATCH_FAILPOINT": point}
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=env, check=False)
    assert died.returncode == -9
    final = tmp_path / "a--soft.jpg"
    if final.exists():
        assert final.read_bytes() == b"x" * 100_000
    # the same again, as after a restart, comes to the one result
    digest = hashlib.sha256(b"x" * 100_000).hexdigest()
    temporary = tmp_path / f".a--soft.jpg.1{naming.TEMPORARY_SUFFIX}"
    if outputs.find_published(temporary, tmp_path / "a--soft", ".jpg", digest) is None:
        again, target = written(tmp_path, b"x" * 100_000)
        outputs.publish(again, target, ".jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["a--soft.jpg"]


def test_sweeping_removes_only_what_is_ours_and_not_kept(tmp_path):
    kept, _ = written(tmp_path, name="kept--soft")
    swept, _ = written(tmp_path / "sub", name="swept--soft")
    (tmp_path / "notes.sw-tmp.txt").write_text("a person's")
    outputs.sweep(tmp_path, "", keep={kept})
    assert kept.exists()
    assert not swept.exists()
    assert (tmp_path / "notes.sw-tmp.txt").exists()


def test_sweeping_goes_down_into_any_depth(tmp_path):
    deepest = tmp_path / "deep" / "/".join(["d"] * 1100)
    for place in [*reversed(deepest.parents), deepest]:
        place.mkdir(exist_ok=True)
    try:
        left, _ = written(deepest)
        outputs.sweep(tmp_path, "", keep=())
        assert not left.exists()
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "deep"], check=True)  # shutil recurses


def test_a_link_out_of_the_output_folder_is_refused(tmp_path):
    output, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    output.mkdir()
    elsewhere.mkdir()
    (output / "sub").symlink_to(elsewhere)
    with pytest.raises(OutputError, match="leads out of the output folder"):
        outputs.prepare(output, output / "sub" / "deep" / "a--soft")
    assert list(elsewhere.iterdir()) == []


@given(st.lists(st.sampled_from(["..", "a", ".", "x y", "ü", "-"]), min_size=1, max_size=6))
@settings(max_examples=60)
def test_no_path_leads_out_of_the_output_folder(tmp_path_factory, parts):
    output = tmp_path_factory.mktemp("case") / "out"
    target = output / outputs.target_name(Path(*parts, "photo.jpg"), "soft")
    try:
        outputs.prepare(output, target)
    except OutputError:
        return
    assert target.parent.resolve().is_relative_to(output.resolve())


@given(
    st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=300),
    st.sampled_from([1, 60]),
)
def test_result_names_fit_and_differ_when_photos_do(stem, times):
    stem = (stem * times).encode()[:240].decode(errors="ignore") or "x"
    if stem in {".", ".."}:
        return
    name = outputs.target_name(Path(f"{stem}.jpg"), "soft").name
    other = outputs.target_name(Path(f"{stem}!.jpg"), "soft").name
    assert len(os.fsencode(f".{name}.tiff.123456789{naming.TEMPORARY_SUFFIX}")) <= 255
    assert name != other


@pytest.mark.parametrize("start", ["", "x", "xx"])
def test_a_long_name_is_cut_between_characters(start):
    mountain = "\u5c71"  # of three bytes
    photo, preset = f"{start}{mountain * 75}.jpg", f"{start}{mountain * 50}"
    name = outputs.target_name(Path(photo), preset).name
    assert name.encode().startswith(f"{start}{mountain}".encode())


def test_a_name_that_is_no_utf_8_is_cut_too():
    name = outputs.target_name(Path(os.fsdecode(b"\xe9" * 240 + b".jpg")), "soft").name
    assert len(os.fsencode(name)) < 220
    assert os.fsencode(name).startswith(b"\xe9" * 100)


def test_too_long_a_name_is_told_with_what_to_do(tmp_path):
    with pytest.raises(OutputError, match="Give the photo, or the folder it is in, a shorter name"):
        written(tmp_path, name="x" * 250)
    with pytest.raises(OutputError, match="a shorter name"):
        outputs.prepare(tmp_path, tmp_path / ("x" * 256) / "a--soft")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EILSEQ])
def test_a_name_that_the_disk_can_t_hold_is_told_with_what_to_do(tmp_path, monkeypatch, code):
    """As exFAT and NTFS refuse a colon, and bytes that are no text."""
    real = os.open

    def refuse(path, *arguments, **more):
        if ":" in str(path):
            raise OSError(code, os.strerror(code), path)
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError, match="a plainer name: this disk can't hold it") as caught:
        written(tmp_path, name="12:30")
    assert caught.value.reason in {"einval", "eilseq"}


@pytest.mark.parametrize(
    ("kind", "codes"),
    [
        (FailureKind.PERMISSION, [errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP]),
        (FailureKind.TRANSIENT, [errno.EIO, errno.ESTALE, errno.ENOENT, errno.EHOSTUNREACH]),
        (FailureKind.TRANSIENT, [errno.EMFILE, errno.ENOMEM]),
        (FailureKind.BAD_INPUT, [errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG]),
    ],
)
def test_not_all_that_can_t_be_written_lacks_a_permission(tmp_path, monkeypatch, kind, codes):
    for code in codes:
        monkeypatch.setattr(os, "open", Mock(side_effect=OSError(code, os.strerror(code))))
        with pytest.raises(OutputError) as caught:
            written(tmp_path)
        assert (code, caught.value.failure.kind) == (code, kind)


def test_the_space_of_a_folder_is_told_wherever_it_lies(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for folder in (tmp_path, tmp_path / "new/out", tmp_path / "loop/out", tmp_path / ("x" * 256)):
        assert space.free_space(folder) > 0


def test_a_file_system_that_does_not_tell_its_size_is_not_taken_for_full(tmp_path, monkeypatch):
    """As some that programs provide (FUSE)."""
    silent = Mock(f_blocks=0, f_bavail=0, f_frsize=0)
    monkeypatch.setattr(os, "statvfs", lambda _: silent)
    space.require_room(tmp_path, 10**9)
    assert list(space.Space().look([tmp_path], 10**9, 0.0, lambda _: True)) == []


def test_an_output_waits_below_the_low_water_mark_and_goes_on_a_quarter_above_it(monkeypatch):
    out, other = Path("/out"), Path("/other")
    free, writable, waiting = {out: 100, other: 100}, [], space.Space()

    def free_space(folder):
        if folder not in free:
            raise OSError(errno.EIO, "Input/output error")
        return free[folder]

    def look(now, *outputs):
        found = waiting.look(outputs, 100, now, lambda output: output in writable)
        return [(kind, why) for _, kind, _, why in found]

    monkeypatch.setattr(space, "free_space", free_space)
    assert look(0.0, out, other) == []
    free[out] = 99
    assert look(1.0, out, other) == [("blocked", "disk-full")]
    assert waiting.paused == {out: "disk-full"}
    writable[:] = [out, other]
    free[out] = 124
    assert look(2.0, out, other) == []
    free[out] = 125
    assert look(3.0, out, other) == [("recovered", "disk-full")]
    waiting.pause(out, 9.0, "away")
    waiting.pause(other, 9.0, "forbidden")
    assert look(8.0, out, other) == [], "not before its time"
    del free[out]
    free[other] = 125
    writable.remove(other)
    assert look(9.0, out, other) == [], "one can't be asked, the other can't be written"
    assert look(10.0, out) == [("recovered", "forbidden")], "the other has left the config"
    assert waiting.paused == {out: "away"}


def test_what_is_free_is_not_rounded_up_to_what_is_wanted(monkeypatch):
    monkeypatch.setattr(space, "free_space", lambda _: 499.9e6)
    ((_, _, told, _),) = space.Space().look([Path("/out")], 500_000_000, 0.0, lambda _: True)
    assert told.startswith("/out: only 499 MB free of the 500 MB of `min_free`; ")


def test_an_unwritable_output_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError) as caught:
        written(tmp_path / "file" / "sub")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small tmpfs")
def test_a_full_disk_leaves_nothing_behind(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(OutputFullError):
            written(tmp_path, b"x" * 1_000_000)
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_two_machines_of_one_person_own_other_temporary_files(tmp_path, monkeypatch):
    here = outputs.owner_of(tmp_path)
    assert here == outputs.owner_of(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"another")
    there = outputs.owner_of(tmp_path)

    def unreadable(path):
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(Path, "read_bytes", unreadable)
    nameless = outputs.owner_of(tmp_path)
    assert len({here, there, nameless}) == 3
    monkeypatch.setattr(os, "uname", lambda: Mock(nodename="another"))
    assert outputs.owner_of(tmp_path) != nameless


def test_folders_made_for_a_result_are_as_durable_as_the_result(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def traced(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", traced)
    outputs.prepare(tmp_path / "out", tmp_path / "out/2024/07/a--p")
    made = [tmp_path, tmp_path / "out", tmp_path / "out/2024"]
    assert synced == [str(folder) for folder in made]
    outputs.prepare(tmp_path / "out", tmp_path / "out/2024/07/b--p")
    assert len(synced) == 3
