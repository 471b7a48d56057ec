"""The samples: every group and every value of every row, held against the purchases known before the window's end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..contract.schema import AGE_GROUPS, NEGATIVE_DETAILS, NEGATIVE_SOURCES, SEASONS
from .cells import (
    NULL,
    Want,
    flat,
    float_bits,
    want_floats,
    want_numbers,
    want_optional,
    want_texts,
)
from .checks import Findings
from .columns import Category
from .dataset import Batch, check_nulls
from .groups import GroupComparer, Groups, Window
from .log import DAY, SPLITS
from .mining import Pairs
from .snapshots import PRICE_CATEGORIES

ITEM_CATEGORIES = ("product_group", "color_group", "garment_group", "department", "index_group")
AGE_BOUNDS = (16, 25, 35, 45, 55)
MOST_DAYS = 32767
CLOSE = 2e-7  # of a weight: its sums may have been added in another order


class RowAudit(GroupComparer):
    """Checks batches of one split; each batch adds to the findings."""

    def __init__(
        self, window: Window, pairs: Pairs | None, config: Any, findings: Findings
    ) -> None:
        super().__init__(window, config, findings)
        self._pairs = pairs
        self._n_hard = config.negative_sampling.hard_negatives_per_positive
        self.users = np.zeros(self._log.n_users, dtype=bool)  # that have a positive here
        self.items = np.zeros(self._log.n_items, dtype=bool)
        self.details = np.zeros(len(NEGATIVE_DETAILS), dtype=np.int64)  # hard negatives by source
        self.n_groups = 0

    def check(self, batch: Batch) -> Groups | None:
        """Hold a batch against all rules of rows; None where nulls leave nothing to compare."""
        self.n_groups += batch.n_groups
        if not check_nulls(batch.file, batch.first_row, batch.table, self._schema, self._findings):
            return None
        groups = self._read(batch)
        self._references(groups)
        self._positives(groups)
        self._structure(groups)
        self._of_the_user(groups)
        self._histories(groups)
        self._of_the_items(groups)
        self._of_the_moment(groups)
        self._of_the_negatives(groups)
        self._extras(groups)
        self.users[groups.user[groups.user >= 0]] = True
        self.items[groups.item[groups.item >= 0]] = True
        return groups

    # -- structure
    # -----------------------------------------------------------------------------------------------

    def _references(self, groups: Groups) -> None:
        batch = groups.batch
        self._findings.rows(
            "references", batch.file, batch.first_row, np.repeat(groups.user < 0, self._rows),
            lambda row: (f"user {batch.table['user_id'][row].as_py()!r}", "a user of the inputs that the filters keep"),
        )  # fmt: skip
        unknown = groups.item < 0
        self._of_groups(
            "references",
            groups,
            unknown.any(axis=1),
            lambda g: (self._ids(groups, g, unknown), "items that the filters keep"),
        )

    def _positives(self, groups: Groups) -> None:
        window, log, batch, rows = self._window, self._log, groups.batch, self._rows
        place = slice(batch.first_group, batch.first_group + batch.n_groups)
        user, item, time = (column[place] for column in window.expected)
        n = len(user)
        bad = np.ones(batch.n_groups, dtype=bool)
        bad[:n] = (
            (groups.user[:n] != user) | (groups.item[:n, 0] != item) | (groups.time[:n] != time)
        )

        def show(group: int) -> tuple[Any, Any]:
            found = [batch.table[name][group * rows].as_py() for name in ("user_id", "item_id")]
            wanted: Any = "no further positive"
            if group < n:
                wanted = [
                    log.user_ids[int(user[group])].as_py(),
                    log.item_ids[int(item[group])].as_py(),
                    int(time[group]),
                ]
            return [*found, int(groups.time[group])], wanted

        self._of_groups("positives", groups, bad, show)
        inside = f"{window.start} <= time < {window.end}"
        self._of_groups(
            "window", groups, ~self._inside(groups), lambda g: (int(groups.time[g]), inside)
        )

    def _structure(self, groups: Groups) -> None:
        batch, split = groups.batch, SPLITS[self._window.split]
        number = batch.first_group + np.arange(batch.n_groups)
        expected = pa.array(
            [
                f"{split}-{group:010d}-{slot:02d}"
                for group in number.tolist()
                for slot in range(self._rows)
            ]
        )
        found = flat(batch.table["sample_id"])
        bad = ~pc.equal(found, expected).fill_null(False).to_numpy(zero_copy_only=False)
        self._findings.rows(
            "groups",
            batch.file,
            batch.first_row,
            bad,
            lambda row: (found[row].as_py(), expected[row].as_py()),
        )
        if not self._is_tuple:
            label = np.zeros((batch.n_groups, self._width), dtype=np.float32)
            label[:, 0] = 1
            self._compare(
                "groups",
                groups,
                "label",
                Want(float_bits(label.reshape(-1)), _as_float),
                known=True,
            )
        source = np.full(groups.item.shape, NEGATIVE_SOURCES.index("random"))
        source[:, : 1 + self._n_hard] = NEGATIVE_SOURCES.index("hard")
        source[:, 0] = -1
        vocabulary = pa.array(NEGATIVE_SOURCES)
        found = self._matrix(batch, None, "negative_source", vocabulary)
        self._compare_matrix(
            "groups", groups, "negative_source", found, want_texts(source, vocabulary)
        )
        ordered = np.sort(groups.item, axis=1)
        twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
        self._of_groups(
            "duplicates", groups, twice, lambda g: (self._ids(groups, g), "distinct items")
        )

    # -- features
    # ------------------------------------------------------------------------------------------------

    def _of_the_user(self, groups: Groups) -> None:
        log, user, row = self._log, np.maximum(groups.user, 0), np.maximum(groups.row, 0)
        first = log.user_offsets[user]
        n_before = log.basket_start[row] - first
        baskets = np.maximum(log.basket[row] - log.basket[first], 1)
        days = np.minimum((groups.time - log.time[first]) // DAY, MOST_DAYS)
        age = log.age[user]
        age_group = sum((age >= bound).astype(int) for bound in AGE_BOUNDS) - 1
        channel, shown = log.preferred_channel(row), log.user_columns
        wants: dict[str, tuple[Want, pa.Array | None]] = {
            "user_id": (want_texts(user, log.user_ids), log.user_ids),
            "user_age": (want_optional(age), None),
            "user_age_group": (_want(age_group, AGE_GROUPS), pa.array(AGE_GROUPS)),
            "user_club_status": _of_category(shown["club_status"], user),
            "user_news_frequency": _of_category(shown["news_frequency"], user),
            "user_lifetime_days": (want_numbers(days), None),
            "user_total_purchases": (want_numbers(n_before), None),
            "user_avg_basket_size": (want_floats((n_before / baskets).astype(np.float32)), None),
            "user_preferred_channel": (want_optional(channel), None),
        }  # fmt: skip
        for name, (want, vocabulary) in wants.items():
            self._compare("user_features", groups, name, want.repeated(self._rows), vocabulary)

    def _histories(self, groups: Groups) -> None:
        log, row = self._log, np.maximum(groups.row, 0)
        stop = log.basket_start[row]
        length = np.minimum(
            stop - log.user_offsets[log.user[row]],
            self._config.sequence_processing.max_sequence_length,
        )
        self._compare(
            "sequences", groups, "user_sequence_lengths", want_numbers(length).repeated(self._rows)
        )
        offsets = np.append(0, np.cumsum(length))
        place = np.arange(offsets[-1]) + np.repeat(stop - offsets[1:], length)
        items = pa.array(log.item_index[log.item[place]].astype(np.int32))
        wanted = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), items)
        wanted = wanted.take(pa.array(np.repeat(np.arange(len(length)), self._rows)))
        found = flat(groups.batch.table["user_interaction_sequence"])
        bad = np.zeros(len(found), dtype=bool)
        if not found.equals(wanted.cast(found.type)):
            pairs = zip(found.to_pylist(), wanted.to_pylist(), strict=True)
            bad = np.array([mine != theirs for mine, theirs in pairs]) & np.repeat(
                groups.known, self._rows
            )
        self._findings.rows(
            "sequences",
            groups.batch.file,
            groups.batch.first_row,
            bad,
            lambda r: (found[r].as_py(), wanted[r].as_py()),
        )

    def _of_the_items(self, groups: Groups) -> None:
        log, snapshots = self._log, self._snapshots
        item = np.maximum(groups.item, 0)
        inside = self._inside(groups)
        at = np.where(inside, snapshots.at(groups.time), 0)[:, None]
        width = (
            1 if self._is_tuple else self._width
        )  # of the columns that an n-tuple has of its positive only
        own = item[:, :width].reshape(-1)
        wants = {
            f"item_{name}": _of_category(log.item_columns[name], own) for name in ITEM_CATEGORIES
        }
        wants["item_id"] = (want_texts(own, log.item_ids), log.item_ids)
        price_category = snapshots.category[at, item][:, :width].reshape(-1)
        wants["item_price_category"] = (
            _want(price_category, PRICE_CATEGORIES),
            pa.array(PRICE_CATEGORIES),
        )
        known = np.repeat(groups.known & inside, width) & (groups.item[:, :width] >= 0).reshape(-1)
        for name, (want, vocabulary) in wants.items():
            self._compare("item_features", groups, name, want, vocabulary, known)
        all_known = inside & (groups.item >= 0).all(axis=1)
        for name, table in (
            ("popularity_score", snapshots.popularity),
            ("price_normalized", snapshots.price),
        ):
            found = self._matrix(groups.batch, f"item_{name}", f"negative_{name}")
            self._compare_matrix(
                "item_features", groups, name, found, want_floats(table[at, item]), all_known
            )
        if self._is_tuple:
            index = np.where(np.arange(self._width) == 0, NULL, self._log.item_index[item])
            found = self._matrix(groups.batch, None, "negative_item_index")
            self._compare_matrix(
                "item_features",
                groups,
                "negative_item_index",
                found,
                want_numbers(index),
                all_known,
            )
        off = ~snapshots.on_sale[at, item] & (groups.item >= 0) & inside[:, None]
        self._of_groups(
            "on_sale",
            groups,
            off.any(axis=1),
            lambda g: (self._ids(groups, g, off), "items on sale"),
        )

    def _of_the_moment(self, groups: Groups) -> None:
        days = groups.time // DAY
        month = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12 + 1
        turn = 0 if self._config.features.hemisphere == "northern" else 2
        names = ("Winter", "Spring", "Summer", "Fall")
        season = np.array([SEASONS.index(name) for name in names])[(month % 12 // 3 + turn) % 4]
        wants: dict[str, tuple[Want, pa.Array | None]] = {
            "timestamp": (want_numbers(groups.time), None),
            "sales_channel": (want_optional(self._log.channel[np.maximum(groups.row, 0)]), None),
            "day_of_week": (want_numbers((days + 3) % 7), None),  # 1970 began on a Thursday
            "month": (want_numbers(month), None),
            "season": (_want(season, SEASONS), pa.array(SEASONS)),
        }
        for name, (want, vocabulary) in wants.items():
            self._compare("calendar", groups, name, want.repeated(self._rows), vocabulary)

    # -- negatives
    # -----------------------------------------------------------------------------------------------

    def _of_the_negatives(self, groups: Groups) -> None:
        log, n_hard = self._log, self._n_hard
        n, width = groups.item.shape
        there = (groups.user[:, None] >= 0) & (groups.item >= 0)
        user = np.repeat(np.maximum(groups.user, 0), width)
        since = log.owned_since(user, np.maximum(groups.item, 0).reshape(-1)).reshape(n, width)
        owned = there & (since < self._window.end)
        owned[:, 0] = False
        self._of_groups(
            "false_negatives",
            groups,
            owned.any(axis=1),
            lambda g: (self._ids(groups, g, owned), "items the user did not buy"),
        )
        code = log.item_columns["product_code"].codes[np.maximum(groups.item, 0)]
        sibling = there & (code == code[:, :1]) & (code[:, :1] >= 0)
        sibling[:, 0], sibling[:, 1 + n_hard :] = False, False
        self._of_groups(
            "siblings",
            groups,
            sibling.any(axis=1),
            lambda g: (self._ids(groups, g, sibling), "other products"),
        )
        if self._pairs is None:
            return
        item = np.maximum(groups.item, 0)
        similarity = np.full((n, width), np.nan, dtype=np.float32)
        hard = slice(1, 1 + n_hard)
        similarity[:, hard] = self._pairs.lookup(
            np.repeat(item[:, 0], n_hard), item[:, hard].reshape(-1)
        ).reshape(n, n_hard)
        name = "negative_similarity_score" if self._is_tuple else "similarity_score"
        found = self._matrix(groups.batch, None, name)
        self._compare_matrix("similarity_scores", groups, name, found, want_floats(similarity))
        if self._config.output.extra_columns:
            self._details(groups, similarity)

    def _details(self, groups: Groups, similarity: np.ndarray) -> None:
        """Sources that a row alone can confirm or refute; `negatives` draws a sample again."""
        settings, n_hard = self._config.negative_sampling, self._n_hard
        found = self._matrix(groups.batch, None, "negative_detail", pa.array(NEGATIVE_DETAILS))
        names = {name: code for code, name in enumerate(NEGATIVE_DETAILS)}
        hard = found[:, 1 : 1 + n_hard]
        self.details += np.bincount(hard[hard >= 0], minlength=len(names))
        bad = np.zeros(found.shape, dtype=bool)
        bad[:, 0] = found[:, 0] != NULL
        bad[:, 1 : 1 + n_hard] = (hard < 0) | (hard == names["random"])
        bad[:, 1 + n_hard :] = found[:, 1 + n_hard :] != names["random"]
        if settings.hard_band == "similarity":
            low, high = (
                np.float32(settings.similarity_threshold),
                np.float32(settings.similarity_ceiling),
            )
            outside = ~((similarity > low) & (similarity <= high))
            bad |= (found == names["item_cf"]) & outside
        item = np.maximum(groups.item, 0)
        inside = self._inside(groups)
        category = self._snapshots.category[
            np.where(inside, self._snapshots.at(groups.time), 0)[:, None], item
        ]
        group = self._log.item_columns["product_group"].codes[item]
        crossing = (category == category[:, :1]) & (group != group[:, :1])
        bad |= (found == names["category_crossing"]) & ~crossing & inside[:, None]

        def show(g: int) -> tuple[Any, Any]:
            slots = np.flatnonzero(bad[g]).tolist()
            texts = [
                NEGATIVE_DETAILS[found[g, slot]] if found[g, slot] >= 0 else None for slot in slots
            ]
            return f"slots {slots}: {texts}", "sources that could have offered these items"

        self._of_groups("negative_details", groups, bad.any(axis=1), show)

    def details_of(self, groups: Groups, group: int) -> list[str | None] | None:
        """negative_detail of a group's negatives as texts; None where the dataset has no such column."""
        if not self._config.output.extra_columns:
            return None
        column = flat(groups.batch.table["negative_detail"])
        return (
            column[group].as_py()
            if self._is_tuple
            else column[group * self._rows + 1 : (group + 1) * self._rows].to_pylist()
        )

    # -- extra columns
    # -------------------------------------------------------------------------------------------

    def _extras(self, groups: Groups) -> None:
        if not self._config.output.extra_columns:
            return
        batch, window = groups.batch, self._window
        since = self._log.owned_since(np.maximum(groups.user, 0), np.maximum(groups.item[:, 0], 0))
        bought = want_numbers(since < groups.time).repeated(self._rows)
        self._compare("repurchases", groups, "is_repurchase", Want(bought.values, bool))
        place = batch.first_group + np.arange(batch.n_groups)
        expected = np.ones(batch.n_groups)
        if window.weights is not None:
            place = np.minimum(place, len(window.weights) - 1)
            expected = window.weights[place]
        expected = np.repeat(expected, self._rows)
        found = flat(batch.table["sample_weight"]).to_numpy(zero_copy_only=False).astype(np.float64)
        bad = ~(np.abs(found - expected) <= CLOSE * np.abs(expected))
        self._findings.rows(
            "weights", batch.file, batch.first_row, bad & np.repeat(groups.known, self._rows),
            lambda row: (float(found[row]), float(np.float32(expected[row]))),
        )  # fmt: skip


def _want(values: np.ndarray, vocabulary: tuple[str, ...]) -> Want:
    return want_texts(np.asarray(values), pa.array(vocabulary))


def _of_category(category: Category, rows: np.ndarray) -> tuple[Want, pa.Array]:
    return want_texts(category.codes[rows], category.values), category.values


def _as_float(bits: int) -> float:
    return float(np.uint32(bits).view(np.float32))
