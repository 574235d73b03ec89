"""Photos in and out: every format and mode, upright, with EXIF and profile; and bad bytes."""

import contextlib
import errno
import io
import struct
import time
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, TiffImagePlugin

from stylewatch.domain import EngineSettings
from stylewatch.engine import glance, headers, images, results
from stylewatch.engine.endings import structural_end
from stylewatch.engine.sizes import fit_size, resize, resize_alpha
from stylewatch.errors import InputError

LIMITS = {"max_pixels": 10_000_000, "max_side": 30_000}


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
@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG", "WEBP", "GIF", "BMP", "AVIF"])
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


def grey_tiff(values, **tags):
    """A TIFF with other numbers in some of its tags of one 16-bit number."""
    data = encoded(Image.fromarray(values), "TIFF")
    for tag, number in tags.items():
        at = data.index(struct.pack("<HHI", int(tag[1:]), 3, 1)) + 8
        data = data[:at] + struct.pack("<H", number) + data[at + 2 :]
    return data


RAMP = np.linspace(0, 1, 64 * 48).reshape(48, 64)


@pytest.mark.parametrize(
    ("kind", "top", "white"),
    [
        ("<f4", 1.0, 1.0), ("<f4", 1.001, 1.0), ("<f4", 12.0, 1.0), ("<f4", 255.0, 255.0),
        ("<f4", 40_000.0, 65_535.0), ("<f4", 1e9, 1e9),
        ("<i4", 255, 255), ("<i4", 60_000, 65_535), ("<i4", 2**31 - 1, 2**31 - 1),
        ("<u2", 200, 65_535),
    ],
)  # fmt: skip
def test_what_is_white_in_a_photo_of_fine_greys_is_seen_by_its_brightest(kind, top, white):
    values = (RAMP * top).astype(kind)
    rgb = read(grey_tiff(values)).rgb
    wanted = np.clip(values.astype(float) / white * 255, 0, 255)
    np.testing.assert_allclose(rgb, np.repeat(wanted[..., None], 3, -1), atol=0.01)


def test_numbers_of_32_bits_without_a_sign_are_not_negative():
    values = (RAMP * (2**32 - 1)).astype("<u4").view("<i4")
    rgb = read(grey_tiff(values, _339=1)).rgb
    np.testing.assert_allclose(rgb[..., 0], RAMP * 255, atol=0.01)


@pytest.mark.parametrize(("kind", "white"), [("<u2", 65_535), ("<f4", 1)])
def test_where_white_is_zero_fine_greys_are_turned_round(kind, white):
    rgb = read(grey_tiff((RAMP * 0.5 * white).astype(kind), _262=0)).rgb
    np.testing.assert_allclose(rgb[..., 0], 255 - RAMP * 0.5 * 255, atol=0.01)


def png_of(width, height, depth, kind, pixels, **chunks):
    """A PNG of one of the kinds that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = {"IHDR": header, **chunks, "IDAT": zlib.compress(pixels), "IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in ((name.encode(), body) for name, body in parts.items())
    )


def png_with_a_transparent_colour(depth, colours, key):
    """An upper half in the first of two colours, a lower half in the second."""

    def packed(colour):
        if depth == 16:
            return struct.pack(f">{len(colour)}H", *colour) * 16
        samples = 8 // depth
        byte = sum(colour[0] << depth * at for at in range(samples))
        return bytes([byte]) * (16 // samples)

    kind = 2 if len(key) == 3 else 0
    rows = b"".join(b"\0" + packed(colour) for colour in colours for _ in range(8))
    return png_of(16, 16, depth, kind, rows, tRNS=struct.pack(f">{len(key)}H", *key))


@pytest.mark.parametrize(
    ("depth", "key", "other"),
    [
        (1, (1,), (0,)), (2, (0,), (3,)), (2, (1,), (0,)), (4, (15,), (1,)),
        (16, (1000,), (1001,)), (16, (0,), (40_000,)),
        (16, (0x1234, 0x5678, 0x9ABC), (30_000, 20_000, 10_000)),
    ],
)  # fmt: skip
def test_a_colour_that_means_transparent_is_found_at_every_depth(depth, key, other):
    alpha = read(png_with_a_transparent_colour(depth, [key, other], key)).alpha
    assert alpha[:8].max() == 0
    assert alpha[8:].min() == 255


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
    assert headers.probe(io.BytesIO(data)).width == 40
    result = results.write_picture(picture, format="jpeg", quality=95, keep_gps=True, facts={})
    with Image.open(io.BytesIO(result)) as written:
        assert written.size == (40, 24)
        assert written.getexif()[ExifTags.Base.Orientation] == 1


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size", [(800, 600), (803, 601), (48, 32)])
def test_a_photo_is_read_no_larger_than_is_needed(form, orientation, size):
    images.register_heif()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    of_heif = {"thumbnails": [100, 400]} if form == "HEIF" else {}  # which are no photo
    data = encoded(gradient(*size), form, exif=exif, quality=95, **of_heif)
    whole, small, same = (images.read_picture(data, **LIMITS, fit=fit) for fit in (None, 50, 900))
    height, width, _ = whole.rgb.shape
    wanted = resize(whole.rgb, *fit_size(width, height, 50))
    np.testing.assert_allclose(small.rgb, wanted, atol=4 if form == "JPEG" else 0)
    np.testing.assert_array_equal(same.rgb, whole.rgb)
    assert (small.format, small.exif) == (whole.format, whole.exif)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("progressive", [True, False])
def test_a_jpeg_of_any_kind_may_be_read_small(mode, progressive):
    data = encoded(gradient(800, 600, mode), "JPEG", progressive=progressive, quality=95)
    small = images.read_picture(data, **LIMITS, fit=100)
    np.testing.assert_allclose(small.rgb, resize(read(data).rgb, 100, 75), atol=4)
    for end in (len(data) // 3, len(data) - 40):
        with pytest.raises(InputError) as caught:
            images.read_picture(data[:end], **LIMITS, fit=100)
        assert caught.value.reason == "truncated"


def test_what_is_transparent_stays_so_where_a_photo_is_read_small():
    see_through = gradient(400, 300, "RGBA")
    see_through.putalpha(Image.linear_gradient("L").resize((400, 300)))
    data = encoded(see_through)
    whole, small = (images.read_picture(data, **LIMITS, fit=fit) for fit in (None, 100))
    np.testing.assert_array_equal(small.alpha, resize_alpha(whole.alpha, (75, 100, 3)))
    np.testing.assert_array_equal(small.rgb, resize(whole.rgb, 100, 75))


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff", "heic"])
def test_exif_profile_and_facts_are_carried_into_every_format(form):
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Acme", "Acme X100"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(gradient(), "JPEG", exif=exif.tobytes(), icc_profile=profile)
    facts = {"job_key": "ab" * 32, "preset": "säft ❤"}
    for keep_gps in (True, False):
        result = results.write_picture(
            read(data), format=form, quality=90, keep_gps=keep_gps, facts=facts
        )
        assert results.read_facts(result) == facts
        assert headers.probe(io.BytesIO(result)).camera == "Acme X100"
        again = read(result)
        assert again.icc
        assert np.abs(again.rgb - np.asarray(gradient(), np.float32)).mean() < 4
        with Image.open(io.BytesIO(result)) as written:
            assert bool(written.getexif().get_ifd(ExifTags.IFD.GPSInfo)) == keep_gps


def test_a_broken_profile_is_no_broken_photo():
    photo = gradient()
    broken = read(encoded(photo, "PNG", icc_profile=b"not a profile at all"))
    np.testing.assert_array_equal(broken.rgb, np.asarray(photo))


@pytest.mark.parametrize("form", results.EXTENSIONS)
def test_a_result_written_another_day_has_the_same_bytes(form):
    """Each profile that is made tells the second in which it was."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = read(encoded(gradient(), "JPEG", icc_profile=profile))
    result = results.write_picture(picture, format=form, quality=90, keep_gps=True, facts={})
    with Image.open(io.BytesIO(result)) as written:
        date = written.info["icc_profile"][24:36]
    assert struct.unpack(">6H", date) == (2000, 1, 1, 0, 0, 0)


@pytest.mark.parametrize("quality", [75, 94, 100])
def test_a_jpeg_may_be_as_large_as_its_grain_makes_it(quality):
    """More than the one or two bytes a pixel that Pillow has room for where it optimises."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Acme"
    noise = 255 * np.random.default_rng(0).integers(0, 2, (300, 400, 3)).astype(np.float32)
    picture = images.Picture(noise, exif=exif.tobytes())
    data = results.write_picture(picture, format="jpeg", quality=quality, keep_gps=True, facts={})
    assert len(data) > (2 if quality >= 95 else 1) * 300 * 400
    assert np.abs(read(data).rgb - noise).mean() < 40
    assert headers.probe(io.BytesIO(data)).camera == "Acme"


def test_a_heic_is_of_the_profile_that_every_decoder_knows():
    """HEVC's Main, or what it says is compatible with that; also where a side is odd."""
    picture = images.Picture(np.asarray(gradient(65, 49), np.float32))
    result = results.write_picture(picture, format="heic", quality=90, keep_gps=True, facts={})
    compatible = result[result.index(b"hvcC") + 6]  # with the profiles 0 to 7, a bit each
    assert compatible & 0x40
    np.testing.assert_allclose(read(result).rgb, picture.rgb, atol=12)


