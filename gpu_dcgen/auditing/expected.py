"""Derive from the input tables what a dataset of them must hold."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..config import DatasetConfig
from ..contract.schema import SPLITS
from ..errors import InputError
from .input_files import NAME_THE_FOLDER
from .input_tables import InputCounts, read_tables
from .item_snapshots import ItemSnapshots, find_price_edges
from .positives import ExpectedPositives, select_positives
from .purchase_log import Cuts, PurchaseLog, build_log, find_cuts


class _CutLogs:
    """A log as it was known before several times, one of them at a time in memory."""

    def __init__(self, whole: PurchaseLog) -> None:
        self._whole = whole
        self._cut: tuple[int, PurchaseLog] | None = None

    def before(self, end: int) -> PurchaseLog:
        """Return the log before a time."""
        if self._cut is None or self._cut[0] != end:
            self._cut = None  # before the next one takes memory
            self._cut = end, self._whole.before(end)
        return self._cut[1]


@dataclass(frozen=True)
class ExpectedSplit:
    """One split: its positives in file order, and what was known by the end of its window."""

    number: int  # 0 train, 1 val, 2 test
    start: int  # of its window, in ns
    end: int  # exclusive
    snapshots: ItemSnapshots
    user: np.ndarray  # (n,) int32  of the positives
    item: np.ndarray  # (n,) int32
    time: np.ndarray  # (n,) int64
    copy: np.ndarray  # (n,) int64
    weight: np.ndarray | None  # (n,) float64  None: all 1
    logs: _CutLogs

    @property
    def name(self) -> str:
        """`train`, `val` or `test`."""
        return SPLITS[self.number]

    @property
    def log(self) -> PurchaseLog:
        """The log that ends with the window; it is made again after another split's."""
        return self.logs.before(self.end)

    @property
    def table(self) -> str:
        """The name of the split's table, without suffix."""
        return f"{self.name}_dataset"

    @property
    def n_groups(self) -> int:
        """Number of positives."""
        return len(self.user)


@dataclass(frozen=True)
class ExpectedDataset:
    """What the inputs and the configuration require of a dataset."""

    inputs: InputCounts
    log: PurchaseLog
    cuts: Cuts
    price_edges: tuple[int, ...]  # of prices before the first cut
    positives: ExpectedPositives
    splits: list[ExpectedSplit]


def derive_dataset(
    inputs: Path, config: DatasetConfig, listed: Collection[str] = ()
) -> ExpectedDataset:
    """Read the inputs and derive the dataset. InputError if they allow none.

    `listed` names the tables that the dataset was built from.
    """
    tables = read_tables(inputs, config, listed)
    if not len(tables.time):
        raise InputError(f"{inputs}: transactions has no acceptable row.\n{NAME_THE_FOLDER}")
    cuts = find_cuts(tables.time, config.split)
    is_cut = config.split.strategy != "leave_last"
    if is_cut and not cuts.first < cuts.cut1 < cuts.cut2 <= cuts.last:
        raise InputError(
            f"{inputs}: the time axis cannot be cut in three windows.\n{NAME_THE_FOLDER}"
        )
    log, counts = build_log(tables, cuts, config.filtering), tables.counts
    del tables  # the log has what is left of them
    # Each split is checked against a log that ends with its window: values that agree with it
    # cannot depend on anything later (D8).
    logs = _CutLogs(log)
    if not len(logs.before(cuts.cut1).time):
        raise InputError(f"{inputs}: no purchase is left before the first cut.\n{NAME_THE_FOLDER}")
    edges = find_price_edges(logs.before(cuts.cut1))
    snapshots = [
        ItemSnapshots(logs.before(end), edges, start, end, config)
        for start, end in zip(cuts.starts, cuts.ends, strict=True)
    ]
    positives = select_positives(log, cuts, snapshots, config)
    log = replace(log)  # without what was derived from its rows
    logs = _CutLogs(log)
    splits = [
        ExpectedSplit(
            number=k,
            start=cuts.starts[k],
            end=cuts.ends[k],
            snapshots=snapshots[k],
            user=log.user[rows],
            item=log.item[rows],
            time=log.time[rows],
            copy=positives.copies[k],
            weight=positives.train_weights if k == 0 else None,
            logs=logs,
        )
        for k, rows in enumerate(positives.rows)
    ]
    return ExpectedDataset(counts, log, cuts, edges, positives, splits)
