"""List the live files of Delta and Iceberg tables.

Their folders also hold files of rows that were deleted. The table format's own library reads its
log; a folder of such a table is never read without it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlparse

from ..errors import DcgenError, InputError

# Features of a Delta table without which its files and their rows are read the same.
_HARMLESS_FEATURES = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck", "domainMetadata"}
_METADATA_FILE = re.compile(r"v?(\d+)(-[^/]*)?(\.gz)?\.metadata\.json(\.gz)?")


class Lake(NamedTuple):
    """A table format that keeps its own list of files."""

    label: str
    package: str  # that reads it; empty: none
    marker: str  # what its folder holds


_DELTA = Lake("a Delta table", "deltalake", "_delta_log")
_ICEBERG = Lake("an Iceberg table", "pyiceberg", "metadata")
_UNREADABLE = (
    Lake("a Hudi table", "", ".hoodie"),
    Lake("the output of a Spark stream", "", "_spark_metadata"),
)


def find_lake(folder: Path) -> Lake | None:
    """Return the table format of a folder, None for a plain one; OSError."""
    names = set(os.listdir(folder))
    for lake in (_DELTA, *_UNREADABLE):
        if lake.marker in names:
            return lake
    if _ICEBERG.marker in names and (folder / _ICEBERG.marker).is_dir():
        files = os.listdir(folder / _ICEBERG.marker)
        if "version-hint.text" in files or any(map(_METADATA_FILE.fullmatch, files)):
            return _ICEBERG
    return None


def list_live_files(folder: Path, lake: Lake) -> list[Path]:
    """List the files of the latest snapshot, below `folder`.

    InputError with a remedy where no library can read it, or where rows of its files are deleted.
    """
    where = f"{folder}: is {lake.label}, and its folder also holds rows that were deleted"
    if not lake.package:
        raise InputError(
            f"{where}; there is no reader for it here.\n"
            "Write its current rows as Parquet files into another folder."
        )
    try:
        with _to_input_error(folder, lake):
            locations = _list_delta(folder) if lake is _DELTA else _list_iceberg(folder)
    except ImportError as error:
        raise InputError(
            f"{where}; to read only its current rows, {lake.package} is needed ({error}).\n"
            "pip install 'gpu-dcgen[lake]'\n"
            "Or write its current rows as Parquet files into another folder."
        ) from error
    if not locations:
        raise InputError(
            f"{folder}: is {lake.label} without rows.\nA build needs rows of purchases."
        )
    return [_find_file(folder, location) for location in locations]


@contextmanager
def _to_input_error(folder: Path, lake: Lake) -> Iterator[None]:
    """Raise the errors of a format's library as InputError."""
    try:
        yield
    except (DcgenError, ImportError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{folder}: {lake.package} cannot read {lake.label} "
            f"({type(error).__name__}: {reason:.200}).\n"
            "Repair the table, or write its current rows as Parquet files into another folder."
        ) from error


def _list_delta(folder: Path) -> list[str]:
    from deltalake import DeltaTable

    table = DeltaTable(str(folder))
    protocol, metadata = table.protocol(), table.metadata()
    features = set(protocol.reader_features or ())
    # Before version 3 of the protocol, features have no list.
    if metadata.configuration.get("delta.columnMapping.mode", "none") != "none":
        features.add("columnMapping")
    elif "columnMapping" in features:
        features.remove("columnMapping")
    if "deletionVectors" in features and not _has_deletion_vectors(table):
        features.remove("deletionVectors")
    if features := features - _HARMLESS_FEATURES:
        raise InputError(
            f"{folder}: is a Delta table with {', '.join(sorted(features))}, so that its files "
            "alone do not tell its rows.\n"
            "Rewrite it without them, or write its current rows as Parquet files into another "
            "folder."
        )
    locations: list[str] = list(table.file_uris())
    _require_partition_folders(folder, metadata.partition_columns, locations)
    return locations


def _has_deletion_vectors(table: Any) -> bool:
    """Return whether rows of live files are deleted; True where the library cannot tell."""
    if not hasattr(table, "deletion_vectors"):
        return True
    return any(len(batch) for batch in table.deletion_vectors())


def _require_partition_folders(
    folder: Path, columns: Iterable[str], locations: Iterable[str]
) -> None:
    """InputError where values of a partition column are in the log only, not in the paths."""
    for location in locations:
        keys = {part.partition("=")[0] for part in unquote(location).split("/") if "=" in part}
        if lacking := sorted(set(columns) - keys):
            raise InputError(
                f"{folder}: the values of column {lacking[0]!r} are neither in the files nor in "
                f"the names of their folders ({location}).\n"
                "Write the table's current rows as Parquet files into another folder."
            )


def _list_iceberg(folder: Path) -> list[str]:
    from pyiceberg.table import StaticTable

    table = StaticTable.from_metadata(str(_find_metadata(folder)))
    location, files = table.metadata.location.rstrip("/"), []
    for task in table.scan().plan_files():
        if task.delete_files:
            raise InputError(
                f"{folder}: is an Iceberg table with deleted rows in {task.file.file_path}.\n"
                "Compact it (Spark: CALL system.rewrite_data_files), or write its current rows as "
                "Parquet files into another folder."
            )
        path: str = task.file.file_path
        # Files are listed where the table was written; it may have been moved since.
        files.append(path.removeprefix(f"{location}/"))
    return files


def _find_metadata(folder: Path) -> Path:
    """Return the latest metadata file: that of the hint, or of the last number."""
    metadata = folder / _ICEBERG.marker
    files: dict[int, list[Path]] = {}
    for path in metadata.iterdir():
        if match := _METADATA_FILE.fullmatch(path.name):
            files.setdefault(int(match[1]), []).append(path)
    hint = metadata / "version-hint.text"
    number = int(hint.read_text().strip()) if hint.exists() else max(files)
    if len(files.get(number, ())) != 1:
        raise InputError(
            f"{metadata}: found {len(files.get(number, ()))} metadata files of version {number}; "
            "expected one, as only the catalog knows which is current.\n"
            "Write the table's current rows as Parquet files into another folder."
        )
    return files[number][0]


def _find_file(folder: Path, location: str) -> Path:
    """Return the path below `folder` of a file as a table's log names it."""
    text = unquote(urlparse(location).path) if location.startswith("file:") else location
    roots = (folder.absolute(), folder.resolve())
    for name in (text, unquote(text)):
        path = Path(name)
        if path.is_absolute():
            root = next((root for root in roots if path.is_relative_to(root)), None)
            if root is None:
                continue
            path = path.relative_to(root)
        if ".." not in path.parts and (folder / path).is_file():
            return folder / path
    raise InputError(
        f"{folder}: its log lists {location}, which is not in the folder.\n"
        "Copy the whole table, or write its current rows as Parquet files into another folder."
    )
