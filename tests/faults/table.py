"""The table: which faults there are, how often each is injected, and what came of it.

python -m tests.faults [--seed N] [--only F1,F8] [--quick] [--peers] [--write]
"""

import argparse
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.faults.lab import COLUMNS, ROOT, Lab, Tally, open_forkserver

FILE = ROOT / "docs/faults.md"
HEAD = ("", "Fault", *COLUMNS)
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


@dataclass(frozen=True)
class Bench:
    """Where one fault is injected: its own folder, its own dice, and whose watcher is tried."""

    base: Path
    rng: Random
    kind: str = "stylewatch"

    def lab(self, name: str = "lab", **settings: object) -> Lab:
        after = settings.pop("after", "keep")
        return Lab(self.base / name, Random(self.rng.random()), self.kind, settings, after)


@dataclass(frozen=True)
class Fault:
    number: str
    title: str
    inject: Callable[[Bench, int], Tally]
    times: int
    quick: int
    """How often it is injected in the short selection; 0 = not at all."""
    alone: bool
    """It measures time, or wants the whole machine."""


FAULTS: dict[str, Fault] = {}


def fault(number: str, title: str, *, times: int, quick: int = 0, alone: bool = False):
    """Registers a function that injects a fault about so many times and returns the verdict."""

    def register(inject: Callable[[Bench, int], Tally]) -> Callable[[Bench, int], Tally]:
        FAULTS[number] = Fault(number, title, inject, times, quick, alone)
        return inject

    return register


def main(arguments: list[str] | None = None) -> int:
    from tests.faults import arrivals, crashes, surroundings  # noqa: F401  (they register)

    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="faults, as F1,F8")
    parser.add_argument("--quick", action="store_true", help="the short selection of `make test`")
    parser.add_argument(
        "--peers", action="store_true", help="the re-created peers' watchers instead"
    )
    parser.add_argument("--write", action="store_true", help=f"put the table into {FILE}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="faults at a time")
    args = parser.parse_args(arguments)
    if args.write and (args.only or args.quick or args.peers):
        parser.error("--write puts down the whole table")
    open_forkserver()
    chosen = [each for each in args.only.split(",") if each] or sorted(FAULTS, key=_order)
    faults = [FAULTS[number] for number in chosen]
    if args.quick:
        faults = [each for each in faults if each.quick]
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        if args.peers:
            return _peers(Path(folder), faults, args.seed, quick=args.quick)
        tallies = _inject(Path(folder), faults, args)
    rows = [(each, tallies[each.number]) for each in sorted(faults, key=lambda f: _order(f.number))]
    table = _markdown([_cells(each.number, each.title, tally) for each, tally in rows])
    print(table)
    if args.write:
        _write(table)
    return 0 if all(tally.clean for _, tally in rows) else 1


def _order(number: str) -> int:
    return int(number[1:])


def _inject(base: Path, faults: list[Fault], args: argparse.Namespace) -> dict[str, Tally]:
    """Several at a time, since they mostly wait; then those that want the machine for themselves."""
    tallies: dict[str, Tally] = {}

    def work(each: Fault) -> None:
        tallies[each.number] = _one(base / each.number, each, args.seed, quick=args.quick)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(work, (each for each in faults if not each.alone)))
    for each in faults:
        if each.alone:
            work(each)
    return tallies


def _one(base: Path, each: Fault, seed: int, *, quick: bool, kind: str = "stylewatch") -> Tally:
    began = time.monotonic()
    bench = Bench(base, Random(f"{seed} {each.number}"), kind)
    base.mkdir(parents=True)
    try:
        tally = each.inject(bench, each.quick if quick else each.times)
    except Exception:
        tally = Tally(wedged=1, why=(traceback.format_exc(),))
    if not tally.injected:
        tally += Tally(why=("the fault was never injected",))
    spent = time.monotonic() - began
    numbers = " ".join(f"{name} {getattr(tally, name)}" for name in COLUMNS)
    print(
        f"{kind} {each.number} {each.title}: {numbers}, {spent:.0f} s", file=sys.stderr, flush=True
    )
    for why in tally.why[:8]:
        print(f"    {why}", file=sys.stderr, flush=True)
    return tally


def _peers(base: Path, faults: list[Fault], seed: int, *, quick: bool) -> int:
    """The same drops for other programs' logic; 0 when each of them fails somewhere."""
    failed = set()
    rows = []
    for kind in ("bare", "parsing"):
        for each in faults:
            if each.number in PEERS:
                tally = _one(base / kind / each.number, each, seed, quick=quick, kind=kind)
                rows.append(_cells(f"{kind}, {each.number}", each.title, tally))
                failed |= set() if tally.clean else {kind}
    print(_markdown(rows))
    return 0 if failed == {"bare", "parsing"} else 1


PEERS = ("F1", "F2", "F3", "F4", "F6", "F8", "F10")
"""What a program without a config, a ledger and commands can be asked at all."""


def _cells(number: str, title: str, tally: Tally) -> list[str]:
    return [number, title, *(str(getattr(tally, name)) for name in COLUMNS)]


def _markdown(rows: list[list[str]]) -> str:
    lines = [HEAD, ("---", "---", *("---:" for _ in COLUMNS)), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _write(table: str) -> None:
    text = FILE.read_text(encoding="utf-8")
    part = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if not part.search(text):
        raise SystemExit(f"{FILE} has no place for the table: {BEGIN} … {END}")
    FILE.write_text(part.sub(lambda _: f"{BEGIN}\n{table}\n{END}", text), encoding="utf-8")
