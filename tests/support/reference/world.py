"""Rows -> interactions: collapsed (D4), filtered to the k-core (D5), with the two cuts of the time
axis (D7).

The rows must be clean (D2): every key known and present, prices positive. Only a bad age is mended,
as D2 says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

from .content import value_hash

DAY = 86_400 * 10**9  # nanoseconds
HOUR = 3_600 * 10**9
SPLITS = ("train", "val", "test")

Tables = dict[str, list[dict[str, Any]]]


class Interaction(NamedTuple):
    user: int  # code of the kept user
    item: int  # code of the kept item
    time: int  # nanoseconds since 1970 UTC
    price: float | None  # the largest of its lines; None when the log has no prices
    channel: int  # the smallest known id of its lines; -1 when none is known
    quantity: int  # lines


class Cuts(NamedTuple):
    t0: int
    cut1: int
    cut2: int
    t1: int

    def window(self, time: int) -> int:
        """0 train, 1 val, 2 test."""
        return 0 if time < self.cut1 else 1 if time < self.cut2 else 2

    def end(self, window: int) -> int:
        """The first instant that is no longer inside the window."""
        return (self.cut1, self.cut2, self.t1 + 1)[window]


@dataclass
class Log:
    """What is left of the rows after the filters; codes are positions in `users` and `items`."""

    users: list[str]  # kept ids, sorted by code point
    items: list[str]
    customers: list[dict]  # row of each kept user
    articles: list[dict]  # row of each kept item
    interactions: list[Interaction]  # in (user, item, time) order
    views: list[tuple[int, int, int]]  # (user, item, time) of kept users and items
    dropped: dict[str, int]  # collapsed, cold_user, cold_item
    cuts: Cuts

    @cached_property
    def in_order(self) -> list[int]:
        """The items by item_index: those first sold in train before those of val, and those before
        test's; each by id (D17).
        """
        first = {
            item: min(e.time for e in self.interactions if e.item == item)
            for item in range(len(self.items))
        }
        return sorted(first, key=lambda item: (self.cuts.window(first[item]), item))

    def index(self, item: int) -> int:
        """item_index of an item, from 1."""
        return 1 + self.in_order.index(item)

    def user_key(self, user: int) -> int:
        """What draws for a user are keyed by: the hash of the id alone."""
        return value_hash(self.users[user], "string")

    def item_key(self, item: int) -> int:
        return value_hash(self.items[item], "string")

    def of_user(self, user: int) -> list[Interaction]:
        """In (time, item) order."""
        return sorted(
            (e for e in self.interactions if e.user == user), key=lambda e: (e.time, e.item)
        )

    def history(self, user: int, time: int) -> list[Interaction]:
        """The user's interactions strictly before `time` (D6), in (time, item) order."""
        return [e for e in self.of_user(user) if e.time < time]

    def owned(self, user: int, end: int) -> set[int]:
        """Items the user bought before `end`."""
        return {e.item for e in self.interactions if e.user == user and e.time < end}

    def group(self, item: int) -> str | None:
        return self.articles[item].get("product_group_name")

    def siblings(self, item: int, other: int) -> bool:
        """Whether both are the same product in other colors; a null code is nobody's sibling."""
        code = self.articles[item].get("product_code")
        return code is not None and code == self.articles[other].get("product_code")


def window_of(log: Log, config: Any, e: Interaction) -> int:
    """0 train, 1 val, 2 test: by time, or by how many purchases of the user come after."""
    if config.split.strategy != "leave_last":
        return log.cuts.window(e.time)
    n_after = len([other for other in log.of_user(e.user) if (other.time, other.item) > e[2:0:-1]])
    n = config.split.leave_last
    return 2 if n_after < n else 1 if n_after < 2 * n else 0


def share(value: float) -> Fraction:
    """A share as the exact fraction of its decimal text."""
    return Fraction(str(value))


