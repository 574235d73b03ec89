"""A convolution in the way that is fastest on this machine.

Where a processor waits for multiplications, 3×3 kernels are applied by Winograd's algorithm as
Lavin and Gray have it (arXiv:1509.09308): m×m outputs come from (m + 2)² products per pair of
channels instead of 9·m². Knows nothing of networks.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from keras import ops
from numpy.polynomial import polynomial

from stylewatch.engine import backend
from stylewatch.engine.backend import Precision, Tensor

Convolve = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Winograd:
    """One of the algorithms, and where it pays."""

    points: tuple[float, ...]
    """Where its polynomials are evaluated, besides at infinity: m + 1 points for m×m outputs.

    4×4 outputs save three quarters of the multiplications, 2×2 save five ninths. What is rounded
    grows with the points' powers: 2×2 cost less than a bit, 4×4 at these points two.
    """
    worthwhile: float
    """Multiplications for each value moved, in·out / (in + out) channels, from which fewer of them
    pay for the sums that it takes."""

    @property
    def outputs(self) -> int:
        """The side m of what is computed together."""
        return len(self.points) - 1


_FOUR = (0, 0.75, -0.75, 1.5, -1.5)
VALUES = {"float32": Winograd(_FOUR, 40), "bfloat16": Winograd((0, 1, -1), 80)}
GRADIENTS = {"float32": Winograd(_FOUR, 40), "bfloat16": Winograd(_FOUR, 60)}
"""By precision. In bfloat16 a gradient is off by what the features have lost on their way, 0.093 of
itself: 4×4 outputs add nothing to that in the gradient, but in the features they would make it
0.102."""


def convolution(kernel: np.ndarray, precision: Precision) -> Convolve:
    """A function from (1, H, W, in) to (1, H, W, out), `kernel` (kh, kw, in, out), zeros around.

    It is differentiable by the image; the kernel counts as a constant.
    """
    if not backend.is_tensorflow_on_cpu():
        return _plain(kernel, precision)
    # TensorFlow's own gradient would arrange the kernel anew at every use
    there = _fastest(kernel, precision, VALUES[precision])
    back = _fastest(kernel[::-1, ::-1].swapaxes(2, 3), precision, GRADIENTS[precision])
    return backend.with_gradient(lambda x: (there(x), back))


def outputs_at_once(precision: Precision) -> int:
    """The side of what one convolution computes together; 1 where each output is on its own."""
    used = VALUES[precision], GRADIENTS[precision]
    return max(each.outputs for each in used) if backend.waits_for_products(precision) else 1


def _fastest(kernel: np.ndarray, precision: Precision, algorithm: Winograd) -> Convolve:
    wide = math.prod(kernel.shape[2:]) / sum(kernel.shape[2:]) >= algorithm.worthwhile
    if kernel.shape[:2] == (3, 3) and wide and backend.waits_for_products(precision):
        return fewer_products(kernel, precision, algorithm)
    return _plain(kernel, precision)


def _plain(kernel: np.ndarray, precision: Precision) -> Convolve:
    weights = ops.convert_to_tensor(kernel, dtype=precision)
    return lambda x: ops.conv(x, weights, padding="same")


def fewer_products(kernel: np.ndarray, precision: Precision, algorithm: Winograd) -> Convolve:
    """The same for a 3×3 `kernel`, with fewer products; not differentiable."""
    b, g, a = transforms(algorithm.points)
    t, m = len(b), len(a)
    parts = np.tensordot(np.kron(g, g), kernel.reshape(9, *kernel.shape[2:]), 1)
    weights, before, after = (
        ops.convert_to_tensor(each, dtype=precision)
        for each in (parts, np.kron(b, b), np.kron(a, a))
    )

    def convolve(x: Tensor) -> Tensor:
        _, height, width, channels = ops.shape(x)
        rows, columns = -(-height // m), -(-width // m)
        below, right = (rows + 1) * m - 1 - height, (columns + 1) * m - 1 - width
        x = ops.pad(x, [(0, 0), (1, below), (1, right), (0, 0)])
        # planes of every m-th pixel; the inputs that tiles share are planes of the next tile
        x = ops.reshape(x, (rows + 1, m, columns + 1, m, channels))
        x = ops.transpose(x, (1, 3, 0, 2, 4))
        x = ops.concatenate([x[:, :, :rows], x[:2, :, 1:]], axis=0)
        x = ops.concatenate([x[:, :, :, :columns], x[:, :2, :, 1:]], axis=1)
        x = ops.matmul(before, ops.reshape(x, (t * t, rows * columns * channels)))
        x = ops.matmul(ops.reshape(x, (t * t, rows * columns, channels)), weights)
        channels = x.shape[-1]
        x = ops.matmul(after, ops.reshape(x, (t * t, rows * columns * channels)))
        x = ops.transpose(ops.reshape(x, (m, m, rows, columns, channels)), (2, 0, 3, 1, 4))
        x = ops.reshape(x, (1, rows * m, columns * m, channels))
        return x[:, :height, :width]

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
