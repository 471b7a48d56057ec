"""A shop of three articles for the tests of stage 1: written in any dress, loaded, and read back as plain values."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cpu_fallback import NumpyBackend
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.inputs.shop import load_shop

ARTICLES = {"article_id": ["a2", "a1", "a3"], "product_group_name": ["Shoes", None, "Bags"]}
CUSTOMERS = {"customer_id": ["u1", "u2"]}
TRANSACTIONS = {
    "t_dat": [dt.date(2020, 1, 2), dt.date(2020, 1, 1), dt.date(2020, 1, 1)],
    "customer_id": ["u2", "u1", "u2"],
    "article_id": ["a1", "a3", "a1"],
    "price": [2.0, 1.5, 2.0],
    "sales_channel_id": [2, 1, None],
}
VIEWS = {"t_dat": [dt.date(2020, 1, 3)], "customer_id": ["u1"], "article_id": ["a2"]}
CPU = NumpyBackend(1)


def write(folder: Path, **tables) -> Path:
    """A little shop's files; a table given here replaces the default one, None leaves it out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (
        {"articles": ARTICLES, "customers": CUSTOMERS, "transactions": TRANSACTIONS} | tables
    ).items():
        if table is not None:
            pq.write_table(
                table if isinstance(table, pa.Table) else pa.table(table),
                folder / f"{name}.parquet",
            )
    return folder


def load(folder: Path, backend=CPU, *, rejects: Path | None = None, **inputs):
    return load_shop(
        folder, DatasetConfig.model_validate({"inputs": inputs}), backend, rejects=rejects
    )


def reject(folder: Path, backend=CPU, **inputs):
    """The shop of the good rows, and the bad ones as (table, position, reason)."""
    rejects = folder / "rejects.parquet"
    shop = load(
        folder,
        backend,
        rejects=rejects,
        on_bad_rows="reject",
        **{"min_quality_score": 0.0, **inputs},
    )
    rows = pq.read_table(rejects)
    return shop, [tuple(row.values()) for row in rows.drop_columns("row").to_pylist()]


def host(array):
    return getattr(array, "host", array).tolist()


def sales(shop):
    """Transactions as the ids, prices and times that they mean, in the shop's order."""
    users, items = shop.user_ids.to_pylist(), shop.item_ids.to_pylist()
    prices = [float(shop.prices[code]) if len(shop.prices) else None for code in host(shop.price)]
    days = [str(np.datetime64(time, "ns").astype("datetime64[s]")) for time in host(shop.time)]
    columns = (
        days,
        [users[u] for u in host(shop.user)],
        [items[i] for i in host(shop.item)],
        prices,
        host(shop.channel),
    )
    return list(zip(*columns, strict=True))


def category(category):
    return [None if code < 0 else category.values[code] for code in host(category.codes)]


def changed(table: dict, column: str, values) -> dict:
    return {**table, column: values}


def without(table: dict, column: str) -> dict:
    return {name: values for name, values in table.items() if name != column}
