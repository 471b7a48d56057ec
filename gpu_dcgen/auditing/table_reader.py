"""Read the files of one input table: its columns, and the rows that are accepted."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..config import InputsConfig
from ..contract.manifest import TableRows
from ..errors import InputError
from .csv_input import is_csv, read_csv_column, read_csv_names, replace_decimal_comma
from .input_files import NAME_THE_FOLDER, find_table, list_files, read_partitions


def get_own_names(inputs: InputsConfig) -> dict[str, str]:
    """Return the names of files that the settings give, by table."""
    return {str(table): name for table, name in inputs.files.items()}


def hash_file(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class TableReader:
    """The files of one table; columns by the contract's name, as arrays over all its rows."""

    def __init__(self, folder: Path, name: str, inputs: InputsConfig) -> None:
        path = find_table(folder, name, get_own_names(inputs).get(name))
        if path is None:
            raise InputError(f"{folder}: has no {name}.parquet.\n{NAME_THE_FOLDER}")
        self._csv = inputs.csv
        self.name, self.path = name, path
        self.files = list_files(path)
        self.widths = {
            "article_id": inputs.article_id_width,
            "customer_id": inputs.customer_id_width,
        }
        self._mapping = next(
            (names for table, names in inputs.columns.items() if table == name), {}
        )
        self.counts = TableRows(read=0, accepted=0, rejected=0)
        self.rejects: dict[str, int] = {}
        self.left_out: dict[str, int] = {}
        try:
            self._names = [self._read_names(file) for file in self.files]
            self.n_rows = [
                self._count_rows(file, names)
                for file, names in zip(self.files, self._names, strict=True)
            ]
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: cannot be read ({error}).\n{NAME_THE_FOLDER}") from error

    def __len__(self) -> int:
        return sum(self.n_rows)

    def as_views(self) -> TableReader:
        """Return the same files as the table of views that are among their events."""
        views = copy.copy(self)
        views.name, views.rejects, views.left_out = "views", {}, {}
        return views

    def _read_names(self, file: Path) -> list[str]:
        if is_csv(file):
            return read_csv_names(file, self._csv)
        names: list[str] = pq.read_schema(file).names
        return names

    def _count_rows(self, file: Path, names: list[str]) -> int:
        if is_csv(file):
            return len(read_csv_column(file, names[0], self._csv))
        n: int = pq.read_metadata(file).num_rows
        return n

    def has(self, name: str) -> bool:
        """Whether every file has the column, or has it from the name of its folder."""
        name = self._mapping.get(name, name)
        return all(
            name in names or name in read_partitions(file, self.path)
            for file, names in zip(self.files, self._names, strict=True)
        )

    def chunks(self, name: str) -> Iterator[pa.Array]:
        """Yield a column in row order, texts as dictionaries; nulls where a file lacks it.

        Parquet is read a row group at a time: the dictionaries of these repeat each other.
        """
        column, name = name, self._mapping.get(name, name)
        for file, names, n in zip(self.files, self._names, self.n_rows, strict=True):
            if name in names and is_csv(file):
                for chunk in read_csv_column(file, name, self._csv).chunks:
                    yield replace_decimal_comma(column, chunk, self._csv)
            elif name in names:
                yield from _read_column(file, name)
            else:
                value = read_partitions(file, self.path).get(name)
                yield pa.repeat(pa.scalar(value, pa.string()), n)

    def accept(
        self,
        checks: list[tuple[str, np.ndarray]],
        is_copy: np.ndarray | None = None,
        left_out: dict[str, np.ndarray] | None = None,
        is_another: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the rows that pass all checks; the others count under their first reason.

        Rows that are left out, or belong to another table, are in no check.
        """
        is_accepted = np.ones(len(self), dtype=bool)
        if is_another is not None:
            is_accepted &= ~is_another
        n_read = int(is_accepted.sum())
        for reason, is_out in (left_out or {}).items():
            if n := int((is_accepted & is_out).sum()):
                self.left_out[reason] = n
            is_accepted &= ~is_out
        n_left_out = n_read - int(is_accepted.sum())
        for reason, is_bad in checks:
            if n := int((is_accepted & is_bad).sum()):
                self.rejects[reason] = n
            is_accepted &= ~is_bad
        n_rejected, n_collapsed = n_read - n_left_out - int(is_accepted.sum()), 0
        if is_copy is not None:
            n_collapsed = int((is_accepted & is_copy).sum())
            is_accepted &= ~is_copy
        self.counts = TableRows(
            read=n_read,
            accepted=int(is_accepted.sum()),
            rejected=n_rejected,
            collapsed=n_collapsed,
            left_out=n_left_out,
        )
        return np.flatnonzero(is_accepted)


def _read_column(file: Path, name: str) -> Iterator[pa.Array]:
    """Yield a column of a Parquet file by row group; of one without rows, an empty array."""
    reader, has_dictionaries, n_chunks = pq.ParquetFile(file, read_dictionary=[name]), True, 0
    for number in range(reader.num_row_groups):
        try:
            column = reader.read_row_group(number, columns=[name]).column(0)
        except (OSError, pa.ArrowNotImplementedError):
            if not has_dictionaries:
                raise
            # Delta encodings, as DuckDB writes them; a torn file fails again here.
            reader, has_dictionaries = pq.ParquetFile(file), False
            column = reader.read_row_group(number, columns=[name]).column(0)
        if not has_dictionaries and not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        n_chunks += column.num_chunks
        yield from column.chunks
    if not n_chunks:
        yield pa.array([], reader.schema_arrow.field(name).type)