@pytest.mark.parametrize(("width", "tiles"), [(4096, False), (4098, True), (4097, True)])
def test_a_large_heic_is_made_of_tiles_as_cameras_do(width, tiles):
    """Beyond their limits, decoders show nothing; ours has none."""
    picture = images.Picture(np.asarray(gradient(width, 70), np.float32))
    result = results.write_picture(picture, format="heic", quality=90, keep_gps=True, facts={})
    assert (b"grid" in result[:2000]) == tiles
    np.testing.assert_allclose(read(result).rgb, picture.rgb, atol=12)


@pytest.mark.parametrize("form", ["png", "webp", "tiff", "heic"])
def test_alpha_is_kept(form):
    picture = read(encoded(gradient(mode="RGBA")))
    alpha = np.zeros((48, 64), np.float32)
    alpha[:, 32:] = 255
    result = results.write_picture(
        replace(picture, alpha=alpha), format=form, quality=90, keep_gps=True, facts={}
    )
    assert np.abs(read(result).alpha - alpha).mean() < 3


@pytest.mark.parametrize("size", [(256, 256), (201, 77), (5, 300)])
def test_what_can_t_be_seen_does_not_darken_the_edges_of_what_can(size):
    """A light shape, cut out: behind it lies black."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    inside = (rows / size[0] - 0.5) ** 2 + (columns / size[1] - 0.5) ** 2 < 0.16
    light = np.uint8([230, 200, 90])
    cut_out = np.dstack([inside[..., None] * light, inside * np.uint8(255)])
    picture = read(encoded(Image.fromarray(cut_out)))
    np.testing.assert_array_equal(picture.alpha, inside * 255)
    np.testing.assert_array_equal(picture.rgb, np.broadcast_to(light, picture.rgb.shape))
    hidden = read(encoded(Image.fromarray(cut_out * np.uint8([1, 1, 1, 0]))))
    np.testing.assert_array_equal(hidden.rgb, cut_out[..., :3])


TIFF_MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBX", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "I;16B", "F"]  # fmt: skip


def tiff_picture(mode):
    if mode.startswith("I"):
        values = np.linspace(0, 65535, 64 * 48).reshape(48, 64)
        return Image.fromarray(values.astype({"I": "<i4", "I;16": "<u2", "I;16B": ">u2"}[mode]))
    if mode == "F":
        return Image.fromarray(np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(48, 64))
    if mode == "LAB":
        profiles = (ImageCms.createProfile(name) for name in ("sRGB", "LAB"))
        return ImageCms.profileToProfile(gradient(), *profiles, outputMode="LAB")
    return gradient(mode="P").convert("PA") if mode == "PA" else gradient(mode=mode)


def tiff_of(
    samples, photometric, *, planes=False, packed=False, order="<", bits=None, kind=1, alpha=2
):
    """A TIFF of (H, W, samples), as few write it: in planes, compressed or not, in either order."""
    height, width, count = samples.shape
    bits = bits or 8 * samples.dtype.itemsize
    samples = samples.astype(samples.dtype.newbyteorder(order))
    parts = np.moveaxis(samples, 2, 0) if planes else [samples]
    strips = [part.tobytes() for part in parts]
    if bits == 12:
        whole = "".join(f"{value:012b}" for value in samples.flat)
        strips = [int(whole, 2).to_bytes(len(whole) // 8, "big")]
    if packed:
        strips = [zlib.compress(strip) for strip in strips]
    starts = [8 + sum(map(len, strips[:number])) for number in range(len(strips))]
    entries = [
        (256, [width]), (257, [height]), (258, [bits] * count), (259, [8 if packed else 1]),
        (262, [photometric]), (273, starts), (277, [count]), (278, [height]),
        (279, list(map(len, strips))), (284, [2 if planes else 1]), (339, [kind] * count),
    ]  # fmt: skip
    if count in {2, 4}:
        entries.insert(-1, (338, [alpha]))
    body = b"".join(strips)
    after, table = b"", b""
    place = 8 + len(body)
    for tag, values in entries:
        value = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            after += value
            value = struct.pack(f"{order}I", place + len(after) - len(value))
        table += struct.pack(f"{order}HHI", tag, 4, len(values)) + value
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(f"{order}2sHI", mark, 42, place + len(after))
    return head + body + after + struct.pack(f"{order}H", len(entries)) + table + bytes(4)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("depth", ["u1", "u2"])
@pytest.mark.parametrize(("count", "photometric"), [(1, 1), (3, 2), (4, 2)])
def test_a_tiff_s_pixels_are_found_however_they_lie(
    depth, count, photometric, planes, order, packed
):
    shades = np.stack([np.roll(RAMP, 500 * band) for band in range(count)], -1)
    shades[..., 3:] = np.maximum(shades[..., 3:], 0.01)  # what can't be seen has no colour
    values = (shades * np.iinfo(depth).max).astype(depth)
    data = tiff_of(values, photometric, planes=planes, packed=packed, order=order)
    picture, result = unchanged(data, "same")
    wanted = np.broadcast_to(shades[..., :3] * 255, picture.rgb.shape)
    np.testing.assert_allclose(picture.rgb, wanted, atol=1)
    np.testing.assert_array_equal(result.rgb, np.rint(picture.rgb))
    if count == 4:
        np.testing.assert_allclose(picture.alpha, shades[..., 3] * 255, atol=1)


@pytest.mark.parametrize(("count", "photometric"), [(2, 1), (4, 2)])
def test_a_tiff_s_pixels_may_be_multiplied_by_their_alpha(count, photometric):
    alpha = np.where(np.arange(64) < 32, 255, 64) + np.zeros((48, 1), int)
    shades = np.repeat((RAMP * 255)[..., None], count - 1, axis=-1)
    samples = np.dstack([np.rint(shades * alpha[..., None] / 255), alpha]).astype("u1")
    photo, result = unchanged(tiff_of(samples, photometric, alpha=1), "same")
    np.testing.assert_allclose(photo.rgb, np.repeat((RAMP * 255)[..., None], 3, -1), atol=4)
    np.testing.assert_array_equal(photo.alpha, alpha)
    np.testing.assert_array_equal(result.alpha, alpha)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("depth", "kind", "top"), [("f4", 3, 1.0), ("i4", 2, 2**31 - 1), ("i2", 2, 2**15 - 1)]
)
def test_fine_greys_are_found_in_either_order(depth, kind, top, order, packed):
    values = (RAMP[..., None] * top).astype(depth)
    rgb = read(tiff_of(values, 1, packed=packed, order=order, kind=kind)).rgb
    np.testing.assert_allclose(rgb[..., 0], RAMP * 255, atol=0.01)


@pytest.mark.parametrize("packed", [False, True])
def test_greys_of_12_bits_end_at_white(packed):
    values = (RAMP[..., None] * 4095).astype("u2")
    rgb = read(tiff_of(values, 1, bits=12, packed=packed)).rgb
    np.testing.assert_allclose(rgb[..., 0], RAMP * 255, atol=0.1)


@pytest.mark.parametrize("packed", [False, True])
def test_grey_and_alpha_in_planes_are_refused_and_not_taken_for_nothing(packed):
    values = np.full((48, 64, 2), 200, np.uint8)
    with pytest.raises(InputError, match="Save it as such"):
        read(tiff_of(values, 1, planes=True, packed=packed))


def unchanged(data, form):
    """Reads a photo and writes it as if it had been painted just as it is."""
    picture = read(data)
    wanted = picture.format if form == "same" else form
    result = results.write_picture(picture, format=wanted, quality=95, keep_gps=True, facts={})
    return picture, read(result)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", TIFF_MODES)
def test_a_tiff_of_any_mode_comes_back_as_the_same_picture(mode, compression):
    data = encoded(tiff_picture(mode), "TIFF", compression=compression)
    photo, result = unchanged(data, "same")
    np.testing.assert_array_equal(result.rgb, np.rint(photo.rgb))
    if photo.alpha is not None:
        np.testing.assert_array_equal(result.alpha, photo.alpha)
    if not mode.startswith(("1", "I", "F")):
        assert np.abs(photo.rgb - np.asarray(gradient(), np.float32)).mean() < 75
    for form in ("jpeg", "png"):
        photo, result = unchanged(data, form)
        assert result.rgb.shape == photo.rgb.shape


PLACE = b"48,7.4074N"
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:GPSLatitude="' + PLACE + b'"/></rdf:RDF>'
    b"</x:xmpmeta>"
)


def exif_with_the_place_in_every_corner():
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Acme", "Acme X100"
    exif[ExifTags.Base.XMLPacket] = XMP
    exif[ExifTags.Base.IPTCNAA] = b"\x1c\x02\x5a\x00\x0a" + PLACE
    exif[ExifTags.Base.ImageResources] = b"8BIM\x04\x04\0\0\0\0\0\x0a" + PLACE
    for tag in (33550, 33922, 34264, 34735, 34736, 34737, 42112):  # GeoTIFF
        exif[tag] = PLACE.decode()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = b"Acme" + PLACE
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2026:05:01 10:00:00"
    place = exif.get_ifd(ExifTags.IFD.GPSInfo)
    place[ExifTags.GPS.GPSLatitudeRef] = "N"
    place[ExifTags.GPS.GPSLatitude] = (48.0, 7.0, TiffImagePlugin.IFDRational(2_222_221, 50_021))
    place[ExifTags.GPS.GPSAreaInformation] = PLACE
    return exif.tobytes()


EXIF = exif_with_the_place_in_every_corner()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_the_place_is_nowhere_in_a_result_that_must_not_tell_it(form):
    images.register_heif()
    more = {"xmp": XMP}
    if form == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        text.add_text("Comment", PLACE.decode())
        more = {"pnginfo": text}
    data = encoded(gradient(), form, exif=EXIF, **more)
    assert PLACE in data
    for wanted in results.EXTENSIONS:
        result, silent = (
            results.write_picture(read(data), format=wanted, quality=90, keep_gps=keep, facts={})
            for keep in (True, False)
        )
        assert (PLACE in result, PLACE in silent) == (True, False)
        assert b"GPSLatitude" not in silent
        for order in "<>":
            assert struct.pack(f"{order}II", 2_222_221, 50_021) not in silent
        with Image.open(io.BytesIO(silent)) as written:
            exif = written.getexif()
            assert ExifTags.IFD.GPSInfo not in exif
            assert exif[ExifTags.Base.Model] == "Acme X100"
            taken = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal]
            assert taken == "2026:05:01 10:00:00"


def exif_of(*entries):
    """EXIF of these types and values: of the photo (0), its shot (34665) and that one's (40965)."""
    tables = {
        group: TiffImagePlugin.ImageFileDirectory_v2(group=group) for group in (40965, 34665, None)
    }
    for group, tag, kind, value in entries:
        tables[group].tagtype[tag] = kind
        tables[group][tag] = value
    head = b"Exif\0\0II*\0\x08\0\0\0"
    tables[None][34665] = 0
    tables[None][34665] = place = 8 + len(tables[None].tobytes(8))
    if tables[40965]:
        tables[34665][40965] = 0
        tables[34665][40965] = place + len(tables[34665].tobytes(place))
    parts = [tables[None].tobytes(8), tables[34665].tobytes(place)]
    return head + b"".join(parts) + tables[40965].tobytes(8 + sum(map(len, parts)))


