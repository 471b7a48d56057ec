"""Plan prices: price points, markdowns to each month's published mean, member offers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import portable_math
from .articles import Assortment, list_names
from .demand import Demand, sum_rows_by_week
from .marginals import (
    N_DAYS,
    PRICES,
    UNITS_PER_PRICE,
    compute_daily_prices,
    load_marginals,
    make_generator,
)

# sigmas of the lognormal price level of styles, and of products inside them
TIER_SPREAD, PRODUCT_SPREAD = 0.30, 0.40
FIRST_PRICE_LEVEL = 1.32  # first prices over the mean paid: room for markdowns and offers
# a marked-down article's price over its first price, before it is rounded to a price point
SALE_FACTOR = 0.56
OFFER_SHARE = 0.19  # of lines: bought with a member's offer
OFFER_FACTORS = (0.90, 0.85, 0.75, 0.80)  # amounts that often do not end in .99
MAX_MARKED_DOWN = 0.95
FITTING_ROUNDS = 6

# amounts of price tags
PRICE_POINTS = np.asarray(
    [
        0.99,
        1.49,
        1.99,
        2.99,
        3.99,
        4.99,
        5.99,
        6.99,
        7.99,
        8.99,
        9.99,
        11.99,
        12.99,
        14.99,
        17.99,
        19.99,
        24.99,
        29.99,
    ]
    + [
        34.99,
        39.99,
        49.99,
        59.99,
        69.99,
        79.99,
        99.00,
        119.00,
        149.00,
        199.00,
        249.00,
        299.00,
        349.00,
    ]
)


@dataclass(frozen=True)
class Prices:
    """Prices of the articles."""

    cents: np.ndarray  # (n,) int32  first price
    sale_cents: np.ndarray  # (n,) int32  price when marked down
    markdown: np.ndarray  # (N_DAYS,) float64  share of articles that are marked down


def plan_prices(assortment: Assortment, demand: Demand, day_rows: np.ndarray, seed: int) -> Prices:
    """Set prices so that product groups and months have their published means.

    The means are over the expected rows. Products of a style have its price level, colors of a
    product one price.
    """
    rng = make_generator(seed, PRICES)
    published = load_marginals()["price"]["mean_by_product_group"]
    names = list_names("product_group_name")
    target = np.asarray([published[name] for name in names]) * UNITS_PER_PRICE
    by_product = rng.standard_normal(int(assortment.product.max()) + 1)[assortment.product]
    relative = portable_math.exp(PRODUCT_SPREAD * by_product)
    relative *= portable_math.exp(TIER_SPREAD * assortment.style_tier[assortment.style])

    phase = demand.phase[assortment.style]
    week_rows = sum_rows_by_week(day_rows)
    rows = (demand.share * week_rows[phase].astype(np.float32)).sum(axis=1, dtype=np.float64)
    weight = np.bincount(assortment.product_group, rows, minlength=target.shape[0])
    level = target * FIRST_PRICE_LEVEL
    for _ in range(FITTING_ROUNDS):
        first = round_to_price_points(relative * level[assortment.product_group])
        sale = round_to_price_points(first * SALE_FACTOR)
        markdown = fit_markdown_shares(assortment, demand, first, sale)
        marked_rows = sum_rows_by_week(day_rows * markdown)[phase].astype(np.float32)
        marked = (demand.share * marked_rows).sum(axis=1, dtype=np.float64)
        paid = np.bincount(
            assortment.product_group,
            rows * first - marked * (first - sale),
            minlength=target.shape[0],
        )
        ratio = target * weight / np.maximum(paid, 1e-9)
        # The months determine the markdowns: levels change relative to other groups only.
        ratio /= (target * weight).sum() / paid.sum()
        level *= np.where(weight > 0, np.clip(ratio, 0.7, 1.4), 1.0)
    return Prices(
        np.rint(first * 100).astype(np.int32), np.rint(sale * 100).astype(np.int32), markdown
    )


def fit_markdown_shares(
    assortment: Assortment, demand: Demand, first: np.ndarray, sale: np.ndarray
) -> np.ndarray:
    """Fit shares of marked-down articles (N_DAYS,) that give days their month's mean price."""
    first_of_style = np.flatnonzero(np.diff(assortment.style, prepend=-1))
    styles = np.arange(first_of_style.shape[0])
    week = (np.arange(N_DAYS)[:, None] + demand.phase) // 7

    def sum_by_day(amount: np.ndarray) -> np.ndarray:
        style_week = np.add.reduceat(
            demand.share * amount[:, None].astype(np.float32),
            first_of_style,
            axis=0,
            dtype=np.float64,
        )
        return style_week[styles, week].sum(axis=1)

    full, marked, total = sum_by_day(first), sum_by_day(sale), sum_by_day(np.ones_like(first))
    target = compute_daily_prices() * UNITS_PER_PRICE / compute_offer_factor() * total
    return np.clip((full - target) / np.maximum(full - marked, 1e-9), 0, MAX_MARKED_DOWN)


def compute_offer_factor() -> float:
    """Return the mean price with member offers over that without."""
    return float(1 - OFFER_SHARE * (1 - np.mean(OFFER_FACTORS)))


def round_to_price_points(amount: np.ndarray) -> np.ndarray:
    """Round amounts to the nearest price point, by ratio."""
    edges = np.sqrt(PRICE_POINTS[1:] * PRICE_POINTS[:-1])
    return PRICE_POINTS[np.searchsorted(edges, amount)]
