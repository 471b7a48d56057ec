"""Fingerprint what each split's samples are computed from (D25).

Where the fingerprints agree, the samples are the same.

The arrays that blocks of samples read are digested themselves, as far as the split may look (D8).
Users and items are hashed by their ids and rows by their values, never by numbers that depend on
what else is in the log, and the hashes are summed mod 2^64, so that their order does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..backend.protocol import Array, Backend
from ..config import DatasetConfig
from ..digest import code_hashes, vocabulary
from ..kernels.rng import mix_array
from ..negative_sampler import WEIGHT_ONE, select_views
from ..preparation.balancing import positive_weights
from ..quality_validator.candidate_funnel import sampled_bits
from ..quality_validator.metrics import place_column
from ..samples import ITEM_CATEGORIES, StageResults
from .build_key import describe_producer

# Name -> [count of what was digested, 16 hex digits], but for `window` and `report`.
Fingerprints = dict[str, list[Any]]
_CHUNK = 1 << 20  # rows hashed at a time; bounds the memory
_FACTOR = 0xD6E8FEB86659FD93  # odd; its powers tell the columns of a row apart
_MASK = (1 << 64) - 1


class Provenance(NamedTuple):
    """What decides the samples of each split."""

    producer: dict[str, str]  # settings, code and backend
    fingerprints: dict[str, Fingerprints]  # by split


def trace_provenance(results: StageResults, config: DatasetConfig, backend: Backend) -> Provenance:
    """Fingerprint all that each split's samples are computed from; JSON, equal on every host.

    Causes come before effects. `report` is what only the counts for the quality report depend on.
    """
    plan, origin = results.plan, results.features.snapshots.origin
    windows = plan.windows
    similarities = _hash_similarities(results, backend)
    categories, mining_weights = _hash_categories(results, backend), _hash_weights(results, backend)
    purchases, users = _hash_purchases(results, backend), _hash_users(results, backend)
    items, snapshots = _hash_items(results, config, backend), _hash_snapshots(results, backend)
    views = _hash_views(results, config, backend)
    report = [sampled_bits(plan), place_column(results)]
    fingerprints: dict[str, Fingerprints] = {
        positives.split: {
            "window": [windows.starts[k], windows.ends[k], origin, windows.first],
            "purchases": purchases[k],
            "users": users[k],
            "items": items[k],
            "categories": categories,
            "snapshots": snapshots[k],
            "views": views[k],
            "similarities": similarities,
            "positives": _hash_positives(results, k, backend),
            "mining_weights": mining_weights,
            "report": report,
        }
        for k, positives in enumerate(plan.positives)
    }
    return Provenance(describe_producer(config, backend), fingerprints)


def _hash_purchases(results: StageResults, backend: Backend) -> list[list[Any]]:
    """Before each window's end: filtered purchases, with the features of their user."""
    xp, log, features = backend.xp, results.interactions, results.features
    units = backend.from_host(features.units or [0]).astype(xp.int64)

    def hash_rows(rows: slice) -> Array:
        return _hash_columns(
            xp,
            log.user_key[log.user[rows]],
            log.item_key[log.item[rows]],
            log.time[rows],
            units[log.price[rows]],
            log.channel[rows],
            features.preferred_channel[rows],
            features.is_repurchase[rows],
        )

    return _sum_before(results.plan.windows.ends, log.time, hash_rows, backend)


def _hash_users(results: StageResults, backend: Backend) -> list[list[Any]]:
    """Before each window's end: the customers who have bought something."""
    xp, log = backend.xp, results.interactions
    columns = [
        code_hashes(column.codes, results.vocabularies[name].hashes, xp)
        for name, column in log.user_columns.items()
    ]
    hashes = _hash_columns(xp, log.user_key, log.age, *columns)
    first_time = log.time[log.user_offsets[:-1]]
    return _sum_before(results.plan.windows.ends, first_time, lambda rows: hashes[rows], backend)


def _hash_items(results: StageResults, config: DatasetConfig, backend: Backend) -> list[list[Any]]:
    """Before each window's end: the articles that were sold, or all that may be drawn."""
    xp, log = backend.xp, results.interactions
    vocabularies = {name: results.vocabularies[name].hashes for name in ITEM_CATEGORIES}
    product_codes = log.item_columns["product_code"].values
    vocabularies["product_code"] = vocabulary(product_codes, backend).hashes
    columns = [
        code_hashes(log.item_columns[name].codes, hashes, xp)
        for name, hashes in vocabularies.items()
    ]
    hashes = _hash_columns(xp, log.item_key, results.item_codes, *columns)
    first_time = log.time[log.by_item[log.item_offsets[:-1]]]
    if config.negative_sampling.corpus == "all":
        first_time = xp.full(log.n_items, log.first_time, dtype=xp.int64)
    return _sum_before(results.plan.windows.ends, first_time, lambda rows: hashes[rows], backend)


def _hash_categories(results: StageResults, backend: Backend) -> list[Any]:
    """Every value of each column of categories, with its code.

    Values that no row has count too: the files' dictionaries list them.
    """
    xp, names = backend.xp, (*results.interactions.user_columns, *ITEM_CATEGORIES)
    n_values, total = 0, 0
    for number, name in enumerate(names):
        hashes = results.vocabularies[name].hashes
        code = xp.arange(hashes.shape[0], dtype=xp.int64)
        column = xp.full(code.shape[0], number, dtype=xp.int64)
        n_values += int(code.shape[0])
        total += int(_hash_columns(xp, hashes, code, column).sum())
    return [n_values, _hex(total)]


