"""The promise on files against a small model: whatever is done to a folder, in any order.

No choice depends on what the daemon has done: its threads are not as quick every time.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from rig import Rig, copy_job

from stylewatch.domain import Failure, FailureKind, job_key
from stylewatch.errors import LedgerError, WorkerDied
from stylewatch.folders import outputs, painted, watches
from stylewatch.host import publication
from stylewatch.state import ledger, retries

NAMES = st.sampled_from(["a.jpg", "b.jpg", "sub/a.jpg", "sub/deep/a.jpg"])
CONTENTS = st.sampled_from([b"one", b"three", b"fifteen"])
THEN = st.sampled_from(["", "", "tick", "scan", "paint"])  # what the daemon does next
PRESETS = st.sampled_from(["painting", "ink"])
END = b"."  # what a whole photo ends with
PENDING = {"ready", "running", "publishing", "retry-wait", "blocked", "held", "quarantined"}
ENDINGS = ".jpg", ".png"  # of results, by the version of their preset


class Killed(BaseException):
    """As by SIGKILL."""


class Hand:
    """An executor whose jobs are done when the model says so."""

    here, slots, trouble = True, 2, ""

    def __init__(self):
        self.jobs = {}

    def submit(self, job_id, fn, request, engine, /, *, timeout=None):
        self.jobs[job_id] = Future(), request
        return self.jobs[job_id][0]

    def end(self, outcome):
        """The job that was started first; what comes of it is a result unless said otherwise."""
        for job_id in [*self.jobs][:1]:
            future, request = self.jobs.pop(job_id)
            try:
                future.set_result(outcome(request))
            except Exception as error:
                future.set_exception(error)

    def cancel(self, job_id, /):
        self.jobs.pop(job_id)[0].set_exception(CancelledError())

    def worker_of(self, out, /):
        return ""

    def release(self, before): ...

    def close(self):
        for job_id in list(self.jobs):
            self.cancel(job_id)


def paint(request):
    """`preset:version:photo`, in the format of that version."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        version = request.preset.description
        named = replace(
            request, preset=replace(request.preset, name=f"{request.preset.name}:{version}")
        )
        return copy_job(named, None, report=None, extension=ENDINGS[int(version) % 2])
    return fail(FailureKind.CHANGED, "vanished")(request)


def fail(kind, reason):
    return lambda request: Failure(kind=kind, reason=reason, message=reason)


def crash(request):
    raise WorkerDied("it died")


OUTCOMES = {
    "well": paint, "crash": crash, "bad": fail(FailureKind.BAD_INPUT, "not-an-image"),
    "error": fail(FailureKind.RENDER, "error"), "full": fail(FailureKind.RESOURCE, "disk-full"),
}  # fmt: skip


