"""Features as of a time: item snapshots (D6, D11), a user's history (D6), the calendar."""

from __future__ import annotations

import math
from datetime import date, timedelta
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from .world import DAY, Interaction, Log

UNIT = 2**20  # prices are compared and averaged in whole 2^-20 units


def units(price: float) -> int:
    return round(price * UNIT)  # half to even; the product by a power of two is exact


def nearest_rank(ordered: list[int], p: Fraction) -> int:
    return ordered[math.ceil(p * len(ordered)) - 1]


class Snapshots:
    """What is known of an item at S_k = midnight of the first day + k x snapshot_days, from rows
    before S_k.
    """

    def __init__(self, log: Log, config: Any):
        self.log = log
        self.config = config
        self.first = log.cuts.t0 // DAY * DAY
        self.step = config.features.snapshot_days * DAY
        train = sorted(
            units(e.price)
            for e in log.interactions
            if e.time < log.cuts.cut1 and e.price is not None
        )
        self.p1, self.p99, *self.quartiles = (
            [nearest_rank(train, Fraction(n, 100)) for n in (1, 99, 25, 50, 75)]
            if train
            else [None] * 5
        )
        self.counts = cache(self._counts)
        self.on_sale = cache(self._on_sale)
        self.price = cache(self._price)

    def at(self, time: int) -> int:
        """The latest snapshot that is not after `time`."""
        return (time - self.first) // self.step

    def start(self, k: int) -> int:
        return self.first + k * self.step

    def _window(self, k: int, days: int) -> list[Interaction]:
        start = self.start(k)
        return [e for e in self.log.interactions if start - days * DAY <= e.time < start]

    def _counts(self, k: int) -> list[int]:
        counts = [0] * len(self.log.items)
        for e in self._window(k, self.config.features.popularity_days):
            counts[e.item] += 1
        return counts

    def _on_sale(self, k: int) -> list[int]:
        """The corpus: items sold in the `live_days` before S_k, or all; sorted."""
        if self.config.negative_sampling.corpus == "all":
            return list(range(len(self.log.items)))
        return sorted({e.item for e in self._window(k, self.config.negative_sampling.live_days)})

    def popularity(self, k: int, item: int) -> np.float32:
        counts = self.counts(k)
        if max(counts) == 0:
            return np.float32(0)
        return np.float32(_log1p32(counts[item]) / _log1p32(max(counts)))

    def _price(self, k: int, item: int) -> float | None:
        """Mean price in 2^-20 units over the popularity days, else over the last day with a sale;
        None if never sold.
        """
        recent = [
            e for e in self._window(k, self.config.features.popularity_days) if e.item == item
        ]
        if not recent:
            earlier = [
                e for e in self.log.interactions if e.item == item and e.time < self.start(k)
            ]
            last = max((e.time // DAY for e in earlier), default=None)
            recent = [e for e in earlier if e.time // DAY == last]
        if not recent or recent[0].price is None:
            return None
        return sum(units(e.price) for e in recent) / len(recent)

    def normalized(self, k: int, item: int) -> np.float32 | None:
        mean = self.price(k, item)
        if mean is None or self.p1 is None:
            return None
        if self.p99 == self.p1:
            return np.float32(0)
        return np.float32(min(1.0, max(0.0, (mean - self.p1) / (self.p99 - self.p1))))

    def category(self, k: int, item: int) -> str | None:
        mean = self.price(k, item)
        if mean is None or self.p1 is None:
            return None
        return f"Q{1 + sum(mean > edge for edge in self.quartiles)}"


def _log1p32(x: int) -> float:
    """log(1 + x) rounded to 24 bits, as float64."""
    return float(np.float32(np.log1p(np.float64(x))))


def user_features(history: list[Interaction], time: int) -> dict[str, Any]:
    """What is known of a user from the interactions strictly before `time`.

    A user without any (only when min_sequence_length is 0) has 0 purchases, baskets of 0 and a
    lifetime of 0 days.
    """
    channels = [e.channel for e in history if e.channel != -1]
    times = {e.time for e in history}
    return {
        "user_lifetime_days": min(32767, (time - min(times)) // DAY) if times else 0,
        "user_total_purchases": len(history),
        "user_avg_basket_size": np.float32(len(history) / len(times)) if times else np.float32(0),
        "user_preferred_channel": min(
            set(channels), key=lambda c: (-channels.count(c), c), default=None
        ),
    }


def clean_age(age: float | None) -> int | None:
    """Whole years; None when unknown or outside 0..120 (D2)."""
    if age is None or math.isnan(age) or not 0 <= age <= 120:
        return None
    return math.floor(age)


def age_group(age: int | None) -> str | None:
    if age is None or age < 16:
        return None
    for first, group in ((55, "55+"), (45, "45-54"), (35, "35-44"), (25, "25-34")):
        if age >= first:
            return group
    return "16-24"


def day_of(time: int) -> date:
    """The UTC day."""
    return date(1970, 1, 1) + timedelta(days=time // DAY)


def calendar(time: int, hemisphere: str) -> dict[str, Any]:
    day = day_of(time)
    quarter = day.month % 12 // 3  # 0 is December to February
    if hemisphere == "southern":
        quarter = (quarter + 2) % 4
    return {
        "day_of_week": day.weekday(),
        "month": day.month,
        "season": ("Winter", "Spring", "Summer", "Fall")[quarter],
    }
