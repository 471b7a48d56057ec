"""Prices: tags on a ladder of amounts, markdowns that bring each month to its published mean, member offers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .articles import Assortment, names
from .demand import Demand, rows_of_weeks
from .marginals import N_DAYS, UNITS_PER_PRICE, generator, marginals, price_of_day

TIER_SPREAD, PRODUCT_SPREAD = (
    0.30,
    0.40,
)  # sigmas of the lognormal price level of styles, and of products inside them
FIRST_PRICE_LEVEL = 1.32  # first prices over the mean paid: room for markdowns and offers
# a marked-down article's price over its first price, before it is set on the ladder again
SALE_FACTOR = 0.56
OFFER_SHARE = 0.19  # of lines: bought with a member's offer
OFFER_FACTORS = (0.90, 0.85, 0.75, 0.80)  # amounts that often do not end in .99
MOST_MARKED_DOWN = 0.95
FITTING_ROUNDS = 6

LADDER = np.asarray(  # amounts that price tags show
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
    """What tags say."""

    cents: np.ndarray  # (n,) int32  first price
    sale_cents: np.ndarray  # (n,) int32  price when marked down
    markdown: np.ndarray  # (N_DAYS,) float64  share of articles that are marked down


def plan_prices(assortment: Assortment, demand: Demand, day_rows: np.ndarray, seed: int) -> Prices:
    """Set tags so that, over the rows expected, product groups and months have their published mean prices.

    Products of a style have its price level, colors of a product one price.
    """
    rng = generator(seed, purpose=8)
    published = marginals()["price"]["mean_by_product_group"]
    wanted = np.asarray([published[name] for name in names("product_group_name")]) * UNITS_PER_PRICE
    wish = np.exp(
        PRODUCT_SPREAD * rng.standard_normal(int(assortment.product.max()) + 1)[assortment.product]
    )
    wish *= np.exp(TIER_SPREAD * assortment.style_tier[assortment.style])

    phase = demand.phase[assortment.style]
    week_rows = rows_of_weeks(day_rows)
    rows = (demand.share * week_rows[phase].astype(np.float32)).sum(axis=1, dtype=np.float64)
    weight = np.bincount(assortment.product_group, rows, minlength=wanted.shape[0])
    level = wanted * FIRST_PRICE_LEVEL
    for _ in range(FITTING_ROUNDS):
        first = set_on_ladder(wish * level[assortment.product_group])
        sale = set_on_ladder(first * SALE_FACTOR)
        markdown = markdown_share(assortment, demand, first, sale)
        marked = (demand.share * rows_of_weeks(day_rows * markdown)[phase].astype(np.float32)).sum(
            axis=1, dtype=np.float64
        )
        paid = np.bincount(
            assortment.product_group,
            rows * first - marked * (first - sale),
            minlength=wanted.shape[0],
        )
        ratio = wanted * weight / np.maximum(paid, 1e-9)
        # The months decide how much is marked down: groups are moved against each other only.
        ratio /= (wanted * weight).sum() / paid.sum()
        level *= np.where(weight > 0, np.clip(ratio, 0.7, 1.4), 1.0)
    return Prices(
        np.rint(first * 100).astype(np.int32), np.rint(sale * 100).astype(np.int32), markdown
    )


def markdown_share(
    assortment: Assortment, demand: Demand, first: np.ndarray, sale: np.ndarray
) -> np.ndarray:
    """Share of marked-down articles (N_DAYS,) that brings a day's mean price, for what is wanted that day, to its month's."""
    first_of_style = np.flatnonzero(np.diff(assortment.style, prepend=-1))
    styles = np.arange(first_of_style.shape[0])
    week = (np.arange(N_DAYS)[:, None] + demand.phase) // 7

    def of_day(amount: np.ndarray) -> np.ndarray:
        style_week = np.add.reduceat(
            demand.share * amount[:, None].astype(np.float32),
            first_of_style,
            axis=0,
            dtype=np.float64,
        )
        return style_week[styles, week].sum(axis=1)

    full, marked, total = of_day(first), of_day(sale), of_day(np.ones_like(first))
    wanted = price_of_day() * UNITS_PER_PRICE / offers_factor() * total
    return np.clip((full - wanted) / np.maximum(full - marked, 1e-9), 0, MOST_MARKED_DOWN)


def offers_factor() -> float:
    """What member offers leave of the mean price."""
    return float(1 - OFFER_SHARE * (1 - np.mean(OFFER_FACTORS)))


def set_on_ladder(amount: np.ndarray) -> np.ndarray:
    """The nearest price tag, by ratio."""
    edges = np.sqrt(LADDER[1:] * LADDER[:-1])
    return LADDER[np.searchsorted(edges, amount)]
