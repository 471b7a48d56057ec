"""The raw H&M tables as Parquet: plain string columns, dates, one row group at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .articles import INDEX_GROUP, Assortment, names
from .customers import CLUB, NEWS, Customers
from .marginals import FIRST_DAY, UNITS_PER_PRICE, generator, marginals
from .naming import department_names, product_names, sections
from .transactions import Log

ROWS_PER_GROUP = 1_000_000
DICTIONARY_BYTES = 64 << 20  # room for the distinct customer ids of a row group (about 13 MB)
LOWEST_PRODUCT_CODE, HIGHEST_PRODUCT_CODE = 108_775, 959_461

ARTICLES = pa.schema(
    [("article_id", pa.string()), ("product_code", pa.int64()), ("prod_name", pa.string())]
    + [
        (name, pa.string())
        for name in (
            "product_type_name",
            "product_group_name",
            "graphical_appearance_name",
            "colour_group_name",
        )
    ]
    + [
        (name, pa.string())
        for name in (
            "department_name",
            "index_name",
            "index_group_name",
            "section_name",
            "garment_group_name",
        )
    ]
)
CUSTOMERS = pa.schema(
    [
        ("customer_id", pa.string()),
        ("FN", pa.float64()),
        ("Active", pa.float64()),
        ("club_member_status", pa.string()),
    ]
    + [("fashion_news_frequency", pa.string()), ("age", pa.float64())]
)
TRANSACTIONS = pa.schema(
    [
        ("t_dat", pa.date32()),
        ("customer_id", pa.string()),
        ("article_id", pa.string()),
        ("price", pa.float32()),
    ]
    + [("sales_channel_id", pa.int8())]
)


def write_articles(path: Path, assortment: Assortment, seed: int) -> tuple[pa.Array, np.ndarray]:
    """Write the articles by rising id. Returns the ids (n,) in that order, and each article's place among them (n,) int32.

    Product codes rise with the first day on sale, as H&M's do.
    """
    rng = generator(seed, purpose=6)
    n_products = int(assortment.product.max()) + 1
    first_offer = np.full(n_products, np.inf)
    np.minimum.at(first_offer, assortment.product, assortment.launch)
    code = np.empty(n_products, dtype=np.int64)
    span = HIGHEST_PRODUCT_CODE - LOWEST_PRODUCT_CODE
    code[np.argsort(first_offer, kind="stable")] = LOWEST_PRODUCT_CODE + np.sort(
        rng.choice(span, n_products, replace=False)
    )
    by_product = np.lexsort((rng.random(assortment.n), assortment.product))
    starts = np.flatnonzero(np.diff(assortment.product[by_product], prepend=-1))
    colour_number = np.empty(assortment.n, dtype=np.int64)
    colour_number[by_product] = (
        1 + np.arange(assortment.n) - np.repeat(starts, np.diff(np.append(starts, assortment.n)))
    )
    number = code[assortment.product] * 1000 + colour_number
    order = np.argsort(number)
    place = np.empty(assortment.n, dtype=np.int32)
    place[order] = np.arange(assortment.n)

    section = sections(assortment, rng)
    appearance = rng.choice(
        len(names("graphical_appearance_name")), assortment.n, p=shares("graphical_appearance_name")
    )
    prod_name, type_name = product_names(assortment, rng)
    index_names = np.asarray(list(INDEX_GROUP))
    index_group = np.asarray(list(INDEX_GROUP.values()))
    text = {
        "article_id": np.char.zfill(number.astype("U10"), 10),
        "prod_name": prod_name[assortment.product],
        "product_type_name": type_name[assortment.product],
        "product_group_name": np.asarray(names("product_group_name"))[assortment.product_group],
        "graphical_appearance_name": np.asarray(names("graphical_appearance_name"))[appearance],
        "colour_group_name": np.asarray(names("colour_group_name"))[colors(assortment, rng)],
        "department_name": department_names(assortment),
        "index_name": index_names[assortment.index],
        "index_group_name": index_group[assortment.index],
        "section_name": section,
        "garment_group_name": np.asarray(names("garment_group_name"))[assortment.garment_group],
    }
    columns = {name: pa.array(values[order], pa.string()) for name, values in text.items()}
    columns["product_code"] = pa.array(code[assortment.product][order])
    table = pa.table([columns[field.name] for field in ARTICLES], schema=ARTICLES)
    pq.write_table(table, path, compression="zstd", store_schema=False)
    return columns["article_id"], place


def shares(column: str) -> np.ndarray:
    """The published shares of a category's values, in the order of its codes."""
    counts = np.asarray(list(marginals()[column].values()), dtype=np.float64)
    return counts / counts.sum()


