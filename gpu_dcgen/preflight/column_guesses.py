"""Guess what the columns of unknown tables are, by their names, types and first values."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple

from .table_samples import ColumnSample, TableSample

# Words of a name, in the order of preference, for each of our columns.
_USERS = ("customer", "user", "visitor", "household", "client", "buyer", "member", "shopper", "uid")
_ITEMS = (
    "article", "item", "product", "sku", "stockcode", "asin", "movie", "track", "song", "artist",
    "book", "isbn", "game", "good",
)  # fmt: skip
_TIMES = ("t_dat", "timestamp", "datetime", "time", "date", "created", "bought", "purchased", "ts")
_PRICES = ("price", "amount", "sales", "value", "paid", "revenue")
_EVENTS = ("event", "behavior", "behaviour", "action", "interaction")
_RATINGS = ("rating", "stars", "score")
_GROUPS = ("product_group", "category", "genre", "group", "department", "type", "class")
_NAMES = ("prod_name", "title", "name", "description")
_PURCHASES = re.compile(r"purchas|buy|bought|order|transaction|checkout|sale", re.IGNORECASE)
_VIEWS = re.compile(r"view|click|detail|impression|^pv$|browse", re.IGNORECASE)
_MAX_EVENTS = 20  # distinct values that a column of kinds of events may have
_MAX_GROUP_SHARE = 0.5  # of distinct values among the rows of a column that groups them
_FORMATS = (
    "%Y%m%d",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y",
    "%m/%d/%y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
    "%d-%m-%Y %H:%M",
    "%d-%m-%Y",
)
# Units of times since 1970, and a second of the years 1990 and 2100 in each.
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_FIRST_SECOND, _LAST_SECOND = 631_152_000, 4_102_444_800


class TimeGuess(NamedTuple):
    """How a column of times is written."""

    settings: dict[str, str]  # `time_unit` or `time_format`
    doubt: str = ""


class LogGuess(NamedTuple):
    """What the columns of a table of events are."""

    names: dict[str, str]  # our name -> its name
    times: TimeGuess
    events: dict[str, str]  # value -> purchase, view or ignore
    min_rating: float | None
    doubts: tuple[str, ...]


def guess_log(table: TableSample) -> LogGuess | None:
    """Guess the columns of a log; None for a table without users, items and times."""
    columns = list(table.columns.values())
    names: dict[str, str] = {}
    doubts: list[str] = []
    for own, words, is_possible in _REQUIRED:
        fitting = _find_columns(columns, words, is_possible)
        fitting = [name for name in fitting if name not in names.values()]
        if not fitting:
            return None
        names[own] = fitting[0]
        doubts += _doubt(table, own, fitting)
    for own, words, is_possible in _OPTIONAL:
        fitting = _find_columns(columns, words, is_possible)
        fitting = [name for name in fitting if name not in names.values()]
        if fitting:
            names[own] = fitting[0]
            doubts += _doubt(table, own, fitting)
    events = _guess_events(table, names, doubts)
    times = guess_times(table.columns[names["t_dat"]])
    rating = _guess_rating(table, names, doubts)
    if times.doubt:
        doubts.append(f"{table.name}: {times.doubt}")
    return LogGuess(names, times, events, rating, tuple(doubts))


def guess_articles(table: TableSample, item: str) -> tuple[dict[str, str], tuple[str, ...]] | None:
    """Guess the columns of a table of articles, with doubts; `item` is the log's name of them."""
    key = _find_key(table, item, _ITEMS)
    if key is None:
        return None
    names, doubts = {"article_id": key}, list[str]()
    columns = [column for column in table.columns.values() if column.name != key]
    titles = _find_columns(columns, _NAMES, lambda column: column.kind == "text")
    groups = _find_columns(columns, _GROUPS, _may_be_group)
    groups = [name for name in groups if name not in titles[:1]]
    if groups:
        names["product_group_name"] = groups[0]
        doubts += _doubt(table, "product_group_name", groups)
    else:
        shown = ", ".join(column.name for column in columns) or "nothing else"
        doubts.append(
            f"{table.name}: which column has the product groups, if any (product_group_name): "
            f"found {shown}."
        )
    if titles:
        names["prod_name"] = titles[0]
    return names, tuple(doubts)


def guess_customers(table: TableSample, user: str) -> dict[str, str] | None:
    """Guess the columns of a table of customers; `user` is the log's name of them."""
    key = _find_key(table, user, _USERS)
    if key is None:
        return None
    ages = [name for name in table.columns if name.casefold() in ("age", "age_group", "age_band")]
    return {"customer_id": key, **({"age": ages[0]} if ages else {})}


