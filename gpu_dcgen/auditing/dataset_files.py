"""Read a published dataset: its files, their schemas and digests, and groups of samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ..config import DatasetConfig
from ..contract.folds import suggest_fold
from ..contract.schema import CARDS, SPLITS, list_tables, make_arrow_schema
from ..errors import InputError
from .findings import Findings
from .hashes import ColumnDigests
from .table_reader import hash_file

BATCH_GROUPS = 2048  # checked at a time: bounds the memory
SIDE_TABLE_ROWS = 1 << 18
JSON_FILES = ("vocabulary.json", "category_mappings.json")
NOT_AUDITED = ("certificate.json", *CARDS)  # written after the build, about the dataset
NOT_LISTED = ("manifest.json", *NOT_AUDITED)  # in the manifest's own list of files
SHAPES = ("labeled_pair", "n_tuple")
MANIFEST_KEYS = (
    "seed", "contract", "generator", "generated_at", "inputs", "split", "ledger", "vocabulary",
    "counts", "prices", "similarity", "negatives", "files", "digests", "content_digest",
)  # fmt: skip


@dataclass(frozen=True)
class WrittenDataset:
    """A dataset's folder, its manifest, and the configuration that the manifest records.

    The manifest stays as it was read: an entry that is missing or of another type is a finding,
    which a typed model would refuse.
    """

    folder: Path
    manifest: dict[str, Any]
    config: DatasetConfig

    @property
    def tables(self) -> list[str]:
        """The names of the Parquet files that the configuration asks for, without suffix."""
        return list_tables(hard_candidates=self.config.output.hard_candidates)

    def read_entry(self, path: str) -> Any:
        """Return an entry of the manifest by its dotted path, None where it is missing."""
        value: Any = self.manifest
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def read_object(self, path: str) -> dict[str, Any]:
        """Return an object of the manifest by its dotted path, {} where it is missing."""
        value = self.read_entry(path)
        return value if isinstance(value, dict) else {}

    def list_inputs(self) -> list[str]:
        """Name the input tables that the dataset was built from."""
        return list(self.read_object("inputs.rows"))

    def parts_of(self, name: str) -> list[Path]:
        """List the Parquet files of a table, in order; none where it is missing."""
        path = self.folder / f"{name}.parquet"
        if path.is_dir():
            return sorted(path.glob("*.parquet"))
        return [path] if path.is_file() else []

    def relative(self, path: Path) -> str:
        """Return the name of a file within the dataset."""
        return path.relative_to(self.folder).as_posix()

    def schema_of(self, name: str) -> pa.Schema:
        """Return the contract's schema of a table."""
        output = self.config.output
        n_negatives = self.config.negatives_per_positive
        return make_arrow_schema(name, output.extra_columns, output.shape, n_negatives)


def open_dataset(folder: Path, command: str | None = None) -> WrittenDataset:
    """Open a dataset. InputError where there is none, or one that the audit cannot read.

    `command` is what the user may run on a fold instead, without its name.
    """
    manifest = _read_manifest(folder, command)
    try:
        config = DatasetConfig.model_validate(manifest["config"])
    except ValueError as error:
        raise InputError(
            f"{folder / 'manifest.json'}: the settings cannot be read ({error}).\n"
            "Audit a dataset with the version that built it."
        ) from error
    return WrittenDataset(folder, manifest, config)


def _read_manifest(folder: Path, command: str | None) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: is no dataset (it holds no manifest.json).\n"
            + suggest_fold(folder, "Name a folder that 'gpu-dcgen build' published.", command)
        )
    try:
        manifest = json.loads(path.read_text("utf-8"))
        shape = manifest["config"]["output"]["shape"]
        missing = [name for name in MANIFEST_KEYS if name not in manifest]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is no manifest of gpu-dcgen ({type(error).__name__}: {error}).\n"
            "Restore it, or build again."
        ) from error
    if missing:
        raise InputError(
            f"{path}: is no manifest of gpu-dcgen (it has no {missing[0]}).\n"
            "Restore it, or build again."
        )
    if shape not in SHAPES:
        raise InputError(
            f"{folder}: has the shape {shape}; the audit reads {' and '.join(SHAPES)}.\n"
            "Build with the same settings and output.shape: labeled_pair, and audit that: "
            "its groups are the same."
        )
    return manifest


