"""How hard negatives are drawn with known probabilities (D13): systematic sampling, the limit on
the positive's product group, and the calibration of the items' weights.

Readings where the decisions leave room: where all candidates are taken no limit is relaxed; an item
without a train positive is calibrated like the others, towards nothing.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from . import rng
from .candidates import Candidate, Candidates
from .splits import Positive
from .world import Log, share

Weights = dict[int, int]  # item -> weight, in stored order
Probability = tuple[int, int]  # numerator and denominator, as the formulas have them: not reduced
CERTAIN = (1, 1)

ROUNDS = 12
MOST_SAMPLED = 2**17  # train positives that calibrate
NEUTRAL = 256  # a mining_weight that changes nothing


class Part(NamedTuple):
    """Candidates of which `n` are drawn by one random number."""

    weights: Weights
    n: int


def settle(weights: Weights, n: int) -> tuple[set[int], int, int]:
    """Those certain to be drawn, how many are still to draw, and the weight of the others."""
    certain: set[int] = set()
    total = sum(weights.values())
    while True:
        more = {j for j in weights if j not in certain and n * weights[j] >= total}
        if not more:
            return certain, n, total
        certain |= more
        n -= len(more)
        total -= sum(weights[j] for j in more)


def inclusion(part: Part) -> dict[int, Probability]:
    """Of each candidate: the probability that it is drawn."""
    certain, n, total = settle(part.weights, part.n)
    return {j: CERTAIN if j in certain else (n * w, total) for j, w in part.weights.items()}


def systematic(part: Part, x: int) -> list[int]:
    """The items drawn by the random number x: n points at equal distances on the line of all
    weights, one after the other.
    """
    certain, n, total = settle(part.weights, part.n)
    drawn = sorted(certain)
    point = rng.below(x, total)
    end = 0
    for j, w in part.weights.items():
        if j not in certain:
            end += n * w
            if point < end:
                drawn.append(j)
                point += total
    return drawn


def divide(weights: Weights, n: int, own: set[int], cap: int) -> tuple[list[Part], int]:
    """What to draw from what, and how many of the own group beyond the cap."""
    if len(weights) <= n:
        return [Part(weights, len(weights))], 0
    certain, left, total = settle(weights, n)
    n_certain = len(certain & own)
    own_weight = sum(w for j, w in weights.items() if j in own - certain)
    if n_certain * total + left * own_weight <= cap * total:
        return [Part(weights, n)], 0
    mine = {j: w for j, w in weights.items() if j in own}
    others = {j: w for j, w in weights.items() if j not in own}
    n_own = max(cap, n - len(others))
    return [Part(mine, n_own), Part(others, n - n_own)], n_own - cap


class HardDraw:
    """Draws hard negatives for positives, once its `mining_weights` are set by `calibrate`."""

    def __init__(self, log: Log, config: Any, candidates: Candidates):
        self.log = log
        self.config = config
        self.settings = config.negative_sampling
        self.candidates = candidates
        self.n = self.settings.hard_negatives_per_positive
        # A limit on the own group makes sense only where there is another one.
        n_groups = len({log.group(item) for item in range(len(log.items))})
        share_of_own = share(self.settings.diversity_threshold) if n_groups > 1 else 1
        self.cap = math.floor(share_of_own * self.n)
        self.mining_weights = [NEUTRAL] * len(log.items)

    def allowed(self, p: Positive) -> list[Candidate]:
        """The candidates that the user does not own, in stored order."""
        owned = self.log.owned(p.user, self.log.cuts.end(p.split))
        return [c for c in self.candidates.listed(p.item, p.snapshot) if c.item not in owned]

    def parts(self, p: Positive, allowed: list[Candidate]) -> tuple[list[Part], int]:
        weights = {
            c.item: getattr(self.settings.source_weights, c.detail) * self.mining_weights[c.item]
            for c in allowed
        }
        group = self.log.group(p.item)
        own = {c.item for c in allowed if self.log.group(c.item) == group}
        return divide(weights, self.n, own, self.cap)

    def draw(self, p: Positive) -> tuple[list[tuple[Candidate, Probability]], int]:
        """Candidates by falling score, each with its probability; and those beyond the cap."""
        allowed = self.allowed(p)
        parts, relaxed = self.parts(p, allowed)
        key = positive_key(self.config.seed, rng.HARD_NEGATIVE, self.log, p)
        drawn: dict[int, Probability] = {}
        for c, part in enumerate(parts):
            probability = inclusion(part)
            drawn |= {j: probability[j] for j in systematic(part, rng.draw(key, c))}
        chosen = sorted((c for c in allowed if c.item in drawn), key=lambda c: (-c.score, c.item))
        return [(c, drawn[c.item]) for c in chosen], relaxed

    def choose(self, p: Positive) -> tuple[list[tuple[Candidate, Probability]], int]:
        """The greedy choice, in order; and those beyond the cap."""
        left = {c.item: c for c in self.allowed(p)}
        penalty = round(self.settings.score.diversity * 2**14)
        own = self.log.group(p.item)
        chosen: list[Candidate] = []
        relaxed = 0
        while left and len(chosen) < self.n:
            groups = [self.log.group(c.item) for c in chosen]
            choice = list(left.values())
            if groups.count(own) >= self.cap:
                others = [c for c in choice if self.log.group(c.item) != own]
                relaxed += not others
                choice = others or choice
            best = min(
                choice,
                key=lambda c: (penalty * groups.count(self.log.group(c.item)) - c.score, c.item),
            )
            chosen.append(left.pop(best.item))
        return [(c, CERTAIN) for c in chosen], relaxed

    def calibrate(self, train: list[Positive]) -> None:
        """Set the weights by which items are drawn as often as they are bought, relative to each
        other.
        """
        if self.settings.selection == "greedy" or not self.n or not train:
            return
        bits = next(b for b in range(64) if len(train) >> b <= MOST_SAMPLED)
        sampled = [
            (p, self.allowed(p))
            for p in train
            if positive_key(self.config.seed, rng.CALIBRATION_SAMPLE, self.log, p) >> (64 - bits)
            == 0
        ]
        bought = [sum(p.item == j for p in train) for j in range(len(self.log.items))]
        factors = [1.0] * len(bought)
        self.mining_weights = [_weight(f) for f in factors]
        for _ in range(ROUNDS):
            mass = [0] * len(bought)
            for p, allowed in sampled:
                for part in self.parts(p, allowed)[0]:
                    for j, (a, b) in inclusion(part).items():
                        mass[j] += a * 2**16 // b
            level = sum(mass) / sum(bought)
            for j, f in enumerate(factors):
                if not mass[j]:
                    continue
                r = (bought[j] * level + 2.0**16) / (mass[j] + 2.0**16)
                f *= math.sqrt(r) * math.sqrt(math.sqrt(r))
                factors[j] = min(max(f, 2.0**-8), 2.0**8)
            self.mining_weights = [_weight(f) for f in factors]


def _weight(factor: float) -> int:
    return min(max(round(factor * 256), 1), 65536)


def positive_key(seed: int, purpose: int, log: Log, p: Positive) -> int:
    """The key of what is drawn for one positive."""
    return rng.key(seed, purpose, log.user_key(p.user), log.item_key(p.item), p.time, p.copy)


TABLE = [round(math.log(1 + p / 4096) * 2**24) for p in range(4097)]


def log2_24(x: int) -> int:
    """L(x): the natural logarithm of an integer below 2^32 in units of 2^-24, interpolated."""
    e = x.bit_length() - 1
    y = x << (31 - e)
    p, f = (y >> 19) - 4096, y % 2**19
    return e * TABLE[4096] + TABLE[p] + ((TABLE[p + 1] - TABLE[p]) * f >> 19)
