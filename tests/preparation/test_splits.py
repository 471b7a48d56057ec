"""Stage 4: windows cut exactly, one split a user, and where every interaction went (D7)."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_fallback import NumpyBackend
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.errors import InputError
from gpu_dcgen.preparation import assignment
from gpu_dcgen.preparation.splits import order_positives
from gpu_dcgen.preparation.windows import cut_windows
from tests.support import reference
from tests.support.reference import rng
from tests.support.reference.splits import assign, emit
from tests.support.reference.world import find_cuts
from tests.support.shops import random_shop, sales, tiny_config
from tests.support.stage_shops import Stages

STRATEGIES = {
    "one split a user": {},
    "hashed users": {"split": {"strategy": "hash"}},
    "users in all windows": {"split": {"strategy": "temporal"}},
    "row windows": {"split": {"windows": "rows"}},
    "the last two": {"split": {"strategy": "leave_last", "leave_last": 2}},
    "a gap": {"split": {"gap_days": 4}},
    "a low cap": {"filtering": {"max_user_interactions": 3}},
    "no repurchases": {"negative_sampling": {"repurchases": "drop"}},
    "a tight corpus": {"negative_sampling": {"random_negatives_per_positive": 7, "live_days": 9}},
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("seed", range(2))
def test_plan_is_the_oracles(strategy, seed, backend):
    """Splits of users, positives in order, and the ledger; they sum to all interactions."""
    tables = random_shop(seed, n_users=16, n_items=24, n_rows=300, heavy_owner=True, minutes=True)
    config = tiny_config(**STRATEGIES[strategy])
    stages = Stages(backend, tables, config)
    plan, expected = stages.plan, assign(stages.oracle, config)
    assert stages.host(plan.user_split) == [
        -1 if split is None else split for split in expected.values()
    ]
    positives, losses = emit(stages.oracle, config, stages.oracle_snapshots, expected)
    rows = stages.expected_log
    for k, ours in enumerate(plan.positives):
        got = [(rows[r].time, rows[r].user, rows[r].item) for r in stages.host(ours.row)]
        assert got == [(p.time, p.user, p.item) for p in positives[k]]
        assert ours.window_end == plan.windows.ends[k]
    ledger = {**plan.ledger, **{f"emitted_{name}": n for name, n in plan.ledger["emitted"].items()}}
    assert {name: ledger.get(name, 0) for name in losses} == losses
    assert sum(losses.values()) == stages.log.n_rows
    if strategy == "a tight corpus":
        assert losses["corpus_too_small"] > 0


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.integers(0, 2**62), min_size=5, max_size=30, unique=True),
    shares=st.sampled_from([(0.8, 0.1), (0.6, 0.2), (0.7, 0.15), (0.333, 0.333)]),
    windows=st.sampled_from(["calendar", "rows"]),
)
def test_windows_are_cut_to_the_nanosecond(times, shares, windows):
    """Also over a span of which eight times exceed int64."""
    backend = NumpyBackend()
    config = tiny_config(
        split={"train_share": shares[0], "val_share": shares[1], "windows": windows}
    )
    cuts = find_cuts(times, config.split)
    if not cuts.t0 < cuts.cut1 < cuts.cut2 <= cuts.t1:
        with pytest.raises(InputError, match="cannot be cut in three windows"):
            cut_windows(np.array(times), min(times), max(times), config.split, backend)
        return
    ours = cut_windows(np.array(times), min(times), max(times), config.split, backend)
    assert (ours.first, ours.cut1, ours.cut2, ours.last) == cuts


@pytest.fixture(scope="module")
def crowd():
    """Seven hundred users who come and go, ten items each on average."""
    return random_shop(11, n_users=700, n_items=60, n_rows=7000, dates=(120, 300), minutes=True)


def usual(**more) -> DatasetConfig:
    return tiny_config(split={"train_share": 0.8, "val_share": 0.1, **more})


def test_shares_come_near_to_those_wanted(crowd, backend):
    plan = Stages(backend, crowd, usual()).plan
    for share in plan.shares.values():
        assert abs(share["share"] - share["wanted"]) < 0.005
    assert plan.warnings == ()
    assert sum(share["positives"] for share in plan.shares.values()) == sum(
        plan.ledger["emitted"].values()
    )


def test_choosing_splits_keeps_more_than_hashing_users(crowd, backend):
    n_emitted = [
        sum(Stages(backend, crowd, usual(**s)).plan.ledger["emitted"].values())
        for s in ({}, {"strategy": "hash"})
    ]
    assert n_emitted[0] > 1.1 * n_emitted[1]


def test_hashed_users_fall_by_the_wanted_shares(crowd, backend):
    stages = Stages(backend, crowd, usual(strategy="hash"))
    chosen = stages.host(stages.plan.user_split)
    assert chosen == list(assign(stages.oracle, stages.config).values())
    for split, share in ((0, 0.8), (1, 0.1), (2, 0.1)):
        n = len(chosen)
        assert abs(chosen.count(split) - share * n) < 4 * (share * (1 - share) * n) ** 0.5


def twins(n: int = 60):
    """Users who all buy on the same days: only the seeded jitter can tell them apart."""
    days = (0, 1, 2, 13, 17, 19.5)
    return sales(
        *(
            (f"u{user:02d}", f"i{(user + turn) % 20:02d}", day)
            for user in range(n)
            for turn, day in enumerate(days)
        )
    )


def test_twins_are_told_apart_by_the_seed_alone(backend):
    few = {
        "random_negatives_per_positive": 1,
        "hard_negatives_per_positive": 0,
        "corpus": "all",
        "live_days": 90,
    }
    chosen = {}
    for seed in (1, 2):
        stages = Stages(
            backend,
            twins(),
            tiny_config(seed=seed, negative_sampling=few, features={"snapshot_days": 1}),
        )
        chosen[seed] = stages.host(stages.plan.user_split)
        assert chosen[seed] == list(assign(stages.oracle, stages.config).values())
        assert len(set(chosen[seed])) == 3
    assert chosen[1] != chosen[2]
    assert Counter(chosen[1]).keys() == Counter(chosen[2]).keys()


def test_equal_scores_go_to_the_earlier_split(backend):
    """Where the jitter is the same too."""
    scores = backend.from_host(np.array([[5, 5, 0, 7], [5, 0, 3, 7], [5, 5, 3, 9]]))
    assert backend.to_host(assignment._argmax(backend.xp, scores, [1, 1, 1])).tolist() == [
        0,
        0,
        1,
        2,
    ]


@pytest.mark.parametrize("seed", range(40))
def test_a_multiplier_is_the_least_that_gives_a_split_its_share(backend, seed, monkeypatch):
    """Against trying every multiplier, on small scores with ties and zeros."""
    monkeypatch.setattr(assignment, "_MIN_MULTIPLIER", 1)
    monkeypatch.setattr(assignment, "_MAX_MULTIPLIER", 40)
    draw = np.random.default_rng(seed).integers
    score = draw(0, 5, (3, 12))
    available = score * draw(1, 3, (3, 12))
    n_fixed, k, share = draw(0, 9, 3).tolist(), 1 + seed % 2, Fraction(seed, 50)
    multipliers = draw(1, 40, 3).tolist()

    def is_enough(multiplier):
        tried = [multiplier if j == k else multipliers[j] for j in range(3)]
        choice = assignment._argmax(np, score, tried)
        n = [n_fixed[j] + int(available[j][choice == j].sum()) for j in range(3)]
        return Fraction(n[k], max(1, sum(n))) >= share

    expected = next((m for m in range(1, 40) if is_enough(m)), 40)
    arrays = map(backend.from_host, (score, available))
    found = assignment._find_multiplier(backend.xp, k, multipliers, *arrays, n_fixed, share)
    assert found == expected


def test_a_window_without_positives_names_the_remedy(backend):
    shop = sales(
        *((user, item, day) for user in "ab" for item, day in (("x", 0), ("y", 1), ("x", 2))),
        ("c", "x", 19),
    )
    few = {"random_negatives_per_positive": 1, "hard_negatives_per_positive": 0}
    config = tiny_config(
        filtering={"min_user_interactions": 1, "min_item_interactions": 1}, negative_sampling=few
    )
    with pytest.raises(
        InputError, match=r"no positive is left in the (train|val|test) window.*\n.*filtering.min"
    ):
        _ = Stages(backend, shop, config).plan


def test_a_train_window_that_filtering_leaves_empty_names_the_remedy(backend):
    """Users and items before the cut are too rare; all interactions left are later."""
    early = [(user, item, 0) for user, item in zip("pqr", "uvw", strict=True)]
    late = [(user, item, day) for day, item in ((17, "x"), (18, "y"), (19, "z")) for user in "abc"]
    few = {"random_negatives_per_positive": 1, "hard_negatives_per_positive": 0}
    filtering = {"min_user_interactions": 2, "min_item_interactions": 2}
    shop, config = sales(*early, *late), tiny_config(filtering=filtering, negative_sampling=few)
    with pytest.raises(
        InputError,
        match=r"left in the train window, before .* of 9 in all\.\nLower filtering\.min_user",
    ):
        _ = Stages(backend, shop, config).plan
    with pytest.raises(reference.Unbuildable):
        reference.build(shop, config)


def test_shuffled_groups_follow_their_seeded_keys(backend):
    stages = Stages(backend, random_shop(3, n_users=16, n_items=24, n_rows=300), tiny_config())
    shuffled = order_positives(stages.plan, stages.config.seed, backend)
    for k, (before, after) in enumerate(
        zip(stages.plan.positives, shuffled.positives, strict=True)
    ):
        rows = stages.host(before.row)
        order = sorted(
            range(len(rows)),
            key=lambda group: (rng.key(stages.config.seed, rng.SHUFFLE, k, group), group),
        )
        assert stages.host(after.row) == [rows[group] for group in order]
        assert sorted(stages.host(after.row)) == sorted(rows)
