"""Photos painted here and now, in this process: what `apply`, `demo` and `presets preview` do.

Knows nothing of queues, of the ledger or of the daemon. Loads the network's libraries when the
first picture begins, and not before.
"""

# ruff: noqa: PLC0415  (see above)

import hashlib
import json
import math
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from stylewatch.domain import (
    EngineSettings,
    Event,
    Failure,
    FailureKind,
    JobRequest,
    Preset,
    Rendered,
    Step,
    StyleImage,
    job_key,
)
from stylewatch.errors import (
    InputChangedError,
    InputError,
    OutputError,
    OutputFullError,
    PresetError,
    RenderError,
    StylewatchError,
    UsageError,
    WeightsError,
)
from stylewatch.faces.lines import jsonable
from stylewatch.folders.outputs import publish, target_name, write_temporary
from stylewatch.settings.presets import changed, find_preset, known_presets
from stylewatch.settings.yamlfile import shown

FORMATS: Final = {
    ".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp", ".tif": "tiff",
    ".tiff": "tiff", ".heic": "heic", ".heif": "heic",
}  # fmt: skip
"""The formats that a result's name may ask for."""
_OTHER_PICTURES: Final = {
    ".arw", ".avif", ".bmp", ".cr2", ".cr3", ".dng", ".eps", ".exr", ".gif", ".hif", ".ico",
    ".jfif", ".jp2", ".jpe", ".jxl", ".nef", ".pdf", ".pgm", ".pnm", ".ppm", ".psd", ".raw",
    ".svg", ".tga",
}  # fmt: skip
"""Names of pictures that are not written here: nobody means a folder by them."""
_ELSEWHERE: Final = {
    "base": "Choose it with --preset NAME",
    "style": "Choose it with --style IMAGE",
    "description": "It makes no difference to a picture",
}
"""Keys of a preset's file that `--set` leaves alone."""
_LONGEST_INT: Final = 18  # digits, as in YAML
_OF_THE_PHOTO: Final = (InputError, OutputError, RenderError)
"""What one photo fails by alone; another error would meet all the others too."""
_ERRORS: Final[Mapping[FailureKind, type[StylewatchError]]] = {
    FailureKind.BAD_INPUT: InputError,
    FailureKind.CHANGED: InputChangedError,
    FailureKind.RESOURCE: OutputFullError,
    FailureKind.PERMISSION: OutputError,
    FailureKind.TRANSIENT: OutputError,
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """One picture to paint."""

    number: int
    photo: Path
    preset: Preset
    target: Path
    """The result's name without its extension."""
    extension: str = ""
    """Of the very name that was asked for, with the dot; else it is the format's usual one."""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"photo": jsonable(self.photo), "preset": self.preset.name}

    def failed_as_dict(self, error: StylewatchError) -> dict[str, Any]:
        """The same where nothing came of it."""
        return {**self.as_dict(), "output": None, "reason": error.reason, "message": str(error)}


@dataclass(frozen=True, kw_only=True)
class Painted:
    """One picture, painted and in its place."""

    task: Task
    output: Path
    rendered: Rendered

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        told = jsonable(self.rendered)
        for key in ("job_id", "temporary", "extension"):
            del told[key]
        return {**self.task.as_dict(), "output": jsonable(self.output), **told}


def choose_presets(
    names: Sequence[str], styles: Sequence[Path], overrides: Mapping[str, Any]
) -> list[Preset]:
    """The presets that a command line asks for: by name, by file, or for style images given."""
    for image in styles:
        if not os.path.isfile(image):
            raise UsageError("no such style image", received=str(image), remedy="Check its path")
    found = [find_preset(name) for name in names or (["painting"] if styles else [])]
    chosen = [presets[name] for presets, name in found]
    if not chosen:
        known = ", ".join(known_presets())
        raise UsageError(
            "no style", expected="--preset NAME or --style IMAGE", remedy=f"Presets: {known}"
        )
    if styles:
        chosen = [_in_style_of(image, preset) for preset in chosen for image in styles]
    chosen = [overridden(preset, overrides) for preset in chosen]
    for preset in chosen:
        if not preset.style and preset.effect == Preset.effect:
            remedy = "Add --style IMAGE, or choose a preset that has one"
            raise UsageError(f"the preset {preset.name!r} has no style image", remedy=remedy)
    return chosen


def _in_style_of(image: Path, preset: Preset) -> Preset:
    name = image.stem if preset.name == "painting" else f"{preset.name}-{image.stem}"
    return replace(preset, name=name, style=(StyleImage(image=image.absolute()),))


