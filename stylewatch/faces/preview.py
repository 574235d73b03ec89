"""Small pictures for the terminal, read as cheaply as can be.

Only for pictures that a worker has opened before. Knows nothing of how they are shown.
"""

from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from stylewatch.faces.view import Pixels

MOST_PIXELS = 60_000_000


def thumbnail(file: Path, width: int, height: int) -> Pixels:
    """The picture in at most that many pixels, upright; an OSError where there is none."""
    with _opened(file) as image:
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


def _opened(file: Path) -> Image.Image:
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        import pillow_heif  # noqa: PLC0415  (a C library, only where HEIC is to be shown)

        pillow_heif.register_heif_opener()
        return Image.open(file)
