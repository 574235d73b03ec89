"""One whole job at a photo's own size, however large: seconds, evaluations and peak memory.

    python benchmarks/large.py [--photo FILE] [--size 6000x4000] [--memory 1500] [--out DIR]

Without a photo the demo's is enlarged to the size, with grain, so that there is detail at every
scale. The job is the worker's own: it reads the file, paints, writes the result and opens it again.
When it was killed, the same command goes on. `--memory 0` means three quarters of what is free.
"""

import argparse
import hashlib
import io
import os
import resource
import time
from dataclasses import replace
from pathlib import Path

from stylewatch.domain import EngineSettings, Failure, JobRequest, Step
from stylewatch.jobs.child import set_environment

set_environment(EngineSettings())  # as a worker has it

import numpy as np
from PIL import Image

from stylewatch.commands.painting import DEMO_PHOTO
from stylewatch.jobs.worker import run_job
from stylewatch.settings.presets import Presets


def enlarged(file: Path, size: tuple[int, int]) -> bytes:
    """A photo of `size` with the picture of `file`, as JPEG."""
    with Image.open(file) as image:
        large = np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS))
    grain = np.random.default_rng(0).normal(0, 4, (*large.shape[:2], 1)).astype(np.float32)
    grainy = np.clip(large + grain, 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(grainy).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def peak_gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def gpu_peak() -> str:
    """What a GPU held at most; nothing where there is none, or nobody counts."""
    if os.environ.get("KERAS_BACKEND") != "jax":
        return ""
    import jax

    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    return f", on the GPU {peak / 1e9:.2f} GB" if peak else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", type=Path, help="painted as it is")
    parser.add_argument("--size", default="6000x4000", help="of the enlarged demo photo")
    parser.add_argument("--preset", default="painting")
    parser.add_argument("--features", default="builtin", choices=["builtin", "vgg19"])
    parser.add_argument("--weights", default="imagenet", help="imagenet or a file")
    parser.add_argument("--memory", type=int, default=1500, help="megabytes of the painting")
    parser.add_argument("--evaluations", type=int, help="at every scale, instead of the preset's")
    parser.add_argument("--out", type=Path, default=Path("build/large"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    photo = options.photo or options.out / "photo.jpg"
    if not options.photo:
        width, height = map(int, options.size.split("x"))
        photo.write_bytes(enlarged(DEMO_PHOTO, (width, height)))
    preset = Presets.load()[options.preset]
    settings = replace(preset.settings, max_side="photo", features=options.features)
    if options.evaluations:
        settings = replace(settings, evaluations=(options.evaluations,))
    digest = hashlib.sha256(photo.read_bytes()).hexdigest()
    request = JobRequest(
        job_id=1,
        key=digest,
        source=photo,
        digest=digest,
        preset=replace(preset, settings=settings),
        target=options.out / f"{photo.stem}--{preset.name}",
    )
    engine = EngineSettings(
        weights=options.weights, memory=options.memory * 10**6, checkpoint_dir=options.out
    )
    started = time.monotonic()

    def report(step: Step) -> None:
        print(
            f"{step.seconds:6.0f} s  scale {step.scale}/{step.scales}  {step.width}×{step.height}  "
            f"evaluation {step.evaluation}/{step.evaluations}  loss {step.loss:.4f}  "
            f"peak {peak_gigabytes():.2f} GB",
            flush=True,
        )

    outcome = run_job(request, engine, report=report)
    if isinstance(outcome, Failure):
        raise SystemExit(f"{outcome.reason}: {outcome.message}")
    seconds = time.monotonic() - started
    print(f"{outcome.temporary}: {outcome.width}×{outcome.height}")
    peaks = f"peak {peak_gigabytes():.2f} GB{gpu_peak()}"
    print(f"{outcome.evaluations} evaluations, {seconds:.0f} s, {peaks}")


if __name__ == "__main__":
    main()
