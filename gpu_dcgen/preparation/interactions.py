"""Stage 2: merge duplicate lines, filter rare users and items, sort the rows (D4, D5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ..backend.protocol import Array, Backend
from ..backend.runs import (
    chunks,
    count_codes,
    find_positions,
    find_run_starts,
    gather,
    map_in_place,
    offsets_from_lengths,
    position_type,
    sort_order,
)
from ..config import DatasetConfig, FilteringConfig
from ..digest import hash_strings
from ..errors import InputError
from ..inputs.entities import Category
from ..inputs.shop import Shop
from ..kernels import rng
from ..kernels.gather import find_run_maxima
from ..kernels.users import number_baskets
from .windows import DAY, cut_windows


class Views(NamedTuple):
    """Views of items by users, by time."""

    time: Array  # (V,) int64  nanoseconds, rising
    user: Array  # (V,) int32
    item: Array  # (V,) int32


@dataclass(frozen=True)
class Interactions:
    """Interactions that pass the filters, in (user, time, item) order, and their users' data.

    Users and items have new codes, 0..U-1 and 0..I-1 in the order of their ids, over those that
    pass the filters.
    """

    user: Array  # (E,) int32  rising
    item: Array  # (E,) int32
    time: Array  # (E,) int64  nanoseconds, rising within a user
    price: Array  # (E,) int32  code into `prices`
    channel: Array  # (E,) int8  -1 unknown
    user_offsets: Array  # (U+1,) int64  each user's run
    # Rows are numbered by int32 where it holds them, else int64.
    # (E,) first row of the user's rows at the same time: rows before it are "as of" (D6)
    basket_start: Array
    basket: Array  # (E,) int32  number of the user's earlier distinct times
    item_offsets: Array  # (I+1,) int64  each item's run in `by_item`
    prices: Any  # host (P,) float64  distinct prices; empty when the log has none
    user_ids: Any  # host pyarrow strings (U,)
    item_ids: Any  # host pyarrow strings (I,)
    # (U,) uint64  hash of each id, the key of its draws: independent of other users (D22)
    user_key: Array
    item_key: Array  # (I,) uint64
    age: Array  # (U,) int16  -1 null
    user_columns: dict[str, Category]
    item_columns: dict[str, Category]
    views: Views | None  # of these users and items; None without a table of them
    first_time: int  # of all accepted rows, before duplicates are merged and rows filtered (D7)
    last_time: int
    n_accepted: int  # accepted transaction rows
    dropped: dict[str, int]  # rows lost here: collapsed, cold_user, cold_item
    # Samples do not look these up: the last arrays of a result make room first.
    by_item: Array  # (E,) the rows in (item, time, user) order
    by_time: Array  # (E,) the rows in (time, user, item) order

    @property
    def n_users(self) -> int:
        """Number of users, U."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items, I."""
        return len(self.item_ids)

    @property
    def n_rows(self) -> int:
        """Number of interactions, E."""
        return int(self.item.shape[0])

    @property
    def has_groups(self) -> bool:
        """Whether items differ in their product group; without, no rule on groups applies."""
        codes = self.item_columns["product_group"].codes
        return bool((codes != codes[:1]).any())


class _Lines(NamedTuple):
    """Lines of the log in (user, time, item) order, one for each combination of these."""

    row: Array  # (n,) int32 or int64  row of the log
    user: Array  # (n,) int32  code of the Shop
    item: Array  # (n,) int32
    price: Array  # (n,) int32  largest price code of the lines that were merged


