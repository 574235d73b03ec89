"""Tiles give the loss and gradient of the whole picture; nothing is approximated."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from small_network import CLASSIC, in_tiles
from small_network import noise_input as picture

from stylewatch.domain import StyleSettings
from stylewatch.engine import backend
from stylewatch.engine.features import load_builtin, load_vgg19
from stylewatch.engine.objective import Objective, Region
from stylewatch.engine.tiles import divided, grid_of, margin_of, plan_tiles, tiles_of

BALANCED = StyleSettings(tv_weight=1.0)


def relative(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def pixels_of(tile):
    """With the margin."""
    top, bottom, left, right = tile.outer
    return (bottom - top) * (right - left)


@pytest.mark.parametrize(
    ("options", "masked", "size", "gpu"),
    [
        (BALANCED, True, (256, 304), False),
        (CLASSIC, False, (200, 230), False),
        (CLASSIC, False, (200, 230), True),
    ],
    ids=["balanced, masked and weighted", "classic, odd size", "with features on the host"],
)
def test_the_tiled_gradient_equals_the_untiled_one(options, masked, size, gpu, monkeypatch):
    """Of the built-in network; few filters at random have more ReLUs that rounding turns over."""
    monkeypatch.setattr(backend, "has_gpu", lambda: gpu)
    arguments = (
        load_builtin(),
        tuple(options.content_layers),
        tuple(options.style_layers),
        "max",
        "float32",
    )
    whole = Objective(*arguments)
    tiled = in_tiles(64, *arguments, grid=grid_of("float32"))
    assert len(tiled._tiles(picture(0, *size))) >= 6  # seams in both directions
    bands = [(rows.stop - rows.start) * size[1] for rows in tiled._bands(picture(0, *size))]
    assert len(bands) == 2
    assert max(bands) <= 11 * 64**2  # in memory total variation is not seen as a whole either
    mask = None
    if masked:
        mask = np.zeros(size, np.float32)
        mask[:, : size[1] // 3] = 1.0
    regions = [Region([(picture(1, 130, 170), 1.0)], mask)]  # larger than a tile, too
    if masked:
        blend = [(picture(4, 64, 96), 2.0), (picture(5, 48, 48), 1.0)]
        regions.append(Region(blend, 1.0 - mask, share=1.3))
    weight = np.random.default_rng(3).uniform(0, 4, size).astype(np.float32) if masked else None
    image = picture(2, *size)
    results = []
    for objective in (whole, tiled):
        targets = objective.targets(picture(0, *size), regions, options, weight)
        results.append(objective.evaluate(image, targets))
    (expected, gradient), (parts, tiled_gradient) = results
    assert parts.loss == pytest.approx(expected.loss, rel=1e-4)
    assert parts.content == pytest.approx(expected.content, rel=1e-4)
    assert parts.style == pytest.approx(expected.style, rel=1e-4)
    assert parts.tv == pytest.approx(expected.tv, rel=1e-4)
    assert relative(tiled_gradient, gradient) <= 1e-5


@pytest.mark.parametrize(("tv_weight", "at"), [(0.0, (40, 40)), (1.0, (-1, -1))])
def test_a_pixel_that_is_no_number_is_seen_in_tiles_too(network, tv_weight, at):
    """A ReLU makes nothing of it, and a step that led there would be taken for a good one."""
    arguments = (network, ("block4_conv2",), ("block5_conv1",), "max", "float32")
    settings = StyleSettings(style_layers={"block5_conv1": 1.0}, tv_weight=tv_weight)
    image = np.asarray(picture(2, 80, 96)).copy()
    image[0, *at, 1] = np.nan
    for objective in (Objective(*arguments), in_tiles(64, *arguments)):
        regions = [Region([(picture(1, 64, 64), 1.0)], None)]
        targets = objective.targets(picture(0, 80, 96), regions, settings)
        assert math.isnan(objective.evaluate(image, targets)[0].loss)
        assert math.isfinite(objective.evaluate(picture(2, 80, 96), targets)[0].loss)


def test_of_a_tile_s_features_only_its_own_are_kept(network):
    """With the margins of the smallest tiles, all of them would be nearly three times as many."""
    arguments = (network, ("block4_conv2",), ("block5_conv1",), "max", "float32")
    kept = in_tiles(64, *arguments).describe(picture(0, 200, 230), [{}])
    assert sum(math.prod(tap.shape[1:3]) for tap in kept.features["block4_conv2"]) == 25 * 28


def test_what_does_not_change_is_laid_out_for_each_tile_once(network, monkeypatch):
    """A GPU would be waited for at each evaluation; and each graph takes half a second to make."""
    arguments = (network, ("block4_conv2",), ("block1_conv1", "block5_conv1"), "max", "float32")
    tiled, made, fetched = in_tiles(64, *arguments), [], []
    extract, to_numpy = tiled.extract, backend.to_numpy
    tiled.extract = lambda image: made.append(1) or extract(image)
    monkeypatch.setattr(backend, "to_numpy", lambda each: fetched.append(1) or to_numpy(each))
    mask = np.linspace(0, 1, 130 * 200, dtype=np.float32).reshape(130, 200)
    settings = StyleSettings(style_layers={"block1_conv1": 1.0, "block5_conv1": 1.0})
    for masked in (None, mask):
        photo = picture(0, 130, 200)
        regions = [Region([(picture(1, 64, 64), 1.0)], masked)]
        targets = tiled.targets(photo, regions, settings, masked)
        assert len(made) == (1 if masked is None else 3)  # with masks, styles have one without
        fetched.clear()
        tiled.evaluate(photo, targets)
        assert len(fetched) == len(tiled._tiles(photo))  # the gradients
        assert len(made) == (2 if masked is None else 4)


def test_a_large_photo_s_masks_are_never_on_a_device_as_a_whole(network, monkeypatch):
    """With two masks, those of 100 megapixels take more than a small GPU has to spare."""
    arguments = (network, ("block4_conv2",), ("block1_conv1", "block5_conv1"), "max", "float32")
    settings = StyleSettings(style_layers={"block1_conv1": 1.0, "block5_conv1": 1.0})
    mask = np.linspace(0, 1, 130 * 200, dtype=np.float32).reshape(130, 200)
    photo, style = np.asarray(picture(0, 130, 200)), np.asarray(picture(1, 64, 64))
    put, sizes = ops.convert_to_tensor, []
    monkeypatch.setattr(
        ops,
        "convert_to_tensor",
        lambda each, **how: sizes.append(np.size(each)) or put(each, **how),
    )
    in_tiles(64, *arguments).targets(photo, [Region([(style, 1.0)], mask)], settings)
    assert max(sizes) < mask.size


def test_with_vgg19_itself_too(vgg19_file):
    """Its wide convolutions are computed several outputs at a time: tiles lie on that grid."""
    network = load_vgg19(str(vgg19_file))
    arguments = (network, tuple(BALANCED.content_layers), tuple(BALANCED.style_layers))
    results = []
    for objective in (
        Objective(*arguments, "max", "float32"),
        in_tiles(128, *arguments, "max", "float32", grid=grid_of("float32")),
    ):
        regions = [Region([(picture(1, 130, 170), 1.0)], None)]
        targets = objective.targets(picture(0, 250, 330), regions, BALANCED)
        results.append(objective.evaluate(picture(2, 250, 330), targets)[1])
    assert relative(results[1], results[0]) <= 1e-5


@given(
    st.integers(1, 6000),
    st.integers(1, 6000),
    st.integers(1, 10**7),
    st.sampled_from((16, 32, 64)),
)
@settings(max_examples=200)
def test_every_position_belongs_to_exactly_one_tile(height, width, pixels, grid):
    tiles = plan_tiles(height, width, pixels, 80, grid)
    covered = sum(
        (tile.inner[1] - tile.inner[0]) * (tile.inner[3] - tile.inner[2]) for tile in tiles
    )
    assert covered == height * width
    for tile in tiles:
        top, bottom, left, right = tile.inner
        assert top % grid == left % grid == tile.outer[0] % grid == tile.outer[2] % grid == 0
        assert min(bottom - top, right - left) >= min(16, height, width)
        assert pixels_of(tile) <= max(pixels, (256 + grid + 80 + grid + 80) ** 2)
        for before, after, first, last, side in (
            (*tile.inner[:2], *tile.outer[:2], height),
            (*tile.inner[2:], *tile.outer[2:], width),
        ):
            assert first == 0 or before - first >= 80
            assert last == side or last - after >= 80


@given(st.integers(256, 6000), st.integers(256, 6000), st.integers(500, 4000))
def test_no_square_tiles_of_the_same_memory_have_fewer_pixels(height, width, side):
    planned = plan_tiles(height, width, side**2, 80, 64)
    square = (side - 2 * 80 - 64) // 64 * 64
    squares = tiles_of(*(divided(length, square, 80, 64) for length in (height, width)))
    assert max(map(pixels_of, planned)) <= side**2
    assert sum(map(pixels_of, planned)) <= sum(map(pixels_of, squares))


@pytest.mark.parametrize(("pixels", "count", "more"), [(577e3, 2, 1.21), (481e3, 3, 1.41)])
def test_a_picture_is_divided_along_its_longer_side_alone_where_that_is_less(pixels, count, more):
    """Squares, 512 pixels wide, would be six, of 1.8 times the pixels."""
    tiles = plan_tiles(784, 1040, pixels, 80, 64)
    assert len(tiles) == count
    assert sum(map(pixels_of, tiles)) < more * 784 * 1040


def test_the_margin_is_what_the_deepest_layer_sees():
    assert margin_of(["block1_conv1"]) == 16
    assert margin_of(["block5_conv1"]) == 80
    assert margin_of(["block1_conv1", "block5_conv2"]) == 96
