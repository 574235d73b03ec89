"""Lets a test break a worker's process from within; see `tests/faults/sabotage.py`.

Only the first worker dies at a failpoint: one that dies at every photo is another fault.
"""

import contextlib
import os

if os.environ.get("STYLEWATCH_FAILPOINT"):
    with contextlib.suppress(KeyError):
        try:
            os.close(os.open(f"{os.environ['ECHO_LOG']}.armed", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            del os.environ["STYLEWATCH_FAILPOINT"]

if os.environ.get("STYLEWATCH_SABOTAGE"):
    from tests.faults import sabotage

    sabotage.install()
