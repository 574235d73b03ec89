"""One job in its own process: read the photo, render it, write the result beside its place.

The result stays under a temporary name: the daemon publishes it once its ledger says so. Knows
nothing of queues, folders or the ledger.
"""

import contextlib
import errno
import hashlib
import os
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from stylewatch.domain import (
    EngineSettings,
    Failure,
    FailureKind,
    JobRequest,
    OnStep,
    Outcome,
    OutputSettings,
    Preset,
    Rendered,
    job_key,
)
from stylewatch.effect import Context, Rendering, checked, open_effect, steps_only
from stylewatch.engine.images import Format, Picture, read_picture
from stylewatch.engine.machine import check_processor
from stylewatch.engine.results import EXTENSIONS, read_facts, write_picture
from stylewatch.engine.sizes import resize_alpha
from stylewatch.errors import (
    ExecutorError,
    InputChangedError,
    InputError,
    OutputFullError,
    RenderError,
    StylewatchError,
    kind_of,
    named,
    ran_out_of_memory,
)
from stylewatch.folders.contents import open_regular
from stylewatch.folders.outputs import can_be_written, write_temporary
from stylewatch.state.checkpoints import CheckpointFile
from stylewatch.state.wording import UNFORESEEN

_LONGEST: Mapping[Format, int] = {"jpeg": 65500, "webp": 16383}
"""The most pixels that a side may have in formats with a limit."""


def run_job(request: JobRequest, engine: EngineSettings, *, report: OnStep) -> Outcome:
    """Do one job. An error that can be foreseen is returned as a `Failure`.

    One that is this process's, which is then replaced, is raised.
    """
    try:
        return render_job(request, engine, report)
    except ExecutorError:
        raise
    except (StylewatchError, OSError) as error:
        return failure_of(error)


def render_job(request: JobRequest, engine: EngineSettings, report: OnStep) -> Rendered:
    """Do one job. An error that can be foreseen is raised: a `StylewatchError` or an `OSError`."""
    try:
        return _render(request, engine, report)
    except (StylewatchError, OSError):
        raise
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        text = "not enough memory for a photo of this size"
        raise RenderError(text, reason="memory") from error


def _render(request: JobRequest, engine: EngineSettings, report: OnStep) -> Rendered:
    started = time.monotonic()
    preset = request.preset
    picture = read_picture(_read_unchanged(request, engine), **engine.limits, fit=_fit(preset))
    form = picture.format if preset.output.format == "same" else preset.output.format
    _check_fits(picture, form, preset.settings.max_side)
    _check_folder(request)
    checkpoint = _checkpoint(request, engine)
    key = _picture_key(picture, preset, engine)
    before = _painted_before(request.earlier, key, form)
    rendering = before or _painted(picture.rgb, request, engine, checkpoint, report)
    facts = {**rendering.facts, "job_key": request.key, "picture_key": key, "preset": preset.name}
    if request.owner:  # a daemon's: the one result for this photo and preset
        facts["photo"] = request.digest
    painted = replace(
        picture, rgb=rendering.rgb, alpha=resize_alpha(picture.alpha, rendering.rgb.shape)
    )
    result = _encoded(painted, form, preset.output, facts)
    temporary = write_temporary(
        result, request.target, EXTENSIONS[form], request.job_id, request.owner
    )
    _check_opens(temporary)
    if checkpoint:
        checkpoint.clear()
    return Rendered(
        temporary=temporary,
        extension=EXTENSIONS[form],
        sha256=hashlib.sha256(result).hexdigest(),
        width=rendering.rgb.shape[1],
        height=rendering.rgb.shape[0],
        seconds=0.0 if before else time.monotonic() - started,
        evaluations=rendering.evaluations,
        loss=rendering.loss,
        facts=facts,
        note=rendering.note,
    )


def _fit(preset: Preset) -> int | None:
    """The most pixels that a side of the photo need have; another package's effect gets them all.

    A camera's photo would take a second and much memory for what is never seen.
    """
    side = preset.settings.max_side
    return None if side == "photo" or preset.effect != Preset.effect else side


def _picture_key(picture: Picture, preset: Preset, engine: EngineSettings) -> str:
    """A key like `job_key`, but the same whatever captions and stars the photo has.

    Empty if the photo is transparent, as its result may not show all. The features asked for count
    too, so that a request for VGG19 never reuses built-in ones.
    """
    if picture.alpha is not None:
        return ""
    digest = hashlib.sha256(np.ascontiguousarray(picture.rgb).data)
    digest.update(f"{picture.rgb.shape}{engine.features_for(preset.settings)}".encode())
    return job_key(digest.hexdigest(), preset.digest)


