"""Where the rows of tables come from that were written again as Parquet to be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..contract.schema import InputTable


@dataclass(frozen=True)
class Origin:
    """The file, or the table in memory, that a Parquet file was written from."""

    name: str  # of the file, relative to the input folder
    bytes: int
    sha256: str  # of the file's bytes, or of the content of a table in memory
    is_csv: bool = False  # whether all of its columns are text
    first_line: int | None = None  # of the first row, where each row is one line of the file


@dataclass(frozen=True)
class InputTables:
    """The tables of a build: Parquet files, and what some of them were written from."""

    folder: Path
    given: Path  # the folder that the user gave, to name what else is in it
    label: str  # of what the user gave, for messages
    origins: Mapping[Path, Origin] = field(default_factory=dict)  # by the Parquet file in `folder`
    warnings: Mapping[InputTable, tuple[str, ...]] = field(default_factory=dict)
    unreadable: frozenset[InputTable] = frozenset()  # with problems that are known already


def as_tables(tables: InputTables | Path | str) -> InputTables:
    """Return tables as they are, and a folder as tables that are read from its own files."""
    return (
        tables
        if isinstance(tables, InputTables)
        else InputTables(Path(tables), Path(tables), str(tables))
    )
