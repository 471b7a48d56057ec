"""The first half of stage 5: Interactions before cut1 -> users x items, weighted in fixed point (D9)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..backend.protocol import Array, Backend
from ..backend.runs import count_codes, run_maxima, run_offsets, run_starts, sort_order
from ..config import DatasetConfig
from ..preparation.interactions import Interactions

# weight sums beside 21 bits of common users in one int64 (Cauchy-Schwarz bounds them)
_PACKED_SUM_BITS = 42
_WIDE_SUM_BITS = 62
_COUNT_BITS = 21
_MOST_SCALE_BITS = 40
_LEAST_MEDIAN = 1 << 11  # rounding the median weight to an integer costs at most 2^-12


@dataclass(frozen=True)
class MatrixByItemAndUser:
    """What `backend.similarity_block` reads of a WeightedMatrix."""

    by_item: tuple[Array, ...]  # offsets (I+1,) int64, users (N,) int32, weights (N,) int32
    by_user: tuple[
        Array, ...
    ]  # offsets (U+1,) int64, cells (N,) int64: weight << 32 | item, read in one go
    norms: Array  # (I,) int64
    packed: bool


@dataclass(frozen=True)
class WeightedMatrix:
    """Users x items before cut1, both ways, with weights as integers of 2^-scale_bits."""

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

    def sides(self, backend: Backend) -> MatrixByItemAndUser:
        """The matrix laid out for the exact engine."""
        cells = (self.user_weight.astype(backend.xp.int64) << 32) | self.user_item
        by_item = self.item_offsets, self.item_user, self.item_weight
        return MatrixByItemAndUser(by_item, (self.user_offsets, cells), self.norms, self.packed)

    def csr(self, backend: Backend) -> Any:
        """The matrix as `backend.sparse.csr_matrix` of float64 (the weights are whole numbers)."""
        values = self.user_weight.astype(backend.xp.float64)
        shape = (int(self.user_offsets.shape[0]) - 1, int(self.item_offsets.shape[0]) - 1)
        return backend.sparse.csr_matrix((values, self.user_item, self.user_offsets), shape=shape)


def build_matrix(
    interactions: Interactions, cut1: int, config: DatasetConfig, backend: Backend
) -> WeightedMatrix:
    """One cell per (user, item) before cut1: the largest interaction weight x user IDF, in fixed point (D9).

    Only a user's latest `max_user_interactions` count (D5). Logarithms come from host tables rounded to 24 bits.
    """
    xp = backend.xp
    n_users, n_items = interactions.n_users, interactions.n_items
    rows = xp.nonzero(interactions.time < cut1)[0]
    user = interactions.user[rows]
    n_before = count_codes(xp, user, n_users)
    stop = interactions.user_offsets[:-1] + n_before  # a user's rows before cut1 lead its run
    rows = rows[rows >= stop[user] - config.filtering.max_user_interactions]
    user, item = interactions.user[rows], interactions.item[rows]
    price_factor = _price_factors(interactions, config, backend)[interactions.price[rows]]
    factor = _channel_factors(interactions, rows, config, backend) * price_factor
    known_until = int(interactions.time[rows].max())
    if interactions.views is not None:
        time, viewer, viewed = interactions.views
        counted = time < cut1
        if (
            config.filtering.counts == "window"
        ):  # who or what is kept for later purchases alone is not known yet
            sold = count_codes(xp, interactions.item[interactions.time < cut1], n_items) > 0
            counted &= (n_before[viewer] > 0) & sold[viewed]
        seen = xp.nonzero(counted)[0]
        ranked = xp.sort(price_factor, kind="stable")
        view_factor = config.similarity.view_weight * float(ranked[(int(rows.shape[0]) - 1) // 2])
        user = xp.concatenate([user, viewer[seen]])
        item = xp.concatenate([item, viewed[seen]])
        factor = xp.concatenate([factor, xp.full(int(seen.shape[0]), view_factor)])
        if int(seen.shape[0]):
            known_until = max(known_until, int(time[seen].max()))

    order = sort_order(backend, [(user, n_users), (item, n_items)])
    user, item = user[order], item[order]
    first = xp.nonzero(run_starts(xp, user, item))[0]
    factor = run_maxima(xp, factor[order], first)
    user, item = user[first], item[first]
    degree = count_codes(xp, user, n_users)
    if config.similarity.user_idf:
        n_known = int(
            (count_codes(xp, item, n_items) > 0).sum()
        )  # of the matrix: what comes after cut1 changes no weight
        table = [0.0] + [math.log(n_known / n) for n in range(1, int(degree.max()) + 1)]
        factor = factor * _rounded(table, backend)[degree[user]]

    by_item = sort_order(backend, [(item, n_items), (user, n_users)])
    weight, norms, scale_bits, packed = _fixed_point(factor, item, by_item, n_items, backend)
    return WeightedMatrix(
        user_offsets=run_offsets(xp, user, n_users),
        user_item=item,
        user_weight=weight,
        item_offsets=run_offsets(xp, item[by_item], n_items),
        item_user=user[by_item],
        item_weight=weight[by_item],
        norms=norms,
        scale_bits=scale_bits,
        packed=packed,
        n_products=int((degree * degree).sum()),
        known_until=known_until,
    )


def _rounded(table: list[float], backend: Backend) -> Array:
    """A host table as float64 rounded to 24 bits, so that the last bit of a machine's libm does not matter."""
    xp = backend.xp
    return backend.from_host(table).astype(xp.float32).astype(xp.float64)


