"""What the daemon costs while nothing goes wrong: how soon it picks a photo up, how idle it idles.

python -m tests.faults.figures
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from statistics import median

from tests.faults.lab import QUIET, Lab, Life, open_forkserver

IDLE_SECONDS = 60


def pick_up(lab: Lab, times: int = 100) -> list[float]:
    """Seconds from the close of a file to the beginning of its job, less the quiet period."""
    lab.drop("warm.png")  # the worker's process starts
    lab.rest()
    late = []
    for number in range(times):
        name = f"{number}.png"
        data = lab.photo(name)
        with (lab.input / name).open("wb") as stream:
            stream.write(data)
        closed = time.monotonic()
        pixels = lab.versions[name][-1]
        if not lab.until(lambda pixels=pixels: pixels in lab.renders.read_text(), 10):
            raise TimeoutError(name)
        began = {line.split()[1]: float(line.split()[0]) for line in lab.renders.open()}
        late.append(began[pixels] - closed - QUIET)
        time.sleep(lab.rng.uniform(0, 0.1))
    return late


def idle(life: Life, seconds: float = IDLE_SECONDS) -> float:
    """Share of one core that the daemon uses while nothing comes."""
    before = _processor_seconds(life.pid)
    time.sleep(seconds)
    return (_processor_seconds(life.pid) - before) / seconds


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def loaded(pid: int) -> list[str]:
    """Which of the network's libraries the process has mapped."""
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    return [name for name in ("tensorflow", "keras", "scipy") if f"/{name}" in maps]


def main() -> int:
    open_forkserver()
    with tempfile.TemporaryDirectory(prefix="figures-") as folder:
        with Lab(Path(folder), Random(1), settings={"rescan_seconds": 30}) as lab:
            life = lab.start()
            late = pick_up(lab)
            share = idle(life)
            worst = max(late)
            mapped = loaded(life.pid)
            lab.stop(life)
    print(
        f"pick-up after the quiet period of {QUIET} s: median {median(late):.3f} s, worst {worst:.3f} s"
    )
    print(f"idle daemon: {share:.2%} of one core; libraries mapped: {mapped or 'none'}")
    return 0 if median(late) <= 0.2 and share < 0.005 and not mapped else 1


if __name__ == "__main__":
    sys.exit(main())
