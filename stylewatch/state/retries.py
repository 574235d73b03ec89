"""What becomes of a job that failed: tried again and when, blocked, or set aside for a person.

A pure function of the failure and of what came before. Knows nothing of clocks or the ledger.
"""

from dataclasses import dataclass
from random import Random

from stylewatch.domain import FailureKind, JobState

FIRST_PAUSE = 5.0  # seconds; doubled with every further failure
LONGEST_PAUSE = 900.0
RESOURCE_PAUSE = 30.0  # a full disk is looked at so often
PERMISSION_PAUSE = 3600.0
PERMISSION_TRIES = 3
MOST_CRASHES = 2
HARMLESS_INTERRUPTIONS = 2  # in a row: somebody restarted us
MOST_INTERRUPTIONS = 10

_COUNTED = {FailureKind.RENDER, FailureKind.CRASH, FailureKind.TIMEOUT}


@dataclass(frozen=True)
class Verdict:
    """What the ledger writes down."""

    state: JobState
    pause: float = 0.0
    """Seconds until it may be tried again."""
    counted: bool = False
    """Whether the failure is held against the photo."""


def after_interruption(times: int, rng: Random) -> Verdict:
    """The verdict when the daemon itself ended in the middle of a job, `times` times in a row.

    That is not held against the photo. But if it is the photo that ends the daemon, the others
    must get their turn.
    """
    if times <= HARMLESS_INTERRUPTIONS:
        return Verdict(JobState.READY)
    if times < MOST_INTERRUPTIONS:
        return Verdict(JobState.RETRY_WAIT, _backoff(times - HARMLESS_INTERRUPTIONS, rng))
    return Verdict(JobState.QUARANTINED)


def judge(
    kind: FailureKind, *, failures: int, crashes: int, tries: int, max_attempts: int, rng: Random
) -> Verdict:
    """The verdict on a failure.

    `failures` and `crashes` were held against the photo before this one; `tries` are the failures
    with the same reason in a row before this one. Pauses are random, from nothing to the full
    length, so that a whole folder does not come back at once.
    """
    if kind in _COUNTED:
        crashed = kind is FailureKind.CRASH and crashes + 1 >= MOST_CRASHES
        if crashed or failures + 1 >= max_attempts:
            return Verdict(JobState.QUARANTINED, counted=True)
        return Verdict(JobState.RETRY_WAIT, _backoff(failures, rng), counted=True)
    match kind:
        case FailureKind.BAD_INPUT:
            return Verdict(JobState.QUARANTINED)
        case FailureKind.TRANSIENT:
            return Verdict(JobState.RETRY_WAIT, _backoff(tries, rng))
        case FailureKind.RESOURCE:
            return Verdict(JobState.BLOCKED, RESOURCE_PAUSE)
        case FailureKind.PERMISSION:
            if tries + 1 >= PERMISSION_TRIES:
                return Verdict(JobState.QUARANTINED)
            return Verdict(JobState.BLOCKED, PERMISSION_PAUSE)
        case FailureKind.CHANGED:
            return Verdict(JobState.SUPERSEDED)
        case _:
            return Verdict(JobState.READY)


def _backoff(before: int, rng: Random) -> float:
    return rng.uniform(0.0, 1.0) * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(before, 20))
