"""Presets: named styles in YAML, inherited from each other, made comparable by a digest.

Knows nothing of watching, of workers or of pixels: a style image is a file that exists and has a
hash.
"""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from annotated_types import Gt

from stylewatch.domain import (
    VGG19_LAYERS,
    Identity,
    OutputSettings,
    Preset,
    StyleImage,
    StyleSettings,
)
from stylewatch.errors import ConfigError, InputError, PresetError, PresetImageError, UsageError
from stylewatch.settings.checking import did_you_mean, json_schema, raise_first, validate
from stylewatch.settings.notations import Seconds, composed
from stylewatch.settings.paths import CONFIG_NAME, absolute, shipped, user_presets_dir
from stylewatch.settings.yamlfile import KeyPath, YamlFile, load_yaml, shown

DEFAULT_BASE = "painting"
DEFAULT_EFFECT = Preset.effect
SETTINGS = tuple(setting.name for setting in fields(StyleSettings))
OUTPUT = {f"output.{setting.name}": setting.name for setting in fields(OutputSettings)}
"""The keys of `output`, as `presets show` and `--set` name them."""
_SUFFIXES = {".yaml", ".yml"}
_Look = Callable[[Path], object]


@dataclass(frozen=True, kw_only=True)
class PresetFile(StyleSettings):
    """A preset: a named style for stylewatch. Every key may be left out."""

    description: str = ""
    """One line for `stylewatch presets list`."""
    base: str = DEFAULT_BASE
    """The preset whose values fill in what this one leaves out."""
    style: tuple[StyleImage, ...] = ()
    """An image file, or a list of them, each a name or {image, weight, scale, mask}; relative to
    this file."""
    effect: str = DEFAULT_EFFECT
    """What paints: `style-transfer`, or an effect that another package brings."""
    output: OutputSettings = field(default_factory=OutputSettings)
    """How a result is written; what is left out here comes from the base, key by key."""
    time_budget: Annotated[Seconds, Gt(0)] | None = None
    """Seconds per photo, or 5min; when they are spent the best image so far is the result."""


class Explained(NamedTuple):
    """Where one value of a preset comes from; preset and file are empty for built-in defaults."""

    key: str
    value: Any
    preset: str = ""
    file: Path | None = None


@dataclass(frozen=True)
class _Layer:
    """One file of a preset's chain of bases: only what it says itself, as `_values` gives it."""

    source: YamlFile
    file: Path
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        return _name_of(self.file)


