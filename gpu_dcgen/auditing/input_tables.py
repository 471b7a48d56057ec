"""Read the input tables and sort out their bad rows, each with its reason (D1-D3)."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ..config import DatasetConfig, InputsConfig
from ..contract.manifest import InputFile, TableRows
from ..errors import InputError
from .far_rows import mark_far_rows
from .input_columns import (
    EPOCH,
    NO_KEY,
    NS_PER_DAY,
    UNKNOWN_KEY,
    CodedColumn,
    find_keys,
    read_ages,
    read_keys,
    read_numbers,
    read_texts,
)
from .input_events import sort_events
from .input_files import NAME_THE_FOLDER, find_table
from .input_times import read_log_times
from .table_reader import TableReader, get_own_names, hash_file
from .texts import find_positions

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
MAX_YEAR = 2200


class Views(NamedTuple):
    """Views of items by users, as codes."""

    user: np.ndarray  # (V,) int32
    item: np.ndarray  # (V,) int32
    time: np.ndarray  # (V,) int64  ns since 1970 UTC


@dataclass(frozen=True)
class InputCounts:
    """The input files, and how many rows of each table were accepted."""

    rows: dict[str, TableRows]  # by table
    rejects: dict[str, dict[str, int]]  # table -> reason -> rows
    left_out: dict[str, dict[str, int]]  # the same, of tables where rows are left out
    files: list[InputFile]


@dataclass(frozen=True)
class AcceptedTables:
    """The accepted rows; users and items are positions among their sorted ids."""

    user_ids: pa.Array
    item_ids: pa.Array
    age: np.ndarray  # (U,) int64  -1 unknown
    user_columns: dict[str, CodedColumn]
    item_columns: dict[str, CodedColumn]
    user: np.ndarray  # (T,) int32
    item: np.ndarray  # (T,) int32
    time: np.ndarray  # (T,) int64  ns since 1970 UTC
    price: np.ndarray | None  # (T,) float64
    channel: np.ndarray  # (T,) int8  -1 unknown
    views: Views | None
    counts: InputCounts


def read_tables(
    folder: Path, config: DatasetConfig, listed: Collection[str] = ()
) -> AcceptedTables:
    """Read the tables of a build by its settings.

    InputError where a table or a column is missing or unreadable. `listed` names the tables that
    the build had read.
    """
    inputs = config.inputs
    if not folder.is_dir():
        raise InputError(f"{folder}: the folder does not exist.\n{NAME_THE_FOLDER}")
    own_names = get_own_names(inputs)
    names = ["transactions"]
    for name in ("articles", "customers"):
        if name in listed or find_table(folder, name, own_names.get(name)) is not None:
            names.append(name)
    if inputs.views and find_table(folder, "views", own_names.get("views")) is not None:
        names.append("views")
    tables = {
        name: TableReader(folder, name, inputs) for name in sorted(names)
    }  # as they are listed
    logs = [tables[name] for name in ("transactions", "views") if name in tables]
    items = _find_entities(tables.get("articles"), logs, "article_id", ITEM_COLUMNS)
    users = _find_entities(tables.get("customers"), logs, "customer_id", USER_COLUMNS)
    log = _read_log(tables["transactions"], items.ids, users.ids, config)
    views, files = None, dict(tables)
    if inputs.views and "view" in inputs.events.values():
        tables["views"] = tables["transactions"].as_views()
    if "views" in tables:
        viewed = _read_log(tables["views"], items.ids, users.ids, config)
        views = Views(viewed.user, viewed.item, viewed.time)
    return AcceptedTables(
        user_ids=users.ids,
        item_ids=items.ids,
        age=users.age,
        user_columns=users.columns,
        item_columns=items.columns,
        user=log.user,
        item=log.item,
        time=log.time,
        price=log.price,
        channel=log.channel,
        views=views,
        counts=InputCounts(
            rows={name: table.counts for name, table in tables.items()},
            rejects={name: table.rejects for name, table in tables.items()},
            left_out={name: table.left_out for name, table in tables.items() if table.left_out},
            files=[
                InputFile(
                    table=name,
                    file=file.relative_to(folder).as_posix(),
                    bytes=file.stat().st_size,
                    rows=n,
                    sha256=hash_file(file),
                )
                for name, table in files.items()
                for file, n in zip(table.files, table.n_rows, strict=True)
            ],
        ),
    )


class _Entities(NamedTuple):
    """Accepted articles or customers, by id."""

    ids: pa.Array
    columns: dict[str, CodedColumn]
    age: np.ndarray  # (n,) int64  -1 unknown


def _find_entities(
    table: TableReader | None, logs: list[TableReader], key: str, columns: dict[str, str]
) -> _Entities:
    """Read the entities of a table; without one, those that the logs name."""
    if table is not None:
        return _read_entities(table, key, columns)
    texts = [text for log in logs for text in read_keys(log, key).values.to_pylist()]
    ids = pa.array(sorted(set(texts)), pa.string())
    unknown = np.full(len(ids), -1, dtype=np.int64)
    nothing = CodedColumn(unknown, pa.array([], pa.string()))
    return _Entities(ids, dict.fromkeys(columns, nothing), unknown)


def _read_entities(table: TableReader, key: str, columns: dict[str, str]) -> _Entities:
    """Read one row an id: equal rows are collapsed, contradicting ones rejected."""
    ids = read_keys(table, key)
    categories = {name: read_texts(table, source) for name, source in columns.items()}
    if key == "article_id" and not table.has("index_group_name") and table.has("index_name"):
        categories["index_group"] = _group_indices(read_texts(table, "index_name"))
    age = read_ages(table) if table.has("age") else np.full(len(table), math.nan)

    # Compare each row with the first row of its id.
    order = np.argsort(ids.codes, kind="stable")
    sorted_ids = ids.codes[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = sorted_ids[1:] != sorted_ids[:-1]
    run = np.cumsum(is_first) - 1
    leader = order[np.flatnonzero(is_first)][run] if len(order) else order
    differs = (age[order] != age[leader]) & ~(np.isnan(age[order]) & np.isnan(age[leader]))
    for category in categories.values():
        differs |= category.codes[order] != category.codes[leader]
    is_contradicted_run = np.bincount(run[differs], minlength=len(order) + 1) > 0
    is_contradicted = np.zeros(len(table), dtype=bool)
    is_contradicted[order] = is_contradicted_run[run]
    is_copy = np.zeros(len(table), dtype=bool)
    is_copy[order] = ~is_first

    rows = table.accept(
        [("missing_key", ids.codes < 0), ("duplicate_key", is_contradicted)], is_copy
    )
    rows = rows[np.argsort(ids.codes[rows], kind="stable")]
    age = age[rows]
    age = np.where((age >= 0) & (age <= MAX_AGE), np.floor(age), -1).astype(np.int64)
    accepted = {
        name: _drop_unused_values(category.take(rows)) for name, category in categories.items()
    }
    return _Entities(ids.values.take(pa.array(ids.codes[rows])), accepted, age)


def _group_indices(index: CodedColumn) -> CodedColumn:
    """Map index names to index groups."""
    groups = pa.array(
        [INDEX_GROUPS.get(name, name) for name in index.values.to_pylist()], pa.string()
    )
    distinct = groups.unique().sort()
    codes = np.append(find_positions(groups, distinct), -1)[index.codes]
    return CodedColumn(codes, distinct)


def _drop_unused_values(category: CodedColumn) -> CodedColumn:
    """Drop the values that no row has."""
    used, codes = np.unique(category.codes, return_inverse=True)
    return CodedColumn(
        codes.astype(np.int64) - int((used < 0).any()),
        category.values.take(pa.array(used[used >= 0])),
    )


class _LogRows(NamedTuple):
    """Accepted rows of transactions or views."""

    user: np.ndarray  # (n,) int32
    item: np.ndarray  # (n,) int32
    time: np.ndarray  # (n,) int64
    price: np.ndarray | None  # (n,) float64
    channel: np.ndarray  # (n,) int8


def _read_log(
    table: TableReader, item_ids: pa.Array, user_ids: pa.Array, config: DatasetConfig
) -> _LogRows:
    inputs = config.inputs
    item = find_keys(table, "article_id", item_ids)
    user = find_keys(table, "customer_id", user_ids)
    time, is_known = read_log_times(table, "t_dat", inputs)
    end = (dt.datetime(MAX_YEAR + 1, 1, 1) - EPOCH).days * NS_PER_DAY
    checks = [
        ("missing_key", (item == NO_KEY) | (user == NO_KEY)),
        ("unknown_article", item == UNKNOWN_KEY),
        ("unknown_customer", user == UNKNOWN_KEY),
        ("missing_time", ~is_known),
        ("time_out_of_range", (time < 0) | (time >= end)),
    ]
    price = None
    if table.name == "transactions" and _has_prices(table, inputs):
        price = read_numbers(table, "price")
        checks += [
            ("missing_price", np.isnan(price)),
            ("bad_price", ~((price > 0) & (price <= MAX_PRICE))),
        ]
    channel = (
        read_numbers(table, "sales_channel_id")
        if table.has("sales_channel_id")
        else np.full(len(table), math.nan)
    )
    channel = np.where(np.isin(channel, list(inputs.channels)), channel, -1).astype(np.int8)
    events = sort_events(table, table.name, len(table), inputs)
    checks += events.checks
    is_outside = np.zeros(len(table), dtype=bool)
    if inputs.period is not None:
        is_outside = is_known & ((time < inputs.period[0]) | (time >= inputs.period[1]))
    left_out = {**events.left_out, "outside_period": is_outside}
    if table.name == "transactions" and _sets_far_rows_aside(config):
        not_used = [events.is_another, *left_out.values(), *(is_bad for _, is_bad in checks)]
        is_good = ~np.logical_or.reduce(not_used)
        is_far = np.zeros(len(table), dtype=bool)
        is_far[is_good] = mark_far_rows(time[is_good])
        checks.append(("far_from_others", is_far))
    rows = table.accept(checks, left_out=left_out, is_another=events.is_another)
    if len(rows) == len(table):  # as it mostly is: a copy of all would take as much again
        return _LogRows(user, item, time, price, channel)
    price = None if price is None else price[rows]
    return _LogRows(user[rows], item[rows], time[rows], price, channel[rows])


def _has_prices(table: TableReader, inputs: InputsConfig) -> bool:
    """Return whether the log has prices; with `auto`, whether its column holds any."""
    if inputs.price != "auto" or not table.has("price"):
        return inputs.price == "column"
    return any(chunk.null_count < len(chunk) for chunk in table.chunks("price"))


def _sets_far_rows_aside(config: DatasetConfig) -> bool:
    """Return whether purchases far from all others are bad rows (D7)."""
    split = config.split
    is_cut_by_time = split.windows == "calendar" and split.cuts is None
    return config.inputs.on_bad_rows == "reject" and is_cut_by_time
