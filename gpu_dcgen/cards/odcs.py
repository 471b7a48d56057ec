"""Render datacontract.yaml, Open Data Contract Standard 3.1, for `datacontract test`.

Paths are relative: run it in the dataset's folder. A table in parts is a folder of the same name;
DuckDB reads it like a file.
"""

from __future__ import annotations

from typing import Any

import yaml

from ..contract.schema import SPLITS, Column
from .description import DatasetDescription, Table, get_value_type, is_list

# columns that together identify a row; of samples: sample_id
_KEYS = {
    "item_similarity_matrix": ("item_id", "similar_item_id"),
    "user_sequences": ("user_id",),
    "item_vocabulary": ("item_index",),
    "hard_candidates": ("item_id", "snapshot", "candidate_id"),
}


def render(dataset: DatasetDescription) -> str:
    """Render the YAML text."""
    card = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": dataset.name,
        "name": dataset.name,
        "version": dataset.contract_version,
        "status": "active",
        "contractCreatedTs": dataset.manifest.generated_at,
        "description": {
            "purpose": "Training of contrastive recommenders: purchases with hard and random "
            "negatives, in three splits.",
            "limitations": "The owner of the log must add its origin and permitted uses.",
            "usage": "Run 'datacontract test datacontract.yaml' in the folder of the dataset.",
        },
        "servers": [
            {"server": "files", "type": "local", "path": "./{model}.parquet", "format": "parquet"}
        ],
        "schema": [_render_table(dataset, table) for table in dataset.tables],
    }
    return yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=120)


def _render_table(dataset: DatasetDescription, table: Table) -> dict[str, Any]:
    return {
        "name": table.name,
        "logicalType": "object",
        "physicalType": "table",
        "description": f"One row is {table.row}.",
        "properties": [_render_column(dataset, table, column) for column in table.columns],
        "quality": _list_rules(dataset, table),
    }


def _render_column(dataset: DatasetDescription, table: Table, column: Column) -> dict[str, Any]:
    keys = _KEYS.get(table.name, ("sample_id",))
    value_type, length = get_value_type(column), dataset.list_length(column)
    types = {"logicalType": value_type.logical, "physicalType": value_type.sql}
    entry: dict[str, Any] = {"name": column.name, "description": column.description}
    if is_list(column):
        entry |= {"logicalType": "array", "physicalType": "array"}
        entry |= {"items": types}
    else:
        entry |= types
    if length:
        entry |= {"logicalTypeOptions": {"minItems": length, "maxItems": length}}
    entry |= {"required": not column.nullable, "tags": [column.role]}
    if column.name in keys:
        entry |= {"primaryKey": True, "primaryKeyPosition": keys.index(column.name) + 1}
    return entry


def _list_rules(dataset: DatasetDescription, table: Table) -> list[dict[str, Any]]:
    """List the rules that a table must meet, by the manifest."""
    exact = {"mustBe": table.n_rows} if table.n_rows is not None else {"mustBeGreaterThan": 0}
    rules: list[dict[str, Any]] = [
        {"name": "rows", "type": "library", "metric": "rowCount", **exact}
    ]
    split = table.split
    if split is None:
        return rules
    start, end = dataset.manifest.split.windows_ns.spans[SPLITS.index(split)]
    # Values of type timestamp_ntz have microseconds: the start is rounded down to them.
    outside = f"epoch_ns(timestamp) < {start // 1000 * 1000} OR epoch_ns(timestamp) >= {end}"
    rules.append(_forbid("within_period", "Every row is of the split's period.", outside))
    if dataset.config.output.shape == "labeled_pair":
        groups = dataset.manifest.counts[split].groups
        query = "SELECT COUNT(*) FROM {object} WHERE label = 1"
        rules.append({"name": "positives", "type": "sql", "query": query, "mustBe": groups})
        rules.append(_forbid("labels", "A label is 0 or 1.", "label NOT IN (0, 1)"))
    return rules


def _forbid(name: str, description: str, condition: str) -> dict[str, Any]:
    """Return a rule that no row meets the condition."""
    query = f"SELECT COUNT(*) FROM {{object}} WHERE {condition}"
    return {"name": name, "description": description, "type": "sql", "query": query, "mustBe": 0}