def read_log(tables: Tables, config: Any) -> Log:
    width, user_width = config.inputs.article_id_width, config.inputs.customer_id_width
    rows = [
        (_text(row["customer_id"], user_width), _text(row["article_id"], width), row["t_dat"], row)
        for row in tables["transactions"]
    ]
    lines: dict[tuple[str, str, int], list[dict]] = {}
    for user_id, item_id, time, row in rows:
        lines.setdefault((user_id, item_id, time), []).append(row)
    cuts = find_cuts([time for _, _, time, _ in rows], config.split)
    remaining, dropped = set(), {"cold_user": 0, "cold_item": 0}
    if config.filtering.counts == "window":
        for window in range(3):
            fresh = {key for key in lines if cuts.window(key[2]) == window}
            remaining |= _core(fresh, remaining, config.filtering, dropped)
    else:
        remaining = _core(set(lines), set(), config.filtering, dropped)
    dropped["collapsed"] = len(rows) - len(lines)
    users = sorted({user_id for user_id, _, _ in remaining})
    items = sorted({item_id for _, item_id, _ in remaining})
    user_code = {user_id: code for code, user_id in enumerate(users)}
    item_code = {item_id: code for code, item_id in enumerate(items)}
    # Nothing is known of customers and articles that have no table.
    customers = {_text(row["customer_id"], user_width): row for row in tables.get("customers", [])}
    articles = {_text(row["article_id"], width): row for row in tables.get("articles", [])}
    views = [
        (
            user_code[_text(row["customer_id"], user_width)],
            item_code[_text(row["article_id"], width)],
            row["t_dat"],
        )
        for row in (tables.get("views") or [] if config.inputs.views else [])
        if _text(row["customer_id"], user_width) in user_code
        and _text(row["article_id"], width) in item_code
    ]
    return Log(
        users=users,
        items=items,
        customers=[customers[user_id] if customers else {} for user_id in users],
        articles=[articles[item_id] if articles else {} for item_id in items],
        interactions=sorted(
            _collapse(user_code[u], item_code[i], t, lines[u, i, t], config.inputs)
            for u, i, t in remaining
        ),
        views=views,
        dropped=dropped,
        cuts=cuts,
    )


def _text(key: str | int, width: int = 0) -> str:
    return key if isinstance(key, str) and not key.isdecimal() else str(key).zfill(width)


def _collapse(user: int, item: int, time: int, lines: list[dict], inputs: Any) -> Interaction:
    channels = [row.get("sales_channel_id") for row in lines]
    known = [channel for channel in channels if channel in inputs.channels]
    has_price = inputs.price == "column" or (inputs.price == "auto" and "price" in lines[0])
    price = max(float(row["price"]) for row in lines) if has_price else None
    return Interaction(user, item, time, price, min(known, default=-1), len(lines))


def _core(
    keys: set[tuple[str, str, int]],
    settled: set[tuple[str, str, int]],
    filtering: Any,
    dropped: dict[str, int],
) -> set[tuple[str, str, int]]:
    """Drop rare users, then rare items among what remains, until nothing changes; count by who was
    rare.

    What is `settled` counts and stays.
    """
    while True:
        before = len(keys)
        for part, least, reason in (
            (0, filtering.min_user_interactions, "cold_user"),
            (1, filtering.min_item_interactions, "cold_item"),
        ):
            count: dict[str, int] = {}
            for key in keys | settled:
                count[key[part]] = count.get(key[part], 0) + 1
            stay = {key for key in keys if count[key[part]] >= least}
            dropped[reason] += len(keys) - len(stay)
            keys = stay
        if len(keys) == before:
            return keys


def find_cuts(times: list[int], split: Any) -> Cuts:
    """Where train ends and where val ends, over all accepted rows, lines of a duplicate included
    (D7).
    """
    times = sorted(times)
    t0, t1 = times[0], times[-1]
    until_val = share(split.train_share)
    until_test = until_val + share(split.val_share)
    if split.strategy == "leave_last":  # nothing is cut: everything is before both cuts
        return Cuts(t0, t1 + 1, t1 + 1, t1)
    if split.val_from is not None:
        return Cuts(
            t0,
            *(round(moment.timestamp()) * 10**9 for moment in (split.val_from, split.test_from)),
            t1,
        )
    if split.windows == "rows":
        n = len(times)
        return Cuts(t0, times[math.floor(until_val * n)], times[math.floor(until_test * n)], t1)
    return Cuts(
        t0, math.ceil(t0 + until_val * (t1 - t0)), math.ceil(t0 + until_test * (t1 - t0)), t1
    )
