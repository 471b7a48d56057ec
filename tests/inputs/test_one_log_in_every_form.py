"""The same log as CSV, Parquet and frames is the same shop, whatever types its columns have."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.dataset_generator import build
from gpu_dcgen.errors import InputError
from gpu_dcgen.inputs.frames import write_frames
from gpu_dcgen.inputs.opening import open_tables
from gpu_dcgen.inputs.shop import Shop, load_shop
from tests.support.csv_tables import describe
from tests.support.input_tables import CPU
from tests.support.shops import random_shop, tiny_config, write_shop

Tables = dict[str, pa.Table]
START = dt.datetime(2020, 3, 28)
ZONES = (None, "UTC", "Europe/Berlin", "America/New_York")


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


IDS = {
    "text": st.text("aB07é _-", min_size=1, max_size=4).filter(lambda text: text == text.strip()),
    "leading zeros": st.integers(0, 999).map(lambda number: f"{number:05}"),
    "integers": st.integers(-(2**31), 2**31 - 1).map(lambda number: pa.scalar(number, pa.int32())),
    "large integers": st.integers(2**53, 2**63 - 1),
    "unsigned": st.integers(0, 2**64 - 1).map(lambda number: pa.scalar(number, pa.uint64())),
    "whole decimals": st.integers(1, 10**18).map(
        lambda number: pa.scalar(Decimal(number), pa.decimal128(20, 0))
    ),
}
PRICES = {
    pa.int64(): st.integers(1, 10**6),
    pa.int16(): st.integers(1, 1000),
    pa.float64(): st.floats(1e-6, 1e6),
    pa.decimal128(12, 2): st.decimals("0.01", 1000, places=2),
}
GROUPS = {
    pa.string(): st.one_of(st.none(), st.sampled_from(["x", "y, z", 'q"', "1.0", "äö"])),
    pa.int64(): st.one_of(st.none(), st.integers(-3, 12)),
    pa.uint8(): st.integers(0, 255),
    pa.decimal128(5, 0): st.integers(0, 12).map(Decimal),
}
AGES = {
    pa.int8(): st.one_of(st.none(), st.integers(0, 99)),
    pa.float64(): st.one_of(st.none(), st.sampled_from([0.0, 35.5, 200.0])),
    pa.string(): st.sampled_from(["35-44", "65+", "40", None]),
}


@st.composite
def logs(draw: st.DrawFn) -> tuple[Tables, dict[str, Any]]:
    """Draw the tables of a shop with types of any kind, and the settings that read them."""

    def draw_ids() -> pa.Array:
        ids = draw(st.lists(draw(st.sampled_from([*IDS.values()])), min_size=2, max_size=5))
        values = [value.as_py() if isinstance(value, pa.Scalar) else value for value in ids]
        kind = ids[0].type if isinstance(ids[0], pa.Scalar) else None
        return pa.array([*dict.fromkeys(values)], kind)

    def draw_column(kinds: dict[pa.DataType, st.SearchStrategy], n_rows: int) -> pa.Array:
        kind = draw(st.sampled_from([*kinds]))
        return pa.array([draw(kinds[kind]) for _ in range(n_rows)], kind)

    items, users = draw_ids(), draw_ids()
    n_rows = draw(st.integers(1, 8))
    times, inputs = draw_times(draw, n_rows)
    rows = [st.integers(0, len(ids) - 1) for ids in (items, users)]
    item, user = ([draw(row) for _ in range(n_rows)] for row in rows)
    log = {
        "t_dat": times,
        "customer_id": users.take(pa.array(user)),
        "article_id": items.take(pa.array(item)),
        "price": draw_column(PRICES, n_rows),
        "sales_channel_id": pa.array([1, 2, None, 1, 2, 2, 1, 2][:n_rows], pa.int8()),
    }
    groups, ages = draw_column(GROUPS, len(items)), draw_column(AGES, len(users))
    tables = {
        "transactions": pa.table(log),
        "articles": pa.table({"article_id": items, "product_group_name": groups}),
        "customers": pa.table({"customer_id": users, "age": ages}),
    }
    return tables, inputs


def draw_times(draw: st.DrawFn, n_rows: int) -> tuple[pa.Array, dict[str, Any]]:
    """Draw times as days, timestamps with or without a zone, numbers or text."""
    hours = [draw(st.integers(0, 5000)) for _ in range(n_rows)]
    moments = [START + dt.timedelta(hours=hour) for hour in hours]
    way = draw(st.sampled_from(["days", "timestamps", "numbers", "texts"]))
    zone = draw(st.sampled_from([{}, {"time_zone": "Europe/Berlin"}]))
    if way == "days":
        kind = draw(st.sampled_from([pa.date32(), pa.date64()]))
        return pa.array([moment.date() for moment in moments], kind), zone
    if way == "timestamps":
        unit = draw(st.sampled_from(["s", "ms", "us", "ns"]))
        return pa.array(moments, pa.timestamp(unit, draw(st.sampled_from(ZONES)))), zone
    if way == "numbers":
        return pa.array([1_600_000_000 + 3600 * hour for hour in hours]), {"time_unit": "s"}
    return pa.array([f"{moment:%d.%m.%Y %H:%M}" for moment in moments]), {
        "time_format": "%d.%m.%Y %H:%M",
        **zone,
    }


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
