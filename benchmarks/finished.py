"""Seconds that the ledger takes for a photo, by how many are done in the same folder.

    python benchmarks/finished.py [--done 1000 100000] [--photos 50] [--folder /dev/shm]

From its first sight to its end, as the daemon does it where a painted photo is moved or deleted.
Where the folder is no disk, as is `/dev/shm`, that is the processor's time alone.
"""

import argparse
import tempfile
import time
from pathlib import Path

from stylewatch.domain import Identity, Photo, Rendered
from stylewatch.state.ledger import Ledger, Planned


def add(ledger: Ledger, number: int) -> None:
    path, name = Path(f"{number // 500}/{number}.jpg"), f"{number}"
    photo = Photo("in", Path("/in"), path, Identity(1, number, 1, number, number))
    ledger.add(photo, name, "plan", [Planned("painting", name, Path("/out") / name)])


def finish(ledger: Ledger) -> None:
    job = ledger.claim("in")
    assert job is not None
    rendered = Rendered(
        temporary=Path("/out/new"), extension=".jpg", sha256=job.key, width=1, height=1,
        seconds=1.0, evaluations=1, loss=1.0, facts={},
    )  # fmt: skip
    ledger.publishing(job.id, rendered)
    ledger.done(job.id, job.target.with_suffix(".jpg"))
    assert ledger.after_is_due(job.id)
    ledger.results_of(job)
    ledger.after_done(job)


def measure(place: Path, done: int, photos: int) -> float:
    """Seconds for each of the last `photos`."""
    ledger = Ledger(place / f"{done}.db")
    with ledger.transaction():
        for number in range(done):
            add(ledger, number)
        ledger.change("UPDATE jobs SET state = 'done', output = target, after_done = 1")
    begin = time.perf_counter()
    for number in range(done, done + photos):
        add(ledger, number)
        finish(ledger)
    seconds = time.perf_counter() - begin
    ledger.close()
    return seconds / photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--done", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--photos", type=int, default=50, help="how many are measured")
    parser.add_argument("--folder", type=Path, help="where the ledgers are made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        for done in options.done:
            seconds = measure(Path(place), done, options.photos)
            print(f"{done:8} done: {1000 * seconds:.2f} ms a photo", flush=True)


if __name__ == "__main__":
    main()
