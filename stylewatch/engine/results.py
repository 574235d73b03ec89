"""Results as bytes: what was painted, with all that its photo carried and how it was made.

Arrays in, bytes out: knows nothing of files, jobs or styles.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin

from stylewatch.engine import profiles
from stylewatch.engine.exif import NOT_CARRIED, carried
from stylewatch.engine.images import Format, Picture, open_image, register_heif

EXTENSIONS: dict[Format, str] = {
    "jpeg": ".jpg", "png": ".png", "webp": ".webp", "tiff": ".tif", "heic": ".heic",
}  # fmt: skip
_ONE_PIECE, _TILE = 4096, 512
"""Sides of a HEIC that every decoder takes as one piece; of the tiles that cameras make of more."""


def write_picture(
    picture: Picture,
    *,
    format: Format,  # noqa: A002
    quality: int,
    keep_gps: bool,
    facts: Mapping[str, str],
) -> bytes:
    """Encode a result with the photo's EXIF and captions, `facts`, and sRGB if it had a profile.

    JPEG is written without chroma subsampling: strokes are made of colour edges. HEIC is written
    with it, as few phones and programs show it otherwise. A transparent photo becomes white there
    in JPEG, which has no alpha.
    """
    image = _image_of(picture, keep_alpha=format != "jpeg")
    options = _options(picture, format, quality)
    dropped = NOT_CARRIED if keep_gps else NOT_CARRIED | {ExifTags.IFD.GPSInfo}

    def encoded(original: bytes | None) -> bytes:
        exif = _exif(original, picture, dropped, facts)
        if picture.captions and format == "tiff":  # one table for all
            exif[ExifTags.Base.XMLPacket] = picture.captions
        # for TIFF as it is: of bytes, Pillow would read the texts once more
        given = exif if format == "tiff" else exif.tobytes()
        return _saved(image, format, {**options, "exif": given})

    try:
        return encoded(picture.exif)
    except MemoryError:
        raise
    except Exception:  # more than JPEG can hold, or strangely broken
        if not picture.exif:
            raise
        return encoded(None)


def _saved(image: Image.Image, form: Format, options: Mapping[str, Any]) -> bytes:
    """The image's bytes; not optimised, if Pillow has too little room for so much grain."""
    stream = io.BytesIO()
    try:
        image.save(stream, "HEIF" if form == "heic" else form, **options)
    except OSError:
        if not options.get("optimize"):
            raise
        return _saved(image, form, {**options, "optimize": False})
    return stream.getvalue()


def _image_of(picture: Picture, *, keep_alpha: bool) -> Image.Image:
    image = _in_bytes(picture.rgb)
    if picture.alpha is None:
        return image
    alpha = _in_bytes(picture.alpha)
    if keep_alpha:
        image.putalpha(alpha)
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return white


def _in_bytes(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _options(picture: Picture, form: Format, quality: int) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if picture.icc:
        options["icc_profile"] = profiles.srgb()
    if picture.dpi and form in {"jpeg", "png", "tiff"}:
        options["dpi"] = picture.dpi
    if picture.captions and form == "png":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", picture.captions.decode())
    elif picture.captions:
        options["xmp"] = picture.captions
    match form:
        case "jpeg":
            options |= {"quality": quality, "subsampling": 0, "optimize": True}
        case "webp":
            options |= {"quality": quality, "method": 4}
        case "heic":
            register_heif()
            options["quality"] = quality
            if max(picture.rgb.shape) > _ONE_PIECE:
                options["tile_size"] = _TILE
    return options


def _exif(
    original: bytes | None, picture: Picture, dropped: frozenset[int], facts: Mapping[str, str]
) -> Image.Exif:
    exif = _carried(original, dropped)
    exif[ExifTags.Base.Orientation] = 1
    exif[ExifTags.Base.Software] = "stylewatch"
    exif[ExifTags.Base.ImageHistory] = json.dumps(dict(facts), ensure_ascii=True)
    inner = exif.get_ifd(ExifTags.IFD.Exif) if ExifTags.IFD.Exif in exif else {}
    if ExifTags.Base.ExifImageWidth in inner:
        height, width, _ = picture.rgb.shape
        inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight] = width, height
    if picture.icc:
        for tag in (ExifTags.IFD.Interop, ExifTags.Base.Gamma):  # where cameras tell of Adobe RGB
            inner.pop(tag, None)
        if ExifTags.Base.ColorSpace in inner:
            inner[ExifTags.Base.ColorSpace] = 1
    return exif


def _carried(original: bytes | None, dropped: frozenset[int]) -> Image.Exif:
    """What of a photo's EXIF goes into its result: what is not broken, without what is dropped."""
    exif = Image.Exif()
    try:
        exif.load(original or b"")
    except Exception:  # noqa: BLE001  (damaged EXIF is no damaged photo)
        return Image.Exif()
    return carried(exif, dropped)


def read_facts(data: bytes) -> dict[str, str]:
    """What `write_picture` embedded; {} for any other file."""
    try:
        exif = Image.Image.getexif(open_image(io.BytesIO(data)))
        facts = json.loads(exif.get(ExifTags.Base.ImageHistory, "{}"))
    except Exception:  # noqa: BLE001  (whatever a strange file makes a decoder do)
        return {}
    return {str(k): str(v) for k, v in facts.items()} if isinstance(facts, dict) else {}
