"""Hints at what made all ids or times of a log bad: lost zeros, blanks, case, a lost unit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ..backend.protocol import Array
from .sources import Source

_MAX_IDS = 10_000  # unknown ids that are compared
_NS = 10**9  # in a second
_UNITS = {"s": _NS, "ms": 10**6, "us": 10**3, "ns": 1}  # of epoch times, in nanoseconds
_YEAR = 365 * 86_400 * _NS
# When logs of shops are from; times outside may have lost their unit.
_FIRST_YEAR, _LAST_YEAR = 1990, 2100
_DAYS = ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%Y/%m/%d", "%m/%d/%y", "%d-%b-%Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S")
_MAX_WIDTH = 64  # of ids that are padded, in characters
_HM_DIGITS, _HM_WIDTH = 9, 10  # of H&M's article ids as integers and as text
_HM_COLUMNS = {"garment_group_name", "colour_group_name", "index_group_name", "index_name"}


class UnknownIds(NamedTuple):
    """Ids of a log that its entity table lacks, beside those that the table has."""

    column: str  # customer_id or article_id
    log: Source
    entities: Source  # customers or articles
    unknown: pa.Array  # strings
    known: pa.Array  # strings


class _Cause(NamedTuple):
    words: str
    normalize: Callable[[pa.Array], pa.Array]


def _strip_zeros(ids: pa.Array) -> pa.Array:
    return pc.utf8_ltrim(ids, "0")


def _strip_fraction(ids: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(ids, r"\.0*$", "")


def _strip_marks(ids: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(ids, "[\"'{}\ufeff-]", "")


def _strip_all(ids: pa.Array) -> pa.Array:
    bare = pc.utf8_trim_whitespace(_strip_marks(ids))
    return _strip_zeros(_strip_fraction(pc.utf8_lower(bare)))


_CAUSES = (
    _Cause("blanks around them", pc.utf8_trim_whitespace),
    _Cause("upper and lower case", pc.utf8_lower),
    _Cause("leading zeros", _strip_zeros),
    _Cause("a decimal point, as of ids that have been floats", _strip_fraction),
    _Cause("quotes, hyphens or a byte-order mark", _strip_marks),
    _Cause("several of zeros, blanks, case, marks and a decimal point", _strip_all),
)


def explain_unknown_ids(ids: UnknownIds) -> Iterator[str]:
    """Yield what distinguishes unknown ids from known ones, with one of each, and a remedy."""
    unknown, log, entities = ids.unknown[:_MAX_IDS], ids.log.label, ids.entities.label
    if not len(unknown) or not len(ids.known):
        return
    for cause in _CAUSES:
        places = pc.index_in(cause.normalize(unknown), value_set=cause.normalize(ids.known))
        if places.null_count * 2 > len(places):  # most have no partner
            continue
        row = pc.index(pc.is_valid(places), True).as_py()
        yield (
            f"{ids.column} differs in {cause.words}: {unknown[row].as_py()!r} in {log}, "
            f"{ids.known[places[row].as_py()].as_py()!r} in {entities}."
        )
        yield from _suggest_width(ids, cause)
        return
    yield (
        f"{ids.column} is {unknown[0].as_py()!r} in {log}, and for example "
        f"{ids.known[0].as_py()!r} in {entities}."
    )


def _suggest_width(ids: UnknownIds, cause: _Cause) -> Iterator[str]:
    """Yield the setting that restores leading zeros, or how to write the ids alike."""
    if cause.normalize is _strip_zeros:
        lengths = [pc.min_max(pc.utf8_length(texts)).as_py() for texts in (ids.unknown, ids.known)]
        padded = max(lengths, key=lambda length: length["max"])
        are_numbers = all(
            pc.all(pc.match_substring_regex(texts, "^[0-9]+$")).as_py()
            for texts in (ids.unknown, ids.known)
        )
        if are_numbers and padded["min"] == padded["max"] <= _MAX_WIDTH:
            yield (
                f"Numbers lose leading zeros; this restores them: "
                f"inputs.{ids.column}_width: {padded['max']}"
            )
            return
    yield f"Write {ids.column} alike in both tables, as text."


def warn_of_integer_ids(articles: Source, ids: pa.Array) -> Iterator[str]:
    """Yield a warning where article ids look like H&M's without their leading zero."""
    if articles.type_classes.get("article_id") != "integer" or not len(ids):
        return
    lengths = pc.min_max(pc.utf8_length(ids)).as_py()
    if lengths == {"min": _HM_DIGITS, "max": _HM_DIGITS} and _HM_COLUMNS & articles.names.keys():
        yield (
            f"{articles.label}: article_id is an integer, such as {ids[0].as_py()}; H&M's ids are "
            f"texts of {_HM_WIDTH} digits. To restore the leading zero: "
            f"inputs.article_id_width: {_HM_WIDTH}"
        )


def warn_of_float_ids(source: Source, key: str, ids: pa.Array) -> Iterator[str]:
    """Yield a warning where all ids look like integers that have been floats."""
    if len(ids) and pc.all(pc.match_substring_regex(ids, r"^-?[0-9]+\.0$")).as_py():
        yield (
            f"{source.label}: {key} has ids such as {ids[0].as_py()!r}, integers that have been "
            "floats, as of pandas where some are missing; they are used as they are. Other files "
            'may have them without ".0": write them as integers (pandas: dtype "Int64").'
        )


