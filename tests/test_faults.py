"""The short selection of the fault harness, and that it can fail; all of it: `make faults`."""

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.faults import arrivals, crashes, surroundings  # noqa: F401  (they register)
from tests.faults.lab import Lab
from tests.faults.table import FAULTS

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parent.parent


def harness(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tests.faults", *arguments],
        check=False, cwd=ROOT, capture_output=True, text=True, timeout=500,
    )  # fmt: skip


SHORT = [
    "F1,F2,F3,F6,F10,F14,F15,F19",  # how files arrive
    "F7,F8,F9,F21,F25",  # processes that die
    "F4,F12,F13,F16,F17,F18,F20,F22,F23,F24",  # the world around
]


@pytest.mark.parametrize("faults", SHORT)
def test_nothing_is_lost_torn_early_doubled_or_wedged(faults):
    run = harness("--quick", "--only", faults)
    assert run.returncode == 0, run.stdout + run.stderr


def test_no_fault_of_the_short_selection_is_left_out():
    chosen = {number for number, each in FAULTS.items() if each.quick}
    assert {*",".join(SHORT).split(",")} == chosen


def test_a_part_of_the_faults_does_not_replace_the_table():
    assert harness("--only", "F16", "--write").returncode == 2


@pytest.mark.slow
def test_other_programs_ways_fail_where_they_are_known_to():
    run = harness("--quick", "--peers", "--only", "F6")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "parsing F6" in run.stderr


def test_that_nothing_was_torn_is_told_by_an_onlooker_who_lived_to_the_end(tmp_path):
    class Blind(Lab):
        def _look_on(self):
            pass

    with Blind(tmp_path, Random(0)) as lab:
        lab._onlooker.join()
        assert lab.tally(1).wedged == 1
    with Lab(tmp_path / "other", Random(0)) as lab:
        assert lab.tally(1).clean
