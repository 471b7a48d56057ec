"""However a shop is written, its dataset is the plain shop's, or the build says why not."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_dcgen import build
from gpu_dcgen.errors import DcgenError
from tests.support.shops import SCHEMAS, Tables, random_shop, tiny_config, write_shop

SUFFIXES = (".parquet", ".parquet", ".PARQUET", ".pq", ".parq", ".parquet.gzip", "", ".snappy")
TABLES = ("articles", "customers", "transactions", "views")


def make_tables(tables: Tables) -> dict[str, pa.Table]:
    return {
        name: pa.table(
            {
                field.name: pa.array([row.get(field.name) for row in rows], field.type)
                for field in SCHEMAS[name]
            }
        )
        for name, rows in tables.items()
    }


def write_with_arrow(table: pa.Table, path: Path, chance: random.Random) -> None:
    pq.write_table(
        table,
        path,
        compression=chance.choice(("none", "snappy", "gzip", "zstd", "lz4", "brotli")),
        use_dictionary=chance.random() < 0.5,
        data_page_version=chance.choice(("1.0", "2.0")),
        version=chance.choice(("2.4", "2.6")),
        row_group_size=chance.choice((7, 100, 10_000)),
        store_schema=chance.random() < 0.5,
        write_statistics=chance.random() < 0.5,
    )


def write_with_pandas(table: pa.Table, path: Path, chance: random.Random) -> None:
    # With a buffer, pandas takes no part in choosing by the suffix.
    with path.open("wb") as file:
        table.to_pandas().to_parquet(file, index=chance.random() < 0.3)


def write_with_polars(table: pa.Table, path: Path, chance: random.Random) -> None:
    compression = chance.choice(("zstd", "snappy", "gzip", "uncompressed"))
    pl.from_arrow(table).write_parquet(str(path), compression=compression)


def write_with_duckdb(table: pa.Table, path: Path, chance: random.Random) -> None:
    version = chance.choice(("V1", "V2"))
    with duckdb.connect() as connection:
        connection.register("log", table)
        connection.execute(f"COPY log TO '{path}' (FORMAT parquet, PARQUET_VERSION {version})")


WRITERS = (write_with_arrow, write_with_pandas, write_with_polars, write_with_duckdb)
# Other types of the same values, by column.
TYPES = {
    "t_dat": (pa.timestamp("us"), pa.timestamp("ns", "UTC"), pa.string(), pa.timestamp("ms")),
    "price": (pa.float64(), pa.float32(), pa.string()),
    "age": (pa.float32(), pa.string()),
    "sales_channel_id": (pa.int64(), pa.uint8(), pa.float64(), pa.string()),
    "article_id": (pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.int64()),
    "customer_id": (pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.binary()),
    "product_group_name": (pa.large_string(), pa.dictionary(pa.int32(), pa.string())),
}


def change_types(table: pa.Table, chance: random.Random) -> pa.Table:
    """Cast some columns to another type that can hold their values."""
    for number, name in enumerate(table.schema.names):
        if name in TYPES and chance.random() < 0.2:
            kind = chance.choice(TYPES[name])
            try:
                column = table[name].cast(kind)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                continue
            if column.cast(table[name].type, safe=False).equals(table[name]):
                table = table.set_column(number, name, column)
    return table


def change_columns(table: pa.Table, chance: random.Random) -> pa.Table:
    """Drop, rename or reorder columns, as other tools would."""
    names = table.schema.names
    if chance.random() < 0.1:
        names = chance.sample(names, len(names))
    table = table.select(names)
    if chance.random() < 0.05:
        table = table.drop_columns(chance.choice(names))
    if chance.random() < 0.05:
        name = chance.choice(names)
        table = table.rename_columns([n.upper() if n == name else n for n in table.schema.names])
    return table


def spread(table: pa.Table, n_parts: int, chance: random.Random) -> list[pa.Table]:
    cuts = sorted(chance.randrange(table.num_rows + 1) for _ in range(n_parts - 1))
    return [
        table.slice(start, end - start)
        for start, end in zip([0, *cuts], [*cuts, table.num_rows], strict=True)
    ]


def write_table(name: str, table: pa.Table, folder: Path, chance: random.Random) -> None:
    """Write a table in a random layout: a file, or a folder of files, links and other things."""
    suffix = chance.choice(SUFFIXES)
    if chance.random() < 0.4:
        chance.choice(WRITERS)(change_types(table, chance), folder / f"{name}{suffix}", chance)
        return
    root = folder / (name if chance.random() < 0.5 else f"{name}.parquet")
    root.mkdir()
    if chance.random() < 0.3 and name == "transactions":
        write_partitions(table, root, chance)
    else:
        shared = change_types(table, chance) if chance.random() < 0.5 else table
        parts = spread(shared, chance.randrange(1, 4), chance)
        for number, part in enumerate(parts):
            part = change_types(part, chance) if chance.random() < 0.2 else part
            # A column that no part has would make another shop.
            if number == 0 and len(parts) > 1:
                part = change_columns(part, chance)
            below = root / chance.choice((".", "a", "a/b", f"batch={number}"))
            below.mkdir(parents=True, exist_ok=True)
            path = below / f"part-{number}{chance.choice(SUFFIXES)}"
            chance.choice(WRITERS)(part, path, chance)
    disturb(root, folder.parent / f"far-{name}", chance)


def write_partitions(table: pa.Table, root: Path, chance: random.Random) -> None:
    column = chance.choice(("sales_channel_id", "customer_id", "t_dat"))
    frame = table.to_pandas()
    if column == "t_dat":
        frame["t_dat"] = frame["t_dat"].astype(str)
    elif column == "sales_channel_id":
        frame[column] = frame[column].astype("Int64")
    pq.write_to_dataset(
        pa.Table.from_pandas(frame, preserve_index=False), root, partition_cols=[column]
    )


def disturb(root: Path, far: Path, chance: random.Random) -> None:
    """Move parts behind links, and add what a folder may also hold."""
    entries = [path for path in sorted(root.rglob("*")) if not path.is_symlink()]
    for path in chance.sample(entries, min(len(entries), chance.choice((0, 0, 1, 2)))):
        if path.exists() and not path.is_symlink():
            target = far / str(len(list(far.iterdir())) if far.exists() else 0)
            far.mkdir(exist_ok=True)
            shutil.move(path, target)
            path.symlink_to(target)
    things = {
        "_SUCCESS": lambda path: path.touch(),
        ".part-0.crc": lambda path: path.write_bytes(b"crc"),
        "loop": lambda path: path.symlink_to(root),
        "dangling": lambda path: path.symlink_to("nowhere"),
        "twice.pq": lambda path: path.symlink_to(entries[-1]),
        "README.md": lambda path: path.write_text("read me"),
        "empty": lambda path: path.mkdir(),
        "_delta_log": lambda path: path.mkdir(),
        "metadata": lambda path: path.mkdir(),
    }
    for name, add in things.items():
        if chance.random() < 0.04:
            add(root / name)


def make_digest(inputs: Path, output: Path) -> str:
    return build(inputs, output, tiny_config()).manifest.content_digest


def check_layout(seed: int, folder: Path) -> bool:
    """Return whether a random layout of a random shop gave the plain shop's digest.

    Else a message must have said why not.
    """
    chance = random.Random(seed)
    tables = random_shop(seed % 40, n_users=12, n_items=20, n_rows=220, views=bool(seed % 2))
    plain = write_shop(tables, folder / "plain")
    try:
        expected = make_digest(plain, folder / "expected")
    except DcgenError:
        return False  # the shop itself cannot be built
    (folder / "shop").mkdir()
    for name, table in make_tables(tables).items():
        write_table(name, table, folder / "shop", chance)
    try:
        digest = make_digest(folder / "shop", folder / "built")
    except DcgenError as error:
        text = str(error)
        assert len(text.splitlines()) > 1, text
        assert any(name in text for name in TABLES), text
        return False
    assert digest == expected, f"seed {seed}"
    return True


@pytest.mark.filterwarnings("ignore")  # of the writers
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(seed=st.integers(0, 10**6))
def test_any_layout_gives_the_plain_shops_digest_or_a_reason(tmp_path_factory, seed):
    check_layout(seed, tmp_path_factory.mktemp("layout"))


@pytest.mark.filterwarnings("ignore")
def test_most_layouts_are_read(tmp_path):
    n_read = 0
    for seed in range(10):
        (tmp_path / str(seed)).mkdir()
        n_read += check_layout(seed, tmp_path / str(seed))
    assert n_read >= 3
