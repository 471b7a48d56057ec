"""Find the input tables and their columns: files, partition folders, names, types (D1).

Schemas and footers are read here, no rows.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from ..config import InputsConfig
from ..contract.schema import INPUT_COLUMNS, TABLES, InputColumn, InputRole, InputTable
from ..errors import ConfigError, InputError
from .footers import Footer, FooterError, check_pages, read_footer


class _AcceptedTypes(NamedTuple):
    """The classes of types that a column of some role may have, and the advice about others."""

    type_classes: frozenset[str]
    remedy: str


_ACCEPTED: dict[InputRole, _AcceptedTypes] = {
    "key": _AcceptedTypes(
        frozenset({"text", "integer"}),
        "Write ids as text; an id that has been a float may have lost digits (pandas: dtype=str).",
    ),
    "category": _AcceptedTypes(frozenset({"text", "integer"}), "Write the column as text."),
    "number": _AcceptedTypes(
        frozenset({"integer", "float", "decimal", "text"}), "Write the column as a number."
    ),
    "price": _AcceptedTypes(
        frozenset({"integer", "float", "decimal"}), "Write the column as a number."
    ),
    "time": _AcceptedTypes(
        frozenset({"date", "timestamp", "text"}),
        "Write the column as a date or timestamp; a bare number has no unit.",
    ),
}
_TESTS: dict[str, tuple[Callable[[pa.DataType], bool], ...]] = {
    "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    "integer": (pa.types.is_integer,),
    "float": (pa.types.is_floating,),
    "decimal": (pa.types.is_decimal,),
    "date": (pa.types.is_date,),
    "timestamp": (pa.types.is_timestamp,),
}
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
MAX_ROWS = (1 << 31) - 1  # of a table: rows have int32 numbers
_MAX_NAMES = 40  # column names in an error message


@dataclass(frozen=True)
class Source:
    """An input table: its files, and where each column that it has comes from."""

    table: InputTable
    folder: Path  # the input folder
    path: Path  # the table's file or folder
    files: tuple[Path, ...]  # by path
    footers: tuple[Footer, ...]  # per file
    names: dict[str, str]  # our name -> the table's own name, of columns that hold anything
    # Our name -> text, integer, float, decimal, date or timestamp, of columns in the files.
    type_classes: dict[str, str]
    partitions: dict[str, tuple[str | None, ...]]  # our name -> value per file, of columns in paths
    warnings: tuple[str, ...]

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows per file."""
        return tuple(footer.n_rows for footer in self.footers)

    @property
    def n_rows(self) -> int:
        """Rows of all files."""
        return sum(self.rows)

    @property
    def unpacked_bytes(self) -> int:
        """Unpacked bytes of the columns to read, as footers claim; `check_pages` verifies them."""
        return sum(footer.unpacked_bytes(self.columns.values()) for footer in self.footers)

    @property
    def label(self) -> str:
        """Name of the table's file or folder, for messages."""
        return self.path.name

    @property
    def columns(self) -> dict[str, str]:
        """Our name -> name in the files, of the columns to read."""
        return {name: self.names[name] for name in self.type_classes}

    def check_pages(self) -> None:
        """Compare the pages of the columns to read with the footers.

        InputError where pages hold, or unpack to, something else than their footer claims.
        """
        for file, footer in zip(self.files, self.footers, strict=True):
            try:
                check_pages(file, footer, self.columns.values())
            except (OSError, FooterError) as error:
                raise InputError(explain_unreadable(str(file), error)) from error

    def locate_row(self, position: int) -> str:
        """Return file and row, from 0, of a row of the table, as a message shows them."""
        file = 0
        while position >= self.rows[file]:
            position, file = position - self.rows[file], file + 1
        return (
            f"{self.files[file].relative_to(self.path)} row {position}"
            if len(self.files) > 1
            else f"row {position}"
        )


@dataclass(frozen=True)
class _File:
    """A Parquet file of a table."""

    path: Path
    schema: pa.Schema
    footer: Footer
    partitions: dict[str, str | None]  # `key=value` in the names of its folders

    @property
    def column_names(self) -> list[str]:
        """Columns of the file and of its path."""
        in_path = [name for name in self.partitions if name not in self.schema.names]
        return [*self.schema.names, *in_path]