def guess_times(column: ColumnSample) -> TimeGuess:
    """Guess how times are written: their unit where they are numbers, else their format."""
    values = column.values
    if column.kind == "time" or not values:
        return TimeGuess({})
    if column.kind == "integer":
        for unit, factor in _UNITS.items():
            numbers = [int(value) // factor for value in values]
            if min(numbers) >= _FIRST_SECOND and max(numbers) < _LAST_SECOND:
                return TimeGuess({"time_unit": unit})
    if column.kind in ("text", "integer"):
        if column.kind == "text" and _parses(values, datetime.fromisoformat):
            return TimeGuess({})
        fitting = [f for f in _FORMATS if _parses(values, partial(_read_time, time_format=f))]
        if fitting:
            doubt = f"times are {' or '.join(fitting[:2])}?" if len(fitting) > 1 else ""
            return TimeGuess({"time_format": fitting[0]}, doubt)
    return TimeGuess(
        {}, f"how the times in {column.name} are written: found {values[0]!r} (inputs.time_format)."
    )


def _read_time(text: str, time_format: str) -> datetime:
    return datetime.strptime(text, time_format)


def _parses(values: Sequence[str], parse: Callable[[str], object]) -> bool:
    try:
        for value in values:
            parse(value)
    except ValueError:
        return False
    return True


def _find_columns(
    columns: Sequence[ColumnSample],
    words: Sequence[str],
    is_possible: Callable[[ColumnSample], bool],
) -> list[str]:
    """Return the names of columns that a word is in, by the order of words; ids before others."""

    def rank(column: ColumnSample) -> tuple[int, bool, int] | None:
        name = column.name.casefold()
        for place, word in enumerate(words):
            if word in name:
                return place, not name.endswith(("id", word)), len(name)
        return None

    ranked = [(rank(column), column.name) for column in columns if is_possible(column)]
    return [name for place, name in sorted((r, n) for r, n in ranked if r is not None)]


def _doubt(table: TableSample, own: str, fitting: Sequence[str]) -> list[str]:
    if len(fitting) < 2:
        return []
    return [f"{table.name}: {own} is {fitting[0]}, or {' or '.join(fitting[1:])}?"]


def _find_key(table: TableSample, name: str, words: Sequence[str]) -> str | None:
    """Return the column that is the key of a table: the log's name, or another that fits."""
    fitting = [n for n in table.columns if n.casefold() == name.casefold()]
    fitting += _find_columns(list(table.columns.values()), words, _may_be_key)
    keys = [n for n in fitting if _is_distinct(table.columns[n])]
    return keys[0] if keys else None


def _is_distinct(column: ColumnSample) -> bool:
    return bool(column.values) and column.n_distinct == len(column.values)


def _may_be_key(column: ColumnSample) -> bool:
    return column.kind in ("text", "integer") or (
        column.kind == "number" and all(value.endswith(".0") for value in column.values)
    )


def _may_be_time(column: ColumnSample) -> bool:
    if column.kind == "time":
        return True
    return column.kind in ("text", "integer") and not guess_times(column).doubt.startswith("how")


def _is_number(column: ColumnSample) -> bool:
    return column.kind in ("integer", "number")


def _may_be_event(column: ColumnSample) -> bool:
    return column.kind == "text" and column.n_distinct <= _MAX_EVENTS


def _may_be_group(column: ColumnSample) -> bool:
    limit = max(2.0, _MAX_GROUP_SHARE * len(column.values))
    return column.kind == "text" and 1 < column.n_distinct <= limit


def _guess_events(table: TableSample, names: dict[str, str], doubts: list[str]) -> dict[str, str]:
    """Say what kinds of events are; without a purchase among them the column is left out."""
    if "event" not in names:
        return {}
    kinds = {}
    for value in sorted(set(table.columns[names["event"]].values)):
        is_purchase, is_view = _PURCHASES.search(value), _VIEWS.search(value)
        kinds[value] = "purchase" if is_purchase else "view" if is_view else "ignore"
    if "purchase" not in kinds.values():
        shown = ", ".join(kinds)
        doubts.append(
            f"{table.name}: which values of {names.pop('event')} are purchases (inputs.events): "
            f"found {shown}. Without the setting, all rows are."
        )
        return {}
    doubts.append(
        f"{table.name}: {names['event']} has these values in the first rows; one that is not "
        "listed is a bad row."
    )
    return kinds


def _guess_rating(table: TableSample, names: dict[str, str], doubts: list[str]) -> float | None:
    """Return the rating from which a row counts as a purchase, of scales up to 5, 10 or 100."""
    if "rating" not in names:
        return None
    values = [float(value) for value in table.columns[names["rating"]].values]
    highest = max(values, default=0.0)
    limit = next((low for low, top in ((4, 5), (7, 10), (70, 100)) if highest <= top), None)
    if limit is None:
        doubts.append(
            f"{table.name}: from which value of {names.pop('rating')} on a row counts as a "
            "purchase (inputs.min_rating). Without the setting, all do."
        )
    else:
        doubts.append(f"{table.name}: ratings of {limit} and more count as purchases?")
    return limit


class _Wanted(NamedTuple):
    """One of our columns of a log, and how it is recognized."""

    name: str
    words: tuple[str, ...]
    is_possible: Callable[[ColumnSample], bool]


_REQUIRED = (
    _Wanted("customer_id", _USERS, _may_be_key),
    _Wanted("article_id", _ITEMS, _may_be_key),
    _Wanted("t_dat", _TIMES, _may_be_time),
)
_OPTIONAL = (
    _Wanted("price", _PRICES, _is_number),
    _Wanted("event", _EVENTS, _may_be_event),
    _Wanted("rating", _RATINGS, _is_number),
)
