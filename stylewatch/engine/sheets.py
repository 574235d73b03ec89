"""Pictures with their names on one sheet. Arrays in, arrays out."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stylewatch.engine.sizes import fit_size, resize

_LETTERS = 16
_LINE = 24
_LEFT = 6


def sheet_of(pictures: Sequence[tuple[str, np.ndarray]], side: int) -> np.ndarray:
    """All pictures, (H, W, 3) RGB 0…255, in rows, each with its name below it.

    None is larger than `side`. The sheet is about as high as it is wide, or less.
    """
    cells = [
        (name, resize(rgb, *fit_size(rgb.shape[1], rgb.shape[0], side))) for name, rgb in pictures
    ]
    height, width = (max(rgb.shape[axis] for _, rgb in cells) for axis in (0, 1))
    columns = min(len(cells), math.ceil(math.sqrt(len(cells) * (height + _LINE) / width)))
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * width, rows * (height + _LINE)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_LETTERS)
    for number, (name, rgb) in enumerate(cells):
        left, top = number % columns * width, number // columns * (height + _LINE)
        sheet.paste(Image.fromarray(np.clip(np.rint(rgb), 0, 255).astype(np.uint8)), (left, top))
        draw.text((left + _LEFT, top + height + 2), name, fill="black", font=font)
    return np.asarray(sheet, np.float32)
