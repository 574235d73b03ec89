"""The terminal as we use it: its size, its screen, its keys, its signals, stderr for ourselves.

Knows nothing of events or of what is shown.
"""

import io
import os
import re
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment, Segments
from rich.text import Text

# `?7l`: a line that is too long does not go on in the next one. Terminals don't agree on how wide
# emoji, flags and the signs of many scripts are.
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J", "\x1b[?7h\x1b[?25h\x1b[?1049l"
BEGIN_FRAME, END_FRAME = "\x1b[?2026h", "\x1b[?2026l"  # terminals that can, show a frame at once

GAP: Final = re.compile(r"(?<=  )(?! )")
"""The end of a gap, which is wider than a space between words."""

CHATTER: Final = "chatter.log"
"""In the state directory: what libraries and workers said."""
CHATTER_BYTES: Final = 1_000_000

_UNDO: list[Callable[[], None]] = []


def restore_terminal() -> None:
    """Undo at once what is still changed: for an end without a proper end."""
    for undo in reversed(_UNDO.copy()):
        with suppress(OSError, ValueError, termios.error):
            undo()


@contextmanager
def cursor_back(stream: TextIO) -> Iterator[None]:
    """Within it `restore_terminal` shows the cursor, which is hidden while bars are drawn."""

    def undo() -> None:
        os.write(stream.fileno(), b"\x1b[?25h")  # we may be amid the stream's own writing

    _UNDO.append(undo)
    try:
        yield
    finally:
        _UNDO.remove(undo)


@contextmanager
def on_signals(
    first: Callable[[], None], hang_up: Callable[[], None] | None = None
) -> Iterator[None]:
    """Within it the first SIGINT or SIGTERM calls `first`; a second one ends us at once."""
    asked: list[int] = []

    def end(number: int, _frame: object) -> None:
        asked.append(number)
        if len(asked) > 1:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(2)  # the terminal may take nothing any more
            restore_terminal()
            os._exit(128 + number)
        first()

    handlers: dict[int, Callable[[int, object], None]] = {signal.SIGINT: end, signal.SIGTERM: end}
    if hang_up is not None:
        handlers[signal.SIGHUP] = lambda _number, _frame: hang_up()
    before = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if signal.getsignal(number) != signal.SIG_IGN  # nohup, a job in the background
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def has_terminal() -> bool:
    """Whether there is a terminal whose end would be ours: none has a service, or who lost it."""
    try:
        os.close(os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def is_live(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the stream is a terminal that can show a view, and we are in its foreground."""
    try:
        able = stream.isatty() and environ.get("TERM", "dumb") not in {"", "dumb", "unknown"}
        return able and _in_foreground(stream.fileno())
    except ValueError:  # closed
        return False


def _in_foreground(terminal: int) -> bool:
    """Whether we may use the terminal: a job in the background (`run &`) would be stopped."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:  # it is no terminal that has jobs
        return True


def when_unheard(stream: TextIO, then: Callable[[], None]) -> None:
    """Call `then`, in a thread of its own, when nobody reads the stream any more: `… | head`."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)  # the end of a pipe or a terminal is told unasked

    def wait() -> None:
        poll.poll()
        then()

    threading.Thread(target=wait, name="unheard", daemon=True).start()


def size_of(stream: IO[str]) -> tuple[int, int]:
    """Columns and rows of the terminal behind a stream, at least as many as make sense."""
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns, rows = 80, 24
    return max(columns or 80, 20), max(rows or 24, 6)  # a serial line tells 0


class Screen:
    """A terminal's whole screen, of which only what changed is written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        # It only turns text into escape sequences; we write them ourselves.
        self._console = Console(file=io.StringIO(), force_terminal=True, highlight=False)
        self._shown: list[Text] = []
        self._size = (0, 0)

    @property
    def in_colour(self) -> bool:
        """Whether pictures can be shown."""
        return self._console.color_system in {"256", "truecolor"} and not self._console.no_color

    def size(self) -> tuple[int, int]:
        """Columns and rows, at least as many as a view needs to make sense."""
        return size_of(self._stream)

    def enter(self) -> None:
        """Take the terminal's alternate screen, on which nothing is shown yet."""
        self._shown = []
        _UNDO.append(self.leave)
        self._write(ENTER)

    def leave(self) -> None:
        """Give the terminal back as it was."""
        _UNDO.remove(self.leave)
        self._write(LEAVE)

    def draw(self, lines: Sequence[Text]) -> None:
        """Show the lines; a line that is already there costs nothing."""
        size = self.size()
        if size != self._size:
            self._size, self._shown = size, []
        changed = [
            f"\x1b[{row};1H\x1b[K{self._encoded(line)}"
            for row, line in enumerate(lines, start=1)
            if self._shown[row - 1 : row] != [line]  # rich compares no line's own style
        ]
        if changed:
            clear = "" if self._shown else "\x1b[2J"
            self._write(BEGIN_FRAME + clear + "".join(changed) + END_FRAME)
        self._shown = list(lines)

    def _encoded(self, line: Text) -> str:
        width = self._size[0]
        options = self._console.options.update(width=width, no_wrap=True, overflow="crop")
        segments = self._console.render_lines(line, options, pad=True)[0]
        with self._console.capture() as capture:
            self._console.print(Segments(_in_columns(segments)), end="", soft_wrap=True)
        return capture.get()

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # the terminal went away: work goes on
            self._stream.write(text)
            self._stream.flush()


def _in_columns(segments: Iterable[Segment]) -> Iterator[Segment]:
    """The segments, what follows a gap where we mean it to be, however wide all before came out."""
    column, is_plain = 0, True
    for segment in segments:
        for text in GAP.split(segment.text):
            yield Segment(text, segment.style)
            column += cell_len(text)
            is_plain = is_plain and text.isascii()
            if not is_plain and text.endswith(" "):
                yield Segment(f"\x1b[{column + 1}G")
                is_plain = True


@contextmanager
def stderr_for_us(chatter: Path | None) -> Iterator[TextIO]:
    """The terminal behind stderr; meanwhile whatever else writes there goes to the file `chatter`.

    Libraries and crashing workers write to stderr as they like, which would tear the view.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    terminal = os.fdopen(
        kept, "w", encoding=sys.stderr.encoding, errors="backslashreplace", closefd=False
    )
    target = _open_chatter(chatter)
    os.dup2(target, 2)
    os.close(target)
    try:
        yield terminal
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os.dup2(kept, 2)
        with suppress(OSError):  # the terminal may be gone: that is no reason to fail
            terminal.close()
        os.close(kept)


def _open_chatter(chatter: Path | None) -> int:
    """A descriptor for what others write to stderr: a file that is kept small, or nowhere."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    try:
        descriptor = os.open(chatter or os.devnull, flags, 0o600)
    except OSError:
        return os.open(os.devnull, flags)
    if chatter and os.fstat(descriptor).st_size > CHATTER_BYTES:
        os.ftruncate(descriptor, 0)
    return descriptor


@contextmanager
def single_keys() -> Iterator[int | None]:
    r"""Standard input giving each key at once, without echo; None where it is no terminal.

    Ctrl-Z and Ctrl-\ are keys like others: a daemon that stands still by accident paints nothing
    overnight, and one that is killed by the second would leave us its screen.
    """
    try:
        keys = sys.stdin.fileno()
        before = termios.tcgetattr(keys)
    except (OSError, ValueError, AttributeError, termios.error):
        yield None
        return
    if not _in_foreground(keys):
        yield None
        return

    def undo() -> None:
        termios.tcsetattr(keys, termios.TCSANOW, before)

    _UNDO.append(undo)
    with suppress(termios.error):  # the terminal may be closed at any time
        tty.setcbreak(keys, termios.TCSANOW)
        now = termios.tcgetattr(keys)
        now[0] &= ~termios.IXON  # Ctrl-S would stop the view, and with it whoever tells it
        now[6][termios.VSUSP] = now[6][termios.VQUIT] = b"\0"
        termios.tcsetattr(keys, termios.TCSANOW, now)
    try:
        yield keys
    finally:
        _UNDO.remove(undo)
        with suppress(termios.error):
            undo()


def taken_away(keys: int | None) -> bool:
    """Whether somebody else has had the terminal since, as the shell has while we are stopped."""
    if keys is None:
        return False
    try:
        return bool(termios.tcgetattr(keys)[3] & termios.ECHO) and _in_foreground(keys)
    except termios.error:  # it is closed
        return False


def pressed(keys: int | None, seconds: float) -> str:
    """The keys that are pressed within so many seconds; returns as soon as there are some."""
    with suppress(OSError):  # the terminal went away
        if keys is not None:
            ready, _, _ = select.select([keys], [], [], seconds)
            if not ready:
                return ""
            if heard := os.read(keys, 4096):  # a path that is dropped here comes as a whole
                return heard.decode("ascii", "replace")
    time.sleep(seconds)  # of a terminal that hung up there is always something to read: nothing
    return ""
