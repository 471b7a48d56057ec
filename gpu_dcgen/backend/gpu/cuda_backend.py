"""CudaBackend: the stages' machine on one NVIDIA GPU."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any, Callable, Sequence

import cupy
import cupyx.scipy.sparse
from numba import cuda
from numba.cuda import config as numba_config

from ...kernels import map_arrays
from . import launch, nearest, similarity, tables
from .device import Device
from .libcudf import Vocabularies
from .memory import DeviceMemory
from .parquet import PartWriter
from .transfers import Transfers

numba_config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # little shops make little grids

_MOST_BLOCK = 1 << 18  # entries of a block: enough rows to fill any device
_BLOCK_SHARE = 0.25  # of free memory for a block of samples or of similarities
_SCRATCH_SHARE = 0.25  # of free memory for the scratch of one kernel
# of free memory for a piece of an input file: it is decoded beside what is kept of those before
_READ_SHARE = 0.15
_LANES_A_MULTIPROCESSOR = 512  # threads with scratch: as many as their registers let run at a time
_ITEMS_A_MULTIPROCESSOR = 8  # thread blocks of `similarity` that run at a time


class CudaBackend:
    """Runs stages on `device`; arrays stay there from reading to writing, and copies are counted."""

    name = "gpu"
    xp = cupy
    sparse = cupyx.scipy.sparse
    n_threads = 1
    out_of_memory_errors = (MemoryError,)  # of RMM and CuPy
    out_of_memory_hint = (
        "Stop what else runs on the device, raise --gpu-memory-limit, or build with --backend cpu."
    )
    scratch_order = "F"  # threads of a warp work side by side on their lanes

    def __init__(self, device: Device, memory_limit: int | None = None) -> None:
        self.device = device
        self._memory = DeviceMemory(memory_limit)
        self._transfers = Transfers(cupy)
        self._vocabularies = Vocabularies()
        self._n_exhausted = 0

    def single_threaded(self) -> "CudaBackend":
        cupy.cuda.Device(self.device.index).use()  # each thread has a current device of its own
        return self

    def for_each(self, kernel: Any, n: int, *arrays: Any, lanes: int = 1) -> None:
        launch.run(kernel, n, *(map_arrays(_argument, array) for array in arrays), lanes=lanes)

    def lanes(self, lane_bytes: int) -> int:
        """A multiple of a thread block, so that every lane gets a thread; one block when memory holds no more."""
        most = self.device.n_multiprocessors * _LANES_A_MULTIPROCESSOR
        lanes = min(most, int(self._memory.free() * _SCRATCH_SHARE) // lane_bytes)
        return max(1, lanes // launch.BLOCK_THREADS) * launch.BLOCK_THREADS

    def block_size(self, asked: int, entry_bytes: int) -> int:
        return max(1, min(_MOST_BLOCK, int(self._memory.free() * _BLOCK_SHARE) // entry_bytes))

    def reset_counters(self) -> None:
        self._memory.reset_counters()
        self._transfers.to_device = self._transfers.to_host = self._n_exhausted = 0

    def release_memory(self) -> None:
        self._n_exhausted += 1
        gc.collect()  # cycles, a traceback's among them, may hold arrays

    def read_columns(self, files: Sequence[Path], names: Sequence[str]) -> dict[str, Any]:
        return tables.read_columns(
            files,
            names,
            piece_bytes=int(self._memory.free() * _READ_SHARE),
            transfers=self._transfers,
        )

    def encode(self, column: Any) -> tuple[Any, Any]:
        return tables.encode(column, self._transfers)

    def numbers(self, column: Any) -> tuple[Any, Any]:
        return tables.numbers(column, self._transfers)

    def times(self, column: Any) -> tuple[Any, Any]:
        return tables.times(column, self._transfers)

    def stable_order(self, keys: Any, n_bits: int) -> Any:
        return cupy.argsort(keys, kind="stable")

    def similarity_block(
        self, first: int, last: int, by_item: Any, by_user: Any, norms: Any, **limits: int
    ) -> Any:
        row_bytes = similarity.ITEM_BYTES * int(norms.shape[0])
        most = self.device.n_multiprocessors * _ITEMS_A_MULTIPROCESSOR
        n_blocks = max(1, min(most, int(self._memory.free() * _SCRATCH_SHARE) // row_bytes))
        return similarity.similarity_block(
            cupy, n_blocks, first, last, by_item, by_user, norms, **limits, hand_over=_argument
        )

    def nearest(self, vectors: Any, k: int, engine: str) -> tuple[str, Callable[[Any], Any]]:
        return nearest.nearest(vectors, k, engine)

    def part_writer(self, path: Path, schema: Any, settings: Any) -> PartWriter:
        return PartWriter(
            path, schema, settings, vocabularies=self._vocabularies, transfers=self._transfers
        )

    def to_host(self, array: Any) -> Any:
        return self._transfers.download(array)

    def from_host(self, values: Any) -> Any:
        return self._transfers.upload(values)

    def versions(self) -> dict[str, Any]:
        moved = {
            "bytes_to_device": self._transfers.to_device,
            "bytes_to_host": self._transfers.to_host,
        }
        return {**self.device.describe(), "memory_budget_bytes": self._memory.budget, **moved}

    def memory(self) -> dict[str, int]:
        return {"peak_bytes": self._memory.peak(), "exhausted": self._n_exhausted}

    def synchronize(self) -> None:
        cupy.cuda.get_current_stream().synchronize()


def _argument(value: Any) -> Any:
    """A CuPy array as numba's view of it. Both work on the default stream, so neither waits for the other."""
    return cuda.as_cuda_array(value, sync=False) if isinstance(value, cupy.ndarray) else value
