"""Values that people may write in more than one way: 90s or 90, 4GB, one name or a list.

Types for dataclasses that are read from YAML. Knows nothing of what the values are for.
"""

import math
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from stylewatch import domain

YEAR = 31_536_000
"""Seconds. The longest duration: no clock or thread has trouble with it."""
EXABYTE = 10**18
"""Bytes. The largest size: the system's calls can take it."""
LEAST = 10**6
"""Bytes. Less memory was surely meant in another unit, as nothing can be painted in it."""

_SECONDS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KB": 10**3, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def _pattern(units: Mapping[str, float]) -> str:
    return rf"(\d+(?:\.\d+)?)\s*({'|'.join(units)})"


def composed(name: str) -> str:
    """The name with each letter and its accent as one sign; file systems may have them as two."""
    return unicodedata.normalize("NFC", name)


def _quantity(value: object, units: Mapping[str, float], examples: str) -> object:
    """A number with a unit, in the smallest unit; what is no text is left as it is."""
    if not isinstance(value, str):
        return value
    parts = re.fullmatch(_pattern(units), value)
    quantity = float(parts[1]) * units[parts[2]] if parts else math.inf
    if math.isinf(quantity):
        raise ValueError(examples)
    return quantity


def _seconds(value: object) -> object:
    return _quantity(value, _SECONDS, "seconds, or a duration such as 90s, 10min, 2h or 7d")


def _bytes(value: object) -> object:
    size = _quantity(value, _BYTES, "bytes, or a size such as 500MB, 4GB or 2GiB")
    return round(size) if isinstance(value, str) and isinstance(size, float) else size


def _worth(size: int) -> int:
    if 0 < size < LEAST:
        raise ValueError("at least 1MB, such as 4GB, or 0")
    return size


def _names(value: object) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("a preset's name, or a list of names, in quotes where they are numbers")
    return tuple(dict.fromkeys(map(composed, names)))


def _paths(value: object) -> tuple[Path, ...]:
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ValueError("a folder, or a list of folders")
    return tuple(map(Path, paths))


_TIME = r"(?:[01]?\d|2[0-3]):[0-5]\d|24:00"
_SPAN = rf"({_TIME})\s*-\s*({_TIME})"
_HOURS = rf"{_SPAN}(?:\s*,\s*{_SPAN})*"


def _hours(value: object) -> tuple[domain.Hours, ...]:
    if isinstance(value, str) and re.fullmatch(_HOURS, value):
        spans = re.findall(_SPAN, value)
        hours = [domain.Hours(_minute(begin), _minute(end)) for begin, end in spans]
        if all(each.begin != each.end for each in hours):
            return tuple(hours)
    raise ValueError("hours of the day such as 22:00-07:00, several with commas")


def _minute(text: str) -> int:
    hour, minute = map(int, text.split(":"))
    return 60 * hour + minute


def _after(value: object) -> object:
    if value in ("keep", "delete"):
        return value
    if isinstance(value, dict) and list(value) == ["move"] and isinstance(value["move"], str):
        return Path(value["move"])
    raise ValueError("keep, delete or {move: FOLDER}")


SCHEDULER = r"(?:tls://[^/\s]+|tcp://(?:localhost|127\.0\.0\.1|\[::1\])):\d+"
"""A Dask scheduler: reached by TLS, or on this machine, as without it anyone there may run code."""


def _workers(value: object) -> int | str:
    count = value.get("local") if isinstance(value, dict) and len(value) == 1 else value
    if isinstance(count, int) and not isinstance(count, bool) and count >= 1:
        return count
    if value == "local":
        return 1
    if isinstance(value, str) and re.fullmatch(SCHEDULER, value):
        return value
    raise ValueError(
        "local, {local: NUMBER}, tls://HOST:PORT, or, on this machine alone, tcp://127.0.0.1:PORT"
    )


# What stands after `json_schema_input_type` says the same once more, for a JSON Schema.


def _said(pattern: str) -> Any:
    return Annotated[str, Field(pattern=f"^{pattern}$")]


Seconds = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=float | _said(_pattern(_SECONDS))),
    Le(YEAR),
]
Bytes = Annotated[
    int,
    BeforeValidator(_bytes, json_schema_input_type=int | _said(_pattern(_BYTES))),
    Le(EXABYTE),
]
Memory = Annotated[Bytes, Ge(0), AfterValidator(_worth)]
Names = Annotated[tuple[str, ...], PlainValidator(_names, json_schema_input_type=str | list[str])]
Paths = Annotated[tuple[Path, ...], PlainValidator(_paths, json_schema_input_type=str | list[str])]
Hours = Annotated[
    tuple[domain.Hours, ...],
    PlainValidator(_hours, json_schema_input_type=_said(_HOURS)),
    Field(json_schema_extra={"default": "00:00-24:00"}),  # as it is written, not as it is read
]
_Move = Annotated[dict[Literal["move"], str], MinLen(1)]
After = Annotated[
    domain.After,
    PlainValidator(_after, json_schema_input_type=Literal["keep", "delete"] | _Move),
]
_Count = Annotated[int, Ge(1)]
_Local = Annotated[dict[Literal["local"], _Count], MinLen(1)]
Workers = Annotated[
    int | str,
    PlainValidator(
        _workers, json_schema_input_type=Literal["local"] | _said(SCHEDULER) | _Count | _Local
    ),
    Field(validate_default=True),
]
"""A number of processes here, or a scheduler's address."""
