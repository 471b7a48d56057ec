"""The same log as CSV, Parquet and frames is the same shop, whatever types its columns have."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.dataset_generator import build
from gpu_dcgen.errors import InputError
from gpu_dcgen.inputs.frames import write_frames
from gpu_dcgen.inputs.opening import open_tables
from gpu_dcgen.inputs.shop import Shop, load_shop
from tests.support.csv_tables import describe
from tests.support.input_tables import CPU
from tests.support.shops import random_shop, tiny_config, write_shop
from tests.support.typed_logs import Tables, logs


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """Return a frame in which integers with missing values stay integers."""
    return table.to_pandas(types_mapper=pd.ArrowDtype)


FRAMES: dict[str, Callable[[pa.Table], Any]] = {
    "pyarrow": lambda table: table,
    "pandas": to_pandas,
    "polars": pl.from_arrow,
}
FILES: dict[str, tuple[str, Callable[[pa.Table, Path], None]]] = {
    "Parquet": ("parquet", pq.write_table),
    "Parquet of polars": ("parquet", lambda table, file: pl.from_arrow(table).write_parquet(file)),
    "CSV of pyarrow": ("csv", pa_csv.write_csv),
    "CSV of pandas": ("csv", lambda table, file: to_pandas(table).to_csv(file, index=False)),
    "CSV of polars": ("csv", lambda table, file: pl.from_arrow(table).write_csv(file)),
}


def write_files(tables: Tables, form: str, folder: Path) -> Path:
    folder.mkdir()
    suffix, write = FILES[form]
    for name, table in tables.items():
        write(table, folder / f"{name}.{suffix}")
    return folder


def load(tables: Tables, form: str, inputs: dict[str, Any], folder: Path) -> Shop:
    config = DatasetConfig.model_validate({"inputs": inputs})
    if form in FRAMES:
        frames = {name: FRAMES[form](table) for name, table in tables.items()}
        opened = write_frames(frames, config.inputs, folder / "tables")
    else:
        opened = open_tables(
            write_files(tables, form, folder / "in"), config.inputs, folder / "csv"
        )
    return load_shop(opened, config, CPU)


@settings(max_examples=40)
@given(logs())
def test_every_form_gives_the_same_shop(drawn):
    tables, inputs = drawn
    shops = {}
    for form in (*FILES, *FRAMES):
        with tempfile.TemporaryDirectory() as folder:
            shop = load(tables, form, inputs, Path(folder))
            shops[form] = (*describe(shop), shop.time.tolist(), shop.prices.tolist())
    assert all(shop == shops["Parquet"] for shop in shops.values())


@pytest.fixture(scope="module")
def typed_shop(tmp_path_factory) -> tuple[Tables, str]:
    """A shop with large integers as ids, decimals as prices and times of a zone; its digest."""
    folder = tmp_path_factory.mktemp("typed")
    shop = random_shop(7, n_users=16, n_items=20, n_rows=400, minutes=True)
    tables = {file.stem: pq.read_table(file) for file in write_shop(shop, folder / "in").iterdir()}
    for entity in ("article", "customer"):
        key = f"{entity}_id"
        ids = sorted(tables[f"{entity}s"][key].to_pylist())
        for name, table in tables.items():
            if key in table.column_names:
                numbers = [2**53 + ids.index(id) for id in table[key].to_pylist()]
                tables[name] = replace(table, key, pa.array(numbers))
    log = tables["transactions"]
    log = replace(log, "t_dat", log["t_dat"].cast(pa.timestamp("us", "Europe/Berlin")))
    tables["transactions"] = replace(log, "price", log["price"].cast(pa.decimal128(8, 4)))
    for name, table in tables.items():
        pq.write_table(table, folder / "in" / f"{name}.parquet")
    result = build(folder / "in", folder / "out", tiny_config(), backend="cpu")
    return tables, result.manifest.content_digest


def replace(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


@pytest.mark.parametrize("form", [form for form in (*FILES, *FRAMES) if form != "Parquet"])
def test_every_form_gives_the_same_digest(typed_shop, tmp_path, form):
    tables, digest = typed_shop
    if form in FRAMES:
        frames = {name: FRAMES[form](table) for name, table in tables.items()}
        log: dict[str, Any] = {"tables": frames}
    else:
        log = {"inputs": write_files(tables, form, tmp_path / "in")}
    result = build(**log, output=tmp_path / "out", config=tiny_config(), backend="cpu")
    assert result.manifest.content_digest == digest


REFUSED = {
    "floats as groups": (pa.array([1.0, 2.5]), "product_group_name", 'pandas.*"Int64"'),
    "bools as groups": (pa.array([True, False]), "product_group_name", "Write the column as text"),
    "days as groups": (
        pa.array([dt.date(2020, 1, 1), dt.date(2021, 1, 1)]),
        "product_group_name",
        "Write the column as text",
    ),
    "floats as ids": (pa.array([1.0, 2.0]), "article_id", 'pandas.*dtype="Int64"'),
    "texts as prices": (pa.array(["1.5", "2"]), "price", "Write the column as a number"),
}


@pytest.mark.parametrize(("values", "column", "remedy"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("form", ["Parquet", *FRAMES])
def test_what_writers_of_csv_spell_differently_is_refused_elsewhere(
    tmp_path, form, values, column, remedy
):
    log = {
        "t_dat": pa.array([dt.date(2020, 1, 1), dt.date(2020, 1, 2)]),
        "customer_id": pa.array(["u", "v"]),
        "article_id": pa.array(["a", "b"]),
        "price": pa.array([1.0, 2.0]),
    }
    articles = {"article_id": pa.array(["a", "b"]), "product_group_name": pa.array(["x", "y"])}
    for table in (log, articles):
        if column in table:
            table[column] = values
    tables = {"transactions": pa.table(log), "articles": pa.table(articles)}
    with pytest.raises(InputError, match=rf"column '{column}' is (.|\n)*{remedy}"):
        load(tables, form, {}, tmp_path)


def test_ids_that_have_been_floats_are_pointed_out(tmp_path):
    days = pa.array([dt.date(2020, 1, 1), dt.date(2020, 1, 2)])
    for ids, n_warnings in ((["1.0", "2.0"], 1), (["1.0", "2"], 0)):
        tables = {
            "transactions": pa.table({"t_dat": days, "customer_id": ids, "article_id": ["a", "b"]})
        }
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            shop = load(tables, "CSV of pyarrow", {}, Path(folder))
        texts = [text for text in shop.report.warnings if "have been floats" in text]
        assert len(texts) == n_warnings and all("customer_id" in text for text in texts)
