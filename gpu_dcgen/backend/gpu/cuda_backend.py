"""CudaBackend: the operations of a build on one NVIDIA GPU (not yet run on a GPU)."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import cupy
import cupyx.scipy.sparse
import numpy as np
import pyarrow as pa
from numba import cuda

from cpu_fallback.vectors import Limits

from ...contract.schema import WriterSettings
from ...errors import spell_option
from ...kernels import RowKernel, map_arrays
from ..protocol import Array, MatrixByItemAndUser
from . import launch, nearest, similarity, tables
from .device import Device
from .parquet import N_WRITING_THREADS, PartWriter
from .transfers import Transfers

if TYPE_CHECKING:
    from .memory import DeviceMemory

_MAX_BLOCK = 1 << 18  # entries of a block: enough rows to fill any device
_BLOCK_SHARE = 0.25  # of free memory for a block of samples or of similarities
_SCRATCH_SHARE = 0.25  # of free memory for the scratch of one kernel
# Of free memory for a piece of an input file, which is decoded beside the columns read before.
_READ_SHARE = 0.15


class CudaBackend:
    """Runs stages on `device`; arrays stay there from reading to writing.

    Copies to and from the host are counted. `memory` allocates device memory for all libraries.
    """

    name: str = "gpu"
    xp: Any = cupy
    sparse: Any = cupyx.scipy.sparse
    n_threads: int = N_WRITING_THREADS
    out_of_memory_errors: tuple[type[BaseException], ...] = (MemoryError,)  # of RMM and CuPy
    scratch_order: str = "F"  # the threads of a warp use neighboring lanes at the same time

    def __init__(self, device: Device, memory: DeviceMemory) -> None:
        self.device = device
        self.out_of_memory_hint = (
            f"Stop other programs on the device, raise {spell_option('gpu-memory-limit')}, "
            f"or build with {spell_option('backend', 'cpu')}."
        )
        self._memory = memory
        self._transfers = Transfers(cupy)
        self._vocabularies: Any = None  # opened by the first writer
        self._n_out_of_memory = 0
        self._lock = Lock()

    def single_threaded(self) -> CudaBackend:
        """Return this backend, with its device made current for the calling thread."""
        cupy.cuda.Device(self.device.index).use()
        return self

    def for_each(self, kernel: RowKernel, n: int, *arrays: Any, lanes: int = 1) -> None:
        """Run `kernel(row, *arrays)`, or `(row, lane, *arrays)`, for every row in 0..n-1."""
        launch.run(kernel, n, *(map_arrays(_as_argument, array) for array in arrays), lanes=lanes)

    def count_lanes(self, lane_bytes: int, n_rows: int) -> int:
        """Return a multiple of a thread block, at least one block, so that lanes are threads."""
        most = self.device.n_multiprocessors * launch.LANES_PER_MULTIPROCESSOR
        lanes = min(most, self._share(_SCRATCH_SHARE) // lane_bytes)
        n_blocks = min(lanes // launch.BLOCK_THREADS, -(-n_rows // launch.BLOCK_THREADS))
        return max(1, n_blocks) * launch.BLOCK_THREADS

    def choose_block_size(self, requested: int, entry_bytes: int) -> int:
        """Return the entries that fit a share of free memory, whatever was requested."""
        return max(1, min(_MAX_BLOCK, self._share(_BLOCK_SHARE) // entry_bytes))

    def hold_arrays(self, folder: Path, available_bytes: int) -> AbstractContextManager[None]:
        """Do nothing: arrays are in device memory, which has a limit of its own."""
        return nullcontext()

    def map_saved(self, arrays: Sequence[tuple[Any, int]], file: int) -> None:
        """Do nothing: what is saved is a copy on the host that is gone then."""

    def reset_counters(self) -> None:
        """Start the counters of memory and copies at zero."""
        self._memory.reset_counters()
        self._transfers.to_device = self._transfers.to_host = self._n_out_of_memory = 0

    def release_memory(self) -> None:
        """Collect garbage after an out-of-memory error, and count it."""
        with self._lock:
            self._n_out_of_memory += 1
        gc.collect()  # cycles, such as a traceback's, may hold arrays

    def read_columns(self, files: Sequence[Path], names: Sequence[str]) -> dict[str, tables.Column]:
        """Read named columns of Parquet files to the device."""
        return tables.read_columns(
            files,
            names,
            piece_bytes=self._share(_READ_SHARE),
            transfers=self._transfers,
        )

    def encode(self, column: tables.Column) -> tuple[Array, pa.Array]:
        """Return codes (n,) int32 and, on the host, the sorted distinct values they index."""
        return tables.encode(column, self._transfers)

    def parse_numbers(self, column: tables.Column) -> tuple[Array, Array]:
        """Return values (n,) float64 and valid (n,) bool."""
        return tables.parse_numbers(column, self._transfers)

    def parse_times(self, column: tables.Column) -> tuple[Array, Array]:
        """Return nanoseconds since 1970 UTC (n,) int64 and valid (n,) bool."""
        return tables.parse_times(column, self._transfers)

    def stable_argsort(self, keys: Array, n_bits: int) -> Array:
        """Return the stable order (n,) int64 of `keys`."""
        return cupy.argsort(keys, kind="stable")

    def find_similar_items(
        self,
        first: int,
        last: int,
        matrix: MatrixByItemAndUser,
        *,
        min_common_users: int,
        top_k: int,
    ) -> tuple[Array, Array, Array, Array]:
        """Find the `top_k` most similar items of each item in first..last-1."""
        row_bytes = similarity.ITEM_BYTES * int(matrix.norms.shape[0])
        most = self.device.n_multiprocessors * similarity.BLOCKS_PER_MULTIPROCESSOR
        n_blocks = max(1, min(most, self._share(_SCRATCH_SHARE) // row_bytes))
        grid = similarity.Grid(cupy, n_blocks, as_argument=_as_argument)
        limits = Limits(min_common_users, top_k, matrix.packed)
        return similarity.find_similar_items(grid, first, last, matrix, limits)

    def build_nearest_search(
        self, vectors: Array, k: int, engine: str
    ) -> tuple[str, Callable[[Array], Array]]:
        """Return the engine that is used and a function that finds nearest vectors."""
        return nearest.build_nearest_search(vectors, k, engine)

    def open_part_writer(
        self, path: Path, schema: pa.Schema, settings: WriterSettings
    ) -> PartWriter:
        """Return a writer of device blocks to one Parquet file."""
        return PartWriter(
            path,
            schema,
            settings,
            vocabularies=self._open_vocabularies(),
            transfers=self._transfers,
            for_each=self.for_each,
        )

    def to_host(self, array: Array) -> np.ndarray:
        """Copy the array to the host; waits for the work that computes it."""
        return self._transfers.download(array)

    def from_host(self, values: Any) -> Array:
        """Copy a NumPy array (or list of numbers) to the device."""
        return self._transfers.upload(values)

    def describe_device(self) -> dict[str, Any]:
        """Return the device, its libraries, the memory budget and the bytes that were copied."""
        return {
            **self.device.describe(),
            "memory_budget_bytes": self._memory.budget,
            "bytes_to_device": self._transfers.to_device,
            "bytes_to_host": self._transfers.to_host,
        }

    def memory_usage(self) -> dict[str, int]:
        """Return the peak of device memory in bytes and the number of out-of-memory errors."""
        return {"peak_bytes": self._memory.peak(), "n_out_of_memory": self._n_out_of_memory}

    def synchronize(self) -> None:
        """Wait until all submitted work is done."""
        cupy.cuda.get_current_stream().synchronize()

    def _open_vocabularies(self) -> Any:
        """Return the vocabularies on the device, which all writers share."""
        # Imported here, so that the rest of this module runs without RAPIDS, as in tests.
        from .libcudf import Vocabularies

        with self._lock:
            if self._vocabularies is None:
                self._vocabularies = Vocabularies()
            return self._vocabularies

    def _share(self, share: float) -> int:
        """Bytes of a share of the free memory."""
        return int(self._memory.free() * share)


def _as_argument(value: Any) -> Any:
    """Return a CuPy array as numba's view of it.

    Both use the default stream, so neither has to wait for the other.
    """
    return cuda.as_cuda_array(value, sync=False) if isinstance(value, cupy.ndarray) else value
