"""What a painting takes of the photo's colours. Arrays in, arrays out: (H, W, 3) RGB, 0…255."""

from collections.abc import Sequence

import numpy as np

_NOISE = 8.0**2
"""A smaller variance of a style's colours is what a scan or JPEG has added to black and white.

Stretched to the photo's it would become confetti.
"""
_ONE_COLOUR = 4.0  # grey levels from the first pixel
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def to_luminance(rgb: np.ndarray) -> np.ndarray:
    """Three equal channels of Rec. 601 luma."""
    luma = np.asarray(rgb @ _LUMA, dtype=np.float32)
    return np.repeat(luma[..., np.newaxis], 3, axis=-1)


def photo_colours(painted: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """The painting's luminance with the photo's colour differences."""
    return np.asarray(np.clip(photo + (to_luminance(painted) - to_luminance(photo)), 0, 255))


def match_colours(style: np.ndarray, photo: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """The style with the photo's mean and covariance of colours (Gatys et al. 2016, eq. 10).

    The photo's rows need not be of one length.
    """
    (from_mean, from_spread), (to_mean, to_spread) = map(_moments, (style, photo))
    transform = _root(to_spread) @ np.linalg.inv(_root(from_spread, least=_NOISE))
    matched = (style - np.float32(from_mean)) @ np.float32(transform.T)
    matched += np.float32(to_mean)
    return np.clip(matched, 0, 255, out=matched)


def is_of_one_colour(photo: Sequence[np.ndarray] | np.ndarray) -> bool:
    """Whether nothing is to be seen: a style with its colours is as flat.

    Of most photos the first row tells. The rows need not be of one length; there is a pixel.
    """
    first = next(row[0] for row in photo if len(row))
    return all(np.abs(row - first).max(initial=0.0) < _ONE_COLOUR for row in photo)


def _moments(rgb: Sequence[np.ndarray] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of all colours, in double precision, row by row for huge photos."""
    pixels = sum(map(len, rgb))
    mean = sum((row.sum(axis=0, dtype=np.float64) for row in rgb), np.zeros(3)) / pixels
    rows = (row - mean for row in rgb)
    return mean, sum((row.T @ row for row in rows), np.zeros((3, 3))) / pixels


def _root(covariance: np.ndarray, least: float = 0.0) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors @ np.diag(np.sqrt(np.maximum(values, least))) @ vectors.T)
