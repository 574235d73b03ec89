"""A photo's EXIF: what of it goes into its result, in the bytes that it has there.

Works around what Pillow would make of it: text in ASCII, and nothing at all where one entry is
odd.
"""

from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, Image

GROUPS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
"""The entries of EXIF that are tables of their own."""
NOT_CARRIED = frozenset({
    # How the photo's own file lays out its pixels; a TIFF has that and its EXIF in one table.
    254, 255, 256, 257, 258, 259, 262, 266,  # kind, size, bits, compression, meaning
    273, 277, 278, 279, 284, 322, 323, 324, 325,  # strips, planes and tiles
    280, 281, 290, 291, 301, 318, 319, 320, 336, 340, 341, 342,  # ranges, curves, palettes
    292, 293, 317, 338, 339, 347,  # what its compression needs; other samples
    297, 330,  # other pages
    332, 333, 334, 337,  # inks
    512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532,  # JPEG within, YCbCr
    32995, 32996, 32997, 32998,  # SGI's: what its alpha means, types, depths
    50706, 50707,  # DNG's versions, by which a file is told to be RAW
    33550, 33922, 34264, 34735, 34736, 34737, 42112,  # where its pixels lie on a map: GeoTIFF, GDAL
    # What counts in its pixels, and before it is turned.
    37396, 41492, 41486, 41487, 41488,  # where the subject is; how dense they lie on the sensor
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
    ExifTags.Base.DeviceSettingDescription, ExifTags.Base.CompositeImageExposureTimes,
})  # fmt: skip
"""Bytes of any meaning, which Pillow would write as plain numbers: that is how they'd be shown."""
_INTEROP = (1, 2)
"""Of this table within one: its name and its version; the others tell of the photo's own file."""


class _AsItLies(str):
    """Text of EXIF: Pillow reads its bytes as Latin-1, whatever they are, and would write ASCII."""

    __slots__ = ()

    def encode(self, encoding: str = "latin-1", errors: str = "strict") -> bytes:  # noqa: ARG002
        """The bytes that were read."""
        return super().encode("latin-1")


def carried(exif: Image.Exif, dropped: frozenset[int] = NOT_CARRIED) -> Image.Exif:
    """The same EXIF without what is broken or dropped, so that all that is left can be written."""
    for tag in exif:
        if tag in dropped or not _is_sound(exif, tag):
            del exif[tag]
    for group in exif.keys() & GROUPS:
        entries = exif.get_ifd(group)
        for tag, found in [*entries.items()]:
            value = _interop(exif) if tag == ExifTags.IFD.Interop else found
            if tag in dropped or value == {} or not _can_be_written({group: {tag: value}}):
                del entries[tag]
            elif tag in _UNDEFINED and isinstance(value, bytes):
                entries[tag] = (bytearray(value),)  # of no type that Pillow knows
            else:
                entries[tag] = value
    return _keep_letters(exif)


def _interop(exif: Image.Exif) -> dict[int, Any]:
    """What is sound of the table within the photo's own, whose place will be another."""
    try:
        found = exif.get_ifd(ExifTags.IFD.Interop)
    except Exception:  # noqa: BLE001  (whatever strange bytes make Pillow raise)
        return {}
    return {tag: found[tag] for tag in _INTEROP if tag in found}


def _keep_letters(exif: Image.Exif) -> Image.Exif:
    """The same EXIF, whose texts will be written as they were read."""
    tables = [exif, *(exif.get_ifd(group) for group in GROUPS if group in exif)]
    for table in tables:
        for tag, value in [*table.items()]:
            if isinstance(value, str):
                table[tag] = _AsItLies(value)
    return exif


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
