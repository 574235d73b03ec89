"""The smoother against SciPy's cosine transform, and as the inverse Hessian that it stands in for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from scipy.fft import dctn, idctn

from stylewatch.engine.smoothing import Smoother

shapes = st.tuples(st.just(1), st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))


def reference(image):
    """As the module's words have it, by SciPy's cosine transform, in float64."""
    _, height, width, _ = image.shape
    down, across = np.arange(height)[:, None], np.arange(width)
    gains = 10 / (1 + ((down / height) ** 2 + (across / width) ** 2) / (2 * 0.03) ** 2)
    gains[(8 * down >= height) | (8 * across >= width)] = 0
    waves = dctn(image[0].astype(np.float64), axes=(0, 1), norm="ortho")
    return idctn((1 + gains[..., None]) * waves, axes=(0, 1), norm="ortho")[None]


@settings(max_examples=15)
@given(shape=shapes, seed=st.integers(0, 99))
def test_it_adds_what_is_coarse_to_all_of_an_image(shape, seed):
    image = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    before = image.copy()
    expected = pytest.approx(reference(image), abs=1e-4)
    smoother = Smoother(shape)
    assert smoother(image) == expected
    assert np.asarray(smoother(ops.convert_to_tensor(image))) == expected
    assert np.array_equal(image, before)


@settings(max_examples=15)
@given(shape=shapes, seed=st.integers(0, 99))
def test_it_is_symmetric_and_makes_no_vector_turn_back(shape, seed):
    a, b = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    smoother = Smoother(shape)
    assert np.sum(a * smoother(b)) == pytest.approx(np.sum(b * smoother(a)), rel=1e-3, abs=1e-2)
    assert np.sum(a * smoother(a)) >= 0.999 * np.sum(a * a)


def test_what_is_the_same_everywhere_counts_eleven_times_and_grain_once():
    smoother = Smoother((1, 64, 48, 3))
    flat = np.full((1, 64, 48, 3), 2.0, np.float32)
    grain = np.indices((64, 48)).sum(axis=0)[None, :, :, None] % 2 * np.float32(2) - np.float32(1)
    grain = np.repeat(grain, 3, axis=3)
    assert smoother(flat) == pytest.approx(11 * flat, rel=1e-4)
    assert smoother(grain) == pytest.approx(grain, abs=0.06)
