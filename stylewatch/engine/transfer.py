"""Neural style transfer of one picture: coarse to fine, one optimisation per scale.

Gatys, Ecker and Bethge, "Image Style Transfer Using Convolutional Neural Networks" (CVPR 2016);
coarse to fine after Gatys et al., "Controlling Perceptual Factors" (CVPR 2017). Arrays in,
arrays out: knows nothing of files, presets, processes or the console.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from stylewatch.domain import Checkpoint, OnStep, StyleSettings
from stylewatch.engine import backend
from stylewatch.engine.backend import Precision, Tensor
from stylewatch.engine.colours import (
    is_of_one_colour,
    match_colours,
    photo_colours,
    to_luminance,
)
from stylewatch.engine.curvature import FREE, Bounds
from stylewatch.engine.features import STRIDE, FeatureNetwork, deprocess, preprocess
from stylewatch.engine.objective import Objective, Parts, Region
from stylewatch.engine.optimizers import Iterate, minimize
from stylewatch.engine.preconditioner import ImagePreconditioner
from stylewatch.engine.progress import OnCheckpoint, Progress, Scale
from stylewatch.engine.sizes import fit_size, resize
from stylewatch.engine.subject import subject_of
from stylewatch.engine.tiles import TiledObjective

FRAME = 8
"""Pixels around the picture that are painted too, and then cut off."""
DETAIL = 0.5
"""Each stage begins with this share of the detail that the stage before was too small for."""
BYTES_PER_PIXEL = {"float32": 2600, "bfloat16": 1400}
"""Memory for one evaluation with VGG19 down to block5; measured by benchmarks/memory.py."""
_STYLE_SHARE = 0.4
"""A pixel of a style image takes this share of that, as it needs no gradient."""
_MASKED_SHARE = 0.2
"""Each masked style takes this share of that in addition: the style layers' features once more."""
NOISE: dict[Precision, float] = {"float32": 1e-6, "bfloat16": 1e-4}
"""The share of a loss that rounding may add; without it bfloat16 ends 2 % above float32."""
BLACK_AND_WHITE: Bounds = preprocess(np.zeros((1, 1, 3))), preprocess(np.full((1, 1, 3), 255.0))
"""Bounds while painting: to clip only the finished picture, as `classic` does, costs it style."""
_MOST_PIXELS = 2**31 // 64 - 1
"""In one piece: block1 has 64 values a pixel, and libraries for GPUs may count them in 31 bits."""
_ASSUMED_MEMORY = 2 << 30


@dataclass(frozen=True, eq=False)
class Style:
    """A style image (H, W, 3) RGB 0…255, its share, its stroke size, and where it applies."""

    rgb: np.ndarray
    weight: float = 1.0
    scale: float = 1.0
    mask: np.ndarray | None = None
    """(h, w) 0…1, stretched over the photo; None = everywhere."""


@dataclass(frozen=True, eq=False)
class _Content:
    """The photo that is painted, (H, W, 3) RGB 0…255, and how much each place of it counts."""

    rgb: np.ndarray
    weight: np.ndarray | None
    """(h, w), 1 on average, stretched over the photo; None = all places count alike."""


@dataclass(frozen=True, eq=False)
class Painting:
    """A finished picture, and how it was made."""

    rgb: np.ndarray
    """(H, W, 3) float32, 0…255."""
    parts: Parts
    evaluations: int
    precision: Precision
    complete: bool
    """False if the time budget has ended the run early."""


