"""Make the built-in features from VGG19: `python tools/distil.py --weights imagenet`.

VGG19's topology, widths and layer names stay; each 3×3 convolution becomes a 3×3 convolution to
a few channels and a 1×1 convolution back to the full width (Zhang, Zou, He and Sun, "Accelerating
Very Deep Convolutional Networks for Classification and Detection", 2016). There is no training:
layer by layer, a reduced-rank regression gives in closed form the factors whose answer to the
factored network's own activations comes closest to VGG19's, where the ReLU lets it through.

The pictures that it looks at are drawn by `training_pictures.py` from the seed: nothing but
VGG19's weights is needed. Takes minutes. The result is
`stylewatch/data/builtin.npz`: float16, the same bytes wherever sums round alike.
"""

import argparse
import hashlib
import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from numpy.random import Generator
from scipy.linalg import cho_factor, cho_solve
from training_pictures import Crops, draw_pictures

from stylewatch.domain import VGG19_LAYERS
from stylewatch.engine.features import load_vgg19

ROOT = Path(__file__).resolve().parent.parent
LAYERS = VGG19_LAYERS[: VGG19_LAYERS.index("block5_conv2") + 1]
RANKS = {
    "block1_conv2": 16,
    "block2_conv1": 32,
    "block2_conv2": 32,
    "block3_conv1": 48,
    "block3_conv2": 32,
    "block3_conv3": 32,
    "block3_conv4": 32,
    "block4_conv1": 64,
    "block4_conv2": 64,
    "block4_conv3": 64,
    "block4_conv4": 64,
    "block5_conv1": 96,
    "block5_conv2": 96,
}
"""Channels of the 3×3 convolutions; block1_conv1 is VGG19's own. Multiples of 16: CPUs compute
convolutions in blocks of 16 channels, and 26 cost as much as 32."""

RIDGES = (1e-3, 4e-3, 1.6e-2, 6.4e-2)
"""Tried for each layer, relative to the mean variance of its inputs."""
BFLOAT16 = tf.bfloat16.as_numpy_dtype
Layer = tuple[np.ndarray, ...]
"""(kernel, bias) or (reduce, expand, bias)."""
Network = dict[str, Layer]


# -- networks ------------------------------------------------------------------------------------


def forward(network: Network, x: Any, *, first: str = "block1") -> dict[str, Any]:
    """Activations of every layer, after the ReLU; `x` goes into block `first` as it is."""
    taps: dict[str, Any] = {}
    block = first
    for name, (*kernels, bias) in network.items():
        if not name.startswith(block):
            block = name.partition("_")[0]
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        for kernel in kernels:
            x = tf.nn.conv2d(x, tf.cast(kernel, x.dtype), 1, "SAME")
        x = x + tf.cast(bias, x.dtype)
        x = taps[name] = tf.nn.relu(x)
    return taps


def load_teacher(weights: str) -> Network:
    """VGG19's layers as far as they are used."""
    layers = {c.name: (c.kernels[0], c.bias) for c in load_vgg19(weights).convolutions}
    return {name: layers[name] for name in LAYERS}


# -- factors in closed form ----------------------------------------------------------------------


def factorise(teacher: Network, views: np.ndarray, seed: int) -> Network:
    """Factor every layer, each fitted on what the factored layers before it really give.

    `views` is (N, S, S, 3), network input; the last sixth only judges.
    """
    factored: Network = {LAYERS[0]: teacher[LAYERS[0]]}
    inputs = truth = _advance(teacher[LAYERS[0]], views.astype(BFLOAT16), LAYERS[0])
    for number, name in enumerate(LAYERS[1:]):
        started = time.perf_counter()
        rng = np.random.default_rng([seed, number])
        factored[name], told = _factor(inputs, truth, teacher[name], RANKS[name], rng)
        print(f"{name}: {told}; {time.perf_counter() - started:.0f} s", flush=True)
        inputs = _advance(factored[name], inputs, name)
        truth = _advance(teacher[name], truth, name)
    return factored


