"""Shops for tests of single stages, on any backend.

    make_shop(backend, lines)             a Shop as stage 1 returns it, from plain lists
    Stages(backend, tables, config)       the stages over the tables of a shop, and the oracle
    list_neighbors(stages)                the result of stage 5 as plain lists

Arrays of a shop or stage are the backend's; `Stages.host` converts them to plain lists.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Sequence

import numpy as np
import pyarrow as pa

from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.inputs.entities import Category
from gpu_dcgen.inputs.shop import InputReport, Shop, load_shop
from gpu_dcgen.monitoring.progress import ProgressTracker
from gpu_dcgen.negative_sampler import SamplerInputs, find_candidates
from gpu_dcgen.preparation.features import AsOfFeatures, compute_features
from gpu_dcgen.preparation.interactions import Interactions, build_interactions
from gpu_dcgen.preparation.splits import SplitPlan, plan_splits
from gpu_dcgen.preparation.windows import Windows, cut_windows
from gpu_dcgen.similarity_computer.compute import Neighbors, compute_neighbors
from tests.support import reference
from tests.support.reference.similarity import find_neighbors
from tests.support.reference.world import read_log
from tests.support.shops import DAY, Tables, random_shop, write_shop

USER_COLUMNS = ("club_status", "news_frequency")
ITEM_COLUMNS = (
    "product_group",
    "color_group",
    "garment_group",
    "department",
    "index_group",
    "product_code",
    "section",
    "name",
)

Line = tuple[int, int, float] | tuple[int, int, float, float] | tuple[int, int, float, float, int]


def make_shop(
    backend: Any,
    lines: Sequence[Line],
    *,
    n_users: int | None = None,
    n_items: int | None = None,
    ages: Sequence[int] | None = None,
    columns: dict[str, Sequence[str | None]] | None = None,
    views: Sequence[tuple[int, int, float]] | None = None,
    prices: bool = True,
) -> Shop:
    """Make a shop of accepted lines (user, item, day[, price[, channel]]), in this order.

    Days count from 1970. Price is 1 and channel -1 (unknown) where a line leaves them out;
    `prices=False` is a log without prices. Users and items are called u000, u001, ... and i000,
    i001, ...; as many as occur, or more. `columns` gives the values of user or item columns, None
    for null; the others are null throughout. `views` are (user, item, day).
    """
    user, item, day, price, channel = zip(
        *((*line, 1.0, -1)[:5] if len(line) != 4 else (*line, -1) for line in lines), strict=True
    )
    n_users = max(user) + 1 if n_users is None else n_users
    n_items = max(item) + 1 if n_items is None else n_items
    distinct = np.unique(np.array(price, dtype=np.float64)) if prices else np.empty(0)
    codes = np.searchsorted(distinct, price) if prices else np.zeros(len(lines))

    def array(values: Any, dtype: Any) -> Any:
        return backend.from_host(np.array(values).astype(dtype))

    def column(name: str, n: int) -> Category:
        values = (columns or {}).get(name, [None] * n)
        known = sorted({value for value in values if value is not None})
        return Category(
            array([-1 if value is None else known.index(value) for value in values], np.int32),
            tuple(known),
        )

    def times(days: Sequence[float]) -> Any:
        return array([round(d * DAY) for d in days], np.int64)

    def viewed() -> tuple[Any, Any, Any]:
        return (
            times([d for _, _, d in views]),
            array([u for u, _, _ in views], np.int32),
            array([i for _, i, _ in views], np.int32),
        )

    return Shop(
        user_ids=pa.array([f"u{u:03d}" for u in range(n_users)], pa.string()),
        item_ids=pa.array([f"i{i:03d}" for i in range(n_items)], pa.string()),
        age=array([-1] * n_users if ages is None else ages, np.int16),
        user_columns={name: column(name, n_users) for name in USER_COLUMNS},
        item_columns={name: column(name, n_items) for name in ITEM_COLUMNS},
        time=times(day),
        user=array(user, np.int32),
        item=array(item, np.int32),
        price=array(codes, np.int32),
        prices=distinct,
        channel=array(channel, np.int8),
        views=None if views is None else viewed(),
        report=InputReport(
            rows={}, rejects={}, left_out={}, quality_score=1.0, warnings=(), files=()
        ),
    )


class Stages:
    """The stages over one shop's tables on one backend, run on first use, and the oracle."""

    def __init__(self, backend: Any, tables: Tables, config: DatasetConfig) -> None:
        self.backend, self.tables, self.config = backend, tables, config

    @cached_property
    def shop(self) -> Shop:
        with TemporaryDirectory() as folder:
            return load_shop(write_shop(self.tables, Path(folder)), self.config, self.backend)

    @cached_property
    def log(self) -> Interactions:
        return build_interactions(self.shop, self.config, self.backend)

    @cached_property
    def windows(self) -> Windows:
        return cut_windows(
            self.shop.time, self.log.first_time, self.log.last_time, self.config.split, self.backend
        )

    @cached_property
    def features(self) -> AsOfFeatures:
        return compute_features(self.log, self.windows.cut1, self.config, self.backend)

    @cached_property
    def plan(self) -> SplitPlan:
        return plan_splits(self.log, self.features, self.windows, self.config, self.backend)

    @cached_property
    def neighbors(self) -> Neighbors:
        return compute_neighbors(
            self.log, self.windows.cut1, self.config, self.backend, ProgressTracker()
        )

    @cached_property
    def sampler_inputs(self) -> SamplerInputs:
        stages = self.log, self.features, self.neighbors
        candidates = find_candidates(*stages, self.plan, self.config, self.backend)
        return SamplerInputs(*stages, candidates)

    @cached_property
    def oracle(self) -> reference.Log:
        return read_log(self.tables, self.config)

    @cached_property
    def expected_log(self) -> list[reference.Interaction]:
        """The oracle's interactions in our rows' order: (user, time, item)."""
        return sorted(self.oracle.interactions, key=lambda e: (e.user, e.time, e.item))

    @cached_property
    def oracle_snapshots(self) -> reference.Snapshots:
        return reference.Snapshots(self.oracle, self.config)

    def host(self, array: Any) -> list:
        """Convert an array of the backend to plain values."""
        return self.backend.to_host(array).tolist()


def small_shop(seed: int) -> Tables:
    """Draw a shop for the tests of similarity: 16 users, 24 items, 260 rows, and views."""
    return random_shop(seed, n_users=16, n_items=24, n_rows=260, views=True)


NeighborRow = list[tuple[int, float, int]]  # (item, similarity, common users), the nearest first


def list_neighbors(stages: Stages) -> list[NeighborRow]:
    """List each item's neighbors."""
    neighbors = stages.neighbors
    offsets = stages.host(neighbors.offsets)
    columns = (neighbors.item, neighbors.similarity, neighbors.common_users)
    rows = list(zip(*map(stages.host, columns), strict=True))
    return [rows[start:stop] for start, stop in zip(offsets[:-1], offsets[1:], strict=True)]


def list_expected_neighbors(
    stages: Stages, config: DatasetConfig | None = None
) -> list[NeighborRow]:
    """List each item's neighbors by the oracle, with the stages' settings or `config`."""
    return [
        [(n.item, float(n.similarity), n.common) for n in row]
        for row in find_neighbors(stages.oracle, config or stages.config)
    ]