def entries_of(data):
    """Types and values of a result's EXIF, as they lie there."""
    with Image.open(io.BytesIO(data)) as written:
        exif = written.info.get("exif", data).removeprefix(b"Exif\0\0")
    found, places = {}, [(None, struct.unpack_from(f"{order_of(exif)}I", exif, 4)[0])]
    for group, place in places:
        table = TiffImagePlugin.ImageFileDirectory_v2(exif[:8], group=group)
        stream = io.BytesIO(exif)
        stream.seek(place)
        table.load(stream)
        for tag, raw in table._tagdata.items():
            found[group, tag] = table.tagtype[tag], raw
            if tag in {34665, 40965}:
                places.append((tag, table[tag]))
    return found


def order_of(exif):
    return "<" if exif.startswith(b"II") else ">"


@pytest.mark.parametrize("wanted", results.EXTENSIONS)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_exif_is_carried_as_it_lies_in_letters_of_any_kind(form, wanted):
    """Also what is neither text nor number: as numbers, no one shows it as it is meant."""
    entries = [
        (None, ExifTags.Base.Artist, 2, "Änne ❤".encode()),
        (None, ExifTags.Base.Copyright, 2, "© Änne".encode("latin-1")),
        (34665, ExifTags.Base.LensModel, 2, "Grün 1:2".encode()),
        (34665, ExifTags.Base.UserComment, 7, b"ASCII\0\0\0By the lake"),
        (34665, ExifTags.Base.ComponentsConfiguration, 7, b"\1\2\3\0"),
        (34665, ExifTags.Base.SceneType, 7, b"\1"),
        (34665, ExifTags.Base.CompositeImageExposureTimes, 7, b"\0\1\2\3\4\5\6\7"),
        (40965, 1, 2, b"R98"),
    ]
    images.register_heif()
    data = encoded(gradient(), form, exif=exif_of(*entries))
    if form == "TIFF":  # where Pillow loses the last table and wrote question marks
        *entries, _ = entries
        data = encoded(gradient(), form, exif=exif_of(*entries))
        for _, _, _, value in entries:
            data = data.replace(value.decode("latin-1").encode("ascii", "replace"), value)
    result = results.write_picture(read(data), format=wanted, quality=90, keep_gps=True, facts={})
    found = entries_of(result)
    for group, tag, kind, value in entries:
        assert found[group, tag] == (kind, value + b"\0" * (kind == 2))


@pytest.mark.parametrize("wanted", ["jpeg", "tiff"])
def test_exif_of_another_type_than_it_should_be_is_carried_as_it_lies_too(wanted):
    entries = [
        (34665, ExifTags.Base.UserComment, 2, b"By the lake"),
        (34665, ExifTags.Base.FileSource, 3, 3),
        (34665, ExifTags.Base.ComponentsConfiguration, 3, (1, 2, 3, 0)),
    ]
    data = encoded(gradient(), "JPEG", exif=exif_of(*entries))
    photo = entries_of(data)
    result = results.write_picture(read(data), format=wanted, quality=90, keep_gps=True, facts={})
    found = entries_of(result)
    for group, tag, kind, _ in entries:
        assert found[group, tag] == photo[group, tag]
        assert photo[group, tag][0] == kind


def test_the_exif_of_an_avif_that_is_turned_is_carried_as_it_lies():
    """Pillow writes it anew, as its turn is told elsewhere, with question marks for letters."""
    name = "Änne ❤".encode()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Artist] = 6, "x" * len(name)
    data = encoded(gradient(40, 24), "AVIF", exif=exif).replace(b"x" * len(name), name)
    assert b"??" in Image.open(io.BytesIO(data)).info["exif"]
    picture = read(data)
    assert picture.rgb.shape == (40, 24, 3)
    result = results.write_picture(picture, format="jpeg", quality=90, keep_gps=True, facts={})
    found = entries_of(result)
    assert found[None, ExifTags.Base.Artist] == (2, name + b"\0")
    assert found[None, ExifTags.Base.Orientation][1] in {b"\0\1", b"\1\0"}


def test_the_exif_of_a_big_tiff_comes_along():
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "X100"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] = "Summicron"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    data = encoded(gradient(), "TIFF", exif=exif.tobytes(), big_tiff=True)
    result = results.write_picture(read(data), format="jpeg", quality=90, keep_gps=True, facts={})
    found = entries_of(result)
    assert found[None, ExifTags.Base.Model] == (2, b"X100\0")
    assert found[34665, ExifTags.Base.LensModel] == (2, b"Summicron\0")
    assert Image.open(io.BytesIO(result)).getexif().get_ifd(ExifTags.IFD.GPSInfo) == {1: "N"}


@pytest.mark.parametrize("wanted", results.EXTENSIONS)
@pytest.mark.parametrize(
    ("option", "profile", "converted"),
    [(b"R98", True, True), (b"R03", True, True), (b"R03", False, True), (b"R98", False, False)],
)
def test_exif_does_not_tell_of_adobe_rgb_where_colours_were_converted(
    option, profile, converted, wanted
):
    """By no profile and not as Adobe RGB, it may still mean what it says."""
    exif = exif_of(
        (34665, ExifTags.Base.ColorSpace, 3, 65535),
        (34665, ExifTags.Base.Gamma, 5, 2.2),
        (40965, 1, 2, option),
    )
    more = {"icc_profile": DISPLAY_P3} if profile else {}
    data = encoded(gradient(), "JPEG", exif=exif, **more)
    result = results.write_picture(read(data), format=wanted, quality=90, keep_gps=True, facts={})
    found = entries_of(result)
    assert found[34665, ExifTags.Base.ColorSpace][1] == (b"\1\0" if converted else b"\xff\xff")
    assert found.get((40965, 1)) == (None if converted else (2, option + b"\0"))
    assert ((34665, ExifTags.Base.Gamma) in found) != converted
    assert ("icc_profile" in Image.open(io.BytesIO(result)).info) == converted


@pytest.mark.parametrize("known", [True, False])
def test_the_size_that_exif_tells_of_is_the_result_s(known):
    exif = Image.Exif()
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.DateTimeOriginal] = "2026:05:01 10:00:00"
    if known:
        inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight] = 4000, 3000
    picture = images.Picture(np.zeros((6, 8, 3), np.float32), exif=exif.tobytes())
    result = results.write_picture(picture, format="jpeg", quality=90, keep_gps=True, facts={})
    with Image.open(io.BytesIO(result)) as written:
        inner = written.getexif().get_ifd(ExifTags.IFD.Exif)
    assert inner.get(ExifTags.Base.ExifImageWidth) == (8 if known else None)
    assert inner.get(ExifTags.Base.ExifImageHeight) == (6 if known else None)


@pytest.mark.parametrize("wanted", ["jpeg", "tiff"])
def test_what_counts_in_the_photo_s_pixels_is_in_no_result(wanted):
    """The result is smaller, and turned: a face would lie beyond its edge, a sensor be tiny."""
    counted = [
        (34665, 0x9214, 3, (2009, 1502, 2208, 1387)),
        (34665, 0xA214, 3, (2009, 1502)),
        (34665, ExifTags.Base.FocalPlaneXResolution, 5, 5728.0),
        (34665, ExifTags.Base.FocalPlaneYResolution, 5, 5808.0),
        (34665, ExifTags.Base.FocalPlaneResolutionUnit, 3, 2),
        (40965, ExifTags.Base.RelatedImageWidth, 4, 6000),
        (40965, ExifTags.Base.RelatedImageLength, 4, 4000),
    ]
    kept = [(34665, ExifTags.Base.FocalLength, 5, 50.0), (40965, 1, 2, b"R98")]
    data = encoded(gradient(), "JPEG", exif=exif_of(*counted, *kept))
    result = results.write_picture(read(data), format=wanted, quality=90, keep_gps=True, facts={})
    found = entries_of(result)
    assert not found.keys() & {entry[:2] for entry in counted}
    assert found.keys() >= {entry[:2] for entry in kept}


