"""The published aggregates of H&M's log, and the curves that the generator draws from.

`hm_marginals.json` holds counts only, no row of the log; its `note` and `sources` name the origin.
"""

from __future__ import annotations

import json
from datetime import date
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from ...errors import ConfigError
from . import portable_math

FIRST_DAY = date(2018, 9, 20)
N_DAYS = 734
UNITS_PER_PRICE = 590  # price = amount / 590, amounts have two decimals
SIZES = {"articles": 105_542, "customers": 1_371_980, "transactions": 31_788_324}
MIN_ARTICLES = 500
MIN_CUSTOMERS = 200

MAX_SCALE = 10  # tried up to 3
# sigma of the days' lognormal noise, beside month, weekday and published spikes
DAILY_NOISE = 0.12

# Purposes of random numbers. They are part of the format: changing one changes every log.
DAILY_ROWS = 1
ASSORTMENT = 2
DEMAND = 3
CUSTOMERS = 4
UNSOLD_ARTICLES = 5
ARTICLES_TABLE = 6
CUSTOMER_IDS = 7
PRICES = 8


@cache
def load_marginals() -> dict[str, Any]:
    """Return the published aggregates, as parsed JSON; callers must not change them."""
    return json.loads(
        resources.files("gpu_dcgen.example_data.fashion_shop")
        .joinpath("hm_marginals.json")
        .read_text(encoding="utf-8")
    )


def scale_sizes(scale: float) -> dict[str, int]:
    """Return the numbers of customers, articles and expected transactions at `scale`.

    All are in proportion, so that rows per customer and rows per article keep their distributions;
    below 0.005 there are 500 articles, more than in proportion. The dates stay. Raises ConfigError
    for a scale outside (0, MAX_SCALE].
    """
    if not 0 < scale <= MAX_SCALE:
        raise ConfigError(
            f"synth: scale is {scale}; expected more than 0 and at most {MAX_SCALE} "
            "(1: H&M's log).\nUse --scale 0.01."
        )
    n_customers = max(MIN_CUSTOMERS, round(SIZES["customers"] * scale))
    return {
        "articles": max(MIN_ARTICLES, round(SIZES["articles"] * scale)),
        "customers": n_customers,
        "transactions": n_customers * SIZES["transactions"] // SIZES["customers"],
    }


def make_generator(seed: int, purpose: int, part: int = 0) -> np.random.Generator:
    """Return a generator that depends on the seed, a purpose, and the part of it alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, purpose, part))))


def compute_months() -> np.ndarray:
    """Return the position of each day's month in `monthly_rows`, (N_DAYS,) int64."""
    days = np.datetime64(FIRST_DAY) + np.arange(N_DAYS)
    return (days.astype("datetime64[M]") - np.datetime64(FIRST_DAY, "M")).astype(np.int64)


def compute_days_of_year() -> np.ndarray:
    """Return the day of the year of each day, (N_DAYS,) int64, 0..365."""
    days = np.datetime64(FIRST_DAY) + np.arange(N_DAYS)
    return (days - days.astype("datetime64[Y]")).astype(np.int64)


def list_published_days() -> dict[int, int]:
    """Return day -> rows for the published days: the first three and the five highest."""
    daily = load_marginals()["daily"]
    return {
        (date.fromisoformat(day) - FIRST_DAY).days: rows
        for day, rows in daily["first3"] + daily["spikes"]
    }


def draw_daily_rows(seed: int) -> np.ndarray:
    """Draw the rows expected on each day of the full log, (N_DAYS,) float64.

    Months and published days are exact, weekdays follow their means.
    """
    published = list_published_days()
    weekday = (np.arange(N_DAYS) + FIRST_DAY.weekday()) % 7
    week = np.asarray(load_marginals()["weekday_mean_rows_mon_sun"], dtype=np.float64)
    noise = make_generator(seed, DAILY_ROWS).standard_normal(N_DAYS)
    rows = week[weekday] * portable_math.exp(DAILY_NOISE * noise)
    is_fixed = np.zeros(N_DAYS, dtype=bool)
    is_fixed[list(published)] = True
    rows[list(published)] = list(published.values())
    month = compute_months()
    for m, (_, total, _) in enumerate(load_marginals()["monthly_rows"]):
        open_days = (month == m) & ~is_fixed
        rows[open_days] *= (total - rows[(month == m) & is_fixed].sum()) / rows[open_days].sum()
    return rows


def compute_rows_by_rank(n_articles: int, n_rows: int) -> np.ndarray:
    """Return the rows of the article of each rank, (n_articles,) float64, falling.

    They sum to `n_rows`; articles that are never sold have 0. The published curve of 105,542
    articles is averaged over `n_articles` equal bins, so that the shares of the top stay.
    """
    n_full = SIZES["articles"]
    knots = np.asarray(load_marginals()["article_popularity"]["rank_value"], dtype=np.float64)
    rank = np.arange(1, n_full + 1, dtype=np.float64)
    log_knots = portable_math.log(knots)
    head = np.interp(portable_math.log(rank), log_knots[:, 0], log_knots[:, 1])
    tail = np.interp(rank, knots[:, 0], log_knots[:, 1])
    full = portable_math.exp(np.where(rank <= 1000, head, tail))
    full[int(knots[-1, 0]) :] = 0.0
    cumulative = np.concatenate(([0.0], np.cumsum(full)))
    curve = np.diff(
        np.interp(np.linspace(0, n_full, n_articles + 1), np.arange(n_full + 1), cumulative)
    )
    curve[n_articles - round(n_articles * (1 - knots[-1, 0] / n_full)) :] = 0.0
    return curve * (n_rows / curve.sum())


def compute_daily_prices() -> np.ndarray:
    """Return the mean price of each day's month, (N_DAYS,) float64."""
    return np.asarray([mean for _, _, mean in load_marginals()["monthly_rows"]])[compute_months()]


def load_ages() -> tuple[np.ndarray, np.ndarray]:
    """Return ages (a,) and their cumulative shares (a,), from the published sample of 10,000."""
    histogram = load_marginals()["age_hist_sample10k"]
    shares = np.asarray(list(histogram.values()), dtype=np.float64)
    return np.asarray(list(histogram), dtype=np.float64), np.cumsum(shares) / shares.sum()
