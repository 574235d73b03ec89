"""Has the config read again when it has changed: its file, presets, and what these need."""

import math
import stat
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from stylewatch.errors import LedgerError, LockedError, WeightsError
from stylewatch.host.daemon import Daemon
from stylewatch.settings.weights import downloaded

LOOK_SECONDS = 2.0  # how often the files are looked at
RESTLESS_SECONDS = 10.0  # photos wait no longer for files that keep changing
LOCKED_SECONDS = 30.0  # until a config is tried again that names another daemon's folder

_States = dict[Path, tuple[int, int, int]]


class OnChange:
    """Has the daemon read the config again when a file of it has changed, and changes no more.

    Photos that are complete meanwhile wait: who saves a preset and then drops a photo means the new
    preset. If the daemon could not read it, as its ledger could not be written, or as another
    daemon watches one of the folders, it is asked again.
    Photos that wait for Keras's own weights are tried as soon as somebody has fetched these.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._read: _States = {}
        self._images: _States = {}
        with suppress(OSError):  # a folder may be closed to us: then all is new when it is not
            self._read, self._images = self._find()
        self._seen = (self._read, self._images)
        self._downloaded = downloaded()
        self._next = -math.inf
        self._rested = math.inf  # when all files were last seen as they were read
        self._answer: Future[Any] = Future()  # to the last request to reload …
        self._asked = -math.inf  # … and when that was

    def look(self, now: float) -> None:
        """Look for changes; called in the daemon's thread, after each of its ticks."""
        if now < self._next:
            return
        self._next = now + LOOK_SECONDS
        self._rested = min(self._rested, now)
        before, self._downloaded = self._downloaded, downloaded()
        if self._downloaded and not before:
            self._daemon.ask("retry", reason=WeightsError.not_downloaded)
        try:
            seen = self._find()
        except OSError:  # a folder that is closed to us for now
            return
        if self._is_read(seen) and not self._is_refused_for_now(now):
            self._images, self._rested = seen[1], now
        elif seen != self._seen:
            self._seen = seen  # somebody is at it: one more look
        else:
            self._read, self._images = seen
            self._answer, self._asked = self._daemon.ask("reload"), now

    def _is_refused_for_now(self, now: float) -> bool:
        """Whether a config could not be read for a reason that passes, and is to be tried again."""
        error = self._answer.exception() if self._answer.done() else None
        locked = isinstance(error, LockedError) and now >= self._asked + LOCKED_SECONDS
        return locked or isinstance(error, LedgerError)

    def is_outdated(self, now: float) -> bool:
        """Whether a change is about to be read; but files that keep changing hold nothing up."""
        try:
            return now < self._rested + RESTLESS_SECONDS and not self._is_read(self._find())
        except OSError:
            return False

    def _is_read(self, seen: tuple[_States, _States]) -> bool:
        files, images = seen
        known = images | self._images  # those of a new preset are as its reader saw them
        return files == self._read and images.items() <= known.items()

    def _find(self) -> tuple[_States, _States]:
        """The config, the folders of presets with their files, and the files that these need."""
        config = self._daemon.config
        files = [file for folder in config.preset_dirs for file in (folder, *folder.glob("*.y*ml"))]
        files += [config.file] if config.file else []
        return _states_of(files), _states_of(config.files)


def _states_of(files: Iterable[Path]) -> _States:
    return {file: _state_of(file) for file in files}


def _state_of(file: Path) -> tuple[int, int, int]:
    try:
        info = file.stat()
    except OSError:
        return (0, 0, 0)
    if stat.S_ISDIR(info.st_mode):  # its presets have states of their own
        return (info.st_ino, info.st_mode, info.st_uid)
    return (info.st_ino, info.st_size, info.st_ctime_ns)  # of new rights, too
