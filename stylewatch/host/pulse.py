"""Which parts of the daemon stand still, for a service's watchdog.

A part may recover by itself; only one that has not done so in time is a reason to restart. Pure.
Knows nothing of folders, processes and systemd.
"""

from collections.abc import Mapping

PATIENCE = 45.0
"""Seconds that a part has to recover by itself: inotify's threads need one tick, a killed process
12 s, a lost engine 5 s per attempt."""


class Pulse:
    """Remembers since when each part, known by a name, gives no sign of life."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self.lost: list[str] = []
        """The parts that have not recovered in time."""

    def feel(self, signs: Mapping[str, bool], now: float) -> list[str]:
        """Take note of whether each part is well; one that is not named any more is forgotten.

        Returns the parts that have just become `lost`.
        """
        self._since = {name: self._since.get(name, now) for name, well in signs.items() if not well}
        before = self.lost
        self.lost = [name for name, since in self._since.items() if now - since >= PATIENCE]
        return [name for name in self.lost if name not in before]
