"""Intervals cover what they should, and a verdict needs both splits."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install '.[torch]'")

from gpu_dcgen.training.statistics import judge, resample


def test_the_difference_is_the_mean_over_positives_and_seeds():
    values = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    reference = np.array([[0.0, 0.0, 1.0]])
    resamples = resample(np.array([4, 4, 9]), 2, 0)
    result = resamples.compare(values, reference, np.array([True, True, False]))
    assert result["difference"] == pytest.approx(0.75)
    assert resamples.compare(values, reference, np.zeros(3, bool)) == {
        "difference": 0.0,
        "low": 0.0,
        "high": 0.0,
    }


def test_the_interval_is_as_wide_as_the_spread_of_the_users():
    """A thousand positives of ten users are ten observations, not a thousand."""
    random = np.random.default_rng(1)
    n_users, times = 200, 5
    user = np.repeat(np.arange(n_users), times)
    effect = np.repeat(random.normal(0.5, 1.0, n_users), times)
    resamples = resample(user, 1, 0)
    result = resamples.compare(effect[None], np.zeros((1, len(user))), np.ones(len(user), bool))
    half = (result["high"] - result["low"]) / 2
    assert half == pytest.approx(1.96 / np.sqrt(n_users), rel=0.15)
    assert result["low"] < result["difference"] < result["high"]


def test_the_interval_covers_the_truth_as_often_as_it_says():
    random, n_covered = np.random.default_rng(2), 0
    user = np.arange(60)
    for trial in range(200):
        values = random.normal(0.0, 1.0, (1, 60))
        result = resample(user, 1, trial).compare(values, np.zeros((1, 60)), np.ones(60, bool))
        n_covered += result["low"] <= 0 <= result["high"]
    assert 0.88 <= n_covered / 200 <= 0.99


def test_equal_rankings_differ_by_nothing_however_they_spread():
    values = np.random.default_rng(0).random((3, 50))
    result = resample(np.arange(50) // 5, 3, 0).compare(values, values, np.ones(50, bool))
    assert result == {"difference": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.parametrize(
    ("intervals", "verdict"),
    [
        ([(0.1, 0.2), (0.01, 0.3)], "helps"),
        ([(-0.2, -0.1), (-0.3, -0.01)], "hurts"),
        ([(0.1, 0.2), (-0.01, 0.3)], "no clear effect"),
        ([(0.1, 0.2), (-0.3, -0.1)], "no clear effect"),
        ([(0.0, 0.0), (0.0, 0.0)], "no clear effect"),
    ],
)
def test_an_effect_needs_both_splits_on_one_side(intervals, verdict):
    differences = [{"difference": 0.0, "low": low, "high": high} for low, high in intervals]
    assert judge(differences) == verdict
