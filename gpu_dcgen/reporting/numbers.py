"""Format numbers and names for a page; numbers carry their place in the JSON files."""

from __future__ import annotations

import json
import unicodedata
from typing import Any, Literal

from markupsafe import Markup

Form = Literal["count", "share", "bytes", "bytes/s", "seconds", "number", "hundredths"]

NONE = "–"
MAX_LENGTH = 60  # characters of a name
_SMALLEST = 0.0001  # number that is shown with its digits
_BYTES = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
# Unicode categories: controls, marks that turn the direction of text, surrogates, line ends.
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
_FORMS: dict[str, Form] = {"seconds": "seconds", "bytes/s": "bytes/s", "peak bytes": "bytes"}


class Numbers:
    """Look up values in JSON documents and format them with their JSON pointer.

    `<data value=... data-from="manifest.json#/counts/...">`
    """

    def __init__(self, **documents: Any) -> None:
        self._documents = documents

    def __call__(self, document: str, *path: str | int, form: Form = "count") -> Markup:
        """Format the value at `path` of a document."""
        value = self._documents[document]
        for step in path:
            value = value[step]
        pointer = "/".join(str(step).replace("~", "~0").replace("/", "~1") for step in path)
        return format_number(value, form, f"{document}.json#/{pointer}")


def format_number(value: float | None, form: Form = "count", source: str | None = None) -> Markup:
    """Format a number for people and, in the attribute `value`, for programs.

    `source` is the JSON pointer of a number that was not computed here.
    """
    origin = Markup(' data-from="{}"').format(source) if source else ""
    return Markup('<data value="{}"{}>{}</data>').format(
        json.dumps(value), origin, format_value(value, form)
    )


def format_value(value: float | None, form: Form) -> str:
    """Format a number for people."""
    if value is None:
        return NONE
    if form == "count":
        return f"{value:,}"
    if form == "share":
        return f"{value:.1%}" if value == 0 or value >= 0.001 else "< 0.1%"
    if form == "hundredths":
        return f"{value:.2f}"
    if form == "seconds":
        return f"{value:,.1f} s" if value < 1000 else f"{value:,.0f} s"
    if form in ("bytes", "bytes/s"):
        unit, name = next(((unit, name) for unit, name in _BYTES if value >= unit), (1, "bytes"))
        amount = value / unit
        name += form.removeprefix("bytes")
        return f"{amount:,.3g} {name}" if amount < 1000 else f"{amount:,.0f} {name}"
    if 0 < abs(value) < _SMALLEST:
        return f"< {_SMALLEST}"
    is_whole = isinstance(value, int) or value == int(value)
    return f"{int(value):,}" if is_whole else f"{value:.4g}"


def choose_form(metric: str) -> Form:
    """Return the form of a gate's value, by the unit that its metric names."""
    if metric in _FORMS:
        return _FORMS[metric]
    is_share = metric.startswith("share of") or metric.endswith("share") or " / " in metric
    return "share" if is_share else "number"


def shorten(text: Any, max_length: int = MAX_LENGTH) -> str:
    """Make a text of the data safe for a page.

    The result is one line of at most `max_length` characters, without characters that hide or turn
    text.
    """
    if text is None:
        return NONE
    whole = str(text)
    # Enough characters for `max_length` after runs of spaces are joined.
    start = whole[: 4 * max_length]
    visible = "".join(
        "\ufffd" if unicodedata.category(sign) in _INVISIBLE else sign for sign in start
    )
    line = " ".join(visible.split())
    if len(line) <= max_length and len(whole) <= len(start):
        return line
    return line[: max_length - 1].rstrip() + "…"
