"""Draw charts as SVG with Vega-Lite in this process, without script or network.

Colors are the page's CSS variables, so that one drawing serves light, dark and print. Functions
return Vega-Lite specifications; `draw_svg` draws them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import vl_convert
from markupsafe import Markup

from ..contract.schema import SPLITS
from ..contract.split_summary import WindowEdges
from .numbers import shorten

NARROW, WIDE = 300, 700  # pixels
MAX_GROUPS = 12
SPLIT_COLORS = {"train": "var(--ink)", "val": "var(--second)", "test": "var(--accent)"}
KIND_COLORS = {"positive": "var(--ink)", "hard": "var(--accent)", "random": "var(--second)"}
_DASHES = ([1, 0], [5, 2], [1, 0])

_CONFIG = {
    "aria": False,  # the figure has a label, and a table has its numbers
    "background": None,
    "font": "system-ui, sans-serif",
    "padding": 2,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)", "titleColor": "var(--soft)", "domainColor": "var(--line)",
        "tickColor": "var(--line)", "gridColor": "var(--line)", "labelFontSize": 11,
        "titleFontSize": 11, "titleFontWeight": "normal", "tickSize": 4, "labelPadding": 4,
        "titlePadding": 8, "tickCount": 4, "labelLimit": 190,
    },
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False},
}  # fmt: skip


def draw_svg(spec: dict[str, Any], title: str) -> Markup:
    """Draw a Vega-Lite specification as inline SVG with the label `title` for screen readers."""
    text = vl_convert.vegalite_to_svg({"config": _CONFIG, **spec})
    before, tag, rest = text.partition("<svg ")
    if before or not tag:
        raise ValueError(f"vl-convert: expected text that begins with <svg, found {text[:40]!r}")
    return Markup('<svg role="img" aria-label="{}" {}').format(title, Markup(rest))


def show_timeline(windows: WindowEdges, weeks: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Show each split's window, the span of its histories, and its positives by week."""
    first = _parse_time(windows.first)
    last = max(_parse_time(windows.last), first + timedelta(weeks=len(weeks["train"])))
    scale = {"type": "utc", "domain": [_format_time(first), _format_time(last)]}
    x = {"field": "start", "type": "temporal", "scale": scale, "axis": None}
    color = _color_by("split", SPLIT_COLORS)
    bands = {
        "height": 66,
        "width": WIDE,
        "data": {"values": _list_spans(windows)},
        "mark": {"type": "bar", "height": 12, "cornerRadius": 2},
        "encoding": {
            "y": {
                "field": "split",
                "type": "nominal",
                "sort": list(SPLITS),
                "title": None,
                "axis": {"labelFontSize": 12},
            },
            "x": x,
            "x2": {"field": "end"},
            "color": color,
            "opacity": {
                "field": "kind",
                "type": "nominal",
                "scale": {"domain": ["history", "positives"], "range": [0.22, 1]},
                "legend": None,
            },
        },
    }
    weekly = {
        "height": 130,
        "width": WIDE,
        "data": {"values": _stack_weeks(first, weeks)},
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
                "title": "positives per week",
                "axis": {"format": "~s"},
            },
            "y2": {"field": "below"},
            "color": color,
        },
    }
    return {"vconcat": [bands, weekly], "spacing": 8}


def _list_spans(windows: WindowEdges) -> list[dict[str, str]]:
    """List the spans of each split's histories and positives."""
    return [
        {"split": name, "kind": kind, "start": first[:19] + "Z", "end": last[:19] + "Z"}
        for name, (start, end) in zip(SPLITS, windows.spans, strict=True)
        for kind, first, last in (("history", windows.first, start), ("positives", start, end))
        if first < last
    ]


def _stack_weeks(first: datetime, weeks: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    """List the bars of each week, the splits on top of each other."""
    bars = []
    for k in range(len(weeks["train"])):
        start, end = (_format_time(first + timedelta(weeks=week)) for week in (k, k + 1))
        below = 0
        for name in SPLITS:
            above = below + weeks[name][k]
            if above > below:
                bars.append(
                    {"split": name, "start": start, "end": end, "below": below, "above": above}
                )
            below = above
    return bars


def _parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)


