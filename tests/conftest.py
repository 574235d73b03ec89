"""What the tests share: quiet TensorFlow, a small seeded network, optional real weights."""

import ctypes
import errno
import os
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from stylewatch.domain import EngineSettings
from stylewatch.folders import painted, sources
from stylewatch.jobs.child import set_environment

set_environment(EngineSettings())  # before any test imports TensorFlow
# Others may be at work on this machine too.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def home(monkeypatch) -> Iterator[Path]:
    """A home with nothing in it: no test sees the presets, weights or state of whoever runs it."""
    for name in [*os.environ]:
        if name.startswith("XDG_") or name in {"KERAS_HOME", "STATE_DIRECTORY", "JOURNAL_STREAM"}:
            monkeypatch.delenv(name)
    with tempfile.TemporaryDirectory(prefix="home-", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("HOME", folder)
        yield Path(folder)


@pytest.fixture
def like_anybody():
    """Calls a function as one whom permissions keep out, even as root: in a thread without powers.

    A program that it starts has none either.
    """

    def powerless():
        libc = ctypes.CDLL(None)
        for power in range(64):
            libc.prctl(24, power, 0, 0, 0)  # PR_CAPBSET_DROP
        assert libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)) == 0

    def call(function, *arguments, **more):
        with ThreadPoolExecutor(1, initializer=powerless) as pool:
            return pool.submit(function, *arguments, **more).result()

    return call


@pytest.fixture
def pace():
    """How many times as long plain Python takes here and now as where the limits are from; or 1."""

    def spent():
        started = time.process_time()
        sum(number % 7 for number in range(200_000))
        return time.process_time() - started

    return max(1.0, min(spent() for _ in range(5)) / 0.006)


@pytest.fixture(scope="session")
def assets() -> Path:
    """A folder with `weights/` and `images/`, named by STYLEWATCH_TEST_ASSETS."""
    folder = os.environ.get("STYLEWATCH_TEST_ASSETS")
    if not folder:
        pytest.skip("STYLEWATCH_TEST_ASSETS names no folder with weights/ and images/")
    return Path(folder)


@pytest.fixture(scope="session")
def vgg19_file(assets: Path) -> Path:
    return next((assets / "weights").glob("vgg19*notop*.h5"))


@pytest.fixture(scope="session")
def network():
    """VGG19's topology with few seeded filters: real code, small numbers."""
    from small_network import small_network

    return small_network()


@pytest.fixture
def light_workers(monkeypatch):
    """Worker processes would load the program that was started, which here is pytest."""
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)


@pytest.fixture
def rigs(tmp_path, monkeypatch):
    """Makes daemons (`rig.Rig`); those that run at the end are stopped.

    They look more often whether their folders are there.
    """
    from rig import Rig

    monkeypatch.setattr(sources, "ROOT_SECONDS", 0.1)
    made = []

    def make(behave=None, base=tmp_path, start=True, **settings):
        made.append(Rig(base, behave, **settings))
        return made[-1].start() if start else made[-1]

    yield make
    for rig in made:
        rig.stop()


@pytest.fixture
def stuck(monkeypatch):
    """While it holds anything, no photo can be moved or deleted."""
    real, stuck = painted.apply_after, [True]

    def apply_after(*arguments):
        if stuck:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(*arguments)

    monkeypatch.setattr(painted, "apply_after", apply_after)
    return stuck


@pytest.fixture
def steps(monkeypatch):
    """What is forced to disk, named and taken away, in this order."""
    done, sync, name, unlink = [], os.fsync, os.link, Path.unlink

    def fsync(descriptor):
        sync(descriptor)
        done.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))

    def link(source, final, **options):
        name(source, final, **options)
        done.append(("name", Path(final).parent.resolve() / Path(final).name))

    def remove(path, **options):
        there = path.exists()
        unlink(path, **options)
        if there:
            done.append(("remove", path.parent.resolve() / path.name))

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(Path, "unlink", remove)
    return done
