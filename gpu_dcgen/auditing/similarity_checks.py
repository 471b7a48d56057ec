"""Check item_similarity_matrix against the products of the inputs."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pyarrow as pa

from ..config import DatasetConfig
from ..contract.schema import make_arrow_schema
from .dataset_files import check_nulls
from .findings import MAX_OFFENDERS, Findings
from .output_columns import as_array, encode_texts
from .purchase_log import PurchaseLog
from .similarity import CosineInputs, SimilarityPairs, SimilarityRows, compute_similarities

NAME = "item_similarity_matrix"
FILE = f"{NAME}.parquet"
RULE = "similarity_matrix"
MAX_PRODUCTS = 2_000_000_000  # multiplications; beyond, a sample of the items is checked


def select_items(inputs: CosineInputs, seed: int, findings: Findings) -> np.ndarray:
    """Select all items, or as many seeded ones as MAX_PRODUCTS allow; rising."""
    n_items = len(inputs.n_products)
    if inputs.n_products.sum() <= MAX_PRODUCTS:
        return np.arange(n_items)
    shuffled = np.random.default_rng(seed).permutation(n_items)
    items = np.sort(shuffled[np.cumsum(inputs.n_products[shuffled]) <= MAX_PRODUCTS])
    findings.checks[RULE].scope = f"{len(items)} seeded items of {n_items}"
    return items


def read_pairs(table: pa.Table, item_ids: pa.Array) -> SimilarityPairs:
    """Read the pairs of a matrix that is sorted by item and rank."""
    item, neighbor = (
        encode_texts(as_array(table[name]), item_ids) for name in ("item_id", "similar_item_id")
    )
    similarity = as_array(table["similarity"]).to_numpy()
    return SimilarityPairs(item, neighbor, similarity, len(item_ids))


def check_similarities(
    table: pa.Table,
    inputs: CosineInputs,
    log: PurchaseLog,
    items: np.ndarray,
    is_complete: bool,
    config: DatasetConfig,
    findings: Findings,
) -> SimilarityPairs | None:
    """Check the rows of `items`; return the pairs of the file, None where it has no order.

    A matrix of an approximate search is not `is_complete`: pairs may be missing, and those that
    it has must be exact.
    """
    settings = config.similarity
    if not check_nulls(FILE, 0, table, make_arrow_schema(NAME), findings):
        return None
    actual = _encode_rows(table, log)
    if not _check_order(table, actual, findings):
        return None
    offsets = np.searchsorted(actual.item, np.arange(log.n_items + 1))
    top_k = settings.top_k if is_complete else None
    for part, expected in compute_similarities(inputs, items, settings.min_common_users, top_k):
        lengths = offsets[part + 1] - offsets[part]
        starts = np.repeat(offsets[part] - np.cumsum(lengths) + lengths, lengths)
        rows = starts + np.arange(int(lengths.sum()))
        findings.count(RULE, len(rows))
        actual_rows = actual.take(rows)
        if not is_complete:
            expected = _select_pairs(expected, actual_rows, log.n_items, settings.top_k)
        _compare_rows(log, rows, actual_rows, expected, findings)
    return SimilarityPairs(actual.item, actual.neighbor, actual.similarity, log.n_items)


def _encode_rows(table: pa.Table, log: PurchaseLog) -> SimilarityRows:
    item, neighbor = (
        encode_texts(as_array(table[name]), log.item_ids) for name in ("item_id", "similar_item_id")
    )
    numbers = (
        as_array(table[name]).to_numpy(zero_copy_only=False)
        for name in ("similarity", "common_users", "rank")
    )
    return SimilarityRows(item, neighbor, *numbers)


def _check_order(table: pa.Table, rows: SimilarityRows, findings: Findings) -> bool:
    """Whether all items are known, and rows are by item and rank."""
    is_unknown = (rows.item < 0) | (rows.neighbor < 0)
    findings.add_bad_rows(
        "references",
        FILE,
        0,
        is_unknown,
        lambda row: (table.slice(row, 1).to_pylist()[0], "items that pass the filters"),
    )
    step = np.diff(rows.item)
    is_disordered = np.append(False, (step < 0) | ((step == 0) & (np.diff(rows.rank) != 1)))
    is_disordered = is_disordered[: len(rows.item)]
    shown = "a row out of order", "rows by item, then rank"
    findings.add_bad_rows(RULE, FILE, 0, is_disordered, lambda row: shown)
    return not (is_unknown.any() or is_disordered.any())


def _select_pairs(
    expected: SimilarityRows, actual: SimilarityRows, n_items: int, top_k: int
) -> SimilarityRows:
    """Select the expected pairs that the file has, at most `top_k` an item, ranked again."""
    exists = np.isin(
        expected.item * n_items + expected.neighbor, actual.item * n_items + actual.neighbor
    )
    expected = expected.take(np.flatnonzero(exists))
    rank = np.arange(len(expected.item)) - np.searchsorted(expected.item, expected.item) + 1
    return replace(expected, rank=rank).take(np.flatnonzero(rank <= top_k))


def _compare_rows(
    log: PurchaseLog,
    rows: np.ndarray,
    actual: SimilarityRows,
    expected: SimilarityRows,
    findings: Findings,
) -> None:
    """Compare the file's rows of some items; by pair alone where numbers of rows differ."""
    is_aligned = len(actual.item) == len(expected.item)
    if is_aligned:
        is_bad = np.logical_or.reduce(
            [
                getattr(actual, field.name) != getattr(expected, field.name)
                for field in fields(SimilarityRows)
            ]
        )
    else:
        keys, expected_keys = (
            pairs.item * log.n_items + pairs.neighbor for pairs in (actual, expected)
        )
        is_bad = ~np.isin(keys, expected_keys)
        n_missing = max(1, len(np.setdiff1d(expected_keys, keys)))
        shown = f"{len(keys)} rows of these items", f"{len(expected_keys)}"
        findings.add_fault(RULE, FILE, None, *shown, n_missing)
    for at in np.flatnonzero(is_bad)[:MAX_OFFENDERS].tolist():
        shown_expected = _show_row(log, expected, at) if is_aligned else "no such pair"
        shown_actual = _show_row(log, actual, at)
        findings.add_fault(RULE, FILE, int(rows[at]), shown_actual, shown_expected)
    findings.checks[RULE].n_bad += max(0, int(is_bad.sum()) - MAX_OFFENDERS)


def _show_row(log: PurchaseLog, rows: SimilarityRows, at: int) -> str:
    item, neighbor = (log.item_ids[int(code[at])].as_py() for code in (rows.item, rows.neighbor))
    return (
        f"{item} and {neighbor}: similarity {float(rows.similarity[at])!r}, "
        f"{rows.common[at]} common users, rank {rows.rank[at]}"
    )
