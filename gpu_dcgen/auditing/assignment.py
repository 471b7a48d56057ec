"""Assign users to splits (D7)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from ..config import DatasetConfig, to_fraction
from .hashes import USER_SPLIT, make_keys
from .purchase_log import PurchaseLog

MIN_MULTIPLIER, FIRST_MULTIPLIER, MAX_MULTIPLIER = 2**4, 2**14, 2**24
MAX_ROUNDS = 12
TOLERANCE = 0.02
MAX_SEARCHED = 32
MAX_STATES, MANY_USERS, MAX_STATES_OF_MANY = 2**12, 9, 2**7

_State = tuple[int, int, int]  # positives of train, val and test


def assign_splits(
    log: PurchaseLog,
    window: np.ndarray,
    is_available: np.ndarray,
    is_good: np.ndarray,
    config: DatasetConfig,
) -> np.ndarray:
    """Return the split of each user, -1 for none: (U,) int8.

    `is_good` (E,) marks the purchases that are positives where their user is in the split of their
    window, `is_available` (E,) those that times alone allow.
    """
    if not config.split.is_disjoint:
        return np.full(log.n_users, -1, dtype=np.int8)
    if config.split.strategy == "hash":
        return _assign_by_hash(log.user_key, config)

    def count(mask: np.ndarray) -> np.ndarray:
        cell = window[mask].astype(np.int64) * log.n_users + log.user[mask]
        return np.bincount(cell, minlength=3 * log.n_users).reshape(3, log.n_users)

    n_good = count(is_good)
    best: tuple[tuple[int, float, bool], np.ndarray] | None = None
    for split, is_partial in _list_assignments(
        np.minimum(count(is_available), config.filtering.max_user_interactions),
        n_good,
        log.user_key,
        config,
    ):
        faults = _measure_faults(split, is_partial, n_good, config)
        if best is None or faults < best[0]:
            best = faults, split
        if not any(faults):
            break
    assert best is not None
    return best[1]


def _list_assignments(
    n_available: np.ndarray, n_good: np.ndarray, user_key: np.ndarray, config: DatasetConfig
) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield assignments to try until one has no fault, and whether they leave users out."""
    by_times = _assign_by_availability(n_available, user_key, config)
    yield by_times, False
    by_positives = _assign_by_availability(n_good, user_key, config)
    by_positives[by_positives < 0] = by_times[by_positives < 0]
    yield by_positives, False
    half = n_good.sum(axis=1, keepdims=True) / 2
    for is_open in (n_good <= half, n_good >= 0):
        yield _fill_splits(n_good, is_open, by_positives, user_key, config), True


def _wanted(config: DatasetConfig) -> list[float]:
    train, val = to_fraction(config.split.train_share), to_fraction(config.split.val_share)
    return [float(train), float(val), float(1 - train - val)]


def _excess(state: list[int] | _State, wanted: list[float]) -> float:
    """Return how far the shares are from the wanted ones, beyond the tolerance."""
    total = max(1, sum(state))
    distance = max(abs(n / total - share) for n, share in zip(state, wanted, strict=True))
    return max(0.0, distance - TOLERANCE)


def _measure_faults(
    split: np.ndarray, is_partial: bool, n_good: np.ndarray, config: DatasetConfig
) -> tuple[int, float, bool]:
    """Return the empty splits, how far shares are off, and whether a user has most of a split.

    Where users were left out and the shares are off nevertheless, they are infinitely far off.
    """
    parts = [n_good[k, split == k] for k in range(3)]
    sums = [int(part.sum()) for part in parts]
    has_most = any(2 * int(part.max(initial=0)) > n for part, n in zip(parts, sums, strict=True))
    excess = _excess(sums, _wanted(config))
    return sums.count(0), math.inf if is_partial and excess else excess, has_most


