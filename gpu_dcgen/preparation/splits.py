"""Stage 4: assign users to splits and list the positives of each (D5, D7, D11, D12)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from ..backend.protocol import Array, Backend
from ..backend.runs import count_codes, run_starts
from ..config import DatasetConfig, SplitConfig
from ..contract.schema import SPLITS
from ..errors import GateError, InputError
from ..kernels import rng
from ..kernels.arguments import DrawTables
from ..kernels.draws import PurchaseRows, count_eligible
from .features import AsOfFeatures
from .interactions import Interactions
from .windows import Windows, wanted_shares

_ONE = 1 << 14  # the multiplier 1.0
_MIN_MULTIPLIER, _MAX_MULTIPLIER = 1 << 4, 1 << 24  # 1/1024 .. 1024
_JITTER_BITS = 10  # of 20: scores within 0.1 % are ties, decided by a seeded hash
_ROUNDS = 12
_TOLERANCE = 0.02  # shares of positives further than this from those wanted warn (D7)


@dataclass(frozen=True)
class Positives:
    """The emitted interactions of one split, in the file's order."""

    split: str
    row: Array  # (n,) int64  row of Interactions
    copy: Array  # (n,) int32  0, or the number of the copy (D18, resample)
    window_start: int  # nanoseconds
    window_end: int  # what the user buys at or after this time is unknown to this split (D8)

    def __len__(self) -> int:
        return int(self.row.shape[0])


@dataclass(frozen=True)
class SplitPlan:
    """Positives of train, val and test, and the number of interactions lost by reason."""

    windows: Windows
    user_split: Array  # (U,) int8  0 train, 1 val, 2 test, -1 none; all -1 with strategy `temporal`
    # train, val, test; each by (time, user, item) until `order_positives`
    positives: tuple[Positives, ...]
    # reason -> interactions, and `emitted` -> split -> interactions before resampling; all
    # interactions are counted once
    ledger: dict[str, Any]
    shares: dict[str, dict[str, float]]  # split -> positives, share, wanted, users
    warnings: tuple[str, ...]


def plan_splits(
    interactions: Interactions,
    features: AsOfFeatures,
    windows: Windows,
    config: DatasetConfig,
    backend: Backend,
) -> SplitPlan:
    """Assign each user to one split and list the positives of each split (D7).

    Users are assigned so that most positives are emitted at the wanted shares. The assignment
    depends on times alone; losses to the corpus (D11, D12) are counted afterwards, in the ledger.
    Raises InputError when a split has no positive.
    """
    xp = backend.xp
    window = windows.number_of(xp, interactions.time)
    start = interactions.user_offsets[interactions.user]
    is_long_enough = (
        interactions.basket_start - start >= config.sequence_processing.min_sequence_length
    )
    cap = config.filtering.max_user_interactions
    if config.split.strategy == "temporal":
        user_split = xp.full(interactions.n_users, -1, dtype=xp.int8)
        split = window
    else:
        user, n_users = interactions.user, interactions.n_users
        available = xp.stack(
            [
                xp.minimum(count_codes(xp, user[is_long_enough & (window == k)], n_users), cap)
                for k in range(3)
            ]
        )
        user_split = _assign_users(available, interactions.user_key, config, backend)
        split = user_split[user]

    losses = _Losses(xp, interactions.n_rows)
    losses.add("no_split", split < 0)
    losses.add("history", window < split)
    losses.add("later_unused", window > split)
    losses.add("short_history", ~is_long_enough)
    losses.add("over_cap", _find_over_cap(xp, interactions, window, losses.remaining, cap))
    snapshots = features.snapshots
    snapshot = snapshots.number_of(interactions.time)
    losses.add("not_on_sale", ~snapshots.on_sale[snapshot, interactions.item])
    if config.negative_sampling.repurchases == "drop":
        losses.add("repurchase", features.is_repurchase)
    rows = _find_too_small(
        xp.nonzero(losses.remaining)[0], window, windows, interactions, features, config, backend
    )
    too_small = xp.zeros(interactions.n_rows, dtype=bool)
    too_small[rows] = True
    losses.add("corpus_too_small", too_small)

    is_emitted = losses.remaining[interactions.by_time]
    window_by_time = window[interactions.by_time]
    positives = []
    for k, name in enumerate(SPLITS):
        row = interactions.by_time[is_emitted & (window_by_time == k)]
        copy = xp.zeros(row.shape[0], dtype=xp.int32)
        positives.append(Positives(name, row, copy, windows.starts[k], windows.ends[k]))
    shares, warnings = measure_shares(interactions, positives, config.split, backend)
    ledger = {"emitted": {p.split: len(p) for p in positives}, **losses.counts}
    return SplitPlan(windows, user_split, tuple(positives), ledger, shares, warnings)


