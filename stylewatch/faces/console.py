"""The console: a live view on a terminal, plain lines elsewhere, both driven by events alone.

`LiveConsole` puts events onto a board, draws it in a thread of its own and listens to keys;
`open_bars` is for commands that paint and end. Knows nothing of the daemon.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self, TextIO

from rich.console import Console, ConsoleDimensions
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

from stylewatch.domain import Event
from stylewatch.faces.board import Board, ResultRow
from stylewatch.faces.lines import (
    Lines,
    LogFormat,
    is_journal,
    loss_text,
    time_left,
    visible,
    wrapped,
)
from stylewatch.faces.terminal import (
    Screen,
    cursor_back,
    is_live,
    pressed,
    restore_terminal,
    single_keys,
    size_of,
    stderr_for_us,
    taken_away,
    when_unheard,
)
from stylewatch.faces.view import draw_board, draw_pictures, picture_room

Sink = Callable[[Event], None]

FRAME_SECONDS: Final = 0.25
"""Four frames a second are live enough to watch, calm enough to leave open."""
FRAME_EVENTS: Final = 1000
"""Events put onto the board between two frames at most."""
MOST_EVENTS: Final = 10 * FRAME_EVENTS
"""With so many events unread the view probably hangs: it gets no more of progress."""
ALL_FIGURES: Final = 100
"""With so many columns a bar has room for more than the time left."""
IDLE_SECONDS: Final = 5.0
"""How often the view is drawn though nothing happens, for its clocks."""


@contextmanager
def open_console(
    *,
    log_format: LogFormat = "text",
    title: str = "",
    attached: bool = False,
    on_quit: Callable[[], None] = lambda: None,
    on_pause: Callable[[bool], None] = lambda _paused: None,
    chatter: Path | None = None,
) -> Iterator[Sink]:
    """The sink for events that suits where we run: a live view on a terminal, else lines.

    Meanwhile stderr is ours alone; what libraries write there goes to the file `chatter`. With
    `attached` the daemon is another process, which goes on: so the view ends without a word.
    """
    with stderr_for_us(chatter) as stream:
        if log_format == "json" or not is_live(stream, os.environ):
            if attached:  # a daemon works on unheard
                when_unheard(stream, on_quit)
            yield Lines(stream, log_format=log_format, journal=is_journal(stream, os.environ))
            return
        live = LiveConsole(stream, on_quit=on_quit, on_pause=on_pause)
        live.board.title, live.board.attached = title, attached
        with live:
            yield live
        if live.ended:
            with suppress(OSError):  # the terminal was closed
                columns = size_of(stream)[0]
                for line in () if attached else farewell(live.board):
                    stream.writelines(f"{part}\n" for part in wrapped(line, columns))
                stream.flush()


class LiveConsole:
    """The live view, while it is entered; called with each event."""

    def __init__(
        self, terminal: TextIO, *, on_quit: Callable[[], None], on_pause: Callable[[bool], None]
    ) -> None:
        self.board = Board()
        self._terminal = terminal
        self._lines = Lines(terminal)
        self._on_key: dict[str, Callable[[], None]] = {
            "q": on_quit,
            "p": lambda: on_pause(not self.board.paused),
        }
        self._pictures: tuple[tuple[ResultRow, int, int], list[Text]] | None = None
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)

    def __call__(self, event: Event) -> None:
        """Take an event, from any thread; it shows within a frame."""
        if self._thread.is_alive():
            if event.kind != "progress" or self._events.qsize() < MOST_EVENTS:  # it may hang
                self._events.put(event)
        else:  # the view broke down, the work did not
            self._lines(event)

    def __enter__(self) -> Self:
        """Take the terminal's screen."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the screen back."""
        self._ended.set()
        self._thread.join(timeout=2.0)
        if not self.ended:  # it waits for a picture, or for a terminal that has stopped
            undo = threading.Thread(target=restore_terminal, name="restore", daemon=True)
            undo.start()
            undo.join(timeout=2.0)
        while self._take_events():
            pass

    @property
    def ended(self) -> bool:
        """Whether the view has given the terminal back."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        screen = Screen(self._terminal)
        while not self._ended.is_set():
            screen.enter()
            try:
                with single_keys() as keys:
                    self._loop(screen, keys)
            finally:
                screen.leave()

    def _loop(self, screen: Screen, keys: int | None) -> None:
        """Show the board until the end, or until the terminal has to be taken anew."""
        drawn, size, news = 0.0, (0, 0), self._take_events()
        while not self._ended.is_set():
            news = news or screen.size() != size
            now = time.time()
            if news or now - drawn >= (1.0 if self.board.jobs else IDLE_SECONDS):
                size = screen.size()
                pictures = self._latest_pictures(screen)
                lines = draw_board(self.board, *size, now, pictures, keys=keys is not None)
                screen.draw(lines)
                drawn = now
            heard = pressed(keys, FRAME_SECONDS)
            news = self._take_events()  # then a key goes by what is so when it is pressed
            self._obey(heard)
            if taken_away(keys):
                return

    def _obey(self, heard: str) -> None:
        """Do what the keys ask for; text is none, such as the path of a photo dropped here."""
        if all(key in self._on_key or not key.isprintable() for key in heard):
            for key in dict.fromkeys(heard):  # pressed twice, before anything could come of it
                self._on_key.get(key, lambda: None)()

    def _take_events(self) -> bool:
        taken = False
        with suppress(queue.Empty):
            for _ in range(FRAME_EVENTS):  # then it is drawn, and keys are heard
                self.board.apply(self._events.get_nowait(), time.time())
                taken = True
        return taken

    def _latest_pictures(self, screen: Screen) -> list[Text]:
        """The newest result beside its photo, read once; nothing where it can't be shown."""
        if not screen.in_colour or not self.board.results:
            return []
        row = self.board.results[0]
        key = (row, *picture_room(*screen.size()))
        if self._pictures is None or self._pictures[0] != key:
            self._pictures = (key, _read_pictures(*key))
        return self._pictures[1]


