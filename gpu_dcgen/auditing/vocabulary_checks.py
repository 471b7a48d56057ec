"""Check item_vocabulary, vocabulary.json and category_mappings.json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..config import DatasetConfig
from ..contract.schema import (
    AGE_GROUPS,
    NEGATIVE_DETAILS,
    NEGATIVE_SOURCES,
    PRICE_CATEGORIES,
    SEASONS,
    make_arrow_schema,
)
from .dataset_files import WrittenDataset, check_nulls
from .expected import ExpectedDataset
from .feature_checks import ITEM_CATEGORIES
from .findings import Findings
from .output_columns import as_array, encode_numbers, encode_texts, expect_numbers, expect_texts
from .positives import BalancingWeights
from .purchase_log import PurchaseLog

NAME = "item_vocabulary"
FILE = f"{NAME}.parquet"
RULE = "vocabularies"
PLURALS = {
    "product_group": "product_groups",
    "color_group": "color_groups",
    "garment_group": "garment_groups",
    "department": "departments",
    "index_group": "index_groups",
}
WEIGHT_TOLERANCE = 1e-9  # relative
MAX_SHOWN_KEYS = 8


def check_vocabularies(
    dataset: WrittenDataset,
    table: pa.Table | None,
    expected: ExpectedDataset,
    findings: Findings,
) -> None:
    """Check the vocabularies; `table` is item_vocabulary, None where it is unreadable."""
    log = expected.log
    if table is not None:
        check_item_vocabulary(table, log, findings)
    values = {
        name: column.values.to_pylist()
        for name, column in (log.user_columns | log.item_columns).items()
    }
    vocabulary = _expect_vocabulary(log, values, dataset.config)
    _compare_json(dataset.folder / "vocabulary.json", vocabulary, findings)
    mappings = {
        "mappings": _expect_mappings(values),
        "weights": _expect_weights(expected.positives.balancing, values["product_group"]),
    }
    _compare_json(dataset.folder / "category_mappings.json", mappings, findings)


def check_item_vocabulary(table: pa.Table, log: PurchaseLog, findings: Findings) -> None:
    """Check ids, indices and categories of all items."""
    if not check_nulls(FILE, 0, table, make_arrow_schema(NAME), findings):
        return
    if not findings.check_equal(RULE, FILE, "rows", table.num_rows, log.n_items):
        return
    findings.count(RULE, log.n_items)
    items = np.argsort(log.item_index)
    name = "item_index"
    index = encode_numbers(as_array(table[name]))
    findings.check_column(RULE, FILE, name, index, expect_numbers(log.item_index[items]))
    columns = {"item_id": (items, log.item_ids)}
    for name, category in log.item_columns.items():
        columns[f"item_{name}"] = category.codes[items], category.values
    for name, (codes, vocabulary) in columns.items():
        actual = encode_texts(as_array(table[name]), vocabulary)
        findings.check_column(RULE, FILE, name, actual, expect_texts(codes, vocabulary))


def check_train_counts(
    table: pa.Table, expected: ExpectedDataset, n_hard: np.ndarray | None, findings: Findings
) -> None:
    """Check how often each item is a positive and a hard negative of train.

    `n_hard` (I,) int64 counts the hard negatives in the rows of train, None where not all are read.
    """
    log = expected.log
    if table.num_rows != log.n_items:
        return  # `check_item_vocabulary` reports it
    items = np.argsort(log.item_index)
    n_positives = np.bincount(expected.splits[0].item, minlength=log.n_items)
    for name, counts in (
        ("n_train_positives", n_positives),
        ("n_train_hard_negatives", n_hard),
    ):
        if counts is not None:
            values = encode_numbers(as_array(table[name]))
            findings.count(RULE, log.n_items)
            findings.check_column(RULE, FILE, name, values, expect_numbers(counts[items]))


def _expect_vocabulary(
    log: PurchaseLog, values: dict[str, list[str]], config: DatasetConfig
) -> dict[str, Any]:
    """Return what vocabulary.json must hold."""
    sources = [
        name
        for name in NEGATIVE_SOURCES
        if name != "in_batch" or config.negative_sampling.in_batch_negatives
    ]
    return {
        "user_features": {
            "age_groups": list(AGE_GROUPS),
            "club_status": values["club_status"],
            "news_frequency": values["news_frequency"],
        },
        "item_features": {
            **{plural: values[name] for name, plural in PLURALS.items()},
            "price_categories": list(PRICE_CATEGORIES),
        },
        "interaction_features": {
            "negative_sources": sources,
            "negative_details": list(NEGATIVE_DETAILS),
            "seasons": list(SEASONS),
            "channels": {
                str(channel): kind for channel, kind in sorted(config.inputs.channels.items())
            },
        },
        "sizes": {"users": log.n_users, "items": log.n_items, "padding_index": 0},
    }


def _expect_mappings(values: dict[str, list[str]]) -> dict[str, dict[str, int]]:
    """Return the code of each value by column, as category_mappings.json must hold it."""
    columns = {
        "user_age_group": AGE_GROUPS,
        "user_club_status": values["club_status"],
        "user_news_frequency": values["news_frequency"],
        **{f"item_{name}": values[name] for name in ITEM_CATEGORIES},
        "item_price_category": PRICE_CATEGORIES,
        "season": SEASONS,
        "negative_source": NEGATIVE_SOURCES,
        "negative_detail": NEGATIVE_DETAILS,
    }
    return {
        name: {value: code for code, value in enumerate(texts)} for name, texts in columns.items()
    }


def _expect_weights(
    balancing: BalancingWeights | None, product_groups: list[str]
) -> dict[str, Any] | None:
    """Return the balancing weights as category_mappings.json must hold them."""
    if balancing is None:
        return None
    groups = zip([None, *product_groups], balancing.category.tolist(), strict=True)
    return {
        "item_product_group": [
            {"value": group, "weight": weight} for group, weight in groups if weight
        ],
        "user_segments": {f"{name}_users": weight for name, weight in balancing.segment.items()},
    }


def _compare_json(path: Path, expected: Any, findings: Findings) -> None:
    try:
        actual = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        findings.add_fault(RULE, path.name, None, f"unreadable: {error}", "JSON")
        return
    for where, shown, shown_expected in find_differences("", actual, expected):
        findings.add_fault(RULE, path.name, None, f"{where}: {shown}", f"{where}: {shown_expected}")
    findings.count(RULE, 1)


def find_differences(where: str, actual: Any, expected: Any) -> list[tuple[str, Any, Any]]:
    """Find where two JSON values differ; floats may be a rounding apart."""
    if isinstance(actual, dict) and isinstance(expected, dict):
        if actual.keys() == expected.keys():
            if list(actual) != list(expected):
                return [(where, _show_order(actual), _show_order(expected))]
            return [
                difference
                for name in expected
                for difference in find_differences(f"{where}/{name}", actual[name], expected[name])
            ]
    elif isinstance(actual, list) and isinstance(expected, list):
        if len(actual) == len(expected):
            pairs = enumerate(zip(actual, expected, strict=True))
            return [
                difference
                for n, pair in pairs
                for difference in find_differences(f"{where}/{n}", *pair)
            ]
    elif (
        isinstance(actual, float)
        and isinstance(expected, float)
        and math.isclose(actual, expected, rel_tol=WEIGHT_TOLERANCE)
    ):
        return []
    return [] if actual == expected else [(where, actual, expected)]


def _show_order(keys: dict[str, Any]) -> str:
    return f"order {list(keys)[:MAX_SHOWN_KEYS]}"
