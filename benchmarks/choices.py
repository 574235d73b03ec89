"""What the numbers of `painting` were chosen from: pictures and losses of what else there is.

    python benchmarks/choices.py --weights FILE --photos DIR --paintings DIR --out DIR \
        [--pairs 4] [--side 384]

For each pair (a photo with the painting at its place in the list): `painting` as shipped, with
fewer and with more evaluations, `classic`, and at one scale from the photo, with the same number of
evaluations: our L-BFGS and SciPy's L-BFGS-B, both without and with bounds at black and white, and
`painting` with the mean and the deviation of each channel beside the Gram matrices (Huang and
Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization", 2017).

All are judged by VGG19 in float32, as clipped pictures: style loss as a share of the photo's own
distance to the painting, geometric mean over the layers; content loss as a share of the photo's
energy. The pictures lie side by side in `--out`.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from stylewatch.domain import EngineSettings
from stylewatch.jobs.child import set_environment

set_environment(EngineSettings())  # as a worker has it
import numpy as np
from keras import ops
from sheets import in_a_row

from stylewatch.engine import backend, curvature, losses, optimizers
from stylewatch.engine.features import FeatureNetwork, deprocess, load_network, preprocess
from stylewatch.engine.objective import Objective, Region
from stylewatch.engine.preconditioner import ImagePreconditioner
from stylewatch.engine.sizes import fit_size, resize
from stylewatch.engine.transfer import BLACK_AND_WHITE, Style, choose_precision, stylize
from stylewatch.settings.presets import Presets

EVALUATIONS = 60
"""Of the runs at one scale."""
Image = np.ndarray
"""(H, W, 3) float32 RGB 0…255."""
Evaluate = Callable[[Any], tuple[float, Any]]
Way = Callable[[Evaluate, Image], Image]
"""Of minimising a loss, from an image."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", default="imagenet", help="imagenet or a file")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--paintings", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("build/choices"))
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--side", type=int, default=384)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    network = load_network("vgg19", args.weights)
    files = [sorted(folder.glob("*.*")) for folder in (args.photos, args.paintings)]
    table: dict[str, list[tuple[float, float, float]]] = {}
    for photo_file, painting_file in list(zip(*files, strict=False))[: args.pairs]:
        photo, painting = read(photo_file, args.side), read(painting_file, args.side)
        judge = Judge(network, photo, painting)
        pictures = [photo, painting]
        for name, paint in ways(network, photo, painting).items():
            started = time.process_time()
            picture = np.clip(paint(), 0, 255)
            pictures.append(picture)
            row = (*judge(picture), time.process_time() - started)
            table.setdefault(name, []).append(row)
            print(f"{photo_file.stem} × {painting_file.stem}  {name}:", *row, flush=True)
        height = min(picture.shape[0] for picture in pictures)
        file = args.out / f"{photo_file.stem}--{painting_file.stem}.png"
        in_a_row(pictures, height).save(file)
    print("\n| | style, share of the photo's | content | processor seconds |")
    print("| --- | --- | --- | --- |")
    for name, rows in table.items():
        style, content, seconds = (statistics.mean(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {style:.4f} | {content:.3f} | {seconds:.0f} |")


def ways(network: FeatureNetwork, photo: Image, painting: Image) -> dict[str, Callable[[], Image]]:
    """Every way to paint the pair, by what the table calls it."""
    presets = Presets.load()
    shipped = replace(presets["painting"].settings, max_side=max(photo.shape[:2]))
    classic = replace(presets["classic"].settings, max_side=max(photo.shape[:2]))

    def multi(*evaluations: int) -> Callable[[], Image]:
        settings = replace(shipped, evaluations=evaluations)
        return lambda: stylize(photo, [Style(painting)], settings, network).rgb

    def single(minimise: Way, *, moments: bool = False) -> Callable[[], Image]:
        def paint() -> Image:
            evaluate = balanced(network, photo, painting, moments=moments)
            return minimise(evaluate, preprocess(photo))

        return paint

    shipped_way = way("lbfgs", BLACK_AND_WHITE)
    return {
        f"`painting`, {' + '.join(map(str, shipped.evaluations))}": multi(*shipped.evaluations),
        "40 + 20 + 10": multi(40, 20, 10),
        "150 + 75 + 40": multi(150, 75, 40),
        "`classic`, 200": lambda: stylize(photo, [Style(painting)], classic, network).rgb,
        f"one scale, {EVALUATIONS}, free": single(way("lbfgs", curvature.FREE)),
        "the same, SciPy": single(way("lbfgs-scipy", curvature.FREE)),
        "one scale within bounds": single(shipped_way),
        "the same, SciPy within bounds": single(way("lbfgs-scipy", BLACK_AND_WHITE)),
        "one scale within bounds, mean and deviation too": single(shipped_way, moments=True),
    }


def balanced(network: FeatureNetwork, photo: Image, painting: Image, *, moments: bool) -> Evaluate:
    """The shipped objective at one size, with the channels' moments beside the Grams or not."""
    settings = Presets.load()["painting"].settings
    layers = tuple(settings.style_layers)
    objective = _objective(network, tuple(settings.content_layers), layers)
    regions = [Region([(preprocess(painting), 1.0)], None)]
    targets = objective.targets(ops.convert_to_tensor(preprocess(photo)), regions, settings)

    def described(image: Any) -> dict[str, tuple[Any, Any]]:
        taps = objective.extract(image)
        return {name: ops.moments(ops.cast(taps[name], "float32"), (0, 1, 2)) for name in layers}

    def distance(found: Any, wanted: Any) -> Any:
        deviation, aim = (ops.sqrt(variance + 1e-6) for _, variance in (found, wanted))
        return ops.sum(ops.square(found[0] - wanted[0])) + ops.sum(ops.square(deviation - aim))

    describe = backend.compiled(described)
    at_photo, wanted = describe(preprocess(photo)), describe(preprocess(painting))
    factors = {
        name: settings.strength * 0.2 / float(distance(at_photo[name], wanted[name]))
        for name in layers
    }

    def moment_loss(image: Any, wanted: Any) -> tuple[Any, tuple[Any, ...]]:
        found = described(image)
        return sum(factors[name] * distance(found[name], wanted[name]) for name in layers), ()

    extra = backend.value_and_gradient(moment_loss)

    def evaluate(image: Any) -> tuple[float, Any]:
        tensor = ops.convert_to_tensor(image)
        parts, gradient = objective.evaluate(tensor, targets)
        if not moments:
            return parts.loss, gradient
        more, _, slope = extra(tensor, wanted)
        return parts.loss + float(more), backend.place(gradient + slope)

    return evaluate


@cache
def _objective(
    network: FeatureNetwork, content: tuple[str, ...], style: tuple[str, ...]
) -> Objective:
    return Objective(network, content, style, "max", choose_precision("auto"))


def way(optimizer: Literal["lbfgs", "lbfgs-scipy"], bounds: curvature.Bounds) -> Way:
    """From the photo, with as many evaluations as all runs at one scale have."""

    def paint(evaluate: Evaluate, start: Image) -> Image:
        best = optimizers.minimize(
            evaluate,
            backend.place(start),
            lambda _: True,
            optimizer=optimizer,
            evaluations=EVALUATIONS,
            bounds=bounds,
            preconditioner=ImagePreconditioner(start),
        )
        return deprocess(backend.to_numpy(best))

    return paint


class Judge:
    """(style, content) of a picture, as shares; float32."""

    def __init__(self, network: FeatureNetwork, photo: Image, painting: Image) -> None:
        settings = Presets.load()["painting"].settings
        self._layers = tuple(settings.style_layers)
        [self._content] = settings.content_layers
        self._extract = backend.compiled(network.extractor({self._content, *self._layers}))
        self._photo, self._grams = self._describe(photo)
        _, self._wanted = self._describe(painting)

    def __call__(self, picture: Image) -> tuple[float, float]:
        """Geometric mean over the style layers, and the content layer."""
        content, grams = self._describe(picture)
        shares = [
            float(losses.style_loss(grams[name], self._wanted[name]))
            / float(losses.style_loss(self._grams[name], self._wanted[name]))
            for name in self._layers
        ]
        moved = float(losses.content_loss(content, self._photo))
        style = math.exp(statistics.mean(math.log(share) for share in shares))
        return style, moved / float(losses.mean_square(self._photo))

    def _describe(self, picture: Image) -> tuple[Any, dict[str, Any]]:
        taps = self._extract(ops.convert_to_tensor(preprocess(picture)))
        return taps[self._content], {name: losses.gram_matrix(taps[name]) for name in self._layers}


def read(file: Path, side: int) -> Image:
    """A picture whose longer side is `side`, both sides multiples of 16."""
    from PIL import Image as Pillow

    with Pillow.open(file) as image:
        pixels = np.asarray(image.convert("RGB"), np.float32)
    width, height = fit_size(pixels.shape[1], pixels.shape[0], side)
    return resize(pixels, width // 16 * 16, height // 16 * 16)


if __name__ == "__main__":
    main()
