"""What a GPU makes of it: evaluations, whole pictures, and a plain PyTorch loop beside them.

    KERAS_BACKEND=jax python benchmarks/gpu.py --photo FILE --painting FILE [--weights imagenet] \
        [--sizes 512 1024 2048] [--out DIR]

Needs JAX (or Keras's TensorFlow backend) and PyTorch that see the GPU. Everything is warm unless it
says cold. The loop is peer.py's, in a process of its own, and comes first. If a part fails, its
traceback is printed and the next is begun. A photo of 24 megapixels is large.py's, `--memory 0`.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from peer import EVALUATIONS, HISTORY, NEAR, SIDE, prepare, same_objective, torch_loop
from sheets import read

PRECISIONS = ("bfloat16", "float32")
REPEAT = 20
PRODUCT = 8192


class OnDevice:
    """Notes when each evaluation was done; copies of the images stay on the device."""

    def __init__(self, every: int = 0) -> None:
        self.every, self.evaluation = every, 0
        self.images: dict[int, Any] = {}
        self.times = [time.perf_counter()]
        self.loss = float("nan")

    def evaluated(self, loss: float, image: Any) -> None:
        """One more evaluation is done; the loss has come to the host, so the device has ended."""
        self.evaluation += 1
        self.loss = loss
        self.times.append(time.perf_counter())
        if self.every and self.evaluation % self.every == 0:
            self.images[self.evaluation] = image

    def each(self) -> float:
        """Median seconds of an evaluation, in the middle of the run."""
        return float(np.median(np.diff(self.times)[self.evaluation // 3 :]))


# -- the peer, in its own process ------------------------------------------------------------------


def run_peer(folder: Path) -> None:
    """500 evaluations; the image reached, and how long it took."""
    import torch

    torch_loop(folder, 30, OnDevice(), "cuda")[0]()  # libraries load, kernels are chosen
    recorder = OnDevice()
    loop, image = torch_loop(folder, EVALUATIONS, recorder, "cuda")
    torch.cuda.synchronize()
    recorder.times[0] = started = time.perf_counter()
    loop()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    np.save(folder / "peer.npy", image.detach().permute(0, 2, 3, 1).cpu().numpy())
    facts = {
        "seconds": seconds,
        "each": recorder.each(),
        "loss": recorder.loss,
        "peak": torch.cuda.max_memory_allocated(),
        "device": torch.cuda.get_device_name(0),
    }
    (folder / "peer.json").write_text(json.dumps(facts), encoding="utf-8")


# -- ours ------------------------------------------------------------------------------------------


def median(call: Callable[[], Any], repeat: int = REPEAT) -> float:
    """Seconds; the first two calls compile and choose."""
    times = []
    for _ in range(repeat + 2):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def one_evaluation(network: Any, side: int, precision: Any) -> dict[str, float]:
    """Seconds of an evaluation by itself, and within L-BFGS."""
    from keras import ops

    from stylewatch.domain import StyleSettings
    from stylewatch.engine import features
    from stylewatch.engine.objective import Objective, Region
    from stylewatch.engine.optimizers import minimize
    from stylewatch.engine.preconditioner import ImagePreconditioner
    from stylewatch.engine.transfer import BLACK_AND_WHITE, NOISE

    settings = StyleSettings(content_layers={"block5_conv2": 1.0})
    objective = Objective(
        network, ("block5_conv2",), tuple(settings.style_layers), "max", precision
    )
    rng = np.random.default_rng(0)
    photo, style = (
        ops.convert_to_tensor(features.preprocess(rng.uniform(0, 255, (side, side, 3))))
        for _ in range(2)
    )
    started = time.perf_counter()
    targets = objective.targets(photo, [Region([(style, 1.0)], None)], settings)

    def evaluate(image: Any) -> Any:
        return objective.evaluate(image, targets)

    float(evaluate(photo)[0])
    cold = time.perf_counter() - started
    calls = 10

    def several() -> None:  # one after the other on the device, which only the last is awaited of
        for _ in range(calls):
            _, parts, _ = objective._evaluate(photo, targets)  # noqa: SLF001
        np.asarray(parts)

    recorder = OnDevice()

    def on_iterate(iterate: Any) -> bool:
        recorder.evaluated(iterate.loss, None)
        return True

    minimize(
        evaluate, photo, on_iterate, optimizer="lbfgs", evaluations=100, noise=NOISE[precision],
        bounds=BLACK_AND_WHITE, preconditioner=ImagePreconditioner(photo),
    )  # fmt: skip
    return {
        "cold": cold,
        "device": median(several, 5) / calls,
        "evaluation": median(lambda: float(evaluate(photo)[0])),
        "optimised": recorder.each(),
    }


def against_peer(
    weights: str, folder: Path, precision: Any, referee_of: Callable[[], Any]
) -> Iterator[str]:
    """The peer's objective with our L-BFGS until its loss."""
    from keras import ops

    from stylewatch.engine.optimizers import Iterate, minimize
    from stylewatch.engine.preconditioner import ImagePreconditioner
    from stylewatch.engine.transfer import NOISE

    facts = json.loads((folder / "peer.json").read_text(encoding="utf-8"))
    referee = referee_of()
    yield f"the peer's objective, {precision}:"
    goal = float(referee(np.load(folder / "peer.npy"))[0])
    photo, painting = (np.load(folder / f"{name}.npy") for name in ("photo", "painting"))
    evaluate = same_objective(weights, photo, painting, precision)
    start = ops.convert_to_tensor(photo)
    for evaluations in (2 * HISTORY["ours"], 2 * EVALUATIONS):  # the first fills the history
        recorder = OnDevice(every=5)

        def on_iterate(iterate: Iterate, to: OnDevice = recorder) -> bool:
            to.evaluated(iterate.loss, iterate.best)
            return True

        minimize(
            evaluate, start, on_iterate, optimizer="lbfgs",
            evaluations=evaluations, history=HISTORY["ours"], noise=NOISE[precision],
            preconditioner=ImagePreconditioner(start),
        )  # fmt: skip
    losses = {number: float(referee(image)[0]) for number, image in recorder.images.items()}
    for name, loss in (("the peer's loss", goal), ("1 % above it", NEAR * goal)):
        number = next((n for n, found in losses.items() if found <= loss), None)
        if number is None:
            yield f"  {name}: not reached, least {min(losses.values()) / goal:.4f} of it"
            continue
        seconds = recorder.times[number] - recorder.times[0]
        yield (
            f"  {name}: {number} evaluations, {seconds:.2f} s; "
            f"peer {facts['seconds']:.2f} s, {facts['seconds'] / seconds:.1f} × sooner"
        )
    total = recorder.times[min(EVALUATIONS, recorder.evaluation)] - recorder.times[0]
    yield f"  500 evaluations: {total:.2f} s, {recorder.each() * 1e3:.2f} ms each"


