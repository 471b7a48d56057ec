"""The hard negatives that may be drawn for the positives of an item and a snapshot (D13).

Reading where the decisions leave room: a null product group sorts before all others, the others by
code point.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from . import rng
from .features import Snapshots
from .similarity import Neighbor
from .world import DAY, Log, share

ONE = 2**16  # products of two numbers in 16-bit fixed point give a score


class Candidate(NamedTuple):
    item: int
    detail: str  # item_cf, collaborative, viewed or category_crossing: the first that offered it
    score: int  # in units of 2^-14


class Candidates:
    """Lists candidates as of a snapshot; `listed` remembers its lists."""

    def __init__(
        self, log: Log, config: Any, snapshots: Snapshots, neighbors: list[list[Neighbor]]
    ):
        self.log = log
        self.settings = config.negative_sampling
        self.seed = config.seed
        self.snapshots = snapshots
        self.neighbors = neighbors
        self.listed = cache(self._listed)

    def _listed(self, item: int, k: int) -> list[Candidate]:
        """The candidates of the highest score, by product group and item."""
        bought, viewed = self.together(item, k), self.viewed(item, k)
        co = {j: bought.get(j, 0) + viewed.get(j, 0) for j in {**bought, **viewed}}
        offers = {
            "item_cf": set(self.item_cf(item)),
            "collaborative": set(bought),
            "viewed": set(viewed),
            "category_crossing": self.crossing(item, k),
        }
        allowed = {
            j for j in self.snapshots.on_sale(k) if j != item and not self.log.siblings(item, j)
        }
        listed = [
            Candidate(
                j,
                next(source for source, items in offers.items() if j in items),
                self.score(item, k, j, co.get(j, 0)),
            )
            for j in set().union(*offers.values()) & allowed
        ]
        listed.sort(key=lambda c: (-c.score, c.item))
        return sorted(listed[: self.settings.candidates], key=lambda c: self._place(c.item))

    def _place(self, item: int) -> tuple:
        group = self.log.group(item)
        return group is not None, group or "", item

    def item_cf(self, item: int) -> list[int]:
        """Neighbors inside the band, by similarity or by rank, the first `item_cf_top_k` of
        them.
        """
        ranked = self.neighbors[item]
        if self.settings.hard_band == "percentile":
            low, high = (math.floor(share(p) * len(ranked)) for p in self.settings.percentile_range)
            band = [n for rank, n in enumerate(ranked) if low <= rank < high]
        else:
            low, high = (
                np.float32(self.settings.similarity_threshold),
                np.float32(self.settings.similarity_ceiling),
            )
            band = [n for n in ranked if low < n.similarity <= high]
        return [n.item for n in band[: self.settings.item_cf_top_k]]

    def buyers(self, item: int, k: int) -> list[int]:
        """The item's latest buyers before the snapshot."""
        last: dict[int, int] = {}
        for e in self.log.interactions:
            if e.item == item and e.time < self.snapshots.start(k):
                last[e.user] = max(e.time, last.get(e.user, e.time))
        buyers = sorted(last, key=lambda user: (last[user], user), reverse=True)
        return buyers[: self.settings.collaborative_buyers]

    def together(self, item: int, k: int) -> dict[int, int]:
        """How many of the item's latest buyers have j among their latest interactions."""
        start = self.snapshots.start(k)
        co: dict[int, int] = {}
        for buyer in self.buyers(item, k):
            since = start - self.settings.collaborative_days * DAY
            recent = [e for e in self.log.history(buyer, start) if e.time >= since]
            for j in {e.item for e in recent[-self.settings.collaborative_items :]}:
                co[j] = co.get(j, 0) + 1
        return co

    def viewed(self, item: int, k: int) -> dict[int, int]:
        """How many of the item's latest buyers have j among what they viewed latest, of what was on
        sale and they had not bought.
        """
        start, on_sale = self.snapshots.start(k), set(self.snapshots.on_sale(k))
        since = start - self.settings.collaborative_days * DAY
        n_viewers: dict[int, int] = {}
        for buyer in self.buyers(item, k):
            wanted = on_sale - self.log.owned(buyer, start)
            last: dict[int, int] = {}
            for user, j, time in self.log.views:
                if user == buyer and j in wanted and since <= time < start:
                    last[j] = max(time, last.get(j, time))
            latest = sorted(last, key=lambda j: (last[j], j), reverse=True)
            for j in latest[: self.settings.viewed_items]:
                n_viewers[j] = n_viewers.get(j, 0) + 1
        return n_viewers

    def crossing(self, item: int, k: int) -> set[int]:
        """Seeded draws from the corpus in the item's price category and another product group."""
        category, own = self.snapshots.category(k, item), self.log.group(item)
        rivals = [
            j
            for j in self.snapshots.on_sale(k)
            if self.snapshots.category(k, j) == category and self.log.group(j) != own
        ]
        rivals.sort(key=self._place)
        if not rivals:
            return set()
        key = rng.key(self.seed, rng.CATEGORY_CROSSING, self.log.item_key(item), k)
        return {
            rivals[rng.below(rng.draw(key, c), len(rivals))]
            for c in range(self.settings.category_draws)
        }

    def score(self, item: int, k: int, j: int, co: int) -> int:
        weights = self.settings.score
        similarity = {n.item: n.similarity for n in self.neighbors[item]}.get(j, 0.0)
        own, other = (self.snapshots.normalized(k, i) for i in (item, j))
        near = ONE // 2 if own is None or other is None else ONE - abs(_fixed(own) - _fixed(other))
        raw = (
            _fixed(weights.similarity) * _fixed(similarity)
            + _fixed(weights.collaborative) * min(8, co) * (ONE // 8)
            + _fixed(weights.price) * near
            - _fixed(weights.popularity) * _fixed(self.snapshots.popularity(k, j))
        )
        return min((raw + 2**17) >> 18, 2**15 - 1)


def _fixed(x: float) -> int:
    """In 16-bit fixed point, half to even."""
    return round(float(x) * ONE)