def _price_factors(interactions: Interactions, config: DatasetConfig, backend: Backend) -> Array:
    """log(1 + price) for each price code; 1 without prices."""
    if not (config.similarity.weight_by_price and len(interactions.prices)):
        return backend.xp.ones(max(1, len(interactions.prices)))
    return _rounded([math.log1p(price) for price in interactions.prices.tolist()], backend)


def _channel_factors(
    interactions: Interactions, rows: Array, config: DatasetConfig, backend: Backend
) -> Array:
    weights = [config.similarity.offline_weight] * 129  # the last one is for channel -1, unknown
    for channel, kind in config.inputs.channels.items():
        if kind == "online":
            weights[channel] = config.similarity.online_weight
    if not config.similarity.channel_weighting:
        weights = [1.0] * 129
    channel = interactions.channel[rows].astype(backend.xp.int64)
    return backend.from_host(weights).astype(backend.xp.float64)[
        backend.xp.where(channel < 0, 128, channel)
    ]


def _fixed_point(
    factor: Array, item: Array, by_item: Array, n_items: int, backend: Backend
) -> tuple[Array, Array, int, bool]:
    """Integer weights, item norms, scale bits, and whether sums and counts may share one accumulator (D9).

    The scale is the largest power of two that keeps every item's sum of squares under 2^42; where that rounds the
    median weight too coarsely, or an item has 2^21 buyers, sums get an accumulator of their own and 62 bits.
    """
    xp = backend.xp
    offsets = run_offsets(xp, item[by_item], n_items)
    most = float(xp.bincount(item, weights=factor * factor, minlength=n_items).max())
    n_most = int(xp.diff(offsets).max())

    def scaled(sum_bits: int) -> tuple[Array, Array, int]:
        bits = (
            min(_MOST_SCALE_BITS, math.ceil((sum_bits - math.log2(most)) / 2) + 1)
            if most > 0
            else 0
        )
        while True:
            weight = xp.rint(factor * 2.0**bits).astype(xp.int64)
            if most * 4.0**bits < 2.0 ** (sum_bits + 0.5):  # beyond that the exact sums could wrap
                before = xp.zeros(weight.shape[0] + 1, dtype=xp.int64)
                before[1:] = xp.cumsum((weight * weight)[by_item])
                norms = before[offsets[1:]] - before[offsets[:-1]]
                if int(norms.max()) < 1 << sum_bits:
                    return weight.astype(xp.int32), norms, bits
            bits -= 1

    weight, norms, bits = scaled(_PACKED_SUM_BITS)
    positive = xp.sort(weight[weight > 0], kind="stable")
    n_positive = int(positive.shape[0])
    fine = n_positive == 0 or int(positive[(n_positive - 1) // 2]) >= _LEAST_MEDIAN
    if fine and n_most < 1 << _COUNT_BITS:
        return weight, norms, bits, True
    return *scaled(_WIDE_SUM_BITS), False