class _Losses:
    """Interactions lost by reason; each is counted for the first reason that applies to it."""

    def __init__(self, xp: Any, n_rows: int) -> None:
        self.remaining: Array = xp.ones(n_rows, dtype=bool)
        self.counts: dict[str, int] = {}

    def add(self, reason: str, mask: Array) -> None:
        """Remove the interactions of `mask` (E,) bool that are not lost yet."""
        self.counts[reason] = int((self.remaining & mask).sum())
        self.remaining = self.remaining & ~mask


def _assign_users(
    available: Array, user_key: Array, config: DatasetConfig, backend: Backend
) -> Array:
    """Return each user's split (U,) int8: 0 train, 1 val, 2 test, -1 none.

    available (3, U) int64 counts the positives of each user in each window.
    """
    shares = wanted_shares(config.split)
    key = rng.fold_array(rng.purpose_key(config.seed, rng.USER_SPLIT), user_key)
    if config.split.strategy == "hash":
        return _assign_by_hash(key, shares, backend)
    return _assign_to_emit_most(available, key, shares, backend)


def _assign_to_emit_most(
    available: Array, key: Array, shares: Sequence[Fraction], backend: Backend
) -> Array:
    """Assign user u to argmax_k multiplier_k * available[k, u].

    The multipliers are integers, each found by bisection in turn so that its split gets its share.
    A seeded jitter of up to 0.1 % decides ties, so that a multiplier can separate users with equal
    counts.
    """
    xp = backend.xp
    n_users = int(available.shape[1])
    mask = (1 << _JITTER_BITS) - 1
    jitter = xp.stack(
        [
            rng.fold_array(key, xp.full(n_users, k, dtype=xp.int64)).astype(xp.int64) & mask
            for k in range(3)
        ]
    )
    score = available * ((1 << 20) + jitter)
    # Users with positives in one window only are assigned to it whatever the multipliers are: the
    # search leaves them out.
    free = xp.nonzero((available > 0).sum(axis=0) > 1)[0]
    free_score, free_available = score[:, free], available[:, free]
    n_fixed = [int(available[k].sum() - free_available[k].sum()) for k in range(3)]

    def share_of(k: int, multipliers: list[int]) -> Fraction:
        choice = _argmax(xp, free_score, multipliers)
        n = [n_fixed[j] + int(free_available[j][choice == j].sum()) for j in range(3)]
        return Fraction(n[k], max(1, sum(n)))

    multipliers = [_ONE, _ONE, _ONE]
    for _ in range(_ROUNDS):
        before = list(multipliers)
        for k in (1, 2):
            low, high = _MIN_MULTIPLIER, _MAX_MULTIPLIER
            while low < high:
                middle = (low + high) // 2
                multipliers[k] = middle
                if share_of(k, multipliers) >= shares[k]:
                    high = middle
                else:
                    low = middle + 1
            multipliers[k] = low
        if multipliers == before:
            break
    choice = _argmax(xp, score, multipliers)
    return xp.where(available.sum(axis=0) > 0, choice, -1).astype(xp.int8)


def _argmax(xp: Any, score: Array, multipliers: list[int]) -> Array:
    """Return the split of each user's largest weighted score (U,) int8; ties: the earlier one."""
    best, choice = score[0] * multipliers[0], xp.zeros(score.shape[1], dtype=xp.int8)
    for k in (1, 2):
        value = score[k] * multipliers[k]
        choice = xp.where(value > best, k, choice).astype(xp.int8)
        best = xp.maximum(best, value)
    return choice


def _assign_by_hash(key: Array, shares: Sequence[Fraction], backend: Backend) -> Array:
    """Assign users by a seeded hash; users without positives in their split emit nothing."""
    xp = backend.xp
    train, val, _ = shares
    bounds = [xp.uint64(math.floor(share * 2**64)) for share in (train, train + val)]
    return (key >= bounds[0]).astype(xp.int8) + (key >= bounds[1]).astype(xp.int8)


def _find_over_cap(
    xp: Any, interactions: Interactions, window: Array, is_remaining: Array, cap: int
) -> Array:
    """Return whether each remaining row is not among the latest `cap` of its user and window.

    The latest are those in (time, item) order.
    """
    rows = xp.nonzero(is_remaining)[0]
    is_over = xp.zeros(interactions.n_rows, dtype=bool)
    if rows.shape[0]:
        # Windows follow one another in time, so the rows of a user and window are a run.
        is_first = run_starts(xp, interactions.user[rows], window[rows])
        starts = xp.nonzero(is_first)[0]
        stops = xp.concatenate([starts[1:], xp.full(1, rows.shape[0], dtype=starts.dtype)])
        from_end = stops[xp.cumsum(is_first) - 1] - xp.arange(rows.shape[0])
        is_over[rows[from_end > cap]] = True
    return is_over


