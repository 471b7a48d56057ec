"""Groups of samples as codes, and the ways in which their columns are held against what must be there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..contract.schema import make_arrow_schema
from .cells import NULL, OTHER, Want, codes, flat, numbers, read
from .checks import Findings, Show
from .dataset import Batch
from .log import SPLITS, Log
from .snapshots import Snapshots


@dataclass(frozen=True)
class Window:
    """All that the audit knows of one split: its purchases end with its window."""

    split: int
    start: int
    end: int
    log: Log
    snapshots: Snapshots
    expected: tuple[
        np.ndarray, np.ndarray, np.ndarray
    ]  # user, item, time of its positives, in file order
    copies: np.ndarray
    weights: np.ndarray | None  # (n,) float64 of the positives; None: all 1


@dataclass(frozen=True)
class Groups:
    """A batch of groups as codes; rows of which the inputs know nothing are -1."""

    batch: Batch
    user: np.ndarray  # (n,) int64
    time: np.ndarray  # (n,) int64
    item: np.ndarray  # (n, width) int64  the positive, then its negatives
    row: np.ndarray  # (n,) int64  of the positive's purchase in the window's log

    @property
    def known(self) -> np.ndarray:
        return self.row >= 0


class GroupComparer:
    """Reads batches of one split, in either shape, and reports columns that are not as wanted."""

    def __init__(self, window: Window, config: Any, findings: Findings) -> None:
        self._window, self._config, self._findings = window, config, findings
        self._log, self._snapshots = window.log, window.snapshots
        self._is_tuple = config.output.shape == "n_tuple"
        self._width = 1 + config.negatives_per_positive  # of a group
        self._rows = config.rows_per_positive  # that a group takes in the file
        name, output = f"{SPLITS[window.split]}_dataset", config.output
        self._schema = make_arrow_schema(
            name, output.extra_columns, output.shape, config.negatives_per_positive
        )

    def _read(self, batch: Batch) -> Groups:
        user = np.maximum(codes(flat(batch.table["user_id"]), self._log.user_ids), -1)[
            :: self._rows
        ]
        time = numbers(flat(batch.table["timestamp"]))[:: self._rows]
        item = np.maximum(
            self._matrix(batch, "item_id", "negative_item_id", self._log.item_ids), -1
        )
        return Groups(batch, user, time, item, self._log.find(user, time, item[:, 0]))

    def _matrix(
        self, batch: Batch, name: str | None, negative: str, vocabulary: pa.Array | None = None
    ) -> np.ndarray:
        """A column of the groups' items (n, width): of a positive and its negatives, which an n-tuple keeps in another column.

        Without a `name` the positive has none: NULL.
        """
        if not self._is_tuple:
            return read(flat(batch.table[name or negative]), vocabulary).reshape(
                batch.n_groups, self._width
            )
        own = (
            np.full(batch.n_groups, NULL)
            if name is None
            else read(flat(batch.table[name]), vocabulary)
        )
        others = read(flat(batch.table[negative]).flatten(), vocabulary).reshape(
            batch.n_groups, self._width - 1
        )
        return np.concatenate([own[:, None], others], axis=1)

    def _inside(self, groups: Groups) -> np.ndarray:
        return (groups.time >= self._window.start) & (groups.time < self._window.end)

    def _compare(
        self,
        check: str,
        groups: Groups,
        name: str,
        want: Want,
        vocabulary: pa.Array | None = None,
        known: Any = None,
    ) -> None:
        """A column against what it must hold, row by row; rows whose purchase is not known are left to other checks."""
        column = flat(groups.batch.table[name])
        known = np.repeat(groups.known, self._rows) if known is None else known
        bad = (read(column, vocabulary) != want.values) & known
        self._findings.rows(
            check, groups.batch.file, groups.batch.first_row, bad,
            lambda row: (f"{name}: {column[row].as_py()}", f"{name}: {want.show(want.values[row])}"),
        )  # fmt: skip

    def _compare_matrix(
        self,
        check: str,
        groups: Groups,
        name: str,
        found: np.ndarray,
        want: Want,
        known: np.ndarray | None = None,
    ) -> None:
        """A column (n, width) of the groups' items against what it must hold; groups that are not known are left out."""
        bad = found != want.values
        bad &= True if known is None else known[:, None]

        def show(group: int) -> tuple[Any, Any]:
            slot = int(np.argmax(bad[group]))
            value = found[group, slot]
            seen = "a text of no vocabulary" if value == OTHER else want.show(value)
            return (
                f"slot {slot}, {name}: {seen}",
                f"slot {slot}, {name}: {want.show(want.values[group, slot])}",
            )

        self._of_groups(check, groups, bad.any(axis=1), show)

    def _of_groups(self, check: str, groups: Groups, bad: np.ndarray, show: Show) -> None:
        self._findings.rows(
            check, groups.batch.file, groups.batch.first_row, bad, show, stride=self._rows
        )

    def _ids(self, groups: Groups, group: int, where: np.ndarray | None = None) -> str:
        """Item ids of a group by slot: all of them, or those marked in (n, width)."""
        slots = np.arange(self._width) if where is None else np.flatnonzero(where[group])
        items = [(int(slot), int(groups.item[group, slot])) for slot in slots]
        return ", ".join(
            f"slot {s}: {self._log.item_ids[j].as_py() if j >= 0 else 'unknown'}" for s, j in items
        )
