"""Part writer of the GPU machine: blocks of columns on the device to the row groups of one Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from cpu_fallback.parquet import BlockWriter, key_value_metadata
from cpu_fallback.parquet import PartWriter as HostPartWriter

from .footer import mark_timestamps_local
from .layout import Layout, lay_out
from .transfers import Transfers


class PartWriter(BlockWriter):
    """Writes one Parquet file; `write(block)` appends the block's rows as one row group or several equal ones.

    `schema` and `settings` are those of `cpu_fallback.parquet.PartWriter`, and readers find the same schema and values.
    What differs is how they are stored: no compression level; minima and maxima of all columns or of none; a category's
    dictionary has only what occurs in its row group. `vocabularies` (`libcudf.Vocabularies`) outlives the writer.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        settings: Any,
        *,
        vocabularies: Any,
        transfers: Transfers,
    ) -> None:
        super().__init__(path, schema, settings)
        self._vocabularies, self._transfers = vocabularies, transfers
        # opened by the first row group, which shows libcudf the columns
        self._row_groups: Any = None

    def _open(self) -> None:
        self._path.touch()  # a folder that is not there or cannot be written to is found now

    def _lay_out(self, type_: pa.DataType, column: Any, entries: slice) -> Layout:
        return lay_out(type_, column, entries, self._transfers)

    def _append(self, columns: list[Layout]) -> None:
        if self._row_groups is None:
            from . import (
                libcudf,
            )  # not above: the rest of this module also runs, and is tested, where no RAPIDS is

            metadata = {
                key.decode(): value.decode()
                for key, value in key_value_metadata(self._schema).items()
            }
            self._row_groups = libcudf.RowGroupWriter(
                self._path, self._schema, self._settings, metadata, self._strings_of
            )
        self._row_groups.write(columns)

    def _strings_of(self, vocabulary: Any) -> Any:
        return self._vocabularies.column(vocabulary, self._transfers)

    def _finish(self) -> None:
        if self._row_groups is None:  # no rows, so nothing on the device to write
            with HostPartWriter(self._path, self._schema, self._settings):
                return
        self._row_groups.close()
        self._row_groups = None
        mark_timestamps_local(self._path)
        self._transfers.to_host += self._path.stat().st_size

    def _abandon(self) -> None:
        self._row_groups = None  # libcudf closes the file when it is let go of
