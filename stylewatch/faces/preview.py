"""Small pictures for the terminal, read as cheaply as can be.

Of files that a worker has opened before, or of others that have their names by now. Knows nothing
of how they are shown.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from stylewatch.faces.view import Pixels

MOST_PIXELS = 60_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
"""Of Pillow's decoders those that workers use: others may start programs, as Ghostscript."""


def thumbnail(file: Path, width: int, height: int) -> Pixels:
    """The picture in at most that many pixels, upright; an OSError where there is none."""
    with open(file, "rb", opener=_opener) as stream, _opened(stream) as image:
        if image.width * image.height > MOST_PIXELS:
            raise OSError("too large for a preview")
        image.draft("RGB", (width * 2, height * 2))  # of JPEG and HEIC less is decoded then
        small = ImageOps.exif_transpose(image).convert("RGB")
        small.thumbnail((width, height), Image.Resampling.BOX)
    data = small.tobytes()
    rows = range(0, len(data), small.width * 3)
    return [
        [(data[at], data[at + 1], data[at + 2]) for at in range(row, row + small.width * 3, 3)]
        for row in rows
    ]


def _opener(name: str, flags: int) -> int:
    """A regular file's descriptor: no link is followed, and no pipe waited for."""
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return descriptor


def _opened(stream: BinaryIO) -> Image.Image:
    try:
        return Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError:
        import pillow_heif  # noqa: PLC0415  (a C library, only where HEIC is to be shown)

        pillow_heif.register_heif_opener()
        return Image.open(stream, formats=("HEIF",))
