"""Find tables and columns by schemas and footers: files, folders, names, types (D1)."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from ..config import InputsConfig
from ..contract.schema import INPUT_COLUMNS, TABLES, InputColumn, InputRole, InputTable
from ..errors import ConfigError, InputError, Problems
from .column_types import find_type_class
from .footers import Footer, FooterError, check_pages, read_footer
from .missing_columns import (
    MissingColumns,
    explain_missing,
    find_other_spelling,
    find_price_columns,
    warn_of_absent,
    warn_of_unused,
)
from .missing_tables import explain_missing_table, warn_of_missing_tables
from .origins import InputTables, Origin, as_tables
from .table_files import find_candidates, list_table_files

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
MAX_ENTITIES = (1 << 31) - 1  # articles or customers: they have int32 codes; logs have any length
_LOGS = ("transactions", "views")
_COPIES = 3  # of a row group's column: unpacked, converted, and the next one that is read beside it
_MAX_PROBLEMS = 5  # files of a table that cannot be read, each with its reason


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
    origins: tuple[Origin | None, ...]  # per file: what it was written from, if it was

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows per file."""
        return tuple(footer.n_rows for footer in self.footers)

    @property
    def n_rows(self) -> int:
        """Rows of all files."""
        return sum(self.rows)

    @property
    def held_bytes(self) -> int:
        """Bytes that reading holds, as footers claim; `check_pages` verifies them.

        Two row groups of a column, and all texts of a table but a log, where rows share them.
        """
        names = self.columns.values()
        n_bytes = _COPIES * max((footer.largest_chunk(names) for footer in self.footers), default=0)
        is_log = self.table in _LOGS
        return n_bytes + (0 if is_log else sum(f.unpacked_bytes(names) for f in self.footers))

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
        """Return file and row, from 0, of a row of the table, as a message shows them.

        Of a CSV file it is the line, from 1, where that is known.
        """
        file = 0
        while position >= self.rows[file]:
            position, file = position - self.rows[file], file + 1
        origin = self.origins[file]
        row = (
            f"row {position}"
            if origin is None or origin.first_line is None
            else f"line {origin.first_line + position}"
        )
        return f"{self.files[file].relative_to(self.path)} {row}" if len(self.files) > 1 else row


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


def find_sources(
    tables: InputTables | Path, inputs: InputsConfig, collected: Problems | None = None
) -> dict[InputTable, Source]:
    """Find the tables in a folder of Parquet files: transactions, and the others that exist.

    InputError names all that is missing, empty, unreadable, doubled or of the wrong type, and
    remedies. ConfigError: a mapping of a column that does not exist. With `collected`, problems are
    added to it instead, and the other tables returned.
    """
    problems, missing = collected or Problems(), list[MissingColumns]()
    sources: dict[InputTable, Source] = {}
    tables = as_tables(tables)
    folder = tables.given
    with to_input_error(folder):
        names = _list_tables(tables.folder, inputs)
    for table in names:
        if table in tables.unreadable:
            continue
        with problems.collect(), to_input_error(folder):
            opener = _Opener(table, _find_table(table, tables, inputs), tables, inputs)
            problems.errors += opener.problems.errors
            if opener.missing is not None:
                missing.append(opener.missing)
            elif not opener.problems.errors:
                source = opener.make_source()
                _require_rows(source)
                sources[table] = source
    if missing:
        problems.errors.append(InputError(explain_missing(missing, inputs)))
    if collected is None:
        problems.raise_all(tables.label)
    if (log := sources.get("transactions")) is None:
        return sources
    warnings = (*log.warnings, *warn_of_missing_tables(folder, sources.keys(), inputs))
    sources["transactions"] = replace(log, warnings=warnings)
    return sources


