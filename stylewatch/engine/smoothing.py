"""What L-BFGS assumes about an image's loss before it has seen any of it.

The loss answers to fine detail ten to fifty times as strongly as to light and dark over many
pixels, so the way straight down leads to grain first and to large forms last. If what is coarse in
a gradient counts for more, L-BFGS reaches the same loss with a tenth to two fifths fewer
evaluations: a Sobolev gradient (Neuberger, "Sobolev Gradients and Differential Equations", 1997).
"""

import math
from functools import cached_property
from typing import Any

import numpy as np
from keras import ops

from stylewatch.engine.backend import Tensor, compiled

_GAIN = 10.0
"""How many times as much is added of what is the same everywhere (frequency 0)."""
_CORNER = 0.03
"""The frequency, in waves per pixel, of which half as much is added."""
_COARSE = 0.125
"""Only this share of the frequencies of each axis, from zero up, is computed.

Of the others too little would be added to be worth the time.
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
        """The cosines down and across, one in each row, and the gain of each pair of them."""
        _, height, width, _ = self._shape
        (rows, down), (columns, across) = _cosines(height), _cosines(width)
        squares = (across[:, None] ** 2 + down**2) / _CORNER**2
        return rows, columns, (_GAIN / (1.0 + squares)).astype(np.float32)

    @cached_property
    def _tensors(self) -> tuple[Tensor, ...]:
        """The same arrays in the shape of images, whose sizes a graph leaves open."""
        return tuple(ops.convert_to_tensor(array[None, ..., None]) for array in self._arrays)


def _cosines(length: int) -> tuple[np.ndarray, np.ndarray]:
    """The coarse cosines over so many pixels (orthonormal DCT-II), and their waves per pixel."""
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
