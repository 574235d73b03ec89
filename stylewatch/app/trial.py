"""The doctor's trial of the engine: a program of its own, as a crash of TensorFlow would end it.

Prints what it finds out, a line of JSON after each step. Knows nothing of findings.
"""
# ruff: noqa: PLC0415  (each import is a step that may fail, after what was printed before)

import importlib
import json
import pickle
import sys

from stylewatch.engine.machine import check_processor
from stylewatch.errors import WeightsError
from stylewatch.jobs.child import limit_memory, set_environment


def main() -> None:
    """Read the engine's settings and a preset's from stdin, pickled, and try them."""
    engine, settings = pickle.load(sys.stdin.buffer)  # noqa: S301  (from our own doctor)
    set_environment(engine)  # with as many threads as a worker, which libraries ask when they load
    limit_memory(engine.memory_limit)
    check_processor()
    import keras

    backend = keras.backend.backend()
    library = importlib.import_module(backend)
    _tell(backend=backend, keras=keras.__version__, version=library.__version__)
    from stylewatch.engine.backend import device

    found = device()
    _tell(device=found.name, fast_bfloat16=found.fast_bfloat16)
    from stylewatch.engine.transfer import plan_scales
    from stylewatch.jobs.styletransfer import probe_speed

    cost = sum(scale.cost for scale in plan_scales(1024, 768, settings))
    try:
        _tell(**probe_speed(engine), evaluations_per_photo=cost / 384**2)
    except WeightsError as error:  # what is in the file only shows when it is read
        _tell(weights=str(error))


def _tell(**words: str | float) -> None:
    print("\n" + json.dumps(words), flush=True)  # noqa: T201  (libraries may have begun a line)


if __name__ == "__main__":
    main()
