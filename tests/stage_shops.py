"""Shops for tests of single stages: what stage 1 would hand over, from plain lists, on any backend."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np
import pyarrow as pa

from gpu_dcgen.inputs import Category, InputReport, Shop

DAY = 86_400 * 10**9  # nanoseconds
USER_COLUMNS = ("club_status", "news_frequency")
ITEM_COLUMNS = (
    "product_group",
    "color_group",
    "garment_group",
    "department",
    "index_group",
    "product_code",
    "section",
    "name",
)

Line = tuple[int, int, float] | tuple[int, int, float, float] | tuple[int, int, float, float, int]


def make_shop(
    backend: Any,
    lines: Sequence[Line],
    *,
    n_users: int | None = None,
    n_items: int | None = None,
    ages: Sequence[int] | None = None,
    columns: dict[str, Sequence[str | None]] | None = None,
    views: Sequence[tuple[int, int, float]] | None = None,
    prices: bool = True,
) -> Shop:
    """A shop of accepted lines (user, item, day[, price[, channel]]) in the order given; days count from 1970.

    Price is 1 and channel -1 (unknown) where a line leaves them out; `prices=False` is a log without prices. Users and
    items are called u000, u001, ... and i000, i001, ...; as many as occur, or more. `columns` gives the values of user
    or item columns, None for null; the others are null throughout. `views` are (user, item, day).
    """
    user, item, day, price, channel = zip(
        *((*line, 1.0, -1)[:5] if len(line) != 4 else (*line, -1) for line in lines), strict=True
    )
    n_users = max(user) + 1 if n_users is None else n_users
    n_items = max(item) + 1 if n_items is None else n_items
    distinct = np.unique(np.array(price, dtype=np.float64)) if prices else np.empty(0)
    codes = np.searchsorted(distinct, price) if prices else np.zeros(len(lines))

    def array(values: Any, dtype: Any) -> Any:
        return backend.from_host(np.array(values).astype(dtype))

    def column(name: str, n: int) -> Category:
        values = (columns or {}).get(name, [None] * n)
        known = sorted({value for value in values if value is not None})
        return Category(array([-1 if value is None else known.index(value) for value in values], np.int32), tuple(known))

    def times(days: Sequence[float]) -> Any:
        return array([round(d * DAY) for d in days], np.int64)

    def viewed() -> tuple[Any, Any, Any]:
        return (
            times([d for _, _, d in views]),
            array([u for u, _, _ in views], np.int32),
            array([i for _, i, _ in views], np.int32),
        )

    return Shop(
        user_ids=pa.array([f"u{u:03d}" for u in range(n_users)], pa.string()),
        item_ids=pa.array([f"i{i:03d}" for i in range(n_items)], pa.string()),
        age=array([-1] * n_users if ages is None else ages, np.int16),
        user_columns={name: column(name, n_users) for name in USER_COLUMNS},
        item_columns={name: column(name, n_items) for name in ITEM_COLUMNS},
        time=times(day),
        user=array(user, np.int32),
        item=array(item, np.int32),
        price=array(codes, np.int32),
        prices=distinct,
        channel=array(channel, np.int8),
        views=None if views is None else viewed(),
        report=InputReport(rows={}, rejects={}, quality_score=1.0, warnings=(), files=()),
    )
