"""Assign users to splits, so that most positives are emitted at the wanted shares (D7)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from ..backend.protocol import Array, Backend
from ..backend.runs import chunks, count_codes
from ..config import DatasetConfig
from ..kernels import rng
from .split_search import measure_excess, search_assignment
from .windows import wanted_shares

_ONE = 1 << 14  # the multiplier 1.0
_MIN_MULTIPLIER, _MAX_MULTIPLIER = 1 << 4, 1 << 24  # 1/1024 .. 1024
_JITTER_BITS = 10  # of 20: scores within 0.1 % are ties, decided by a seeded hash
_ROUNDS = 12


class _Distance(NamedTuple):
    """How far an assignment is from the wanted one; less is better, by the first that differs."""

    n_empty: int  # splits without a positive
    excess: float  # largest distance of a share from the wanted one, beyond TOLERANCE
    is_dominated: bool  # a user has more than half of a split's positives


class UserCounts(NamedTuple):
    """The interactions of each user in each window."""

    available: Array  # (3, U) int64  by times alone, capped
    emitted: Array  # (3, U) int64  those that become positives where the user is in that split
    user_key: Array  # (U,) uint64


def assign_users(counts: UserCounts, config: DatasetConfig, backend: Backend) -> Array:
    """Return each user's split (U,) int8: 0 train, 1 val, 2 test, -1 none."""
    available, emitted, user_key = counts
    shares = wanted_shares(config.split)
    key = rng.fold_array(rng.purpose_key(config.seed, rng.USER_SPLIT), user_key)
    if config.split.strategy == "hash":
        return _assign_by_hash(key, shares, backend)
    best, least = None, None
    for choice, is_searched in _list_candidates(available, emitted, key, shares, backend):
        distance = _measure(choice, emitted, shares, backend)
        if is_searched and distance.excess:
            # It leaves customers out in vain.
            distance = distance._replace(excess=math.inf)
        if least is None or distance < least:
            best, least = choice, distance
        if distance == _Distance(0, 0.0, False):
            break
    return best


def _list_candidates(
    available: Array, emitted: Array, key: Array, shares: Sequence[Fraction], backend: Backend
) -> Iterator[tuple[Array, bool]]:
    """Yield assignments to try in turn, and whether each is searched for.

    One is needed where those before it miss the shares. A searched one may leave customers out.
    """
    by_times = _assign_to_emit_most(available, key, shares, backend)
    yield by_times, False
    # Who emits nothing anywhere is where times alone have put them.
    by_emitted = _assign_to_emit_most(emitted, key, shares, backend)
    by_emitted = backend.xp.where(by_emitted < 0, by_times, by_emitted).astype(backend.xp.int8)
    yield by_emitted, False
    is_open = emitted > 0
    has_half = 2 * emitted > emitted.sum(axis=1)[:, None]
    for is_allowed in (is_open & ~has_half, is_open):
        arrays = (emitted, is_allowed, by_emitted, key)
        counts, allowed, start, keys = (backend.to_host(array).tolist() for array in arrays)
        choice = search_assignment(counts, allowed, start, keys, [float(w) for w in shares])
        yield backend.from_host(choice).astype(backend.xp.int8), True


def _measure(
    choice: Array, emitted: Array, shares: Sequence[Fraction], backend: Backend
) -> _Distance:
    xp = backend.xp
    counts = [xp.where(choice == k, emitted[k], 0) for k in range(3)]
    sums = [int(count.sum()) for count in counts]
    return _Distance(
        n_empty=sums.count(0),
        excess=measure_excess(sums, [float(share) for share in shares]),
        is_dominated=any(2 * int(count.max()) > n for count, n in zip(counts, sums, strict=True)),
    )


def _assign_to_emit_most(
    available: Array, key: Array, shares: Sequence[Fraction], backend: Backend
) -> Array:
    """Assign user u to argmax_k multiplier_k * available[k, u], -1 without any.

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

    multipliers = [_ONE, _ONE, _ONE]
    for _ in range(_ROUNDS):
        before = list(multipliers)
        for k in (1, 2):
            multipliers[k] = _find_multiplier(
                xp, k, multipliers, free_score, free_available, n_fixed, shares[k]
            )
        if multipliers == before:
            break
    choice = _argmax(xp, score, multipliers)
    return xp.where(available.sum(axis=0) > 0, choice, -1).astype(xp.int8)


def _find_multiplier(
    xp: Any,
    k: int,
    multipliers: list[int],
    score: Array,
    available: Array,
    n_fixed: list[int],
    share: Fraction,
) -> int:
    """Return the least multiplier with which split k, 1 or 2, gets its share of the positives.

    The largest one where none does. The other multipliers stay; score, available (3, n) int64 are
    those of users who may be in several splits, `n_fixed` counts the positives of the others.
    """
    first, second = (j for j in range(3) if j != k)
    values = score[first] * multipliers[first], score[second] * multipliers[second]
    is_second = values[1] > values[0]
    # Of equal weighted scores the earlier split's wins, so an earlier one must be exceeded. Hence a
    # score of 0 never wins.
    needed = xp.maximum(values[0] + 1, values[1] + int(second < k))
    least = xp.where(score[k] > 0, -(-needed // xp.maximum(score[k], 1)), _MAX_MULTIPLIER + 1)
    gained, lost = available[k], xp.where(is_second, available[second], available[first])
    n_others = sum(n_fixed) - n_fixed[k] + int(lost.sum())

    low, high = _MIN_MULTIPLIER, _MAX_MULTIPLIER
    while low < high:
        middle = (low + high) // 2
        wins = least <= middle
        n_own = n_fixed[k] + int((gained * wins).sum())
        n_all = n_own + n_others - int((lost * wins).sum())
        if Fraction(n_own, max(1, n_all)) >= share:
            high = middle
        else:
            low = middle + 1
    return low


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


def count_by_window(user: Array, window: Array, mask: Array, n_users: int, xp: Any) -> Array:
    """Count the rows of `mask` (E,) bool by window and user: (3, U) int64."""
    counts = xp.zeros((3, n_users), dtype=xp.int64)
    for rows in chunks(int(user.shape[0])):
        for k in range(3):
            counted = user[rows][mask[rows] & (window[rows] == k)]
            counts[k] += count_codes(xp, counted, n_users)
    return counts
