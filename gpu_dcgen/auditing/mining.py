"""The negatives of one positive, drawn again step by step (D12, D13): for the audit, and to explain them to a person."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from .hashes import CATEGORY_CROSSING, FALLBACK_NEGATIVE, RANDOM_NEGATIVE, below, key
from .log import DAY, Log, exact
from .snapshots import Snapshots

ONE = 1 << 16  # scores are products of two numbers in 16-bit fixed point
TRIES = 32
ENOUGH_BUYERS = 8


@dataclass(frozen=True)
class Positive:
    user: int
    item: int
    time: int
    copy: int = 0


@dataclass
class Candidate:
    """An item that a source offered, with the parts of its score and why it could not be taken."""

    item: int
    sources: list[str]
    refused: str | None = None  # not_on_sale, owned, sibling, itself
    similarity: float | None = None  # of the pair in the matrix
    buyers: int = 0  # who brought it in by `collaborative`
    parts: dict[str, int] = field(
        default_factory=dict
    )  # similarity, collaborative, price, popularity: add up to `score`
    score: int = 0
    round: int | None = None  # of the choice, from 1


@dataclass(frozen=True)
class Negative:
    item: int
    source: str  # hard or random
    detail: str
    similarity: np.float32 | None
    relaxed: bool = False  # taken beyond the limit on the positive's own product group
    value: int | None = None  # score less the diversity penalty when it was chosen


@dataclass(frozen=True)
class Mined:
    """The pool of one positive and what came of it, hard negatives in order of choice, then random ones in order drawn."""

    candidates: list[Candidate]
    negatives: list[Negative]
    corpus_size: int  # items on sale
    n_allowed: int  # of them, what the user does not own by the window's end


class Miner:
    """Draws negatives for the positives of one split; `log` ends with the split's window."""

    def __init__(self, log: Log, snapshots: Snapshots, pairs: Pairs, config: Any) -> None:
        self._log, self._snapshots, self._pairs = log, snapshots, pairs
        self._settings, self._seed = config.negative_sampling, config.seed
        self._weights = {name: _fixed(weight) for name, weight in self._settings.score}
        self._group = log.item_columns["product_group"].codes
        self._code = log.item_columns["product_code"].codes

    @cached_property
    def _by_item(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the log in (item, time, user) order, and each item's run."""
        order = np.lexsort((self._log.user, self._log.time, self._log.item))
        return order, np.searchsorted(self._log.item[order], np.arange(self._log.n_items + 1))

    def mine(self, p: Positive) -> Mined:
        k = int(self._snapshots.at(p.time))
        on_sale = self._snapshots.on_sale[k]
        first, last = self._log.user_offsets[p.user : p.user + 2]
        owned = np.zeros(self._log.n_items, dtype=bool)
        owned[self._log.item[first:last]] = True
        owned[p.item] = True  # it is, and is no candidate even if it were not
        siblings = (
            self._code == self._code[p.item]
            if self._code[p.item] >= 0
            else np.zeros(len(owned), dtype=bool)
        )
        corpus = np.flatnonzero(on_sale)

        candidates = self._pool(p, k, corpus)
        for candidate in candidates.values():
            j = candidate.item
            reasons = {
                "itself": j == p.item,
                "not_on_sale": not on_sale[j],
                "owned": owned[j],
                "sibling": siblings[j],
            }
            candidate.refused = next((reason for reason, holds in reasons.items() if holds), None)
            self._score(candidate, p, k)
        hard = self._choose(candidates, p)
        allowed = ~owned & ~siblings
        allowed[[n.item for n in hard]] = False
        draws = _Draws(self._key(FALLBACK_NEGATIVE, p), corpus)
        while len(hard) < self._settings.hard_negatives_per_positive:
            j = draws.take(allowed)
            hard.append(Negative(j, "hard", "fallback", self._pairs.similarity(p.item, j)))
        allowed = ~owned
        allowed[[n.item for n in hard]] = False
        draws = _Draws(self._key(RANDOM_NEGATIVE, p), corpus)
        random = [
            Negative(draws.take(allowed), "random", "random", None)
            for _ in range(self._settings.random_negatives_per_positive)
        ]
        return Mined(
            list(candidates.values()), hard + random, len(corpus), int((on_sale & ~owned).sum())
        )

    def _key(self, purpose: int, p: Positive) -> int:
        return key(
            self._seed,
            purpose,
            self._log.user_key[p.user],
            self._log.item_key[p.item],
            p.time,
            p.copy,
        )

    # -- sources
    # -------------------------------------------------------------------------------------------------

    def _pool(self, p: Positive, k: int, corpus: np.ndarray) -> dict[int, Candidate]:
        if not self._settings.hard_negatives_per_positive:
            return {}
        pool: dict[int, Candidate] = {}
        buyers = self._together(p)
        for source, items in (
            ("item_cf", self._in_the_band(p.item)),
            ("collaborative", buyers),
            ("category_crossing", self._crossing(p, k, corpus)),
        ):
            for j in items:
                pool.setdefault(int(j), Candidate(int(j), [])).sources.append(source)
        others, similarity = self._pairs.of(p.item)
        similarities = dict(zip(others.tolist(), similarity, strict=True))
        for j, candidate in pool.items():
            candidate.buyers, candidate.similarity = buyers.get(j, 0), similarities.get(j)
        return pool

    def _in_the_band(self, item: int) -> np.ndarray:
        others, similarity = self._pairs.of(item)
        if self._settings.hard_band == "percentile":
            low, high = (
                math.floor(exact(share) * len(others)) for share in self._settings.percentile_range
            )
            return others[low:high][: self._settings.item_cf_top_k]
        low, high = (
            np.float32(self._settings.similarity_threshold),
            np.float32(self._settings.similarity_ceiling),
        )
        return others[(similarity > low) & (similarity <= high)][: self._settings.item_cf_top_k]

    def _together(self, p: Positive) -> dict[int, int]:
        """What the latest other buyers bought in the days before: item -> how many of them."""
        order, offsets = self._by_item
        rows = order[offsets[p.item] : offsets[p.item + 1]]
        rows = rows[: np.searchsorted(self._log.time[rows], p.time)]
        together: dict[int, int] = {}
        seen = {p.user}
        for row in rows[::-1].tolist():
            buyer = int(self._log.user[row])
            if len(seen) > self._settings.collaborative_buyers:
                break
            if buyer in seen:
                continue
            seen.add(buyer)
            first, last = self._log.user_offsets[buyer : buyer + 2]
            stop = first + np.searchsorted(self._log.time[first:last], p.time)
            latest = np.arange(max(first, stop - self._settings.collaborative_items), stop)
            latest = latest[
                self._log.time[latest] >= p.time - self._settings.collaborative_days * DAY
            ]
            for j in set(self._log.item[latest].tolist()):
                together[j] = together.get(j, 0) + 1
        return together

    def _crossing(self, p: Positive, k: int, corpus: np.ndarray) -> list[int]:
        category = self._snapshots.category[k]
        others = corpus[
            (category[corpus] == category[p.item]) & (self._group[corpus] != self._group[p.item])
        ]
        others = others[np.argsort(self._group[others], kind="stable")]
        if not len(others):
            return []
        draw = self._key(CATEGORY_CROSSING, p)
        drawn = (
            int(others[below(draw, c, len(others))]) for c in range(self._settings.category_draws)
        )
        return list(dict.fromkeys(drawn))

    # -- choice
    # --------------------------------------------------------------------------------------------------

    def _score(self, candidate: Candidate, p: Positive, k: int) -> None:
        weights, j = self._weights, candidate.item
        own, other = (float(self._snapshots.price[k, item]) for item in (p.item, j))
        unknown = own != own or other != other
        candidate.parts = {
            "similarity": weights["similarity"] * _fixed(candidate.similarity or 0.0),
            "collaborative": weights["collaborative"]
            * min(ENOUGH_BUYERS, candidate.buyers)
            * (ONE // ENOUGH_BUYERS),
            "price": weights["price"]
            * (ONE // 2 if unknown else ONE - abs(_fixed(own) - _fixed(other))),
            "popularity": -weights["popularity"] * _fixed(self._snapshots.popularity[k, j]),
        }
        candidate.score = sum(candidate.parts.values())

    def _choose(self, candidates: dict[int, Candidate], p: Positive) -> list[Negative]:
        n_hard = self._settings.hard_negatives_per_positive
        cap = math.floor(exact(self._settings.diversity_threshold) * n_hard)
        penalty = self._weights["diversity"] * ONE
        own = self._group[p.item]
        left = {j: candidate for j, candidate in candidates.items() if candidate.refused is None}
        chosen: list[Negative] = []
        groups: dict[int, int] = {}
        while left and len(chosen) < n_hard:
            choice, full = list(left), groups.get(int(own), 0) >= cap
            others = [j for j in choice if self._group[j] != own] if full else choice
            relaxed = full and not others
            values = {
                j: left[j].score - penalty * groups.get(int(self._group[j]), 0)
                for j in others or choice
            }
            best = min(values, key=lambda j: (-values[j], j))
            candidate = left.pop(best)
            groups[int(self._group[best])] = groups.get(int(self._group[best]), 0) + 1
            chosen.append(
                Negative(
                    best, "hard", candidate.sources[0], candidate.similarity, relaxed, values[best]
                )
            )
            candidate.round = len(chosen)
        return chosen


class Pairs:
    """The written similarity matrix: pairs by item and rank, looked up by item or by pair."""

    def __init__(
        self, item: np.ndarray, other: np.ndarray, similarity: np.ndarray, n_items: int
    ) -> None:
        """Item and other (n,) int64, similarity (n,) float32, in the file's order."""
        self._other, self._similarity, self._n_items = other, similarity, n_items
        self._offsets = np.searchsorted(item, np.arange(n_items + 1))
        key = item * n_items + other
        self._order = np.argsort(key, kind="stable")
        self._keys = key[self._order]

    def of(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        run = slice(self._offsets[item], self._offsets[item + 1])
        return self._other[run], self._similarity[run]

    def similarity(self, item: int, other: int) -> np.float32 | None:
        others, similarity = self.of(item)
        place = np.flatnonzero(others == other)
        return similarity[place[0]] if len(place) else None

    def lookup(self, item: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Similarity of each pair, NaN where the matrix has none: float32 (n,)."""
        if not len(self._keys):
            return np.full(len(item), np.nan, dtype=np.float32)
        wanted = item * self._n_items + other
        place = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        found = self._similarity[self._order[place]]
        return np.where(self._keys[place] == wanted, found, np.float32(np.nan))


class _Draws:
    """Procedure P: up to 32 tries at the whole corpus, then one draw among what is allowed; the counter runs on."""

    def __init__(self, key: int, corpus: np.ndarray) -> None:
        self._key, self._corpus, self._counter = key, corpus, 0

    def _below(self, n: int) -> int:
        self._counter += 1
        return below(self._key, self._counter - 1, n)

    def take(self, allowed: np.ndarray) -> int:
        """An allowed item of the corpus, which is then no longer allowed."""
        for _ in range(TRIES):
            j = int(self._corpus[self._below(len(self._corpus))])
            if allowed[j]:
                break
        else:
            left = self._corpus[allowed[self._corpus]]
            j = int(left[self._below(len(left))])
        allowed[j] = False
        return j


def _fixed(x: float) -> int:
    """In 16-bit fixed point, halves to even."""
    return round(float(x) * ONE)
