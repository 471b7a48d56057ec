"""What is in a basket: the article and the price of every line, by a walk down the tables of `demand`.

Each customer has a counter-based stream of random numbers of their own (`rng`), so a line depends on (seed, customer) alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from ...kernels.rng import draw, fold, purpose_key
from .articles import Assortment
from .customers import FAVOURITE_WEIGHTS, Customers
from .demand import N_WEEKS, Demand
from .prices import OFFER_FACTORS, OFFER_SHARE, Prices

LINES = 0x53594E54  # what the streams of random numbers are for
MARKDOWNS = LINES + 1
MORE_PIECES_SHARE = 0.131  # of lines after a basket's first: one more piece of the line before
# of lines of a visit within RETURN_DAYS of the one before: an article bought then
RETURN_SHARE = 0.063
RETURN_DAYS = 14
EXPLORE_SHARE = 0.22  # of styles chosen: any, by the day's demand
AGAIN_SHARE = 0.15  # chance to take an article that one has already, when a draw hits it
ATTEMPTS = 6  # draws for an article that the basket does not hold
NUMBERS_A_LINE, NUMBERS_AN_ATTEMPT = 4, 6


class Wants(NamedTuple):
    """Tables of `Demand` and `Assortment` as the kernel takes them."""

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


class Tags(NamedTuple):
    """Prices as the kernel takes them."""

    cents: np.ndarray  # (n,) int32
    sale_cents: np.ndarray  # (n,) int32
    markdown: np.ndarray  # (N_DAYS,) float64  share of articles marked down
    factors: np.ndarray  # float64  member offers
    key: np.uint64


def kernel_tables(
    assortment: Assortment, demand: Demand, prices: Prices, seed: int
) -> tuple[Wants, Tags]:
    wants = Wants(
        favorite_weights=np.asarray(FAVOURITE_WEIGHTS),
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
    tags = Tags(
        prices.cents,
        prices.sale_cents,
        prices.markdown,
        np.asarray(OFFER_FACTORS),
        purpose_key(seed, MARKDOWNS),
    )
    return wants, tags


def fill_baskets(
    customers: Customers, wants: Wants, tags: Tags, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Article (lines,) int32 and cents (lines,) int32 of all lines of a chunk, in order of visits."""
    offsets = np.concatenate(([0], np.cumsum(customers.visit_lines, dtype=np.int64)))
    article, cents = np.empty(offsets[-1], dtype=np.int32), np.empty(offsets[-1], dtype=np.int32)
    visits = (customers.visit_customer, customers.visit_day, offsets, customers.favorites)
    fill_lines(purpose_key(seed, LINES), customers.first, *visits, wants, tags, article, cents)
    return article, cents