def build_interactions(shop: Shop, config: DatasetConfig, backend: Backend) -> Interactions:
    """Merge duplicate lines (D4), filter to the k-core (D5), and sort.

    A distinct (user, item, time) is one interaction, with the largest price and the smallest known
    channel. Users and items with too few interactions are dropped in turns until all that remain
    have enough (the greatest fixed point does not depend on the order of the turns). With
    `filtering.counts: window` the rows before the first cut are filtered alone; those that remain
    stay, and the rows of the next window are filtered beside them.
    Raises InputError when no row remains or all rows have the same time.
    """
    xp = backend.xp
    first_time, last_time = _time_range(shop)
    ticks, n_ticks = _to_ticks(shop.time, first_time, last_time, xp)
    lines = _merge_duplicates(shop, ticks, n_ticks, backend)
    dropped = {"collapsed": int(shop.time.shape[0]) - int(lines.row.shape[0])}
    window, n_layers = None, 1
    if config.filtering.counts == "window":
        cuts = cut_windows(shop.time, first_time, last_time, config.split, backend)
        window, n_layers = cuts.number_of(xp, gather(backend, shop.time, lines.row)), 3
    is_remaining, dropped["cold_user"], dropped["cold_item"] = _find_k_core(
        lines, window, n_layers, shop, config.filtering, xp
    )
    del window
    if dropped["cold_user"] or dropped["cold_item"]:
        remaining = find_positions(xp, is_remaining)
        lines = _Lines(*(gather(backend, column, remaining) for column in lines))
        del remaining
    del is_remaining

    user_of, item_of = _recode(xp, lines.user, shop.n_users), _recode(xp, lines.item, shop.n_items)
    _require_items(int(item_of.shape[0]), config)
    return Interactions(
        **_sort_lines(lines, ticks, n_ticks, user_of, item_of, backend),
        time=gather(backend, shop.time, lines.row),
        channel=gather(backend, shop.channel, lines.row),
        prices=shop.prices,
        **_describe_entities(shop, user_of, item_of, backend),
        views=_select_views(shop, user_of, item_of, backend),
        first_time=first_time,
        last_time=last_time,
        n_accepted=int(shop.time.shape[0]),
        dropped=dropped,
    )


def _sort_lines(
    lines: _Lines, ticks: Array, n_ticks: int, user_of: Array, item_of: Array, backend: Backend
) -> dict[str, Array]:
    """Return the columns of `Interactions` that lines in their order have, and other orders.

    Lines have codes of the users (U,) and items (I,) that remain; `ticks` are those of the log.
    """
    xp, n_users, n_items = backend.xp, int(user_of.shape[0]), int(item_of.shape[0])
    user, item, tick = lines.user, lines.item, gather(backend, ticks, lines.row)
    user_offsets = offsets_from_lengths(xp, count_codes(xp, user, n_users))
    n = int(user.shape[0])
    basket_start = xp.empty(n, dtype=position_type(xp, n))
    basket = xp.empty(n, dtype=xp.int32)
    backend.for_each(number_baskets, n_users, user_offsets, tick, basket_start, basket)
    return {
        "user": user,
        "item": item,
        "price": lines.price,
        "user_offsets": user_offsets,
        "basket_start": basket_start,
        "basket": basket,
        "by_item": sort_order(backend, [(item, n_items), (tick, n_ticks), (user, n_users)]),
        "item_offsets": offsets_from_lengths(xp, count_codes(xp, item, n_items)),
        "by_time": sort_order(backend, [(tick, n_ticks), (user, n_users), (item, n_items)]),
    }


def _describe_entities(
    shop: Shop, user_of: Array, item_of: Array, backend: Backend
) -> dict[str, Any]:
    """Return what `Interactions` has of the users (U,) and items (I,) that remain."""
    user_ids = shop.user_ids.take(backend.to_host(user_of))
    item_ids = shop.item_ids.take(backend.to_host(item_of))
    return {
        "user_ids": user_ids,
        "item_ids": item_ids,
        "user_key": backend.from_host(hash_strings(user_ids)),
        "item_key": backend.from_host(hash_strings(item_ids)),
        "age": shop.age[user_of],
        "user_columns": _take_rows(shop.user_columns, user_of),
        "item_columns": _take_rows(shop.item_columns, item_of),
    }


