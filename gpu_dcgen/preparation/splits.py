"""Stage 4: assign users to splits and list the positives of each (D5, D7, D11, D12)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..backend.protocol import Array, Backend
from ..backend.runs import chunks, count_codes, find_positions, gather
from ..config import DatasetConfig, SplitConfig
from ..contract.schema import SPLITS
from ..errors import GateError, InputError
from ..kernels import rng
from ..kernels.arguments import DrawTables
from ..kernels.draws import PurchaseRows, count_eligible
from ..kernels.users import mark_over_cap
from .assignment import UserCounts, assign_users, count_by_window
from .features import AsOfFeatures
from .interactions import Interactions
from .split_search import TOLERANCE
from .windows import DAY, Windows, format_time, wanted_shares


@dataclass(frozen=True)
class Positives:
    """The emitted interactions of one split, in the file's order."""

    split: str
    row: Array  # (n,) int32 or int64  row of Interactions
    copy: Array  # (n,) int32  0, or the number of the copy (D18, resample)
    window_start: int  # nanoseconds
    window_end: int  # what the user buys at or after this time is unknown to this split (D8)

    def __len__(self) -> int:
        return int(self.row.shape[0])


@dataclass(frozen=True)
class SplitPlan:
    """Positives of train, val and test, and the number of interactions lost by reason."""

    windows: Windows
    # (U,) int8  0 train, 1 val, 2 test, -1 none; all -1 where a user may be in several splits
    user_split: Array
    # train, val, test; each by (time, user, item) until `order_positives`
    positives: tuple[Positives, ...]
    # reason -> interactions, and `emitted` -> split -> interactions before resampling; all
    # interactions are counted once
    ledger: dict[str, Any]
    shares: dict[str, dict[str, float]]  # split -> positives, share, wanted, users
    # strategy -> split -> positives that there would be, before resampling
    by_strategy: dict[str, dict[str, int]]
    warnings: tuple[str, ...]


def plan_splits(
    interactions: Interactions,
    features: AsOfFeatures,
    windows: Windows,
    config: DatasetConfig,
    backend: Backend,
) -> SplitPlan:
    """Assign each user to one split and list the positives of each split (D7).

    Users are assigned so that most positives are emitted at the wanted shares, by times alone where
    that reaches them (`assign_users`). Raises InputError when a split has no positive.
    """
    xp, user = backend.xp, interactions.user
    window = _number_windows(interactions, windows, config.split, xp)
    refusals = _Refusals(xp, interactions.n_rows)
    if config.split.gap_days:
        refusals.add("in_gap", _find_gaps(interactions.time, windows, config.split.gap_days))
    min_length = config.sequence_processing.min_sequence_length
    refusals.add("short_history", _find_short_histories(interactions, min_length, xp))
    is_available = refusals.is_accepted
    _add_refusals(refusals, window, windows, interactions, features, config, backend)
    n_users, cap = interactions.n_users, config.filtering.max_user_interactions
    counts = UserCounts(
        xp.minimum(count_by_window(user, window, is_available, n_users, xp), cap),
        count_by_window(user, window, refusals.is_accepted, n_users, xp),
        interactions.user_key,
    )
    user_split, split = xp.full(n_users, -1, dtype=xp.int8), window
    user_warnings: tuple[str, ...] = ()
    if config.split.is_disjoint:
        user_split = assign_users(counts, config, backend)
        split = gather(backend, user_split, user)
        user_warnings = tuple(_warn_of_users(user_split, counts.emitted, interactions, backend))
    is_inside = split == window
    losses = {
        "no_split": int((split < 0).sum()),
        "history": int((window < split).sum()),
        "later_unused": int(((split >= 0) & (window > split)).sum()),
        **refusals.count(is_inside),
    }

    # The split of each interaction that is emitted, by time; else 3.
    emitted_by_time = gather(
        backend,
        xp.where(refusals.is_accepted & is_inside, window, 3).astype(xp.int8),
        interactions.by_time,
    )
    positives = []
    for k, name in enumerate(SPLITS):
        row = gather(backend, interactions.by_time, find_positions(xp, emitted_by_time == k))
        copy = xp.zeros(row.shape[0], dtype=xp.int32)
        positives.append(Positives(name, row, copy, windows.starts[k], windows.ends[k]))
    shares, warnings = measure_shares(interactions, positives, config.split, backend)
    ledger = {"emitted": {p.split: len(p) for p in positives}, **losses}
    warnings = (*_warn_of_leaks(config.split), *warnings, *user_warnings)
    by_strategy = _count_by_strategy(counts, user_split, config, backend)
    plan = tuple(positives)
    return SplitPlan(windows, user_split, plan, ledger, shares, by_strategy, warnings)


