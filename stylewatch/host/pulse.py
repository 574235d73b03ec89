"""Whether everything that must move still moves, for a service's watchdog.

What stands still may heal itself; only what has not healed in its time is a reason to start over.
Pure. Knows nothing of folders, processes and systemd.
"""

from collections.abc import Mapping

PATIENCE = 45.0
"""Seconds that a part has to heal itself: inotify's threads need one tick, a killed process 12 s,
a lost engine 5 s per attempt."""


class Pulse:
    """Follows signs of life, each under its own name."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def feel(self, signs: Mapping[str, bool], now: float) -> None:
        """How each part is; one that is not named any more is no worry any more."""
        self._since = {name: self._since.get(name, now) for name, well in signs.items() if not well}

    def forget(self) -> None:
        """Nothing needs to move now."""
        self._since = {}

    def lost(self, now: float) -> list[str]:
        """What has not healed itself."""
        return [name for name, since in self._since.items() if now - since >= PATIENCE]
