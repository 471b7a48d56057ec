"""The log: the lines of all customers, a chunk at a time, then in order of date. Codes only, 15 bytes a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numba
import numpy as np

from .articles import Assortment
from .baskets import fill_baskets, kernel_tables
from .customers import CHUNK, Customers, draw_customers, visit_intensity
from .demand import Demand
from .marginals import N_DAYS, generator
from .prices import Prices


@dataclass
class Log:
    """Lines sorted by (day, customer), in basket order."""

    day: np.ndarray  # (t,) int16
    customer: np.ndarray  # (t,) int32
    article: np.ndarray  # (t,) int32
    cents: np.ndarray  # (t,) int32
    channel: np.ndarray  # (t,) int8
    day_offsets: np.ndarray  # (N_DAYS + 1,) int64


Chunk = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def draw_log(
    assortment: Assortment,
    demand: Demand,
    prices: Prices,
    day_rows: np.ndarray,
    n_customers: int,
    seed: int,
    keep: Callable[[Customers], None],
    advance: Callable[[int], None],
) -> Log:
    """All lines of all customers. `keep` is given each chunk of customers, `advance` the lines drawn in it."""
    intensity = visit_intensity(day_rows)
    tables = kernel_tables(assortment, demand, prices, seed)
    chunks: list[Chunk] = []
    for chunk, first in enumerate(range(0, n_customers, CHUNK)):
        customers = draw_customers(
            chunk, min(CHUNK, n_customers - first), intensity, demand, assortment.style_group, seed
        )
        keep(customers)
        article, cents = fill_baskets(customers, *tables, seed)
        lines = customers.visit_lines
        customer = np.repeat(customers.visit_customer, lines) + np.int32(first)
        day, channel = (
            np.repeat(customers.visit_day, lines),
            np.repeat(customers.visit_channel, lines),
        )
        chunks.append((day, customer, article, cents, channel))
        advance(chunks[-1][0].shape[0])
    log = sort_by_day(chunks)
    sell_the_unsold(log, assortment, prices.cents, generator(seed, purpose=5))
    return log


def sort_by_day(chunks: list[Chunk]) -> Log:
    """One log of all chunks, which are taken apart on the way; stable, so customers rise inside a day."""
    counts = np.zeros(N_DAYS, dtype=np.int64)
    for chunk in chunks:
        counts += np.bincount(chunk[0], minlength=N_DAYS)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    columns = tuple(np.empty(offsets[-1], dtype=column.dtype) for column in chunks[0])
    cursor = offsets[:-1].copy()
    for position in range(len(chunks)):
        scatter(cursor, *chunks[position], *columns)
        chunks[position] = ()
    return Log(*columns, day_offsets=offsets)


@numba.njit(cache=True, nogil=True)
def scatter(
    cursor,
    day,
    customer,
    article,
    cents,
    channel,
    to_day,
    to_customer,
    to_article,
    to_cents,
    to_channel,
):
    for line in range(day.shape[0]):
        to = cursor[day[line]]
        cursor[day[line]] = to + 1
        to_day[to] = day[line]
        to_customer[to] = customer[line]
        to_article[to] = article[line]
        to_cents[to] = cents[line]
        to_channel[to] = channel[line]


def sell_the_unsold(
    log: Log, assortment: Assortment, cents: np.ndarray, rng: np.random.Generator
) -> None:
    """Give each article that was meant to sell, and by chance did not, one line of a day of its life.

    The lines are taken from articles with sales to spare; about one line in 20,000 changes.
    """
    sold = np.bincount(log.article, minlength=assortment.n)
    for article in np.flatnonzero((sold == 0) & (assortment.rows > 0)):
        from_day = int(np.clip(assortment.launch[article], 0, N_DAYS - 2))
        to_day = int(
            np.clip(assortment.launch[article] + assortment.life[article], from_day + 1, N_DAYS)
        )
        lo, hi = log.day_offsets[from_day], log.day_offsets[to_day]
        for line in rng.integers(lo, max(hi, lo + 1), size=64):
            if line < log.article.shape[0] and sold[log.article[line]] > 20:
                sold[log.article[line]] -= 1
                log.article[line], log.cents[line] = article, cents[article]
                break