def _number_windows(
    interactions: Interactions, windows: Windows, split: SplitConfig, xp: Any
) -> Array:
    """Return the window of each interaction (E,) int8: 0 train, 1 val, 2 test.

    With strategy `leave_last` it is given by how many purchases of the user follow.
    """
    if split.strategy != "leave_last":
        return windows.number_of(xp, interactions.time)
    window = xp.empty(interactions.n_rows, dtype=xp.int8)
    for rows in chunks(interactions.n_rows):
        stop = interactions.user_offsets[1:][interactions.user[rows]]
        from_end = stop - xp.arange(rows.start, rows.stop, dtype=xp.int64)  # 1 is the last
        is_val, is_test = from_end <= 2 * split.leave_last, from_end <= split.leave_last
        window[rows] = is_val.astype(xp.int8) + is_test.astype(xp.int8)
    return window


def _find_short_histories(interactions: Interactions, min_length: int, xp: Any) -> Array:
    """Return whether each interaction (E,) bool has fewer than `min_length` before it."""
    is_short = xp.empty(interactions.n_rows, dtype=bool)
    for rows in chunks(interactions.n_rows):
        first = interactions.user_offsets[interactions.user[rows]]
        is_short[rows] = interactions.basket_start[rows] - first < min_length
    return is_short


def _find_gaps(time: Array, windows: Windows, gap_days: int) -> Array:
    """Return whether each time (E,) int64 is in the days before val or before test."""
    starts = (windows.cut1, windows.cut2)
    before_val, before_test = ((time >= t - gap_days * DAY) & (time < t) for t in starts)
    return before_val | before_test


def _count_by_strategy(
    counts: UserCounts, user_split: Array, config: DatasetConfig, backend: Backend
) -> dict[str, dict[str, int]]:
    """Count each split's positives by the strategies that divide time, or `leave_last` alone.

    `user_split` (U,) int8 is that of the configured strategy.
    """
    n_all = dict(zip(SPLITS, backend.to_host(counts.emitted.sum(axis=1)).tolist(), strict=True))
    if config.split.strategy == "leave_last":
        return {"leave_last": n_all}
    by_strategy = {"temporal": n_all}
    for strategy in ("temporal_user_disjoint", "hash"):
        users = user_split
        if strategy != config.split.strategy:
            other = config.split.model_copy(update={"strategy": strategy})
            users = assign_users(counts, config.model_copy(update={"split": other}), backend)
        by_strategy[strategy] = {
            name: int(counts.emitted[k][users == k].sum()) for k, name in enumerate(SPLITS)
        }
    return by_strategy


def _warn_of_leaks(split: SplitConfig) -> tuple[str, ...]:
    if split.strategy != "leave_last":
        return ()
    return (
        "split: strategy leave_last leaks time: train holds purchases after those of val and test, "
        "and similarities and price edges know the whole log; figures on val and test are better "
        "than what a model reaches on days that it has not seen",
    )


def _warn_of_users(
    user_split: Array, emitted: Array, interactions: Interactions, backend: Backend
) -> Iterator[str]:
    """Name users who have most of a split, and those for whom no split has room.

    emitted (3, U) int64 counts the positives of each user in each split.
    """
    xp, ids = backend.xp, interactions.user_ids
    for k, name in enumerate(SPLITS):
        counts = xp.where(user_split == k, emitted[k], 0)
        most, total = int(counts.max()), int(counts.sum())
        if 2 * most > total:
            yield (
                f"split: customer {ids[int(counts.argmax())].as_py()!r} alone has {most:,} of the "
                f"{total:,} positives of {name}; no other assignment has the wanted shares"
            )
    left_out = xp.where(user_split < 0, emitted.max(axis=0), 0)
    if n_users := int((left_out > 0).sum()):
        yield (
            f"split: {n_users:,} customers with possible positives are in no split, "
            f"{ids[int(left_out.argmax())].as_py()!r} with {int(left_out.max()):,} among them: "
            "with them, no assignment has the wanted shares"
        )


