"""Find the files that hold a table's rows (D1); each is listed, counted or refused.

A folder's files are all read, whatever their suffix, also those behind symbolic links. Names that
begin with "." or "_" are what Spark and editors hide; they are left out and counted.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from ..config import InputsConfig
from ..contract.schema import InputTable
from ..contract.table_names import is_hidden
from ..errors import InputError, Problems
from .lakes import find_lake, list_live_files

_MAX_NAMES = 3  # of files that are left out, in a warning


@dataclass(frozen=True)
class TableFiles:
    """The files of a table, and what is left out of its folder."""

    paths: tuple[Path, ...]  # by path
    warnings: tuple[str, ...]


def find_candidates(folder: Path, table: InputTable, inputs: InputsConfig) -> list[Path]:
    """Return what has the name of a table in the input folder."""
    return sorted(path for path in folder.iterdir() if inputs.is_table(path.name, table))


def list_table_files(path: Path, problems: Problems) -> TableFiles:
    """List the files of a table: those of the live snapshot of a Delta or Iceberg table.

    InputErrors about broken links, files or folders that are there twice and what is no file are
    added to `problems`. OSError for what may not be read.
    """
    status = _read_status(path)
    if not stat.S_ISDIR(status.st_mode):
        _require_file(path, status)
        return TableFiles((path,), ())
    _require_text(path.name, path)
    if (lake := find_lake(path)) is not None:
        return TableFiles(tuple(sorted(list_live_files(path, lake))), ())
    walk = _Walk(path, problems)
    walk.visit(path, ())
    if not walk.files and not problems.errors:
        hidden = f" but {_name_some(walk.hidden)}" if walk.hidden else ""
        raise InputError(
            f"{path}: the folder has no .parquet files{hidden}.\nPut the table's files there."
        )
    warnings = []
    if walk.hidden:
        warnings.append(
            f'{path.name}: {_name_some(walk.hidden)} left out: names that begin with "." or "_" '
            "are hidden."
        )
    warnings += [
        f"{path.name}: {link} is a link back to a folder that it is in; it is left out."
        for link in walk.loops
    ]
    return TableFiles(tuple(sorted(walk.files)), tuple(warnings))


class _Walk:
    """A walk through a table's folder, which follows links and visits nothing twice."""

    def __init__(self, root: Path, problems: Problems) -> None:
        self._root, self._problems = root, problems
        self.files: list[Path] = []
        self.hidden: list[str] = []  # names relative to the table's folder
        self.loops: list[str] = []
        self._first_paths: dict[tuple[int, int], Path] = {}  # device and inode -> where first seen

    def visit(self, folder: Path, parents: tuple[tuple[int, int], ...]) -> None:
        """Sort the entries of a folder into `files`, `hidden` and `loops`."""
        status = folder.stat()
        parents = (*parents, (status.st_dev, status.st_ino))
        for name in sorted(os.listdir(folder)):
            with self._problems.collect():
                self._sort_entry(folder / name, parents)

    def _sort_entry(self, path: Path, parents: tuple[tuple[int, int], ...]) -> None:
        relative = path.relative_to(self._root).as_posix()
        if is_hidden(path.name):
            self.hidden.append(relative)
            return
        _require_text(path.name, path)
        status = _read_status(path)
        if (status.st_dev, status.st_ino) in parents and status.st_ino:
            self.loops.append(relative)
        elif stat.S_ISDIR(status.st_mode):
            self._require_first(path, status)
            if (lake := find_lake(path)) is not None:
                raise InputError(
                    f"{path}: is {lake.label} inside of the folder of a table.\n"
                    "Give the table that folder alone, or write its rows as plain Parquet files."
                )
            self.visit(path, parents)
        else:
            _require_file(path, status)
            self._require_first(path, status)
            self.files.append(path)

    def _require_first(self, path: Path, status: os.stat_result) -> None:
        """InputError where a file or folder was seen under another name: rows would count twice."""
        key = (status.st_dev, status.st_ino)
        first = self._first_paths.setdefault(key, path) if status.st_ino else path
        if first is not path:
            raise InputError(
                f"{path}: is a link to {first.relative_to(self._root)}, which is in the folder "
                "too; its rows would be read twice.\nRemove the link."
            )


def _read_status(path: Path) -> os.stat_result:
    """Return the status of what a path leads to; InputError for a link that leads nowhere."""
    try:
        return path.stat()
    except OSError as error:
        if not path.is_symlink() or isinstance(error, PermissionError):
            raise
        raise InputError(
            f"{path}: is a link to {os.readlink(path)}, which cannot be opened "
            f"({error.strerror}).\nRestore what it points to, or remove the link."
        ) from error


def _require_file(path: Path, status: os.stat_result) -> None:
    """InputError for pipes, sockets and devices: reading them may take forever."""
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: is neither a file nor a folder.\nRemove it.")


def _require_text(name: str, path: Path) -> None:
    """InputError where the name of a file or folder is not UTF-8: no manifest can list it."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: its name is not UTF-8.\nRename it.") from error


def _name_some(names: list[str]) -> str:
    """Return the number of names, the first of them, and the verb."""
    more = "" if len(names) <= _MAX_NAMES else ", ..."
    verb = "is" if len(names) == 1 else "are"
    files = "file" if len(names) == 1 else "files"
    return f"{len(names)} hidden {files} ({', '.join(names[:_MAX_NAMES])}{more}) {verb}"
