"""What each split's samples are made of, as digests: where these agree, the samples do (D25).

Nothing is taken on trust: the arrays themselves are digested that blocks of samples read, as far as the split may look (D8).
Things are hashed by the hashes of their ids and by values, never by numbers that depend on who else is in the log, and the
hashes are summed mod 2^64, so that their order does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..backend.protocol import Array
from ..config import DatasetConfig
from ..digest import code_hashes, vocabulary
from ..kernels.rng import mix_array
from ..preparation.balancing import positive_weights
from ..quality_validator.candidate_funnel import sampled_bits
from ..quality_validator.metrics import place_column
from ..samples import ITEM_CATEGORIES, StageResults

Counted = list[Any]  # how many things were digested, and their digest as 16 hex digits
_AT_ONCE = 1 << 22  # bounds the memory
_ODD = 0xD6E8FEB86659FD93  # its powers set the columns of a thing apart
_MASK = (1 << 64) - 1


def fingerprints(
    results: StageResults, config: DatasetConfig, backend: Any
) -> dict[str, dict[str, Any]]:
    """By split and ingredient, causes before effects, what its samples are made of; JSON, and the same on every machine.

    `report` is what only the counts for the quality report depend on.
    """
    plan, origin = results.plan, results.features.snapshots.origin
    windows, similar, categories = (
        plan.windows,
        _similarities(results, backend),
        _categories(results, backend),
    )
    report = [sampled_bits(plan), place_column(results)]
    found = {}
    for k, (purchases, users, items, snapshots) in enumerate(
        zip(
            _purchases(results, backend),
            _users(results, backend),
            _items(results, config, backend),
            _snapshots(results, backend),
            strict=True,
        )
    ):
        found[plan.positives[k].split] = {
            "window": [windows.starts[k], windows.ends[k], origin, windows.first],
            "purchases": purchases,
            "users": users,
            "items": items,
            "categories": categories,
            "snapshots": snapshots,
            "similarities": similar,
            "positives": _positives(results, k, backend),
            "report": report,
        }
    return found


def _purchases(results: StageResults, backend: Any) -> list[Counted]:
    """Before each window's end: kept purchases, with what their buyer was known for."""
    xp, log, features = backend.xp, results.interactions, results.features
    units = backend.from_host(features.units or [0]).astype(xp.int64)

    def hashes(rows: slice) -> Array:
        return _hashed(
            xp,
            log.user_key[log.user[rows]],
            log.item_key[log.item[rows]],
            log.time[rows],
            units[log.price[rows]],
            log.channel[rows],
            features.preferred_channel[rows],
            features.is_repurchase[rows],
        )

    return _known_before(results.plan.windows.ends, log.time, hashes, backend)


def _users(results: StageResults, backend: Any) -> list[Counted]:
    """Before each window's end: the customers who have bought something."""
    xp, log = backend.xp, results.interactions
    columns = [
        code_hashes(column.codes, results.vocabularies[name].hashes, xp)
        for name, column in log.user_columns.items()
    ]
    hashed = _hashed(xp, log.user_key, log.age, *columns)
    return _known_before(
        results.plan.windows.ends,
        log.time[log.user_offsets[:-1]],
        lambda rows: hashed[rows],
        backend,
    )


def _items(results: StageResults, config: DatasetConfig, backend: Any) -> list[Counted]:
    """Before each window's end: the articles that were sold; all of them where all may be drawn."""
    xp, log = backend.xp, results.interactions
    known = {name: results.vocabularies[name].hashes for name in ITEM_CATEGORIES}
    known["product_code"] = vocabulary(log.item_columns["product_code"].values, backend).hashes
    columns = [
        code_hashes(log.item_columns[name].codes, hashes, xp) for name, hashes in known.items()
    ]
    hashed = _hashed(xp, log.item_key, results.item_codes, *columns)
    since = log.time[log.by_item[log.item_offsets[:-1]]]
    if config.negative_sampling.corpus == "all":
        since = xp.full(log.n_items, log.first_time, dtype=xp.int64)
    return _known_before(results.plan.windows.ends, since, lambda rows: hashed[rows], backend)


def _categories(results: StageResults, backend: Any) -> Counted:
    """Every value of each column of categories with its code, also those that no row has: the files' dictionaries list them."""
    xp, names = backend.xp, (*results.interactions.user_columns, *ITEM_CATEGORIES)
    number, total = 0, 0
    for column, name in enumerate(names):
        hashes = results.vocabularies[name].hashes
        code = xp.arange(hashes.shape[0], dtype=xp.int64)
        of = xp.full(code.shape[0], column, dtype=xp.int64)
        number, total = (
            number + int(code.shape[0]),
            total + int(_hashed(xp, hashes, code, of).sum()),
        )
    return [number, _hex(total)]


