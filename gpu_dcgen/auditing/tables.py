"""The input tables, read and judged a second time: accepted rows, and the reason of every other one (D1-D3)."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import InputError
from .columns import EPOCH, NS_PER_DAY, Category, keys, numbers, places, texts, times

ITEM_COLUMNS = {
    "product_group": "product_group_name",
    "color_group": "colour_group_name",
    "garment_group": "garment_group_name",
    "department": "department_name",
    "index_group": "index_group_name",
    "product_code": "product_code",
    "section": "section_name",
    "name": "prod_name",
}
USER_COLUMNS = {"club_status": "club_member_status", "news_frequency": "fashion_news_frequency"}
INDEX_GROUPS = {  # of H&M's index names; any other index is its own group
    **dict.fromkeys(("Ladies Accessories", "Lingeries/Tights"), "Ladieswear"),
    **dict.fromkeys(
        (
            "Baby Sizes 50-98",
            "Children Sizes 92-140",
            "Children Sizes 134-170",
            "Children Accessories, Swimwear",
        ),
        "Baby/Children",
    ),
}
MAX_AGE, MAX_PRICE = 120, 1e9
LAST_YEAR = 2200


@dataclass(frozen=True)
class Tables:
    """The accepted rows. Users and items are positions among the accepted ids in code point order."""

    user_ids: pa.Array
    item_ids: pa.Array
    age: np.ndarray  # (U,) int64  -1 unknown
    user_columns: dict[str, Category]
    item_columns: dict[str, Category]
    user: np.ndarray  # (T,) int64
    item: np.ndarray  # (T,) int64
    time: np.ndarray  # (T,) int64  nanoseconds since 1970 UTC
    price: np.ndarray | None  # (T,) float64
    channel: np.ndarray  # (T,) int64  -1 unknown
    views: tuple[np.ndarray, np.ndarray, np.ndarray] | None  # user, item, time
    rows: dict[str, dict[str, int]]  # table -> read, kept, rejected, collapsed
    rejects: dict[str, dict[str, int]]  # table -> reason -> rows
    files: list[dict[str, Any]]  # table, file, bytes, rows, sha256


def read_tables(folder: Path, inputs: Any) -> Tables:
    """Read the tables of a build as its `inputs` settings say. InputError where a table or column is missing or unreadable."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: there is no such folder.\nName the folder that the dataset was built from."
        )
    names = ["articles", "customers", "transactions"]
    if inputs.views and _path(folder, "views") is not None:
        names.append("views")
    read = {name: _Table(folder, name, inputs) for name in names}
    items = _entities(read["articles"], "article_id", ITEM_COLUMNS)
    users = _entities(read["customers"], "customer_id", USER_COLUMNS)
    log = _log(read["transactions"], items[0], users[0], inputs)
    views = _log(read["views"], items[0], users[0], inputs) if "views" in read else None
    return Tables(
        user_ids=users[0],
        item_ids=items[0],
        age=users[2],
        user_columns=users[1],
        item_columns=items[1],
        user=log["user"],
        item=log["item"],
        time=log["time"],
        price=log["price"],
        channel=log["channel"],
        views=None if views is None else (views["user"], views["item"], views["time"]),
        rows={name: table.counts for name, table in read.items()},
        rejects={name: table.rejects for name, table in read.items()},
        files=[
            {
                "table": name,
                "file": file.relative_to(folder).as_posix(),
                "bytes": file.stat().st_size,
                "rows": n,
                "sha256": sha256(file),
            }
            for name, table in read.items()
            for file, n in zip(table.files, table.n_rows, strict=True)
        ],
    )


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _path(folder: Path, name: str) -> Path | None:
    return next(
        (path for path in (folder / f"{name}.parquet", folder / name) if path.exists()), None
    )


class _Table:
    """The files of one table; columns by our name, as arrays over all its rows."""

    def __init__(self, folder: Path, name: str, inputs: Any) -> None:
        path = _path(folder, name)
        if path is None:
            raise InputError(
                f"{folder}: there is no {name}.parquet.\nName the folder that the dataset was built from."
            )
        self.name, self.path = name, path
        self.files = [path] if path.is_file() else sorted(_parquet_files(path))
        self.width = inputs.article_id_width
        self._mapping = inputs.columns.get(name, {})
        self.counts: dict[str, int] = {}
        self.rejects: dict[str, int] = {}
        try:
            footers = [pq.read_schema(file) for file in self.files]
            self.n_rows = [pq.read_metadata(file).num_rows for file in self.files]
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{path}: cannot be read as Parquet ({error}).\nBring the tables of the build."
            ) from error
        self._names = [schema.names for schema in footers]

    def __len__(self) -> int:
        return sum(self.n_rows)

    def has(self, name: str) -> bool:
        theirs = self._mapping.get(name, name)
        return all(
            theirs in names or theirs in _partitions(file, self.path)
            for file, names in zip(self.files, self._names, strict=True)
        )

    def chunks(self, name: str) -> list[pa.Array]:
        """A column, file by file, texts as dictionaries; null throughout where the table has none of that name."""
        theirs, found = self._mapping.get(name, name), []
        for file, names, n in zip(self.files, self._names, self.n_rows, strict=True):
            if theirs in names:
                found += _column(file, theirs).chunks
            else:
                found.append(
                    pa.repeat(pa.scalar(_partitions(file, self.path).get(theirs), pa.string()), n)
                )
        return found

    def judge(
        self, checks: list[tuple[str, np.ndarray]], collapsed: np.ndarray | None = None
    ) -> np.ndarray:
        """Rows to keep; every other one is counted under its first reason."""
        kept = np.ones(len(self), dtype=bool)
        for reason, bad in checks:
            if n := int((kept & bad).sum()):
                self.rejects[reason] = n
            kept &= ~bad
        n_rejected, n_collapsed = len(self) - int(kept.sum()), 0
        if collapsed is not None:
            n_collapsed = int((kept & collapsed).sum())
            kept &= ~collapsed
        self.counts = {
            "read": len(self),
            "kept": int(kept.sum()),
            "rejected": n_rejected,
            "collapsed": n_collapsed,
        }
        return np.flatnonzero(kept)


