"""Faults of processes and of the machine: killed at any step, at any time, in any job; power loss."""

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np

from stylewatch.folders.naming import TEMPORARY_SUFFIX
from tests.faults.lab import BOUND, Lab, Tally, encode
from tests.faults.plugin.echo import ORDERS
from tests.faults.steps import POINTS, STEPS
from tests.faults.table import Bench, fault

AT_A_TIME = 3


def _photos(lab: Lab) -> None:
    """Three, one of them a copy of another, and a fourth in another format."""
    lab.drop("a.png")
    same = (lab.input / "a.png").read_bytes()
    lab.due("b.png", same)
    lab.place("b.png", same)
    lab.drop("sub/c.png")
    lab.drop("d.jpg", "jpeg")


def _killed_at(lab: Lab, point: str) -> bool:
    """A life with this failpoint; whether it or its worker died there."""
    armed = lab.base / f"{lab.renders.name}.armed"
    armed.unlink(missing_ok=True)
    life = lab.start(point, wait=False)
    lab.until(lambda: not life.alive() or (lab.at_rest() and _all_moved(lab)), 30)
    life.signal(signal.SIGTERM)
    code = life.wait(BOUND)
    if code == 0:
        return "(SIGKILL)" in life.log.read_text(encoding="utf-8", errors="replace")
    if code != -signal.SIGKILL:
        lab.blame("wedged", f"it ended with {code}: {lab.tail()}")
        life.kill()
    return True


def _all_moved(lab: Lab) -> bool:
    return lab.after != "move" or not any(path.is_file() for path in lab.input.rglob("*"))


def _recovers(bench: Bench, *points: str) -> tuple[Tally, bool]:
    """Lives that die at these points one after another, then one that must make all good."""
    name = "+".join(points).replace("/", "")
    with bench.lab(name, after="move", quiet_seconds=0.1) as lab:
        _photos(lab)
        killed = [_killed_at(lab, point) for point in points]
        life = lab.start()
        lab.rest()
        lab.until(lambda: _all_moved(lab), 10)
        _nothing_left(lab)
        lab.stop(life)
        return lab.tally(sum(killed)), killed[-1]


def _nothing_left(lab: Lab) -> None:
    """Photos were moved, once, and no temporary files lie about."""
    if not _all_moved(lab):
        lab.blame("wedged", "a photo was not moved")
    moved = sorted(str(path.relative_to(lab.moved)) for path in lab.moved.rglob("*.*"))
    for name in set(moved) - set(lab.versions):
        lab.blame("duplicated", f"{name} lies among the moved photos")
    for path in lab.orphans():
        lab.blame("wedged", f"{path} was left behind")


@fault(
    "F7",
    "kill -9 at every step that touches the ledger or a file, then at every step of the recovery",
    times=30,
    quick=1,
)
def failpoints(bench: Bench, times: int) -> Tally:
    def walk(step: str) -> Tally:
        """Every time that the step is passed, up to `times`."""
        total = Tally()
        for number in range(1, times + 1):
            tally, killed = _recovers(bench, f"{step}:{number}")
            if not killed and number > (1 if step.startswith("ledger") else 4):
                break
            total += tally
        return total

    def recovery(step: str) -> Tally:
        first = ("publication.journalled:2", "outputs.named:1", "publication.published:1")
        second = [f"{step}:{number}" for number in range(1, 4)]
        points = [(one, two) for one in first for two in second]
        return sum((_recovers(bench, *pair)[0] for pair in points), Tally())

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        tallies = list(pool.map(walk, POINTS if times > 1 else STEPS[2::3]))
        if times > 1:
            tallies += pool.map(recovery, ("ledger.committed", "outputs.folder-synced"))
    return sum(tallies, Tally())


