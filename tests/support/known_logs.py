"""Write made-up rows under the file and column names of well-known logs. No row of them is here."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

Rows = list[dict[str, Any]]

# The columns of H&M's files on Kaggle, in their order.
HM_COLUMNS = {
    "articles": "article_id,product_code,prod_name,product_type_no,product_type_name,"
    "product_group_name,graphical_appearance_no,graphical_appearance_name,colour_group_code,"
    "colour_group_name,perceived_colour_value_id,perceived_colour_value_name,"
    "perceived_colour_master_id,perceived_colour_master_name,department_no,department_name,"
    "index_code,index_name,index_group_no,index_group_name,section_no,section_name,"
    "garment_group_no,garment_group_name,detail_desc",
    "customers": "customer_id,FN,Active,club_member_status,fashion_news_frequency,age,postal_code",
    "transactions_train": "t_dat,customer_id,article_id,price,sales_channel_id",
}
GENRES = ("Comedy", "Drama", "Comedy|Romance", "Action|Sci-Fi|Thriller", "(no genres listed)")


def read_shop(folder: Path) -> dict[str, Rows]:
    """Read the Parquet tables of a made-up shop as rows."""
    return {file.stem: pq.read_table(file).to_pylist() for file in folder.glob("*.parquet")}


def write_hm(shop: dict[str, Rows], folder: Path) -> None:
    """Write H&M's folder as it is downloaded."""
    folder.mkdir(parents=True)
    for name, header in HM_COLUMNS.items():
        columns = header.split(",")
        rows = [
            {**dict.fromkeys(columns), **{k: v for k, v in row.items() if k in columns}}
            for row in shop[name.removesuffix("_train")]
        ]
        for row in rows:
            if name == "articles":
                row["detail_desc"] = 'Top in soft jersey, with a "V"\nand a hood.'
        _write_csv(folder / f"{name}.csv", columns, (list(row.values()) for row in rows))
    (folder / "sample_submission.csv").write_text("customer_id,prediction\n")
    (folder / "images" / "010").mkdir(parents=True)


def write_movielens(shop: dict[str, Rows], folder: Path) -> None:
    """Write `ratings.csv` and `movies.csv`; some ratings are low."""
    folder.mkdir(parents=True)
    log = _number_ids(shop["transactions"])
    ratings = [
        [user + 1, item + 1, (1.5, 4.0, 4.5, 5.0, 4.0)[k % 5], _to_seconds(row) + k % 86_400]
        for k, (user, item, row) in enumerate(log)
    ]
    _write_csv(folder / "ratings.csv", ["userId", "movieId", "rating", "timestamp"], ratings)
    items = sorted({item for _, item, _ in log})
    movies = [[item + 1, f"Film, The ({1950 + item % 70})", GENRES[item % 5]] for item in items]
    _write_csv(folder / "movies.csv", ["movieId", "title", "genres"], movies)


def write_retailrocket(shop: dict[str, Rows], folder: Path) -> None:
    """Write `events.csv`: each purchase with a cart before it, or views of it."""
    folder.mkdir(parents=True)
    events = []
    for k, (user, item, row) in enumerate(_number_ids(shop["transactions"])):
        moment = _to_seconds(row) * 1000 + 1000 * (k % 80_000)
        events.append([moment, user, "view", item, None])
        if k % 3 == 0:
            events.append([moment + 5000, user, "addtocart", item, None])
        events.append([moment + 9000, user, "transaction", item, k])
    columns = ["timestamp", "visitorid", "event", "itemid", "transactionid"]
    _write_csv(folder / "events.csv", columns, events)


def _number_ids(log: Rows) -> list[tuple[int, int, dict[str, Any]]]:
    """Return users and items as numbers, with the rows."""
    users, items = (
        {value: number for number, value in enumerate(sorted({row[name] for row in log}))}
        for name in ("customer_id", "article_id")
    )
    return [(users[row["customer_id"]], items[row["article_id"]], row) for row in log]


def _to_seconds(row: dict[str, Any]) -> int:
    return (row["t_dat"] - dt.date(1970, 1, 1)).days * 86_400


def _write_csv(file: Path, columns: list[str], rows: Iterable[list[Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
