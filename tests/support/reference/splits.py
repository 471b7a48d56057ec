"""Who is in which split (D7), which interactions become positives, and the bucket of every
interaction.

Readings where the decisions leave room: with `hash` every user has a split, also one that emits
nothing in it; with `temporal` nobody has one (`assignment` is None throughout) and each interaction
counts in its own window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Iterator

from . import rng
from .features import Snapshots
from .world import DAY, SPLITS, Interaction, Log, share, window_of

LEAST, START, MOST = 2**4, 2**14, 2**24  # multipliers are integers in LEAST..MOST
TOLERANCE = 0.02
MOST_SEARCHED = 32
LOSSES = ("in_gap", "short_history", "over_cap", "not_on_sale", "repurchase", "corpus_too_small")


@dataclass(frozen=True)
class Positive:
    user: int
    item: int
    time: int
    channel: int  # -1 when unknown
    split: int
    snapshot: int
    copy: int = 0  # which repetition of a resampled positive
    weight: float = 1.0  # category x segment x recency weight, float64; 1 outside train (D18)


def in_gap(log: Log, config: Any, e: Interaction) -> bool:
    """Whether the interaction is in the days before val or before test."""
    times_before = [cut - e.time for cut in (log.cuts.cut1, log.cuts.cut2)]
    return any(0 < before <= config.split.gap_days * DAY for before in times_before)


def count_long_enough(log: Log, config: Any, user: int, window: int) -> int:
    """n_uk: the user's interactions in the window with enough earlier ones, capped."""
    least = config.sequence_processing.min_sequence_length
    n = sum(
        1
        for e in log.of_user(user)
        if window_of(log, config, e) == window
        and len(log.history(user, e.time)) >= least
        and not in_gap(log, config, e)
    )
    return min(n, config.filtering.max_user_interactions)


def assign(log: Log, config: Any) -> dict[int, int | None]:
    """Split index of each user, None for users in no split."""
    users = range(len(log.users))
    if config.split.strategy in ("temporal", "leave_last"):
        return dict.fromkeys(users)
    if config.split.strategy == "hash":
        return {user: _hashed_split(log.user_key(user), config) for user in users}
    snapshots = Snapshots(log, config)
    emitted = {user: [0, 0, 0] for user in users}
    for e in log.interactions:
        if not _lost(log, config, snapshots, e):
            emitted[e.user][window_of(log, config, e)] += 1
    # min takes the first of equals
    return min(
        _candidates(log, config, emitted),
        key=lambda candidate: _measure_candidate(*candidate, emitted, config),
    )[0]


def _measure_candidate(
    assignment: dict[int, int | None],
    is_searched: bool,
    emitted: dict[int, list[int]],
    config: Any,
) -> tuple[int, float, bool]:
    """A search that misses the shares has left users out in vain."""
    n_empty, excess, is_dominated = measure(assignment, emitted, config)
    return n_empty, math.inf if is_searched and excess else excess, is_dominated


def measure(
    assignment: dict[int, int | None], emitted: dict[int, list[int]], config: Any
) -> tuple[int, float, bool]:
    """Splits without positives; how far shares are beyond the tolerance; whether a user has more
    than half of a split's positives.
    """
    parts = [
        [n[split] for user, n in emitted.items() if assignment[user] == split] for split in range(3)
    ]
    n_emitted = [sum(part) for part in parts]
    return (
        n_emitted.count(0),
        _excess(n_emitted, _wanted(config)),
        any(max(part, default=0) > sum(part) / 2 for part in parts),
    )


def _excess(n_emitted: list[int] | tuple[int, ...], wanted: list[float]) -> float:
    distances = [
        abs(n / max(1, sum(n_emitted)) - w) for n, w in zip(n_emitted, wanted, strict=True)
    ]
    return max(0.0, max(distances) - TOLERANCE)


def _wanted(config: Any) -> list[float]:
    train, val = share(config.split.train_share), share(config.split.val_share)
    return [float(train), float(val), float(1 - train - val)]