def find_sources(folder: Path, inputs: InputsConfig) -> dict[str, Source]:
    """Find the tables in `folder`, views where they exist and are configured.

    InputError names what is missing, empty, unreadable, doubled or of the wrong type, and a remedy.
    ConfigError: a mapping of a column that does not exist.
    """
    try:
        sources: dict[str, Source] = {
            table: _open_table(folder, table, _find_table(folder, table), inputs)
            for table in _list_tables(folder, inputs)
        }
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: cannot be read ({error.strerror}).\n"
            "Make it readable, or name another folder."
        ) from error
    for table in TABLES:
        if sources[table].n_rows == 0:
            raise InputError(
                f"{sources[table].label}: the table has no rows.\n"
                "A build needs articles, customers and transactions."
            )
    for source in sources.values():
        if source.n_rows > MAX_ROWS:
            raise InputError(
                f"{source.label}: found {source.n_rows:,} rows; expected at most {MAX_ROWS:,}.\n"
                "Build from fewer customers or a shorter time."
            )
    return sources


def explain_unreadable(where: str, error: Exception | str) -> str:
    """Return the text of an InputError about a file that Parquet readers refuse."""
    reason = " ".join(str(error).split())
    return (
        f"{where}: cannot be read as Parquet ({reason:.200}).\n"
        "Write the file again, or remove it from the folder."
    )


def _list_tables(folder: Path, inputs: InputsConfig) -> tuple[InputTable, ...]:
    if not folder.is_dir():
        raise InputError(
            f"{folder}: the folder does not exist.\n"
            "Name the folder that holds articles, customers and transactions."
        )
    return (*TABLES, "views") if inputs.views and _candidates(folder, "views") else TABLES


def _candidates(folder: Path, table: InputTable) -> list[Path]:
    """Return the file or folder NAME.parquet and the folder NAME/, those that exist."""
    file, plain = folder / f"{table}.parquet", folder / table
    return [path for path in (file, plain) if path.is_dir() or (path == file and path.is_file())]


def _find_table(folder: Path, table: InputTable) -> Path:
    paths = _candidates(folder, table)
    if len(paths) > 1:
        raise InputError(
            f"{folder}: found both {table}.parquet and {table}/; expected one of them.\n"
            "Remove the other."
        )
    if not paths:
        names = sorted(path.name for path in folder.iterdir())
        raise InputError(
            f"{folder}: table {table} is missing; "
            f"found {', '.join(names[:_MAX_NAMES]) or 'nothing'}; expected {table}.parquet "
            f"(a file, or a folder of Parquet files) or a folder {table}/.\n"
            "Convert the table to Parquet under that name."
        )
    return paths[0]


def _open_table(folder: Path, table: InputTable, path: Path, inputs: InputsConfig) -> Source:
    paths = [path] if path.is_file() else sorted(_list_parquet_files(path))
    if not paths:
        raise InputError(f"{path}: the folder has no .parquet files.\nPut the table's files there.")
    files = [_open_file(file, path) for file in paths]
    mapping = inputs.columns.get(table, {})
    names: dict[str, str] = {}
    type_classes: dict[str, str] = {}
    partitions: dict[str, tuple[str | None, ...]] = {}
    warnings: list[str] = []
    for column in _wanted_columns(table, inputs):
        name, own_name = column.name, mapping.get(column.name, column.name)
        if name == "index_name" and "index_group_name" in names:
            continue  # it is read only to derive the group
        _refuse_doubles(path.name, files, own_name)
        n_files = sum(own_name in file.schema.names for file in files)
        if n_files == len(files):
            if type_class := _find_type_class(path.name, files, own_name, column.role):
                names[name], type_classes[name] = own_name, type_class
        elif n_files:
            lacking = next(file.path for file in files if own_name not in file.schema.names)
            raise InputError(
                f"{path.name}: column {own_name!r} is in {n_files} of {len(files)} files, "
                f"not in {lacking.relative_to(path)}.\nWrite the files with one schema."
            )
        elif column.role != "price" and all(own_name in file.partitions for file in files):
            names[name] = own_name
            partitions[name] = tuple(file.partitions[own_name] for file in files)
        elif column.is_required or name in mapping:
            raise InputError(_explain_missing(path.name, table, name, own_name, files))
        else:
            warnings += _warn_of_other_case(path.name, own_name, files[0])
    footers = tuple(file.footer for file in files)
    return Source(
        table,
        folder,
        path,
        tuple(paths),
        footers,
        names,
        type_classes,
        partitions,
        tuple(warnings),
    )


def _wanted_columns(table: InputTable, inputs: InputsConfig) -> list[InputColumn]:
    """Return the columns to read; ConfigError where the configuration maps another."""
    columns = INPUT_COLUMNS[table]
    known = [column.name for column in columns]
    if unknown := sorted(inputs.columns.get(table, {}).keys() - set(known)):
        raise ConfigError(
            f"inputs.columns: found {unknown[0]!r} in {table}; "
            f"expected one of {', '.join(known)}.\nWrite {{{table}: {{OUR_NAME: ITS_NAME}}}}."
        )
    without_price = table == "transactions" and inputs.price == "none"
    return [column for column in columns if not (without_price and column.name == "price")]


