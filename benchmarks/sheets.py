"""Pictures side by side, to be looked at."""

from collections.abc import Iterable

import numpy as np
from PIL import Image

from stylewatch.engine.sizes import resize


def in_a_row(pictures: Iterable[np.ndarray], height: int) -> Image.Image:
    """All of them, (H, W, 3) RGB 0…255, at one height."""
    row = [resize(each, round(each.shape[1] * height / each.shape[0]), height) for each in pictures]
    return Image.fromarray(np.clip(np.concatenate(row, axis=1) + 0.5, 0, 255).astype(np.uint8))
