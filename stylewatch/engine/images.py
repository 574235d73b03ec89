"""Photos as arrays: bytes to upright sRGB float pixels and back, with all that a photo carries.

Bytes in, bytes out: knows nothing of files, jobs or styles. Pillow decodes, an allow-list of its
decoders only, and only after the header has passed the limits.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import (
    ExifTags,
    Image,
    ImageCms,
    ImageOps,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from stylewatch.domain import PhotoFacts
from stylewatch.errors import InputError

Format = Literal["jpeg", "png", "webp", "tiff", "heic"]

_DECODERS = ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"]
Image.MAX_IMAGE_PIXELS = None  # `_check_size` has limits of its own, before anything is decoded
_UPRIGHT = {"HEIF", "TIFF"}  # whose sizes Pillow gives as they are seen
_PLUGINS = (WebPImagePlugin, TiffImagePlugin)  # the others Pillow loads itself
_FORMAT_OF: dict[str, Format] = {
    "JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "WEBP": "webp", "TIFF": "tiff", "HEIF": "heic",
}  # fmt: skip
EXTENSIONS: dict[str, str] = {
    "jpeg": ".jpg", "png": ".png", "webp": ".webp", "tiff": ".tif", "heic": ".heic",
}  # fmt: skip
_KEEPS_ALPHA = {"png", "webp", "tiff", "heic"}
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded photo, upright and in sRGB."""

    rgb: np.ndarray
    """(H, W, 3) float32, 0…255."""
    alpha: np.ndarray | None = None
    """(H, W) float32, 0…255."""
    format: str = "png"
    exif: bytes | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    mode: str = "RGB"


@cache
def _register_heif() -> None:
    import pillow_heif  # noqa: PLC0415  (loads a C library that most photos do not need)

    pillow_heif.register_heif_opener()


def _open(stream: BinaryIO) -> Image.Image:
    head = stream.read(8)
    stream.seek(0)
    if not head:
        raise InputError("The file is empty", reason="empty")
    decoders = list(_DECODERS)
    if head[4:8] == b"ftyp":
        _register_heif()
        decoders.append("HEIF")
    try:
        return Image.open(stream, formats=decoders)
    except UnidentifiedImageError as error:
        raise InputError(
            "This is not an image",
            expected="JPEG, PNG, WebP, TIFF, HEIC, BMP or GIF",
            reason="not-an-image",
        ) from error
    except Exception as error:
        raise InputError(
            "The image's header is damaged", received=_line(error), reason="truncated"
        ) from error


def read_picture(data: bytes, *, max_pixels: int, max_side: int, max_bytes: int) -> Picture:
    """Decode a photo: upright, in sRGB, with what has to go back into the result.

    Raises:
        InputError: empty, not an image, truncated, too large (said before decoding), animated.
    """
    if len(data) > max_bytes:
        raise InputError(
            "The file is too large", expected=f"at most {max_bytes} bytes",
            received=str(len(data)), reason="too-large",
        )  # fmt: skip
    image = _open(io.BytesIO(data))
    _check_size(image, max_pixels, max_side)
    original = image.format or ""
    icc = image.info.get("icc_profile")
    mode = image.mode
    dpi = image.info.get("dpi")
    try:
        image.load()
        exif = image.info.get("exif") or (image.getexif().tobytes() or None)
        upright = ImageOps.exif_transpose(image)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            "The image is incomplete or damaged", received=_line(error),
            remedy="Copy it again from its source", reason="truncated",
        ) from error  # fmt: skip
    rgb, alpha = _pixels(upright, icc)
    return Picture(rgb, alpha, _FORMAT_OF.get(original, "jpeg"), exif, icc, dpi, mode)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _check_size(image: Image.Image, max_pixels: int, max_side: int) -> None:
    width, height = image.size
    if width * height > max_pixels or max(width, height) > max_side:
        raise InputError(
            "The picture is too large",
            expected=f"at most {max_pixels / 1e6:.0f} megapixels and {max_side} pixels a side",
            received=f"{width} × {height}",
            reason="too-large",
        )
    if image.format in {"GIF", "WEBP", "PNG"} and getattr(image, "n_frames", 1) > 1:
        raise InputError(
            "The picture is animated", expected="a single frame",
            received=f"{getattr(image, 'n_frames', 1)} frames", reason="too-many-frames",
        )  # fmt: skip