def _list_parquet_files(folder: Path) -> list[Path]:
    """List Parquet files below `folder`, without what Spark and editors hide (`_temporary`)."""

    def is_hidden(part: str) -> bool:
        return part.startswith((".", "_")) and "=" not in part

    files = (path for path in folder.rglob("*.parquet") if path.is_file())
    return [file for file in files if not any(map(is_hidden, file.relative_to(folder).parts))]


def _open_file(path: Path, table_path: Path) -> _File:
    try:
        footer = read_footer(path)
        with pq.ParquetFile(path) as parquet:
            schema = parquet.schema_arrow
        str(schema)  # fails where names are not UTF-8
    except (OSError, FooterError, UnicodeDecodeError, pa.ArrowException) as error:
        raise InputError(explain_unreadable(str(path), error)) from error
    folders = path.relative_to(table_path).parts[:-1] if path != table_path else ()
    pairs = (part.partition("=") for part in folders if "=" in part)
    partitions = {
        unquote(key): None if value == _HIVE_NULL else unquote(value) for key, _, value in pairs
    }
    return _File(path, schema, footer, partitions)


def _refuse_doubles(label: str, files: Sequence[_File], own_name: str) -> None:
    for file in files:
        same = [name for name in file.column_names if name.casefold() == own_name.casefold()]
        if (n := same.count(own_name)) > 1:
            raise InputError(
                f"{label}: column {own_name!r} occurs {n} times in {file.path.name}; "
                "expected one.\nRemove the others."
            )
        if len(same) > 1:
            raise InputError(
                f"{label}: columns {' and '.join(map(repr, same))} in {file.path.name} differ in "
                "case only.\nRename or drop all but one."
            )


def _find_type_class(
    label: str, files: Sequence[_File], own_name: str, role: InputRole
) -> str | None:
    """Return the class of a column's types, None where all its values are null.

    InputError where a column of its role cannot have it.
    """
    accepted, remedy = _ACCEPTED[role]
    first_files: dict[str, Path] = {}  # type class -> a file that has it
    for file in files:
        kind = file.schema.field(own_name).type
        type_class = _classify(kind)
        if type_class in accepted:
            first_files.setdefault(type_class, file.path)
        # pandas writes a text column without values as floats.
        elif not (pa.types.is_null(kind) or file.footer.is_null_throughout(own_name)):
            shown = f"a nested type, {kind!s:.80}," if pa.types.is_nested(kind) else str(kind)
            raise InputError(
                f"{label}: column {own_name!r} is {shown} in {file.path.name}; "
                f"expected {' or '.join(sorted(accepted))}.\n{remedy}"
            )
    if role in ("key", "category") and len(first_files) > 1:
        where = ", ".join(f"{name} in {file.name}" for name, file in sorted(first_files.items()))
        raise InputError(
            f"{label}: column {own_name!r} changes its type from file to file: {where}.\n{remedy}"
        )
    return min(first_files) if first_files else None


def _classify(kind: pa.DataType) -> str:
    """Return the class of a type, or the type itself where no role accepts it."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return next((name for name, tests in _TESTS.items() if any(t(kind) for t in tests)), str(kind))


def _explain_missing(
    label: str, table: InputTable, name: str, own_name: str, files: Sequence[_File]
) -> str:
    names = files[0].column_names
    folded = {other.casefold(): other for other in names}
    matches = difflib.get_close_matches(own_name.casefold(), folded, n=3)
    close = [folded[match] for match in matches]
    hint = f" (close: {', '.join(close)})" if close else ""
    mapping = f"{{{table}: {{{name}: {close[0] if close else 'ITS_NAME'}}}}}"
    lines = [
        f"{label}: column {own_name!r} is missing; found {', '.join(names[:_MAX_NAMES])}{hint}.",
        f"If it has another name, map it in the configuration: inputs.columns: {mapping}",
    ]
    if name == "price":
        lines.append("If the log has no prices, build with inputs.price: none.")
    return "\n".join(lines)


def _warn_of_other_case(label: str, own_name: str, file: _File) -> list[str]:
    return [
        f"{label}: column {other!r} is not read, only {own_name!r} would be; "
        "inputs.columns can map it."
        for other in file.column_names
        if other.casefold() == own_name.casefold()
    ]
