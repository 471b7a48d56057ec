"""Generate a log of H&M's shape and size from published aggregates (`gpu-dcgen synth`).

No row of H&M's data is in it.

marginals.py     the published aggregates
articles.py      the assortment: products, looks, styles; categories, lives, rows
demand.py        the share of each article in each week
prices.py        price points, markdowns, member offers
customers.py     attributes, visits and tastes of customers
baskets.py       the articles and prices of each basket's lines
transactions.py  the lines of all customers, by day
naming.py        names of sections, departments and products
portable_math.py exp, log, ... with the same results on all processors
tables.py        the three Parquet files
fit.py           the result beside the published figures (figures.py, similarity_fit.py)
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from ...monitoring.progress import ProgressTracker
from .articles import plan_assortment
from .demand import plan_demand
from .figures import Figure
from .fit import measure, measure_files
from .marginals import draw_daily_rows, scale_sizes
from .prices import plan_prices
from .tables import CustomerWriter, draw_customer_ids, write_articles, write_transactions
from .transactions import draw_lines

__all__ = ["Figure", "SynthReport", "generate", "measure_files"]


@dataclass(frozen=True)
class SynthReport:
    """The rows that were written, and their figures beside the published ones."""

    rows: dict[str, int]  # table -> rows
    seconds: float  # drawing and writing, without measuring the fit
    fit: list[Figure]  # empty above scale 1: the figures are of a shop of H&M's size


def generate(
    folder: str | Path,
    *,
    scale: float = 0.01,
    seed: int = 42,
    progress: ProgressTracker | None = None,
) -> SynthReport:
    """Write articles.parquet, customers.parquet and transactions.parquet of an H&M-like shop.

    `scale` 1 is H&M's size (1,371,980 customers, 105,542 articles, about 31.8 M transactions, 3 GB
    of memory); customers, articles and transactions are in proportion to it, the 734 dates stay.
    The content depends on (scale, seed) only, not on the processor's vector instructions; another C
    library or NumPy may give another (`portable_math`). Existing files of these names are replaced.
    Raises ConfigError for a scale outside (0, 10].
    """
    folder, progress = Path(folder), progress or ProgressTracker()
    started = time.perf_counter()
    size = scale_sizes(scale)
    folder.mkdir(parents=True, exist_ok=True)
    with progress.stage("assortment"):
        day_rows = draw_daily_rows(seed)
        assortment = plan_assortment(size["articles"], size["transactions"], seed)
        demand = plan_demand(assortment, day_rows, seed)
        prices = plan_prices(assortment, demand, day_rows, seed)
        article_ids, article_row = write_articles(folder / "articles.parquet", assortment, seed)
        ids = draw_customer_ids(size["customers"], seed)
    with (
        progress.stage("baskets", size["transactions"]),
        CustomerWriter(folder / "customers.parquet", ids) as writer,
    ):
        lines = draw_lines(
            assortment,
            demand,
            prices,
            day_rows,
            size["customers"],
            seed,
            writer.write,
            progress.advance,
        )
    lines = lines._replace(article=article_row[lines.article])
    with progress.stage("transactions", lines.day.shape[0]):
        write_transactions(
            folder / "transactions.parquet", lines, article_ids, ids, progress.advance
        )
    seconds = time.perf_counter() - started
    figures: list[Figure] = []
    if scale <= 1:
        with progress.stage("fit"):
            articles, customers = (
                pq.read_table(folder / f"{name}.parquet") for name in ("articles", "customers")
            )
            figures = measure(articles, customers, lines)
    rows = {
        "articles": size["articles"],
        "customers": size["customers"],
        "transactions": lines.day.shape[0],
    }
    return SynthReport(rows=rows, seconds=seconds, fit=figures)
