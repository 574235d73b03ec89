"""Jobs that the executors' tests run in other processes; importable there by this name."""

import ctypes
import os
import resource
import signal
import time
from pathlib import Path


class Unreadable(Exception):
    """Can be pickled, and fails when it is read again."""

    def __init__(self, one, two):
        super().__init__(one)


class Poison:
    def __reduce__(self):
        return int, ("not a number",)


def add(one, two, *, report):
    return one + two


def count(number, *, report):
    for each in range(number):
        report(each)
    return number


def raise_it(error, *, report):
    raise error


def raise_unreadable(*, report):
    raise Unreadable("one", "two")


def raise_unpicklable(*, report):
    raise ValueError(lambda: None)


def give_unreadable(*, report):
    return Poison()


def give_unpicklable(*, report):
    return lambda: None


def leave(*, report):
    raise SystemExit(3)


def die(number, *, report):
    os.kill(os.getpid(), number)
    time.sleep(60)


def end(code, *, report):
    os._exit(code)


def sleep(seconds, *, report):
    report("asleep")
    time.sleep(seconds)
    return "awake"


def hold_the_gil(seconds, *, report):
    report("holding")
    ctypes.PyDLL(None).sleep(seconds)  # no other thread of this process runs meanwhile


def stop_yourself(*, report):
    os.kill(os.getpid(), signal.SIGSTOP)


def pid(*, report):
    return os.getpid()


def wait_at(pipe, *, report):
    pipe.read_text()
    return os.getpid()


def report_much(size, number, *, report):
    for _ in range(number):
        report(b"x" * size)
    return number


def report_for_ever(ended, *, report):
    try:
        while True:
            report("still here")
            time.sleep(0.05)
    finally:
        ended.touch()


def talk(*, report):
    print("printed by the job", flush=True)
    os.write(2, b"written by the job's libraries\n")


def talk_much(size, *, report):
    os.write(2, b"x" * size)


def take_memory(size, *, report):
    return len(bytearray(size))


def _started_with(name):
    """A variable as it was when this process began, which is when the C library reads it."""
    told = Path("/proc/self/environ").read_text().split("\0")
    return next((line.partition("=")[2] for line in told if line.startswith(f"{name}=")), None)


def about_yourself(*, report):
    return {
        "nice": os.nice(0),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "tensorflow threads": os.environ.get("TF_NUM_INTRAOP_THREADS"),
        "operations at once": os.environ.get("TF_NUM_INTEROP_THREADS"),
        "chatter": os.environ.get("TF_CPP_MIN_LOG_LEVEL"),
        "memory": resource.getrlimit(resource.RLIMIT_AS)[0],
        "interrupt": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
        "ended first": int(Path("/proc/self/oom_score_adj").read_text()),
        "at its start": _started_with("GLIBC_TUNABLES"),
    }


def copy_or_crash(request, engine, *, report):
    """The effect of the daemon's tests in a real worker: the photo itself, or a dead process."""
    from rig import rendered

    if request.source.name == "crash.jpg":
        os.kill(os.getpid(), signal.SIGSEGV)
    return rendered(request, request.source.read_bytes())
