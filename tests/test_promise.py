"""The promise on files against a small model: whatever is done to a folder, in any order."""

import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from rig import Rig

from stylewatch.host import daemon, delivery
from stylewatch.state import retries

NAMES = st.sampled_from(["a.jpg", "b.jpg", "sub/c.jpg", "sub/deep/d.jpg"])
CONTENTS = st.sampled_from([b"one", b"two", b"three"])
END = b"."  # what a whole photo ends with
PATIENCE = 20.0


class Folder(RuleBasedStateMachine):
    """A real daemon over real files; only its clock is made up, so that nothing has to sleep."""

    def __init__(self):
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="promise-"))
        self.now = time.monotonic()
        self.whole: set[bytes] = set()  # every content that ever was a whole photo
        self.running = False
        self.patch = pytest.MonkeyPatch()

    @initialize()
    def begin(self):
        self.patch.setattr(retries, "FIRST_PAUSE", 0.0)
        self.patch.setattr(daemon, "LOOK_SECONDS", 1.0)
        self.patch.setattr(delivery, "UNNAMED_SECONDS", 1.0)
        self.rig = Rig(self.base, quiet_seconds=1, rescan_seconds=5, settle_max_seconds=30)
        self.start()

    def start(self):
        self.rig.build()
        self.rig.daemon._parts = replace(
            self.rig.daemon._parts, structural_end=lambda stream: stream.read()[-1:] == END
        )
        self.rig.daemon._clock = lambda: self.now
        self.rig.daemon.start(self.now)
        self.running = True

    def path(self, name):
        path = self.rig.input / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    # --- what people and programs do ------------------------------------------------------------

    @rule(name=NAMES, content=CONTENTS)
    def write(self, name, content):
        self.whole.add(content + END)
        self.path(name).write_bytes(content + END)

    @rule(name=NAMES, content=CONTENTS)
    def write_a_part(self, name, content):
        self.path(name).write_bytes(content)

    @rule(name=NAMES, more=CONTENTS)
    def append_the_rest(self, name, more):
        path = self.path(name)
        if path.exists() and not path.read_bytes().endswith(END):
            self.whole.add(path.read_bytes() + more + END)
            with path.open("ab") as stream:
                stream.write(more + END)

    @rule(name=NAMES, other=NAMES)
    def rename(self, name, other):
        if self.path(name).exists():
            self.path(name).rename(self.path(other))

    @rule(name=NAMES, other=NAMES)
    def link(self, name, other):
        if self.path(name).exists() and not self.path(other).exists():
            self.path(other).hardlink_to(self.path(name))

    @rule(name=NAMES)
    def delete(self, name):
        self.path(name).unlink(missing_ok=True)

    @rule(name=NAMES)
    def take_a_folder_away_and_bring_it_back(self, name):
        folder = self.path(name).parent
        if folder != self.rig.input:
            away = self.base / "away"
            folder.rename(away)
            self.step()
            away.rename(folder)

    # --- what happens to the daemon -------------------------------------------------------------

    @precondition(lambda self: self.running)
    @rule(seconds=st.sampled_from([0.1, 0.6, 3.0, 40.0]))
    def step(self, seconds=0.1):
        if self.running:
            self.now += seconds
            self.rig.daemon.tick(self.now)

    @precondition(lambda self: self.running)
    @rule()
    def reload(self):
        self.rig.daemon.ask("reload")

    @precondition(lambda self: self.running)
    @rule()
    def kill(self):
        """As by SIGKILL: nothing is put in order, a job that runs goes on to its temporary file."""
        killed = self.rig.daemon
        killed._ledger._db.close()
        killed._watches.close()
        killed._locks.release()
        self.running = False

    @precondition(lambda self: self.running)
    @rule()
    def stop(self):
        self.rig.daemon._clock = time.monotonic
        self.rig.daemon.stop()
        self.running = False

    @precondition(lambda self: not self.running)
    @rule()
    def start_again(self):
        self.start()

    # --- the promise ----------------------------------------------------------------------------

    def results(self, name):
        stem = Path(name).stem
        folder = (self.rig.output / name).parent
        return [path.read_bytes() for path in folder.glob(f"{stem}--painting*.jpg")]

    @invariant()
    def nothing_torn_or_early(self):
        found = {
            path.read_bytes()
            for path in self.base.glob("out/**/*")
            if path.is_file() and not path.name.startswith(".")
        }
        assert found <= {b"painting:" + content for content in self.whole}

    @rule()
    def in_the_end_all_is_painted_once(self):
        if not self.running:
            self.start()
        until = time.monotonic() + PATIENCE
        while not self.at_rest():
            assert time.monotonic() < until, (self.due(), self.rig.results(), self.rig.counts())
            self.step(0.7)
            time.sleep(0.001)  # a thread paints
        for name in self.due():
            made = self.results(name)
            assert len(made) == len(set(made)), name

    def due(self):
        """Whole photos that lie in the folder."""
        photos = {
            str(path.relative_to(self.rig.input)): path.read_bytes()
            for path in self.rig.input.rglob("*.jpg")
        }
        return {name: data for name, data in photos.items() if data.endswith(END)}

    def at_rest(self):
        pending = {"ready", "running", "publishing", "retry-wait", "blocked"}
        return all(
            b"painting:" + data in self.results(name) for name, data in self.due().items()
        ) and not pending & set(self.rig.counts())

    def teardown(self):
        try:
            if hasattr(self, "rig"):
                self.in_the_end_all_is_painted_once()
                self.nothing_torn_or_early()
        finally:
            if self.running:
                self.stop()
            self.patch.undo()
            shutil.rmtree(self.base)


TestPromise = Folder.TestCase
TestPromise.settings = settings(
    max_examples=25, stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
