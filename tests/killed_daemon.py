"""Runs a daemon that is killed at a failpoint, and then one that is not; a program for tests.

    python tests/killed_daemon.py FOLDER POINT:COUNT …

Prints for each point one line of JSON: whether the first daemon was killed there, and what is on
disk and in the ledger when the second one has nothing more to do. It forks: nothing is imported
twice, and no thread runs before a fork.
"""

import json
import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

from rig import Rig

from stylewatch import failpoints
from stylewatch.host import daemon, delivery, intake
from stylewatch.state.reader import LedgerReader

PHOTOS = {"a.jpg": b"one", "b.jpg": b"one", "sub/c.jpg": b"two"}  # b is a copy: not painted
PATIENCE = 20.0


def run(base: Path, point: str) -> int:
    """A daemon until it has nothing to do, or until it is killed at `point`; how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        failpoints._WANTED, _, count = point.partition(":")
        failpoints._COUNT = count
        daemon.LOOK_SECONDS = delivery.UNNAMED_SECONDS = intake.TURN_SECONDS = 0.1
        rig = Rig(base).with_folders({"after": base / "moved"}).start()
        rig.until(lambda: done(rig), PATIENCE)
        rig.daemon.stop()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)


def done(rig):
    scanned = rig.daemon._intake.health(time.monotonic())[0].scan_age < 60
    left = any(path.is_file() for path in rig.input.rglob("*"))
    return scanned and not left and rig.idle()


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_bytes().decode()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def case(base: Path, point: str) -> dict:
    for name, data in PHOTOS.items():
        path = base / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    killed = run(base, point) == -signal.SIGKILL
    ended = run(base, "")
    with closing(LedgerReader(base / "state" / "ledger.db")) as reader:
        jobs = sorted((str(job.path), str(job.state)) for job in reader.jobs())
    return {
        "point": point, "killed": killed, "ended": ended, "jobs": jobs,
        "results": files(base / "out"), "moved": files(base / "moved"), "left": files(base / "in"),
    }  # fmt: skip


if __name__ == "__main__":
    for number, each in enumerate(sys.argv[2:]):
        print(json.dumps(case(Path(sys.argv[1], str(number)), each)), flush=True)
