"""A few groups of a dataset as a reader looks at them: the history, the positive, and why each negative is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..contract.schema import SPLITS
from .documents import Documents

SHOWN_HISTORY = 6  # latest items
REASONS = {
    "item_cf": "bought by the same people",
    "collaborative": "just bought by others who bought the positive",
    "category_crossing": "same price class, another product group",
    "fallback": "drawn at random, for want of candidates",
    "random": "drawn from what was on sale and not theirs",
}
_USER = (
    "user_id",
    "user_age",
    "user_total_purchases",
    "user_lifetime_days",
    "user_avg_basket_size",
)
_ABOUT = (*_USER, "sample_id", "timestamp", "is_repurchase")
_READ = frozenset(
    (*_ABOUT, "user_interaction_sequence", "label", "similarity_score", "negative_similarity_score", "negative_source",
     "negative_detail", "negative_popularity_score", "negative_price_normalized", "negative_item_id",
     *(f"{prefix}item_{name}" for prefix in ("", "negative_") for name in ("id", "popularity_score", "price_normalized")))
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """An item as it stands in a sample; what the sample does not say is None."""

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
        return REASONS.get(self.detail or self.source or "", self.detail or self.source or "")


@dataclass(frozen=True)
class Sample:
    """One positive with its history and negatives; `about` holds the columns of the user and the moment."""

    split: str
    about: dict[str, Any]
    history: list[Item]  # the latest, in the order of time
    n_earlier: int  # of the history, not in `history`
    positive: Item
    hard: list[Item]
    random: list[Item]


def read_samples(documents: Documents, n_samples: int) -> list[Sample]:
    """`n_samples` groups, spread evenly over the splits and over each split's rows; only their row groups are read."""
    chosen = list(_chosen(documents.manifest["counts"], n_samples))
    groups = [(split, _read_group(documents, split, number)) for split, number in chosen]
    indices = {
        index
        for _, rows in groups
        for index in rows["user_interaction_sequence"][0].as_py()[-SHOWN_HISTORY:]
    }
    ids = {item_id for _, rows in groups for item_id in _item_ids(rows)}
    items = _read_items(documents.parts("item_vocabulary"), indices, ids)
    return [_sample(split, rows, items) for split, rows in groups]


def _chosen(counts: dict[str, dict[str, int]], n_samples: int) -> Iterator[tuple[str, int]]:
    """Split and number of each group, in the middle of equal stretches of its split."""
    filled = [split for split in SPLITS if counts[split]["groups"]]
    for place, split in enumerate(filled):
        n = min(counts[split]["groups"], (n_samples + len(filled) - 1 - place) // len(filled))
        for k in range(n):
            yield split, (2 * k + 1) * counts[split]["groups"] // (2 * n)


def _read_group(documents: Documents, split: str, number: int) -> pa.Table:
    """The rows of one group, of which one row group is decoded; row groups hold whole groups (D16)."""
    counts = documents.manifest["counts"][split]
    n_rows = counts["rows"] // counts["groups"]
    first, start = number * n_rows, 0
    for part in documents.parts(f"{split}_dataset"):
        with pq.ParquetFile(part) as parquet:
            for k in range(parquet.num_row_groups):
                stop = start + parquet.metadata.row_group(k).num_rows
                if start <= first < stop:
                    names = [name for name in parquet.schema_arrow.names if name in _READ]
                    return parquet.read_row_group(k, columns=names).slice(first - start, n_rows)
                start = stop
    raise IndexError(f"{split} has no group {number}")


def _item_ids(rows: pa.Table) -> list[str]:
    found = rows["item_id"].to_pylist()
    if "negative_item_id" in rows.schema.names:
        for one in rows["negative_item_id"].to_pylist():
            found += one if isinstance(one, list) else [one]
    return found


def _read_items(parts: list[Path], indices: set[int], ids: set[str]) -> dict[Any, dict[str, Any]]:
    """Rows of item_vocabulary by item_index (int) and by item_id (str), of the wanted items only."""
    found: dict[Any, dict[str, Any]] = {}
    for part in parts:
        with pq.ParquetFile(part) as parquet:
            for batch in parquet.iter_batches(
                columns=["item_index", "item_id", "item_name", "item_product_group"]
            ):
                wanted = pc.or_(
                    pc.is_in(batch["item_index"], pa.array(sorted(indices), pa.int32())),
                    pc.is_in(batch["item_id"], pa.array(sorted(ids), pa.string())),
                )
                for row in batch.filter(wanted).to_pylist():
                    found[row["item_index"]] = found[row["item_id"]] = row
    return found


def _sample(split: str, rows: pa.Table, items: dict[Any, dict[str, Any]]) -> Sample:
    rows = rows.set_column(
        rows.schema.get_field_index("timestamp"),
        "timestamp",
        rows["timestamp"].cast("timestamp[s]", safe=False),
    )
    first = {name: rows[name][0].as_py() for name in rows.schema.names}
    history = first["user_interaction_sequence"]
    negatives = [_item(items, values) for values in _negatives(rows, first)]
    about = {name: first.get(name) for name in _ABOUT}
    positive = {
        "item_id": first["item_id"],
        "popularity": first["item_popularity_score"],
        "price": first["item_price_normalized"],
    }
    return Sample(
        split=split,
        about=about,
        history=[
            _item(items, {"item_id": items[index]["item_id"]}) for index in history[-SHOWN_HISTORY:]
        ],
        n_earlier=max(0, len(history) - SHOWN_HISTORY),
        positive=_item(items, positive),
        hard=[one for one in negatives if one.source == "hard"],
        random=[one for one in negatives if one.source != "hard"],
    )


def _negatives(rows: pa.Table, first: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The negatives' columns in any of the shapes (D19)."""
    if "label" in first:
        for row in rows.slice(1).to_pylist():
            yield _columns(row, "item_", "similarity_score", "popularity_score", row["item_id"])
    elif isinstance(first["negative_item_id"], list):
        for k, item_id in enumerate(first["negative_item_id"]):
            row = {
                name: value[k]
                for name, value in first.items()
                if name.startswith("negative_") and value is not None
            }
            yield _columns(
                row, "negative_", "negative_similarity_score", "popularity_score", item_id
            )
    else:
        yield _columns(
            first,
            "negative_item_",
            "similarity_score",
            "popularity_score",
            first["negative_item_id"],
        )


def _columns(
    row: dict[str, Any], prefix: str, similarity: str, popularity: str, item_id: str
) -> dict[str, Any]:
    return {
        "item_id": item_id,
        "popularity": row[f"{prefix}{popularity}"],
        "price": row[f"{prefix}price_normalized"],
        "source": row["negative_source"],
        "detail": row.get("negative_detail"),
        "similarity": row[similarity],
    }


def _item(items: dict[Any, dict[str, Any]], values: dict[str, Any]) -> Item:
    known = items[values["item_id"]]
    return Item(name=known["item_name"], product_group=known["item_product_group"], **values)
