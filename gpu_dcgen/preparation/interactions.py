"""Stage 2: Shop -> Interactions: duplicate lines collapsed, rare users and items filtered, rows in sorted runs (D4, D5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..backend.protocol import Array, Backend
from ..backend.runs import count_codes, run_maxima, run_offsets, run_starts, sort_order
from ..config.dataset_config import DatasetConfig
from ..digest import hash_strings
from ..errors import InputError
from ..inputs.shop import Category, Shop
from .windows import DAY, cut_windows


@dataclass(frozen=True)
class Interactions:
    """Kept interactions in (user, time, item) order, with what is fixed about their users and items.

    Users and items are coded anew, 0..U-1 and 0..I-1 in the order of their ids, over those that survive the filter.
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
    user_key: (
        Array  # (U,) uint64  hash of each id: what draws are keyed by, whoever else there is (D22)
    )
    item_key: Array  # (I,) uint64
    age: Array  # (U,) int16  -1 null
    user_columns: dict[str, Category]
    item_columns: dict[str, Category]
    views: tuple[Array, Array, Array] | None  # time, user, item of views of kept users and items
    first_time: int  # of all accepted rows, before collapse and filter (D7)
    last_time: int
    n_accepted: int  # accepted transaction rows
    dropped: dict[str, int]  # rows lost here: collapsed, cold_user, cold_item

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @property
    def n_rows(self) -> int:
        return int(self.item.shape[0])


def build_interactions(shop: Shop, config: DatasetConfig, backend: Backend) -> Interactions:
    """Collapse duplicate lines (D4), filter to the k-core (D5), and sort.

    A distinct (user, item, time) is one interaction: the largest price, the smallest known channel. Users and items
    below the minimum go, in turns, until none is left below (the greatest fixed point does not depend on the turns);
    with `filtering.counts: window` first among the rows before the first cut, and what is left then stays, and so on.
    Raises InputError when nothing survives or all rows share one time.
    """
    xp = backend.xp
    n_accepted = int(shop.time.shape[0])
    first_time, last_time = int(shop.time.min()), int(shop.time.max())
    if first_time == last_time:
        raise InputError(
            f"transactions: all {n_accepted} rows have the same time; a split by time needs at least two.\n"
            "Check that t_dat is the purchase time, or map another column with inputs.columns."
        )
    resolution = _resolution(shop.time, first_time)
    n_ticks = (last_time - first_time) // resolution + 1
    ticks = ((shop.time - first_time) // resolution).astype(
        xp.int32 if n_ticks < 1 << 31 else xp.int64
    )
    order, price = _distinct(shop, ticks, n_ticks, backend)
    user, item = shop.user[order], shop.item[order]
    dropped = {"collapsed": n_accepted - int(order.shape[0])}

    layers = [xp.arange(order.shape[0])]
    if config.filtering.counts == "window":
        time, cuts = (
            shop.time[order],
            cut_windows(shop.time, first_time, last_time, config, backend),
        )
        window = (time >= cuts.cut1).astype(xp.int8) + (time >= cuts.cut2).astype(xp.int8)
        layers = [xp.nonzero(window == k)[0] for k in range(3)]
    kept, dropped["cold_user"], dropped["cold_item"] = _k_core(xp, user, item, layers, shop, config)
    del layers
    if not kept.shape[0]:
        raise InputError(
            f"transactions: no interaction is left of {n_accepted} rows: no group of users with >= "
            f"{config.filtering.min_user_interactions} and items with >= {config.filtering.min_item_interactions} interactions.\n"
            "Lower filtering.min_user_interactions or filtering.min_item_interactions, or bring a longer log."
        )
    order, price = order[kept], price[kept]
    user, user_of = _recode(xp, user[kept], shop.n_users)
    item, item_of = _recode(xp, item[kept], shop.n_items)
    del kept
    n_users, n_items = int(user_of.shape[0]), int(item_of.shape[0])
    _require_vocabulary(n_items, config)

    tick, user_offsets = ticks[order], run_offsets(xp, user, n_users)
    del ticks
    by_item = sort_order(backend, [(item, n_items), (tick, n_ticks), (user, n_users)])
    by_time = sort_order(backend, [(tick, n_ticks), (user, n_users), (item, n_items)])
    basket_start, basket = _baskets(xp, user, tick, user_offsets)
    user_ids, item_ids = (
        shop.user_ids.take(backend.to_host(user_of)),
        shop.item_ids.take(backend.to_host(item_of)),
    )
    return Interactions(
        user=user,
        item=item,
        time=shop.time[order],
        price=price,
        channel=shop.channel[order],
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
        user_columns=_gather(shop.user_columns, user_of),
        item_columns=_gather(shop.item_columns, item_of),
        views=_kept_views(xp, shop, user_of, item_of),
        first_time=first_time,
        last_time=last_time,
        n_accepted=n_accepted,
        dropped=dropped,
    )


