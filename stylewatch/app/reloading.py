"""Has the config read again when it has changed: its file, presets, and what these need."""

import math
from concurrent.futures import Future
from typing import Any

from stylewatch.errors import LedgerError, LockedError, WeightsError
from stylewatch.host.daemon import Daemon
from stylewatch.settings.states import States, preset_files, states_of
from stylewatch.settings.weights import downloaded

LOOK_SECONDS = 2.0  # how often the files are looked at
RESTLESS_SECONDS = 10.0  # photos wait no longer for files that keep changing
LOCKED_SECONDS = 30.0  # until a config is tried again that names another daemon's folder


class OnChange:
    """Has the daemon read the config again when its files are not as it has read them.

    Photos that are complete meanwhile wait: who saves a preset and then drops a photo means the new
    preset. What the daemon has refused it is asked again when something changes; at once if its
    ledger could not be written, and now and then if another daemon watches one of the folders.
    Photos that wait for Keras's own weights are tried as soon as somebody has fetched these.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._seen: States = {}
        self._downloaded = downloaded()
        self._next = -math.inf
        self._rested = math.inf  # when all files were last seen as they were read
        self._answer: Future[Any] = Future()  # to the last request to reload …
        self._answer.set_result(None)
        self._tried: States = {}  # … what had been seen then …
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
            self._rested = now
        elif seen != self._seen:
            self._seen = seen  # somebody is at it: one more look
        else:
            self._answer, self._tried, self._asked = self._daemon.ask("reload"), seen, now

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

    def _is_read(self, seen: States) -> bool:
        """Whether the files are as the daemon has read them, or else as it was last asked to."""
        well = self._answer.done() and self._answer.exception() is None
        return seen == (self._daemon.config.files if well else self._tried)

    def _find(self) -> States:
        """The config, the folders of presets with their files, and the files that these need."""
        config = self._daemon.config
        return states_of({*config.files, *preset_files(config.preset_dirs)})
