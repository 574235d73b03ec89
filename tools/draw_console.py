"""Draws docs/console.svg: the live view with three jobs, a failure and a blocked folder."""

import io
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rich.console import Console

from stylewatch.domain import Event, Step
from stylewatch.faces.board import Board
from stylewatch.faces.view import draw_board

WIDTH, HEIGHT = 100, 26
TARGET = Path(__file__).parent.parent / "docs" / "console.svg"
NOON = time.mktime((2026, 6, 21, 12, 0, 0, 0, 0, -1))


def story() -> Iterator[tuple[float, Event]]:
    """Seconds after noon, and what happened then."""
    yield 0, Event(kind="started", message="watching 2 folders", extra={"slots": 3})
    for name, waiting, done, failed in (("in", 12, 3, 1), ("nas", 3, 0, 0)):
        place = f"/home/anna/Pictures/{name}"
        extra = {"waiting": waiting, "done": done, "failed": failed}
        yield 0, Event(kind="folder", message="", folder=name, path=place, extra=extra)
    for number, (photo, preset, seconds) in enumerate(
        [("lake", "nocturne", 21.0), ("lake", "woodcut", 19.0), ("harbour", "ink", 23.0)]
    ):
        yield 20 * (number + 1), Event(
            kind="done", message="", folder="out", job_id=number + 1, seconds=seconds,
            path=f"2026/{photo}.jpg", preset=preset,
            output=f"/home/anna/Pictures/out/2026/{photo}--{preset}.jpg",
        )  # fmt: skip
    yield 62, Event(
        kind="folder", folder="nas", path="/mnt/nas/photos", reason="blocked",
        message="/mnt/nas/paintings is full", extra={"waiting": 3, "failed": 0},
    )  # fmt: skip
    yield 62, Event(
        kind="blocked", reason="disk-full",
        message="/mnt/nas/paintings: only 12 MB free of the 500 MB of `min_free`; it goes on by "
        "itself at 625 MB",
    )  # fmt: skip
    for job, (photo, preset, scale, evaluation) in enumerate(
        [("beach", "watercolour", 3, 6), ("old-town", "mosaic", 2, 11), ("cat", "pastel", 1, 27)],
        start=5,
    ):
        told = partial(
            Event, message="", path=f"2026/{photo}.jpg", preset=preset, job_id=job, folder="in"
        )
        yield 60 + job, told(kind="running")
        for number in range(1, evaluation + 1):
            memory = 620e6 + 210e6 * scale
            step = a_step(scale, number)
            yield 60 + job, told(kind="progress", step=step, extra={"memory": memory})
    photo = "2026/IMG_0417.jpg"
    message = f"{photo}: its end is missing. Copy it again from its source"
    failure = {"at": NOON + 61, "path": photo, "reason": "truncated", "message": message}
    yield 62, Event(
        kind="folder", message="", folder="in", path="/home/anna/Pictures/in",
        extra={"waiting": 12, "failed": 1, "failures": [failure]},
    )  # fmt: skip


def a_step(scale: int, number: int) -> Step:
    """Evaluation `number` of a scale; on each scale one costs four times as much as before."""
    evaluations = (45, 22, 15)
    done = sum(n * 4**at for at, n in enumerate(evaluations[: scale - 1])) + number * 4 ** (
        scale - 1
    )
    fraction = done / sum(n * 4**at for at, n in enumerate(evaluations))
    return Step(
        scale=scale, scales=3, width=256 * 2 ** (scale - 1), height=192 * 2 ** (scale - 1),
        evaluation=number, evaluations=evaluations[scale - 1], loss=11 / number**0.7, content=0.5,
        style=0.1, tv=0.0, fraction=fraction, seconds=9.0,
        eta_seconds=22 * (1 - fraction),
    )  # fmt: skip


def draw() -> str:
    """The view after the story, as SVG; equal calls give equal text."""
    board = Board()
    board.title = "0.1.0"
    for seconds, event in story():
        board.apply(event, NOON + seconds)
    board.folders.pop("out", None)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    for line in draw_board(board, WIDTH, HEIGHT, NOON + 70):
        line.spans = [span for span in line.spans if not getattr(span.style, "link", None)]
        console.print(line)
    svg = console.export_svg(title="stylewatch run", unique_id="console")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # nothing is fetched


if __name__ == "__main__":
    TARGET.write_text(draw(), encoding="utf-8")