def _candidates(
    log: Log, config: Any, emitted: dict[int, list[int]]
) -> Iterator[tuple[dict[int, int | None], bool]]:
    """By times; by what is emitted; by a search without users who have half of a window; by a
    search with them. Each is needed only where those before it miss the shares.
    """
    users = range(len(log.users))
    by_times = _by_multipliers(
        {u: [count_long_enough(log, config, u, window) for window in range(3)] for u in users},
        log,
        config,
    )
    yield by_times, False
    if measure(by_times, emitted, config) == (0, 0.0, False):
        return
    by_emitted = _by_multipliers(emitted, log, config)
    by_emitted = {u: by_times[u] if k is None else k for u, k in by_emitted.items()}
    yield by_emitted, False
    keys = {u: rng.key(config.seed, rng.USER_SPLIT, log.user_key(u)) for u in users}
    for most in (0.5, 1):
        yield search(emitted, most, by_emitted, keys, config), True


def _by_multipliers(counts: dict[int, list[int]], log: Log, config: Any) -> dict[int, int | None]:
    by_key = {log.user_key(user): n for user, n in counts.items()}
    multipliers = find_multipliers(by_key, config)
    return {
        user: best_split(log.user_key(user), n, multipliers, config.seed)
        for user, n in counts.items()
    }


def search(
    emitted: dict[int, list[int]],
    most: float,
    start: dict[int, int | None],
    keys: dict[int, int],
    config: Any,
) -> dict[int, int | None]:
    """Every way to fill the splits by the users with the largest parts of a window, as far as the
    best states of each step lead; nobody gets a split of whose window they have more than `most`.
    """
    totals = [sum(n[window] for n in emitted.values()) for window in range(3)]
    parts = {
        user: max(count / max(1, total) for count, total in zip(n, totals, strict=True))
        for user, n in emitted.items()
    }
    users = sorted((u for u in emitted if parts[u] > 0), key=lambda u: (-parts[u], keys[u], u))
    settled = users[MOST_SEARCHED:]
    wanted = _wanted(config)
    first = tuple(sum(emitted[u][k] for u in settled if start[u] == k) for k in range(3))
    # state -> how it was reached: the user, the split, and how the state before was reached
    states: dict[tuple[int, ...], Any] = {first: None}
    for user in users[:MOST_SEARCHED]:
        n = emitted[user]
        options = [k for k in range(3) if n[k] > 0 and n[k] <= most * totals[k]]
        reached: dict[tuple[int, ...], Any] = {}
        for state in sorted(states):
            for option in (*options, None):
                new = tuple(state[k] + n[k] * (k == option) for k in range(3))
                reached.setdefault(new, (user, option, states[state]))
        most_states = 2**12 if len(users[:MOST_SEARCHED]) <= 8 else 2**7
        if len(reached) > most_states:
            best = sorted(reached, key=lambda state: _rank(state, wanted))[:most_states]
            reached = {state: reached[state] for state in best}
        states = reached
    assignment, way = dict(start), states[min(states, key=lambda state: _rank(state, wanted))]
    while way is not None:
        user, assignment[user], way = way
    return assignment


def _rank(state: tuple[int, ...], wanted: list[float]) -> tuple:
    return state.count(0), _excess(state, wanted), -sum(state), state


def _hashed_split(user_key: int, config: Any) -> int:
    x = rng.key(config.seed, rng.USER_SPLIT, user_key)
    train = share(config.split.train_share)
    val = share(config.split.val_share)
    if x < math.floor(train * 2**64):
        return 0
    return 1 if x < math.floor((train + val) * 2**64) else 2


def best_split(
    user_key: int, counts: list[int], multipliers: tuple[int, int, int], seed: int
) -> int | None:
    """The split where multiplier x count x (2^20 + jitter) is greatest; the first of equals; None
    without any count.
    """
    if not any(counts):
        return None
    scores = [
        multipliers[k] * counts[k] * (2**20 + rng.key(seed, rng.USER_SPLIT, user_key, k) % 2**10)
        for k in range(3)
    ]
    return scores.index(max(scores))


