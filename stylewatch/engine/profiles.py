"""What a photo's colours mean: the profile that it brings along, or one that is made for it.

Made are those that are only told of: by code points (ITU-T H.273) in PNG, HEIC and AVIF, by PNG's
gAMA and cHRM, and by cameras in EXIF. The results' own is sRGB.
"""

import io
import struct
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

from stylewatch.engine import hdr
from stylewatch.engine.chunks import chunks_of

_IS_SRGB, _IS_ADOBE_RGB = 1, 2  # EXIF's ColorSpace; the latter is no standard, but cameras write it
_OPTION = "R03"  # DCF 2.0: the file's colours are those of its "optional colour space", Adobe RGB
_INDEX = 1  # where EXIF's table of interoperability says so
_UNSPECIFIED = (2, 2)  # code points that say nothing

_D65 = (0.3127, 0.329)
_SRGB = (*_D65, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_ADOBE_RGB = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_BT2020 = (*_D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046)
_DISPLAY_P3 = (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
"""Chromaticities as in cHRM: x and y of white, red, green and blue."""
_NEAR = 0.01  # what differs by no more, such as the primaries of old television, is sRGB's
_NEAR_GAMMA = 0.05  # of 1/2.2, by which programs write sRGB

_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
_STEPS = np.linspace(0, 1, 1024)

_Curve = Callable[[np.ndarray], np.ndarray]
"""From a photo's numbers to light, both 0…1."""


@cache
def srgb() -> bytes:
    """An sRGB profile with a fixed date, as with its own the same result would vary in bytes."""
    made = bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    return made[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + made[36:]


def of_photo(image: Image.Image, data: bytes) -> bytes | None:
    """The profile of a photo's colours; None where they are sRGB, or nothing tells what they are.

    Where several things tell, PNG's and HEIF's standards say which counts. EXIF comes last, as
    programs carry it along unread.
    """
    if image.format == "PNG" and (points := _cicp(data)):
        return _of_points(points)
    embedded: Any = image.info.get("icc_profile")
    if _is_sound(embedded):
        return bytes(embedded)
    if "srgb" in image.info:
        return None
    if (points := _nclx(image, data)) and points != _UNSPECIFIED:
        return _of_points(points)
    return _of_chunks(image.info) or _of_camera(image)


def _is_sound(profile: Any) -> bool:
    try:
        ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except (OSError, TypeError):
        return False
    return True


def _cicp(data: bytes) -> tuple[int, int] | None:
    """A PNG's code points: which primaries it has, and which transfer."""
    for name, place, length in chunks_of(io.BytesIO(data)):
        if name == b"IDAT":
            break
        if name == b"cICP" and length >= 2:
            return data[place], data[place + 1]
    return None


def _nclx(image: Image.Image, data: bytes) -> tuple[int, int] | None:
    """The same of a HEIC, or of an AVIF, where Pillow keeps them to itself."""
    if image.format not in {"HEIF", "AVIF"}:
        return None
    try:
        info = image.info if image.format == "HEIF" else told_by_avif(data)
        told = info["nclx_profile"]
        return int(told["color_primaries"]), int(told["transfer_characteristics"])
    except Exception:  # noqa: BLE001  (nothing is told, or something damaged)
        return None


def told_by_avif(data: bytes) -> Mapping[Any, Any]:
    """What an AVIF carries, as it lies there; nothing if that can't be read."""
    import pillow_heif  # noqa: PLC0415  (loads a C library that most photos do not need)

    try:
        told: Mapping[Any, Any] = pillow_heif.open_heif(data).info
    except Exception:  # noqa: BLE001  (damaged, or of a kind that Pillow alone reads)
        return {}
    return told


def _of_points(points: tuple[int, int]) -> bytes | None:
    primaries, transfer = points
    return _made(_PRIMARIES.get(primaries, _SRGB), _TRANSFERS.get(transfer, _from_srgb))


def _of_chunks(info: Mapping[str | tuple[int, int], Any]) -> bytes | None:
    """The profile of a PNG with gAMA or cHRM."""
    gamma = info.get("gamma") or 1 / 2.2
    curve = _from_srgb if abs(gamma * 2.2 - 1) < _NEAR_GAMMA else _power(1 / gamma)
    try:
        return _made(info.get("chromaticity") or _SRGB, curve)
    except (ArithmeticError, ValueError, struct.error):  # no colours at all
        return None


def _of_camera(image: Image.Image) -> bytes | None:
    """The profile of a photo whose camera only says by EXIF that its colours are Adobe RGB."""
    try:
        exif = image.getexif()
        space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        option = exif.get_ifd(ExifTags.IFD.Interop).get(_INDEX)
    except Exception:  # noqa: BLE001  (damaged EXIF is no damaged photo)
        return None
    is_adobe = space == _IS_ADOBE_RGB or (option == _OPTION and space != _IS_SRGB)
    return _made(_ADOBE_RGB, _power(563 / 256)) if is_adobe else None


def _made(chromaticities: tuple[float, ...], curve: _Curve) -> bytes | None:
    """The least that makes a profile (ICC.1:2001-04): primaries and a curve. None for sRGB."""
    if curve is _from_srgb and np.allclose(chromaticities, _SRGB, rtol=0, atol=_NEAR):
        return None
    light = np.rint(np.clip(curve(_STEPS), 0, 1) * 65535).astype(">u2")
    trc = struct.pack(">4s4xI", b"curv", len(light)) + light.tobytes()
    tags = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), trc)
    for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), _colorants(chromaticities), strict=True):
        tags[name] = b"XYZ \0\0\0\0" + _numbers(xyz)
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + _numbers(_D50)
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


def _numbers(values: Iterable[float]) -> bytes:
    """As s15Fixed16."""
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _colorants(chromaticities: tuple[float, ...]) -> np.ndarray:
    """XYZ of red, green and blue, a row each, as seen in D50: by Bradford, as ICC has it."""
    with np.errstate(divide="raise", invalid="raise"):
        x, y = np.reshape(chromaticities, (4, 2)).T
        white, *colours = np.stack([x / y, np.ones(4), (1 - x - y) / y], axis=1)
        shares = np.linalg.solve(np.transpose(colours), white)
        cones = np.array(_BRADFORD)
        adapted = np.linalg.solve(cones, (cones @ _D50 / (cones @ white))[:, np.newaxis] * cones)
    return np.asarray((shares[:, np.newaxis] * colours) @ adapted.T)


def _from_srgb(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _power(gamma: float) -> _Curve:
    return lambda values: values**gamma


_PRIMARIES = {9: _BT2020, 12: _DISPLAY_P3}
_TRANSFERS: dict[int, _Curve] = {8: _power(1.0), 16: hdr.pq, 18: hdr.hlg}
"""Code points that are not shown as sRGB is: those of television are, as in browsers."""