def _distinct(shop: Shop, ticks: Array, n_ticks: int, backend: Backend) -> tuple[Array, Array]:
    """Lines of the log, one for each (user, tick, item), in this order; and the largest price of the lines that it stands for.

    It is that with the smallest known channel.
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
    return order[first], run_maxima(xp, shop.price[order], first)


def _baskets(xp: Any, user: Array, tick: Array, user_offsets: Array) -> tuple[Array, Array]:
    """Of each row, the first row of its basket (n,) int64, and its basket's number among the user's (n,) int32."""
    begins = run_starts(xp, user, tick)
    number = xp.cumsum(begins)  # 1, 2, ... over all baskets
    basket = (number - number[user_offsets[:-1]][user]).astype(xp.int32)
    return xp.nonzero(begins)[0][number - 1], basket


def _resolution(time: Array, origin: int) -> int:
    """The coarsest of day, minute, second, millisecond that divides all times: short keys sort in fewer passes."""
    for unit in (DAY, 60_000_000_000, 1_000_000_000, 1_000_000):
        if not bool(((time - origin) % unit != 0).any()):
            return unit
    return 1


def _k_core(
    xp: Any, user: Array, item: Array, layers: Sequence[Array], shop: Shop, config: DatasetConfig
) -> tuple[Array, int, int]:
    """Rows that survive (indices, rising) and how many fell with a cold user and with a cold item.

    Each layer of rows is filtered beside what is left of the layers before it, which stays.
    """
    minimum = (config.filtering.min_user_interactions, config.filtering.min_item_interactions)
    sides = ((user, shop.n_users), (item, shop.n_items))
    lost, kept = [0, 0], layers[0][:0]
    for fresh in layers:
        settled = [count_codes(xp, codes[kept], n_codes) for codes, n_codes in sides]
        before = -1
        while fresh.shape[0] != before:
            before = fresh.shape[0]
            for side, (codes, n_codes) in enumerate(sides):
                enough = settled[side] + count_codes(xp, codes[fresh], n_codes) >= minimum[side]
                survivors = fresh[enough[codes[fresh]]]
                lost[side] += int(fresh.shape[0] - survivors.shape[0])
                fresh = survivors
        kept = xp.concatenate([kept, fresh]) if kept.shape[0] else fresh
    return (xp.sort(kept, kind="stable") if len(layers) > 1 else kept), lost[0], lost[1]


def _require_vocabulary(n_items: int, config: DatasetConfig) -> None:
    """InputError where no group could be completed: too few items for a positive and its negatives (D12)."""
    settings = config.negative_sampling
    if n_items <= config.negatives_per_positive:
        raise InputError(
            f"transactions: {n_items} items are left after filtering, too few for a positive and "
            f"{settings.hard_negatives_per_positive} hard and {settings.random_negatives_per_positive} random negatives.\n"
            "Lower negative_sampling.random_negatives_per_positive or hard_negatives_per_positive, or "
            "filtering.min_item_interactions."
        )


def _recode(xp: Any, codes: Array, n_codes: int) -> tuple[Array, Array]:
    """Codes without gaps, int32, and the old code of each new one (in order)."""
    present = count_codes(xp, codes, n_codes) > 0
    new = (xp.cumsum(present) - 1).astype(xp.int32)
    return new[codes], xp.nonzero(present)[0]


def _gather(columns: dict[str, Category], rows: Array) -> dict[str, Category]:
    return {name: Category(column.codes[rows], column.values) for name, column in columns.items()}


def _kept_views(
    xp: Any, shop: Shop, user_of: Array, item_of: Array
) -> tuple[Array, Array, Array] | None:
    if shop.views is None:
        return None
    time, user, item = shop.views
    new_user = _new_codes(xp, user_of, shop.n_users)[user]
    new_item = _new_codes(xp, item_of, shop.n_items)[item]
    kept = xp.nonzero((new_user >= 0) & (new_item >= 0))[0]
    return time[kept], new_user[kept], new_item[kept]


def _new_codes(xp: Any, old_of_new: Array, n_old: int) -> Array:
    new = xp.full(n_old, -1, dtype=xp.int32)
    new[old_of_new] = xp.arange(old_of_new.shape[0], dtype=xp.int32)  # the indices are distinct
    return new
