"""Collect what the cards describe: tables, columns, types for each card, files, rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..config import DatasetConfig
from ..contract.manifest import Manifest
from ..contract.quality_report import QUALITY_REPORT, QualityReport
from ..contract.schema import (
    HARD_CANDIDATES,
    SPLITS,
    Column,
    get_columns,
    get_file,
    list_tables,
)
from ..errors import InputError

_NO_DATASET = "Name a folder that 'gpu-dcgen build' published."
_OTHER_VERSION = "Describe a dataset with the version that built it, or build again."


@dataclass(frozen=True)
class ValueType:
    """A type of values as each card spells it."""

    hugging_face: str
    croissant: str
    logical: str  # of the Open Data Contract Standard
    sql: str  # a type that `datacontract test` can compare


_TYPES = {
    "string": ValueType("string", "sc:Text", "string", "varchar"),
    "category": ValueType("string", "sc:Text", "string", "varchar"),
    "int8": ValueType("int8", "cr:Int8", "integer", "tinyint"),
    "int16": ValueType("int16", "cr:Int16", "integer", "smallint"),
    "int32": ValueType("int32", "cr:Int32", "integer", "integer"),
    "int": ValueType("int32", "cr:Int32", "integer", "integer"),
    "float32": ValueType("float32", "cr:Float32", "number", "float"),
    "bool": ValueType("bool", "sc:Boolean", "boolean", "boolean"),
    "datetime64[ns]": ValueType("timestamp[ns]", "sc:DateTime", "timestamp", "timestamp_ntz"),
}


def get_value_type(column: Column) -> ValueType:
    """Return the type of a column's values; of the elements where it holds lists."""
    name = column.type
    return _TYPES[name.partition("[")[2][:-1] if is_list(column) else name]


def is_list(column: Column) -> bool:
    """Return whether a column holds lists."""
    return column.type.startswith(("list[", "tuple["))


@dataclass(frozen=True)
class Table:
    """A table of the contract."""

    name: str
    row: str  # what a row is
    columns: tuple[Column, ...]
    files: tuple[str, ...]  # names in the dataset's folder
    n_rows: int | None  # None where the manifest has no count

    @property
    def split(self) -> str | None:
        """The split of a table of samples."""
        name = self.name.removesuffix("_dataset")
        return name if name in SPLITS else None

    @property
    def in_parts(self) -> bool:
        """Whether the table is a folder of part files."""
        return self.files != (f"{self.name}.parquet",)

    @property
    def pattern(self) -> str:
        """The table's files, as a glob."""
        return f"{self.name}.parquet/*.parquet" if self.in_parts else f"{self.name}.parquet"


@dataclass(frozen=True)
class DatasetDescription:
    """What the cards describe."""

    manifest: Manifest
    quality_report: QualityReport
    config: DatasetConfig
    tables: tuple[Table, ...]  # in the contract's order

    @property
    def name(self) -> str:
        """A name that depends on the content and reveals nothing of the shop."""
        return f"contrastive-training-data-{self.manifest.content_digest[:12]}"

    @property
    def contract_version(self) -> str:
        """The version of the data contract."""
        return self.manifest.contract.rpartition(" ")[2]

    @property
    def split_tables(self) -> list[Table]:
        """The tables of samples."""
        return [table for table in self.tables if table.split is not None]

    @property
    def other_tables(self) -> list[Table]:
        """The tables beside the samples."""
        return [table for table in self.tables if table.split is None]

    def list_length(self, column: Column) -> int | None:
        """Return the length of a column's lists where all have the same."""
        return self.config.negatives_per_positive if column.type.startswith("tuple[") else None


def describe(dataset: Path) -> DatasetDescription:
    """Describe the dataset in a folder.

    Raises InputError where the folder holds no dataset, or one of another version.
    """
    path = dataset / "manifest.json"
    manifest = Manifest.load(path, _NO_DATASET)
    quality_report = QualityReport.load(dataset / QUALITY_REPORT, _NO_DATASET)
    try:
        config = DatasetConfig.model_validate(manifest.config)
        names = list_tables(hard_candidates=config.output.hard_candidates)
        tables = tuple(_describe_table(name, manifest, config) for name in names)
    except ValueError as error:
        raise InputError(
            f"{path}: is no manifest of this version ({error}).\n{_OTHER_VERSION}"
        ) from error
    return DatasetDescription(manifest, quality_report, config, tables)


def _describe_table(name: str, manifest: Manifest, config: DatasetConfig) -> Table:
    """Describe a table; ValueError where the manifest has no file of it, or no checksum."""
    files = tuple(file for file in manifest.files if file.split("/")[0] == f"{name}.parquet")
    if not files or any(file not in manifest.checksums for file in files):
        raise ValueError(f"it does not list {name}.parquet with its checksum")
    n_rows = {f"{split}_dataset": counts.rows for split, counts in manifest.counts.items()}
    n_rows["item_similarity_matrix"] = manifest.similarity.pairs
    n_rows["item_vocabulary"] = manifest.vocabulary.items
    if not config.negative_sampling.hard_negatives_per_positive:
        n_rows[HARD_CANDIDATES] = 0
    shape = config.output.shape
    columns = get_columns(name, config.output.extra_columns, shape)
    return Table(name, get_file(name, shape).row, columns, files, n_rows.get(name))