def pictures(args: argparse.Namespace, network: Any, side: int) -> Iterator[str]:
    """The presets `painting` and `classic` from file to picture; the first of a size compiles."""
    from stylewatch.engine.transfer import Style, stylize
    from stylewatch.settings.presets import Presets

    presets = Presets.load()
    painting = read(args.painting)
    for name in ("painting", "classic"):
        if name == "classic" and side != SIDE:
            continue
        settings = replace(presets[name].settings, max_side=side)
        if name == "classic":
            settings = replace(settings, evaluations=(EVALUATIONS,), optimizer="lbfgs")
        photo = read(args.photo, side)
        seconds = []
        for turned in (photo[:, ::-1], photo):
            started = time.perf_counter()
            result = stylize(turned, [Style(painting)], settings, network)
            seconds.append(time.perf_counter() - started)
        save(result.rgb, args.out / f"{name}-{side}.jpg")
        height, width = result.rgb.shape[:2]
        yield (
            f"{name}, {width}×{height}, {result.evaluations} evaluations: "
            f"{seconds[1]:.2f} s warm, {seconds[0]:.1f} s cold"
        )


def of_the_peer(pair: Path) -> Iterator[str]:
    """The PyTorch loop, in its own process."""
    subprocess.run([sys.executable, __file__, "--peer", str(pair)], check=True)
    facts = json.loads((pair / "peer.json").read_text(encoding="utf-8"))
    yield f"PyTorch loop on {facts['device']}: {facts}"


