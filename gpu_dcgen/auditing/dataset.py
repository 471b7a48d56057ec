"""The written dataset: its files, their schemas and digests, and its samples streamed as whole groups."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..config import DatasetConfig
from ..contract.schema import CARDS, FILES, make_arrow_schema
from ..errors import InputError
from .checks import Findings
from .hashes import ContentDigest
from .log import SPLITS
from .tables import sha256

BATCH_GROUPS = 2048  # looked at a time: bounds the memory
SIDE_ROWS = 1 << 18
SIDE_FILES = tuple(name for name in FILES if not name.endswith("_dataset"))
JSON_FILES = ("vocabulary.json", "category_mappings.json")
NOT_AUDITED = ("certificate.json", *CARDS)  # written after the build, about it
OWN_FILES = ("manifest.json", *NOT_AUDITED)  # of which the manifest's list cannot speak
SHAPES = ("labeled_pair", "n_tuple")
READ_OF_THE_MANIFEST = (
    "seed", "contract", "generator", "generated_at", "inputs", "split", "ledger", "vocabulary", "counts", "prices", "similarity",
    "negatives", "files", "digests", "content_digest",
)  # fmt: skip


def read_manifest(dataset: Path) -> dict[str, Any]:
    """InputError where the folder holds no dataset, or one of a shape that the audit does not read."""
    path = dataset / "manifest.json"
    if not path.is_file():
        remedy = "Name a folder that 'gpu-dcgen build' published."
        raise InputError(f"{dataset}: is no dataset (it holds no manifest.json).\n{remedy}")
    try:
        manifest = json.loads(path.read_text("utf-8"))
        shape = manifest["config"]["output"]["shape"]
        missing = [name for name in READ_OF_THE_MANIFEST if name not in manifest]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is no manifest of gpu-dcgen ({type(error).__name__}: {error})."
        ) from error
    if missing:
        raise InputError(
            f"{path}: is no manifest of gpu-dcgen (it has no {missing[0]}).\nRestore it, or build again."
        )
    if shape not in SHAPES:
        raise InputError(
            f"{dataset}: has the shape {shape}; the audit reads {' and '.join(SHAPES)}.\n"
            "Build the same settings with output.shape: labeled_pair and audit that: the groups are the same."
        )
    return manifest


def read_config(dataset: Path, manifest: dict[str, Any]) -> DatasetConfig:
    """The settings of the build. InputError where this version does not know them."""
    try:
        return DatasetConfig.model_validate(manifest["config"])
    except ValueError as error:
        remedy = "Audit a dataset with the version that built it."
        raise InputError(
            f"{dataset / 'manifest.json'}: the settings cannot be read ({error}).\n{remedy}"
        ) from error


def parts_of(dataset: Path, name: str) -> list[Path]:
    """The Parquet files of a table, in order; none where it is missing."""
    path = dataset / f"{name}.parquet"
    if path.is_dir():
        return sorted(path.glob("*.parquet"))
    return [path] if path.is_file() else []


def check_files(
    dataset: Path, manifest: dict[str, Any], findings: Findings
) -> list[dict[str, Any]]:
    """Every file of the manifest is there with its size, and no other; their SHA-256 for the certificate."""
    there = {
        path.relative_to(dataset).as_posix(): path
        for path in sorted(dataset.rglob("*"))
        if path.is_file()
    }
    listed = manifest["files"]
    for name in sorted((listed.keys() | there.keys()) - set(OWN_FILES)):
        found = there[name].stat().st_size if name in there else None
        findings.equal("files", name, "bytes", found, listed.get(name))
    for name in [*(f"{name}.parquet" for name in FILES), *JSON_FILES]:
        if not (dataset / name).exists():
            findings.fault("files", name, None, "missing", "a file of the contract")
    outputs = [path for name, path in there.items() if name not in NOT_AUDITED]
    return [
        {
            "file": path.relative_to(dataset).as_posix(),
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
        }
        for path in outputs
    ]


def check_schemas(dataset: Path, config: Any, findings: Findings) -> set[str]:
    """Hold each Parquet file's schema against the contract; the names of tables whose columns can be read as such."""
    good = set()
    for name in FILES:
        n_negatives = config.negatives_per_positive
        expected = make_arrow_schema(name, config.output.extra_columns, config.output.shape, n_negatives)
        parts = parts_of(dataset, name)
        faults = [
            fault for part in parts for fault in _schema_faults(part, dataset, expected, findings)
        ]
        for file, found, wanted in faults:
            findings.fault("schema", file, None, found, wanted)
        if parts and not faults:
            good.add(name)
    return good