def stylize(
    content: np.ndarray,
    styles: Sequence[Style],
    settings: StyleSettings,
    network: FeatureNetwork,
    on_step: OnStep | None = None,
    *,
    start: np.ndarray | None = None,
    resume: Checkpoint | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    memory: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Painting:
    """Paint `content` (H, W, 3; RGB 0…255) in the manner of `styles`.

    Where each style has a mask and none applies, the photo stays as it is. `start` is the image
    that `settings.init` names, if it names one. `on_step` may raise to stop the run. `resume` is
    used if it can be of this run. What does not fit into `memory` bytes (0: as many as
    `usable_memory` says) is painted in tiles.

    The same arguments, if `memory` is not 0, give the same bytes on one machine's CPU; on a GPU,
    libraries choose between algorithms by how long they take.

    Raises:
        RenderError: the loss is not a finite number.
    """
    scales = plan_scales(content.shape[1], content.shape[0], settings)
    content, styles = _at_most(scales[-1], content, styles, settings)
    photo, styles = _with_colours(content, styles, settings)
    model = _Content(photo, _weight_of(photo, settings, network))
    if start is not None and settings.colour == "photo":
        start = to_luminance(start)
    if resume and not _fits(resume, scales, settings, network):
        resume = None
    skipped = resume.scale - 1 if resume else 0
    progress = Progress(scales, settings, network.digest, on_step, on_checkpoint, clock, resume)
    del resume  # so that only `progress` holds its image
    memory = memory or usable_memory()
    image = start
    for scale in scales[skipped:]:
        image = _paint_scale(scale, model, image, styles, settings, network, memory, progress)
    assert image is not None
    painted = np.clip(image, 0.0, 255.0)
    if settings.colour == "photo":
        painted = photo_colours(painted, content)
    if (bare := _bare(styles, scales[-1])) is not None:
        painted = (1.0 - bare) * painted + bare * content
    precision = choose_precision(settings.precision)
    complete = not progress.spent
    return Painting(painted, progress.best, progress.count, precision, complete=complete)


def usable_memory(workers: int = 1) -> int:
    """Bytes that a painting may take on this device now, at least one, beside other workers'.

    Three quarters of what is free, or a worker's share of them, as all may begin at once.
    """
    free = backend.free_memory()
    return max(1, free * 3 // (4 * workers)) if free else _ASSUMED_MEMORY


def plan_scales(width: int, height: int, settings: StyleSettings) -> list[Scale]:
    """The stages from coarse to fine: halvings of the final size, none below `coarsest_side`."""
    limit = max(width, height) if settings.max_side == "photo" else settings.max_side
    final = fit_size(width, height, limit)
    halvings = int(math.log2(max(1.0, max(final) / settings.coarsest_side)))
    budget = settings.evaluations
    scales = []
    for number in range(1, halvings + 2):
        side = max(1, round(max(final) / 2 ** (halvings + 1 - number)))
        width, height = fit_size(*final, side)
        evaluations = budget[min(number, len(budget)) - 1]
        scales.append(Scale(number, width, height, evaluations))
    return scales


def _fits(
    kept: Checkpoint, scales: Sequence[Scale], settings: StyleSettings, network: FeatureNetwork
) -> bool:
    """Whether a checkpoint can be of this run; with a wrong one every attempt would fail."""
    if kept.network != network.digest or not 1 <= kept.scale <= len(scales):
        return False
    size = _Frame(scales[kept.scale - 1], settings).size
    return kept.image.shape == (*size, 3) and bool(np.isfinite(kept.image).all())


def choose_precision(wanted: Precision | Literal["auto"]) -> Precision:
    """`auto` is bfloat16 where the hardware multiplies it faster than float32."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if backend.device().fast_bfloat16 else "float32"


def _paint_scale(
    scale: Scale,
    content: _Content,
    before: np.ndarray | None,
    styles: Sequence[Style],
    settings: StyleSettings,
    network: FeatureNetwork,
    memory: int,
    progress: Progress,
) -> np.ndarray:
    """The best image of one stage, (H, W, 3), not clipped; `before` is the last stage's."""
    objective, of_styles, history = _planned(scale, styles, settings, network, memory)
    frame = _Frame(scale, settings)
    small = resize(content.rgb, scale.width, scale.height)
    kept = progress.begin(scale, history)
    start = frame.add(_start(before, small, settings)) if kept is None else kept
    if progress.spent:
        return frame.remove(start)
    photo = objective.place(preprocess(frame.add(small)))
    regions = _regions(styles, scale, settings, frame.add)
    weight = None if content.weight is None else frame.add(_fit_weight(content.weight, scale))
    targets = objective.targets(photo, regions, settings, weight, of_styles)
    images = [objective.place(preprocess(start))]  # in a list, so that only `minimize` holds it
    preconditioner = ImagePreconditioner(images[0])
    del small, start, kept, photo, regions, weight  # the optimiser needs their memory

    def evaluate(image: Tensor) -> tuple[Parts, Tensor]:
        progress.parts, gradient = objective.evaluate(image, targets)
        return progress.parts, gradient

    def on_iterate(iterate: Iterate) -> bool:
        return progress.step(iterate, lambda: deprocess(backend.to_numpy(iterate.best)))

    best = minimize(
        evaluate,
        images.pop(),
        on_iterate,
        optimizer=settings.optimizer,
        evaluations=scale.evaluations - progress.evaluation,
        history=history,
        noise=NOISE[objective.precision],
        bounds=BLACK_AND_WHITE if settings.objective == "balanced" else FREE,
        preconditioner=preconditioner,
    )
    return frame.remove(deprocess(backend.to_numpy(best)))


@lru_cache(maxsize=8)
def _open_objective(
    network: FeatureNetwork,
    content_layers: tuple[str, ...],
    style_layers: tuple[str, ...],
    pooling: Literal["max", "average"],
    precision: Precision,
    *,
    tiled: bool,
) -> Objective:
    """The objective for these layers, kept for the next photo with its graph and style targets."""
    arguments = (network, content_layers, style_layers, pooling, precision)
    return (TiledObjective if tiled else Objective)(*arguments)


def _planned(
    scale: Scale,
    styles: Sequence[Style],
    settings: StyleSettings,
    network: FeatureNetwork,
    memory: int,
) -> tuple[Objective, Objective, int]:
    """The objective of the picture, who describes the styles, and L-BFGS's pairs, within `memory`.

    Picture and styles are each in tiles only if they are too large themselves: styles pass the
    network once, if at all.
    """
    _, taken = _for_lbfgs(scale, settings, memory, on_host=not backend.has_gpu())
    left = max(memory / 2, memory - taken)
    masked = sum(style.mask is not None for style in styles)
    picture = math.prod(_Frame(scale, settings).size)
    largest = max((math.prod(_style_size(style, scale, settings)) for style in styles), default=0)
    objective = _objective_for(picture, 1.0 + _MASKED_SHARE * masked, settings, network, left)
    of_styles = _objective_for(largest, _STYLE_SHARE, settings, network, left)
    history, _ = _for_lbfgs(scale, settings, memory, on_host=objective.on_host)
    return objective, of_styles, history


def _objective_for(
    pixels: int, share: float, settings: StyleSettings, network: FeatureNetwork, memory: float
) -> Objective:
    """The objective for an image of so many pixels, each a share of `BYTES_PER_PIXEL`."""
    precision = choose_precision(settings.precision)
    most = min(memory / (share * BYTES_PER_PIXEL[precision]), _MOST_PIXELS)
    layers = tuple(settings.content_layers), tuple(settings.style_layers)
    tiled = pixels > most
    objective = _open_objective(network, *layers, settings.pooling, precision, tiled=tiled)
    return objective.within(most) if isinstance(objective, TiledObjective) else objective


def _for_lbfgs(
    scale: Scale, settings: StyleSettings, memory: int, *, on_host: bool
) -> tuple[int, int]:
    """How many pairs L-BFGS remembers, two at least, and the bytes that it takes in all.

    They get at most half of `memory`: a pair is two images, or four, and there are seven others.
    """
    image = 12 * math.prod(_Frame(scale, settings).size)
    each = 2 if on_host else 4
    history = min(settings.history, max(2, int((memory / 2 / image - 7) / each)))
    return history, (7 + each * history) * image


def _at_most(
    last: Scale, content: np.ndarray, styles: Sequence[Style], settings: StyleSettings
) -> tuple[np.ndarray, list[Style]]:
    """Photo and styles as the last stage has them: they may be many times as large."""
    small = [resize(style.rgb, *_style_size(style, last, settings)) for style in styles]
    content = resize(content, last.width, last.height)
    return content, [replace(style, rgb=rgb) for style, rgb in zip(styles, small, strict=True)]


def _with_colours(
    content: np.ndarray, styles: Sequence[Style], settings: StyleSettings
) -> tuple[np.ndarray, list[Style]]:
    """Photo and styles as the colour mode wants them (Gatys et al. 2017, section 5)."""
    if settings.colour == "style":
        return content, list(styles)
    seen = to_luminance if settings.colour == "photo" else np.asarray
    photo = seen(content)
    matched = [match_colours(seen(style.rgb), _under(style, photo)) for style in styles]
    return photo, [replace(style, rgb=rgb) for style, rgb in zip(styles, matched, strict=True)]


def _under(style: Style, photo: np.ndarray) -> np.ndarray | list[np.ndarray]:
    """The photo's pixels where the style applies, row by row; all if there is nothing to see."""
    if style.mask is None:
        return photo
    mask = resize(style.mask[..., np.newaxis], photo.shape[1], photo.shape[0])[..., 0] > 0.5
    under = [row[here] for row, here in zip(photo, mask, strict=True)]
    return photo if not mask.any() or is_of_one_colour(under) else under


def _start(image: np.ndarray | None, photo: np.ndarray, settings: StyleSettings) -> np.ndarray:
    """What a stage begins with: the stage before, enlarged; else the image chosen, photo or noise.

    The stage before was too small for the photo's finest detail, so some of that is added.
    """
    height, width = photo.shape[:2]
    if image is not None:
        start = resize(image, width, height)
        if settings.init == "content" and image.shape != photo.shape:
            seen = resize(resize(photo, image.shape[1], image.shape[0]), width, height)
            start += DETAIL * np.subtract(photo, seen, out=seen)
        return start
    if settings.init == "noise":
        noise = np.random.default_rng(settings.seed).normal(127.5, 40.0, photo.shape)
        return np.asarray(noise, dtype=np.float32)
    return photo


class _Frame:
    """The margin that is painted around a stage's picture, and cut off again.

    Beyond the edge the network sees zeros, which makes beads and stripes along it. With a margin,
    filled by reflections of the picture, they fall into that. It also makes the sides multiples of
    the network's stride: else its poolings would drop what is left over at the right and lower
    edge, which would get no style. The classic objective has no margin, as it was published: only a
    picture that is too small for the network is enlarged.
    """

    def __init__(self, scale: Scale, settings: StyleSettings) -> None:
        framed = settings.objective == "balanced"
        self._before = FRAME if framed else 0
        self._sides = scale.height, scale.width
        self._margins = []
        for side in self._sides:
            whole = side + 2 * FRAME
            padded = -(-whole // STRIDE) * STRIDE if framed else max(side, STRIDE)
            self._margins.append((self._before, padded - side - self._before))
        self.size = scale.height + sum(self._margins[0]), scale.width + sum(self._margins[1])
        """Rows and columns that are painted."""

    def add(self, array: np.ndarray) -> np.ndarray:
        """(H, W, …) with the margin."""
        margins = (*self._margins, *((0, 0),) * (array.ndim - 2))
        return np.pad(array, margins, mode="reflect")

    def remove(self, array: np.ndarray) -> np.ndarray:
        """The picture alone."""
        height, width = self._sides
        start = self._before
        return array[start : start + height, start : start + width]


def _regions(
    styles: Sequence[Style],
    scale: Scale,
    settings: StyleSettings,
    pad: Callable[[np.ndarray], np.ndarray],
) -> list[Region]:
    """A region for each mask, and one for what no mask covers; styles of one region are mixed."""

    def network_input(style: Style) -> tuple[Tensor, float]:
        rgb = resize(style.rgb, *_style_size(style, scale, settings))
        return preprocess(rgb), style.weight

    parts, free = _by_mask(styles, scale)
    if not parts:
        return [Region([*map(network_input, free)], None)]
    rest = 1.0 - np.max([mask for mask, _ in parts], axis=0)
    if free and rest.mean() > 1e-3:
        parts.append((rest, free))
    used = [(mask, alike, _mean_weight(alike)) for mask, alike in parts if mask.any()]
    mean = float(np.mean([share for *_, share in used] or [1.0]))
    return [
        Region([*map(network_input, alike)], pad(mask), share / mean) for mask, alike, share in used
    ]


def _mean_weight(styles: Sequence[Style]) -> float:
    return float(np.mean([style.weight for style in styles]))


def _bare(styles: Sequence[Style], scale: Scale) -> np.ndarray | None:
    """(H, W, 1) 0…1: how much no mask applies; None where a style is for all that is left."""
    parts, free = _by_mask(styles, scale)
    if free:
        return None
    return np.asarray(np.maximum(0.0, 1.0 - sum(mask for mask, _ in parts))[..., np.newaxis])


def _by_mask(
    styles: Sequence[Style], scale: Scale
) -> tuple[list[tuple[np.ndarray, list[Style]]], list[Style]]:
    """Each mask, as large as the stage, with the styles that have it; and those without one."""
    masked: dict[bytes, tuple[np.ndarray, list[Style]]] = {}
    free: list[Style] = []
    for style in styles:
        alike = free
        if style.mask is not None:
            fitted = np.minimum(_fit_weight(style.mask, scale), 1.0)
            _, alike = masked.setdefault(fitted.tobytes(), (fitted, []))
        alike.append(style)
    return [*masked.values()], free


def _weight_of(
    photo: np.ndarray, settings: StyleSettings, network: FeatureNetwork
) -> np.ndarray | None:
    """How much each place of the photo counts, by what there is to see; None where all alike."""
    if not settings.subject:
        return None
    seen = subject_of(photo, network, choose_precision(settings.precision))
    return np.asarray(1.0 + settings.subject * (seen - 1.0))


def _fit_weight(weight: np.ndarray, scale: Scale) -> np.ndarray:
    fitted = resize(weight[..., np.newaxis].astype(np.float32), scale.width, scale.height)
    return np.asarray(np.maximum(fitted[..., 0], 0.0))


def _style_size(style: Style, scale: Scale, settings: StyleSettings) -> tuple[int, int]:
    """Width and height at which a style image's strokes suit this stage.

    It is enlarged only if it is too small for the network, or stretched to the photo's size.
    """
    width, height = scale.width, scale.height
    if settings.style_fit != "stretch":
        side = max(STRIDE, round(max(width, height) * style.scale))
        width, height = fit_size(style.rgb.shape[1], style.rgb.shape[0], side)
    return max(width, STRIDE), max(height, STRIDE)
