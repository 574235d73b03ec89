"""Presets: named styles in YAML, inherited from each other, made comparable by a digest.

Also holds the project's one YAML reader, which tells file, line and column of whatever is wrong,
and checks data against a dataclass. Knows nothing of watching, of workers or of pixels: a style
image is a file that exists and has a hash.
"""

import difflib
import errno
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar, get_args, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from stylewatch.domain import Identity, OutputSettings, Preset, StyleImage, StyleSettings
from stylewatch.errors import ConfigError, PresetError

T = TypeVar("T")
KeyPath = tuple[str | int, ...]

# --- reading YAML ------------------------------------------------------------

MAX_BYTES, MAX_NODES, MAX_DEPTH = 256 * 1024, 20_000, 16
_CONTROL = re.compile(r"[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAG = "tag:yaml.org,2002:"
_SCALARS: dict[str, Callable[[str], Any]] = {
    f"{_TAG}str": str,
    f"{_TAG}null": lambda _: None,
    f"{_TAG}bool": lambda text: text.lower() == "true",
    f"{_TAG}int": int,
    f"{_TAG}float": float,
}


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core words only: `no`, `on`, `1:30` and `2024-01-01` are text.

    Not libyaml's loader: that one overflows the C stack on deep nesting, and our files are small.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (yaml's own name and type)


for _word, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"[-+]?[0-9]{1,18}$", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_TAG + _word, re.compile(_pattern), _first)


@dataclass(frozen=True)
class YamlFile:
    """A file's plain data, with the place (1-based line and column) of every key in it."""

    path: Path | None
    data: dict[str, Any]
    marks: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    kind: type[ConfigError] = ConfigError

    def error(self, keys: KeyPath, problem: str, **parts: str) -> ConfigError:
        """An error about the value at `keys`, or about the closest thing the file holds."""
        known = max((n for n in range(len(keys) + 1) if keys[:n] in self.marks), default=0)
        line, column = self.marks.get(keys[:known], (0, 0))
        key = dotted(keys)
        return self.kind(problem, file=self.path, line=line, column=column, key=key, **parts)


