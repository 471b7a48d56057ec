"""The weighted matrix before cut1 (D9) and each item's neighbors (D10), pair by pair.

Readings where the decisions leave room: a user's degree counts all cells of the matrix row, views
included; the median of an even number of weights is the lower one; the median price factor of an
empty matrix is 1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .world import Log

PACKED_LIMIT = 2**42  # greatest sum of squares of one item that leaves 21 bits to count buyers
WIDE_LIMIT = 2**62
FINE_ENOUGH = 2**11  # a median weight of this size is rounded by at most 2^-12 of itself


class Neighbor(NamedTuple):
    item: int
    similarity: np.float32
    common: int  # users who have both


def rounded(x: float) -> float:
    """To 24 bits."""
    return float(np.float32(x))


def lower_median(values: list) -> Any:
    return sorted(values)[(len(values) - 1) // 2]


def cell_weights(log: Log, config: Any) -> dict[tuple[int, int], float]:
    """Weight (float64) of each cell (user, item) of the matrix."""
    settings = config.similarity
    cells: dict[tuple[int, int], float] = {}
    price_factors = []
    for user in range(len(log.users)):
        before = log.history(user, log.cuts.cut1)
        for e in before[-config.filtering.max_user_interactions :]:
            by_price = settings.weight_by_price and e.price is not None
            price_factor = rounded(np.log1p(np.float64(e.price))) if by_price else 1.0
            price_factors.append(price_factor)
            factor = _channel_weight(e.channel, config) * price_factor
            cells[user, e.item] = max(factor, cells.get((user, e.item), 0.0))
    view_factor = settings.view_weight * (lower_median(price_factors) if price_factors else 1.0)
    before = [e for e in log.interactions if e.time < log.cuts.cut1]
    users, items = {e.user for e in before}, {e.item for e in before}
    for user, item, time in log.views:
        known = config.filtering.counts == "log" or (user in users and item in items)
        if time < log.cuts.cut1 and known:
            cells[user, item] = max(view_factor, cells.get((user, item), 0.0))
    return {
        (user, item): factor * _user_idf(user, cells, log, settings)
        for (user, item), factor in cells.items()
    }


def _channel_weight(channel: int, config: Any) -> float:
    if not config.similarity.channel_weighting:
        return 1.0
    if config.inputs.channels.get(channel) == "online":
        return config.similarity.online_weight
    return config.similarity.offline_weight


def _user_idf(user: int, cells: dict[tuple[int, int], float], log: Log, settings: Any) -> float:
    if not settings.user_idf:
        return 1.0
    degree = sum(1 for owner, _ in cells if owner == user)
    n_known = len({item for _, item in cells})
    return rounded(np.log(np.float64(n_known / degree)))


def integer_weights(
    weights: dict[tuple[int, int], float],
) -> tuple[dict[tuple[int, int], int], int]:
    """Fixed-point weights, and the power of two they were scaled by."""
    limit = PACKED_LIMIT
    while True:
        b = next(
            b for b in range(40, -2000, -1) if _greatest_square_sum(_scaled(weights, b)) < limit
        )
        scaled = _scaled(weights, b)
        positive = [w for w in scaled.values() if w > 0]
        if limit == WIDE_LIMIT or not positive or lower_median(positive) >= FINE_ENOUGH:
            return scaled, b
        limit = WIDE_LIMIT


def _scaled(weights: dict[tuple[int, int], float], b: int) -> dict[tuple[int, int], int]:
    return {cell: round(math.ldexp(w, b)) for cell, w in weights.items()}  # half to even


def _greatest_square_sum(scaled: dict[tuple[int, int], int]) -> int:
    sums: dict[int, int] = {}
    for (_, item), w in scaled.items():
        sums[item] = sums.get(item, 0) + w * w
    return max(sums.values(), default=0)


def find_neighbors(log: Log, config: Any) -> list[list[Neighbor]]:
    """Of each item: the most similar others, by falling float32 similarity, then rising item."""
    scaled, _ = integer_weights(cell_weights(log, config))
    columns: list[dict[int, int]] = [{} for _ in log.items]  # item -> user -> weight
    for (user, item), w in scaled.items():
        columns[item][user] = w
    norms = [math.sqrt(sum(w * w for w in column.values())) for column in columns]
    neighbors: list[list[Neighbor]] = []
    for i in range(len(columns)):
        similar_items = []
        for j in range(len(columns)):
            common = columns[i].keys() & columns[j].keys()
            if (
                j == i
                or len(common) < config.similarity.min_common_users
                or norms[i] == 0
                or norms[j] == 0
            ):
                continue
            dot = sum(columns[i][user] * columns[j][user] for user in common)
            similarity = np.float32(min(1.0, dot / (norms[i] * norms[j])))
            if similarity > 0:
                similar_items.append(Neighbor(j, similarity, len(common)))
        similar_items.sort(key=lambda n: (-n.similarity, n.item))
        neighbors.append(similar_items[: config.similarity.top_k])
    return neighbors
