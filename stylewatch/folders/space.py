"""Outputs that wait for space: paused when a disk runs full, taken up again by themselves.

Knows nothing of jobs and of what is written there.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from stylewatch.errors import OutputError
from stylewatch.folders.outputs import free_space, prepare

ROOM = 1.25  # of the low-water mark: so much has to be free before an output goes on


class Space:
    """The outputs that are paused, and until when at least."""

    def __init__(self) -> None:
        self._paused: dict[Path, float] = {}

    @property
    def paused(self) -> list[Path]:
        """Where nothing can be written now."""
        return list(self._paused)

    def pause(self, output: Path, until: float) -> None:
        """A write has failed there, whatever the file system says of free space (a quota)."""
        self._paused[output] = until

    def look(
        self, outputs: Iterable[Path], min_free: int, now: float
    ) -> Iterator[tuple[Literal["blocked", "recovered"], str]]:
        """Compare what is free with the low-water mark; gives what has changed."""
        outputs = list(outputs)
        self._paused = {path: self._paused[path] for path in outputs if path in self._paused}
        for output in outputs:
            try:
                free = free_space(output)
            except OSError:
                continue
            if output not in self._paused:
                if free < min_free:
                    self._paused[output] = now
                    rest = f"it goes on by itself at {ROOM * min_free / 1e6:.0f} MB"
                    wanted = f"the {min_free / 1e6:.0f} MB of `min_free`"
                    yield "blocked", f"{output}: only {free / 1e6:.0f} MB free of {wanted}; {rest}"
            elif (
                now >= self._paused[output] and free >= ROOM * min_free and _can_be_written(output)
            ):
                del self._paused[output]
                yield "recovered", f"{output}: results can be written again"


def _can_be_written(output: Path) -> bool:
    """Whether results can be written there: its disk may be away."""
    try:
        prepare(output, output / "any")
    except OutputError:
        return False
    return True