def dotted(keys: KeyPath) -> str:
    """A key as errors show it: `folders[0].rules[2].preset`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part:.60}" for part in keys)
    return "".join(parts).removeprefix(".")


def load_yaml(path: Path, kind: type[ConfigError] = ConfigError) -> YamlFile:
    """Read one YAML mapping; whatever is wrong with it is raised as `kind`."""
    text = _read_text(path, kind)
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text, path, kind) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise kind(f"not valid YAML: {error}".replace("\n", " "), file=path) from None
    except RecursionError:
        raise kind("nested too deeply", file=path) from None
    if node is None:
        raise kind("the file is empty", file=path, expected="a mapping (key: value)")
    composed = _Composition(YamlFile(path, {}, kind=kind))
    data = composed.plain(node, ())
    if not isinstance(data, dict):
        raise composed.file.error((), "wrong type", expected=_TYPES["dict"], received=shown(data))
    return replace(composed.file, data=data)


def _read_text(path: Path, kind: type[ConfigError]) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise kind("not a regular file", file=path)
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise kind(f"can't be read: {error.strerror}", file=path) from None
    except UnicodeDecodeError:
        raise kind("not a text file", file=path, expected="YAML in UTF-8") from None
    if len(raw) > MAX_BYTES:
        raise kind("too large", file=path, expected=f"at most {MAX_BYTES} bytes")
    if control := _CONTROL.search(text):
        received = f"the character {control[0]!a}"
        raise kind("not a text file", file=path, expected="YAML in UTF-8", received=received)
    return text


def _syntax_error(
    error: yaml.MarkedYAMLError, text: str, path: Path, kind: type[ConfigError]
) -> ConfigError:
    mark = error.problem_mark or yaml.Mark(str(path), 0, 0, 0, None, 0)
    problem, remedy = f"not valid YAML: {error.context or ''} {error.problem}", ""
    if text[mark.index : mark.index + 1] == "\t":
        problem, remedy = "a tab stands where YAML needs spaces", "Indent with spaces"
    problem = " ".join(problem.split())
    return kind(problem, file=path, line=mark.line + 1, column=mark.column + 1, remedy=remedy)


@dataclass
class _Composition:
    """Turns YAML's nodes into plain data, noting places; aliases can't make it grow for ever."""

    file: YamlFile
    nodes: int = 0

    def plain(self, node: yaml.Node, keys: KeyPath) -> Any:
        self.file.marks.setdefault(keys, _place(node))
        self.nodes += 1
        if self.nodes > MAX_NODES or len(keys) > MAX_DEPTH:
            problem = "too many values, or nested too deeply"
            raise self.file.error((), problem, remedy="Use fewer aliases (`*name`)")
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, keys)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.plain(item, (*keys, n)) for n, item in enumerate(node.value)]
        return self._scalar(node, keys)

    def _mapping(self, node: yaml.MappingNode, keys: KeyPath) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for name, value in node.value:
            line, column = _place(name)
            if not isinstance(name, yaml.ScalarNode) or not name.value.isprintable():
                raise self._error(name, keys, "a key must be plain text on one line")
            key = (*keys, name.value)
            if key in self.file.marks:
                first = self.file.marks[key][0]
                self.file.marks[key] = (line, column)
                problem = f"the key stands twice, first in line {first}"
                raise self.file.error(key, problem, remedy="Keep one of them")
            self.file.marks[key] = (line, column)
            plain[name.value] = self.plain(value, key)
        return plain

    def _scalar(self, node: yaml.Node, keys: KeyPath) -> Any:
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _SCALARS:
            raise self._error(node, keys, f"the tag {shown(node.tag)} has no meaning here")
        try:
            value = _SCALARS[node.tag](node.value)
        except ValueError:
            value = math.nan
        if isinstance(value, float) and not math.isfinite(value):
            raise self._error(node, keys, f"{shown(node.value)} is not a finite number")
        if isinstance(value, str) and _CONTROL.search(value):
            raise self._error(node, keys, "a control character stands in the text")
        return value

    def _error(self, node: yaml.Node, keys: KeyPath, problem: str) -> ConfigError:
        self.file.marks[keys] = _place(node)
        return self.file.error(keys, problem)


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


# --- checking data ------------------------------------------------------------

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping (key: value)",
    "dataclass": "a mapping (key: value)",
    "path": "a path",
    "json": "text in UTF-8",
}
_BOUNDS = {
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "less than {lt:g}",
    "too_short": "at least {min_length} in the list",
}


@cache
def _adapter(kind: type, *, described: bool = False) -> TypeAdapter[Any]:
    # The tuple carries the strictness to a plain dataclass, which can't have any of its own.
    strict = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=described)
    return TypeAdapter(tuple[kind], config=strict)  # type: ignore[valid-type]


def validate(kind: type[T], file: YamlFile) -> T:
    """The file's data as that dataclass; the first error is raised and carries the others."""
    try:
        checked: T = _adapter(kind).validate_json(json.dumps([file.data], default=str))[0]  # type: ignore[arg-type]
    except ValidationError as invalid:
        found: dict[KeyPath, list[Any]] = {}
        for error in invalid.errors(include_url=False):
            # a list whose items are wrong is reported as too short as well
            if error["type"] != "too_short" or not error["input"]:
                found.setdefault(_keys_of(error, file.data), []).append(error)
        raise_first([_translate(kind, file, keys, errors) for keys, errors in found.items()])
    return checked


def raise_first(errors: Sequence[ConfigError]) -> NoReturn:
    """Raise the first of a file's errors, in the file's order, with the others attached."""
    first, *others = sorted(errors, key=lambda error: (error.line, error.column))
    first.others = tuple(others)
    raise first from None


def _keys_of(error: Any, data: Any) -> KeyPath:
    """Where pydantic's error lies in the file: its path without the names of union members."""
    keys: KeyPath = error["loc"][1:]
    held = next((n for n in range(len(keys)) if not _holds(data, keys[: n + 1])), len(keys))
    return keys[: held + (error["type"] == "missing")]


