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
from stylewatch.engine.images import (
    GROUPS,
    Format,
    Picture,
    keep_letters,
    open_image,
    register_heif,
)

EXTENSIONS: dict[Format, str] = {
    "jpeg": ".jpg", "png": ".png", "webp": ".webp", "tiff": ".tif", "heic": ".heic",
}  # fmt: skip
_NOT_CARRIED = frozenset({
    # How the photo's own file lays out its pixels; a TIFF has that and its EXIF in one table.
    254, 255, 256, 257, 258, 259, 262, 266,  # kind, size, bits, compression, meaning
    273, 277, 278, 279, 284, 322, 323, 324, 325,  # strips, planes and tiles
    280, 281, 290, 291, 301, 318, 319, 320, 336, 340, 341, 342,  # ranges, curves, palettes
    292, 293, 317, 338, 339, 347,  # what its compression needs; other samples
    297, 330,  # other pages
    332, 333, 334, 337,  # inks
    512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532,  # JPEG within, YCbCr
    50706, 50707,  # DNG's versions, by which a file is told to be RAW
    33550, 33922, 34264, 34735, 34736, 34737, 42112,  # where its pixels lie on a map: GeoTIFF, GDAL
    # Whole blocks in other notations: XMP (but for its captions), IPTC, Photoshop's, the profile.
    # They are large, tell of the photo's own pixels, and may know the place once more.
    700, 33723, 34377, 34675, 37724,
    # What is one file's alone: the maker's own note, by which a phone ties a photo to its film, and
    # whose offsets point nowhere from another place; DNG's; and an id that no two images share.
    37500, 50740, 42016,
})  # fmt: skip
_UNDEFINED = frozenset({
    ExifTags.Base.OECF, ExifTags.Base.ComponentsConfiguration, ExifTags.Base.UserComment,
    ExifTags.Base.SpatialFrequencyResponse, ExifTags.Base.FileSource, ExifTags.Base.SceneType,
    ExifTags.Base.DeviceSettingDescription,
})  # fmt: skip
"""Bytes of any meaning, which Pillow would write as plain numbers: that is how they'd be shown."""


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
    dropped = _NOT_CARRIED if keep_gps else _NOT_CARRIED | {ExifTags.IFD.GPSInfo}

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
        inner.pop(ExifTags.IFD.Interop, None)  # where cameras tell of Adobe RGB
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
    for tag in exif:
        if tag in dropped or not _is_sound(exif, tag):
            del exif[tag]
    for group in exif.keys() & GROUPS:
        entries = exif.get_ifd(group)
        for tag, value in [*entries.items()]:
            if tag in dropped or not _can_be_written({group: {tag: value}}):
                del entries[tag]
            elif tag == ExifTags.IFD.Interop:  # a table within one: now its place is another
                entries[tag] = exif.get_ifd(tag)
            elif tag in _UNDEFINED and isinstance(value, bytes):
                entries[tag] = (bytearray(value),)  # of no type that Pillow knows
    return keep_letters(exif)


def _is_sound(exif: Image.Exif, tag: int) -> bool:
    """Whether an entry can be read, and written if it is no group of others."""
    try:
        if tag in GROUPS:
            exif.get_ifd(tag)
            return True
        return _can_be_written({tag: exif[tag]})
    except Exception:  # noqa: BLE001  (whatever strange bytes make Pillow raise)
        return False


def _can_be_written(entries: Mapping[int, Any]) -> bool:
    exif = Image.Exif()
    exif.update(entries)
    try:
        exif.tobytes()
    except Exception:  # noqa: BLE001  (the same)
        return False
    return True


def read_facts(data: bytes) -> dict[str, str]:
    """What `write_picture` embedded; {} for any other file."""
    try:
        exif = Image.Image.getexif(open_image(io.BytesIO(data)))
        facts = json.loads(exif.get(ExifTags.Base.ImageHistory, "{}"))
    except Exception:  # noqa: BLE001  (whatever a strange file makes a decoder do)
        return {}
    return {str(k): str(v) for k, v in facts.items()} if isinstance(facts, dict) else {}
