"""Row groups for training, decoded on the device: libcudf reads the file, torch takes over the memory (DLPack), no copy between.

Not yet run on a GPU: its calls are checked against RAPIDS' own stubs, its results against Arrow's with a stand-in on the host.
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
from .vocabularies import ITEM_CATEGORIES, Vocabularies


class DeviceRowGroupReader(RowGroupReader):
    """A `RowGroupReader` whose blocks are tensors of the CUDA device; equal to those of Arrow, value for value.

    Strings become codes on the device; only the distinct ones of a row group are looked up on the host.
    """

    def __init__(
        self,
        files: SplitFiles,
        vocabularies: Vocabularies,
        columns: Iterable[str] | None,
        device: torch.device | str | None,
    ) -> None:
        """ConfigError unless `device` is a CUDA device, BackendError where RAPIDS or the device do not work."""
        super().__init__(files, vocabularies, columns)
        self._libcudf, self._transfers, self._device = _open(device)

    def _table(self, row_group: RowGroup, names: list[str]) -> dict[str, Any]:
        return self.files.reading(
            row_group, lambda part: self._libcudf.read_row_group(part, row_group.number, names)
        )

    def _metadata(self, row_group: RowGroup) -> dict[str, Tensor]:
        return {
            name: tensor.to(self._device) for name, tensor in super()._metadata(row_group).items()
        }

    def _padded(self, table: dict[str, Any], name: str) -> Tensor:
        offsets, elements = self._libcudf.split_lists(table[name])
        starts = self._numbers(offsets, np.dtype(np.int32))[0].long()
        values, _ = self._numbers(elements, np.dtype(np.int32))
        every, width = self.files.rows_per_group, self.files.max_length
        start, length = starts[:-1:every], (starts[1:] - starts[:-1])[::every]
        if not len(values):
            return torch.zeros((len(start), width), dtype=torch.int32, device=self._device)
        column = torch.arange(width, device=self._device)
        padded = values[(start[:, None] + column).clamp_(max=len(values) - 1)]
        return padded.masked_fill_(column >= length[:, None], 0)

    def _candidates(self, table: dict[str, Any], name: str, where: str) -> Tensor:
        n = table[self._in_file(name)[0]].size() // self.files.rows_per_group
        columns = [
            self._tensor(table, source, name, where).reshape(n, -1)
            for source in self._in_file(name)
        ]
        if "" in self._sources.get(name, ()):
            columns.insert(0, torch.zeros_like(columns[0][:, :1]))
        whole = torch.cat(columns, dim=1)
        if self.files.shape == "n_tuple" and name in ITEM_CATEGORIES:
            whole = torch.from_numpy(self.vocabularies.item_categories[name]).to(self._device)[
                whole
            ]
        return whole

    def _tensor(
        self, table: dict[str, Any], source: str, name: str, where: str, every: int = 1
    ) -> Tensor:
        type_, column = self.files.schema.field(source).type, table[source]
        if pa.types.is_fixed_size_list(type_):
            type_, column = type_.value_type, self._libcudf.split_lists(column)[1]
        if pa.types.is_string(type_) or pa.types.is_dictionary(type_):
            codes, strings = self._libcudf.encode_strings(column, self._transfers.xp)
            known = "item_id" if "item_id" in self._in_file(name) else name
            found = self.vocabularies.codes(known, strings.to_host(self._transfers), where)
            of_code = torch.from_numpy(np.append(found, np.int32(0))).to(
                self._device
            )  # the last one for null, code -1
            return of_code[torch.from_dlpack(codes)[::every].long()]
        values, there = self._numbers(column, numpy_type(type_))
        values = values[::every]
        if not values.is_floating_point() and values.dtype not in (torch.bool, torch.int64):
            values = values.int()
        if there is not None:
            values = values.masked_fill(~there[::every], 0)
        return self._channels(values) if self._is_channel(name) else values

    def _channels(self, values: Tensor) -> Tensor:
        return torch.from_numpy(self._channel_codes()).to(self._device)[values.long() % 256]

    def _numbers(self, column: Any, dtype: np.dtype) -> tuple[Tensor, Tensor | None]:
        values, there = self._libcudf.to_arrays(column, dtype, self._transfers.xp)
        return torch.from_dlpack(values), None if there is None else torch.from_dlpack(there)


def _open(device: torch.device | str | None) -> tuple[Any, Transfers, torch.device]:
    """libcudf, the way to the device, and its name in torch."""
    if device is None or torch.device(device).type != "cuda":
        raise ConfigError(
            f"reader 'cudf' with device {device!r}: expected device 'cuda'.\nOr read with reader='arrow'."
        )
    from ..backend.gpu.device import find_device

    find_device()
    if not torch.cuda.is_available():
        raise BackendError(
            "this torch has no CUDA.\nInstall the build of torch for your CUDA, or read with reader='arrow'."
        )
    import cupy

    from ..backend.gpu import libcudf

    return libcudf, Transfers(cupy), torch.device(device)
