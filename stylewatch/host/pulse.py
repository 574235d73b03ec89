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
        self.lost: list[str] = []
        """What has not healed itself."""

    def feel(self, signs: Mapping[str, bool], now: float) -> list[str]:
        """How each part is; one that is not named any more is no worry any more.

        Returns what is lost since now.
        """
        self._since = {name: self._since.get(name, now) for name, well in signs.items() if not well}
        before = self.lost
        self.lost = [name for name, since in self._since.items() if now - since >= PATIENCE]
        return [name for name in self.lost if name not in before]
