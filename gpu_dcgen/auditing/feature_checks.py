"""Check the features of samples against what was known at the sample's time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ..contract.schema import AGE_GROUPS, PRICE_CATEGORIES, SEASONS
from .group_comparer import GroupCodes, GroupComparer
from .input_columns import CodedColumn
from .output_columns import (
    NULL,
    ExpectedColumn,
    as_array,
    expect_floats,
    expect_numbers,
    expect_optional_numbers,
    expect_texts,
)
from .purchase_log import DAY, find_weekday
from .texts import Vocabulary

ITEM_CATEGORIES = ("product_group", "color_group", "garment_group", "department", "index_group")
AGE_BOUNDS = (16, 25, 35, 45, 55)  # the youngest age of each of AGE_GROUPS
MAX_DAYS = 32767  # of a lifetime, an int16
MONTHS_A_SEASON = 3
SEASONS_FROM_DECEMBER = np.array(
    [SEASONS.index(name) for name in ("Winter", "Spring", "Summer", "Fall")]
)


class _Expectation(NamedTuple):
    """What a column must hold; texts are encoded by the vocabulary."""

    column: ExpectedColumn
    vocabulary: pa.Array | Vocabulary | None = None


class FeatureChecker(GroupComparer):
    """Checks features of users, histories, items and purchase times."""

    def check(self, groups: GroupCodes) -> None:
        """Check a batch."""
        self._check_user_columns(groups)
        self._check_histories(groups)
        self._check_item_columns(groups)
        self._check_item_numbers(groups)
        self._check_on_sale(groups)
        self._check_time_columns(groups)

    def _check_user_columns(self, groups: GroupCodes) -> None:
        log, user, row = self._log, np.maximum(groups.user, 0), np.maximum(groups.row, 0)
        first = log.user_offsets[user]
        n_before = log.basket_start[row] - first
        n_baskets = np.maximum(log.basket[row] - log.basket[first], 1)
        days = np.minimum((groups.time - log.time[first]) // DAY, MAX_DAYS)
        age = log.age[user]
        age_group = np.sum([age >= bound for bound in AGE_BOUNDS], axis=0) - 1
        categories = log.user_columns
        expected = {
            "user_id": _Expectation(expect_texts(user, log.user_ids), log.users),
            "user_age": _Expectation(expect_optional_numbers(age)),
            "user_age_group": _expect_texts(age_group, AGE_GROUPS),
            "user_club_status": _expect_category(categories["club_status"], user),
            "user_news_frequency": _expect_category(categories["news_frequency"], user),
            "user_lifetime_days": _Expectation(expect_numbers(days)),
            "user_total_purchases": _Expectation(expect_numbers(n_before)),
            "user_avg_basket_size": _Expectation(
                expect_floats((n_before / n_baskets).astype(np.float32))
            ),
            "user_preferred_channel": _Expectation(
                expect_optional_numbers(log.preferred_channel(row))
            ),
        }
        self._compare_group_columns("user_features", groups, expected)

    def _compare_group_columns(
        self, rule: str, groups: GroupCodes, expected: dict[str, _Expectation]
    ) -> None:
        """Compare columns that have one value a group, repeated in its rows."""
        for name, (column, vocabulary) in expected.items():
            self._compare_column(rule, groups, name, column.repeat(self._n_rows), vocabulary)

    def _check_histories(self, groups: GroupCodes) -> None:
        log, row = self._log, np.maximum(groups.row, 0)
        max_length = self._config.sequence_processing.max_sequence_length
        stop = log.basket_start[row]
        length = np.minimum(stop - log.user_offsets[log.user[row]], max_length)
        expected_length = {"user_sequence_lengths": _Expectation(expect_numbers(length))}
        self._compare_group_columns("sequences", groups, expected_length)
        offsets = np.append(0, np.cumsum(length))
        place = np.arange(offsets[-1]) + np.repeat(stop - offsets[1:], length)
        items = pa.array(log.item_index[log.item[place]].astype(np.int32))
        expected = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), items)
        expected = expected.take(pa.array(np.repeat(np.arange(len(length)), self._n_rows)))
        histories = as_array(groups.batch.table["user_interaction_sequence"])
        is_bad = np.zeros(len(histories), dtype=bool)
        # Lists are compared one by one only where the column as a whole differs.
        if not histories.equals(expected.cast(histories.type)):
            pairs = zip(histories.to_pylist(), expected.to_pylist(), strict=True)
            is_bad = np.array([actual != wanted for actual, wanted in pairs])
            is_bad &= np.repeat(groups.has_row, self._n_rows)
        self._report_rows(
            "sequences", groups, is_bad, lambda r: (histories[r].as_py(), expected[r].as_py())
        )

    def _check_item_columns(self, groups: GroupCodes) -> None:
        """Check categories, which an n-tuple has of its positive alone."""
        log, item = self._log, np.maximum(groups.item, 0)
        width = 1 if self._is_tuple else self._width
        own = item[:, :width].reshape(-1)
        price_category = self._snapshots.category[self._snapshot_of(groups), item]
        expected = {
            **{
                f"item_{name}": _expect_category(log.item_columns[name], own)
                for name in ITEM_CATEGORIES
            },
            "item_id": _Expectation(expect_texts(own, log.item_ids), log.items),
            "item_price_category": _expect_texts(
                price_category[:, :width].reshape(-1), PRICE_CATEGORIES
            ),
        }
        is_compared = np.repeat(groups.has_row & self._is_in_window(groups), width)
        is_compared &= (groups.item[:, :width] >= 0).reshape(-1)
        for name, (column, vocabulary) in expected.items():
            self._compare_column("item_features", groups, name, column, vocabulary, is_compared)

    def _check_item_numbers(self, groups: GroupCodes) -> None:
        """Check numbers, which an n-tuple has of all its items."""
        batch, item, at = groups.batch, np.maximum(groups.item, 0), self._snapshot_of(groups)
        is_compared = self._is_in_window(groups) & (groups.item >= 0).all(axis=1)
        columns = {
            name: (
                self._encode_items(batch, f"item_{name}", f"negative_{name}"),
                expect_floats(table[at, item]),
            )
            for name, table in (
                ("popularity_score", self._snapshots.popularity),
                ("price_normalized", self._snapshots.price),
            )
        }
        if self._is_tuple:
            index = self._log.item_index[item]
            index[:, 0] = NULL  # the positive has no such column
            name = "negative_item_index"
            columns[name] = (self._encode_items(batch, None, name), expect_numbers(index))
        for name, (values, expected) in columns.items():
            self._compare_items("item_features", groups, name, values, expected, is_compared)

    def _check_on_sale(self, groups: GroupCodes) -> None:
        on_sale = self._snapshots.on_sale[self._snapshot_of(groups), np.maximum(groups.item, 0)]
        is_bad = ~on_sale & (groups.item >= 0) & self._is_in_window(groups)[:, None]
        self._report_items("on_sale", groups, is_bad, "items on sale")

    def _check_time_columns(self, groups: GroupCodes) -> None:
        days = groups.time // DAY
        month = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12 + 1
        shift = 0 if self._config.features.hemisphere == "northern" else 2
        season = SEASONS_FROM_DECEMBER[(month % 12 // MONTHS_A_SEASON + shift) % len(SEASONS)]
        channel = self._log.channel[np.maximum(groups.row, 0)]
        expected = {
            "timestamp": _Expectation(expect_numbers(groups.time)),
            "sales_channel": _Expectation(expect_optional_numbers(channel)),
            "day_of_week": _Expectation(expect_numbers(find_weekday(days))),
            "month": _Expectation(expect_numbers(month)),
            "season": _expect_texts(season, SEASONS),
        }
        self._compare_group_columns("calendar", groups, expected)


def _expect_texts(codes: np.ndarray, vocabulary: pa.Array | Sequence[str]) -> _Expectation:
    values = pa.array(vocabulary) if isinstance(vocabulary, tuple) else vocabulary
    return _Expectation(expect_texts(codes, values), values)


def _expect_category(category: CodedColumn, rows: np.ndarray) -> _Expectation:
    return _expect_texts(category.codes[rows], category.values)
