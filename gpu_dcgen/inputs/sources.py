"""Finding the input tables and their columns: files, partition folders, names, types (D1). Reads schemas, no rows."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Sequence
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from ..contract.schema import TABLES
from ..errors import ConfigError, InputError
from .footers import Footer, FooterError, check_pages, read_footer

# What a column is for, the classes of types that can be that, and what to do about another type.
ROLES: dict[str, tuple[frozenset[str], str]] = {
    "key": (
        frozenset({"text", "integer"}),
        "Write ids as text; an id that has been a float may have lost digits (pandas: dtype=str).",
    ),
    "category": (frozenset({"text", "integer"}), "Write the column as text."),
    "number": (frozenset({"integer", "float", "decimal", "text"}), "Write the column as a number."),
    "price": (frozenset({"integer", "float", "decimal"}), "Write the column as a number."),
    "time": (
        frozenset({"date", "timestamp", "text"}),
        "Write the column as a date or timestamp; a bare number has no unit.",
    ),
}

# The columns that are read, under the names of H&M's files: everything else is never opened
# (DC-001's aggregates leak).
REQUIRED: dict[str, dict[str, str]] = {
    "articles": {"article_id": "key", "product_group_name": "category"},
    "customers": {"customer_id": "key"},
    "transactions": {"t_dat": "time", "customer_id": "key", "article_id": "key", "price": "price"},
    "views": {"t_dat": "time", "customer_id": "key", "article_id": "key"},
}
OPTIONAL: dict[str, dict[str, str]] = {
    "articles": {
        "product_code": "category",
        "colour_group_name": "category",
        "garment_group_name": "category",
        "department_name": "category",
        "index_group_name": "category",
        "index_name": "category",
        "section_name": "category",
        "prod_name": "category",
    },
    "customers": {
        "age": "number",
        "club_member_status": "category",
        "fashion_news_frequency": "category",
    },
    "transactions": {"sales_channel_id": "number"},
    "views": {},
}

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
MOST_ROWS = (1 << 31) - 1  # of a table: rows have int32 numbers
NAMES_SHOWN = 40  # column names in an error message


@dataclass(frozen=True)
class Source:
    """One input table: its files and where each column comes from."""

    table: str
    folder: Path  # the input folder
    path: Path  # the table's file or folder
    files: tuple[Path, ...]  # by path
    footers: tuple[Footer, ...]  # per file
    names: dict[str, str]  # our name -> the table's own name, for columns that hold anything
    classes: dict[
        str, str
    ]  # our name -> text, integer, float, decimal, date or timestamp: columns in the files
    partitions: dict[str, tuple[str | None, ...]]  # our name -> value per file: columns in the path
    warnings: tuple[str, ...]

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows per file."""
        return tuple(footer.n_rows for footer in self.footers)

    @property
    def n_rows(self) -> int:
        return sum(self.rows)

    @property
    def unpacked_bytes(self) -> int:
        """Bytes of the columns to read, unpacked, as the files' footers claim; `check_pages` holds them to it."""
        return sum(footer.unpacked_bytes(self.columns.values()) for footer in self.footers)

    @property
    def label(self) -> str:
        return self.path.name

    @property
    def columns(self) -> dict[str, str]:
        """Our name -> name in the files, for the columns to read."""
        return {name: self.names[name] for name in self.classes}

    def check_pages(self) -> None:
        """Hold the pages of the columns to read against the footers: InputError where they hold or unpack to something else."""
        for file, footer in zip(self.files, self.footers, strict=True):
            try:
                check_pages(file, footer, self.columns.values())
            except (OSError, FooterError) as error:
                raise InputError(explain_unreadable(str(file), error)) from error

    def place(self, position: int) -> str:
        """Where a row of the table (from 0) is found, as a message says it."""
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
    path: Path
    schema: pa.Schema
    footer: Footer
    partitions: dict[str, str | None]


