"""Draw the lines of all customers, a chunk at a time, and sort them by day.

Lines are codes, 15 bytes each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np

from .articles import Assortment
from .baskets import build_tables, fill_baskets
from .customers import CHUNK, Customers, compute_visit_intensity, draw_customers
from .demand import Demand
from .marginals import N_DAYS, UNSOLD_ARTICLES, make_generator
from .prices import Prices

MIN_SPARE_SALES = 20  # an article with more lines can give one to an unsold article
SPARE_DRAWS = 64  # lines drawn in search of one


class Lines(NamedTuple):
    """Lines of a log as codes, (t,) each."""

    day: np.ndarray  # int16  0..N_DAYS - 1
    customer: np.ndarray  # int32
    article: np.ndarray  # int32
    cents: np.ndarray  # int32
    channel: np.ndarray  # int8  1 store, 2 online


def draw_lines(
    assortment: Assortment,
    demand: Demand,
    prices: Prices,
    day_rows: np.ndarray,
    n_customers: int,
    seed: int,
    write_customers: Callable[[Customers], None],
    advance: Callable[[int], None],
) -> Lines:
    """Draw all lines of all customers, sorted by (day, customer), in basket order.

    `write_customers` is called with each chunk of customers, `advance` with its number of lines.
    """
    intensity = compute_visit_intensity(day_rows)
    tables = build_tables(assortment, demand, prices, seed)
    chunks: list[Lines] = []
    for chunk, first in enumerate(range(0, n_customers, CHUNK)):
        n = min(CHUNK, n_customers - first)
        customers = draw_customers(chunk, n, intensity, demand, assortment.style_group, seed)
        write_customers(customers)
        article, cents = fill_baskets(customers, *tables, seed)
        n_lines = customers.visit_lines
        customer = np.repeat(customers.visit_customer, n_lines) + np.int32(first)
        day = np.repeat(customers.visit_day, n_lines)
        channel = np.repeat(customers.visit_channel, n_lines)
        chunks.append(Lines(day, customer, article, cents, channel))
        advance(day.shape[0])
    lines, day_offsets = sort_by_day(chunks)
    rng = make_generator(seed, UNSOLD_ARTICLES)
    sell_unsold(lines, day_offsets, assortment, prices.cents, rng)
    return lines


def sort_by_day(chunks: list[Lines]) -> tuple[Lines, np.ndarray]:
    """Return the lines of all chunks by day, and the days' offsets (N_DAYS + 1,) int64.

    The sort is stable, so customers rise inside a day. Empties `chunks` to free their memory.
    """
    counts = np.zeros(N_DAYS, dtype=np.int64)
    for chunk in chunks:
        counts += np.bincount(chunk.day, minlength=N_DAYS)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    lines = Lines(*(np.empty(offsets[-1], dtype=column.dtype) for column in chunks[0]))
    cursor = offsets[:-1].copy()
    chunks.reverse()
    while chunks:
        scatter(cursor, chunks.pop(), lines)
    return lines, offsets


@numba.njit(cache=True, nogil=True)
def scatter(cursor, chunk, lines):
    """Write each line of a chunk to its day's next position in `lines`, and advance `cursor`."""
    for line in range(chunk.day.shape[0]):
        to = cursor[chunk.day[line]]
        cursor[chunk.day[line]] = to + 1
        lines.day[to] = chunk.day[line]
        lines.customer[to] = chunk.customer[line]
        lines.article[to] = chunk.article[line]
        lines.cents[to] = chunk.cents[line]
        lines.channel[to] = chunk.channel[line]


def sell_unsold(
    lines: Lines,
    day_offsets: np.ndarray,
    assortment: Assortment,
    cents: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Give one line of a day of its life to each unsold article that has expected rows.

    The lines are taken from articles with sales to spare; about one line in 20,000 changes.
    """
    n_sold = np.bincount(lines.article, minlength=assortment.n)
    for article in np.flatnonzero((n_sold == 0) & (assortment.rows > 0)):
        from_day = int(np.clip(assortment.launch[article], 0, N_DAYS - 2))
        last_day = assortment.launch[article] + assortment.life[article]
        to_day = int(np.clip(last_day, from_day + 1, N_DAYS))
        lo, hi = day_offsets[from_day], day_offsets[to_day]
        for line in rng.integers(lo, max(hi, lo + 1), size=SPARE_DRAWS):
            if line < lines.article.shape[0] and n_sold[lines.article[line]] > MIN_SPARE_SALES:
                n_sold[lines.article[line]] -= 1
                lines.article[line], lines.cents[line] = article, cents[article]
                break