def _fill_splits(
    n_good: np.ndarray,
    is_open: np.ndarray,
    start: np.ndarray,
    user_key: np.ndarray,
    config: DatasetConfig,
) -> np.ndarray:
    """Place the users with the largest parts of a window, one by one, in every open way.

    The best ways remain at each step; the other users stay where they start.
    """
    key = make_keys(config.seed, USER_SPLIT, user_key)
    part = (n_good / np.maximum(1, n_good.sum(axis=1, keepdims=True))).max(axis=0)
    users = sorted(np.flatnonzero(part).tolist(), key=lambda user: (-part[user], key[user], user))
    wanted = _wanted(config)

    def rank(state: _State) -> tuple[int, float, int, _State]:
        return state.count(0), _excess(state, wanted), -sum(state), state

    settled, users = users[MAX_SEARCHED:], users[:MAX_SEARCHED]
    max_states = MAX_STATES_OF_MANY if len(users) >= MANY_USERS else MAX_STATES
    first = [sum(int(n_good[k, user]) for user in settled if start[user] == k) for k in range(3)]
    reached: list[dict[_State, tuple[_State, int]]] = []  # by user: state -> state before, split
    states: list[_State] = [(first[0], first[1], first[2])]
    for user in users:
        n = n_good[:, user].tolist()
        new: dict[_State, tuple[_State, int]] = {}
        for state in states:
            train, val, test = state
            if n[0] and is_open[0, user]:
                new.setdefault((train + n[0], val, test), (state, 0))
            if n[1] and is_open[1, user]:
                new.setdefault((train, val + n[1], test), (state, 1))
            if n[2] and is_open[2, user]:
                new.setdefault((train, val, test + n[2]), (state, 2))
            new.setdefault(state, (state, -1))
        reached.append(new)
        states = sorted(new)
        if len(states) > max_states:
            states = sorted(sorted(states, key=rank)[:max_states])
    split, state = start.copy(), min(states, key=rank)
    for user, before in zip(reversed(users), reversed(reached), strict=True):
        state, split[user] = before[state]
    return split


def _assign_by_hash(user_key: np.ndarray, config: DatasetConfig) -> np.ndarray:
    """Assign each user by a seeded hash that falls into train, val or test by their shares."""
    train = to_fraction(config.split.train_share)
    shares = (train, train + to_fraction(config.split.val_share))
    bounds = [math.floor(share * 2**64) for share in shares]
    x = make_keys(config.seed, USER_SPLIT, user_key)
    return (x >= np.uint64(bounds[0])).astype(np.int8) + (x >= np.uint64(bounds[1]))


def _assign_by_availability(
    n_available: np.ndarray, user_key: np.ndarray, config: DatasetConfig
) -> np.ndarray:
    """Assign each user to the split with the greatest multiplier x available positives.

    The multipliers of val and test are found by bisection, in turns, so that both splits reach
    their shares. `n_available` is (3, U); a seeded jitter breaks ties.
    """
    n_users = n_available.shape[1]
    jitter = np.stack(
        [
            make_keys(config.seed, USER_SPLIT, user_key, np.full(n_users, k)) % np.uint64(1 << 10)
            for k in range(3)
        ]
    )
    score = n_available * ((1 << 20) + jitter.astype(np.int64))
    val_share = to_fraction(config.split.val_share)
    target_share = {1: val_share, 2: 1 - to_fraction(config.split.train_share) - val_share}
    users = np.flatnonzero(n_available.any(axis=0))
    score, n_available = score[:, users], n_available[:, users]

    def choose(multipliers: list[int]) -> np.ndarray:
        # argmax takes the first of equals.
        return np.argmax(score * np.array(multipliers)[:, None], axis=0)

    def reaches_target(k: int, multipliers: list[int]) -> bool:
        choice = choose(multipliers)
        n_chosen = n_available[choice, np.arange(len(users))]
        share = Fraction(int(n_chosen[choice == k].sum()), max(1, int(n_chosen.sum())))
        return share >= target_share[k]

    multipliers = [FIRST_MULTIPLIER] * 3
    for _ in range(MAX_ROUNDS):
        before = list(multipliers)
        for k in (1, 2):
            low, high = MIN_MULTIPLIER, MAX_MULTIPLIER
            while low < high:
                multipliers[k] = middle = (low + high) // 2
                if reaches_target(k, multipliers):
                    high = middle
                else:
                    low = middle + 1
            multipliers[k] = low
        if multipliers == before:
            break
    split = np.full(n_users, -1, dtype=np.int8)
    split[users] = choose(multipliers)
    return split
