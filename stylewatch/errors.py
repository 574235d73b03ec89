"""Every error that stylewatch raises on purpose, as one tree.

StylewatchError
├── UsageError           the command line asks for something that makes no sense
├── ConfigError          stylewatch.yaml: file, line, column, key
│   └── PresetError      a preset's YAML or its style image
│       ├── PresetImageError    an image that can't be read just now: that preset's photos wait
│       └── PresetEffectError   so they do for an effect that can't be loaded
├── InputError           this photo can't be used (never retried until the file changes)
│   └── InputChangedError    the file changed while it was read: settle again
├── OutputError          the result can't be written
│   └── OutputFullError      no space, no disk, or it is read-only: that output waits by itself
├── WeightsError         the network's weights are missing or damaged
├── RenderError          the effect gave no usable picture (NaN, black)
│   └── UnchangedError       it is the photo, and would be again (never retried)
├── LockedError          another daemon holds this folder or this state
├── NotRunningError      no daemon to talk to
├── LedgerError          the ledger can't be read or written: the daemon waits and recovers
└── ExecutorError        what happened to a job's process
    ├── WorkerDied       crash, out of memory, kill -9
    ├── JobTimeout       ran past its wall-clock limit
    ├── DeviceError      what computes there does not, or has no memory left: all photos wait
    └── EngineLost       the whole executor is gone (a Dask scheduler that went away)

Each says in one line what is wrong, what was expected, what was received and what to do.
"""

import errno
from enum import IntEnum
from pathlib import Path
from typing import Final

from stylewatch.domain import Failure, FailureKind


class ExitCode(IntEnum):
    """What the process tells its caller; listed in the README."""

    OK = 0
    FAILED = 1  # at least one photo, or a check, failed
    USAGE = 2
    CONFIG = 3
    INPUT = 4
    WEIGHTS = 5
    OUTPUT = 6
    LOCKED = 7
    NOT_RUNNING = 8
    UNREADABLE = 9  # the file of a config or preset, as while its disk is away
    INTERNAL = 70
    INTERRUPTED = 130


