"""Draw the negatives of one positive again, step by step (D12, D13)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..config import DatasetConfig, to_fraction
from .candidates import SCORE_BITS, Candidate, CandidateLister, rank_by_score
from .draws import DrawLimits, RejectionSampler, choose_greedily, log_ratio, plan_draw
from .hashes import FALLBACK_NEGATIVE, HARD_NEGATIVE, RANDOM_NEGATIVE, make_key
from .item_snapshots import ItemSnapshots
from .purchase_log import PurchaseLog
from .similarity import SimilarityPairs


class Positive(NamedTuple):
    """A positive by codes of the log."""

    user: int
    item: int
    time: int
    copy: int = 0  # of a resampled positive


@dataclass(frozen=True)
class Negative:
    """An item drawn as a negative."""

    item: int
    source: str  # hard or random
    detail: str
    similarity: np.float32 | None
    log_q: np.float32  # logarithm of the probability that it is drawn
    score: int | None = None  # of a candidate, in 2^-14


@dataclass(frozen=True)
class MiningResult:
    """The candidates of one positive and its negatives.

    Hard negatives come first, by falling score or in order of choice, then random ones, in order
    of drawing.
    """

    candidates: list[Candidate]  # all that were offered, refused ones too
    negatives: list[Negative]
    n_on_sale: int
    n_allowed: int  # items on sale that the user does not own by the end of the window
    n_relaxed: int  # hard negatives beyond the limit on the positive's own product group


class NegativeMiner:
    """Draws negatives for the positives of one split; `log` ends with the split's window."""

    def __init__(
        self,
        log: PurchaseLog,
        snapshots: ItemSnapshots,
        pairs: SimilarityPairs,
        config: DatasetConfig,
        mining_weights: np.ndarray,
    ) -> None:
        """Take the `mining_weight` of the dataset's items: (I,) int64."""
        self._log, self._snapshots, self._pairs = log, snapshots, pairs
        self._settings, self._seed = config.negative_sampling, config.seed
        self._lister = CandidateLister(log, snapshots, pairs, config)
        self._mining_weights = mining_weights
        self._group = log.item_columns["product_group"].codes
        n = self._settings.hard_negatives_per_positive
        share = to_fraction(self._settings.diversity_threshold)
        has_groups = len(np.unique(self._group)) > 1
        self.limits = DrawLimits(n, math.floor(share * n) if has_groups else n)

    def mine(self, positive: Positive) -> MiningResult:
        """List the candidates of a positive, and draw hard and random negatives."""
        snapshot = self._snapshots.at(positive.time)
        on_sale = self._snapshots.on_sale[snapshot]
        corpus = np.flatnonzero(on_sale)
        is_owned = self._mark_owned(positive)
        candidates: list[Candidate] = []
        hard: list[Negative] = []
        n_relaxed = 0
        if self.limits.n:
            candidates = self._lister.list_candidates(positive.item, snapshot)
            allowed = self.allow(candidates, positive)
            n_relaxed = self._select(allowed, positive)
            drawn = sorted((c for c in allowed if c.slot), key=lambda c: c.slot or 0)
            hard = [_make_negative(candidate) for candidate in drawn]

        is_allowed = ~is_owned & ~self._lister.mark_siblings(positive.item)
        is_allowed[[negative.item for negative in hard]] = False
        n_missing = self.limits.n - len(hard)
        sampler = RejectionSampler(self._make_key(FALLBACK_NEGATIVE, positive), corpus)
        log_q = log_ratio(max(1, n_missing), len(corpus))[0]
        for _ in range(n_missing):
            j = sampler.draw(is_allowed)
            similarity = self._pairs.find(positive.item, j)
            hard.append(Negative(j, "hard", "fallback", similarity, log_q))

        is_allowed = ~is_owned
        is_allowed[[negative.item for negative in hard]] = False
        sampler = RejectionSampler(self._make_key(RANDOM_NEGATIVE, positive), corpus)
        n_random = self._settings.random_negatives_per_positive
        log_q = log_ratio(max(1, n_random), len(corpus))[0]
        random = [
            Negative(sampler.draw(is_allowed), "random", "random", None, log_q)
            for _ in range(n_random)
        ]
        n_allowed = int((on_sale & ~is_owned).sum())
        return MiningResult(candidates, hard + random, len(corpus), n_allowed, n_relaxed)

    def list_allowed(self, positive: Positive) -> list[Candidate]:
        """Return the candidates that the user does not own, in stored order."""
        snapshot = self._snapshots.at(positive.time)
        return self.allow(self._lister.list_candidates(positive.item, snapshot), positive)

    def allow(self, candidates: list[Candidate], positive: Positive) -> list[Candidate]:
        """Refuse the candidates that the user owns, and return those that remain."""
        is_owned = self._mark_owned(positive)
        for candidate in candidates:
            if candidate.refused is None and is_owned[candidate.item]:
                candidate.refused = "owned"
        return [candidate for candidate in candidates if candidate.refused is None]

    def weigh_sources(self, candidates: list[Candidate]) -> np.ndarray:
        """Return the weight of each candidate's first source: (m,) int64."""
        weights = dict(self._settings.source_weights)
        return np.array([weights[c.sources[0]] for c in candidates], dtype=np.int64)

    def mark_own_group(self, candidates: list[Candidate], positive: Positive) -> np.ndarray:
        """Mark the candidates of the positive's product group: (m,) bool."""
        items = np.array([candidate.item for candidate in candidates], dtype=np.int64)
        return self._group[items] == self._group[positive.item]

    def _mark_owned(self, positive: Positive) -> np.ndarray:
        """Mark the items that the user buys before the end of the window: (I,) bool."""
        first, last = self._log.user_offsets[positive.user : positive.user + 2]
        is_owned = np.zeros(self._log.n_items, dtype=bool)
        is_owned[self._log.item[first:last]] = True
        is_owned[positive.item] = True
        return is_owned

    def _make_key(self, purpose: int, positive: Positive) -> int:
        user, item, time, copy = positive
        user_key, item_key = self._log.user_key[user], self._log.item_key[item]
        return make_key(self._seed, purpose, user_key, item_key, time, copy)

    def _select(self, allowed: list[Candidate], positive: Positive) -> int:
        """Set slots and probabilities of those drawn; return how many are beyond the limit."""
        if self._settings.selection == "greedy":
            return self._select_greedily(allowed, positive)
        weight = self.weigh_sources(allowed) * self._mining_weights[[c.item for c in allowed]]
        plan = plan_draw(weight, self.mark_own_group(allowed, positive), self.limits)
        log_q = log_ratio(plan.numerator.clip(1), plan.denominator)
        for place, candidate in enumerate(allowed):
            candidate.weight = int(weight[place])
            candidate.probability = float(plan.numerator[place] / plan.denominator[place])
            candidate.log_q = log_q[place]
        places = plan.draw(weight, self._make_key(HARD_NEGATIVE, positive))
        drawn = sorted((allowed[place] for place in places), key=rank_by_score)
        for slot, candidate in enumerate(drawn, 1):
            candidate.slot = slot
        return plan.n_relaxed

    def _select_greedily(self, allowed: list[Candidate], positive: Positive) -> int:
        by_item = sorted(allowed, key=lambda candidate: candidate.item)
        items = np.array([candidate.item for candidate in by_item], dtype=np.int64)
        score = np.array([candidate.score for candidate in by_item], dtype=np.int64)
        penalty = round(self._settings.score.diversity * (1 << SCORE_BITS))
        group, own_group = self._group[items], int(self._group[positive.item])
        places, n_relaxed = choose_greedily(score, group, own_group, self.limits, penalty)
        for slot, place in enumerate(places, 1):
            by_item[place].slot, by_item[place].probability = slot, 1.0
            by_item[place].log_q = np.float32(0)
        return n_relaxed


def _make_negative(candidate: Candidate) -> Negative:
    return Negative(
        candidate.item,
        "hard",
        candidate.sources[0],
        candidate.similarity,
        candidate.log_q,
        candidate.score,
    )
