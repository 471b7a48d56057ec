"""Write tables as CSV by Python's own writer, and load a folder as a build does."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.inputs.opening import open_tables
from gpu_dcgen.inputs.shop import Shop, load_shop
from tests.support.input_tables import (
    ARTICLES,
    CPU,
    CUSTOMERS,
    TRANSACTIONS,
    decode,
    list_sales,
    to_list,
)

SHOP = {"articles": ARTICLES, "customers": CUSTOMERS, "transactions": TRANSACTIONS}


def to_csv(table: dict[str, list] | pa.Table, **dialect: Any) -> str:
    """Return a table as CSV text; null is the empty field."""
    columns = table.to_pydict() if isinstance(table, pa.Table) else table
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", **dialect)
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow(["" if value is None else value for value in row])
    return text.getvalue()


def pack(text: str, name: str, encoding: str = "utf-8") -> bytes:
    """Return text as the bytes of a file of this name."""
    data = text.encode(encoding)
    if name.endswith(".gz"):
        return gzip.compress(data)
    if name.endswith(".zst"):
        return pa.compress(data, codec="zstd", asbytes=True)
    return data


def write_csv_tables(folder: Path, suffix: str = ".csv", **tables: Any) -> Path:
    """Write a small shop as CSV; a table given here replaces the default, text as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    delimiter = "\t" if suffix.startswith(".tsv") else ","
    for name, table in (SHOP | tables).items():
        if table is not None:
            text = table if isinstance(table, str) else to_csv(table, delimiter=delimiter)
            (folder / f"{name}{suffix}").write_bytes(pack(text, suffix))
    return folder


def convert_folder(parquet: Path, folder: Path) -> Path:
    """Write the Parquet tables of a folder as CSV, H&M's names for the transactions."""
    folder.mkdir(parents=True)
    for file in sorted(parquet.glob("*.parquet")):
        name = file.stem.replace("transactions", "transactions_train")
        table = pq.read_table(file)
        columns = {
            column: [
                value.isoformat(sep=" ") if isinstance(value, dt.datetime) else value
                for value in table[column].to_pylist()
            ]
            for column in table.column_names
        }
        (folder / f"{name}.csv").write_text(to_csv(columns), encoding="utf-8")
    return folder


def load_folder(folder: Path, backend=CPU, *, rejects: Path | None = None, **inputs: Any) -> Shop:
    """Convert what is CSV beside the folder, and load the shop."""
    config = DatasetConfig.model_validate({"inputs": inputs})
    workplace = folder.with_name(f"{folder.name}.workplace")
    tables = open_tables(folder, config.inputs, workplace)
    return load_shop(tables, config, backend, rejects=rejects)


def describe(shop: Shop) -> tuple[Any, ...]:
    """Return all that a shop says, as plain values."""
    columns = {**shop.user_columns, **shop.item_columns}
    return (
        shop.user_ids.to_pylist(),
        shop.item_ids.to_pylist(),
        to_list(shop.age),
        {name: decode(column) for name, column in columns.items()},
        list_sales(shop),
        shop.report.rows,
    )
