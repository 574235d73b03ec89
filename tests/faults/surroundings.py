"""Faults of the world around: full and sick disks, folders that go, other daemons, configs, clocks."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from stylewatch.errors import ConfigError
from stylewatch.settings.loading import load_config
from tests.faults.lab import QUIET, Lab, Tally, flat
from tests.faults.plugin.echo import ORDERS
from tests.faults.table import Bench, fault


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A file system of its own; only root may mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    command = options or ("-t", "tmpfs", "-o", "size=16m", "none")
    subprocess.run(["mount", *command, folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def _fill(folder: Path) -> Path:
    """Takes all that is left."""
    ballast = folder / ".ballast"
    with ballast.open("wb") as stream, contextlib.suppress(OSError):
        while True:
            os.write(stream.fileno(), bytes(4096))
    with ballast.open("ab") as stream, contextlib.suppress(OSError):
        while True:
            os.write(stream.fileno(), b"x")
    return ballast


@fault(
    "F11",
    "a full disk under the results, under the ledger; then there is space again",
    times=6,
    quick=0,
)
def full_disks(bench: Bench, times: int) -> Tally:
    total = Tally()
    for place in ("out", "state"):
        with bench.lab(place) as lab, mounted(lab.base / place):
            life = lab.start()
            lab.drop("before.png")
            lab.rest()
            met = 0
            for turn in range(times // 2):
                ballast = _fill(lab.base / place)
                for number in range(20):
                    lab.drop(f"{turn}-{number}-{'x' * 150}.png")
                begun = life.log.stat().st_size
                met += lab.until(partial(_says, life, "space", "full", since=begun), 15)
                time.sleep(1.0)
                ballast.unlink()
                lab.rest()
            if not life.alive():
                lab.blame("wedged", "it died of the full disk")
            lab.stop(life)
            total += lab.tally(met)
    return total


def _says(life, *words: str, since: int = 0) -> bool:
    text = life.log.read_bytes()[since:].decode(errors="replace").lower()
    return any(word in text for word in words)


@fault(
    "F12",
    "the watched folder is removed, renamed away and back, replaced, mounted over",
    times=8,
    quick=4,
)
def roots(bench: Bench, times: int) -> Tally:
    with bench.lab() as lab:
        life = lab.start()
        done = 0
        for turn in range(times):
            lab.drop(f"{turn}-before.png")
            kind = turn % 4
            if kind == 0:  # renamed away, filled, and back
                away = lab.base / "away"
                lab.input.rename(away)
                time.sleep(0.5)
                data = lab.photo(f"{turn}-meanwhile.png")
                (away / f"{turn}-meanwhile.png").write_bytes(data)
                time.sleep(lab.rng.uniform(0, 3))
                away.rename(lab.input)
            elif kind == 1:  # removed with all that is in it, and made anew
                lab.rest()
                lab.gone |= set(lab.versions)
                shutil.rmtree(lab.input)
                time.sleep(lab.rng.uniform(0, 3))
                lab.input.mkdir()
            elif kind == 2:  # another folder takes its place in one step
                lab.rest()
                lab.gone |= set(lab.versions)
                other = lab.base / f"other{turn}"
                other.mkdir()
                (other / f"{turn}-other.png").write_bytes(lab.photo(f"{turn}-other.png"))
                lab.input.rename(lab.base / f"old{turn}")
                other.rename(lab.input)
            else:  # a disk is mounted over it and taken away again
                try:
                    with mounted(lab.input):
                        time.sleep(0.5)
                        lab.gone.add(name := f"{turn}-mounted.png")
                        (lab.input / name).write_bytes(lab.photo(name))
                        lab.until(lambda name=name: _made(lab, name), 10)
                        if not _made(lab, name):
                            lab.blame("lost", f"{name} on the mounted disk")
                except subprocess.CalledProcessError:
                    done -= 1  # not root
            done += 1
            lab.drop(f"{turn}-after.png")
            lab.rest()
        if not life.alive():
            lab.blame("wedged", "it died with its folder")
        return lab.tally(done)


def _made(lab: Lab, name: str) -> bool:
    return lab.versions[name][-1] in lab.results().values()


@fault("F13", "watchdog's threads die of exceptions, one after another", times=12, quick=2)
def threads(bench: Bench, times: int) -> Tally:
    with bench.lab() as lab:
        lab.environment["STYLEWATCH_SABOTAGE"] = f"threads:{lab.input}"
        lab.start()
        for number in range(times):
            kind = ("emitter", "observer")[number % 2]
            (lab.base / f".sabotage.{kind}").touch()
            lab.drop(f"{number}.png")  # the event that they die of
            lab.until(lambda kind=kind: not (lab.base / f".sabotage.{kind}").exists(), 10)
            lab.drop(f"{number}-later.png")
            lab.rest()
        return lab.tally(_acted(lab))


def _acted(lab: Lab) -> int:
    counted = lab.base / ".sabotage.count"
    return counted.read_bytes().count(b"\n") if counted.exists() else 0


@fault(
    "F16",
    "configs whose results would come in again: inside, by link, by bind mount, in a ring",
    times=9,
    quick=9,
)
def loops(bench: Bench, times: int) -> Tally:
    with bench.lab() as lab:
        base = lab.base
        (base / "link").symlink_to(lab.input)
        (base / "bound").mkdir()
        (base / "two").mkdir()
        shapes = [
            "- {{input: {b}/in, output: {b}/in/out}}",
            "- {{input: {b}/in, output: {b}/in}}",
            "- {{input: {b}/out/in, output: {b}/out}}",
            "- {{input: {b}/in, output: {b}/link/out}}",
            "- {{input: {b}/in, output: {b}/out, after: {{move: {b}/in/done}}}}",
            "- {{input: {b}/in, output: {b}/two}}\n- {{input: {b}/two, output: {b}/in}}",
            "- {{input: {b}/in, output: {b}/out}}\n- {{input: {b}/link, output: {b}/two}}",
            "- {{input: {b}/in, output: {b}/two/../in/x}}",
        ]
        (base / "out" / "in").mkdir(exist_ok=True)
        refused = sum(_refuses(lab, shape.format(b=base)) for shape in shapes)
        with (
            contextlib.suppress(subprocess.CalledProcessError),
            mounted(base / "bound", "--bind", lab.input),
        ):
            shapes.append("bound")
            refused += _refuses(lab, f"- {{input: {base}/in, output: {base}/bound/out}}")
        if refused < len(shapes):
            lab.blame("wedged", f"{len(shapes) - refused} of these configs were taken")
        return lab.tally(refused)


def _refuses(lab: Lab, folders: str) -> bool:
    lab.config.write_text(f"folders:\n{folders}\nstate_dir: {lab.state}\n")
    try:
        load_config(lab.config)
    except ConfigError:
        life = lab.start(wait=False)
        return life.wait(10) == 3
    print("taken:", folders, flush=True)
    return False


@fault(
    "F17",
    "a second daemon, on the same state or only the same folder; locks left by a kill",
    times=12,
    quick=3,
)
def seconds(bench: Bench, times: int) -> Tally:
    with bench.lab() as lab:
        for number in range(times):
            first = lab.start()
            lab.drop(f"{number}.png")
            if number % 3 == 1:  # the same folder, with a state of its own, copied
                shutil.copytree(
                    lab.state, lab.base / f"state{number}", ignore=shutil.ignore_patterns("*.sock")
                )
                lab.configure(state_dir=lab.base / f"state{number}")
            second = lab.start(wait=False)
            if second.wait(10) in {0, None}:
                lab.blame("wedged", "a second daemon was let in")
                second.kill()
            lab.configure(state_dir=lab.state)
            lab.rest()
            first.kill()
        life = lab.start()
        lab.drop("last.png")
        lab.rest()
        lab.stop(life)
        return lab.tally(times)


@fault(
    "F18",
    "a photo is changed, replaced or deleted while it is painted, and is to be deleted after",
    times=30,
    quick=6,
)
def racing(bench: Bench, times: int) -> Tally:
    with bench.lab(after="delete", max_attempts=9) as lab:
        lab.environment["ECHO_SECONDS"] = "0.4"
        lab.start()
        met = 0
        for number in range(times):
            path = lab.drop(f"{number}.png")
            pixels = lab.versions[path.name][-1]
            met += lab.until(lambda pixels=pixels: pixels in lab.renders.read_text(), 20)
            time.sleep(lab.rng.choice((0.0, 0.2, 0.38, 0.42)))
            kind = number % 3
            if kind == 0:
                lab.place(path.name, lab.photo(path.name))
            elif kind == 1:
                data = lab.photo(path.name)
                with path.open("wb") as stream:
                    stream.write(data)
            else:
                path.unlink(missing_ok=True)
                lab.gone.add(path.name)
        lab.rest(60 + times)
        if not lab.until(lambda: not any(lab.input.iterdir()), 20):
            lab.blame("wedged", f"{len(list(lab.input.iterdir()))} painted photos were not deleted")
        return lab.tally(met)


@fault(
    "F20",
    "the config is read again under load: good, broken, without a folder, with another preset",
    times=40,
    quick=8,
)
def reloads(bench: Bench, times: int) -> Tally:
    with bench.lab(workers="{local: 2}") as lab:
        other = lab.base / "other"
        other.mkdir()
        more = f"- {{name: other, input: {other}, output: {lab.base}/other-out, preset: echo}}\n"
        lab.environment["ECHO_SECONDS"] = "0.05"
        life = lab.start()
        for number in range(times):
            for each in range(5):
                lab.drop(f"{number}-{each}.png")
            kind = number % 4
            if kind == 0:
                lab.configure(more)
            elif kind == 1:
                lab.config.write_text("folders: [{input: nowhere, outptu: x}]\n")
            elif kind == 2:
                lab.config.write_text(lab.config.read_text().replace("nowhere", "never"))
            else:
                lab.configure()
                preset = lab.base / "presets" / "echo.yaml"
                preset.write_text(
                    f"effect: echo\noutput: {{format: png, quality: {50 + number % 50}}}\n"
                )
            life.signal(signal.SIGHUP)
            time.sleep(lab.rng.uniform(0, 0.3))
        lab.configure()
        life.signal(signal.SIGHUP)
        lab.rest(60 + times)
        text = life.log.read_text(encoding="utf-8", errors="replace")
        seen = text.count("config read again") + text.count("the old config goes on")
        if not life.alive():
            lab.blame("wedged", "it died of a reload")
        return lab.tally(min(seen, times))


@fault("F23", "EIO, ESTALE and EBUSY from every call on a folder, for seconds", times=6, quick=2)
def sick_disks(bench: Bench, times: int) -> Tally:
    """Modelled: the calls fail inside the daemon and its workers, not in the kernel."""
    total = Tally()
    for place in ("in", "out"):
        with bench.lab(place, after="move") as lab:
            lab.environment["STYLEWATCH_SABOTAGE"] = f"io:{lab.base / place}"
            life = lab.start()
            switch = lab.base / ".sabotage.on"
            for number in range(times // 2):
                lab.drop(f"{number}-before.png")
                time.sleep(lab.rng.uniform(0, 3 * QUIET))
                switch.touch()
                lab.drop(f"{number}-sick.png")
                time.sleep(lab.rng.uniform(1, 4))
                switch.unlink()
                lab.drop(f"{number}-after.png")
                lab.rest()
            if not life.alive():
                lab.blame("wedged", "it died of the sick disk")
            lab.stop(life)
            total += lab.tally(_acted(lab))
    return total


@fault(
    "F24",
    "photos from 1970 and from the future, and a clock that leaps by an hour all the time",
    times=40,
    quick=8,
)
def clocks(bench: Bench, times: int) -> Tally:
    """The leaps are modelled: they happen to the daemon's clock, not to the machine's."""
    with bench.lab() as lab:
        lab.environment["STYLEWATCH_SABOTAGE"] = f"clock:{lab.input}"
        life = lab.start()
        for number in range(times):
            name = f"{number}.png"
            path = lab.base / name
            path.write_bytes(lab.photo(name))
            moment = (0, 1, 4_000_000_000, time.time() + 3600, time.time() - 3600)[number % 5]
            os.utime(path, (moment, moment))
            path.rename(lab.input / name)
        lab.refused.add("bad.png")
        data = flat(next(iter(ORDERS)))
        lab.due("bad.png", data)
        lab.place("bad.png", data)  # what fails is tried again later, by that clock
        lab.rest()
        if not lab.until(lambda: any(job.state == "quarantined" for job in lab.jobs()), 30):
            lab.blame("wedged", "a failure is never tried again")
        leaps = [job for job in lab.jobs() if abs(job.changed - time.time()) > 1800]
        lab.stop(life)
        return lab.tally(times if leaps else 0)
