"""The console: a live view on a terminal, plain lines elsewhere, both driven by events alone.

`Screen` writes only the lines that changed; `LiveConsole` folds events into a board, draws it in a
thread of its own and listens to keys. Knows nothing of the daemon or of how pictures are read.
"""

import os
import queue
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TextIO

from rich.console import Console
from rich.segment import Segment, Segments
from rich.text import Text

from stylewatch.board import Board, ResultRow
from stylewatch.domain import Event
from stylewatch.lines import Lines, LogFormat, is_journal, visible
from stylewatch.view import Pictures, Pixels, draw_board, picture_room

Thumbnail = Callable[[Path, int, int], Pixels]
"""(file, width, height) -> pixels, no larger than that. Handed in: a picture is opened only when
it is shown."""
Sink = Callable[[Event], None]

FRAME_SECONDS: Final = 0.25
"""Four frames a second are live enough to watch, calm enough to leave open."""
IDLE_SECONDS: Final = 5.0
"""How often a view in which nothing happens is drawn again, for its clocks."""

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[2J", "\x1b[?25h\x1b[?1049l"
BEGIN_FRAME, END_FRAME = "\x1b[?2026h", "\x1b[?2026l"  # terminals that can, show a frame at once


def is_live(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the stream is a terminal that can show a view."""
    try:
        return stream.isatty() and environ.get("TERM", "dumb") not in {"", "dumb", "unknown"}
    except ValueError:  # closed
        return False


def open_console(
    *,
    log_format: LogFormat = "text",
    stream: TextIO | None = None,
    on_quit: Callable[[], None] = lambda: None,
    on_pause: Callable[[bool], None] = lambda _paused: None,
    chatter: Path | None = None,
    thumbnail: Thumbnail | None = None,
    environ: Mapping[str, str] = os.environ,
) -> AbstractContextManager[Sink]:
    """The right sink for where we run: a live view on a terminal, otherwise one line per event."""
    stream = stream or sys.stderr
    if log_format == "text" and is_live(stream, environ):
        return LiveConsole(on_quit=on_quit, on_pause=on_pause, chatter=chatter, thumbnail=thumbnail)
    return nullcontext(Lines(stream, log_format=log_format, journal=is_journal(stream, environ)))


class Screen:
    """A terminal's whole screen, of which only what changed is written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console = Console(file=stream, force_terminal=True, highlight=False)
        self._shown: list[list[Segment]] = []
        self._size = (0, 0)

    @property
    def in_colour(self) -> bool:
        """Whether pictures can be shown."""
        return self._console.color_system in {"256", "truecolor"} and not self._console.no_color

    def size(self) -> tuple[int, int]:
        """Columns and rows, at least as many as a view needs to make sense."""
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            columns, rows = 80, 24
        return max(columns, 20), max(rows, 6)

    def enter(self) -> None:
        """Take the terminal's alternate screen."""
        self._write(ENTER)

    def leave(self) -> None:
        """Give the terminal back as it was."""
        self._write(LEAVE)

    def draw(self, lines: Sequence[Text]) -> None:
        """Show the lines; a line that is already there costs nothing."""
        size = self.size()
        if size != self._size:
            self._size, self._shown = size, []
        options = self._console.options.update(width=size[0], no_wrap=True, overflow="crop")
        wanted = [self._console.render_lines(line, options, pad=True)[0] for line in lines]
        changed = [
            f"\x1b[{row};1H{self._encoded(line)}"
            for row, line in enumerate(wanted, start=1)
            if self._shown[row - 1 : row] != [line]
        ]
        if changed:
            clear = "" if self._shown else "\x1b[2J"
            self._write(BEGIN_FRAME + clear + "".join(changed) + END_FRAME)
        self._shown = wanted

    def _encoded(self, line: list[Segment]) -> str:
        with self._console.capture() as capture:
            self._console.print(Segments(line), end="", soft_wrap=True)
        return capture.get()

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # the terminal went away: work goes on
            self._stream.write(text)
            self._stream.flush()


class LiveConsole:
    """The live view, while it is entered; called with each event."""

    def __init__(
        self,
        *,
        on_quit: Callable[[], None],
        on_pause: Callable[[bool], None],
        chatter: Path | None = None,
        thumbnail: Thumbnail | None = None,
    ) -> None:
        self.board = Board()
        self._on_key: dict[str, Callable[[], None]] = {
            "q": on_quit,
            "p": lambda: on_pause(not self.board.paused),
        }
        self._chatter = chatter
        self._thumbnail = thumbnail
        self._pictures: tuple[tuple[ResultRow, int, int], Pictures | None] | None = None
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        self._terminal: TextIO | None = None

    def __call__(self, event: Event) -> None:
        """Take an event, from any thread; it shows within a frame."""
        if self._thread.is_alive():
            self._events.put(event)
        elif self._terminal is not None:  # the view broke down, the work did not
            Lines(self._terminal)(event)

    def __enter__(self) -> Self:
        """Take the terminal; until exit, whatever else is written to stderr goes to a file."""
        self._terminal = _take_stderr(self._chatter)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the terminal back and say in a few lines how it went."""
        self._ended.set()
        self._thread.join(timeout=2.0)
        if self._terminal is not None:
            _give_stderr_back(self._terminal)
        self._take_events()
        for line in farewell(self.board):
            print(line, file=sys.stderr)  # noqa: T201

    def _run(self) -> None:
        assert self._terminal is not None
        screen = Screen(self._terminal)
        screen.enter()
        try:
            with _single_keys() as keys:
                self._loop(screen, keys)
        finally:
            screen.leave()

    def _loop(self, screen: Screen, keys: int | None) -> None:
        drawn, size = 0.0, (0, 0)
        while not self._ended.is_set():
            news = self._take_events() or screen.size() != size
            now = time.time()
            if news or now - drawn >= (1.0 if self.board.jobs else IDLE_SECONDS):
                size = screen.size()
                screen.draw(draw_board(self.board, *size, now, self._latest_pictures(screen)))
                drawn = now
            for key in _pressed(keys, FRAME_SECONDS):
                self._on_key.get(key, _nothing)()

    def _take_events(self) -> bool:
        taken = False
        with suppress(queue.Empty):
            while True:
                self.board.apply(self._events.get_nowait(), time.time())
                taken = True
        return taken

    def _latest_pictures(self, screen: Screen) -> Pictures | None:
        """The newest result beside its photo, read once; None where it can't be shown."""
        if self._thumbnail is None or not screen.in_colour or not self.board.results:
            return None
        row = self.board.results[0]
        key = (row, *picture_room(*screen.size()))
        if self._pictures is None or self._pictures[0] != key:
            self._pictures = (key, _read_pictures(self._thumbnail, *key))
        return self._pictures[1]


def _read_pictures(
    thumbnail: Thumbnail, row: ResultRow, columns: int, rows: int
) -> Pictures | None:
    if rows < 4:
        return None
    try:
        photo, painting = (
            thumbnail(Path(path), columns, rows * 2) for path in (row.source, row.output)
        )
    except Exception:  # noqa: BLE001  (moved or deleted by now: the view goes on without)
        return None
    return photo, painting


def _nothing() -> None:
    pass


def farewell(board: Board) -> list[str]:
    """What remains on the terminal when the view is gone."""
    words = [f"{board.done} done"]
    if board.failed:
        words.append(f"{board.failed} failed")
    if board.waiting + len(board.jobs):
        words.append(f"{board.waiting + len(board.jobs)} left for the next start")
    problems = [row for row in board.problems if row.kind == "failed"][:5]
    return [
        *(visible(row.message) for row in reversed(problems)),
        f"stylewatch: {', '.join(words)}",
    ]


def _take_stderr(chatter: Path | None) -> TextIO:
    """The terminal for us alone; from now on descriptor 2 leads to the file `chatter`.

    Libraries and crashing workers write to stderr as they like, which would tear the view.
    """
    sys.stderr.flush()
    terminal = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
    target = os.open(
        chatter or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600
    )
    os.dup2(target, 2)
    os.close(target)
    return terminal


def _give_stderr_back(terminal: TextIO) -> None:
    with suppress(OSError, ValueError):
        sys.stderr.flush()
        os.dup2(terminal.fileno(), 2)
        terminal.close()


@contextmanager
def _single_keys() -> Iterator[int | None]:
    """Standard input giving each key at once, without echo; None where it is no terminal."""
    try:
        keys = sys.stdin.fileno()
        before = termios.tcgetattr(keys)
    except (OSError, ValueError, AttributeError, termios.error):
        yield None
        return
    tty.setcbreak(keys, termios.TCSANOW)
    try:
        yield keys
    finally:
        termios.tcsetattr(keys, termios.TCSANOW, before)


def _pressed(keys: int | None, seconds: float) -> str:
    """The keys that are pressed within that time; returns at the first."""
    if keys is None:
        time.sleep(seconds)
        return ""
    try:
        ready, _, _ = select.select([keys], [], [], seconds)
        return os.read(keys, 64).decode("ascii", "ignore") if ready else ""
    except OSError:  # the terminal went away
        time.sleep(seconds)
        return ""
