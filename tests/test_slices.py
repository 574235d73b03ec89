"""The benchmarks' stopwatch: who is stopped does not pay for it."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

FILE = Path(__file__).parents[1] / "benchmarks" / "slices.py"
spec = importlib.util.spec_from_file_location("slices", FILE)
slices = importlib.util.module_from_spec(spec)
spec.loader.exec_module(slices)

COUNT = """
import json, sys, time
begin, ticks = time.monotonic(), 0
while ticks < 20:
    time.sleep(0.01)
    ticks += 1
open(sys.argv[1], "w").write(json.dumps([begin, time.monotonic()]))
"""


def test_only_what_lies_between_counts():
    stops = [(0, 2), (5, 6), (9, 20)]
    assert slices.running(1, 10, stops) == 9 - 1 - 1 - 1


@given(
    st.lists(st.integers(0, 100), max_size=12, unique=True),
    st.integers(0, 50),
    st.integers(50, 100),
)
def test_running_and_standing_still_make_up_the_whole(times, begin, end):
    times = sorted(times)[: len(times) // 2 * 2]
    stops = list(zip(times[::2], times[1::2], strict=True))
    still = sum(any(a <= t < b for a, b in stops) for t in range(begin, end))
    assert slices.running(begin, end, stops) == end - begin - still


def test_two_processes_run_in_turn(tmp_path):
    """Their running time adds up to no more than the whole, and neither runs in the other's."""
    files = {name: tmp_path / name for name in "ab"}
    commands = {name: [sys.executable, "-c", COUNT, str(file)] for name, file in files.items()}
    stops = {}
    slices.take_turns(commands, stops.__setitem__, seconds=0.05)
    spans = {name: json.loads(file.read_text()) for name, file in files.items()}
    run = {name: slices.running(*span, stops[name]) for name, span in spans.items()}
    assert all(0 < seconds for seconds in run.values())
    whole = max(end for _, end in spans.values()) - min(begin for begin, _ in spans.values())
    assert sum(run.values()) <= whole + 0.05
    assert all(len(s) > 1 for s in stops.values())


def test_who_fails_is_named_and_not_finished():
    finished = []
    with pytest.raises(SystemExit, match="failed: bad"):
        slices.take_turns(
            {"bad": [sys.executable, "-c", "raise SystemExit(3)"]},
            lambda name, _: finished.append(name),
        )
    assert not finished
