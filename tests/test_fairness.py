"""Whose turn it is: by weight and cost, and nobody waits long or saves up."""

import pytest

from stylewatch.host.fairness import FairShare


def served(share, folders, turns, *, costs=None, weights=None):
    """Whom so many turns go to, while all of these folders have jobs."""
    order = []
    for _ in range(turns):
        order.append(folder := share.pick(folders))
        share.charge(folder, (costs or {}).get(folder, 30.0), (weights or {}).get(folder, 1.0))
    return "".join(order)


def test_without_a_folder_that_waits_it_is_nobody_s_turn():
    assert FairShare().pick([]) is None


def test_folders_of_equal_weight_take_turns():
    assert served(FairShare(), "ab", 6) == "ababab"


@pytest.mark.parametrize("unequal", [{"weights": {"a": 3.0}}, {"costs": {"a": 10.0}}])
def test_turns_are_shared_by_weight_and_cost(unequal):
    order = served(FairShare(), "ab", 400, **unequal)
    assert order.count("a") == pytest.approx(300, abs=2)
    assert "aaaaaa" not in order


def test_one_photo_in_a_quiet_folder_does_not_wait_for_a_full_one():
    share = FairShare()
    served(share, "b", 1000)
    assert "q" in served(share, "bq", 2)


def test_who_was_away_does_not_save_up_turns():
    share = FairShare()
    served(share, "ab", 2)
    served(share, "a", 100)
    assert served(share, "ab", 8).count("a") == 4
