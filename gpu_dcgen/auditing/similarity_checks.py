"""Check item_similarity_matrix against the products of the inputs."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ..contract.schema import make_arrow_schema
from ..errors import InputError
from .dataset_files import WrittenDataset, check_nulls, stream_side_table
from .findings import MAX_OFFENDERS, Findings
from .hashes import ColumnDigests
from .input_files import NAME_THE_FOLDER
from .output_columns import encode_texts
from .purchase_log import PurchaseLog
from .similarity import CosineInputs, SimilarityPairs, SimilarityRows, compute_similarities
from .texts import Vocabulary

NAME = "item_similarity_matrix"
FILE = f"{NAME}.parquet"
RULE = "similarity_matrix"
UNKNOWN = -1  # code of an item that the log lacks
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


def read_pairs(dataset: WrittenDataset, items: Vocabulary) -> SimilarityPairs:
    """Read the pairs of a dataset's matrix.

    InputError where there is none, or one with nulls, unknown items or rows out of order.
    """
    findings = Findings()
    if not dataset.parts_of(NAME):
        command = f"gpu-dcgen validate {shlex.quote(str(dataset.folder))}"
        raise InputError(
            f"{dataset.folder}: has no {FILE}.\n"
            f"Build the dataset again, or copy it whole; '{command}' says what it lacks."
        )
    rows = _read_rows(dataset, items, None, findings)
    if rows is None or not _check_order(dataset, rows, findings):
        offenders = (shown for check in findings.checks.values() for shown in check.offenders)
        first = next(offenders)
        raise InputError(
            f"{dataset.folder / FILE}: row {first['row']}: {first['found']}; expected "
            f"{first['expected']}.\n{NAME_THE_FOLDER}"
        )
    return SimilarityPairs(rows, len(items.texts))


def check_similarities(
    dataset: WrittenDataset,
    inputs: CosineInputs,
    log: PurchaseLog,
    seed: int,
    findings: Findings,
) -> tuple[SimilarityPairs | None, dict[str, str]]:
    """Check the matrix; return its pairs, None without an order, and its columns' digests.

    A matrix of an approximate search may lack pairs, and those that it has must be exact.
    """
    settings, digests = dataset.config.similarity, ColumnDigests()
    actual = _read_rows(dataset, log.items, digests, findings)
    if actual is None or not _check_order(dataset, actual, findings):
        return None, digests.to_hex()
    items = select_items(inputs, seed, findings)
    is_complete = dataset.read_entry("similarity.engine") == "exact"
    offsets = np.searchsorted(actual.item, np.arange(log.n_items + 1, dtype=actual.item.dtype))
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
    return SimilarityPairs(actual, log.n_items), digests.to_hex()


def _read_rows(
    dataset: WrittenDataset, items: Vocabulary, digests: ColumnDigests | None, findings: Findings
) -> SimilarityRows | None:
    """Read all rows, items and neighbors as int32, negative where unknown; None with nulls."""
    schema, first_row, has_values = make_arrow_schema(NAME), 0, True
    nothing = np.zeros(0, np.int32)
    parts = [SimilarityRows(nothing, nothing, nothing.astype(np.float32), nothing, nothing)]
    texts = ["item_id", "similar_item_id"]
    for batch in stream_side_table(dataset, NAME, texts, digests):
        has_values &= check_nulls(FILE, first_row, batch, schema, findings)
        first_row += batch.num_rows
        if has_values:
            ids = (encode_texts(batch[name], items) for name in texts)
            numbers = ("similarity", "common_users", "rank")
            parts.append(
                SimilarityRows(
                    *(np.maximum(codes, UNKNOWN).astype(np.int32) for codes in ids),
                    *(batch[name].to_numpy(zero_copy_only=False) for name in numbers),
                )
            )
    if not has_values:
        return None
    return SimilarityRows(
        *(
            np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(SimilarityRows)
        )
    )


def _check_order(dataset: WrittenDataset, rows: SimilarityRows, findings: Findings) -> bool:
    """Whether all items are known, and rows are by item and rank."""
    known = "items that pass the filters"
    is_unknown = (rows.item < 0) | (rows.neighbor < 0)
    findings.add_bad_rows(
        "references",
        FILE,
        0,
        is_unknown,
        lambda row: (_read_row(dataset, row), known),
    )
    step = np.diff(rows.item)
    is_disordered = np.append(False, (step < 0) | ((step == 0) & (np.diff(rows.rank) != 1)))
    is_disordered = is_disordered[: len(rows.item)]
    shown = "a row out of order", "rows by item, then rank"
    findings.add_bad_rows(RULE, FILE, 0, is_disordered, lambda row: shown)
    return not (is_unknown.any() or is_disordered.any())


def _read_row(dataset: WrittenDataset, row: int) -> dict[str, Any]:
    """Read one row of the matrix."""
    (path,) = dataset.parts_of(NAME)
    with pq.ParquetFile(path) as parquet:
        for number in range(parquet.num_row_groups):
            n = parquet.metadata.row_group(number).num_rows
            if row < n:
                return dict(parquet.read_row_group(number).slice(row, 1).to_pylist()[0])
            row -= n
    raise IndexError(row)


def _select_pairs(
    expected: SimilarityRows, actual: SimilarityRows, n_items: int, top_k: int
) -> SimilarityRows:
    """Select the expected pairs that the file has, at most `top_k` an item, ranked again."""
    exists = np.isin(expected.make_keys(n_items), actual.make_keys(n_items))
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
        keys, expected_keys = (pairs.make_keys(log.n_items) for pairs in (actual, expected))
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
