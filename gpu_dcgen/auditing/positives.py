"""Select the positives of each split (D5, D7, D11, D12) and weigh them (D18)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..config import DatasetConfig
from ..contract.schema import SPLITS
from .assignment import assign_splits
from .hashes import RESAMPLE, SHUFFLE, make_keys
from .item_snapshots import ItemSnapshots
from .purchase_log import DAY, Cuts, PurchaseLog

SEGMENTS = ("new", "active", "churned")
NEW, ACTIVE, CHURNED = range(3)


class BalancingWeights(NamedTuple):
    """The factors of the train positives' weights."""

    category: np.ndarray  # (1 + groups,) float64, the first of null; 0 for groups without positives
    segment: dict[str, float]
    rows: np.ndarray  # (n,) float64  category x segment x recency of each positive


@dataclass(frozen=True)
class ExpectedPositives:
    """The positives of the splits in file order, as rows of the whole log."""

    user_split: np.ndarray  # (U,) int8  -1 none
    rows: list[np.ndarray]  # by split, int64
    copies: list[np.ndarray]  # by split, int64: number of each among the copies of its row
    ledger: dict[str, Any]  # purchases that are no positives, by reason
    balancing: BalancingWeights | None  # None with balancing off
    train_weights: np.ndarray | None  # (n,) float64 of rows[0]; None where all rows weigh 1


def select_positives(
    log: PurchaseLog, cuts: Cuts, snapshots: list[ItemSnapshots], config: DatasetConfig
) -> ExpectedPositives:
    """Select the positives; `snapshots` are those of each split's window."""
    window = _find_windows(log, cuts, config)
    is_long_enough = log.n_before >= config.sequence_processing.min_sequence_length
    # Each purchase is judged as if its user were in the split of its window.
    is_good, refusals = np.ones(len(log.user), dtype=bool), {}

    def refuse(reason: str, is_refused: np.ndarray) -> None:
        refusals[reason] = is_good & is_refused
        is_good[is_refused] = False

    if config.split.gap_days:
        gap = config.split.gap_days * DAY
        before_cuts = [(log.time < cut) & (log.time >= cut - gap) for cut in cuts.starts[1:]]
        refuse("in_gap", np.logical_or.reduce(before_cuts))
    refuse("short_history", ~is_long_enough)
    is_available = is_good.copy()
    refuse("over_cap", _is_over_cap(log, window, is_good, config.filtering.max_user_interactions))
    on_sale = np.zeros(len(is_good), dtype=bool)
    for k in range(3):
        in_window = np.flatnonzero(window == k)
        at = snapshots[k].at(log.time[in_window])
        on_sale[in_window] = snapshots[k].on_sale[at, log.item[in_window]]
    refuse("not_on_sale", ~on_sale)
    if config.negative_sampling.repurchases == "drop":
        refuse("repurchase", log.owned_since(log.user, log.item) < log.time)
    refuse("corpus_too_small", _has_too_small_corpus(log, cuts, snapshots, window, is_good, config))

    user_split = assign_splits(log, window, is_available, is_good, config)
    split = user_split[log.user] if config.split.is_disjoint else window
    losses = {
        "no_split": int((split < 0).sum()),
        "history": int((window < split).sum()),
        "later_unused": int(((window > split) & (split >= 0)).sum()),
        **{reason: int(is_lost[window == split].sum()) for reason, is_lost in refusals.items()},
    }
    remains = is_good & (window == split)
    order = np.flatnonzero(remains)
    # Of rows at one time the order of the log stays: by user, then by item.
    order = order[np.argsort(log.time[order], kind="stable")]
    rows = [order[window[order] == k] for k in range(3)]
    ledger = {"emitted": {name: len(rows[k]) for k, name in enumerate(SPLITS)}, **losses}
    copies = [np.zeros(len(of_split), dtype=np.int64) for of_split in rows]
    balancing = weights = None
    if config.category_balancing.mode != "off":
        balancing = _compute_weights(log, cuts, rows[0], config)
        weights = balancing.rows
        if config.category_balancing.mode == "resample":
            rows[0], copies[0] = _resample(log, rows[0], weights, config.seed)
            weights = None
    if config.output.order == "shuffled":
        for k in range(3):
            order = _shuffle(len(rows[k]), k, config.seed)
            rows[k], copies[k] = rows[k][order], copies[k][order]
            weights = weights[order] if k == 0 and weights is not None else weights
    return ExpectedPositives(user_split, rows, copies, ledger, balancing, weights)


def _find_windows(log: PurchaseLog, cuts: Cuts, config: DatasetConfig) -> np.ndarray:
    """Return the window of each purchase: by time, or by how many of the user's follow."""
    if config.split.strategy != "leave_last":
        return cuts.find_window(log.time)
    n = config.split.leave_last
    window = np.zeros(len(log.user), dtype=np.int8)
    for start, stop in itertools.pairwise(log.user_offsets.tolist()):
        window[max(start, stop - 2 * n) : stop] = 1
        window[max(start, stop - n) : stop] = 2
    return window


def _shuffle(n: int, split: int, seed: int) -> np.ndarray:
    """Return the seeded order of a split's positives."""
    position = np.arange(n)
    return np.argsort(make_keys(seed, SHUFFLE, np.full(n, split), position), kind="stable")


