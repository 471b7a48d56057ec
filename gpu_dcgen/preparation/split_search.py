"""Search for an assignment of users to splits where multipliers miss the shares (D7)."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

TOLERANCE = 0.02  # shares of positives further than this from those wanted are missed (D7)
# Users who are decided again, those with the largest parts of a window: each of the others is too
# small to miss the shares by.
_MAX_SEARCHED = 32
# States that remain after each user. Seven users cannot exceed them but for the last one.
_FEW_USERS, _MAX_STATES_OF_FEW, _MAX_STATES = 8, 1 << 12, 1 << 7

_State = tuple[int, int, int]  # positives of train, val and test
_Step = dict[_State, tuple[_State, int]]  # state -> the state before it, and the user's split


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
    best (`_rank`). counts (3, U) are the positives, `is_allowed` (3, U) the splits that a user may
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
    states: list[_State] = [(sums[0], sums[1], sums[2])]
    steps: list[_Step] = []
    for user in users:
        step = _add_user(states, [counts[k][user] * is_allowed[k][user] for k in range(3)])
        steps.append(step)
        states = list(step)
        if len(states) > max_states:
            states = heapq.nsmallest(max_states, states, key=lambda state: _rank(state, shares))
        states.sort()
    state = min(states, key=lambda state: _rank(state, shares))
    for user, step in zip(reversed(users), reversed(steps), strict=True):
        state, choice[user] = step[state]
    return choice


def _add_user(states: Sequence[_State], n: Sequence[int]) -> _Step:
    """Return the states that rising `states` lead to by adding `n`; 0 is not allowed."""
    step: _Step = {}
    for state in states:
        train, val, test = state
        if n[0]:
            step.setdefault((train + n[0], val, test), (state, 0))
        if n[1]:
            step.setdefault((train, val + n[1], test), (state, 1))
        if n[2]:
            step.setdefault((train, val, test + n[2]), (state, 2))
        step.setdefault(state, (state, -1))
    return step


def measure_excess(sums: Sequence[int], shares: Sequence[float]) -> float:
    """Return the largest distance of a split's share from the wanted one, beyond TOLERANCE."""
    total = max(1, sum(sums))
    distance = max(abs(n / total - share) for n, share in zip(sums, shares, strict=True))
    return max(0.0, distance - TOLERANCE)


def _rank(state: _State, shares: Sequence[float]) -> tuple[int, float, int, _State]:
    """Return what the best state has least of: empty splits, and distance from the shares.

    All within TOLERANCE are equally near; then those with more positives are better, and then
    those with fewer in train, and in val.
    """
    return state.count(0), measure_excess(state, shares), -sum(state), state
