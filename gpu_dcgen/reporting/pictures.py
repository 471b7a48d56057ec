"""Charts as SVG texts, by Vega-Lite in this process: no script and no network when they are drawn or looked at.

Colours are the page's variables, so that one drawing serves light, dark and paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import vl_convert
from markupsafe import Markup

from ..contract.schema import SPLITS
from .numbers import shortened

NARROW, WIDE = 300, 700  # pixels
MOST_GROUPS = 12
SPLIT_COLORS = {"train": "var(--ink)", "val": "var(--second)", "test": "var(--accent)"}
KIND_COLORS = {"positive": "var(--ink)", "hard": "var(--accent)", "random": "var(--second)"}
_DASHES = ([1, 0], [5, 2], [1, 0])

_CONFIG = {
    "aria": False,  # the figure says what it shows, and a table stands beside it
    "background": None,
    "font": "system-ui, sans-serif",
    "padding": 2,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)", "titleColor": "var(--soft)", "domainColor": "var(--line)", "tickColor": "var(--line)",
        "gridColor": "var(--line)", "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "tickSize": 4,
        "labelPadding": 4, "titlePadding": 8, "tickCount": 4, "labelLimit": 190,
    },
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False},
}  # fmt: skip


def draw(spec: dict[str, Any], title: str) -> Markup:
    """A Vega-Lite specification as inline SVG that is called `title` by readers of screens."""
    text = vl_convert.vegalite_to_svg({"config": _CONFIG, **spec})
    start, found, rest = text.partition("<svg ")
    if start or not found:
        raise ValueError(f"vl-convert: expected text that begins with <svg, found {text[:40]!r}")
    return Markup('<svg role="img" aria-label="{}" {}').format(title, Markup(rest))


def timeline(split: dict[str, Any], weeks: dict[str, list[int]]) -> dict[str, Any]:
    """Each split's window, what its histories reach back to, and its positives by week, on one scale of time."""
    cuts = [split["windows"][name] for name in ("first", "cut1", "cut2", "last")]
    spans = [
        {"split": name, "kind": kind, "start": start[:19], "end": end[:19]}
        for k, name in enumerate(SPLITS)
        for kind, start, end in (("history", cuts[0], cuts[k]), ("positives", cuts[k], cuts[k + 1]))
        if start < end
    ]
    first = _moment(cuts[0])
    bars = []
    for k in range(len(weeks["train"])):
        below = 0
        for name in SPLITS:
            above = below + weeks[name][k]
            start, end = (_iso(first + timedelta(weeks=week)) for week in (k, k + 1))
            if above > below:
                bars.append(
                    {"split": name, "start": start, "end": end, "below": below, "above": above}
                )
            below = above
    last = max(_moment(cuts[3]), first + timedelta(weeks=len(weeks["train"])))
    scale = {"type": "utc", "domain": [_iso(first), _iso(last)]}
    x = {"field": "start", "type": "temporal", "scale": scale, "axis": None}
    color = {"field": "split", "type": "nominal", "scale": _scale(SPLIT_COLORS), "legend": None}
    bands = {
        "height": 66,
        "width": WIDE,
        "data": {"values": [{**one, "start": one["start"] + "Z", "end": one["end"] + "Z"} for one in spans]},
        "mark": {"type": "bar", "height": 12, "cornerRadius": 2},
        "encoding": {
            "y": {"field": "split", "type": "nominal", "sort": list(SPLITS), "title": None, "axis": {"labelFontSize": 12}},
            "x": x,
            "x2": {"field": "end"},
            "color": color,
            "opacity": {"field": "kind", "type": "nominal", "scale": {"domain": ["history", "positives"], "range": [0.22, 1]},
                        "legend": None},
        },
    }  # fmt: skip
    weekly = {
        "height": 130,
        "width": WIDE,
        "data": {"values": bars},
        "mark": {"type": "rect", "stroke": "var(--paper)", "strokeWidth": 1},
        "encoding": {
            "x": {
                **x,
                "axis": {
                    "title": None,
                    "tickCount": 10,
                    "format": "%b %Y",
                    "labelOverlap": "greedy",
                    "labelSeparation": 8,
                },
            },
            "x2": {"field": "end"},
            "y": {
                "field": "above",
                "type": "quantitative",
                "title": "positives a week",
                "axis": {"format": "~s"},
            },
            "y2": {"field": "below"},
            "color": color,
        },
    }
    return {"vconcat": [bands, weekly], "spacing": 8}


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _scale(colors: dict[str, str]) -> dict[str, Any]:
    return {"domain": list(colors), "range": list(colors.values())}


def shares(counts: Sequence[int], whole: int | None = None) -> list[float]:
    total = whole if whole is not None else sum(counts)
    return [n / total if total else 0.0 for n in counts]


