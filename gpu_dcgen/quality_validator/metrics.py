"""Stage 9: check every group, and count what gates and the report are computed from (D20)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ..backend.protocol import Array, Backend
from ..backend.runs import bring_to_host, count_each
from ..config import DatasetConfig
from ..contract.schema import SPLITS
from ..kernels.arguments import Log
from ..kernels.checks import (
    UNKNOWN_ITEM,
    VIOLATIONS,
    CheckScratch,
    CheckTables,
    GroupChecks,
    GroupRows,
    check_group,
)
from ..kernels.sources import SOURCES
from ..negative_sampler import allocate_filter
from ..preparation.balancing import SEGMENTS, positive_weights
from ..preparation.windows import DAY
from ..samples import Group, StageResults
from ..tallies import Tallies
from .candidate_funnel import count_candidates

WEEK = 7 * DAY
BINS = 20  # of shares 0..1: prices and similarities; one more counts those that are not known
ACTIVITY_BITS = 20  # users by earlier purchases: 0, 1, 2..3, 4..7, ... ; the last bin is open
NULLABLE = (
    "user_age",
    "user_age_group",
    "user_club_status",
    "user_news_frequency",
    "user_preferred_channel",
    "sales_channel",
)
# Sample weights are summed in units of 2^-20, so that the order of blocks does not matter.
WEIGHT_UNIT = 1 << 20
BY_ITEM = ("positive_items", "hard_items", "random_items")  # tallies
DRAWN_SOURCES = (*SOURCES, "random")


@dataclass
class QualityMetrics:
    """Counts over blocks; adding and merging in any order gives the same numbers.

    `tallies` has, by split and name, vectors as long as what they count by:

    - positive_items, hard_items, random_items: rows by item
    - weeks: positives by whole weeks since the log's first purchase
    - activity: positives by earlier purchases of their user (ACTIVITY_BITS)
    - history: positives by the length of their history
    - price, similarity: positives by normalized price, hard negatives by similarity (BINS)
    - nulls: positives without a value, by NULLABLE
    - drawn, later: negatives by DRAWN_SOURCES, and those of them bought after the window
    - segment_weight: positives' weight in WEIGHT_UNIT by SEGMENTS; absent without weights
    - measured: `kernels.checks.check_group`, summed
    - candidates: `candidate_funnel.count_candidates`; absent without hard negatives
    """

    groups: int = 0
    negatives_verified: int = 0
    violations: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VIOLATIONS, 0))
    hard_by_source: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SOURCES, 0))
    relaxed: int = 0
    tallies: Tallies = field(default_factory=Tallies, compare=False)

    def add(
        self, group: Group, results: StageResults, config: DatasetConfig, backend: Backend
    ) -> None:
        """Check and count a block of groups: the critical gates of D20, and the tallies."""
        xp, negatives = backend.xp, group.negatives
        n, width = group.item.shape
        checks = _check(group, results, backend)
        is_broken = bool(checks.violations.max())
        if is_broken:
            for bit, name in enumerate(VIOLATIONS):
                self.violations[name] += int(((checks.violations >> bit) & 1).sum())
        # nothing is published then, but it is reported
        unknown = is_broken and bool((checks.violations & UNKNOWN_ITEM).any())
        last_item = results.interactions.n_items - 1
        known = replace(group, item=xp.clip(group.item, 0, last_item)) if unknown else group
        columns = _list_codes(known, checks, results, config, backend)
        # Fewer codes than counts come to the host as they are.
        few = [name for name in BY_ITEM if columns[name][0].size < columns[name][1]]
        codes = {name: columns.pop(name)[0].reshape(-1).astype(xp.int64) for name in few}
        counts = count_each(xp, columns)
        n_hard = int(negatives.source.shape[1])
        random_later = checks.later_bought[:, 1 + n_hard :].astype(xp.int64)
        n_random = xp.full(1, random_later.size, dtype=xp.int64)
        drawn, later = counts.pop("drawn"), counts.pop("later")[: len(SOURCES)]
        sums = {
            **_sum_values(known, results, backend),
            "measured": checks.measured.astype(xp.int64).sum(axis=0),
            "drawn": xp.concatenate([drawn, n_random]),
            "later": xp.concatenate([later, random_later.sum().reshape(1)]),
        }
        if n_hard and not unknown:
            sums["candidates"] = count_candidates(group, results, config, backend)
        sums["relaxed"] = negatives.n_relaxed.astype(xp.int64).sum().reshape(1)
        tally, split = bring_to_host(backend, codes | counts | sums), group.positives.split
        self.relaxed += int(tally.pop("relaxed")[0])
        for name, count in zip(SOURCES, tally["drawn"][:-1].tolist(), strict=True):
            self.hard_by_source[name] += count
        self.groups += n
        self.negatives_verified += n * (width - 1)
        for name in few:
            self.tallies.add_codes(split, name, tally.pop(name), results.interactions.n_items)
        self.tallies.add(split, tally)

    def merge(self, other: "QualityMetrics") -> None:
        """Add what `other` has counted."""
        self.groups += other.groups
        self.negatives_verified += other.negatives_verified
        self.relaxed += other.relaxed
        for mine, theirs in (
            (self.violations, other.violations),
            (self.hard_by_source, other.hard_by_source),
        ):
            for name, count in theirs.items():
                mine[name] += count
        self.tallies.merge(other.tallies)


def place_column(results: StageResults) -> str:
    """Name the column that diversity is measured by: departments if any, else groups."""
    return (
        "department"
        if len(results.interactions.item_columns["department"].values)
        else "product_group"
    )


def _check(group: Group, results: StageResults, backend: Backend) -> GroupChecks:
    """Check the rows of a block of groups."""
    xp, log, features = backend.xp, results.interactions, results.features
    n, width = group.item.shape
    windows, split = results.plan.windows, SPLITS.index(group.positives.split)
    groups = GroupRows(
        item=group.item,
        row=group.row,
        snapshot=group.negatives.snapshot,
        history_start=group.history_start,
        history_length=group.history_length,
        n_hard=int(group.negatives.source.shape[1]),
        window_start=windows.starts[split],
        window_end=windows.ends[split],
    )
    tables = CheckTables(
        log=Log(log.user, log.item, log.time),
        ownership=features.ownership,
        product_code=log.item_columns["product_code"].codes,
        product_group=log.item_columns["product_group"].codes,
        place=log.item_columns[place_column(results)].codes,
        state=results.item_states,
    )
    checks = GroupChecks(
        violations=xp.empty(n, dtype=xp.int32),
        later_bought=xp.empty((n, width), dtype=xp.int8),
        measured=xp.empty((n, 3), dtype=xp.int32),
    )
    items, lanes = allocate_filter(backend, n, place=(width, xp.int32))
    scratch = CheckScratch(items, **lanes)
    n_lanes = int(scratch.place.shape[0])
    backend.for_each(check_group, n, groups, tables, scratch, checks, lanes=n_lanes)
    return checks


def _list_codes(
    group: Group,
    checks: GroupChecks,
    results: StageResults,
    config: DatasetConfig,
    backend: Backend,
) -> dict[str, tuple[Array, int]]:
    """Return what the tallies of a block count, as codes, and the number of codes.

    `drawn` and `later` are of hard negatives; the last code of `later` is that of one not bought.
    """
    xp, log, snapshots = backend.xp, results.interactions, results.features.snapshots
    row, user, n_items = group.row, group.user, log.n_items
    source, n_hard = group.negatives.source, int(group.negatives.source.shape[1])
    time, n_before = log.time[row], log.basket_start[row] - log.user_offsets[user]
    edges = backend.from_host([1 << bit for bit in range(ACTIVITY_BITS)]).astype(xp.int64)
    price = snapshots.price[group.negatives.snapshot, group.item[:, 0]]
    similarity = group.negatives.similarity
    later = xp.where(checks.later_bought[:, 1 : 1 + n_hard] > 0, source, xp.int8(len(SOURCES)))
    return {
        "positive_items": (group.item[:, 0], n_items),
        "hard_items": (group.item[:, 1 : 1 + n_hard], n_items),
        "random_items": (group.item[:, 1 + n_hard :], n_items),
        "weeks": (
            (time - log.first_time) // WEEK,
            (log.last_time - log.first_time) // WEEK + 1,
        ),
        "activity": (xp.searchsorted(edges, n_before, side="right"), ACTIVITY_BITS + 1),
        "history": (
            group.history_length,
            config.sequence_processing.max_sequence_length + 1,
        ),
        "price": (_bin(price, price == price, xp), BINS + 1),
        "similarity": (_bin(similarity, similarity >= 0, xp), BINS + 1),
        "drawn": (source, len(SOURCES)),
        "later": (later, len(SOURCES) + 1),
    }


def _bin(shares: Array, known: Array, xp: Any) -> Array:
    """Return the bin of each share 0..1, of BINS equally wide, or BINS, as int64."""
    place = xp.minimum((xp.where(known, shares, 0) * BINS).astype(xp.int64), BINS - 1)
    return xp.where(known, place, BINS)


def _sum_values(group: Group, results: StageResults, backend: Backend) -> dict[str, Array]:
    """Sum the tallies of a block that are not counts of codes."""
    xp, log = backend.xp, results.interactions
    row, user = group.row, group.user
    categories = [
        results.user_categories[name][user] < 0
        for name in ("age_group", "club_status", "news_frequency")
    ]
    channels = [results.features.preferred_channel[row] < 0, log.channel[row] < 0]
    absent = [log.age[user] < 0, *categories, *channels]
    sums = {"nulls": xp.stack([missing.sum() for missing in absent]).astype(xp.int64)}
    if results.balance is not None and group.positives.split == "train":
        weight = positive_weights(results.balance, log, row, results.plan.windows.cut1, backend)
        units = xp.rint(weight * WEIGHT_UNIT)  # whole numbers: float64 sums them exactly
        segment = results.balance.user_segment[user]
        sums["segment_weight"] = xp.bincount(
            segment, weights=units, minlength=len(SEGMENTS)
        ).astype(xp.int64)
    return sums
