"""Fill baskets: draw the article and the price of every line from the tables of `demand`.

Each customer has a counter-based stream of random numbers (`rng`), so a line depends on (seed,
customer) alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from ...kernels.rng import draw, fold, purpose_key
from .articles import Assortment
from .customers import FAVORITE_WEIGHTS, Customers
from .demand import N_WEEKS, Demand
from .prices import OFFER_FACTORS, OFFER_SHARE, Prices

LINES = 0x53594E54  # purposes of the streams of random numbers
MARKDOWNS = LINES + 1
MORE_PIECES_SHARE = 0.131  # of lines after a basket's first: one more piece of the line before
# of lines of a visit within RETURN_DAYS of the one before: an article bought then
RETURN_SHARE = 0.063
RETURN_DAYS = 14
EXPLORE_SHARE = 0.22  # of choices of a style: any style, by the day's demand
AGAIN_SHARE = 0.15  # chance to accept a drawn article that the customer has bought before
ATTEMPTS = 6  # draws for an article that the basket does not hold
NUMBERS_PER_LINE, NUMBERS_PER_ATTEMPT = 4, 6


class DemandTables(NamedTuple):
    """Arrays of `Demand` and `Assortment` for the kernel."""

    favorite_weights: np.ndarray
    phase: np.ndarray
    offsets: np.ndarray
    article: np.ndarray
    cumulative: np.ndarray
    strength: np.ndarray
    day_share: np.ndarray
    day_cumulative: np.ndarray  # (N_DAYS, styles) float64
    base_share: np.ndarray
    look: np.ndarray
    style: np.ndarray


class PriceTables(NamedTuple):
    """Arrays of `Prices` for the kernel."""

    cents: np.ndarray  # (n,) int32
    sale_cents: np.ndarray  # (n,) int32
    markdown: np.ndarray  # (N_DAYS,) float64  share of articles marked down
    offer_factors: np.ndarray  # float64  member offers
    key: np.uint64


class Visits(NamedTuple):
    """The visits of a chunk of customers, by (customer, day)."""

    customer: np.ndarray  # (v,) int32
    day: np.ndarray  # (v,) int16
    offsets: np.ndarray  # (v + 1,) int64  each visit's lines
    favorites: np.ndarray  # (customers, N_FAVORITES) int32  styles


class Basket(NamedTuple):
    """A visit while its lines are filled."""

    key: np.uint64  # the customer's stream
    day: int
    favorites: np.ndarray  # (N_FAVORITES,) int32
    first: int  # the customer's first line
    start: int  # the basket's first line


def build_tables(
    assortment: Assortment, demand: Demand, prices: Prices, seed: int
) -> tuple[DemandTables, PriceTables]:
    """Collect the arrays that the kernel reads."""
    demand_tables = DemandTables(
        favorite_weights=np.asarray(FAVORITE_WEIGHTS),
        phase=demand.phase,
        offsets=demand.offsets,
        article=demand.article,
        cumulative=demand.cumulative,
        strength=demand.strength,
        day_share=demand.day_share,
        day_cumulative=np.cumsum(demand.day_share, axis=1, dtype=np.float64),
        base_share=demand.base_share,
        look=assortment.look,
        style=assortment.style,
    )
    price_tables = PriceTables(
        prices.cents,
        prices.sale_cents,
        prices.markdown,
        np.asarray(OFFER_FACTORS),
        purpose_key(seed, MARKDOWNS),
    )
    return demand_tables, price_tables


def fill_baskets(
    customers: Customers, demand: DemandTables, prices: PriceTables, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return article and cents (lines,) int32 of all lines of a chunk, in order of visits."""
    offsets = np.concatenate(([0], np.cumsum(customers.visit_lines, dtype=np.int64)))
    article, cents = np.empty(offsets[-1], dtype=np.int32), np.empty(offsets[-1], dtype=np.int32)
    visits = Visits(customers.visit_customer, customers.visit_day, offsets, customers.favorites)
    fill_lines(purpose_key(seed, LINES), customers.first, visits, demand, prices, article, cents)
    return article, cents