def warn_of_no_groups(interactions: Interactions) -> tuple[str, ...]:
    """Return a warning where items do not differ in their product group: which rules are off."""
    if interactions.has_groups:
        return ()
    return (
        "items do not differ in product_group_name: what compares product groups is off, which is "
        "the limit negative_sampling.diversity_threshold, the source category_crossing, the "
        "category weights of category_balancing, and the gates on product groups.",
    )


def _time_range(shop: Shop) -> tuple[int, int]:
    """Return the first and the last accepted time; InputError where they are equal."""
    first, last = int(shop.time.min()), int(shop.time.max())
    if first == last:
        raise InputError(
            f"transactions: all {int(shop.time.shape[0])} rows have the same time; a split by time "
            "needs at least two.\n"
            "Check that t_dat is the purchase time, or map another column with inputs.columns."
        )
    return first, last


def _to_ticks(time: Array, first: int, last: int, xp: Any) -> tuple[Array, int]:
    """Return times since `first` in ticks of the log's resolution, and the count of ticks.

    Short sort keys take fewer passes.
    """
    resolution = _find_resolution(time, first)
    n_ticks = (last - first) // resolution + 1
    ticks = xp.empty(time.shape[0], dtype=xp.int32 if n_ticks < 1 << 31 else xp.int64)
    for rows in chunks(int(time.shape[0])):
        ticks[rows] = (time[rows] - first) // resolution
    return ticks, n_ticks


def _find_resolution(time: Array, origin: int) -> int:
    """Return the coarsest of day, minute, second, millisecond, ns that divides all times."""
    for unit in (DAY, 60_000_000_000, 1_000_000_000, 1_000_000):
        n = int(time.shape[0])
        if not any(bool(((time[rows] - origin) % unit != 0).any()) for rows in chunks(n)):
            return unit
    return 1


def _merge_duplicates(shop: Shop, ticks: Array, n_ticks: int, backend: Backend) -> _Lines:
    """Merge the lines of each (user, tick, item) into that with the smallest known channel.

    It gets the largest price of the lines that it stands for.
    """
    xp = backend.xp
    channel_rank = xp.where(shop.channel < 0, 127, shop.channel).astype(xp.int8)
    keys = [
        (shop.user, shop.n_users),
        (ticks, n_ticks),
        (shop.item, shop.n_items),
        (channel_rank, 128),
    ]
    order = sort_order(backend, keys)
    del keys, channel_rank
    first = find_positions(xp, find_run_starts(backend, order, shop.user, ticks, shop.item))
    n = int(first.shape[0])
    price = xp.empty(n, dtype=shop.price.dtype)
    backend.for_each(find_run_maxima, n, shop.price, order, first, price)
    row = gather(backend, order, first)
    del order, first
    return _Lines(row, gather(backend, shop.user, row), gather(backend, shop.item, row), price)


def _find_k_core(
    lines: _Lines,
    window: Array | None,
    n_layers: int,
    shop: Shop,
    filtering: FilteringConfig,
    xp: Any,
) -> tuple[Array, int, int]:
    """Return whether each line remains (n,) bool, and how many a rare user or item dropped.

    Each layer of lines, those of one `window` (n,) int8, is filtered beside what remains of the
    layers before it, which stays. Raises InputError where no line remains.
    """
    minimum = (filtering.min_user_interactions, filtering.min_item_interactions)
    sides = ((lines.user, shop.n_users), (lines.item, shop.n_items))
    n_dropped, is_settled = [0, 0], xp.zeros(lines.row.shape[0], dtype=bool)
    for layer in range(n_layers):
        is_left = xp.ones(lines.row.shape[0], dtype=bool) if window is None else window == layer
        n_settled = [_count_where(xp, codes, is_settled, n_codes) for codes, n_codes in sides]
        n_left = [_count_where(xp, codes, is_left, n_codes) for codes, n_codes in sides]
        n_before = -1
        while sum(n_dropped) != n_before:
            n_before = sum(n_dropped)
            for side, (codes, _) in enumerate(sides):
                is_frequent = n_settled[side] + n_left[side] >= minimum[side]
                if n_lost := int(n_left[side][~is_frequent].sum()):
                    n_dropped[side] += n_lost
                    # Few are lost: taking them off takes less time than counting what is left.
                    for rows in chunks(int(codes.shape[0])):
                        is_lost = is_left[rows] & ~is_frequent[codes[rows]]
                        is_left[rows] &= ~is_lost
                        for left, (values, n_codes) in zip(n_left, sides, strict=True):
                            left -= count_codes(xp, values[rows][is_lost], n_codes)
        is_settled |= is_left
    if not bool(is_settled.any()):
        raise InputError(
            f"transactions: no interaction is left of {int(shop.time.shape[0])} rows: no group of "
            f"users with >= {minimum[0]} and items with >= {minimum[1]} interactions.\n"
            "Lower filtering.min_user_interactions or filtering.min_item_interactions, or use a "
            "longer log."
        )
    return is_settled, n_dropped[0], n_dropped[1]


