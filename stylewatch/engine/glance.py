"""A photo's file, read only briefly; errors of its disk are kept apart from those of the photo.

Whoever may drop files may make one of millions of parts that say nothing, and the daemon does
nothing else while it looks at one.
"""

import errno
import io
import time
from typing import Any, BinaryIO

SECONDS = 1.0  # of the processor, as a slow disk is no fault: the largest photo takes 0.2


class EndlessError(ValueError):
    """The file has more parts than anyone would go through."""


class Glanced(io.RawIOBase):
    """A file that raises an error when it has been read for too long.

    It remembers the error of reading it, which decoders take for a damaged photo.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self.error: OSError | None = None
        self._file = file
        self._until = time.thread_time() + SECONDS

    def readable(self) -> bool:
        """As any file."""
        return True

    def seekable(self) -> bool:
        """As any file here."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; a ValueError where no file has one."""
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            if error.errno == errno.EINVAL:  # no failure: the photo names a place outside of files
                raise ValueError(str(error)) from None
            self.error = error
            raise

    def readinto(self, buffer: Any) -> int:
        """Read on; an EndlessError when that has taken too long."""
        if time.thread_time() > self._until:
            raise EndlessError("it has too many parts")
        try:
            data = self._file.read(len(buffer))
        except OSError as error:
            self.error = error
            raise
        buffer[: len(data)] = data
        return len(data)
