"""What lies in a folder tree, found by listing it: nothing below the root is reached by a link.

Remembers what each name was like, so that only new and changed ones are told. Knows nothing of
events, watches or clocks.
"""

import contextlib
import errno
import os
import re
import stat as modes
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from mimetypes import MimeTypes
from pathlib import Path
from typing import BinaryIO

from stylewatch.domain import Candidate, Photo

UNFINISHED = re.compile(
    r"(\.|~\$).*|.*(~|_exiftool_tmp|\."
    r"(tmp|part|partial|filepart|crdownload|download|tacitpart|nextcloud|owncloud))"
    # what systems keep for themselves: bins, thumbnails, snapshots
    r"|\$recycle\.bin|thumbs\.db|system volume information|lost\+found"
    r"|[@#]recycle|@eadir|[~#]snapshot|@recently-snapshot",  # of a NAS
    re.IGNORECASE | re.DOTALL,
)
SPECIAL = {
    modes.S_IFLNK: "symlink",
    modes.S_IFIFO: "fifo",
    modes.S_IFSOCK: "socket",
    modes.S_IFBLK: "device",
    modes.S_IFCHR: "device",
}
RAW = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".gpr", ".iiq", ".kdc", ".mef",
    ".mos", ".mrw", ".nef", ".nrw", ".orf", ".ori", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2",
    ".srf", ".srw", ".x3f",
})  # fmt: skip
"""What cameras write beside or instead of photos."""
PICTURES = frozenset({
    ".avif", ".bmp", ".eps", ".exr", ".gif", ".heic", ".heif", ".hif", ".ico", ".insp", ".jfif",
    ".jp2", ".jpe", ".jpeg", ".jpg", ".jxl", ".mpo", ".pdf", ".pgm", ".png", ".pnm", ".ppm", ".psd",
    ".svg", ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip
"""What the names of pictures end in, whether these are read here or not."""
NO_PHOTOS = frozenset({
    ".aae", ".arp", ".bdm", ".cof", ".cop", ".cos", ".cot", ".cpi", ".ctg", ".db", ".dop", ".flv",
    ".gpx", ".ini", ".insv", ".json", ".lnk", ".lrcat", ".lrv", ".m2ts", ".m4v", ".mkv", ".mpl",
    ".mts", ".nksc", ".on1", ".pp3", ".thm", ".url", ".vob", ".wmv", ".xmp",
})  # fmt: skip
"""What `TYPES` does not know, and what is not even to be looked into."""
TYPES = MimeTypes()
"""Python's table of types by ending; the same on every machine."""
WAY = os.O_PATH | os.O_DIRECTORY
"""How a folder is opened that need not be listed."""
FOLDER = os.O_RDONLY | os.O_DIRECTORY
FILE = os.O_RDONLY | os.O_NONBLOCK


def is_temporary(name: str) -> bool:
    """Whether a name says that it is hidden or not finished yet."""
    return UNFINISHED.fullmatch(name) is not None


def why_no_photo(name: str) -> str:
    """`raw` or `no-photo` (a film, a text, what programs keep beside photos); else empty."""
    ending = os.path.splitext(name)[1].lower()  # noqa: PTH122  (of thousands)
    if ending in RAW:
        return "raw"
    kind, _ = TYPES.guess_type(f"x{ending}")
    strange = kind is not None and not kind.startswith("image/")
    beside = ending in NO_PHOTOS or ending.endswith("_original")  # ExifTool's copy of what it edits
    return "no-photo" if strange or beside else ""


def open_below(root: str | Path, relative: str | Path, flags: int = FILE) -> int:
    """Open a name below a root, folder by folder: a link on the way or at the end is an OSError."""
    here = os.open(root, WAY)
    *folders, name = ["."] if str(relative) in {"", "."} else str(relative).split("/")
    try:
        for folder in folders:
            inner = os.open(folder, WAY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = inner
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=here)
    finally:
        os.close(here)


@contextlib.contextmanager
def open_photo(photo: Photo) -> Iterator[BinaryIO]:
    """What has a photo's name now; IsADirectoryError when what took its place is no file."""
    with open(photo.path, "rb", opener=lambda *_: open_below(photo.root, photo.path)) as stream:
        if not modes.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), photo.path)
        yield stream