@pytest.mark.parametrize("entry", [(9, -1), (4, 1 << 30), (2, b"nowhere")])
def test_a_table_within_exif_that_is_at_no_place_costs_the_rest_nothing(entry):
    exif = exif_of((None, ExifTags.Base.Model, 2, b"X100"), (34665, 40965, *entry))
    result = results.write_picture(
        read(encoded(gradient(), "JPEG", exif=exif)),
        format="jpeg", quality=90, keep_gps=True, facts={},
    )  # fmt: skip
    found = entries_of(result)
    assert found[None, ExifTags.Base.Model] == (2, b"X100\0")
    assert (34665, 40965) not in found


@pytest.mark.parametrize("size", [60_000, 65_200, 65_450, 70_000, 3_000_000])
@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff", "heic"])
def test_exif_of_any_length_costs_no_photo(form, size):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Acme"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"x" * size
    data = encoded(gradient(), "PNG", exif=exif)
    result = results.write_picture(
        read(data), format=form, quality=95, keep_gps=True, facts={"a": "b"}
    )
    assert read(result).rgb.shape == (48, 64, 3)
    assert results.read_facts(result) == {"a": "b"}
    if form != "jpeg":  # which has no room for more than 64 kB
        assert headers.probe(io.BytesIO(result)).camera == "Acme"


@pytest.mark.parametrize("keep_gps", [True, False])
@pytest.mark.parametrize("form", results.EXTENSIONS)
def test_what_is_one_file_s_alone_is_in_no_result(form, keep_gps):
    """By a phone's note, catalogues tie a photo to its film; the note may be longer than a JPEG."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Acme", "X100"
    exif[ExifTags.Base.DNGPrivateData] = b"Acme\0private"
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.MakerNote] = b"Acme\0note" + b"x" * 70_000
    inner[ExifTags.Base.ImageUniqueID] = "1234567890abcdef" * 2
    inner[ExifTags.Base.LensModel] = "Summicron"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    picture = images.Picture(np.zeros((8, 8, 3), np.float32), exif=exif.tobytes())
    result = results.write_picture(picture, format=form, quality=90, keep_gps=keep_gps, facts={})
    assert not [own for own in (b"Acme\0note", b"Acme\0private", b"1234567890") if own in result]
    with Image.open(io.BytesIO(result)) as written:
        exif = written.getexif()
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        assert (exif[ExifTags.Base.Make], exif[ExifTags.Base.Model]) == ("Acme", "X100")
        assert inner == {ExifTags.Base.LensModel: "Summicron"}
        assert bool(exif.get_ifd(ExifTags.IFD.GPSInfo)) == keep_gps


LAYOUT = (512, 513, 514, 515, 519, 520, 521, 32995, 32996, 32997, 32998)
"""Of a JPEG within a TIFF, and SGI's, by which a colour may be taken for alpha."""


@pytest.mark.parametrize("form", results.EXTENSIONS)
def test_no_result_is_taken_for_a_raw_file_or_for_an_old_kind_of_jpeg(form):
    exif = Image.Exif()
    exif[50706], exif[50707] = b"\1\4\0\0", b"\1\1\0\0"  # DNG's versions
    for tag in LAYOUT:
        exif[tag] = 100
    exif[ExifTags.Base.Make] = "Acme"
    photo = read(encoded(gradient(), "JPEG", exif=exif))
    result = results.write_picture(photo, format=form, quality=90, keep_gps=True, facts={})
    assert read(result).rgb.shape == (48, 64, 3)
    with Image.open(io.BytesIO(result)) as written:
        carried = written.getexif()
        assert carried[ExifTags.Base.Make] == "Acme"
        assert not carried.keys() & {*LAYOUT, 50706, 50707}


def test_what_has_no_room_in_any_format_is_said_not_hidden():
    wide = images.Picture(np.zeros((1, 17_000, 3), np.float32))
    with pytest.raises(ValueError, match="too large|16383|encoding"):
        results.write_picture(wide, format="webp", quality=90, keep_gps=True, facts={})


@pytest.mark.parametrize(
    "resolution", [(0, 0), (1, 0), (0, 1), (1, 1000), (4_000_000_000, 1), (300, 1)]
)
@pytest.mark.parametrize("unit", [1, 2, 3])
def test_a_resolution_that_makes_no_sense_is_dropped(resolution, unit):
    value = TiffImagePlugin.IFDRational(*resolution)
    data = encoded(gradient(), "TIFF", tiffinfo={282: value, 283: value, 296: unit})
    sensible = resolution == (300, 1) and unit > 1
    picture = read(data)
    assert bool(picture.dpi) == sensible
    for form in results.EXTENSIONS:
        result = results.write_picture(picture, format=form, quality=90, keep_gps=True, facts={})
        if sensible and form in {"jpeg", "png", "tiff"}:
            assert read(result).dpi == pytest.approx(picture.dpi, abs=0.5)


@given(st.one_of(st.none(), st.text(max_size=3), st.lists(st.floats(), max_size=3).map(tuple)))
def test_only_two_finite_numbers_are_a_resolution(found):
    dpi = images._sensible_dpi(found)
    if dpi:
        assert all(0.5 < value < 65536 for value in dpi)
        assert len(found) == 2


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what it finds in there
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP"]),
    st.sampled_from(["jpeg", "tiff"]),
    st.dictionaries(st.integers(6, len(EXIF) - 1), st.integers(0, 255), max_size=12),
)
def test_damaged_exif_is_no_damaged_photo(form, wanted, damage):
    """Only the orientation, which may appear by chance, has its say on the pixels."""
    exif = bytes(damage.get(place, byte) for place, byte in enumerate(EXIF))
    data = encoded(gradient(48, 48), form, exif=exif, dpi=(72, 72), lossless=True, quality=100)
    photo, result = unchanged(data, wanted)
    np.testing.assert_allclose(photo.rgb.mean(), np.asarray(gradient(48, 48)).mean(), atol=2)
    np.testing.assert_allclose(result.rgb.mean(), photo.rgb.mean(), atol=2)
    headers.probe(io.BytesIO(data))
    results.read_facts(data)


