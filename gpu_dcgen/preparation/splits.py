"""Stage 4: who becomes a positive where: windows, one split a user, what is emitted, what is lost and why (D5, D7, D11, D12)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from ..backend.protocol import Array, Backend
from ..backend.runs import count_codes, run_starts
from ..config.dataset_config import DatasetConfig
from ..contract.schema import SPLITS
from ..errors import GateError, InputError
from ..kernels import rng
from ..kernels.draws import count_eligible
from .features import Features
from .interactions import Interactions
from .windows import Windows, wanted_shares

_ONE = 1 << 14  # the multiplier 1.0
_LEAST, _MOST = 1 << 4, 1 << 24  # multipliers 1/1024 .. 1024
_JITTER_BITS = 10  # of 20: scores within 0.1 % are ties, decided by a seeded hash
_ROUNDS = 12
_TOLERANCE = 0.02  # positive shares further than this from those wanted are warned about (D7)


@dataclass(frozen=True)
class Positives:
    """The emitted interactions of one split, in the file's order."""

    split: str
    row: Array  # (n,) int64  row of Interactions
    copy: Array  # (n,) int32  0, or the number of the copy (D18, resample)
    window_start: int  # nanoseconds
    window_end: int  # what the user buys from here on is unknown to this split (D8)

    def __len__(self) -> int:
        return int(self.row.shape[0])


@dataclass(frozen=True)
class SplitPlan:
    """Positives of train, val and test, and where every kept interaction went."""

    windows: Windows
    user_split: Array  # (U,) int8  0 train, 1 val, 2 test, -1 none; all -1 with strategy `temporal`
    positives: tuple[
        Positives, Positives, Positives
    ]  # by (time, user, item), until `order_positives`
    ledger: dict[
        str, Any
    ]  # reason -> kept interactions, with `emitted` per split (before resampling); sums to all of them
    shares: dict[str, dict[str, float]]  # split -> positives, share, users
    warnings: tuple[str, ...]


def plan_splits(
    interactions: Interactions,
    features: Features,
    windows: Windows,
    config: DatasetConfig,
    backend: Backend,
) -> SplitPlan:
    """Give each user one split so that most positives are kept at the wanted shares, and list the positives (D7).

    Only times decide who goes where; losses to the corpus (D11, D12) come afterwards, in the ledger.
    Raises InputError when a split has no positive.
    """
    xp = backend.xp
    window = (interactions.time >= windows.cut1).astype(xp.int8) + (
        interactions.time >= windows.cut2
    ).astype(xp.int8)
    start = interactions.user_offsets[interactions.user]
    long_enough = (
        interactions.basket_start - start >= config.sequence_processing.min_sequence_length
    )
    cap = config.filtering.max_user_interactions
    available = xp.stack(
        [
            xp.minimum(
                count_codes(
                    xp, interactions.user[long_enough & (window == k)], interactions.n_users
                ),
                cap,
            )
            for k in range(3)
        ]
    )
    strategy = config.split.strategy
    if strategy == "temporal":
        user_split = xp.full(interactions.n_users, -1, dtype=xp.int8)
        split = window
    else:
        assign = _assign_by_hash if strategy == "hash" else _assign_most
        user_split = assign(available, interactions.user_key, config, backend)
        split = user_split[interactions.user]

    reason = _Reasons(xp, interactions.n_rows)
    reason.lose("no_split", split < 0)
    reason.lose("history", window < split)
    reason.lose("later_unused", window > split)
    reason.lose("short_history", ~long_enough)
    reason.lose("over_cap", _over_cap(xp, interactions, window, reason.left(), cap))
    snapshots = features.snapshots
    snapshot = (interactions.time - snapshots.origin) // snapshots.step
    reason.lose("not_on_sale", ~snapshots.on_sale[snapshot, interactions.item])
    if config.negative_sampling.repurchases == "drop":
        reason.lose("repurchase", features.is_repurchase)
    reason.lose(
        "corpus_too_small",
        _corpus_too_small(
            interactions, features, windows, snapshot, window, reason.left(), config, backend
        ),
    )

    emitted = reason.left()[interactions.by_time]
    window_by_time = window[interactions.by_time]
    positives = []
    for k, name in enumerate(SPLITS):
        row = interactions.by_time[emitted & (window_by_time == k)]
        copy = xp.zeros(row.shape[0], dtype=xp.int32)
        positives.append(Positives(name, row, copy, windows.starts[k], windows.ends[k]))
    shares, warnings = measure_shares(interactions, positives, config, backend)
    ledger = {"emitted": {p.split: len(p) for p in positives}, **reason.counts}
    return SplitPlan(windows, user_split, tuple(positives), ledger, shares, warnings)