def _is_over_cap(log: PurchaseLog, window: np.ndarray, remains: np.ndarray, cap: int) -> np.ndarray:
    """Mark remaining rows that are not among the latest `cap` of their user and window."""
    is_over = np.zeros(len(remains), dtype=bool)
    rows = np.flatnonzero(remains)
    if len(rows):
        cell = log.user[rows].astype(np.int64) * 3 + window[rows]
        stops = np.searchsorted(cell, cell, side="right")
        is_over[rows] = stops - np.arange(len(rows)) > cap
    return is_over


def _has_too_small_corpus(
    log: PurchaseLog,
    cuts: Cuts,
    snapshots: list[ItemSnapshots],
    window: np.ndarray,
    remains: np.ndarray,
    config: DatasetConfig,
) -> np.ndarray:
    """Mark rows with too few items on sale that the user does not own.

    Owned is what the user buys before the end of the window (D12).
    """
    n_hard = config.negative_sampling.hard_negatives_per_positive
    n_all = n_hard + config.negative_sampling.random_negatives_per_positive
    is_too_small = np.zeros(len(remains), dtype=bool)
    pair_keys, since = log.owned_pairs
    n_owned = np.bincount(pair_keys // log.n_items, minlength=log.n_users)
    offsets = np.append(0, np.cumsum(n_owned))
    code = log.item_columns["product_code"].codes
    max_siblings = int(np.bincount(code[code >= 0], minlength=1).max())
    for k, end in enumerate(cuts.ends):
        rows = np.flatnonzero(remains & (window == k))
        at = snapshots[k].at(log.time[rows])
        n_on_sale = snapshots[k].on_sale.sum(axis=1)[at]
        # Only rows that this bound leaves in doubt are counted one by one.
        doubtful = np.flatnonzero(n_on_sale - n_owned[log.user[rows]] - max_siblings < n_all)
        for row, snapshot in zip(rows[doubtful].tolist(), at[doubtful].tolist(), strict=True):
            owned = slice(offsets[log.user[row]], offsets[log.user[row] + 1])
            is_free = snapshots[k].on_sale[snapshot].copy()
            is_free[pair_keys[owned][since[owned] < end] % log.n_items] = False
            own_code = code[log.item[row]]
            may_be_hard = is_free & (code != own_code) if own_code >= 0 else is_free
            is_too_small[row] = is_free.sum() < n_all or may_be_hard.sum() < n_hard
    return is_too_small


def _compute_weights(
    log: PurchaseLog, cuts: Cuts, rows: np.ndarray, config: DatasetConfig
) -> BalancingWeights:
    """Weigh the train positives by product group, segment of the user, and recency (D18)."""
    settings = config.category_balancing
    group = log.item_columns["product_group"].codes + 1
    n = np.bincount(
        group[log.item[rows]], minlength=len(log.item_columns["product_group"].values) + 1
    )
    share = n[n > 0] / len(rows)
    category = np.zeros(len(n))
    raw = share**-settings.smoothing_factor / math.fsum(share ** (1 - settings.smoothing_factor))
    category[n > 0] = np.clip(raw, settings.min_weight, settings.max_weight)

    segment = _assign_segments(log.before(cuts.cut1), cuts, settings.segment_days)
    recency = np.exp2(-((cuts.cut1 - log.time[rows]) // DAY) / settings.recency_half_life_days)
    category_of_row, segment_of_row = category[group[log.item[rows]]], segment[log.user[rows]]
    masses = [math.fsum((category_of_row * recency)[segment_of_row == s]) for s in range(3)]
    occurring = [s for s in range(3) if (segment_of_row == s).any()]
    reachable = math.fsum(settings.target_distribution[s] for s in occurring)
    weight_of_segment = np.zeros(3)
    for s in occurring:
        target = settings.target_distribution[s] / reachable if reachable else 0.0
        weight_of_segment[s] = target / (masses[s] / math.fsum(masses)) if reachable else 1.0
    return BalancingWeights(
        category,
        {name: float(weight) for name, weight in zip(SEGMENTS, weight_of_segment, strict=True)},
        category_of_row * weight_of_segment[segment_of_row] * recency,
    )


def _assign_segments(known: PurchaseLog, cuts: Cuts, segment_days: int) -> np.ndarray:
    """Return each user's segment as of the first cut: (U,), NEW, ACTIVE or CHURNED."""
    edge = cuts.cut1 - segment_days * DAY
    has_bought = np.bincount(known.user, minlength=known.n_users) > 0
    first = known.time[np.minimum(known.user_offsets[:-1], len(known.time) - 1)]
    last = known.time[np.maximum(known.user_offsets[1:] - 1, 0)]
    return np.where(~has_bought | (first >= edge), NEW, np.where(last < edge, CHURNED, ACTIVE))


def _resample(
    log: PurchaseLog, rows: np.ndarray, weights: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Repeat each row floor(weight + h) times, h seeded and uniform; number its copies from 0."""
    drawn = make_keys(
        seed, RESAMPLE, log.user_key[log.user[rows]], log.item_key[log.item[rows]], log.time[rows]
    )
    h = (drawn >> np.uint64(11)).astype(np.float64) / 2.0**53
    n = np.floor(weights + h).astype(np.int64)
    starts = np.cumsum(n) - n
    return np.repeat(rows, n), np.arange(int(n.sum())) - np.repeat(starts, n)