def products(precision: str, rates: dict[str, float]) -> Iterator[str]:
    """The rate of matrix products, noted in `rates`."""
    from evaluation import product_rate

    rates[precision] = product_rate(precision, 5, side=PRODUCT, calls=20)
    yield f"matrix products, {precision}: {rates[precision] / 1e12:.0f} TFLOP/s"


def evaluated(network: Any, side: int, precision: str, rates: dict[str, float]) -> Iterator[str]:
    """An evaluation of that size, against the rate of products if that is known."""
    from evaluation import FLOP_512

    found = one_evaluation(network, side, precision)
    rate = rates.get(precision, math.nan)
    share = FLOP_512 * (side / 512) ** 2 / found["device"] / rate
    times = ", ".join(
        f"{name} {seconds * 1e3:.2f} ms" for name, seconds in found.items() if name != "cold"
    )
    yield (
        f"{side}² {precision}: {times}, {share:.2f} of the products' rate, "
        f"cold {found['cold']:.1f} s, {memory_peak()}"
    )


def parts(args: argparse.Namespace, pair: Path) -> Iterator[Callable[[], Iterator[str]]]:
    """All that is measured; each gives its lines."""
    yield partial(of_the_peer, pair)
    import keras

    from stylewatch.engine import backend
    from stylewatch.engine.features import load_vgg19

    network = load_vgg19(args.weights)
    yield lambda: iter([f"ours, {keras.backend.backend()}, on {backend.device()}"])
    rates: dict[str, float] = {}
    for precision in PRECISIONS:
        yield partial(products, precision, rates)
    for side in args.sizes:
        for precision in PRECISIONS:
            yield partial(evaluated, network, side, precision, rates)
    photo, painting = (np.load(pair / f"{name}.npy") for name in ("photo", "painting"))
    referee_of = cache(partial(same_objective, args.weights, photo, painting, "float32"))
    for precision in PRECISIONS:
        yield partial(against_peer, args.weights, pair, precision, referee_of)
    for side in args.sizes:
        yield partial(pictures, args, network, side)


def save(rgb: np.ndarray, file: Path) -> None:
    """As JPEG."""
    from PIL import Image

    Image.fromarray(rgb.round().astype(np.uint8)).save(file, quality=90)


def memory_peak() -> str:
    """What the device held at most so far."""
    import keras

    if keras.backend.backend() != "jax":
        return ""
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    return f"{stats.get('peak_bytes_in_use', 0) / 1e9:.2f} GB at most so far"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", default="imagenet", help="imagenet or a file")
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--painting", type=Path)
    parser.add_argument("--sizes", type=int, nargs="*", default=[512, 1024, 2048])
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)  # what its process is told
    args = parser.parse_args()
    if args.peer:
        run_peer(args.peer)
        return
    if not (args.photo and args.painting):
        parser.error("which --photo and which --painting?")
    pair = args.out / "pair"
    pair.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - started:5.0f} s] {text}", flush=True)

    prepare(args.weights, args.photo, args.painting, pair)
    failed = False
    for part in parts(args, pair):
        try:
            for line in part():
                say(line)
        except Exception:  # noqa: BLE001  (the machine may be ours for minutes)
            traceback.print_exc()
            failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main()
