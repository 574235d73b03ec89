"""What a PNG is made of, as it lies in its file."""

import io
from collections.abc import Iterator
from typing import BinaryIO

_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_READ = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")


def chunks_of(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk's name, and where its content begins and how long it is; the file stands there."""
    position = 8
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            return
        length = int.from_bytes(head[:4], "big")
        yield head[4:], position + 8, length
        position += 12 + length


def without_texts(data: bytes) -> bytes:
    """A PNG without the texts in it, whose names anyone may choose.

    Pillow takes one that is called `icc_profile` or `interlace` for what it means by that itself,
    and programs that copy all that it told them into texts write those.
    """
    whole = memoryview(data)
    kept, end = [], 0
    for name, start, length in chunks_of(io.BytesIO(data)):
        if name in _TEXTS and not data.startswith(_READ, start):
            kept.append(whole[end : start - 8])
            end = start + length + 4
    return b"".join([*kept, whole[end:]]) if kept else data
