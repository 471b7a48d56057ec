"""The negatives of one positive: hard (D13) by candidates and a draw; random (D12) by counted
draws.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import rng
from .candidates import Candidates
from .draw import HardDraw, log2_24, positive_key
from .features import Snapshots
from .similarity import Neighbor
from .splits import Positive
from .world import Log


class Negative(NamedTuple):
    item: int
    source: str  # hard or random
    detail: str  # item_cf, collaborative, viewed, category_crossing, fallback or random
    similarity: np.float32 | None
    log_q: np.float32  # logarithm of the probability that it is drawn


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
    (`shortfall`). `train` are all train positives: they calibrate the weights of items.
    """

    def __init__(
        self,
        log: Log,
        config: Any,
        snapshots: Snapshots,
        neighbors: list[list[Neighbor]],
        train: list[Positive],
    ):
        self.log = log
        self.config = config
        self.settings = config.negative_sampling
        self.snapshots = snapshots
        self.neighbors = neighbors
        self.candidates = Candidates(log, config, snapshots, neighbors)
        self.hard = HardDraw(log, config, self.candidates)
        self.hard.calibrate(train)
        self.relaxed = 0
        self.shortfall = 0

    def negatives(self, p: Positive) -> list[Negative]:
        """The hard ones by falling score, or in order of choice; then the random ones in the order
        drawn.
        """
        corpus = self.snapshots.on_sale(p.snapshot)
        free = set(corpus) - self.log.owned(p.user, self.log.cuts.end(p.split)) - {p.item}
        similarity = {n.item: n.similarity for n in self.neighbors[p.item]}
        hard: list[Negative] = []
        if self.settings.hard_negatives_per_positive:
            greedy = self.settings.selection == "greedy"
            chosen, relaxed = self.hard.choose(p) if greedy else self.hard.draw(p)
            self.relaxed += relaxed
            hard = [
                Negative(c.item, "hard", c.detail, similarity.get(c.item), log_q(a, b))
                for c, (a, b) in chosen
            ]
        missing = self.settings.hard_negatives_per_positive - len(hard)
        self.shortfall += missing
        draws = Draws(positive_key(self.config.seed, rng.FALLBACK_NEGATIVE, self.log, p))
        for _ in range(missing):
            strangers = {j for j in free if not self.log.siblings(p.item, j)}
            j = draws.take(corpus, strangers - {n.item for n in hard})
            share = log_q(missing, len(corpus))
            hard.append(Negative(j, "hard", "fallback", similarity.get(j), share))
        draws = Draws(positive_key(self.config.seed, rng.RANDOM_NEGATIVE, self.log, p))
        random: list[int] = []
        n_random = self.settings.random_negatives_per_positive
        while len(random) < n_random:
            random.append(draws.take(corpus, free - {n.item for n in hard} - set(random)))
        return hard + [
            Negative(j, "random", "random", None, log_q(n_random, len(corpus))) for j in random
        ]


def log_q(a: int, b: int) -> np.float32:
    """LN(a / b)."""
    return np.float32((log2_24(a) - log2_24(b)) / 2**24)
