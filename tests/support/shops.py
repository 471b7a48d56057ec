"""Small random shops for tests, as rows of plain values, with ties, baskets and gaps.

    sales(("u", "a", 0), ("v", "a", 1.5))    a shop written by hand, line by line
    random_shop(seed, ...)                   a random shop; more rows extend fewer
    shops()                                  a hypothesis strategy, shrinking to fewer rows
    write_shop(tables, folder, unit)         the Parquet files of a shop
    tiny_config(split={"windows": "rows"})   a DatasetConfig under which most such shops fill every
                                             split
    loose_config()                           the same, keeping every user and item

Rows are dicts under H&M's column names; `t_dat` is in nanoseconds since 1970 UTC.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from gpu_dcgen.config import DatasetConfig

DAY = 86_400 * 10**9
MINUTE = 60 * 10**9
SUNDAY = 17_797 * DAY  # 2018-09-23
FIRST_DAY = 17_794  # 2018-09-20 in days since 1970: a Thursday, so snapshots do not fall on Mondays

GROUPS = ("Garment Upper body", "Garment Lower body", "Accessories", "Shoes", None)
COLORS = ("Black", "White", "Blue", "Röd", None)
GARMENTS = ("Jersey Basic", "Under-, Nightwear", None)
DEPARTMENTS = ("Basics", "Shirts", "Socks", "Ladies' Denim", None)
INDEX_GROUPS = ("Ladieswear", "Menswear", "Divided", None)
CLUB = ("ACTIVE", "PRE-CREATE", "LEFT CLUB", None)
NEWS = ("NONE", "Regularly", "Monthly", "None", None)
AGES = (None, 10, 15, 16, 24, 25, 34.9, 35, 44, 45, 54, 55, 99, 119.5, -3, 150)
PRICES = (0.0033, 0.0101, 0.0169, 0.0169, 0.0254, 0.0339, 0.0508, 1.25)
CHANNELS = (1, 2, 2, 2, None, 7)  # 7 is no channel that the default configuration knows

Tables = dict[str, list[dict[str, Any]]]

TINY: dict[str, dict[str, Any]] = {
    "filtering": {
        "min_user_interactions": 2,
        "min_item_interactions": 2,
        "max_user_interactions": 12,
    },
    "split": {"train_share": 0.6, "val_share": 0.2},
    "features": {"snapshot_days": 2, "popularity_days": 9},
    "similarity": {"min_common_users": 2, "top_k": 8},
    "negative_sampling": {
        "random_negatives_per_positive": 3,
        "hard_negatives_per_positive": 2,
        "similarity_threshold": 0.1,
        "similarity_ceiling": 0.9,
        "item_cf_top_k": 5,
        "collaborative_buyers": 3,
        "collaborative_items": 2,
        "collaborative_days": 5,
        "viewed_items": 2,
        "category_draws": 4,
        "live_days": 20,
    },
    "sequence_processing": {
        "max_sequence_length": 6,
        "min_sequence_length": 1,
        "temporal_gap_hours": 48,
    },
    "category_balancing": {
        "segment_days": 12,
        "recency_half_life_days": 10,
        "min_samples_per_segment": 0,
    },
    "output": {"groups_per_part": 7, "groups_per_row_group": 3},
    "quality": {"thresholds": {"split_floor": 1}},
    "resources": {"num_workers": 2, "batch_size": 5, "chunk_size": 4},
}

# A configuration for small shops as settings of the command line.
TINY_SETTINGS = [
    "filtering.min_user_interactions=2",
    "filtering.min_item_interactions=2",
    "split.train_share=0.6",
    "split.val_share=0.2",
    "sequence_processing.min_sequence_length=1",
    "negative_sampling.random_negatives_per_positive=3",
    "negative_sampling.hard_negatives_per_positive=2",
    "features.snapshot_days=2",
]


def set_options(settings: list[str]) -> list[str]:
    """Return the words of the command line that give settings."""
    return [word for setting in settings for word in ("--set", setting)]


def tiny_config(**overrides: Any) -> DatasetConfig:
    """Return a configuration for small shops; `overrides` are merged by section."""
    data: dict[str, Any] = {section: dict(values) for section, values in TINY.items()}
    for name, value in overrides.items():
        data[name] = {**data.get(name, {}), **value} if isinstance(value, dict) else value
    return DatasetConfig.model_validate(data)


def loose_config(**overrides: Any) -> DatasetConfig:
    """Return a tiny configuration that keeps every user and item."""
    filtering = {
        "min_user_interactions": 1,
        "min_item_interactions": 1,
        **overrides.pop("filtering", {}),
    }
    return tiny_config(filtering=filtering, **overrides)


def sales(*lines: tuple, views: tuple = (), **articles: dict) -> Tables:
    """Return tables of lines (user, item, day[, price[, channel]]).

    `articles` adds columns to items by id.
    """
    lines = [(*line, *(1.0, None)[len(line) - 3 :]) for line in lines]
    items = sorted({line[1] for line in lines} | {view[1] for view in views})
    tables = {
        "articles": [
            {"article_id": item, "product_group_name": "Shoes", **articles.get(item, {})}
            for item in items
        ],
        "customers": [{"customer_id": user} for user in sorted({line[0] for line in lines})],
        "transactions": [
            {
                "t_dat": SUNDAY + round(day * DAY),
                "customer_id": user,
                "article_id": item,
                "price": price,
                "sales_channel_id": channel,
            }
            for user, item, day, price, channel in lines
        ],
    }
    if views:
        tables["views"] = [
            {"t_dat": SUNDAY + day * DAY, "customer_id": user, "article_id": item}
            for user, item, day in views
        ]
    return tables


def random_shop(
    seed: int,
    *,
    n_users: int = 8,
    n_items: int = 18,
    n_rows: int = 120,
    dates: tuple[int, int] = (16, 40),
    minutes: bool = False,
    heavy_owner: bool = False,
    views: bool = False,
) -> Tables:
    """Return a shop of `n_rows` transaction lines on at most so many distinct days of so many.

    Baskets hold up to 4 items; some lines repeat, with the same or another price and channel.
    Customers mostly buy from a third of the items. Some items come late or leave early; a fifth
    share their product code with another. A customer and an article more than `n_users` and
    `n_items` never appear in a transaction. `minutes` gives some baskets a time of day (else every
    time is midnight), `heavy_owner` lets customer 0 buy every item early, `views` adds views.
    """
    n_days, span_days = dates
    chance = random.Random(f"shop {seed}")
    tables: Tables = {
        "articles": [_article(item, chance) for item in range(n_items + 1)],
        "customers": [_customer(user, chance) for user in range(n_users + 1)],
    }
    days = sorted(chance.sample(range(span_days), min(n_days, span_days)))
    # The first item is always on sale.
    seasons = [range(span_days)] + [_season(span_days, chance) for _ in range(n_items - 1)]
    tastes = [chance.sample(range(n_items), max(2, n_items // 3)) for _ in range(n_users)]
    prices = [chance.choice(PRICES) for _ in range(n_items)]
    lines: list[dict[str, Any]] = []
    if heavy_owner:
        lines += [
            _line(chance.choice(days[:2]) * DAY, 0, item, prices, chance) for item in range(n_items)
        ]
    while len(lines) < n_rows:
        user, day = chance.randrange(n_users), chance.choice(days)
        time = day * DAY + (chance.choice((0, 1, 600, 600, 1439)) * MINUTE if minutes else 0)
        wanted = tastes[user] if chance.random() < 0.85 else range(n_items)
        on_sale = [item for item in wanted if day in seasons[item]]
        for item in chance.sample(on_sale, min(len(on_sale), chance.choice((1, 1, 2, 3, 4)))):
            lines.append(_line(time, user, item, prices, chance))
            while chance.random() < 0.1:
                lines.append(
                    dict(lines[-1])
                    if chance.random() < 0.5
                    else _line(time, user, item, prices, chance)
                )
    tables["transactions"] = lines[:n_rows]
    if views:
        tables["views"] = [_view(chance, n_users, n_items, span_days) for _ in range(n_rows // 4)]
    return tables


def _season(span_days: int, chance: random.Random) -> range:
    """Return the days on which an item is on sale: mostly all; some come late or leave early."""
    first = chance.choice((0, 0, 0, 0, span_days // 3, span_days // 2))
    return range(first, chance.choice((span_days, span_days, span_days, first + span_days // 3)))


def _article_id(item: int) -> str:
    return f"{108775 + item % 7 * 31:06d}{item:04d}"  # sorted ids are not in the order of the rows


def _article(item: int, chance: random.Random) -> dict[str, Any]:
    code = f"{1000 + item - (chance.random() < 0.2)}"
    return {
        "article_id": _article_id(item),
        "product_code": None if chance.random() < 0.1 else code,
        "product_group_name": chance.choice(GROUPS),
        "colour_group_name": chance.choice(COLORS),
        "garment_group_name": chance.choice(GARMENTS),
        "department_name": chance.choice(DEPARTMENTS),
        "index_group_name": chance.choice(INDEX_GROUPS),
    }


def _customer_id(user: int) -> str:
    return f"c{(user * 37 + 11) % 1009:04x}"


def _customer(user: int, chance: random.Random) -> dict[str, Any]:
    return {
        "customer_id": _customer_id(user),
        "age": chance.choice(AGES),
        "club_member_status": chance.choice(CLUB),
        "fashion_news_frequency": chance.choice(NEWS),
    }


def _line(
    time: int, user: int, item: int, prices: list[float], chance: random.Random
) -> dict[str, Any]:
    return {
        "t_dat": FIRST_DAY * DAY + time,
        "customer_id": _customer_id(user),
        "article_id": _article_id(item),
        "price": prices[item] if chance.random() < 0.7 else chance.choice(PRICES),
        "sales_channel_id": chance.choice(CHANNELS),
    }


def _view(chance: random.Random, n_users: int, n_items: int, span_days: int) -> dict[str, Any]:
    return {
        "t_dat": (FIRST_DAY + chance.randrange(span_days)) * DAY,
        "customer_id": _customer_id(chance.randrange(n_users)),
        "article_id": _article_id(chance.randrange(n_items)),
    }


def shops(*, minutes: bool | None = None, views: bool | None = None) -> st.SearchStrategy[Tables]:
    """Draw random shops of 5-16 users, 10-25 items and 80-300 lines.

    Times of day and views come by chance unless fixed. Most shops fill every split under
    `tiny_config`.
    """
    return st.builds(
        random_shop,
        seed=st.integers(0, 10**6),
        n_users=st.integers(5, 16),
        n_items=st.integers(10, 25),
        n_rows=st.integers(80, 300),
        dates=st.tuples(st.integers(6, 24), st.sampled_from((24, 40, 90))),
        minutes=st.booleans() if minutes is None else st.just(minutes),
        heavy_owner=st.booleans(),
        views=st.booleans() if views is None else st.just(views),
    )


SCHEMAS = {
    "articles": pa.schema(
        [
            (name, pa.string())
            for name in (
                "article_id",
                "product_code",
                "product_group_name",
                "colour_group_name",
                "garment_group_name",
                "department_name",
                "index_group_name",
            )
        ]
    ),
    "customers": pa.schema(
        [
            ("customer_id", pa.string()),
            ("age", pa.float64()),
            ("club_member_status", pa.string()),
            ("fashion_news_frequency", pa.string()),
        ]
    ),
    "transactions": pa.schema(
        [
            ("t_dat", pa.timestamp("ns")),
            ("customer_id", pa.string()),
            ("article_id", pa.string()),
            ("price", pa.float64()),
            ("sales_channel_id", pa.int8()),
        ]
    ),
    "views": pa.schema(
        [("t_dat", pa.timestamp("ns")), ("customer_id", pa.string()), ("article_id", pa.string())]
    ),
}


def bare_events(tables: Tables) -> Tables:
    """Return the logs alone, without what is known of a purchase beside user, item and time."""
    bare = ("t_dat", "customer_id", "article_id")
    return {
        name: [{column: row[column] for column in bare} for row in tables[name]]
        for name in ("transactions", "views")
        if name in tables
    }


def write_shop(tables: Tables, folder: Path, unit: str = "timestamp") -> Path:
    """Write the tables as Parquet files into `folder` and return it.

    `t_dat` is written in nanoseconds or, with `unit` "date", as dates. ValueError where a date
    would lose a time of day.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        schema = SCHEMAS[name]
        if unit == "date" and "t_dat" in schema.names:
            if any(row["t_dat"] % DAY for row in rows):
                raise ValueError(
                    f"{name}: has times of day, which a date would lose; "
                    "write it with unit='timestamp'"
                )
            rows = [{**row, "t_dat": row["t_dat"] // DAY} for row in rows]
            schema = schema.set(0, pa.field("t_dat", pa.int32()))
        columns = {
            field.name: pa.array([row.get(field.name) for row in rows], field.type)
            for field in schema
            if field.name != "price" or not rows or "price" in rows[0]
        }
        if unit == "date" and "t_dat" in columns:
            columns["t_dat"] = columns["t_dat"].cast(pa.date32())
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder
