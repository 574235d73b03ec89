"""What a person has written about a photo: title, caption, keywords, author, rights and stars.

Catalogues keep it in XMP (ISO 16684-1), beside much that tells of the photo's own pixels or of
where it was taken. Bytes in, bytes out.
"""

from collections.abc import Iterable, Iterator
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
_MOST = 60_000
"""Bytes: what one block of a JPEG holds, and a long tale."""
_LARGEST = 1 << 23
"""Bytes that are looked through: retouchers' notes take some, a TIFF could have any number."""

for _prefix, (_space, _) in {**_WRITTEN, "rdf": (_RDF, ""), "x": ("adobe:ns:meta/", "")}.items():
    ET.register_namespace(_prefix, _space)


def captions_of(packet: bytes | None) -> bytes | None:
    """An XMP packet with what a person has written in `packet`; None where that is nothing."""
    if not isinstance(packet, bytes) or len(packet) > _LARGEST:
        return None
    try:
        text = packet.strip(b"\0 \r\n\t").decode()  # in nothing else does a photo's XMP come
        if "<!DOCTYPE" in text:  # no XMP has one, and it may explode
            return None
        found = list(_written(ET.fromstring(text)))  # noqa: S314
        captions = _packet(found)
    except (ET.ParseError, ValueError, RecursionError):  # damaged XMP is no damaged photo
        return None
    return captions if found and len(captions) <= _MOST else None


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
