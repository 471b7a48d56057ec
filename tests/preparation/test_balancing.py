"""Stage 4b: category, segment and recency weights reach their targets (D18)."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from gpu_dcgen.preparation.balancing import (
    SEGMENTS,
    Balance,
    compute_balance,
    positive_weights,
    resample,
)
from tests.support.reference import weights
from tests.support.reference.splits import assign, emit
from tests.support.shops import loose_config, random_shop, sales, tiny_config
from tests.support.stage_shops import Stages

CASES: dict[str, dict[str, Any]] = {
    "as usual": {"segment_days": 24},
    "smooth": {"smoothing_factor": 0.0},
    "clipped": {"min_weight": 0.8, "max_weight": 1.1},
    "old hands only": {"target_distribution": (0.0, 1.0, 0.0)},
    "one segment": {"segment_days": 400},
    "a target for nobody": {"segment_days": 400, "target_distribution": (0.0, 1.0, 0.0)},
    "short memory": {"segment_days": 2, "recency_half_life_days": 1},
}


def stages_of(case: str, backend: Any, **more: Any) -> Stages:
    shop = random_shop(6, n_users=60, n_items=26, n_rows=500, dates=(24, 60))
    return Stages(backend, shop, tiny_config(category_balancing=CASES[case], **more))


def balance_of(stages: Stages) -> Balance:
    return compute_balance(
        stages.log, stages.plan, stages.config.category_balancing, stages.backend
    )


def weights_of(stages: Stages, balance: Balance) -> list[float]:
    rows, cut1 = stages.plan.positives[0].row, stages.windows.cut1
    return stages.host(positive_weights(balance, stages.log, rows, cut1, stages.backend))


def expected(stages: Stages) -> tuple[list, dict, dict]:
    """The oracle's train positives, category and segment weights."""
    positives, _ = emit(
        stages.oracle, stages.config, stages.oracle_snapshots, assign(stages.oracle, stages.config)
    )
    by_category = weights.category_weights(stages.oracle, stages.config, positives[0])
    by_segment = weights.segment_weights(stages.oracle, stages.config, positives[0], by_category)
    return positives[0], by_category, by_segment


@pytest.mark.parametrize("case", CASES)
def test_weights_are_the_oracles(case, backend):
    stages = stages_of(case, backend)
    balance = balance_of(stages)
    positives, by_category, by_segment = expected(stages)
    names = (None, *stages.log.item_columns["product_group"].values)
    assert {name: w for name, w in zip(names, balance.category, strict=True) if w} == pytest.approx(
        by_category, rel=1e-12
    )
    ours = {
        name.removesuffix("_users"): w for name, w in zip(SEGMENTS, balance.segment, strict=True)
    }
    assert {name: ours[name] for name in by_segment} == pytest.approx(by_segment, rel=1e-12)
    assert all(ours[name] == 0 for name in ours.keys() - by_segment.keys())
    weighed = [
        p.weight
        for p in weights.weigh(stages.oracle, stages.config, positives, by_category, by_segment)
    ]
    assert weights_of(stages, balance) == pytest.approx(weighed, rel=1e-12)


def test_category_weights_have_mean_one_over_the_positives(backend):
    """Where none is clipped; rarer categories weigh more."""
    stages = stages_of("as usual", backend)
    balance, (positives, *_) = balance_of(stages), expected(stages)
    group = [stages.oracle.group(p.item) for p in positives]
    names = (None, *stages.log.item_columns["product_group"].values)
    weight = dict(zip(names, balance.category, strict=True))
    assert math.fsum(weight[name] for name in group) / len(group) == pytest.approx(1, rel=1e-12)
    by_count = sorted(Counter(group).items(), key=lambda entry: entry[1])
    assert [weight[name] for name, _ in by_count] == sorted(
        (weight[name] for name, _ in by_count), reverse=True
    )
    assert by_count[0][1] < by_count[-1][1]