def test_what_is_sound_in_broken_exif_is_carried_and_turns_the_photo():
    """Pillow can't write it anew: a unit that has no room in its tag, and a number for a word."""
    place = TiffImagePlugin.ImageFileDirectory_v2(group=ExifTags.IFD.GPSInfo)
    place.tagtype[ExifTags.GPS.GPSLatitudeRef] = 5  # RATIONAL
    place[ExifTags.GPS.GPSLatitudeRef] = 48.5
    place[ExifTags.GPS.GPSLongitudeRef] = "E"
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    ifd[ExifTags.Base.Orientation] = 6
    ifd[ExifTags.Base.Model] = "X100"
    ifd.tagtype[ExifTags.Base.ResolutionUnit] = 4  # LONG
    ifd[ExifTags.Base.ResolutionUnit] = 70_000
    ifd[ExifTags.IFD.GPSInfo] = 0
    ifd[ExifTags.IFD.GPSInfo] = 8 + len(ifd.tobytes(8))
    exif = b"Exif\0\0II*\0\x08\0\0\0" + ifd.tobytes(8)
    exif += place.tobytes(ifd[ExifTags.IFD.GPSInfo])
    data = encoded(gradient(40, 24), "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as image, pytest.raises(struct.error):
        image.getexif().tobytes()
    picture = read(data)
    assert picture.rgb.shape == (40, 24, 3)
    result = results.write_picture(picture, format="jpeg", quality=90, keep_gps=True, facts={})
    with Image.open(io.BytesIO(result)) as written:
        exif = written.getexif()
        assert exif[ExifTags.Base.Model] == "X100"
        assert ExifTags.Base.ResolutionUnit not in exif
        assert exif.get_ifd(ExifTags.IFD.GPSInfo) == {ExifTags.GPS.GPSLongitudeRef: "E"}


@pytest.mark.parametrize("group", [ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo])
def test_a_group_of_exif_that_can_t_be_read_costs_the_rest_nothing(group):
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    ifd[ExifTags.Base.Model] = "X100"
    ifd.tagtype[group] = 9  # SLONG
    ifd[group] = -1  # before the first byte
    exif = b"Exif\0\0II*\0\x08\0\0\0" + ifd.tobytes(8)
    _, result = unchanged(encoded(gradient(), "PNG", exif=exif), "jpeg")
    written = Image.Exif()
    written.load(result.exif)
    assert written[ExifTags.Base.Model] == "X100"


def test_an_odd_entry_of_a_tiff_s_exif_costs_itself_alone():
    """A time of day that is text, and layers of Photoshop's that no result needs."""
    place = TiffImagePlugin.ImageFileDirectory_v2(group=ExifTags.IFD.GPSInfo)
    place.tagtype[ExifTags.GPS.GPSTimeStamp] = 2  # ASCII
    place[ExifTags.GPS.GPSTimeStamp] = "12:00:00"
    place[ExifTags.GPS.GPSLatitudeRef] = "N"
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    ifd[ExifTags.Base.Model] = "X100"
    ifd[37724] = b"Adobe Photoshop Document Data Block"
    ifd.tagtype[ExifTags.IFD.GPSInfo] = 4  # LONG
    ifd[ExifTags.IFD.GPSInfo] = far = 100_000
    data = encoded(gradient(), "TIFF", tiffinfo=ifd).ljust(far, b"\0") + place.tobytes(far)
    picture, result = unchanged(data, "jpeg")
    assert b"Adobe" not in picture.exif
    written = Image.Exif()
    written.load(result.exif)
    assert written[ExifTags.Base.Model] == "X100"
    assert written.get_ifd(ExifTags.IFD.GPSInfo) == {ExifTags.GPS.GPSLatitudeRef: "N"}


@pytest.mark.parametrize("form", ["jpeg", "webp", "heic"])
def test_less_quality_takes_less_room(form):
    picture = images.Picture(np.asarray(gradient(), np.float32))
    low, high = (
        results.write_picture(picture, format=form, quality=quality, keep_gps=True, facts={})
        for quality in (30, 95)
    )
    assert len(low) < len(high)


@pytest.mark.parametrize(
    ("tag", "kind", "value"),
    [
        (ExifTags.Base.XMLPacket, 2, XMP.decode()),
        (ExifTags.Base.InterColorProfile, 2, "a profile"),
        (ExifTags.IFD.Exif, 9, -5),
        (ExifTags.IFD.GPSInfo, 9, -5),
    ],
)
def test_a_tiff_whose_metadata_are_of_a_strange_kind_is_painted(tag, kind, value):
    """XMP and a profile that are none, and groups at places before the file's beginning."""
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    ifd.tagtype[tag] = kind
    ifd[tag] = value
    data = encoded(gradient(), "TIFF", tiffinfo=ifd)
    photo, result = unchanged(data, "same")
    np.testing.assert_array_equal(photo.rgb, np.asarray(gradient(), np.float32))
    np.testing.assert_array_equal(result.rgb, photo.rgb)


def test_a_damaged_tiff_is_still_refused():
    data = encoded(gradient(400, 300), "TIFF", compression="tiff_lzw")
    middle = len(data) // 3
    broken = data[:middle] + bytes(5000) + data[middle + 5000 :]
    with pytest.raises(InputError) as caught:
        read(broken)
    assert caught.value.reason == "truncated"


def profile(space, *tags):
    """An ICC profile of nothing but these tags."""
    at, table, bodies = 132 + 12 * len(tags), b"", b""
    for name, body in tags:
        table += struct.pack(">4sII", name, at + len(bodies), len(body))
        bodies += body.ljust(-(-len(body) // 4) * 4, b"\0")
    head = struct.pack(">I4sI4s4s4s12x4s", at + len(bodies), b"", 0x02100000, b"mntr", space, b"XYZ ", b"acsp")  # fmt: skip
    head = head.ljust(68, b"\0") + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + bodies


def xyz(*values):
    return struct.pack(">4s4x3i", b"XYZ ", *(round(value * 65536) for value in values))


WHITE = (b"wtpt", xyz(0.9642, 1.0, 0.8249))
LINEAR = struct.pack(">4s4xIH", b"curv", 1, 0x0100)
LINEAR_GREY = profile(b"GRAY", WHITE, (b"kTRC", LINEAR))
BLUE_FOR_RED = profile(
    b"RGB ", WHITE,
    *((name, LINEAR) for name in (b"rTRC", b"gTRC", b"bTRC")),
    (b"bXYZ", xyz(0.4361, 0.2225, 0.0139)), (b"gXYZ", xyz(0.3851, 0.7169, 0.0971)),
    (b"rXYZ", xyz(0.1431, 0.0606, 0.7141)),
)  # fmt: skip

POWER = struct.pack(">4s4xIH", b"curv", 1, 0x0233)  # 2.2, nearly sRGB's curve
DISPLAY_P3 = profile(
    b"RGB ", WHITE,
    *((name, POWER) for name in (b"rTRC", b"gTRC", b"bTRC")),
    (b"bXYZ", xyz(0.1571, 0.0666, 0.7841)), (b"gXYZ", xyz(0.2920, 0.6922, 0.0419)),
    (b"rXYZ", xyz(0.5151, 0.2412, -0.0011)),
)  # fmt: skip


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_the_profile_of_colours_is_applied_in_every_mode(mode):
    red = Image.new("RGB", (8, 8), (255, 0, 0)).convert(mode)
    picture = read(encoded(red, "PNG", icc_profile=BLUE_FOR_RED))
    np.testing.assert_allclose(picture.rgb[0, 0], (0, 0, 255), atol=3)
    result = results.write_picture(picture, format="png", quality=90, keep_gps=True, facts={})
    np.testing.assert_allclose(read(result).rgb, picture.rgb, atol=1)


def test_a_wide_gamut_s_colours_come_out_right_in_srgb():
    """These are sRGB's red, green, blue and brown in Display P3, and P3's own red beyond it."""
    theirs = [(234, 51, 35), (117, 251, 76), (0, 0, 245), (189, 124, 72), (255, 0, 0)]
    ours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 60), (255, 0, 0)]
    photo = Image.fromarray(np.array([theirs], np.uint8))
    picture = read(encoded(photo, "PNG", icc_profile=DISPLAY_P3))
    np.testing.assert_allclose(picture.rgb[0], ours, atol=12.5)
    result = results.write_picture(picture, format="png", quality=90, keep_gps=True, facts={})
    np.testing.assert_allclose(read(result).rgb, picture.rgb, atol=1)


def linear(values):
    """sRGB's light, 0…1, of its numbers 0…255."""
    values = values / 255.0
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def light_of(*primaries):
    """The matrix from RGB to XYZ, by the chromaticities of red, green and blue, white in D65."""
    xyz = np.array([[x / y, 1.0, (1.0 - x - y) / y] for x, y in primaries]).T
    white = np.array([0.3127, 0.329, 1.0 - 0.3127 - 0.329]) / 0.329
    return xyz * np.linalg.solve(xyz, white)


COLOURS = np.random.default_rng(1).integers(0, 256, (24, 3)).astype(np.uint8)
SRGB = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
BT2020 = ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046))
HALF = 188
"""sRGB's number for half of the light."""


def stripes(colours=COLOURS):
    return Image.fromarray(colours[:, np.newaxis].repeat(16, axis=0).repeat(16, axis=1))


def light_seen(data):
    """What light the photo's stripes have."""
    return linear(read(data).rgb[8::16, 8])


def in_srgb(light, primaries):
    """The same light by sRGB's primaries, where sRGB has it."""
    return (light @ (np.linalg.inv(light_of(*SRGB)) @ light_of(*primaries)).T).clip(0, 1)


def png_with(image, *chunks, **options):
    more = PngImagePlugin.PngInfo()
    for name, body in chunks:
        more.add(name, body)
    return encoded(image, "PNG", pnginfo=more, **options)


def with_code_points(image, form, primaries, transfer, **more):
    """An image whose colours are told of by nothing but code points."""
    images.register_heif()
    if form == "PNG":
        return png_with(image, (b"cICP", bytes([primaries, transfer, 0, 1])))
    if form == "HEIF":
        points = {"color_primaries": primaries, "transfer_characteristics": transfer}
        points |= {"matrix_coefficients": 6, "full_range_flag": 1}
        return encoded(image, "HEIF", quality=-1, chroma=444, **points, **more)
    data = encoded(image, "AVIF", quality=100, subsampling="4:4:4", **more)
    start, points, rest = data.partition(b"colrnclx\0\1\0\r")
    assert points
    return start + struct.pack(">8sHH", b"colrnclx", primaries, transfer) + rest


@pytest.mark.parametrize("form", ["PNG", "HEIF", "AVIF"])
@pytest.mark.parametrize(("points", "primaries"), [((12, 13), P3), ((9, 13), BT2020)])
def test_colours_that_only_code_points_tell_of_come_out_right_in_srgb(form, points, primaries):
    data = with_code_points(stripes(), form, *points)
    wanted = in_srgb(linear(COLOURS), primaries)
    np.testing.assert_allclose(light_seen(data), wanted, atol=0.03)
    assert np.abs(linear(COLOURS) - wanted).max() > 0.1
    photo, result = unchanged(data, "png")
    np.testing.assert_allclose(result.rgb, photo.rgb, atol=1)
    assert result.icc


@pytest.mark.parametrize("form", ["PNG", "HEIF", "AVIF"])
@pytest.mark.parametrize("points", [(1, 1), (5, 6), (2, 2)])
def test_code_points_of_srgb_or_of_television_change_nothing(form, points):
    plain, told = (with_code_points(stripes(), form, *each) for each in ((1, 13), points))
    np.testing.assert_array_equal(read(told).rgb, read(plain).rgb)
    assert read(told).icc is None


def in_pq(light):
    """SMPTE ST 2084's numbers for so many cd/m²."""
    root = (light / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)) ** 78.84375


def in_hlg(light):
    """BT.2100's HLG for so many cd/m², on a screen of 1000."""
    scene = (light / 1000) ** (1 / 1.2)
    bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


