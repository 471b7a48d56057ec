"""croissant.json: MLCommons Croissant 1.1, a file object with SHA-256 for each file and a record set for each table.

A column of lists is a field with `isArray` and its shape, -1 where lengths differ; what reads it gets a list.
"""

from __future__ import annotations

import json
from typing import Any

from ..contract.schema import SPLITS, Column
from .described import Described, Table, is_list, value_type

# The context of the specification, which readers compare with.
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{
        name: f"cr:{name}"
        for name in (
            "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileObject",
            "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5", "parentField",
            "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField",
            "transform",
        )
    },
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
}  # fmt: skip
_MEDIA_TYPES = {
    "parquet": "application/x-parquet",
    "json": "application/json",
    "jsonl": "application/jsonlines",
}
_SPLIT_URIS = {"train": "cr:TrainingSplit", "val": "cr:ValidationSplit", "test": "cr:TestSplit"}


def render(described: Described) -> str:
    """The JSON-LD text."""
    manifest = described.manifest
    card = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": described.name,
        "description": "Contrastive training data from a shop's purchase log, with hard and random negatives. Where the log is "
        "from, and under which license, its owner must add.",
        "datePublished": manifest["generated_at"],
        "version": manifest["contract"].rpartition(" ")[2],
        "distribution": [_file(described, name) for name in manifest["files"]]
        + [_parts(table) for table in described.tables if table.in_parts],
        "recordSet": [_splits(), *(_records(described, table) for table in described.tables)],
    }
    return json.dumps(card, indent=1, ensure_ascii=False) + "\n"


def _file(described: Described, name: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{described.manifest['files'][name]} B",
        "encodingFormat": _MEDIA_TYPES.get(name.rpartition(".")[2], "text/plain"),
        "sha256": described.manifest["checksums"][name],
    }


def _parts(table: Table) -> dict[str, Any]:
    """All parts as one source; each is a file object with its SHA-256 as well."""
    return {
        "@type": "cr:FileSet",
        "@id": table.name,
        "name": table.name,
        "encodingFormat": _MEDIA_TYPES["parquet"],
        "includes": table.pattern,
    }


def _splits() -> dict[str, Any]:
    """The enumeration that says which split is for what."""
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


def _records(described: Described, table: Table) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": f"{table.name}_records",
        "name": f"{table.name}_records",
        "description": f"One record is {table.row}.",
        "field": [_field(described, table, column) for column in table.columns],
    }


def _field(described: Described, table: Table, column: Column) -> dict[str, Any]:
    source = (
        {"fileSet": {"@id": table.name}}
        if table.in_parts
        else {"fileObject": {"@id": table.files[0]}}
    )
    lists = (
        {"isArray": True, "arrayShape": str(described.length(column) or -1)}
        if is_list(column)
        else {}
    )
    return {
        "@type": "cr:Field",
        "@id": f"{table.name}_records/{column.name}",
        "name": column.name,
        "description": column.description,
        "dataType": value_type(column).croissant,
        **lists,
        "source": {**source, "extract": {"column": column.name}},
    }