@contextmanager
def to_input_error(folder: Path) -> Iterator[None]:
    """Raise an OSError as InputError, unless the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"{error.filename or folder}: cannot be read ({error.strerror}).\n"
            "Make it readable, or name another folder."
        ) from error


def _require_rows(source: Source) -> None:
    """InputError where a table has no rows, or too many."""
    if source.n_rows == 0 and source.table != "views":
        raise InputError(
            f"{source.label}: the table has no rows.\n"
            + (
                "A build needs purchases."
                if source.table == "transactions"
                else f"Remove it: without the table, {source.table} are taken from transactions."
            )
        )
    if source.table not in _LOGS and source.n_rows > MAX_ENTITIES:
        raise InputError(
            f"{source.label}: found {source.n_rows:,} rows; expected at most {MAX_ENTITIES:,}.\n"
            "Build from fewer customers or a shorter time."
        )


def explain_unreadable(where: str, error: Exception | str) -> str:
    """Return the text of an InputError about a file that Parquet readers refuse."""
    reason = " ".join(str(error).split())
    return (
        f"{where}: cannot be read as Parquet ({reason:.200}).\n"
        "Write the file again, or remove it from the folder."
    )


def _list_tables(folder: Path, inputs: InputsConfig) -> list[InputTable]:
    """List the tables to open: transactions, those that exist, and those of mapped columns."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: the folder does not exist.\n"
            "Name the folder that holds the table of transactions."
        )
    tables = [
        table
        for table in TABLES
        if table == "transactions"
        or table in inputs.columns
        or table in inputs.files
        or find_candidates(folder, table, inputs)
    ]
    has_views = inputs.views and bool(find_candidates(folder, "views", inputs))
    if has_views and inputs.has_event_views:
        raise InputError(
            "views: found a table of views, and views among inputs.events; expected one of them.\n"
            "Remove the table, or let inputs.events ignore its views."
        )
    return [*tables, "views"] if has_views else tables


def _find_table(table: InputTable, tables: InputTables, inputs: InputsConfig) -> Path:
    paths = find_candidates(tables.folder, table, inputs)
    if len(paths) > 1:
        names = [f"{path.name}/" if path.is_dir() else path.name for path in paths]
        raise InputError(
            f"{tables.label}: found both {' and '.join(sorted(names, key=len, reverse=True))}; "
            "expected one of them.\nRemove the other."
        )
    if not paths:
        raise InputError(explain_missing_table(tables.given, table, inputs))
    return paths[0]