class Presets:
    """All presets there are, by name; each is read and checked when it is asked for.

    Earlier folders come before later ones and the shipped presets come last, so that one's own
    preset may take a shipped one's name, and may then build on it with `base: <that name>`.
    """

    def __init__(self, files: Mapping[str, tuple[Path, ...]]) -> None:
        self._files = files
        self._layers: dict[Path, _Layer] = {}

    @classmethod
    def load(cls, dirs: Iterable[Path] = ()) -> "Presets":
        """The presets in `dirs` (a folder that does not exist holds none), then the shipped."""
        folders: dict[str, Path] = {}
        for folder in (*dirs, shipped_presets_dir()):
            folders.setdefault(os.path.realpath(folder), folder)
        files: dict[str, tuple[Path, ...]] = {}
        for file in (file for folder in folders.values() for file in _yaml_files(folder)):
            files[_name_of(file)] = (*files.get(_name_of(file), ()), file)
        return cls(files)

    @classmethod
    def around(cls, file: Path, dirs: Iterable[Path] = ()) -> "Presets":
        """What one preset's file is read among: itself, the presets beside it, then as `load`."""
        return cls.load([file.parent, *dirs]).with_first(file)

    def with_first(self, file: Path) -> "Presets":
        """These presets, with `file` before all others of its name."""
        others = (other for other in self._files.get(_name_of(file), ()) if other != file)
        return Presets({**self._files, _name_of(file): (file, *others)})

    def __iter__(self) -> Iterator[str]:
        """The names, sorted."""
        return iter(sorted(self._files))

    def __len__(self) -> int:
        """How many names there are."""
        return len(self._files)

    def __contains__(self, name: str) -> bool:
        """Whether a file has that name; it may still hold errors."""
        return composed(name) in self._files

    def __getitem__(self, name: str) -> Preset:
        """The preset, resolved. A `PresetError` says what is wrong with it, or that it is none."""
        return self.resolved(name)

    def resolved(self, name: str, look: _Look | None = None) -> Preset:
        """The same; `look` opens each image and raises an error if it can't be used."""
        chain = self._chain(name)
        values = {key: value for layer in reversed(chain) for key, value in layer.values.items()}
        described = Preset(name=chain[0].name, description=chain[0].values.get("description", ""))
        preset = _with(described, values)
        errors = []
        for keys, path, error in _bad_images(preset, look):
            owner = next((layer for layer in chain if keys[0] in layer.values), chain[0])
            errors.append(_image_error(owner.source, keys, path, error))
        if errors:
            raise_first(errors)
        return replace(preset, digest=digest(preset))

    def sorted_out(self) -> tuple[dict[str, Preset], dict[str, PresetError]]:
        """Those that can be used, and what is wrong with the others."""
        sound: dict[str, Preset] = {}
        broken: dict[str, PresetError] = {}
        for name in self:
            try:
                sound[name] = self[name]
            except PresetError as error:
                broken[name] = error
        return sound, broken

    def images(self) -> set[Path]:
        """The images that the presets read so far name, be they there or not."""
        values = [layer.values for layer in self._layers.values()]
        styles = [style for each in values for style in each.get("style", ())]
        named = [each.get("init") for each in values]
        named += [path for style in styles for path in (style.image, style.mask)]
        return {path for path in named if isinstance(path, Path)}

    def origin(self, name: str) -> Path:
        """The preset's file."""
        if name not in self:
            remedy = did_you_mean(name, self._files)
            raise PresetError(f"unknown preset {name!r}", remedy=remedy, reason="unknown-preset")
        return self._files[composed(name)][0]

    def explain(self, name: str) -> tuple[Explained, ...]:
        """Every value of a preset with the preset and file that set it, for `presets show`."""
        preset, chain = self[name], self._chain(name)
        values = {key: getattr(preset, key) for key in ("description", "style", "effect")}
        values |= {key: getattr(preset.settings, key) for key in SETTINGS}
        values |= {key: getattr(preset.output, name) for key, name in OUTPUT.items()}
        owners = {key: layer for layer in reversed(chain) for key in layer.values}
        return tuple(
            Explained(key, value, owners[key].name, owners[key].file)
            if key in owners and (key != "description" or owners[key] is chain[0])
            else Explained(key, value)
            for key, value in values.items()
        )

    def _chain(self, name: str) -> list[_Layer]:
        """The preset's layers, from its own file down to the last base."""
        chain: list[_Layer] = []
        base: Path | None = self.origin(name)
        while base is not None:
            if base in [layer.file for layer in chain]:
                raise _cycle(chain, base)
            if base not in self._layers:
                self._layers[base] = _read_layer(base)
            chain.append(self._layers[base])
            base = self._base(chain)
        return chain

    def _base(self, chain: list[_Layer]) -> Path | None:
        layer = chain[-1]
        name = composed(layer.values.get("base", DEFAULT_BASE))
        files = self._files.get(name, ())
        shadowed = files[files.index(layer.file) + 1 :] if layer.file in files else files
        if shadowed:
            return shadowed[0]
        if "base" not in layer.values:
            return None
        if files:
            raise _cycle(chain, layer.file)
        remedy = did_you_mean(name, self._files)
        raise layer.source.error(("base",), f"unknown preset {name!r}", remedy=remedy)


def changed(preset: Preset, said: Mapping[str, Any]) -> Preset:
    """The preset with what is `said` instead, checked as a file of its own with that base is.

    Paths are relative to the working folder.
    """
    source = YamlFile(None, dict(said), kind=PresetError)
    preset = _with(preset, _values(source, Path()))
    if errors := [_image_error(source, *found) for found in _bad_images(preset)]:
        raise_first(errors)
    return replace(preset, digest=digest(preset))


def preset_schema() -> dict[str, Any]:
    """JSON Schema of a preset file, for editors."""
    schema = json_schema(PresetFile)
    style, name = schema["properties"]["style"], {"type": "string"}
    images = {"type": style.pop("type"), "items": {"anyOf": [name, style.pop("items")]}}
    style["anyOf"] = [name, images]
    for key in ("content_layers", "style_layers"):
        schema["properties"][key] |= {
            "minProperties": 1,
            "propertyNames": {"enum": VGG19_LAYERS},
            "additionalProperties": {"type": "number", "minimum": 0},
        }
    return schema


def shipped_presets_dir() -> Path:
    """Where the presets lie that come with stylewatch."""
    return shipped("presets")


def known_presets(dirs: Sequence[Path] = ()) -> Presets:
    """Those in `dirs`, which a config names, then one's own and the shipped ones."""
    return Presets.load([*dirs, user_presets_dir()])


def find_preset(called: str, dirs: Sequence[Path] = ()) -> tuple[Presets, str]:
    """A preset that was named on the command line: the presets to look it up in, and its name.

    People give its name, or the path of its YAML file.
    """
    if not _is_path(called):
        presets = known_presets(dirs)
        if called not in presets and (meant := _meant(called)):
            problem = f"unknown preset {called!r}"
            raise PresetError(problem, remedy=meant, reason="unknown-preset")
        return presets, called
    file = absolute(called)
    return Presets.around(file, [*dirs, user_presets_dir()]), file.stem