def _holds(data: Any, keys: KeyPath) -> bool:
    for key in keys:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _translate(kind: type, file: YamlFile, keys: KeyPath, errors: Sequence[Any]) -> ConfigError:
    """One line out of what pydantic says of one value (a union says several things)."""
    what, received = errors[0]["type"], shown(errors[0]["input"])
    if what == "unexpected_keyword_argument":
        return file.error(keys, "unknown key", remedy=nearest(keys[-1], _keys_beside(kind, keys)))
    if what == "missing":
        return file.error(keys, "missing key")
    expected = " or ".join(dict.fromkeys(_expected(error) for error in errors))
    problem = "out of range" if what in _BOUNDS else "wrong value"
    if what.endswith("_type") or what == "int_from_float":
        problem = "wrong type"
    options = [word for error in errors for word in re.findall(r"'([^']*)'", _expected(error))]
    near = difflib.get_close_matches(str(errors[0]["input"]), options, 1)
    remedy = f"Did you mean {near[0]!r}?" if near else ""
    return file.error(keys, problem, expected=expected, received=received, remedy=remedy)


def _expected(error: Any) -> str:
    what, context = error["type"], error.get("ctx", {})
    if what in _BOUNDS:
        return _BOUNDS[what].format(**context)
    if what in ("literal_error", "value_error"):
        return str(context.get("expected") or context["error"])
    return _TYPES.get(what.rpartition("_")[0], str(error["msg"]))


def _keys_beside(kind: type, keys: KeyPath) -> list[str]:
    for part in keys[:-1]:
        if isinstance(part, str):
            kind = _dataclass_in(get_type_hints(kind)[part]) or kind
    return [known.name for known in fields(kind)]


def _dataclass_in(hint: Any) -> type | None:
    if is_dataclass(hint):
        return hint if isinstance(hint, type) else None
    return next(filter(None, map(_dataclass_in, get_args(hint))), None)


def nearest(word: object, known: Iterable[str]) -> str:
    """The remedy for an unknown name: the nearest known one, else all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(word), names, 1)
    return f"Did you mean {near[0]!r}?" if near else "Known: " + (", ".join(names) or "none")


def shown(value: object) -> str:
    """A value as an error shows it: short, on one line."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:59] + "…")
    if isinstance(value, list | dict):
        kind = "list" if isinstance(value, list) else "mapping"
        return f"a {kind}" if value else f"an empty {kind}"
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else str(value)


def json_schema(kind: type) -> dict[str, Any]:
    """JSON Schema of a dataclass, described by the docstrings of its fields."""
    schema = _adapter(kind, described=True).json_schema()
    shape = schema["$defs"].pop(kind.__name__)
    for base in kind.__mro__[1:-1]:
        inherited = json_schema(base)
        schema["$defs"] = inherited["$defs"] | schema["$defs"]
        for name, described in inherited["properties"].items():
            shape["properties"][name] = described | shape["properties"][name]
    return {"$defs": schema["$defs"], **shape}


# --- presets ------------------------------------------------------------

DEFAULT_BASE = "painting"
DEFAULT_EFFECT = Preset.effect
SETTINGS = tuple(setting.name for setting in fields(StyleSettings))
LAYERS = tuple(
    f"block{block}_conv{conv}"
    for block, convs in enumerate((2, 2, 4, 4, 4), start=1)
    for conv in range(1, convs + 1)
)
"""VGG19's convolutions: what `content_layers` and `style_layers` choose from."""


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
    """How a result is written."""


class Explained(NamedTuple):
    """Where one value of a preset comes from; preset and file are empty for built-in defaults."""

    key: str
    value: Any
    preset: str = ""
    file: Path | None = None


@dataclass(frozen=True)
class _Layer:
    """One file of a preset's chain of bases: only what it says itself, paths made absolute."""

    source: YamlFile
    file: Path
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.file.stem


