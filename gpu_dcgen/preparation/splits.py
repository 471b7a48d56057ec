"""Stage 4: assign users to splits and list the positives of each (D5, D7, D11, D12)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..backend.protocol import Array, Backend
from ..backend.runs import count_codes, run_starts
from ..config import DatasetConfig, SplitConfig
from ..contract.schema import SPLITS
from ..errors import GateError, InputError
from ..kernels import rng
from ..kernels.arguments import DrawTables
from ..kernels.draws import PurchaseRows, count_eligible
from .assignment import assign_users, count_by_window
from .features import AsOfFeatures
from .interactions import Interactions
from .split_search import TOLERANCE
from .windows import Windows, format_time, wanted_shares


@dataclass(frozen=True)
class Positives:
    """The emitted interactions of one split, in the file's order."""

    split: str
    row: Array  # (n,) int64  row of Interactions
    copy: Array  # (n,) int32  0, or the number of the copy (D18, resample)
    window_start: int  # nanoseconds
    window_end: int  # what the user buys at or after this time is unknown to this split (D8)

    def __len__(self) -> int:
        return int(self.row.shape[0])


@dataclass(frozen=True)
class SplitPlan:
    """Positives of train, val and test, and the number of interactions lost by reason."""

    windows: Windows
    user_split: Array  # (U,) int8  0 train, 1 val, 2 test, -1 none; all -1 with strategy `temporal`
    # train, val, test; each by (time, user, item) until `order_positives`
    positives: tuple[Positives, ...]
    # reason -> interactions, and `emitted` -> split -> interactions before resampling; all
    # interactions are counted once
    ledger: dict[str, Any]
    shares: dict[str, dict[str, float]]  # split -> positives, share, wanted, users
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
    window = windows.number_of(xp, interactions.time)
    start = interactions.user_offsets[user]
    is_long_enough = (
        interactions.basket_start - start >= config.sequence_processing.min_sequence_length
    )
    refusals = _find_refusals(
        is_long_enough, window, windows, interactions, features, config, backend
    )
    user_warnings: tuple[str, ...] = ()
    if config.split.strategy == "temporal":
        user_split = xp.full(interactions.n_users, -1, dtype=xp.int8)
        split = window
    else:
        n_users, cap = interactions.n_users, config.filtering.max_user_interactions
        available = xp.minimum(count_by_window(user, window, is_long_enough, n_users, xp), cap)
        emitted = count_by_window(user, window, refusals.is_accepted, n_users, xp)
        user_split = assign_users(available, emitted, interactions.user_key, config, backend)
        split = user_split[user]
        user_warnings = tuple(_warn_of_users(user_split, emitted, interactions, backend))
    is_inside = split == window
    losses = {
        "no_split": int((split < 0).sum()),
        "history": int((window < split).sum()),
        "later_unused": int(((split >= 0) & (window > split)).sum()),
        **refusals.count(is_inside),
    }

    is_emitted = (refusals.is_accepted & is_inside)[interactions.by_time]
    window_by_time = window[interactions.by_time]
    positives = []
    for k, name in enumerate(SPLITS):
        row = interactions.by_time[is_emitted & (window_by_time == k)]
        copy = xp.zeros(row.shape[0], dtype=xp.int32)
        positives.append(Positives(name, row, copy, windows.starts[k], windows.ends[k]))
    shares, warnings = measure_shares(interactions, positives, config.split, backend)
    ledger = {"emitted": {p.split: len(p) for p in positives}, **losses}
    warnings = (*warnings, *user_warnings)
    return SplitPlan(windows, user_split, tuple(positives), ledger, shares, warnings)


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


