"""Pictures read from files, and side by side, to be looked at."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from stylewatch.engine.sizes import resize


def read(file: Path, side: int = 0) -> np.ndarray:
    """(H, W, 3) RGB 0…255; enlarged or shrunk, if need be, to a longer side."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    if side:
        scale = side / max(image.size)
        width, height = (round(length * scale) for length in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image, np.float32)


def in_a_row(pictures: Iterable[np.ndarray], height: int, gap: int = 0) -> Image.Image:
    """All of them, (H, W, 3) RGB 0…255, at one height, with so many white pixels between."""
    white = np.full((height, gap, 3), 255, np.float32)
    row: list[np.ndarray] = []
    for each in pictures:
        row += [resize(each, round(each.shape[1] * height / each.shape[0]), height), white]
    together = np.concatenate(row[:-1], axis=1)
    return Image.fromarray(np.clip(together + 0.5, 0, 255).astype(np.uint8))
