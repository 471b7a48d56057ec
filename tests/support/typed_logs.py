"""Logs of any types that columns can have, as hypothesis draws them."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

Tables = dict[str, pa.Table]
START = dt.datetime(2020, 3, 28)
ZONES = (None, "UTC", "Europe/Berlin", "America/New_York")

IDS = {
    "text": st.text("aB07é _-", min_size=1, max_size=4).filter(lambda text: text == text.strip()),
    "leading zeros": st.integers(0, 999).map(lambda number: f"{number:05}"),
    "integers": st.integers(-(2**31), 2**31 - 1).map(lambda number: pa.scalar(number, pa.int32())),
    "large integers": st.integers(2**53, 2**63 - 1),
    "unsigned": st.integers(0, 2**64 - 1).map(lambda number: pa.scalar(number, pa.uint64())),
    "whole decimals": st.integers(1, 10**18).map(
        lambda number: pa.scalar(Decimal(number), pa.decimal128(20, 0))
    ),
}
PRICES = {
    pa.int64(): st.integers(1, 10**6),
    pa.int16(): st.integers(1, 1000),
    pa.float64(): st.floats(1e-6, 1e6),
    pa.decimal128(12, 2): st.decimals("0.01", 1000, places=2),
}
GROUPS = {
    pa.string(): st.one_of(st.none(), st.sampled_from(["x", "y, z", 'q"', "1.0", "äö"])),
    pa.int64(): st.one_of(st.none(), st.integers(-3, 12)),
    pa.uint8(): st.integers(0, 255),
    pa.decimal128(5, 0): st.integers(0, 12).map(Decimal),
}
AGES = {
    pa.int8(): st.one_of(st.none(), st.integers(0, 99)),
    pa.float64(): st.one_of(st.none(), st.sampled_from([0.0, 35.5, 200.0])),
    pa.string(): st.sampled_from(["35-44", "65+", "40", None]),
}


@st.composite
def logs(draw: st.DrawFn) -> tuple[Tables, dict[str, Any]]:
    """Draw the tables of a shop with types of any kind, and the settings that read them."""

    def draw_ids() -> pa.Array:
        ids = draw(st.lists(draw(st.sampled_from([*IDS.values()])), min_size=2, max_size=5))
        values = [value.as_py() if isinstance(value, pa.Scalar) else value for value in ids]
        kind = ids[0].type if isinstance(ids[0], pa.Scalar) else None
        return pa.array([*dict.fromkeys(values)], kind)

    def draw_column(kinds: dict[pa.DataType, st.SearchStrategy], n_rows: int) -> pa.Array:
        kind = draw(st.sampled_from([*kinds]))
        return pa.array([draw(kinds[kind]) for _ in range(n_rows)], kind)

    items, users = draw_ids(), draw_ids()
    n_rows = draw(st.integers(1, 8))
    times, inputs = draw_times(draw, n_rows)
    rows = [st.integers(0, len(ids) - 1) for ids in (items, users)]
    item, user = ([draw(row) for _ in range(n_rows)] for row in rows)
    log = {
        "t_dat": times,
        "customer_id": users.take(pa.array(user)),
        "article_id": items.take(pa.array(item)),
        "price": draw_column(PRICES, n_rows),
        "sales_channel_id": pa.array([1, 2, None, 1, 2, 2, 1, 2][:n_rows], pa.int8()),
    }
    groups, ages = draw_column(GROUPS, len(items)), draw_column(AGES, len(users))
    tables = {
        "transactions": pa.table(log),
        "articles": pa.table({"article_id": items, "product_group_name": groups}),
        "customers": pa.table({"customer_id": users, "age": ages}),
    }
    return tables, inputs


def draw_times(draw: st.DrawFn, n_rows: int) -> tuple[pa.Array, dict[str, Any]]:
    """Draw times as days, timestamps with or without a zone, numbers or text."""
    hours = [draw(st.integers(0, 5000)) for _ in range(n_rows)]
    moments = [START + dt.timedelta(hours=hour) for hour in hours]
    way = draw(st.sampled_from(["days", "timestamps", "numbers", "texts"]))
    zone = draw(st.sampled_from([{}, {"time_zone": "Europe/Berlin"}]))
    if way == "days":
        kind = draw(st.sampled_from([pa.date32(), pa.date64()]))
        return pa.array([moment.date() for moment in moments], kind), zone
    if way == "timestamps":
        unit = draw(st.sampled_from(["s", "ms", "us", "ns"]))
        return pa.array(moments, pa.timestamp(unit, draw(st.sampled_from(ZONES)))), zone
    if way == "numbers":
        return pa.array([1_600_000_000 + 3600 * hour for hour in hours]), {"time_unit": "s"}
    return pa.array([f"{moment:%d.%m.%Y %H:%M}" for moment in moments]), {
        "time_format": "%d.%m.%Y %H:%M",
        **zone,
    }