@numba.njit(cache=True)
def uniform(key, counter):
    return (draw(key, counter) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@numba.njit(cache=True)
def first_above(values, lo, hi, x):
    """The first position in sorted values[lo:hi] with values > x, hi - 1 if none."""
    last = hi - 1
    while lo < last:
        middle = (lo + last) >> 1
        if values[middle] > x:
            last = middle
        else:
            lo = middle + 1
    return lo


@numba.njit(cache=True)
def holds(articles, reset_counters, end, article):
    found = False
    for line in range(reset_counters, end):
        found |= articles[line] == article
    return found


@numba.njit(cache=True)
def choose_style(u_explore, u, day, favorites, wants):
    """A favorite, by weight and by how much it is wanted that day; sometimes, or where none is on sale, any style."""
    if u_explore >= EXPLORE_SHARE:
        total = 0.0
        for k in range(favorites.shape[0]):
            total += (
                wants.favorite_weights[k]
                * wants.day_share[day, favorites[k]]
                / wants.base_share[favorites[k]]
            )
        left = u * total
        for k in range(favorites.shape[0]):
            left -= (
                wants.favorite_weights[k]
                * wants.day_share[day, favorites[k]]
                / wants.base_share[favorites[k]]
            )
            if left < 0.0:
                return np.int64(favorites[k])
    n = wants.day_cumulative.shape[1]
    return first_above(wants.day_cumulative[day], 0, n, u * wants.day_cumulative[day, n - 1])


@numba.njit(cache=True)
def choose_slot(u, style, day, wants):
    """A slot of the style's week, by demand."""
    cell = style * N_WEEKS + (day + wants.phase[style]) // 7
    first, last = wants.offsets[cell], wants.offsets[cell + 1]
    return first_above(wants.cumulative, first, last, u * wants.cumulative[last - 1])


@numba.njit(cache=True)
def choose_companion(u, slot, day, wants):
    """Another slot of the look of `slot` in the same week, by demand; -1 if it has none."""
    style = wants.style[wants.article[slot]]
    cell = style * N_WEEKS + (day + wants.phase[style]) // 7
    first, last = wants.offsets[cell], wants.offsets[cell + 1]
    look = wants.look[wants.article[slot]]
    lo, hi = slot, slot + 1
    while lo > first and wants.look[wants.article[lo - 1]] == look:
        lo -= 1
    while hi < last and wants.look[wants.article[hi]] == look:
        hi += 1
    if hi - lo < 2:
        return np.int64(-1)
    start = wants.cumulative[lo - 1] if lo > first else 0.0
    before = wants.cumulative[slot - 1] if slot > first else 0.0
    own = wants.cumulative[slot] - before
    x = start + u * (wants.cumulative[hi - 1] - start - own)
    chosen = first_above(wants.cumulative, lo, hi, x + own if x >= before else x)
    return chosen if chosen != slot else np.int64(-1)


@numba.njit(cache=True)
def choose_article(
    key, counter, day, previous, favorites, articles, mine, reset_counters, line, wants
):
    """A slot for `line`: a companion of slot `previous` (-1: none), or by taste; new to the basket where a few draws find that.

    `articles[mine:line]` are the customer's lines so far, `articles[begin:line]` this basket's.
    """
    slot = np.int64(-1)
    for attempt in range(ATTEMPTS):
        c = counter + NUMBERS_AN_ATTEMPT * attempt
        slot = np.int64(-1)
        if (
            previous >= 0
            and attempt < 2
            and uniform(key, c) < wants.strength[wants.look[wants.article[previous]]]
        ):
            slot = choose_companion(uniform(key, c + 1), previous, day, wants)
        if slot < 0:
            style = choose_style(uniform(key, c + 2), uniform(key, c + 3), day, favorites, wants)
            slot = choose_slot(uniform(key, c + 4), style, day, wants)
        article = wants.article[slot]
        if holds(articles, reset_counters, line, article):
            continue
        if uniform(key, c + 5) < AGAIN_SHARE or not holds(articles, mine, reset_counters, article):
            break
    return slot


@numba.njit(cache=True)
def price_of(key, counter, article, day, week, tags):
    """Cents: the tag, marked down for whole weeks and for everybody, less a member's offer."""
    marked = uniform(tags.key, np.int64(article) * N_WEEKS + week) < tags.markdown[day]
    cents = tags.sale_cents[article] if marked else tags.cents[article]
    if uniform(key, counter) < OFFER_SHARE:
        cents = max(
            1, int(cents * tags.factors[int(uniform(key, counter + 1) * tags.factors.shape[0])])
        )
    return cents


@numba.njit(cache=True, nogil=True)
def fill_lines(
    lines_key,
    first_customer,
    visit_customer,
    visit_day,
    visit_offsets,
    favorites,
    wants,
    tags,
    articles,
    cents,
):
    """Write the article and the cents of every line of every visit; visits are sorted by (customer, day)."""
    counter, mine, key = 0, np.int64(0), lines_key
    for v in range(visit_day.shape[0]):
        customer, day = visit_customer[v], np.int64(visit_day[v])
        reset_counters, end = visit_offsets[v], visit_offsets[v + 1]
        gap = 0
        if v > 0 and visit_customer[v - 1] == customer:
            gap = day - visit_day[v - 1]
        else:
            counter, mine, key = (
                0,
                reset_counters,
                fold(lines_key, np.int64(first_customer) + customer),
            )
        slot = np.int64(-1)
        for line in range(reset_counters, end):
            c = counter
            counter += NUMBERS_A_LINE + NUMBERS_AN_ATTEMPT * ATTEMPTS
            if line > reset_counters and uniform(key, c) < MORE_PIECES_SHARE:
                articles[line] = articles[line - 1]
                cents[line] = cents[line - 1]
                continue
            article = np.int32(-1)
            if 0 < gap <= RETURN_DAYS and uniform(key, c + 1) < RETURN_SHARE:
                before = visit_offsets[v - 1]
                article = articles[before + int(uniform(key, c + 2) * (reset_counters - before))]
                slot = np.int64(-1)
            if article < 0 or holds(articles, reset_counters, line, article):
                c_choice = c + NUMBERS_A_LINE
                slot = choose_article(
                    key,
                    c_choice,
                    day,
                    slot,
                    favorites[customer],
                    articles,
                    mine,
                    reset_counters,
                    line,
                    wants,
                )
                article = wants.article[slot]
            articles[line] = article
            week = (day + wants.phase[wants.style[article]]) // 7
            cents[line] = price_of(key, c + 2, article, day, week, tags)
