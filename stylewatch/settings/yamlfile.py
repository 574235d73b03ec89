"""YAML files that people write: read with the place of every key, checked against dataclasses.

Whatever is wrong is told with file, line, column and key. Knows nothing of presets and configs.
"""

import difflib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from stylewatch.errors import ConfigError, ExitCode

T = TypeVar("T")
KeyPath = tuple[str | int, ...]

# --- reading --------------------------------------------------------------------------------------

MAX_BYTES, MAX_NODES, MAX_DEPTH = 256 * 1024, 20_000, 16
_CONTROL = re.compile(r"[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SYNTAX = 'Indent alike what belongs together; text with : # * & @ or \' in it needs "quotes"'
_TAG = "tag:yaml.org,2002:"
_BOOLS = {"true": True, "false": False}
_SCALARS: dict[str, Callable[[str], Any]] = {
    f"{_TAG}str": str,
    f"{_TAG}null": lambda _: None,
    f"{_TAG}bool": lambda text: _BOOLS[text.lower()],
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
        line, column = self.marks.get(self._known(keys), (0, 0))
        key = dotted(keys)
        return self.kind(problem, file=self.path, line=line, column=column, key=key, **parts)

    def written(self, keys: KeyPath) -> KeyPath:
        """As much of `keys` as stands in the file: a short form leaves some of them out."""
        return self._known(keys) or keys[:1]

    def _known(self, keys: KeyPath) -> KeyPath:
        return next((keys[:n] for n in range(len(keys), 0, -1) if keys[:n] in self.marks), ())

    def place(self, keys: KeyPath, path: Path, folder: Path) -> Path:
        """The path that is written at `keys`, absolute; `folder` is what a relative one is in."""
        try:
            return absolute(path, folder)
        except ConfigError as error:
            parts = {"received": error.received, "remedy": error.remedy}
            raise self.error(self.written(keys), error.problem, **parts) from None


def absolute(path: str | Path, folder: Path = Path()) -> Path:
    """A path as written in a file that lies in `folder`, or else on the command line.

    As text it may be `./~name`, which is no home folder; a `Path` forgets its `./`.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ConfigError(
            f"there is no home folder {expanded.partition('/')[0]}", received=str(path),
            remedy="Set HOME, or write the path without ~",
        )  # fmt: skip
    try:
        return (folder / expanded).absolute()
    except FileNotFoundError:
        remedy = "Change to a folder that is there"
        raise ConfigError("the working folder was removed", remedy=remedy) from None


def dotted(keys: KeyPath) -> str:
    """A key as errors show it: `folders[0].rules[2].preset`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part:.60}" for part in keys)
    return "".join(parts).removeprefix(".")


def load_yaml(path: Path, kind: type[ConfigError] = ConfigError) -> YamlFile:
    """Read one YAML mapping; whatever is wrong with it is raised as `kind`."""
    return parse_yaml(_read_text(path, kind), path, kind)


def parse_yaml(
    text: str, path: Path | None = None, kind: type[ConfigError] = ConfigError
) -> YamlFile:
    """The same of a text, which may stand in no file."""
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
        if not stat.S_ISREG(mode := path.stat().st_mode):
            what = "a folder, not a file" if stat.S_ISDIR(mode) else "not a regular file"
            raise kind(what, file=path)
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        unread = kind(f"can't be read: {error.strerror}", file=path)
        unread.exit_code = ExitCode.UNREADABLE  # unlike what is wrong in it, that may pass
        raise unread from None
    except UnicodeDecodeError as error:
        *above, begun = raw[: error.start].split(b"\n")
        raise kind(
            "not UTF-8", file=path, line=len(above) + 1, column=len(begun) + 1,
            remedy="Save it as UTF-8 text",
        ) from None  # fmt: skip
    if len(raw) > MAX_BYTES:
        raise kind("too large", file=path, expected=f"at most {MAX_BYTES} bytes")
    if control := _CONTROL.search(text):
        received = f"the character {control[0]!a}"
        raise kind("not a text file", file=path, expected="YAML in UTF-8", received=received)
    return text


def _syntax_error(
    error: yaml.MarkedYAMLError, text: str, path: Path | None, kind: type[ConfigError]
) -> ConfigError:
    mark, began = error.problem_mark or yaml.Mark(str(path), 0, 0, 0, None, 0), error.context_mark
    since = f"from line {began.line + 1}" if began and began.line != mark.line else ""
    problem = f"not valid YAML: {error.context or ''} {since} {error.problem}"
    problem = " ".join(problem.split())
    remedy = _SYNTAX
    if "single document" in problem:
        remedy = "Keep one of them, without the line ---"
    if text[mark.index : mark.index + 1] == "\t":
        problem, remedy = "a tab stands where YAML needs spaces", "Indent with spaces"
    elif line := _no_break_space(text[: mark.index + 1]):
        remedy = f"In line {line} stands a no-break space: type a plain one"
    return kind(problem, file=path, line=mark.line + 1, column=mark.column + 1, remedy=remedy)


def _no_break_space(read: str) -> int:
    """In which of the last two lines one stands, as copied from a web page; else 0."""
    lines = [(number, line) for number, line in enumerate(read.splitlines(), 1) if line.strip(" ")]
    return next((number for number, line in lines[-2:] if "\xa0" in line), 0)


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
            if name.value == "<<":
                problem = "merge keys (<<) are not read here: write the values themselves"
                raise self._error(name, keys, problem)
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
        except KeyError:
            raise self._error(node, keys, f"{shown(node.value)} is not true or false") from None
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


# --- checking -------------------------------------------------------------------------------------

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "tuple": "a list (- value)",
    "list": "a list (- value)",
    "dict": "a mapping (key: value)",
    "dataclass": "a mapping (key: value)",
    "path": "a path",
    "json": "text in UTF-8",
}
_BOUNDS = {
    "greater_than_equal": "at least {ge:.16g}",
    "greater_than": "more than {gt:.16g}",
    "less_than_equal": "at most {le:.16g}",
    "less_than": "less than {lt:.16g}",
    "too_short": "at least {min_length} in the list",
}
_SCHEMA_WORDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
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
        for keys in [keys for keys, errors in found.items() if _is_unknown(errors)]:
            near = difflib.get_close_matches(str(keys[-1]), _keys_beside(kind, keys), 1)
            if not _holds(file.data, meant := (*keys[:-1], *near)):
                found.pop(meant, None)  # it is there, misspelt
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


