"""Write the raw H&M tables as Parquet: plain string columns, dates, a row group at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .articles import INDEX_GROUP, Assortment, list_names
from .customers import CLUB, NEWS, Customers
from .marginals import (
    ARTICLES_TABLE,
    CUSTOMER_IDS,
    FIRST_DAY,
    UNITS_PER_PRICE,
    load_marginals,
    make_generator,
)
from .naming import assign_departments, assign_sections, draw_product_names
from .transactions import Lines

ROWS_PER_GROUP = 1_000_000
DICTIONARY_BYTES = 64 << 20  # room for the distinct customer ids of a row group (about 13 MB)
MIN_PRODUCT_CODE, MAX_PRODUCT_CODE = 108_775, 959_461

ARTICLES = pa.schema(
    {
        "article_id": pa.string(),
        "product_code": pa.int64(),
        "prod_name": pa.string(),
        "product_type_name": pa.string(),
        "product_group_name": pa.string(),
        "graphical_appearance_name": pa.string(),
        "colour_group_name": pa.string(),
        "department_name": pa.string(),
        "index_name": pa.string(),
        "index_group_name": pa.string(),
        "section_name": pa.string(),
        "garment_group_name": pa.string(),
    }
)
CUSTOMERS = pa.schema(
    {
        "customer_id": pa.string(),
        "FN": pa.float64(),
        "Active": pa.float64(),
        "club_member_status": pa.string(),
        "fashion_news_frequency": pa.string(),
        "age": pa.float64(),
    }
)
TRANSACTIONS = pa.schema(
    {
        "t_dat": pa.date32(),
        "customer_id": pa.string(),
        "article_id": pa.string(),
        "price": pa.float32(),
        "sales_channel_id": pa.int8(),
    }
)


def write_articles(path: Path, assortment: Assortment, seed: int) -> tuple[pa.Array, np.ndarray]:
    """Write the articles by rising id; return the ids (n,) and each article's row (n,) int32.

    Product codes rise with the first day on sale, as H&M's do.
    """
    rng = make_generator(seed, ARTICLES_TABLE)
    n_products = int(assortment.product.max()) + 1
    launch = np.full(n_products, np.inf)
    np.minimum.at(launch, assortment.product, assortment.launch)
    code = np.empty(n_products, dtype=np.int64)
    codes = rng.choice(MAX_PRODUCT_CODE - MIN_PRODUCT_CODE, n_products, replace=False)
    code[np.argsort(launch, kind="stable")] = MIN_PRODUCT_CODE + np.sort(codes)
    by_product = np.lexsort((rng.random(assortment.n), assortment.product))
    starts = np.flatnonzero(np.diff(assortment.product[by_product], prepend=-1))
    color_number = np.empty(assortment.n, dtype=np.int64)
    color_number[by_product] = (
        1 + np.arange(assortment.n) - np.repeat(starts, np.diff(np.append(starts, assortment.n)))
    )
    number = code[assortment.product] * 1000 + color_number
    order = np.argsort(number)
    row = np.empty(assortment.n, dtype=np.int32)
    row[order] = np.arange(assortment.n)

    section = assign_sections(assortment, rng)
    appearance_shares = load_shares("graphical_appearance_name")
    appearance = rng.choice(appearance_shares.shape[0], assortment.n, p=appearance_shares)
    prod_name, type_name = draw_product_names(assortment, rng)
    index_names = np.asarray(list(INDEX_GROUP))
    index_group = np.asarray(list(INDEX_GROUP.values()))
    text = {
        "article_id": np.char.zfill(number.astype("U10"), 10),
        "prod_name": prod_name[assortment.product],
        "product_type_name": type_name[assortment.product],
        "product_group_name": np.asarray(list_names("product_group_name"))[
            assortment.product_group
        ],
        "graphical_appearance_name": np.asarray(list_names("graphical_appearance_name"))[
            appearance
        ],
        "colour_group_name": np.asarray(list_names("colour_group_name"))[
            draw_colors(assortment, rng)
        ],
        "department_name": assign_departments(assortment),
        "index_name": index_names[assortment.index],
        "index_group_name": index_group[assortment.index],
        "section_name": section,
        "garment_group_name": np.asarray(list_names("garment_group_name"))[
            assortment.garment_group
        ],
    }
    columns = {name: pa.array(values[order], pa.string()) for name, values in text.items()}
    columns["product_code"] = pa.array(code[assortment.product][order])
    table = pa.table([columns[field.name] for field in ARTICLES], schema=ARTICLES)
    pq.write_table(table, path, compression="zstd", store_schema=False)
    return columns["article_id"], row


def load_shares(column: str) -> np.ndarray:
    """Return the published shares of a category's values, in the order of its codes."""
    counts = np.asarray(list(load_marginals()[column].values()), dtype=np.float64)
    return counts / counts.sum()


