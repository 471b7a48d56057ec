"""How cost grows with the log: the exponent of a power law through measurements, 1 where cost is linear."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

LEAST_SCALE = 0.01  # smaller shops take as long as it takes to begin
LEAST_SPREAD = 2  # times: what is capped at an amount, or nearly, does not tell how its cost grows


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The least-squares slope of log(cost) over log(size). ValueError without two different sizes."""
    if len(set(sizes)) < 2:
        raise ValueError(f"an exponent needs two different sizes, found {sorted(set(sizes))}.")
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum(
        (a - mean_x) ** 2 for a in x
    )


def is_fitted(log: str) -> bool:
    """Whether the log is a made-up shop that tells how cost grows."""
    return log.startswith("synth_") and float(log.removeprefix("synth_")) >= LEAST_SCALE


def growth(measurements: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each case that was measured on two made-up shops of clearly different size: seconds over amount, and their exponent."""
    points: dict[str, list[tuple[int, float]]] = {}
    for found in measurements:
        if found["status"] == "measured" and is_fitted(found["log"]):
            points.setdefault(f"{found['suite']}: {found['name']}", []).append(
                (found["amount"], found["best_s"])
            )
            for stage, seconds in found["figures"].get("stages", {}).items():
                if seconds > 0 and found["name"] == "build":
                    points.setdefault(f"builds: stage {stage}", []).append(
                        (found["amount"], seconds)
                    )
    return {
        name: {
            "exponent": round(exponent(*zip(*at, strict=True)), 3),
            "unit_amounts_and_seconds": sorted(at),
        }
        for name, at in points.items()
        if max(at)[0] >= LEAST_SPREAD * min(at)[0]
    }