class _Reasons:
    """Each interaction leaves for the first reason that takes it."""

    def __init__(self, xp: Any, n_rows: int) -> None:
        self._left = xp.ones(n_rows, dtype=bool)
        self.counts: dict[str, int] = {}

    def lose(self, name: str, mask: Array) -> None:
        self.counts[name] = int((self._left & mask).sum())
        self._left = self._left & ~mask

    def left(self) -> Array:
        return self._left


def _assign_most(
    available: Array, user_key: Array, config: DatasetConfig, backend: Backend
) -> Array:
    """User u goes to argmax_k lambda_k * n_uk; the multipliers are found by bisection, in turns, in integers.

    A seeded jitter of up to 0.1 % decides ties, so that a multiplier can split users with equal counts.
    """
    xp = backend.xp
    n_users = int(available.shape[1])
    user_key = rng.fold_array(rng.purpose_key(config.seed, rng.USER_SPLIT), user_key)
    mask = (1 << _JITTER_BITS) - 1
    jitter = xp.stack(
        [
            rng.fold_array(user_key, xp.full(n_users, k, dtype=xp.int64)).astype(xp.int64) & mask
            for k in range(3)
        ]
    )
    score = available * ((1 << 20) + jitter)
    wanted = wanted_shares(config)
    # Users with one window only go there whatever the multipliers are: leave them out of the
    # search.
    free = xp.nonzero((available > 0).sum(axis=0) > 1)[0]
    free_score, free_available = score[:, free], available[:, free]
    fixed = [int(available[k].sum() - free_available[k].sum()) for k in range(3)]

    def share_of(k: int, multipliers: list[int]) -> Fraction:
        choice = _argmax(xp, free_score, multipliers)
        kept = [fixed[j] + int(free_available[j][choice == j].sum()) for j in range(3)]
        return Fraction(kept[k], max(1, sum(kept)))

    multipliers = [_ONE, _ONE, _ONE]
    for _ in range(_ROUNDS):
        before = list(multipliers)
        for k in (1, 2):
            low, high = _LEAST, _MOST
            while low < high:
                middle = (low + high) // 2
                multipliers[k] = middle
                if share_of(k, multipliers) >= wanted[k]:
                    high = middle
                else:
                    low = middle + 1
            multipliers[k] = low
        if multipliers == before:
            break
    choice = _argmax(xp, score, multipliers)
    return xp.where(available.sum(axis=0) > 0, choice, -1).astype(xp.int8)


def _argmax(xp: Any, score: Array, multipliers: list[int]) -> Array:
    best, choice = score[0] * multipliers[0], xp.zeros(score.shape[1], dtype=xp.int8)
    for k in (1, 2):
        value = score[k] * multipliers[k]
        choice = xp.where(value > best, k, choice).astype(xp.int8)
        best = xp.maximum(best, value)
    return choice


def _assign_by_hash(
    available: Array, user_key: Array, config: DatasetConfig, backend: Backend
) -> Array:
    """A seeded hash of the user decides, by the wanted shares; users with nothing in their split emit nothing."""
    xp = backend.xp
    hashed = rng.fold_array(rng.purpose_key(config.seed, rng.USER_SPLIT), user_key)
    train, val, _ = wanted_shares(config)
    bounds = [xp.uint64(math.floor(share * 2**64)) for share in (train, train + val)]
    return (hashed >= bounds[0]).astype(xp.int8) + (hashed >= bounds[1]).astype(xp.int8)


def _over_cap(xp: Any, interactions: Interactions, window: Array, left: Array, cap: int) -> Array:
    """Rows beyond the latest `cap` of their user and window among those left, in (time, item) order."""
    rows = xp.nonzero(left)[0]
    over = xp.zeros(interactions.n_rows, dtype=bool)
    if rows.shape[0]:
        user, part = interactions.user[rows], window[rows]
        first = run_starts(
            xp, user, part
        )  # windows follow one another in time, so a user's are runs
        starts = xp.nonzero(first)[0]
        stops = xp.concatenate([starts[1:], xp.full(1, rows.shape[0], dtype=starts.dtype)])
        from_end = stops[xp.cumsum(first) - 1] - xp.arange(rows.shape[0])
        over[rows[from_end > cap]] = True
    return over


