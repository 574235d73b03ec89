"""Titles, captions, keywords, authors and stars: from any photo's XMP into any result."""

import io
import tracemalloc
from html import escape
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from stylewatch.engine import images, results
from stylewatch.engine.captions import captions_of

DC = "{http://purl.org/dc/elements/1.1/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
XMP = "{http://ns.adobe.com/xap/1.0/}"
AS_A_CATALOGUE_WRITES_IT = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Catalogue 7">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
    xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
    xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
    xmp:Rating="4" xmp:CreatorTool="Catalogue" tiff:Orientation="1" crs:CropTop="0.1"
    exif:GPSLatitude="48,7.4074N" photoshop:City="Hallstatt">
   <dc:title><rdf:Alt><rdf:li xml:lang="x-default">Am See</rdf:li></rdf:Alt></dc:title>
   <dc:creator><rdf:Seq><rdf:li>Änne Müller</rdf:li></rdf:Seq></dc:creator>
   <dc:subject><rdf:Bag><rdf:li>lake</rdf:li><rdf:li>boat &amp; oar</rdf:li></rdf:Bag></dc:subject>
   <exif:GPSLongitude>13,3E</exif:GPSLongitude>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>""".encode()


def photo(form, xmp):
    more = {"xmp": xmp}
    if form == "PNG":
        more = {"pnginfo": PngImagePlugin.PngInfo()}
        more["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    elif form == "TIFF":
        more = {"tiffinfo": {700: xmp}}
    stream = io.BytesIO()
    images.register_heif()
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(stream, form, **more)
    return stream.getvalue()


def result_of(data, form):
    picture = images.read_picture(data, max_pixels=10_000, max_side=1000)
    written = results.write_picture(
        picture, format=form, quality=90, keep_gps=False, facts={"preset": "ink"}
    )
    assert results.read_facts(written) == {"preset": "ink"}
    with Image.open(io.BytesIO(written)) as image:
        assert image.size == (64, 48)
        return written, image.info.get("xmp")


def texts(packet, name):
    [found] = ET.fromstring(packet.strip(b"\0")).iter(name)
    return [each.text for each in found.iter(RDF + "li")] or found.text


@pytest.mark.parametrize("wanted", results.EXTENSIONS)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
def test_what_a_person_has_written_comes_along_and_nothing_else(form, wanted):
    data = photo(form, AS_A_CATALOGUE_WRITES_IT)
    result, xmp = result_of(data, wanted)
    assert texts(xmp, DC + "title") == ["Am See"]
    assert texts(xmp, DC + "creator") == ["Änne Müller"]
    assert texts(xmp, DC + "subject") == ["lake", "boat & oar"]
    assert texts(xmp, XMP + "Rating") == "4"
    for other in (b"GPSL", b"Orientation=", b"Crop", b"Hallstatt", b"CreatorTool"):
        assert other in data
        assert other not in xmp
        assert other not in result


def test_the_same_photo_gives_the_same_bytes():
    data = photo("JPEG", AS_A_CATALOGUE_WRITES_IT)
    assert result_of(data, "jpeg") == result_of(data, "jpeg")


def test_captions_of_captions_are_these():
    captions = captions_of(AS_A_CATALOGUE_WRITES_IT)
    assert captions_of(captions) == captions


PLAIN = (
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/">%s</rdf:Description></rdf:RDF>'
)
DEEP = PLAIN % b"<dc:title>%s%s</dc:title>" % (b"<a>" * 2000, b"</a>" * 2000)
ENTITIES = b"<!DOCTYPE x [<!ENTITY a 'Am See'>]>" + PLAIN % b"<dc:title>&a;</dc:title>"


def test_a_packet_without_adobe_s_wrapping_and_with_padding_of_zeros():
    packet = PLAIN % b"<dc:title>Am See</dc:title>" + bytes(100)
    assert texts(captions_of(packet), DC + "title") == "Am See"


CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")


@given(st.text(CHARACTERS, min_size=1, max_size=50))
def test_any_title(title):
    packet = PLAIN % f"<dc:title>{escape(title)}</dc:title>".encode()
    assert texts(captions_of(packet), DC + "title") == title


@given(st.binary(max_size=300), st.integers(0, len(AS_A_CATALOGUE_WRITES_IT)))
def test_damaged_xmp_is_no_damaged_photo(noise, place):
    captions_of(noise)
    captions_of(AS_A_CATALOGUE_WRITES_IT[:place] + noise + AS_A_CATALOGUE_WRITES_IT[place:])


@pytest.mark.parametrize(
    "packet",
    [
        None,
        b"",
        b"<x",
        PLAIN % b"",
        PLAIN % b"<dc:format>image/jpeg</dc:format>",
        ENTITIES,
        PLAIN % b"<dc:title>%s</dc:title>" % (b"x" * 70_000),
        PLAIN % b"<dc:title>a</dc:title>" + b" " * (1 << 23) + b"<!-- end -->",
        DEEP,
        ENTITIES.decode().encode("utf-16"),
        b"\xfe\xff" + ENTITIES.decode().encode("utf-16-be"),
    ],
    ids=[
        "none", "empty", "no XML", "nothing", "not by hand", "entities", "a novel", "huge",
        "deep", "UTF-16", "big-endian",
    ],
)  # fmt: skip
def test_nothing_to_carry(packet):
    assert captions_of(packet) is None


def iim(*entries):
    """IPTC's notation of before XMP: record 2's datasets, each with its text."""
    return b"".join(
        b"\x1c\x02" + bytes([number]) + len(text).to_bytes(2) + text for number, text in entries
    )


def with_iptc(data, block):
    """The JPEG with that block where Photoshop's resources lie."""
    resource = b"8BIM\x04\x04\0\0" + len(block).to_bytes(4) + block + b"\0" * (len(block) % 2)
    segment = b"Photoshop 3.0\0" + resource
    return data[:2] + b"\xff\xed" + (len(segment) + 2).to_bytes(2) + segment + data[2:]


