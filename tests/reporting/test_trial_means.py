"""Means over trials, by hand: Student's t for 2 and 3 trials is 12.7062 and 4.3027."""

import pytest

from tinyjax.reporting.trial_means import mean_rows, table

CONDITION = {"suite": "test", "slice": "", "corruption": "", "severity": ""}


def member(id, trial, seed=0, **fields):
    return {"member": id, "seed": seed, "backbone": "s-1", "data.common.trial": trial, **fields}


def score(id, value):
    return {"member": id, **CONDITION, "R1": value, "queries": 9}


def test_mean_and_interval_over_trials():
    members = [member("a", "1"), member("b", "2"), member("c", "3")]
    (row,) = mean_rows([score("a", 0.1), score("b", 0.2), score("c", 0.6)], members)
    assert (row["backbone"], row["suite"], row["score"], row["trials"]) == ("s-1", "test", "R1", 3)
    half = 4.30265 * (0.07 / 3) ** 0.5  # the variance of the scores is 0.07
    expected = (0.3, 0.3 - half, 0.3 + half)
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(expected, abs=1e-5)
    assert "trials" in table([row])
    assert "severity" not in table([row])


def test_seeds_of_a_trial_are_averaged_first():
    members = [member("a", "1", 0), member("b", "1", 1), member("c", "2", 0)]
    (row,) = mean_rows([score("a", 0.1), score("b", 0.3), score("c", 0.4)], members)
    assert row["trials"] == 2
    assert row["mean"] == pytest.approx(0.3)
    assert row["high"] == pytest.approx(0.3 + 12.7062 * 0.1, abs=1e-4)


def test_networks_are_separate_and_need_two_trials():
    members = [member(f"{t}{lr}", t, **{"optimizer.lr": lr}) for t in "12" for lr in "34"]
    rows = mean_rows([score(m["member"], 0.5) for m in members], members)
    assert [row["optimizer.lr"] for row in rows] == ["3", "4"]
    assert mean_rows([score("13", 0.5), score("14", 0.7)], members) == []
    assert mean_rows([score("a", 0.5)], [{"member": "a", "seed": 0, "backbone": "s-1"}]) == []
