"""What is known of H&M's log, as data: the published aggregates, and the curves that the generator draws from them.

`hm_marginals.json` holds counts only, no row of the log; its `note` and `sources` say where they come from.
"""

from __future__ import annotations

import json
from datetime import date
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from ...errors import ConfigError

FIRST_DAY = date(2018, 9, 20)
N_DAYS = 734
UNITS_PER_PRICE = 590  # price = amount / 590, amounts have two decimals
SIZES = {"articles": 105_542, "customers": 1_371_980, "transactions": 31_788_324}
MIN_ARTICLES = 500
MIN_CUSTOMERS = 200

MAX_SCALE = 10  # tried up to 3
# sigma of the lognormal noise that days have beside month, weekday and published spikes
DAILY_NOISE = 0.12


@cache
def marginals() -> dict[str, Any]:
    """The published aggregates, as parsed JSON; callers must not change them."""
    return json.loads(
        resources.files("gpu_dcgen.example_data.fashion_shop")
        .joinpath("hm_marginals.json")
        .read_text(encoding="utf-8")
    )


def sizes_at(scale: float) -> dict[str, int]:
    """Customers, articles and expected transactions at `scale`: all in proportion, so that rows per customer and rows
    per article keep their distributions; below 0.005 the 500 articles left make articles rarer. The dates stay.
    """
    if not 0 < scale <= MAX_SCALE:
        raise ConfigError(
            f"synth: scale is {scale}; expected more than 0 and at most {MAX_SCALE} (1: H&M's log).\nUse --scale 0.01."
        )
    return {
        "articles": max(MIN_ARTICLES, round(SIZES["articles"] * scale)),
        "customers": max(MIN_CUSTOMERS, round(SIZES["customers"] * scale)),
        "transactions": max(MIN_CUSTOMERS, round(SIZES["customers"] * scale))
        * SIZES["transactions"]
        // SIZES["customers"],
    }


def generator(seed: int, purpose: int, part: int = 0) -> np.random.Generator:
    """Random numbers that depend on the seed, what they are for, and which part of it; on nothing else."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, purpose, part))))


def month_of_day() -> np.ndarray:
    """(N_DAYS,) int64: position of each day's month in `monthly_rows`."""
    days = np.datetime64(FIRST_DAY) + np.arange(N_DAYS)
    return (days.astype("datetime64[M]") - np.datetime64(FIRST_DAY, "M")).astype(np.int64)


def day_of_year() -> np.ndarray:
    """(N_DAYS,) int64: 0..365."""
    days = np.datetime64(FIRST_DAY) + np.arange(N_DAYS)
    return (days - days.astype("datetime64[Y]")).astype(np.int64)


def published_days() -> dict[int, int]:
    """Day -> rows, for the days whose counts are published (the first three and the five highest)."""
    daily = marginals()["daily"]
    return {
        (date.fromisoformat(day) - FIRST_DAY).days: rows
        for day, rows in daily["first3"] + daily["spikes"]
    }


def daily_rows(seed: int) -> np.ndarray:
    """(N_DAYS,) float64: rows expected on each day of the full log: months and published days exact, weekdays by means."""
    known = published_days()
    weekday = (np.arange(N_DAYS) + FIRST_DAY.weekday()) % 7
    week = np.asarray(marginals()["weekday_mean_rows_mon_sun"], dtype=np.float64)
    rows = week[weekday] * np.exp(DAILY_NOISE * generator(seed, purpose=1).standard_normal(N_DAYS))
    fixed = np.zeros(N_DAYS, dtype=bool)
    fixed[list(known)] = True
    rows[list(known)] = list(known.values())
    month = month_of_day()
    for m, (_, total, _) in enumerate(marginals()["monthly_rows"]):
        open_days = (month == m) & ~fixed
        rows[open_days] *= (total - rows[(month == m) & fixed].sum()) / rows[open_days].sum()
    return rows


def rows_by_rank(n_articles: int, n_rows: int) -> np.ndarray:
    """(n_articles,) float64: rows of the article of each rank, falling, with sum `n_rows`; zeros for the never sold.

    The published curve of 105,542 articles is averaged over as many equal bins, so shares of the top keep their size.
    """
    n_full = SIZES["articles"]
    knots = np.asarray(marginals()["article_popularity"]["rank_value"], dtype=np.float64)
    rank = np.arange(1, n_full + 1, dtype=np.float64)
    head = np.interp(np.log(rank), np.log(knots[:, 0]), np.log(knots[:, 1]))
    tail = np.interp(rank, knots[:, 0], np.log(knots[:, 1]))
    full = np.exp(np.where(rank <= 1000, head, tail))
    full[int(knots[-1, 0]) :] = 0.0
    cumulative = np.concatenate(([0.0], np.cumsum(full)))
    curve = np.diff(
        np.interp(np.linspace(0, n_full, n_articles + 1), np.arange(n_full + 1), cumulative)
    )
    curve[n_articles - round(n_articles * (1 - knots[-1, 0] / n_full)) :] = 0.0
    return curve * (n_rows / curve.sum())


def price_of_day() -> np.ndarray:
    """(N_DAYS,) float64: the mean price of each day's month."""
    return np.asarray([mean for _, _, mean in marginals()["monthly_rows"]])[month_of_day()]


def ages() -> tuple[np.ndarray, np.ndarray]:
    """Ages (a,) and their cumulative shares (a,), from the published sample of 10,000."""
    histogram = marginals()["age_hist_sample10k"]
    shares = np.asarray(list(histogram.values()), dtype=np.float64)
    return np.asarray(list(histogram), dtype=np.float64), np.cumsum(shares) / shares.sum()
