"""Whether a photo's file has its end, by the marks of its format; nothing is decoded."""

import io
import struct
from typing import BinaryIO

from stylewatch.engine.glance import EndlessError, Glanced

_BOXES = frozenset(b"ftyp meta mdat moov free skip wide uuid mpvd sefd".split())
"""What HEIC files are made of at their top; phones write other things behind them, in no box."""
_OS2, _UNPACKED = 12, {0, 3, 6}  # of a BMP: a header with short numbers; no compression


def structural_end(file: BinaryIO) -> bool | None:
    """Whether a picture's last byte is there: False = truncated, None = that can't be told.

    Reads the head and the tail alone (and box or chunk lengths), never the pixels. Strict only
    where a part is missing: what decoders skip, or what comes after the end, is no fault.
    """
    try:
        return _has_end(io.BufferedReader(Glanced(file)))
    except EndlessError:
        return None


def _has_end(file: BinaryIO) -> bool | None:  # noqa: PLR0911  (a row per format)
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    if head.startswith(b"\xff\xd8"):
        return _rfind(file, b"\xff\xd9", _jpeg_scan_start(file, size), size)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _rfind(file, b"IEND\xae\x42\x60\x82", 8, size)
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _gif_end(file)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return size >= 8 + int.from_bytes(head[4:8], "little")
    if head.startswith(b"BM"):
        return size >= _bmp_end(file)
    if head[4:8] == b"ftyp":
        return _boxes_end(file, size) <= size
    return None


def _jpeg_scan_start(file: BinaryIO, size: int) -> int:
    """Where a JPEG's compressed data begins; the file's size when it ends before."""
    position = 2
    while position + 4 <= size:
        file.seek(position)
        marker = file.read(4)
        if marker[0] != 0xFF:  # what decoders skip: a few zeros, mostly
            skipped = (marker + file.read(1 << 16)).find(b"\xff")
            if skipped < 0:
                break
            position += skipped
        elif marker[1] == 0xDA:  # start of scan: a thumbnail's end can't be mistaken from here on
            return position
        else:
            position += 1 if marker[1] == 0xFF else 2 + int.from_bytes(marker[2:4], "big")
    return size


def _rfind(file: BinaryIO, mark: bytes, start: int, end: int) -> bool:
    """Whether `mark` occurs in file[start:end]; looked for from the end, where it should be."""
    chunk = 1 << 16
    while end > start:
        begin = max(start, end - chunk)
        file.seek(begin)
        if mark in file.read(end - begin + len(mark) - 1):
            return True
        end = begin
    return False


def _gif_end(file: BinaryIO) -> bool | None:
    """Whether a GIF's blocks go on to its trailer; anything may come behind that."""
    file.seek(10)
    flags = file.read(3)[:1]
    file.seek(_colours(flags), 1)
    while block := file.read(1):
        if block == b";":
            return True
        if block == b",":  # an image: its place, its colours, and how many bits a code has
            flags = file.read(9)[8:]
            file.seek(_colours(flags), 1)
        elif block != b"!":  # decoders skip it, but not a hole
            return None if (block + file.read(1 << 16)).strip(b"\0") else False
        file.seek(1, 1)
        while length := file.read(1).ljust(1, b"\0")[0]:
            file.seek(length, 1)
    return False


def _colours(flags: bytes) -> int:
    """How many bytes a GIF's colour table takes."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _bmp_end(file: BinaryIO) -> int:
    """Where a BMP says that it ends, or where its pixels do: what it says may be some bytes off."""
    file.seek(0)
    head = file.read(34).ljust(34, b"\0")
    told, start, kind = struct.unpack_from("<I4xII", head, 2)
    form = "<HHHH" if kind == _OS2 else "<iiHHI"
    width, height, _, bits, *packing = struct.unpack_from(form, head, 18)
    if packing and packing[0] not in _UNPACKED:
        return int(told)
    return int(min(told, start + (width * bits + 31) // 32 * 4 * abs(height)))


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Where the top-level boxes of a HEIC file say that they end, or one beyond its size."""
    position = 0
    seen: set[bytes] = set()
    while position <= size:
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            break
        if header[4:8] not in _BOXES and {b"meta", b"mdat"} <= seen:
            break
        seen.add(header[4:8])
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8:  # 0: the last box reaches to the end of the file
            break
        position += length
    return position