class StylewatchError(Exception):
    """Base of the tree: one line for people, parts for programs.

    `reason` is a short stable word (`truncated`, `unknown-preset`) for the ledger, for
    `retry --reason` and for metrics; `kind` decides what becomes of a job that fails by it.
    """

    exit_code = ExitCode.FAILED
    reason = "failed"
    kind = FailureKind.RENDER

    def __init__(
        self,
        problem: str,
        *,
        expected: str = "",
        received: str = "",
        remedy: str = "",
        reason: str = "",
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.expected = expected
        self.received = received
        self.remedy = remedy
        self.reason = reason or self.reason

    def __str__(self) -> str:
        """The whole error in one line."""
        line = self.problem
        if self.expected:
            line += f": expected {self.expected}"
            line += f", received {self.received}" if self.received else ""
        elif self.received:
            line += f": received {self.received}"
        return f"{line.removesuffix('.')}. {self.remedy}" if self.remedy else line

    @property
    def failure(self) -> Failure:
        """The failure of a job that meets with this error."""
        return Failure(kind=self.kind, reason=self.reason, message=" ".join(str(self).split()))


class UsageError(StylewatchError):
    """The command line asks for something that makes no sense."""

    exit_code = ExitCode.USAGE
    reason = "usage"


class ConfigError(StylewatchError):
    """A YAML file says something that can't be done; tells where (1-based line and column)."""

    exit_code = ExitCode.CONFIG
    reason = "config"
    others: tuple["ConfigError", ...] = ()
    """What else is wrong in the same file, in the file's order."""

    def __init__(
        self,
        problem: str,
        *,
        file: Path | None = None,
        line: int = 0,
        column: int = 0,
        key: str = "",
        **parts: str,
    ) -> None:
        super().__init__(problem, **parts)
        self.file = file
        self.line = line
        self.column = column
        self.key = key

    def __str__(self) -> str:
        """`file:line:column: key: problem: expected …, received …. remedy (and N more)`."""
        place = str(self.file) if self.file else ""
        if self.line:
            place += f":{self.line}:{self.column}"
        parts = [part for part in (place, self.key) if part]
        line = ": ".join([*parts, super().__str__()])
        return f"{line} (and {len(self.others)} more)" if self.others else line


class PresetError(ConfigError):
    """A preset's YAML or its style image is wrong."""

    reason = "preset"


class PresetImageError(PresetError):
    """An image that a preset names can't be read while a photo is painted."""

    reason = "style-image"
    kind = FailureKind.TRANSIENT  # no photo's fault: all wait until it is back


class PresetEffectError(PresetError):
    """The effect that a preset names is not installed where it is painted, or can't be loaded."""

    reason = "effect"
    kind = FailureKind.TRANSIENT  # likewise


class InputError(StylewatchError):
    """The photo can't be used; retrying without a change would fail again."""

    exit_code = ExitCode.INPUT
    reason = "bad-input"
    kind = FailureKind.BAD_INPUT


class InputChangedError(InputError):
    """The photo changed while it was being read; it has to settle again."""

    reason = "changed"
    kind = FailureKind.CHANGED


class OutputError(StylewatchError):
    """The result can't be written where it belongs."""

    exit_code = ExitCode.OUTPUT
    reason = "output"
    kind = FailureKind.PERMISSION


class OutputFullError(OutputError):
    """No space (ENOSPC, EDQUOT) at the output, its disk is away, or nothing may be written."""

    reason = "disk-full"
    kind = FailureKind.RESOURCE
    away = "away"
    forbidden = "forbidden"
    reasons = (reason, away, forbidden)


class WeightsError(StylewatchError):
    """The network's weights are missing, damaged or not VGG19's."""

    exit_code = ExitCode.WEIGHTS
    reason = "weights"
    kind = FailureKind.TRANSIENT  # no photo's fault: all wait until there are some
    not_downloaded = "weights-missing"
    """The reason if Keras's own could not be downloaded."""
    reasons = (reason, not_downloaded)


class RenderError(StylewatchError):
    """The effect ended without a usable picture: NaN, black, or unchanged."""

    reason = "render"


class UnchangedError(RenderError):
    """The picture is the photo, and would be again."""

    reason = "unchanged"
    kind = FailureKind.BAD_INPUT


class LockedError(StylewatchError):
    """Another daemon already holds this folder or this state directory."""

    exit_code = ExitCode.LOCKED
    reason = "locked"


class NotRunningError(StylewatchError):
    """There is no daemon to talk to."""

    exit_code = ExitCode.NOT_RUNNING
    reason = "not-running"


class LedgerError(StylewatchError):
    """The ledger can't be read or written now (a full disk, permissions, a newer version)."""

    exit_code = ExitCode.OUTPUT
    reason = "ledger"


class ExecutorError(StylewatchError):
    """Something happened to the process that ran a job."""

    reason = "executor"


class WorkerDied(ExecutorError):  # noqa: N818  (an event, and the name every executor here uses)
    """The worker's process ended in the middle of a job: crash, out of memory, kill -9."""

    reason = "crash"
    kind = FailureKind.CRASH


class JobTimeout(ExecutorError):  # noqa: N818
    """The job ran past its wall-clock limit and was killed."""

    reason = "timeout"
    kind = FailureKind.TIMEOUT


class DeviceError(ExecutorError):
    """A GPU, or what else computes, does not work now, or its memory is taken by others.

    Some such errors stay until the process ends.
    """

    reason = "device"
    kind = FailureKind.TRANSIENT  # no photo's fault: all wait until it works


class EngineLost(ExecutorError):  # noqa: N818
    """The whole executor is gone; its jobs go back to the queue and count no attempt."""

    reason = "engine-lost"
    replaced = "replaced"
    """The reason if its workers are of another version of stylewatch than the daemon."""
    kind = FailureKind.LOST


LACKING: Final = (
    *WeightsError.reasons,
    PresetImageError.reason,
    PresetEffectError.reason,
    DeviceError.reason,
)
"""Reasons for which a job fails, and all others of its preset would: something is not there."""

_KINDS: Final = {
    errno.EACCES: FailureKind.PERMISSION,
    errno.EPERM: FailureKind.PERMISSION,
    errno.EROFS: FailureKind.PERMISSION,
    errno.ENOSPC: FailureKind.RESOURCE,
    errno.EDQUOT: FailureKind.RESOURCE,
    errno.ELOOP: FailureKind.BAD_INPUT,
    errno.ENAMETOOLONG: FailureKind.BAD_INPUT,
}


def kind_of(code: int | None) -> FailureKind:
    """The failure kind for this `errno`; whatever is not listed may pass by itself (transient)."""
    return _KINDS.get(code or 0, FailureKind.TRANSIENT)


def named(error: BaseException) -> str:
    """An error that is none of ours in one line, with its class, as messages may be empty."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


_WITHOUT_MEMORY: Final = (
    "resourceexhausted",
    "outofmemory",
    "allocfailed",  # of cuBLAS and cuDNN
    "dnnlibraryinitializationfailed",  # XLA's
    "cublasstatusnotinitialized",
    "cudnnstatusnotinitialized",
    "can'tallocatememory",
    "dsttensorisnotinitialized",  # TensorFlow's, when it copies to a GPU that is full
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether it means that memory ran out, be it Python's, TensorFlow's, JAX's or PyTorch's."""
    told = named(error).lower().replace("_", "").replace(" ", "")
    return isinstance(error, MemoryError) or any(words in told for words in _WITHOUT_MEMORY)
