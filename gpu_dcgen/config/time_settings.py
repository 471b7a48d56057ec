"""Types of the settings on times: formats of text, time zones, events."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FULL_MONTHS = (
    "january|february|march|april|may|june|july|august|september|october|november|december"
)
# Directives of strptime that can be read, and what they match.
TIME_DIRECTIVES = {
    "Y": r"\d{4}",
    "y": r"\d{2}",
    "m": r"1[0-2]|0?[1-9]",
    "b": f"(?i:{'|'.join(MONTHS)})",
    "B": f"(?i:{_FULL_MONTHS})",
    "d": r"3[01]|[12]\d|0?[1-9]",
    "H": r"2[0-3]|[01]?\d",
    "I": r"1[0-2]|0?[1-9]",
    "p": r"(?i:am|pm)",
    "M": r"[0-5]?\d",
    "S": r"[0-5]?\d",
    "f": r"\d{1,9}",
    "z": r"Z|[+-]\d{2}:?\d{2}",
}


def list_directives(time_format: str) -> list[str]:
    """Return the directives of a format, in order; `%%` is none."""
    return [letter for letter in re.findall(r"%(.?)", time_format) if letter != "%"]


def _require_format(time_format: str) -> str:
    letters = list_directives(time_format)
    known = ", ".join(f"%{letter}" for letter in TIME_DIRECTIVES)
    if unknown := [letter for letter in letters if letter not in TIME_DIRECTIVES]:
        raise ValueError(f"found %{unknown[0]} in {time_format!r}; expected some of {known}")
    counts = [
        sum(letters.count(letter) for letter in choice) for choice in ("Yy", "mbB", "d", "HI")
    ]
    is_date = counts[:3] == [1, 1, 1] and counts[3] <= 1 and len(set(letters)) == len(letters)
    if not is_date or ("I" in letters) != ("p" in letters):
        raise ValueError(
            f"found {time_format!r}; expected a year, a month and a day, each once, and hours as "
            "%H, or as %I with %p"
        )
    return time_format


def _require_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, LookupError, ValueError) as error:
        raise ValueError(
            f"found {name!r}; expected a name such as Europe/Berlin (a system without time zones "
            "needs the package tzdata)"
        ) from error
    return name


def _to_texts(events: Any) -> Any:
    """Return the mapping with keys as text, as YAML reads 1 as a number."""
    is_plain = isinstance(events, dict) and all(type(key) in (str, int) for key in events)
    return {str(key): value for key, value in events.items()} if is_plain else events


TimeFormat = Annotated[str, AfterValidator(_require_format)]
TimeZone = Annotated[str, AfterValidator(_require_zone)]
TimeUnit = Literal["s", "ms", "us", "ns"]
Events = Annotated[dict[str, Literal["purchase", "view", "ignore"]], BeforeValidator(_to_texts)]