class Folder(RuleBasedStateMachine):
    """A real daemon over real files; only clock and painter are made up: nothing has to sleep."""

    def __init__(self):
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="promise-"))
        self.out, self.moved = self.base / "out", self.base / "moved"
        self.now, self.leap = 1000.0, 0.0
        self.running = self.paused = False
        self.trouble = ("", 0)  # what goes wrong, and after how many steps
        self.whole: set[bytes] = set()  # every content that ever was a whole photo
        self.foreign: dict[Path, bytes] = {}
        self.taken_away: set[tuple[str, bytes, bytes]] = set()  # results: name, preset and photo
        self.alone: dict[Path, bytes] = {}  # results of photos that were missed: nobody's now
        self.come_again: set[str] = set()  # names that did not always lie there
        self.patch = pytest.MonkeyPatch()

    @initialize(
        after=st.sampled_from(["keep", "delete", "move"]),
        presets=st.sampled_from([["painting"], ["painting", "ink"]]),
        days=st.sampled_from([365, 0.004]),
        events=st.booleans(),  # or scans alone, so that all comes in the same order every time
    )
    def begin(self, after, presets, days, events):
        self.patch.setattr(retries, "FIRST_PAUSE", 0.0)
        for module in (outputs, painted, ledger, publication):
            self.patch.setattr(module, "failpoint", self.pass_by)
        if not events:
            self.patch.setattr(watches.Watches, "add", self.no_watches)
        self.after = self.moved if after == "move" else after
        self.versions = dict.fromkeys(presets, 0)
        self.forgets = days < 1
        self.rig = Rig(
            self.base, quiet_seconds=1, rescan_seconds=5, settle_max_seconds=30,
            grace_seconds=0, retention_days=days,
        )  # fmt: skip
        self.rig.read_facts = facts
        self.plain, self.rig.config = self.rig.config(), self.config
        self.start()

    def config(self):
        presets = {
            name: replace(
                self.plain.presets[name],
                description=str(version),
                digest=preset_digest(name, str(version)),
            )
            for name, version in self.versions.items()
        }
        folder = replace(self.plain.folders[0], preset=tuple(presets), after=self.after)
        return replace(self.plain, folders=(folder,), presets=presets)

    def no_watches(self, root, inbox):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def pass_by(self, step):
        """A failpoint: here something may go wrong."""
        kind, more = self.trouble
        if kind == "disk" and not step.startswith(("outputs", "painted")):
            return
        if kind == "ledger" and step != "ledger.before-commit":
            return
        self.trouble = (kind, more - 1) if more else ("", 0)
        if kind and not more:
            if kind == "kill":
                self.rig.daemon._ledger.close()  # nothing is written any more
                raise Killed(step)
            raise {
                "disk": OSError(errno.EIO, os.strerror(errno.EIO)),
                "ledger": sqlite3.OperationalError("database or disk is full"),
            }[kind]

    # --- what people and programs do ------------------------------------------------------------

    def path(self, name):
        path = self.rig.input / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @rule(name=NAMES, content=CONTENTS, whole=st.sampled_from([END, END, b""]), then=THEN)
    def write(self, name, content, whole, then):
        self.path(name).write_bytes(content + whole)
        self.whole |= {content + whole} if whole else set()
        self.go_on(then)

    @rule(name=NAMES, content=CONTENTS, then=THEN)
    def replace(self, name, content, then):
        self.whole.add(content + END)
        aside = self.base / "aside"
        aside.write_bytes(content + END)
        os.utime(aside, (1e9, 1e9))
        aside.replace(self.path(name))
        self.go_on(then)

    @rule(name=NAMES)
    def append_the_rest(self, name):
        path = self.path(name)
        if path.exists() and not path.read_bytes().endswith(END):
            self.whole.add(path.read_bytes() + END)
            with path.open("ab") as stream:
                stream.write(END)

    @rule(name=NAMES, other=NAMES, then=THEN)
    def rename(self, name, other, then):
        if self.path(name).exists():
            self.path(name).rename(self.path(other))
            self.come_again.add(name)
        self.go_on(then)

    @rule(name=NAMES, other=NAMES)
    def link(self, name, other):
        if self.path(name).exists() and not self.path(other).exists():
            self.path(other).hardlink_to(self.path(name))

    @rule(name=NAMES, then=THEN)
    def delete(self, name, then):
        self.path(name).unlink(missing_ok=True)
        self.come_again.add(name)
        self.go_on(then)

    @rule(name=NAMES, then=THEN)
    def touch(self, name, then):
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path(name))
        self.go_on(then)

    @rule(name=NAMES, emptied=st.booleans(), then=THEN)
    def take_a_folder_away_and_bring_it_back(self, name, emptied, then):
        folder, away = self.path(name).parent, self.base / "away"
        self.come_again |= {str(path.relative_to(self.rig.input)) for path in folder.rglob("*")}
        folder.rename(away)
        if emptied:
            folder.mkdir()
        self.go_on(then or "tick")
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()
        away.rename(folder)

    @rule(name=NAMES, preset=PRESETS, ending=st.sampled_from([".jpg", ".png", "~2.jpg"]))
    def put_a_file_where_a_result_would_be(self, name, preset, ending):
        path = self.out / f"{name[:-4]}--{preset}{ending}"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"foreign")
            self.foreign[path] = b"foreign"

    @rule(which=st.integers(0, 7), edited=st.booleans())
    def take_a_result_away(self, which, edited):
        if results := sorted(self.results()):
            path = results[which % len(results)]
            self.taken_away.add(self.told(path, path.read_bytes()))
            self.alone.pop(path, None)
            path.unlink()
            if edited:
                path.write_bytes(b"edited")
                self.foreign[path] = b"edited"

    # --- what happens to the daemon -------------------------------------------------------------

    def start(self):
        self.hand = Hand()
        self.rig.open_executor = lambda config, on_event: self.hand
        daemon = self.rig.build().daemon
        daemon._parts = replace(
            daemon._parts, structural_end=lambda stream: stream.read()[-1:] == END
        )
        daemon._clock = lambda: self.now
        daemon._wall_clock = lambda: 1.7e9 + self.now + self.leap
        self.running = True
        self.watched(lambda: daemon.start(self.now))
        self.ask("pause" if self.paused else "resume")

    def watched(self, act):
        """Whatever the daemon does is done under the promise's eyes."""
        before = self.photos(), self.files(self.out), self.files(self.moved)
        try:
            act()
        except (Killed, LedgerError) as error:
            self.trouble = ("", 0)
            if isinstance(error, LedgerError):
                self.rig.daemon._end()
            self.let_go()
        self.check(*before)

    def let_go(self):
        """What the kernel closes when a process ends."""
        self.rig.daemon._ledger.close()
        with contextlib.suppress(AttributeError):  # it did not come so far
            self.rig.daemon._watches.close()
        self.rig.daemon._locks.release()
        self.running = False

    def step(self, seconds):
        self.now += seconds
        if self.running:
            self.watched(lambda: self.rig.daemon.tick(self.now))

    def go_on(self, then):
        if then == "tick":
            self.step(0.1)
        elif then:
            for _ in range(3):
                self.step(3.0)
            for _ in range(4 * (then == "paint")):
                self.watched(lambda: self.hand.end(paint))
                self.step(0.1)

    def ask(self, command, **arguments):
        if self.running:
            self.rig.daemon.ask(command, **arguments)

    @rule(seconds=st.sampled_from([0.1, 1.1, 6.0, 6.0, 40.0, 400.0]))
    def time_goes_by(self, seconds):
        self.step(seconds)

    @rule(how=st.sampled_from(["well", "well", *OUTCOMES]), then=THEN)
    def a_job_ends(self, how, then):
        self.watched(lambda: self.hand.end(OUTCOMES[how]))
        self.go_on(then)

    @rule(preset=PRESETS, version=st.integers(0, 2))
    def change_a_preset(self, preset, version):
        if preset in self.versions:
            self.versions[preset] = version
        self.ask("reload")

    @rule(paused=st.booleans())
    def pause_or_resume(self, paused):
        self.paused = paused
        self.ask("pause" if paused else "resume")

    @rule(command=st.sampled_from(["cancel", "retry"]), job=st.integers(1, 8))
    def ask_about_a_job(self, command, job):
        self.ask(command, job_id=job)

    @rule(leap=st.sampled_from([0.0, 3600.0, -3600.0]))
    def clock_leaps(self, leap):
        self.leap = leap

    @rule(kind=st.sampled_from(["kill", "kill", "disk", "ledger"]), steps=st.integers(0, 12))
    def something_goes_wrong_soon(self, kind, steps):
        self.trouble = kind, steps

    @rule(killed=st.booleans())
    def stop_or_start_again(self, killed):
        if not self.running:
            self.start()
            return
        if not killed:
            self.watched(self.rig.daemon.stop)
        self.let_go()

    @rule()
    def lose_the_ledger(self):
        if not self.running:
            for file in (self.base / "state").glob("ledger.db*"):
                file.unlink()

    # --- the promise ----------------------------------------------------------------------------

    def files(self, folder):
        found = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
        return {path: path.read_bytes() for path in found}

    def photos(self):
        return self.files(self.rig.input) | self.files(self.base / "away")

    def results(self):
        return {
            path: data for path, data in self.files(self.out).items() if path not in self.foreign
        }

    def check(self, photos, out, moved):
        """After whatever the daemon did, with what there was before."""
        now, results, now_moved = self.photos(), self.results(), self.files(self.moved)
        assert now.items() <= photos.items(), "a photo was changed"
        assert moved.items() <= now_moved.items(), "a moved photo was changed"
        made = {one[1:] for one in self.taken_away} | {what(data) for data in results.values()}
        for path in photos.keys() - now:
            assert self.after != "keep", f"{path} was to stay"
            assert all((name.encode(), photos[path]) in made for name in self.versions), path
            assert self.after == "delete" or photos[path] in now_moved.values(), path
            self.come_again.add(str(path.relative_to(self.rig.input)))
        assert all(self.foreign[path] == path.read_bytes() for path in self.foreign)
        for path, data in results.items():
            assert what(data)[1] in self.whole, f"{path} is torn, or of half a photo"
        for path in [*self.alone]:
            if now.get(self.rig.input / self.known_by((path, b""))[0]) == what(self.alone[path])[1]:
                del self.alone[path]  # its photo is back
        for path in out.keys() - self.foreign:
            if results.get(path) != out[path]:
                assert self.after == "keep", f"{path} was replaced"
                assert path not in self.alone or what(out[path]) in made, f"{path} was nobody's"

    @rule()
    def in_the_end_all_is_painted_once(self):
        self.come_to_rest()
        if self.after == "keep":
            self.touch_all()
            self.come_to_rest()

    def touch_all(self):
        """What was taken away is made again, also beside that of a changed preset."""
        changed, *_ = self.versions
        self.change_a_preset(changed, (self.versions[changed] + 1) % 3)
        here = self.names()
        for path, data in self.results().items():
            name, preset, _ = self.told(path, data)
            if preset.decode() != changed and name in here:
                self.alone.pop(path, None)
                path.unlink()
        for path in self.photos():
            os.utime(path)
        in_the_way = {path.name.partition("--")[2][:3].encode() for path in self.foreign}
        self.taken_away = {
            one for one in self.taken_away if one[1][:3] in in_the_way or one[0] not in here
        }

    def come_to_rest(self):
        self.trouble, self.leap, self.paused = ("", 0), 0.0, False
        for tries in range(100):
            if not self.running:
                self.start()
            if tries % 10 == 0:
                for command in ("resume", "retry"):
                    self.ask(command)
                self.ask("retry", reason="cancelled")
            self.step(6.1)
            while self.hand.jobs:
                self.watched(lambda: self.hand.end(paint))
            if tries > 3 and self.is_at_rest():
                break
        else:
            raise AssertionError(self.rig.daemon._ledger.jobs())
        self.go_on("scan")
        twice = [
            one
            for one, times in Counter(map(self.known_by, self.results().items())).items()
            if times > 1 and not (self.forgets and one[0] in self.come_again)
        ]
        assert not twice
        here = self.names()
        for path, data in self.results().items():
            if self.known_by((path, data))[0] not in here:
                self.alone[path] = data

    def names(self):
        return {str(path.relative_to(self.rig.input)) for path in self.photos()}

    def told(self, path, data):
        """What a result tells: the photo's name, the preset, and the photo."""
        return self.known_by((path, data))[0], *what(data)

    def set_aside(self):
        """The files of which it is told why they have no job."""
        return {str(path) for _, path, _ in self.rig.daemon._ledger.notes()}

    def known_by(self, result):
        """The photo's name, and what it is a picture of."""
        path, data = result
        return f"{str(path.relative_to(self.out)).partition('--')[0]}.jpg", data

    def is_at_rest(self):
        whole = {
            str(path.relative_to(self.rig.input)): data
            for path, data in self.photos().items()
            if data.endswith(END)
        }
        halves = {name for name in self.names() if name not in whole}
        made = {self.told(*result) for result in self.results().items()} | self.taken_away
        return (
            not PENDING & set(self.rig.counts())
            and not self.rig.daemon._intake.settling()["in"]
            and halves <= self.set_aside()
            and all(
                (photo, name.encode(), data) in made
                for photo, data in whole.items()
                for name in self.versions
            )
            and all(
                self.after == "keep"
                or any((photo, name.encode(), data) in self.taken_away for name in self.versions)
                for photo, data in whole.items()
            )
        )

    def teardown(self):
        try:
            if hasattr(self, "rig"):
                self.in_the_end_all_is_painted_once()
        finally:
            if self.running:
                self.let_go()
            self.patch.undo()
            shutil.rmtree(self.base)


