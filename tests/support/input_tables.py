"""A shop of three articles for tests of stage 1: written, loaded, read as plain values."""

from __future__ import annotations

import datetime as dt
import io
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


def can_write_views() -> bool:
    """Whether this pyarrow writes string views to Parquet, as it has read them for longer."""
    table = pa.table({"x": pa.array([], pa.string_view())})
    try:
        pq.write_table(table, io.BytesIO())
    except pa.ArrowNotImplementedError:
        return False
    return True


def write_tables(folder: Path, **tables) -> Path:
    """Write a small shop's files; a table given here replaces the default, None leaves it out."""
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


def load_tables(folder: Path, backend=CPU, *, rejects: Path | None = None, **inputs):
    return load_shop(
        folder, DatasetConfig.model_validate({"inputs": inputs}), backend, rejects=rejects
    )


def load_rejecting(folder: Path, backend=CPU, **inputs):
    """Return the shop of the good rows, and the bad ones as (table, position, reason)."""
    rejects = folder / "rejects.parquet"
    shop = load_tables(
        folder,
        backend,
        rejects=rejects,
        on_bad_rows="reject",
        **{"min_quality_score": 0.0, **inputs},
    )
    rows = pq.read_table(rejects)
    return shop, [tuple(row.values()) for row in rows.drop_columns("row").to_pylist()]


def to_list(array):
    return getattr(array, "host", array).tolist()


def list_sales(shop):
    """List transactions as (time, user id, item id, price, channel), in the shop's order."""
    users, items = shop.user_ids.to_pylist(), shop.item_ids.to_pylist()
    prices = [
        float(shop.prices[code]) if len(shop.prices) else None for code in to_list(shop.price)
    ]
    days = [str(np.datetime64(time, "ns").astype("datetime64[s]")) for time in to_list(shop.time)]
    columns = (
        days,
        [users[u] for u in to_list(shop.user)],
        [items[i] for i in to_list(shop.item)],
        prices,
        to_list(shop.channel),
    )
    return list(zip(*columns, strict=True))


def decode(decode):
    return [None if code < 0 else decode.values[code] for code in to_list(decode.codes)]


def replace_column(table: dict, column: str, values) -> dict:
    return {**table, column: values}


def drop_column(table: dict, column: str) -> dict:
    return {name: values for name, values in table.items() if name != column}
