"""Whose turn it is: work is shared between folders by weight and cost, not by who came first.

Start-time fair queuing: each folder has a clock that its jobs advance by cost / weight, and the
folder whose clock is behind goes next. One photo in a quiet folder never waits for the thousand
in another: with equal weights, at most one job of each other folder comes before it.
"""

from collections.abc import Collection


class FairShare:
    """The folders' clocks."""

    def __init__(self) -> None:
        self._clocks: dict[str, float] = {}
        self._now = 0.0

    def pick(self, waiting: Collection[str]) -> str | None:
        """The folder to serve next; None when none is waiting."""
        for folder in waiting:  # who was away does not save up
            self._clocks[folder] = max(self._clocks.get(folder, 0.0), self._now)
        return min(waiting, key=lambda folder: (self._clocks[folder], folder), default=None)

    def charge(self, folder: str, cost: float, weight: float) -> None:
        """A job of `cost` (expected seconds) starts in `folder`, which was picked."""
        self._now = self._clocks[folder]
        self._clocks[folder] += cost / weight

    def give_back(self, folder: str, cost: float, weight: float) -> None:
        """A job that was charged has cost nothing after all."""
        self._clocks[folder] -= cost / weight