def preset_digest(name, version):
    return hashlib.sha256(f"{name} {version}".encode()).hexdigest()


def facts(result):
    """As a result tells of itself when its ledger is lost."""
    name, version, photo = result.split(b":", 2)
    digest = hashlib.sha256(photo).hexdigest()
    key = job_key(digest, preset_digest(name.decode(), version.decode()))
    return {"job_key": key, "photo": digest}


def what(result):
    """The preset, and the photo that it was painted of."""
    preset, _, photo = result.split(b":", 2)
    return preset, photo


@pytest.mark.parametrize("presets", [["ink"], ["painting", "ink"]])
def test_a_photo_that_is_touched_while_its_preset_changes_and_changes_back_is_moved(presets):
    """The job of before knew the file as it was then, and would leave it where it is for good."""
    folder = Folder()
    folder.begin(after="move", events=False, days=365, presets=presets)
    folder.pause_or_resume(paused=True)
    folder.write(name="a.jpg", content=b"one", whole=END, then="scan")
    folder.touch(name="a.jpg", then="")
    folder.change_a_preset(preset="ink", version=2)
    folder.go_on("scan")
    folder.change_a_preset(preset="ink", version=0)
    folder.teardown()


def test_a_photo_that_comes_again_after_others_of_its_name_has_one_result_still():
    """A free name before that of its result, as people delete some, is not taken for the end."""
    folder = Folder()
    folder.begin(after="delete", events=False, days=365, presets=["painting"])
    for content in (b"one", b"three", b"fifteen"):
        folder.write(name="a.jpg", content=content, whole=END, then="")
        folder.in_the_end_all_is_painted_once()
    folder.take_a_result_away(which=0, edited=False)
    assert not (folder.out / "a--painting.jpg").exists()
    folder.write(name="a.jpg", content=b"three", whole=END, then="")
    folder.teardown()


def test_half_a_photo_stays_set_aside_when_the_job_of_the_whole_one_before_finds_it():
    """It is looked at again then, and is as before: nobody would tell why it has no result."""
    folder = Folder()
    folder.begin(after="keep", events=False, days=365, presets=["painting"])
    folder.pause_or_resume(paused=True)
    folder.write(name="a.jpg", content=b"one", whole=END, then="scan")
    folder.write(name="a.jpg", content=b"three", whole=b"", then="scan")
    folder.time_goes_by(seconds=40.0)
    assert folder.set_aside() == {"a.jpg"}
    folder.pause_or_resume(paused=False)
    folder.go_on("paint")
    assert not PENDING & set(folder.rig.counts())
    folder.go_on("scan")
    assert folder.set_aside() == {"a.jpg"}
    folder.teardown()


TestPromise = Folder.TestCase
TestPromise.settings = settings(
    max_examples=25, stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
