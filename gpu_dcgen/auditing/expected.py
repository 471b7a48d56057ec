"""Derive from the input tables what a dataset of them must hold."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import DatasetConfig
from ..contract.schema import SPLITS
from ..errors import InputError
from .input_files import NAME_THE_FOLDER
from .input_tables import AcceptedTables, read_tables
from .item_snapshots import ItemSnapshots, find_price_edges
from .positives import ExpectedPositives, select_positives
from .purchase_log import Cuts, PurchaseLog, build_log, find_cuts


@dataclass(frozen=True)
class ExpectedSplit:
    """One split: its positives in file order, and what was known by the end of its window."""

    number: int  # 0 train, 1 val, 2 test
    start: int  # of its window, in ns
    end: int  # exclusive
    log: PurchaseLog  # ends with the window
    snapshots: ItemSnapshots
    user: np.ndarray  # (n,) int64  of the positives
    item: np.ndarray  # (n,) int64
    time: np.ndarray  # (n,) int64
    copy: np.ndarray  # (n,) int64
    weight: np.ndarray | None  # (n,) float64  None: all 1

    @property
    def name(self) -> str:
        """`train`, `val` or `test`."""
        return SPLITS[self.number]

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

    tables: AcceptedTables
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
    log = build_log(tables, cuts, config.filtering)
    # Each split is checked against a log that ends with its window: values that agree with it
    # cannot depend on anything later (D8).
    logs = [log.before(end) for end in cuts.ends]
    if not len(logs[0].time):
        raise InputError(f"{inputs}: no purchase is left before the first cut.\n{NAME_THE_FOLDER}")
    edges = find_price_edges(logs[0])
    snapshots = [
        ItemSnapshots(logs[k], edges, cuts.starts[k], cuts.ends[k], config) for k in range(3)
    ]
    positives = select_positives(log, cuts, snapshots, config)
    splits = [
        ExpectedSplit(
            number=k,
            start=cuts.starts[k],
            end=cuts.ends[k],
            log=logs[k],
            snapshots=snapshots[k],
            user=log.user[rows],
            item=log.item[rows],
            time=log.time[rows],
            copy=positives.copies[k],
            weight=positives.train_weights if k == 0 else None,
        )
        for k, rows in enumerate(positives.rows)
    ]
    return ExpectedDataset(tables, log, cuts, edges, positives, splits)