@pytest.mark.parametrize("form", ["PNG", "HEIF", "AVIF"])
def test_hdr_is_toned_down_to_what_srgb_can_show(form):
    """Paper, at 203 cd/m², is nearly white; what is darker stays, and what is brighter differs."""
    light = np.array([0, 2, 10, 36, 80, 203, 500, 1000, 4000])
    seen = {}
    for transfer, numbers in ((16, in_pq(light)), (18, in_hlg(light))):
        greys = np.rint(255 * np.minimum(numbers, 1)).astype(np.uint8)[:, np.newaxis].repeat(3, 1)
        rgb = read(with_code_points(stripes(greys), form, 9, transfer)).rgb[8::16, 8]
        np.testing.assert_allclose(rgb, rgb[:, :1].repeat(3, 1), atol=2)
        seen[transfer] = rgb[:, 0]
        np.testing.assert_allclose(linear(rgb[:5, 0]), light[:5] / 203, atol=0.02)
        assert 215 < rgb[5, 0] < 240
        assert (np.diff(rgb[:8, 0]) > 0).all()
        assert rgb[7:, 0].min() > 252
    np.testing.assert_allclose(seen[16], seen[18], atol=4)


@pytest.mark.parametrize(("transfer", "numbers"), [(16, in_pq), (18, in_hlg)])
def test_hdr_s_colours_come_out_right_in_srgb(transfer, numbers):
    light = linear(COLOURS) * 80
    photo = stripes(np.rint(255 * numbers(light)).astype(np.uint8))
    data = with_code_points(photo, "PNG", 9, transfer)
    np.testing.assert_allclose(light_seen(data), in_srgb(light / 203, BT2020), atol=0.03)


def gamma(value):
    return b"gAMA", struct.pack(">I", round(value * 100_000))


def chromaticities(*colours):
    points = ((0.3127, 0.329), *colours)
    return b"cHRM", struct.pack(">8I", *(round(value * 100_000) for xy in points for value in xy))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "I;16"])
def test_a_png_s_gamma_is_applied_in_every_mode(mode):
    middle = Image.new("L", (8, 8), 128)
    grey = (
        Image.fromarray(np.full((8, 8), 128 * 257, np.uint16))
        if mode == "I;16"
        else middle.convert(mode)
    )
    for value, wanted in ((1.0, HALF), (1 / 1.8, 146.4), (0.45455, 128)):
        rgb = read(png_with(grey, gamma(value))).rgb
        np.testing.assert_allclose(rgb, wanted, atol=1.5)


def test_a_png_s_chromaticities_are_applied():
    for curve in ((), (gamma(0.45455),)):
        data = png_with(stripes(), *curve, chromaticities(*ADOBE_RGB))
        wanted = in_srgb(linear(COLOURS), ADOBE_RGB)
        np.testing.assert_allclose(light_seen(data), wanted, atol=0.03)


@pytest.mark.parametrize(
    ("chunks", "profile", "primaries"),
    [
        ([(b"cICP", b"\x0c\x0d\0\1"), gamma(1.0)], "BLUE_FOR_RED", P3),
        ([(b"cICP", b"\x01\x0d\0\1"), gamma(1.0)], "BLUE_FOR_RED", SRGB),
        ([gamma(1.0), chromaticities(*BT2020)], "DISPLAY_P3", P3),
        ([(b"sRGB", b"\0"), gamma(1.0), chromaticities(*BT2020)], None, SRGB),
        ([gamma(0.45455), chromaticities(*SRGB)], None, SRGB),
        ([gamma(0), chromaticities((0, 0), (0, 0), (0, 0))], None, SRGB),
        ([chromaticities((0.3, 0.3), (0.3, 0.3), (0.3, 0.3))], None, SRGB),
        ([(b"cICP", b"")], "DISPLAY_P3", P3),
    ],
    ids=["cICP", "sRGB's cICP", "iCCP", "sRGB", "gAMA and cHRM", "zeros", "no colours", "empty"],
)
def test_what_counts_of_a_png_s_chunks_is_what_its_standard_says(chunks, profile, primaries):
    icc = {"icc_profile": globals()[profile]} if profile else {}
    data = png_with(stripes(), *chunks, **icc)
    wanted = in_srgb(linear(COLOURS), primaries)
    np.testing.assert_allclose(light_seen(data), wanted, atol=0.03)


@pytest.mark.parametrize("write", ["text", "compressed", "international"])
def test_a_png_s_texts_are_nothing_but_texts(write):
    """Programs copy what Pillow told them of a picture into texts by the same names."""
    texts = PngImagePlugin.PngInfo()
    for name in (
        "interlace", "icc_profile", "transparency", "gamma", "chromaticity", "srgb", "dpi", "exif",
        "bbox", "default_image", "duration", "xmp",
    ):  # fmt: skip
        if write == "international":
            texts.add_itxt(name, "(1, 2)")
        else:
            texts.add_text(name, "(1, 2)", zip=write == "compressed")
    told, plain = (
        read(encoded(gradient(), "PNG", icc_profile=DISPLAY_P3, dpi=(300, 300), exif=EXIF, **more))
        for more in ({"pnginfo": texts}, {})
    )
    np.testing.assert_array_equal(told.rgb, plain.rgb)
    assert (told.icc, told.dpi, told.exif) == (plain.icc, plain.dpi, plain.exif)
    assert told.alpha is None


def test_a_png_s_exif_may_be_a_text_of_imagemagick_s():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Model] = 6, "X100"
    text = PngImagePlugin.PngInfo()
    raw = exif.tobytes()
    text.add_text("Raw profile type exif", f"\nexif\n{len(raw):8}\n{raw.hex()}\n", zip=True)
    data = encoded(gradient(40, 24), "PNG", pnginfo=text)
    picture, facts = read(data), headers.probe(io.BytesIO(data))
    assert picture.rgb.shape == (40, 24, 3)
    assert (facts.width, facts.height, facts.camera) == (24, 40, "X100")


@pytest.mark.parametrize("form", ["HEIF", "AVIF"])
def test_a_brand_that_heic_and_avif_share_is_read_as_what_it_is(form):
    images.register_heif()
    data = encoded(gradient(), form)
    shared = data[:8] + b"mif1" + data[12:]
    np.testing.assert_array_equal(read(shared).rgb, read(data).rgb)
    assert headers.probe(io.BytesIO(shared)).width == 64


@pytest.mark.parametrize(
    "exif",
    [
        exif_of((34665, ExifTags.Base.ColorSpace, 3, 65535), (40965, 1, 2, b"R03")),
        exif_of((34665, ExifTags.Base.ColorSpace, 3, 2)),
    ],
    ids=["DCF", "ColorSpace 2"],
)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_adobe_rgb_that_a_camera_only_tells_of_in_exif_comes_out_right_in_srgb(form, exif):
    """Also where there is a profile that can't be read."""
    options = {"quality": 100, "subsampling": 0} if form == "JPEG" else {"lossless": True}
    wanted = in_srgb((COLOURS / 255.0) ** (563 / 256), ADOBE_RGB)
    for icc in (b"", b"not a profile at all"):
        data = encoded(stripes(), form, exif=exif, icc_profile=icc, **options)
        np.testing.assert_allclose(light_seen(data), wanted, atol=0.03)
    plain = light_seen(encoded(stripes(), form, **options))
    assert np.abs(plain - wanted).max() > 0.2


def test_exif_that_says_srgb_means_it():
    """Who turned a camera's Adobe RGB into it may have left the table within."""
    exif = exif_of((34665, ExifTags.Base.ColorSpace, 3, 1), (40965, 1, 2, b"R03"))
    with_exif, without = (read(encoded(gradient(), "PNG", exif=each)) for each in (exif, b""))
    np.testing.assert_array_equal(with_exif.rgb, without.rgb)
    assert with_exif.icc is None


@pytest.mark.parametrize("form", ["HEIF", "AVIF"])
@pytest.mark.parametrize(("points", "primaries"), [((1, 13), SRGB), ((2, 2), ADOBE_RGB)])
def test_exif_counts_only_where_code_points_say_nothing(form, points, primaries):
    exif = exif_of((34665, ExifTags.Base.ColorSpace, 3, 2))
    light = linear(COLOURS) if primaries is SRGB else (COLOURS / 255.0) ** (563 / 256)
    data = with_code_points(stripes(), form, *points, exif=exif)
    np.testing.assert_allclose(light_seen(data), in_srgb(light, primaries), atol=0.04)


@pytest.mark.parametrize("icc", [LINEAR_GREY, BLUE_FOR_RED], ids=["grey", "colours"])
@pytest.mark.parametrize("mode", ["L", "LA", "I;16", "LA;16"])
def test_the_profile_of_greys_is_applied_in_every_mode(mode, icc):
    """Half of the light is 188 in sRGB."""
    middle = Image.new("L", (8, 8), 128)
    if mode == "LA;16":  # which Pillow reads as RGBA
        rows = (b"\0" + struct.pack(">2H", 128 * 257, 65_535) * 8) * 8
        data = png_of(8, 8, 16, 4, rows, iCCP=b"grey\0\0" + zlib.compress(icc))
    else:
        deep = Image.fromarray(np.full((8, 8), 128 * 257, np.uint16))
        grey = deep if mode == "I;16" else middle.convert(mode)
        data = encoded(grey, "PNG", icc_profile=icc)
    np.testing.assert_allclose(read(data).rgb, 188, atol=1.5)


def test_a_profile_of_greys_leaves_colours_alone():
    red = Image.new("RGB", (8, 8), (200, 0, 0))
    picture = read(encoded(red, "PNG", icc_profile=LINEAR_GREY))
    np.testing.assert_array_equal(picture.rgb, np.asarray(red, np.float32))


