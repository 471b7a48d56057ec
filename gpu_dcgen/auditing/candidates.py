"""List the candidates for hard negatives of an item at a snapshot (D13)."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..config import DatasetConfig, to_fraction
from .hashes import CATEGORY_CROSSING, draw_below, make_key
from .item_snapshots import ItemSnapshots
from .purchase_log import DAY, PurchaseLog
from .similarity import SimilarityPairs

ONE = 1 << 16  # 1.0 in 16-bit fixed point; a part of a score is a product of two such numbers
SCORE_BITS = 14  # 1.0 as a score is 2^14
PART_BITS = 32
MAX_SCORE = (1 << 15) - 1
MAX_COUNTED_BUYERS = 8
_NO_VIEWS = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)  # items, times


@dataclass
class Candidate:
    """An item that sources offered, the parts of its score, and what became of it."""

    item: int
    sources: list[str]
    # itself, not_on_sale, sibling or low_score; then, for one positive, owned; None if allowed
    refused: str | None = None
    similarity: np.float32 | None = None  # of the pair in the matrix
    buyers: int = 0  # who brought it in by `collaborative` or `viewed`
    # similarity, collaborative, price, popularity in 2^-32: add up to `score` before rounding
    parts: dict[str, int] = field(default_factory=dict)
    score: int = 0  # in 2^-14
    weight: int | None = None  # of its source x its own; None if refused, and with `greedy`
    probability: float = 0.0  # of being drawn for the positive
    log_q: np.float32 = np.float32(-np.inf)  # its logarithm
    slot: int | None = None  # in which it is written, if drawn


class CandidateLister:
    """Lists the candidates of items at the snapshots of one split's window."""

    def __init__(
        self,
        log: PurchaseLog,
        snapshots: ItemSnapshots,
        pairs: SimilarityPairs,
        config: DatasetConfig,
    ) -> None:
        self._log, self._snapshots, self._pairs = log, snapshots, pairs
        self._settings, self._seed = config.negative_sampling, config.seed
        self._weights = {name: to_fixed_point(weight) for name, weight in self._settings.score}
        self._group = log.item_columns["product_group"].codes
        self._code = log.item_columns["product_code"].codes

    def mark_siblings(self, item: int) -> np.ndarray:
        """Mark the items with the product code of an item, if it has one: (I,) bool."""
        if self._code[item] < 0:
            return np.zeros(self._log.n_items, dtype=bool)
        return self._code == self._code[item]

    def list_candidates(self, item: int, snapshot: int) -> list[Candidate]:
        """Return all that sources offer an item, by product group and item.

        `snapshot` is a row of the snapshots' tables. The candidates of the highest score are
        allowed; the others are refused.
        """
        candidates = self._collect(item, snapshot)
        on_sale, is_sibling = self._snapshots.on_sale[snapshot], self.mark_siblings(item)
        for candidate in candidates:
            reasons = {
                "itself": candidate.item == item,
                "not_on_sale": not on_sale[candidate.item],
                "sibling": is_sibling[candidate.item],
            }
            candidate.refused = next((reason for reason, holds in reasons.items() if holds), None)
            self._score(candidate, item, snapshot)
        ranked = [candidate for candidate in candidates if candidate.refused is None]
        ranked.sort(key=rank_by_score)
        for candidate in ranked[self._settings.candidates :]:
            candidate.refused = "low_score"
        return sorted(candidates, key=lambda c: (int(self._group[c.item]), c.item))

    def _collect(self, item: int, snapshot: int) -> list[Candidate]:
        offers: dict[int, Candidate] = {}
        buyers = self._list_buyers(item, snapshot)
        bought = Counter(j for buyer in buyers for j in self._list_bought(buyer, snapshot))
        viewed = Counter(j for buyer in buyers for j in self._list_viewed(buyer, snapshot))
        for source, items in (
            ("item_cf", self._list_similar(item)),
            ("collaborative", bought),
            ("viewed", viewed),
            ("category_crossing", self._draw_crossing(item, snapshot)),
        ):
            for j in items:
                offers.setdefault(int(j), Candidate(int(j), [])).sources.append(source)
        neighbors, similarity = self._pairs.neighbors_of(item)
        similarities = dict(zip(neighbors.tolist(), similarity, strict=True))
        for j, candidate in offers.items():
            candidate.buyers, candidate.similarity = bought[j] + viewed[j], similarities.get(j)
        return list(offers.values())

    def _list_similar(self, item: int) -> np.ndarray:
        """List the nearest neighbors within the configured band."""
        settings = self._settings
        neighbors, similarity = self._pairs.neighbors_of(item)
        if settings.hard_band == "percentile":
            first, last = (
                math.floor(to_fraction(share) * len(neighbors))
                for share in settings.percentile_range
            )
            return neighbors[first:last][: settings.item_cf_top_k]
        low = np.float32(settings.similarity_threshold)
        high = np.float32(settings.similarity_ceiling)
        return neighbors[(similarity > low) & (similarity <= high)][: settings.item_cf_top_k]

    @cached_property
    def _by_item(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the log by (item, time, user), and the offsets of each item's rows."""
        order = np.lexsort((self._log.user, self._log.time, self._log.item))
        return order, np.searchsorted(self._log.item[order], np.arange(self._log.n_items + 1))

    def _list_buyers(self, item: int, snapshot: int) -> list[int]:
        """List the latest buyers of an item, the latest first."""
        order, offsets = self._by_item
        rows = order[offsets[item] : offsets[item + 1]]
        rows = rows[: np.searchsorted(self._log.time[rows], self._snapshots.instant(snapshot))]
        buyers = dict.fromkeys(self._log.user[rows[::-1]].tolist())
        return list(buyers)[: self._settings.collaborative_buyers]

    def _list_bought(self, buyer: int, snapshot: int) -> set[int]:
        """List the items of a buyer's latest purchases in the days before a snapshot."""
        settings, log = self._settings, self._log
        instant = self._snapshots.instant(snapshot)
        first, last = log.user_offsets[buyer : buyer + 2]
        stop = first + np.searchsorted(log.time[first:last], instant)
        latest = np.arange(max(first, stop - settings.collaborative_items), stop)
        latest = latest[log.time[latest] >= instant - settings.collaborative_days * DAY]
        return set(log.item[latest].tolist())

    def _list_viewed(self, buyer: int, snapshot: int) -> list[int]:
        """List what a buyer viewed latest in those days, of what was on sale and not bought."""
        items, times = self._views_by_user.get(buyer, _NO_VIEWS)
        instant = self._snapshots.instant(snapshot)
        is_open = (times >= instant - self._settings.collaborative_days * DAY) & (times < instant)
        is_open &= self._snapshots.on_sale[snapshot, items]
        is_open &= self._log.owned_since(np.full(len(items), buyer), items) >= instant
        latest_first = items[is_open][np.lexsort((items[is_open], times[is_open]))][::-1].tolist()
        return list(dict.fromkeys(latest_first))[: self._settings.viewed_items]

    @cached_property
    def _views_by_user(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Items and times of each user's views."""
        if self._log.views is None:
            return {}
        user, item, time = (column[np.argsort(self._log.views.user)] for column in self._log.views)
        users, starts = np.unique(user, return_index=True)
        runs = zip(np.split(item, starts[1:]), np.split(time, starts[1:]), strict=True)
        return dict(zip(users.tolist(), runs, strict=False))

    def _draw_crossing(self, item: int, snapshot: int) -> list[int]:
        """Draw items of the same price category and another product group."""
        corpus = np.flatnonzero(self._snapshots.on_sale[snapshot])
        category = self._snapshots.category[snapshot]
        items = corpus[
            (category[corpus] == category[item]) & (self._group[corpus] != self._group[item])
        ]
        items = items[np.argsort(self._group[items], kind="stable")]
        if not len(items):
            return []
        number = self._snapshots.first + snapshot
        key = make_key(self._seed, CATEGORY_CROSSING, self._log.item_key[item], number)
        drawn = (
            int(items[draw_below(key, counter, len(items))])
            for counter in range(self._settings.category_draws)
        )
        return list(dict.fromkeys(drawn))

    def _score(self, candidate: Candidate, item: int, snapshot: int) -> None:
        weights, j = self._weights, candidate.item
        own, other = (float(self._snapshots.price[snapshot, i]) for i in (item, j))
        is_unknown = math.isnan(own) or math.isnan(other)
        nearness = (
            ONE // 2 if is_unknown else ONE - abs(to_fixed_point(own) - to_fixed_point(other))
        )
        n_buyers = min(MAX_COUNTED_BUYERS, candidate.buyers)
        popularity = to_fixed_point(self._snapshots.popularity[snapshot, j])
        candidate.parts = {
            "similarity": weights["similarity"] * to_fixed_point(candidate.similarity or 0.0),
            "collaborative": weights["collaborative"] * n_buyers * (ONE // MAX_COUNTED_BUYERS),
            "price": weights["price"] * nearness,
            "popularity": -weights["popularity"] * popularity,
        }
        # Rounded, halves up.
        unit = 1 << (PART_BITS - SCORE_BITS)
        candidate.score = min((sum(candidate.parts.values()) + unit // 2) // unit, MAX_SCORE)


def rank_by_score(candidate: Candidate) -> tuple[int, int]:
    """Return the key that sorts by falling score, then by rising item."""
    return -candidate.score, candidate.item


def to_fixed_point(x: float | np.float32) -> int:
    """Convert to 16-bit fixed point, halves to even."""
    return round(float(x) * ONE)
