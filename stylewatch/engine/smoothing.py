"""What L-BFGS assumes of an image's loss before it has seen any of it.

The loss answers to fine detail ten to fifty times as strongly as to light and dark over many
pixels, so straight down leads to grain first and to large forms last. L-BFGS reaches the same loss
with a fifth to a third fewer evaluations where what is coarse in a gradient counts for more: a
Sobolev gradient (Neuberger, "Sobolev Gradients and Differential Equations", 1997).
"""

import math
from typing import Any

import numpy as np
from keras import ops

from stylewatch.engine.backend import compiled

Tensor = Any

_GAIN = 10.0
"""By how much more than the finest detail that counts which is the same everywhere."""
_CORNER = 0.03
"""Waves per pixel where half of this is left."""
_COARSE = 0.125
"""The share of the frequencies, from zero up, that counts for more; the others are left alone."""


class Smoother:
    """v ↦ v + 10 · (1 − c∇²)⁻¹ v, for images of one shape (1, H, W, channels).

    Linear, symmetric and positive definite, as an inverse Hessian. In cosines, reflected at the
    edges, ∇² is diagonal, and the coarse ones are few: products with two small matrices, there and
    back. An array's takes one more array, and for a moment three eighths of another.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        _, height, width, _ = shape
        self._rows, down = _cosines(height)
        self._columns, across = _cosines(width)
        squares = across[:, None] ** 2 + down**2
        self._gains = (_GAIN / (1.0 + squares / _CORNER**2)).astype(np.float32)[..., None]

    def __call__(self, image: Tensor) -> Tensor:
        """`image`, and what is coarse in it."""
        if isinstance(image, np.ndarray):
            smooth: np.ndarray = _coarse(image, self._rows, self._columns, self._gains, np)
            smooth += image
            return smooth
        return _smooth(image, self._rows, self._columns, self._gains)


def _cosines(length: int) -> tuple[np.ndarray, np.ndarray]:
    """The coarse cosines of so many pixels (orthonormal DCT-II), a row each; waves per pixel."""
    numbers = np.arange(math.ceil(_COARSE * length))
    cosines = np.cos(np.pi / length * np.outer(numbers, np.arange(length) + 0.5))
    cosines *= (np.where(numbers == 0, 1.0, 2.0) / length)[:, None] ** 0.5
    return cosines.astype(np.float32), numbers / (2.0 * length)


def _coarse(image: Tensor, rows: Tensor, columns: Tensor, gains: Tensor, xp: Any) -> Tensor:
    """The image in these cosines, each times its gain."""
    shares = xp.tensordot(columns, xp.tensordot(rows, image[0], (1, 0)), (1, 1))
    across = xp.tensordot(columns, gains * shares, (0, 0))
    return xp.tensordot(rows, across, (0, 1))[None]


@compiled
def _smooth(image: Tensor, rows: Tensor, columns: Tensor, gains: Tensor) -> Tensor:
    return image + _coarse(image, rows, columns, gains, ops)
