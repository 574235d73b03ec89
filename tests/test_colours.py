"""Colours between photo, style and painting."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stylewatch.engine.colours import match_colours, photo_colours, to_luminance


def test_matched_colours_have_the_photo_s_mean_and_covariance():
    rng = np.random.default_rng(0)
    style = (rng.normal(120, 20, (64, 40, 3)) * [1, 0.5, 0.8]).astype(np.float32)
    photo = (rng.normal(110, 15, (48, 60, 3)) @ [[1, 0.2, 0], [0, 1, 0.1], [0, 0, 1]]).astype(
        np.float32
    )
    matched = match_colours(style, photo).reshape(-1, 3)
    np.testing.assert_allclose(matched.mean(0), photo.reshape(-1, 3).mean(0), atol=1.0)
    np.testing.assert_allclose(np.cov(matched.T), np.cov(photo.reshape(-1, 3).T), atol=12)


def test_the_noise_of_a_black_and_white_scan_is_not_taken_for_its_colours():
    rng = np.random.default_rng(0)
    drawing = np.linspace(0, 255, 64, dtype=np.float32)[:, np.newaxis, np.newaxis]
    drawing = drawing + rng.normal(0, 0.5, (64, 64, 3)).astype(np.float32)
    matched = match_colours(drawing, rng.uniform(0, 255, (64, 64, 3)).astype(np.float32))
    assert np.ptp(matched, axis=-1).mean() < 15


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(0, 255),
)
def test_colours_of_the_smallest_pictures_are_matched_too(style, photo, value):
    """A single pixel, or one colour throughout, has no covariance."""
    rng = np.random.default_rng(value)
    one = rng.uniform(0, 255, (*style, 3)).astype(np.float32)
    for other in (np.full((*photo, 3), value, np.float32), rng.uniform(0, 255, (*photo, 3))):
        matched = match_colours(one, other)
        assert matched.shape == one.shape
        assert np.isfinite(matched).all()
    np.testing.assert_allclose(match_colours(one[:1, :1], one[:1, :1]), one[:1, :1], atol=1e-3)


def test_photo_colours_take_the_painting_s_luminance_and_nothing_else():
    rng = np.random.default_rng(0)
    painted, photo = (rng.uniform(90, 160, (8, 8, 3)).astype(np.float32) for _ in range(2))
    mixed = photo_colours(painted, photo)
    np.testing.assert_allclose(to_luminance(mixed), to_luminance(painted), atol=0.6)
    np.testing.assert_allclose(mixed - to_luminance(mixed), photo - to_luminance(photo), atol=0.6)
