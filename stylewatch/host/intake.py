"""From a watched folder to the ledger: which photos are new and complete, and what they get.

Sources say what is there, the settler what is complete, the config which presets it gets, and the
ledger whether it is new at all. Knows nothing of workers and results.
"""

import contextlib
import errno
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from stylewatch.domain import (
    TURN_SECONDS,
    Candidate,
    EventKind,
    Failure,
    Identity,
    JobState,
    Photo,
    PhotoFacts,
    Preset,
    counted,
    job_key,
)
from stylewatch.errors import InputChangedError, InputError, kind_of
from stylewatch.folders.listing import PICTURES, open_photo
from stylewatch.folders.outputs import target_name
from stylewatch.folders.settle import GONE, LACKS, Gone, Settler, Slow, Unsettled
from stylewatch.folders.sources import FolderHealth, FolderSource
from stylewatch.folders.watches import Watches
from stylewatch.host.recognition import require_same
from stylewatch.host.survey import waits
from stylewatch.settings.choice import is_named, match, misspelt
from stylewatch.settings.config import Config, Folder
from stylewatch.state.ledger import AGAIN, Ledger, Planned
from stylewatch.state.marks import MARKS, marked
from stylewatch.state.presence import is_missing
from stylewatch.state.reader import Job
from stylewatch.state.wording import (
    BROKEN_PRESET,
    IGNORED,
    NO_PHOTO,
    NO_PRESET,
    TOO_LARGE,
    WAITING,
    explained,
)

HELD_SECONDS = 0.5  # between two looks whether a changed config has been read
KEPT_SLOW = 5  # so many files of each folder are named that take long to arrive

_LEFT = (*WAITING, JobState.QUARANTINED, JobState.HELD)
"""The states of jobs for which something is left to do, if their photo is there."""


@dataclass(frozen=True, kw_only=True)
class _Way:
    """The way in for the photos of one folder: seen by `source`, settled, then `complete`."""

    folder: Folder
    plan: str
    """Stands for all in the config that decides in which presets a file is painted: `_plan_of`."""
    source: FolderSource
    settling: tuple[object, ...]
    """Where photos settle and by which rules: a new config with the same keeps the settler."""
    settler: Settler
    complete: deque[Photo] = field(default_factory=deque)
    """Photos that are to become jobs."""

    def next_due(self, now: float) -> float:
        """When there is something to see or to settle."""
        return min(self.source.next_due(now), self.settler.next_due(now))


