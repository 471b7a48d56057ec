"""Fit how cost grows with the log: the exponent of a power law, 1 where cost is linear."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

MIN_SCALE = 0.01  # on smaller shops, the start of a process dominates
# Largest amount over smallest; the amounts of capped cases differ less and show no growth.
MIN_SPREAD = 2


def fit_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return the least-squares slope of log(cost) over log(size).

    ValueError without two different sizes.
    """
    if len(set(sizes)) < 2:
        raise ValueError(f"an exponent needs two different sizes, found {sorted(set(sizes))}.")
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum(
        (a - mean_x) ** 2 for a in x
    )


def is_fitted(log: str) -> bool:
    """Whether the log is a synthetic shop that is large enough to fit."""
    return log.startswith("synth_") and float(log.removeprefix("synth_")) >= MIN_SCALE


def fit_growth(measurements: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return, by case: seconds over amount, and their exponent.

    Only cases on two synthetic shops of clearly different size are fitted.
    """
    points: dict[str, list[tuple[int, float]]] = {}
    for m in measurements:
        if m["status"] == "measured" and is_fitted(m["log"]):
            case = f"{m['suite']}: {m['name']}"
            points.setdefault(case, []).append((m["amount"], m["best_s"]))
            for stage, seconds in m["figures"].get("stages", {}).items():
                if seconds > 0 and m["name"] == "build":
                    case = f"builds: stage {stage}"
                    points.setdefault(case, []).append((m["amount"], seconds))
    return {
        name: {
            "exponent": round(fit_exponent(*zip(*at, strict=True)), 3),
            "unit_amounts_and_seconds": sorted(at),
        }
        for name, at in points.items()
        if max(at)[0] >= MIN_SPREAD * min(at)[0]
    }
