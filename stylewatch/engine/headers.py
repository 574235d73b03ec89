"""What rules ask about a photo, from its headers alone: its size when upright, and its camera.

Pixels are not decoded, however many there are.
"""

import io
from typing import BinaryIO

from PIL import ExifTags, Image, TiffImagePlugin

from stylewatch.domain import PhotoFacts
from stylewatch.engine.chunks import chunks_of
from stylewatch.engine.glance import Glanced
from stylewatch.engine.images import open_image


def probe(stream: BinaryIO) -> PhotoFacts:
    """What rules ask about a photo, from its headers, which may lie at the end of its file.

    Raises:
        InputError: not an image, or its header is damaged.
        OSError: the disk gave no answer, which says nothing about the photo.
    """
    file = Glanced(stream)
    try:
        return _facts(io.BufferedReader(file))
    finally:
        if file.error:
            raise file.error


def _facts(stream: BinaryIO) -> PhotoFacts:
    image = open_image(stream)
    width, height = image.size
    try:
        exif = _exif_without_pixels(image, stream)
        turned = exif.get(ExifTags.Base.Orientation) in {5, 6, 7, 8}
        make, model = (
            str(exif.get(tag, "")).strip("\0 ") for tag in (ExifTags.Base.Make, ExifTags.Base.Model)
        )
    except Exception:  # noqa: BLE001  (damaged EXIF is no damaged photo)
        turned, make, model = False, "", ""
    if turned and not _is_sized_upright(image):
        width, height = height, width
    camera = model if model.startswith(make) else f"{make} {model}".strip()
    return PhotoFacts(width, height, camera)


def _is_sized_upright(image: Image.Image) -> bool:
    """Whether Pillow gives the size as it is seen: of a TIFF, where no XMP has to tell of it."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return ExifTags.Base.Orientation in image.tag_v2
    return image.format == "HEIF"


def _exif_without_pixels(image: Image.Image, stream: BinaryIO) -> Image.Exif:
    """A PNG's may lie behind its pixels: Pillow would decode them, however many there are."""
    if image.format == "PNG":
        chunks = chunks_of(stream)
        image.info["exif"] = next(
            (stream.read(length) for name, _, length in chunks if name == b"eXIf"), None
        )
    return Image.Image.getexif(image)
