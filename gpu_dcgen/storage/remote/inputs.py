"""Copy remote tables to local files, which are then read like any others.

Only the files of the build's tables are copied, in ranges by many threads, to the staging
folder, which is removed when the build ends. Free disk space is checked first. A file that changes
meanwhile is recognized by its version (ETag, generation or time). A build that resumes copies again
the files with another version than before, or without one. The SHA-256 in the manifest are those of
the bytes that were copied.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...contract.schema import TABLES, InputTable
from ...contract.table_names import is_hidden
from ...errors import InputError, spell_option
from ...monitoring.progress import ProgressTracker
from ...resources import free_disk_bytes
from .folder import RANGE_BYTES, Entry, RemoteFolder, transfer_all

if TYPE_CHECKING:
    from ...config import InputsConfig

# Requests at the same time, each with RANGE_BYTES in memory: storage has a high latency.
_THREADS = 16
_MIN_FREE_SHARE = 0.05  # of the disk's free bytes, not to be used
_WEB_SUFFIXES = (".parquet", ".csv", ".csv.gz", ".csv.zst", ".tsv")  # that are asked for
_VERSIONS_FILE = "copied.json"
# In the folders of tables that keep their own list of files.
_LAKES = frozenset({"_delta_log", "_spark_metadata", ".hoodie"})


def copy_tables(url: str, folder: Path, inputs: InputsConfig, progress: ProgressTracker) -> Path:
    """Copy the tables of the remote folder `url` into `folder`; returns the folder with them.

    Raises InputError where a table is missing, cannot be read, does not fit on the disk or changes
    meanwhile.
    """
    remote, tables = RemoteFolder(url), folder / "tables"
    entries = _find_tables(remote, inputs)
    versions = _read_versions(folder)
    missing = {
        name: entry
        for name, entry in entries.items()
        if not entry.has_version
        or versions.get(name) != entry.version
        or not _has_size(tables / name, entry.size)
    }
    copied = {name: entry for name, entry in entries.items() if name not in missing}
    n_bytes = sum(entry.size or 0 for entry in missing.values())
    _require_disk_space(url, folder, n_bytes)
    _remove_others(tables, set(copied))
    _write_versions(folder, copied)
    with progress.stage("copy inputs", n_bytes or None):
        _copy(remote, missing, tables, progress)
    _require_unchanged(remote, entries, _find_tables(remote, inputs))
    _write_versions(folder, entries)
    return tables


def _find_tables(remote: RemoteFolder, inputs: InputsConfig) -> dict[str, Entry]:
    """Return the files of the build's tables, by name."""
    entries: dict[str, Entry] = {}
    tables: tuple[InputTable, ...] = (*TABLES, "views") if inputs.views else TABLES
    for table in tables:
        files = dict(_find_files(remote, table, inputs))
        if not files and table == "transactions":
            *names, last = _list_web_names(table, inputs)
            name = f"{', '.join(names)} or {last}" if names else last
            if remote.is_listed and table not in inputs.files:
                name = f"{table}.parquet or {table}.csv (a file, or a folder of files)"
            raise InputError(
                f"{remote.url}: there is no {name}.\n"
                "Give the folder that holds the table of transactions, named in lower case."
            )
        entries |= files
    return entries


def _find_files(
    remote: RemoteFolder, table: InputTable, inputs: InputsConfig
) -> Iterator[tuple[str, Entry]]:
    """Yield the files of one table: all that are not hidden, whatever their suffix."""
    if not remote.is_listed:  # a web server does not list files
        names = _list_web_names(table, inputs)
    else:
        names = [name for name in remote.names() if inputs.is_table(name, table)]
    for name in names:
        if (entry := remote.entry(name)) is not None:
            yield name, entry
        files = remote.entries(name) if remote.is_listed else {}
        if entry is not None and files:
            raise InputError(f"{remote / name}: is a file and a folder.\nRemove one of them.")
        for file_name, file in files.items():
            folders = file_name.split("/")[1:]
            if not _LAKES.isdisjoint(folders) or file_name.endswith(".metadata.json"):
                raise InputError(
                    f"{remote / name}: is a Delta, Iceberg or Hudi table, and its folder also "
                    "holds rows that were deleted.\n"
                    "Copy the whole table to a local folder and build from there, or write its "
                    "current rows as Parquet files."
                )
            _require_safe_name(remote, file_name)
            if not any(map(is_hidden, folders)):
                yield file_name, file


