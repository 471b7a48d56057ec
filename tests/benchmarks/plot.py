"""Draw the results as pictures: scaling.svg and peers.svg.

    python -m tests.benchmarks.plot RESULTS.json ... [--to FOLDER] [--log NAME]

scaling.svg shows the seconds of whole builds and of their longest stages over samples, on
logarithmic axes, beside the line of linear growth. peers.svg shows our rates beside those of other
libraries on one log: the largest, unless --log names one.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from .growth import fit_growth, is_fitted
from .measure import ROOT
from .report import read_results, select_measured
from .svg import Picture

MAX_STAGES = 4
PANELS = {  # suite -> title
    "similarity": "Item-item cosine: products/s (top-100: no minimum of common buyers)",
    "negatives": "Negatives/s; in brackets, how many were false, and how many were not on sale",
    "sequences": "The last 50 purchases: lists/s",
    "writing": "Samples to Parquet, ZSTD 3: rows/s; in brackets, bytes a row",
}


def draw_scaling(results: dict[str, Any]) -> str:
    """Draw seconds over samples of builds: synthetic shops, their longest stages, real logs."""
    builds = [m for m in select_measured(results, "builds") if m["name"] == "build"]
    real = [m for m in builds if not m["log"].startswith("synth_")]
    synthetic = sorted((m for m in builds if is_fitted(m["log"])), key=lambda m: m["amount"])
    if not synthetic:
        raise SystemExit(
            "the results have no build of a synthetic shop: "
            "run python -m tests.benchmarks --only builds."
        )
    largest = synthetic[-1]["figures"]["stages"]
    names = sorted(largest, key=largest.get, reverse=True)[:MAX_STAGES]
    curves = {"whole build": [(m["amount"], m["best_s"]) for m in synthetic]}
    curves |= {
        name: [(m["amount"], m["figures"]["stages"][name]) for m in synthetic] for name in names
    }
    amounts = [m["amount"] for m in synthetic + real]
    seconds = [s for curve in curves.values() for _, s in curve] + [m["best_s"] for m in real]
    picture = Picture(800, 470, "Seconds of builds over their samples")
    x, y = (
        _Axis(min(amounts), max(amounts), 70, 590),
        _Axis(max(0.01, min(seconds)), max(seconds), 410, 60),
    )
    picture.text_at(20, 28, "Whole builds: seconds over samples", "title")
    _draw_grid(picture, x, y)
    (last_amount, last_s), first_amount = curves["whole build"][-1], synthetic[0]["amount"]
    picture.line(
        [(x(a), y(last_s * a / last_amount)) for a in (first_amount, last_amount)], "linear"
    )
    power = fit_growth(results["measurements"]).get("builds: build")
    labels = []
    for number, (name, curve) in enumerate(curves.items()):
        points = [(x(amount), y(max(s, 0.01))) for amount, s in curve]
        picture.line(points, f"s{number}")
        for at in points:
            picture.dot(*at, 3.5, f"line s{number}")
        labels.append((points[-1][1], f"{name}: {curve[-1][1]:.3g} s", f"s{number}"))
    for m in real:
        picture.dot(x(m["amount"]), y(m["best_s"]), 5, "real")
        picture.text_at(
            x(m["amount"]) - 6, y(m["best_s"]) - 10, m["log"].replace("-", " "), "quiet", "end"
        )
    at = 0.0
    for position, text, style in sorted(labels):
        at = max(position + 4, at + 17)  # so that labels do not overlap
        picture.line([(600, at - 4), (612, at - 4)], style)
        picture.text_at(617, at, text)
    grows = (
        f" Fitted: seconds grow with the power {power['exponent']:.2f} of the samples."
        if power
        else ""
    )
    picture.text_at(
        20, 456, f"Lines: synthetic shops; rings: real ones. Dashed: linear.{grows}", "quiet"
    )
    return picture.text()


def draw_peers(results: dict[str, Any], log: str) -> str:
    """Draw rates on one log as bars, a panel a suite; ours in color."""
    panels = {
        suite: [m for m in select_measured(results, suite) if m["log"] == log] for suite in PANELS
    }
    panels = {suite: cases for suite, cases in panels.items() if cases}
    if not panels:
        raise SystemExit(f"nothing was measured beside peers on the log {log!r}.")
    height = 50 + sum(44 + 22 * len(cases) for cases in panels.values())
    picture = Picture(800, height, f"Rates beside peers, on {log}")
    picture.text_at(
        20,
        28,
        f"Beside peers, on {log} ({results['logs'][log]['transactions']:,} transactions)",
        "title",
    )
    top = 50.0
    for suite, cases in panels.items():
        picture.text_at(20, top + 16, PANELS[suite], "quiet")
        top += 26
        fastest = max(m["per_s"] for m in cases)
        for m in cases:
            picture.text_at(278, top + 13, m["name"], anchor="end")
            width = 330 * m["per_s"] / fastest
            picture.bar(286, top + 2, width, 15, "peer" if m["peer"] else "ours")
            picture.text_at(292 + width, top + 14, _render_label(m))
            top += 22
        top += 18
    return picture.text()


def _render_label(m: dict[str, Any]) -> str:
    figures, rate = m["figures"], _render_amount(m["per_s"])
    if "false_share" in figures:
        return f"{rate} ({figures['false_share']:.2%}, {figures['not_on_sale_share']:.0%})"
    return f"{rate} ({figures['bytes_a_row']:.1f})" if "bytes_a_row" in figures else rate


def _render_amount(n: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.3g}"


class _Axis:
    """A logarithmic scale from values to positions, slightly wider than the values."""

    def __init__(self, low: float, high: float, first: float, last: float) -> None:
        self.low, self.high = math.log10(low) - 0.15, math.log10(high) + 0.15
        self.first, self.last = first, last

    def __call__(self, value: float) -> float:
        return self.first + (self.last - self.first) * (math.log10(value) - self.low) / (
            self.high - self.low
        )

    def ticks(self) -> list[float]:
        """Return powers of ten; with fewer than three, also their doubles and fivefolds."""
        powers = [10.0**p for p in range(math.floor(self.low), math.floor(self.high) + 1)]
        steps = (1, 2, 5) if self.high - self.low < 3 else (1,)
        return [
            n * power
            for power in powers
            for n in steps
            if self.low <= math.log10(n * power) <= self.high
        ]


def _draw_grid(picture: Picture, x: _Axis, y: _Axis) -> None:
    for value in x.ticks():
        picture.line([(x(value), y.first), (x(value), y.last)], "axis")
        picture.text_at(x(value), y.first + 18, _render_amount(value), "quiet", "middle")
    for value in y.ticks():
        picture.line([(x.first, y(value)), (x.last, y(value))], "axis")
        picture.text_at(x.first - 8, y(value) + 4, f"{value:g} s", "quiet", "end")


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks.plot", description=__doc__.splitlines()[0]
    )
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument(
        "--to", type=Path, default=ROOT / "docs" / "images", help="folder of the pictures"
    )
    parser.add_argument("--log", help="the log of peers.svg")
    options = parser.parse_args()
    results = read_results(options.results)
    peer_logs = [
        m["log"] for m in results["measurements"] if m["status"] == "measured" and m["peer"]
    ]
    log = options.log or max(
        peer_logs, key=lambda name: results["logs"][name]["transactions"], default=""
    )
    options.to.mkdir(parents=True, exist_ok=True)
    (options.to / "scaling.svg").write_text(draw_scaling(results), encoding="utf-8")
    (options.to / "peers.svg").write_text(draw_peers(results, log), encoding="utf-8")


if __name__ == "__main__":
    main()