def _painted_before(earlier: Path | None, key: str, form: Format) -> Rendering | None:
    """What an earlier result shows, if it is of the very same picture and preset.

    Catalogues write stars and keywords into photos: then all else about the result is new. It
    loses nothing that is to be seen, but for WebP, which loses as much again each time.
    """
    if earlier is None or not key or form == "webp":
        return None
    try:
        with open_regular(earlier) as stream:
            data = stream.read()
        facts = read_facts(data)
        if facts.get("picture_key") != key:
            return None
        picture = read_picture(data, max_pixels=sys.maxsize, max_side=sys.maxsize)
    except (InputError, OSError):
        return None
    note = "the same picture as before: only what is written about it is new"
    return Rendering(rgb=picture.rgb, facts=facts, note=note)


def _painted(
    photo: np.ndarray,
    request: JobRequest,
    engine: EngineSettings,
    checkpoint: CheckpointFile | None,
    report: OnStep,
) -> Rendering:
    context = Context(
        engine=engine,
        on_step=steps_only(report),
        checkpoint=checkpoint,
        crashes=request.crashes,
    )
    if request.preset.effect == Preset.effect:
        check_processor()
    effect = open_effect(request.preset.effect)
    brightest = float(photo.max())  # an effect may write into it
    try:
        return checked(effect.render(photo, request.preset, context), brightest)
    except OSError as error:
        traceback.print_exc()
        if error.errno:
            raise
        raise ExecutorError(named(error), reason=UNFORESEEN) from error  # a library's, of no disk


def _read_unchanged(request: JobRequest, engine: EngineSettings) -> bytes:
    """The photo's bytes; an error if they are not those that the job was made for."""
    try:
        with open_regular(request.source) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > engine.max_bytes:
                raise InputError(
                    "The photo is too large",
                    expected=f"at most {engine.max_bytes} bytes",
                    received=str(size),
                    reason="too-large",
                )
            data = stream.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise InputChangedError("The photo is gone", reason="vanished") from error
    if hashlib.sha256(data).hexdigest() != request.digest:
        raise InputChangedError("The photo changed after it was queued")
    return data


def _check_fits(picture: Picture, form: Format, max_side: int | Literal["photo"]) -> None:
    """An InputError, before anything is painted, if the result is too long for its format."""
    side = max(picture.rgb.shape[:2])
    side = side if max_side == "photo" else min(side, max_side)
    if side > (most := _LONGEST.get(form, side)):
        raise InputError(
            f"The result would be too large for `{form}`",
            expected=f"at most {most} pixels a side",
            received=str(side),
            remedy="Lower the preset's `max_side`, or choose another `output.format`",
            reason="too-large",
        )


def _check_folder(request: JobRequest) -> None:
    """An OutputFullError, before anything is painted, where nothing can be put beside the result.

    The daemon has made that folder: whose machine has none has another disk there.
    """
    folder = request.target.parent
    if request.owner and not can_be_written(folder):
        raise OutputFullError(
            f"{folder} is not there, or can't be written",
            remedy="Check its permissions, and whether its disk is there and not read-only",
            reason=OutputFullError.forbidden,
        )


def _encoded(
    picture: Picture, form: Format, output: OutputSettings, facts: Mapping[str, str]
) -> bytes:
    try:
        return write_picture(
            picture, format=form, quality=output.quality, keep_gps=output.keep_gps, facts=facts
        )
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # Pillow's own have none
            raise
        received = " ".join(str(error).split()) or type(error).__name__
        raise RenderError(
            "The result can't be encoded", received=received, reason="encode"
        ) from error


def _check_opens(temporary: Path) -> None:
    """A RenderError if a result can't be opened again; then its file is removed.

    The limits for photos do not hold for it.
    """
    try:
        data = temporary.read_bytes()
        read_picture(data, max_pixels=sys.maxsize, max_side=sys.maxsize)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, InputError):
            raise RenderError(
                "The result can't be opened again", received=error.problem, reason="result"
            ) from error
        raise


def _checkpoint(request: JobRequest, engine: EngineSettings) -> CheckpointFile | None:
    if engine.checkpoint_dir is None:
        return None
    path = engine.checkpoint_dir / f"{request.key}.npz"
    return CheckpointFile(path, engine.checkpoint_seconds)


def failure_of(error: StylewatchError | OSError) -> Failure:
    """An exception as a failure of its kind, with a line for people."""
    if isinstance(error, StylewatchError):
        return error.failure
    # not found: a file of the effect's own, as the photo was read
    kind = FailureKind.RENDER if error.errno == errno.ENOENT else kind_of(error.errno)
    reason = errno.errorcode.get(error.errno or 0, "io").lower()
    return Failure(kind=kind, reason=reason, message=" ".join(str(error).split()))