def _column(file: Path, name: str) -> pa.ChunkedArray:
    try:
        return pq.ParquetFile(file, read_dictionary=[name]).read(columns=[name]).column(0)
    except (
        OSError,
        pa.ArrowNotImplementedError,
    ):  # delta encodings, as DuckDB writes them; a torn file is refused again
        column = pq.ParquetFile(file).read(columns=[name]).column(0)
        return column if pa.types.is_dictionary(column.type) else column.dictionary_encode()


def _parquet_files(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*.parquet") if path.is_file())
    return [
        path
        for path in files
        if not any(
            part.startswith((".", "_")) and "=" not in part
            for part in path.relative_to(folder).parts
        )
    ]


def _partitions(file: Path, table: Path) -> dict[str, str | None]:
    folders = file.relative_to(table).parts[:-1] if file != table else ()
    pairs = [part.split("=", 1) for part in folders if "=" in part]
    return {
        unquote(name): None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
        for name, value in pairs
    }


def _entities(
    table: _Table, key: str, columns: dict[str, str]
) -> tuple[pa.Array, dict[str, Category], np.ndarray]:
    """Accepted ids, their categories and ages: one row an id, its copies collapsed, its contradictions rejected."""
    ids = keys(table, key)
    found = {name: texts(table, theirs) for name, theirs in columns.items()}
    if key == "article_id" and not table.has("index_group_name") and table.has("index_name"):
        found["index_group"] = _grouped(texts(table, "index_name"))
    age = numbers(table, "age") if table.has("age") else np.full(len(table), math.nan)
    order = np.argsort(ids.codes, kind="stable")
    sorted_ids = ids.codes[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = sorted_ids[1:] != sorted_ids[:-1]
    run = np.cumsum(first) - 1
    leader = order[np.flatnonzero(first)][run] if len(order) else order
    differs = (age[order] != age[leader]) & ~(np.isnan(age[order]) & np.isnan(age[leader]))
    for category in found.values():
        differs |= category.codes[order] != category.codes[leader]
    torn = np.bincount(run[differs], minlength=len(order) + 1) > 0
    contradicted, copies = np.zeros(len(table), dtype=bool), np.zeros(len(table), dtype=bool)
    contradicted[order], copies[order] = torn[run], ~first
    kept = table.judge([("missing_key", ids.codes < 0), ("duplicate_key", contradicted)], copies)
    kept = kept[np.argsort(ids.codes[kept], kind="stable")]
    age = age[kept]
    age = np.where((age >= 0) & (age <= MAX_AGE), np.floor(age), -1).astype(np.int64)
    accepted = {name: _occurring(category.take(kept)) for name, category in found.items()}
    return ids.values.take(pa.array(ids.codes[kept])), accepted, age


def _grouped(index: Category) -> Category:
    groups = pa.array(
        [INDEX_GROUPS.get(name, name) for name in index.values.to_pylist()], pa.string()
    )
    distinct = groups.unique().sort()
    return Category(np.append(places(groups, distinct), -1)[index.codes], distinct)


def _occurring(category: Category) -> Category:
    """Without the values that no accepted row has."""
    used, codes = np.unique(category.codes, return_inverse=True)
    return Category(
        codes.astype(np.int64) - int((used < 0).any()),
        category.values.take(pa.array(used[used >= 0])),
    )


def _log(table: _Table, item_ids: pa.Array, user_ids: pa.Array, inputs: Any) -> dict[str, Any]:
    """Accepted rows of transactions or views."""
    articles, customers = keys(table, "article_id"), keys(table, "customer_id")
    item = np.append(places(articles.values, item_ids), -1)[articles.codes]
    user = np.append(places(customers.values, user_ids), -1)[customers.codes]
    time, known = times(table, "t_dat")
    end = (dt.datetime(LAST_YEAR + 1, 1, 1) - EPOCH).days * NS_PER_DAY
    checks = [
        ("missing_key", (articles.codes < 0) | (customers.codes < 0)),
        ("unknown_article", item < 0),
        ("unknown_customer", user < 0),
        ("missing_time", ~known),
        ("time_out_of_range", (time < 0) | (time >= end)),
    ]
    price = None
    if table.name == "transactions" and inputs.price == "column":
        price = numbers(table, "price")
        checks += [
            ("missing_price", np.isnan(price)),
            ("bad_price", ~((price > 0) & (price <= MAX_PRICE))),
        ]
    channel = (
        numbers(table, "sales_channel_id")
        if table.has("sales_channel_id")
        else np.full(len(table), math.nan)
    )
    channel = np.where(np.isin(channel, list(inputs.channels)), channel, -1).astype(np.int64)
    kept = table.judge(checks)
    return {
        "user": user[kept],
        "item": item[kept],
        "time": time[kept],
        "price": None if price is None else price[kept],
        "channel": channel[kept],
    }
