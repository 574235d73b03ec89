"""Pictures at other sizes. Arrays in, arrays out."""

import numpy as np
from PIL import Image


def fit_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    """The size with the same shape whose longer side is `max_side`; never larger, at least 1."""
    longer = max(width, height)
    if longer <= max_side:
        return width, height
    return max(1, round(width * max_side / longer)), max(1, round(height * max_side / longer))


def resize(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """(H, W, C) float32 at another size: Lanczos down, bicubic up."""
    if rgb.shape[1] == width and rgb.shape[0] == height:
        return rgb
    smaller = width <= rgb.shape[1] and height <= rgb.shape[0]
    method = Image.Resampling.LANCZOS if smaller else Image.Resampling.BICUBIC
    channels = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(rgb[..., c], np.float32)).resize(
                (width, height), method
            )
        )
        for c in range(rgb.shape[2])
    ]
    return np.stack(channels, axis=-1)


def resize_alpha(alpha: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """Alpha (H, W) at the size of a result's (H, W, 3)."""
    if alpha is None:
        return None
    return np.asarray(np.clip(resize(alpha[..., np.newaxis], shape[1], shape[0])[..., 0], 0, 255))