@fault(
    "F8", "kill -9 of the daemon or its worker at random times, for a long time", times=500, quick=8
)
def soak(bench: Bench, times: int) -> Tally:
    """Four photos for each kill, dropped in several ways all the time."""

    def one(after: str) -> Tally:
        with bench.lab(after, after=after, quiet_seconds=0.1) as lab:
            enough = threading.Event()
            dropper = threading.Thread(target=drop, args=(lab, enough))
            dropper.start()
            kills = 0
            while kills < times // 2:
                life = lab.start(wait=lab.rng.random() < 0.9)
                time.sleep(lab.rng.uniform(0, 1.2))
                workers = life.workers()
                if workers and lab.rng.random() < 0.2:
                    _kill(lab.rng.choice(workers))
                    time.sleep(lab.rng.uniform(0, 0.5))
                    kills += 1
                life.kill()
                kills += 1
            enough.set()
            dropper.join()
            life = lab.start()
            lab.until(lambda: lab.at_rest() or not _on_their_way(lab), 90 + times / 5)
            aside = [job for job in lab.jobs() if job.state == "quarantined"]
            for job in aside:
                if job.reason not in {"crash", "interrupted"}:
                    lab.blame("lost", f"{job.path} was set aside as {job.reason}")
            if (
                aside
            ):  # what was killed again and again is set aside, until a person says: once more
                print(f"    {after}: {len(aside)} photos were set aside, and brought back by retry")
                lab.command("retry", "--all")
            lab.rest()
            lab.stop(life)
            return lab.tally(kills)

    def drop(lab: Lab, enough: threading.Event) -> None:
        for number in range(2 * times):
            name = f"{number % 9}/{number}.png"
            path = lab.input / name
            path.parent.mkdir(exist_ok=True)
            data = lab.photo(name)
            if number % 3:
                lab.place(name, data)
            else:
                with path.open("wb") as stream:
                    stream.write(data[:100])
                    stream.flush()
                    time.sleep(lab.rng.uniform(0, 0.3))
                    stream.write(data[100:])
            if not enough.is_set():
                time.sleep(lab.rng.uniform(0, 0.3))

    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(one, ("keep", "move")), Tally())


def _on_their_way(lab: Lab) -> bool:
    return any(job.state not in {"done", "quarantined"} for job in lab.jobs()) or bool(
        {*lab.versions} - {str(job.path) for job in lab.jobs()}
    )


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


@fault(
    "F9",
    "a worker that crashes, is killed, hangs, runs out of memory or just ends",
    times=15,
    quick=5,
)
def workers(bench: Bench, times: int) -> Tally:
    with bench.lab(job_timeout=5, memory_limit="2GB") as lab:
        life = lab.start()
        for number, colour in zip(range(times), _round(list(ORDERS)), strict=False):
            name = f"bad{number}.png"
            lab.refused.add(name)
            data = _with_mark(colour, number)
            lab.place(name, data)
            lab.due(name, data)
            lab.drop(f"good{number}.png")
        aside = lab.until(lambda: len(_quarantined(lab)) == times, 60 + 10 * times)
        if not aside:
            lab.blame("wedged", f"only {sorted(_quarantined(lab))} were set aside")
        lab.rest()
        if not life.alive():
            lab.blame("wedged", "the daemon died with its worker")
        return lab.tally(times)


def _round(orders: list) -> Iterator:
    return (orders[number % len(orders)] for number in count())


def _with_mark(colour: tuple[int, int, int], number: int) -> bytes:
    """An order whose bytes are its own: copies would share one fate."""

    pixels = np.full((12, 16, 3), colour, np.uint8)
    pixels[5, 5] = (number, 1, 2)
    return encode(pixels, "png")


def _quarantined(lab: Lab) -> set[str]:
    return {str(job.path) for job in lab.jobs() if job.state == "quarantined"}