def test_a_fine_grey_stays_fine_through_its_profile():
    values = np.arange(32_000, 32_000 + 64 * 48).reshape(48, 64).astype(np.uint16)
    picture = read(encoded(Image.fromarray(values), "PNG", icc_profile=LINEAR_GREY))
    assert len(np.unique(picture.rgb)) > 2000


def test_a_transparent_photo_stays_so_where_its_own_format_can_t_be_written():
    see_through = gradient(mode="RGBA")
    see_through.putalpha(
        Image.linear_gradient("L").resize((64, 48)).point(lambda v: 255 * (v > 99))
    )
    data = encoded(see_through, "GIF")
    picture = read(data)
    assert picture.format == "png"
    np.testing.assert_array_equal(unchanged(data, "same")[1].alpha, picture.alpha)
    assert read(encoded(see_through, "AVIF")).format == "png"
    for form in ("GIF", "BMP", "AVIF"):
        assert read(encoded(gradient(), form)).format == "jpeg"


def bmp_with_alpha(alpha):
    image = gradient()
    image.putalpha(alpha)
    pixels = image.tobytes("raw", "BGRA", 0, -1)
    head = struct.pack("<2s3I", b"BM", 70 + len(pixels), 0, 70)
    head += struct.pack("<3I2H6I", 56, *image.size, 1, 32, 3, len(pixels), 0, 0, 0, 0)
    return head + struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + pixels


def test_an_alpha_that_hides_nothing_is_no_transparency():
    """In a BMP, one that is zero everywhere is none either: old Windows programs wrote that."""
    images.register_heif()
    gif = encoded(gradient(mode="P"), "GIF", comment=b"nothing in index 255")
    for data, form in [
        (encoded(gradient(mode="RGBA"), "PNG"), "png"),
        (encoded(gradient(mode="LA"), "PNG"), "png"),
        (encoded(gradient(mode="RGBA"), "HEIF"), "heic"),
        (gif.replace(b"!\xfe", b"!\xf9\4\1\0\0\xff\0!\xfe", 1), "jpeg"),
        (bmp_with_alpha(255), "jpeg"),
        (bmp_with_alpha(0), "jpeg"),
    ]:
        assert Image.open(io.BytesIO(data)).has_transparency_data
        picture = read(data)
        assert picture.alpha is None
        assert picture.format == form
    assert read(bmp_with_alpha(100)).format == "png"


def png_of_size(width, height):
    """A valid PNG header with the promise of a gigantic picture."""
    return png_of(width, height, 8, 2, b"\0" * 1000)


GOOD_JPEG, GOOD_PNG = (encoded(gradient(400, 300), form) for form in ("JPEG", "PNG"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am a text file", "not-an-image"),
        (b"%PDF-1.7 ...", "not-an-image"),
        (GOOD_JPEG[: len(GOOD_JPEG) // 2], "truncated"),
        (GOOD_PNG[:600], "truncated"),
        (GOOD_PNG[:560] + b"\xff" * 9 + GOOD_PNG[569:], "truncated"),
        (png_of_size(60_000, 60_000), "too-large"),
        (png_of_size(40_000, 10), "too-large"),
    ],
    ids=["empty", "text", "pdf", "half a jpeg", "half a png", "a damaged png", "bomb", "too wide"],
)
def test_bad_bytes_are_refused_with_a_reason_in_one_line(data, reason):
    with pytest.raises(InputError) as caught:
        read(data)
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF", "BMP", "GIF"])
def test_a_picture_of_any_kind_is_known_by_its_first_bytes(form):
    images.register_heif()
    assert images.begins_as_image(encoded(gradient(), form)[:12])


@pytest.mark.parametrize(
    "head", [b"", b"hello", b"%PDF-1.7", b"AgHg", b"RIFF....AVI ", b"\0\0\0 ftypisom", b"PK\3\4"]
)
def test_what_is_no_picture_is_known_by_its_first_bytes(head):
    assert not images.begins_as_image(head)


def test_a_phone_s_108_megapixels_are_not_too_many():
    """None are decoded here."""
    header = images.open_image(io.BytesIO(png_of_size(12_000, 9_000)))
    images._check_size(header, **EngineSettings().limits)


def test_what_is_an_image_but_of_a_kind_that_can_t_be_read_is_told_so():
    grey_of_64_bits = grey_tiff(RAMP.astype("<f4"), _258=64)
    for data, what in [
        (grey_of_64_bits, "This TIFF .* 8 or 16 bits"),
        (b"\0\0\0\x20ftypavif" + bytes(20), "This AVIF .* damaged"),
        (b"\0\0\0\x20ftypheic" + bytes(20), "This HEIC .* damaged"),
        (GOOD_JPEG[:20] + b"\xff\xee\0\7Adobe" + GOOD_JPEG[20:], "This JPEG .* save it again"),
        (png_of_size(8, 8).replace(b"IDAT", b"tEXtIDAT"), "This PNG .* save it again"),
    ]:
        with pytest.raises(InputError, match=what) as caught:
            read(data)
        assert caught.value.reason == "not-an-image"


@pytest.mark.parametrize("head", [b"8BPS", b"\0\0\0\x0cJXL ", b"<svg>", b"hello"])
def test_an_image_of_a_kind_that_is_not_read_is_not_said_to_be_none(head):
    """Photoshop's, and JPEG XL: whoever has put them there sees that they are images."""
    with pytest.raises(
        InputError, match="of a kind that is read here: expected JPEG, PNG"
    ) as caught:
        read(head + bytes(100))
    assert caught.value.reason == "not-an-image"


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "AVIF"])
def test_an_animation_is_refused(form):
    frames = [gradient(), gradient().rotate(90)]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="animated"):
        read(data)


def test_of_a_tiff_with_several_pages_the_first_is_read():
    first = gradient()
    pages = encoded(first, "TIFF", save_all=True, append_images=[first.rotate(180)])
    np.testing.assert_array_equal(read(pages).rgb, read(encoded(first, "TIFF")).rgb)


@given(st.binary(max_size=300))
def test_no_bytes_whatsoever_raise_anything_but_an_input_error(data):
    for head in (
        b"",
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF0000WEBP",
        b"II*\0",
        b"GIF89a",
        b"\0\0\0\x20ftypavif",
    ):
        try:
            read(head + data)
        except InputError:
            pass
        structural_end(io.BytesIO(head + data))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "HEIF", "AVIF"])
