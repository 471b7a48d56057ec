"""Check negatives: all of them against what rows can show, and a sample by drawing again."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from ..config import DatasetConfig
from ..contract.schema import NEGATIVE_DETAILS
from .draws import log_ratio
from .expected import ExpectedSplit
from .findings import Findings
from .group_comparer import GroupCodes, GroupComparer
from .negatives import NegativeMiner, Positive
from .output_columns import NULL, as_array, expect_floats
from .purchase_log import DAY
from .similarity import SimilarityPairs

DETAILS = pa.array(NEGATIVE_DETAILS)
DETAIL_CODES = {name: code for code, name in enumerate(NEGATIVE_DETAILS)}


class NegativeChecker(GroupComparer):
    """Checks the negatives of all groups for ownership, siblings, similarity and source."""

    def __init__(
        self,
        split: ExpectedSplit,
        pairs: SimilarityPairs | None,
        config: DatasetConfig,
        findings: Findings,
    ) -> None:
        """Without `pairs`, similarities and sources are left unchecked."""
        super().__init__(split, config, findings)
        self._pairs = pairs
        self.n_by_detail = np.zeros(len(NEGATIVE_DETAILS), dtype=np.int64)  # hard ones
        self.n_hard_by_item = np.zeros(split.log.n_items, dtype=np.int64)

    def check(self, groups: GroupCodes) -> None:
        """Check a batch."""
        hard = groups.item[:, 1 : 1 + self._n_hard]
        self.n_hard_by_item += np.bincount(hard[hard >= 0], minlength=self._log.n_items)
        self._check_ownership(groups)
        self._check_siblings(groups)
        if self._config.output.extra_columns:
            self._check_log_q(groups)
        if self._pairs is None:
            return
        similarity = self._look_up_similarities(self._pairs, groups)
        name = "negative_similarity_score" if self._is_tuple else "similarity_score"
        values = self._encode_items(groups.batch, None, name)
        expected = expect_floats(similarity)
        self._compare_items("similarity_scores", groups, name, values, expected)
        if self._config.output.extra_columns:
            self._check_details(groups, similarity)

    def _check_ownership(self, groups: GroupCodes) -> None:
        n, width = groups.item.shape
        user = np.repeat(np.maximum(groups.user, 0), width)
        item = np.maximum(groups.item, 0).reshape(-1)
        since = self._log.owned_since(user, item).reshape(n, width)
        is_owned = (groups.user[:, None] >= 0) & (groups.item >= 0) & (since < self._split.end)
        is_owned[:, 0] = False
        self._report_items("false_negatives", groups, is_owned, "items the user did not buy")

    def _check_siblings(self, groups: GroupCodes) -> None:
        code = self._log.item_columns["product_code"].codes[np.maximum(groups.item, 0)]
        is_sibling = (code == code[:, :1]) & (code[:, :1] >= 0)
        is_sibling &= (groups.user[:, None] >= 0) & (groups.item >= 0)
        is_sibling[:, 0], is_sibling[:, 1 + self._n_hard :] = False, False
        self._report_items("siblings", groups, is_sibling, "other products")

    def _look_up_similarities(self, pairs: SimilarityPairs, groups: GroupCodes) -> np.ndarray:
        """Return hard negatives' similarities by the matrix, NaN elsewhere: (n, width)."""
        item, n_hard = np.maximum(groups.item, 0), self._n_hard
        similarity = np.full(item.shape, np.nan, dtype=np.float32)
        hard = slice(1, 1 + n_hard)
        similarity[:, hard] = pairs.find_all(
            np.repeat(item[:, 0], n_hard), item[:, hard].reshape(-1)
        ).reshape(len(item), n_hard)
        return similarity

    def _check_details(self, groups: GroupCodes, similarity: np.ndarray) -> None:
        """Check sources as far as a row alone can confirm or refute them."""
        settings, hard = self._config.negative_sampling, slice(1, 1 + self._n_hard)
        random = slice(1 + self._n_hard, None)
        details = self._encode_items(groups.batch, None, "negative_detail", DETAILS)
        known = details[:, hard][details[:, hard] >= 0]
        self.n_by_detail += np.bincount(known, minlength=len(NEGATIVE_DETAILS))
        is_bad = np.zeros(details.shape, dtype=bool)
        is_bad[:, 0] = details[:, 0] != NULL
        is_bad[:, hard] = (details[:, hard] < 0) | (details[:, hard] == DETAIL_CODES["random"])
        is_bad[:, random] = details[:, random] != DETAIL_CODES["random"]
        if settings.hard_band == "similarity":
            low = np.float32(settings.similarity_threshold)
            high = np.float32(settings.similarity_ceiling)
            is_in_band = (similarity > low) & (similarity <= high)
            is_bad |= (details == DETAIL_CODES["item_cf"]) & ~is_in_band
        item = np.maximum(groups.item, 0)
        category = self._snapshots.category[self._snapshot_of(groups), item]
        group = self._log.item_columns["product_group"].codes[item]
        is_crossing = (category == category[:, :1]) & (group != group[:, :1])
        is_in_window = self._is_in_window(groups)[:, None]
        is_bad |= (details == DETAIL_CODES["category_crossing"]) & ~is_crossing & is_in_window
        was_viewed = self._was_viewed[self._snapshot_of(groups), item]
        is_bad |= (details == DETAIL_CODES["viewed"]) & ~was_viewed & is_in_window

        def show(g: int) -> tuple[Any, Any]:
            slots = np.flatnonzero(is_bad[g]).tolist()
            texts = [
                NEGATIVE_DETAILS[details[g, slot]] if details[g, slot] >= 0 else None
                for slot in slots
            ]
            return f"slots {slots}: {texts}", "sources that could have offered these items"

        self._report_groups("negative_details", groups, np.any(is_bad, axis=1), show)

    @cached_property
    def _was_viewed(self) -> np.ndarray:
        """Whether someone viewed an item in the days before a snapshot and had not bought it."""
        snapshots, views = self._snapshots, self._log.views
        was_viewed = np.zeros(snapshots.on_sale.shape, dtype=bool)
        if views is None or not self._config.negative_sampling.viewed_items:
            return was_viewed
        owned_since = self._log.owned_since(views.user, views.item)
        span = self._config.negative_sampling.collaborative_days * DAY
        for row in range(len(was_viewed)):
            instant = snapshots.instant(row)
            is_open = (views.time >= instant - span) & (views.time < instant)
            was_viewed[row, views.item[is_open & (owned_since >= instant)]] = True
        return was_viewed

    def _check_log_q(self, groups: GroupCodes) -> None:
        """Check logarithms that follow from numbers of items, and the range of the others."""
        settings, width = self._config.negative_sampling, groups.item.shape[1]
        hard, random = slice(1, 1 + self._n_hard), slice(1 + self._n_hard, None)
        n_on_sale = self._snapshots.on_sale.sum(axis=1)[self._snapshot_of(groups)].clip(1)
        details = self._encode_items(groups.batch, None, "negative_detail", DETAILS)
        is_fallback = details == DETAIL_CODES["fallback"]
        is_fallback[:, 0], is_fallback[:, random] = False, False
        n_fallback = is_fallback.sum(axis=1, keepdims=True).clip(1)
        expected = np.zeros(groups.item.shape, dtype=np.float32)
        expected[:, 0] = np.nan
        n_random = max(1, settings.random_negatives_per_positive)
        expected[:, random] = log_ratio(n_random, n_on_sale)
        fallback_log_q = np.repeat(log_ratio(n_fallback, n_on_sale), width, axis=1)
        expected = np.where(is_fallback, fallback_log_q, expected)

        values = self._encode_items(groups.batch, None, "negative_log_q")
        column = expect_floats(expected)
        is_bad = values != column.values
        if settings.selection == "sampled":
            # The probability of a draw is known only where it is drawn again.
            is_drawn = np.zeros(values.shape, dtype=bool)
            is_drawn[:, hard] = ~is_fallback[:, hard]
            floats = np.where(values == NULL, 0, values).astype(np.uint32).view(np.float32)
            is_possible = (values != NULL) & (floats <= 0) & np.isfinite(floats)
            is_bad = np.where(is_drawn, ~is_possible, is_bad)
        is_bad &= self._is_in_window(groups)[:, None]

        def show(g: int) -> tuple[Any, Any]:
            slot = int(np.argmax(is_bad[g]))
            shown = column.show(column.values[g, slot])
            if slot in range(1, 1 + self._n_hard) and not is_fallback[g, slot]:
                shown = "0" if settings.selection == "greedy" else "at most 0"
            return f"slot {slot}: {column.show(values[g, slot])}", f"slot {slot}: {shown}"

        self._report_groups("negative_log_q", groups, np.any(is_bad, axis=1), show)