def _read_pictures(row: ResultRow, columns: int, rows: int) -> list[Text]:
    if rows < 4:
        return []
    from stylewatch.faces.preview import thumbnail  # noqa: PLC0415  (Pillow, where one is shown)

    try:
        photo, painting = (
            thumbnail(Path(path), columns, rows * 2) for path in (row.source, row.output)
        )
    except Exception:  # noqa: BLE001  (moved or deleted by now: the view goes on without)
        return []
    return draw_pictures(photo, painting)


def farewell(board: Board) -> list[str]:
    """The lines that remain on the terminal when the view has ended."""
    failed, left = board.failed, board.waiting + board.total("arriving") + len(board.jobs)
    words = f"{board.done} done"
    if failed:
        words += f", {len(failed)} failed"
    if board.since is not None:  # those of other sessions are told by `status`
        words += f" since {time.strftime('%H:%M', time.localtime(board.since))}"
    if left:
        words += f", {left} left for the next start"
    more = [f"{len(failed) - 5} more: `stylewatch jobs --failed`\n"] if len(failed) > 5 else []
    return [
        *(f"failed: {visible(board.told(row))}\n" for row in failed[-5:]),
        *more,
        f"stylewatch: {words}\n",
    ]


@contextmanager
def open_bars(*, log_format: LogFormat = "text", chatter: Path | None = None) -> Iterator[Sink]:
    """A sink for a command that paints and ends: a bar per picture, or lines without a terminal."""
    with stderr_for_us(chatter) as stream:
        if log_format == "json" or not is_live(stream, os.environ):
            yield Lines(stream, log_format=log_format)
            return
        console = OnItsTerminal(file=stream, force_terminal=True, highlight=False)
        bars = Progress(
            *_columns(console.width),
            console=console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,  # what libraries say would be shown above the bars
            redirect_stderr=False,
        )
        with cursor_back(stream), bars:
            yield _Bars(bars)


def _columns(width: int) -> Iterator[ProgressColumn]:
    """A bar's parts; a long name leaves room for the others."""
    name = Column(no_wrap=True, max_width=width // 2)
    yield TextColumn("{task.description}", markup=False, table_column=name)
    yield BarColumn(bar_width=24)
    yield TaskProgressColumn(table_column=Column(no_wrap=True))
    figures = Column(no_wrap=True)
    yield TextColumn("{task.fields[figures]}", markup=False, style="dim", table_column=figures)


class OnItsTerminal(Console):
    """A console as wide as the terminal it writes to; rich's own asks the standard streams."""

    @property  # type: ignore[misc]
    def size(self) -> ConsoleDimensions:
        """Of that terminal, as it is now."""
        return ConsoleDimensions(*size_of(self.file))


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[int, TaskID] = {}

    def __call__(self, event: Event) -> None:
        if event.kind == "running":
            place = event.extra.get("place", "")
            name = visible(f"{place} {Path(event.path).name} → {event.preset}".removeprefix(" "))
            task = self._progress.add_task(name, total=1.0, figures="getting ready")
            self._tasks[event.job_id] = task
        elif event.kind == "progress" and event.step:
            step, figures = event.step, time_left(event.step)
            if self._progress.console.width >= ALL_FIGURES:
                far = f"{step.evaluation}/{step.evaluations}"
                words = [f"scale {step.scale}/{step.scales}", far, loss_text(step), figures]
                figures = "  ".join(filter(None, words))
            task = self._tasks[event.job_id]
            self._progress.update(task, completed=step.fraction, figures=figures)
        elif event.kind in {"done", "failed"}:
            self._progress.remove_task(self._tasks.pop(event.job_id))
            self._progress.refresh()  # else its bar is drawn once more, below this line
            mark = ("✓ ", "green") if event.kind == "done" else ("✗ ", "red")
            self._progress.console.print(Text.assemble(mark, visible(event.message)))
