"""Photos painted here and now, in this process: what `apply`, `demo` and `presets preview` do.

Knows nothing of queues, of the ledger or of the daemon. Loads the network's libraries when the
first picture begins, and not before.
"""

# ruff: noqa: PLC0415  (see above)

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
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
    StyleSettings,
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
from stylewatch.settings.presets import PresetFile, Presets, digest
from stylewatch.settings.yamlfile import YamlFile, validate

FORMATS: Final = {
    ".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp", ".tif": "tiff",
    ".tiff": "tiff", ".heic": "heic",
}  # fmt: skip
"""The formats that a result's name may ask for."""
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
        return {
            "photo": jsonable(self.task.photo),
            "preset": self.task.preset.name,
            "output": jsonable(self.output),
            **told,
        }


def choose_presets(
    presets: Presets, names: Sequence[str], styles: Sequence[Path], overrides: Mapping[str, Any]
) -> list[Preset]:
    """The presets that a command line asks for: by name, by file, or for style images given."""
    for image in styles:
        if not image.is_file():
            raise UsageError("no such style image", received=str(image), remedy="Check its path")
    chosen = [_by_name(presets, name) for name in names or (["painting"] if styles else [])]
    if not chosen:
        known = ", ".join(presets)
        raise UsageError(
            "no style", expected="--preset NAME or --style IMAGE", remedy=f"Presets: {known}"
        )
    if styles:
        chosen = [_in_style_of(image, preset) for preset in chosen for image in styles]
    for preset in chosen:
        if not preset.style and preset.effect == Preset.effect:
            remedy = "Add --style IMAGE, or choose a preset that has one"
            raise UsageError(f"the preset {preset.name!r} has no style image", remedy=remedy)
    return [overridden(preset, overrides) for preset in chosen]


def _by_name(presets: Presets, name: str) -> Preset:
    file = Path(name).expanduser()
    if file.suffix in {".yaml", ".yml"}:
        return presets.with_first(file.absolute())[file.stem]
    return presets[name]


def _in_style_of(image: Path, preset: Preset) -> Preset:
    name = image.stem if preset.name == "painting" else f"{preset.name}-{image.stem}"
    return replace(preset, name=name, style=(StyleImage(image=image.absolute()),))


def overridden(preset: Preset, overrides: Mapping[str, Any]) -> Preset:
    """The preset with other values for some of its keys, checked as a preset's file is."""
    checked = validate(PresetFile, YamlFile(None, dict(overrides), kind=PresetError))
    settings = {
        one.name: getattr(checked, one.name)
        for one in fields(StyleSettings)
        if one.name in overrides
    }
    output = {key: getattr(checked.output, key) for key in overrides.get("output", {})}
    changed = replace(
        preset,
        settings=replace(preset.settings, **settings),
        output=replace(preset.output, **output),
    )
    return replace(changed, digest=digest(changed))


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE`, `output.quality=80`: values are JSON where they can be read so, else text."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise UsageError("wrong --set", expected="KEY=VALUE", received=pair)
        *outer, name = key.strip().split(".")
        inner = values
        for part in outer:
            inner = inner.setdefault(part, {})
        try:
            inner[name] = json.loads(text)
        except ValueError:
            inner[name] = text.strip()
    return values


def engine_for(weights: str) -> EngineSettings:
    """The engine's settings; only unnamed weights may fall back to the built-in features."""
    if not weights:
        return EngineSettings()
    if weights != "imagenet" and not Path(weights).is_file():
        raise WeightsError(
            "no such weights file",
            received=weights,
            remedy="Name a VGG19 file in Keras's format, or leave --weights out",
        )
    return EngineSettings(weights=weights, features="vgg19")


def plan(photos: Sequence[Path], presets: Sequence[Preset], output: Path) -> list[Task]:
    """What to paint and where to; `output` is a folder, or the one result's own name."""
    suffix = output.suffix.lower()
    if suffix in FORMATS and not output.is_dir():
        return [_single(photos, presets, output)]
    pairs = [(photo, preset) for photo in photos for preset in presets]
    return [
        Task(number=number, photo=photo, preset=preset, target=output / _name(photo, preset))
        for number, (photo, preset) in enumerate(pairs, start=1)
    ]


def _name(photo: Path, preset: Preset) -> Path:
    from stylewatch.folders.outputs import target_name

    return target_name(Path(photo.name), preset.name)


def _single(photos: Sequence[Path], presets: Sequence[Preset], output: Path) -> Task:
    if len(photos) * len(presets) != 1:
        received = f"{output} for {len(photos) * len(presets)} pictures"
        raise UsageError("-o names one picture", expected="a folder", received=received)
    if output.exists():
        remedy = "Choose another name, or a folder"
        raise OutputError(f"{output} already exists and is not overwritten", remedy=remedy)
    format_ = FORMATS[output.suffix.lower()]
    preset = overridden(presets[0], {"output": {"format": format_}})
    return Task(number=1, photo=photos[0], preset=preset, target=output.with_suffix(""))


def paint(task: Task, engine: EngineSettings, on_event: Callable[[Event], None]) -> Painted:
    """Paint one picture and put it in its place; a `StylewatchError` says why there is none."""
    from stylewatch.folders.outputs import publish
    from stylewatch.jobs.worker import run_job

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

    def report(step: Step) -> None:
        told("progress", step=step)

    told("running", f"{task.photo} → {task.preset.name}")
    try:
        outcome = run_job(_request(task), engine, report=report)
        if isinstance(outcome, Failure):
            raise error_of(outcome)
        output = publish(outcome.temporary, task.target, outcome.extension)
    except StylewatchError as error:
        told("failed", _about(task.photo, error), reason=error.reason)
        raise
    seconds = f"{outcome.seconds:.1f} s"
    note = f" ({outcome.note})" if outcome.note else ""
    told("done", f"{output} in {seconds}{note}", output=str(output), seconds=outcome.seconds)
    return Painted(task=task, output=output, rendered=outcome)


def _about(photo: Path, error: StylewatchError) -> str:
    return str(error) if str(photo) in str(error) else f"{photo}: {error}"


def paint_all(
    tasks: Sequence[Task], engine: EngineSettings, on_event: Callable[[Event], None]
) -> Iterator[Painted | StylewatchError]:
    """Paint one after the other; what one photo can't help, it alone fails by."""
    for task in tasks:
        try:
            yield paint(task, engine, on_event)
        except (InputError, OutputError, RenderError) as error:
            yield error


def _request(task: Task) -> JobRequest:
    photo = task.photo.absolute()
    try:
        with photo.open("rb") as stream:
            digest_ = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        remedy = "Check the path and its permissions"
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
