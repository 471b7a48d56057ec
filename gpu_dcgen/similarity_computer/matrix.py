"""First half of stage 5: weigh users x items before cut1 in fixed point (D9)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..backend.protocol import Array, Backend, MatrixByItemAndUser
from ..backend.runs import (
    chunks,
    count_codes,
    find_positions,
    find_run_starts,
    gather,
    offsets_from_lengths,
    sort_order,
)
from ..config import DatasetConfig
from ..kernels.gather import find_run_maxima
from ..preparation.features import round_table
from ..preparation.interactions import Interactions

# weight sums beside 21 bits of common users in one int64 (Cauchy-Schwarz bounds them)
_PACKED_SUM_BITS = 42
_WIDE_SUM_BITS = 62
_COUNT_BITS = 21
_MAX_SCALE_BITS = 40
_MIN_MEDIAN = 1 << 11  # rounding the median weight to an integer costs at most 2^-12
_UNKNOWN_CHANNEL = 128  # after the channels 0..127


@dataclass(frozen=True)
class WeightedMatrix:
    """Users x items before cut1, by user and by item, with integer weights of 2^-scale_bits."""

    user_offsets: Array  # (U+1,) int64
    user_item: Array  # (N,) int32  rising within a user
    user_weight: Array  # (N,) int32
    item_offsets: Array  # (I+1,) int64
    item_user: Array  # (N,) int32  rising within an item
    item_weight: Array  # (N,) int32
    norms: Array  # (I,) int64  sums of squared weights
    scale_bits: int
    packed: bool  # whether sums and counts fit one int64 together
    n_products: int  # sum of squared user degrees: the work of an exact product
    known_until: int  # nanoseconds: the time of the latest purchase or view in it

    def by_item_and_user(self, backend: Backend) -> MatrixByItemAndUser:
        """Lay the matrix out for the exact engine."""
        cells = (self.user_weight.astype(backend.xp.int64) << 32) | self.user_item
        return MatrixByItemAndUser(
            self.item_offsets,
            self.item_user,
            self.item_weight,
            self.user_offsets,
            cells,
            self.norms,
            self.packed,
        )

    def csr(self, backend: Backend) -> Any:
        """Return a `backend.sparse.csr_matrix` of float64 (the weights are whole numbers)."""
        values = self.user_weight.astype(backend.xp.float64)
        shape = (int(self.user_offsets.shape[0]) - 1, int(self.item_offsets.shape[0]) - 1)
        return backend.sparse.csr_matrix((values, self.user_item, self.user_offsets), shape=shape)


def build_matrix(
    interactions: Interactions, cut1: int, config: DatasetConfig, backend: Backend
) -> WeightedMatrix:
    """Build one cell per (user, item) before cut1, in fixed point (D9).

    Its weight is the largest interaction weight x user IDF. Only a user's latest
    `max_user_interactions` count (D5). Logarithms come from host tables rounded to 24 bits.
    """
    xp = backend.xp
    n_users, n_items = interactions.n_users, interactions.n_items
    user, item, factor, known_until = _collect_interactions(interactions, cut1, config, backend)
    order = sort_order(backend, [(user, n_users), (item, n_items)])
    first = find_positions(xp, find_run_starts(backend, order, user, item))
    largest = xp.empty(first.shape[0], dtype=factor.dtype)
    backend.for_each(find_run_maxima, int(first.shape[0]), factor, order, first, largest)
    row, factor = gather(backend, order, first), largest
    del order, first, largest
    user, item = gather(backend, user, row), gather(backend, item, row)
    del row
    degree = count_codes(xp, user, n_users)
    if config.similarity.user_idf:
        # Items of the matrix: later purchases change no weight.
        n_known = int((count_codes(xp, item, n_items) > 0).sum())
        table = [0.0] + [math.log(n_known / n) for n in range(1, int(degree.max()) + 1)]
        idf = round_table(table, backend)[degree]
        for cells in chunks(int(user.shape[0])):
            factor[cells] *= idf[user[cells]]

    # Cells are by (user, item): sorted stably by item, they are by (item, user).
    by_item = sort_order(backend, [(item, n_items)])
    weight, norms, scale_bits, packed = _to_fixed_point(factor, item, by_item, n_items, backend)
    del factor
    return WeightedMatrix(
        user_offsets=offsets_from_lengths(xp, degree),
        user_item=item,
        user_weight=weight,
        item_offsets=offsets_from_lengths(xp, count_codes(xp, item, n_items)),
        item_user=gather(backend, user, by_item),
        item_weight=gather(backend, weight, by_item),
        norms=norms,
        scale_bits=scale_bits,
        packed=packed,
        n_products=int((degree * degree).sum()),
        known_until=known_until,
    )


def _collect_interactions(
    interactions: Interactions, cut1: int, config: DatasetConfig, backend: Backend
) -> tuple[Array, Array, Array, int]:
    """Return user, item and weight factor of the purchases and views before cut1.

    And the time of the latest of them. A view weighs `view_weight` times the median price factor.
    """
    xp = backend.xp
    rows, n_before = _find_latest_rows(interactions, cut1, config, backend)
    user = gather(backend, interactions.user, rows)
    item = gather(backend, interactions.item, rows)
    price_factor = gather(
        backend,
        _compute_price_factors(interactions, config, backend),
        gather(backend, interactions.price, rows),
    )
    factor = _compute_channel_factors(interactions, rows, config, backend)
    factor *= price_factor
    known_until = int(gather(backend, interactions.time, rows).max())
    if interactions.views is None:
        return user, item, factor, known_until
    time, viewer, viewed = interactions.views
    is_counted = time < cut1
    if config.filtering.counts == "window":
        # Users and items that only later purchases let pass the filters are not known yet.
        sold = count_codes(xp, interactions.item[interactions.time < cut1], interactions.n_items)
        is_counted &= (n_before[viewer] > 0) & (sold > 0)[viewed]
    seen = xp.nonzero(is_counted)[0]
    n_views = int(seen.shape[0])
    ranked = xp.sort(price_factor, kind="stable")
    view_factor = config.similarity.view_weight * float(ranked[(int(rows.shape[0]) - 1) // 2])
    if n_views:
        known_until = max(known_until, int(time[seen].max()))
    return (
        xp.concatenate([user, viewer[seen]]),
        xp.concatenate([item, viewed[seen]]),
        xp.concatenate([factor, xp.full(n_views, view_factor)]),
        known_until,
    )


def _find_latest_rows(
    interactions: Interactions, cut1: int, config: DatasetConfig, backend: Backend
) -> tuple[Array, Array]:
    """Return the rows (n,) before cut1 that count, and each user's number (U,) before cut1."""
    xp = backend.xp
    is_counted = interactions.time < cut1
    n_before = xp.zeros(interactions.n_users, dtype=xp.int64)
    for rows in chunks(interactions.n_rows):
        user = interactions.user[rows][is_counted[rows]]
        n_before += count_codes(xp, user, interactions.n_users)
    # A user's rows before cut1 lead its run.
    first = interactions.user_offsets[:-1] + n_before - config.filtering.max_user_interactions
    for rows in chunks(interactions.n_rows):
        number = xp.arange(rows.start, rows.stop, dtype=xp.int64)
        is_counted[rows] &= number >= first[interactions.user[rows]]
    return find_positions(xp, is_counted), n_before