def find_sources(folder: Path, inputs: Any) -> dict[str, Source]:
    """The tables in `folder`: articles, customers, transactions and, where there and wanted, views.

    InputError names what is missing, empty, unreadable, doubled or of the wrong type, and the way out.
    """
    try:
        sources = {table: _open(folder, table, inputs) for table in _tables(folder, inputs)}
    except OSError as error:
        remedy = "Make it readable, or name another folder."
        raise InputError(
            f"{error.filename or folder}: cannot be read ({error.strerror}).\n{remedy}"
        ) from error
    for table in TABLES:
        if sources[table].n_rows == 0:
            raise InputError(
                f"{sources[table].label}: the table has no rows.\nA build needs articles, customers and transactions."
            )
    for source in sources.values():
        if source.n_rows > MOST_ROWS:
            raise InputError(
                f"{source.label}: the table has {source.n_rows:,} rows; at most {MOST_ROWS:,} are numbered.\n"
                "Build from fewer customers or a shorter time."
            )
    return sources


def _tables(folder: Path, inputs: Any) -> tuple[str, ...]:
    if not folder.is_dir():
        raise InputError(
            f"{folder}: there is no such folder.\nName the folder that holds articles, customers and transactions."
        )
    return (*TABLES, "views") if inputs.views and _find(folder, "views", required=False) else TABLES


def _find(folder: Path, table: str, *, required: bool = True) -> Path | None:
    file, plain = folder / f"{table}.parquet", folder / table
    found = [path for path in (file, plain) if path.is_dir() or (path == file and path.is_file())]
    if len(found) > 1:
        raise InputError(f"{folder}: holds both {file.name} and {plain.name}/.\nLeave one of them.")
    if not found and required:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:NAMES_SHOWN]) or "nothing"
        raise InputError(
            f"{folder}: there is no {file.name} (a file or a folder of Parquet files) and no folder {table}/; found {there}.\n"
            "Convert the table to Parquet under that name."
        )
    return found[0] if found else None


def _open(folder: Path, table: str, inputs: Any) -> Source:
    path = _find(folder, table)
    paths = [path] if path.is_file() else sorted(_parquet_files(path))
    if not paths:
        raise InputError(
            f"{path}: the folder holds no .parquet files.\nPut the table's files there."
        )
    files = [_open_file(file, path) for file in paths]
    mapping = inputs.columns.get(table, {})
    roles = REQUIRED[table] | OPTIONAL[table]
    if unknown := sorted(mapping.keys() - roles.keys()):
        raise ConfigError(
            f"inputs.columns: {table} has no column {unknown[0]!r} to map; expected one of {', '.join(roles)}.\n"
            f"Write {{{table}: {{OUR_NAME: ITS_NAME}}}}."
        )
    if table == "transactions" and inputs.price == "none":
        del roles["price"]

    names, classes, partitions, warnings = {}, {}, {}, []
    for name, role in roles.items():
        theirs = mapping.get(name, name)
        if name == "index_name" and "index_group_name" in names:
            continue  # it would only serve to derive the group
        _refuse_doubles(path.name, files, theirs)
        present = [file for file in files if theirs in file.schema.names]
        if len(present) == len(files):
            if class_ := _class(path.name, files, theirs, role):
                names[name], classes[name] = theirs, class_
        elif present:
            lacking = next(
                file.path for file in files if theirs not in file.schema.names
            ).relative_to(path)
            raise InputError(
                f"{path.name}: column {theirs!r} is in {len(present)} of {len(files)} files, not in {lacking}.\n"
                "Write the files with one schema."
            )
        elif role != "price" and all(theirs in file.partitions for file in files):
            names[name] = theirs
            partitions[name] = tuple(file.partitions[theirs] for file in files)
        elif name in REQUIRED[table] or name in mapping:
            raise InputError(_missing(path.name, table, name, theirs, files))
        else:
            warnings += [
                f"{path.name}: column {other!r} is not read; only {theirs!r} would be (or map it with inputs.columns)."
                for other in _names(files[0])
                if other.casefold() == theirs.casefold()
            ]
    footers = tuple(file.footer for file in files)
    return Source(
        table, folder, path, tuple(paths), footers, names, classes, partitions, tuple(warnings)
    )


def _parquet_files(folder: Path) -> list[Path]:
    """Parquet files below `folder`, without what Spark and editors hide (`_temporary`, `.crc`)."""

    def hidden(part: str) -> bool:
        return part.startswith((".", "_")) and "=" not in part

    files = (path for path in folder.rglob("*.parquet") if path.is_file())
    return [
        path for path in files if not any(hidden(part) for part in path.relative_to(folder).parts)
    ]


