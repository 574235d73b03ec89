"""Photos as arrays: bytes to upright sRGB float pixels, with all that a photo carries.

Bytes in, arrays out: knows nothing of files, jobs or styles. Pillow decodes, an allow-list of its
decoders only, and only after the header has passed the limits.
"""

import io
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import (
    ExifTags,
    Image,
    ImageCms,
    IptcImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401  (the others Pillow loads itself)
)

from stylewatch.engine import profiles
from stylewatch.engine.captions import Iptc, captions_of
from stylewatch.engine.chunks import without_texts
from stylewatch.engine.endings import structural_end
from stylewatch.engine.exif import GROUPS, carried
from stylewatch.engine.sizes import fit_size, resize, resize_alpha
from stylewatch.errors import InputError

Format = Literal["jpeg", "png", "webp", "tiff", "heic"]

_DECODERS = ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"]
Image.MAX_IMAGE_PIXELS = None  # `_check_size` has limits of its own, before anything is decoded
_READ = "JPEG, PNG, WebP, TIFF, HEIC, AVIF, BMP or GIF"
_CANON = b"CR\x02\0"  # what follows a TIFF's first eight bytes in Canon's RAW files
TiffImagePlugin.READ_LIBTIFF = True  # Pillow itself makes noise of planes of 16 bits each
_AS_LIBTIFF_GIVES_THEM = {"F;32BF": "F;32NF", "I;32BS": "I;32NS", "I;16BS": "I;16NS"}
"""Numbers in this machine's order, which Pillow would take for the file's."""
PngImagePlugin.MAX_TEXT_CHUNK = 1 << 26  # bytes: what Photoshop writes of a picture's past is long
_AVIF = frozenset({b"avif", b"avis", b"mif1", b"msf1"})
_HEIC = frozenset({
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1",
})  # fmt: skip
"""By what brands these begin; two are of both."""
_PNG = b"\x89PNG\r\n"
_MARKS = {b"\xff\xd8\xff": "JPEG", _PNG: "PNG"}
"""How files begin of whose headers Pillow does not tell what is wrong with them."""
_FORMAT_OF: dict[str, Format] = {
    "JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "WEBP": "webp", "TIFF": "tiff", "HEIF": "heic",
}  # fmt: skip
_MOVING = {"GIF", "WEBP", "PNG", "AVIF"}
_SCANS, _BY_CHANCE = 100, 1 << 15
"""How often a JPEG may be drawn over itself, and in how many bytes once more: in the film that a
phone keeps behind a photo, another scan seems to begin half as often."""
_BRIGHTER_THAN_WHITE = 16.0
_DRAWN = 1.4
"""A JPEG is drawn as a half, a quarter or an eighth where that is so many times as large as is
needed: the eye sees no difference, and most of the work falls away."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""What makes a picture upright, by its EXIF orientation."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded photo, upright and in sRGB."""

    rgb: np.ndarray
    """(H, W, 3) float32, 0…255."""
    alpha: np.ndarray | None = None
    """(H, W) float32, 0…255; None where it would hide nothing."""
    format: Format = "png"
    exif: bytes | None = None
    captions: bytes | None = None
    """XMP with what a person has written about it."""
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None

    def on(self, background: float) -> np.ndarray:
        """Its pixels with all that is transparent over a grey of 0…255."""
        if self.alpha is None:
            return self.rgb
        share = self.alpha[..., np.newaxis] / np.float32(255)
        return np.asarray(background + (self.rgb - np.float32(background)) * share, np.float32)


@cache
def register_heif() -> None:
    """Have Pillow read and write HEIC from now on."""
    import pillow_heif  # noqa: PLC0415  (loads a C library that most photos do not need)

    pillow_heif.register_heif_opener()


