"""Render croissant.json, MLCommons Croissant 1.1.

It has a file object with SHA-256 for each file and a record set for each table. A column of lists
is a field with `isArray` and its shape, -1 where lengths differ; readers get a list.
"""

from __future__ import annotations

from typing import Any

from ..contract.json_files import as_json
from ..contract.manifest import Manifest
from ..contract.schema import SPLITS, Column
from .description import DatasetDescription, Table, get_value_type, is_list

# Terms of the vocabulary `cr`.
_TERMS = (
    "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field",
    "fileObject", "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset",
    "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
# The context of the specification; readers compare it.
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{name: f"cr:{name}" for name in _TERMS},
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}
_MEDIA_TYPES = {
    "parquet": "application/x-parquet",
    "json": "application/json",
    "jsonl": "application/jsonlines",
}
_SPLIT_URIS = {"train": "cr:TrainingSplit", "val": "cr:ValidationSplit", "test": "cr:TestSplit"}


def render(dataset: DatasetDescription) -> str:
    """Render the JSON-LD text."""
    manifest = dataset.manifest
    card = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": dataset.name,
        "description": "Contrastive training data from a shop's purchase log, with hard and random "
        "negatives. The owner of the log must add its origin and license.",
        "datePublished": manifest.generated_at,
        "version": dataset.contract_version,
        "distribution": [_render_file(manifest, name) for name in manifest.files]
        + [_render_parts(table) for table in dataset.tables if table.in_parts],
        "recordSet": [_render_splits(), *(_render_records(dataset, t) for t in dataset.tables)],
    }
    return as_json(card)


def _render_file(manifest: Manifest, name: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{manifest.files[name]} B",
        "encodingFormat": _MEDIA_TYPES.get(name.rpartition(".")[2], "text/plain"),
        "sha256": manifest.checksums[name],
    }


def _render_parts(table: Table) -> dict[str, Any]:
    """Render all parts as one source; each is also a file object with its SHA-256."""
    return {
        "@type": "cr:FileSet",
        "@id": table.name,
        "name": table.name,
        "encodingFormat": _MEDIA_TYPES["parquet"],
        "includes": table.pattern,
    }


def _render_splits() -> dict[str, Any]:
    """Render the enumeration of the splits and their purposes."""
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            {"@type": "cr:Field", "@id": "splits/name", "name": "name", "dataType": "sc:Text"},
            {"@type": "cr:Field", "@id": "splits/url", "name": "url", "dataType": "sc:URL"},
        ],
        "data": [{"splits/name": split, "splits/url": _SPLIT_URIS[split]} for split in SPLITS],
    }


def _render_records(dataset: DatasetDescription, table: Table) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": f"{table.name}_records",
        "name": f"{table.name}_records",
        "description": f"One record is {table.row}.",
        "field": [_render_field(dataset, table, column) for column in table.columns],
    }


def _render_field(dataset: DatasetDescription, table: Table, column: Column) -> dict[str, Any]:
    source = (
        {"fileSet": {"@id": table.name}}
        if table.in_parts
        else {"fileObject": {"@id": table.files[0]}}
    )
    lists = (
        {"isArray": True, "arrayShape": str(dataset.list_length(column) or -1)}
        if is_list(column)
        else {}
    )
    return {
        "@type": "cr:Field",
        "@id": f"{table.name}_records/{column.name}",
        "name": column.name,
        "description": column.description,
        "dataType": get_value_type(column).croissant,
        **lists,
        "source": {**source, "extract": {"column": column.name}},
    }