def _schema_faults(
    part: Path, dataset: Path, expected: pa.Schema, findings: Findings
) -> Iterator[tuple[str, str, str]]:
    file = part.relative_to(dataset).as_posix()
    try:
        found = pq.read_schema(part)
    except (OSError, pa.ArrowException) as error:
        findings.count("schema", 1)
        yield file, f"unreadable: {error}", "a Parquet file"
        return
    findings.count("schema", len(expected))
    if found.names != expected.names:
        yield file, f"columns {found.names}", f"columns {expected.names}"
        return
    for field in expected:
        if found.field(field.name).type != field.type:
            yield (
                file,
                f"{field.name}: {found.field(field.name).type}",
                f"{field.name}: {field.type}",
            )
    if (found.metadata or {}).get(b"roles") != expected.metadata[b"roles"]:
        yield file, "other column roles in the metadata", "the roles of the contract's columns"


def check_nulls(
    file: str,
    first_row: int,
    table: pa.Table | pa.RecordBatch,
    schema: pa.Schema,
    findings: Findings,
) -> bool:
    """Whether no null is where the contract's column has none; without that there is nothing to compare."""
    good = True
    for field in schema:
        if not field.nullable and table[field.name].null_count:
            bad = table[field.name].is_null().to_numpy(zero_copy_only=False)
            findings.bad_rows(
                "schema",
                file,
                first_row,
                bad,
                lambda row, name=field.name: (f"{name}: null", f"{name}: a value"),
            )
            good = False
    return good


def check_digests(
    digests: dict[str, dict[str, str]], manifest: dict[str, Any], findings: Findings
) -> None:
    """Digests of all columns against the manifest's, and the manifest's total against its parts."""
    listed = manifest["digests"]
    for name in sorted(digests.keys() | listed.keys()):
        found, expected = digests.get(name, {}), listed.get(name, {})
        for column in sorted(found.keys() | expected.keys()):
            findings.equal("digests", name, column, found.get(column), expected.get(column))
    total = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    findings.equal("digests", "manifest.json", "content_digest", manifest["content_digest"], total)


@dataclass(frozen=True)
class Batch:
    """Whole groups of one file, in order."""

    split: int
    file: str
    first_row: int  # in the file
    first_group: int  # in the split
    n_groups: int
    table: pa.RecordBatch


def stream_groups(
    dataset: Path, split: int, rows_per_group: int, digest: ContentDigest, findings: Findings
) -> Iterator[Batch]:
    """A split's groups, a row group of the file in memory at a time.

    A part that does not hold whole groups is a fault; its last rows are left out.
    """
    first_group = 0
    for part in parts_of(dataset, f"{SPLITS[split]}_dataset"):
        file, first_row = part.relative_to(dataset).as_posix(), 0
        left: list[pa.RecordBatch] = []
        with pq.ParquetFile(part, read_dictionary=["user_id", "item_id"]) as parquet:
            for number in range(parquet.num_row_groups):
                for read in _batches(parquet.read_row_group(number), BATCH_GROUPS * rows_per_group):
                    digest.add(read, rows_per_group)
                    (batch,) = _batches(pa.Table.from_batches([*left, read]))
                    n = batch.num_rows // rows_per_group
                    if n:
                        yield Batch(
                            split,
                            file,
                            first_row,
                            first_group,
                            n,
                            batch.slice(0, n * rows_per_group),
                        )
                    left = (
                        [batch.slice(n * rows_per_group)] if batch.num_rows % rows_per_group else []
                    )
                    first_row, first_group = first_row + n * rows_per_group, first_group + n
        if left:
            findings.fault(
                "groups",
                file,
                first_row,
                f"{left[0].num_rows} rows",
                f"whole groups of {rows_per_group} rows",
            )


def _batches(table: pa.Table, rows: int | None = None) -> list[pa.RecordBatch]:
    """A table's rows as batches in which every column is one array with one dictionary."""
    return table.unify_dictionaries().combine_chunks().to_batches(max_chunksize=rows)


def read_side(dataset: Path, name: str) -> tuple[pa.Table, dict[str, str]]:
    """One of the other Parquet files, whole, and the digests of its columns."""
    (path,) = parts_of(dataset, name)
    table = pq.read_table(path)
    digest = ContentDigest()
    for batch in _batches(table, SIDE_ROWS) if table.num_rows else [table]:
        digest.add(batch)
    return table, digest.hex()
