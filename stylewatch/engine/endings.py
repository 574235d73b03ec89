"""Whether a photo is there to its last byte, by its format's own marks; nothing is decoded."""

from typing import BinaryIO


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
        return _boxes_end(file, size) <= size
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


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Where the top-level boxes of a HEIC file say that they end, or one beyond its size."""
    position = 0
    while position <= size:
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            break
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8:  # 0: the last box reaches to the end of the file
            break
        position += length
    return position
