"""A daemon that tests tick by hand: real files, real inotify, a real ledger; quick painting."""

import contextlib
import hashlib
import threading
import time
from concurrent.futures import Future
from dataclasses import replace

from stylewatch.domain import Failure, FailureKind, PhotoFacts, Rendered
from stylewatch.folders import outputs
from stylewatch.host.daemon import Daemon, Parts
from stylewatch.settings.loading import watch_config

PRESET = "painting"


def copy_job(request, engine, *, report, suffix=b"", extension=".jpg"):
    """An effect in no time: the result is the photo with its preset's name before it."""
    photo = request.source.read_bytes()
    if hashlib.sha256(photo).hexdigest() != request.digest:  # it lost the race against an editor
        return Failure(kind=FailureKind.CHANGED, reason="changed", message="changed")
    data = request.preset.name.encode() + b":" + photo + suffix
    return rendered(request, data, extension)


def rendered(request, data, extension=".jpg", **figures):
    """The result of a job, written as a worker does it."""
    temporary = outputs.write_temporary(
        data, request.target, extension, request.job_id, request.owner
    )
    figures = {"seconds": 0.01, "evaluations": 1, "loss": None, "facts": {}} | figures
    sha256 = hashlib.sha256(data).hexdigest()
    return Rendered(
        temporary=temporary, extension=extension, sha256=sha256, width=1, height=1, **figures
    )


def effect_package(folder, render="return Rendering(rgb=photo)", at_last=""):
    """An installed package in a folder, with the effect `own`, which has this `render`.

    `at_last` is what its module does besides.
    """
    about = folder / "own-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Name: own\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[stylewatch.effects]\nown = own_effect:Own\n")
    (folder / "own_effect.py").write_text(
        "import sys\n"
        "import numpy as np\n"
        "from stylewatch.effect import Rendering\n"
        "class Own:\n"
        "    def render(self, photo, preset, context):\n"
        f"        {render}\n"
        f"{at_last}\n"
    )


def add_jobs(ledger, count, state="done", preset=PRESET):
    """Jobs of so many photos of the folder `in` that are not there; what is done has ended."""
    ledger.change(
        "INSERT INTO jobs (folder, path, preset, key, digest, target, dev, ino, size, mtime_ns,"
        " ctime_ns, state, created, changed, output, after_done)"
        " WITH RECURSIVE photo(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM photo WHERE n < ?)"
        " SELECT 'in', CAST(n || '.jpg' AS BLOB), ?, 'key ' || n, 'digest ' || n,"
        " CAST('/out/' || n AS BLOB), 1, n, 1, 1, 1, ?, ?, ?,"
        " CAST('/out/' || n || '.jpg' AS BLOB), 1 FROM photo",
        *(count, preset, state, ledger.now, ledger.now),
    )


@contextlib.contextmanager
def statements(ledger):
    """What the ledger asks SQLite for, each statement with the steps of its machine."""
    ran = []

    def step():
        if ran:  # or the first one is only being read
            ran[-1][1] += 1

    ledger._db.set_trace_callback(lambda statement: ran.append([statement, 0]))
    ledger._db.set_progress_handler(step, 1)
    yield ran
    ledger._db.set_progress_handler(None, 0)
    ledger._db.set_trace_callback(None)


class ThreadExecutor:
    """Runs jobs in threads; `behave` may replace a job's function."""

    here = True
    worker = ""  # a cluster's, which runs all jobs
    slots = 1
    trouble = ""

    def __init__(self, behave=None):
        self.behave = behave or (lambda request: None)
        self.suffix = b""
        self.ran, self.shunned = [], []

    def submit(self, job_id, fn, request, engine, /, *, timeout=None):
        self.ran.append((str(request.source.name), request.preset.name))
        future = Future()

        def work():
            try:
                replaced = self.behave(request)
                extra = {"suffix": self.suffix} if self.suffix else {}
                future.set_result(
                    replaced or fn(request, engine, report=lambda step: None, **extra)
                )
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return future

    def cancel(self, job_id, /): ...
    def worker_of(self, out, /):
        return self.worker

    def shun(self, worker, /, *, briefly=False):
        self.shunned.append(worker)

    def release(self, before): ...
    def close(self): ...


