"""List the files of an input table (D1): all of its folder that is not hidden."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from ..errors import InputError

NAME_THE_FOLDER = "Name the folder that the dataset was built from."
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_ENDINGS = re.compile(
    r"(\.(parquet|parq|pq|snappy|gz|gzip|zst|zstd|lz4|br|brotli))*"
    r"|\.(csv|tsv)(\.(gz|zst|bz2|lz4|br))?"
)
_OTHER_NAMES = {"transactions": "transactions_train"}  # in H&M's folder
_OTHER_FORMATS = (".hoodie", "_spark_metadata", "metadata/version-hint.text")


def find_table(folder: Path, name: str, own_name: str | None = None) -> Path | None:
    """Return the file or folder of a table, of the name `own_name` if that is given.

    None where there is none.
    """
    if own_name is not None:
        return folder / own_name if (folder / own_name).exists() else None
    for entry in sorted(os.listdir(folder)):
        for start in (name, _OTHER_NAMES.get(name, name)):
            if entry.lower().startswith(start) and _ENDINGS.fullmatch(entry.lower()[len(start) :]):
                return folder / entry
    return None


def list_files(table: Path) -> list[Path]:
    """List the files of a table by path. InputError where its format has a list of its own."""
    if not table.is_dir():
        return [table]
    if (table / "_delta_log").is_dir():
        return _list_delta_files(table)
    if any((table / name).exists() for name in _OTHER_FORMATS) or list(
        table.glob("metadata/*.metadata.json")
    ):
        raise InputError(
            f"{table}: is not a folder of plain Parquet files, which the audit reads.\n"
            "Write the table's current rows as Parquet files into another folder, and build from "
            "it."
        )
    files: list[Path] = []
    for root, folders, names in os.walk(table, followlinks=True):
        here = os.path.realpath(root)
        folders[:] = [
            name
            for name in folders
            if not _is_hidden(name)
            # A link to a folder that it is in would never end.
            and not f"{here}/".startswith(f"{os.path.realpath(os.path.join(root, name))}/")
        ]
        files += [Path(root, name) for name in names if not _is_hidden(name)]
    return sorted(files)


def read_partitions(file: Path, table: Path) -> dict[str, str | None]:
    """Read column values off the names of a file's hive folders, such as `year=2020`."""
    folders = file.relative_to(table).parts[:-1] if file != table else ()
    pairs = [part.split("=", 1) for part in folders if "=" in part]
    return {unquote(name): None if value == HIVE_NULL else unquote(value) for name, value in pairs}


def _is_hidden(name: str) -> bool:
    return name.endswith("_$folder$") or (name[0] in "._" and "=" not in name)


def _list_delta_files(table: Path) -> list[Path]:
    """List the files of a Delta table's latest version."""
    try:
        from deltalake import DeltaTable
    except ImportError as error:
        raise InputError(
            f"{table}: is a Delta table, which needs the package deltalake ({error}).\n"
            "pip install 'gpu-dcgen[lake]'"
        ) from error
    paths = (Path(uri) for uri in DeltaTable(str(table)).file_uris())
    return sorted(table / path.relative_to(table.absolute()) for path in paths)
