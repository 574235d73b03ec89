"""One watched folder under test: a real daemon, photos with known pixels, and the verdict.

A photo is a small picture of random pixels; the effect gives it back unchanged, so that a result
tells which version of which photo it is made of, and whether all of it was there.
"""

import contextlib
import io
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Self

import numpy as np
from PIL import Image

from stylewatch.errors import LedgerError
from stylewatch.folders.naming import TEMPORARY_SUFFIX
from stylewatch.state.reader import LedgerReader
from tests.faults.plugin.echo import digest

ROOT = Path(__file__).parents[2]
PLUGIN = Path(__file__).parent / "plugin"
QUIET = 0.3
BOUND = 5.0  # seconds within which a daemon must end, beyond its grace time
AT_REST = {"done", "quarantined", "vanished", "superseded", "held"}
FORKSERVER = get_context("forkserver")
_ONE_AT_A_TIME = threading.Lock()
"""Each start asks how all others have ended. Of two that ask for one, the second is told 255."""


@dataclass(frozen=True)
class Tally:
    """One row of the table; the sum of two is the row of both."""

    injected: int = 0
    lost: int = 0
    torn: int = 0
    early: int = 0
    duplicated: int = 0
    wedged: int = 0
    why: tuple[str, ...] = ()
    """What the numbers count, for a person who has to find the fault."""

    def __add__(self, other: "Tally") -> "Tally":
        sums = (getattr(self, name) + getattr(other, name) for name in COLUMNS)
        return Tally(*sums, why=self.why + other.why)

    @property
    def clean(self) -> bool:
        return self.injected > 0 and not any(getattr(self, name) for name in COLUMNS[1:])


COLUMNS = ("injected", "lost", "torn", "early", "duplicated", "wedged")


def open_forkserver() -> None:
    """Once, before the first daemon."""
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"  # what is killed cleans nothing up
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PLUGIN), str(ROOT), *filter(None, others)])
    FORKSERVER.set_forkserver_preload(["tests.faults.victim"])


def picture(rng: Random, form: str = "png", size: tuple[int, int] = (16, 12)) -> bytes:
    """A small file of random pixels."""
    pixels = np.frombuffer(rng.randbytes(size[0] * size[1] * 3), np.uint8)
    return encode(pixels.reshape(size[1], size[0], 3), form)


