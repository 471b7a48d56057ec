"""A dataset that was built from tables in memory is audited with the same tables."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

import gpu_dcgen
from gpu_dcgen.auditing import audit
from gpu_dcgen.auditing.memory_tables import write_tables
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.dataset_generator import build
from gpu_dcgen.errors import ConfigError, InputError
from gpu_dcgen.inputs.frames import write_frames
from tests.support.audited_shops import get_faults
from tests.support.builds import write_small_shop
from tests.support.command_line import run
from tests.support.shops import tiny_config
from tests.support.typed_logs import logs


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[dict[str, pa.Table], Path]:
    """The tables of a dataset, and its folder."""
    folder = tmp_path_factory.mktemp("memory")
    files = write_small_shop(folder / "in").glob("*.parquet")
    tables = {file.stem: pq.read_table(file) for file in files}
    build(tables=tables, output=folder / "out", config=tiny_config(), backend="cpu")
    return tables, folder / "out"


@pytest.mark.parametrize(
    "convert",
    [lambda table: table.to_reader(max_chunksize=7), pl.from_arrow, duckdb.from_arrow],
    ids=["stream", "polars", "DuckDB"],
)
def test_the_same_tables_are_audited_whatever_library_has_them(built, convert):
    tables, dataset = built
    certificate = audit(dataset, tables={name: convert(table) for name, table in tables.items()})
    assert get_faults(certificate) == {} and certificate["verdict"] == "holds"
    assert {entry["file"] for entry in certificate["inputs"]} == {f"memory:{n}" for n in tables}


def test_the_command_prints_the_call_that_audits(built):
    tables, dataset = built
    result = run("audit", dataset.parent / "in", dataset)
    assert result.exit_code == 2
    call = result.stderr.partition("with the same tables: ")[2].strip()
    assert eval(call, {"gpu_dcgen": gpu_dcgen, **tables})["verdict"] == "holds"


def change_price(table: pa.Table) -> pa.Table:
    prices = table["price"].to_pylist()
    changed = pa.array([prices[0] * 2, *prices[1:]])
    return table.set_column(table.column_names.index("price"), "price", changed)


WRONG = {
    "another value": (
        lambda tables: {**tables, "transactions": change_price(tables["transactions"])},
        "transactions: found a table of .* rows with the content digest .* was built from .* rows",
    ),
    "a row less": (
        lambda tables: {**tables, "articles": tables["articles"].slice(1)},
        "articles: found a table of",
    ),
    "a table less": (
        lambda tables: {"transactions": tables["transactions"]},
        "tables: found transactions; the dataset was built from articles, customers, transactions",
    ),
    "no table": (
        lambda tables: {**tables, "articles": [1, 2]},
        "articles: found list; expected a table with __arrow_c_stream__",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_other_tables_are_refused(built, change, message):
    tables, dataset = built
    with pytest.raises(InputError, match=message):
        audit(dataset, tables=change(tables))


def test_tables_in_memory_audit_no_dataset_of_files(built, tmp_path):
    tables, dataset = built
    out = build(dataset.parent / "in", tmp_path / "out", tiny_config(), backend="cpu").output
    with pytest.raises(InputError, match="was built from files; found tables in memory"):
        audit(out, tables=tables)
    for options in ({}, {"dataset": out}, {"inputs": out, "dataset": out, "tables": tables}):
        with pytest.raises(ConfigError, match="audit: expected a dataset, and a folder of tables"):
            audit(**options)


@settings(max_examples=40)
@given(logs())
def test_the_digest_is_that_of_the_build_for_columns_of_any_type(drawn):
    tables, inputs = drawn
    config = DatasetConfig.model_validate({"inputs": inputs}).inputs
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        origins = write_frames(tables, config, folder / "build").origins.values()
        listed: dict[str, Any] = {
            origin.name: {
                "table": (name := origin.name.removeprefix("memory:")),
                "file": origin.name,
                "bytes": origin.bytes,
                "rows": tables[name].num_rows,
                "sha256": origin.sha256,
            }
            for origin in origins
        }
        frames = {name: pl.from_arrow(table) for name, table in tables.items()}
        for given_tables in (tables, frames):
            files = write_tables(given_tables, listed, config, folder)
            assert [file.table for file in files] == sorted(tables)
