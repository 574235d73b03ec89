"""Pictures with their names on one sheet. Arrays in, arrays out."""

import math
import unicodedata
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stylewatch.engine.sizes import fit_size, resize

_LETTERS = 16
_LINE = 24
_LEFT = 6

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def sheet_of(pictures: Sequence[tuple[str, np.ndarray]], side: int) -> tuple[np.ndarray, list[str]]:
    """All pictures, (H, W, 3) RGB 0…255, in rows, and what is written below each of them.

    That is its name; where one of the names has no room, or letters that can't be drawn, each has
    its number, and as much of its name as can be written. No picture is larger than `side`. The
    sheet is about as high as it is wide, or less.
    """
    cells = [resize(rgb, *fit_size(rgb.shape[1], rgb.shape[0], side)) for _, rgb in pictures]
    height, width = (max(rgb.shape[axis] for rgb in cells) for axis in (0, 1))
    font = ImageFont.load_default(_LETTERS)
    labels = [name for name, _ in pictures]
    if any(_cut(name, width - 2 * _LEFT, font) != name for name in labels):
        numbers = [str(number) for number in range(1, len(labels) + 1)]
        width = max(width, math.ceil(max(map(font.getlength, numbers))) + 2 * _LEFT)
        labels = [
            _numbered(each, name, width - 2 * _LEFT, font)
            for each, name in zip(numbers, labels, strict=True)
        ]
    columns = min(len(cells), math.ceil(math.sqrt(len(cells) * (height + _LINE) / width)))
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * width, rows * (height + _LINE)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (label, rgb) in enumerate(zip(labels, cells, strict=True)):
        left, top = place % columns * width, place // columns * (height + _LINE)
        sheet.paste(Image.fromarray(np.clip(np.rint(rgb), 0, 255).astype(np.uint8)), (left, top))
        draw.text((left + _LEFT, top + height + 2), label, fill="black", font=font)
    return np.asarray(sheet, np.float32), labels


def _numbered(number: str, name: str, room: float, font: _Font) -> str:
    """The number, whole, and as much of the name as there is room for behind it."""
    return f"{number} {_cut(name, room - font.getlength(f'{number} '), font)}".rstrip()


def _cut(name: str, room: float, font: _Font) -> str:
    """As much of the name as can be written in so many pixels: the font has Latin letters alone."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    if font.getlength(plain) <= room:
        return plain
    parts = (f"{plain[:length]}…" for length in range(len(plain) - 1, 0, -1))
    return next((part for part in parts if font.getlength(part) <= room), "")
