"""Measure a log of H&M's schema beside the published aggregates of H&M's log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...errors import InputError
from .figures import (
    Figure,
    measure_activity,
    measure_calendar,
    measure_categories,
    measure_customers,
    measure_popularity,
    measure_prices,
    measure_repeats,
    measure_sizes,
)
from .marginals import FIRST_DAY, N_DAYS, UNITS_PER_PRICE
from .transactions import Lines

# `measure_repeats` packs customer, article and cents of a line into bits of these widths.
MAX_CUSTOMERS, MAX_ARTICLES, MAX_CENTS = 1 << 21, 1 << 17, 1 << 16


def measure_files(folder: str | Path) -> list[Figure]:
    """Measure the log in `folder` (raw H&M schema, one Parquet file a table).

    InputError where the dates or sizes are not H&M's: the figures would mean nothing.
    """
    folder = Path(folder)
    articles = pq.read_table(folder / "articles.parquet")
    customers = pq.read_table(folder / "customers.parquet")
    lines = read_lines(
        folder / "transactions.parquet", articles["article_id"], customers["customer_id"]
    )
    return measure(articles, customers, lines)


def read_lines(path: Path, article_ids: pa.ChunkedArray, customer_ids: pa.ChunkedArray) -> Lines:
    """Read transactions as codes, a row group at a time."""
    parts: list[Lines] = []
    article_ids, customer_ids = article_ids.combine_chunks(), customer_ids.combine_chunks()
    first_day = np.datetime64(FIRST_DAY, "D").astype(np.int32)
    with pq.ParquetFile(path, read_dictionary=["customer_id", "article_id"]) as file:
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group).combine_chunks()
            day = rows["t_dat"].cast(pa.date32()).cast(pa.int32()).to_numpy() - first_day
            customer = find_codes(rows["customer_id"], customer_ids)
            article = find_codes(rows["article_id"], article_ids)
            if day.min() < 0 or day.max() >= N_DAYS or customer.min() < 0 or article.min() < 0:
                raise InputError(
                    f"{path.name}: row group {group} has dates outside {FIRST_DAY} + {N_DAYS} days "
                    "or ids unknown.\n"
                    "The published figures are of H&M's two years; measure a log that "
                    "`gpu-dcgen synth` wrote, or H&M's own."
                )
            amount = rows["price"].to_numpy().astype(np.float64) * UNITS_PER_PRICE
            cents = np.rint(amount * 100).astype(np.int32)
            channel = rows["sales_channel_id"].to_numpy().astype(np.int8)
            parts.append(Lines(day.astype(np.int16), customer, article, cents, channel))
    return Lines(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def find_codes(column: pa.ChunkedArray, ids: pa.Array) -> np.ndarray:
    """Return the position of each value of a dictionary column in `ids`, int32, -1 if absent."""
    encoded = column.combine_chunks()
    encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
    position = pc.fill_null(pc.index_in(encoded.dictionary.cast(ids.type), ids), -1)
    return position.to_numpy().astype(np.int32)[encoded.indices.to_numpy()]


def measure(articles: pa.Table, customers: pa.Table, lines: Lines) -> list[Figure]:
    """Measure all figures of a log."""
    n_customers, n_articles = customers.num_rows, articles.num_rows
    min_cents, max_cents = lines.cents.min(), lines.cents.max()
    if (
        n_customers >= MAX_CUSTOMERS
        or n_articles >= MAX_ARTICLES
        or max_cents >= MAX_CENTS
        or min_cents < 0
    ):
        raise InputError(
            f"fit: {n_customers} customers, {n_articles} articles, amounts in cents "
            f"{min_cents}..{max_cents}; expected fewer than {MAX_CUSTOMERS:,}, fewer than "
            f"{MAX_ARTICLES:,}, and 0..{MAX_CENTS - 1:,}.\n"
            "Measure a log of H&M's size or smaller."
        )
    figures = [
        *measure_sizes(n_customers, n_articles, lines),
        *measure_activity(n_customers, lines),
        *measure_popularity(n_articles, lines),
        *measure_repeats(n_customers, n_articles, lines),
        *measure_calendar(lines),
        *measure_prices(articles, lines),
        *measure_categories(articles),
        *measure_customers(customers, lines),
    ]
    return [replace(figure, measured=float(figure.measured)) for figure in figures]
