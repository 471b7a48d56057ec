"""Open the tables of a build: those of CSV files are written again as Parquet first (D1)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..config import InputsConfig
from ..contract.schema import TABLES, InputTable
from ..contract.table_names import is_csv_name
from ..errors import InputError, Problems
from ..monitoring.timing import BuildTimer
from .csv_files import convert_csv
from .lakes import find_lake
from .origins import InputTables, Origin
from .sources import find_sources, list_roles, to_input_error
from .table_files import find_candidates, list_table_files


class _CsvTable(NamedTuple):
    """A table of CSV files."""

    table: InputTable
    path: Path  # its file or folder
    files: tuple[Path, ...]
    warnings: tuple[str, ...]


def open_tables(
    folder: Path,
    inputs: InputsConfig,
    workplace: Path,
    timer: BuildTimer | None = None,
    collected: Problems | None = None,
) -> InputTables:
    """Return the tables of a folder as Parquet files.

    A folder without CSV files is returned as it is. Where there are some, their first blocks are
    checked at first, as `find_sources` does, so that what is wrong with columns is said at once.
    Then all rows are written below `workplace`, which is replaced; other tables are linked there.
    InputError for what cannot be read, or is wrong with a table. With `collected`, what cannot be
    read is added to it instead, and the rows of the other tables are written whatever is wrong with
    columns, so that both are found at once.
    """
    folder = Path(folder)
    with to_input_error(folder):
        tables = _find_csv_tables(folder, inputs) if folder.is_dir() else []
        if not tables:
            return InputTables(folder, folder, str(folder))
        shutil.rmtree(workplace, ignore_errors=True)
        if collected is not None:
            return _convert(tables, folder, workplace / "tables", inputs, collected=collected)
        preview = _convert(tables, folder, workplace / "preview", inputs, n_blocks=1)
        find_sources(preview, inputs)
        shutil.rmtree(preview.folder)
        n_bytes = sum(file.stat().st_size for table in tables for file in table.files)
        with nullcontext() if timer is None else timer.stage("read CSV", n_bytes):
            return _convert(tables, folder, workplace / "tables", inputs, timer)


def has_csv_tables(folder: Path, inputs: InputsConfig) -> bool:
    """Return whether `open_tables` would convert tables of a folder; OSError, InputError."""
    return bool(_find_csv_tables(folder, inputs))


def _find_csv_tables(folder: Path, inputs: InputsConfig) -> list[_CsvTable]:
    """Find the tables of CSV files. InputError for a folder of CSV files and others."""
    tables: tuple[InputTable, ...] = (*TABLES, "views") if inputs.views else TABLES
    problems, csv_tables = Problems(), list[_CsvTable]()
    for table in tables:
        for path in find_candidates(folder, table, inputs):
            with problems.collect():
                if (csv_table := _find_csv_files(table, path, problems)) is not None:
                    csv_tables.append(csv_table)
    problems.raise_all(str(folder))
    return csv_tables


def _find_csv_files(table: InputTable, path: Path, problems: Problems) -> _CsvTable | None:
    """Return the CSV files of a table; None where it has none."""
    if not path.is_dir():
        return _CsvTable(table, path, (path,), ()) if is_csv_name(path.name) else None
    if find_lake(path) is not None:
        return None
    own = Problems()
    try:
        listed = list_table_files(path, own)
    except InputError:
        return None  # `find_sources` says what is wrong with the folder
    is_csv = [is_csv_name(file.name) for file in listed.paths]
    if not any(is_csv):
        return None
    problems.errors += own.errors
    if not all(is_csv):
        other = listed.paths[is_csv.index(False)]
        raise InputError(
            f"{path}: found CSV files and {other.relative_to(path)}; expected files of one "
            "format.\nRemove the others."
        )
    return _CsvTable(table, path, listed.paths, listed.warnings)


def _convert(
    tables: list[_CsvTable],
    folder: Path,
    target: Path,
    inputs: InputsConfig,
    timer: BuildTimer | None = None,
    n_blocks: int | None = None,
    collected: Problems | None = None,
) -> InputTables:
    """Write the CSV files below `target`, under their own names, and link the other tables."""
    problems, origins = collected or Problems(), dict[Path, Origin]()
    unreadable = set[InputTable]()
    target.mkdir(parents=True)
    for table in tables:
        n_before = len(problems.errors)
        roles = list_roles(table.table, inputs)
        for file in table.files:
            name = file.relative_to(folder)
            with problems.collect():
                origin = convert_csv(file, target / name, roles, inputs.csv, n_blocks)
                origins[target / name] = replace(origin, name=name.as_posix())
            if timer is not None:
                timer.progress.advance(file.stat().st_size)
        if len(problems.errors) > n_before:
            unreadable.add(table.table)
    if collected is None:
        problems.raise_all(str(folder))
    for path in _find_others(folder, inputs, {table.path for table in tables}):
        (target / path.name).symlink_to(path.resolve())
    warnings = {table.table: table.warnings for table in tables}
    return InputTables(target, folder, str(folder), origins, warnings, frozenset(unreadable))


def _find_others(folder: Path, inputs: InputsConfig, converted: set[Path]) -> Iterator[Path]:
    for table in (*TABLES, "views"):
        for path in find_candidates(folder, table, inputs):
            if path not in converted:
                yield path
