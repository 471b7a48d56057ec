"""Stage 2: merge duplicate lines, filter rare users and items, sort the rows (D4, D5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..backend.protocol import Array, Backend
from ..backend.runs import count_codes, run_maxima, run_offsets, run_starts, sort_order
from ..config import DatasetConfig, FilteringConfig
from ..digest import hash_strings
from ..errors import InputError
from ..inputs.entities import Category
from ..inputs.shop import Shop
from ..kernels import rng
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
    # (E,) int64  first row of the user's rows at the same time: rows before it are "as of" (D6)
    basket_start: Array
    basket: Array  # (E,) int32  number of the user's earlier distinct times
    by_item: Array  # (E,) int64  the rows in (item, time, user) order
    item_offsets: Array  # (I+1,) int64  each item's run in `by_item`
    by_time: Array  # (E,) int64  the rows in (time, user, item) order
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

    row: Array  # (n,) int64  row of the log
    user: Array  # (n,) int32  code of the Shop
    item: Array  # (n,) int32
    price: Array  # (n,) int32  largest price code of the lines that were merged

    def take(self, index: Array) -> _Lines:
        """Select lines by index."""
        return _Lines(*(column[index] for column in self))


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
    layers = [xp.arange(lines.row.shape[0])]
    if config.filtering.counts == "window":
        cuts = cut_windows(shop.time, first_time, last_time, config.split, backend)
        window = cuts.number_of(xp, shop.time[lines.row])
        layers = [xp.nonzero(window == k)[0] for k in range(3)]
    remaining, dropped["cold_user"], dropped["cold_item"] = _find_k_core(
        lines, layers, shop, config.filtering, xp
    )
    del layers
    lines = lines.take(remaining)
    del remaining

    user, user_of = _recode(xp, lines.user, shop.n_users)
    item, item_of = _recode(xp, lines.item, shop.n_items)
    n_users, n_items = int(user_of.shape[0]), int(item_of.shape[0])
    _require_items(n_items, config)
    tick, user_offsets = ticks[lines.row], run_offsets(xp, user, n_users)
    del ticks
    by_item = sort_order(backend, [(item, n_items), (tick, n_ticks), (user, n_users)])
    by_time = sort_order(backend, [(tick, n_ticks), (user, n_users), (item, n_items)])
    basket_start, basket = _number_baskets(xp, user, tick, user_offsets)
    user_ids = shop.user_ids.take(backend.to_host(user_of))
    item_ids = shop.item_ids.take(backend.to_host(item_of))
    return Interactions(
        user=user,
        item=item,
        time=shop.time[lines.row],
        price=lines.price,
        channel=shop.channel[lines.row],
        user_offsets=user_offsets,
        basket_start=basket_start,
        basket=basket,
        by_item=by_item,
        item_offsets=run_offsets(xp, item[by_item], n_items),
        by_time=by_time,
        prices=shop.prices,
        user_ids=user_ids,
        item_ids=item_ids,
        user_key=backend.from_host(hash_strings(user_ids)),
        item_key=backend.from_host(hash_strings(item_ids)),
        age=shop.age[user_of],
        user_columns=_take_rows(shop.user_columns, user_of),
        item_columns=_take_rows(shop.item_columns, item_of),
        views=_select_views(shop, user_of, item_of, backend),
        first_time=first_time,
        last_time=last_time,
        n_accepted=int(shop.time.shape[0]),
        dropped=dropped,
    )


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
    dtype = xp.int32 if n_ticks < 1 << 31 else xp.int64
    return ((time - first) // resolution).astype(dtype), n_ticks


def _find_resolution(time: Array, origin: int) -> int:
    """Return the coarsest of day, minute, second, millisecond, ns that divides all times."""
    for unit in (DAY, 60_000_000_000, 1_000_000_000, 1_000_000):
        if not bool(((time - origin) % unit != 0).any()):
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
    first = xp.nonzero(run_starts(xp, shop.user[order], ticks[order], shop.item[order]))[0]
    price = run_maxima(xp, shop.price[order], first)
    row = order[first]
    return _Lines(row, shop.user[row], shop.item[row], price)


def _find_k_core(
    lines: _Lines, layers: Sequence[Array], shop: Shop, filtering: FilteringConfig, xp: Any
) -> tuple[Array, int, int]:
    """Return the lines that remain, rising, and how many a rare user or item dropped.

    Each layer of lines is filtered beside what remains of the layers before it, which stays.
    Raises InputError where no line remains.
    """
    minimum = (filtering.min_user_interactions, filtering.min_item_interactions)
    sides = ((lines.user, shop.n_users), (lines.item, shop.n_items))
    n_dropped, remaining = [0, 0], layers[0][:0]
    for layer in layers:
        n_settled = [count_codes(xp, codes[remaining], n_codes) for codes, n_codes in sides]
        n_before = -1
        while layer.shape[0] != n_before:
            n_before = layer.shape[0]
            for side, (codes, n_codes) in enumerate(sides):
                is_frequent = (
                    n_settled[side] + count_codes(xp, codes[layer], n_codes) >= minimum[side]
                )
                survivors = layer[is_frequent[codes[layer]]]
                n_dropped[side] += int(layer.shape[0] - survivors.shape[0])
                layer = survivors
        remaining = xp.concatenate([remaining, layer]) if remaining.shape[0] else layer
    if not remaining.shape[0]:
        raise InputError(
            f"transactions: no interaction is left of {int(shop.time.shape[0])} rows: no group of "
            f"users with >= {minimum[0]} and items with >= {minimum[1]} interactions.\n"
            "Lower filtering.min_user_interactions or filtering.min_item_interactions, or use a "
            "longer log."
        )
    if len(layers) > 1:
        remaining = xp.sort(remaining, kind="stable")
    return remaining, n_dropped[0], n_dropped[1]


def _recode(xp: Any, codes: Array, n_codes: int) -> tuple[Array, Array]:
    """Return codes without gaps, int32, and the old code of each new one (in order)."""
    is_present = count_codes(xp, codes, n_codes) > 0
    new = (xp.cumsum(is_present) - 1).astype(xp.int32)
    return new[codes], xp.nonzero(is_present)[0]


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


def _number_baskets(xp: Any, user: Array, tick: Array, user_offsets: Array) -> tuple[Array, Array]:
    """Return the first row of each row's basket (n,) int64, and its number (n,) int32.

    A basket is the rows of a user at one time; numbers count from 0 within a user.
    """
    is_first = run_starts(xp, user, tick)
    number = xp.cumsum(is_first)  # 1, 2, ... over all baskets
    basket = (number - number[user_offsets[:-1]][user]).astype(xp.int32)
    return xp.nonzero(is_first)[0][number - 1], basket


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
