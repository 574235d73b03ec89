"""The three losses of neural style transfer, on features given as arrays.

Gatys, Ecker and Bethge, "Image Style Transfer Using Convolutional Neural Networks" (CVPR 2016).
Features come as (1, H, W, C); every sum is taken in float32, whatever the features' precision.
Knows nothing of networks, files or optimisers.
"""

from typing import Any

from keras import ops

Tensor = Any

_CHUNKS = 16


def gram_matrix(features: Tensor) -> Tensor:
    """Correlations of the channels, per location: FᵀF / (H·W), float32 (C, C).

    Eq. 3 of the paper, divided by the number of positions so that it means the same at every
    size. Products of bfloat16 features are summed in float32 over a few strips of the picture:
    a single product would be rounded to bfloat16 as a whole.

    Its gradient is right for losses that treat (i, j) and (j, i) alike, as all here do: then both
    factors of FᵀF have the same gradient, and one product instead of two gives it.
    """
    _, height, width, channels = ops.shape(features)
    flat = ops.reshape(features, (-1, channels))
    if features.dtype == "float32":
        total = ops.matmul(ops.transpose(ops.stop_gradient(flat)), flat)
    else:
        positions = height * width
        padding = -positions % _CHUNKS
        strips = ops.reshape(ops.pad(flat, ((0, padding), (0, 0))), (_CHUNKS, -1, channels))
        products = ops.matmul(ops.transpose(ops.stop_gradient(strips), (0, 2, 1)), strips)
        total = ops.sum(ops.cast(products, "float32"), axis=0)
    total = 2.0 * total - ops.stop_gradient(total)  # the value once, the gradient twice
    return total / ops.cast(height * width, "float32")


def mean_square(tensor: Tensor) -> Tensor:
    """Mean of the squares, in float32."""
    return ops.mean(ops.square(ops.cast(tensor, "float32")))


def content_loss(features: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of two feature maps (eq. 1 of the paper, as a mean)."""
    return mean_square(ops.cast(features, "float32") - ops.cast(target, "float32"))


def style_loss(gram: Tensor, target: Tensor) -> Tensor:
    """Sum of squared differences of two Gram matrices (eq. 4 of the paper, unscaled)."""
    return ops.sum(ops.square(gram - target))


def total_variation_loss(image: Tensor) -> Tensor:
    """Σ (dx² + dy²)^1.25 over pixels and channels; `image` is (1, H, W, 3).

    The power 1.25 is the Keras example's. Zero on a flat picture, and so is its gradient.
    """
    dx = image[:, :-1, :-1] - image[:, :-1, 1:]
    dy = image[:, :-1, :-1] - image[:, 1:, :-1]
    return ops.sum(ops.power(ops.square(dx) + ops.square(dy) + 1e-8, 1.25))