def by_split(
    labels: Sequence[Any],
    counts: dict[str, Sequence[int]],
    whole: dict[str, int] | None,
    x_title: str,
    y_title: str,
) -> dict[str, Any]:
    """Steps over `labels`, a line a split: shares of `whole`, or of what is shown. Numbers make a scale, texts make places."""
    values = [
        {"x": label, "share": share, "split": split}
        for split in SPLITS
        for label, share in zip(labels, shares(counts[split], whole and whole[split]), strict=True)
    ]
    places = any(isinstance(label, str) for label in labels)
    return {
        "width": NARROW,
        "height": 140,
        "data": {"values": values},
        "mark": {"type": "line", "interpolate": "linear" if places else "step-after", "strokeWidth": 1.5, "point": False},
        "encoding": {
            "x": {"field": "x", "type": "ordinal" if places else "quantitative", "sort": None, "title": x_title,
                  "axis": {"labelAngle": 0, "labelOverlap": "greedy", "labelSeparation": 5}},
            "y": {"field": "share", "type": "quantitative", "title": y_title, "axis": {"format": "~%"}},
            "color": {"field": "split", "type": "nominal", "scale": _scale(SPLIT_COLORS), "legend": None},
            "strokeDash": {"field": "split", "type": "nominal", "legend": None,
                           "scale": {"domain": list(SPLITS), "range": _DASHES}},
        },
    }  # fmt: skip


def groups_by_split(
    names: Sequence[str], counts: dict[str, Sequence[int]], whole: dict[str, int]
) -> dict[str, Any]:
    """A row a product group, a mark a split: shares of `whole`."""
    values = [
        {"place": k, "share": share, "split": split}
        for split in SPLITS
        for k, share in enumerate(shares(counts[split], whole[split]))
    ]
    axis = {
        "grid": True,
        "labelFontSize": 11.5,
        "labelExpr": "groups[datum.value]",
        "gridDash": [1, 3],
    }
    return {
        "width": WIDE - 150,
        "height": {"step": 20},
        "params": [{"name": "groups", "value": [shortened(name, 28) for name in names]}],
        "data": {"values": values},
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 0.9},
        "encoding": {
            "x": {"field": "share", "type": "quantitative", "title": "share of the split's positives", "axis": {"format": "~%"}},
            "y": {"field": "place", "type": "ordinal", "title": None, "axis": axis},
            "color": {"field": "split", "type": "nominal", "scale": _scale(SPLIT_COLORS), "legend": None},
            "shape": {"field": "split", "type": "nominal", "legend": None,
                      "scale": {"domain": list(SPLITS), "range": ["circle", "square", "diamond"]}},
        },
    }  # fmt: skip


def histogram(counts: Sequence[int], x_title: str, y_title: str) -> dict[str, Any]:
    """Bars of equal width over 0..1."""
    values = [
        {"x": k / len(counts), "x2": (k + 1) / len(counts), "n": n} for k, n in enumerate(counts)
    ]
    return {
        "width": NARROW,
        "height": 140,
        "data": {"values": values},
        "mark": {"type": "bar", "color": "var(--second)", "binSpacing": 1},
        "encoding": {
            "x": {
                "field": "x",
                "type": "quantitative",
                "title": x_title,
                "scale": {"domain": [0, 1]},
                "bin": {"binned": True},
            },
            "x2": {"field": "x2"},
            "y": {"field": "n", "type": "quantitative", "title": y_title, "axis": {"format": "~s"}},
        },
    }


def concentration(popularity: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Share of the rows that the most popular share of the items takes; the dotted line is where all items are equal."""
    points = [
        {"kind": kind, "items": float(items.rstrip("%")) / 100, "rows": rows}
        for kind, of in popularity.items()
        for items, rows in [*of.items(), ("100%", 1.0)]
    ]
    equal = [{"items": 10 ** (-3 + k / 20), "rows": 10 ** (-3 + k / 20)} for k in range(61)]
    x = {"field": "items", "type": "quantitative", "title": "most popular share of the items",
         "scale": {"type": "log", "domain": [0.001, 1]},
         "axis": {"values": [0.001, 0.01, 0.1, 0.5, 1], "format": "~%", "labelOverlap": False}}  # fmt: skip
    y = {
        "field": "rows",
        "type": "quantitative",
        "title": "share of the rows",
        "axis": {"format": "~%"},
    }
    color = {"field": "kind", "type": "nominal", "scale": _scale(KIND_COLORS), "legend": None}
    return {
        "width": NARROW,
        "height": 140,
        "layer": [
            {
                "data": {"values": equal},
                "mark": {
                    "type": "line",
                    "strokeWidth": 1,
                    "strokeDash": [2, 3],
                    "color": "var(--line)",
                },
                "encoding": {"x": x, "y": y},
            },
            {
                "data": {"values": points},
                "mark": {"type": "line", "point": {"size": 24}, "strokeWidth": 1.5},
                "encoding": {"x": x, "y": y, "color": color},
            },
        ],
    }
