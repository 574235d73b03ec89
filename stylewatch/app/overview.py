"""What `status` and `jobs` tell: from the running daemon, or from the ledger where none runs.

Stable data for programs, and a few lines of text for people. Knows nothing of the command line.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from stylewatch.app.remote import Client
from stylewatch.domain import JobState
from stylewatch.errors import LedgerError, NotRunningError
from stylewatch.faces.lines import duration, jsonable, short_path, size, visible
from stylewatch.state.reader import NO_PRESET, Job, LedgerReader

WAITING: Final = (JobState.READY, JobState.RETRY_WAIT, JobState.BLOCKED)
FAILED: Final = (JobState.QUARANTINED, JobState.BLOCKED, JobState.RETRY_WAIT, JobState.HELD)
PAINTING: Final = (JobState.RUNNING, JobState.PUBLISHING)

# --- status ---------------------------------------------------------------------------------------


def look(state_dir: Path) -> dict[str, Any]:
    """How things stand; `running` says whether a daemon told it."""
    try:
        with Client(state_dir) as client:
            return _from_daemon(client.about, client.ask("status"))
    except NotRunningError as error:
        return {**_from_ledger(state_dir), "problem": str(error)}


def _from_daemon(about: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    folders = [
        {
            "name": health["folder"],
            "input": health["root"],
            "state": health["state"],
            "detail": health["detail"],
            "arriving": told["settling"].get(health["folder"], 0),
            **_counted(told["counts"].get(health["folder"], {})),
        }
        for health in told["folders"]
    ]
    painting = [
        {
            "id": one["job"]["id"],
            "photo": one["job"]["path"],
            "preset": one["job"]["preset"],
            "seconds": one["seconds"],
            "memory": one.get("memory", 0),
            "step": one["step"],
        }
        for one in told["running"]
    ]
    return {
        "running": True,
        "pid": about.get("pid"),
        "version": about.get("version"),
        "config": about.get("config"),
        "paused": told["paused"],
        "folders": folders,
        "painting": painting,
        "blocked": told["blocked"],
        "lost": told.get("lost", []),
        "seconds_per_photo": told["pace"],
        "queue_seconds": told["pace"] * sum(folder["waiting"] for folder in folders),
    }


def _from_ledger(state_dir: Path) -> dict[str, Any]:
    counts = _read(state_dir, LedgerReader.counts) or {}
    folders = [
        {"name": name, **_counted({str(state): n for state, n in states.items()})}
        for name, states in sorted(counts.items())
    ]
    return {"running": False, "folders": folders}


def _counted(counts: Mapping[str, int]) -> dict[str, int]:
    return {
        "waiting": sum(counts.get(state, 0) for state in WAITING),
        "painting": sum(counts.get(state, 0) for state in PAINTING),
        "done": counts.get(JobState.DONE, 0),
        "failed": counts.get(JobState.QUARANTINED, 0),
    }


def overview_text(found: Mapping[str, Any]) -> str:
    """The same for people."""
    head = "no daemon runs"
    if found["running"]:
        head = f"stylewatch {found['version']} runs as process {found['pid']}"
        head += ", paused" if found["paused"] else ""
    rows = [["folder", "state", "waiting", "painting", "done", "failed", ""]]
    for folder in found["folders"]:
        about = folder.get("detail") or short_path(folder.get("input", ""))
        counts = [str(folder[name]) for name in ("waiting", "painting", "done", "failed")]
        rows.append([folder["name"], folder.get("state", "-"), *counts, about])
    lines = [head, *(_table(rows) if len(rows) > 1 else [])]
    lines += [
        f"#{one['id']} {one['photo']} → {one['preset']}  {_step_text(one)}"
        for one in found.get("painting", ())
    ]
    lines += [f"blocked: {path} ({why})" for path, why in found.get("blocked", {}).items()]
    if found.get("queue_seconds"):
        lines.append(f"the queue is empty in about {duration(found['queue_seconds'])}")
    return "\n".join(visible(line) for line in lines)


def _step_text(one: Mapping[str, Any]) -> str:
    step = one["step"]
    memory = f", {size(one['memory'])}" if one.get("memory") else ""
    if not step:
        return f"for {duration(one['seconds'])}{memory}"
    return f"{step['fraction']:.0%}, {duration(step['eta_seconds'])} left{memory}"


# --- jobs -----------------------------------------------------------------------------------------


def list_jobs(
    state_dir: Path, states: Iterable[JobState], limit: int, *, notes: bool = False
) -> list[dict[str, Any]]:
    """Jobs in these states (all when empty), the latest change first, and files without a job."""

    def read(reader: LedgerReader) -> list[dict[str, Any]]:
        found = [_job_dict(job) for job in reader.jobs(states, limit)]
        told = reader.notes(limit) if notes else []
        return found + [
            {"id": None, "state": "no job", "folder": folder, "photo": jsonable(path),
             "preset": "", "reason": why, "message": ""}
            for folder, path, why in told
            if why != NO_PRESET
        ]  # fmt: skip

    return _read(state_dir, read) or []


def _job_dict(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "state": str(job.state),
        "folder": job.folder,
        "photo": jsonable(job.path),
        "preset": job.preset,
        "reason": job.reason,
        "message": job.message,
        "attempts": job.attempts,
        "created": job.created,
        "changed": job.changed,
        "output": jsonable(job.output),
        "seconds": job.seconds,
        "loss": job.loss,
        "note": job.note,
        "key": job.key,
    }


def jobs_text(found: Sequence[Mapping[str, Any]]) -> str:
    """The same for people."""
    if not found:
        return "no such jobs"
    rows = []
    for job in found:
        number = f"#{job['id']}" if job["id"] is not None else "-"
        when = time.strftime("%d %b %H:%M", time.localtime(job.get("changed", 0)))
        about = job.get("output") and short_path(job["output"])
        about = about or job["message"] or job["reason"]
        when = when if job["id"] is not None else ""
        rows.append([number, job["state"], when, job["preset"], job["photo"], about])
    return "\n".join(visible(line) for line in _table(rows))


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(visible(row[at])) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(
            f"{visible(cell):<{width}}" for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _read(state_dir: Path, question: Any) -> Any:
    """What the ledger answers; None where there is none yet."""
    file = state_dir / "ledger.db"
    try:
        if not file.exists():
            return None
    except OSError as error:
        raise LedgerError(
            f"{state_dir} can't be read: {error.strerror}",
            remedy="Ask as the user that the daemon runs as",
        ) from error
    reader = LedgerReader(file)
    try:
        return question(reader)
    finally:
        reader.close()
