"""The losses against plain loops over the formulas, and their properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from stylewatch.engine import backend, losses


def features_of(seed: int, height: int, width: int, channels: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(0, 3, (1, height, width, channels)), 0).astype(np.float32)


def gram_by_loops(features: np.ndarray) -> np.ndarray:
    _, height, width, channels = features.shape
    gram = np.zeros((channels, channels))
    for row in range(height):
        for column in range(width):
            f = features[0, row, column].astype(np.float64)
            gram += np.outer(f, f)
    return gram / (height * width)


@given(st.integers(0, 99), st.integers(1, 7), st.integers(1, 9), st.integers(1, 5))
@settings(max_examples=15)
def test_gram_matrix_is_the_mean_outer_product(seed, height, width, channels):
    features = features_of(seed, height, width, channels)
    gram = np.asarray(losses.gram_matrix(ops.convert_to_tensor(features)))
    np.testing.assert_allclose(gram, gram_by_loops(features), rtol=1e-4, atol=1e-5)


@given(st.integers(0, 99), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=10)
def test_gram_matrix_is_symmetric_and_positive(seed, height, width):
    gram = np.asarray(
        losses.gram_matrix(ops.convert_to_tensor(features_of(seed, height, width, 4)))
    )
    np.testing.assert_allclose(gram, gram.T, rtol=1e-5, atol=1e-6)
    assert np.linalg.eigvalsh(gram).min() > -1e-3


def test_bfloat16_gram_is_summed_in_float32():
    features = features_of(1, 61, 47, 8)  # not in strips of one size
    exact = gram_by_loops(features)
    gram = losses.gram_matrix(ops.convert_to_tensor(features, dtype="bfloat16"))
    assert "float32" in str(gram.dtype)
    # a strip's own sum is rounded, too, where no hardware multiplies bfloat16
    most = 1e-3 if backend.device().fast_bfloat16 else 5e-3
    np.testing.assert_allclose(np.asarray(gram), exact, rtol=most)


def test_the_same_texture_has_the_same_gram_at_every_size():
    tile = features_of(2, 8, 8, 4)
    tiled = np.tile(tile, (1, 3, 2, 1))
    small, large = (np.asarray(losses.gram_matrix(ops.convert_to_tensor(f))) for f in (tile, tiled))
    np.testing.assert_allclose(small, large, rtol=1e-4)


def test_total_variation_of_a_flat_picture_is_zero_and_of_an_edge_is_not():
    flat = np.full((1, 6, 5, 3), 41.0, np.float32)
    edge = flat.copy()
    edge[:, :, 3:] += 2.0
    assert float(losses.total_variation_loss(ops.convert_to_tensor(flat))) == pytest.approx(
        0, abs=1e-6
    )
    # five rows of one step of 2 in three channels: 15 · (2²)^1.25
    expected = 15 * 4.0**1.25
    assert float(losses.total_variation_loss(ops.convert_to_tensor(edge))) == pytest.approx(
        expected, rel=1e-4
    )


@given(st.floats(0, 100), st.floats(0, 1))
@settings(max_examples=50)
def test_a_bent_loss_is_one_at_the_photo_and_zero_at_the_painting(share, bend):
    """And by hand in NumPy between them."""
    value = float(losses.bent(np.float32(share), np.float32(bend)))
    expected = (share + bend * np.log(1 + share / 0.002)) / (1 + bend * np.log(501))
    assert value == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert float(losses.bent(np.float32(1), np.float32(bend))) == 1.0
    assert float(losses.bent(np.float32(0), np.float32(bend))) == 0.0
    assert float(losses.bent(np.float32(share), np.float32(0))) == pytest.approx(
        share, rel=1e-6, abs=1e-30
    )


def test_a_bent_loss_pulls_harder_the_less_is_left():
    def slope(share):
        ahead, behind = (float(losses.bent(share * by, 0.04)) for by in (1.1, 0.9))
        return (ahead - behind) / (0.2 * share)

    slopes = [slope(share) for share in (1.0, 0.1, 0.01, 0.001)]
    assert slopes == sorted(slopes)
    assert slopes[-1] > 10 * slopes[0]
