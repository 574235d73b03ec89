"""One daemon per state directory and per watched folder; the kernel frees the locks on death."""

import contextlib
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from stylewatch.errors import LedgerError, LockedError

_ITS_OWN = "give this one its own state_dir (`watch`: --state DIR)"


class Locks:
    """Exclusive advisory locks, held until `release`; nothing is left in the locked folders."""

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}
        self._state = Path()

    def hold_state(self, state_dir: Path) -> None:
        """Lock the state directory; the lock file tells who holds it.

        Raises:
            LockedError: another daemon has it.
            LedgerError: it can't be written, or not be locked.
        """
        path = state_dir / "lock"
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise LedgerError(
                f"{state_dir} can't be written: {error.strerror}",
                remedy=f"Check the disk and its permissions, or {_ITS_OWN}",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise LockedError(
                f"Another stylewatch{f' (process {holder})' if holder else ''} uses {state_dir}",
                remedy=f"Stop it, or {_ITS_OWN}",
            ) from error
        except OSError as error:  # a share without locks
            os.close(descriptor)
            raise LedgerError(
                f"{state_dir} can't be locked: {error.strerror}",
                remedy="Set state_dir to a folder on a disk of this machine",
            ) from error
        with contextlib.suppress(OSError):  # a full disk: who holds it is only for people
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        self._held[path], self._state = descriptor, path

    def hold_folder(self, folder: Path) -> None:
        """Lock a watched folder, also when another has taken its place; a missing one is skipped.

        Raises:
            LockedError: another daemon watches it.
        """
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return
        held = self._held.get(folder)
        if held is not None:
            if _is_same(held, descriptor):
                os.close(descriptor)
                return
            os.close(self._held.pop(folder))
        for mine in self._held.values():
            if _is_same(mine, descriptor):  # under another name: one lock for both
                os.close(descriptor)
                descriptor = os.dup(mine)
                break
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise LockedError(
                f"Another stylewatch watches {folder}",
                remedy="Stop it, or take the folder out of one of the two configs",
            ) from error
        except OSError:  # a share without locks: the state directory's has to do
            os.close(descriptor)
            return
        self._held[folder] = descriptor

    def keep_folders(self, folders: Iterable[Path]) -> None:
        """Let go of all other folders."""
        folders = set(folders)
        for folder in set(self._held) - {*folders, self._state}:
            os.close(self._held.pop(folder))

    def release(self) -> None:
        """Let go of all."""
        for descriptor in self._held.values():
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._held.clear()


def _is_same(one: int, other: int) -> bool:
    """Whether both are open on one folder; whose disk or share has died is no folder any more."""
    try:
        return os.path.sameopenfile(one, other)
    except OSError:
        return False
