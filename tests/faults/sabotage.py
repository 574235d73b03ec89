"""Breaks the world inside a process: failing calls, a jumping clock, threads that die.

For what can't be done to a process from outside without harm to the machine. Named in
`STYLEWATCH_SABOTAGE`, as `io:FOLDER`. Files beside the folder switch it on (`.sabotage.on`) and tell
how often it acted (`.sabotage.count`, a line each).
"""

import builtins
import contextlib
import errno
import io
import itertools
import os
import threading
import time

CODES = itertools.cycle((errno.EIO, errno.ESTALE, errno.EBUSY))
_real_open, _real_exists = os.open, os.path.exists


def install() -> None:
    kind, _, folder = os.environ["STYLEWATCH_SABOTAGE"].partition(":")
    {"io": _break_io, "clock": _jump, "threads": _kill_threads, "power": _trace}[kind](folder)


def _beside(folder: str, name: str) -> str:
    return f"{os.path.dirname(folder)}/.sabotage.{name}"


def count(folder: str, what: str = "x") -> None:
    descriptor = _real_open(_beside(folder, "count"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, f"{what}\n".encode(errors="surrogateescape"))
    os.close(descriptor)


def _break_io(folder: str) -> None:
    """Every stat, open, listing, link and rename below the folder fails, as on a sick disk."""
    root, switch = os.fspath(folder), _beside(folder, "on")

    def broken(real):
        def call(path, *arguments, **named):
            is_name = isinstance(path, str | bytes | os.PathLike)
            below = is_name and (
                os.fsdecode(path) == root or os.fsdecode(path).startswith(root + "/")
            )
            below = below or named.get("dir_fd") is not None
            below = below or (is_name and os.fsdecode(path).startswith("/proc/self/fd/"))
            if below and _real_exists(switch):
                count(folder)
                code = next(CODES)
                raise OSError(code, os.strerror(code), os.fsdecode(path))
            return real(path, *arguments, **named)

        return call

    for name in (
        "stat",
        "lstat",
        "open",
        "scandir",
        "link",
        "rename",
        "replace",
        "unlink",
        "mkdir",
    ):
        setattr(os, name, broken(getattr(os, name)))
    builtins.open = io.open = broken(io.open)


def _jump(_: str) -> None:
    """The wall clock leaps an hour forth and back, all the time."""
    from stylewatch.host import daemon

    real = time.time

    def leaping() -> float:
        now = real()
        return now + (3600, -3600)[int(now * 2) % 2]

    time.time = leaping
    daemon.Daemon.__init__.__kwdefaults__["wall_clock"] = leaping  # which was read before


def _kill_threads(folder: str) -> None:
    """watchdog's threads die of an exception now and then, first the emitters, then the observer."""
    from watchdog.observers.api import BaseObserver
    from watchdog.observers.inotify import InotifyEmitter

    def dying(real, name):
        def call(self, *arguments):
            if _real_exists(_beside(folder, name)):
                with contextlib.suppress(OSError):
                    os.unlink(_beside(folder, name))
                count(folder, name)
                raise RuntimeError(f"the {name} dies")
            return real(self, *arguments)

        return call

    InotifyEmitter.queue_events = dying(InotifyEmitter.queue_events, "emitter")
    BaseObserver.dispatch_events = dying(BaseObserver.dispatch_events, "observer")
    threading.excepthook = lambda _: None


def _trace(folder: str) -> None:
    """Writes down what has become durable, in order, for a power loss to be played afterwards.

    A name that is removed or replaced leaves a link in the graveyard, so that it can come back.
    """
    base = os.path.dirname(folder)
    log, graveyard = f"{base}/.trace", f"{base}/.graveyard"
    real = {name: getattr(os, name) for name in ("link", "replace", "rename", "unlink", "fsync")}

    def note(*words) -> None:
        descriptor = _real_open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(descriptor, ("\t".join(words) + "\n").encode(errors="surrogateescape"))
        os.close(descriptor)

    def place(path) -> str:
        """Where a name lies, also one in a folder that is held open."""
        above, name = os.path.split(os.fsdecode(path))
        return os.path.join(os.path.realpath(above), name)

    def bury(path: str) -> str:
        grave = f"{graveyard}/{time.monotonic_ns()}"
        try:
            os.makedirs(graveyard, exist_ok=True)
            real["link"](path, grave, follow_symlinks=False)
        except OSError:
            return ""
        return grave

    def fsync(descriptor):
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        real["fsync"](number)
        note("sync", os.readlink(f"/proc/self/fd/{number}"))

    def link(old, new, **named):
        real["link"](old, new, **named)
        note("link", place(new))

    def unlink(path, **named):
        grave = bury(path)
        real["unlink"](path, **named)
        note("unlink", place(path), grave)

    def replace(old, new, **named):
        grave = bury(new)
        real["replace"](old, new, **named)
        note("replace", place(new), grave, place(old))

    os.fsync, os.link, os.unlink, os.replace, os.rename = fsync, link, unlink, replace, replace
