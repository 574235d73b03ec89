"""The three losses of neural style transfer, on features given as arrays.

Gatys, Ecker and Bethge, "Image Style Transfer Using Convolutional Neural Networks" (CVPR 2016).
Features come as (1, H, W, C); every sum is taken in float32, whatever the features' precision.
Knows nothing of networks, files or optimisers.
"""

from collections.abc import Callable

import keras
from keras import ops

from stylewatch.engine.backend import Tensor, with_gradient

_STRIPS_OF_CHANNELS = 1024
"""Strips of the picture times channels: a Gram matrix for each strip takes memory, and so time."""
_NEARLY_THERE = 0.002
"""Of a layer's distance: below it, what is left is no longer pulled at harder."""


def gram_matrix(features: Tensor) -> Tensor:
    """Correlations of the channels, per location: FᵀF / (H·W), float32 (C, C).

    Eq. 3 of the paper, divided by the number of positions so that it means the same at every
    size. Products of bfloat16 features are summed in float32 over a few strips of the picture:
    a single product would be rounded to bfloat16 as a whole.

    Its gradient is right for losses that treat (i, j) and (j, i) alike, as all here do: then both
    factors of FᵀF have the same gradient, and one product, doubled, gives it.
    """
    _, height, width, channels = ops.shape(features)
    positions = height * width

    @with_gradient
    def gram(features: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        flat = ops.reshape(features, (-1, channels))
        area = ops.cast(positions, "float32")

        def gradient(slope: Tensor) -> Tensor:
            doubled = ops.cast(slope * (2.0 / area), features.dtype)
            return ops.reshape(ops.matmul(flat, doubled), (1, height, width, channels))

        if keras.backend.standardize_dtype(features.dtype) == "float32":
            return ops.matmul(ops.transpose(flat), flat) / area, gradient
        count = max(1, _STRIPS_OF_CHANNELS // channels)
        strips = ops.pad(flat, ((0, -positions % count), (0, 0)))
        strips = ops.reshape(strips, (count, -1, channels))
        products = ops.matmul(ops.transpose(strips, (0, 2, 1)), strips)
        return ops.sum(ops.cast(products, "float32"), axis=0) / area, gradient

    return gram(features)


def energy(tensor: Tensor, axis: int | None = None) -> Tensor:
    """Sum of the squares, in float32: of all, or along one axis."""
    return ops.sum(ops.square(ops.cast(tensor, "float32")), axis=axis)


def content_loss(features: Tensor, target: Tensor, weight: Tensor = 1.0) -> Tensor:
    """Sum of squared differences of two feature maps (eq. 1 of the paper, unscaled).

    `weight` says how much each place counts: (1, H, W, 1), or one number for all.
    """
    difference = ops.cast(features, "float32") - ops.cast(target, "float32")
    return ops.sum(weight * ops.square(difference))


def style_loss(gram: Tensor, target: Tensor) -> Tensor:
    """Sum of squared differences of two Gram matrices (eq. 4 of the paper, unscaled)."""
    return ops.sum(ops.square(gram - target))


def bent(share: Tensor, bend: Tensor) -> Tensor:
    """A loss as what is left of it, 1 at the photo and 0 at the painting, pulled at to the end.

    share + bend·ln(1 + share / 0.002), divided by what that is at 1. Without a bend, 0, a layer
    that is nearly there has next to no say: a dark painting's strokes, whose distance to a light
    photo is nearly all brightness, stayed half done.
    """

    def pulled(share: Tensor) -> Tensor:
        return share + bend * ops.log1p(share / _NEARLY_THERE)

    return pulled(share) / pulled(ops.ones_like(share))


def total_variation_loss(image: Tensor) -> Tensor:
    """Σ (dx² + dy²)^1.25 over pixels and channels; `image` is (1, H, W, 3).

    The power 1.25 is the Keras example's. Zero on a flat picture, and so is its gradient.
    Written for speed: the gradient of an index is six times as slow as a slice's, and a power as
    two roots.
    """
    _, height, width, channels = ops.shape(image)

    def corner(row: int, column: int) -> Tensor:
        return ops.slice(image, (0, row, column, 0), (1, height - 1, width - 1, channels))

    dx, dy = corner(0, 0) - corner(0, 1), corner(0, 0) - corner(1, 0)
    squares = ops.square(dx) + ops.square(dy) + 1e-8
    return ops.sum(squares * ops.sqrt(ops.sqrt(squares)))