def _count_where(xp: Any, codes: Array, mask: Array, n_codes: int) -> Array:
    """Return how often each code occurs where `mask` (n,) bool is true: (n_codes,) int64."""
    counts = xp.zeros(n_codes, dtype=xp.int64)
    for rows in chunks(int(codes.shape[0])):
        counts += count_codes(xp, codes[rows][mask[rows]], n_codes)
    return counts


def _recode(xp: Any, codes: Array, n_codes: int) -> Array:
    """Give `codes` (n,) int32 new values without gaps, in place; return the old ones in order."""
    is_present = count_codes(xp, codes, n_codes) > 0
    map_in_place((xp.cumsum(is_present) - 1).astype(xp.int32), codes)
    return xp.nonzero(is_present)[0]


def _require_items(n_items: int, config: DatasetConfig) -> None:
    """Raise InputError where no group can be filled: too few items for the negatives (D12)."""
    sampling = config.negative_sampling
    if n_items <= config.negatives_per_positive:
        raise InputError(
            f"transactions: {n_items} items are left after filtering, too few for a positive and "
            f"{sampling.hard_negatives_per_positive} hard and "
            f"{sampling.random_negatives_per_positive} random negatives.\n"
            "Lower negative_sampling.random_negatives_per_positive or hard_negatives_per_positive, "
            "or filtering.min_item_interactions."
        )


def _take_rows(columns: dict[str, Category], rows: Array) -> dict[str, Category]:
    return {name: Category(column.codes[rows], column.values) for name, column in columns.items()}


def _select_views(shop: Shop, user_of: Array, item_of: Array, backend: Backend) -> Views | None:
    """Return the views of users and items that remain, by time, with their new codes."""
    if shop.views is None:
        return None
    xp, (time, user, item) = backend.xp, shop.views
    new_user = _new_codes(xp, user_of, shop.n_users)[user]
    new_item = _new_codes(xp, item_of, shop.n_items)[item]
    rows = xp.nonzero((new_user >= 0) & (new_item >= 0))[0]
    if rows.shape[0]:
        time_of_rows = time[rows]
        first, last = int(time_of_rows.min()), int(time_of_rows.max())
        rows = rows[sort_order(backend, [_to_ticks(time_of_rows, first, last, xp)])]
    return Views(time[rows], new_user[rows], new_item[rows])


def _new_codes(xp: Any, old_of_new: Array, n_old: int) -> Array:
    new = xp.full(n_old, -1, dtype=xp.int32)
    new[old_of_new] = xp.arange(old_of_new.shape[0], dtype=xp.int32)  # the indices are distinct
    return new


def fold_purchases(key: Any, row: Array, interactions: Interactions) -> Array:
    """Fold user, item and time of purchases into a key: (n,) uint64, as `draws.fold_positive`.

    `row` (n,) int64 are rows of the interactions.
    """
    for values in (
        interactions.user_key[interactions.user[row]],
        interactions.item_key[interactions.item[row]],
        interactions.time[row],
    ):
        key = rng.fold_array(key, values)
    return key