class Rig:
    """A daemon over tmp_path/in and tmp_path/out, ticked by hand."""

    def __init__(self, tmp_path, behave=None, preset=PRESET, **settings):
        self.root = tmp_path
        self.input, self.output = tmp_path / "in", tmp_path / "out"
        self.input.mkdir(exist_ok=True)
        settings = {"quiet_seconds": 0.1, "min_free": 0, "grace_seconds": 1} | settings
        self.settings = {"state_dir": str(tmp_path / "state")} | settings
        self.preset = preset
        self.executor = ThreadExecutor(behave)
        self.events = []
        self.daemon = None
        self.extension = ".jpg"  # of results painted from now on
        self.run_job = lambda *given, **more: copy_job(*given, extension=self.extension, **more)
        self.open_executor = lambda config, on_event: self.executor
        self.read_facts = lambda data: {}
        self.probe = lambda stream: PhotoFacts(4, 3)
        self.begins_as_image = lambda head: True

    def config(self):
        return watch_config(self.input, self.output, [self.preset], **self.settings)

    def with_folders(self, *changes):
        """Folders like the plain one but for these values, at the next start or reload."""
        plain = self.config

        def changed():
            config = plain()
            folders = tuple(replace(config.folders[0], **values) for values in changes)
            return replace(config, folders=folders)

        self.config = changed
        self.output = changes[0].get("output", self.output)
        if self.daemon:
            self.daemon._load = changed
        return self

    def build(self):
        parts = Parts(
            open_executor=lambda *given: self.open_executor(*given),  # noqa: PLW0108  (tests set another)
            run_job=self.run_job,
            probe=self.probe,
            begins_as_image=self.begins_as_image,
            structural_end=lambda file: None,
            read_facts=self.read_facts,
        )
        self.daemon = Daemon(self.config(), parts, self.events.append, load=self.config)
        return self

    def start(self):
        self.build().daemon.start(time.monotonic())
        return self

    def stop(self):
        """Unless it does not run (any more)."""
        if self.daemon and self.daemon._locks._held:
            self.daemon.stop()

    def until(self, condition, seconds=60.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, [e.message for e in self.events[-8:]]
            due = self.daemon.tick(time.monotonic())
            self.daemon._wake.wait(max(0.0, min(0.05, due - time.monotonic())))

    def look_around(self, times=3):
        for _ in range(times):
            self.daemon._next_look = 0.0
            self.daemon.tick(time.monotonic())

    def counts(self):
        counts = self.daemon._ledger.counts()
        return {str(state): n for folder in counts.values() for state, n in folder.items()}

    def idle(self):
        pending = {"ready", "running", "publishing", "retry-wait"}
        return not pending & set(self.counts()) and not self.daemon._intake.settling()["in"]

    def results(self):
        found = (path for path in self.output.rglob("*") if path.is_file())
        return sorted(str(p.relative_to(self.output)) for p in found if p.name[0] != ".")

    def drop(self, name, data=b"photo"):
        path = self.input / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def paint(self, name, data=b"photo"):
        """Drop the first photo of all, and see it done."""
        path = self.drop(name, data)
        self.until(lambda: self.counts() == {"done": 1})
        return path

    def queue(self, name, data=b"photo"):
        """Drop the first photo of all, which waits: no new ones are painted."""
        self.daemon.ask("pause")
        path = self.drop(name, data)
        self.until(lambda: self.counts() == {"ready": 1})
        return path

    def asked(self, command, **arguments):
        """What the daemon answers to a command."""
        answer = self.daemon.ask(command, **arguments)
        self.daemon.tick(time.monotonic())
        return answer.result(0)