@fault("F21", "SIGTERM and SIGINT at random times, photos being painted", times=201, quick=6)
def terminations(bench: Bench, times: int) -> Tally:
    def one(each: int) -> Tally:
        with bench.lab(f"lab{each}", quiet_seconds=0.1) as lab:
            longest = 0.0
            for number in range(times // AT_A_TIME):
                lab.environment["ECHO_SECONDS"] = f"{lab.rng.choice((0.01, 0.3, 2.0))}"
                lab.drop(f"{number}a.png")
                life = lab.start()
                lab.drop(f"{number}b.png")
                time.sleep(lab.rng.uniform(0, 1.5))
                longest = max(
                    longest, lab.stop(life, lab.rng.choice((signal.SIGTERM, signal.SIGINT)))
                )
            if counted := _counted(lab):
                lab.blame("wedged", f"{counted} stops were counted as failures")
            lab.environment["ECHO_SECONDS"] = "0"
            life = lab.start()
            lab.rest(60 + times)
            for path in lab.orphans():
                lab.blame("wedged", f"{path} was left behind")
            lab.stop(life)
            return lab.tally(times // AT_A_TIME)

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return sum(pool.map(one, range(AT_A_TIME)), Tally())


def _counted(lab: Lab) -> int:
    """Failures that the ledger holds against photos."""
    ledger = sqlite3.connect(f"file:{lab.state}/ledger.db?mode=ro", uri=True)
    try:
        [(failures, crashes)] = ledger.execute("SELECT SUM(failures), SUM(crashes) FROM jobs")
        return (failures or 0) + (crashes or 0)
    finally:
        ledger.close()


# --- power loss ----------------------------------------------------------------------------------


@fault(
    "F25",
    "power loss at every step: what was not synced is undone before the restart",
    times=4,
    quick=1,
)
def power_loss(bench: Bench, times: int) -> Tally:
    """Modelled: the daemon's own file operations are traced, and undone where no fsync came after.

    Names whose folder was not synced come and go at random, and files that were not synced are cut.
    The ledger is SQLite's with synchronous=FULL: what is committed is taken to be durable.
    """

    def one(point: str) -> Tally:
        with bench.lab(f"power {point}", after="move", quiet_seconds=0.1) as lab:
            lab.environment["STYLEWATCH_SABOTAGE"] = f"power:{lab.input}"
            _photos(lab)
            killed = _killed_at(lab, point)
            undone = _lose_power(lab) if killed else 0
            lab.environment.clear()
            life = lab.start()
            lab.rest()
            lab.until(lambda: _all_moved(lab), 10)
            _nothing_left(lab)
            lab.stop(life)
            return lab.tally(undone)

    steps = STEPS if times > 1 else STEPS[3::3]
    points = [f"{step}:{number}" for step in steps for number in range(1, times + 1)]
    if times > 1:
        points += [f"ledger.committed:{number}" for number in range(3, 30)]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return sum(pool.map(one, points), Tally())


def _lose_power(lab: Lab) -> int:
    """Undo what was not durable when it happened, the latest first; how much that was."""
    trace = lab.base / ".trace"
    lines = [
        os.fsdecode(line).split("\t")
        for line in (trace.read_bytes() if trace.exists() else b"").splitlines()
    ]
    undone = 0
    synced: set[str] = set()
    places = tuple(f"{folder}/" for folder in (lab.input, lab.output, lab.moved))
    for kind, path, *more in reversed(lines):
        if not path.startswith(places) and path + "/" not in places:
            continue  # the state's own files: SQLite sees to them
        if kind == "sync":
            synced.add(path)
        elif os.path.dirname(path) not in synced and lab.rng.random() < 0.7:
            undone += _undo(kind, Path(path), *more)
    whole = {path for kind, path, *_ in lines if kind == "sync"}
    for path in lab.output.rglob(f"*{TEMPORARY_SUFFIX}"):
        if str(path) not in whole:
            os.truncate(path, lab.rng.randrange(path.stat().st_size + 1))
            undone += 1
        if str(path.parent) not in whole and lab.rng.random() < 0.5:
            path.unlink()
            undone += 1
    return undone


def _undo(kind: str, path: Path, grave: str = "", old: str = "") -> int:
    if kind == "replace":
        os.link(path, old)
    path.unlink(missing_ok=kind == "unlink")  # its name may have been given again since
    if grave:
        os.link(grave, path)
    return 1
