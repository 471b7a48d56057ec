"""Write tables in memory as Parquet for the audit, and digest their content (D1)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..config import InputsConfig
from ..contract.manifest import IN_MEMORY, InputFile
from ..contract.schema import INPUT_COLUMNS
from ..errors import InputError

_BATCH_ROWS = 1 << 18  # with their texts in memory at a time
_GIVE_THE_SAME = "Give the tables that the dataset was built from."
_KINDS = {"integer": np.int64, "float": np.float64, "bool": np.int64}


def write_tables(
    tables: Mapping[str, Any], listed: Mapping[str, Any], inputs: InputsConfig, folder: Path
) -> list[InputFile]:
    """Write tables into a folder; return what the manifest must say of them, by name.

    `listed` are the entries that it has, by `memory:` and the table. InputError where the tables
    are not those of the build: others, or of another content.
    """
    names = sorted(tables)
    if names != (built := sorted(name.removeprefix(IN_MEMORY) for name in listed)):
        raise InputError(
            f"tables: found {', '.join(names) or 'none'}; the dataset was built from "
            f"{', '.join(built)}.\n{_GIVE_THE_SAME}"
        )
    files = [_write_table(name, tables[name], inputs, folder) for name in names]
    for file in files:
        entry = listed[file.file]
        if file.to_dict() != entry:
            raise InputError(
                f"{file.table}: found a table of {file.rows:,} rows with the content digest "
                f"{file.sha256[:12]}; the dataset was built from {entry.get('rows'):,} rows with "
                f"{str(entry.get('sha256'))[:12]}.\n{_GIVE_THE_SAME}"
            )
    return files


def _write_table(name: str, table: Any, inputs: InputsConfig, folder: Path) -> InputFile:
    """Write the columns that a build reads; of all others the names alone."""
    if not hasattr(table, "__arrow_c_stream__"):
        raise InputError(
            f"{name}: found {type(table).__name__}; expected a table with __arrow_c_stream__, such "
            f"as a data frame.\n{_GIVE_THE_SAME}"
        )
    reader = pa.RecordBatchReader.from_stream(table)
    read = _list_columns(name, inputs)
    schema = pa.schema(
        [(f.name, _flat_type(f.type) if f.name in read else pa.null()) for f in reader.schema]
    )
    digests = {f.name: _ColumnDigest(f.type) for f in schema if f.name in read}
    n_rows = 0
    with pq.ParquetWriter(folder / f"{name}.parquet", schema, store_schema=False) as writer:
        for batch in reader:
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                rows = batch.slice(start, _BATCH_ROWS)
                n_rows += rows.num_rows
                columns = [
                    _flatten(rows[field.name], field.type)
                    if field.name in read
                    else pa.nulls(rows.num_rows)
                    for field in schema
                ]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
                for field, column in zip(schema, columns, strict=True):
                    if field.name in digests:
                        digests[field.name].add(column)
    whole = hashlib.sha256(f"{n_rows}".encode())
    for column_name in sorted(digests):
        digest = digests[column_name]
        whole.update(f"\0{column_name}\0{digest.kind}\0".encode())
        whole.update(digest.lengths.digest() + digest.values.digest())
    n_bytes = sum(digest.n_bytes for digest in digests.values())
    return InputFile(
        table=name,
        file=f"{IN_MEMORY}{name}",
        bytes=n_bytes,
        rows=n_rows,
        sha256=whole.hexdigest(),
    )


def _list_columns(name: str, inputs: InputsConfig) -> set[str]:
    """Return the names, in the table, of the columns that a build reads by its settings."""
    columns = next(columns for table, columns in INPUT_COLUMNS.items() if table == name)
    mapping = next((names for table, names in inputs.columns.items() if table == name), {})
    left_out = {
        "price": inputs.price == "none",
        "event": not inputs.events,
        "rating": inputs.min_rating is None,
    }
    return {
        mapping.get(column.name, column.name)
        for column in columns
        if not left_out.get(column.name, False)
    }


def _flat_type(type_: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary, and plain strings for all text."""
    type_ = type_.value_type if pa.types.is_dictionary(type_) else type_
    is_text = (
        pa.types.is_string(type_) or pa.types.is_large_string(type_) or type_ == pa.string_view()
    )
    return pa.string() if is_text else type_


def _flatten(column: pa.Array, type_: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        values = column.dictionary.cast(type_)
        column = values.take(column.indices.cast(pa.int64()))
    return column.cast(type_)


class _ColumnDigest:
    """SHA-256 of the lengths of a column's values, -1 for null, and of the values themselves."""

    def __init__(self, type_: pa.DataType) -> None:
        self.kind = _name_kind(type_)
        self.lengths, self.values, self.n_bytes = hashlib.sha256(), hashlib.sha256(), 0

    def add(self, column: pa.Array) -> None:
        """Add the values of some rows."""
        data: bytes
        if self.kind.endswith("time"):
            numbers = column.drop_null().cast(pa.timestamp("ns"), safe=False).cast(pa.int64())
            data = numbers.to_numpy(zero_copy_only=False).tobytes()
        elif self.kind in _KINDS:
            numbers = column.drop_null().to_numpy(zero_copy_only=False)
            data = numbers.astype(_KINDS[self.kind]).tobytes()
        else:
            column = column.cast(pa.string())
            data = "".join(column.drop_null().to_pylist()).encode()
        if column.type == pa.string():
            lengths = pc.fill_null(pc.binary_length(column), -1)
        else:
            lengths = pc.if_else(column.is_valid(), 8, -1)
        self.lengths.update(lengths.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        self.values.update(data)
        self.n_bytes += len(data)


def _name_kind(type_: pa.DataType) -> str:
    """Return what values are digested as: text, numbers of 8 bytes, times in nanoseconds."""
    if pa.types.is_date(type_) or pa.types.is_timestamp(type_):
        has_zone = pa.types.is_timestamp(type_) and type_.tz is not None
        return "time" if has_zone else "local time"
    if type_ == pa.string():
        return "text"
    if pa.types.is_boolean(type_):
        return "bool"
    if pa.types.is_integer(type_):
        return "integer"
    return "float" if pa.types.is_floating(type_) else str(type_)
