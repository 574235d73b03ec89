"""Checks what a YAML file says against a dataclass, or describes that by a JSON Schema.

Each fault is one line. Knows nothing of presets and configs.
"""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, NoReturn, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from stylewatch.errors import ConfigError
from stylewatch.settings.yamlfile import MAPPING, KeyPath, YamlFile, shown

T = TypeVar("T")

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "tuple": "a list (- value)",
    "list": "a list (- value)",
    "dict": MAPPING,
    "dataclass": MAPPING,
    "path": "a path",
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
    # A plain dataclass takes no `ConfigDict`; inside a tuple it obeys the tuple's.
    strict = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=described)
    return TypeAdapter(tuple[kind], config=strict)  # type: ignore[valid-type]


def validate(kind: type[T], file: YamlFile) -> T:
    """The file's data as that dataclass.

    Raises:
        ConfigError: the first fault, which carries the `others`.
    """
    try:
        checked: T = _adapter(kind).validate_json(json.dumps([file.data], default=str))[0]  # type: ignore[arg-type]
    except ValidationError as invalid:
        found: dict[KeyPath, list[Any]] = {}
        for error in invalid.errors(include_url=False):
            # a list whose items are wrong is reported as too short as well
            if error["type"] != "too_short" or not error["input"]:
                found.setdefault(_keys_of(error, file.data), []).append(error)
        for keys in [keys for keys, errors in found.items() if _is_unknown(errors)]:
            near = nearest(keys[-1], _keys_beside(kind, keys))
            if not _holds(file.data, meant := (*keys[:-1], *near)):
                found.pop(meant, None)  # what is missing is there, misspelt
        raise_first([_translate(kind, file, keys, errors) for keys, errors in found.items()])
    return checked


def raise_first(errors: Sequence[ConfigError]) -> NoReturn:
    """Raise the first of a file's errors, in the file's order, with the others attached."""
    first, *others = sorted(errors, key=lambda error: (error.line, error.column))
    first.others = tuple(others)
    raise first from None


def _keys_of(error: Any, data: Any) -> KeyPath:
    """The keys in the file that lead to pydantic's error.

    Its own path also names the members of unions, which stand in no file.
    """
    keys: KeyPath = error["loc"][1:]
    held = next((n for n in range(len(keys)) if not _holds(data, keys[: n + 1])), len(keys))
    return keys[: held + 1] if error["type"] == "missing" else keys[:held]


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
    """Our error for all that pydantic says of one value; of a union's it says several things."""
    what, said = errors[0]["type"], errors[0]["input"]
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
    near = nearest(said, options)
    remedy = f"Did you mean {near[0]!r}?" if near else ""
    if "text" in expected and not isinstance(said, str | list | dict):
        remedy = "Put it in quotes"
        if said is None:
            remedy = "What is ~ or begins with # needs quotes"
    if "number" in expected and isinstance(said, str) and re.fullmatch(r"\d+([.,]\d+)?", said):
        remedy = f"Write it as {said.replace(',', '.')}"
    return file.error(keys, problem, expected=expected, received=shown(said), remedy=remedy)


def _expected(error: Any) -> str:
    what, context = error["type"], error.get("ctx", {})
    if what in _BOUNDS:
        return _BOUNDS[what].format(**context)
    if what in ("literal_error", "value_error"):
        return str(context.get("expected") or context["error"])
    return _TYPES.get(what.rpartition("_")[0], str(error["msg"]))


def _keys_beside(kind: type, keys: KeyPath) -> list[str]:
    """All keys that there may be where the last of `keys` stands."""
    for part in keys[:-1]:
        if isinstance(part, str):
            kind = _dataclass_in(get_type_hints(kind)[part]) or kind
    return [known.name for known in fields(kind)]


def _dataclass_in(hint: Any) -> type | None:
    if is_dataclass(hint):
        return hint if isinstance(hint, type) else None
    return next(filter(None, map(_dataclass_in, get_args(hint))), None)


def did_you_mean(word: object, known: Iterable[str], more: str = "") -> str:
    """The remedy for an unknown name: the nearest known one, else all of them, and `more`."""
    names = sorted(known)
    near = nearest(word, names)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names) or 'none'}{more}"


def nearest(word: object, names: Iterable[str], alike: float = 0.6) -> list[str]:
    """The name that looks most like the word, in upper or lower case; none, if none does."""
    in_any_case = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(str(word).casefold(), in_any_case, 1, alike)
    return [in_any_case[name] for name in near]


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
    """Put a number's bounds where JSON Schema wants them, in its words.

    Where there are other notations than the number, pydantic puts them beside all, in its own.
    """
    words = {name: described.pop(name) for name in _SCHEMA_WORDS if name in described}
    for branch in described.get("anyOf", ()):
        if branch.get("type") in {"integer", "number"}:
            branch |= {_SCHEMA_WORDS[name]: bound for name, bound in words.items()}
        _move_bounds(branch)
