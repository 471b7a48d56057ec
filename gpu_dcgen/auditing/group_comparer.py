"""Encode groups of samples, and compare their columns with what they must hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from ..config import DatasetConfig
from .dataset_files import GroupBatch
from .expected import ExpectedSplit
from .findings import Findings, Show
from .output_columns import (
    NOT_IN_VOCABULARY,
    NULL,
    ExpectedColumn,
    as_array,
    encode_column,
    encode_numbers,
    encode_texts,
)
from .texts import Vocabulary


@dataclass(frozen=True)
class GroupCodes:
    """A batch of groups as codes; what the inputs do not have is -1."""

    batch: GroupBatch
    user: np.ndarray  # (n,) int64
    time: np.ndarray  # (n,) int64
    item: np.ndarray  # (n, width) int64  the positive, then its negatives
    row: np.ndarray  # (n,) int64  of the positive's purchase in the split's log

    @cached_property
    def has_row(self) -> np.ndarray:
        """Whether the positive's purchase is in the log: (n,) bool."""
        return self.row >= 0


class GroupComparer(ABC):
    """Reads batches of one split in either shape, and reports columns that differ."""

    def __init__(self, split: ExpectedSplit, config: DatasetConfig, findings: Findings) -> None:
        self._split, self._config, self._findings = split, config, findings
        self._log, self._snapshots = split.log, split.snapshots
        self._n_hard = config.negative_sampling.hard_negatives_per_positive
        self._is_tuple = config.output.shape == "n_tuple"
        self._width = 1 + config.negatives_per_positive  # items of a group
        self._n_rows = config.rows_per_positive  # of a group in the file

    @abstractmethod
    def check(self, groups: GroupCodes) -> None:
        """Check a batch and add what is wrong to the findings."""

    def encode_groups(self, batch: GroupBatch) -> GroupCodes:
        """Encode a batch that has no forbidden null."""
        ids = as_array(batch.table["user_id"])
        user = np.maximum(encode_texts(ids, self._log.users), -1)[:: self._n_rows]
        time = encode_numbers(as_array(batch.table["timestamp"]))[:: self._n_rows]
        item = self._encode_items(batch, "item_id", "negative_item_id", self._log.items)
        item = np.maximum(item, -1)
        return GroupCodes(batch, user, time, item, self._log.find_rows(user, time, item[:, 0]))

    def _encode_items(
        self,
        batch: GroupBatch,
        name: str | None,
        negative_name: str,
        vocabulary: pa.Array | Vocabulary | None = None,
    ) -> np.ndarray:
        """Encode a column of the groups' items: (n, width) int64.

        An n-tuple has the values of negatives in lists of another column, `negative_name`.
        Positives have none, NULL, where `name` is None.
        """
        n, table = batch.n_groups, batch.table
        if not self._is_tuple:
            column = as_array(table[name or negative_name])
            return encode_column(column, vocabulary).reshape(n, self._width)
        own = np.full(n, NULL)
        if name is not None:
            own = encode_column(as_array(table[name]), vocabulary)
        negatives = encode_column(as_array(table[negative_name]).flatten(), vocabulary)
        return np.concatenate([own[:, None], negatives.reshape(n, self._width - 1)], axis=1)

    def _is_in_window(self, groups: GroupCodes) -> np.ndarray:
        return (groups.time >= self._split.start) & (groups.time < self._split.end)

    def _snapshot_of(self, groups: GroupCodes) -> np.ndarray:
        """Return each group's row in the snapshot tables (n, 1); 0 outside the window."""
        at = np.where(self._is_in_window(groups), self._snapshots.at(groups.time), 0)
        return at[:, None]

    def _compare_column(
        self,
        rule: str,
        groups: GroupCodes,
        name: str,
        expected: ExpectedColumn,
        vocabulary: pa.Array | Vocabulary | None = None,
        is_compared: np.ndarray | None = None,
    ) -> None:
        """Compare a column row by row; without `is_compared`, in groups that have a row."""
        column = as_array(groups.batch.table[name])
        if is_compared is None:
            is_compared = np.repeat(groups.has_row, self._n_rows)
        is_bad = (encode_column(column, vocabulary) != expected.values) & is_compared
        self._report_rows(
            rule,
            groups,
            is_bad,
            lambda row: (
                f"{name}: {column[row].as_py()}",
                f"{name}: {expected.show(expected.values[row])}",
            ),
        )

    def _compare_items(
        self,
        rule: str,
        groups: GroupCodes,
        name: str,
        values: np.ndarray,
        expected: ExpectedColumn,
        is_compared: np.ndarray | None = None,
    ) -> None:
        """Compare a column (n, width) of the groups' items; of all groups, or of those marked."""
        is_bad = values != expected.values
        if is_compared is not None:
            is_bad &= is_compared[:, None]

        def show(group: int) -> tuple[Any, Any]:
            slot = int(np.argmax(is_bad[group]))
            value = values[group, slot]
            shown = "not in the vocabulary" if value == NOT_IN_VOCABULARY else expected.show(value)
            head = f"slot {slot}, {name}"
            return f"{head}: {shown}", f"{head}: {expected.show(expected.values[group, slot])}"

        self._report_groups(rule, groups, np.any(is_bad, axis=1), show)

    def _report_items(
        self, rule: str, groups: GroupCodes, is_bad: np.ndarray, expected: str
    ) -> None:
        """Report the groups that have items marked in (n, width), and these items."""
        self._report_groups(
            rule,
            groups,
            np.any(is_bad, axis=1),
            lambda g: (self._show_ids(groups, g, is_bad), expected),
        )

    def _report_rows(self, rule: str, groups: GroupCodes, is_bad: np.ndarray, show: Show) -> None:
        self._findings.check_rows(rule, groups.batch.file, groups.batch.first_row, is_bad, show)

    def _report_groups(self, rule: str, groups: GroupCodes, is_bad: np.ndarray, show: Show) -> None:
        file, first_row = groups.batch.file, groups.batch.first_row
        self._findings.check_rows(rule, file, first_row, is_bad, show, stride=self._n_rows)

    def _show_ids(self, groups: GroupCodes, group: int, is_shown: np.ndarray | None = None) -> str:
        """List item ids of a group by slot: all of them, or those marked in (n, width)."""
        slots = np.arange(self._width) if is_shown is None else np.flatnonzero(is_shown[group])
        items = [(int(slot), int(groups.item[group, slot])) for slot in slots]
        return ", ".join(
            f"slot {slot}: {self._log.item_ids[j].as_py() if j >= 0 else 'unknown'}"
            for slot, j in items
        )
