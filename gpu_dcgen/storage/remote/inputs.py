"""Remote tables become local files, once: everything that reads, checks and digests them is then the same as ever.

Copied are the Parquet files of the build's tables and nothing else, in ranges by many threads, into the staging folder, which
goes when the build ends. Room on the disk is asked for first. A file that is written again meanwhile is noticed by its mark
(ETag, generation or time); a resumed build copies what has another mark than before, and what has none. The manifest's SHA-256
are of the bytes as they were copied.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...contract.schema import TABLES
from ...errors import InputError
from ...monitoring.progress import ProgressTracker
from .folder import RANGE_BYTES, Entry, RemoteFolder, at_once

# requests at the same time: storage answers late, and many at once; RANGE_BYTES each in memory
_THREADS = 16
_FREE = 0.05  # of the disk's free bytes stay free
_COPIED = "copied.json"


def copy_tables(url: str, folder: Path, inputs: Any, progress: ProgressTracker) -> Path:
    """Copy the tables of the remote folder `url` into `folder`, under the same names; returns where they are.

    InputError where a table is missing, cannot be read, does not fit the disk or changes meanwhile.
    """
    remote, tables = RemoteFolder(url), folder / "tables"
    wanted = _find(remote, inputs)
    before = _copied(folder)
    missing = {
        name: entry
        for name, entry in wanted.items()
        if not entry.marked
        or before.get(name) != entry.mark
        or not _has_size(tables / name, entry.size)
    }
    n_bytes = sum(entry.size or 0 for entry in missing.values())
    _require_room(url, folder, n_bytes)
    _remove_others(tables, wanted.keys() - missing.keys())
    _keep_marks(folder, {name: entry for name, entry in wanted.items() if name not in missing})
    with progress.stage("copy inputs", n_bytes or None):
        _copy(remote, missing, tables, progress)
    _require_unchanged(remote, wanted, _find(remote, inputs))
    _keep_marks(folder, wanted)
    return tables


def _find(remote: RemoteFolder, inputs: Any) -> dict[str, Entry]:
    """The files of the build's tables, by name."""
    found: dict[str, Entry] = {}
    for table in (*TABLES, *(["views"] if inputs.views else [])):
        files = dict(_files(remote, table))
        if not files and table in TABLES:
            folders = (
                " (a file or a folder of Parquet files) and no folder " + f"{table}/"
                if remote.is_listed
                else ""
            )
            raise InputError(
                f"{remote.url}: there is no {table}.parquet{folders}.\n"
                "Name the folder that holds articles, customers and transactions as Parquet, with that case."
            )
        found |= files
    return found


def _files(remote: RemoteFolder, table: str) -> Iterator[tuple[str, Entry]]:
    if (entry := remote.entry(f"{table}.parquet")) is not None:
        yield f"{table}.parquet", entry
    if not remote.is_listed:
        return  # a web server's page of links is no list of files
    for folder in (f"{table}.parquet", table):
        for name, below in remote.entries(folder).items():
            if entry is not None and folder != table:
                raise InputError(f"{remote / folder}: is a file and a folder.\nLeave one of them.")
            if name.endswith(".parquet"):
                _require_plain(remote, name)
                yield name, below


def _require_plain(remote: RemoteFolder, name: str) -> None:
    """A key of an object store may be any text; as a path it could lead elsewhere."""
    if (
        any(part in ("", ".", "..") for part in name.split("/"))
        or "\0" in name
        or os.sep != "/"
        and os.sep in name
    ):
        raise InputError(
            f"{remote / name}: is no name that a file can have here.\nRename the object."
        )


def _copied(folder: Path) -> dict[str, str]:
    """Marks of the files that an earlier build has copied; what it did not finish does not count."""
    try:
        return json.loads((folder / _COPIED).read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _keep_marks(folder: Path, entries: dict[str, Entry]) -> None:
    (folder / _COPIED).write_text(json.dumps({name: entry.mark for name, entry in entries.items()}))


def _has_size(file: Path, size: int | None) -> bool:
    return file.is_file() and file.stat().st_size == size


def _require_room(url: str, folder: Path, n_bytes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if n_bytes > free * (1 - _FREE):
        raise InputError(
            f"{url}: the tables have {n_bytes:,} bytes to be copied, and {free:,} are free on the disk of {folder}.\n"
            "Make room, or build on another disk (with a remote OUTPUT: --staging)."
        )


def _remove_others(tables: Path, kept: set[str]) -> None:
    """Remove what an earlier build has copied and this one does not use."""
    for file in [path for path in tables.rglob("*") if path.is_file()]:
        if file.relative_to(tables).as_posix() not in kept:
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
                f"{remote / name}: {n_bytes:,} bytes came of {expected:,}.\nBuild again; it may have been replaced."
            )
        progress.advance(n_bytes)

    for name in entries:
        (tables / name).parent.mkdir(parents=True, exist_ok=True)
        (tables / name).touch()
    at_once(
        _THREADS,
        "copy",
        copy,
        ((name, *piece) for name, entry in entries.items() for piece in _pieces(entry)),
    )


def _pieces(entry: Entry) -> Iterator[tuple[int, int | None]]:
    """The ranges that a file is copied in; (0, None) is all of it."""
    if entry.size is None or not entry.ranged:
        yield 0, None
        return
    for start in range(0, entry.size, RANGE_BYTES):
        yield start, min(start + RANGE_BYTES, entry.size)


def _require_unchanged(
    remote: RemoteFolder, before: dict[str, Entry], after: dict[str, Entry]
) -> None:
    for name in sorted(before.keys() | after.keys()):
        if name not in after or name not in before or before[name].mark != after[name].mark:
            raise InputError(
                f"{remote / name}: changed while it was copied.\nBuild again when nobody writes to the inputs."
            )
