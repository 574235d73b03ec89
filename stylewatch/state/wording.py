"""What people are told of states, notes and reasons, and what they can do.

Knows nothing of where the ledger keeps them.
"""

import re
from collections.abc import Mapping
from typing import Final

from stylewatch.domain import JobState

NO_PRESET = "no-preset"
"""The note of a file that no rule and no folder gave a preset."""
BROKEN_PRESET = "preset"
"""The note of a file whose preset can't be used now: it is held, as a job is for this reason."""
TOO_LARGE = "too-large"
"""The note of a file with more bytes than the config lets in."""
ENDED_US = "crash"
"""The note of a file that ended the daemon whenever it looked at it."""
UNFORESEEN = "error"
"""The reason of a failure that is an exception of Python's or of a library's, in its own words."""
CANCELLED = "cancelled"
"""The reason of a job that somebody has set aside until it is asked for, or its photo changes."""
NO_PHOTO = "no-photo"
"""The note of a file that is no photo, by its name, or by its name and its first bytes."""

IGNORED: Final[Mapping[str, str]] = {
    "symlink": "it is a link. Put what it points to there",
    "fifo": "it is a named pipe",
    "socket": "it is a socket",
    "device": "it is a device",
    "raw": "it is a RAW file, which is not read. Export it as JPEG",
    NO_PHOTO: "it is no photo",
}
"""The notes of files that are no photos, and what people are told."""
NOTES: Final[Mapping[str, str]] = {
    **IGNORED,
    BROKEN_PRESET: "its preset can't be used now. `stylewatch status` tells why, and `stylewatch "
    "presets check` with its name",
    TOO_LARGE: "it has more bytes than `max_bytes` lets in",
    ENDED_US: "stylewatch crashed twice on reading its header. Save it again, or as JPEG, or "
    "`touch` it",
}
"""What people are told of a file that has no job, by its note; of unfinished ones see `LACKS`."""

WAITING: Final = (JobState.READY, JobState.RETRY_WAIT, JobState.BLOCKED)
PAINTING: Final = (JobState.RUNNING, JobState.PUBLISHING)
WORDS: Final[Mapping[JobState, str]] = {
    **dict.fromkeys(WAITING, "waiting"),
    **dict.fromkeys(PAINTING, "painting"),
    JobState.DONE: "done",
    JobState.QUARANTINED: "failed",
    JobState.HELD: "held",
    JobState.SUPERSEDED: "replaced",
    JobState.VANISHED: "gone",
}
"""What people are told of a state."""

HELD: Final[Mapping[str, str]] = {
    "folder": "its folder is not watched now",
    BROKEN_PRESET: NOTES[BROKEN_PRESET],
    CANCELLED: "cancelled; `stylewatch retry` with its number brings it back",
}
"""What people are told of a job that is held, by its reason."""
LACKED: Final = frozenset({"folder", BROKEN_PRESET})
"""The reasons of jobs that are held until the config has what they lack, whoever retries them."""
_AGAIN = "Copy it again from its source"
_OTHER_FORMAT = "Choose another `output.format`; if that does not help, report this"
REMEDIES: Final[Mapping[str, str]] = {
    "not-an-image": "Remove it, or export it as JPEG",
    "too-many-frames": "Export one of its pictures",
    "empty": _AGAIN,
    "truncated": _AGAIN,
    "writer": "Close the program that writes it",
    "unreadable": "Check its permissions",
    TOO_LARGE: "Make it smaller, or raise `limits:` in the config of `run`",
    "memory": "Lower the preset's max_side",
    "crash": "Lower the preset's max_side, or see `stylewatch doctor`",
    UNFORESEEN: "The full traceback is in `chatter.log` in the state folder, or, on a cluster, in "
    "what the `dask worker` prints",
    "encode": _OTHER_FORMAT,
    "result": _OTHER_FORMAT,
    "interrupted": "See `stylewatch doctor`, then `stylewatch retry` with its number",
    "eloop": "Put the photo itself there instead of a link",
    "enametoolong": "Give the photo, or the folder it is in, a shorter name",
    "eacces": "Check the permissions of its folders",
    "erofs": "Mount the output writable",
}
"""What to do, by reason, for failures whose message does not say it."""
_SAYS_WHAT_TO_DO = re.compile(r"\. [`A-Z]")  # a second sentence: see `StylewatchError.__str__`


def by_word(
    folder: str,
    counts: Mapping[str, Mapping[JobState, int]] | Mapping[str, Mapping[str, int]],
    failed: Mapping[str, int],
    held: Mapping[str, int],
) -> dict[str, int]:
    """How many photos of a folder wait, are painted, done, failed and held.

    `counts` are jobs; `failed` and `held` are files that have none.
    """
    jobs = counts.get(folder, {})
    return {
        "waiting": sum(jobs.get(state, 0) for state in WAITING),
        "painting": sum(jobs.get(state, 0) for state in PAINTING),
        "done": jobs.get(JobState.DONE, 0),
        "failed": jobs.get(JobState.QUARANTINED, 0) + failed.get(folder, 0),
        "held": jobs.get(JobState.HELD, 0) + held.get(folder, 0),
    }


def word_of(state: JobState, *, has_result: bool) -> str:
    """Where a job stands; the result of a superseded job may lie beside the newer one."""
    return "kept" if state is JobState.SUPERSEDED and has_result else WORDS[state]


def explained(reason: str, message: str) -> str:
    """A failure in one line that ends with what to do."""
    remedy = REMEDIES.get(reason, "")
    if not remedy or (reason != UNFORESEEN and _SAYS_WHAT_TO_DO.search(message)):
        return message
    return f"{message.rstrip('.')}. {remedy}"
