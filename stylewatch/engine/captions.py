"""What a person has written about a photo: title, caption, keywords, author, rights and stars.

Catalogues keep it in XMP (ISO 16684-1), beside much that tells of the photo's own pixels or of
where it was taken; older ones in IPTC's IIM. Bytes in, bytes out.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from xml.etree import ElementTree as ET

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_WRITTEN = {
    "dc": ("http://purl.org/dc/elements/1.1/", "title description creator subject rights"),
    "xmp": ("http://ns.adobe.com/xap/1.0/", "Rating"),
    "xmpRights": ("http://ns.adobe.com/xap/1.0/rights/", "Marked Owner UsageTerms WebStatement"),
    "photoshop": ("http://ns.adobe.com/photoshop/1.0/", "Headline Credit"),
    "lr": ("http://ns.adobe.com/lightroom/1.0/", "hierarchicalSubject"),
}
"""The properties that people write themselves, by the usual prefix of their namespace."""
_NAMES = {f"{{{space}}}{name}" for space, names in _WRITTEN.values() for name in names.split()}
_IPTC = {
    (2, 5): ("title", "Alt"),
    (2, 25): ("subject", "Bag"),
    (2, 80): ("creator", "Seq"),
    (2, 116): ("rights", "Alt"),
    (2, 120): ("description", "Alt"),
}
"""Of IIM's records and datasets: which of Dublin Core's properties each is, and its container."""
_IN_ANY_LANGUAGE = {"{http://www.w3.org/XML/1998/namespace}lang": "x-default"}
_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MOST = 60_000
"""Bytes: what one block of a JPEG holds, and a long tale."""
_LARGEST = 1 << 23
"""Bytes that are looked through: retouchers' notes take some, a TIFF could have any number."""

for _prefix, (_space, _) in {**_WRITTEN, "rdf": (_RDF, ""), "x": ("adobe:ns:meta/", "")}.items():
    ET.register_namespace(_prefix, _space)


Iptc = Mapping[tuple[int, int], bytes | Sequence[bytes]]
"""What IIM says, by record and dataset."""


def captions_of(packet: bytes | None, iptc: Iptc | None = None) -> bytes | None:
    """An XMP packet with what a person has written in `packet`; None where that is nothing.

    What that does not say is taken from `iptc`. A property for which there is no room is left out.
    """
    found: dict[str, ET.Element] = {}
    for each in chain(_in_xmp(packet), _in_iptc(iptc or {})):
        found.setdefault(each.tag, each)
    kept: list[ET.Element] = []
    captions = None
    for each in found.values():
        with suppress(ValueError, RecursionError):  # nested too deeply
            if len(more := _packet([*kept, each])) <= _MOST:
                kept.append(each)
                captions = more
    return captions


def _in_xmp(packet: bytes | None) -> list[ET.Element]:
    if not isinstance(packet, bytes) or len(packet) > _LARGEST:
        return []
    try:
        text = packet.strip(b"\0 \r\n\t").decode()  # in nothing else does a photo's XMP come
        if "<!DOCTYPE" in text:  # no XMP has one, and it may explode
            return []
        return list(_written(ET.fromstring(text)))  # noqa: S314
    except (ET.ParseError, ValueError, RecursionError):  # damaged XMP is no damaged photo
        return []


def _in_iptc(iptc: Iptc) -> Iterator[ET.Element]:
    for number, (name, container) in _IPTC.items():
        told = iptc.get(number) or ()
        texts = [*filter(None, map(_text, [told] if isinstance(told, bytes) else told))]
        if texts:
            found = ET.Element(f"{{{_WRITTEN['dc'][0]}}}{name}")
            items = ET.SubElement(found, f"{{{_RDF}}}{container}")
            one = container == "Alt"
            for text in texts[:1] if one else texts:
                item = ET.SubElement(items, f"{{{_RDF}}}li", _IN_ANY_LANGUAGE if one else {})
                item.text = text
            yield found


def _text(raw: bytes | None) -> str:
    """IIM's text: UTF-8, or what Windows wrote before that."""
    try:
        text = (raw or b"").decode()
    except UnicodeDecodeError:
        text = (raw or b"").decode("cp1252", "replace")
    return _NO_XML.sub("", text).strip()


def _packet(properties: Iterable[ET.Element]) -> bytes:
    meta = ET.Element("{adobe:ns:meta/}xmpmeta")
    rdf = ET.SubElement(meta, f"{{{_RDF}}}RDF")
    ET.SubElement(rdf, f"{{{_RDF}}}Description", {f"{{{_RDF}}}about": ""}).extend(properties)
    text: bytes = ET.tostring(meta, encoding="utf-8", xml_declaration=False)
    begin = '<?xpacket begin="\N{ZERO WIDTH NO-BREAK SPACE}" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    return begin.encode() + text + b'<?xpacket end="w"?>'


def _written(root: ET.Element) -> Iterator[ET.Element]:
    """The properties in question, all as elements: short ones may stand as attributes."""
    rdf = root if root.tag == f"{{{_RDF}}}RDF" else root.find(f"{{{_RDF}}}RDF")
    for description in () if rdf is None else rdf.iterfind(f"{{{_RDF}}}Description"):
        for name in sorted(_NAMES & description.attrib.keys()):
            found = ET.Element(name)
            found.text = description.get(name)
            yield found
        yield from (each for each in description if each.tag in _NAMES)