OLDER = [
    (5, b"Am See"), (80, "Änne Müller".encode()), (25, b"lake"), (25, b"boat & oar"),
    (116, "© Müller".encode()), (120, b"Two lines\rof text\0"), (90, b"Hallstatt"),
]  # fmt: skip


@pytest.mark.parametrize("wanted", results.EXTENSIONS)
def test_what_an_older_program_wrote_comes_along_as_xmp(wanted):
    data = with_iptc(photo("JPEG", b""), iim(*OLDER))
    result, xmp = result_of(data, wanted)
    assert texts(xmp, DC + "title") == ["Am See"]
    assert texts(xmp, DC + "creator") == ["Änne Müller"]
    assert texts(xmp, DC + "subject") == ["lake", "boat & oar"]
    assert texts(xmp, DC + "rights") == ["© Müller"]
    assert texts(xmp, DC + "description") == ["Two lines\nof text"]
    assert b"Hallstatt" not in result


def test_xmp_comes_first_where_both_say_it():
    packet = PLAIN % b"<dc:title>By the lake</dc:title>"
    _, xmp = result_of(with_iptc(photo("JPEG", packet), iim(*OLDER)), "jpeg")
    assert texts(xmp, DC + "title") == "By the lake"
    assert texts(xmp, DC + "subject") == ["lake", "boat & oar"]


@pytest.mark.parametrize("packet", [None, ENTITIES, b"<x"])
def test_letters_of_before_utf_8_and_none_that_xml_lacks(packet):
    iptc = {(2, 80): "Änne “M”\x0b".encode("cp1252"), (2, 25): [b"a", None, b" \0", b"\1b"]}
    captions = captions_of(packet, iptc)
    assert texts(captions, DC + "creator") == ["Änne “M”"]
    assert texts(captions, DC + "subject") == ["a", "b"]


@given(st.binary(max_size=300), st.integers(0, len(iim(*OLDER))))
def test_damaged_iptc_is_no_damaged_photo(noise, place):
    block = iim(*OLDER)
    result_of(with_iptc(photo("JPEG", b""), block[:place] + noise + block[place:]), "jpeg")


FOREIGN = (
    b"".join(b'<x:x xmlns:x="%d"/>' % number for number in range(300)),
    b'<x:x xmlns:x="300">%s</x:x>' % (b"<x:x/>" * 5400),
)
"""Little by itself; when both are written, each namespace needs a longer prefix."""


@pytest.mark.parametrize(
    ("told", "iptc", "kept"),
    [
        (PLAIN % b"<dc:title>%s</dc:title>" % (b"a" * 40_000), {(2, 120): b"b" * 40_000}, "title"),
        (PLAIN % b"<dc:title>%s</dc:title>" % (b"a" * 70_000), {(2, 120): b"b"}, "description"),
        (DEEP, {(2, 120): b"b"}, "description"),
        (None, {(2, 25): [b"x" * 60] * 2000, (2, 120): b"b"}, "description"),
        (PLAIN % (b"<dc:title/>" * 2000), {}, "title"),
        (PLAIN % (b"<dc:title>%s</dc:title><dc:rights>%s</dc:rights>" % FOREIGN), {}, "title"),
    ],
    ids=["both long", "a novel", "deep", "many keywords", "again and again", "many namespaces"],
)
def test_what_has_no_room_costs_nothing_but_itself(told, iptc, kept):
    captions = captions_of(told, iptc)
    assert len(captions) <= 60_000
    assert captions_of(captions) == captions
    [description] = ET.fromstring(captions).iter(RDF + "Description")
    assert [each.tag for each in description] == [DC + kept]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
def test_xmp_that_is_nested_too_deeply_costs_nothing_but_itself(form):
    _, xmp = result_of(photo(form, DEEP), "jpeg")
    assert xmp is None


def test_xmp_within_xmp_is_not_written_out_once_for_each():
    tale, levels = b"x" * 100_000, 100
    inner = PLAIN.partition(b"%s")
    packet = inner[0] + b"<dc:title>"
    packet = packet * levels + tale + (b"</dc:title>" + inner[2]) * levels
    tracemalloc.start()
    try:
        assert captions_of(packet) is None
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 10 * len(packet)


def test_a_photo_without_any_gets_none():
    _, xmp = result_of(photo("JPEG", b""), "jpeg")
    assert xmp is None


def test_a_long_past_in_a_png_costs_no_photo():
    """Pillow takes a megabyte of compressed text for a bomb."""
    text = PngImagePlugin.PngInfo()
    past = f"<!--{'x' * 3_000_000}-->"
    packet = AS_A_CATALOGUE_WRITES_IT.decode().replace("</x:xmpmeta>", past + "</x:xmpmeta>")
    text.add_itxt("XML:com.adobe.xmp", packet, zip=True)
    text.add_text("Raw profile", past, zip=True)
    stream = io.BytesIO()
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(stream, "PNG", pnginfo=text)
    _, xmp = result_of(stream.getvalue(), "png")
    assert texts(xmp, DC + "title") == ["Am See"]
