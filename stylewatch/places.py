"""Where folders lie, as the file system knows it: in which others, and on which mount.

Links, bind mounts and names that do not exist yet are seen through. Knows nothing of what the
folders are for.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

MOUNTS: Final = Path("/proc/self/mountinfo")
NETWORK = re.compile(r"nfs4?|cifs|smb3|smbfs|9p|virtiofs|vboxsf|ceph|afs|fuse(\..*)?")
NUMBERLESS = re.compile(r"vfat|msdos|exfat|vboxsf|fuse\.(sshfs|gvfsd-fuse|jmtpfs|simple-mtpfs)")
SMB = re.compile(r"cifs|smb3")

Lineage = list[tuple[int | str, ...]]
"""Identities of a folder, which is the first, and of all folders that it lies in."""


def lineage(path: Path) -> Lineage:
    """The identities of a folder and of all above it, by each path that leads to it."""
    real = Path(os.path.realpath(path))
    aliases = [real, *(alias for alias in _mounted_as(real) if _identity(alias) == _identity(real))]
    return [_identity(place) for alias in aliases for place in (alias, *alias.parents)]


def mount_of(path: Path) -> Path:
    """The mount point of the file system on which this place lies, or would lie (Linux; else /).

    A folder that is mounted onto itself, as systemd does it for a service, does not count.
    """
    mounts = _mounts()
    mount = _around(Path(os.path.realpath(path)), mounts)
    while mount is not None:
        point = mount.point
        outer = None if point == point.parent else _around(point.parent, mounts)
        if outer is None or mount.device != outer.device or mount.root != outer.inside(point):
            return point
        mount = outer
    return Path("/")


def nearest_existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists as far as we may look."""
    return next(place for place in (path, *path.parents) if os.path.exists(place))


def network_devices() -> frozenset[int]:
    """The device numbers of network file systems, where others write without an event."""
    return _devices(lambda mount: NETWORK.fullmatch(mount.kind) is not None)


def numberless_devices() -> frozenset[int]:
    """The device numbers of file systems that keep no inodes, and no ctime apart from the mtime.

    A file has others whenever the system reads about it anew, as when its disk is plugged in again.
    """
    return _devices(lambda mount: mount.is_numberless)


def _devices(wanted: Callable[["_Mount"], bool]) -> frozenset[int]:
    return frozenset(
        os.makedev(*map(int, mount.device.split(":"))) for mount in _mounts() if wanted(mount)
    )


class _Mount(NamedTuple):
    device: str
    root: Path
    """What of the device is mounted."""
    point: Path
    """Where."""
    kind: str
    """Of file system."""
    options: str
    """Of the file system, wherever it is mounted."""

    def inside(self, place: Path) -> Path:
        """The path within the device of a place below the mount point."""
        return self.root / place.relative_to(self.point)

    @property
    def is_numberless(self) -> bool:
        """Whether its inodes are made up: of SMB those that its server does not give."""
        if SMB.fullmatch(self.kind):
            return "serverino" not in self.options.split(",")
        return NUMBERLESS.fullmatch(self.kind) is not None


def _mounts() -> list[_Mount]:
    try:
        text = MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return []
    lines = (line.split(" ") for line in text.split("\n") if line)  # names hold any other space
    return [
        _Mount(
            words[2],
            Path(_plain(words[3])),
            Path(_plain(words[4])),
            words[words.index("-") + 1],
            words[-1],
        )
        for words in lines
    ]


def _around(path: Path, mounts: list[_Mount]) -> _Mount | None:
    """The mount on which a place lies; if several have the same mount point, the last one."""
    around = [mount for mount in reversed(mounts) if path.is_relative_to(mount.point)]
    return max(around, key=lambda mount: len(mount.point.parts), default=None)


def _mounted_as(path: Path) -> Iterator[Path]:
    """Other paths of the same place, by other mounts: /out may be a bind mount of /in/out."""
    mounts = _mounts()
    around = _around(path, mounts)
    if around is None:
        return
    inner = around.inside(path)
    for other in mounts:
        if other.device == around.device and inner.is_relative_to(other.root):
            yield other.point / inner.relative_to(other.root)


def _plain(word: str) -> str:
    """A path as the kernel writes it, with octal numbers for spaces, made plain."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), word)


def _identity(path: Path) -> tuple[int | str, ...]:
    """(dev, ino) of the path, or of the nearest folder above it that exists, and then the rest."""
    for place in (path, *path.parents):
        try:
            info = place.stat()
        except OSError:
            continue
        return (info.st_dev, info.st_ino, *path.relative_to(place).parts)
    return path.parts
