"""Photos painted here and now, in this process: what `apply`, `demo` and `presets` do.

Knows nothing of queues, of the ledger or of the daemon. Loads the network's libraries when the
first picture begins, and not before.
"""

# ruff: noqa: PLC0415  (see above)

import hashlib
import os
import stat
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from stylewatch.app.order import Task
from stylewatch.domain import (
    EngineSettings,
    Event,
    EventKind,
    JobRequest,
    OnStep,
    Rendered,
    job_key,
)
from stylewatch.errors import (
    DeviceError,
    InputError,
    PresetError,
    RenderError,
    StylewatchError,
    WeightsError,
    named,
)
from stylewatch.folders.outputs import publish, write_temporary
from stylewatch.state.wording import REMEDIES, UNFORESEEN

OF_ALL: Final = (DeviceError, PresetError, WeightsError)
"""Errors that all other photos would meet with, too."""


@dataclass(frozen=True, kw_only=True)
class Painted:
    """One picture, painted and in its place."""

    task: Task
    output: Path
    rendered: Rendered

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        told = asdict(self.rendered)
        for key in ("temporary", "extension"):
            del told[key]
        return {**self.task.as_dict(), "output": self.output, **told}


def paint(
    task: Task, engine: EngineSettings, on_event: Callable[[Event], None]
) -> Painted | StylewatchError:
    """Paint one picture and tell of it; gives the error, if only this picture fails by it."""

    def told(kind: EventKind, message: str = "", **more: Any) -> None:
        on_event(
            Event(
                kind=kind,
                message=message,
                path=str(task.photo),
                preset=task.preset.name,
                job_id=task.number,
                **more,
            )
        )

    what = f"{task.place} {task.photo} → {task.preset.name}".removeprefix(" ")
    told("running", what, extra={"place": task.place})
    try:
        painted = _paint(task, engine, lambda step: told("progress", step=step))
    except OF_ALL:
        raise
    except StylewatchError as error:
        error.remedy = error.remedy or REMEDIES.get(error.reason, "")
        told("failed", _about(task.photo, error), reason=error.reason)
        return without_frames(error)
    output, seconds, note = painted.output, painted.rendered.seconds, painted.rendered.note
    message = f"{output} in {seconds:.1f} s" + (f" ({note})" if note else "")
    told("done", message, output=str(output), seconds=seconds)
    return painted


def set_up(engine: EngineSettings) -> None:
    """Set up this process as a worker's is, before it loads the network's libraries."""
    from stylewatch.jobs.child import set_environment

    set_environment(engine)


def _paint(task: Task, engine: EngineSettings, report: OnStep) -> Painted:
    """Paint one picture and give it its name; an unforeseen error becomes a RenderError."""
    set_up(engine)
    from stylewatch.jobs.worker import render_job

    request = _request(task)
    try:
        with redirect_stdout(sys.stderr):  # stdout is for results, not for what libraries print
            rendered = render_job(request, engine, report)
    except StylewatchError as error:
        if error.reason != UNFORESEEN:
            raise
        raise RenderError(error.problem, reason=UNFORESEEN) from error
    except (Exception, SystemExit) as error:
        traceback.print_exc()  # goes there too
        raise RenderError(named(error), reason=UNFORESEEN) from error
    output = publish(rendered.temporary, task.target, task.extension or rendered.extension)
    return Painted(task=task, output=output, rendered=rendered)


def without_frames(error: StylewatchError) -> StylewatchError:
    """An error to be kept: the frames that it came through keep the photo in memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _about(photo: Path, error: StylewatchError) -> str:
    return str(error) if str(photo) in str(error) else f"{photo}: {error}"


def paint_all(
    tasks: Sequence[Task], engine: EngineSettings, on_event: Callable[[Event], None]
) -> Iterator[Painted | StylewatchError]:
    """Paint one after the other; a photo that can't be painted fails alone.

    Raises:
        OutputError: nothing can be written where results go, so nothing is painted.
    """
    for task in {task.target.parent: task for task in tasks}.values():
        write_temporary(b"", task.target, task.extension, os.getpid()).unlink(missing_ok=True)
    for task in tasks:
        yield paint(task, engine, on_event)


def _request(task: Task) -> JobRequest:
    try:
        with open(task.photo, "rb", opener=_open_at_once) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                remedy = "Save the photo as a file first"
                raise InputError(f"{task.photo} is not a regular file", remedy=remedy)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        source = task.photo.resolve()  # a worker follows no links
    except OSError as error:
        remedy = "Check the path and its permissions"
        if isinstance(error, IsADirectoryError):
            remedy = "Name the photos in it, or `stylewatch watch` it"
        elif isinstance(error, FileNotFoundError):
            remedy = "Check the path; one with spaces in it needs quotes"
        raise InputError(f"{task.photo} can't be read: {error.strerror}", remedy=remedy) from error
    return JobRequest(
        job_id=os.getpid(),  # part of the temporary file's name: no other process shares it
        key=job_key(digest, task.preset.digest),
        source=source,
        digest=digest,
        preset=task.preset,
        target=task.target,
    )


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; if it is a pipe, without waiting for somebody to write into it."""
    return os.open(path, flags | os.O_NONBLOCK)