def list_files(folder: Path) -> dict[str, Path]:
    """List all files of a folder by their names within it."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


def check_files(dataset: WrittenDataset, findings: Findings) -> list[dict[str, Any]]:
    """Check names and sizes of all files against the manifest; return their SHA-256."""
    files = list_files(dataset.folder)
    listed = dataset.read_object("files")
    for name in sorted((listed.keys() | files.keys()) - set(NOT_LISTED)):
        size = files[name].stat().st_size if name in files else None
        findings.check_equal("files", name, "bytes", size, listed.get(name))
    for name in [*(f"{name}.parquet" for name in dataset.tables), *JSON_FILES]:
        if not (dataset.folder / name).exists():
            findings.add_fault("files", name, None, "missing", "a file of the contract")
    return [
        {"file": name, "bytes": path.stat().st_size, "sha256": hash_file(path)}
        for name, path in files.items()
        if name not in NOT_AUDITED
    ]


def check_schemas(dataset: WrittenDataset, findings: Findings) -> set[str]:
    """Check each Parquet file's schema; return the tables that have the contract's columns."""
    readable = set()
    for name in dataset.tables:
        parts, schema = dataset.parts_of(name), dataset.schema_of(name)
        faults = [
            (dataset.relative(part), *fault)
            for part in parts
            for fault in _find_schema_faults(part, schema, findings)
        ]
        for file, actual, expected in faults:
            findings.add_fault("schema", file, None, actual, expected)
        if parts and not faults:
            readable.add(name)
    return readable


def _find_schema_faults(
    part: Path, expected: pa.Schema, findings: Findings
) -> Iterator[tuple[str, str]]:
    """Yield what a file has and what it must have."""
    try:
        schema = pq.read_schema(part)
    except (OSError, pa.ArrowException) as error:
        findings.count("schema", 1)
        yield f"unreadable: {error}", "a Parquet file"
        return
    findings.count("schema", len(expected))
    if schema.names != expected.names:
        yield f"columns {schema.names}", f"columns {expected.names}"
        return
    for field in expected:
        if schema.field(field.name).type != field.type:
            yield (
                f"{field.name}: {schema.field(field.name).type}",
                f"{field.name}: {field.type}",
            )
    if (schema.metadata or {}).get(b"roles") != expected.metadata[b"roles"]:
        yield "other column roles in the metadata", "the roles of the contract's columns"


def check_nulls(
    file: str,
    first_row: int,
    table: pa.Table | pa.RecordBatch,
    schema: pa.Schema,
    findings: Findings,
) -> bool:
    """Whether no value is null that must not be; a table with such nulls cannot be compared."""
    bad_columns = [f.name for f in schema if not f.nullable and table[f.name].null_count]
    for name in bad_columns:
        is_null = table[name].is_null().to_numpy(zero_copy_only=False)
        show = partial(_show_null, name)
        findings.add_bad_rows("schema", file, first_row, is_null, show)
    return not bad_columns


def _show_null(name: str, row: int) -> tuple[str, str]:
    return f"{name}: null", f"{name}: a value"


def check_digests(
    digests: dict[str, dict[str, str]],
    dataset: WrittenDataset,
    findings: Findings,
    *,
    is_whole: bool,
) -> None:
    """Check the digests of all columns, and the manifest's digest of all digests.

    Where not all files were read, those of the tables that were.
    """
    listed = set(dataset.read_object("digests"))
    if not is_whole:
        listed &= digests.keys()
    for name in sorted(digests.keys() | listed):
        actual, expected = digests.get(name, {}), dataset.read_object(f"digests.{name}")
        for column in sorted(actual.keys() | expected.keys()):
            findings.check_equal("digests", name, column, actual.get(column), expected.get(column))
    if not is_whole:
        return
    listed_total = dataset.read_entry("content_digest")
    total = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    findings.check_equal("digests", "manifest.json", "content_digest", listed_total, total)


class GroupBatch(NamedTuple):
    """Whole groups of one file, in order."""

    file: str
    first_row: int  # in the file
    first_group: int  # in the split
    n_groups: int
    table: pa.RecordBatch


class PartGroups(NamedTuple):
    """One file of a split, and its groups by its footer."""

    path: Path
    groups: range  # numbers within the split


def list_parts(dataset: WrittenDataset, split: int) -> list[PartGroups]:
    """List the files of a split with the groups of each."""
    parts, first = [], 0
    for path in dataset.parts_of(f"{SPLITS[split]}_dataset"):
        n = pq.read_metadata(path).num_rows // dataset.config.rows_per_positive
        parts.append(PartGroups(path, range(first, first + n)))
        first += n
    return parts


def stream_groups(
    dataset: WrittenDataset, parts: list[PartGroups], digests: ColumnDigests, findings: Findings
) -> Iterator[GroupBatch]:
    """Yield the groups of files with one row group in memory; digest all their rows.

    A part that does not hold whole groups is a fault; its last rows are left out.
    """
    rows_per_group = dataset.config.rows_per_positive
    for part, groups in parts:
        file, first_row, first_group = dataset.relative(part), 0, groups.start
        incomplete: list[pa.RecordBatch] = []  # rows of a group that the next rows complete
        for rows in _stream_rows(part, BATCH_GROUPS * rows_per_group, ["user_id", "item_id"]):
            digests.add(rows, rows_per_group)
            (batch,) = _to_batches(pa.Table.from_batches([*incomplete, rows]))
            n = batch.num_rows // rows_per_group
            complete = batch.slice(0, n * rows_per_group)
            if n:
                yield GroupBatch(file, first_row, first_group, n, complete)
            incomplete = (
                [batch.slice(n * rows_per_group)] if batch.num_rows % rows_per_group else []
            )
            first_row, first_group = first_row + n * rows_per_group, first_group + n
        if incomplete:
            findings.add_fault(
                "groups",
                file,
                first_row,
                f"{incomplete[0].num_rows} rows",
                f"whole groups of {rows_per_group} rows",
            )


def _stream_rows(part: Path, max_rows: int, dictionaries: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield a file's rows, at most `max_rows` of one row group at a time.

    Texts named in `dictionaries` become dictionary arrays.
    """
    with pq.ParquetFile(part, read_dictionary=dictionaries) as parquet:
        for number in range(parquet.num_row_groups):
            yield from _to_batches(parquet.read_row_group(number), max_rows)


def _to_batches(table: pa.Table, max_rows: int | None = None) -> list[pa.RecordBatch]:
    """Return a table as batches in which every column is one array with one dictionary."""
    return table.unify_dictionaries().combine_chunks().to_batches(max_chunksize=max_rows)


def read_side_table(dataset: WrittenDataset, name: str) -> tuple[pa.Table, dict[str, str]]:
    """Read a small file beside the samples, whole, and digest its columns."""
    (path,), digests = dataset.parts_of(name), ColumnDigests()
    batches = stream_side_table(dataset, name, [], digests)
    return pa.Table.from_batches(batches, pq.read_schema(path)), digests.to_hex()


def stream_side_table(
    dataset: WrittenDataset, name: str, dictionaries: list[str], digests: ColumnDigests | None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file beside the samples, and digest its columns if asked to.

    Texts named in `dictionaries` become dictionary arrays.
    """
    (path,) = dataset.parts_of(name)
    if digests is not None:
        digests.add(pq.read_schema(path).empty_table())
    for batch in _stream_rows(path, SIDE_TABLE_ROWS, dictionaries):
        if digests is not None:
            digests.add(batch)
        yield batch
