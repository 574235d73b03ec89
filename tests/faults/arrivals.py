"""Faults of how files arrive: slowly, in odd ways, in masses, under odd names, or not as files."""

import ctypes
import mmap
import os
import shutil
import signal
import subprocess
import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from stylewatch.state.reader import LedgerReader
from tests.faults.lab import QUIET, Lab, Tally, bomb, picture, pixels_of
from tests.faults.table import Bench, fault


@fault("F1", "writers that are slow and pause longer than the quiet period", times=60, quick=6)
def slow_writers(bench: Bench, times: int) -> Tally:
    with bench.lab() as lab:
        lab.start()
        paused = []
        plans = [
            (f"{number}.{form}", lab.photo(f"{number}.{form}", {"jpg": "jpeg"}.get(form, form)))
            for number in range(times)
            for form in (("png", "jpg", "webp", "gif", "bmp")[number % 5],)
        ]

        def write(plan: tuple[str, bytes]) -> None:
            name, data = plan
            cuts = sorted(lab.rng.sample(range(1, len(data)), 3))
            whole = name.endswith("bmp")  # has no end that can be seen: the writer holds it open
            stream = (lab.input / name).open("wb")
            for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                stream.write(data[begin:end])
                stream.flush()
                if end < len(data):
                    if not whole and lab.rng.random() < 0.5:
                        stream.close()  # and comes back later
                    pause = lab.rng.uniform(0, 4 * QUIET)
                    paused.append(pause > QUIET)
                    time.sleep(pause)
                    if stream.closed:
                        stream = (lab.input / name).open("ab")
            stream.close()

        with ThreadPoolExecutor(20) as pool:
            list(pool.map(write, plans))
        lab.rest()
        return lab.tally(sum(paused))


def _renamed(lab: Lab, path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.part")
    aside.write_bytes(data)
    aside.rename(path)


def _linked(lab: Lab, path: Path, data: bytes) -> None:
    aside = lab.base / f"{path.name}.linked"
    aside.write_bytes(data)
    os.link(aside, path)


def _unnamed(lab: Lab, path: Path, data: bytes) -> None:
    """Written without any name, then given one: O_TMPFILE and linkat."""
    descriptor = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o644)
    os.write(descriptor, data)
    libc = ctypes.CDLL(None, use_errno=True)
    name = f"/proc/self/fd/{descriptor}".encode()
    if libc.linkat(-100, name, -100, os.fsencode(path), 0x400) != 0:
        raise OSError(ctypes.get_errno(), "linkat")
    os.close(descriptor)


def _copied(lab: Lab, path: Path, data: bytes) -> None:
    """`cp -p` of an old file: its times lie in the past from the beginning."""
    aside = lab.base / f"{path.name}.old"
    aside.write_bytes(data)
    os.utime(aside, (1e9, 1e9))
    shutil.copy2(aside, path)


def _mapped(lab: Lab, path: Path, data: bytes) -> None:
    """Written through memory: no write is ever seen, the size is right from the start."""
    with path.open("w+b") as stream:
        stream.truncate(len(data))
        with mmap.mmap(stream.fileno(), len(data)) as memory:
            for at in range(0, len(data), 200):
                memory[at : at + 200] = data[at : at + 200]
                time.sleep(0.1)


def _appended(lab: Lab, path: Path, data: bytes) -> None:
    """Opened anew for every piece."""
    for at in range(0, len(data), 200):
        with path.open("ab") as stream:
            stream.write(data[at : at + 200])
        time.sleep(lab.rng.choice((0.05, 2 * QUIET)))


def _overwritten(lab: Lab, path: Path, data: bytes) -> None:
    """An older version is there at full length, and is written over in place."""
    path.write_bytes(picture(lab.rng) + bytes(len(data)))
    with path.open("r+b") as stream:
        stream.write(data)
        stream.flush()
        time.sleep(2 * QUIET)
        stream.truncate(len(data))


WRITERS = (_renamed, _linked, _unnamed, _copied, _mapped, _appended, _overwritten)


@fault(
    "F2",
    "seven ways to write: rename, link, unnamed, cp -p, mmap, append, in place",
    times=70,
    quick=7,
)
def ways_to_write(bench: Bench, times: int) -> Tally:
    with bench.lab() as lab:
        lab.start()

        def write(number: int) -> None:
            name = f"{number}.png"
            WRITERS[number % len(WRITERS)](lab, lab.input / name, lab.photo(name))

        with ThreadPoolExecutor(14) as pool:
            list(pool.map(write, range(times)))
        lab.rest()
        return lab.tally(times)


