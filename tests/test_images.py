"""Photos in and out: every format and mode, upright, with EXIF and profile; and bad bytes."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin

from stylewatch.engine import images
from stylewatch.errors import InputError

LIMITS = {"max_pixels": 10_000_000, "max_side": 30_000, "max_bytes": 50_000_000}


def gradient(width=64, height=48, mode="RGB"):
    rows, columns = np.mgrid[0:height, 0:width]
    rgb = np.stack([columns * 255 // width, rows * 255 // height, columns * 0 + 90], -1)
    return Image.fromarray(rgb.astype(np.uint8), "RGB").convert(mode)


def encoded(image, form="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def read(data):
    return images.read_picture(data, **LIMITS)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK"])
@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG", "WEBP", "GIF", "BMP"])
def test_every_mode_that_a_format_can_hold_becomes_rgb(mode, form):
    try:
        data = encoded(gradient(mode=mode), form)
    except (OSError, ValueError):
        pytest.skip(f"{form} does not hold {mode}")
    picture = read(data)
    assert picture.rgb.shape == (48, 64, 3)
    assert picture.rgb.dtype == np.float32
    assert 0 <= picture.rgb.min() <= picture.rgb.max() <= 255
    reference = np.asarray(gradient(mode=mode).convert("RGB"), np.float32)
    if form != "JPEG" and mode != "CMYK":
        assert np.abs(picture.rgb - reference).mean() < 25


def test_sixteen_bit_grey_keeps_its_range():
    values = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    picture = read(encoded(Image.fromarray(values), "PNG"))
    assert picture.rgb.max() == pytest.approx(255, abs=0.5)
    assert picture.rgb[0, 0, 0] == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright_and_is_not_turned_again(orientation, form):
    upright = gradient(40, 24)
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(turns[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(stored, form, exif=exif, quality=100, subsampling=0)
    picture = read(data)
    assert np.abs(picture.rgb - np.asarray(upright, np.float32)).mean() < 4
    assert images.probe(io.BytesIO(data)).width == 40
    result = images.write_picture(picture, format="jpeg", quality=95, keep_gps=True, facts={})
    with Image.open(io.BytesIO(result)) as written:
        assert written.size == (40, 24)
        assert written.getexif()[ExifTags.Base.Orientation] == 1


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff", "heic"])
def test_exif_profile_and_facts_are_carried_into_every_format(form):
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Acme", "Acme X100"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(gradient(), "JPEG", exif=exif.tobytes(), icc_profile=profile)
    facts = {"job_key": "ab" * 32, "preset": "säft ❤"}
    for keep_gps in (True, False):
        result = images.write_picture(
            read(data), format=form, quality=90, keep_gps=keep_gps, facts=facts
        )
        assert images.read_facts(result) == facts
        assert images.probe(io.BytesIO(result)).camera == "Acme X100"
        again = read(result)
        assert again.icc
        assert np.abs(again.rgb - np.asarray(gradient(), np.float32)).mean() < 4
        with Image.open(io.BytesIO(result)) as written:
            assert bool(written.getexif().get_ifd(ExifTags.IFD.GPSInfo)) == keep_gps


def test_a_wide_gamut_profile_is_turned_into_srgb():
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    assert lab  # Pillow can make profiles here
    data = encoded(gradient(), "JPEG", icc_profile=b"not a profile at all")
    assert read(data).rgb.shape == (48, 64, 3)


@pytest.mark.parametrize("form", ["png", "webp", "tiff", "heic"])
def test_alpha_is_kept(form):
    picture = read(encoded(gradient(mode="RGBA")))
    alpha = np.zeros((48, 64), np.float32)
    alpha[:, 32:] = 255
    from dataclasses import replace

    result = images.write_picture(
        replace(picture, alpha=alpha), format=form, quality=90, keep_gps=True, facts={}
    )
    assert np.abs(read(result).alpha - alpha).mean() < 3


def png_of_size(width, height):
    """A valid PNG header with the promise of a gigantic picture."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


