"""Tables in memory, through Arrow's PyCapsule interface, are read as files are (D1)."""

from __future__ import annotations

import datetime as dt

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from gpu_dcgen.auditing import audit
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.dataset_generator import append, build, pipeline
from gpu_dcgen.errors import ConfigError, InputError
from gpu_dcgen.inputs import frames as frames_module
from gpu_dcgen.inputs.frames import write_frames
from gpu_dcgen.inputs.shop import load_shop
from tests.support.builds import fail_at_call, write_small_shop
from tests.support.csv_tables import describe
from tests.support.growing import TODAY, cut_log, growing_config, make_log
from tests.support.input_tables import (
    ARTICLES,
    CPU,
    CUSTOMERS,
    TRANSACTIONS,
    VIEWS,
    list_sales,
    load_tables,
    replace_column,
    write_tables,
)
from tests.support.shops import tiny_config, write_shop

SHOP = {
    "articles": pa.table(ARTICLES),
    "customers": pa.table(CUSTOMERS),
    "transactions": pa.table(TRANSACTIONS),
}


class Capsule:
    """Has the interface and nothing else, as a frame of a library that is unknown here."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


def to_pandas(table):
    frame = table.to_pandas()
    return frame.assign(t_dat=pd.to_datetime(frame["t_dat"])) if "t_dat" in frame else frame


LIBRARIES = {
    "pyarrow": lambda table: table,
    "a stream": lambda table: table.to_reader(max_chunksize=2),
    "pandas": to_pandas,
    "pandas with an index": lambda table: (
        to_pandas(table).set_index("customer_id", drop=False)
        if "customer_id" in table.column_names
        else to_pandas(table)
    ),
    "polars": pl.from_arrow,
    "polars categories": lambda table: pl.from_arrow(table).with_columns(
        pl.col(pl.String).cast(pl.Categorical)
    ),
    "DuckDB": lambda table: duckdb.from_arrow(table),
    "any other": Capsule,
}


def load_frames(tables, tmp_path, **inputs):
    config = DatasetConfig.model_validate({"inputs": inputs})
    written = write_frames(tables, config.inputs, tmp_path / "workplace")
    return load_shop(written, config, CPU)


def digest(table, tmp_path):
    """Return the digest of a table of transactions, and its bytes."""
    config = DatasetConfig().inputs
    written = write_frames({"transactions": table}, config, tmp_path / "digested")
    [origin] = written.origins.values()
    return origin.sha256, origin.bytes


@pytest.mark.parametrize("convert", LIBRARIES.values(), ids=LIBRARIES)
def test_frames_of_each_library_give_the_shop_of_the_files(tmp_path, convert):
    shop = load_frames({name: convert(table) for name, table in SHOP.items()}, tmp_path)
    expected = load_tables(write_tables(tmp_path / "parquet"))
    assert describe(shop) == describe(expected)
    assert [(file.table, file.file, file.rows) for file in shop.report.files] == [
        ("articles", "memory:articles", 3),
        ("customers", "memory:customers", 2),
        ("transactions", "memory:transactions", 3),
    ]


def test_the_digest_is_of_the_content_alone(tmp_path, monkeypatch):
    table = pa.table(
        {
            "t_dat": pa.array([1, None, 10**12, 5, 7] * 40, pa.timestamp("us")),
            "customer_id": ["u", None, "", "ü2", "u"] * 40,
            "article_id": pa.array([1, 2, 3, None, 5] * 40, pa.int32()),
            "price": [1.5, None, 2.0, 3.0, 1e-9] * 40,
        }
    )
    expected = digest(table, tmp_path)
    assert expected[1] > 0
    assert digest(pa.Table.from_batches(table.to_batches(7)), tmp_path) == expected
    assert digest(pa.concat_tables([table[:3], table[3:100], table[100:]]), tmp_path) == expected
    assert digest(pl.from_arrow(table), tmp_path) == expected
    assert digest(table.select(table.column_names[::-1]), tmp_path) == expected
    assert digest(table.append_column("unread", [[1] * 200]), tmp_path) == expected
    wide = table.cast(
        pa.schema(
            [
                ("t_dat", pa.timestamp("ns")),
                ("customer_id", pa.large_string()),
                ("article_id", pa.int64()),
                ("price", pa.float64()),
            ]
        )
    )
    assert digest(wide, tmp_path) == expected
    monkeypatch.setattr(frames_module, "_GROUP_ROWS", 3)
    assert digest(table, tmp_path) == expected


CHANGES = {
    "a price": lambda table: table.set_column(3, "price", [[1.5, None, 2.0]]),
    "a null for a value": lambda table: table.set_column(3, "price", [[None, 1.0, 2.0]]),
    "a border between texts": lambda table: table.set_column(1, "customer_id", [["a", "bc", "d"]]),
    "an empty text for null": lambda table: table.set_column(1, "customer_id", [["ab", "c", ""]]),
    "the order": lambda table: table.take([1, 0, 2]),
    "a row less": lambda table: table[:2],
    "a column less": lambda table: table.drop_columns("price"),
    "text for numbers": lambda table: table.set_column(2, "article_id", [["1", "2", "3"]]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_digest_changes_with_the_content(tmp_path, change):
    table = pa.table(
        {
            "t_dat": [dt.date(2020, 1, day) for day in (1, 2, 3)],
            "customer_id": ["ab", "c", None],
            "article_id": [1, 2, 3],
            "price": [1.0, None, 2.0],
        }
    )
    assert digest(change(table), tmp_path) != digest(table, tmp_path)


REFUSED = {
    "another name": (
        {"sales": SHOP["transactions"]},
        ConfigError,
        "tables: found 'sales'; expected some of articles, customers, transactions, views",
    ),
    "no transactions": (
        {"articles": SHOP["articles"]},
        ConfigError,
        "tables: found articles; expected transactions among them",
    ),
    "no table": (
        {"transactions": TRANSACTIONS},
        InputError,
        r"transactions: found builtins.dict; expected a table with __arrow_c_stream__",
    ),
    "a missing column": (
        {"transactions": SHOP["transactions"].drop_columns("t_dat")},
        InputError,
        "transactions: column 't_dat' is missing; found customer_id, article_id, price",
    ),
    "a type that no id has": (
        {"transactions": pa.table(replace_column(TRANSACTIONS, "customer_id", [1.5, 2.5, 3.5]))},
        InputError,
        "transactions: column 'customer_id' is double",
    ),
    "values of several types": (
        {"transactions": pd.DataFrame({"customer_id": ["a", 1], "t_dat": 0, "article_id": 0})},
        InputError,
        "transactions: the table in memory cannot be read(.|\n)*values of one type",
    ),
    "a name that is there twice": (
        {"transactions": pd.DataFrame([["u", "u"]], columns=["customer_id", "customer_id"])},
        InputError,
        "transactions: the table in memory cannot be read(.|\n)*Give each column a name of its own",
    ),
    "a nested column": (
        {"transactions": pa.table(replace_column(TRANSACTIONS, "price", [{"a": 1.0}] * 3))},
        InputError,
        "transactions: column 'price' is struct<a: double>; expected text, numbers or times",
    ),
    "a column of durations": (
        {
            "transactions": pa.table(
                replace_column(TRANSACTIONS, "price", [dt.timedelta(1), None, None])
            )
        },
        InputError,
        r"transactions: column 'price' is duration\[us\]",
    ),
    "a bad row": (
        {"transactions": pa.table(replace_column(TRANSACTIONS, "price", [1.0, -1.0, 2.0]))},
        InputError,
        r"transactions: 1 bad_price: .*\(first: row 1, price -1.0\)",
    ),
}


@pytest.mark.parametrize(("tables", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused(tmp_path, tables, kind, message):
    with pytest.raises(kind, match=message):
        load_frames(tables, tmp_path)


def test_names_of_files_do_not_fit_tables_in_memory(tmp_path):
    with pytest.raises(ConfigError, match=r"inputs\.files: names files in a folder"):
        load_frames(SHOP, tmp_path, files={"transactions": "log.csv"})


def test_views_are_read_where_they_are_configured(tmp_path):
    tables = {**SHOP, "views": pa.table(VIEWS)}
    assert load_frames(tables, tmp_path).report.rows["views"].read == 1
    assert "views" not in load_frames(tables, tmp_path, views=False).report.rows


def test_columns_may_have_other_names(tmp_path):
    sales = SHOP["transactions"].rename_columns(["day", "customer_id", "article_id", "price", "x"])
    mapping = {"transactions": {"t_dat": "day"}}
    shop = load_frames({**SHOP, "transactions": sales}, tmp_path, columns=mapping)
    assert len(list_sales(shop)) == 3


def read_frames(folder):
    return {file.stem: pl.read_parquet(file) for file in folder.glob("*.parquet")}


def test_builds_give_the_samples_of_the_files(tmp_path):
    folder = write_small_shop(tmp_path / "parquet")
    expected = build(folder, tmp_path / "plain", tiny_config(), backend="cpu").manifest
    built = build(
        tables=read_frames(folder), output=tmp_path / "out", config=tiny_config(), backend="cpu"
    )
    assert built.manifest.content_digest == expected.content_digest
    assert {file.file for file in built.manifest.inputs.files} == {
        "memory:articles",
        "memory:customers",
        "memory:transactions",
    }
    with pytest.raises(InputError, match="was built from tables in memory"):
        audit(folder, built.output)


def test_an_interrupted_build_resumes_with_the_same_tables(tmp_path, monkeypatch):
    tables = read_frames(write_small_shop(tmp_path / "parquet"))
    options = {"output": tmp_path / "out", "config": tiny_config(), "backend": "cpu"}
    with monkeypatch.context() as patch:
        fail_at_call(patch, pipeline, "compute_neighbors")
        with pytest.raises(RuntimeError, match="died"):
            build(tables=tables, **options)
    manifest = build(tables=tables, resume=True, **options).manifest
    assert any(timing.restored for timing in manifest.timings)


def test_a_log_in_memory_grows(tmp_path):
    log, config = make_log(), growing_config()
    old = read_frames(write_shop(cut_log(log, TODAY), tmp_path / "old"))
    whole = write_shop(log, tmp_path / "whole")
    dataset = build(tables=old, output=tmp_path / "out", config=config, backend="cpu").output
    appended = append(tables=read_frames(whole), dataset=dataset, backend="cpu").manifest
    expected = build(whole, tmp_path / "expected", config, backend="cpu").manifest
    assert appended.content_digest == expected.content_digest
    with pytest.raises(InputError, match="tables: transactions has"):
        append(tables=old, dataset=dataset, backend="cpu")


def test_a_build_has_one_log_and_an_output(tmp_path):
    with pytest.raises(ConfigError, match="inputs, tables: found both; expected one"):
        build(tmp_path, tmp_path / "out", tables=SHOP)
    with pytest.raises(ConfigError, match="inputs, tables: found neither; expected one"):
        build(output=tmp_path / "out")
    with pytest.raises(ConfigError, match="output: found none"):
        build(tables=SHOP)
