"""Tiles give the loss and gradient of the whole picture; nothing is approximated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from stylewatch.domain import StyleSettings
from stylewatch.engine.features import preprocess
from stylewatch.engine.objective import Objective, Region
from stylewatch.engine.tiles import TiledObjective, margin_of, plan_tiles

BALANCED = StyleSettings(tv_weight=1e-5)
CLASSIC = StyleSettings(
    objective="classic", content_weight=0.025, strength=1.0, tv_weight=1.0,
    content_layers={"block5_conv2": 1.0},
)  # fmt: skip


def picture(seed, height, width):
    rng = np.random.default_rng(seed)
    return ops.convert_to_tensor(
        preprocess(rng.uniform(0, 255, (height, width, 3)).astype(np.float32))
    )


def relative(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize(
    ("options", "masked", "size"),
    [(BALANCED, True, (256, 304)), (CLASSIC, False, (200, 230))],
    ids=["balanced, masked", "classic, odd size"],
)
def test_the_tiled_gradient_equals_the_untiled_one(network, options, masked, size):
    arguments = (
        network,
        tuple(options.content_layers),
        tuple(options.style_layers),
        "max",
        "float32",
    )
    whole, tiled = Objective(*arguments), TiledObjective(*arguments, side=96)
    assert len(tiled._tiles(picture(0, *size))) >= 6  # seams in both directions
    mask = None
    if masked:
        mask = np.zeros(size, np.float32)
        mask[:, : size[1] // 3] = 1.0
    regions = [Region([(picture(1, 130, 170), 1.0)], mask)]  # larger than a tile, too
    image = picture(2, *size)
    results = []
    for objective in (whole, tiled):
        targets = objective.targets(picture(0, *size), regions, options)
        results.append(objective.evaluate(image, targets))
    (expected, gradient), (parts, tiled_gradient) = results
    assert parts.content == pytest.approx(expected.content, rel=1e-4)
    assert parts.style == pytest.approx(expected.style, rel=1e-4)
    assert parts.tv == pytest.approx(expected.tv, rel=1e-4)
    assert relative(tiled_gradient, gradient) <= 1e-5


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 64).map(lambda n: 16 * n))
@settings(max_examples=200, deadline=None)
def test_every_position_belongs_to_exactly_one_tile(height, width, side):
    tiles = plan_tiles(height, width, side, 80)
    covered = sum(
        (tile.inner[1] - tile.inner[0]) * (tile.inner[3] - tile.inner[2]) for tile in tiles
    )
    assert covered == height * width
    for tile in tiles:
        assert tile.inner[0] % 16 == 0
        assert tile.inner[2] % 16 == 0
        assert tile.inner[1] - tile.inner[0] <= side
        assert tile.outer[0] % 16 == 0


def test_the_margin_is_what_the_deepest_layer_sees():
    assert margin_of(["block1_conv1"]) == 16
    assert margin_of(["block5_conv1"]) == 80
    assert margin_of(["block1_conv1", "block5_conv2"]) == 96
