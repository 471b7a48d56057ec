"""Check the structure of groups: ids, positives, labels, sources and distinct items."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..contract.schema import NEGATIVE_SOURCES
from .group_comparer import GroupCodes, GroupComparer
from .output_columns import ExpectedColumn, as_array, expect_texts, float_bits, float_of_bits

SOURCES = pa.array(NEGATIVE_SOURCES)
HARD, RANDOM = NEGATIVE_SOURCES.index("hard"), NEGATIVE_SOURCES.index("random")


class StructureChecker(GroupComparer):
    """Checks that groups are the expected ones, and that each is built as the contract says."""

    def check(self, groups: GroupCodes) -> None:
        """Check a batch."""
        self._check_references(groups)
        self._check_positives(groups)
        self._check_sample_ids(groups)
        self._check_labels(groups)
        self._check_sources(groups)
        self._check_duplicates(groups)

    def _check_references(self, groups: GroupCodes) -> None:
        users = groups.batch.table["user_id"]
        self._report_rows(
            "references",
            groups,
            np.repeat(groups.user < 0, self._n_rows),
            lambda row: (f"user {users[row].as_py()!r}", "a user that passes the filters"),
        )
        self._report_items("references", groups, groups.item < 0, "items that pass the filters")

    def _check_positives(self, groups: GroupCodes) -> None:
        split, log, batch = self._split, self._log, groups.batch
        place = slice(batch.first_group, batch.first_group + batch.n_groups)
        user, item, time = split.user[place], split.item[place], split.time[place]
        n = len(user)  # of this batch's groups that are expected at all
        is_bad = np.ones(batch.n_groups, dtype=bool)
        is_bad[:n] = (
            (groups.user[:n] != user) | (groups.item[:n, 0] != item) | (groups.time[:n] != time)
        )

        def show(group: int) -> tuple[Any, Any]:
            row = group * self._n_rows
            ids = [batch.table[name][row].as_py() for name in ("user_id", "item_id")]
            expected: Any = "no further positive"
            if group < n:
                expected_ids = log.user_ids[int(user[group])], log.item_ids[int(item[group])]
                expected = [*(text.as_py() for text in expected_ids), int(time[group])]
            return [*ids, int(groups.time[group])], expected

        self._report_groups("positives", groups, is_bad, show)
        window = f"{split.start} <= time < {split.end}"
        self._report_groups(
            "window",
            groups,
            ~self._is_in_window(groups),
            lambda group: (int(groups.time[group]), window),
        )

    def _check_sample_ids(self, groups: GroupCodes) -> None:
        batch, split = groups.batch, self._split.name
        numbers = range(batch.first_group, batch.first_group + batch.n_groups)
        group = pa.array([f"{split}-{number:010d}" for number in numbers])
        slot = pa.array([f"{slot:02d}" for slot in range(self._n_rows)])
        expected = pc.binary_join_element_wise(
            group.take(pa.array(np.repeat(np.arange(batch.n_groups), self._n_rows))),
            slot.take(pa.array(np.tile(np.arange(self._n_rows), batch.n_groups))),
            "-",
        )
        ids = as_array(batch.table["sample_id"])
        is_bad = ~pc.equal(ids, expected).fill_null(False).to_numpy(zero_copy_only=False)
        self._report_rows(
            "groups", groups, is_bad, lambda row: (ids[row].as_py(), expected[row].as_py())
        )

    def _check_labels(self, groups: GroupCodes) -> None:
        if self._is_tuple:
            return  # has no labels
        label = np.zeros(groups.item.shape, dtype=np.float32)
        label[:, 0] = 1
        expected = ExpectedColumn(float_bits(label.reshape(-1)), float_of_bits)
        every_row = np.ones(label.size, dtype=bool)
        self._compare_column("groups", groups, "label", expected, is_compared=every_row)

    def _check_sources(self, groups: GroupCodes) -> None:
        source = np.full(groups.item.shape, RANDOM)
        source[:, : 1 + self._n_hard] = HARD
        source[:, 0] = -1
        values = self._encode_items(groups.batch, None, "negative_source", SOURCES)
        expected = expect_texts(source, SOURCES)
        self._compare_items("groups", groups, "negative_source", values, expected)

    def _check_duplicates(self, groups: GroupCodes) -> None:
        ordered = np.sort(groups.item, axis=1)
        has_duplicate = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
        self._report_groups(
            "duplicates",
            groups,
            has_duplicate,
            lambda group: (self._show_ids(groups, group), "distinct items"),
        )
