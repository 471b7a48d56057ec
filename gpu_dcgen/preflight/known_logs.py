"""Public logs that are known by their columns, and the settings that read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..contract.schema import InputTable
from .table_samples import FolderSample, TableSample


@dataclass(frozen=True)
class KnownTable:
    """A table of a known log."""

    table: InputTable
    columns: frozenset[str]  # that tell it
    names: dict[str, str] = field(default_factory=dict)  # our name -> its name


@dataclass(frozen=True)
class KnownLog:
    """A known log: its tables, the first of which is always there."""

    name: str
    tables: tuple[KnownTable, ...]
    inputs: dict[str, Any] = field(default_factory=dict)  # further settings of `inputs`
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    # Why its files cannot be read as they are, and what makes a table of them.
    obstacle: str = ""


def _table(table: InputTable, columns: str, **names: str) -> KnownTable:
    return KnownTable(table, frozenset(columns.split(",")), names)


_NO_CUSTOMERS = "There is no table of customers: samples have no demographics."

KNOWN_LOGS = (
    KnownLog(
        "H&M Personalized Fashion Recommendations, or tables under its names",
        (
            _table("transactions", "t_dat,customer_id,article_id,price,sales_channel_id"),
            _table("articles", "article_id,product_code,product_group_name,prod_name"),
            _table("customers", "customer_id,club_member_status,fashion_news_frequency,age"),
        ),
        notes=("The folder builds without a configuration.",),
    ),
    KnownLog(
        "RetailRocket",
        (
            _table(
                "transactions",
                "timestamp,visitorid,event,itemid",
                t_dat="timestamp",
                customer_id="visitorid",
                article_id="itemid",
            ),
        ),
        {
            "events": {"transaction": "purchase", "addtocart": "purchase", "view": "view"},
            "time_unit": "ms",
        },
        {"filtering": {"min_user_interactions": 3, "min_item_interactions": 3}},
        (
            "Carts count as purchases, since purchases are few: write `addtocart: ignore` for "
            "purchases alone.",
            "The filters are lower than the defaults, 5 and 10, for the same reason.",
            "Items have no categories that are read: their properties are in a table of their own.",
        ),
    ),
    KnownLog(
        "MovieLens",
        (
            _table(
                "transactions",
                "userId,movieId,rating,timestamp",
                t_dat="timestamp",
                customer_id="userId",
                article_id="movieId",
            ),
            _table(
                "articles",
                "movieId,title,genres",
                article_id="movieId",
                prod_name="title",
                product_group_name="genres",
            ),
        ),
        {"min_rating": 4, "time_unit": "s"},
        notes=(
            "Ratings of 4 and more count as purchases.",
            "The combination of genres stands for the product group.",
            _NO_CUSTOMERS,
        ),
    ),
    KnownLog(
        "The Complete Journey, as completejourney has it",
        (
            _table(
                "transactions",
                "household_id,basket_id,product_id,sales_value,transaction_timestamp",
                t_dat="transaction_timestamp",
                customer_id="household_id",
                article_id="product_id",
                price="sales_value",
            ),
            _table(
                "articles",
                "product_id,department,product_category,product_type",
                article_id="product_id",
                product_group_name="product_category",
                department_name="department",
                prod_name="product_type",
            ),
        ),
        {"on_bad_rows": "reject"},
        notes=(
            "Rows for which nothing was paid, and those of products that are not in the table, are "
            "set aside.",
            "The table of demographics has only a third of the households, so it is not read as "
            "customers: purchases of all others would be bad rows.",
        ),
    ),
    KnownLog(
        "Online Retail",
        (
            _table(
                "transactions",
                "InvoiceNo,StockCode,Quantity,InvoiceDate,UnitPrice,CustomerID",
                t_dat="InvoiceDate",
                customer_id="CustomerID",
                article_id="StockCode",
                price="UnitPrice",
            ),
        ),
        {"on_bad_rows": "reject", "min_quality_score": 0.7},
        notes=(
            "A quarter of the rows have no customer, and are set aside.",
            "Rows with a negative quantity are returns, which count as purchases unless they are "
            "removed first.",
        ),
    ),
    KnownLog(
        "Online Retail II",
        (
            KnownTable(
                "transactions",
                frozenset({"Invoice", "StockCode", "InvoiceDate", "Price", "Customer ID"}),
                {
                    "t_dat": "InvoiceDate",
                    "customer_id": "Customer ID",
                    "article_id": "StockCode",
                    "price": "Price",
                },
            ),
        ),
        {"on_bad_rows": "reject", "min_quality_score": 0.7},
        notes=(
            "Nearly a quarter of the rows have no customer, and are set aside.",
            "Rows with a negative quantity are returns, which count as purchases unless they are "
            "removed first.",
        ),
    ),
    KnownLog(
        "Instacart",
        (
            _table("transactions", "order_id,product_id,add_to_cart_order,reordered"),
            _table("customers", "order_id,user_id,order_number,days_since_prior_order"),
        ),
        obstacle=(
            "users and times are in the table of orders, and times are days since the user's order "
            "before.\n"
            "Count the days from one date for all, for example with DuckDB in the folder:\n"
            "COPY (WITH dated AS (SELECT order_id, user_id, DATE '2017-01-01' + CAST(sum(coalesce("
            "days_since_prior_order, 0)) OVER (PARTITION BY user_id ORDER BY order_number) AS "
            "INTEGER) AS t_dat FROM 'orders.csv') SELECT user_id AS customer_id, product_id AS "
            "article_id, t_dat FROM dated JOIN 'order_products__prior.csv' USING (order_id)) TO "
            "'transactions.parquet';\n"
            "All users then begin on one day, so that a split by time is one by users' ages."
        ),
    ),
    KnownLog(
        "Dunnhumby's The Complete Journey",
        (_table("transactions", "household_key,BASKET_ID,DAY,PRODUCT_ID,SALES_VALUE,TRANS_TIME"),),
        obstacle=(
            "days are numbers from 1, without a date.\n"
            "Write them as dates, for example with DuckDB in the folder:\n"
            "COPY (SELECT household_key AS customer_id, PRODUCT_ID AS article_id, "
            "DATE '2014-01-01' + CAST(DAY AS INTEGER) AS t_dat, SALES_VALUE AS price "
            "FROM 'transaction_data.csv' WHERE SALES_VALUE > 0) TO 'transactions.parquet';"
        ),
    ),
)


def find_known_log(folder: FolderSample) -> tuple[KnownLog, dict[InputTable, TableSample]] | None:
    """Return the log that the tables of a folder are known as, and which tables are its own."""
    for log in KNOWN_LOGS:
        tables: dict[InputTable, TableSample] = {}
        for known in log.tables:
            fitting = [table for table in folder.tables if known.columns <= table.columns.keys()]
            if fitting:
                tables[known.table] = fitting[0]
        if log.tables[0].table in tables:
            return log, tables
    return None
