"""The objective: its factors, its graph and its cache; test_by_hand.py has its loss and slope."""

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
