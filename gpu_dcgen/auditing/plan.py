"""Which purchases must be the positives of each split (D5, D7, D11, D12), their copies and weights (D18)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from .hashes import RESAMPLE, SHUFFLE, USER_SPLIT, keys
from .log import DAY, SPLITS, Cuts, Log, exact
from .snapshots import Snapshots

LEAST, START, MOST = 2**4, 2**14, 2**24  # multipliers
ROUNDS = 12
SEGMENTS = ("new", "active", "churned")


@dataclass(frozen=True)
class Plan:
    """The positives of the splits in file order, as rows of the whole log."""

    user_split: np.ndarray  # (U,) int8  -1 none
    rows: list[np.ndarray]  # by split, int64
    copies: list[np.ndarray]  # by split, int64
    ledger: dict[str, Any]
    category_weights: (
        np.ndarray | None
    )  # (1 + groups,) float64, the first of null; 0 where train has none
    segment_weights: dict[str, float] | None
    train_weights: np.ndarray | None  # (n,) float64 of rows[0]; None where all rows weigh 1


def make_plan(log: Log, cuts: Cuts, snapshots: list[Snapshots], config: Any) -> Plan:
    """Decide for every purchase; `snapshots` are those of each split's window."""
    window = cuts.window(log.time)
    long_enough = log.n_before >= config.sequence_processing.min_sequence_length
    strategy, cap = config.split.strategy, config.filtering.max_user_interactions
    if strategy == "temporal":
        user_split, split = np.full(log.n_users, -1, dtype=np.int8), window
    else:
        available = np.stack(
            [
                np.bincount(log.user[long_enough & (window == k)], minlength=log.n_users)
                for k in range(3)
            ]
        )
        assign = _hashed if strategy == "hash" else _assigned
        user_split = assign(np.minimum(available, cap), log.user_key, config)
        split = user_split[log.user]

    left, ledger = np.ones(len(log.user), dtype=bool), {}

    def lose(reason: str, mask: np.ndarray) -> None:
        ledger[reason] = int((left & mask).sum())
        left[mask] = False

    lose("no_split", split < 0)
    lose("history", window < split)
    lose("later_unused", window > split)
    lose("short_history", ~long_enough)
    lose("over_cap", _beyond_latest(log, window, left, cap))
    on_sale = np.zeros(len(left), dtype=bool)
    for k in range(3):
        rows = np.flatnonzero(window == k)
        on_sale[rows] = snapshots[k].on_sale[snapshots[k].at(log.time[rows]), log.item[rows]]
    lose("not_on_sale", ~on_sale)
    if config.negative_sampling.repurchases == "drop":
        lose("repurchase", log.owned_since(log.user, log.item) < log.time)
    lose("corpus_too_small", _too_small(log, cuts, snapshots, window, left, config))

    order = np.lexsort((log.item, log.user, log.time))
    order = order[left[order]]
    rows = [order[window[order] == k] for k in range(3)]
    ledger = {"emitted": {name: len(rows[k]) for k, name in enumerate(SPLITS)}, **ledger}
    copies = [np.zeros(len(part), dtype=np.int64) for part in rows]
    category = segment = weights = None
    if config.category_balancing.mode != "off":
        category, segment, weights = _weights(log, cuts, rows[0], config)
        if config.category_balancing.mode == "resample":
            rows[0], copies[0] = _resampled(log, rows[0], weights, config.seed)
            weights = None
    if config.output.order == "shuffled":
        for k in range(3):
            position = np.arange(len(rows[k]))
            shuffle = np.argsort(
                keys(config.seed, SHUFFLE, np.full(len(position), k), position), kind="stable"
            )
            rows[k], copies[k] = rows[k][shuffle], copies[k][shuffle]
            weights = weights[shuffle] if k == 0 and weights is not None else weights
    return Plan(user_split, rows, copies, ledger, category, segment, weights)


def _hashed(available: np.ndarray, user_key: np.ndarray, config: Any) -> np.ndarray:
    train = exact(config.split.train_share)
    bounds = [math.floor(share * 2**64) for share in (train, train + exact(config.split.val_share))]
    x = keys(config.seed, USER_SPLIT, user_key)
    return (x >= np.uint64(bounds[0])).astype(np.int8) + (x >= np.uint64(bounds[1]))


def _assigned(available: np.ndarray, user_key: np.ndarray, config: Any) -> np.ndarray:
    """Each user to the split of the greatest multiplier x available; val's and test's multipliers by bisection, in turns."""
    n_users = available.shape[1]
    jitter = np.stack(
        [
            keys(config.seed, USER_SPLIT, user_key, np.full(n_users, k)) % np.uint64(1 << 10)
            for k in range(3)
        ]
    )
    score = available * ((1 << 20) + jitter.astype(np.int64))
    wanted = {1: exact(config.split.val_share)}
    wanted[2] = 1 - exact(config.split.train_share) - wanted[1]
    some = np.flatnonzero(available.any(axis=0))
    score_of_some, n_of_some = score[:, some], available[:, some]

    def choice(multipliers: list[int]) -> np.ndarray:
        return np.argmax(
            score_of_some * np.array(multipliers)[:, None], axis=0
        )  # the first of equals

    def reaches(k: int, multipliers: list[int]) -> bool:
        kept = n_of_some[(chosen := choice(multipliers)), np.arange(len(some))]
        return Fraction(int(kept[chosen == k].sum()), max(1, int(kept.sum()))) >= wanted[k]

    multipliers = [START] * 3
    for _ in range(ROUNDS):
        before = list(multipliers)
        for k in (1, 2):
            low, high = LEAST, MOST
            while low < high:
                multipliers[k] = (low + high) // 2
                low, high = (
                    (low, multipliers[k]) if reaches(k, multipliers) else (multipliers[k] + 1, high)
                )
            multipliers[k] = low
        if multipliers == before:
            break
    split = np.full(n_users, -1, dtype=np.int8)
    split[some] = choice(multipliers)
    return split


