"""The last two steps: a painted picture gets its name, then its photo is kept, moved or deleted.

What can't be done now is tried again later. Knows nothing of workers and of what is painted next.
"""

import math
import time
from collections import deque
from collections.abc import Callable

from stylewatch.domain import TURN_SECONDS, After, JobState, Rendered
from stylewatch.errors import OutputError
from stylewatch.folders.scans import LONGEST_REST, REST
from stylewatch.folders.space import FULL
from stylewatch.host.publication import Publisher
from stylewatch.settings.config import Folder
from stylewatch.state.ledger import AGAIN, Ledger
from stylewatch.state.reader import Job

UNNAMED_SECONDS = 5.0  # between two attempts to give a finished picture its name
UNREADABLE_SECONDS = 600.0  # so long is waited for a picture that can't be read before it is lost
AFTER_SECONDS = 300.0  # between two attempts to move or delete a painted photo


class Delivery:
    """The pictures that have no name yet, and the photos that are still to be moved or deleted."""

    def __init__(
        self,
        ledger: Ledger,
        publisher: Publisher,
        folder_of: Callable[[Job], Folder | None],
        tell: Callable[..., None],
    ) -> None:
        """`folder_of` gives a job's folder in the present config, `tell` tells of an event."""
        self._ledger = ledger
        self._publisher = publisher
        self._folder_of = folder_of
        self._tell = tell
        self._unnamed: dict[int, tuple[float, float]] = {}  # job id → when to try again; since when
        self._after_failed: dict[int | After, float] = {}
        """When to try again: by job, or, where a folder is full, by that folder."""
        self._after_pending: deque[int] = deque()  # jobs whose photos may be due …
        self._began_find = self._next_find = -math.inf  # … and when these are looked for

    def publish(self, job_id: int, rendered: Rendered, folder: Folder, now: float) -> None:
        """Give a result its name, now or, where that fails, later.

        `folder` is its folder as it was when the job was started: it may have left the config.
        """
        try:
            job = self._publisher.publish(job_id, rendered, stays=_stays(folder))
        except OutputError as error:
            self._name_later(job_id, error, now)
        else:
            self._published(job, now)

    def complete(self, job_id: int, now: float) -> None:
        """Give a result its name whose publication was begun before, as the journal says."""
        job = self._ledger.job(job_id)
        _, since = self._unnamed.get(job_id, (now, now))
        patient = now - since < UNREADABLE_SECONDS
        try:
            if job is not None and job.state is JobState.PUBLISHING:
                stays = _stays(self._folder_of(job))
                completed = self._publisher.complete(job, stays=stays, patient=patient)
                self._published(completed, now)
        except OutputError as error:
            self._name_later(job_id, error, now)
        else:
            self._unnamed.pop(job_id, None)

    def name_again(self, now: float) -> None:
        """Try again to name pictures, each of them after a pause, for no longer than a turn."""
        until = time.monotonic() + TURN_SECONDS
        for job_id, (due, _) in list(self._unnamed.items()):  # the first to be due comes first
            if now < due or time.monotonic() >= until:
                break
            self.complete(job_id, now)

    def next_due(self) -> float:
        """When the first of these pauses ends."""
        return next((due for due, _ in self._unnamed.values()), math.inf)

    def find_after(self, now: float) -> None:
        """Find photos that may have to be moved or deleted, as after a crash.

        Those that wait for their results in other presets are found each time, and may be many.
        """
        if not self._after_pending and now >= self._next_find:
            self._began_find = now
            self._after_pending.extend(
                job_id
                for job_id in self._ledger.after_pending()
                if now >= self._after_failed.get(job_id, -math.inf)
            )

    def apply_pending_after(self, now: float) -> bool:
        """Move or delete some of the photos that were found; whether there are more."""
        until = time.monotonic() + TURN_SECONDS
        while self._after_pending and time.monotonic() < until:
            job_id = self._after_pending.popleft()
            if job := self._ledger.job(job_id):
                self._apply_after(job, now)
            if not self._after_pending and (took := now - self._began_find):
                self._next_find = now + min(REST * took, LONGEST_REST)
        return bool(self._after_pending)

    def forget_pauses(self) -> None:
        """Try everything again at once: with another config it may work."""
        self._after_failed.clear()
        self._next_find = -math.inf

    def _name_later(self, job_id: int, error: OutputError, now: float) -> None:
        """Try again later; meanwhile the picture is safe under its temporary name."""
        if job_id not in self._unnamed:
            self._tell("blocked", str(error), self._ledger.job(job_id), reason=error.reason)
        _, since = self._unnamed.pop(job_id, (now, now))
        self._unnamed[job_id] = now + UNNAMED_SECONDS, since

    def _published(self, job: Job, now: float) -> None:
        """Tell what came of a publication, and see to the photo if it went well."""
        if job.state is not JobState.DONE:
            overtaken = job.state is JobState.SUPERSEDED
            why = "it changed while it was painted" if overtaken else "its result was lost"
            reason = "changed" if overtaken else "lost"
            self._tell("retry", f"{job.path}: {why}", job, reason=reason)
            return
        message = f"{job.output} in {job.seconds:.1f} s" + (f" ({job.note})" if job.note else "")
        self._tell("done", message, job, output=str(job.output), seconds=job.seconds)
        self._apply_after(job, now)

    def _apply_after(self, job: Job, now: float) -> None:
        """Move, delete or leave the job's photo, as the config wants it, if it is time for that.

        If the photo has arrived again, results that were deleted meanwhile are painted first.
        """
        folder = self._folder_of(job)
        if folder is None or now < self._after_failed.get(folder.after, now):
            return
        if not self._ledger.after_is_due(job.id, stays=folder.stays):
            return
        intact = not folder.stays  # a result's bytes count where the photo itself goes
        came_again = (each for each in self._ledger.results_of(job) if each.reason == AGAIN)
        gone = [each for each in came_again if not self._publisher.has_result(each, intact=intact)]
        if gone:
            if self._publisher.can_publish(folder.output):
                for each in gone:
                    self._ledger.put_back(each.id)
            return
        try:
            self._publisher.apply_after(job, folder.after, folder.input)
        except OutputError as error:
            what = folder.after if error.reason == FULL else job.id
            if what not in self._after_failed:
                self._tell("warning", str(error), job, reason=error.reason)
            self._after_failed[what] = now + AFTER_SECONDS
        else:
            for what in (job.id, folder.after):
                self._after_failed.pop(what, None)


def _stays(folder: Folder | None) -> bool:
    """Whether a job's photo stays in its folder when it is painted."""
    return folder is not None and folder.stays
