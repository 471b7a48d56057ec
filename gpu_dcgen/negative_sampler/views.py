"""Find what users viewed and did not buy, as of a snapshot (D13)."""

from __future__ import annotations

from ..backend.protocol import Array, Backend
from ..backend.runs import count_codes, offsets_from_lengths, run_starts, sort_order
from ..config import NegativeSamplingConfig
from ..kernels.arguments import Ownership
from ..kernels.sources import RecentViews, mark_open_views
from ..preparation.interactions import Interactions, Views


def select_views(interactions: Interactions, settings: NegativeSamplingConfig) -> Views | None:
    """Return the views that offer hard negatives; None where none do."""
    n_asked = settings.collaborative_buyers if settings.hard_negatives_per_positive else 0
    return interactions.views if n_asked and settings.viewed_items else None


def find_recent_views(
    views: Views,
    period: tuple[int, int],
    on_sale: Array,
    ownership: Ownership,
    backend: Backend,
) -> RecentViews:
    """Find what each user viewed in a period, of what was on sale and not bought by its end.

    `period` has the first moment and the end, a snapshot's, in nanoseconds; `on_sale` (I,) bool is
    that of the snapshot. Views and purchases from the end on change nothing. Memory follows the
    number of views in the period.
    """
    xp, (since, until) = backend.xp, period
    n_users, n_items = int(ownership.offsets.shape[0]) - 1, int(on_sale.shape[0])
    user, item, tick = _select_open_views(views, period, on_sale, ownership, backend)
    if user.shape[0]:
        # The latest view of each user and item: views come by time, and the sort is stable.
        order = sort_order(backend, [(user, n_users), (item, n_items)])
        is_latest = xp.ones(order.shape[0], dtype=bool)
        is_latest[:-1] = run_starts(xp, user[order], item[order])[1:]
        latest = order[is_latest]
        user, item, tick = user[latest], item[latest], tick[latest]
        keys = [(user, n_users), (tick, until - since), (item, n_items)]
        item = item[sort_order(backend, keys)]
    return RecentViews(offsets_from_lengths(xp, count_codes(xp, user, n_users)), item)


def _select_open_views(
    views: Views,
    period: tuple[int, int],
    on_sale: Array,
    ownership: Ownership,
    backend: Backend,
) -> tuple[Array, Array, Array]:
    """Return user and item (n,) int32 and time in the period (n,) int64 of the views, by time."""
    xp, (since, until) = backend.xp, period
    first, stop = (int(xp.searchsorted(views.time, moment)) for moment in period)
    user, item = views.user[first:stop], views.item[first:stop]
    is_open = xp.empty(stop - first, dtype=bool)
    arguments = user, item, until, on_sale, ownership, is_open
    backend.for_each(mark_open_views, stop - first, *arguments)
    return user[is_open], item[is_open], views.time[first:stop][is_open] - since