def overridden(preset: Preset, overrides: Mapping[str, Any]) -> Preset:
    """The preset with other values for some of its keys, checked as a preset's file is.

    `style_layers.block1_conv1` is one value of that mapping, whose others stay.
    """
    said: dict[str, Any] = {}
    for key, value in overrides.items():
        outer, dot, inner = key.partition(".")
        before = said.get(outer, getattr(preset.settings, outer, None))
        others = before if isinstance(before, Mapping) else {}
        said[outer] = {**others, inner: value} if dot else value
    return changed(preset, said)


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE`, `output.quality=80`: values are JSON where they can be read so, else text.

    Of the same key the last one holds.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        outer = key.partition(".")[0]
        if not equals or not all(key.split(".")):
            raise UsageError("wrong --set", expected="KEY=VALUE", received=pair)
        if outer in _ELSEWHERE:
            raise UsageError(f"--set can't change `{outer}`", remedy=_ELSEWHERE[outer])
        if outer != key and not isinstance(values.get(outer, {}), dict):
            problem = f"--set {key} needs a mapping in `{outer}`"
            raise UsageError(problem, received=shown(values[outer]))
        values.pop(key, None)  # what comes later is later in the mapping too
        values[key] = _value_of(text)
    return values


def _value_of(text: str) -> Any:
    try:
        return json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        return text.strip()


def _whole(text: str) -> float:
    return int(text) if len(text) <= _LONGEST_INT else _finite(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise UsageError(f"{shown(text)} is not a finite number")
    return number


def engine_for(weights: str) -> EngineSettings:
    """The engine's settings; only unnamed weights may fall back to the built-in features."""
    if not weights:
        return EngineSettings()
    if weights != "imagenet" and not os.path.isfile(weights):
        raise WeightsError(
            "no such weights file",
            received=weights,
            remedy="Name a VGG19 file in Keras's format, or leave --weights out",
        )
    return EngineSettings(weights=weights, features="vgg19")


def plan(photos: Sequence[Path], presets: Sequence[Preset], output: Path) -> list[Task]:
    """What to paint and where to; `output` is a folder, or the one result's own name."""
    suffix = output.suffix.lower()
    if suffix in {*FORMATS, *_OTHER_PICTURES} and not os.path.isdir(output):
        return [_single(photos, presets, output)]
    pairs = [(photo, preset) for photo in photos for preset in presets]
    return [
        Task(
            number=number,
            photo=photo,
            preset=preset,
            target=output / target_name(Path(photo.name), preset.name),
        )
        for number, (photo, preset) in enumerate(pairs, start=1)
    ]


def _single(photos: Sequence[Path], presets: Sequence[Preset], output: Path) -> Task:
    if output.suffix.lower() not in FORMATS:
        problem, known = "pictures can't be written in this format", ", ".join(FORMATS)
        raise UsageError(problem, expected=f"a folder, or a name in {known}", received=str(output))
    if len(photos) * len(presets) != 1:
        received = f"{output} for {len(photos) * len(presets)} pictures"
        raise UsageError("-o names one picture", expected="a folder", received=received)
    if os.path.lexists(output):
        remedy = "Choose another name, or a folder"
        raise OutputError(f"{output} already exists and is not overwritten", remedy=remedy)
    preset = overridden(presets[0], {"output.format": FORMATS[output.suffix.lower()]})
    target, extension = output.with_suffix(""), output.suffix
    return Task(number=1, photo=photos[0], preset=preset, target=target, extension=extension)


def paint(task: Task, engine: EngineSettings, on_event: Callable[[Event], None]) -> Painted:
    """Paint one picture and put it in its place; a `StylewatchError` says why there is none.

    That the photo failed is told as an event, unless the error is not the photo's.
    """

    def told(kind: Any, message: str = "", **more: Any) -> None:
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

    told("running", f"{task.photo} → {task.preset.name}")
    try:
        painted = _paint(task, engine, lambda step: told("progress", step=step))
    except _OF_THE_PHOTO as error:
        told("failed", _about(task.photo, error), reason=error.reason)
        raise
    output, seconds, note = painted.output, painted.rendered.seconds, painted.rendered.note
    message = f"{output} in {seconds:.1f} s" + (f" ({note})" if note else "")
    told("done", message, output=str(output), seconds=seconds)
    return painted


def _paint(task: Task, engine: EngineSettings, report: Callable[[Step], None]) -> Painted:
    """Paint it, wherever it is told; what nobody has foreseen is this photo's own error too."""
    from stylewatch.jobs.child import set_environment

    set_environment(engine)  # as in a worker, before libraries are loaded
    from stylewatch.jobs.worker import run_job

    request = _request(task)
    try:
        outcome = run_job(request, engine, report=report)
    except Exception as error:
        traceback.print_exc()  # goes where everything goes that libraries say
        raise _unexpected(error) from error
    if isinstance(outcome, Failure):
        raise error_of(outcome)
    extension = task.extension or outcome.extension
    output = publish(outcome.temporary, task.target, extension)
    return Painted(task=task, output=output, rendered=outcome)


def _unexpected(error: Exception) -> RenderError:
    what = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    remedy = "The whole traceback is in `chatter.log` in the state folder"
    return RenderError(what, remedy=remedy, reason="error")


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
        try:
            yield paint(task, engine, on_event)
        except _OF_THE_PHOTO as error:
            yield error


def _request(task: Task) -> JobRequest:
    photo = task.photo.absolute()
    try:
        with photo.open("rb") as stream:
            digest_ = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        remedy = "Check the path and its permissions"
        if isinstance(error, IsADirectoryError):
            remedy = "Name the photos in it, or `stylewatch watch` it"
        raise InputError(f"{task.photo} can't be read: {error.strerror}", remedy=remedy) from error
    return JobRequest(
        job_id=os.getpid(),  # part of the temporary file's name: no other process shares it
        key=job_key(digest_, task.preset.digest),
        source=photo,
        digest=digest_,
        preset=task.preset,
        target=task.target.absolute(),
    )


def error_of(failure: Failure) -> StylewatchError:
    """The failure as the error it came from, with that one's exit code."""
    if failure.reason == WeightsError.reason:
        return WeightsError(failure.message, reason=failure.reason)
    if failure.reason in {"style-image", "preset", "unknown-effect"}:
        return PresetError(failure.message, reason=failure.reason)
    kind = _ERRORS.get(failure.kind, RenderError)
    return kind(failure.message, reason=failure.reason)
