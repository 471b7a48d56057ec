"""The negatives of one positive: hard (D13) by sources, score and greedy choice; random (D12) by
counted draws.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from . import rng
from .features import Snapshots
from .similarity import Neighbor
from .splits import Positive
from .world import DAY, Log, share

ONE = 2**16  # scores are integers: products of two numbers in 16-bit fixed point


class Negative(NamedTuple):
    item: int
    source: str  # hard or random
    detail: str  # item_cf, collaborative, category_crossing, fallback or random
    similarity: np.float32 | None


class Draws:
    """Procedure P: uniform draws from the corpus among allowed items, by one key and a counter that
    runs on.
    """

    def __init__(self, key: int):
        self.key = key
        self.counter = 0

    def _below(self, n: int) -> int:
        self.counter += 1
        return rng.below(rng.draw(self.key, self.counter - 1), n)

    def take(self, corpus: list[int], allowed: set[int]) -> int:
        for _ in range(32):
            item = corpus[self._below(len(corpus))]
            if item in allowed:
                return item
        left = [item for item in corpus if item in allowed]
        return left[self._below(len(left))]


class Miner:
    """Finds negatives; counts choices where the own-group cap was relaxed, and fallbacks
    (`shortfall`).
    """

    def __init__(
        self, log: Log, config: Any, snapshots: Snapshots, neighbors: list[list[Neighbor]]
    ):
        self.log = log
        self.config = config
        self.settings = config.negative_sampling
        self.snapshots = snapshots
        self.neighbors = neighbors
        self.relaxed = 0
        self.shortfall = 0

    def negatives(self, p: Positive) -> list[Negative]:
        """The hard ones in order of choice, then the random ones in the order drawn."""
        corpus = self.snapshots.on_sale(p.snapshot)
        free = set(corpus) - self.log.owned(p.user, self.log.cuts.end(p.split)) - {p.item}
        strangers = {j for j in free if not self.log.siblings(p.item, j)}
        similarity = {n.item: n.similarity for n in self.neighbors[p.item]}
        hard = self.choose(p, strangers)
        draws = Draws(self._key(rng.FALLBACK_NEGATIVE, p))
        while len(hard) < self.settings.hard_negatives_per_positive:
            hard.append((draws.take(corpus, strangers - {j for j, _ in hard}), "fallback"))
            self.shortfall += 1
        draws = Draws(self._key(rng.RANDOM_NEGATIVE, p))
        random: list[int] = []
        while len(random) < self.settings.random_negatives_per_positive:
            random.append(draws.take(corpus, free - {j for j, _ in hard} - set(random)))
        return [Negative(j, "hard", detail, similarity.get(j)) for j, detail in hard] + [
            Negative(j, "random", "random", None) for j in random
        ]

    def _key(self, purpose: int, p: Positive) -> int:
        return rng.key(
            self.config.seed,
            purpose,
            self.log.user_key(p.user),
            self.log.item_key(p.item),
            p.time,
            p.copy,
        )

    # -- sources

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

    def together(self, p: Positive) -> dict[int, int]:
        """co(j): how many of the positive's latest other buyers have j among their latest
        interactions before t.
        """
        last: dict[int, int] = {}
        for e in self.log.interactions:
            if e.item == p.item and e.user != p.user and e.time < p.time:
                last[e.user] = max(e.time, last.get(e.user, e.time))
        buyers = sorted(last, key=lambda user: (last[user], user), reverse=True)
        co: dict[int, int] = {}
        for buyer in buyers[: self.settings.collaborative_buyers]:
            since = p.time - self.settings.collaborative_days * DAY
            recent = [e for e in self.log.history(buyer, p.time) if e.time >= since]
            for j in {e.item for e in recent[-self.settings.collaborative_items :]}:
                co[j] = co.get(j, 0) + 1
        return co

    def crossing(self, p: Positive) -> set[int]:
        """Seeded draws from the corpus in the positive's price category and another product
        group.
        """
        category = self.snapshots.category(p.snapshot, p.item)
        own = self.log.group(p.item)
        others = [
            j
            for j in self.snapshots.on_sale(p.snapshot)
            if self.snapshots.category(p.snapshot, j) == category and self.log.group(j) != own
        ]
        others.sort(key=lambda j: (self.log.group(j) is not None, self.log.group(j) or "", j))
        if not others:
            return set()
        key = self._key(rng.CATEGORY_CROSSING, p)
        return {
            others[rng.below(rng.draw(key, c), len(others))]
            for c in range(self.settings.category_draws)
        }

    # -- choice

    def score(self, p: Positive, j: int, co: int) -> int:
        weights = self.settings.score
        similarity = {n.item: n.similarity for n in self.neighbors[p.item]}.get(j, 0.0)
        own, other = (self.snapshots.normalized(p.snapshot, item) for item in (p.item, j))
        near = ONE // 2 if own is None or other is None else ONE - abs(_fixed(own) - _fixed(other))
        return (
            _fixed(weights.similarity) * _fixed(similarity)
            + _fixed(weights.collaborative) * min(8, co) * (ONE // 8)
            + _fixed(weights.price) * near
            - _fixed(weights.popularity) * _fixed(self.snapshots.popularity(p.snapshot, j))
        )

    def choose(self, p: Positive, strangers: set[int]) -> list[tuple[int, str]]:
        """Up to `hard_negatives_per_positive` (item, detail) of the pooled candidates, greedily."""
        co = self.together(p)
        offers = {
            "item_cf": set(self.item_cf(p.item)),
            "collaborative": set(co),
            "category_crossing": self.crossing(p),
        }
        scores = {
            j: self.score(p, j, co.get(j, 0)) for j in set().union(*offers.values()) & strangers
        }
        n_hard = self.settings.hard_negatives_per_positive
        most_own = math.floor(share(self.settings.diversity_threshold) * n_hard)
        penalty = _fixed(self.settings.score.diversity) * ONE
        own = self.log.group(p.item)
        chosen: list[int] = []
        while scores and len(chosen) < n_hard:
            groups = [self.log.group(j) for j in chosen]
            choice = set(scores)
            if groups.count(own) >= most_own:
                others = {j for j in choice if self.log.group(j) != own}
                self.relaxed += not others
                choice = others or choice
            best = min(
                choice, key=lambda j: (penalty * groups.count(self.log.group(j)) - scores[j], j)
            )
            del scores[best]
            chosen.append(best)
        return [(j, next(name for name, items in offers.items() if j in items)) for j in chosen]


def _fixed(x: float) -> int:
    """In 16-bit fixed point, half to even."""
    return round(float(x) * ONE)
