"""Draw the negatives of one positive again, step by step (D12, D13)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..config import DatasetConfig, to_fraction
from .hashes import CATEGORY_CROSSING, FALLBACK_NEGATIVE, RANDOM_NEGATIVE, draw_below, make_key
from .item_snapshots import ItemSnapshots
from .purchase_log import DAY, PurchaseLog
from .similarity import SimilarityPairs

ONE = 1 << 16  # 1.0 in 16-bit fixed point; a score is a product of two such numbers
MAX_TRIES = 32
MAX_COUNTED_BUYERS = 8


class Positive(NamedTuple):
    """A positive by codes of the log."""

    user: int
    item: int
    time: int
    copy: int = 0  # of a resampled positive


@dataclass
class Candidate:
    """An item that sources offered, the parts of its score, and why it was refused."""

    item: int
    sources: list[str]
    refused: str | None = None  # itself, not_on_sale, owned, sibling; None if allowed
    similarity: np.float32 | None = None  # of the pair in the matrix
    buyers: int = 0  # who brought it in by `collaborative`
    # similarity, collaborative, price, popularity: add up to `score`
    parts: dict[str, int] = field(default_factory=dict)
    score: int = 0
    round: int | None = None  # in which it was chosen, from 1


@dataclass(frozen=True)
class Negative:
    """An item drawn as a negative."""

    item: int
    source: str  # hard or random
    detail: str
    similarity: np.float32 | None
    relaxed: bool = False  # chosen beyond the limit on the positive's own product group
    value: int | None = None  # score less the diversity penalty when it was chosen


@dataclass(frozen=True)
class MiningResult:
    """The candidates of one positive and its negatives.

    Hard negatives come first, in order of choice, then random ones, in order of drawing.
    """

    candidates: list[Candidate]
    negatives: list[Negative]
    n_on_sale: int
    n_allowed: int  # items on sale that the user does not own by the end of the window


class NegativeMiner:
    """Draws negatives for the positives of one split; `log` ends with the split's window."""

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

    @cached_property
    def _by_item(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the log by (item, time, user), and the offsets of each item's rows."""
        order = np.lexsort((self._log.user, self._log.time, self._log.item))
        return order, np.searchsorted(self._log.item[order], np.arange(self._log.n_items + 1))

    def mine(self, positive: Positive) -> MiningResult:
        """Collect the candidates of a positive, choose hard negatives and draw random ones."""
        snapshot = self._snapshots.at(positive.time)
        on_sale = self._snapshots.on_sale[snapshot]
        corpus = np.flatnonzero(on_sale)
        is_owned = self._mark_owned(positive)
        is_sibling = self._mark_siblings(positive.item)

        candidates = self._collect_candidates(positive, snapshot, corpus)
        for candidate in candidates.values():
            j = candidate.item
            reasons = {
                "itself": j == positive.item,
                "not_on_sale": not on_sale[j],
                "owned": is_owned[j],
                "sibling": is_sibling[j],
            }
            candidate.refused = next((reason for reason, holds in reasons.items() if holds), None)
            self._score(candidate, positive, snapshot)
        hard = self._choose(candidates, positive)

        is_allowed = ~is_owned & ~is_sibling
        is_allowed[[negative.item for negative in hard]] = False
        sampler = _RejectionSampler(self._make_key(FALLBACK_NEGATIVE, positive), corpus)
        while len(hard) < self._settings.hard_negatives_per_positive:
            j = sampler.draw(is_allowed)
            hard.append(Negative(j, "hard", "fallback", self._pairs.find(positive.item, j)))

        is_allowed = ~is_owned
        is_allowed[[negative.item for negative in hard]] = False
        sampler = _RejectionSampler(self._make_key(RANDOM_NEGATIVE, positive), corpus)
        random = [
            Negative(sampler.draw(is_allowed), "random", "random", None)
            for _ in range(self._settings.random_negatives_per_positive)
        ]
        return MiningResult(
            list(candidates.values()), hard + random, len(corpus), int((on_sale & ~is_owned).sum())
        )

    def _mark_owned(self, positive: Positive) -> np.ndarray:
        """Mark the items that the user buys before the end of the window: (I,) bool."""
        first, last = self._log.user_offsets[positive.user : positive.user + 2]
        is_owned = np.zeros(self._log.n_items, dtype=bool)
        is_owned[self._log.item[first:last]] = True
        is_owned[positive.item] = True
        return is_owned

    def _mark_siblings(self, item: int) -> np.ndarray:
        """Mark the items with the product code of an item, if it has one: (I,) bool."""
        if self._code[item] < 0:
            return np.zeros(self._log.n_items, dtype=bool)
        return self._code == self._code[item]

    def _make_key(self, purpose: int, positive: Positive) -> int:
        user, item, time, copy = positive
        user_key, item_key = self._log.user_key[user], self._log.item_key[item]
        return make_key(self._seed, purpose, user_key, item_key, time, copy)

    # Sources of candidates

    def _collect_candidates(
        self, positive: Positive, snapshot: int, corpus: np.ndarray
    ) -> dict[int, Candidate]:
        """Collect what each source offers: item -> candidate, in order of the first offer."""
        if not self._settings.hard_negatives_per_positive:
            return {}
        candidates: dict[int, Candidate] = {}
        buyers = self._count_co_buyers(positive)
        for source, items in (
            ("item_cf", self._list_similar(positive.item)),
            ("collaborative", buyers),
            ("category_crossing", self._draw_crossing(positive, snapshot, corpus)),
        ):
            for j in items:
                candidates.setdefault(int(j), Candidate(int(j), [])).sources.append(source)
        neighbors, similarity = self._pairs.neighbors_of(positive.item)
        similarities = dict(zip(neighbors.tolist(), similarity, strict=True))
        for j, candidate in candidates.items():
            candidate.buyers, candidate.similarity = buyers.get(j, 0), similarities.get(j)
        return candidates

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

    def _count_co_buyers(self, positive: Positive) -> dict[int, int]:
        """Count by item how many of the positive's latest other buyers bought it lately."""
        settings, log = self._settings, self._log
        order, offsets = self._by_item
        rows = order[offsets[positive.item] : offsets[positive.item + 1]]
        rows = rows[: np.searchsorted(log.time[rows], positive.time)]
        n_buyers: dict[int, int] = {}
        seen = {positive.user}
        for row in rows[::-1].tolist():
            buyer = int(log.user[row])
            if len(seen) > settings.collaborative_buyers:
                break
            if buyer in seen:
                continue
            seen.add(buyer)
            first, last = log.user_offsets[buyer : buyer + 2]
            stop = first + np.searchsorted(log.time[first:last], positive.time)
            latest = np.arange(max(first, stop - settings.collaborative_items), stop)
            earliest = positive.time - settings.collaborative_days * DAY
            for j in set(log.item[latest[log.time[latest] >= earliest]].tolist()):
                n_buyers[j] = n_buyers.get(j, 0) + 1
        return n_buyers

    def _draw_crossing(self, positive: Positive, snapshot: int, corpus: np.ndarray) -> list[int]:
        """Draw items of the same price category and another product group."""
        category = self._snapshots.category[snapshot]
        items = corpus[
            (category[corpus] == category[positive.item])
            & (self._group[corpus] != self._group[positive.item])
        ]
        items = items[np.argsort(self._group[items], kind="stable")]
        if not len(items):
            return []
        key = self._make_key(CATEGORY_CROSSING, positive)
        drawn = (
            int(items[draw_below(key, counter, len(items))])
            for counter in range(self._settings.category_draws)
        )
        return list(dict.fromkeys(drawn))

    # Choice of hard negatives

    def _score(self, candidate: Candidate, positive: Positive, snapshot: int) -> None:
        weights, j = self._weights, candidate.item
        own, other = (float(self._snapshots.price[snapshot, i]) for i in (positive.item, j))
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
        candidate.score = sum(candidate.parts.values())

    def _choose(self, candidates: dict[int, Candidate], positive: Positive) -> list[Negative]:
        """Choose hard negatives one by one: the highest score less the diversity penalty.

        At most a share of them is of the positive's product group, unless nothing else remains.
        """
        n_hard = self._settings.hard_negatives_per_positive
        cap = math.floor(to_fraction(self._settings.diversity_threshold) * n_hard)
        penalty = self._weights["diversity"] * ONE
        own_group = int(self._group[positive.item])
        remaining = {j: c for j, c in candidates.items() if c.refused is None}
        chosen: list[Negative] = []
        n_by_group: dict[int, int] = {}
        while remaining and len(chosen) < n_hard:
            is_full = n_by_group.get(own_group, 0) >= cap
            allowed = [j for j in remaining if not is_full or self._group[j] != own_group]
            relaxed = not allowed
            values = {
                j: remaining[j].score - penalty * n_by_group.get(int(self._group[j]), 0)
                for j in allowed or remaining
            }
            best = min(values, key=lambda j: (-values[j], j))
            candidate, group = remaining.pop(best), int(self._group[best])
            n_by_group[group] = n_by_group.get(group, 0) + 1
            source, similarity = candidate.sources[0], candidate.similarity
            chosen.append(Negative(best, "hard", source, similarity, relaxed, values[best]))
            candidate.round = len(chosen)
        return chosen


class _RejectionSampler:
    """Draws allowed items of a corpus with a counter that runs on (procedure P of D12).

    A draw tries the whole corpus up to MAX_TRIES times, then draws among the allowed items.
    """

    def __init__(self, key: int, corpus: np.ndarray) -> None:
        self._key, self._corpus, self._counter = key, corpus, 0

    def _draw_below(self, n: int) -> int:
        self._counter += 1
        return draw_below(self._key, self._counter - 1, n)

    def draw(self, is_allowed: np.ndarray) -> int:
        """Draw an allowed item, and mark it as no longer allowed."""
        for _ in range(MAX_TRIES):
            j = int(self._corpus[self._draw_below(len(self._corpus))])
            if is_allowed[j]:
                break
        else:
            allowed = self._corpus[is_allowed[self._corpus]]
            j = int(allowed[self._draw_below(len(allowed))])
        is_allowed[j] = False
        return j


def to_fixed_point(x: float | np.float32) -> int:
    """Convert to 16-bit fixed point, halves to even."""
    return round(float(x) * ONE)