def _snapshots(results: StageResults, backend: Any) -> list[Counted]:
    """In the snapshots that each window's samples may use: the items of which anything is known."""
    xp, snapshots, log = backend.xp, results.features.snapshots, results.interactions
    n_used = [
        (end - 1 - snapshots.origin) // snapshots.step + 1 for end in results.plan.windows.ends
    ]
    found, number, total = [], 0, 0
    for k in range(snapshots.on_sale.shape[0] + 1):
        found += [[number, _hex(total)] for n in n_used if n == k]
        if k < snapshots.on_sale.shape[0]:
            price, popularity, on_sale = (
                snapshots.price[k],
                snapshots.popularity[k],
                snapshots.on_sale[k],
            )
            item = xp.nonzero(on_sale | (popularity > 0) | (price == price))[0]
            paid = xp.where(price == price, price, -1).astype(xp.float32)
            columns = (
                paid[item],
                popularity[item],
                on_sale[item],
                snapshots.price_category[k][item],
            )
            hashed = _hashed(
                xp, log.item_key[item], *columns, xp.full(item.shape[0], k, dtype=xp.int64)
            )
            number, total = number + int(item.shape[0]), total + int(hashed.sum())
    return found


def _similarities(results: StageResults, backend: Any) -> Counted:
    """Each item with the sum of its pairs' hashes."""
    xp, neighbors, key = backend.xp, results.neighbors, results.interactions.item_key
    before = xp.zeros(neighbors.item.shape[0] + 1, dtype=xp.uint64)
    for first in range(0, int(neighbors.item.shape[0]), _AT_ONCE):
        rows = slice(first, min(int(neighbors.item.shape[0]), first + _AT_ONCE))
        hashed = _hashed(
            xp, key[neighbors.item[rows]], neighbors.similarity[rows], neighbors.common_users[rows]
        )
        before[1 + rows.start : 1 + rows.stop] = before[rows.start] + xp.cumsum(hashed)
    item = xp.nonzero(xp.diff(neighbors.offsets) > 0)[0]
    of_item = before[neighbors.offsets[item + 1]] - before[neighbors.offsets[item]]
    return [int(neighbors.item.shape[0]), _hex(int(_hashed(xp, key[item], of_item).sum()))]


def _positives(results: StageResults, k: int, backend: Any) -> Counted:
    """The split's positives in their order, with what they weigh."""
    xp, log, positives = backend.xp, results.interactions, results.plan.positives[k]

    def hashes(rows: slice) -> Array:
        row = positives.row[rows]
        user, item = log.user[row], log.item[row]
        place = xp.arange(rows.start, rows.stop, dtype=xp.int64)
        columns = [
            place,
            log.user_key[user],
            log.item_key[item],
            log.time[row],
            positives.copy[rows],
        ]
        if results.balance is not None and k == 0:
            columns.append(
                positive_weights(results.balance, log, row, results.plan.windows.cut1, backend)
            )
            columns.append(results.balance.user_segment[user])
        return _hashed(xp, *columns)

    return _known_before((1,), xp.zeros(len(positives), dtype=xp.int8), hashes, backend)[0]


def _known_before(
    ends: Sequence[int], since: Array, hashes: Callable[[slice], Array], backend: Any
) -> list[Counted]:
    """For each end, of the things known `since` (n,) an earlier moment: how many, and the sum of their hashes."""
    n, numbers, totals = int(since.shape[0]), [0] * len(ends), [0] * len(ends)
    for first in range(0, n, _AT_ONCE):
        rows = slice(first, min(n, first + _AT_ONCE))
        hashed = hashes(rows)
        for k, end in enumerate(ends):
            known = since[rows] < end
            numbers[k] += int(known.sum())
            totals[k] += int(hashed[known].sum())
    return [[number, _hex(total)] for number, total in zip(numbers, totals, strict=True)]


def _hashed(xp: Any, *columns: Array) -> Array:
    """A hash (n,) uint64 of each row of integer, bool and float columns (n,)."""
    hashed, factor = xp.zeros(columns[0].shape[0], dtype=xp.uint64), 1
    for column in columns:
        factor = factor * _ODD & _MASK
        bits = column.view(f"u{column.dtype.itemsize}") if column.dtype.kind == "f" else column
        hashed += bits.astype(xp.uint64) * xp.uint64(factor)
    return mix_array(hashed)


def _hex(total: int) -> str:
    return f"{total & _MASK:016x}"