def _open_file(path: Path, table_path: Path) -> _File:
    try:
        footer = read_footer(path)
        with pq.ParquetFile(path) as parquet:
            schema = parquet.schema_arrow
        str(schema)  # names that are not UTF-8 are refused here
    except (OSError, FooterError, UnicodeDecodeError, pa.ArrowException) as error:
        raise InputError(explain_unreadable(str(path), error)) from error
    folders = path.relative_to(table_path).parts[:-1] if path != table_path else ()
    pairs = (part.partition("=") for part in folders if "=" in part)
    partitions = {
        unquote(key): None if value == HIVE_NULL else unquote(value) for key, _, value in pairs
    }
    return _File(path, schema, footer, partitions)


def explain_unreadable(where: str, error: Exception | str) -> str:
    """The text of an InputError about a file that Parquet readers refuse."""
    reason = " ".join(str(error).split())
    return f"{where}: cannot be read as Parquet ({reason:.200}).\nWrite the file again, or remove it from the folder."


def _names(file: _File) -> list[str]:
    return file.schema.names + [name for name in file.partitions if name not in file.schema.names]


def _refuse_doubles(label: str, files: Sequence[_File], theirs: str) -> None:
    for file in files:
        same = [name for name in _names(file) if name.casefold() == theirs.casefold()]
        if same.count(theirs) > 1:
            raise InputError(
                f"{label}: column {theirs!r} occurs {same.count(theirs)} times in {file.path.name}.\nLeave one of them."
            )
        if len(same) > 1:
            found = " and ".join(map(repr, same))
            raise InputError(
                f"{label}: columns {found} in {file.path.name} differ in case only.\nRename or drop all but one."
            )


def _class(label: str, files: Sequence[_File], theirs: str, role: str) -> str | None:
    """The column's class of types, or None where it is null throughout; InputError where its role has no use for it."""
    accepted, remedy = ROLES[role]
    found: dict[str, Path] = {}
    for file in files:
        kind = file.schema.field(theirs).type
        class_ = _class_of(kind)
        if class_ in accepted:
            found.setdefault(class_, file.path)
        elif not (
            pa.types.is_null(kind) or file.footer.null_throughout(theirs)
        ):  # pandas writes an empty text column as floats
            found_type = f"a nested type, {kind!s:.80}," if pa.types.is_nested(kind) else str(kind)
            expected = " or ".join(sorted(accepted))
            raise InputError(
                f"{label}: column {theirs!r} is {found_type} in {file.path.name}; expected {expected}.\n{remedy}"
            )
    if role in ("key", "category") and len(found) > 1:
        where = ", ".join(f"{class_} in {path.name}" for class_, path in sorted(found.items()))
        raise InputError(
            f"{label}: column {theirs!r} changes its type from file to file: {where}.\n{remedy}"
        )
    return min(found) if found else None


def _class_of(kind: pa.DataType) -> str:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = {
        "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        "integer": (pa.types.is_integer,),
        "float": (pa.types.is_floating,),
        "decimal": (pa.types.is_decimal,),
        "date": (pa.types.is_date,),
        "timestamp": (pa.types.is_timestamp,),
    }
    return next(
        (class_ for class_, is_one in tests.items() if any(test(kind) for test in is_one)),
        str(kind),
    )


def _missing(label: str, table: str, name: str, theirs: str, files: Sequence[_File]) -> str:
    names = _names(files[0])
    folded = {other.casefold(): other for other in names}
    close = [folded[match] for match in difflib.get_close_matches(theirs.casefold(), folded, n=3)]
    hint = f" (close: {', '.join(close)})" if close else ""
    mapping = f"{{{table}: {{{name}: {close[0] if close else 'ITS_NAME'}}}}}"
    lines = [
        f"{label}: column {theirs!r} is missing; found {', '.join(names[:NAMES_SHOWN])}{hint}.",
        f"If it has another name, say so in the configuration: inputs.columns: {mapping}",
    ]
    if name == "price":
        lines.append("If the log has no prices, build with inputs.price: none.")
    return "\n".join(lines)
