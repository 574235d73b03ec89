"""How the photos of each folder stand, as the ledger has them: counts, and the few to be named.

It is told whole whenever it changes, so that whoever listens need not have heard what came before.
Knows nothing of events and of those who listen.
"""

from collections.abc import Iterable
from typing import Any

from stylewatch.domain import JobState
from stylewatch.folders.settle import LACKS
from stylewatch.settings.config import Folder
from stylewatch.state.reader import LedgerReader, by_word, explained

KEPT = 20
"""How many of each folder are named: what waits, what is done, what failed."""


def survey(ledger: LedgerReader, folders: Iterable[Folder]) -> dict[str, dict[str, Any]]:
    """By folder: how many stand where; and `next`, `results` and `failures`."""
    counts, files = ledger.counts(), ledger.failed_files()
    found = {}
    for folder in folders:
        name = folder.name
        found[name] = {
            **by_word(counts.get(name, {}), files.get(name, 0)),
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
            "message": f"{path}: {explained(why, LACKS.get(why, why))}",
        }
        for path, why, seen in ledger.last_failed_files(folder, KEPT)
    ]
    return sorted([*jobs, *files], key=lambda each: each["at"], reverse=True)[:KEPT]
