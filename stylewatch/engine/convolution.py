"""A convolution in the way that is fastest on this machine.

Where a processor waits for multiplications, 3×3 kernels are applied by Winograd's algorithm as
Lavin and Gray have it (arXiv:1509.09308): m×m outputs come from (m + 2)² products per pair of
channels instead of 9·m². Knows nothing of networks.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops
from numpy.polynomial import polynomial

from stylewatch.engine import backend
from stylewatch.engine.backend import Precision

Tensor = Any
Convolve = Callable[[Tensor], Tensor]

POINTS: dict[Precision, tuple[float, ...]] = {"float32": (0, 1, -1, 2, 0.5), "bfloat16": (0, 1, -1)}
"""Where the polynomials are evaluated, besides at infinity: m + 1 points for m×m outputs.

4×4 outputs save three quarters of the multiplications, 2×2 save five ninths. What is rounded
grows with the points' powers: 2×2 cost bfloat16 less than a bit, 4×4 would cost it four. With each
point comes its inverse, so that the gradient needs no kernels of its own.
"""
WORTHWHILE: dict[Precision, float] = {"float32": 40, "bfloat16": 80}
"""Multiplications for each value moved, in·out / (in + out) channels, from which fewer of them pay
for the sums that it takes."""


def convolution(kernel: np.ndarray, precision: Precision) -> Convolve:
    """A function from (1, H, W, in) to (1, H, W, out), `kernel` (kh, kw, in, out), zeros around.

    It is differentiable by the image; the kernel counts as a constant.
    """
    wide = math.prod(kernel.shape[2:]) / sum(kernel.shape[2:]) >= WORTHWHILE[precision]
    if kernel.shape[:2] == (3, 3) and wide and backend.waits_for_products(precision):
        return winograd(kernel, precision, POINTS[precision])
    if backend.arranges_kernels_once():
        return both_ways(kernel, precision)
    weights = ops.convert_to_tensor(kernel, dtype=precision)
    return lambda x: ops.conv(x, weights, padding="same")


def both_ways(kernel: np.ndarray, precision: Precision) -> Convolve:
    """The same, with its gradient as a convolution too: that with the reversed kernel.

    A library that arranges each convolution's kernel once would arrange it for the gradient's own
    operation at every use.
    """
    there = ops.convert_to_tensor(kernel, dtype=precision)
    back = ops.convert_to_tensor(kernel[::-1, ::-1].swapaxes(2, 3), dtype=precision)

    @backend.with_gradient
    def convolve(x: Tensor) -> tuple[Tensor, Convolve]:
        def gradient(slope: Tensor) -> Tensor:
            return ops.conv(slope, back, padding="same")

        return ops.conv(x, there, padding="same"), gradient

    return convolve


def outputs_at_once(precision: Precision) -> int:
    """The side of what one convolution computes together; 1 where each output is on its own."""
    return len(POINTS[precision]) - 1 if backend.waits_for_products(precision) else 1


def winograd(kernel: np.ndarray, precision: Precision, points: Sequence[float]) -> Convolve:
    """The same for a 3×3 `kernel`, by products at `points` and at infinity.

    The gradient is the convolution with the reversed kernel, from out to in. Reversing a polynomial
    takes its value at a point to that at the point's inverse, so the same products serve, in
    another order and scaled.
    """
    b, g, a = transforms(points)
    places = {point: place for place, point in enumerate((*points, math.inf))}
    inverse = [places[1 / point if point else math.inf] for point in points] + [places[0]]
    scale = g[inverse].sum(axis=1) / g.sum(axis=1)
    there = _Tiles(b, a, precision)
    back = _Tiles(scale[:, np.newaxis] * b[inverse], a[:, inverse], precision)
    weights = np.tensordot(np.kron(g, g), kernel.reshape(9, *kernel.shape[2:]), 1)
    products = ops.convert_to_tensor(weights, dtype=precision)

    @backend.with_gradient
    def convolve(x: Tensor) -> tuple[Tensor, Convolve]:
        def gradient(slope: Tensor) -> Tensor:
            return back.convolve(slope, ops.transpose(products, (0, 2, 1)))

        return there.convolve(x, products), gradient

    return convolve


def transforms(points: Sequence[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lavin and Gray's Bᵀ (t, t), G (t, 3) and Aᵀ (m, t), for t = m + 2 inputs and m outputs.

    Aᵀ((G·g) ⊙ (Bᵀ·d)) is the correlation of the inputs d with the weights g: values at the points
    and the leading coefficient, multiplied, and put together by Lagrange's polynomials.
    """
    t, m = len(points) + 1, len(points) - 1
    b, g, a = np.zeros((t, t)), np.zeros((t, 3)), np.zeros((m, t))
    for place, point in enumerate(points):
        others = [other for other in points if other != point]
        b[place, :-1] = polynomial.polyfromroots(others)
        g[place] = point ** np.arange(3) / np.prod([point - other for other in others])
        a[:, place] = point ** np.arange(m)
    b[-1] = polynomial.polyfromroots(points)
    g[-1, -1] = a[-1, -1] = 1.0
    return b, g, a


class _Tiles:
    """The way from an image to its products and back, in both directions at once."""

    def __init__(self, b: np.ndarray, a: np.ndarray, precision: Precision) -> None:
        self._inputs, self._outputs = len(b), len(a)
        self._b = ops.convert_to_tensor(np.kron(b, b), dtype=precision)
        self._a = ops.convert_to_tensor(np.kron(a, a), dtype=precision)

    def convolve(self, x: Tensor, products: Tensor) -> Tensor:
        """(1, H, W, in) by the kernel's part (t², in, out) in each product."""
        _, height, width, channels = ops.shape(x)
        t, m = self._inputs, self._outputs
        rows, columns = -(-height // m), -(-width // m)
        below, right = (rows + 1) * m - 1 - height, (columns + 1) * m - 1 - width
        x = ops.pad(x, [(0, 0), (1, below), (1, right), (0, 0)])
        # planes of every m-th pixel; the inputs that tiles share are planes of the next tile
        x = ops.reshape(x, (rows + 1, m, columns + 1, m, channels))
        x = ops.transpose(x, (1, 3, 0, 2, 4))
        x = ops.concatenate([x[:, :, :rows], x[:2, :, 1:]], axis=0)
        x = ops.concatenate([x[:, :, :, :columns], x[:, :2, :, 1:]], axis=1)
        x = ops.matmul(self._b, ops.reshape(x, (t * t, rows * columns * channels)))
        x = ops.matmul(ops.reshape(x, (t * t, rows * columns, channels)), products)
        channels = x.shape[-1]
        x = ops.matmul(self._a, ops.reshape(x, (t * t, rows * columns * channels)))
        x = ops.transpose(ops.reshape(x, (m, m, rows, columns, channels)), (2, 0, 3, 1, 4))
        x = ops.reshape(x, (1, rows * m, columns * m, channels))
        return x[:, :height, :width]
