"""From a command line to tasks, one for each picture that is to be painted, and in which preset.

All is checked before anything is painted. Knows nothing of how that is done.
"""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from stylewatch.domain import EngineSettings, Preset, StyleImage
from stylewatch.errors import (
    ConfigError,
    InputError,
    OutputError,
    StylewatchError,
    UsageError,
    WeightsError,
)
from stylewatch.folders.listing import PICTURES, RAW
from stylewatch.folders.outputs import target_name
from stylewatch.jobs.child import set_environment
from stylewatch.settings.presetfile import DEFAULT_BASE
from stylewatch.settings.presets import changed, find_preset, known_presets
from stylewatch.settings.weights import weights_trouble
from stylewatch.settings.yamlfile import parse_yaml, shown

FORMATS: Final = {
    ".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp", ".tif": "tiff",
    ".tiff": "tiff", ".heic": "heic", ".heif": "heic",
}  # fmt: skip
"""The formats that a result's name may ask for."""
_ELSEWHERE: Final = {
    "base": "Choose it with --preset NAME",
    "style": "Choose it with --style IMAGE",
    "description": "It makes no difference to a picture",
}
"""Keys of a preset's file that `--set` leaves alone."""
_NO_TEXT: Final = re.compile(r'[\[{"].*|[-+.\d]\S*|true|false|null', re.DOTALL)
"""What `--set` reads as a preset's file has it: a list, a mapping, a number."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One picture to paint."""

    number: int
    photo: Path
    preset: Preset
    target: Path
    """The result's name without its extension."""
    extension: str = ""
    """With the dot, if the result's whole name was asked for; empty: the format's usual one."""
    place: str = ""
    """Which of how many tasks this is, as 2/10; empty for a single one."""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"photo": self.photo, "preset": self.preset.name}

    def failed_as_dict(self, error: StylewatchError) -> dict[str, Any]:
        """For `--json`, if it could not be painted."""
        return {**self.as_dict(), "output": None, "reason": error.reason, "message": str(error)}


def choose_presets(
    names: Sequence[str],
    styles: Sequence[Path],
    overrides: Mapping[str, Any],
    dirs: Sequence[Path],
) -> list[Preset]:
    """The presets that a command line asks for: by name, by file, or for style images given.

    `dirs` are the folders of presets that the config names.
    """
    for image in styles:
        _require_image(image)
    found = [find_preset(name, dirs) for name in names or ([DEFAULT_BASE] if styles else [])]
    chosen = [presets[name] for presets, name in found]
    if not chosen:
        known = ", ".join(known_presets(dirs))
        raise UsageError(
            "no style", expected="--preset NAME or --style IMAGE", remedy=f"Presets: {known}"
        )
    if styles:
        chosen = [_in_style_of(image, preset) for preset in chosen for image in styles]
    chosen = [overridden(preset, overrides) for preset in chosen]
    for preset in chosen:
        if preset.lacks_style:
            remedy = "Add --style IMAGE, or choose a preset that has one"
            raise UsageError(f"the preset {preset.name!r} has no style image", remedy=remedy)
    return chosen


def _require_image(style: Path) -> None:
    """A UsageError if a style is no image: at once, as it takes a while to load the network."""
    set_environment(EngineSettings())  # before NumPy is imported, whose libraries read it then
    from stylewatch.engine.images import open_image  # noqa: PLC0415  (slow to import)

    received = str(style)
    if not os.path.isfile(style):
        raise UsageError("no such style image", received=received, remedy="Check its path")
    try:
        with style.open("rb") as stream:
            open_image(stream)
    except OSError as error:
        problem = f"the style image can't be read: {error.strerror}"
        raise UsageError(problem, received=received, remedy="Check its permissions") from error
    except InputError as error:
        raise UsageError(
            f"the style image can't be used: {error.problem}",
            expected=error.expected,
            received=received,
            remedy=error.remedy or "Name a picture; a preset's file is for --preset",
        ) from error


def _in_style_of(image: Path, preset: Preset) -> Preset:
    name = image.stem if preset.name == DEFAULT_BASE else f"{preset.name}-{image.stem}"
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
    """`KEY=VALUE`, `output.quality=80`: values are read as in a preset's file, or else text.

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
    text = text.strip()
    if _NO_TEXT.fullmatch(text):
        with suppress(ConfigError):  # it is told as text then
            return parse_yaml(f"value: {text}").data["value"]
    return text


def engine_for(weights: str | None) -> EngineSettings:
    """The engine's settings; only unnamed weights may fall back to the built-in features."""
    if weights is None:
        return EngineSettings()
    weights = os.path.expanduser(weights)
    if trouble := weights_trouble(weights):
        raise WeightsError(
            f"the weights file {trouble}",
            received=weights,
            remedy="Name a VGG19 file in Keras's format, or leave --weights out",
        )
    return EngineSettings(weights=weights, features="vgg19")


def plan(photos: Sequence[Path], presets: Sequence[Preset], output: Path) -> list[Task]:
    """What to paint and where to; `output` is a folder, or the one result's own name."""
    if output.suffix.lower() in PICTURES | RAW and not os.path.isdir(output):
        return [_single(photos, presets, output)]
    pairs = [(photo, preset) for photo in photos for preset in presets]
    return [
        Task(
            number=number,
            photo=photo,
            preset=preset,
            target=output / target_name(Path(photo.name), preset.name),
            place=f"{number}/{len(pairs)}" if len(pairs) > 1 else "",
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
