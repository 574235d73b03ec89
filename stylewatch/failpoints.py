"""Places where a test may kill the process: off, and free, unless the environment says so.

`STYLEWATCH_FAILPOINT=outputs.named:3` sends SIGKILL to the process when it passes the point
`outputs.named` for the third time. The fault tests walk through all of them.
"""

import os
import signal
from collections import Counter

_WANTED, _, _COUNT = os.environ.get("STYLEWATCH_FAILPOINT", "").partition(":")
_passed: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Die here, as by `kill -9`, if the environment asks for it."""
    if not _WANTED:
        return
    _passed[name] += 1
    if name == _WANTED and _passed[name] == int(_COUNT or 1):
        os.kill(os.getpid(), signal.SIGKILL)