def _pixels(image: Image.Image, icc: bytes | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels in sRGB, and alpha where there is any."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image, dtype=np.float32)
        if image.mode != "F" or grey.max(initial=0.0) > 255:
            grey = grey / 257.0
        elif grey.max(initial=0.0) <= 1.0:
            grey = grey * 255.0
        return np.repeat(np.clip(grey, 0, 255)[..., np.newaxis], 3, axis=-1), None
    alpha = None
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"), dtype=np.float32)
        image = image.convert("RGB")
    image = _to_srgb(image, icc)
    return np.asarray(image.convert("RGB"), dtype=np.float32), alpha


def _to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    if not icc or image.mode not in {"RGB", "CMYK", "L"}:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        converted = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError):  # a broken profile is no broken photo
        return image
    return converted or image


def write_picture(
    picture: Picture,
    *,
    format: Format,  # noqa: A002
    quality: int,
    keep_gps: bool,
    facts: Mapping[str, str],
) -> bytes:
    """Encode a result with the photo's EXIF, an sRGB profile where it had one, and `facts`.

    JPEG is written without chroma subsampling: strokes are made of colour edges. A transparent
    photo becomes white there in JPEG, which has no alpha.
    """
    image = Image.fromarray(np.clip(np.rint(picture.rgb), 0, 255).astype(np.uint8), "RGB")
    if picture.alpha is not None:
        alpha = Image.fromarray(np.clip(np.rint(picture.alpha), 0, 255).astype(np.uint8), "L")
        if format in _KEEPS_ALPHA:
            image.putalpha(alpha)
        else:
            white = Image.new("RGB", image.size, "white")
            white.paste(image, mask=alpha)
            image = white
    options: dict[str, Any] = {"exif": _exif(picture.exif, image.size, keep_gps, facts)}
    if picture.icc:
        options["icc_profile"] = _srgb_profile()
    if picture.dpi and format in {"jpeg", "png", "tiff"}:
        options["dpi"] = tuple(float(value) for value in picture.dpi)
    match format:
        case "jpeg":
            options |= {"quality": quality, "subsampling": 0, "optimize": True}
        case "webp":
            options |= {"quality": quality, "method": 4}
        case "heic":
            _register_heif()
            options |= {"quality": quality, "chroma": 444}
        case "png":
            options |= {"pnginfo": _png_text(facts)}
    stream = io.BytesIO()
    image.save(stream, "HEIF" if format == "heic" else format.upper(), **options)
    return stream.getvalue()


@cache
def _srgb_profile() -> bytes:
    return bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


_HISTORY = 0x9213  # EXIF "ImageHistory": what was done to the picture
_SOFTWARE = 0x0131


def _exif(
    original: bytes | None, size: tuple[int, int], keep_gps: bool, facts: Mapping[str, str]
) -> bytes:
    exif = Image.Exif()
    if original:
        try:
            exif.load(original)
        except Exception:  # noqa: BLE001  (damaged EXIF is no damaged photo)
            exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    for tag in (ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength):
        exif.pop(tag, None)  # the result's own header says it
    exif[_SOFTWARE] = "stylewatch"
    exif[_HISTORY] = json.dumps(dict(facts), ensure_ascii=True)
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    if ExifTags.Base.ExifImageWidth in inner:
        inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight] = size
    if not keep_gps and ExifTags.IFD.GPSInfo in exif:
        del exif[ExifTags.IFD.GPSInfo]
    return exif.tobytes()


