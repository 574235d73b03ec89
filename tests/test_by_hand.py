"""The loss and its slope once more by hand: NumPy, double precision, nothing of the engine's."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from keras import ops
from small_network import CLASSIC, in_tiles, noise

from stylewatch.domain import VGG19_LAYERS, StyleSettings
from stylewatch.engine.features import preprocess
from stylewatch.engine.objective import Objective, Region

HEIGHT, WIDTH = 67, 90
BALANCED = StyleSettings(
    content_layers={"block2_conv2": 0.5, "block4_conv2": 2.0}, content_weight=0.7, tv_weight=0.3
)
AVERAGE = StyleSettings(
    pooling="average", style_layers={"block1_conv2": 0.3, "block3_conv4": 0.2, "block5_conv1": 0.4}
)
QUIET = replace(CLASSIC, tv_weight=1e-7)  # or nothing else would be seen in the slope
STEP = 1e-4


def picture(seed, height=HEIGHT, width=WIDTH):
    return preprocess(noise(seed, height, width))


def regions_of(mask):
    """Without a mask one blend of two styles; else one of them there, and the blend elsewhere."""
    one, other = (ops.convert_to_tensor(picture(seed, 40 * seed, 50)) for seed in (1, 2))
    if mask is None:
        return [Region([(one, 3.0), (other, 1.0)], None)]
    return [Region([(one, 1.0)], mask, 1.3), Region([(other, 1.0), (one, 2.0)], 1 - mask, 0.7)]


def features(network, image, settings):
    x, block, taps = np.asarray(image, np.float64)[0], "block1", {}
    for layer in network.convolutions[: VGG19_LAYERS.index("block5_conv2") + 1]:
        if not layer.name.startswith(block):
            block = layer.name[:6]
            height, width = (side // 2 for side in x.shape[:2])
            squares = x[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1)
            x = squares.max((1, 3)) if settings.pooling == "max" else squares.mean((1, 3))
        (kernel,), (height, width, _) = layer.kernels, x.shape
        around = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        x = sum(
            around[i : i + height, j : j + width] @ kernel[i, j].astype(np.float64)
            for i, j in itertools.product(range(3), repeat=2)
        )
        x = taps[layer.name] = np.maximum(x + layer.bias, 0)
    return taps


def at_tap(places, tap):
    """What counts for the photo's pixels, at a layer's size; None = all alike."""
    rows, columns, _ = tap.shape
    if places is None:
        return np.ones((rows, columns))
    stride = 2 ** round(np.log2(HEIGHT / rows))
    cropped = places[: rows * stride, : columns * stride].astype(np.float64)
    return cropped.reshape(rows, stride, columns, stride).mean((1, 3))


def gram(tap, mask):
    """Per location, each location counting as much as the mask says."""
    share = at_tap(mask, tap)
    return np.einsum("ijk,ijl,ij->kl", tap, tap, share) / share.sum()


def variation(image):
    x = np.asarray(image, np.float64)
    dx, dy = x[:, :-1, :-1] - x[:, :-1, 1:], x[:, :-1, :-1] - x[:, 1:, :-1]
    return np.sum((dx**2 + dy**2) ** 1.25)


def losses(network, image, photo, regions, settings, weight):
    """(content, style, tv), weights included."""
    balanced = settings.objective == "balanced"
    now, before = (features(network, x, settings) for x in (image, photo))
    content = style = 0.0
    for layer, share in settings.content_layers.items():
        apart = (now[layer] - before[layer]) ** 2
        apart = np.sum(at_tap(weight, apart)[..., None] * apart)
        content += share * apart / (np.sum(before[layer] ** 2) if balanced else 1)
    for region in regions:
        total = sum(weight for _, weight in region.styles)
        taps = [(features(network, x, settings), weight / total) for x, weight in region.styles]
        area = region.share * (1 if region.mask is None else region.mask.mean(dtype=np.float64))
        for layer, share in settings.style_layers.items():
            wanted = sum(part * gram(tap[layer], None) for tap, part in taps)
            found, first = (gram(tap[layer], region.mask) for tap in (now, before))
            apart = np.sum((found - wanted) ** 2)
            if balanced:
                left = apart / np.sum((first - wanted) ** 2)
                loss = (left + 0.04 * np.log1p(left / 0.002)) / (1 + 0.04 * np.log1p(1 / 0.002))
            else:  # sums instead of means, in the example's units
                loss = apart * (now[layer][..., 0].size / (HEIGHT * WIDTH)) ** 2 / (4 * 3**2)
            style += area * share * loss
    tv = settings.tv_weight * variation(image) / (variation(photo) if balanced else 1)
    return settings.content_weight * content, settings.strength * style, tv


@pytest.mark.parametrize(("masked", "tiled"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("settings", [BALANCED, AVERAGE, QUIET])
def test_loss_and_slope_are_those_of_the_formulas(network, settings, masked, tiled):
    layers = tuple(settings.content_layers), tuple(settings.style_layers)
    arguments = (network, *layers, settings.pooling, "float32")
    objective = in_tiles(32, *arguments) if tiled else Objective(*arguments)
    photo, image = picture(3), picture(4)
    mask = np.random.default_rng(5).uniform(0, 1, (HEIGHT, WIDTH)).astype(np.float32) ** 3
    mask[:30] = 0.0
    regions = regions_of(mask if masked else None)
    weight = 2.0 - mask if masked else None
    targets = objective.targets(photo, regions, settings, weight)
    parts, gradient = objective.evaluate(image, targets)

    def by_hand(step=0.0):
        return losses(network, image + step, photo, regions, settings, weight)

    assert (parts.content, parts.style, parts.tv) == pytest.approx(by_hand(), rel=1e-5)
    gradient = np.asarray(gradient, np.float64)
    for seed in range(2):  # half at random, half down
        way = np.random.default_rng(seed).normal(size=image.shape)
        way = way / np.linalg.norm(way) - gradient / np.linalg.norm(gradient)
        slope = (sum(by_hand(STEP * way)) - sum(by_hand(-STEP * way))) / (2 * STEP)
        assert np.sum(gradient * way) == pytest.approx(slope, rel=1e-4)
