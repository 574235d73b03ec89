"""One preset's YAML file: what it may say, its checks, and a preset changed by what it says.

Knows nothing of the presets that it builds on, and opens no image.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt

from stylewatch.domain import VGG19_LAYERS, OutputSettings, Preset, StyleImage, StyleSettings
from stylewatch.errors import ConfigError, PresetEffectError
from stylewatch.settings.checking import did_you_mean, json_schema, raise_first, validate
from stylewatch.settings.notations import Seconds
from stylewatch.settings.yamlfile import KeyPath, YamlFile, shown

DEFAULT_BASE = "painting"
DEFAULT_EFFECT = Preset.effect
SETTINGS = tuple(setting.name for setting in fields(StyleSettings))
OUTPUT = {f"output.{setting.name}": setting.name for setting in fields(OutputSettings)}
"""The keys of `output`, as `presets show` and `--set` name them."""


@dataclass(frozen=True, kw_only=True)
class PresetFile(StyleSettings):
    """A preset: a named style for stylewatch. Every key may be left out."""

    description: str = ""
    """One line for `stylewatch presets list`."""
    base: str = DEFAULT_BASE
    """The preset whose values fill in what this one leaves out."""
    style: tuple[StyleImage, ...] = ()
    """An image file, or a list of them; each a name or {image, weight, scale, mask}; relative to
    this file."""
    effect: str = DEFAULT_EFFECT
    """What paints: `style-transfer`, or an effect that another package brings."""
    output: OutputSettings = field(default_factory=OutputSettings)
    """How a result is written; what is left out here comes from the base, key by key."""
    time_budget: Annotated[Seconds, Gt(0)] | None = None
    """Seconds per photo, or 5min; when they are spent the best image so far is the result."""


def preset_schema() -> dict[str, Any]:
    """JSON Schema of a preset file, for editors."""
    schema = json_schema(PresetFile)
    style, name = schema["properties"]["style"], {"type": "string"}
    one = [name, style.pop("items")]
    style["anyOf"] = [*one, {"type": style.pop("type"), "items": {"anyOf": one}}]
    for key in ("content_layers", "style_layers"):
        schema["properties"][key] |= {
            "minProperties": 1,
            "propertyNames": {"enum": VGG19_LAYERS},
            "additionalProperties": {"type": "number", "minimum": 0},
        }
    return schema


def values_of(source: YamlFile, folder: Path) -> dict[str, Any]:
    """What a file says, checked, by key: with absolute paths, and `output.quality` as one key."""
    if "style" in source.data:
        source = replace(source, data=source.data | {"style": _images(source)})
    checked = validate(PresetFile, source)
    values = {key: getattr(checked, key) for key in source.data}
    if errors := [*_layer_errors(source, values), *_effect_errors(source, values)]:
        raise_first(errors)
    if "style" in values:
        placed = partial(_placed, source, folder)
        values["style"] = tuple(map(placed, range(len(checked.style)), checked.style))
    if isinstance(checked.init, Path):
        values["init"] = source.place(("init",), checked.init, folder)
    values.pop("output", None)
    said = source.data.get("output", {})
    output = {key: getattr(checked.output, name) for key, name in OUTPUT.items() if name in said}
    return values | output


def with_values(preset: Preset, values: Mapping[str, Any]) -> Preset:
    """The preset with these values, which are as `values_of` gives them, in place of its own."""
    settings = {key: values[key] for key in SETTINGS if key in values}
    output = {name: values[key] for key, name in OUTPUT.items() if key in values}
    return replace(
        preset,
        effect=values.get("effect", preset.effect),
        style=values.get("style", preset.style),
        settings=replace(preset.settings, **settings),
        output=replace(preset.output, **output),
    )


def _images(source: YamlFile) -> list[Any]:
    """`style:` in its long form; a bare name stands for {image: name}."""
    style = source.data["style"]
    items = style if isinstance(style, list) else [style]
    for number, item in enumerate(items):
        if not isinstance(item, str | dict):
            keys: KeyPath = ("style",) if item is style else ("style", number)
            expected = "a file name, {image, weight, scale, mask}, or a list of them"
            raise source.error(keys, "wrong type", expected=expected, received=shown(item))
    return [{"image": item} if isinstance(item, str) else item for item in items]


def _placed(source: YamlFile, folder: Path, number: int, style: StyleImage) -> StyleImage:
    def place(key: str, path: Path) -> Path:
        return source.place(("style", number, key), path, folder)

    mask = place("mask", style.mask) if style.mask else None
    return replace(style, image=place("image", style.image), mask=mask)


def _layer_errors(source: YamlFile, values: Mapping[str, Any]) -> Iterator[ConfigError]:
    for key in {"content_layers", "style_layers"} & values.keys():
        if not values[key]:
            yield source.error((key,), "out of range", expected="at least 1 layer")
        for layer, weight in values[key].items():
            if layer not in VGG19_LAYERS:
                remedy = did_you_mean(layer, VGG19_LAYERS)
                yield source.error((key, layer), "not a layer of VGG19", remedy=remedy)
            elif weight < 0:
                wrong = {"expected": "at least 0", "received": f"{weight:g}"}
                yield source.error((key, layer), "out of range", **wrong)


def _effect_errors(source: YamlFile, values: Mapping[str, Any]) -> Iterator[ConfigError]:
    effect = values.get("effect", DEFAULT_EFFECT)
    if effect != DEFAULT_EFFECT:  # the built-in one is known without a look at what is installed
        from importlib.metadata import entry_points  # noqa: PLC0415  (slow to import)

        offered = {DEFAULT_EFFECT, *entry_points(group="stylewatch.effects").names}
        if effect not in offered:
            remedy = did_you_mean(effect, offered)
            told = {"remedy": remedy, "reason": PresetEffectError.reason}
            yield source.error(("effect",), f"unknown effect {effect!r}", **told)
