"""Machines for whole builds: a device without RAPIDS, and stand-ins for both kinds of device.

`open_machine("device")` is CuPy and numba-cuda alone; pyarrow reads and writes on the host, so a
build proves row kernels, similarities, sorts and digests where there is no RAPIDS. "strict" puts
arrays in its place that refuse what CuPy refuses.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Sequence

import numpy as np

import gpu_dcgen.backend.gpu
from cpu_fallback import PartWriter as HostPartWriter
from cpu_fallback import file_columns
from gpu_dcgen.backend.gpu import parquet, tables
from gpu_dcgen.backend.gpu.transfers import Transfers
from tests.support import libcudf_stand_in
from tests.support.strict_array import StrictArray, Syncs
from tests.support.strict_backend import StrictBackend
from tests.support.strict_functions import StrictNamespace


def open_machine(place: str, *, has_rapids: bool) -> Any:
    """Return the backend of a machine: `device`, or `strict`, which needs none.

    With `has_rapids`, strict replaces libcudf in this process.
    """
    if place == "strict" and has_rapids:
        gpu_dcgen.backend.gpu.libcudf = libcudf_stand_in
        return StrictRapidsBackend()
    if place == "strict":
        return StrictFilesBackend()
    if has_rapids:
        from gpu_dcgen.backend import select_backend

        return select_backend("gpu")[0]
    return open_cupy()


class StrictTransfers(Transfers):
    """Transfers to the arrays of `StrictBackend`, which refuse what CuPy refuses."""

    def __init__(self, syncs: Syncs | None = None) -> None:
        self._syncs = syncs or Syncs()
        super().__init__(StrictNamespace(self._syncs))

    def upload(self, values):
        self.count_upload(np.asarray(values).nbytes)
        return StrictArray(np.array(values), self._syncs)

    def download(self, array):
        self._syncs.count += 1
        self.count_download(array.nbytes)
        return array.host.copy()


class DeviceColumns:
    """Columns as the GPU backend encodes and parses them; a backend has its `_transfers`."""

    _transfers: Transfers

    def encode(self, column):
        return tables.encode(column, self._transfers)

    def parse_numbers(self, column):
        return tables.parse_numbers(column, self._transfers)

    def parse_times(self, column):
        return tables.parse_times(column, self._transfers)


class HostFiles(DeviceColumns):
    """Files that pyarrow reads and writes on the host."""

    def read_columns(self, files: Sequence[Path], names: Sequence[str]) -> dict[str, list[Any]]:
        return {
            name: [tables.Host(chunk) for chunk in chunks]
            for name, chunks in file_columns.read_columns(files, names).items()
        }

    def open_part_writer(self, path: Path, schema: Any, settings: Any) -> HostWriter:
        return HostWriter(HostPartWriter(path, schema, settings), self._transfers)


class HostWriter:
    """Brings blocks to the host and writes them there."""

    def __init__(self, writer: HostPartWriter, transfers: Transfers) -> None:
        self._writer, self._transfers = writer, transfers

    def __enter__(self) -> HostWriter:
        self._writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)

    def write(self, block: Any) -> None:
        self._writer.write(self._download(block))

    def _download(self, value: Any) -> Any:
        """Return a block, a column or an array with arrays of the host."""
        if isinstance(value, self._transfers.xp.ndarray):
            return self._transfers.download(value)
        if isinstance(value, dict):
            return {key: self._download(part) for key, part in value.items()}
        if not dataclasses.is_dataclass(value):
            return value
        fields = [field.name for field in dataclasses.fields(value)]
        return dataclasses.replace(
            value, **{name: self._download(getattr(value, name)) for name in fields}
        )


class StrictFilesBackend(HostFiles, StrictBackend):
    """What stands for a device without RAPIDS."""

    def __init__(self) -> None:
        super().__init__()
        self._transfers = StrictTransfers(self._syncs)


class StrictRapidsBackend(DeviceColumns, StrictBackend):
    """What stands for a device with RAPIDS: the code around libcudf is the GPU's own."""

    def __init__(self) -> None:
        super().__init__()
        self._transfers = StrictTransfers(self._syncs)

    def read_columns(self, files: Sequence[Path], names: Sequence[str]) -> dict[str, list[Any]]:
        return tables.read_columns(files, names, piece_bytes=0, transfers=self._transfers)

    def open_part_writer(self, path: Path, schema: Any, settings: Any) -> parquet.PartWriter:
        return parquet.PartWriter(
            path,
            schema,
            settings,
            vocabularies=libcudf_stand_in.Vocabularies(),
            transfers=self._transfers,
            for_each=self.for_each,
        )


def open_cupy() -> Any:
    """Return the GPU backend without RAPIDS; BackendError where there is no device."""
    import cupy

    from gpu_dcgen.backend.gpu import device
    from gpu_dcgen.backend.gpu.cuda_backend import CudaBackend

    class CupyBackend(HostFiles, CudaBackend):
        """The GPU backend, with memory of CuPy's own pool."""

    properties = device._find_properties(cupy)
    return CupyBackend(device._describe(properties, cupy.cuda.runtime), CupyMemory(cupy))


class CupyMemory:
    """As `DeviceMemory`, of CuPy's own pool."""

    def __init__(self, cupy: Any) -> None:
        self._runtime, self._pool = cupy.cuda.runtime, cupy.get_default_memory_pool()
        self.budget = self._runtime.memGetInfo()[0]

    def free(self) -> int:
        return self._runtime.memGetInfo()[0] + self._pool.free_bytes()

    def peak(self) -> int:
        return self._pool.total_bytes()

    def reset_counters(self) -> None:
        self._pool.free_all_blocks()
