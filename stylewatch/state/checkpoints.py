"""A long job's image so far, kept in a file, so that a killed process costs little.

The file belongs to one job key: another photo, preset or engine version never resumes it. The
network may be another by now, so it is in the file.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stylewatch.domain import Checkpoint

_QUICK = 3.0  # seconds: with one each 30 s a tenth of the time
_SMALL = 30e6  # bytes, of 2.5 megapixels: with one each 30 s 1 MB/s, which a disk bears for years


class CheckpointFile:
    """One job's checkpoint: `offer` writes it now and then, `load` reads it, `clear` deletes it."""

    def __init__(
        self, path: Path, every_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._every = every_seconds
        self._clock = clock
        self._due = clock() + every_seconds

    def load(self) -> Checkpoint | None:
        """The last checkpoint, or None; a damaged file counts as none."""
        try:
            with np.load(self._path) as kept:
                numbers = int(kept["scale"]), int(kept["evaluation"])
                network, count = str(kept["network"]), int(kept["count"])
                return Checkpoint(*numbers, kept["image"], network, count)
        except Exception:  # noqa: BLE001  (a damaged file may make NumPy raise anything)
            return None

    def offer(self, make: Callable[[], Checkpoint]) -> None:
        """Write `make()`, unless the last one is recent; a full disk costs only the checkpoint.

        One that takes long, as on a slow disk, or is large, is written less often.
        """
        began = self._clock()
        if began < self._due:
            return
        checkpoint = make()
        temporary = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as stream:
                np.savez(stream, **vars(checkpoint))
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        now = self._clock()
        rarer = max(1.0, (now - began) / _QUICK, checkpoint.image.nbytes / _SMALL)
        self._due = now + self._every * rarer

    def clear(self) -> None:
        """Delete the checkpoint of a job that is done; a failure to do so does not matter."""
        with contextlib.suppress(OSError):
            self._path.unlink()
