"""Write blocks of device columns as the row groups of one Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from cpu_fallback import PartWriter as HostPartWriter
from cpu_fallback.entries import Entries
from cpu_fallback.parquet import BlockWriter, encode_metadata

from ..blocks import Vocabulary
from ..protocol import Array
from .footer import mark_timestamps_local
from .layout import ForEach, Layout, lay_out
from .transfers import Transfers

# Threads that prepare and write blocks in turns. All their work is on one stream of the device,
# which runs it in the order in which it was submitted. While libcudf encodes what one thread has
# prepared, without the GIL, the other launches the kernels of its next block.
N_WRITING_THREADS = 2


class PartWriter(BlockWriter[Layout]):
    """Writes one Parquet file; `write(block)` appends one row group or several equal ones.

    `schema` and `settings` are those of `cpu_fallback.PartWriter`, and readers find the
    same schema and values. They are stored differently: no compression level; minima and maxima of
    all columns or of none; a category's dictionary has only the strings of its row group.
    `vocabularies` (`libcudf.Vocabularies`) outlives the writer; `for_each` is the backend's.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        settings: Any,
        *,
        vocabularies: Any,
        transfers: Transfers,
        for_each: ForEach,
    ) -> None:
        super().__init__(path, schema, settings)
        self._vocabularies, self._transfers = vocabularies, transfers
        self._for_each, self._xp = for_each, transfers.xp
        # Opened by the first row group, because libcudf takes its columns.
        self._row_groups: Any = None

    def _open(self) -> None:
        self._path.touch()  # a missing or read-only folder is an error now, not after the work

    def _to_host(self, numbers: list[Array]) -> list[int]:
        return self._transfers.download_integers(numbers)

    def _lay_out(self, field: pa.Field, column: Any, entries: Entries) -> Layout:
        return lay_out(field.type, column, entries, self._transfers, self._for_each)

    def _append(self, columns: list[Layout]) -> None:
        if self._row_groups is None:
            # Imported here, so that the rest of this module runs without RAPIDS, as in tests.
            from . import libcudf

            metadata = {
                key.decode(): value.decode() for key, value in encode_metadata(self._schema).items()
            }
            self._row_groups = libcudf.RowGroupWriter(
                self._path, self._schema, self._settings, metadata, self._upload_strings
            )
        self._row_groups.write(columns)

    def _upload_strings(self, vocabulary: Vocabulary) -> Any:
        return self._vocabularies.column(vocabulary, self._transfers)

    def _finish(self) -> None:
        if self._row_groups is None:  # no rows, so nothing on the device to write
            with HostPartWriter(self._path, self._schema, self._settings):
                return
        self._row_groups.close()
        self._row_groups = None
        mark_timestamps_local(self._path)
        self._transfers.count_download(self._path.stat().st_size)

    def _abandon(self) -> None:
        self._row_groups = None  # libcudf closes the file with its last reference
