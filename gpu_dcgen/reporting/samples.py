"""Read a few groups of a dataset: the history, the positive, and its negatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..contract.manifest import SplitCounts
from ..contract.schema import SPLITS
from .documents import Documents

SHOWN_HISTORY = 6  # latest items
REASONS = {
    "item_cf": "bought by the same people",
    "collaborative": "recently bought by others who bought the positive",
    "viewed": "recently viewed, and not bought, by others who bought the positive",
    "category_crossing": "same price category, another product group",
    "fallback": "drawn at random, for lack of candidates",
    "random": "drawn from items on sale that the user did not own",
}
_USER = (
    "user_id",
    "user_age",
    "user_total_purchases",
    "user_lifetime_days",
    "user_avg_basket_size",
)
_ABOUT = (*_USER, "sample_id", "timestamp", "is_repurchase")
_COLUMNS = frozenset(  # of all shapes (D19)
    {
        *_ABOUT,
        "user_interaction_sequence",
        "label",
        "item_id",
        "item_popularity_score",
        "item_price_normalized",
        "negative_item_id",
        "negative_item_popularity_score",
        "negative_item_price_normalized",
        "negative_popularity_score",
        "negative_price_normalized",
        "negative_similarity_score",
        "negative_source",
        "negative_detail",
        "similarity_score",
    }
)


@dataclass(frozen=True)
class SampleItem:
    """An item of a sample; None where the sample has no value."""

    item_id: str
    name: str | None
    product_group: str | None
    popularity: float | None = None
    price: float | None = None
    source: str | None = None  # of a negative: hard, random
    detail: str | None = None
    similarity: float | None = None

    @property
    def reason(self) -> str:
        """Where a negative comes from, in words."""
        return REASONS.get(self.detail or self.source or "", self.detail or self.source or "")


@dataclass(frozen=True)
class SampleGroup:
    """A positive with its history and negatives."""

    split: str
    about: dict[str, Any]  # columns of the user and the time
    history: list[SampleItem]  # the latest, in the order of time
    n_earlier: int  # items of the history before those
    positive: SampleItem
    hard: list[SampleItem]
    random: list[SampleItem]


def read_samples(documents: Documents, n_samples: int) -> list[SampleGroup]:
    """Read `n_samples` groups, spread evenly over the splits and over each split's rows.

    Only their row groups are read.
    """
    groups = [
        (split, _read_group(documents, split, number))
        for split, number in _choose_groups(documents.manifest.counts, n_samples)
    ]
    indices = {
        index
        for _, rows in groups
        for index in rows["user_interaction_sequence"][0].as_py()[-SHOWN_HISTORY:]
    }
    ids = {item_id for _, rows in groups for item_id in _list_item_ids(rows)}
    items = _read_items(documents.list_parts("item_vocabulary"), indices, ids)
    return [_build_sample(split, rows, items) for split, rows in groups]


def _choose_groups(counts: dict[str, SplitCounts], n_samples: int) -> Iterator[tuple[str, int]]:
    """Yield split and number of groups in the middle of equal stretches of each split."""
    filled = [split for split in SPLITS if counts[split].groups]
    for place, split in enumerate(filled):
        n_groups = counts[split].groups
        n = min(n_groups, (n_samples + len(filled) - 1 - place) // len(filled))
        for k in range(n):
            yield split, (2 * k + 1) * n_groups // (2 * n)


def _read_group(documents: Documents, split: str, number: int) -> pa.Table:
    """Read the rows of one group from the row group that holds it whole (D16)."""
    counts = documents.manifest.counts[split]
    n_rows = counts.rows // counts.groups
    first, start = number * n_rows, 0
    for part in documents.list_parts(f"{split}_dataset"):
        with pq.ParquetFile(part) as parquet:
            for k in range(parquet.num_row_groups):
                stop = start + parquet.metadata.row_group(k).num_rows
                if start <= first < stop:
                    names = [name for name in parquet.schema_arrow.names if name in _COLUMNS]
                    return parquet.read_row_group(k, columns=names).slice(first - start, n_rows)
                start = stop
    raise IndexError(f"{split} has no group {number}")


def _list_item_ids(rows: pa.Table) -> list[str]:
    ids = rows["item_id"].to_pylist()
    if "negative_item_id" in rows.schema.names:
        for value in rows["negative_item_id"].to_pylist():
            ids += value if isinstance(value, list) else [value]
    return ids


def _read_items(parts: list[Path], indices: set[int], ids: set[str]) -> dict[Any, dict[str, Any]]:
    """Read rows of item_vocabulary, by item_index (int) and by item_id (str)."""
    items: dict[Any, dict[str, Any]] = {}
    for part in parts:
        with pq.ParquetFile(part) as parquet:
            for batch in parquet.iter_batches(
                columns=["item_index", "item_id", "item_name", "item_product_group"]
            ):
                is_selected = pc.or_(
                    pc.is_in(batch["item_index"], pa.array(sorted(indices), pa.int32())),
                    pc.is_in(batch["item_id"], pa.array(sorted(ids), pa.string())),
                )
                for row in batch.filter(is_selected).to_pylist():
                    items[row["item_index"]] = items[row["item_id"]] = row
    return items


def _build_sample(split: str, rows: pa.Table, items: dict[Any, dict[str, Any]]) -> SampleGroup:
    rows = rows.set_column(
        rows.schema.get_field_index("timestamp"),
        "timestamp",
        rows["timestamp"].cast("timestamp[s]", safe=False),
    )
    first = {name: rows[name][0].as_py() for name in rows.schema.names}
    history = first["user_interaction_sequence"]
    negatives = [_build_item(items, values) for values in _read_negatives(rows, first)]
    about = {name: first.get(name) for name in _ABOUT}
    positive = {
        "item_id": first["item_id"],
        "popularity": first["item_popularity_score"],
        "price": first["item_price_normalized"],
    }
    return SampleGroup(
        split=split,
        about=about,
        history=[
            _build_item(items, {"item_id": items[index]["item_id"]})
            for index in history[-SHOWN_HISTORY:]
        ],
        n_earlier=max(0, len(history) - SHOWN_HISTORY),
        positive=_build_item(items, positive),
        hard=[item for item in negatives if item.source == "hard"],
        random=[item for item in negatives if item.source != "hard"],
    )


def _read_negatives(rows: pa.Table, first: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the negatives' values from rows in any of the shapes (D19)."""
    if "label" in first:
        for row in rows.slice(1).to_pylist():
            yield _get_values(row, row["item_id"], "item_", "similarity_score")
    elif isinstance(first["negative_item_id"], list):
        for k, item_id in enumerate(first["negative_item_id"]):
            row = {
                name: value[k]
                for name, value in first.items()
                if name.startswith("negative_") and value is not None
            }
            yield _get_values(row, item_id, "negative_", "negative_similarity_score")
    else:
        yield _get_values(first, first["negative_item_id"], "negative_item_", "similarity_score")


def _get_values(row: dict[str, Any], item_id: str, prefix: str, similarity: str) -> dict[str, Any]:
    return {
        "item_id": item_id,
        "popularity": row[f"{prefix}popularity_score"],
        "price": row[f"{prefix}price_normalized"],
        "source": row["negative_source"],
        "detail": row.get("negative_detail"),
        "similarity": row[similarity],
    }


def _build_item(items: dict[Any, dict[str, Any]], values: dict[str, Any]) -> SampleItem:
    row = items[values["item_id"]]
    return SampleItem(name=row["item_name"], product_group=row["item_product_group"], **values)