def encode(pixels: np.ndarray, form: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def flat(colour: tuple[int, int, int]) -> bytes:
    """A picture of one colour, which may be an order to the effect."""
    return encode(np.full((12, 16, 3), colour, np.uint8), "png")


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it has 60 000 × 60 000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def pixels_of(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        return digest(np.asarray(image.convert("RGB")))


@dataclass
class Life:
    """One process of the daemon, from its start to its end."""

    process: object
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def alive(self) -> bool:
        return self.code() is None

    def code(self) -> int | None:
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll()
        with _ONE_AT_A_TIME:
            return self.process.exitcode

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait(BOUND)

    def wait(self, seconds: float) -> int | None:
        until = time.monotonic() + seconds
        while self.alive() and time.monotonic() < until:
            time.sleep(0.005)
        return self.code()

    def workers(self) -> list[int]:
        """Process ids of everything below it."""
        return _children(self.pid)


def _children(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            text = Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="ascii")
            for child in map(int, text.split()):
                found += [child, *_children(child)]
    return found


@dataclass
class Lab:
    """A folder `in`, a folder `out`, and whoever is to bring the photos from one to the other."""

    base: Path
    rng: Random
    kind: str = "stylewatch"
    settings: dict[str, object] = field(default_factory=dict)
    after: str = "keep"

    def __post_init__(self) -> None:
        self.input, self.output, self.state = (self.base / name for name in ("in", "out", "state"))
        self.moved = self.base / "moved"
        for folder in (self.input, self.output, self.base / "presets"):
            folder.mkdir(parents=True, exist_ok=True)
        self.renders = self.base / "renders"
        self.renders.touch()
        self.versions: dict[str, list[str]] = defaultdict(list)  # photo → pixels, the last is due
        self.refused: set[str] = set()  # photos that must be set aside, or are none
        self.strange: set[str] = set()  # files in the output that were there before
        self.gone: set[str] = set()  # photos that were taken away: their results may come or not
        self.environment: dict[str, str] = {}
        self.lives: list[Life] = []
        self.faults: Counter[str] = Counter()
        self.why: list[str] = []
        self.known: set[str] = set()
        self._read: dict[tuple[str, int, int], str] = {}
        self._told: set[tuple[str, int]] = set()
        self.over = threading.Event()
        self._onlooker: threading.Thread | None = None
        self.configure()

    def __enter__(self) -> Self:
        self._onlooker = threading.Thread(target=self._look_on, daemon=True)
        self._onlooker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._onlooker.join()
        for life in self.lives:
            if life.alive():
                life.signal(signal.SIGCONT)
                life.kill()

    # --- the daemon -----------------------------------------------------------------------------

    def configure(self, more_folders: str = "", **settings: object) -> None:
        (self.base / "presets" / "echo.yaml").write_text("effect: echo\noutput: {format: png}\n")
        after = f"{{move: {self.moved}}}" if self.after == "move" else self.after
        self.settings |= settings
        lines = {
            "quiet_seconds": QUIET, "rescan_seconds": 2, "grace_seconds": 1, "min_free": 0, "nice": 0,
            "settle_max_seconds": 3, "presets": self.base / "presets", "state_dir": self.state,
            "features": "builtin",
        } | self.settings  # fmt: skip
        folders = f"- {{input: {self.input}, output: {self.output}, preset: echo, after: {after}}}"
        text = "\n".join(f"{key}: {value}" for key, value in lines.items())
        self.config.write_text(f"folders:\n{folders}\n{more_folders}{text}\n")

    @property
    def config(self) -> Path:
        return self.base / "stylewatch.yaml"

    def start(self, failpoint: str = "", wait: bool = True) -> Life:
        """A new life of the daemon; `wait` until it says that it watches."""
        environment = self._environment(failpoint)
        log = self.base / f"log{len(self.lives)}"
        log.touch()
        config = str(self.config)
        if self.kind != "stylewatch":
            config = f"{self.input}\n{self.output}"
        from tests.faults import victim

        process = FORKSERVER.Process(
            target=victim.live, args=(self.kind, config, str(log), environment)
        )
        with _ONE_AT_A_TIME:
            process.start()
        self.lives.append(Life(process, log))
        if wait:
            self._until_watching(self.lives[-1])
        return self.lives[-1]

    def start_wrapped(self, *wrapper: str) -> Life:
        """A new life as a command of its own, below a command that prepares its world."""
        log = self.base / f"log{len(self.lives)}"
        command = [
            *wrapper,
            sys.executable,
            "-m",
            "stylewatch",
            "run",
            "--config",
            str(self.config),
        ]
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command, stdout=sink, stderr=sink, env=os.environ | self._environment("")
            )
        self.lives.append(Life(process, log))
        self._until_watching(self.lives[-1])
        return self.lives[-1]

    def _environment(self, failpoint: str) -> dict[str, str]:
        return {
            "STYLEWATCH_FAILPOINT": failpoint, "ECHO_LOG": str(self.renders),
            "PYTHONPATH": os.environ["PYTHONPATH"], "HOME": str(self.base), "XDG_CONFIG_HOME": "",
        } | self.environment  # fmt: skip

    def _until_watching(self, life: Life) -> None:
        if self.kind != "stylewatch":
            time.sleep(0.5)
        elif not self.until(lambda: "watching" in life.log.read_text() or not life.alive(), 30):
            self.blame("wedged", "it does not start")

    def stop(self, life: Life, number: int = signal.SIGTERM) -> float:
        """Ask it to end; how long that took. A daemon that does not is wedged."""
        began = time.monotonic()
        life.signal(number)
        if life.wait(BOUND + 1.0) is None:
            self.blame("wedged", "it does not end")
            life.kill()
        elif life.code() != 0:
            self.blame("wedged", f"it ended with {life.code()}: {life.log.read_text()[-300:]}")
        return time.monotonic() - began

    def command(self, *words: str) -> str:
        """What `stylewatch …` says to this daemon."""
        command = [sys.executable, "-m", "stylewatch", *words, "--config", str(self.config)]
        environment = os.environ | self._environment("")
        return subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True
        ).stdout

    # --- photos ---------------------------------------------------------------------------------

    def photo(self, name: str, form: str = "png", **how: object) -> bytes:
        """The bytes of a new version of a photo, which is from now on the one that is due."""
        data = picture(self.rng, form, **how)
        self.due(name, data)
        return data

    def due(self, name: str, data: bytes) -> None:
        pixels = pixels_of(data)
        self.known.add(pixels)
        self.versions[name].append(pixels)

    def foreign(self, result: str) -> bytes:
        """The bytes of a file that lies in the output folder and is nobody's result."""
        data = picture(self.rng)
        self.known.add(pixels_of(data))
        self.strange.add(result)
        return data

    def drop(self, name: str, form: str = "png") -> Path:
        """A photo that is there in one step, as a good program puts it there."""
        return self.place(name, self.photo(name, form))

    def place(self, name: str, data: bytes) -> Path:
        path = self.input / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.base / f"aside{threading.get_ident()}"
        aside.write_bytes(data)
        return aside.rename(path)

    # --- what has become of them ----------------------------------------------------------------

    def until(self, condition: Callable[[], object], seconds: float = 60.0) -> bool:
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def jobs(self) -> list:
        """Of the ledger; empty while there is none."""
        with (
            contextlib.suppress(LedgerError),
            contextlib.closing(LedgerReader(self.state / "ledger.db")) as reader,
        ):
            return reader.jobs()
        return []

    def at_rest(self) -> bool:
        """Every photo that is due has its result, and nothing is on its way."""
        if self._missing(first=True):
            return False
        return self.kind != "stylewatch" or all(job.state in AT_REST for job in self.jobs())

    def rest(self, seconds: float = 60.0) -> None:
        """Wait for that; a daemon that never comes to rest is wedged, if it lost nothing."""
        if self.kind != "stylewatch":
            seconds = min(seconds, 15.0)  # what a peer has not done by then it never does
        if self.until(self.at_rest, seconds):
            return
        waiting = [str(job.path) for job in self.jobs() if job.state not in AT_REST]
        life = self.lives[-1]
        if waiting or not life.alive():
            self.blame("wedged", f"{waiting[:3]} are on their way for ever; log: {self.tail()}")

    def tail(self) -> str:
        return self.lives[-1].log.read_text()[-400:] if self.lives else ""

    def blame(self, column: str, why: str) -> None:
        self.faults[column] += 1
        self.why.append(f"{column}: {why}")

    def tally(self, injected: int) -> Tally:
        """The verdict, when all is at rest."""
        if not self._onlooker.is_alive():
            self.blame("wedged", "whoever looks at the results has died")
        self._look()
        for name in self._missing():
            self.blame("lost", f"{name} has no result")
        for name in self._untouched():
            self.blame("lost", f"the photo {name} is not as it was")
        for line in self.renders.read_text().splitlines():
            if line.split()[1] not in self.known:
                self.blame("early", f"painted before it was whole, at {line.split()[0]}")
        for name in self._doubles():
            self.blame("duplicated", name)
        counts = {column: self.faults[column] for column in COLUMNS[1:]}
        return Tally(injected, **counts, why=tuple(f"{self.base.name}: {why}" for why in self.why))

    def results(self) -> dict[str, str]:
        """Relative path → digest of the pixels, of every published result."""
        return {path: pixels for (path, _, _), pixels in self._scan().items()}

    def _scan(self) -> dict[tuple[str, int, int], str]:
        current = {}
        for folder, _, names in os.walk(self.output):
            for name in names:
                if name.startswith("."):
                    continue
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    stat = path.stat()
                    key = (str(path.relative_to(self.output)), stat.st_ino, stat.st_mtime_ns)
                    current[key] = self._read.get(key) or self._open(path)
        self._read.update(current)
        return current

    def _open(self, path: Path) -> str:
        try:
            return pixels_of(path.read_bytes())
        except FileNotFoundError:
            raise
        except Exception as error:  # whatever a broken picture does to a decoder
            return f"not a picture: {error}"

    def _look_on(self) -> None:
        """Somebody who opens every result the moment it has a name."""
        while not self.over.is_set():
            began = time.monotonic()
            self._look()
            self.over.wait(max(0.01, 2 * (time.monotonic() - began)))

    def _look(self) -> None:
        for (path, inode, _), pixels in self._scan().items():
            if pixels not in self.known and (path, inode) not in self._told:
                self._told.add((path, inode))
                self.blame("torn", f"{path} holds {pixels[:60]}")

    def _missing(self, first: bool = False) -> list[str]:
        """Photos whose last version has no result."""
        made = defaultdict(set)
        for path, pixels in self.results().items():
            made[self._photo_of(path, pixels)].add(pixels)
        found = []
        for name, versions in list(self.versions.items()):
            if name in self.refused or name in self.gone:
                continue
            if versions[-1] not in made[os.path.splitext(name)[0]]:
                found.append(name)
                if first:
                    break
        return found

    def _untouched(self) -> Iterable[str]:
        """Photos that are not where they belong, with the pixels they had."""
        if self.after == "delete":
            return
        for name, versions in self.versions.items():
            if name in self.refused or name in self.gone:
                continue
            places = [self.input / name, *([self.moved / name] if self.after == "move" else [])]
            held = []
            for place in places:
                with contextlib.suppress(OSError):
                    held.append(pixels_of(place.read_bytes()))
            if versions[-1] not in held:
                yield name

    def _doubles(self) -> Iterable[str]:
        """Results beyond one for each version of each photo."""
        photos = defaultdict(Counter)
        for name, versions in self.versions.items():
            photos[os.path.splitext(name)[0]].update(set(versions))
        made = defaultdict(Counter)
        for path, pixels in self.results().items():
            if path not in self.strange:
                made[self._photo_of(path, pixels)][pixels] += 1
        for photo, counts in made.items():
            for pixels, number in counts.items():
                if number > photos[photo][pixels]:
                    yield f"{photo} has {number} results of one version"

    def _photo_of(self, result: str, pixels: str) -> str:
        """`sub/a--echo~2.png` → `sub/a`; a name that was too long is known by its pixels."""
        photo = result.rpartition("--echo")[0]
        if len(os.fsencode(photo)) < 200:
            return photo
        whole = (name for name, versions in self.versions.items() if pixels in versions)
        return os.path.splitext(next(whole, photo))[0]

    def orphans(self) -> list[str]:
        """Temporary files that somebody should have swept."""
        found = (path for path in self.output.rglob("*") if path.name.endswith(TEMPORARY_SUFFIX))
        return [str(path) for path in found]
