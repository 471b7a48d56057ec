"""Read columns of Parquet files with pyarrow, a row group at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

_BATCH_ROWS = 4096  # decoded at a time where text has no dictionary
_READ_AHEAD = 2  # row groups that are read beside the one that is worked on


class FileColumn:
    """A column of Parquet files that is read while its chunks are asked for.

    One row group is held, and the next ones are read beside the work on it. A file's footer is
    parsed once. Iterating may raise OSError or ArrowInvalid where a file cannot be read.
    """

    def __init__(self, files: Sequence[Path], name: str, n_rows: int) -> None:
        self.n_rows = n_rows
        self._files, self._name = files, name

    def __iter__(self) -> Iterator[pa.Array]:
        with ThreadPoolExecutor(_READ_AHEAD, "columns") as readers:
            coming: deque[tuple[_RowGroup, Future[list[pa.Array] | None]]] = deque()
            for file in self._files:
                for group in _list_row_groups(file):
                    coming.append((group, readers.submit(_read_chunks, group, self._name)))
                    if len(coming) > _READ_AHEAD:
                        yield from _take_chunks(*coming.popleft(), self._name)
            while coming:
                yield from _take_chunks(*coming.popleft(), self._name)


def read_columns(files: Sequence[Path], names: Sequence[str]) -> dict[str, FileColumn]:
    """Open the named columns of Parquet files, in file and row order.

    OSError or ArrowInvalid where a file cannot be read, KeyError where a column is missing.
    """
    n_rows = 0
    for file in files:
        with _open(file) as parquet:
            missing = set(names).difference(parquet.schema_arrow.names)
            n_rows += parquet.metadata.num_rows
        if missing:
            raise KeyError(f"{file}: no column {', '.join(sorted(missing))}")
    return {name: FileColumn(files, name, n_rows) for name in names}


class _RowGroup(NamedTuple):
    file: Path
    footer: pq.FileMetaData
    number: int


def _open(
    file: Path, footer: pq.FileMetaData | None = None, read_dictionary: list[str] | None = None
) -> pq.ParquetFile:
    return pq.ParquetFile(
        file,
        metadata=footer,
        read_dictionary=read_dictionary,
        # As nanoseconds, a sentinel such as the year 9999 would wrap around.
        coerce_int96_timestamp_unit="us",
        # On a local disk, buffering only costs the file's size in memory.
        pre_buffer=False,
        page_checksum_verification=True,
    )


def _list_row_groups(file: Path) -> list[_RowGroup]:
    with _open(file) as parquet:
        footer = parquet.metadata
    return [_RowGroup(file, footer, number) for number in range(footer.num_row_groups)]


def _read_chunks(group: _RowGroup, name: str) -> list[pa.Array] | None:
    """Return a column's chunks of a row group; None where they are to be read in batches.

    Arrow reads no dictionary from delta encodings, which DuckDB writes. A damaged file fails again
    in batches.
    """
    with _open(group.file, group.footer, read_dictionary=[name]) as parquet:
        try:
            return parquet.read_row_group(group.number, [name]).column(0).chunks
        except (OSError, pa.ArrowNotImplementedError):
            return None


def _take_chunks(
    group: _RowGroup, reading: Future[list[pa.Array] | None], name: str
) -> Iterable[pa.Array]:
    chunks = reading.result()
    return _read_in_batches(group, name) if chunks is None else chunks


def _read_in_batches(group: _RowGroup, name: str) -> Iterator[pa.Array]:
    """Yield some rows of a row group at a time, with text as dictionaries.

    Delta-encoded text may share prefixes and decode to any multiple of its pages.
    """
    with _open(group.file, group.footer) as parquet:
        for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group.number], columns=[name]):
            column = batch.column(0)
            yield column.dictionary_encode() if is_text(column.type) else column


def is_text(type_: pa.DataType) -> bool:
    """Return whether values of this type are text, in any of Arrow's layouts."""
    return (
        pa.types.is_string(type_)
        or pa.types.is_large_string(type_)
        or pa.types.is_string_view(type_)
    )
