"""From a finished temporary file to a published result, and what happens to the photo then.

What is about to be done is written into the ledger, then done, then noted as done. Every step can
be repeated after a crash, and no order of crashes publishes twice or deletes a photo whose result
is not durable. Knows nothing of watching and rendering.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from stylewatch.domain import After, Rendered
from stylewatch.errors import OutputError
from stylewatch.failpoints import failpoint
from stylewatch.folders import contents, outputs, painted
from stylewatch.folders.space import FULL, require_room
from stylewatch.host.disks import holds_files, missing_mount, not_mounted, require_mounted
from stylewatch.host.recognition import require_same
from stylewatch.places import mount_of
from stylewatch.state.ledger import Ledger
from stylewatch.state.presence import is_missing
from stylewatch.state.reader import Job

_LATEST = 20  # results by which it is told whether all were moved


class Publisher:
    """Publishes results, and remembers in the ledger how far it came."""

    def __init__(self, ledger: Ledger, owner: str, min_free: Callable[[], int]) -> None:
        """`min_free` gives the bytes that photos which are moved to another disk leave there."""
        self._ledger = ledger
        self._min_free = min_free
        self.owner = owner
        """What ends the names of temporary files."""

    def prepare(self, output: Path, target: Path) -> None:
        """Make the folder of a result.

        Raises:
            OutputError: it can't be made, or would not lie inside the output.
            OutputFullError: its disk is away.
        """
        require_mounted(output, target, self._ledger)
        outputs.prepare(output, target)

    def can_publish(self, output: Path) -> bool:
        """Whether results can be made there now."""
        try:
            self.prepare(output, output / "any")
        except OutputError:
            return False
        return True

    def publish(self, job_id: int, rendered: Rendered, *, stays: bool) -> Job:
        """Note in the ledger that a result is to be published, then `complete` that.

        Returns the job as it is then: done, superseded, or, if the result is lost, ready again.

        Raises:
            OutputError: it can't be named now; the job stays `publishing`, to be completed later.
            OutputFullError: its disk went away while it was painted; the job is ready again.
        """
        job = self._job(job_id)
        if mount := missing_mount(job.target, self._ledger):
            with contextlib.suppress(OSError):
                rendered.temporary.unlink()
            self._ledger.put_back(job.id)
            raise not_mounted(job.target.parent, mount)
        if self._ledger.is_overtaken(job):
            with contextlib.suppress(OSError):  # swept at the next start
                rendered.temporary.unlink()
            self._ledger.supersede(job.id)
            return self._job(job.id)
        self._ledger.publishing(job.id, rendered)
        failpoint("publication.journalled")
        return self.complete(self._job(job.id), stays=stays)

    def complete(self, job: Job, *, stays: bool, patient: bool = True) -> Job:
        """Finish a publication that was begun; if its result is lost, the job is ready again.

        If photos stay in the folder (`stays`), a new result replaces the photo's older one. If they
        are moved or deleted, another photo may come under the same name, and both results are kept.

        A file that can't be read now is an error, to be tried again, as long as we are `patient`;
        then a result that can't be read counts as lost, and an older one is left where it is.

        Raises:
            OutputError: it can't be named now; the job stays `publishing`.
            OutputFullError: its disk is away, perhaps with the result; the job stays `publishing`.
        """
        if (mount := missing_mount(job.target, self._ledger)) and not holds_files(mount):
            raise not_mounted(job.target.parent, mount)
        try:
            return self._complete(job, stays=stays, patient=patient)
        except OSError as error:  # of reading and tidying; what `outputs` writes, it translates
            reason = errno.errorcode.get(error.errno or 0, "output").lower()
            raise OutputError(f"{job.target.parent}: {error.strerror}", reason=reason) from error

    def _complete(self, job: Job, *, stays: bool, patient: bool) -> Job:
        temporary = job.temporary
        assert temporary is not None, "nothing was journalled"
        former = job.output if job.output and job.output.parent == job.target.parent else None
        final = outputs.find_published(
            temporary,
            job.target,
            job.extension,
            job.sha256,
            taken=lambda path: self._ledger.is_taken(job, path, job.sha256),
            before=former,
            patient=patient,
        )
        if final is None and not _is_whole(temporary, job.sha256, patient=patient):
            self._ledger.put_back(job.id)
        else:
            if final is None:
                final = self._name(job, temporary, stays=stays, patient=patient)
            failpoint("publication.published")
            if stays:
                self._remove_earlier(job, final, patient=patient)
            self._ledger.done(job.id, final)
            failpoint("publication.done")
        return self._job(job.id)

    def _name(self, job: Job, temporary: Path, *, stays: bool, patient: bool) -> Path:
        """Give the result its name, in place of an earlier result if the photo `stays`.

        No longer `patient`, the result is put beside an earlier one that can't be read or replaced.
        """
        publish = partial(outputs.publish, temporary, job.target, job.extension)
        if stays:
            try:
                return publish(ours=partial(self._is_earlier, job))
            except OutputError:
                if patient:
                    raise
        return publish()

    def _remove_earlier(self, job: Job, final: Path, *, patient: bool) -> None:
        """Remove earlier results beside it that have another name.

        The preset's format has changed, or what was in their way is not there any more.
        """
        for earlier in self._ledger.outputs_of(job):
            same = earlier.name.casefold() == final.name.casefold()  # on a disk that ignores case
            if earlier.parent == final.parent and not same:
                try:
                    if outputs.remove_earlier(earlier, ours=partial(self._is_earlier, job)):
                        self._ledger.replaced(job, earlier)
                except OSError:  # it may never be read again: then it stays
                    if patient:
                        raise

    def _is_earlier(self, job: Job, path: Path, sha256: str) -> bool:
        """Whether a file is an earlier result for the same photo, and for no other."""
        taken = self._ledger.is_taken(job, path, sha256)
        return self._ledger.was_published(job, sha256) and not taken

    def earlier_result(self, job: Job) -> Path | None:
        """A result for the same photo and preset whose file is still as it was published."""
        for path in self._ledger.outputs_of(job):
            with contextlib.suppress(OSError):
                if self._is_earlier(job, path, contents.file_hash(path)):
                    return path
        return None

    def copy_same(self, job: Job) -> Rendered | None:
        """A copy, for this job, of the same picture made before; None when there is none."""
        for same, place in self._same_pictures(job):
            with contextlib.suppress(OSError), contents.open_regular(place) as stream:
                data = stream.read()
                if hashlib.sha256(data).hexdigest() == same.sha256:
                    break
        else:
            return None
        extension = place.suffix
        return Rendered(
            temporary=outputs.write_temporary(data, job.target, extension, job.id, self.owner),
            extension=extension,
            sha256=same.sha256,
            width=0,
            height=0,
            seconds=0.0,
            evaluations=0,
            loss=same.loss,
            facts={},
            note="the same photo and preset as before: copied",
        )

    def _same_pictures(self, job: Job) -> Iterator[tuple[Job, Path]]:
        """Results with this job's key, and where their files may lie.

        That is where each was published, or under this job's own name, as people may copy results
        along with photos.
        """
        for same in self._ledger.same_results(job):
            assert same.output is not None
            yield same, same.output
            yield same, job.target.with_name(job.target.name + same.output.suffix)

    def apply_after(self, job: Job, action: After, root: Path) -> None:
        """Move or delete a photo for which that is all that is left to do (`after_is_due`).

        That a person has deleted one of its results since does not keep the photo back.

        Raises:
            OutputError: it can't be moved or deleted now, as where its disk is `FULL`, or one of
                its results is damaged.
        """
        if action == "keep":
            self._ledger.after_done(job)
            return
        try:
            for result in self._ledger.results_of(job):
                self._require_intact(result)
            if isinstance(action, Path):
                goal = action / job.path
                require_mounted(action, goal, self._ledger)
                if mount_of(goal) != mount_of(root / job.path):  # it is to be copied
                    require_room(goal.parent, self._min_free())
            still_there = partial(self._require_still_mounted, action, job.path)
            acted = painted.apply_after(action, root, job.path, job.identity, still_there)
            missing = not acted and is_missing(root / job.path)
            if not acted:
                require_same(root, self._ledger)
        except OSError as error:
            passing = "Check its disk and permissions; it is tried again by itself"
            raise OutputError(
                f"{job.path} is painted but could not be moved or deleted: {error.strerror}",
                remedy=outputs.REMEDIES.get(error.errno, passing),
                reason=FULL if error.errno in outputs.NO_ROOM else "after",
            ) from error
        with self._ledger.transaction():
            if acted or missing:
                self._ledger.missed(job.folder, job.path)
            if not missing:  # else it is done when it is back: its disk may be away
                self._ledger.after_done(job, acted=acted)

    def has_result(self, job: Job, *, intact: bool) -> bool:
        """Whether a result is where it was put; with `intact`, only if its bytes are the same.

        So it is where another job's may lie there by now. Where that can't be told, as its disk is
        away, it is taken to be there.
        """
        if job.output is None:
            return False
        if not os.path.lexists(job.output):
            return missing_mount(job.output, self._ledger) is not None
        intact = intact or self._ledger.is_taken(job, job.output)
        try:
            return not intact or contents.file_hash(job.output) == job.sha256
        except OSError:  # that can't be told now
            return True

    def find_moved_results(self, folder: str, output: Path) -> None:
        """Note that a folder's results lie in this output now, if they do.

        They were moved here from their former output if none of the latest is left there, and at
        least one lies here under the same relative path.
        """
        latest: dict[Path, list[tuple[Path, str]]] = {}  # by output: where they were, their SHA-256
        for photo, result, sha256 in self._ledger.last_results(folder, _LATEST):
            before = result.parents[len(photo.parent.parts)]
            latest.setdefault(before, []).append((result, sha256))
        latest.pop(output, None)
        for before, results in latest.items():
            if all(is_missing(place) for place, _ in results) and any(
                _is_whole(output / place.relative_to(before), sha256, patient=False)
                for place, sha256 in results
            ):
                self._ledger.results_moved(folder, before, output)

    def _require_intact(self, job: Job) -> None:
        """Raise an OutputError if a job's result is damaged or can't be seen now."""
        if job.output is None:
            return
        if mount := missing_mount(job.output, self._ledger):
            raise not_mounted(job.output.parent, mount)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if contents.file_hash(job.output) != job.sha256:
                raise OutputError(
                    f"{job.path} stays where it is: {job.output} is not as it was painted",
                    remedy="`touch` the photo to have it painted again; if you move that result "
                    "elsewhere, the photo will go as the config says",
                    reason="damaged",
                )

    def _require_still_mounted(self, action: After, photo: Path) -> None:
        """Raise an OutputFullError if the disk went away to which a photo is just being moved.

        Else the photo would lie at the empty mount point, where it would be taken for a file by
        which a person says to go on without that disk (`require_mounted`).
        """
        if isinstance(action, Path) and (mount := missing_mount(action / photo, self._ledger)):
            raise not_mounted(action, mount)

    def _job(self, job_id: int) -> Job:
        job = self._ledger.job(job_id)
        assert job is not None
        return job


def _is_whole(file: Path, sha256: str, *, patient: bool) -> bool:
    """Whether the file has these bytes; if `patient`, an error where that can't be told now."""
    try:
        return contents.file_hash(file) == sha256
    except OSError as error:
        if patient and not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise
        return False
