"""A day of the real daemon and the real ledger with an effect that takes no time.

`python -m tests.daylong --jobs 100000 --folder /dev/shm/daylong` prints its figures as JSON. One
photo in twenty stays in its folder, the others are deleted when they are painted. The clock is
simulated; files, events and the ledger are real.
"""

import argparse
import json
import os
import statistics
import time
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from stylewatch.app.overview import list_jobs, look
from stylewatch.domain import PhotoFacts
from stylewatch.host.daemon import Daemon, Parts
from stylewatch.settings.loading import watch_config
from stylewatch.state.reader import LedgerReader
from tests.rig import rendered

DAY = 86400.0
RETENTION_DAYS = 0.1
STAYS = 20  # one in so many
SLOTS = 16


def paint(request, engine, *, report):
    return rendered(request, b"painted " + request.source.read_bytes(), seconds=0.8, loss=1.0)


class AtOnce:
    """An executor that is through with a job before it is handed over."""

    here, slots, trouble = True, SLOTS, ""

    def __init__(self):
        self.ran = 0

    def submit(self, job_id, fn, request, engine, /, *, timeout=None):
        self.ran += 1
        future = Future()
        future.set_result(fn(request, engine, report=lambda step: None))
        return future

    def cancel(self, job_id, /): ...
    def worker_of(self, out, /):
        return ""

    def release(self, before): ...
    def close(self): ...


class Day:
    """Photos come in rounds, evenly over 24 hours."""

    def __init__(self, folder: Path, jobs: int, rounds: int):
        self.folder, self.jobs, self.rounds = folder, jobs, rounds
        self.inputs = {"passing": folder / "passing", "staying": folder / "staying"}
        for each in self.inputs.values():
            each.mkdir(parents=True)
        self.now, self.dropped, self.slowest, self.dearest = 0.0, 0, 0.0, 0.0
        self.idle = 5.0 if jobs > 10_000 else 60.0  # seconds between two ticks with nothing to do
        self.executor, self.seen = AtOnce(), []
        self.ledger = folder / "state" / "ledger.db"
        self.daemon = self.open()

    def config(self):
        one = watch_config(
            self.inputs["passing"], self.folder / "out", ["painting"],
            state_dir=str(self.folder / "state"), quiet_seconds=0.5, min_free=0, grace_seconds=0,
            rescan_seconds=600, retention_days=RETENTION_DAYS,
        )  # fmt: skip
        passing = replace(one.folders[0], name="passing", after="delete")
        staying = replace(
            one.folders[0], name="staying", input=self.inputs["staying"],
            output=self.folder / "out-staying",
        )  # fmt: skip
        return replace(one, folders=(passing, staying))

    def open(self) -> Daemon:
        parts = Parts(
            open_executor=lambda config, on_event: self.executor,
            run_job=paint,
            probe=lambda data: PhotoFacts(4, 3),
            begins_as_image=lambda head: True,
            structural_end=lambda file: None,
            read_facts=lambda data: {},
        )
        daemon = Daemon(
            self.config(), parts, lambda event: None, load=self.config,
            clock=lambda: self.now, wall_clock=lambda: 1e9 + self.now,
        )  # fmt: skip
        daemon.start(self.now)
        return daemon

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        started, spent = time.perf_counter(), time.thread_time()
        self.daemon.tick(self.now)
        self.slowest = max(self.slowest, time.perf_counter() - started)
        self.dearest = max(self.dearest, time.thread_time() - spent)

    def drop(self, count: int) -> None:
        for _ in range(count):
            self.dropped += 1
            where = "staying" if self.dropped % STAYS == 0 else "passing"
            name = f"IMG_{self.dropped:06}.jpg"
            (self.inputs[where] / name).write_bytes(b"photo %d" % self.dropped)

    def arrived(self) -> bool:
        """Events come in real time, the simulated one waits for them."""
        return sum(self.daemon._intake.settling().values()) + self.executor.ran >= self.dropped

    def run(self) -> dict:
        self.tick()
        for number in range(self.rounds):
            self.drop((number + 1) * self.jobs // self.rounds - self.dropped)
            until, deadline = (number + 1) * DAY / self.rounds, time.monotonic() + 5
            while not self.arrived() and time.monotonic() < deadline:
                time.sleep(0.002)
                self.tick()
            while self.executor.ran < self.dropped and self.now < until:
                self.tick(1.0)
            while self.now < until:
                self.tick(min(self.idle, until - self.now))
            self.look()
        return self.report()

    def look(self) -> None:
        size = sum(file.stat().st_size for file in self.ledger.parent.glob("ledger.db*"))
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.seen.append((self.executor.ran, size, pages * os.sysconf("SC_PAGESIZE")))

    def again(self) -> int:
        """What is painted once more when every photo that stayed is touched, after a restart."""
        before = self.executor.ran
        self.daemon.stop()
        for file in self.inputs["staying"].iterdir():
            os.utime(file, (self.now, self.now))
        self.daemon = self.open()
        for _ in range(200):
            self.tick(1.0)
        return self.executor.ran - before

    def report(self) -> dict:
        state = self.ledger.parent
        asked = {
            "status": lambda: look(state),
            "status of the daemon": self.daemon._status,
            "jobs": lambda: [*list_jobs(state, (), 100, notes=True)[0]],
        }
        spent = {}
        for name, ask in asked.items():
            times = []
            for _ in range(5):
                before = time.process_time()
                ask()
                times.append(time.process_time() - before)
            spent[name] = round(1000 * statistics.median(times), 1)
        tables = ("jobs", "files", "results")
        with closing(LedgerReader(self.ledger)) as reader:
            rows = {table: reader.ask(f"SELECT COUNT(*) FROM {table}")[0][0] for table in tables}
        fifth = len(self.seen) // 5
        first = self.seen[fifth]
        return {
            "jobs": self.executor.ran,
            "results": sum(1 for name in ("out", "out-staying") for _ in (self.folder / name).iterdir()),
            "rss_mb": [round(self.seen[at][2] / 1e6, 1) for at in (fifth, len(self.seen) // 2, -1)],
            "rss_growth": round(self.seen[-1][2] / first[2] - 1, 4),
            "ledger_mb": [round(self.seen[at][1] / 1e6, 2) for at in (fifth, len(self.seen) // 2, -1)],
            "ledger_largest_mb": round(max(size for _, size, _ in self.seen) / 1e6, 2),
            "rows": rows,
            "milliseconds": spent,
            "slowest_tick_seconds": round(self.slowest, 3),
            "dearest_tick_processor_seconds": round(self.dearest, 3),
            "painted_again": self.again(),
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True, help="made; on a RAM disk it is fast")
    given = parser.parse_args()
    started = time.monotonic()
    day = Day(given.folder, given.jobs, given.rounds or max(40, given.jobs // 100))
    report = day.run()
    day.daemon.stop()
    print(json.dumps({**report, "seconds": round(time.monotonic() - started)}))


if __name__ == "__main__":
    main()