def find_multipliers(counts: dict[int, list[int]], config: Any) -> tuple[int, int, int]:
    """Raise val's, then test's multiplier to the least value that reaches its share; again, for up
    to 12 rounds.
    """
    wanted = {1: share(config.split.val_share)}
    wanted[2] = 1 - share(config.split.train_share) - wanted[1]
    multipliers = [START, START, START]

    def reaches(split: int, multiplier: int) -> bool:
        trial = list(multipliers)
        trial[split] = multiplier
        sizes = [0, 0, 0]
        for user, n in counts.items():
            best = best_split(user, n, tuple(trial), config.seed)
            if best is not None:
                sizes[best] += n[best]
        return sum(sizes) > 0 and sizes[split] >= wanted[split] * sum(sizes)

    for _ in range(12):
        before = list(multipliers)
        for split in (1, 2):
            multipliers[split] = _least(lambda m, split=split: reaches(split, m))
        if multipliers == before:
            break
    return tuple(multipliers)


def _least(reaches: Callable[[int], bool]) -> int:
    """The least multiplier that reaches; the greatest allowed where none does. (Reaching is
    monotone.)
    """
    low, high = LEAST, MOST
    while low < high:
        middle = (low + high) // 2
        if reaches(middle):
            high = middle
        else:
            low = middle + 1
    return low


def emit(
    log: Log, config: Any, snapshots: Snapshots, assignment: dict[int, int | None]
) -> tuple[list[list[Positive]], dict[str, int]]:
    """Positives of each split in (time, user, item) order, and the ledger: each interaction in one
    bucket.
    """
    ledger = dict.fromkeys(
        (*(f"emitted_{name}" for name in SPLITS), *LOSSES, "history", "later_unused", "no_split"), 0
    )
    positives: list[list[Positive]] = [[], [], []]
    may_overlap = config.split.strategy in ("temporal", "leave_last")
    for user in range(len(log.users)):
        split = assignment[user]
        for e in log.of_user(user):
            window = window_of(log, config, e)
            if not may_overlap and split is None:
                ledger["no_split"] += 1
            elif not may_overlap and window != split:
                ledger["history" if window < split else "later_unused"] += 1
            elif reason := _lost(log, config, snapshots, e):
                ledger[reason] += 1
            else:
                ledger[f"emitted_{SPLITS[window]}"] += 1
                positives[window].append(
                    Positive(user, e.item, e.time, e.channel, window, snapshots.at(e.time))
                )
    for group in positives:
        group.sort(key=lambda p: (p.time, p.user, p.item))
    return positives, ledger


def _lost(log: Log, config: Any, snapshots: Snapshots, e: Interaction) -> str | None:
    """The first reason why an interaction inside its user's window is not emitted; None when it
    is.
    """
    least = config.sequence_processing.min_sequence_length
    if in_gap(log, config, e):
        return "in_gap"
    window = window_of(log, config, e)
    history = log.history(e.user, e.time)
    if len(history) < least:
        return "short_history"
    remaining = [
        other
        for other in log.of_user(e.user)
        if window_of(log, config, other) == window
        and len(log.history(e.user, other.time)) >= least
        and not in_gap(log, config, other)
    ]
    if e not in remaining[-config.filtering.max_user_interactions :]:
        return "over_cap"
    corpus = snapshots.on_sale(snapshots.at(e.time))
    if e.item not in corpus:
        return "not_on_sale"
    if config.negative_sampling.repurchases == "drop" and any(h.item == e.item for h in history):
        return "repurchase"
    free = set(corpus) - log.owned(e.user, log.cuts.end(window))
    hard = config.negative_sampling.hard_negatives_per_positive
    random = config.negative_sampling.random_negatives_per_positive
    if len([j for j in free if not log.siblings(e.item, j)]) < hard or len(free) < hard + random:
        return "corpus_too_small"
    return None