def _list_web_names(table: InputTable, inputs: InputsConfig) -> list[str]:
    """Return the names that a table may have on a web server: its own, or the usual ones."""
    if table in inputs.files:
        return [inputs.files[table]]
    return [f"{table}{suffix}" for suffix in _WEB_SUFFIXES]


def _require_safe_name(remote: RemoteFolder, name: str) -> None:
    """Raise InputError for a key that would lead out of the folder as a path.

    The key of an object in a store may be any text.
    """
    if (
        any(part in ("", ".", "..") for part in name.split("/"))
        or "\0" in name
        or (os.sep != "/" and os.sep in name)
    ):
        raise InputError(f"{remote / name}: is not a valid file name.\nRename the object.")


def _read_versions(folder: Path) -> dict[str, str]:
    """Return the versions of the files that an earlier build has copied completely."""
    try:
        return dict(json.loads((folder / _VERSIONS_FILE).read_text()))
    except (FileNotFoundError, ValueError):
        return {}


def _write_versions(folder: Path, entries: dict[str, Entry]) -> None:
    content = {name: entry.version for name, entry in entries.items()}
    (folder / _VERSIONS_FILE).write_text(json.dumps(content))


def _has_size(file: Path, size: int | None) -> bool:
    return file.is_file() and file.stat().st_size == size


def _require_disk_space(url: str, folder: Path, n_bytes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = free_disk_bytes(folder)
    if n_bytes > free * (1 - _MIN_FREE_SHARE):
        raise InputError(
            f"{url}: the tables have {n_bytes:,} bytes to be copied, and {free:,} are free on the "
            f"disk of {folder}.\n"
            "Free up disk space, or build on another disk (with a remote OUTPUT: "
            f"{spell_option('staging')})."
        )


def _remove_others(tables: Path, names: set[str]) -> None:
    """Remove copied files other than `names`."""
    for file in [path for path in tables.rglob("*") if path.is_file()]:
        if file.relative_to(tables).as_posix() not in names:
            file.unlink()


def _copy(
    remote: RemoteFolder, entries: dict[str, Entry], tables: Path, progress: ProgressTracker
) -> None:
    def copy(name: str, start: int, end: int | None) -> None:
        if end is None:
            remote.fetch(name, tables / name)
            n_bytes, expected = (tables / name).stat().st_size, entries[name].size
        else:
            content = remote.read(name, start, end)
            n_bytes, expected = len(content), end - start
            with (tables / name).open("r+b") as file:
                file.seek(start)
                file.write(content)
        if expected not in (None, n_bytes):
            raise InputError(
                f"{remote / name}: {n_bytes:,} of {expected:,} bytes were received.\n"
                "Build again; the file may have been replaced meanwhile."
            )
        progress.advance(n_bytes)

    for name in entries:
        (tables / name).parent.mkdir(parents=True, exist_ok=True)
        (tables / name).touch()
    transfer_all(
        _THREADS,
        "copy",
        copy,
        ((name, *piece) for name, entry in entries.items() for piece in _ranges(entry)),
    )


def _ranges(entry: Entry) -> Iterator[tuple[int, int | None]]:
    """Yield the ranges to copy a file in; (0, None) is all of it."""
    if entry.size is None or not entry.has_ranges:
        yield 0, None
        return
    for start in range(0, entry.size, RANGE_BYTES):
        yield start, min(start + RANGE_BYTES, entry.size)


def _require_unchanged(
    remote: RemoteFolder, before: dict[str, Entry], after: dict[str, Entry]
) -> None:
    for name in sorted(before.keys() | after.keys()):
        if name not in after or name not in before or before[name].version != after[name].version:
            raise InputError(
                f"{remote / name}: changed while it was copied.\n"
                "Build again when nothing writes to the inputs."
            )