def _is_unknown(errors: Sequence[Any]) -> bool:
    return bool(errors[0]["type"] == "unexpected_keyword_argument")


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
    if _is_unknown(errors):
        remedy = did_you_mean(keys[-1], _keys_beside(kind, keys))
        return file.error(keys, "unknown key", remedy=remedy)
    if what == "missing":
        return file.error(keys, "missing key")
    expected = " or ".join(dict.fromkeys(_expected(error) for error in errors))
    problem = "out of range" if what in _BOUNDS else "wrong value"
    if what.endswith("_type") or what == "int_from_float":
        problem = "wrong type"
    options = [word for error in errors for word in re.findall(r"'([^']*)'", _expected(error))]
    remedy = _nearest(errors[0]["input"], options)
    if "text" in expected and not isinstance(errors[0]["input"], str | list | dict):
        remedy = "Put it in quotes"
        if errors[0]["input"] is None:
            remedy = "What is ~ or begins with # needs quotes"
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


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The remedy for an unknown name: the nearest known one, else all of them."""
    names = sorted(known)
    return _nearest(word, names) or "Known: " + (", ".join(names) or "none")


def _nearest(word: object, names: Iterable[str]) -> str:
    in_any_case = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(str(word).casefold(), in_any_case, 1)
    return f"Did you mean {in_any_case[near[0]]!r}?" if near else ""


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
        for name, described in inherited["properties"].items():
            shape["properties"][name] = described | shape["properties"][name]
    for one in (shape, *schema["$defs"].values()):
        for described in one["properties"].values():
            _move_bounds(described)
    return {"$defs": schema["$defs"], **shape}


def _move_bounds(described: dict[str, Any]) -> None:
    """Bounds of a number that has other notations stand beside these, in pydantic's own words."""
    words = {name: described.pop(name) for name in _SCHEMA_WORDS.keys() & described.keys()}
    for branch in described.get("anyOf", ()):
        if branch.get("type") in {"integer", "number"}:
            branch |= {_SCHEMA_WORDS[name]: bound for name, bound in words.items()}