def _factor(
    inputs: np.ndarray, truth: np.ndarray, layer: Layer, rank: int, rng: Generator
) -> tuple[Layer, str]:
    """The factors of one layer, and how good they are."""
    kernel, _ = layer
    fitted = len(inputs) * 5 // 6
    positions = 8000 + 12 * 9 * inputs.shape[-1]
    x, y = _sample(inputs[:fitted], truth[:fitted], layer, rng, positions)
    judges = _sample(inputs[fitted:], truth[fitted:], layer, rng, 6000)
    (reduce, expand, bias), told = _fit(x, y, judges, rank)
    return (reduce.reshape(*kernel.shape[:3], -1), expand[None, None], bias), told


def _advance(layer: Layer, x: np.ndarray, name: str) -> np.ndarray:
    """Layer `name` on bfloat16 `x`, a few pictures at a time; the last of a block is pooled."""
    ends = name not in LAYERS[:-1] or LAYERS[LAYERS.index(name) + 1][:6] != name[:6]
    height, width = (side // 2 if ends else side for side in x.shape[1:3])
    out = np.empty((len(x), height, width, len(layer[-1])), x.dtype)
    for i in range(0, len(x), 8):
        part = forward({name: layer}, tf.constant(x[i : i + 8]), first=name[:6])[name]
        out[i : i + 8] = (tf.nn.max_pool2d(part, 2, 2, "VALID") if ends else part).numpy()
    return out


def _sample(
    inputs: np.ndarray, truth: np.ndarray, layer: Layer, rng: Generator, positions: int
) -> tuple[np.ndarray, np.ndarray]:
    """3×3 neighbourhoods of `inputs` and VGG19's response before the ReLU, at random positions."""
    kernel, bias = layer
    where = _places(inputs.shape, rng, positions)
    around = _neighbourhoods(truth, *where).reshape(len(where[0]), -1)
    y = tf.matmul(around, kernel.reshape(-1, kernel.shape[-1])).numpy() + bias
    return _neighbourhoods(inputs, *where).reshape(len(where[0]), -1), y


def _places(shape: tuple[int, ...], rng: Generator, count: int) -> tuple[np.ndarray, ...]:
    """Picture, row and column of random positions, all different."""
    total = int(np.prod(shape[:3]))
    where = rng.choice(total, min(count, total), replace=False)
    return np.unravel_index(np.sort(where), shape[:3])


def _neighbourhoods(
    features: np.ndarray, picture: np.ndarray, row: np.ndarray, column: np.ndarray
) -> np.ndarray:
    """(N, 9, channels) around the positions, zero outside the picture."""
    height, width = features.shape[1:3]
    out = np.zeros((len(picture), 9, features.shape[3]), np.float32)
    for k in range(9):
        i, j = row + k // 3 - 1, column + k % 3 - 1
        inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
        out[inside, k] = features[picture[inside], i[inside], j[inside]]
    return out


def _fit(
    x: np.ndarray, y: np.ndarray, judges: tuple[np.ndarray, np.ndarray], rank: int
) -> tuple[Layer, str]:
    """Rank-`rank` regression from x to y that only has to be right after the ReLU.

    Where y ≤ 0 any negative answer is right, so the answer itself becomes the target there
    (majorisation); each round is the closed form with the targets of the round before. The ridge
    is the one that does best on `judges`.
    """
    mean = x.mean(axis=0)
    x -= mean
    aside, wanted = judges[0] - mean, judges[1]
    square = tf.matmul(x, x, transpose_a=True).numpy().astype(np.float64) / len(x)
    trials = []
    for ridge in RIDGES:
        damping = ridge * np.trace(square) / len(square)
        factor = cho_factor(square + damping * np.eye(len(square)), overwrite_a=True)
        factors = _regress(x, y, factor, damping, rank)
        trials.append((_wrong(_answer(aside, factors), wanted), ridge, factor, damping, factors))
    first, ridge, factor, damping, factors = min(trials, key=lambda trial: trial[0])
    for _ in range(4):
        target = np.where(y > 0, y, np.minimum(_answer(x, factors), 0))
        factors = _regress(x, target, factor, damping, rank)
    told = (
        f"rank {rank}, ridge {ridge}, % wrong {100 * _wrong(_answer(x, factors), y):.1f} where "
        f"fitted, elsewhere {100 * _wrong(_answer(aside, factors), wanted):.1f} "
        f"({100 * first:.1f} before the ReLU was thought of)"
    )
    reduce, expand, offset = factors
    return (reduce, expand, (offset - mean @ reduce @ expand).astype(np.float32)), told


def _regress(
    x: np.ndarray, target: np.ndarray, factor: tuple[np.ndarray, bool], damping: float, rank: int
) -> Layer:
    """The best factors of that rank for centred x: regression, then its principal answers."""
    offset = target.mean(axis=0)
    cross = tf.matmul(x, target - offset, transpose_a=True).numpy().astype(np.float64) / len(x)
    full = cho_solve(factor, cross)
    _, vectors = np.linalg.eigh(full.T @ (cross - damping * full))
    basis = vectors[:, : -rank - 1 : -1]
    return (full @ basis).astype(np.float32), basis.T.astype(np.float32), offset


def _answer(x: np.ndarray, factors: Layer) -> np.ndarray:
    reduce, expand, offset = factors
    answer: np.ndarray = tf.matmul(tf.matmul(x, reduce), expand).numpy() + offset
    return answer


def _wrong(answer: np.ndarray, wanted: np.ndarray) -> float:
    """The share of the energy after the ReLU that is wrong."""
    truth = np.maximum(wanted, 0)
    return float(np.sum((np.maximum(answer, 0) - truth) ** 2) / np.sum(truth**2))


# -- the file ------------------------------------------------------------------------------------


def pack(network: Network, file: Path, command: str, seed: int) -> None:
    """Write the network as float16, the same bytes for the same numbers."""
    meta = {
        "name": "built-in",
        "version": 1,
        "ranks": RANKS,
        "credits": "Derived from VGG19 by Karen Simonyan and Andrew Zisserman, Visual Geometry "
        "Group, University of Oxford (arXiv:1409.1556), CC BY 4.0",
        "command": command,
        "seed": seed,
    }
    arrays = {}
    for name, layer in network.items():
        keys = ("kernel", "bias") if len(layer) == 2 else ("reduce", "expand", "bias")
        for key, array in zip(keys, layer, strict=True):
            dtype = np.float32 if key == "bias" or name == LAYERS[0] else np.float16
            arrays[f"{name}/{key}"] = np.asarray(array, dtype=dtype)
    arrays["meta"] = np.array(json.dumps(meta))
    temporary = file.with_suffix(".part")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with archive.open(info, "w") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
    temporary.replace(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB, sha256 {digest}", flush=True)


# -- the command ---------------------------------------------------------------------------------


def main() -> None:
    """Draw, factor, write."""
    args = _arguments()
    rng = np.random.default_rng(args.seed)
    views = Crops(draw_pictures(args.drawn, 384, args.seed), 192).batch(rng, args.views)
    network = factorise(load_teacher(args.weights), views, args.seed)
    command = f"python tools/distil.py --seed {args.seed} --drawn {args.drawn} --views {args.views}"
    pack(network, args.output, command, args.seed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="imagenet", help="VGG19's weights: imagenet or a file")
    parser.add_argument("--output", type=Path, default=ROOT / "stylewatch/data/builtin.npz")
    parser.add_argument("--drawn", type=int, default=600, help="how many pictures are drawn")
    parser.add_argument("--views", type=int, default=500, help="crops of 192 px to fit on")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
