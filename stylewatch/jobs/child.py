"""Inside a worker's process: its limits, its end with its parent, and how a job answers.

Runs before anything heavy is imported, so that the limits hold for that too. Knows nothing of what
a job does.
"""

import contextlib
import ctypes
import hashlib
import os
import pickle
import platform
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from stylewatch.domain import EngineSettings
from stylewatch.engine.machine import addresses_used, cores
from stylewatch.errors import EngineLost, ExecutorError, StylewatchError, named
from stylewatch.state.wording import UNFORESEEN

PR_SET_PDEATHSIG = 1
MESSAGE_LIMIT = 4092  # a pipe takes 4096 bytes whole or not at all, and 4 of them tell the length
LOG_BYTES = 1_000_000
OOM_SCORE = "500"  # of 1000: where memory runs out the kernel ends a worker, and nobody's work
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")

JobName = tuple[int, int]
"""The daemon's number of a job, and the executor's own number of this run of it."""

_progress: Connection | None = None
_strange = False  # whether our parent is of another version of stylewatch


def _read_code() -> str:
    """A hash of all the code of this package, and of Python's version: pickles need the same."""
    package = Path(__file__).parents[1]
    code = hashlib.sha256(repr(sys.version_info[:2]).encode())
    for file in sorted(package.rglob("*.py")):
        if file.is_file():  # and no editor's lock, a link to nowhere
            code.update(b"%s\0%s" % (bytes(file.relative_to(package)), file.read_bytes()))
    return code.hexdigest()


CODE: Final = _read_code()
"""Tells this program from an older or newer one: its code as it was when this process started."""


def boot(progress: Connection, engine: EngineSettings, log: Path | None, code: str) -> None:
    """Make this process a worker, which ends with its parent; `code` is the parent's `CODE`."""
    global _progress, _strange  # there is one worker in a process
    _progress, _strange = progress, code != CODE
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # ends at once, whatever C code runs
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal's signals are the daemon's business
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_the_parent()
    _redirect_output(log)
    set_environment(engine)
    with contextlib.suppress(PermissionError):
        os.nice(engine.nice)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")
    limit_memory(engine.memory_limit)


def set_environment(engine: EngineSettings) -> None:
    """Set what libraries read when they are imported: how many threads, how much chatter.

    On x86 TensorFlow is told to use oneDNN. By itself it does so only if the processor has
    AVX-512's or AMX's small numbers; but with plain AVX2 a painting takes half the time, too. As no
    kernel changes here while a network lives, oneDNN may arrange each of them just once.

    TensorFlow and NumPy compute in turn, and the threads of one should not keep the other waiting:
    so TensorFlow does one operation at a time, and OpenBLAS sleeps after 2²⁰ ticks without work.

    Of a GPU's memory libraries take what they need: other workers and the desktop want some, too.
    What somebody's `keras.json` says is meant for their own networks.

    Left to themselves libraries take as many threads as there are cores: that is too many where a
    quota allows fewer, or several workers share them.
    """
    os.environ["KERAS_BACKEND"] = os.environ.get("KERAS_BACKEND") or "tensorflow"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if platform.machine() in {"x86_64", "AMD64"}:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        os.environ.setdefault("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS", "1")
    if engine.threads:
        os.environ.update(dict.fromkeys(THREADS, str(engine.threads)))
    elif (share := max(1, cores() // engine.workers)) < len(os.sched_getaffinity(0)):
        for name in THREADS:
            os.environ.setdefault(name, str(share))


def run(name: JobName, task: bytes) -> bytes:
    """Do one job in this process, and send its progress through the pipe.

    If stylewatch was upgraded since the daemon started, the job is refused: its words may mean
    something else by now.
    """
    if _strange:
        remedy = "Restart it: until then photos wait"
        problem = "stylewatch was upgraded while it ran"
        return _readable_error(EngineLost(problem, remedy=remedy, reason=EngineLost.replaced))

    if os.fstat(2).st_size > LOG_BYTES:  # what is said of each photo adds up, over the years
        os.ftruncate(2, 0)

    def send(message: bytes) -> None:
        assert _progress is not None
        with contextlib.suppress(OSError):  # a full pipe, or nobody reads: never wait for that
            _progress.send_bytes(message)

    return perform(name, task, send)


def perform(name: JobName, task: bytes, send: Callable[[bytes], None]) -> bytes:
    """Call what is pickled in `task`; the result or the error, pickled for `read_answer`."""

    def tell(kind: str, info: Any) -> None:
        message = pickle.dumps((name, kind, info))
        if len(message) <= MESSAGE_LIMIT:
            send(message)

    tell("started", os.getpid())
    try:
        call, args = pickle.loads(task)  # noqa: S301  (from our own daemon)
        return _readable((True, call(*args, report=lambda info: tell("progress", info))))
    except BaseException as error:  # noqa: BLE001  (a job that exits must not take us along)
        if not isinstance(error, StylewatchError):
            traceback.print_exc()
        return _readable_error(error)


def read_answer(answer: bytes) -> Any:
    """What `perform` answered: the result, or its error is raised."""
    try:
        well, content = pickle.loads(answer)  # noqa: S301  (from our own worker)
    except Exception as error:
        raise ExecutorError("a job's answer can't be read", received=repr(error)) from error
    if well:
        return content
    raise content


def _readable(answer: tuple[bool, Any]) -> bytes:
    """The answer pickled, and read once as a test: some errors can be pickled, but not read."""
    data = pickle.dumps(answer)
    pickle.loads(data)  # noqa: S301
    return data


_KNOWN: Final = {"builtins", "stylewatch"}


def _readable_error(error: BaseException) -> bytes:
    """An error pickled: as it is, or, if it is another library's, in words.

    To read that as it is, the daemon would have to load the library.
    """
    with contextlib.suppress(Exception):
        if isinstance(error, Exception) and type(error).__module__.split(".")[0] in _KNOWN:
            return _readable((False, error))
    return _readable((False, ExecutorError(named(error), reason=UNFORESEEN)))


def _die_with_the_parent() -> None:
    """End when the thread that started us does, by the kernel's signal: whatever C code runs."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it has ended already
        os._exit(1)


def _redirect_output(log: Path | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    sink = os.open(log or os.devnull, flags, mode=0o644)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(sink, stream.fileno())
    os.close(sink)


def limit_memory(extra: int) -> None:
    """Let this process take so many bytes of addresses more, and then fail; 0: no limit."""
    if extra:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = addresses_used() + extra
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