def colors(assortment: Assortment, rng: np.random.Generator) -> np.ndarray:
    """Color codes (n,) by the published shares; one draw in order of products gives most products distinct colors."""
    points = (rng.random() + np.arange(assortment.n) * 0.6180339887498949) % 1.0
    return np.searchsorted(np.cumsum(shares("colour_group_name"))[:-1], points, side="right")


def customer_ids(n: int, seed: int) -> pa.Array:
    """`n` distinct ids of 64 hex characters, rising."""
    rng = generator(seed, purpose=7)
    raw = rng.integers(0, 256, (n, 32), dtype=np.uint8)
    # Rising 8-byte heads: the file is sorted by id and yet the order of customers means nothing.
    raw[:, :8] = (
        np.sort(rng.integers(0, 2**64, n, dtype=np.uint64))
        .astype(">u8")
        .view(np.uint8)
        .reshape(n, 8)
    )
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
    text = np.empty((n, 64), dtype=np.uint8)
    text[:, 0::2], text[:, 1::2] = digits[raw >> 4], digits[raw & 15]
    offsets = np.arange(n + 1, dtype=np.int32) * 64
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(text))


class CustomerWriter:
    """Writes customers.parquet a chunk at a time."""

    def __init__(self, path: Path, ids: pa.Array):
        self.ids = ids
        self.writer = pq.ParquetWriter(
            path, CUSTOMERS, compression="zstd", use_dictionary=False, store_schema=False
        )

    def __enter__(self) -> "CustomerWriter":
        return self

    def __exit__(self, *exc: object) -> None:
        self.writer.close()

    def write(self, customers: Customers) -> None:
        n = customers.age.shape[0]
        ones = np.ones(n)
        columns = [
            self.ids.slice(customers.first, n),
            pa.array(ones, mask=~customers.fn),
            pa.array(ones, mask=~customers.active),
            labels(customers.club, CLUB),
            labels(customers.news, NEWS),
            pa.array(customers.age, mask=np.isnan(customers.age)),
        ]
        self.writer.write_table(pa.table(columns, schema=CUSTOMERS))


def labels(codes: np.ndarray, values: tuple[str, ...]) -> pa.Array:
    return pa.array(list(values), pa.string()).take(
        pa.array(codes.astype(np.int32), mask=codes < 0)
    )


def write_transactions(
    path: Path,
    log: Log,
    place: np.ndarray,
    article_ids: pa.Array,
    ids: pa.Array,
    advance: Callable[[int], None],
) -> None:
    """Write the log in row groups of a million lines; only one row group is in memory as strings, and that as a dictionary."""
    encoded = TRANSACTIONS
    for name in ("customer_id", "article_id"):
        encoded = encoded.set(
            encoded.get_field_index(name), pa.field(name, pa.dictionary(pa.int32(), pa.string()))
        )
    first_day = np.datetime64(FIRST_DAY, "D").astype(np.int32)
    options = {
        "compression": "zstd",
        "dictionary_pagesize_limit": DICTIONARY_BYTES,
        "store_schema": False,
    }
    with pq.ParquetWriter(path, encoded, use_dictionary=True, **options) as writer:
        for reset_counters in range(0, log.day.shape[0], ROWS_PER_GROUP):
            rows = slice(reset_counters, reset_counters + ROWS_PER_GROUP)
            columns = [
                pa.array(log.day[rows].astype(np.int32) + first_day).cast(pa.date32()),
                compact_dictionary(log.customer[rows], ids),
                compact_dictionary(place[log.article[rows]], article_ids),
                pa.array((log.cents[rows] / (100.0 * UNITS_PER_PRICE)).astype(np.float32)),
                pa.array(log.channel[rows]),
            ]
            table = pa.table(columns, schema=encoded)
            writer.write_table(table, row_group_size=ROWS_PER_GROUP)
            advance(table.num_rows)


def compact_dictionary(codes: np.ndarray, values: pa.Array) -> pa.DictionaryArray:
    """`values[codes]` as a dictionary of the values that occur: Parquet stores the whole dictionary with every row group."""
    occurs = np.zeros(len(values), dtype=bool)
    occurs[codes] = True
    rank = np.cumsum(occurs, dtype=np.int32) - 1
    return pa.DictionaryArray.from_arrays(
        pa.array(rank[codes]), values.take(pa.array(np.flatnonzero(occurs)))
    )