def draw_colors(assortment: Assortment, rng: np.random.Generator) -> np.ndarray:
    """Draw color codes (n,) by the published shares.

    A low-discrepancy sequence in order of products gives most products distinct colors.
    """
    points = (rng.random() + np.arange(assortment.n) * 0.6180339887498949) % 1.0
    return np.searchsorted(np.cumsum(load_shares("colour_group_name"))[:-1], points, side="right")


def draw_customer_ids(n: int, seed: int) -> pa.Array:
    """Draw `n` distinct ids of 64 hex characters, rising."""
    rng = make_generator(seed, CUSTOMER_IDS)
    raw = rng.integers(0, 256, (n, 32), dtype=np.uint8)
    # The first 8 bytes rise, so that the file is sorted by id in the order of customers.
    head = np.sort(rng.integers(0, 2**64, n, dtype=np.uint64))
    raw[:, :8] = head.astype(">u8").view(np.uint8).reshape(n, 8)
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
    text = np.empty((n, 64), dtype=np.uint8)
    text[:, 0::2], text[:, 1::2] = digits[raw >> 4], digits[raw & 15]
    offsets = np.arange(n + 1, dtype=np.int32) * 64
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(text))


class CustomerWriter:
    """Writer of customers.parquet, a chunk at a time."""

    def __init__(self, path: Path, ids: pa.Array) -> None:
        self.ids = ids
        self.writer = pq.ParquetWriter(
            path, CUSTOMERS, compression="zstd", use_dictionary=False, store_schema=False
        )

    def __enter__(self) -> CustomerWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.writer.close()

    def write(self, customers: Customers) -> None:
        """Append a chunk of customers."""
        n = customers.age.shape[0]
        ones = np.ones(n)
        columns = [
            self.ids.slice(customers.first, n),
            pa.array(ones, mask=~customers.fn),
            pa.array(ones, mask=~customers.active),
            decode(customers.club, CLUB),
            decode(customers.news, NEWS),
            pa.array(customers.age, mask=np.isnan(customers.age)),
        ]
        self.writer.write_table(pa.table(columns, schema=CUSTOMERS))


def decode(codes: np.ndarray, values: tuple[str, ...]) -> pa.Array:
    """Return the strings of codes, null for -1."""
    return pa.array(list(values), pa.string()).take(
        pa.array(codes.astype(np.int32), mask=codes < 0)
    )


def write_transactions(
    path: Path,
    lines: Lines,
    article_ids: pa.Array,
    customer_ids: pa.Array,
    advance: Callable[[int], None],
) -> None:
    """Write the lines in row groups of a million.

    Memory: the strings of one row group, as dictionaries.
    """
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
        for start in range(0, lines.day.shape[0], ROWS_PER_GROUP):
            rows = slice(start, start + ROWS_PER_GROUP)
            columns = [
                pa.array(lines.day[rows].astype(np.int32) + first_day).cast(pa.date32()),
                encode_compactly(lines.customer[rows], customer_ids),
                encode_compactly(lines.article[rows], article_ids),
                pa.array((lines.cents[rows] / (100.0 * UNITS_PER_PRICE)).astype(np.float32)),
                pa.array(lines.channel[rows]),
            ]
            table = pa.table(columns, schema=encoded)
            writer.write_table(table, row_group_size=ROWS_PER_GROUP)
            advance(table.num_rows)


def encode_compactly(codes: np.ndarray, values: pa.Array) -> pa.DictionaryArray:
    """Encode `values[codes]` with a dictionary of the values that occur.

    Parquet stores the whole dictionary with every row group.
    """
    is_used = np.zeros(len(values), dtype=bool)
    is_used[codes] = True
    rank = np.cumsum(is_used, dtype=np.int32) - 1
    return pa.DictionaryArray.from_arrays(
        pa.array(rank[codes]), values.take(pa.array(np.flatnonzero(is_used)))
    )
