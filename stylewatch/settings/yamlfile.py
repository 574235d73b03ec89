"""YAML files that people write, read with the place of every key.

Whatever is wrong is told with file, line, column and key. Knows nothing of what should be in them.
"""

import math
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from stylewatch.errors import ConfigError, ExitCode
from stylewatch.settings.paths import absolute

KeyPath = tuple[str | int, ...]
MAPPING = "a mapping (key: value)"

MAX_BYTES, MAX_NODES, MAX_DEPTH = 256 * 1024, 20_000, 16
_CONTROL = re.compile(r"[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_VARIABLE = re.compile(r"\$\{|\$\w+(/|$)")  # `$HOME/in`, but no picture called `$1.jpg`
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
    """Reads YAML 1.2's core types only: `no`, `on`, `1:30` and `2024-01-01` are text.

    Not libyaml's loader: that overflows the C stack when a file is nested deeply, and ours are
    small.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (yaml's own name and type)


for _word, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"[-+]?[0-9]{1,19}$", list("-+0123456789")),
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
        """An error about the value at `keys`, placed there, or as near as the file has a place."""
        line, column = self.marks.get(self._known(keys), (0, 0))
        key = dotted(keys)
        return self.kind(problem, file=self.path, line=line, column=column, key=key, **parts)

    def written(self, keys: KeyPath) -> KeyPath:
        """As much of `keys` as stands in the file, where a short form may be used."""
        return self._known(keys) or keys[:1]

    def _known(self, keys: KeyPath) -> KeyPath:
        return next((keys[:n] for n in range(len(keys), 0, -1) if keys[:n] in self.marks), ())

    def place(self, keys: KeyPath, path: Path, folder: Path) -> Path:
        """The path that is written at `keys`, absolute; `folder` is what a relative one is in."""
        if _VARIABLE.match(str(path)):
            problem, remedy = "variables are not expanded here", "Write ~, or the whole path"
            raise self.error(self.written(keys), problem, received=str(path), remedy=remedy)
        try:
            return absolute(path, folder)
        except ConfigError as error:
            parts = {"received": error.received, "remedy": error.remedy}
            raise self.error(self.written(keys), error.problem, **parts) from None


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
    """Read one YAML mapping from a text, which `path` holds, if any file does."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text, path, kind) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise kind(f"not valid YAML: {error}".replace("\n", " "), file=path) from None
    except RecursionError:
        raise kind("nested too deeply", file=path) from None
    if node is None:
        raise kind("the file is empty", file=path, expected=MAPPING)
    composed = _Composition(YamlFile(path, {}, kind=kind))
    data = composed.plain(node, ())
    if not isinstance(data, dict):
        raise composed.file.error((), "wrong type", expected=MAPPING, received=shown(data))
    return replace(composed.file, data=data)


def typed(values: Mapping[str, Any], kind: type[ConfigError] = ConfigError) -> YamlFile:
    """Values of a command line, which have to be as if they were written in a file."""
    file = YamlFile(None, dict(values), kind=kind)
    left: list[tuple[KeyPath, Any]] = [((), file.data)]
    while left:
        keys, value = left.pop()
        if len(keys) > MAX_DEPTH:
            raise file.error(keys[:1], "nested too deeply")
        if isinstance(value, str) and (problem := _trouble_of(value)):
            raise file.error(keys, problem)
        if isinstance(value, dict):
            left += [((*keys, key), part) for key, held in value.items() for part in (key, held)]
        if isinstance(value, list):
            left += [((*keys, n), item) for n, item in enumerate(value)]
    return file


def _read_text(path: Path, kind: type[ConfigError]) -> str:
    try:
        if not stat.S_ISREG(mode := path.stat().st_mode):
            what = "a folder, not a file" if stat.S_ISDIR(mode) else "not a regular file"
            raise kind(what, file=path)
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        missing = kind is ConfigError and isinstance(error, FileNotFoundError)
        remedy = "Check the path; `stylewatch init` writes a config" if missing else ""
        unread = kind(f"can't be read: {error.strerror}", file=path, remedy=remedy)
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
        problem, remedy = "there is a tab where YAML needs spaces", "Indent with spaces"
    elif line := _no_break_space(text[: mark.index + 1]):
        remedy = f"Line {line} has a no-break space: type a plain one"
    return kind(problem, file=path, line=mark.line + 1, column=mark.column + 1, remedy=remedy)


def _no_break_space(read: str) -> int:
    """The line with a no-break space, as copied from a web page, if it is one of the last two."""
    lines = [(number, line) for number, line in enumerate(read.splitlines(), 1) if line.strip(" ")]
    return next((number for number, line in lines[-2:] if "\xa0" in line), 0)


@dataclass
class _Composition:
    """Turns YAML's nodes into plain data, noting where each stands; too many are an error.

    Aliases that are used in each other could make millions of nodes out of a small file.
    """

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
                problem = f"the key is there twice, first in line {first}"
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
        if isinstance(value, str) and (problem := _trouble_of(value)):
            raise self._error(node, keys, problem)
        return value

    def _error(self, node: yaml.Node, keys: KeyPath, problem: str) -> ConfigError:
        self.file.marks[keys] = _place(node)
        return self.file.error(keys, problem)


def _trouble_of(text: str) -> str:
    """Why no file can hold this text as a value; else empty."""
    found = _CONTROL.search(text)
    if found and "\ud800" <= found[0] <= "\udfff":
        return "the text is not UTF-8"
    return "the text has a control character" if found else ""


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


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