def _hash_snapshots(results: StageResults, backend: Backend) -> list[list[Any]]:
    """In the snapshots that each window's samples may use: the items with any value."""
    xp, snapshots, log = backend.xp, results.features.snapshots, results.interactions
    n_snapshots = [
        (end - 1 - snapshots.origin) // snapshots.step + 1 for end in results.plan.windows.ends
    ]
    # Each snapshot is hashed once: the windows' ends rise, so a sum continues that before it.
    sums, n_entries, total = [], 0, 0
    for k in range(snapshots.on_sale.shape[0] + 1):
        sums += [[n_entries, _hex(total)] for n in n_snapshots if n == k]
        if k < snapshots.on_sale.shape[0]:
            price, popularity = snapshots.price[k], snapshots.popularity[k]
            on_sale = snapshots.on_sale[k]
            is_priced = price == price
            item = xp.nonzero(on_sale | (popularity > 0) | is_priced)[0]
            hashes = _hash_columns(
                xp,
                log.item_key[item],
                xp.where(is_priced, price, -1).astype(xp.float32)[item],
                popularity[item],
                on_sale[item],
                snapshots.price_category[k][item],
                xp.full(item.shape[0], k, dtype=xp.int64),
            )
            n_entries += int(item.shape[0])
            total += int(hashes.sum())
    return sums


def _hash_views(results: StageResults, config: DatasetConfig, backend: Backend) -> list[list[Any]]:
    """Before each window's end: views by those who buy before it, of items that may be drawn.

    None where they offer no hard negatives.
    """
    xp, log, sampling = backend.xp, results.interactions, config.negative_sampling
    views = select_views(log, sampling)
    if views is None:
        return [[0, _hex(0)] for _ in results.plan.windows.ends]
    time, user, item = views
    since = xp.maximum(time, log.time[log.user_offsets[:-1]][user])
    if sampling.corpus == "live":
        since = xp.maximum(since, log.time[log.by_item[log.item_offsets[:-1]]][item])

    def hash_rows(rows: slice) -> Array:
        return _hash_columns(xp, log.user_key[user[rows]], log.item_key[item[rows]], time[rows])

    return _sum_before(results.plan.windows.ends, since, hash_rows, backend)


def _hash_similarities(results: StageResults, backend: Backend) -> list[Any]:
    """Each item with the sum of its pairs' hashes."""
    xp, neighbors, key = backend.xp, results.neighbors, results.interactions.item_key
    n_pairs = int(neighbors.item.shape[0])
    before = xp.zeros(n_pairs + 1, dtype=xp.uint64)
    for first in range(0, n_pairs, _CHUNK):
        rows = slice(first, min(n_pairs, first + _CHUNK))
        hashes = _hash_columns(
            xp, key[neighbors.item[rows]], neighbors.similarity[rows], neighbors.common_users[rows]
        )
        before[1 + rows.start : 1 + rows.stop] = before[rows.start] + xp.cumsum(hashes)
    item = xp.nonzero(xp.diff(neighbors.offsets) > 0)[0]
    by_item = before[neighbors.offsets[item + 1]] - before[neighbors.offsets[item]]
    return [n_pairs, _hex(int(_hash_columns(xp, key[item], by_item).sum()))]


def _hash_weights(results: StageResults, backend: Backend) -> list[Any]:
    """Hash the weights of items as hard negatives, where they are not neutral."""
    xp, key = backend.xp, results.interactions.item_key
    weight = results.candidates.mining_weight
    item = xp.nonzero(weight != WEIGHT_ONE)[0]
    return [int(item.shape[0]), _hex(int(_hash_columns(xp, key[item], weight[item]).sum()))]


def _hash_positives(results: StageResults, k: int, backend: Backend) -> list[Any]:
    """Hash the split's positives in their order, with their weights."""
    xp, log, positives = backend.xp, results.interactions, results.plan.positives[k]

    def hash_rows(rows: slice) -> Array:
        row = positives.row[rows]
        user, item = log.user[row], log.item[row]
        columns = [
            xp.arange(rows.start, rows.stop, dtype=xp.int64),
            log.user_key[user],
            log.item_key[item],
            log.time[row],
            positives.copy[rows],
        ]
        if results.balance is not None and k == 0:
            cut1 = results.plan.windows.cut1
            columns.append(positive_weights(results.balance, log, row, cut1, backend))
            columns.append(results.balance.user_segment[user])
        return _hash_columns(xp, *columns)

    return _sum_before((1,), xp.zeros(len(positives), dtype=xp.int8), hash_rows, backend)[0]


def _sum_before(
    ends: Sequence[int], since: Array, hash_rows: Callable[[slice], Array], backend: Backend
) -> list[list[Any]]:
    """For each end, count the rows with an earlier time `since` (n,), and sum their hashes."""
    n, counts, totals = int(since.shape[0]), [0] * len(ends), [0] * len(ends)
    for first in range(0, n, _CHUNK):
        rows = slice(first, min(n, first + _CHUNK))
        hashes = hash_rows(rows)
        for k, end in enumerate(ends):
            is_before = since[rows] < end
            counts[k] += int(is_before.sum())
            totals[k] += int(hashes[is_before].sum())
    return [[count, _hex(total)] for count, total in zip(counts, totals, strict=True)]


def _hash_columns(xp: Any, *columns: Array) -> Array:
    """Return a hash (n,) uint64 of each row of integer, bool and float columns (n,)."""
    hashes, factor = xp.zeros(columns[0].shape[0], dtype=xp.uint64), 1
    for column in columns:
        factor = factor * _FACTOR & _MASK
        bits = column.view(f"u{column.dtype.itemsize}") if column.dtype.kind == "f" else column
        hashes += bits.astype(xp.uint64) * xp.uint64(factor)
    return mix_array(hashes)


def _hex(total: int) -> str:
    return f"{total & _MASK:016x}"
