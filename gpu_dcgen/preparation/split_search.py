"""Search for an assignment of users to splits where multipliers miss the shares (D7)."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

TOLERANCE = 0.02  # shares of positives further than this from those wanted are missed (D7)
# Users who are decided again, those with the largest parts of a window: each of the others is too
# small to miss the shares by.
_MAX_SEARCHED = 32
# States that remain after each user. Seven users cannot exceed them but for the last one.
_FEW_USERS, _MAX_STATES_OF_FEW, _MAX_STATES = 8, 1 << 12, 1 << 7


class _Step(NamedTuple):
    """The states after a user was decided, in rising order, and how each was reached."""

    states: Any  # (S, 3) int64  positives of train, val and test
    parent: Any  # (S,) int64  number of the state before it
    split: Any  # (S,) int64  the user's split, -1 for none


def search_assignment(
    counts: Sequence[Sequence[int]],
    is_allowed: Sequence[Sequence[bool]],
    start: Sequence[int],
    keys: Sequence[int],
    shares: Sequence[float],
) -> list[int]:
    """Decide again on the largest users, by all ways to fill the splits; -1 is none.

    A state is how many positives the splits have. User by user, each state leads to those with the
    user in each allowed split, or in none; of equal states the first remains, and of too many the
    best (`_order`). counts (3, U) are the positives, `is_allowed` (3, U) the splits that a user may
    get, `start` (U,) is the split of the other users, and `keys` (U,) decide ties.
    """
    totals = [max(1, sum(of_split)) for of_split in counts]
    parts = [
        max(n / total for n, total in zip(of_user, totals, strict=True))
        for of_user in zip(*counts, strict=True)
    ]
    users = heapq.nsmallest(
        _MAX_SEARCHED,
        (user for user, part in enumerate(parts) if part > 0),
        key=lambda user: (-parts[user], keys[user], user),
    )
    choice, undecided = list(start), set(users)
    sums = [0, 0, 0]
    for user, k in enumerate(start):
        if k >= 0 and user not in undecided:
            sums[k] += counts[k][user]
    max_states = _MAX_STATES_OF_FEW if len(users) <= _FEW_USERS else _MAX_STATES
    states = np.array([sums], dtype=np.int64)
    steps: list[_Step] = []
    for user in users:
        step = _add_user(states, [counts[k][user] * is_allowed[k][user] for k in range(3)])
        if len(step.states) > max_states:
            places = np.sort(_order(step.states, shares)[:max_states])
            step = _Step(*(column[places] for column in step))
        steps.append(step)
        states = step.states
    place = _order(states, shares)[0]
    for user, step in zip(reversed(users), reversed(steps), strict=True):
        choice[user], place = int(step.split[place]), step.parent[place]
    return choice


def _add_user(states: Any, n: Sequence[int]) -> _Step:
    """Return the states that rising `states` lead to by adding `n`; 0 is not allowed."""
    splits = [k for k in range(3) if n[k]] + [-1]
    reached = np.repeat(states, len(splits), axis=0)
    for turn, k in enumerate(splits[:-1]):
        reached[turn :: len(splits), k] += n[k]
    order = np.lexsort((reached[:, 2], reached[:, 1], reached[:, 0]))  # stable: the first is first
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (reached[order[1:]] != reached[order[:-1]]).any(axis=1)
    order = order[is_first]
    return _Step(reached[order], order // len(splits), np.array(splits)[order % len(splits)])


def measure_excess(sums: Sequence[int], shares: Sequence[float]) -> float:
    """Return the largest distance of a split's share from the wanted one, beyond TOLERANCE."""
    return float(_measure_excesses(np.array([sums], dtype=np.int64), shares)[0])


def _measure_excesses(states: Any, shares: Sequence[float]) -> Any:
    """Return `measure_excess` of every state: (S,) float64."""
    total = np.maximum(1, states.sum(axis=1))
    distance = np.abs(states / total[:, None] - np.array(shares)).max(axis=1)
    return np.maximum(0.0, distance - TOLERANCE)


def _order(states: Any, shares: Sequence[float]) -> Any:
    """Return the numbers (S,) int64 of states, the best first.

    It has the fewest empty splits, and is nearest to the shares. All within TOLERANCE are equally
    near; then those with more positives are better, and then those with fewer in train, and in val.
    """
    n_empty = (states == 0).sum(axis=1)
    by_falling_value = (-states.sum(axis=1), _measure_excesses(states, shares), n_empty)
    return np.lexsort((*states.T[::-1], *by_falling_value))
