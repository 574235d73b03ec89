"""Seconds per loss-and-gradient evaluation, by size and precision, beside three yardsticks.

    python benchmarks/evaluation.py --weights imagenet [--sizes 256 512 1024] [--repeat 5]
        [--clock processor]

Yardsticks, measured in the same run and in turn with ours: a bare TensorFlow graph of VGG19's
layers (no Keras, no losses but the Gram matrices), the machine's matrix multiplication rate, and
what the optimiser adds to an evaluation. Medians; compare ratios, not seconds, across machines.
Where other work goes on, processor seconds (of all cores together) tell more than the clock.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from stylewatch.domain import VGG19_LAYERS, EngineSettings, StyleSettings
from stylewatch.jobs.child import set_environment

set_environment(EngineSettings())  # as a worker has it

import numpy as np
from keras import ops

from stylewatch.engine import backend, features
from stylewatch.engine.objective import Objective, Region
from stylewatch.engine.optimizers import minimize
from stylewatch.engine.preconditioner import ImagePreconditioner

SETTINGS = StyleSettings(content_layers={"block5_conv2": 1.0}, tv_weight=1e-6)
STYLE_LAYERS = tuple(SETTINGS.style_layers)
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
FLOP_512 = 410e9
"""Multiplications and additions of one evaluation through block5_conv2 at 512×512."""


def median_seconds(
    calls: dict[str, Callable[[], Any]],
    repeat: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Each call's median over `repeat` rounds; in turn, so that a slow minute hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeat):
        for name, call in calls.items():
            started = clock()
            call()
            times[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def awaited(image: Any) -> np.ndarray:
    """A corner of an image on the host: a GPU, which answers at once, has computed it all."""
    return backend.to_numpy(image[:, :1, :1])


def finished(evaluate: Callable[[Any], Any], image: Any) -> np.ndarray:
    """An evaluation until the gradient, which comes last, is there."""
    return awaited(evaluate(image)[1])


def our_evaluation(
    network: features.FeatureNetwork, side: int, precision: Any
) -> tuple[Callable[[Any], Any], Any]:
    """`evaluate(image)` of the product's own objective, and an image."""
    objective = Objective(network, ("block5_conv2",), STYLE_LAYERS, "max", precision)
    rng = np.random.default_rng(0)
    photo, style = (
        backend.place(features.preprocess(rng.uniform(0, 255, (side, side, 3)))) for _ in range(2)
    )
    targets = objective.targets(photo, [Region([(style, 1.0)], None)], SETTINGS)
    return lambda image: objective.evaluate(image, targets), photo


def bare_evaluation(network: features.FeatureNetwork, side: int, dtype: str) -> Callable[[], Any]:
    """VGG19 written down in plain TensorFlow, with Gram matrices at the style layers."""
    import tensorflow as tf

    weights = [
        (c.name, tf.constant(c.kernels[0], dtype), tf.constant(c.bias, dtype))
        for c in network.convolutions[: VGG19_LAYERS.index("block5_conv2") + 1]
    ]

    def evaluate(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss, h, block = 0.0, tf.cast(x, dtype), "block1"
            for name, kernel, bias in weights:
                if not name.startswith(block):
                    block, h = name[:6], tf.nn.max_pool2d(h, 2, 2, "VALID")
                h = tf.nn.relu(tf.nn.conv2d(h, kernel, 1, "SAME") + bias)
                if name in STYLE_LAYERS:
                    flat = tf.reshape(h, (-1, h.shape[-1]))
                    gram = tf.matmul(flat, flat, transpose_a=True)
                    loss += 1e-9 * tf.reduce_mean(tf.square(tf.cast(gram, tf.float32)))
            loss += tf.reduce_mean(tf.square(tf.cast(h, tf.float32)))
        return loss, tape.gradient(loss, x)

    x = tf.random.stateless_uniform((1, side, side, 3), (0, 0), -120, 120)
    graph = tf.function(evaluate)
    return lambda: awaited(graph(x)[1])


def product_rate(
    dtype: str,
    repeat: int,
    clock: Callable[[], float] = time.perf_counter,
    side: int = 2048,
    calls: int = 1,
) -> float:
    """Measured floating-point operations per second of square products, `calls` in a row."""
    rng = np.random.default_rng(0)
    a = ops.cast(rng.standard_normal((side, side), dtype=np.float32), dtype)
    product = backend.compiled(lambda m: ops.matmul(m, m))
    total = backend.compiled(lambda m: ops.sum(ops.cast(m, "float32")))

    def several() -> float:
        for _ in range(calls):
            last = product(a)
        return float(total(last))

    seconds = median_seconds({"products": several}, repeat, clock)["products"]
    return calls * 2 * side**3 / seconds


def optimizer_overhead(
    evaluate: Callable[[Any], Any], image: Any, evaluations: int, clock: Callable[[], float]
) -> float:
    """What on-device L-BFGS adds to an evaluation, as a share of it, with a full history."""
    inside = 0.0

    def timed(x: Any) -> tuple[float, Any]:
        nonlocal inside
        started = clock()
        parts, gradient = evaluate(x)
        awaited(gradient)
        inside += clock() - started
        return parts.loss, gradient

    def run(evaluations: int) -> None:
        minimize(
            timed, image, lambda _: True, optimizer="lbfgs", evaluations=evaluations,
            preconditioner=ImagePreconditioner(image),
        )  # fmt: skip

    run(3)
    inside = 0.0
    started = clock()
    run(evaluations)
    return (clock() - started) / inside - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="imagenet", help="imagenet or a file")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    clock = CLOCKS[options.clock]
    network = features.load_vgg19(options.weights)
    rates = {p: product_rate(p, options.repeat, clock) for p in ("float32", "bfloat16")}
    print(f"device: {backend.device().name}")
    for precision, rate in rates.items():
        print(f"matrix multiplication, {precision}: {rate / 1e12:.2f} TFLOP/s")
    print("| side | precision | s/evaluation | ÷ float32 | ÷ bare | of GEMM rate | L-BFGS adds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for side in options.sizes:
        made = {p: our_evaluation(network, side, p) for p in rates}
        calls = {p: partial(finished, *each) for p, each in made.items()}
        bare = {f"bare {p}": bare_evaluation(network, side, p) for p in rates}
        seconds = median_seconds({**calls, **bare}, options.repeat, clock)
        for precision, rate in rates.items():
            share = FLOP_512 * (side / 512) ** 2 / seconds[precision] / rate
            overhead = optimizer_overhead(*made[precision], evaluations=16, clock=clock)
            print(
                f"| {side} | {precision} | {seconds[precision]:.3f} "
                f"| {seconds[precision] / seconds['float32']:.2f} "
                f"| {seconds[precision] / seconds[f'bare {precision}']:.2f} "
                f"| {share:.2f} | {overhead:.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