class Intake:
    """The photos of one generation of the config."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        watches: Watches,
        *,
        probe: Callable[[BinaryIO], PhotoFacts],
        begins_as_image: Callable[[bytes], bool],
        structural_end: Callable[[BinaryIO], bool | None],
        take_up: Callable[[Folder], None],
        is_outdated: Callable[[float], bool],
        tell: Callable[..., None],
        before: "Intake | None" = None,
    ) -> None:
        """`tell` tells of an event.

        `before` is the intake of the former config: files that settle there go on settling.
        """
        self._config = config
        self._ledger = ledger
        self._probe = probe
        self._begins_as_image = begins_as_image
        self._is_outdated = is_outdated
        self._tell_event = tell
        self._held = False  # complete photos wait, as the config is about to be read again
        self._ignored: set[tuple[str, str]] = set()  # folders and why: told once
        self._subfolders: set[tuple[str, str]] = set()  # folders and names in them: looked at once
        self._known: dict[str, tuple[Photo, int]] = {}  # by folder, see `_tell_known`
        self.ways: dict[str, _Way] = {}  # by folder
        kept = {way.settling: way.settler for way in before.ways.values()} if before else {}
        for folder in config.folders:
            rules = {
                "quiet_seconds": folder.quiet_seconds,
                "settle_max_seconds": config.settle_max_seconds,
                "max_bytes": config.engine.max_bytes,
            }
            settling = (folder.name, folder.input, *rules.values())
            self.ways[folder.name] = _Way(
                folder=folder,
                plan=_plan_of(folder, config),
                source=FolderSource(
                    folder.name,
                    folder.input,
                    watches,
                    rescan_seconds=config.rescan_seconds,
                    take_up=partial(take_up, folder),
                    known=partial(ledger.present, folder.name),
                ),
                settling=settling,
                settler=kept.get(settling) or Settler(structural_end, **rules),
            )
        for message in waits(config, ledger):
            tell("warning", message, reason="preset")

    def tick(self, now: float) -> None:
        """Move every file one stage on: seen, settled, in the ledger.

        Folders where something is to be seen or settled share a turn: many may lie on slow disks.
        """
        due = (way.next_due(now) <= now for way in self.ways.values())
        share = 1.0 / max(1, sum(due))
        for name, way in self.ways.items():
            with self._ledger.transaction():
                for candidate in way.source.drain(now, share):
                    self._consider(candidate, way, now)
                for path in way.source.missed(share):
                    if is_missing(way.folder.input / path):
                        self._ledger.missed(name, path)
                        self._forget(name, path)
                for settled in way.settler.settled(now, share):
                    self._take(settled, way)
        self._add_jobs(now)
        self._tell_known()

    def next_due(self, now: float) -> float:
        """When `tick` has something to do."""
        if any(way.complete for way in self.ways.values()):
            return now + HELD_SECONDS if self._held else now
        return min(way.next_due(now) for way in self.ways.values())

    def look_again(self, folder: str, path: Path) -> None:
        """Have this file looked at once more, as if it were new.

        Also one that is gone: its folder may only be away for a moment, and come back unchanged.
        """
        self._ledger.forget_file(folder, path)
        if way := self.ways.get(folder):
            if is_missing(way.folder.input / path):  # no scan will: the source forgets it, too
                self._ledger.missed(folder, path)
                self._forget(folder, path)
            way.source.look_again(path)
            way.settler.look_again(path)

    def _forget(self, name: str, path: Path) -> None:
        """Let nothing wait for a photo which is missing, unless its disk went away just now.

        That it has failed is over, too. Who was told that it is tried again is told that it is not.
        """
        left = [job for job in self._ledger.jobs_of(name, path) if job.state in _LEFT]
        if not left:
            return
        with contextlib.suppress(OSError), self._ledger.transaction():
            require_same(self.ways[name].folder.input, self._ledger)
            for job in left:
                self._ledger.vanished(job.id)
                if job.state in WAITING and job.attempts:
                    message = f"{job.path}: The photo is gone"
                    self._tell_event("retry", message, job, reason="vanished")
            self.look_again(name, path)

    def match_anew(self, job: Job) -> int | Failure | None:
        """Bring a photo in line with the config, if that has changed since its jobs were made.

        That is done when one of them, this, has its turn: a long queue need not be read again. What
        has failed, was cancelled or is done stays so. The number of the job that is to be painted
        now: this one, or, if it is not wanted any more, one in its place, or none. A failure where
        that can't be told, as the photo is gone, is another by now, or can't be read.

        New jobs come last in the queue. Only the first of them takes the place of one that is not
        wanted any more, and only once: where it has to be begun again, the others come first.
        """
        folder, plan = self.ways[job.folder].folder, self.ways[job.folder].plan
        if self._ledger.is_matched(job, plan):
            return job.id
        photo = Photo(job.folder, folder.input, job.path, job.identity)
        broken = {name: Preset(name=name) for name in self._config.broken}
        known = {**self._config.presets, **broken}
        meant = self._meant(photo, known)
        if isinstance(meant, Failure):
            return meant
        having, note = self._ledger.presets_of(job), "" if meant else NO_PRESET
        if {preset.name for preset in meant} & broken.keys() - having:
            meant, note = (), BROKEN_PRESET  # as a new photo it would wait, too
        names = [preset.name for preset in meant]
        planned = _planned(folder, job.path, job.digest, meant)
        with self._ledger.transaction():
            if job.preset not in names:
                self._ledger.supersede(job.id)
            added = self._ledger.add(
                photo, job.digest, plan, planned, stays=folder.stays, note=note, having=having
            )
        if added:
            self._tell("queued", photo, f"queued for {', '.join(names)}")
        return job.id if job.preset in names else next(iter(added), None)

    def _meant(self, photo: Photo, known: Mapping[str, Preset]) -> tuple[Preset, ...] | Failure:
        """The presets for a photo that was queued, or why they can't be told.

        Another photo may have its name by now: what is known of this one is not true of that.
        """
        try:
            if not Identity.of((photo.root / photo.path).lstat()).looks_like(photo.identity):
                raise InputChangedError("The photo changed after it was queued")
            folder = self.ways[photo.folder].folder
            return match(folder, photo.path, lambda: self._header(photo), known) or ()
        except InputError as error:
            return error.failure
        except OSError as error:
            if error.errno in GONE:
                return InputChangedError("The photo is gone", reason="vanished").failure
            reason = errno.errorcode.get(error.errno or 0, "io").lower()
            message = f"can't be read: {error.strerror or error}"
            return Failure(kind=kind_of(error.errno), reason=reason, message=message)

    def health(self, now: float) -> list[FolderHealth]:
        """How well each folder is looked after."""
        return [way.source.health(now) for way in self.ways.values()]

    def signs(self, now: float) -> dict[str, bool]:
        """For the pulse: each part that watches the folders, and whether it still does."""
        return {
            name: well for way in self.ways.values() for name, well in way.source.signs(now).items()
        }

    def settling(self) -> dict[str, int]:
        """How many files of each folder are on their way to becoming jobs."""
        return {name: way.settler.arriving + len(way.complete) for name, way in self.ways.items()}

    def slow(self, now: float) -> dict[str, list[Slow]]:
        """The first few files of each folder that have been on their way for long."""
        return {name: way.settler.slow(now, KEPT_SLOW) for name, way in self.ways.items()}

    def close(self) -> None:
        """Watch no more."""
        for way in self.ways.values():
            way.source.close()

    def _consider(self, candidate: Candidate, way: _Way, now: float) -> None:
        """Let a file settle that was seen, unless it is no photo, or the ledger knows it as is."""
        identity = Identity.of(candidate.stat)
        if self._ledger.knows(
            candidate.folder,
            candidate.path,
            identity,
            way.plan,
            numberless=candidate.numberless,
            stays=way.folder.stays,
        ):
            return
        if note := candidate.ignored:
            self._ignore(candidate, identity, note)
            return
        way.settler.observe(candidate, now, self._ledger.now)

    def _ignore(self, file: Candidate | Photo, identity: Identity, note: str) -> None:
        """Leave a file alone that is no photo; of each kind one is told in each folder."""
        plan = self.ways[file.folder].plan
        self._ledger.note_file(file.folder, file.path, identity, plan, note)
        if (file.folder, note) not in self._ignored:
            self._ignored.add((file.folder, note))
            rest = "`stylewatch jobs --failed` names others like it"
            self._tell("warning", file, f"ignored: {IGNORED[note]}; {rest}", note)

    def _take(self, settled: Photo | Unsettled | Gone, way: _Way) -> None:
        match settled:
            case Unsettled(file) if self._is_no_photo(file):
                self._ignore(file, file.identity, NO_PHOTO)
            case Unsettled(file, reason):
                self._set_aside(file, "", reason, LACKS[reason])
            case Gone(file):
                self.look_again(file.folder, file.path)
            case _:
                way.complete.append(settled)

    def _add_jobs(self, now: float) -> None:
        """Make jobs of complete photos, in one transaction, and for no longer than a turn.

        One photo of each folder in turn, as to read a whole archive takes hours. While the config
        is about to be read again all wait: they may have come for what it says now.
        """
        queues = [way.complete for way in self.ways.values()]
        if not any(queues):
            return
        self._held = self._is_outdated(now)
        if self._held:
            return
        until = time.monotonic() + TURN_SECONDS
        with self._ledger.transaction():
            while time.monotonic() < until and (turn := [*filter(None, queues)]):
                for photo in [queue.popleft() for queue in turn]:
                    try:
                        self._add(photo)
                    except InputError as error:
                        self._set_aside(photo, "", error.reason, str(error))
                    except OSError as error:
                        self._cannot_add(photo, error, now)

    def _is_no_photo(self, file: Photo) -> bool:
        """Whether a file surely is none, by its ending and its first bytes, if it is there."""
        if file.path.suffix.lower() in PICTURES:
            return False
        try:
            with _open_unchanged(file) as stream:
                return not self._begins_as_image(stream.read(12))
        except OSError:
            return False

    def _add(self, photo: Photo) -> None:
        folder, plan = self.ways[photo.folder].folder, self.ways[photo.folder].plan
        if self._is_no_photo(photo):
            self._ignore(photo, photo.identity, NO_PHOTO)
            return
        limit = self._config.engine.max_bytes
        if photo.identity.size > limit:  # a film would keep the daemon busy for minutes: not read
            message = f"too large: {photo.identity.size} bytes, and max_bytes is {limit}"
            self._set_aside(photo, plan, TOO_LARGE, message)
            return
        self._warn_of_sub_folder(photo)
        with _open_unchanged(photo) as stream:
            presets = match(
                folder,
                photo.path,
                lambda: self._facts(photo, stream),
                self._config.presets,
                self._config.broken,
            )
            if not presets:
                note = BROKEN_PRESET if presets is None else NO_PRESET
                self._ledger.add(photo, "", plan, [], note=note)
                return
            stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
            changed = Identity.of(os.fstat(stream.fileno())) != photo.identity
        if changed:
            self.look_again(photo.folder, photo.path)
            return
        planned = _planned(folder, photo.path, digest, presets)
        again = folder.stays and self._ledger.has_come_again(photo)
        if self._ledger.add(photo, digest, plan, planned, stays=folder.stays):
            names = ", ".join(preset.name for preset in presets)
            self._tell("queued", photo, f"queued for {names}")
        elif again and self._is_painted(photo, digest, planned):
            first, count = self._known.get(photo.folder, (photo, 0))
            self._known[photo.folder] = first, count + 1

    def _is_painted(self, photo: Photo, digest: str, planned: Sequence[Planned]) -> bool:
        """Whether a photo has been painted, and is not to be, even where its results are gone."""
        settled = {
            job.preset
            for job in self._ledger.jobs_of(photo.folder, photo.path)
            if job.state is JobState.DONE and job.digest == digest and job.reason != AGAIN
        }
        return settled.issuperset(wanted.preset for wanted in planned)

    def _tell_known(self) -> None:
        """Tell of photos that came again and are not painted again: of the first, and how many.

        Their date, which most programs keep, is as it was. Who has deleted their results, or has
        changed the preset, may have meant something else.
        """
        settling = self.settling() if self._known else {}
        for name, (photo, count) in [*self._known.items()]:
            if not settling[name]:
                del self._known[name]
                others = f", like {counted(count - 1, 'other')}," if count > 1 else ""
                rest = "so not painted again; `touch` it to have it repainted"
                self._tell("known", photo, f"painted before{others or ','} {rest}")

    def _warn_of_sub_folder(self, photo: Photo) -> None:
        """Tell, once, that the photo's sub-folder means nothing, but almost does, or once did.

        Its name is almost a preset's, or, as the ledger knows, was that of one.
        """
        name, *rest = photo.path.parts
        if not rest or (photo.folder, name) in self._subfolders:
            return
        self._subfolders.add((photo.folder, name))
        known = {*self._config.presets, *self._config.broken}
        folder, sub_folder = self.ways[photo.folder].folder, replace(photo, path=Path(name))
        if not known or is_named(folder, photo.path, known):
            return
        if is_named(folder, photo.path, self._ledger.presets_in(photo.folder, name)):
            words = "treated as any other folder, as the preset of its name is not there any more"
            remedy = "Bring it back, and `touch` the photos"
            self._tell("warning", sub_folder, f"{words}. {remedy}", "near")
        elif meant := misspelt(folder, photo.path, known):
            words = "treated as any other folder, as no preset has its name. Did you mean"
            self._tell("warning", sub_folder, f"{words} {meant!r}?", "near")

    def _set_aside(self, file: Photo, plan: str, note: str, message: str) -> None:
        """Give a file up, visibly, until it changes, or `plan` does, if that was the cause."""
        self._ledger.note_file(file.folder, file.path, file.identity, plan, note)
        self._tell("failed", file, explained(note, message), note)

    def _cannot_add(self, photo: Photo, error: OSError, now: float) -> None:
        """A photo could not be read: look again, at once if it is gone or replaced, else later."""
        if error.errno in GONE:
            self.look_again(photo.folder, photo.path)
            return
        self.ways[photo.folder].settler.take_back(photo, now, self._ledger.now)
        self._ledger.note_file(photo.folder, photo.path, photo.identity, "", "unreadable")
        why = error.strerror or str(error)
        self._tell("failed", photo, f"can't be read: {why}. It is tried again in a minute", "io")

    def _header(self, photo: Photo) -> PhotoFacts:
        """What rules may ask about the photo that has this name now."""
        with open_photo(photo) as stream:
            return self._facts(photo, stream)

    def _facts(self, photo: Photo, stream: BinaryIO) -> PhotoFacts:
        """What rules may ask about a photo; of a header that makes no sense, nothing.

        Raises:
            OSError: the disk gave no answer, which says nothing about the photo.
            InputError: to look at it ended the daemon, more than once.
        """
        stream.seek(0)
        with marked(self._config.state_dir / MARKS, photo.identity):
            try:
                return self._probe(stream)
            except Exception as error:  # noqa: BLE001  (whatever a strange file makes a decoder do)
                trouble = error if isinstance(error, OSError) else error.__cause__
                if isinstance(trouble, OSError) and trouble.errno:
                    raise trouble from None
                return PhotoFacts(0, 0)

    def _tell(
        self, kind: EventKind, file: Photo | Candidate, message: str, reason: str = ""
    ) -> None:
        place = {"folder": file.folder, "path": str(file.path)}
        self._tell_event(kind, f"{file.path}: {message}", reason=reason, **place)


@contextlib.contextmanager
def _open_unchanged(photo: Photo) -> Iterator[BinaryIO]:
    """The photo, opened; FileNotFoundError if it was replaced."""
    with open_photo(photo) as stream:
        if Identity.of(os.fstat(stream.fileno())) != photo.identity:
            raise FileNotFoundError(errno.ENOENT, "it was replaced", str(photo.path))
        yield stream


def _planned(folder: Folder, path: Path, digest: str, presets: Iterable[Preset]) -> list[Planned]:
    """The jobs of a photo with that path and digest, in these presets."""
    return [
        Planned(
            preset.name,
            job_key(digest, preset.digest),
            folder.output / target_name(path, preset.name),
        )
        for preset in presets
    ]


def _plan_of(folder: Folder, config: Config) -> str:
    """A hash of what decides which presets a file gets: rules, names of presets, largest size."""
    rules = repr(replace(folder, output=Path(), after="keep", weight=1.0))
    decisive = [rules, sorted(config.presets), sorted(config.broken), config.engine.max_bytes]
    return hashlib.sha256(json.dumps(decisive).encode(errors="surrogateescape")).hexdigest()
