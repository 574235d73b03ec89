"""Events as lines: for a log, a journal, a pipe or a terminal that can do no more.

Knows how an event reads and how a file name is made safe to show. Knows nothing of the daemon that
sends events, or of rich.
"""

import json
import math
import os
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TextIO

from stylewatch.domain import AT_HAND, Event, Step

LogFormat = Literal["text", "json"]

LEVELS: Final[Mapping[str, str]] = {"failed": "error"} | dict.fromkeys(
    ("retry", "blocked", "warning"), "warning"
) | {"progress": "debug"}  # fmt: skip
"""How much a kind of event matters; what is not named here is `info`."""

JOURNAL: Final[Mapping[str, int]] = {"error": 3, "warning": 4, "info": 6, "debug": 7}
"""Syslog's numbers, which journald reads from a `<4>` before a line."""

WORDS: Final[Mapping[str, str]] = {
    "queued": "waiting", "retry": "waiting", "running": "painting", "progress": "painting",
}  # fmt: skip
"""Where a photo stands after an event of that kind, in the words that all commands use."""

PROGRESS_SECONDS: Final = 30.0
"""A log is told of a photo's progress at each new scale, and otherwise no more often than this."""


def wrapped(line: str, columns: int, indent: int = 0) -> list[str]:
    """A line, broken between words where it is longer than that."""
    return textwrap.wrap(
        line,
        columns,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def visible(text: object) -> str:
    r"""The text on one line, safe to show: whatever a terminal could obey becomes `\x1b`, `\xff`.

    File names hold any byte but `/` and NUL, so they may hold line ends, escape sequences, marks
    that turn the reading direction, and bytes that are no UTF-8.
    """
    return "".join(char if _is_harmless(char) else _escaped(char) for char in str(text))


def _is_harmless(char: str) -> bool:
    """Whether a terminal only shows it: a letter, a space, what joins emoji or parts letters.

    A family is one emoji by joiners between its members; Persian words need non-joiners.
    """
    is_space = char.isspace() and char > "\x9f" and char not in "\u2028\u2029"
    return char.isprintable() or is_space or char in "\u200c\u200d"


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def short_path(path: str | Path) -> str:
    """The path as people write it: `~` for the home folder; safe to show."""
    text, home = str(path), os.path.expanduser("~")
    if text == home or text.startswith(home + "/"):
        text = "~" + text[len(home) :]
    return visible(text)


def duration(seconds: float) -> str:
    """`8 s`, `3:07`, `2:05:00`, `3 days`: as short as it can be read."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{round(whole / 86400)} days"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """`640 MB`, `2.1 GB`: bytes as people say them."""
    return f"{count / 1e9:.1f} GB" if count >= 999.5e6 else f"{count / 1e6:.0f} MB"


def hourly(pace: float) -> str:
    """`120 photos/h`, `0.25 photos/h`: none is no pace."""
    return f"{pace:.0f} photos/h" if pace >= 10 else f"{pace:.2g} photos/h"


def time_left(step: Step) -> str:
    """`12 s left`; nothing while that is not known."""
    return "" if step.left is None else f"{duration(step.left)} left"


def loss_text(step: Step) -> str:
    """`loss 2.31`; nothing where an effect has none."""
    return "" if math.isnan(step.loss) else f"loss {step.loss:.3g}"


def progress_text(step: Step) -> str:
    """One evaluation in words."""
    words = [
        f"scale {step.scale}/{step.scales}",
        f"{step.width}x{step.height}",
        f"evaluation {step.evaluation}/{step.evaluations}",
        loss_text(step),
        time_left(step),
    ]
    return ", ".join(filter(None, words))


def event_text(event: Event, *, several: bool) -> str:
    """The event in one safe line, with its folder's name where there are `several` folders."""
    text = event.message
    if event.kind == "progress" and event.step:
        text = f"{event.path} → {event.preset}: {progress_text(event.step)}"
    return visible(in_folder(text, event.folder, event.path) if several else text)


def in_folder(text: str, folder: str, path: str) -> str:
    """A line about a photo with its folder's name before it: `nas/a.jpg: its end is missing`."""
    of_a_photo = path and not path.startswith("/")  # a folder's own path is absolute
    return f"{folder}/{text}" if folder and of_a_photo and text.startswith(path) else text


def event_word(kind: str, reason: str, job_id: int) -> str:
    """The word that begins an event's line: where its photo stands, or else the event's kind."""
    if reason == "cancelled":
        return "held"
    if reason == "vanished":
        return "gone"
    if (kind, reason) == ("retry", "changed"):
        return "replaced"
    if kind == "blocked" and job_id:  # it is tried again, unlike an output that has no space
        return "waiting"
    return WORDS.get(kind, kind)


def event_dict(event: Event) -> dict[str, Any]:
    """The event for programs: its kind, its message, and each other field that is not empty."""
    fields = {key: value for key, value in jsonable(event).items() if value}
    return {"event": fields.pop("kind"), **fields}


def jsonable(value: object) -> Any:
    """The value in JSON's own types; text is valid Unicode, as strict readers want it."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None  # JSON has no word for it
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(jsonable(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return jsonable(str(value))


class Lines:
    """A sink for events that writes one line each, of those that have something to say."""

    def __init__(
        self,
        stream: TextIO,
        *,
        log_format: LogFormat = "text",
        journal: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stream = stream
        self._json = log_format == "json"
        self._journal = journal
        self._clock = clock
        self._told: dict[int, tuple[int, float]] = {}
        self._folders: dict[str, str] = {}  # those we have heard of, and what is wrong with each
        self._told_at = 0.0  # the date is told where the day is another than in the last line

    def __call__(self, event: Event) -> None:
        """Write the event's line; a reader that went away is no reason to stop working."""
        now = self._clock()
        if event.folder:  # that of another number of slots is of none
            self._folders.setdefault(event.folder, "")
            if event.kind == "folder":
                event = self._news_of_folder(event)
        if not (self._is_progress(event, now) if event.kind == "progress" else event.message):
            return
        if event.stops_work:
            self._told.pop(event.job_id, None)
        try:
            self._stream.write(self._line(event, now) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # closed pipe, closed file
            return

    def _line(self, event: Event, now: float) -> str:
        level = LEVELS.get(event.kind, "info")
        if event.kind == "folder" and event.reason not in AT_HAND:
            level = "warning"
        mark = f"<{JOURNAL[level]}>" if self._journal else ""
        at = float(event.extra.get("at", now))  # an old event, told to a newcomer
        if self._json:
            return mark + json.dumps({"time": _iso(at), "level": level, **event_dict(event)})
        word = event_word(event.kind, event.reason, event.job_id)
        when = "" if self._journal else clock(at, self._told_at) + " "
        self._told_at = at
        return f"{mark}{when}{word:<8} {event_text(event, several=len(self._folders) > 1)}"

    def _news_of_folder(self, event: Event) -> Event:
        """The event, its message made news: a folder's trouble once, its end, or nothing."""
        before = self._folders[event.folder]
        self._folders[event.folder] = event.message
        if event.reason == "left":
            del self._folders[event.folder]
        elif event.message == before:
            return replace(event, message="")
        elif not event.message:
            return replace(event, message=f"{event.path}: {event.reason} again")
        return event

    def _is_progress(self, event: Event, now: float) -> bool:
        scale = event.step.scale if event.step else 0
        told_scale, told_at = self._told.get(event.job_id, (0, 0.0))
        if scale == told_scale and now - told_at < PROGRESS_SECONDS:
            return False
        self._told[event.job_id] = (scale, now)
        return True


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def clock(at: float, now: float, form: str = "%H:%M:%S") -> str:
    """The time of day, after the date if that was another day."""
    when, today = time.localtime(at), time.localtime(now)
    return time.strftime(form if when[:3] == today[:3] else f"%d %b {form}", when)


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the stream ends in systemd's journal (`JOURNAL_STREAM` names device and inode)."""
    try:
        stat = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no descriptor behind it, or closed
        return False
    return environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"
