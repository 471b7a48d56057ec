"""Who is in which split (D7), which interactions become positives, and the bucket of every
interaction.

Readings where the decisions leave room: with `hash` every user has a split, also one that emits
nothing in it; with `temporal` nobody has one (`assignment` is None throughout) and each interaction
counts in its own window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable

from . import rng
from .features import Snapshots
from .world import SPLITS, Interaction, Log, share

LEAST, START, MOST = 2**4, 2**14, 2**24  # multipliers are integers in LEAST..MOST
LOSSES = ("short_history", "over_cap", "not_on_sale", "repurchase", "corpus_too_small")


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


def count_long_enough(log: Log, config: Any, user: int, window: int) -> int:
    """n_uk: the user's interactions in the window with enough earlier ones, capped."""
    least = config.sequence_processing.min_sequence_length
    n = sum(
        1
        for e in log.of_user(user)
        if log.cuts.window(e.time) == window and len(log.history(user, e.time)) >= least
    )
    return min(n, config.filtering.max_user_interactions)


def assign(log: Log, config: Any) -> dict[int, int | None]:
    """Split index of each user, None for users in no split."""
    users = range(len(log.users))
    if config.split.strategy == "temporal":
        return dict.fromkeys(users)
    if config.split.strategy == "hash":
        return {user: _hashed_split(log.user_key(user), config) for user in users}
    counts = {
        log.user_key(user): [count_long_enough(log, config, user, window) for window in range(3)]
        for user in users
    }
    multipliers = find_multipliers(counts, config)
    return {
        user: best_split(key := log.user_key(user), counts[key], multipliers, config.seed)
        for user in users
    }


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
        taken = [0, 0, 0]
        for user, n in counts.items():
            best = best_split(user, n, tuple(trial), config.seed)
            if best is not None:
                taken[best] += n[best]
        return sum(taken) > 0 and taken[split] >= wanted[split] * sum(taken)

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
    for user in range(len(log.users)):
        split = assignment[user]
        for e in log.of_user(user):
            window = log.cuts.window(e.time)
            if config.split.strategy != "temporal" and split is None:
                ledger["no_split"] += 1
            elif config.split.strategy != "temporal" and window != split:
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
    window = log.cuts.window(e.time)
    history = log.history(e.user, e.time)
    if len(history) < least:
        return "short_history"
    remaining = [
        other
        for other in log.of_user(e.user)
        if log.cuts.window(other.time) == window and len(log.history(e.user, other.time)) >= least
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
