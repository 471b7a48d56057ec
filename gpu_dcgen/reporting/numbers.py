"""Numbers and texts as a page shows them: each number with the place in the JSON files that it was taken from."""

from __future__ import annotations

import json
import unicodedata
from typing import Any, Literal

from markupsafe import Markup

Form = Literal["count", "share", "bytes", "bytes/s", "seconds", "number", "hundredths"]

NONE = "–"
LONGEST = 60  # characters of a name
_BYTES = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
_UNSEEN = (
    "Cc",
    "Cf",
    "Cs",
    "Co",
    "Zl",
    "Zp",
)  # controls, marks that turn the direction of text, surrogates, line ends


class Numbers:
    """Looks values up in JSON documents and writes them as `<data value=... data-from="manifest.json#/counts/...">`."""

    def __init__(self, **documents: Any) -> None:
        self._documents = documents

    def __call__(self, document: str, *path: str | int, form: Form = "count") -> Markup:
        value = self._documents[document]
        for step in path:
            value = value[step]
        pointer = "/".join(str(step).replace("~", "~0").replace("/", "~1") for step in path)
        return number(value, form, f"{document}.json#/{pointer}")


def number(value: float | None, form: Form = "count", source: str | None = None) -> Markup:
    """A number for readers and, in `value`, for programs; `source` is the JSON pointer of what was not computed here."""
    origin = Markup(' data-from="{}"').format(source) if source else ""
    return Markup('<data value="{}"{}>{}</data>').format(
        json.dumps(value), origin, text_of(value, form)
    )


def text_of(value: float | None, form: Form) -> str:
    if value is None:
        return NONE
    if form == "count":
        return f"{value:,}"
    if form == "share":
        return f"{value:.1%}" if value == 0 or value >= 0.001 else f"{value:.2g}"
    if form == "hundredths":
        return f"{value:.2f}"
    if form == "seconds":
        return f"{value:,.1f} s" if value < 1000 else f"{value:,.0f} s"
    if form in ("bytes", "bytes/s"):
        unit, name = next(((unit, name) for unit, name in _BYTES if value >= unit), (1, "bytes"))
        return (
            f"{value / unit:,.3g} {name}{form.removeprefix('bytes')}"
            if value < 1000 * unit
            else f"{value / unit:,.0f} {name}"
        )
    return (
        f"{value:,}"
        if isinstance(value, int) or value >= 1000 and value == int(value)
        else f"{value:.4g}"
    )


def form_of(metric: str) -> Form:
    """How a gate's value is written, by the unit that its metric names."""
    if metric in ("seconds", "bytes/s"):
        return metric  # type: ignore[return-value]
    if metric == "peak bytes":
        return "bytes"
    return "share" if metric.startswith("share of") or metric.endswith("share") else "number"


def shortened(text: Any, longest: int = LONGEST) -> str:
    """A name of somebody's data, fit for a page: one line, nothing that hides or turns text, at most `longest` characters."""
    if text is None:
        return NONE
    kept = "".join(
        "\ufffd" if unicodedata.category(sign) in _UNSEEN else sign
        for sign in str(text)[: 4 * longest]
    )
    kept = " ".join(kept.split())
    return (
        kept
        if len(kept) <= longest and len(str(text)) <= 4 * longest
        else kept[: longest - 1].rstrip() + "…"
    )
