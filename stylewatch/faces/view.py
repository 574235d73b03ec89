"""How the live view looks: a board in, lines of text out, for any size of terminal.

Pure. Knows nothing of terminals, of keys, or of how a picture is read.
"""

import io
import math
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Final

from rich.cells import cell_len
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from stylewatch.domain import AT_HAND, Step
from stylewatch.faces.board import Board, FolderRow, JobRow, ProblemRow, ResultRow
from stylewatch.faces.lines import (
    clock,
    duration,
    event_word,
    hourly,
    loss_text,
    short_path,
    size,
    time_left,
    visible,
)

Pixels = Sequence[Sequence[tuple[int, int, int]]]
"""Rows of RGB pixels."""

WIDE: Final = 140
"""With so many columns or more, results and problems stand beside the folders."""
SPARKS: Final = "▁▂▃▄▅▆▇█"
STATES: Final = {
    "watching": ("●", "green"),
    "scanning": ("●", "green"),
    "paused": ("◌", "yellow"),
    "blocked": ("▲", "red"),
}
COUNTS: Final = {"arriving": "", "waiting": "", "done": "", "failed": "bold red", "held": ""}
"""Where photos stand, as counted in the header; those in work are seen one by one."""
FALLBACK: Final = "built-in features"
"""The beginning of a note that many pictures have: it is shown once, above them."""
_RULER: Final = Console(file=io.StringIO())  # rich needs one to wrap text


def draw_board(
    board: Board,
    width: int,
    height: int,
    now: float,
    pictures: Sequence[Text] = (),
    *,
    keys: bool = True,
) -> list[Text]:
    """The whole view: exactly `height` lines, none wider than `width` cells.

    `keys` says whether there is a keyboard to tell of.
    """
    room = height - 2
    if width >= WIDE:
        body = _beside(board, width, room, now, pictures)
    else:
        body = _below(board, width, room, now)
    lines = [_header(board, width), *_fitted(body, room), _footer(board, width, now, keys=keys)]
    for line in lines:
        line.rstrip()  # else blanks beyond the edge are cut off, and seem to be more
        line.truncate(width, overflow="ellipsis")
    return lines[:height]