GOOD_JPEG = encoded(gradient(400, 300), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am a text file", "not-an-image"),
        (b"%PDF-1.7 ...", "not-an-image"),
        (GOOD_JPEG[: len(GOOD_JPEG) // 2], "truncated"),
        (encoded(gradient(400, 300))[:600], "truncated"),
        (png_of_size(60_000, 60_000), "too-large"),
        (png_of_size(40_000, 10), "too-large"),
    ],
    ids=["empty", "text", "pdf", "half a jpeg", "half a png", "bomb", "too wide"],
)
def test_bad_bytes_are_refused_with_a_reason_in_one_line(data, reason):
    with pytest.raises(InputError) as caught:
        read(data)
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)


def test_an_animation_is_refused():
    frames = [gradient(), gradient().rotate(90)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="animated"):
        read(data)


@given(st.binary(max_size=300))
def test_no_bytes_whatsoever_raise_anything_but_an_input_error(data):
    for head in (
        b"",
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF0000WEBP",
        b"II*\0",
        b"GIF89a",
    ):
        try:
            read(head + data)
        except InputError:
            pass
        images.structural_end(io.BytesIO(head + data))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "HEIF"])
def test_the_end_of_a_picture_is_found_and_missed(form):
    if form == "HEIF":
        images._register_heif()
    data = encoded(gradient(300, 200), form)
    assert images.structural_end(io.BytesIO(data)) is True
    assert images.structural_end(io.BytesIO(data[: len(data) * 2 // 3])) is False


def test_a_thumbnail_s_end_is_not_the_picture_s():
    exif = Image.Exif()
    exif[0x927C] = encoded(gradient(32, 32), "JPEG")
    data = encoded(gradient(400, 300), "JPEG", exif=exif.tobytes())
    assert images.structural_end(io.BytesIO(data[:1500])) is False


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 5000))
def test_fit_size_never_enlarges_and_keeps_the_shape(width, height, side):
    fitted = images.fit_size(width, height, side)
    assert max(fitted) == min(side, max(width, height))
    assert min(fitted) >= 1
    if min(fitted) > 20:
        assert fitted[0] / fitted[1] == pytest.approx(width / height, rel=0.06)


def test_matched_colours_have_the_photo_s_mean_and_covariance():
    rng = np.random.default_rng(0)
    style = (rng.normal(120, 20, (64, 64, 3)) * [1, 0.5, 0.8]).astype(np.float32)
    photo = (rng.normal(110, 15, (48, 48, 3)) @ [[1, 0.2, 0], [0, 1, 0.1], [0, 0, 1]]).astype(
        np.float32
    )
    matched = images.match_colours(style, photo).reshape(-1, 3)
    np.testing.assert_allclose(matched.mean(0), photo.reshape(-1, 3).mean(0), atol=1.0)
    np.testing.assert_allclose(np.cov(matched.T), np.cov(photo.reshape(-1, 3).T), atol=12)


def test_photo_colours_take_the_painting_s_luminance():
    rng = np.random.default_rng(0)
    painted, photo = (rng.uniform(90, 160, (8, 8, 3)).astype(np.float32) for _ in range(2))
    mixed = images.photo_colours(painted, photo)
    np.testing.assert_allclose(images.to_luminance(mixed), images.to_luminance(painted), atol=0.6)


def test_a_header_of_any_kind_is_probed_to_its_end():
    """TIFF has its facts at the end of the file, and an orientation may be no number."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Acme"
    exif[ExifTags.Base.Orientation] = 6
    data = encoded(gradient(1200, 1000), "TIFF", exif=exif)
    assert len(data) > 1 << 20
    facts = images.probe(io.BytesIO(data))
    assert (facts.width, facts.height, facts.camera) == (1000, 1200, "Acme")
    odd = TiffImagePlugin.ImageFileDirectory_v2()
    odd.tagtype[ExifTags.Base.Orientation] = 2  # text
    odd[ExifTags.Base.Orientation] = "upside down"
    words = b"Exif\0\0II*\0\x08\0\0\0" + odd.tobytes(8)
    assert images.probe(io.BytesIO(encoded(gradient(8, 6), "JPEG", exif=words))).width == 8
