"""Seeds of tests that take seconds for each of many settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def spread_seeds(settings: Iterable[Any], seeds: Sequence[int]) -> list[Any]:
    """Return all pairs of a setting and a seed; but for one of each setting they are slow tests."""
    return [
        pytest.param(
            setting,
            seed,
            id=f"{getattr(setting, '__name__', setting)}-{seed}",
            marks=[] if place == number % len(seeds) else [pytest.mark.slow],
        )
        for number, setting in enumerate(settings)
        for place, seed in enumerate(seeds)
    ]