def test_segment_shares_reach_their_targets(backend):
    stages = stages_of("as usual", backend)
    balance, (positives, *_) = balance_of(stages), expected(stages)
    mass = dict.fromkeys(range(3), 0.0)
    segment = stages.host(balance.user_segment)
    for p, weight in zip(positives, weights_of(stages, balance), strict=True):
        mass[segment[p.user]] += weight
    total = sum(mass.values())
    assert [mass[k] / total for k in range(3)] == pytest.approx([0.2, 0.6, 0.2])
    assert [part["share_after"] for part in balance.info["segments"].values()] == pytest.approx(
        [0.2, 0.6, 0.2]
    )


def test_the_share_of_an_empty_segment_goes_to_the_others(backend):
    """With 400 days all users are new: one segment takes all, and the empty ones warn."""
    balance = balance_of(stages_of("one segment", backend))
    assert [part["share_after"] for part in balance.info["segments"].values()] == [1.0, 0.0, 0.0]
    assert balance.segment[1:] == (0.0, 0.0)
    (warning,) = balance.warnings
    assert all(f"{name} has" in warning for name in ("new_users", "active_users", "churned_users"))


def test_segments_are_known_at_the_cut(backend):
    """Train ends on day 60, the edge is day 30: first seen then is new, last seen is active."""
    days = {
        "bought late": (30, 59),
        "returned": (29, 30),
        "left": (1, 29.9),
        "came after": (61, 99),
    }
    lines = [
        (user, item, day) for user, two in days.items() for item, day in zip("ab", two, strict=True)
    ]
    filler = [("filler", item, day) for item, day in (("a", 0), ("b", 1), ("c", 2), ("d", 100))]
    few = {"random_negatives_per_positive": 1, "hard_negatives_per_positive": 0, "corpus": "all"}
    more = [
        (f"{n}{item}", item, day)
        for n in range(4)
        for item in "ab"
        for day in (3, 70 if n % 2 else 90)
    ]
    config = loose_config(category_balancing={"segment_days": 30}, negative_sampling=few)
    stages = Stages(backend, sales(*lines, *filler, *more), config)
    segment = dict(
        zip(stages.oracle.users, stages.host(balance_of(stages).user_segment), strict=True)
    )
    assert {name: SEGMENTS[segment[name]].removesuffix("_users") for name in days} == {
        "bought late": "new",
        "returned": "active",
        "left": "churned",
        "came after": "new",
    }


def test_resampling_makes_the_weights_in_expectation(backend):
    """A positive of weight w has floor(w) or floor(w) + 1 copies, w on average over seeds.

    Copies are numbered from 0, in order.
    """
    n_seeds, total, total_weight, n = 12, 0, 0.0, 0
    for seed in range(n_seeds):
        stages = stages_of("as usual", backend, seed=seed, split={"strategy": "temporal"})
        balance = balance_of(stages)
        plan = resample(balance, stages.log, stages.plan, stages.config, backend)
        rows, copies = (
            stages.host(array) for array in (plan.positives[0].row, plan.positives[0].copy)
        )
        n_copies, weight = Counter(rows), weights_of(stages, balance)
        for row, w in zip(stages.host(stages.plan.positives[0].row), weight, strict=True):
            assert n_copies[row] in (math.floor(w), math.floor(w) + 1)
        position = {
            row: place for place, row in enumerate(stages.host(stages.plan.positives[0].row))
        }
        assert sorted(zip((position[row] for row in rows), copies, strict=True)) == list(
            zip((position[row] for row in rows), copies, strict=True)
        )
        assert all(copies[place] < n_copies[row] for place, row in enumerate(rows))
        assert plan.positives[1:] == stages.plan.positives[1:]
        total, n = total + len(rows), n + len(weight)
        total_weight += math.fsum(weight)
    assert abs(total - total_weight) < 4 * 0.5 * math.sqrt(n)