def _find_too_small(
    rows: Array,
    window: Array,
    windows: Windows,
    interactions: Interactions,
    features: AsOfFeatures,
    config: DatasetConfig,
    backend: Backend,
) -> Array:
    """Select `rows` with too few items on sale that are neither owned nor siblings (D12).

    Sizes alone clear most rows; the kernel counts exactly for the others.
    """
    xp = backend.xp
    n_hard = config.negative_sampling.hard_negatives_per_positive
    n_negatives = config.negatives_per_positive
    snapshots, product = features.snapshots, interactions.item_columns["product_code"]
    n_siblings = int(
        count_codes(xp, product.codes[product.codes >= 0], max(1, len(product.values))).max()
    )
    snapshot = snapshots.number_of(interactions.time[rows])
    size = xp.diff(snapshots.corpus.offsets)[snapshot]
    n_owned = xp.diff(features.ownership.offsets)[interactions.user[rows]]
    is_doubtful = size - n_owned - n_siblings < n_negatives
    rows, snapshot = rows[is_doubtful], snapshot[is_doubtful]
    if not rows.shape[0]:
        return rows
    n_eligible = xp.empty((rows.shape[0], 2), dtype=xp.int32)
    purchases = PurchaseRows(
        user=interactions.user[rows],
        item=interactions.item[rows],
        snapshot=snapshot,
        window_end=backend.from_host(windows.ends)[window[rows]],
    )
    tables = DrawTables(snapshots.corpus, features.ownership, product.codes)
    backend.for_each(count_eligible, int(rows.shape[0]), purchases, tables, n_eligible)
    return rows[(n_eligible[:, 0] < n_negatives) | (n_eligible[:, 1] < n_hard)]


def measure_shares(
    interactions: Interactions, positives: Sequence[Positives], split: SplitConfig, backend: Backend
) -> tuple[dict[str, dict[str, float]], tuple[str, ...]]:
    """Return positives, share and users of each split, and a warning for each share far off.

    A share is far off where it differs by more than 2 points from the wanted one. Raises
    InputError for a split without positives.
    """
    n_all = sum(len(p) for p in positives)
    shares: dict[str, dict[str, float]] = {}
    warnings = []
    for p, wanted in zip(positives, map(float, wanted_shares(split)), strict=True):
        if not len(p):
            raise InputError(
                f"no positive is left in the {p.split} window of {n_all} in all.\n"
                "Use a longer log, lower filtering.min_* or "
                "sequence_processing.min_sequence_length, or move the cuts with "
                "split.train_share / split.val_share."
            )
        share = len(p) / n_all
        shares[p.split] = {
            "positives": len(p),
            "share": share,
            "wanted": wanted,
            "users": int(_has_positives(interactions, p, backend).sum()),
        }
        if split.strategy != "temporal" and abs(share - wanted) > _TOLERANCE:
            warnings.append(
                f"split: {p.split} has {share:.1%} of the positives, {wanted:.1%} wanted; "
                "the log's windows do not allow it"
            )
    return shares, tuple(warnings)


def _has_positives(interactions: Interactions, positives: Positives, backend: Backend) -> Array:
    return count_codes(backend.xp, interactions.user[positives.row], interactions.n_users) > 0


def positive_users(interactions: Interactions, plan: SplitPlan, backend: Backend) -> list[Array]:
    """Return for each split whether each user has positives in it, (U,) bool."""
    return [_has_positives(interactions, positives, backend) for positives in plan.positives]


def require_disjoint_users(
    interactions: Interactions, plan: SplitPlan, split: SplitConfig, backend: Backend
) -> None:
    """Raise GateError where a user has positives in two splits (D7).

    With strategy `temporal` users may be in several.
    """
    if split.strategy == "temporal":
        return
    train, val, test = positive_users(interactions, plan, backend)
    n_shared = int((train & val | train & test | val & test).sum())
    if n_shared:
        raise GateError(
            f"critical gate failed, nothing was published: {n_shared} users have positives in "
            "more than one split.\n"
            "This is a defect of gpu-dcgen, not of your data: please report it."
        )


def order_positives(plan: SplitPlan, seed: int, backend: Backend) -> SplitPlan:
    """Shuffle each split's groups by a seeded permutation (`output.order: shuffled`)."""
    xp = backend.xp
    shuffled = []
    for k, positives in enumerate(plan.positives):
        n = len(positives)
        key = rng.fold_array(rng.purpose_key(seed, rng.SHUFFLE), xp.full(n, k, dtype=xp.int64))
        order = xp.argsort(rng.fold_array(key, xp.arange(n, dtype=xp.int64)), kind="stable")
        shuffled.append(replace(positives, row=positives.row[order], copy=positives.copy[order]))
    return replace(plan, positives=tuple(shuffled))
