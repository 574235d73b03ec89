"""In which states files are, which tell whether they have changed since they were read.

Knows nothing of what is in them.
"""

import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

State = tuple[int, int, int]
States = Mapping[Path, State]


def states_of(files: Iterable[Path]) -> dict[Path, State]:
    """The state of each of them; also a file that is not there has one."""
    return {file: _state_of(file) for file in files}


def preset_files(dirs: Iterable[Path]) -> list[Path]:
    """The folders of presets, and the files in them that may be some.

    Raises:
        OSError: a folder is closed to us for now.
    """
    return [file for folder in dirs for file in (folder, *folder.glob("*.y*ml"))]


def _state_of(file: Path) -> State:
    try:
        info = file.stat()
    except OSError:
        return (0, 0, 0)
    if stat.S_ISDIR(info.st_mode):  # its presets have states of their own
        return (info.st_ino, info.st_mode, info.st_uid)
    return (info.st_ino, info.st_size, info.st_ctime_ns)  # of new rights, too