def walk(
    root: str | Path, on_error: Callable[[OSError], object] = lambda _: None
) -> Iterator[tuple[str, list[str]]]:
    """Each folder, with the names in it that are no folders; unlike `os.walk`, in any depth."""
    stack = [os.fspath(root)]
    while stack:
        folder = stack.pop()
        names = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
                    else:
                        names.append(entry.name)
        except OSError as error:
            on_error(error)
        else:
            yield folder, names


@dataclass(slots=True)
class _Folder:
    """A folder as it was when it was listed last."""

    inode: int
    mark: int
    """A hash of the folder's own identity, which changes whenever a name comes or goes …"""
    sure: bool = False
    """… unless that happens within one tick of a coarse clock: whether this can be ruled out."""
    names: dict[str, int] = field(default_factory=dict)
    """Its files, each with a hash of its identity."""


class Listing:
    """A tree as it was when last looked at. Folders are relative to the root, which is ""."""

    def __init__(self, folder: str, root: Path) -> None:
        self.folder = folder
        self.root = root
        self.network: frozenset[int] = frozenset()
        self.numberless: frozenset[int] = frozenset()
        """Devices, see `network_devices` and `numberless_devices`."""
        self.unreadable: dict[str, str] = {}
        """The folders that can't be listed, and why."""
        self.missed: set[str] = set()
        """Files that were listed before, and were not the last time."""
        self.surprise = ""
        """A new file in a known folder that a full walk has met before any event did."""
        self._folders: dict[str, _Folder] = {}
        self._being_listed: dict[str, _Folder] = {}
        self._is_known = False  # a full walk has been through

    @property
    def inodes(self) -> dict[str, int]:
        """Every folder that could be listed."""
        return {name: folder.inode for name, folder in self._folders.items()}

    def look(self, files: Mapping[str, bool]) -> Iterator[Candidate]:
        """The files of these names, each with whether its writer is known to be done."""
        by_folder: dict[str, dict[str, bool]] = {}
        for file, closed in files.items():
            folder, name = os.path.split(file)
            by_folder.setdefault(folder, {})[name] = closed
        for folder, names in by_folder.items():
            if not _is_hidden(folder):
                yield from self._look(folder, names)

    def walk(self, starts: Iterable[str], *, full: bool = False) -> Iterator[Candidate | None]:
        """All new and changed files below `starts`; None for all else, so that a walk can pause.

        A `full` walk, over the whole tree, also finds out which folders are gone.
        """
        visited: set[tuple[int, int]] = set()  # a folder mounted twice is listed once
        listed: set[str] = set()
        stack = [start for start in starts if not _is_hidden(start)]
        while stack:
            folder = stack.pop()
            yield from self._list(folder, visited, stack, full=full)
            listed.add(folder)
            yield None
        if full:
            for gone in (self._folders.keys() | self.unreadable.keys()) - listed:
                self._forget(gone)
            self._is_known = True

    def walk_changed(self) -> Iterator[Candidate | None]:
        """New and gone files, found by the folders that have changed since they were listed.

        Far less work than to look at each file. But a file that is changed in place does not change
        its folder, and is only found by `walk`.
        """
        for folder in list(self._folders):
            if self._has_changed(folder):
                inside: list[str] = []
                yield from self._list(folder, set(), inside, full=False)
                yield from self.walk(each for each in inside if each not in self._folders)
            yield None

    def miss_unlisted(self, files: Iterable[str]) -> Iterator[None]:
        """Add to `missed` those of these files that no walk has met; yields None for each."""
        for file in files:
            folder, name = os.path.split(file)
            if folder not in self._folders or name not in self._folders[folder].names:
                self.missed.add(file)
            yield None

    def miss_all(self) -> None:
        """Add all files to `missed`: the root is away."""
        for folder in list(self._folders):
            self._forget(folder)

    def forget(self, path: str) -> None:
        """Take this file for new when it is next looked at."""
        folder, name = os.path.split(path)
        for known in (self._folders, self._being_listed):
            if folder in known:
                known[folder].names.pop(name, None)

    def _forget(self, folder: str) -> None:
        if gone := self._folders.pop(folder, None):
            self._miss(folder, gone.names)
        self.unreadable.pop(folder, None)

    def _miss(self, folder: str, names: Iterable[str]) -> None:
        self.missed.update(os.path.join(folder, name) for name in names)  # noqa: PTH118

    def _look(self, folder: str, names: Mapping[str, bool]) -> Iterator[Candidate]:
        try:
            here = open_below(self.root, folder, FOLDER)
        except OSError:
            return  # gone or replaced: the next walk tells
        try:
            known = self._folders.setdefault(folder, _Folder(os.fstat(here).st_ino, 0))
            listed = self._being_listed.get(folder, known)  # it may have passed this name by
            for name, closed in names.items():
                try:
                    stat = os.stat(name, dir_fd=here, follow_symlinks=False)
                except OSError:
                    continue  # gone again
                if not modes.S_ISDIR(stat.st_mode) and not is_temporary(name):
                    mark = _mark(stat)
                    if closed or known.names.get(name) != mark:
                        known.names[name] = listed.names[name] = mark
                        yield self._candidate(folder, name, stat, closed=closed)
        finally:
            os.close(here)

    def _has_changed(self, folder: str) -> bool:
        """Whether a name in the folder has come or gone since it was listed, or may have.

        It may have if the folder had just changed when it was listed: its time is then no proof.
        """
        try:
            here = open_below(self.root, folder, FOLDER)
        except OSError:
            return True
        try:
            known = self._folders.get(folder)
            return known is None or not known.sure or known.mark != _mark(os.fstat(here))
        finally:
            os.close(here)

    def _list(
        self, folder: str, visited: set[tuple[int, int]], stack: list[str], *, full: bool
    ) -> Iterator[Candidate | None]:
        try:
            here = open_below(self.root, folder, FOLDER)
        except (FileNotFoundError, NotADirectoryError):
            self._forget(folder)
            return
        except OSError as error:
            self.unreadable[folder] = error.strerror or str(error)
            return
        try:
            stat = os.fstat(here)
            if (stat.st_dev, stat.st_ino) not in visited:
                visited.add((stat.st_dev, stat.st_ino))
                yield from self._list_open(folder, here, stat, stack, full=full)
        finally:
            os.close(here)

    def _list_open(
        self, folder: str, here: int, stat: os.stat_result, stack: list[str], *, full: bool
    ) -> Iterator[Candidate | None]:
        """List a folder that is open as `here`; its sub-folders go on the `stack`."""
        before, mark = self._folders.get(folder), _mark(stat)
        first = full and not self._is_known  # which is not made twice
        sure = before.mark == mark if before else first
        listed = self._being_listed[folder] = _Folder(stat.st_ino, mark, sure)
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if is_temporary(entry.name):
                        yield None
                    elif entry.is_dir(follow_symlinks=False):
                        stack.append(os.path.join(folder, entry.name))  # noqa: PTH118
                        yield None
                    else:
                        yield self._compare(folder, entry, before, listed, full=full)
        except OSError as error:
            self.unreadable[folder] = error.strerror or str(error)
        else:
            if before:
                self._miss(folder, before.names.keys() - listed.names.keys())
            self._folders[folder] = listed
            self.unreadable.pop(folder, None)
        finally:
            self._being_listed.pop(folder, None)

    def _compare(
        self,
        folder: str,
        entry: os.DirEntry[str],
        before: _Folder | None,
        listed: _Folder,
        *,
        full: bool,
    ) -> Candidate | None:
        """The entry, if it is new or has changed."""
        try:
            stat = entry.stat(follow_symlinks=False)
        except OSError:
            return None  # gone, or for the next walk
        mark = listed.names[entry.name] = _mark(stat)
        if before and before.names.get(entry.name) == mark:
            return None
        if full and before and entry.name not in before.names and stat.st_dev not in self.network:
            self.surprise = os.path.join(folder, entry.name)  # noqa: PTH118
        return self._candidate(folder, entry.name, stat)

    def _candidate(
        self, folder: str, name: str, stat: os.stat_result, *, closed: bool = False
    ) -> Candidate:
        return Candidate(
            self.folder,
            self.root,
            Path(folder, name),
            stat,
            closed=closed,
            network=stat.st_dev in self.network,
            numberless=stat.st_dev in self.numberless,
            ignored=SPECIAL.get(modes.S_IFMT(stat.st_mode)) or why_no_photo(name),
        )


def _is_hidden(folder: str) -> bool:
    return any(is_temporary(part) for part in folder.split("/") if part)


def _mark(stat: os.stat_result) -> int:
    """A hash of a file's identity: a single number, as hundreds of thousands are remembered."""
    return hash((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