class NegativeRedraw(GroupComparer):
    """Draws the negatives of a seeded sample of groups again and compares them."""

    def __init__(
        self,
        split: ExpectedSplit,
        miner: NegativeMiner,
        sample: np.ndarray,
        config: DatasetConfig,
        findings: Findings,
    ) -> None:
        """Draw again for the groups `sample`, numbers within the split, rising."""
        super().__init__(split, config, findings)
        self._miner, self._sample = miner, sample

    def check(self, groups: GroupCodes) -> None:
        """Check the sampled groups of a batch."""
        first = groups.batch.first_group
        low, high = np.searchsorted(self._sample, [first, first + groups.batch.n_groups])
        for group in (self._sample[low:high] - first).tolist():
            self._check_group(groups, group)

    def _check_group(self, groups: GroupCodes, group: int) -> None:
        split, ids = self._split, self._log.item_ids
        place = groups.batch.first_group + group
        expected = Positive(
            *(int(column[place]) for column in (split.user, split.item, split.time, split.copy))
        )
        actual = int(groups.user[group]), int(groups.item[group, 0]), int(groups.time[group])
        if actual != expected[:3]:
            return  # the rule `positives` reports it
        drawn = self._miner.mine(expected).negatives
        shown = [ids[j].as_py() if j >= 0 else "unknown" for j in groups.item[group, 1:].tolist()]
        drawn_ids = [ids[negative.item].as_py() for negative in drawn]
        details = self._read_extra_column(groups, group, "negative_detail")
        drawn_details = None if details is None else [negative.detail for negative in drawn]
        self._compare("negatives", groups, group, (shown, details), (drawn_ids, drawn_details))
        log_q = self._read_extra_column(groups, group, "negative_log_q")
        if log_q is not None:
            drawn_log_q = [float(negative.log_q) for negative in drawn]
            self._compare("negative_log_q", groups, group, log_q, drawn_log_q)

    def _compare(
        self, rule: str, groups: GroupCodes, group: int, actual: Any, expected: Any
    ) -> None:
        self._findings.count(rule, 1)
        if actual != expected:
            row = groups.batch.first_row + group * self._n_rows
            self._findings.add_fault(rule, groups.batch.file, row, f"{actual}", f"{expected}")

    def _read_extra_column(self, groups: GroupCodes, group: int, name: str) -> list[Any] | None:
        """Return a column of a group's negatives; None where the dataset has none."""
        if not self._config.output.extra_columns:
            return None
        column = as_array(groups.batch.table[name])
        if self._is_tuple:
            return column[group].as_py()
        return column[group * self._n_rows + 1 : (group + 1) * self._n_rows].to_pylist()