class _Opener:
    """Opens the files of a table and finds its columns.

    `problems` has what is wrong with them.
    """

    def __init__(
        self, table: InputTable, path: Path, tables: InputTables, inputs: InputsConfig
    ) -> None:
        self.problems = Problems()
        self.missing: MissingColumns | None = None
        self._table, self._path, self._folder = table, path, tables.folder
        self._inputs = inputs
        self._mapping, self._price = inputs.columns.get(table, {}), inputs.price
        listed = list_table_files(path, self.problems)
        self._paths = listed.paths
        self._warnings = [*tables.warnings.get(table, ()), *listed.warnings]
        self._origins = tuple(tables.origins.get(file) for file in listed.paths)
        self._files: list[_File] = []
        for file in listed.paths:
            with self.problems.collect():
                self._files.append(_open_file(file, path))
        self._names: dict[str, str] = {}
        self._type_classes: dict[str, str] = {}
        self._partitions: dict[str, tuple[str | None, ...]] = {}
        columns = _list_columns(table, inputs)
        if not self.problems.errors:
            self._find_columns(columns)
        elif len(self.problems.errors) > _MAX_PROBLEMS:
            n_more = len(self.problems.errors) - _MAX_PROBLEMS
            more = InputError(f"{path}: {n_more} more files cannot be read.")
            self.problems.errors[_MAX_PROBLEMS:] = [more]

    def make_source(self) -> Source:
        """Return the table."""
        return Source(
            self._table,
            self._folder,
            self._path,
            self._paths,
            tuple(file.footer for file in self._files),
            self._names,
            self._type_classes,
            self._partitions,
            tuple(self._warnings),
            self._origins,
        )

    def _find_columns(self, columns: list[InputColumn]) -> None:
        """Find the columns in files and paths, or say what is wrong with them."""
        missing: dict[str, str] = {}
        unused: dict[str, str] = {}  # optional columns that are there under a similar name
        for column in columns:
            name, own_name = column.name, self._mapping.get(column.name, column.name)
            if name == "index_name" and "index_group_name" in self._names:
                continue  # it is read only to derive the group
            with self.problems.collect():
                if self._find_column(column, own_name):
                    continue
                if self._is_required(column):
                    missing[name] = own_name
                elif (other := find_other_spelling(own_name, self._column_names)) is not None:
                    unused[name] = other
                else:
                    self._warnings += warn_of_absent(
                        self._table, self._path.name, name, self._column_names
                    )
        if missing:
            self.missing = MissingColumns(
                self._table, self._path.name, missing, unused, self._column_names
            )
        elif unused:
            self._warnings.append(warn_of_unused(self._table, self._path.name, unused))

    def _is_required(self, column: InputColumn) -> bool:
        """Return whether a table without the column is refused."""
        if column.name == "price" and self._price == "auto":
            return "price" in self._mapping or bool(find_price_columns(self._column_names))
        return column.is_required or column.name == "price" or column.name in self._mapping

    def _find_column(self, column: InputColumn, own_name: str) -> bool:
        """Return whether the table has a column; InputError where it cannot be read."""
        files, label, name = self._files, self._path.name, column.name
        _refuse_doubles(label, files, own_name)
        n_files = sum(own_name in file.schema.names for file in files)
        if n_files == len(files):
            also_accepted = self._list_other_types(column)
            if type_class := find_type_class(label, files, own_name, column.role, also_accepted):
                self._names[name], self._type_classes[name] = own_name, type_class
        elif n_files:
            lacking = next(file.path for file in files if own_name not in file.schema.names)
            raise InputError(
                f"{label}: column {own_name!r} is in {n_files} of {len(files)} files, "
                f"not in {lacking.relative_to(self._path)}.\nWrite the files with one schema."
            )
        elif column.role != "price" and all(own_name in file.partitions for file in files):
            self._names[name] = own_name
            self._partitions[name] = tuple(file.partitions[own_name] for file in files)
        else:
            return False
        return True

    def _list_other_types(self, column: InputColumn) -> set[str]:
        """Return the classes of types that are accepted besides those of a column's role."""
        is_csv = any(origin is not None and origin.is_csv for origin in self._origins)
        has_numbers = self._inputs.time_unit is not None or self._inputs.time_format is not None
        is_number = column.role == "time" and has_numbers
        return ({"text"} if is_csv else set()) | ({"integer"} if is_number else set())

    @property
    def _column_names(self) -> list[str]:
        """Names of columns in any of the files, in the order of their first file."""
        return list(dict.fromkeys(name for file in self._files for name in file.column_names))


def list_roles(table: InputTable, inputs: InputsConfig) -> dict[str, InputRole]:
    """Return the roles of the columns to read, by their names in the table.

    ConfigError where the configuration maps another column.
    """
    mapping = inputs.columns.get(table, {})
    return {
        mapping.get(column.name, column.name): column.role
        for column in _list_columns(table, inputs)
    }


def _list_columns(table: InputTable, inputs: InputsConfig) -> list[InputColumn]:
    """Return the columns to read; ConfigError where the configuration maps another."""
    columns = INPUT_COLUMNS[table]
    known = [column.name for column in columns]
    if unknown := sorted(inputs.columns.get(table, {}).keys() - set(known)):
        raise ConfigError(
            f"inputs.columns: found {unknown[0]!r} in {table}; "
            f"expected one of {', '.join(known)}.\nWrite {{{table}: {{OUR_NAME: ITS_NAME}}}}."
        )
    is_read = {
        "price": inputs.price != "none",
        "event": bool(inputs.events),
        "rating": inputs.min_rating is not None,
    }
    return [column for column in columns if is_read.get(column.name, True)]


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
    try:
        partitions = {
            unquote(key, errors="strict"): None
            if value == _HIVE_NULL
            else unquote(value, errors="strict")
            for key, _, value in pairs
        }
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: the name of its folder has an escape (%XX) that is not UTF-8.\n"
            "Rename the folder."
        ) from error
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
