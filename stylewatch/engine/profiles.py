"""Colour profiles that no photo brings along: the results' sRGB, and cameras' Adobe RGB."""

import struct
from functools import cache

from PIL import ExifTags, Image, ImageCms

_SRGB, _ADOBE_RGB = 1, 2  # as ColorSpace in EXIF; the latter is no standard, but cameras write it
_OPTION = "R03"  # DCF 2.0: the file's colours are those of its "optional colour space", Adobe RGB
_INDEX = 1  # where EXIF's table of interoperability says so
_D50 = (0.9642, 1.0, 0.8249)
_PRIMARIES = {
    b"rXYZ": (0.60974, 0.31111, 0.01947),
    b"gXYZ": (0.20528, 0.62567, 0.06087),
    b"bXYZ": (0.14919, 0.06322, 0.74457),
}
"""Adobe RGB (1998) Color Image Encoding, version 2005-05: XYZ as seen in D50."""
_GAMMA = 563 / 256


@cache
def srgb() -> bytes:
    """An sRGB profile with a fixed date, as with its own the same result would vary in bytes."""
    made = bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    return made[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + made[36:]


def of_camera(image: Image.Image) -> bytes | None:
    """The profile of a photo whose camera only says by EXIF that its colours are Adobe RGB."""
    try:
        exif = image.getexif()
        space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        option = exif.get_ifd(ExifTags.IFD.Interop).get(_INDEX)
    except Exception:  # noqa: BLE001  (damaged EXIF is no damaged photo)
        return None
    is_adobe = space == _ADOBE_RGB or (option == _OPTION and space != _SRGB)
    return adobe_rgb() if is_adobe else None


@cache
def adobe_rgb() -> bytes:
    """The least that makes a profile of Adobe RGB (ICC.1:2001-04): primaries and gamma."""
    tags = {name: b"XYZ \0\0\0\0" + _numbers(xyz) for name, xyz in _PRIMARIES.items()}
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + _numbers(_D50)
    curve = b"curv\0\0\0\0" + struct.pack(">IH2x", 1, round(_GAMMA * 256))
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    place = 128 + 4 + 12 * len(tags)
    table = struct.pack(">I", len(tags))
    for name, data in tags.items():
        table += struct.pack(">4sII", name, place, len(data))
        place += len(data)
    head = struct.pack(
        ">I4xI4s4s4s6H4s28x", place, 0x02400000, b"mntr", b"RGB ", b"XYZ ",
        *(2000, 1, 1, 0, 0, 0), b"acsp",
    )  # fmt: skip
    head += _numbers(_D50)
    return head.ljust(128, b"\0") + table + b"".join(tags.values())


def _numbers(values: tuple[float, ...]) -> bytes:
    """As s15Fixed16."""
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)