def _find_refusals(
    is_long_enough: Array,
    window: Array,
    windows: Windows,
    interactions: Interactions,
    features: AsOfFeatures,
    config: DatasetConfig,
    backend: Backend,
) -> _Refusals:
    """Find the interactions that cannot become positives in the split of their window."""
    xp, refusals = backend.xp, _Refusals(backend.xp, interactions.n_rows)
    refusals.add("short_history", ~is_long_enough)
    cap = config.filtering.max_user_interactions
    refusals.add("over_cap", _find_over_cap(xp, interactions, window, refusals.is_accepted, cap))
    snapshots = features.snapshots
    snapshot = snapshots.number_of(interactions.time)
    refusals.add("not_on_sale", ~snapshots.on_sale[snapshot, interactions.item])
    if config.negative_sampling.repurchases == "drop":
        refusals.add("repurchase", features.is_repurchase)
    rows = xp.nonzero(refusals.is_accepted)[0]
    too_small = xp.zeros(interactions.n_rows, dtype=bool)
    too_small[_find_too_small(rows, window, windows, interactions, features, config, backend)] = (
        True
    )
    refusals.add("corpus_too_small", too_small)
    return refusals


class _Refusals:
    """Why interactions become no positives in their window; the first reason counts."""

    def __init__(self, xp: Any, n_rows: int) -> None:
        self._reasons: list[str] = []
        self._number: Array = xp.zeros(n_rows, dtype=xp.uint8)  # from 1; 0 where accepted

    @property
    def is_accepted(self) -> Array:
        """Whether no reason applies to the interaction (E,) bool."""
        return self._number == 0

    def add(self, reason: str, mask: Array) -> None:
        """Refuse the interactions of `mask` (E,) bool that are still accepted."""
        self._reasons.append(reason)
        self._number[mask & self.is_accepted] = len(self._reasons)

    def count(self, mask: Array) -> dict[str, int]:
        """Count the refused interactions of `mask` (E,) bool by reason."""
        return {
            reason: int((mask & (self._number == number)).sum())
            for number, reason in enumerate(self._reasons, 1)
        }


def _find_over_cap(
    xp: Any, interactions: Interactions, window: Array, is_remaining: Array, cap: int
) -> Array:
    """Return whether each remaining row is not among the latest `cap` of its user and window.

    The latest are those in (time, item) order.
    """
    rows = xp.nonzero(is_remaining)[0]
    is_over = xp.zeros(interactions.n_rows, dtype=bool)
    if rows.shape[0]:
        # Windows follow one another in time, so the rows of a user and window are a run.
        is_first = run_starts(xp, interactions.user[rows], window[rows])
        starts = xp.nonzero(is_first)[0]
        stops = xp.concatenate([starts[1:], xp.full(1, rows.shape[0], dtype=starts.dtype)])
        from_end = stops[xp.cumsum(is_first) - 1] - xp.arange(rows.shape[0])
        is_over[rows[from_end > cap]] = True
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
                "Use a longer log, lower filtering.min_user_interactions, "
                "filtering.min_item_interactions or sequence_processing.min_sequence_length, or "
                "move the cuts with split.windows rows, split.train_share or split.val_share."
            )
        share = len(p) / n_all
        shares[p.split] = {
            "positives": len(p),
            "share": share,
            "wanted": wanted,
            "users": int(_has_positives(interactions, p, backend).sum()),
        }
        if split.strategy != "temporal" and abs(share - wanted) > TOLERANCE:
            warnings.append(
                f"split: {p.split} has {share:.1%} of the positives, {wanted:.1%} wanted; "
                "the log's windows do not allow it"
            )
    return shares, tuple(warnings)


def _has_positives(interactions: Interactions, positives: Positives, backend: Backend) -> Array:
    return count_codes(backend.xp, interactions.user[positives.row], interactions.n_users) > 0


def positive_users(interactions: Interactions, plan: SplitPlan, backend: Backend) -> list[Array]:
    """Return for each split whether each user has positives in it, (U,) bool."""
    return [_has_positives(interactions, positives, backend) for positives in plan.positives]


def require_disjoint_users(
    interactions: Interactions, plan: SplitPlan, split: SplitConfig, backend: Backend
) -> None:
    """Raise GateError where a user has positives in two splits (D7).

    With strategy `temporal` users may be in several.
    """
    if split.strategy == "temporal":
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
