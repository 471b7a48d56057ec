"""Positives and their negatives -> rows in the contract's schema (D16, D17), sequences (D15) and
the similarity file.

Rows are `labeled_pair` rows with our extra columns; `generation_timestamp` is None, since it is no
content. Readings where the decisions leave room: `is_repurchase` is the positive's on all rows of
its group; ranks of `item_similarity_matrix` count from 1; with `temporal` a user's sequence row is
that of the user's last window with a long enough history; sessions of a sequence row count from its
own first interaction.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import rng
from .features import Snapshots, age_group, calendar, clean_age, day_of, user_features
from .negatives import Miner
from .similarity import Neighbor
from .splits import Positive, count_long_enough
from .world import DAY, HOUR, SPLITS, Log

ITEM_COLUMNS = {
    "item_product_group": "product_group_name",
    "item_color_group": "colour_group_name",
    "item_garment_group": "garment_group_name",
    "item_department": "department_name",
    "item_index_group": "index_group_name",
}


def in_file_order(positives: list[Positive], split: int, config: Any) -> list[Positive]:
    """Chronological (t, user, item, copy), or that order shuffled by seeded keys of its positions
    (D16).
    """
    positives = sorted(positives, key=lambda p: (p.time, p.user, p.item, p.copy))
    if config.output.order == "chronological":
        return positives
    order = sorted(
        range(len(positives)),
        key=lambda group: (rng.key(config.seed, rng.SHUFFLE, split, group), group),
    )
    return [positives[group] for group in order]


def group_rows(
    log: Log, config: Any, snapshots: Snapshots, miner: Miner, p: Positive, group: int
) -> list[dict]:
    """The rows of one group: slot 0 the positive, then hard and random negatives."""
    shared = _group_columns(log, config, p)
    rows = []
    for slot, negative in enumerate([None, *miner.negatives(p)]):
        item = p.item if negative is None else negative.item
        rows.append(
            {
                **shared,
                **_item_columns(log, snapshots, p.snapshot, item),
                "label": np.float32(negative is None),
                "negative_source": negative and negative.source,
                "similarity_score": negative and negative.similarity,
                "sample_id": f"{SPLITS[p.split]}-{group:010d}-{slot:02d}",
                "generation_timestamp": None,
                "negative_detail": negative and negative.detail,
                "negative_log_q": negative and negative.log_q,
            }
        )
    return rows


def _group_columns(log: Log, config: Any, p: Positive) -> dict[str, Any]:
    customer = log.customers[p.user]
    age = clean_age(customer.get("age"))
    history = log.history(p.user, p.time)
    sequence = [log.index(e.item) for e in history][
        -config.sequence_processing.max_sequence_length :
    ]
    return {
        "user_id": log.users[p.user],
        "user_age": age,
        "user_age_group": age_group(age),
        "user_club_status": customer.get("club_member_status"),
        "user_news_frequency": customer.get("fashion_news_frequency"),
        **user_features(history, p.time),
        "user_interaction_sequence": sequence,
        "user_sequence_lengths": len(sequence),
        "timestamp": p.time,
        "sales_channel": None if p.channel == -1 else p.channel,
        **calendar(p.time, config.features.hemisphere),
        "sample_weight": np.float32(p.weight),
        "is_repurchase": any(e.item == p.item for e in history),
    }


def _item_columns(log: Log, snapshots: Snapshots, k: int, item: int) -> dict[str, Any]:
    return {
        "item_id": log.items[item],
        **{column: log.articles[item].get(name) for column, name in ITEM_COLUMNS.items()},
        "item_popularity_score": snapshots.popularity(k, item),
        "item_price_category": snapshots.category(k, item),
        "item_price_normalized": snapshots.normalized(k, item),
    }


def similarity_rows(log: Log, neighbors: list[list[Neighbor]]) -> list[dict]:
    return [
        {
            "item_id": log.items[item],
            "similar_item_id": log.items[n.item],
            "similarity": n.similarity,
            "common_users": n.common,
            "rank": rank,
        }
        for item, ranked in enumerate(neighbors)
        for rank, n in enumerate(ranked, start=1)
    ]


def hard_candidate_rows(
    log: Log, config: Any, snapshots: Snapshots, miner: Miner, positives: list[list[Positive]]
) -> list[dict]:
    """The lists of all positives by snapshot and item, each in stored order (D13)."""
    if not config.negative_sampling.hard_negatives_per_positive:
        return []
    weights = config.negative_sampling.source_weights
    return [
        {
            "item_id": log.items[item],
            "snapshot": snapshots.start(k),
            "candidate_id": log.items[c.item],
            "source": c.detail,
            "score": np.float32(c.score / 2**14),
            "similarity": {n.item: n.similarity for n in miner.neighbors[item]}.get(c.item),
            "weight": getattr(weights, c.detail) * miner.hard.mining_weights[c.item],
            "is_own_group": log.group(c.item) == log.group(item),
            "popularity_score": snapshots.popularity(k, c.item),
            "price_category": snapshots.category(k, c.item),
            "price_normalized": snapshots.normalized(k, c.item),
        }
        for k, item in sorted({(p.snapshot, p.item) for split in positives for p in split})
        for c in miner.candidates.listed(item, k)
    ]


def user_sequence_rows(log: Log, config: Any, assignment: dict[int, int | None]) -> list[dict]:
    rows = []
    for user in range(len(log.users)):
        split = assignment[user]
        if config.split.strategy in ("temporal", "leave_last"):
            windows = [
                window for window in range(3) if count_long_enough(log, config, user, window) > 0
            ]
            split = max(windows, default=None)
        if split is None:
            continue
        history = log.history(user, log.cuts.end(split))
        if len(history) < config.sequence_processing.min_sequence_length:
            continue
        latest = history[-config.sequence_processing.max_sequence_length :]
        times = [e.time for e in latest]
        rows.append(
            {
                "user_id": log.users[user],
                "split": SPLITS[split],
                "item_indices": [log.index(e.item) for e in latest],
                "timestamps": times,
                "session_ids": session_ids(times, config.sequence_processing.temporal_gap_hours),
                **_temporal_encodings(
                    times, (log.cuts.cut1, log.cuts.cut2, log.cuts.t1)[split], config
                ),
                "sequence_length": len(latest),
            }
        )
    return rows


def session_ids(times: list[int], gap_hours: int) -> list[int]:
    """0 for the first; one more after each gap that is longer than `gap_hours`."""
    ids: list[int] = []
    for index, time in enumerate(times):
        ids.append(0 if index == 0 else ids[-1] + (time - times[index - 1] > gap_hours * HOUR))
    return ids


def _temporal_encodings(times: list[int], end: int, config: Any) -> dict[str, list[np.float32]]:
    half_life = config.category_balancing.recency_half_life_days
    week = [np.float64(2 * math.pi * day_of(time).weekday() / 7) for time in times]
    year = [
        np.float64(2 * math.pi * (day_of(time).timetuple().tm_yday - 1) / 365.25) for time in times
    ]
    return {
        "recency": [
            np.float32(np.exp2(np.float64(-((end - time) // DAY) / half_life))) for time in times
        ],
        "day_of_week_sin": [np.float32(np.sin(x)) for x in week],
        "day_of_week_cos": [np.float32(np.cos(x)) for x in week],
        "season_sin": [np.float32(np.sin(x)) for x in year],
        "season_cos": [np.float32(np.cos(x)) for x in year],
    }
