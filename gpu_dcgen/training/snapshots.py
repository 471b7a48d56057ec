"""The item snapshots (D6) of a dataset, and which one each positive of a split belongs to."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..contract.manifest import Manifest
from .files import SplitFiles
from .row_groups import RowGroupReader
from .vocabularies import DatasetVocabularies

_DAY_NS = 86_400 * 10**9


class SnapshotGrid(NamedTuple):
    """The times at which item features are computed: S_k = first_ns + k * step_ns."""

    first_ns: int  # midnight of the log's first day, nanoseconds since 1970 UTC
    step_ns: int

    def find(self, time: Tensor) -> Tensor:
        """Return the latest snapshot at each time: int64, from nanoseconds since 1970 UTC."""
        return (time - self.first_ns) // self.step_ns


def make_snapshot_grid(manifest: Manifest) -> SnapshotGrid:
    """Return the snapshots of a dataset, by its first transaction and `snapshot_days`."""
    step: int = manifest.config["features"]["snapshot_days"] * _DAY_NS
    return SnapshotGrid(manifest.split.windows_ns.first // _DAY_NS * _DAY_NS, step)


def read_snapshots(files: SplitFiles, vocabularies: DatasetVocabularies) -> tuple[np.ndarray, ...]:
    """Read the snapshot of each positive: (n_groups,) int32 for each row group.

    Memory: 4 bytes per positive. Raises InputError when a row group cannot be read.
    """
    grid = make_snapshot_grid(files.manifest)
    reader = RowGroupReader(files, vocabularies, ["timestamp"])
    return tuple(
        grid.find(reader.read(row_group).metadata["timestamp"]).to(torch.int32).numpy()
        for row_group in files.row_groups
    )