@fault("F3", "trees copied and moved in whole, with files that come later", times=1200, quick=60)
def trees(bench: Bench, times: int) -> Tally:
    with bench.lab() as lab:
        lab.start()
        for kind in ("copied", "moved"):
            for number in range(times // 3):
                path = lab.base / kind / f"{number % 7}" / f"{number % 5}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                name = str(Path(kind, *path.relative_to(lab.base / kind).parts))
                path.write_bytes(lab.photo(name))
        copier = subprocess.Popen(["cp", "-r", lab.base / "copied", lab.input])
        (lab.base / "moved").rename(lab.input / "moved")
        copier.wait()
        for number in range(times - 2 * (times // 3)):  # into folders that have just come
            kind = ("copied", "moved")[number % 2]
            name = f"{kind}/{number % 7}/{number % 5}/late{number}.png"
            (lab.input / name).parent.mkdir(parents=True, exist_ok=True)
            (lab.input / name).write_bytes(lab.photo(name))
            if number % 10 == 0:
                time.sleep(0.02)
        lab.rest(60 + times / 10)
        return lab.tally(times)


@fault("F4", "more events than the kernel keeps, while the daemon is stopped", times=2, quick=1)
def overflow(bench: Bench, times: int) -> Tally:
    kept = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
    with bench.lab() as lab:
        life = lab.start()
        overflows = 0
        for turn in range(times):
            life.signal(signal.SIGSTOP)
            made = 0
            for number in range(kept // 3 + 1000):
                name = f"{turn}-{number}"
                if number % 40 == 0:
                    (lab.input / f"{name}.png").write_bytes(lab.photo(f"{name}.png"))
                else:  # what nobody wants makes just as many events
                    (lab.input / f"{name}.tmp").write_bytes(b"x")
                    (lab.input / f"{name}.tmp").unlink()
                made += 3
            overflows += made > kept
            life.signal(signal.SIGCONT)
            lab.rest(90)
        return lab.tally(overflows)


@fault("F5", "fewer inotify watches than folders", times=60)
def watch_limit(bench: Bench, times: int) -> Tally:
    with bench.lab() as lab:
        for number in range(times):
            lab.drop(f"{number}/before.png")
        limit = 'echo 20 > /proc/sys/user/max_inotify_watches && exec "$@"'
        lab.start_wrapped("unshare", "-Ur", "sh", "-c", limit, "sh")
        for number in range(times):
            lab.drop(f"{number}/later.png")
        lab.rest()
        scanned = "so it is scanned" in lab.lives[-1].log.read_text(encoding="utf-8")
        return lab.tally(times - 20 if scanned else 0)


@fault("F6", "photos that were there before the start, and halves of photos", times=40, quick=8)
def present_at_start(bench: Bench, times: int) -> Tally:
    with bench.lab() as lab:
        halves = []
        for number in range(times):
            lab.drop(f"whole{number}.png")
            data = lab.photo(f"half{number}.png")
            stream = (lab.input / f"half{number}.png").open("wb")
            stream.write(data[: len(data) // 2])
            stream.flush()
            halves.append((stream, data[len(data) // 2 :]))
        lab.start()
        time.sleep(3 * QUIET)
        for stream, rest in halves:
            stream.write(rest)
            stream.close()
        lab.rest()
        return lab.tally(2 * times)


def _names() -> list[bytes]:
    umlaut = unicodedata.normalize
    return [
        b"not-\xff-utf8.png", b"new\nline.png", b"tab\tand\x1b[31mred.png", b"x" * 251 + b".png",
        umlaut("NFC", "für.png").encode(), umlaut("NFD", "für.png").encode(),
        b"case.png", b"CASE.png", b"Case.PNG", "🦊 fox.png".encode(), b" leading.png", b"trailing .png",
        b"-rf.png", b"--echo.png", b"a--echo.png", b"$(reboot).png", b"%s%n.png", b"quote'\".png",
        b"[glob]*?.png", b"back\\slash.png", "右から左\u202egnp.png".encode(), b"two.dots.in.it.png",
        b"COM1.png", b"~2.png", b"same.png", b"same.jpg", b"\xc3\x28.png",
        ("ä" * 125).encode() + b".png", b"sub/dir\xff/deep.png", b"percent%20.png",
    ]  # fmt: skip


@fault(
    "F14",
    "names: bytes that are no text, controls, 255 bytes, twins in case and accents",
    times=31,
    quick=31,
)
def names(bench: Bench, times: int) -> Tally:
    with bench.lab() as lab:
        first = _names()[::2]
        for raw in first:  # one half is there before
            name = os.fsdecode(raw)
            lab.place(name, lab.photo(name, "jpeg" if name.endswith("jpg") else "png"))
        lab.start()
        for raw in _names()[1::2]:
            name = os.fsdecode(raw)
            lab.place(name, lab.photo(name, "jpeg" if name.endswith("jpg") else "png"))
        lab.rest(30)
        return lab.tally(len(_names()))


@fault(
    "F15",
    "links: loops, links to outside, a file swapped for a link behind the check",
    times=300,
    quick=40,
)
def links(bench: Bench, times: int) -> Tally:
    with bench.lab() as lab:
        secret = lab.base / "secret.png"
        secret.write_bytes(
            picture(lab.rng)
        )  # its pixels are known to nobody: painted = torn, early
        (lab.input / "loop").mkdir()
        (lab.input / "loop" / "self").symlink_to(lab.input)
        (lab.input / "a").symlink_to(lab.input / "b")
        (lab.input / "b").symlink_to(lab.input / "a")
        (lab.input / "outside.png").symlink_to(secret)
        (lab.input / "folder").symlink_to(lab.base)
        lab.start()
        swaps = 0
        for number in range(times):
            name = f"swap{number % 5}/x{number}.png"
            path = lab.drop(name)
            lab.gone.add(name)
            time.sleep(lab.rng.uniform(0, 2 * QUIET) / 10)
            link = path.with_name(f".{path.name}")
            link.symlink_to(secret)
            if number % 7 == 6:  # the folder above it becomes a link
                away = lab.base / f"away{number}"
                path.parent.rename(away)
                path.parent.symlink_to(lab.base)
                time.sleep(0.02)
                path.parent.unlink()
                away.rename(path.parent)
            link.rename(path)
            swaps += 1
        for number in range(10):
            lab.drop(f"good{number}.png")
        lab.rest()
        return lab.tally(swaps + 5)


@fault(
    "F19",
    "the same bytes under other names, other bytes under the same name, foreign results",
    times=60,
    quick=12,
)
def doubles(bench: Bench, times: int) -> Tally:
    with bench.lab() as lab:
        foreign = {}
        for number in range(0, times, 3):
            lab.output.mkdir(exist_ok=True)
            path = lab.output / f"taken{number}--echo.png"
            foreign[path] = lab.foreign(path.name)
            aside = path.with_name(f".{path.name}")
            aside.write_bytes(foreign[path])
            aside.rename(path)
        lab.start()
        same = picture(lab.rng)
        for number in range(0, times, 3):
            lab.due(f"copy{number}.png", same)
            lab.place(f"copy{number}.png", same)
            lab.drop(f"again{number}.png")
            lab.drop(f"taken{number}.png")
        lab.rest()
        for number in range(0, times, 3):
            lab.drop(f"again{number}.png")  # other bytes under the same name
            lab.place(f"copy{number}.png", same)  # the very same once more
        lab.rest()
        time.sleep(4 * QUIET)
        lab.rest()
        for path, data in foreign.items():
            if path.read_bytes() != data:
                lab.blame("lost", f"{path.name}, which is not ours, was written over")
        return lab.tally(times)


def poison(lab: Lab, number: int) -> None:
    """One of ten things that are called a photo and are none."""
    path = lab.input / f"bad{number}.jpg"
    data = lab.photo(f"source{number}", "jpeg")
    del lab.versions[f"source{number}"]
    kind = number % 10
    if kind == 3:  # a good picture under a wrong ending is a good picture
        lab.due(path.name, png := picture(lab.rng))
        path.write_bytes(png)
        return
    lab.refused.add(path.name)
    if kind == 0:
        path.touch()
    elif kind == 1:
        path.write_bytes(data[: len(data) // 2])
    elif kind == 2:
        path.write_bytes(b"this is text\n" * 100)
    elif kind == 4:
        path.write_bytes(bomb())
    elif kind == 5:
        os.mkfifo(path)
    elif kind == 6:
        path.mkdir()
    elif kind == 7:
        path.write_bytes(data[:-20] + bytes(range(20)))
    elif kind == 8:
        path.write_bytes(os.urandom(5000))
    elif kind == 9:
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + os.urandom(2000))


@fault(
    "F10",
    "poison: empty, half, text, bomb, fifo, folder, noise, wrong ending, among good ones",
    times=80,
    quick=10,
)
def poisons(bench: Bench, times: int) -> Tally:
    with bench.lab() as lab:
        life = lab.start()
        for number in range(times):
            poison(lab, number)
            lab.drop(f"good{number}.png")
        lab.rest()
        if lab.kind == "stylewatch":
            settled = lab.until(lambda: _refused(lab) >= set(_files(lab)), 30)
            if not settled:
                lab.blame("wedged", f"no word of {sorted(set(_files(lab)) - _refused(lab))[:4]}")
        if not life.alive():
            lab.blame("wedged", "it is dead")
        return lab.tally(times)


def _files(lab: Lab) -> list[str]:
    return [name for name in lab.refused if not (lab.input / name).is_dir()]


def _refused(lab: Lab) -> set[str]:
    with closing(LedgerReader(lab.state / "ledger.db")) as reader:
        noted = {str(path) for _, path, _ in reader.notes(limit=-1)}
    return noted | {str(job.path) for job in lab.jobs() if job.state == "quarantined"}


MOST_BEFORE = 2
"""Two folders, two workers: when a worker is free, it is the other folder's turn."""


@fault(
    "F22",
    "ten thousand photos at once, and then one in another folder",
    times=10_000,
    quick=300,
    alone=True,
)
def burst(bench: Bench, times: int) -> Tally:
    with bench.lab(max_attempts=3, workers="{local: 2}") as lab:
        other = lab.base / "other"
        for folder in ("in", "out"):
            (other / folder).mkdir(parents=True)
        lab.configure(f"- {{name: other, input: {other}/in, output: {other}/out, preset: echo}}\n")
        for number in range(times):
            path = lab.base / "burst" / f"{number % 50}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(lab.photo(f"burst/{number % 50}/{number}.png"))
        life = lab.start()
        before = _memory(life.pid)
        peak = [before]
        threading.Thread(target=_follow, args=(lab, life.pid, peak), daemon=True).start()
        (lab.base / "burst").rename(lab.input / "burst")
        began = time.monotonic()
        data = picture(lab.rng)
        lab.until(lambda: sum(1 for _ in lab.jobs()) > 20, 30)
        lab.known.add(pixels_of(data))
        (other / "in" / "one.png").write_bytes(data)
        dropped = time.monotonic()
        if not lab.until((other / "out" / "one--echo.png").exists, 30):
            lab.blame("wedged", "the other folder waits for all of the burst")
        waited = time.monotonic() - dropped
        before_it = _started_between(life.log.read_text(encoding="utf-8"), "one.png")
        if before_it > MOST_BEFORE:
            lab.blame("wedged", f"{before_it} photos of the burst were begun before the other one")
        if not lab.until(lambda: len(lab.jobs()) > times, 60):
            lab.blame("wedged", f"only {len(lab.jobs())} photos in the ledger")
        known = time.monotonic() - began
        lab.rest(60 + times / 5)
        print(
            f"    {times} photos in the ledger after {known:.1f} s, done after"
            f" {time.monotonic() - began:.0f} s; memory grew by {(max(peak) - before) / 1e6:.0f} MB;"
            f" the other folder's photo was done after {waited:.1f} s, {before_it} begun before it",
            flush=True,
        )
        if max(peak) - before > 50e6 or known > 20 + times / 1000:
            lab.blame("wedged", "too slow or too large")
        return lab.tally(times)


def _started_between(log: str, name: str) -> int:
    """How many other jobs began between this photo's being queued and its beginning."""
    stages = [
        (stage, name in line)
        for line in log.splitlines()
        for stage in ("queued for", " → echo")
        if stage in line
    ]
    waiting = stages[stages.index(("queued for", True)) : stages.index((" → echo", True))]
    return waiting.count((" → echo", False))


def _memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf(
        "SC_PAGE_SIZE"
    )


def _follow(lab: Lab, pid: int, peak: list[int]) -> None:
    while not lab.over.wait(0.2):
        try:
            peak.append(_memory(pid))
        except OSError:
            return