def find_lost_units(source: Source, time: Array, unit: str | None) -> Iterator[str]:
    """Yield the text of an InputError for the first file with times that lost their unit.

    They lie in 1970, and would be plausible in another unit. `time` (n,) int64 is in nanoseconds
    since 1970 UTC, 0 where there is none. `unit` is that of numbers, where the settings state one.
    """
    if not source.n_rows or int(time.min()) > _YEAR:
        return
    start, own_name = 0, source.names["t_dat"]
    for file, n_rows in zip(source.files, source.rows, strict=True):
        part = time[start : start + n_rows]
        part, start = part[part > 0], start + n_rows
        if not part.shape[0]:
            continue
        low, high = int(part.min()), int(part.max())
        if (factor := _find_lost_factor(low, high)) is None:
            continue
        where = f" in {file.relative_to(source.path)}" if len(source.files) > 1 else ""
        yield (
            f"{source.label}: column {own_name!r} has times from {_show(low)} to {_show(high)}"
            f"{where}: a lost unit? {factor:,} times as much would be {_show(low * factor)} to "
            f"{_show(high * factor)}.\n{_suggest_unit(source, unit, factor)}"
        )
        return


def _suggest_unit(source: Source, unit: str | None, factor: int) -> str:
    """Return the remedy for times that are too small by a factor."""
    if unit is not None and source.type_classes.get("t_dat") in ("integer", "text"):
        size = _UNITS[unit] * factor
        if larger := next((name for name, n_ns in _UNITS.items() if n_ns == size), None):
            return f"State their unit: inputs.time_unit: {larger}"
    return (
        f"Write the times with their unit (pandas: pd.to_datetime(log[{source.names['t_dat']!r}], "
        'unit="s"), or "ms").'
    )


def explain_unread_times(values: Iterable[Any]) -> Iterator[str]:
    """Yield what is wrong with times that cannot be read, by values that JSON can hold."""
    texts = [str(value) for value in values if value is not None]
    if texts and all(re.fullmatch(r"\d{8}", text) for text in texts):
        yield 'Days as digits need a format: inputs.time_format: "%Y%m%d"'
    elif unit := _find_unit(texts):
        yield f"Numbers count from 1970 in a unit that is stated: inputs.time_unit: {unit}"
    elif texts and all(re.fullmatch(r"\d+(\.\d*)?", text) for text in texts):
        yield (
            "A number has no unit, unless it is stated, for whole ones: inputs.time_unit: s (or "
            "ms, us, ns)"
        )
    elif formats := _find_formats(texts):
        more = ", ".join(f'"{other}"' for other in formats[1:])
        doubt = f" (or {more})" if more else ""
        yield (
            "Times that are not written as ISO 8601 need a format: "
            f'inputs.time_format: "{formats[0]}"{doubt}'
        )
    elif texts and all(re.match(r"\d{5,}-|<value out of range", text) for text in texts):
        yield (
            "Times so far in the future have lost their unit: milliseconds that were written as "
            'seconds, for example (pandas: pd.to_datetime(numbers, unit="ms")).'
        )


def _find_formats(texts: list[str]) -> list[str]:
    """Return the formats that all texts may have, of days, months and years in any order."""
    return [
        f"{day}{clock}"
        for day in _DAYS
        for clock in _CLOCKS
        if texts and all(_has_format(text, f"{day}{clock}") for text in texts)
    ]


def _has_format(text: str, time_format: str) -> bool:
    try:
        datetime.strptime(text, time_format)
    except ValueError:
        return False
    return True


def _find_unit(texts: list[str]) -> str | None:
    """Return the unit in which all texts are whole numbers that are plausible times, if any."""
    if not texts or not all(re.fullmatch(r"\d{1,19}", text) for text in texts):
        return None
    first, end = ((year - 1970) * _YEAR for year in (_FIRST_YEAR, _LAST_YEAR))
    for unit, factor in _UNITS.items():
        if all(first <= int(text) * factor < end for text in texts):
            return unit
    return None


def explain_unknown_events(values: Iterable[Any]) -> Iterator[str]:
    """Yield the first events that the settings do not list, and what to do about them."""
    events = dict.fromkeys("null" if value is None else repr(str(value)) for value in values)
    yield f"List {', '.join(events):.200} in inputs.events, as purchase, view or ignore."


def explain_unread_numbers(values: Iterable[Any]) -> Iterator[str]:
    """Yield what is wrong with numbers that cannot be read, by values that JSON can hold."""
    texts = [value for value in values if isinstance(value, str)]
    if texts and all(re.fullmatch(r"\s*[+-]?\d+,\d+\s*", text) for text in texts):
        yield 'Decimal commas are read with inputs.csv.decimal_point: ","'


def _find_lost_factor(low: int, high: int) -> int | None:
    """Return the factor that brings both times into the years of shops, None where none does."""
    first, end = ((year - 1970) * _YEAR for year in (_FIRST_YEAR, _LAST_YEAR))
    factors = (10**3, 10**6, 10**9, 86_400, 86_400 * 10**3, 86_400 * 10**6, 86_400 * 10**9)
    if low >= first:
        return None
    return next(
        (factor for factor in factors if first <= low * factor <= high * factor < end), None
    )


def _show(nanoseconds: int) -> str:
    """Return a time to the minute."""
    moment = datetime.fromtimestamp(nanoseconds // _NS, UTC)
    return moment.strftime("%Y-%m-%d %H:%M").removesuffix(" 00:00")
