"""Explain tables that an input folder lacks: one that is required, and those that are not."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator
from pathlib import Path

from ..config import InputsConfig
from ..contract.schema import InputTable
from ..contract.table_names import is_hidden

_MAX_NAMES = 40  # of files, in a message
_MAX_PACKED = 3  # files that are no tables, in a message
_FORMATS = {  # suffixes -> why such a file cannot be read, and what to do
    ("zip", "tar", "tgz", "7z", "rar"): "an archive: unpack it",
    ("xlsx", "xls", "ods"): "a spreadsheet: save it as CSV",
    ("json", "jsonl", "ndjson", "feather", "arrow", "db", "sqlite", "duckdb", "pkl"): (
        "neither CSV nor Parquet: write it as one of them"
    ),
}
_ALL: tuple[InputTable, ...] = ("articles", "customers", "transactions", "views")
# Tables that may be missing -> what the samples lack without them.
_LACKS: dict[InputTable, str] = {
    "articles": "they have no categories, so that rules on product groups are off",
    "customers": "they have no demographics: age, club status and news frequency are null",
}


def explain_missing_table(folder: Path, table: InputTable, inputs: InputsConfig) -> str:
    """Return the text of an InputError about a table that the folder lacks."""
    names = sorted(path.name for path in folder.iterdir())
    unread = _list_unread(names, inputs)
    packed = [f"{name}: {why}" for name in unread if (why := explain_format(name))]
    unread = [name for name in unread if not explain_format(name)]
    remedy = (
        f"If one of them holds {table}, name it: inputs.files: {{{table}: NAME}}; 'gpu-dcgen init "
        f"{shlex.quote(str(folder))}' suggests a configuration. Else name the folder that holds "
        "the table."
        if unread
        else "; ".join([*packed[:_MAX_PACKED], *(["..."] if len(packed) > _MAX_PACKED else [])])
        if packed
        else f"Put the table of {table} there, or name the folder that holds it."
    )
    expected = inputs.files.get(table, f"{table}.parquet or {table}.csv")
    return (
        f"{folder}: table {table} is missing; found {_list_names(names) or 'nothing'}; expected "
        f"{expected} (a file, or a folder of files).\n{remedy}"
    )


def explain_format(name: str) -> str:
    """Return why a file of this name cannot be read, and what to do; "" where it may be."""
    suffix = name.rpartition(".")[2].lower()
    return next((why for suffixes, why in _FORMATS.items() if suffix in suffixes), "")


def warn_of_missing_tables(
    folder: Path, tables: Collection[InputTable], inputs: InputsConfig
) -> Iterator[str]:
    """Yield a warning for each table that is taken from the log, which is not among `tables`."""
    unread = _list_unread(sorted(path.name for path in folder.iterdir()), inputs)
    for table, lack in _LACKS.items():
        if table not in tables:
            hint = f" Not read: {_list_names(unread)}." if unread else ""
            yield (
                f"{table}: there is no such table; {table} are those of the log, and {lack}.{hint}"
            )


def _list_unread(names: list[str], inputs: InputsConfig) -> list[str]:
    """Return the names of files that are no table, and not hidden."""
    return [
        name
        for name in names
        if not is_hidden(name) and not any(inputs.is_table(name, table) for table in _ALL)
    ]


def _list_names(names: list[str]) -> str:
    more = "" if len(names) <= _MAX_NAMES else ", ..."
    return ", ".join(names[:_MAX_NAMES]) + more