def _beyond_latest(log: Log, window: np.ndarray, left: np.ndarray, cap: int) -> np.ndarray:
    """Rows that are not among the latest `cap` of their user and window that are left."""
    beyond = np.zeros(len(left), dtype=bool)
    rows = np.flatnonzero(left)
    if len(rows):
        cell = log.user[rows] * 3 + window[rows]
        stops = np.searchsorted(cell, cell, side="right")
        beyond[rows] = stops - np.arange(len(rows)) > cap
    return beyond


def _too_small(
    log: Log,
    cuts: Cuts,
    snapshots: list[Snapshots],
    window: np.ndarray,
    left: np.ndarray,
    config: Any,
) -> np.ndarray:
    """Rows whose corpus, less what the user owns by the window's end, cannot give enough negatives."""
    n_hard = config.negative_sampling.hard_negatives_per_positive
    n_all = n_hard + config.negative_sampling.random_negatives_per_positive
    small = np.zeros(len(left), dtype=bool)
    pair_keys, since = log.pairs
    n_owned = np.bincount(pair_keys // log.n_items, minlength=log.n_users)
    offsets = np.append(0, np.cumsum(n_owned))
    code = log.item_columns["product_code"].codes
    n_siblings = int(np.bincount(code[code >= 0], minlength=1).max())
    for k, end in enumerate(cuts.ends):
        rows = np.flatnonzero(left & (window == k))
        at = snapshots[k].at(log.time[rows])
        size = snapshots[k].on_sale.sum(axis=1)[at]
        doubtful = np.flatnonzero(size - n_owned[log.user[rows]] - n_siblings < n_all)
        for row, snapshot in zip(rows[doubtful].tolist(), at[doubtful].tolist(), strict=True):
            mine = slice(offsets[log.user[row]], offsets[log.user[row] + 1])
            free = snapshots[k].on_sale[snapshot].copy()
            free[pair_keys[mine][since[mine] < end] % log.n_items] = False
            own = code[log.item[row]]
            strangers = free & (code != own) if own >= 0 else free
            small[row] = free.sum() < n_all or strangers.sum() < n_hard
    return small


def _weights(
    log: Log, cuts: Cuts, rows: np.ndarray, config: Any
) -> tuple[np.ndarray, dict[str, float], np.ndarray]:
    """Category and segment weights, and the product with recency of each train positive."""
    settings = config.category_balancing
    group = log.item_columns["product_group"].codes + 1
    n = np.bincount(
        group[log.item[rows]], minlength=len(log.item_columns["product_group"].values) + 1
    )
    share = n[n > 0] / len(rows)
    category = np.zeros(len(n))
    raw = share**-settings.smoothing_factor / math.fsum(share ** (1 - settings.smoothing_factor))
    category[n > 0] = np.clip(raw, settings.min_weight, settings.max_weight)

    known = log.before(cuts.cut1)
    edge = cuts.cut1 - settings.segment_days * DAY
    bought = np.bincount(known.user, minlength=log.n_users) > 0
    first = known.time[np.minimum(known.user_offsets[:-1], len(known.time) - 1)]
    last = known.time[np.maximum(known.user_offsets[1:] - 1, 0)]
    segment = np.where(~bought | (first >= edge), 0, np.where(last < edge, 2, 1))

    recency = np.exp2(-((cuts.cut1 - log.time[rows]) // DAY) / settings.recency_half_life_days)
    of_group, of_segment = category[group[log.item[rows]]], segment[log.user[rows]]
    masses = [math.fsum((of_group * recency)[of_segment == s]) for s in range(3)]
    filled = [s for s in range(3) if (of_segment == s).any()]
    reachable = math.fsum(settings.target_distribution[s] for s in filled)
    segments = np.zeros(3)
    for s in filled:
        wanted = settings.target_distribution[s]
        segments[s] = (wanted / reachable) / (masses[s] / math.fsum(masses)) if reachable else 1.0
    weights = of_group * segments[of_segment] * recency
    return category, {SEGMENTS[s]: float(segments[s]) for s in range(3)}, weights


def _resampled(
    log: Log, rows: np.ndarray, weights: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each row floor(weight + h) times, h a seeded uniform number; and the copies' numbers."""
    drawn = keys(
        seed, RESAMPLE, log.user_key[log.user[rows]], log.item_key[log.item[rows]], log.time[rows]
    )
    h = (drawn >> np.uint64(11)).astype(np.float64) / 2.0**53
    n = np.floor(weights + h).astype(np.int64)
    starts = np.cumsum(n) - n
    return np.repeat(rows, n), np.arange(int(n.sum())) - np.repeat(starts, n)
