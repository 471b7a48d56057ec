"""Names of input tables and of what is hidden in their folders (D1)."""

from __future__ import annotations

import re

from .schema import InputTable

_SUFFIXES = r"(\.(parquet|parq|pq|snappy|gz|gzip|zst|zstd|lz4|br|brotli))*"
_CSV_SUFFIXES = r"\.(csv|tsv)(\.(gz|zst|bz2|lz4|br))?"
_OTHER_NAMES: dict[InputTable, str] = {"transactions": "transactions_train"}  # in H&M's folder


def is_table_name(name: str, table: InputTable) -> bool:
    """Return whether a file or folder of this name is the table.

    Its name may be in any case, with a suffix of CSV files, or with or without one that writers of
    Parquet give.
    """
    names = "|".join([table, *([_OTHER_NAMES[table]] if table in _OTHER_NAMES else [])])
    pattern = f"({names})({_SUFFIXES}|{_CSV_SUFFIXES})"
    return re.fullmatch(pattern, name, re.IGNORECASE) is not None


def is_csv_name(name: str) -> bool:
    """Return whether a file of this name holds comma- or tab-separated values."""
    return re.search(f"{_CSV_SUFFIXES}$", name, re.IGNORECASE) is not None


def is_hidden(name: str) -> bool:
    """Return whether a file or folder holds no rows of the table that it lies in.

    So do Spark's `_SUCCESS` and `_temporary`, and Hadoop's markers of folders in object storage.
    A partition such as `_day=1` is not hidden.
    """
    return (name.startswith((".", "_")) and "=" not in name) or name.endswith("_$folder$")
