"""datacontract.yaml: Open Data Contract Standard 3.1, which `datacontract test` holds against the files.

Paths are relative: run it in the dataset's folder. A table in parts is a folder of the same name, which DuckDB reads alike.
"""

from __future__ import annotations

from typing import Any

import yaml

from ..contract.schema import SPLITS, Column
from .described import Described, Table, is_list, value_type

_KEYS = {  # columns that no two rows share, together
    "item_similarity_matrix": ("item_id", "similar_item_id"),
    "user_sequences": ("user_id",),
    "item_vocabulary": ("item_index",),
}


def render(described: Described) -> str:
    """The YAML text."""
    manifest = described.manifest
    card = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": described.name,
        "name": described.name,
        "version": manifest["contract"].rpartition(" ")[2],
        "status": "active",
        "contractCreatedTs": manifest["generated_at"],
        "description": {
            "purpose": "Training of contrastive recommenders: purchases with hard and random negatives, in three splits.",
            "limitations": "Where the log is from, and what it may be used for, its owner must add.",
            "usage": "Run 'datacontract test datacontract.yaml' in the folder of the dataset.",
        },
        "servers": [
            {"server": "files", "type": "local", "path": "./{model}.parquet", "format": "parquet"}
        ],
        "schema": [_schema(described, table) for table in described.tables],
    }
    return yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=120)


def _schema(described: Described, table: Table) -> dict[str, Any]:
    return {
        "name": table.name,
        "logicalType": "object",
        "physicalType": "table",
        "description": f"One row is {table.row}.",
        "properties": [_property(described, table, column) for column in table.columns],
        "quality": _quality(described, table),
    }


def _property(described: Described, table: Table, column: Column) -> dict[str, Any]:
    keys, type_, length = (
        _KEYS.get(table.name, ("sample_id",)),
        value_type(column),
        described.length(column),
    )
    found: dict[str, Any] = {"name": column.name, "description": column.description}
    if is_list(column):
        found |= {"logicalType": "array", "physicalType": "array"}
        found |= {"items": {"logicalType": type_.logical, "physicalType": type_.sql}}
    else:
        found |= {"logicalType": type_.logical, "physicalType": type_.sql}
    if length:
        found |= {"logicalTypeOptions": {"minItems": length, "maxItems": length}}
    found |= {"required": not column.nullable, "tags": [column.role]}
    if column.name in keys:
        found |= {"primaryKey": True, "primaryKeyPosition": keys.index(column.name) + 1}
    return found


def _quality(described: Described, table: Table) -> list[dict[str, Any]]:
    """What the manifest says of a table, as rules."""
    exact = {"mustBe": table.n_rows} if table.n_rows is not None else {"mustBeGreaterThan": 0}
    rules: list[dict[str, Any]] = [
        {"name": "rows", "type": "library", "metric": "rowCount", **exact}
    ]
    split = table.name.removesuffix("_dataset")
    if split not in SPLITS:
        return rules
    first, cut1, cut2, last = (
        described.manifest["split"]["windows_ns"][name]
        for name in ("first", "cut1", "cut2", "last")
    )
    reset_counters, end = ((first, cut1), (cut1, cut2), (cut2, last + 1))[SPLITS.index(split)]
    outside = (
        f"epoch_ns(timestamp) < {reset_counters // 1000 * 1000} OR epoch_ns(timestamp) >= {end}"
    )
    rules.append(_none("within_period", "Every row is of the split's period.", outside))
    if described.config.output.shape == "labeled_pair":
        groups = described.manifest["counts"][split]["groups"]
        query = "SELECT COUNT(*) FROM {object} WHERE label = 1"
        rules.append({"name": "positives", "type": "sql", "query": query, "mustBe": groups})
        rules.append(_none("labels", "A label is 0 or 1.", "label NOT IN (0, 1)"))
    return rules


def _none(name: str, description: str, condition: str) -> dict[str, Any]:
    query = f"SELECT COUNT(*) FROM {{object}} WHERE {condition}"
    return {"name": name, "description": description, "type": "sql", "query": query, "mustBe": 0}