def test_the_end_of_a_picture_is_found_and_missed(form):
    if form == "HEIF":
        images.register_heif()
    data = encoded(gradient(300, 200), form)
    assert structural_end(io.BytesIO(data)) is True
    for less in (len(data) // 3, 1):
        assert structural_end(io.BytesIO(data[:-less])) is False


def test_a_tiff_s_end_can_t_be_told():
    assert structural_end(io.BytesIO(encoded(gradient(), "TIFF"))) is None


@pytest.mark.parametrize("more", range(65_533, 65_538))
def test_an_end_is_found_before_whatever_lies_behind_it(more):
    """In whatever pieces a file is searched."""
    for data in (GOOD_JPEG, encoded(gradient())):
        assert structural_end(io.BytesIO(data + bytes(more))) is True


def test_a_jpeg_of_nothing_but_zeros_after_its_header_lacks_its_end():
    assert structural_end(io.BytesIO(GOOD_JPEG[:20] + bytes(200_000))) is False


def test_zeros_between_a_jpeg_s_segments_are_passed_over():
    data = GOOD_JPEG[:20] + bytes(10) + GOOD_JPEG[20:]
    assert read(data).rgb.any()
    assert structural_end(io.BytesIO(data)) is True
    assert structural_end(io.BytesIO(data[:-2])) is False


def test_a_heic_of_tiles_that_lacks_its_end_is_not_painted_with_holes():
    """As phones write them; libheif leaves out the tiles that are not there."""
    images.register_heif()
    data = encoded(gradient(256, 192), "HEIF", tile_size=64)
    assert read(data).rgb.shape == (192, 256, 3)
    with pytest.raises(InputError, match="last bytes") as caught:
        read(data[: len(data) * 3 // 4])
    assert caught.value.reason == "truncated"


def test_a_heic_file_s_last_box_may_have_no_length():
    """It reaches to the end of the file, wherever that is."""
    boxes = struct.pack(">I4s8s", 16, b"ftyp", b"heic") + struct.pack(">I4s", 0, b"mdat")
    assert structural_end(io.BytesIO(boxes + bytes(100))) is True


@pytest.mark.parametrize("film", [b"", struct.pack(">I4s", 108, b"mpvd") + bytes(100)])
def test_what_a_phone_writes_behind_a_heic_file_s_boxes_is_not_missing(film):
    images.register_heif()
    data = encoded(gradient(300, 200), "HEIF")
    for trailer in (b"", b"v2_f40              LIVE_1234567        ", b"junk" * 9):
        assert structural_end(io.BytesIO(data + film + trailer)) is True
        assert read(data + film + trailer).rgb.shape == (200, 300, 3)
    assert structural_end(io.BytesIO((data + film)[:-1])) is False


def test_a_gif_s_colours_may_lie_in_its_frame():
    """They may hold what looks like the end."""
    table = b";,!" * 256
    image = b"," + struct.pack("<4HB", 0, 0, 300, 200, 0x87) + table
    head = b"GIF89a" + struct.pack("<2H3B", 300, 200, 0, 0, 0) + image
    pixels = GIF[GIF.rindex(b"," + struct.pack("<4H", 0, 0, 300, 200)) + 10 :]
    assert read(head + pixels).rgb.shape == (200, 300, 3)
    assert structural_end(io.BytesIO(head + pixels)) is True
    assert structural_end(io.BytesIO(head + pixels[:-1])) is False


def bmp_of_size(more):
    data = encoded(gradient(301, 200), "BMP")
    return data[:2] + struct.pack("<I", len(data) + more) + data[6:]


GIF = encoded(gradient(300, 200, "P"), "GIF", comment=b"with a , and a ;")


@pytest.mark.parametrize(
    ("data", "truth"),
    [
        (GIF + b"\n", True),
        (GIF + b"x" * 100, True),
        (GIF[:-1] + b"\0\0;", None),
        (bmp_of_size(+2), True),
        (bmp_of_size(-2), True),
        (encoded(gradient(301, 200, "P"), "BMP"), True),
        (GOOD_JPEG[:20] + b"\0\0" + GOOD_JPEG[20:], True),
    ],
    ids=["line", "more", "stray", "too long", "too short", "palette", "zeros"],
)
def test_what_decoders_read_is_not_said_to_lack_its_end(data, truth):
    assert read(data).rgb.shape[2] == 3
    assert structural_end(io.BytesIO(data)) is truth
    for part in (data[: len(data) // 2], data[: len(data) * 2 // 3] + bytes(200_000)):
        if not data.startswith(b"BM") or len(part) < len(data):
            assert structural_end(io.BytesIO(part)) is False


def test_a_thumbnail_s_end_is_not_the_picture_s():
    exif = Image.Exif()
    exif[0x927C] = encoded(gradient(32, 32), "JPEG")
    data = encoded(gradient(400, 300), "JPEG", exif=exif.tobytes())
    assert structural_end(io.BytesIO(data[:1500])) is False


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 5000))
def test_fit_size_never_enlarges_and_keeps_the_shape(width, height, side):
    fitted = fit_size(width, height, side)
    assert max(fitted) == min(side, max(width, height))
    assert min(fitted) >= 1
    if min(fitted) > 20:
        assert fitted[0] / fitted[1] == pytest.approx(width / height, rel=0.06)


def test_a_header_of_any_kind_is_probed_to_its_end():
    """TIFF has its facts at the end of the file, and an orientation may be no number."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Acme"
    exif[ExifTags.Base.Orientation] = 6
    data = encoded(gradient(1200, 1000), "TIFF", exif=exif)
    assert len(data) > 1 << 20
    facts = headers.probe(io.BytesIO(data))
    assert (facts.width, facts.height, facts.camera) == (1000, 1200, "Acme")
    odd = TiffImagePlugin.ImageFileDirectory_v2()
    odd.tagtype[ExifTags.Base.Orientation] = 2  # text
    odd[ExifTags.Base.Orientation] = "upside down"
    words = b"Exif\0\0II*\0\x08\0\0\0" + odd.tobytes(8)
    assert headers.probe(io.BytesIO(encoded(gradient(8, 6), "JPEG", exif=words))).width == 8


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_an_orientation_that_xmp_alone_tells_of_counts_for_rules_too(form):
    images.register_heif()
    xmp = XMP.replace(b"><rdf:Desc", b' xmlns:t="t"><rdf:Desc').replace(
        b"exif:GPSLatitude=", b'tiff:Orientation="6" exif:GPSLatitude='
    )
    more = {"tiffinfo": {700: xmp}} if form == "TIFF" else {"xmp": xmp}
    data = encoded(gradient(40, 24), form, **more)
    facts = headers.probe(io.BytesIO(data))
    assert read(data).rgb.shape == (40, 24, 3)
    assert (facts.width, facts.height) == (24, 40)


def test_a_png_is_probed_without_its_pixels():
    """Its EXIF may lie behind them; and of some there are more than any memory holds."""
    exif = Image.Exif()
    exif[ExifTags.Base.Model], exif[ExifTags.Base.Orientation] = "X100", 6
    data = encoded(gradient(), "PNG", exif=exif)
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    late = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    facts = headers.probe(io.BytesIO(late))
    assert (facts.width, facts.height, facts.camera) == (48, 64, "X100")
    assert read(late).rgb.shape == (64, 48, 3)
    huge = png_of_size(60_000, 60_000)
    assert headers.probe(io.BytesIO(huge)).width == 60_000
    assert results.read_facts(huge) == {}


class FailingDisk(io.BytesIO):
    """A file whose disk gives no answer from some place on."""

    def __init__(self, data, good):
        super().__init__(data)
        self.good = good

    def read(self, size=-1):
        end = len(self.getvalue()) if size is None or size < 0 else self.tell() + size
        if end > self.good:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


@pytest.mark.filterwarnings("ignore")  # Pillow takes it for damage at some places, and warns of it
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF"])
def test_a_disk_that_gives_no_answer_says_nothing_about_a_photo(form):
    images.register_heif()
    data = encoded(gradient(), form, exif=EXIF)
    for look in (headers.probe, structural_end):
        answer = look(io.BytesIO(data))
        for good in range(0, len(data), 7):
            try:
                found = look(FailingDisk(data, good))
            except OSError as error:
                found = error.errno
            assert found in {errno.EIO, answer}
    with pytest.raises(OSError, match="Input/output"):
        headers.probe(FailingDisk(data, 0))


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<2sHHHQ", b"II", 43, 8, 0, 1 << 62),
        struct.pack("<2sHI", b"II", 42, 0xFFFFFFF0),
        struct.pack("<2sHIHHHII", b"II", 42, 8, 1, 34665, 9, 1, 0x80000000),
    ],
    ids=["far away", "beyond", "before"],
)
def test_a_place_outside_of_its_file_is_the_photo_s_fault_not_the_disk_s(tmp_path, data):
    file = tmp_path / "a.tif"
    file.write_bytes(data)
    with file.open("rb") as stream, pytest.raises(InputError):
        headers.probe(stream)


def test_a_jpeg_that_is_drawn_over_itself_for_hours_is_not_read():
    """A progressive one has about ten scans; what looks like more may lie in the film behind it."""
    data = encoded(gradient(), "JPEG", progressive=True)
    begin = data.rindex(b"\xff\xda")
    again = data[begin:-2]
    assert read(data[:-2] + again * 50 + data[-2:]).rgb.shape == (48, 64, 3)
    with pytest.raises(InputError, match="at most 1[0-9][0-9] scans"):
        read(data[:-2] + again * 5000 + data[-2:])
    film = np.random.default_rng(0).bytes(8_000_000)
    assert film.count(b"\xff\xda") > 100
    assert read(data + film).rgb.shape == (48, 64, 3)


_SMALL_GIF = encoded(gradient(8, 8, "P"), "GIF")
PARTS = {
    "fill bytes": GOOD_JPEG[:2] + b"\xff" * 4_000_000 + GOOD_JPEG[2:],
    "segments": GOOD_JPEG[:2] + b"\xff\xe9\0\2" * 1_000_000 + GOOD_JPEG[2:],
    "zeros": GOOD_JPEG[:20] + b"\0\xff\1\0\0" * 800_000 + GOOD_JPEG[20:],
    "extensions": _SMALL_GIF[:13] + b"!\xfe\1a\0" * 800_000 + _SMALL_GIF[13:],
    "boxes": struct.pack(">I4s8s", 16, b"ftyp", b"heic")
    + struct.pack(">I4s", 8, b"free") * 500_000,
}
"""Files of a few megabytes, of millions of parts that say nothing."""


@pytest.mark.parametrize("data", PARTS.values(), ids=PARTS)
def test_the_daemon_goes_through_millions_of_parts_for_a_moment_only(monkeypatch, pace, data):
    monkeypatch.setattr(glance, "SECONDS", 0.02)
    began = time.thread_time()
    assert structural_end(io.BytesIO(data)) is None
    with contextlib.suppress(InputError):
        headers.probe(io.BytesIO(data))
    assert time.thread_time() - began < 0.3 * pace


@pytest.mark.parametrize("length", [1 << 40, 1 << 62, (1 << 64) - 1])
def test_a_box_longer_than_any_file_is_not_there(tmp_path, length):
    file = tmp_path / "a.heic"
    file.write_bytes(
        struct.pack(">I4s8s", 16, b"ftyp", b"heic") + struct.pack(">I4sQ", 1, b"mdat", length)
    )
    with file.open("rb") as stream:
        assert structural_end(stream) is False


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\x01\x04\x00\x00"}])
def test_the_thumbnail_of_a_raw_file_is_no_photo(tags):
    stream = io.BytesIO()
    Image.new("RGB", (16, 12)).save(stream, "TIFF", tiffinfo=tags)
    with pytest.raises(InputError, match="RAW") as caught:
        read(stream.getvalue())
    assert caught.value.reason == "raw"


def test_a_tiff_that_says_that_it_is_no_thumbnail_is_a_photo():
    assert read(encoded(Image.new("RGB", (16, 12)), "TIFF", tiffinfo={254: 0})).format == "tiff"


def test_canon_s_raw_file_is_no_photo():
    stream = io.BytesIO()
    Image.new("RGB", (16, 12)).save(stream, "TIFF")
    data = stream.getvalue()
    table = len(data)  # a second time, at the end: its offsets are the file's
    data = data[:4] + table.to_bytes(4, "little") + b"CR\x02\0" + data[12:] + data[8:]
    with pytest.raises(InputError, match="RAW"):
        read(data)
