"""Read the columns and first rows of whatever tables a folder holds."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from ..config import CsvConfig
from ..contract.table_names import is_csv_name, is_hidden
from ..errors import InputError
from ..inputs.csv_files import read_header, read_records, require_several_columns
from ..inputs.missing_tables import explain_format
from ..inputs.text_streams import open_text

_N_ROWS = 5000  # that are looked at
_CSV_BYTES = 4 << 20  # of a file's text that they are read from

_COMMA_NUMBER = re.compile(r"\s*-?\d+(,\d+)?\s*", re.ASCII)

Kind = Literal["text", "integer", "number", "time", "other"]


@dataclass(frozen=True)
class ColumnSample:
    """A column: its kind, and its first values as text."""

    name: str
    kind: Kind  # of CSV, by what all values look like
    values: tuple[str, ...]  # without nulls; numbers with a point before decimals
    has_commas: bool = False  # before the decimals, as they are written

    @property
    def n_distinct(self) -> int:
        """Number of distinct values."""
        return len(set(self.values))


@dataclass(frozen=True)
class TableSample:
    """A table: the name of its file or folder, and its columns."""

    name: str
    columns: dict[str, ColumnSample]  # by name
    is_csv: bool = False


@dataclass(frozen=True)
class FolderSample:
    """What a folder holds."""

    tables: tuple[TableSample, ...]  # by name
    unreadable: dict[str, str]  # name -> why


def read_samples(folder: Path) -> FolderSample:
    """Look at each file and folder of tables in `folder`; InputError where it is no folder."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: the folder does not exist.\nName the folder that holds the log."
        )
    tables: list[TableSample] = []
    unreadable: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if is_hidden(path.name):
            continue
        try:
            if (table := _read_table(path)) is not None:
                tables.append(table)
            else:
                unreadable[path.name] = explain_format(path.name) or "neither CSV nor Parquet"
        except (InputError, OSError, UnicodeError, pa.ArrowException) as error:
            reason = " ".join(str(error).splitlines())
            unreadable[path.name] = reason.removeprefix(f"{path}: ")
    return FolderSample(tuple(tables), unreadable)


def _read_table(path: Path) -> TableSample | None:
    """Return a sample of a table; None for what is neither CSV nor Parquet."""
    file = path
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.is_file() and not is_hidden(f.name))
        if not files:
            return None
        file = files[0]
    if is_csv_name(file.name):
        return TableSample(path.name, dict(_read_csv(file)), is_csv=True)
    with file.open("rb") as stream:
        if stream.read(4) != b"PAR1":
            return None
    return TableSample(path.name, dict(_read_parquet(file)))


def _read_csv(file: Path) -> Iterator[tuple[str, ColumnSample]]:
    config = CsvConfig()
    header = read_header(file, config)
    require_several_columns(file, header)
    with open_text(file) as stream:
        text = stream.read(_CSV_BYTES).decode(config.encoding, errors="replace")
    # The last line may be cut off.
    lines = io.StringIO(text.removeprefix("\ufeff").rpartition("\n")[0], newline="")
    records = [r for r in read_records(lines, header.delimiter, config) if r]
    rows = list(itertools.islice(records, 1, _N_ROWS))
    for place, name in enumerate(header.names):
        values = tuple(row[place] for row in rows if place < len(row) and row[place])
        has_commas = "," in "".join(values) and all(map(_COMMA_NUMBER.fullmatch, values))
        if has_commas:
            values = tuple(value.replace(",", ".") for value in values)
        yield name, ColumnSample(name, _find_kind(values), values, has_commas)


def _find_kind(values: tuple[str, ...]) -> Kind:
    """Return what all values of text look like."""
    if values and all(value.lstrip("-").isdecimal() for value in values):
        return "integer"
    try:
        return "number" if [float(value) for value in values] else "text"
    except ValueError:
        return "text"


def _read_parquet(file: Path) -> Iterator[tuple[str, ColumnSample]]:
    with pq.ParquetFile(file) as parquet:
        batch = next(parquet.iter_batches(_N_ROWS), None)
        schema = parquet.schema_arrow
    for place, field in enumerate(schema):
        values: tuple[str, ...] = ()
        if batch is not None and not pa.types.is_nested(field.type):
            column = batch.column(place).drop_null()
            values = tuple(map(str, column.to_pylist()))
        yield field.name, ColumnSample(field.name, _classify(field.type), values)


def _classify(kind: pa.DataType) -> Kind:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    return "time" if pa.types.is_date(kind) or pa.types.is_timestamp(kind) else "other"