def _format_time(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _color_by(field: str, colors: Mapping[str, str]) -> dict[str, Any]:
    scale = {"domain": list(colors), "range": list(colors.values())}
    return {"field": field, "type": "nominal", "scale": scale, "legend": None}


def compute_shares(counts: Sequence[int], total: int | None = None) -> list[float]:
    """Return counts over `total`, by default their sum; 0 where that is 0."""
    total = sum(counts) if total is None else total
    return [n / total if total else 0.0 for n in counts]


def show_by_split(
    labels: Sequence[Any],
    counts: Mapping[str, Sequence[int]],
    totals: Mapping[str, int] | None,
    x_title: str,
    y_title: str,
) -> dict[str, Any]:
    """Show a line per split over `labels`: shares of `totals`, or of the sum of `counts`.

    Numbers as labels are on a quantitative scale, with steps; texts are at equal distances.
    """
    shares = {
        split: compute_shares(counts[split], None if totals is None else totals[split])
        for split in SPLITS
    }
    values = [
        {"x": label, "share": share, "split": split}
        for split in SPLITS
        for label, share in zip(labels, shares[split], strict=True)
    ]
    is_text = any(isinstance(label, str) for label in labels)
    return {
        "width": NARROW,
        "height": 140,
        "data": {"values": values},
        "mark": {
            "type": "line",
            "interpolate": "linear" if is_text else "step-after",
            "strokeWidth": 1.5,
            "point": False,
        },
        "encoding": {
            "x": {
                "field": "x",
                "type": "ordinal" if is_text else "quantitative",
                "sort": None,
                "title": x_title,
                "axis": {"labelAngle": 0, "labelOverlap": "greedy", "labelSeparation": 5},
            },
            "y": {
                "field": "share",
                "type": "quantitative",
                "title": y_title,
                "axis": {"format": "~%"},
            },
            "color": _color_by("split", SPLIT_COLORS),
            "strokeDash": {
                "field": "split",
                "type": "nominal",
                "legend": None,
                "scale": {"domain": list(SPLITS), "range": _DASHES},
            },
        },
    }


def show_groups_by_split(
    names: Sequence[str], counts: Mapping[str, Sequence[int]], totals: Mapping[str, int]
) -> dict[str, Any]:
    """Show a row per product group with a mark per split: shares of `totals`."""
    values = [
        {"place": k, "share": share, "split": split}
        for split in SPLITS
        for k, share in enumerate(compute_shares(counts[split], totals[split]))
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
        "params": [{"name": "groups", "value": [shorten(name, 28) for name in names]}],
        "data": {"values": values},
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 0.9},
        "encoding": {
            "x": {
                "field": "share",
                "type": "quantitative",
                "title": "share of the split's positives",
                "axis": {"format": "~%"},
            },
            "y": {"field": "place", "type": "ordinal", "title": None, "axis": axis},
            "color": _color_by("split", SPLIT_COLORS),
            "shape": {
                "field": "split",
                "type": "nominal",
                "legend": None,
                "scale": {"domain": list(SPLITS), "range": ["circle", "square", "diamond"]},
            },
        },
    }


def show_histogram(counts: Sequence[int], x_title: str, y_title: str) -> dict[str, Any]:
    """Show bars of equal width over 0..1."""
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


def show_concentration(popularity: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Show the share of the rows that the most popular share of the items takes.

    The dotted line is where all items are equally popular.
    """
    points = [
        {"kind": kind, "items": float(items.rstrip("%")) / 100, "rows": rows}
        for kind, shares in popularity.items()
        for items, rows in [*shares.items(), ("100%", 1.0)]
    ]
    equal = [{"items": 10 ** (-3 + k / 20), "rows": 10 ** (-3 + k / 20)} for k in range(61)]
    x = {
        "field": "items",
        "type": "quantitative",
        "title": "most popular share of the items",
        "scale": {"type": "log", "domain": [0.001, 1]},
        "axis": {"values": [0.001, 0.01, 0.1, 0.5, 1], "format": "~%", "labelOverlap": False},
    }
    y = {
        "field": "rows",
        "type": "quantitative",
        "title": "share of the rows",
        "axis": {"format": "~%"},
    }
    color = _color_by("kind", KIND_COLORS)
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
