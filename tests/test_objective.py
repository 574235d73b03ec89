"""The objective: its gradient by finite differences, its factors, its regions and its cache."""

from dataclasses import replace

import numpy as np
import pytest
from keras import ops
from small_network import CLASSIC
from small_network import noise_input as picture

from stylewatch.domain import StyleSettings
from stylewatch.engine.features import preprocess
from stylewatch.engine.objective import Objective, Region


def objective_of(network, settings, precision="float32"):
    return Objective(
        network, tuple(settings.content_layers), tuple(settings.style_layers), "max", precision
    )


@pytest.mark.parametrize(
    "settings", [StyleSettings(tv_weight=1.0), CLASSIC], ids=["balanced", "classic"]
)
def test_the_gradient_agrees_with_finite_differences(network, settings):
    objective = objective_of(network, settings)
    targets = objective.targets(picture(0), [Region([(picture(1), 1.0)], None)], settings)
    image = np.asarray(picture(2))
    _, gradient = objective.evaluate(ops.convert_to_tensor(image), targets)
    direction = np.asarray(gradient) / np.linalg.norm(np.asarray(gradient))
    step = 2.0
    ahead, behind = (
        objective.evaluate(ops.convert_to_tensor(image + sign * step * direction), targets)[0].loss
        for sign in (1, -1)
    )
    slope = float(np.sum(np.asarray(gradient) * direction))
    assert (ahead - behind) / (2 * step) == pytest.approx(slope, rel=0.02)


def test_content_counts_at_each_place_as_much_as_its_weight_says(network):
    settings = StyleSettings(content_layers={"block1_conv1": 1.0, "block4_conv2": 1.0})
    objective = objective_of(network, settings)
    regions = [Region([(picture(1), 1.0)], None)]
    left = np.zeros((32, 48), np.float32)
    left[:, :24] = 1.0

    def content(weight):
        targets = objective.targets(picture(0), regions, settings, weight)
        return objective.evaluate(picture(2), targets)[0].content

    everywhere = content(None)
    assert content(left) + content(1.0 - left) == pytest.approx(everywhere, rel=1e-5)
    assert 0.0 < content(left) < everywhere
    assert content(3.0 * left) == pytest.approx(3.0 * content(left), rel=1e-5)


def test_balanced_losses_start_at_zero_content_and_the_strength(network):
    layers = {"block1_conv1": 0.3, "block4_conv1": 0.7}
    settings = StyleSettings(strength=10.0, style_layers=layers)
    objective = objective_of(network, settings)
    targets = objective.targets(picture(0), [Region([(picture(1), 1.0)], None)], settings)
    parts, _ = objective.evaluate(picture(0), targets)
    assert parts.content == pytest.approx(0.0, abs=1e-6)
    assert parts.style == pytest.approx(10.0, rel=1e-3)


@pytest.mark.parametrize("size", [(32, 48), (64, 96)])
def test_balanced_smoothness_is_measured_against_the_photo_s_own(network, size):
    """A flat photo has none: there, a grey level per value counts as much."""
    settings = StyleSettings(tv_weight=0.5)
    objective = objective_of(network, settings)
    styles = [Region([(picture(1), 1.0)], None)]
    photo = picture(0, *size)
    parts, _ = objective.evaluate(photo, objective.targets(photo, styles, settings))
    assert parts.tv == pytest.approx(0.5, rel=1e-4)
    parts, _ = objective.evaluate(photo * 0, objective.targets(photo * 0, styles, settings))
    assert parts.tv < 1e-6
    slopes = ops.convert_to_tensor(
        preprocess(np.mgrid[: size[0], : size[1]][0][..., None] + np.zeros(3, np.float32))
    )
    parts, _ = objective.evaluate(slopes, objective.targets(photo * 0, styles, settings))
    assert parts.tv == pytest.approx(0.5, rel=0.1)


def test_classic_is_the_published_sum(network):
    """Σ(F-C)²·0.025 + Σ_l Σ(G-S)²/(4·3²·size²)/5 + Σ(dx²+dy²)^1.25, by hand in NumPy."""
    objective = objective_of(network, CLASSIC)
    photo, style, image = picture(0), picture(1), picture(2)
    targets = objective.targets(photo, [Region([(style, 1.0)], None)], CLASSIC)
    parts, _ = objective.evaluate(image, targets)

    layers = [f"block{block}_conv1" for block in range(1, 6)]
    extract = network.extractor([*layers, "block5_conv2"])
    f_photo, f_style, f_image = (
        {name: np.asarray(tap, np.float64) for name, tap in extract(x).items()}
        for x in (photo, style, image)
    )
    content = 0.025 * np.sum((f_image["block5_conv2"] - f_photo["block5_conv2"]) ** 2)
    expected_style, size = 0.0, 32 * 48
    for layer in layers:
        flat_image, flat_style = (
            f[layer].reshape(-1, f[layer].shape[-1]) for f in (f_image, f_style)
        )
        difference = flat_image.T @ flat_image - flat_style.T @ flat_style
        expected_style += np.sum(difference**2) / (4.0 * 3**2 * size**2) / 5
    x = np.asarray(image, np.float64)
    dx, dy = x[:, :-1, :-1] - x[:, :-1, 1:], x[:, :-1, :-1] - x[:, 1:, :-1]
    assert parts.content == pytest.approx(content, rel=1e-3)
    assert parts.style == pytest.approx(expected_style, rel=1e-3)
    assert parts.tv == pytest.approx(np.sum((dx**2 + dy**2) ** 1.25), rel=1e-3)