def _below(board: Board, width: int, room: int, now: float) -> list[Text]:
    """One column. Folders get the room that results leave, but at least a quarter."""
    work = _work(board, width, room // 3, now)
    problems = _problems(board, width, room // 3, now)
    rest = room - len(work) - len(problems)
    folders = _folders(board, width, max(room // 4, rest - 1 - len(board.results)), now)
    rest -= len(folders)
    return [*folders, *work, *_fitted(_results(board, width, rest, now), rest), *problems]


def _beside(
    board: Board, width: int, room: int, now: float, pictures: Sequence[Text]
) -> list[Text]:
    """Two columns for wide terminals, with the latest pictures where there is room."""
    half = (width - 2) // 2
    work = _work(board, half, room // 3, now)
    shown = [Text(), _rule("Latest", half), *pictures] if pictures else []
    if len(_folders(board, half, room // 4, now)) + len(work) + len(shown) > room:
        shown = []
    rest = room - len(work) - len(shown)
    left = [*_folders(board, half, max(room // 4, rest), now), *work]
    left += [*_next(board, half, room - len(left) - len(shown)), *shown]
    upper = room // 2 if board.problems else room
    right = _fitted(_results(board, half, upper, now), upper)
    right += _problems(board, half, room - upper, now)
    lines = []
    for one, other in zip_longest(_fitted(left, room), right, fillvalue=Text()):
        one.truncate(half, overflow="ellipsis", pad=True)
        lines.append(Text.assemble(one, "  ", other))
    return lines


def picture_room(width: int, height: int) -> tuple[int, int]:
    """Columns and rows of cells that each of the two pictures may take; no rows: no pictures."""
    rows = (height - 2) * 5 // 12 - 2
    return min(46, (width - 2) // 4 - 4), min(24, rows) if width >= WIDE else 0


def _fitted(lines: list[Text], count: int) -> list[Text]:
    return [*lines[:count], *(Text() for _ in range(count - len(lines)))]


def _header(board: Board, width: int) -> Text:
    right = Text(" · ").join(
        Text(f"{count} {word}", style)
        for word, style in COUNTS.items()
        if (count := board.total(word)) or word in {"waiting", "done"}
    )
    paused = f"paused {board.paused}" if board.paused else ""
    state = "stopping" if board.stopping else paused
    left = Text.assemble(("stylewatch ", "bold"), (visible(board.title), "dim"))
    if state:
        left.append(f" {state}", "bold yellow")
    if board.headline:
        left.append(f"  {visible(board.headline)}", "dim")
    return _justified(left, right, width)


def _footer(board: Board, width: int, now: float, *, keys: bool) -> Text:
    if board.stopping:
        return Text(visible(board.stop_message), "dim")
    end = " leave" if board.attached else " quit"
    left = Text.assemble(("q" if keys else "Ctrl-C", "bold"), end)
    if keys:
        left.append("  p", "bold").append(" resume" if board.paused else " pause")
    pace, rest = board.per_hour, board.queue_seconds(now)
    words = [hourly(pace)] if pace else []
    if board.waiting and rest:
        words.append(f"queue empty in {duration(rest)}")
    while words and left.cell_len + 2 + len(" · ".join(words)) > width:  # keys come first
        del words[0]
    return _justified(left, Text(" · ".join(words), "dim"), width)


def _justified(left: Text, right: Text, width: int) -> Text:
    """One line with text at both ends; the right end wins where both don't fit."""
    room = width - right.cell_len - 1
    if room < 1:
        return right
    left.truncate(room, overflow="ellipsis", pad=True)
    return Text.assemble(left, " ", right)


def _rule(title: str, width: int, style: str = "cyan") -> Text:
    return Text.assemble(
        ("── ", "dim"), (title, style), (" " + "─" * max(0, width - 4 - len(title)), "dim")
    )


def _folders(board: Board, width: int, room: int, now: float) -> list[Text]:
    """The folders, those with a trouble first, so that what is cut off is well."""
    rows = sorted(board.folders.values(), key=lambda row: row.state in AT_HAND)
    names = min(20, max((cell_len(visible(row.name)) for row in rows), default=0))
    lines = []
    for row in rows:
        lines.append(_folder(row, names, width, paused=bool(board.paused)))
        lines += [_slow(file, now) for file in row.slow]
    return _shortened([_rule("Folders", width), *lines], max(2, room))


def _folder(row: FolderRow, name_width: int, width: int, *, paused: bool) -> Text:
    state = "paused" if paused and row.state in AT_HAND else row.state
    mark, style = STATES.get(state, ("▲", "yellow"))
    name = Text(visible(row.name))
    name.truncate(name_width, overflow="ellipsis", pad=True)
    line = Text.assemble(
        f"  {mark} ", name, "  ", (f"{visible(state):<10}", style), f" {row.waiting:>4} waiting "
    )
    if row.arriving:
        line.append(f"{row.arriving:>3} arriving ")
    if row.failed:
        line.append(f"{row.failed:>3} failed ", "red")
    if row.held:
        line.append(f"{row.held:>3} held ", "dim")
    room = width - line.cell_len - 1
    if row.note:
        line.append(f" {visible(row.note)}", style)
    else:
        line.append(" " + _tail(short_path(row.path), room), _link(row.path, "dim"))
    return line


def _slow(file: tuple[str, str, float], now: float) -> Text:
    path, why, since = file
    when = clock(since, now, "%H:%M")
    return Text.assemble(f"      {visible(path)}", (f": {why}, waiting since {when}", "dim"))


def _next(board: Board, width: int, room: int) -> list[Text]:
    """The photos whose turn comes next, as far as there is room for them."""
    photos = board.next_photos()
    if not photos or room < 4:
        return []
    lines = [
        Text.assemble(
            "  ", _tail(visible(path), width // 2), (f" → {visible(preset)}", "dim magenta")
        )
        for path, preset in photos
    ][: room - 2]
    if len(lines) < board.waiting:
        del lines[room - 3 :]
        lines.append(Text(f"  … {board.waiting - len(lines)} more", "dim"))
    return [_rule("Next", width), *lines, Text()]


def _idle(board: Board) -> str:
    """Why nothing is painted, and what one may do."""
    rows = [row for row in board.folders.values() if row.path]
    looking = any(not row.scanned and row.state in AT_HAND for row in rows)
    arriving = board.total("arriving")
    if board.paused:
        return f"paused {board.paused}"
    if board.waiting:
        return "nothing is painted right now"
    if arriving:
        return f"{arriving} arriving: painted when {'it is' if arriving == 1 else 'they are'} whole"
    if looking:
        return f"looking through the folder{'s' * (len(rows) != 1)}…"
    if held := board.total("held"):
        return f"nothing to paint; {held} held: stylewatch jobs --held"
    return (
        f"nothing to paint: drop a photo into {short_path(rows[0].path)}" if rows else "no folder"
    )


def _work(board: Board, width: int, room: int, now: float) -> list[Text]:
    lines = [_rule("Painting", width)]
    for row in board.running():
        lines += _job(row, width, now)
    if not board.jobs:
        lines += [Text(f"  {_idle(board)}", "dim"), Text()]
    count = min(max(3, room), 1 + 2 * max(board.slots, len(board.jobs)))
    return _fitted(_shortened(lines, count), count)


def _job(row: JobRow, width: int, now: float) -> list[Text]:
    step = row.step
    right = Text((step and time_left(step)) or duration(now - row.since))
    if row.memory:
        right = Text.assemble((size(row.memory), "dim"), " · ", right)
    left = Text.assemble("  ", (_tail(visible(row.path), width // 2), "bold"))
    left.append(f" → {visible(row.preset)}", "magenta")
    first = _justified(left, right, width)
    if step is None:
        return [first, Text("    getting ready", "dim")]
    second = Text.assemble("    ", _bar(step.fraction, width // 3), f" {step.fraction:>4.0%}  ")
    second.append(_figures(step, width), "dim")
    sparks = sparkline(row.losses, min(24, width - second.cell_len - 3))
    return [first, second.append("  ").append(sparks, "cyan")]


def _figures(step: Step, width: int) -> str:
    sides = f" {step.width}x{step.height}" if width >= 90 else ""
    return (
        f"scale {step.scale}/{step.scales}{sides}  {step.evaluation:>3}/{step.evaluations}"
        f"  {loss_text(step):<13}"
    )


def _bar(fraction: float, width: int) -> Text:
    done = round(min(1.0, max(0.0, fraction)) * width)
    return Text.assemble(("━" * done, "green"), ("╌" * (width - done), "dim"))


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve of the values in at most `width` characters, on a logarithmic scale."""
    if len(values) < 2 or width < 2:
        return ""
    if len(values) > width:
        values = [values[i * (len(values) - 1) // (width - 1)] for i in range(width)]
    logs = [math.log(max(value, 1e-30)) for value in values]
    low, span = min(logs), max(logs) - min(logs)
    if span <= 0:
        return SPARKS[0] * len(logs)
    return "".join(SPARKS[round((value - low) / span * (len(SPARKS) - 1))] for value in logs)


def _results(board: Board, width: int, room: int, now: float) -> list[Text]:
    rows = list(board.results)[: max(0, room - 1)]
    latest = next((_notes(row) for row in rows if row.seconds), [])  # a copy says nothing of it
    fallback = "".join(f": {note}" for note in latest if note.startswith(FALLBACK))
    title = f"Done{visible(fallback)}"
    return [_rule(title, width), *(_result(row, width, now) for row in rows)]


def _notes(row: ResultRow) -> list[str]:
    return row.note.split("; ") if row.note else []


def _result(row: ResultRow, width: int, now: float) -> Text:
    line = Text.assemble(
        (f"  {_clock(row.at, now)}  ", "dim"), (f"{duration(row.seconds):>7}", "green"), "  "
    )
    line.append(_tail(short_path(row.output), width - line.cell_len - 1), _link(row.output, ""))
    if notes := [note for note in _notes(row) if not note.startswith(FALLBACK)]:
        line.append(f"  {visible('; '.join(notes))}", "dim")
    return line


def _problems(board: Board, width: int, room: int, now: float) -> list[Text]:
    if not board.problems:
        return []
    lines = [_rule("Problems", width, "bold red")]
    for row in board.problems:
        lines += _problem(row, board.told(row), width, now)
    unseen = board.total("failed") - sum(row.kind == "failed" for row in board.problems)
    if unseen > 0:
        lines.append(Text(f"  … {unseen} more failed: stylewatch jobs --failed", "dim"))
    return _shortened(lines, max(3, room))


def _problem(row: ProblemRow, message: str, width: int, now: float) -> list[Text]:
    style = "red" if row.kind == "failed" else "yellow"
    number = f"#{row.job_id} " if row.job_id else f"{visible(row.folder)} " if row.lasts else ""
    head = f"{_clock(row.at, now)}  {number}{event_word(row.kind, row.reason, row.job_id)}: "
    lines = _wrapped(head + message, width)
    lines[0].stylize("dim", 0, 12)
    lines[0].stylize(style, 12, 2 + len(head))
    return lines


def _wrapped(text: str, width: int) -> list[Text]:
    """The text, indented, in at most four lines; what is cut off ends in an ellipsis."""
    room = max(10, width - 2)
    lines = list(Text(visible(text)).wrap(_RULER, room))
    if len(lines) > 4:
        lines = lines[:4]
        lines[-1].truncate(room - 1)
        lines[-1].append("…")
    return [Text("  ") + line for line in lines]


def _shortened(lines: list[Text], room: int) -> list[Text]:
    """No more than `room` lines, the last one then saying how many more there are."""
    if len(lines) <= room:
        return lines
    return [*lines[: room - 1], Text(f"  … {len(lines) - room + 1} more lines", "dim")]


def _tail(text: str, width: int) -> str:
    """The text, or as much of its end as fits: of a path, that says most."""
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) > max(0, width - 1):
        text = text[1:]
    return "…" + text


def _clock(at: float, now: float) -> str:
    """The time of day, or the date if that was another day; both equally wide."""
    when, today = time.localtime(at), time.localtime(now)
    return time.strftime("%H:%M:%S" if when[:3] == today[:3] else "%d %b  ", when)


@lru_cache(maxsize=256)
def _link(path: str, style: str) -> Style:
    """A style that makes the text clickable (OSC 8); one object per path, as each has its id."""
    plain = Style.parse(style)
    if not path.startswith("/"):
        return plain
    return plain + Style(link=Path(path).as_uri())


def draw_pictures(photo: Pixels, painting: Pixels) -> list[Text]:
    """The photo and its painting side by side in half blocks, two pixels in each cell."""
    columns = max((len(row) for row in photo), default=0)
    lines = []
    for one, other in zip_longest(_half_blocks(photo), _half_blocks(painting)):
        left = one or Text()
        left.pad_right(columns - left.cell_len)
        lines.append(Text.assemble("  ", left, "   ", other or Text()))
    return lines


def _half_blocks(pixels: Pixels) -> Iterator[Text]:
    for top in range(0, len(pixels), 2):
        line = Text()
        upper = pixels[top]
        lower = pixels[top + 1] if top + 1 < len(pixels) else [None] * len(upper)
        for above, below in zip(upper, lower, strict=True):
            back = Color.from_rgb(*below) if below else None
            line.append("▀", Style(color=Color.from_rgb(*above), bgcolor=back))
        yield line