class Presets:
    """All presets there are, by name; each is read and checked when it is asked for.

    Earlier folders come before later ones and the shipped presets come last, so that one's own
    preset may take a shipped one's name, and may then build on it with `base: <that name>`.
    """

    def __init__(self, files: Mapping[str, tuple[Path, ...]]) -> None:
        self._files = files
        self._layers: dict[Path, _Layer] = {}

    @classmethod
    def load(cls, dirs: Iterable[Path] = (), *, shipped: bool = True) -> "Presets":
        """The presets in `dirs` (a folder that does not exist holds none), then the shipped."""
        folders: dict[str, Path] = {}
        for folder in (*dirs, *([shipped_presets_dir()] if shipped else [])):
            folders.setdefault(os.path.realpath(folder), folder)
        files: dict[str, tuple[Path, ...]] = {}
        for file in (file for folder in folders.values() for file in _yaml_files(folder)):
            files[file.stem] = (*files.get(file.stem, ()), file)
        return cls(files)

    def with_first(self, file: Path) -> "Presets":
        """These presets, with `file` before all others of its name."""
        others = (other for other in self._files.get(file.stem, ()) if other != file)
        return Presets({**self._files, file.stem: (file, *others)})

    def __iter__(self) -> Iterator[str]:
        """The names, sorted."""
        return iter(sorted(self._files))

    def __len__(self) -> int:
        """How many names there are."""
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        """Whether a file has that name; it may still hold errors."""
        return name in self._files

    def __getitem__(self, name: str) -> Preset:
        """The preset, resolved. A `PresetError` says what is wrong with it, or that it is none."""
        chain = self._chain(self.origin(name))
        values = {key: value for layer in reversed(chain) for key, value in layer.values.items()}
        preset = Preset(
            name=name,
            description=chain[0].values.get("description", ""),
            effect=values.get("effect", DEFAULT_EFFECT),
            style=values.get("style", ()),
            settings=StyleSettings(**{key: values[key] for key in SETTINGS if key in values}),
            output=values.get("output", OutputSettings()),
        )
        _check_images(preset, chain)
        return replace(preset, digest=digest(preset))

    def origin(self, name: str) -> Path:
        """The preset's file."""
        if name not in self._files:
            remedy = nearest(name, self._files)
            raise PresetError(f"unknown preset {name!r}", remedy=remedy, reason="unknown-preset")
        return self._files[name][0]

    def explain(self, name: str) -> tuple[Explained, ...]:
        """Every value of a preset with the preset and file that set it, for `presets show`."""
        preset, chain = self[name], self._chain(self.origin(name))
        values: dict[str, Any] = {"description": preset.description, "style": preset.style}
        values |= {"effect": preset.effect, "output": preset.output}
        values |= {key: getattr(preset.settings, key) for key in SETTINGS}
        owners = {key: layer for layer in reversed(chain) for key in layer.values}
        return tuple(
            Explained(key, value, owners[key].name, owners[key].file)
            if key in owners and (key != "description" or owners[key] is chain[0])
            else Explained(key, value)
            for key, value in values.items()
        )

    def _chain(self, file: Path) -> list[_Layer]:
        """The preset's layers, from its own file down to the last base."""
        chain: list[_Layer] = []
        base: Path | None = file
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
        name = layer.values.get("base", DEFAULT_BASE)
        files = self._files.get(name, ())
        shadowed = files[files.index(layer.file) + 1 :] if layer.file in files else files
        if shadowed:
            return shadowed[0]
        if "base" not in layer.values:
            return None
        if files:
            raise _cycle(chain, layer.file)
        remedy = nearest(name, self._files)
        raise layer.source.error(("base",), f"unknown preset {name!r}", remedy=remedy)


def check(file: Path, dirs: Iterable[Path] = ()) -> list[ConfigError]:
    """Everything that is wrong with one preset file; its bases are looked for beside it first."""
    file = file.absolute()
    presets = Presets.load([file.parent, *dirs])
    try:
        presets.with_first(file)[file.stem]
    except PresetError as error:
        return [error, *error.others]
    return []


