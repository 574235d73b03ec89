"""How each folder stands, and its photos as the ledger has them: counts, and the few to be named.

All of it is told whenever any of it changes, so that a listener need not have heard what came
before. Knows nothing of the listeners.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stylewatch.domain import Event, JobState, counted
from stylewatch.folders.settle import LACKS, Slow
from stylewatch.folders.sources import FolderHealth
from stylewatch.settings.config import Config, Folder
from stylewatch.state.ledger import Ledger
from stylewatch.state.reader import LedgerReader
from stylewatch.state.wording import NOTES, by_word, explained

KEPT = 20
"""Of each folder so many photos at most are named that wait, that are done, and that failed."""


class Survey:
    """What was last told of each folder, so that only changes are told."""

    def __init__(self) -> None:
        self._photos: dict[str, dict[str, Any]] = {}
        self._changes = -1  # the ledger's when that was so
        self._told: dict[str, Event] = {}

    def news(
        self,
        ledger: Ledger,
        folders: Iterable[Folder],
        health: Iterable[FolderHealth],
        arriving: Mapping[str, int],
        slow: Mapping[str, Sequence[Slow]],
    ) -> list[Event]:
        """An event for each folder that has changed since the last call, or has left the config."""
        if self._changes != ledger.changes:
            self._changes, self._photos = ledger.changes, _photos_of(ledger, folders)
        before = self._told
        self._told = {
            each.folder: self._event(
                each,
                arriving[each.folder],
                slow[each.folder],
                _since(before.get(each.folder), each, ledger.now),
            )
            for each in health
        }
        left = before.keys() - self._told
        return [
            *(Event(kind="folder", message="", folder=name, reason="left") for name in left),
            *(event for name, event in self._told.items() if before.get(name) != event),
        ]

    def _event(
        self, health: FolderHealth, arriving: int, slow: Sequence[Slow], since: float
    ) -> Event:
        return Event(
            kind="folder",
            message=health.detail,
            folder=health.folder,
            path=str(health.root),
            reason=health.state,
            extra={
                **self._photos.get(health.folder, {}),
                "arriving": arriving,
                "slow": [(str(each.path), each.why, each.since) for each in slow],
                "scanned": math.isfinite(health.scan_age),
                "since": since,
            },
        )


def waits(config: Config, ledger: LedgerReader) -> list[str]:
    """One line for each thing that photos wait for, and why."""
    lines = config.waits(ledger.lacks())
    for what, name, number in ledger.held_for():
        photos = counted(number, "photo")
        if what == "folder":
            lines.append(f"held: {photos}, as the folder {name} is not watched now")
        elif config.presets and name not in {*config.presets, *config.broken}:  # none: all are away
            gone = f"held: {photos}, as the preset {name} is not there any more"
            lines.append(f"{gone}. Bring it back, or `touch` the photos")
    return lines


def _since(before: Event | None, health: FolderHealth, now: float) -> float:
    """Since when a folder is in this state, and has or lacks a detail, whatever else changes."""
    if before and (before.reason, bool(before.message)) == (health.state, bool(health.detail)):
        return float(before.extra["since"])
    return now


def _photos_of(ledger: LedgerReader, folders: Iterable[Folder]) -> dict[str, dict[str, Any]]:
    """By folder: counts of its photos, and some of them as `next`, `results` and `failures`."""
    counts, failed, held = ledger.counts(), ledger.failed_files(), ledger.held_files()
    work = ledger.work()
    found = {}
    for folder in folders:
        name = folder.name
        found[name] = {
            **by_word(name, counts, failed, held),
            "work": work.get(name, 0.0),
            "next": [(str(job.path), job.preset) for job in ledger.next_jobs(name, KEPT)],
            "results": _results(ledger, folder),
            "failures": _failures(ledger, name),
        }
    return found


def _results(ledger: LedgerReader, folder: Folder) -> list[dict[str, Any]]:
    return [
        {
            "id": job.id,
            "at": job.changed,
            "path": str(job.path),
            "preset": job.preset,
            "source": str(folder.input / job.path),
            "output": str(job.output),
            "seconds": job.seconds,
            "note": job.note,
        }
        for job in ledger.last_jobs(JobState.DONE, folder.name, KEPT)
    ]


def _failures(ledger: LedgerReader, folder: str) -> list[dict[str, Any]]:
    """The latest first; a file that never had a job has the number 0."""
    jobs: list[dict[str, Any]] = [
        {
            "id": job.id,
            "at": job.changed,
            "path": str(job.path),
            "reason": job.reason,
            "message": f"{job.path}: {job.trouble}",
        }
        for job in ledger.last_jobs(JobState.QUARANTINED, folder, KEPT)
    ]
    files: list[dict[str, Any]] = [
        {
            "id": 0,
            "at": seen,
            "path": str(path),
            "reason": why,
            "message": f"{path}: {explained(why, {**LACKS, **NOTES}.get(why, why))}",
        }
        for path, why, seen in ledger.last_failed_files(folder, KEPT)
    ]
    return sorted([*jobs, *files], key=lambda each: each["at"], reverse=True)[:KEPT]