def _add_refusals(
    refusals: _Refusals,
    window: Array,
    windows: Windows,
    interactions: Interactions,
    features: AsOfFeatures,
    config: DatasetConfig,
    backend: Backend,
) -> None:
    """Refuse the interactions that cannot become positives in the split of their window."""
    xp = backend.xp
    cap = config.filtering.max_user_interactions
    refusals.add("over_cap", _find_over_cap(interactions, window, refusals.numbers, cap, backend))
    is_missing = xp.empty(interactions.n_rows, dtype=bool)
    for rows in chunks(interactions.n_rows):
        snapshot = features.snapshots.number_of(interactions.time[rows])
        is_missing[rows] = ~features.snapshots.on_sale[snapshot, interactions.item[rows]]
    refusals.add("not_on_sale", is_missing)
    del is_missing
    if config.negative_sampling.repurchases == "drop":
        refusals.add("repurchase", features.is_repurchase)
    accepted, too_small = refusals.is_accepted, xp.zeros(interactions.n_rows, dtype=bool)
    for chunk in chunks(interactions.n_rows):
        rows = xp.nonzero(accepted[chunk])[0] + chunk.start
        rows = _find_too_small(rows, window, windows, interactions, features, config, backend)
        too_small[rows] = True
    refusals.add("corpus_too_small", too_small)


class _Refusals:
    """Why interactions become no positives in their window; the first reason counts."""

    def __init__(self, xp: Any, n_rows: int) -> None:
        self._reasons: list[str] = []
        self.numbers: Array = xp.zeros(n_rows, dtype=xp.uint8)  # from 1; 0 where accepted

    @property
    def is_accepted(self) -> Array:
        """Whether no reason applies to the interaction (E,) bool."""
        return self.numbers == 0

    def add(self, reason: str, mask: Array) -> None:
        """Refuse the interactions of `mask` (E,) bool that are still accepted."""
        self._reasons.append(reason)
        self.numbers[mask & self.is_accepted] = len(self._reasons)

    def count(self, mask: Array) -> dict[str, int]:
        """Count the refused interactions of `mask` (E,) bool by reason."""
        return {
            reason: int((mask & (self.numbers == number)).sum())
            for number, reason in enumerate(self._reasons, 1)
        }


def _find_over_cap(
    interactions: Interactions, window: Array, refused: Array, cap: int, backend: Backend
) -> Array:
    """Return whether each row (E,) bool is not among the latest `cap` of its user and window.

    The latest are those in (time, item) order; rows with `refused` (E,) uint8 above 0 are none.
    """
    # Windows follow one another in time, so the rows of a user and window are a run.
    is_over, n_users = backend.xp.zeros(interactions.n_rows, dtype=bool), interactions.n_users
    offsets = interactions.user_offsets
    backend.for_each(mark_over_cap, n_users, offsets, window, refused, cap, is_over)
    return is_over


def _find_too_small(
    rows: Array,
    window: Array,
    windows: Windows,
    interactions: Interactions,
    features: AsOfFeatures,
    config: DatasetConfig,
    backend: Backend,
) -> Array:
    """Select `rows` with too few items on sale that are neither owned nor siblings (D12).

    Sizes alone clear most rows; the kernel counts exactly for the others.
    """
    xp = backend.xp
    n_hard = config.negative_sampling.hard_negatives_per_positive
    n_negatives = config.negatives_per_positive
    snapshots, product = features.snapshots, interactions.item_columns["product_code"]
    if not rows.shape[0]:
        return rows
    n_siblings = int(
        count_codes(xp, product.codes[product.codes >= 0], max(1, len(product.values))).max()
    )
    snapshot = snapshots.number_of(interactions.time[rows])
    size = xp.diff(snapshots.corpus.offsets)[snapshot]
    n_owned = xp.diff(features.ownership.offsets)[interactions.user[rows]]
    is_doubtful = size - n_owned - n_siblings < n_negatives
    rows, snapshot = rows[is_doubtful], snapshot[is_doubtful]
    if not rows.shape[0]:
        return rows
    n_eligible = xp.empty((rows.shape[0], 2), dtype=xp.int32)
    purchases = PurchaseRows(
        user=interactions.user[rows],
        item=interactions.item[rows],
        snapshot=snapshot,
        window_end=backend.from_host(windows.ends)[window[rows]],
    )
    tables = DrawTables(snapshots.corpus, features.ownership, product.codes)
    backend.for_each(count_eligible, int(rows.shape[0]), purchases, tables, n_eligible)
    return rows[(n_eligible[:, 0] < n_negatives) | (n_eligible[:, 1] < n_hard)]