def test_classic_scaled_keeps_the_balance_of_400_rows(network):
    scaled = replace(CLASSIC, objective="classic-scaled")
    objective = objective_of(network, CLASSIC)
    regions = [Region([(picture(1), 1.0)], None)]
    plain, _ = objective.evaluate(picture(2), objective.targets(picture(0), regions, CLASSIC))
    ours, _ = objective.evaluate(picture(2), objective.targets(picture(0), regions, scaled))
    factor = (400 * 600) / (32 * 48)
    assert ours.content == pytest.approx(plain.content * factor, rel=1e-3)
    assert ours.tv == pytest.approx(plain.tv * factor, rel=1e-3)
    assert ours.style == pytest.approx(plain.style, rel=1e-4)


def test_a_mask_confines_the_style_s_gradient_to_its_region(network):
    settings = StyleSettings(content_weight=0.0, style_layers={"block1_conv1": 1.0})
    objective = objective_of(network, settings)
    mask = np.zeros((32, 48), np.float32)
    mask[:, :16] = 1.0
    targets = objective.targets(picture(0), [Region([(picture(1), 1.0)], mask)], settings)
    _, gradient = objective.evaluate(picture(0), targets)
    assert np.abs(np.asarray(gradient)[0, :, :16]).max() > 0
    np.testing.assert_array_equal(np.asarray(gradient)[0, :, 18:], 0.0)


def test_blended_styles_are_the_weighted_mean_of_their_gram_matrices(network):
    settings = StyleSettings()
    objective = objective_of(network, settings)
    one, other = picture(1), picture(2)
    blend = objective.targets(picture(0), [Region([(one, 3.0), (other, 1.0)], None)], settings)
    alone = [
        objective.targets(picture(0), [Region([(style, 1.0)], None)], settings)["style"][0]
        for style in (one, other)
    ]
    layer = "block3_conv1"
    expected = 0.75 * np.asarray(alone[0][layer][0]) + 0.25 * np.asarray(alone[1][layer][0])
    np.testing.assert_allclose(np.asarray(blend["style"][0][layer][0]), expected, rtol=1e-4)


def test_style_targets_are_kept_for_the_next_photo_but_not_for_ever(network):
    """A daemon meets any number of styles and sizes: the oldest targets make room."""
    settings = StyleSettings()
    objective = objective_of(network, settings)
    described = []
    objective.grams_of_style = lambda image: (
        described.append(1)
        or {layer: np.zeros((1, 1), np.float32) for layer in settings.style_layers}
    )

    def use(seed):
        objective.targets(picture(0), [Region([(picture(seed, 16, 16), 1.0)], None)], settings)

    use(1)
    use(1)
    assert len(described) == 1
    for seed in range(2, 40):
        use(seed)
        use(1)
    assert len(described) == 39
    assert len(objective._styles) == 32


def test_a_style_image_is_described_by_the_same_graph_as_a_photo(network):
    """Each takes TensorFlow half a second to make, and holds kernels of its own."""
    settings = StyleSettings()
    objective = objective_of(network, settings)
    extract, made = objective.extract, []
    objective.extract = lambda image: made.append(1) or extract(image)
    targets = objective.targets(picture(0), [Region([(picture(1, 64, 32), 1.0)], None)], settings)
    assert len(made) == 1
    objective.evaluate(picture(2), targets)
    assert len(made) == 2


def test_styles_of_the_same_bytes_and_another_shape_are_others(network):
    """As one colour is, upright or across: its edges are longer on other sides."""
    settings = StyleSettings()
    across, upright = (
        Region([(ops.zeros((1, *size, 3)) + 80.0, 1.0)], None) for size in ((16, 64), (64, 16))
    )
    alone = objective_of(network, settings).targets(picture(0), [upright], settings)
    objective = objective_of(network, settings)
    objective.targets(picture(0), [across], settings)
    after = objective.targets(picture(0), [upright], settings)
    for layer in settings.style_layers:
        np.testing.assert_array_equal(*(each["style"][0][layer][0] for each in (alone, after)))


def test_a_photo_that_is_its_own_style_stays_finite(network):
    settings = StyleSettings()
    objective = objective_of(network, settings)
    targets = objective.targets(picture(0), [Region([(picture(0), 1.0)], None)], settings)
    parts, gradient = objective.evaluate(picture(0), targets)
    assert np.isfinite(parts.loss)
    assert np.isfinite(np.asarray(gradient)).all()


def test_bfloat16_agrees_with_float32(network):
    settings = StyleSettings()
    values = []
    for precision in ("float32", "bfloat16"):
        objective = objective_of(network, settings, precision)
        taps = objective.extract(picture(2)).values()
        assert all(precision in str(tap.dtype) for tap in taps)
        targets = objective.targets(picture(0), [Region([(picture(1), 1.0)], None)], settings)
        values.append(objective.evaluate(picture(2), targets)[0].loss)
    assert values[1] == pytest.approx(values[0], rel=0.05)