def _corpus_too_small(
    interactions: Interactions,
    features: Features,
    windows: Windows,
    snapshot: Array,
    window: Array,
    left: Array,
    config: DatasetConfig,
    backend: Backend,
) -> Array:
    """Rows whose corpus, less owned items and siblings, cannot fill the group (D12); most are cleared by their counts alone."""
    xp = backend.xp
    n_hard = config.negative_sampling.hard_negatives_per_positive
    n_negatives = n_hard + config.negative_sampling.random_negatives_per_positive
    snapshots = features.snapshots
    code = interactions.item_columns["product_code"].codes
    n_siblings = int(
        count_codes(
            xp, code[code >= 0], max(1, len(interactions.item_columns["product_code"].values))
        ).max()
    )
    size = xp.diff(snapshots.corpus_offsets)[snapshot]
    owned = xp.diff(features.owned_offsets)[interactions.user]
    rows = xp.nonzero(left & (size - owned - n_siblings < n_negatives))[0]
    small = xp.zeros(interactions.n_rows, dtype=bool)
    if rows.shape[0]:
        eligible = xp.empty((rows.shape[0], 2), dtype=xp.int32)
        ends = backend.from_host(windows.ends)[window[rows]]
        backend.for_each(
            count_eligible,
            int(rows.shape[0]),
            interactions.user[rows],
            interactions.item[rows],
            snapshot[rows],
            ends,
            snapshots.corpus_offsets,
            snapshots.corpus,
            features.owned_offsets,
            features.owned_item,
            features.owned_since,
            code,
            eligible,
        )
        small[rows] = (eligible[:, 0] < n_negatives) | (eligible[:, 1] < n_hard)
    return small


def measure_shares(
    interactions: Interactions,
    positives: Sequence[Positives],
    config: DatasetConfig,
    backend: Backend,
) -> tuple[dict[str, dict[str, float]], tuple[str, ...]]:
    """Positives, their share and users per split, and a warning for each share that is over 2 points off.

    Raises InputError for a split without positives.
    """
    xp = backend.xp
    n_all = sum(len(p) for p in positives)
    shares, warnings = {}, []
    for p, wanted in zip(positives, map(float, wanted_shares(config)), strict=True):
        if not len(p):
            raise InputError(
                f"no positive is left in the {p.split} window of {n_all} in all.\n"
                "Bring a longer log, lower filtering.min_* or sequence_processing.min_sequence_length, "
                "or move the cuts with split.train_share / split.val_share."
            )
        share = len(p) / n_all
        users = count_codes(xp, interactions.user[p.row], interactions.n_users) > 0
        shares[p.split] = {
            "positives": len(p),
            "share": share,
            "wanted": wanted,
            "users": int(users.sum()),
        }
        if config.split.strategy != "temporal" and abs(share - wanted) > _TOLERANCE:
            warnings.append(
                f"split: {p.split} has {share:.1%} of the positives, {wanted:.1%} wanted; the log's windows do not allow it"
            )
    return shares, tuple(warnings)


def positive_users(interactions: Interactions, plan: SplitPlan, backend: Backend) -> list[Array]:
    """For each split, whether a user has positives in it, (U,) bool."""
    return [
        count_codes(backend.xp, interactions.user[p.row], interactions.n_users) > 0
        for p in plan.positives
    ]


def require_disjoint_users(
    interactions: Interactions, plan: SplitPlan, config: DatasetConfig, backend: Backend
) -> None:
    """GateError where a user has positives in two splits; with strategy `temporal` users may be in several (D7)."""
    if config.split.strategy == "temporal":
        return
    present = positive_users(interactions, plan, backend)
    n_shared = int(
        (present[0] & present[1] | present[0] & present[2] | present[1] & present[2]).sum()
    )
    if n_shared:
        raise GateError(
            f"critical gate failed, nothing was published: {n_shared} users have positives in more than one split.\n"
            "This is a defect of gpu-dcgen, not of your data: please report it."
        )


def order_positives(plan: SplitPlan, config: DatasetConfig, backend: Backend) -> SplitPlan:
    """The same plan with each split's groups in a seeded permutation (`output.order: shuffled`)."""
    xp = backend.xp
    shuffled = []
    for k, positives in enumerate(plan.positives):
        key = rng.fold_array(
            rng.purpose_key(config.seed, rng.SHUFFLE), xp.full(len(positives), k, dtype=xp.int64)
        )
        order = xp.argsort(
            rng.fold_array(key, xp.arange(len(positives), dtype=xp.int64)), kind="stable"
        )
        shuffled.append(replace(positives, row=positives.row[order], copy=positives.copy[order]))
    return replace(plan, positives=tuple(shuffled))
