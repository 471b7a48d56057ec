"""Decode row groups on a CUDA device.

libcudf reads the file, and torch takes over the memory without a copy (DLPack).

Not yet run on a GPU: the calls are checked against RAPIDS' stubs, the results against Arrow's with
a stand-in on the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cpu_fallback.parquet import numpy_type

from ..backend.gpu.transfers import Transfers
from ..errors import BackendError, ConfigError
from .files import RowGroup, SplitFiles
from .row_groups import RowGroupReader
from .vocabularies import CHANNELS, DatasetVocabularies


class DeviceRowGroupReader(RowGroupReader):
    """A `RowGroupReader` that makes tensors on the CUDA device, equal to those of Arrow.

    Texts become codes on the device; only the distinct ones of a row group are looked up on the
    host.
    """

    def __init__(
        self,
        files: SplitFiles,
        vocabularies: DatasetVocabularies,
        columns: Iterable[str] | None,
        device: torch.device | str | None,
    ) -> None:
        """Open the device.

        Raises:
            ConfigError: `device` is not a CUDA device, or a column is not available.
            BackendError: RAPIDS or the device do not work.
        """
        super().__init__(files, vocabularies, columns)
        self._libcudf, self._transfers, self._device = _open(device)

    def _read_table(self, row_group: RowGroup, names: list[str]) -> dict[str, Any]:
        def read(part: Any) -> dict[str, Any]:
            return self._libcudf.read_row_group(part, row_group.number, names)

        return self.files.read_with(read, row_group)

    def _make_metadata(self, row_group: RowGroup) -> dict[str, Tensor]:
        metadata = super()._make_metadata(row_group)
        return {name: tensor.to(self._device) for name, tensor in metadata.items()}

    def _decode_sequences(self, table: dict[str, Any], name: str) -> Tensor:
        offsets, elements = self._libcudf.split_lists(table[name])
        starts = self._get_numbers(offsets, np.dtype(np.int32))[0].long()
        values, _ = self._get_numbers(elements, np.dtype(np.int32))
        every, width = self.files.rows_per_group, self.files.max_length
        start, length = starts[:-1:every], (starts[1:] - starts[:-1])[::every]
        if not len(values):
            return torch.zeros((len(start), width), dtype=torch.int32, device=self._device)
        column = torch.arange(width, device=self._device)
        padded = values[(start[:, None] + column).clamp_(max=len(values) - 1)]
        return padded.masked_fill_(column >= length[:, None], 0)

    def _decode_candidates(self, table: dict[str, Any], name: str, where: str) -> Tensor:
        sources = self._list_sources(name)
        n = table[sources[0]].size() // self.files.rows_per_group
        columns = [
            self._decode_column(table, source, name, where).reshape(n, -1) for source in sources
        ]
        if "" in self._sources.get(name, ()):
            columns.insert(0, torch.zeros_like(columns[0][:, :1]))
        values = torch.cat(columns, dim=1)
        if self._is_looked_up_by_item(name):
            categories = torch.from_numpy(self.vocabularies.item_categories[name])
            values = categories.to(self._device)[values]
        return values

    def _decode_column(
        self, table: dict[str, Any], source: str, name: str, where: str, every: int = 1
    ) -> Tensor:
        type_, column = self.files.schema.field(source).type, table[source]
        if pa.types.is_fixed_size_list(type_):
            type_, column = type_.value_type, self._libcudf.split_lists(column)[1]
        if pa.types.is_string(type_) or pa.types.is_dictionary(type_):
            index, texts = self._libcudf.encode_strings(column, self._transfers.xp)
            distinct = texts.to_host(self._transfers)
            codes = self.vocabularies.encode(self._get_vocabulary(name), distinct, where)
            # The last entry is for null, which has the index -1.
            table_of_codes = torch.from_numpy(np.append(codes, np.int32(0))).to(self._device)
            return table_of_codes[torch.from_dlpack(index)[::every].long()]
        values, is_valid = self._get_numbers(column, numpy_type(type_))
        values = values[::every]
        if not values.is_floating_point() and values.dtype not in (torch.bool, torch.int64):
            values = values.int()
        if is_valid is not None:
            values = values.masked_fill(~is_valid[::every], 0)
        if name in CHANNELS:
            channel_codes = torch.from_numpy(self._get_channel_codes()).to(self._device)
            return channel_codes[values.long() % 256]
        return values

    def _get_numbers(self, column: Any, dtype: np.dtype) -> tuple[Tensor, Tensor | None]:
        """Return the values of a column, and which are valid; None if all are."""
        values, is_valid = self._libcudf.to_arrays(column, dtype, self._transfers.xp)
        return (
            torch.from_dlpack(values),
            None if is_valid is None else torch.from_dlpack(is_valid),
        )


def _open(device: torch.device | str | None) -> tuple[Any, Transfers, torch.device]:
    """Return libcudf, the transfers to the device, and the device of torch."""
    if device is None or torch.device(device).type != "cuda":
        raise ConfigError(
            f"reader 'cudf' with device {device!r}: expected device 'cuda'.\n"
            "Or read with reader='arrow'."
        )
    from ..backend.gpu.device import find_device

    find_device()
    if not torch.cuda.is_available():
        raise BackendError(
            "this torch has no CUDA.\n"
            "Install the build of torch for your CUDA, or read with reader='arrow'."
        )
    import cupy

    from ..backend.gpu import libcudf

    return libcudf, Transfers(cupy), torch.device(device)