@numba.njit(cache=True)
def uniform(key, counter):
    """Draw a uniform float64 in [0, 1)."""
    return (draw(key, counter) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@numba.njit(cache=True)
def find_first_above(values, lo, hi, x):
    """Find the first position in sorted values[lo:hi] with values > x, hi - 1 if none."""
    last = hi - 1
    while lo < last:
        middle = (lo + last) >> 1
        if values[middle] > x:
            last = middle
        else:
            lo = middle + 1
    return lo


@numba.njit(cache=True)
def has_article(articles, start, end, article):
    """Return whether the lines start..end-1 hold the article."""
    is_held = False
    for line in range(start, end):
        is_held |= articles[line] == article
    return is_held


@numba.njit(cache=True)
def choose_style(u_explore, u, day, favorites, demand):
    """Choose a favorite style, by its weight and the day's demand for it.

    Any style, by the day's demand, for a share of the draws and where no favorite is on sale.
    """
    if u_explore >= EXPLORE_SHARE:
        total = 0.0
        for k in range(favorites.shape[0]):
            total += (
                demand.favorite_weights[k]
                * demand.day_share[day, favorites[k]]
                / demand.base_share[favorites[k]]
            )
        left = u * total
        for k in range(favorites.shape[0]):
            left -= (
                demand.favorite_weights[k]
                * demand.day_share[day, favorites[k]]
                / demand.base_share[favorites[k]]
            )
            if left < 0.0:
                return np.int64(favorites[k])
    n = demand.day_cumulative.shape[1]
    x = u * demand.day_cumulative[day, n - 1]
    return find_first_above(demand.day_cumulative[day], 0, n, x)


@numba.njit(cache=True)
def choose_slot(u, style, day, demand):
    """Choose a slot of the style's week, by demand."""
    cell = style * N_WEEKS + (day + demand.phase[style]) // 7
    first, last = demand.offsets[cell], demand.offsets[cell + 1]
    return find_first_above(demand.cumulative, first, last, u * demand.cumulative[last - 1])


@numba.njit(cache=True)
def choose_companion(u, slot, day, demand):
    """Choose another slot of the look of `slot` in the same week, by demand; -1 if none."""
    style = demand.style[demand.article[slot]]
    cell = style * N_WEEKS + (day + demand.phase[style]) // 7
    first, last = demand.offsets[cell], demand.offsets[cell + 1]
    look = demand.look[demand.article[slot]]
    lo, hi = slot, slot + 1
    while lo > first and demand.look[demand.article[lo - 1]] == look:
        lo -= 1
    while hi < last and demand.look[demand.article[hi]] == look:
        hi += 1
    if hi - lo < 2:
        return np.int64(-1)
    start = demand.cumulative[lo - 1] if lo > first else 0.0
    before = demand.cumulative[slot - 1] if slot > first else 0.0
    own = demand.cumulative[slot] - before
    x = start + u * (demand.cumulative[hi - 1] - start - own)
    chosen = find_first_above(demand.cumulative, lo, hi, x + own if x >= before else x)
    return chosen if chosen != slot else np.int64(-1)


@numba.njit(cache=True)
def choose_article(basket, counter, previous, line, articles, demand):
    """Choose a slot for `line`: a companion of slot `previous` (-1: none), or by taste.

    Draws again, a few times, for an article that is new to the basket. The customer's lines so far
    are `articles[basket.first:line]`, those of this basket `articles[basket.start:line]`.
    """
    key, day = basket.key, basket.day
    slot = np.int64(-1)
    for attempt in range(ATTEMPTS):
        c = counter + NUMBERS_PER_ATTEMPT * attempt
        slot = np.int64(-1)
        if (
            previous >= 0
            and attempt < 2
            and uniform(key, c) < demand.strength[demand.look[demand.article[previous]]]
        ):
            slot = choose_companion(uniform(key, c + 1), previous, day, demand)
        if slot < 0:
            style = choose_style(
                uniform(key, c + 2), uniform(key, c + 3), day, basket.favorites, demand
            )
            slot = choose_slot(uniform(key, c + 4), style, day, demand)
        article = demand.article[slot]
        if has_article(articles, basket.start, line, article):
            continue
        if uniform(key, c + 5) < AGAIN_SHARE or not has_article(
            articles, basket.first, basket.start, article
        ):
            break
    return slot


@numba.njit(cache=True)
def draw_cents(key, counter, article, day, week, prices):
    """Return the price: marked down or not for a whole week, less a member's offer for some."""
    is_marked_down = uniform(prices.key, np.int64(article) * N_WEEKS + week) < prices.markdown[day]
    cents = prices.sale_cents[article] if is_marked_down else prices.cents[article]
    if uniform(key, counter) < OFFER_SHARE:
        offer = int(uniform(key, counter + 1) * prices.offer_factors.shape[0])
        cents = max(1, int(cents * prices.offer_factors[offer]))
    return cents


@numba.njit(cache=True, nogil=True)
def fill_lines(lines_key, first_customer, visits, demand, prices, articles, cents):
    """Write the article and the cents of every line of every visit."""
    counter, first, key = 0, np.int64(0), lines_key
    for v in range(visits.day.shape[0]):
        customer, day = visits.customer[v], np.int64(visits.day[v])
        start, end = visits.offsets[v], visits.offsets[v + 1]
        gap = 0
        if v > 0 and visits.customer[v - 1] == customer:
            gap = day - visits.day[v - 1]
        else:
            counter, first = 0, start
            key = fold(lines_key, np.int64(first_customer) + customer)
        basket = Basket(key, day, visits.favorites[customer], first, start)
        slot = np.int64(-1)
        for line in range(start, end):
            c = counter
            counter += NUMBERS_PER_LINE + NUMBERS_PER_ATTEMPT * ATTEMPTS
            if line > start and uniform(key, c) < MORE_PIECES_SHARE:
                articles[line] = articles[line - 1]
                cents[line] = cents[line - 1]
                continue
            article = np.int32(-1)
            if 0 < gap <= RETURN_DAYS and uniform(key, c + 1) < RETURN_SHARE:
                before = visits.offsets[v - 1]
                article = articles[before + int(uniform(key, c + 2) * (start - before))]
                slot = np.int64(-1)
            if article < 0 or has_article(articles, start, line, article):
                slot = choose_article(basket, c + NUMBERS_PER_LINE, slot, line, articles, demand)
                article = demand.article[slot]
            articles[line] = article
            week = (day + demand.phase[demand.style[article]]) // 7
            cents[line] = draw_cents(key, c + 2, article, day, week, prices)