def _png_text(facts: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("stylewatch", json.dumps(dict(facts)))
    return text


def read_facts(data: bytes) -> dict[str, str]:
    """What `write_picture` embedded; {} for any other file."""
    try:
        image = _open(io.BytesIO(data))
        found = image.getexif().get(_HISTORY) or image.info.get("stylewatch") or "{}"
        facts = json.loads(found)
    except (InputError, ValueError, OSError):
        return {}
    return {str(k): str(v) for k, v in facts.items()} if isinstance(facts, dict) else {}


@dataclass(frozen=True)
class OutputFormat:
    """A format by name, with its files' extension."""

    name: Format
    extension: str


def output_format(wanted: str, picture: Picture) -> OutputFormat:
    """`same` is the photo's own format where it can be written; transparent ones stay so."""
    name: Any = picture.format if wanted == "same" else wanted
    return OutputFormat(name, EXTENSIONS[name])


def probe(stream: BinaryIO) -> PhotoFacts:
    """What rules ask of a photo, from its headers alone; they may lie at its end."""
    image = _open(stream)
    width, height = image.size
    try:
        exif = image.getexif()
    except Exception:  # noqa: BLE001  (a PNG's may lie behind its pixels, which are not here)
        exif = Image.Exif()
    turned = exif.get(ExifTags.Base.Orientation) in {5, 6, 7, 8}
    if turned and image.format not in _UPRIGHT:
        width, height = height, width
    make, model = (
        str(exif.get(tag, "")).strip("\0 ") for tag in (ExifTags.Base.Make, ExifTags.Base.Model)
    )
    camera = model if model.startswith(make) else f"{make} {model}".strip()
    return PhotoFacts(width, height, camera, (image.format or "").lower())


def structural_end(file: BinaryIO) -> bool | None:  # noqa: PLR0911  (a row per format)
    """Whether a picture's last byte is there: False = truncated, None = the format can't tell.

    Reads the head and the tail alone (and box or chunk lengths), never the pixels.
    """
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    if head.startswith(b"\xff\xd8"):
        return _rfind(file, b"\xff\xd9", _jpeg_scan_start(file, size), size)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _rfind(file, b"IEND\xae\x42\x60\x82", 8, size)
    if head.startswith((b"GIF87a", b"GIF89a")):
        file.seek(max(0, size - 64))
        return file.read().rstrip(b"\0").endswith(b";")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return size >= 8 + int.from_bytes(head[4:8], "little")
    if head.startswith(b"BM"):
        return size >= int.from_bytes(head[2:6], "little")
    if head[4:8] == b"ftyp":
        return _boxes_end(file) <= size
    return None


def _jpeg_scan_start(file: BinaryIO, size: int) -> int:
    """Where a JPEG's compressed data begins; the file's size when it ends before."""
    position = 2
    while position + 4 <= size:
        file.seek(position)
        marker = file.read(4)
        if marker[0] != 0xFF:
            break
        if marker[1] == 0xDA:  # start of scan: a thumbnail's end can't be mistaken from here on
            return position
        position += 1 if marker[1] == 0xFF else 2 + int.from_bytes(marker[2:4], "big")
    return size


def _rfind(file: BinaryIO, mark: bytes, start: int, end: int) -> bool:
    """Whether `mark` occurs in file[start:end]; looks from the end, where it should be."""
    chunk = 1 << 16
    while end > start:
        begin = max(start, end - chunk)
        file.seek(begin)
        if mark in file.read(end - begin + len(mark) - 1):
            return True
        end = begin
    return False


def _boxes_end(file: BinaryIO) -> int:
    """Where the top-level boxes of a HEIC file say that they end."""
    position = 0
    while True:
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            return position
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8:  # 0: the last box reaches to the end of the file
            return position
        position += length


def fit_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    """The size with the same shape whose longer side is `max_side`; never larger, at least 1."""
    longer = max(width, height)
    if longer <= max_side:
        return width, height
    return max(1, round(width * max_side / longer)), max(1, round(height * max_side / longer))


def resize(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """(H, W, C) float32 at another size: Lanczos down, bicubic up."""
    if rgb.shape[1] == width and rgb.shape[0] == height:
        return rgb
    smaller = width <= rgb.shape[1] and height <= rgb.shape[0]
    method = Image.Resampling.LANCZOS if smaller else Image.Resampling.BICUBIC
    channels = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(rgb[..., c], np.float32)).resize(
                (width, height), method
            )
        )
        for c in range(rgb.shape[2])
    ]
    return np.stack(channels, axis=-1)


def resize_alpha(alpha: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """Alpha (H, W) at the size of a result's (H, W, 3)."""
    if alpha is None:
        return None
    return np.asarray(np.clip(resize(alpha[..., np.newaxis], shape[1], shape[0])[..., 0], 0, 255))


def to_luminance(rgb: np.ndarray) -> np.ndarray:
    """Three equal channels of Rec. 601 luma."""
    luma = np.asarray(rgb @ _LUMA, dtype=np.float32)
    return np.repeat(luma[..., np.newaxis], 3, axis=-1)


def photo_colours(painted: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """The painting's luminance with the photo's colour differences."""
    return np.asarray(np.clip(photo + (to_luminance(painted) - to_luminance(photo)), 0, 255))


def match_colours(style: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """The style with the photo's mean and covariance of colours (Gatys et al. 2016, eq. 10)."""
    s, p = style.reshape(-1, 3).astype(np.float64), photo.reshape(-1, 3).astype(np.float64)
    transform = _root(np.cov(p.T)) @ np.linalg.inv(_root(np.cov(s.T) + 1e-3 * np.eye(3)))
    matched = (s - s.mean(axis=0)) @ transform.T + p.mean(axis=0)
    return np.asarray(np.clip(matched, 0, 255).reshape(style.shape), dtype=np.float32)


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors @ np.diag(np.sqrt(np.maximum(values, 0.0))) @ vectors.T)