def _is_raw(image: Image.Image, head: bytes) -> bool:
    """RAW files are TIFFs to Pillow, which would decode their thumbnail."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    subfile = image.tag_v2.get(ExifTags.Base.NewSubfileType)
    is_thumbnail = isinstance(subfile, int) and subfile & 1 == 1
    return is_thumbnail or ExifTags.Base.DNGVersion in image.tag_v2 or head[8:] == _CANON


def _brand(head: bytes) -> bytes:
    return head[8:] if head[4:8] == b"ftyp" else b""


def begins_as_image(head: bytes) -> bool:
    """Whether a file that begins with these 12 bytes seems to be of a format that is read here."""
    return (
        head.startswith((*_MARKS, *TiffImagePlugin.PREFIXES, b"GIF8", b"BM"))
        or (head[:4] + head[8:]) == b"RIFFWEBP"
        or _brand(head) in _AVIF | _HEIC
    )


def open_image(stream: BinaryIO) -> Image.Image:
    """Open an image by a decoder of the allow-list; only its header is read.

    Raises:
        InputError: empty, not an image, or its header is damaged.
    """
    head = stream.read(12)
    stream.seek(0)
    if not head:
        raise InputError("The file is empty", reason="empty")
    decoders = list(_DECODERS)
    if _brand(head) in _AVIF:
        decoders.append("AVIF")
    if _brand(head) in _HEIC:
        register_heif()
        decoders.append("HEIF")
    try:
        image = Image.open(stream, formats=decoders)
    except UnidentifiedImageError as error:
        raise _unknown(head) from error
    except MemoryError:
        raise
    except Exception as error:
        raise InputError(
            "The image's header is damaged", received=_line(error), reason="truncated"
        ) from error
    if _is_raw(image, head):
        raise InputError(
            "This is a RAW file", expected=_READ, remedy="Export it as JPEG", reason="raw"
        )
    return image


def _unknown(head: bytes) -> InputError:
    """The error for what no decoder takes."""
    if head.startswith(tuple(TiffImagePlugin.PREFIXES)):
        return _strange_tiff()
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return _strange(name, remedy="Open it elsewhere and save it again")
    if _brand(head) in _AVIF | _HEIC:
        name = "HEIC" if _brand(head) in _HEIC else "AVIF"
        return _strange(name, remedy="Save it again, or as JPEG")
    text = "This is not an image of a kind that is read here"
    return InputError(text, expected=_READ, reason="not-an-image")


def _strange_tiff() -> InputError:
    bits = "grey, RGB or CMYK in 8 or 16 bits"
    return _strange("TIFF", expected=bits, remedy="Save it as such or as PNG")


def _strange(name: str, *, remedy: str, expected: str = "") -> InputError:
    text = f"This {name} file is damaged, or of a kind that can't be read"
    return InputError(text, expected=expected, remedy=remedy, reason="not-an-image")


def read_picture(data: bytes, *, max_pixels: int, max_side: int, fit: int | None = None) -> Picture:
    """Decode a photo: upright, in sRGB, with what has to go back into the result.

    If what it carries besides its pixels is damaged, that is left out. `fit` is the most pixels
    that its longer side need have: a larger photo is made small.

    Raises:
        InputError: empty, not an image, truncated, too large (said before decoding), animated.
    """
    if data.startswith(_PNG):
        data = without_texts(data)
    image = open_image(io.BytesIO(data))
    original = image.format or ""
    try:
        _check_size(image, max_pixels, max_side)
        _check_scans(image, data)
        _check_end(image, data)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            _forget_broken_exif(image)
            _unpack_rightly(image)
        whole = image.size
        if fit and isinstance(image, JpegImagePlugin.JpegImageFile):  # HEIC gives its thumbnail
            image.draft(None, fit_size(*whole, round(_DRAWN * fit)))
        drawn = image.size
        image.load()  # before EXIF is asked for: a PNG's is sought behind the pixels
        icc = profiles.of_photo(image, data)
        _fit_transparent_colour(image, depth=data[24:25])
        upright = _upright(image)
        rgb, alpha = _pixels(upright, icc)
        if alpha is not None and _hides_nothing(alpha, original):
            alpha = None
        if alpha is not None:
            _spread(rgb, alpha > 0)
        if fit:
            size = whole if upright.size == drawn else whole[::-1]
            rgb = resize(rgb, *fit_size(*size, fit))
            alpha = resize_alpha(alpha, rgb.shape)
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(
            "The image is incomplete or damaged", received=_line(error),
            remedy="Copy it again from its source", reason="truncated",
        ) from error  # fmt: skip
    form = _FORMAT_OF.get(original, "jpeg" if alpha is None else "png")
    dpi = _sensible_dpi(image.info.get("dpi"))
    captions = captions_of(image.info.get("xmp"), _iptc_of(image))
    return Picture(rgb, alpha, form, _exif_of(image, data), captions, icc, dpi)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _check_size(image: Image.Image, max_pixels: int, max_side: int) -> None:
    width, height = image.size
    if width * height > max_pixels or max(width, height) > max_side:
        raise InputError(
            "The image is too large",
            expected=f"at most {max_pixels / 1e6:.0f} megapixels and {max_side} pixels a side",
            received=f"{width} × {height}",
            reason="too-large",
        )
    frames = getattr(image, "n_frames", 1) if image.format in _MOVING else 1
    if frames > 1:
        raise InputError(
            "The image is animated", expected="a single frame",
            received=f"{frames} frames", reason="too-many-frames",
        )  # fmt: skip


def _check_scans(image: Image.Image, data: bytes) -> None:
    """An error for a JPEG of thousands of scans: each goes over all pixels, in a few bytes."""
    most = _SCANS + len(data) // _BY_CHANCE
    if isinstance(image, JpegImagePlugin.JpegImageFile) and data.count(b"\xff\xda") > most:
        remedy = "Open it elsewhere and save it again"
        raise _strange("JPEG", expected=f"at most {most} scans", remedy=remedy)


def _check_end(image: Image.Image, data: bytes) -> None:
    """An error for a HEIC that lacks its end: libheif would only leave out some of its tiles."""
    if image.format == "HEIF" and structural_end(io.BytesIO(data)) is False:
        raise EOFError("its last bytes are missing")


def _forget_broken_exif(image: Image.Image) -> None:
    """Drop broken EXIF of a TIFF, as Pillow reads it while it decodes the pixels."""
    if not isinstance(image.info.get("xmp", b""), bytes):
        del image.info["xmp"]
    exif = image.getexif()
    for group in exif.keys() & GROUPS:
        try:
            exif.get_ifd(group)
        except Exception:  # noqa: BLE001  (whatever its bytes make Pillow raise)
            del exif[group]


def _unpack_rightly(image: TiffImagePlugin.TiffImageFile) -> None:
    """Have Pillow read numbers with a sign or a point in the byte order that libtiff gives.

    An error for grey and alpha in planes of their own, of which Pillow would lose the alpha.
    """
    if image.mode == "LA" and image.tag_v2.get(ExifTags.Base.PlanarConfiguration) == 2:
        raise _strange_tiff()
    [tile] = image.tile
    assert isinstance(tile.args, tuple)
    unpacked, *others = tile.args
    given = _AS_LIBTIFF_GIVES_THEM.get(unpacked, unpacked)
    image.tile = [tile._replace(args=(given, *others))]


def _exif_of(image: Image.Image, data: bytes) -> bytes | None:
    found = image.info.get("exif")
    if found and image.format == "AVIF":  # which Pillow has written anew where the photo is turned
        found = profiles.told_by_avif(data).get("exif") or found
    if found:
        return bytes(found)
    try:
        exif = carried(image.getexif())
        exif.bigtiff = False  # all has been read, and what Pillow would write it can't read
        return exif.tobytes()
    except Exception:  # noqa: BLE001  (damaged EXIF is no damaged photo)
        return None


def _iptc_of(image: Image.Image) -> Iptc:
    """What a JPEG of an older program says in IIM; those that write TIFFs know XMP."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return {}
    try:
        return IptcImagePlugin.getiptcinfo(image) or {}
    except Exception:  # noqa: BLE001  (damaged captions are no damaged photo)
        return {}


