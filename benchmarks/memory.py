"""Peak memory and time of one evaluation by megapixels: both precisions, whole and in tiles.

    python benchmarks/memory.py [--weights imagenet] [--megapixels 0.25 1 2 4 8] [--tiles 1000]

Each row comes from a process of its own: the resident set's peak, and what the targets and two
evaluations added to it; the time is the second one's. Without `--weights` the built-in features are
measured. A whole picture that would need most of the free memory is left out.
"""

import argparse
import resource
import subprocess
import sys
import time
from typing import Any

from stylewatch.domain import EngineSettings
from stylewatch.jobs.child import set_environment

set_environment(EngineSettings())  # as a worker has it


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(weights: str, megapixels: float, precision: Any, budget: int) -> None:
    """In a process of its own: print the peak before and after, and how many tiles there are."""
    import numpy as np
    from keras import ops

    from stylewatch.domain import StyleSettings
    from stylewatch.engine import features, transfer
    from stylewatch.engine.objective import Region

    network = features.load_vgg19(weights) if weights else features.load_builtin()
    side = round((megapixels * 1e6) ** 0.5 / 16) * 16
    settings = StyleSettings(precision=precision)
    rng = np.random.default_rng(0)
    photo = ops.convert_to_tensor(rng.random((1, side, side, 3), dtype=np.float32) * 240 - 120)
    style = photo[:, :256, :256]
    memory = budget * 10**6 or sys.maxsize
    objective = transfer._objective_for(side * side, 1.0, settings, network, memory)  # noqa: SLF001
    before = peak_bytes()
    targets = objective.targets(photo, [Region([(style, 1.0)], None)], settings)
    objective.evaluate(photo, targets)
    started = time.process_time()
    objective.evaluate(photo, targets)
    milliseconds = round(1000 * (time.process_time() - started))
    tiles = len(targets.get("pieces", ()))
    print(side, before, peak_bytes(), tiles, milliseconds)


def in_its_own_process(*arguments: str) -> list[int]:
    command = [sys.executable, __file__, "--measure", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [int(word) for word in done.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="", help="imagenet or a file; none: built-in features")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.25, 1, 2, 4, 8])
    parser.add_argument(
        "--tiles", type=int, default=1000, help="megabytes of one tile's evaluation"
    )
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        weights, megapixels, precision, budget = options.measure
        measure(weights, float(megapixels), precision, int(budget))
        return
    from stylewatch.engine.backend import free_memory
    from stylewatch.engine.transfer import BYTES_PER_PIXEL

    print(
        "| megapixels | precision | tiles | peak RSS, GB | of it, evaluation | bytes a pixel "
        "| processor seconds |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for megapixels in options.megapixels:
        for precision, bytes_per_pixel in BYTES_PER_PIXEL.items():
            for budget in (0, options.tiles):
                if budget and megapixels * 1e6 * bytes_per_pixel <= budget * 1e6:
                    continue
                if budget == 0 and megapixels * 1e6 * bytes_per_pixel > 0.7 * free_memory():
                    print(
                        f"| {megapixels:g} | {precision} | whole | too much for this machine "
                        "| | | |"
                    )
                    continue
                side, before, peak, tiles, spent = in_its_own_process(
                    options.weights, str(megapixels), precision, str(budget)
                )
                added = peak - before
                print(
                    f"| {megapixels:g} | {precision} | {tiles or 'whole'} | {peak / 1e9:.2f} "
                    f"| {added / 1e9:.2f} | {added / side**2:.0f} | {spent / 1000:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
