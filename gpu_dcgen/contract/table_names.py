"""Names of input tables and of what is hidden in their folders (D1)."""

from __future__ import annotations

import re

from .schema import InputTable

_SUFFIXES = r"(\.(parquet|parq|pq|snappy|gz|gzip|zst|zstd|lz4|br|brotli))*"


def is_table_name(name: str, table: InputTable) -> bool:
    """Return whether a file or folder of this name is the table.

    Its name may be in any case, with or without a suffix that writers of Parquet give.
    """
    return re.fullmatch(f"{table}{_SUFFIXES}", name, re.IGNORECASE) is not None


def is_hidden(name: str) -> bool:
    """Return whether a file or folder holds no rows of the table that it lies in.

    So do Spark's `_SUCCESS` and `_temporary`, and Hadoop's markers of folders in object storage.
    A partition such as `_day=1` is not hidden.
    """
    return (name.startswith((".", "_")) and "=" not in name) or name.endswith("_$folder$")
