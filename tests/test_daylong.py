"""A day and 100 000 photos: the daemon stays small, the ledger bounded, its answers quick.

The normal suite sees 3000 of them.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

RETENTION_ROWS = 0.25
"""Share of a day's jobs that the ledger may know at once: it remembers 0.1 days, and tidies every
quarter of that."""


@pytest.fixture
def folder(tmp_path):
    """In memory where that can be: what is measured is not the disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path / "day"
        return
    with tempfile.TemporaryDirectory(dir=memory) as made:
        yield Path(made) / "day"


def day(folder, jobs):
    command = [sys.executable, "-m", "tests.daylong", "--jobs", str(jobs), "--folder", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(report, jobs, pace):
    assert report["jobs"] == report["results"] == jobs
    assert abs(report["rss_growth"]) < 0.10, report
    assert max(report["milliseconds"].values()) < 100 * pace, report
    for table in ("jobs", "files"):  # of those that stay, and of what was deleted lately
        assert report["rows"][table] < (RETENTION_ROWS + 1 / 20) * jobs, report
    assert report["painted_again"] == 0


def test_a_day_of_3000_photos_leaves_the_daemon_as_small_and_the_ledger_as_short(folder, pace):
    check(day(folder, 3000), 3000, pace)


@pytest.mark.slow
@pytest.mark.timeout(3100)
def test_a_day_of_100_000_photos(folder, pace):
    report = day(folder, 100_000)
    check(report, 100_000, pace)
    assert report["ledger_mb"][2] < 1.35 * report["ledger_mb"][0]  # 3.6 MB: 4000 more stay
