"""`gpu-dcgen synth`: a log of H&M's shape and size, drawn from published aggregates. No row of H&M's data is in it.

articles.py      the assortment: products, looks, styles; categories, prices, lives
demand.py        what is wanted in which week
customers.py     who comes when, and likes what
transactions.py  baskets, and the log in order of dates
tables.py        the three Parquet files
fit.py           how near the result is to the published figures
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from ...monitoring.progress import ProgressTracker
from .articles import plan_assortment
from .demand import plan_demand
from .fit import Fit, Lines, fit, measure
from .marginals import daily_rows, sizes_at
from .prices import plan_prices
from .tables import CustomerWriter, customer_ids, write_articles, write_transactions
from .transactions import draw_log

__all__ = ["Fit", "SynthReport", "fit", "generate"]


@dataclass(frozen=True)
class SynthReport:
    """What was written, and how near it is to the published figures."""

    rows: dict[str, int]  # table -> rows
    seconds: float  # drawing and writing, without measuring the fit
    fit: list[Fit]  # empty above scale 1: the figures are of a shop of the real one's size


def generate(
    folder: str | Path,
    *,
    scale: float = 0.01,
    seed: int = 42,
    progress: ProgressTracker | None = None,
) -> SynthReport:
    """Write articles.parquet, customers.parquet and transactions.parquet of an H&M-like shop into `folder`.

    `scale` 1 is H&M's size (1,371,980 customers, 105,542 articles, about 31.8 M transactions, 3 GB of memory); customers,
    articles and transactions are in proportion to it, the 734 dates stay. The content depends on (scale, seed) only.
    Raises ConfigError for a scale outside (0, 10]. Existing files of these names are replaced.
    """
    folder, progress = Path(folder), progress or ProgressTracker()
    started = time.perf_counter()
    size = sizes_at(scale)
    folder.mkdir(parents=True, exist_ok=True)
    with progress.stage("assortment"):
        day_rows = daily_rows(seed)
        assortment = plan_assortment(size["articles"], size["transactions"], seed)
        demand = plan_demand(assortment, day_rows, seed)
        prices = plan_prices(assortment, demand, day_rows, seed)
        article_ids, place = write_articles(folder / "articles.parquet", assortment, seed)
        ids = customer_ids(size["customers"], seed)
    with (
        progress.stage("baskets", size["transactions"]),
        CustomerWriter(folder / "customers.parquet", ids) as people,
    ):
        log = draw_log(
            assortment,
            demand,
            prices,
            day_rows,
            size["customers"],
            seed,
            people.write,
            progress.advance,
        )
    with progress.stage("transactions", log.day.shape[0]):
        write_transactions(
            folder / "transactions.parquet", log, place, article_ids, ids, progress.advance
        )
    seconds = time.perf_counter() - started
    figures = []
    if scale <= 1:
        with progress.stage("fit"):
            lines = Lines(log.day, log.customer, place[log.article], log.cents, log.channel)
            articles, customers = (
                pq.read_table(folder / f"{name}.parquet") for name in ("articles", "customers")
            )
            figures = measure(articles, customers, lines)
    rows = {
        "articles": size["articles"],
        "customers": size["customers"],
        "transactions": log.day.shape[0],
    }
    return SynthReport(rows=rows, seconds=seconds, fit=figures)