def _upright(image: Image.Image) -> Image.Image:
    """The image, turned as its EXIF says.

    `ImageOps.exif_transpose` fails if that EXIF can't be written anew.
    """
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  (damaged EXIF is no damaged photo)
        return image
    return image if turn is None else image.transpose(turn)


def _sensible_dpi(found: Any) -> tuple[float, float] | None:
    """Dots per inch that every format can hold; TIFF may say 0/0, or 1 when it has none."""
    try:
        across, down = (float(value) for value in found)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return (across, down) if all(1 < value <= 65535 for value in (across, down)) else None


def _pixels(image: Image.Image, icc: bytes | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels in sRGB, and alpha where there is any."""
    if image.mode.startswith("I") or image.mode == "F":
        return _fine_grey(image, icc)
    alpha = None
    if image.mode == "La":  # already multiplied by alpha, as some TIFFs are
        image = image.convert("LA")
    if image.has_transparency_data:
        whole = image.convert("RGBA")
        alpha = np.asarray(whole.getchannel("A"), dtype=np.float32)
        image = whole.convert("L" if image.mode in {"L", "LA"} else "RGB")
    image = _to_srgb(image, icc)
    return np.asarray(image.convert("RGB"), dtype=np.float32), alpha


def _hides_nothing(alpha: np.ndarray, original: str) -> bool:
    """Whether there is no more to an alpha channel than that it is there.

    Old Windows programs wrote zeros into it, and meant nothing by them.
    """
    return bool(alpha.min() == 255 or (original == "BMP" and not alpha.any()))


def _spread(rgb: np.ndarray, seen: np.ndarray) -> None:
    """Give what can't be seen the mean colour of what can be seen around it, in place.

    Programs leave black there, mostly: a smaller picture's edges would be darkened by that, and
    its network would see a shape of it.
    """
    if seen.all() or not seen.any():
        return
    height, width = seen.shape
    half = np.zeros((-(-height // 2), -(-width // 2), 3), dtype=np.float32)
    counts = np.zeros((*half.shape[:2], 1), dtype=np.float32)
    corners = [np.s_[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    for corner in corners:
        there = seen[corner][..., np.newaxis]
        rows, columns, _ = there.shape
        half[:rows, :columns] += rgb[corner] * there
        counts[:rows, :columns] += there
    half = np.rint(half / np.maximum(counts, 1))
    _spread(half, counts[..., 0] > 0)
    for corner in corners:
        there = seen[corner][..., np.newaxis]
        rows, columns, _ = there.shape
        np.copyto(rgb[corner], half[:rows, :columns], where=~there)


def _fit_transparent_colour(image: Image.Image, depth: bytes) -> None:
    """Scale a PNG's transparent colour, of `depth` bits in the file, to Pillow's 8 or so."""
    colour = image.info.get("transparency")
    if image.format != "PNG" or colour is None:
        return
    if image.mode == "L" and depth in {b"\2", b"\4"}:
        image.info["transparency"] = colour * 255 // (2 ** depth[0] - 1)
    elif image.mode == "RGB" and depth == b"\x10":
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _fine_grey(image: Image.Image, icc: bytes | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels and alpha of a grey photo of more than 8 bits."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    values = np.asarray(image)
    if image.mode == "I" and tags.get(ExifTags.Base.SampleFormat, (1,)) == (1,):
        values = values.view(np.uint32)  # whole numbers without a sign: Pillow has no such mode
    grey = values.astype(np.float32)
    if not np.isfinite(grey).all():
        raise InputError(
            "The image has values that are no numbers",
            remedy="Save it again with numbers in their place",
            reason="not-finite",
        )
    bits = tags.get(ExifTags.Base.BitsPerSample, (16,))[0]  # 12 of some
    white = _white(image.mode, bits, float(grey.max(initial=0.0)))
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:  # white is zero
        grey = white - grey
    grey = _grey_to_srgb(np.clip(grey * 255.0 / white, 0, 255), icc)
    colour = image.info.get("transparency")
    alpha = None if colour is None else np.where(values == colour, 0, 255).astype(np.float32)
    return np.repeat(grey[..., np.newaxis], 3, axis=-1), alpha


def _white(mode: str, bits: int, top: float) -> float:
    """Which value is white, given the brightest one, `top`: beyond 16 bits files do not say that.

    Numbers with a point go from 0 to 1, or beyond 1 if a lamp, or an editor's curve, is brighter
    than white.
    """
    if mode.startswith("I;"):
        return 2.0**bits - 1
    whites = (255.0, 32767.0 if bits == 16 else 65535.0, top)  # 16 bits here: one is the sign
    if mode == "F" and top <= _BRIGHTER_THAN_WHITE:
        return 1.0
    return next(white for white in whites if top <= white)


def _to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    if image.mode not in {"RGB", "CMYK", "L", "LAB"}:
        image = image.convert("L" if image.mode == "1" else "RGB")
    if not icc and image.mode != "LAB":
        return image
    try:
        source = ImageCms.ImageCmsProfile(
            ImageCms.createProfile("LAB") if image.mode == "LAB" else io.BytesIO(icc or b"")
        )
        space = source.profile.xcolor_space.strip()
        if image.mode == "L" and space == "RGB":
            image = image.convert("RGB")
        if image.mode == "RGB" and space == "GRAY":  # Pillow gives greys of some files as colours
            red, green, blue = image.split()
            image = red if red == green == blue else image
        converted = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError):  # a broken profile is no broken photo
        return image
    return converted or image


def _grey_to_srgb(grey: np.ndarray, icc: bytes | None) -> np.ndarray:
    """Fine shades of grey, 0…255, along the curve that a profile gives for the 256 coarse ones."""
    if not icc:
        return grey
    shades = np.arange(256, dtype=np.uint8)
    curve = np.asarray(_to_srgb(Image.fromarray(shades[np.newaxis]), icc).convert("L"))[0]
    return np.asarray(np.interp(grey, shades, curve), dtype=np.float32)
