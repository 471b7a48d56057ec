"""Write blocks of the host's columns as the row groups of one Parquet file.

The encoder is the tool's own because it knows what a library that takes rows does not: each entry
of a block's column stands for several rows, ids are codes already, lists are slices. Files are
plain Parquet (D29).
"""

from __future__ import annotations

from io import FileIO
from typing import Any

import pyarrow as pa

from .column_layout import DICTIONARY, Rows, lay_out
from .entries import Entries
from .footer import CODECS, MAGIC, RowGroup, describe_row_group, make_leaf, write_end
from .pages import ChunkWriter, Leaf
from .parquet import BlockWriter, encode_metadata


class PartWriter(BlockWriter[Rows]):
    """Writes one Parquet file; `write(block)` appends one row group or several equal ones.

    `schema` is what every reader sees, metadata included. `settings` has `compression`,
    `compression_level`, `rows_per_row_group` (at most; row groups hold whole groups, D16),
    `encodings` (column -> Parquet encoding where it is not the dictionary), `statistics`
    (columns with minima and maxima, which are also in the page index) and `created_by`. Equal
    blocks give equal bytes.

    Ids are stored as dictionaries of the ids in their row group, categories as dictionaries of all
    their values.
    """

    _file: FileIO
    _leaves: list[Leaf]
    _chunks: ChunkWriter

    def _open(self) -> None:
        settings = self._settings
        if settings.compression not in CODECS:
            raise ValueError(
                f"{self._path.name}: compression {settings.compression!r}, not one of "
                f"{', '.join(CODECS)}."
            )
        self._leaves = [self._make_leaf(field) for field in self._schema]
        self._chunks = ChunkWriter(settings.compression, settings.compression_level)
        self._row_groups: list[RowGroup] = []
        self._position = 0
        self._file = FileIO(self._path, "wb")
        try:
            self._append_bytes(MAGIC)
        except BaseException:
            self._file.close()
            self._path.unlink()
            raise

    def _make_leaf(self, field: pa.Field) -> Leaf:
        try:
            return make_leaf(field, field.name in self._settings.statistics)
        except ValueError as error:
            raise ValueError(f"{self._path.name}: column '{field.name}': {error}") from error

    def _lay_out(self, field: pa.Field, column: Any, entries: Entries) -> Rows:
        encoding = self._settings.encodings.get(field.name, DICTIONARY)
        return lay_out(field.type, column, entries, encoding)

    def _append(self, columns: list[Rows]) -> None:
        position, chunks = self._position, []
        for leaf, rows in zip(self._leaves, columns, strict=True):
            chunk = self._chunks.encode(leaf, rows, position)
            position += chunk.n_bytes
            chunks.append(chunk)
        self._append_bytes(b"".join(part for chunk in chunks for part in chunk.data))
        self._row_groups.append(describe_row_group(chunks))

    def _finish(self) -> None:
        self._append_bytes(
            write_end(
                self._schema,
                encode_metadata(self._schema),
                self._settings.created_by,
                self._row_groups,
                self._position,
            )
        )
        self._file.close()

    def _abandon(self) -> None:
        self._file.close()

    def _append_bytes(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]  # as many as the file system took
        self._position += len(data)
