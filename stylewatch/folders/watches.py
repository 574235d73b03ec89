"""The kernel's watches on folder trees, through watchdog: hints of where to look, and when.

They are no more than hints, as events come late, twice or not at all. The only place that knows
watchdog, its events and its habits (6.0 and 7.1 alike).
"""

import contextlib
import logging
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver, ObservedWatch
from watchdog.observers.inotify import InotifyObserver

EVENTS: list[type[FileSystemEvent]] = [  # not our own reads, nor each write of a slow copy
    FileCreatedEvent,
    FileClosedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirMovedEvent,
    DirDeletedEvent,
]
LOG = logging.getLogger("watchdog.observers")
INBOX_LIMIT = 50_000  # names kept at most; with more, everything is to be scanned

Watch = ObservedWatch


def watch_limit() -> int:
    """How many folders this user may watch at most."""
    limits = [1 << 30]
    for file in ("/proc/sys/fs/inotify/max_user_watches", "/proc/sys/user/max_inotify_watches"):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(Path(file).read_text(encoding="ascii")))
    return min(limits)


def watched_inodes() -> frozenset[int]:
    """The folders that the kernel watches for this process, as it says itself."""
    inodes: set[int] = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(descriptor.readlink()) == "anon_inode:inotify":
                text = Path("/proc/self/fdinfo", descriptor.name).read_text(encoding="ascii")
                inodes.update(int(inode, 16) for inode in re.findall(r" ino:([0-9a-f]+)", text))
    return frozenset(inodes)


class Inbox(FileSystemEventHandler):
    """Files and folders to look at, as noted from events until somebody takes them."""

    def __init__(self, root: str, wake: Callable[[], None]) -> None:
        self._root = root
        self._wake = wake
        self._lock = threading.Lock()
        self._clear()

    @property
    def has_news(self) -> bool:
        """Whether anything is noted."""
        return self._overflown or bool(self._files) or bool(self._folders)

    def dispatch(self, event: FileSystemEvent) -> None:
        """Take note, and nothing else: an exception here would silence watchdog for good."""
        with contextlib.suppress(Exception):
            paths = [os.fsdecode(path) for path in (event.src_path, event.dest_path) if path]
            names = [os.path.relpath(path, self._root) for path in paths]
            if event.is_directory:
                self.note(folders=["" if name == "." else name for name in names])
            else:
                self.note(names[-1], closed=isinstance(event, FileClosedEvent | FileMovedEvent))
            self._wake()

    def note(self, file: str = "", *, closed: bool = False, folders: Iterable[str] = ()) -> None:
        """A file or folders to look at, relative to the root."""
        with self._lock:
            self._folders.update(folders)
            if file:
                self._files[file] = closed or self._files.get(file, False)
            if len(self._files) + len(self._folders) > INBOX_LIMIT:
                self._clear(overflown=True)

    def overflow(self) -> None:
        """Events are lost: only a full scan can tell what happened."""
        with self._lock:
            self._clear(overflown=True)

    def take(self) -> tuple[dict[str, bool], set[str], bool]:
        """What was noted: files, folders, and whether everything is to be scanned.

        Of each file, whether an event said that it was closed, or renamed into place.
        """
        with self._lock:
            taken = self._files, self._folders, self._overflown
            self._clear()
            return taken

    def _clear(self, *, overflown: bool = False) -> None:
        self._files: dict[str, bool] = {}
        self._folders: set[str] = set()
        self._overflown = overflown


_LONE = "/proc/sys/fs/inotify"
"""A folder without others in it, on every machine."""


def watch_trouble() -> str:
    """Why not one folder more can be watched now, whatever the limit says; empty if it can.

    All programs of a user share the limit.
    """
    trial = Watches(lambda: None)
    try:
        trial.add(_LONE, Inbox(_LONE, trial.wake))
    except OSError as error:
        return error.strerror or str(error)
    finally:
        trial.close()
    return ""


class Watches(logging.Handler):
    """The one watchdog observer of all folders; `wake` is called from its threads."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self.wake = wake
        self._observer: BaseObserver | None = None
        self._inboxes: dict[ObservedWatch, Inbox] = {}
        LOG.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        """Scan everything when watchdog warns: only its log tells that events are lost."""
        for inbox in list(self._inboxes.values()):
            inbox.overflow()
        self.wake()

    def add(self, root: str, inbox: Inbox) -> ObservedWatch:
        """Watch a folder with all below it; OSError where that can't be."""
        if self._observer is None or not self._observer.is_alive():
            self.renew()
            # 7.1 warns when it meets a folder twice, as in any copied tree, with pages of text.
            warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
            self._observer = InotifyObserver()
            self._observer.start()
        watch = self._observer.schedule(inbox, root, recursive=True, event_filter=EVENTS)
        self._inboxes[watch] = inbox
        return watch

    def remove(self, watch: ObservedWatch) -> None:
        """Watch a folder no more."""
        self._inboxes.pop(watch, None)
        if self._observer:
            with contextlib.suppress(KeyError):  # gone already, or its books are wrong
                self._observer.unschedule(watch)

    def alive(self, watch: ObservedWatch) -> bool:
        """Whether the threads that bring this folder's events still run."""
        observer = self._observer
        return (
            observer is not None
            and observer.is_alive()
            and any(each.watch == watch and each.is_alive() for each in list(observer.emitters))
        )

    def renew(self) -> None:
        """End all watches and their threads, so that each folder asks for a new watch.

        A thread that has died unseen would keep events from all folders, for good.
        """
        for watch in list(self._inboxes):  # one by one: no error in one keeps the others
            self.remove(watch)
        if self._observer:
            self._observer.stop()
            self._observer.join()
        self._observer = None

    def close(self) -> None:
        """End all watches and their threads."""
        LOG.removeHandler(self)
        self.renew()