def measure_shares(
    interactions: Interactions, positives: Sequence[Positives], split: SplitConfig, backend: Backend
) -> tuple[dict[str, dict[str, float]], tuple[str, ...]]:
    """Return positives, share and users of each split, and a warning for each share far off.

    A share is far off where it differs by more than 2 points from the wanted one. Raises
    InputError for a split without positives.
    """
    n_all = sum(len(p) for p in positives)
    shares: dict[str, dict[str, float]] = {}
    warnings = []
    for p, wanted in zip(positives, map(float, wanted_shares(split)), strict=True):
        if not len(p):
            raise InputError(
                f"no positive is left in the {p.split} window of {n_all} in all: train begins at "
                f"{format_time(positives[0].window_start)}, val at "
                f"{format_time(positives[1].window_start)} and test at "
                f"{format_time(positives[2].window_start)}, and the last row is of "
                f"{format_time(positives[2].window_end - 1)}.\n"
                f"{_suggest_smaller(split)}Use a longer log, lower "
                "filtering.min_user_interactions, filtering.min_item_interactions or "
                "sequence_processing.min_sequence_length, or "
                "move the cuts with split.windows rows, split.train_share or split.val_share."
            )
        share = len(p) / n_all
        shares[p.split] = {
            "positives": len(p),
            "share": share,
            "wanted": wanted,
            "users": int(_has_positives(interactions, p, backend).sum()),
        }
        if split.is_disjoint and abs(share - wanted) > TOLERANCE:
            warnings.append(
                f"split: {p.split} has {share:.1%} of the positives, {wanted:.1%} wanted; "
                "the log's windows do not allow it"
            )
    return shares, tuple(warnings)


def _suggest_smaller(split: SplitConfig) -> str:
    """Name the setting that may have left a split without positives, if there is one."""
    if split.strategy == "leave_last":
        return "Lower split.leave_last. "
    return "Lower split.gap_days. " if split.gap_days else ""


def _has_positives(interactions: Interactions, positives: Positives, backend: Backend) -> Array:
    user = gather(backend, interactions.user, positives.row)
    return count_codes(backend.xp, user, interactions.n_users) > 0


def positive_users(interactions: Interactions, plan: SplitPlan, backend: Backend) -> list[Array]:
    """Return for each split whether each user has positives in it, (U,) bool."""
    return [_has_positives(interactions, positives, backend) for positives in plan.positives]


def require_disjoint_users(
    interactions: Interactions, plan: SplitPlan, split: SplitConfig, backend: Backend
) -> None:
    """Raise GateError where a user has positives in two splits (D7).

    With strategies `temporal` and `leave_last` users may be in several.
    """
    if not split.is_disjoint:
        return
    train, val, test = positive_users(interactions, plan, backend)
    n_shared = int((train & val | train & test | val & test).sum())
    if n_shared:
        raise GateError(
            f"critical gate failed, nothing was published: {n_shared} users have positives in "
            "more than one split.\n"
            "This is a defect of gpu-dcgen, not of your data: please report it."
        )


def order_positives(plan: SplitPlan, seed: int, backend: Backend) -> SplitPlan:
    """Shuffle each split's groups by a seeded permutation (`output.order: shuffled`)."""
    xp = backend.xp
    shuffled = []
    for k, positives in enumerate(plan.positives):
        n = len(positives)
        key = rng.fold_array(rng.purpose_key(seed, rng.SHUFFLE), xp.full(n, k, dtype=xp.int64))
        order = xp.argsort(rng.fold_array(key, xp.arange(n, dtype=xp.int64)), kind="stable")
        shuffled.append(replace(positives, row=positives.row[order], copy=positives.copy[order]))
    return replace(plan, positives=tuple(shuffled))
