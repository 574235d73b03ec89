"""Where folders lie, as the file system knows it: in which others, and on which mount.

By whatever way: links, bind mounts, and names that do not exist yet. Knows nothing of configs.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

Lineage = list[tuple[int | str, ...]]
"""Identities of a folder (first) and of all that it lies in."""


def lineage(path: Path) -> Lineage:
    """The folder and all above it as the file system knows them: links and mounts see the same."""
    real = Path(os.path.realpath(path))
    aliases = [real, *(alias for alias in _mounted_as(real) if _identity(alias) == _identity(real))]
    return [_identity(place) for alias in aliases for place in (alias, *alias.parents)]


def mount_of(path: Path) -> Path:
    """Where the file system is mounted on which this place lies, or would lie (Linux; else /).

    A folder that is bound onto itself, as systemd does for a service, is no mount of its own.
    """
    mounts = _mounts()
    mount = _around(Path(os.path.realpath(path)), mounts)
    while mount is not None:
        device, root, point = mount
        outer = None if point == point.parent else _around(point.parent, mounts)
        if outer is None or (device, root) != (outer[0], outer[1] / point.relative_to(outer[2])):
            return point
        mount = outer
    return Path("/")


_Mount = tuple[str, Path, Path]
"""Device, what of it is mounted, and where."""


def _mounts() -> list[_Mount]:
    try:
        text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return []
    lines = (line.split(" ") for line in text.split("\n") if line)  # names hold any other space
    return [(words[2], Path(_plain(words[3])), Path(_plain(words[4]))) for words in lines]


def _around(path: Path, mounts: list[_Mount]) -> _Mount | None:
    """The mount on which a place lies; the last one where several are on one place."""
    around = [mount for mount in reversed(mounts) if path.is_relative_to(mount[2])]
    return max(around, key=lambda mount: len(mount[2].parts), default=None)


def _mounted_as(path: Path) -> Iterator[Path]:
    """The same place by way of other mounts: /out may be a bind mount of /in/out (Linux)."""
    mounts = _mounts()
    around = _around(path, mounts)
    if around is None:
        return
    device, root, point = around
    inner = root / path.relative_to(point)
    for other, root, point in mounts:
        if other == device and inner.is_relative_to(root):
            yield point / inner.relative_to(root)


def _plain(word: str) -> str:
    """The kernel writes spaces in names as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), word)


def _identity(path: Path) -> tuple[int | str, ...]:
    """(dev, ino), followed by the names of what does not exist yet."""
    for place in (path, *path.parents):
        try:
            info = place.stat()
        except OSError:
            continue
        return (info.st_dev, info.st_ino, *path.relative_to(place).parts)
    return path.parts