def preset_schema() -> dict[str, Any]:
    """JSON Schema of a preset file, for editors."""
    schema = json_schema(PresetFile)
    style, name = schema["properties"]["style"], {"type": "string"}
    images = {"type": style.pop("type"), "items": {"anyOf": [name, style.pop("items")]}}
    style["anyOf"] = [name, images]
    return schema


def shipped_presets_dir() -> Path:
    """Where the presets lie that come with stylewatch."""
    package = Path(__file__).parent
    installed = package / "data" / "presets"
    return installed if installed.is_dir() else package.parent / "presets"


def user_presets_dir() -> Path:
    """Where one's own presets lie: `~/.config/stylewatch/presets`."""
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return absolute(Path(config, "stylewatch", "presets"), Path.cwd())


def absolute(path: Path, folder: Path) -> Path:
    """A path as written in a file that lies in `folder`."""
    return folder.absolute() / os.path.expanduser(path)  # noqa: PTH111  (pathlib's raises)


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


def _yaml_files(folder: Path) -> list[Path]:
    try:
        files = sorted(folder.absolute().iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        problem = f"the presets folder can't be read: {error.strerror}"
        raise PresetError(problem, file=folder) from None
    visible = (f for f in files if f.name.isprintable() and not f.name.startswith("."))
    return [file for file in visible if file.suffix in {".yaml", ".yml"}]


def _read_layer(file: Path) -> _Layer:
    source = load_yaml(file, PresetError)
    if "style" in source.data:
        source = replace(source, data=source.data | {"style": _images(source)})
    checked = validate(PresetFile, source)
    values = {key: getattr(checked, key) for key in source.data}
    if errors := [*_layer_errors(source, values), *_effect_errors(source, values)]:
        raise_first(errors)
    if "style" in values:
        values["style"] = tuple(_placed(style, file.parent) for style in checked.style)
    if isinstance(checked.init, Path):
        values["init"] = absolute(checked.init, file.parent)
    return _Layer(source, file, values)


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


def _placed(style: StyleImage, folder: Path) -> StyleImage:
    mask = absolute(style.mask, folder) if style.mask else None
    return replace(style, image=absolute(style.image, folder), mask=mask)


def _layer_errors(source: YamlFile, values: Mapping[str, Any]) -> Iterator[ConfigError]:
    for key in {"content_layers", "style_layers"} & values.keys():
        if not values[key]:
            yield source.error((key,), "out of range", expected="at least 1 layer")
        for layer, weight in values[key].items():
            if layer not in LAYERS:
                remedy = nearest(layer, LAYERS)
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
            remedy = nearest(effect, offered)
            yield source.error(("effect",), f"unknown effect {effect!r}", remedy=remedy)


def _check_images(preset: Preset, chain: Sequence[_Layer]) -> None:
    images: list[tuple[KeyPath, object]] = [(("init",), preset.settings.init)]
    for number, style in enumerate(preset.style):
        images += [
            (("style", number, "image"), style.image),
            (("style", number, "mask"), style.mask),
        ]
    errors = []
    for keys, path in images:
        try:
            _ = isinstance(path, Path) and _hash(path)
        except OSError as error:
            owner = next((layer for layer in chain if keys[0] in layer.values), chain[0])
            errors.append(_image_error(owner.source, keys, error))
    if errors:
        raise_first(errors)


def _image_error(source: YamlFile, keys: KeyPath, error: OSError) -> ConfigError:
    what = {"image": "style image", "mask": "mask", "init": "image to start from"}[str(keys[-1])]
    written = next((keys[:n] for n in (3, 2, 1) if keys[:n] in source.marks), keys[:1])
    problem = f"the {what} can't be used: {error.strerror}"
    remedy = "A path is relative to the folder of the preset's file"
    if keys == ("init",):
        remedy += "; without an image: content or noise"
    received = repr(str(error.filename))
    return source.error(written, problem, received=received, remedy=remedy, reason="style-image")


def _cycle(chain: list[_Layer], again: Path) -> ConfigError:
    names = " -> ".join([*(layer.name for layer in chain), again.stem])
    problem = f"the presets build on each other in a circle: {names}"
    return chain[-1].source.error(("base",), problem, remedy="Let one of them have another base")
