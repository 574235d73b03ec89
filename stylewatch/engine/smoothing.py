"""What L-BFGS assumes of an image's loss before it has seen any of it.

The loss answers to fine detail ten to fifty times as strongly as to light and dark over many
pixels, so straight down leads to grain first and to large forms last. L-BFGS reaches the same loss
with a tenth to two fifths fewer evaluations where what is coarse in a gradient counts for more: a
Sobolev gradient (Neuberger, "Sobolev Gradients and Differential Equations", 1997).
"""

import math
from functools import cached_property
from typing import Any

import numpy as np
from keras import ops

from stylewatch.engine.backend import Tensor, compiled

_GAIN = 10.0
"""By so much more than fine detail counts what is the same everywhere."""
_CORNER = 0.03
"""Waves per pixel where half of this is left."""
_COARSE = 0.125
"""The share of the frequencies of each axis, from zero up, that counts for more.

What little the others would is not worth its time.
"""


class Smoother:
    """v ↦ v + (what is coarse in v), for images of one shape (1, H, W, channels).

    Of a wave with frequency f, in waves per pixel, 10 / (1 + (f / 0.03)²) times as much is added:
    10 · (1 − c∇²)⁻¹ v, as far as cosines below 1/16 along each axis can tell. Linear, symmetric and
    positive definite, as an inverse Hessian.

    Products with two matrices of cosines, (H/8, H) and (W/8, W), there and back; made when first
    needed. An array's takes one more array, and for a moment a third of another.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    def __call__(self, image: Tensor) -> Tensor:
        """`image`, and what is coarse in it."""
        if isinstance(image, np.ndarray):
            smooth: np.ndarray = _coarse(image, *self._arrays, np)
            smooth += image
            return smooth
        return _smooth(image, *self._tensors)

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The cosines of rows and of columns, a row each, and what to multiply each pair with."""
        _, height, width, _ = self._shape
        (rows, down), (columns, across) = _cosines(height), _cosines(width)
        squares = (across[:, None] ** 2 + down**2) / _CORNER**2
        return rows, columns, (_GAIN / (1.0 + squares)).astype(np.float32)

    @cached_property
    def _tensors(self) -> tuple[Tensor, ...]:
        """The same, in the form of images: so a graph has their sizes left open."""
        return tuple(ops.convert_to_tensor(array[None, ..., None]) for array in self._arrays)


def _cosines(length: int) -> tuple[np.ndarray, np.ndarray]:
    """The coarse cosines of so many pixels (orthonormal DCT-II), a row each; waves per pixel."""
    numbers = np.arange(math.ceil(_COARSE * length))
    cosines = np.empty((len(numbers), length), np.float32)
    for number in numbers:  # in double precision they would be as large as an image
        size = ((1.0 if number == 0 else 2.0) / length) ** 0.5
        cosines[number] = size * np.cos(np.pi / length * number * (np.arange(length) + 0.5))
    return cosines, numbers / (2.0 * length)


def _coarse(image: Tensor, rows: Tensor, columns: Tensor, gains: Tensor, xp: Any) -> Tensor:
    """The image in these cosines, each times its gain."""
    shares = xp.tensordot(columns, xp.tensordot(rows, image[0], (1, 0)), (1, 1))
    across = xp.tensordot(columns, gains[..., None] * shares, (0, 0))
    return xp.tensordot(rows, across, (0, 1))[None]


@compiled
def _smooth(image: Tensor, rows: Tensor, columns: Tensor, gains: Tensor) -> Tensor:
    rows, columns, gains = (each[0, ..., 0] for each in (rows, columns, gains))
    return image + _coarse(image, rows, columns, gains, ops)
