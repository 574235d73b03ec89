"""Processes that take turns on one machine, and the time that each of them really ran.

What else the machine does then hits all of them alike. Knows nothing of what they compute.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

SLICE = 15.0
"""Seconds of a turn."""
Stops = list[tuple[float, float]]
"""When a process stood still: begin and end, on the monotonic clock that all processes share."""


def running(begin: float, end: float, stops: Sequence[tuple[float, float]]) -> float:
    """Seconds between `begin` and `end` that lie in none of `stops` (which do not overlap)."""
    return end - begin - sum(max(0.0, min(end, b) - max(begin, a)) for a, b in stops)


def take_turns(
    commands: Mapping[str, Sequence[str]],
    finished: Callable[[str, Stops], object],
    seconds: float = SLICE,
) -> None:
    """Run all commands to their end, one at a time; `finished` is told when each stood still."""
    stops: dict[str, Stops] = {name: [] for name in commands}
    stopped: dict[str, float] = {}
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            # a session of its own: an orphaned group with stopped members would be hung up on
            started[name] = subprocess.Popen(command, start_new_session=True)
            _stop(started[name])
            stopped[name] = time.monotonic()
        while waiting := [name for name in started if started[name].poll() is None]:
            for name in waiting:
                stops[name].append((stopped[name], time.monotonic()))
                started[name].send_signal(signal.SIGCONT)
                try:
                    started[name].wait(seconds)
                except subprocess.TimeoutExpired:
                    _stop(started[name])
                stopped[name] = time.monotonic()
                if started[name].poll() == 0:
                    finished(name, stops[name])
    finally:
        for process in started.values():
            process.kill()  # what has ended already is not sent anything
            process.wait()
    failed = [name for name, process in started.items() if process.returncode]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Stop it and wait until it stands still; one that has just ended is left alone."""
    process.send_signal(signal.SIGSTOP)
    if process.poll() is None:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
