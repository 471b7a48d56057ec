"""A dataset as its cards see it: tables, columns, types in three vocabularies, files and rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import DatasetConfig
from ..contract.schema import FILES, SPLITS, Column, get_columns, get_file
from ..errors import InputError
from ..contract.json_files import read_json


@dataclass(frozen=True)
class Type:
    """One value's type as each card spells it."""

    hugging_face: str
    croissant: str
    logical: str  # of the Open Data Contract Standard
    sql: str  # a type that `datacontract test` can compare


_TYPES = {
    "string": Type("string", "sc:Text", "string", "varchar"),
    "category": Type("string", "sc:Text", "string", "varchar"),
    "int8": Type("int8", "cr:Int8", "integer", "tinyint"),
    "int16": Type("int16", "cr:Int16", "integer", "smallint"),
    "int32": Type("int32", "cr:Int32", "integer", "integer"),
    "int": Type("int32", "cr:Int32", "integer", "integer"),
    "float32": Type("float32", "cr:Float32", "number", "float"),
    "bool": Type("bool", "sc:Boolean", "boolean", "boolean"),
    "datetime64[ns]": Type("timestamp[ns]", "sc:DateTime", "timestamp", "timestamp_ntz"),
}


def value_type(column: Column) -> Type:
    """The type of a column's values; of its elements where it holds lists."""
    name = column.type
    return _TYPES[name.partition("[")[2][:-1] if is_list(column) else name]


def is_list(column: Column) -> bool:
    return column.type.startswith(("list[", "tuple["))


@dataclass(frozen=True)
class Table:
    """One of the contract's files; `files` are names in the dataset's folder, `n_rows` None where the manifest has no count."""

    name: str
    row: str
    columns: tuple[Column, ...]
    files: tuple[str, ...]
    n_rows: int | None

    @property
    def in_parts(self) -> bool:
        return self.files != (f"{self.name}.parquet",)

    @property
    def pattern(self) -> str:
        """The table's files, as a glob."""
        return f"{self.name}.parquet/*.parquet" if self.in_parts else f"{self.name}.parquet"


@dataclass(frozen=True)
class Described:
    """What the cards say: the JSON files of a dataset, its settings, and its tables in the contract's order."""

    manifest: dict[str, Any]
    quality_report: dict[str, Any]
    config: DatasetConfig
    tables: tuple[Table, ...]

    @property
    def name(self) -> str:
        """A name that tells nothing of the shop, and changes with the content."""
        return f"contrastive-training-data-{self.manifest['content_digest'][:12]}"

    def length(self, column: Column) -> int | None:
        """Entries of each list of a column where all have the same number of them."""
        return self.config.negatives_per_positive if column.type.startswith("tuple[") else None


def describe(dataset: Path) -> Described:
    """InputError where the folder holds no dataset, or one of another version."""
    remedy = "Name a folder that 'gpu-dcgen build' published."
    manifest, quality_report = (
        read_json(dataset / name, remedy) for name in ("manifest.json", "quality_report.json")
    )
    try:
        config = DatasetConfig.model_validate(manifest["config"])
        shape, extra = config.output.shape, config.output.extra_columns
        rows = {f"{split}_dataset": int(manifest["counts"][split]["rows"]) for split in SPLITS}
        rows |= {"item_similarity_matrix": int(manifest["similarity"]["pairs"])}
        rows |= {"item_vocabulary": int(manifest["vocabulary"]["items"])}
        tables = []
        for name in FILES:
            files = tuple(
                file for file in manifest["files"] if file.split("/")[0] == f"{name}.parquet"
            )
            if not files or any(file not in manifest["checksums"] for file in files):
                raise ValueError(f"it does not list {name}.parquet with its checksum")
            columns = get_columns(name, extra, shape)
            tables.append(Table(name, get_file(name, shape).row, columns, files, rows.get(name)))
        needed = (
            "content_digest",
            "generated_at",
            "seed",
            "generator",
            "contract",
            "split",
            "negatives",
            "vocabulary",
            "ledger",
        )
        if missing := [key for key in needed if key not in manifest]:
            raise ValueError(f"it has no {missing[0]}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        remedy = "Describe a dataset with the version that built it, or build again."
        raise InputError(
            f"{dataset / 'manifest.json'}: is no manifest of this version ({type(error).__name__}: {error}).\n{remedy}"
        ) from error
    return Described(manifest, quality_report, config, tuple(tables))