def _meant(called: str) -> str:
    """What to do, where it is clear what was meant by a name that is no preset's."""
    if "," in called:
        return "Name each one by itself, as in -p ink -p woodcut"
    path = os.path.expanduser(called)
    for ending in sorted(_SUFFIXES):
        if os.path.isfile(path + ending):
            return f"A file needs its ending: {called}{ending}"
    if os.path.isfile(path):
        return "A preset's file ends in .yaml; for the style of an image there is `apply --style`"
    return ""


def as_config_names(
    called: Sequence[str], dirs: Sequence[Path] = ()
) -> tuple[list[str], list[Path]]:
    """What a config says of presets named on the command line: their names and their folders.

    Raises:
        PresetError: one is not there, or has a fault.
        UsageError: two have the same name.
    """
    files: list[Path] = []
    for one in called:
        presets, name = find_preset(one, dirs)
        _ = presets[name]
        files.append(presets.origin(name))
    pairs = zip(called, files, strict=True)
    folders = [*(file.parent for one, file in pairs if _is_path(one)), *dirs]
    together = known_presets(folders)
    for file in files:
        other = together.origin(file.stem)
        if not file.samefile(other):
            problem, remedy = f"two presets are called {file.stem!r}", "Rename one of the files"
            raise UsageError(problem, received=f"{other} and {file}", remedy=remedy)
    return [file.stem for file in files], folders


def _is_path(called: str) -> bool:
    return Path(called).suffix in _SUFFIXES


def digest(preset: Preset) -> str:
    """Hex SHA-256 of all that makes a difference to the result; images count by their content."""
    style = [
        asdict(style)
        | {"image": _hash(style.image), "mask": _hash(style.mask) if style.mask else None}
        for style in preset.style
    ]
    parts: dict[str, Any] = {"effect": preset.effect, "style": style}
    init = preset.settings.init
    settings = asdict(preset.settings) | {"init": _hash(init) if isinstance(init, Path) else init}
    parts |= {"settings": settings, "output": asdict(preset.output)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _hash(path: Path) -> str:
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return _hash_of(path, Identity.of(info))


@lru_cache(maxsize=256)
def _hash_of(path: Path, _identity: Identity) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name_of(file: Path) -> str:
    return composed(file.stem)


def _yaml_files(folder: Path) -> list[Path]:
    try:
        files = sorted(folder.absolute().iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        problem = f"the presets folder can't be read: {error.strerror}"
        raise PresetError(problem, file=folder) from None
    visible = (f for f in files if f.name.isprintable() and not f.name.startswith("."))
    # a config may lie beside presets
    return [file for file in visible if file.suffix in _SUFFIXES and file.name != CONFIG_NAME]


def _read_layer(file: Path) -> _Layer:
    source = load_yaml(file, PresetError)
    return _Layer(source, file, _values(source, file.parent))


def _values(source: YamlFile, folder: Path) -> dict[str, Any]:
    """What a file says, checked, with paths absolute and `output` key by key: `output.quality`."""
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


def _with(preset: Preset, values: Mapping[str, Any]) -> Preset:
    """The preset with these values, as `_values` gives them, instead of its own."""
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
        if not isinstance(item, str) and (item is style or not isinstance(item, dict)):
            keys: KeyPath = ("style",) if item is style else ("style", number)
            expected = "a file name, or a list of names and of {image, weight, scale, mask}"
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
            yield source.error(("effect",), f"unknown effect {effect!r}", remedy=remedy)


def _bad_images(
    preset: Preset, look: _Look | None = None
) -> Iterator[tuple[KeyPath, Path, OSError | InputError]]:
    """The images that can't be used, with the keys they stand at."""
    images: list[tuple[KeyPath, object]] = [(("init",), preset.settings.init)]
    for number, style in enumerate(preset.style):
        images += [
            (("style", number, "image"), style.image),
            (("style", number, "mask"), style.mask),
        ]
    for keys, path in images:
        if isinstance(path, Path):
            try:
                _hash(path)
                if look:
                    look(path)
            except (OSError, InputError) as error:
                yield keys, path, error


def _image_error(
    source: YamlFile, keys: KeyPath, path: Path, error: OSError | InputError
) -> ConfigError:
    what = {"image": "style image", "mask": "mask", "init": "image to start from"}[str(keys[-1])]
    parts = {"received": repr(str(path)), "reason": PresetImageError.reason}
    if isinstance(error, InputError):
        why = error.problem
        parts |= {"expected": error.expected, "remedy": error.remedy}
    else:
        why = str(error.strerror)
        where = "the folder of the preset's file" if source.path else "the working folder"
        parts["remedy"] = f"A path is relative to {where}"
        if keys == ("init",):
            parts["remedy"] += "; without an image: content or noise"
    return source.error(source.written(keys), f"the {what} can't be used: {why}", **parts)


def _cycle(chain: list[_Layer], again: Path) -> ConfigError:
    names = " -> ".join([*(layer.name for layer in chain), again.stem])
    problem = f"the presets build on each other in a circle: {names}"
    return chain[-1].source.error(("base",), problem, remedy="Let one of them have another base")
