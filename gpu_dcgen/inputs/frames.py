"""Write tables in memory as Parquet, and digest their content (D1).

A table is anything with Arrow's PyCapsule interface for streams: a data frame of pandas, polars or
cuDF, a DuckDB relation, a table of pyarrow. No such library is needed here.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..config import InputsConfig
from ..contract.manifest import IN_MEMORY
from ..contract.schema import INPUT_COLUMNS, InputTable
from ..errors import ConfigError, InputError, Problems
from ..monitoring.timing import BuildTimer
from .origins import InputTables, Origin
from .sources import list_roles

_GROUP_ROWS = 1 << 20  # rows converted at a time, whatever a table's chunks hold
_DICTIONARY_BYTES = 1 << 29  # of a column in a row group: all its distinct texts
_TEXT = pa.dictionary(pa.int32(), pa.string())
_SORTS: tuple[tuple[str, Any, pa.DataType], ...] = (  # of values that are digested alike
    ("integer", pa.types.is_integer, pa.int64()),
    ("float", pa.types.is_floating, pa.float64()),
    ("bool", pa.types.is_boolean, pa.int64()),
)

_REFUSED = (pa.types.is_nested, pa.types.is_duration, pa.types.is_interval)  # by any role


def write_frames(
    frames: Mapping[str, Any],
    inputs: InputsConfig,
    workplace: Path,
    timer: BuildTimer | None = None,
) -> InputTables:
    """Write the columns to read of tables in memory into Parquet files below `workplace`.

    `frames` are the tables by name. All other columns are written without values, so that their
    names are known. Memory: that of 1,048,576 rows, besides the tables. ConfigError for a name that
    is no table's; InputError for what is no table, or has values that cannot be read.
    """
    tables = _check_names(frames, inputs)
    shutil.rmtree(workplace, ignore_errors=True)
    workplace.mkdir(parents=True)
    problems, origins = Problems(), dict[Path, Origin]()
    with nullcontext() if timer is None else timer.stage("read tables"):
        for table in tables:
            with problems.collect():
                origins[workplace / table] = _write_frame(
                    table, frames[table], inputs, workplace / table
                )
    problems.raise_all("tables")
    return InputTables(workplace, workplace, "tables", origins)


def _check_names(frames: Mapping[str, Any], inputs: InputsConfig) -> list[InputTable]:
    """Return the tables to read. ConfigError for unknown names, and for names of files."""
    if unknown := sorted(set(map(str, frames)) - set(INPUT_COLUMNS)):
        raise ConfigError(
            f"tables: found {unknown[0]!r}; expected some of {', '.join(INPUT_COLUMNS)}.\n"
            "Name each table by what it holds."
        )
    if "transactions" not in frames:
        raise ConfigError(
            f"tables: found {', '.join(frames) or 'none'}; expected transactions among them.\n"
            "Add the table of transactions."
        )
    if inputs.files:
        raise ConfigError(
            "inputs.files: names files in a folder, and the tables are in memory.\nLeave it out."
        )
    return [
        table for table in INPUT_COLUMNS if table in frames and (inputs.views or table != "views")
    ]


def _write_frame(table: InputTable, frame: Any, inputs: InputsConfig, target: Path) -> Origin:
    """Write one table and digest it."""
    reader = _open_stream(table, frame)
    wanted = [name for name in reader.schema.names if name in list_roles(table, inputs)]
    if len(set(wanted)) < len(wanted):
        wanted = []  # a column that is there twice is refused by its name
    types = {name: _choose_type(reader.schema.field(name).type) for name in wanted}
    for name, type_ in types.items():
        if any(is_type(type_) for is_type in _REFUSED):
            raise InputError(
                f"{table}: column {name!r} is {type_!s:.80}; expected text, numbers or times.\n"
                "Convert the column."
            )
    names = reader.schema.names
    schema = pa.schema([(name, types.get(name, pa.null())) for name in names])
    digest = _ContentDigest(types)
    try:
        with pq.ParquetWriter(
            target,
            schema,
            compression="snappy",
            dictionary_pagesize_limit=_DICTIONARY_BYTES,
            write_statistics=False,
            store_schema=False,
        ) as writer:
            for batch in reader:
                for start in range(0, batch.num_rows, _GROUP_ROWS):
                    rows = batch.slice(start, _GROUP_ROWS)
                    columns = {name: _convert(rows[name], types[name]) for name in wanted}
                    digest.add(rows.num_rows, columns)
                    nulls = pa.nulls(rows.num_rows)
                    arrays = [columns.get(name, nulls) for name in names]
                    writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    except MemoryError:
        raise
    except (pa.ArrowException, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{table}: the table in memory cannot be read ({reason:.200}).\n"
            "Convert its columns to text, numbers and timestamps."
        ) from error
    return Origin(f"{IN_MEMORY}{table}", digest.n_bytes, digest.hex())


def _open_stream(table: InputTable, frame: Any) -> pa.RecordBatchReader:
    """Open a table as a stream of record batches. InputError where it is none."""
    if not hasattr(frame, "__arrow_c_stream__"):
        kind = type(frame)
        raise InputError(
            f"{table}: found {kind.__module__}.{kind.__qualname__}; expected a table with "
            "__arrow_c_stream__: of pandas 2.2, polars 1.3 or later, DuckDB, cuDF or pyarrow.\n"
            "Convert it, for example with pyarrow.table(...)."
        )
    try:
        return pa.RecordBatchReader.from_stream(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{table}: the table in memory cannot be read ({reason:.200}).\n"
            "Give each column a name of its own and values of one type: text, numbers or times."
        ) from error


def _choose_type(type_: pa.DataType) -> pa.DataType:
    """Return the type that a column is written with: all text as dictionaries."""
    value_type = type_.value_type if pa.types.is_dictionary(type_) else type_
    is_text = (
        pa.types.is_string(value_type)
        or pa.types.is_large_string(value_type)
        or pa.types.is_string_view(value_type)
    )
    return _TEXT if is_text else value_type


def _convert(column: pa.Array, type_: pa.DataType) -> pa.Array:
    """Return a column in the type to write."""
    if pa.types.is_dictionary(column.type):
        values = column.dictionary.cast(pa.string()) if type_ == _TEXT else column.dictionary
        # Encoded again: a frame's dictionary may list far more than these rows have.
        column = pa.DictionaryArray.from_arrays(column.indices, values).dictionary_decode()
    return column.cast(pa.string()).dictionary_encode() if type_ == _TEXT else column


class _ContentDigest:
    """SHA-256 of the values of some columns, whatever chunks they come in.

    A column's is that of the bytes of its values, and of where it is null; all text, all integers,
    and all floats are digested in one width. The digest of the table is that of its columns' by
    name, with their sort and the number of rows.
    """

    def __init__(self, types: Mapping[str, pa.DataType]) -> None:
        self._hashers = {name: (hashlib.sha256(), hashlib.sha256()) for name in sorted(types)}
        self._sorts = {name: _describe_type(types[name]) for name in types}
        self._n_rows = self.n_bytes = 0

    def add(self, n_rows: int, columns: Mapping[str, pa.Array]) -> None:
        """Add rows."""
        self._n_rows += n_rows
        for name, (sizes, values) in self._hashers.items():
            n_valid, data = _to_bytes(columns[name])
            sizes.update(n_valid)
            values.update(data)
            self.n_bytes += len(data)

    def hex(self) -> str:
        """Return the digest of the table as 64 hex digits."""
        whole = hashlib.sha256(str(self._n_rows).encode())
        for name, hashers in self._hashers.items():
            whole.update(f"\0{name}\0{self._sorts[name]}\0".encode())
            for hasher in hashers:
                whole.update(hasher.digest())
        return whole.hexdigest()


def _describe_type(type_: pa.DataType) -> str:
    """Return what values of a type are digested as."""
    if type_ == _TEXT:
        return "text"
    if pa.types.is_timestamp(type_):
        return "local time" if type_.tz is None else "time"
    if pa.types.is_date(type_):
        return "local time"
    return next((name for name, is_type, _ in _SORTS if is_type(type_)), str(type_))


def _to_bytes(column: pa.Array) -> tuple[bytes, bytes]:
    """Return the length of each value, -1 for null, and all values, in bytes of one width."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ns"), safe=False).view(pa.int64())
    wide = next((wide for _, is_type, wide in _SORTS if is_type(column.type)), None)
    column = column.cast(pa.string() if wide is None else wide, safe=False)
    values = column.drop_null()
    values = pa.concat_arrays([values, values[:0]])  # without what lies before and after a slice
    if wide is None:
        lengths = pc.binary_length(column).cast(pa.int64())
        n_bytes = pc.sum(pc.binary_length(values)).as_py() or 0
    else:
        lengths = pc.if_else(column.is_valid(), pa.scalar(8, pa.int64()), None)
        n_bytes = 8 * len(values)
    return _copy(pc.fill_null(lengths, -1), 1, 8 * len(column)), _copy(values, -1, n_bytes)


def _copy(array: pa.Array, number: int, n_bytes: int) -> bytes:
    """Return the first bytes of a buffer of an array that begins at its own first value."""
    data = array.buffers()[number]
    copied: bytes = b"" if data is None else data[:n_bytes].to_pybytes()
    return copied
