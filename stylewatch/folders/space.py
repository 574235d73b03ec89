"""Outputs that can't be written to now: paused when a disk runs full, taken up again later.

Knows nothing of jobs and of what is written there.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from stylewatch.errors import OutputFullError
from stylewatch.places import nearest_existing

FULL = OutputFullError.reason
ROOM = 1.25  # times `min_free` has to be free before a paused output goes on

_WORDS = {FULL: "is full", OutputFullError.forbidden: "can't be written"}


def trouble_of(output: Path | str, why: str) -> str:
    """The trouble in words, for people."""
    return f"{output} {_WORDS.get(why, 'is not there')}"


def free_space(folder: Path) -> float:
    """Bytes that may still be written there, or would be where it is still to be made.

    Infinitely many where the file system does not tell its size, as some that programs provide.
    """
    usage = os.statvfs(nearest_existing(folder))
    return usage.f_bavail * usage.f_frsize if usage.f_blocks else math.inf


def require_room(folder: Path, min_free: int) -> None:
    """Make sure, before a photo is painted, that its result will have room.

    Raises:
        OutputFullError: less is free than `min_free` in this folder, which may have a disk of its
            own.
    """
    with contextlib.suppress(OSError):
        if free_space(folder) < min_free:
            raise OutputFullError(
                f"{folder}: less than the {min_free / 1e6:.0f} MB of `min_free` are free",
                remedy="Make room there; a daemon then goes on",
            )


class Space:
    """The outputs that are paused, and until when at least."""

    def __init__(self) -> None:
        self._paused: dict[Path, tuple[float, str]] = {}

    @property
    def paused(self) -> dict[Path, str]:
        """Where nothing can be written now, and why: `disk-full`, `away` or `forbidden`."""
        return {output: why for output, (_, why) in self._paused.items()}

    def trouble(self, output: Path) -> str:
        """Why nothing can be written there now, for people; else empty."""
        why = self.paused.get(output)
        return trouble_of(output, why) if why else ""

    def pause(self, output: Path, until: float, why: str) -> None:
        """Pause an output after a write has failed, even if there seems to be room (a quota)."""
        self._paused[output] = until, why

    def look(
        self,
        outputs: Iterable[Path],
        min_free: int,
        now: float,
        can_be_written: Callable[[Path], bool],
    ) -> Iterator[tuple[Path, Literal["blocked", "recovered"], str, str]]:
        """Pause outputs that run full, take up paused ones, and forget those that are no more.

        Gives each that has changed: what it is by now, in words, and why.
        """
        outputs = list(outputs)
        for left in self._paused.keys() - {*outputs}:
            _, why = self._paused.pop(left)
            yield left, "recovered", f"{left}: no results go there any more", why
        for output in outputs:
            try:
                free = free_space(output)
            except OSError:
                continue
            if output not in self._paused:
                if free < min_free:
                    self._paused[output] = now, FULL
                    rest = f"it goes on by itself at {ROOM * min_free / 1e6:.0f} MB"
                    wanted = f"the {min_free / 1e6:.0f} MB of `min_free`"
                    told = f"{output}: only {int(free / 1e6)} MB free of {wanted}; {rest}"
                    yield output, "blocked", told, FULL
                continue
            until, why = self._paused[output]
            if now >= until and free >= ROOM * min_free and can_be_written(output):
                del self._paused[output]
                yield output, "recovered", f"{output}: results can be written again", why
