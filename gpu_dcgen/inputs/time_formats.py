"""Read times from text in one stated format (`inputs.time_format`)."""

from __future__ import annotations

import re
from datetime import date
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ..config import MONTHS, TIME_DIRECTIVES

_EPOCH = date(1970, 1, 1)
_FIRST_YEAR, _LAST_YEAR = 1678, 2261  # whole years that int64 holds as nanoseconds
_CENTURY = 69  # two digits of a year from here on are of the 20th century, as POSIX has it
_NS = 10**9
_TOKEN = re.compile(r"%(.)|([^%]+)", re.DOTALL)


class ParsedTimes(NamedTuple):
    """Times of texts."""

    time: pa.Array  # (n,) int64  nanoseconds since 1970, null where the text is no time
    is_local: pa.Array  # (n,) bool  whether the text has no time zone


def parse_texts(texts: pa.Array, time_format: str) -> ParsedTimes:
    """Read texts (n,) that have a format as a whole; all else is null.

    Days that no month has are null. Names of months are English, in any case. A year of two digits
    is between 1969 and 2068.
    """
    fields = pc.extract_regex(texts, _to_pattern(time_format))
    names = {field.name for field in fields.type}

    def read(name: str) -> pa.Array:
        return pc.struct_field(fields, name)

    def read_number(name: str) -> pa.Array:
        if name not in names:
            return pa.repeat(pa.scalar(0, pa.int64()), len(texts))
        return read(name).cast(pa.int64())

    year = read_number("Y") if "Y" in names else _complete_year(read_number("y"))
    if "m" in names:
        month = read_number("m")
    else:
        short = pc.utf8_slice_codeunits(pc.utf8_lower(read("b" if "b" in names else "B")), 0, 3)
        month = pc.add(pc.index_in(short, pa.array(MONTHS)).cast(pa.int64()), 1)
    hour = read_number("H")
    if "I" in names:
        half = read_number("I")
        afternoon = pc.if_else(pc.equal(pc.utf8_lower(read("p")), "pm"), 12, 0)
        hour = pc.add(pc.if_else(pc.equal(half, 12), 0, half), afternoon)
    seconds = pc.multiply(_count_days(year, month, read_number("d")), 86_400)
    for number, factor in ((hour, 3600), (read_number("M"), 60), (read_number("S"), 1)):
        seconds = pc.add(seconds, pc.multiply(number, factor))
    if "z" in names:
        seconds = pc.subtract(seconds, _read_offset(read("z")))
    time = pc.multiply(seconds, _NS)
    if "f" in names:
        time = pc.add(time, pc.utf8_rpad(read("f"), 9, "0").cast(pa.int64()))
    return ParsedTimes(time, pa.repeat(pa.scalar("z" not in names), len(texts)))


def _to_pattern(time_format: str) -> str:
    """Return the regular expression of a format, with a group for each directive."""
    parts = []
    for letter, text in _TOKEN.findall(time_format):
        if letter in TIME_DIRECTIVES:
            parts.append(f"(?P<{letter}>{TIME_DIRECTIVES[letter]})")
        else:
            parts.append(re.escape("%" if letter == "%" else text))
    return f"^\\s*{''.join(parts)}\\s*$"


def _complete_year(year: pa.Array) -> pa.Array:
    return pc.add(year, pc.if_else(pc.less(year, _CENTURY), 2000, 1900))


def _count_days(year: pa.Array, month: pa.Array, day: pa.Array) -> pa.Array:
    """Return days since 1970 (n,) int64, null where there is no such day."""
    keys = pc.add(pc.multiply(pc.add(pc.multiply(year, 16), month), 32), day).dictionary_encode()
    days = pa.array([_count_day(key) for key in keys.dictionary.to_pylist()], pa.int64())
    return days.take(keys.indices)


def _count_day(key: int) -> int | None:
    year, month, day = key >> 9, key >> 5 & 15, key & 31
    if not _FIRST_YEAR <= year <= _LAST_YEAR:
        return None
    try:
        return (date(year, month, day) - _EPOCH).days
    except ValueError:
        return None


def _read_offset(zone: pa.Array) -> pa.Array:
    """Return the seconds that zones such as +0200 are ahead of UTC; `Z` is UTC."""
    digits = pc.replace_substring(pc.if_else(pc.equal(zone, "Z"), "+0000", zone), ":", "")
    hours = pc.utf8_slice_codeunits(digits, 1, 3).cast(pa.int64())
    minutes = pc.utf8_slice_codeunits(digits, 3, 5).cast(pa.int64())
    seconds = pc.add(pc.multiply(hours, 3600), pc.multiply(minutes, 60))
    return pc.if_else(pc.starts_with(digits, "-"), pc.negate(seconds), seconds)