def _compute_price_factors(
    interactions: Interactions, config: DatasetConfig, backend: Backend
) -> Array:
    """Return log(1 + price) for each price code; 1 without prices."""
    if not (config.similarity.weight_by_price and len(interactions.prices)):
        return backend.xp.ones(max(1, len(interactions.prices)))
    return round_table([math.log1p(price) for price in interactions.prices.tolist()], backend)


def _compute_channel_factors(
    interactions: Interactions, rows: Array, config: DatasetConfig, backend: Backend
) -> Array:
    """Return the weight of the channel of each of `rows` (n,) float64."""
    weights = [config.similarity.offline_weight] * (_UNKNOWN_CHANNEL + 1)
    for channel, kind in config.inputs.channels.items():
        if kind == "online":
            weights[channel] = config.similarity.online_weight
    if not config.similarity.channel_weighting:
        weights = [1.0] * len(weights)
    channel = gather(backend, interactions.channel, rows)
    # An unknown one, -1, takes the last cell.
    channel = backend.xp.where(channel < 0, _UNKNOWN_CHANNEL, channel.astype(backend.xp.uint8))
    return gather(backend, backend.from_host(weights).astype(backend.xp.float64), channel)


def _to_fixed_point(
    factor: Array, item: Array, by_item: Array, n_items: int, backend: Backend
) -> tuple[Array, Array, int, bool]:
    """Return integer weights, item norms, scale bits, and whether they are packed.

    Packed: a sum of products and a count of common users share an int64. The scale is the largest
    power of two that keeps every item's sum of squares under 2^42 (D9). Where that rounds the
    median weight too coarsely, or an item has 2^21 buyers, sums get an accumulator of their own and
    62 bits.
    """
    xp, n = backend.xp, int(factor.shape[0])
    n_buyers = count_codes(xp, item, n_items)
    offsets = offsets_from_lengths(xp, n_buyers)
    squares = xp.zeros(n_items, dtype=xp.float64)
    for cells in chunks(n):
        weights = factor[cells] * factor[cells]
        squares += xp.bincount(item[cells], weights=weights, minlength=n_items)
    max_sum, max_buyers = float(squares.max()), int(n_buyers.max())

    def scale(sum_bits: int) -> tuple[Array, Array, int]:
        bits = 0
        if max_sum > 0:
            bits = min(_MAX_SCALE_BITS, math.ceil((sum_bits - math.log2(max_sum)) / 2) + 1)
        while True:
            # Beyond this the exact sums could wrap.
            if max_sum * 4.0**bits < 2.0 ** (sum_bits + 0.5):
                before = xp.zeros(n + 1, dtype=xp.int64)
                for cells in chunks(n):
                    scaled = gather(backend, factor, by_item[cells]) * 2.0**bits
                    weight = xp.rint(scaled).astype(xp.int64)
                    del scaled
                    sums = before[cells.start] + xp.cumsum(weight * weight)
                    before[cells.start + 1 : cells.stop + 1] = sums
                norms = before[offsets[1:]] - before[offsets[:-1]]
                if int(norms.max()) < 1 << sum_bits:
                    break
            bits -= 1
        del before
        weights = xp.empty(n, dtype=xp.int32)
        for cells in chunks(n):
            weights[cells] = xp.rint(factor[cells] * 2.0**bits).astype(xp.int32)
        return weights, norms, bits

    weight, norms, bits = scale(_PACKED_SUM_BITS)
    n_positive = int((weight > 0).sum())
    n_coarse = int(((weight > 0) & (weight < _MIN_MEDIAN)).sum())
    # The lower median of the positive weights is at least _MIN_MEDIAN.
    is_fine = n_positive == 0 or n_coarse <= (n_positive - 1) // 2
    if is_fine and max_buyers < 1 << _COUNT_BITS:
        return weight, norms, bits, True
    del weight
    return *scale(_WIDE_SUM_BITS), False
