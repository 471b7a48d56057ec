"""NumpyBackend: the operations of a build on the CPU."""

from __future__ import annotations

import errno
import os
import platform
import resource
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from . import tables, vectors
from .file_columns import FileColumn, read_columns
from .large_arrays import LargeArrays, find_large_arrays
from .memory import AnonymousMemory, retain_freed_memory
from .nearest import build_nearest_search
from .part_writer import PartWriter
from .sorting import stable_argsort

_CHUNKS_PER_THREAD = 8  # rows differ in work: small chunks keep all threads busy to the end
_BLOCK_SHARE = 0.5  # of what a memory limit leaves when blocks begin
_MIN_BLOCK = 256  # entries
# Of what it leaves when stages begin, for columns and blocks; the rest is for large arrays.
_RESERVED_SHARE, _MAX_RESERVED_BYTES = 0.4, 2 << 30


class NumpyBackend:
    """Runs stages on the host; compiled loops hold no GIL.

    `n_threads` threads run kernels, and `memory_limit` (bytes) bounds the size of blocks.
    """

    name: str = "cpu"
    xp: Any = np
    out_of_memory_errors: tuple[type[BaseException], ...] = (MemoryError,)
    out_of_memory_hint: str = (
        "Free memory, lower resources.batch_size or resources.chunk_size, or use a larger machine."
    )
    scratch_order: str = "C"

    def __init__(self, n_threads: int = 1, memory_limit: int | None = None) -> None:
        self.n_threads = n_threads
        self._memory_limit = memory_limit
        self._n_out_of_memory = 0
        self._memory = AnonymousMemory()
        self._large_arrays: LargeArrays | None = None
        self._held_bytes: int | None = None  # limit of all memory while arrays are held
        self._pool = ThreadPoolExecutor(n_threads, "rows") if n_threads > 1 else None

    @property
    def sparse(self) -> Any:
        """scipy.sparse, imported when it is asked for: most builds do without."""
        import scipy.sparse

        return scipy.sparse

    def single_threaded(self) -> NumpyBackend:
        """Return a backend that runs kernels on the calling thread."""
        return NumpyBackend(1)

    def for_each(self, kernel: Any, n: int, *arrays: Any, lanes: int = 1) -> None:
        """Run `kernel(row, *arrays)`, or `(row, lane, *arrays)`, for every row in 0..n-1."""
        if kernel.scratch and lanes < self.n_threads:
            raise ValueError(f"{lanes} lanes of scratch for {self.n_threads} threads")

        def work(start: int, stop: int, lane: int) -> None:
            kernel.loop(start, stop, *((lane,) if kernel.scratch else ()), *arrays)

        self.in_chunks(work, n, kernel.min_rows)

    def count_lanes(self, lane_bytes: int, n_rows: int) -> int:
        """Return one lane a thread."""
        return self.n_threads

    def choose_block_size(self, requested: int, entry_bytes: int) -> int:
        """Return `requested` entries, or with a limit those that fit half of what it leaves.

        But not so few that their calls take longer than their work. Saved arrays make room first.
        """
        if self._held_bytes is not None and self._large_arrays is not None:
            room = self._held_bytes - self._memory.measure()
            missing = int(requested * entry_bytes / _BLOCK_SHARE) - room
            if missing > 0:
                self._large_arrays.release_saved(missing)
        if self._memory_limit is None:
            return requested
        room = self._memory_limit - self._memory.measure()
        return min(requested, max(_MIN_BLOCK, int(room * _BLOCK_SHARE) // entry_bytes))

    @contextmanager
    def hold_arrays(self, folder: Path, available_bytes: int) -> Iterator[None]:
        """Keep this thread's arrays within the limit: beyond it, large ones are files in `folder`.

        `available_bytes` is the limit where the backend has none. OSError where the disk is full.
        """
        large_arrays = find_large_arrays()
        if large_arrays is None or large_arrays.is_open:
            yield
            return
        limit = min(available_bytes, self._memory_limit or available_bytes)
        room = max(0, limit - self._memory.measure())
        room -= min(int(room * _RESERVED_SHARE), _MAX_RESERVED_BYTES)
        self._large_arrays, self._held_bytes = large_arrays, limit
        with retain_freed_memory(), self._memory.watch(), large_arrays.open(folder, room):
            try:
                yield
            except MemoryError as error:
                if large_arrays.is_disk_full:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
                raise

    def map_saved(self, arrays: Sequence[tuple[npt.NDArray[Any], int]], file: int) -> None:
        """Let a file serve as the memory of large arrays, of the last first, as soon as needed."""
        large_arrays = self._large_arrays
        if large_arrays is None or not large_arrays.is_open:
            return
        if large_arrays.is_memory_short:
            os.fsync(file)  # here, where no thread waits for it
        for array, offset in reversed(arrays):
            large_arrays.note_saved(array, file, offset)

    def reset_counters(self) -> None:
        """Start counting `release_memory` at zero; the peak of a process cannot be reset."""
        self._n_out_of_memory = 0

    def release_memory(self) -> None:
        """Count an out-of-memory error; there is nothing to free."""
        self._n_out_of_memory += 1

    def in_chunks(self, work: Callable[[int, int, int], None], n: int, min_rows: int) -> None:
        """Call work(start, stop, lane) over 0..n-1; a lane is a thread that takes free chunks."""
        if self._pool is None or n < 2 * min_rows:
            work(0, n, 0)
            return
        size = max(min_rows, -(-n // (self.n_threads * _CHUNKS_PER_THREAD)))
        chunks = iter(range(0, n, size))  # next() on it is atomic under the GIL

        def run_lane(lane: int) -> None:
            try:
                for start in chunks:
                    work(start, min(n, start + size), lane)
            except BaseException:
                deque(chunks, maxlen=0)  # leave the other lanes nothing
                raise

        for future in [self._pool.submit(run_lane, lane) for lane in range(self.n_threads)]:
            future.result()

    def in_parts(self, work: Callable[[int], None], n_parts: int) -> None:
        """Call work(part) for 0..n_parts-1, in parallel if there are threads."""
        if self._pool is None:
            for part in range(n_parts):
                work(part)
        else:
            list(self._pool.map(work, range(n_parts)))

    def read_columns(self, files: Sequence[Path], names: Sequence[str]) -> dict[str, FileColumn]:
        """Open named columns of Parquet files, which are read as they are converted."""
        return read_columns(files, names)

    def encode(self, column: tables.Column) -> tuple[np.ndarray, pa.Array]:
        """Return codes (n,) int32 and the sorted distinct values that they index."""
        return tables.encode(column)

    def parse_numbers(self, column: tables.Column) -> tuple[np.ndarray, np.ndarray]:
        """Return values (n,) float64 and valid (n,) bool."""
        return tables.parse_numbers(column)

    def parse_times(self, column: tables.Column) -> tuple[np.ndarray, np.ndarray]:
        """Return nanoseconds since 1970 UTC (n,) int64 and valid (n,) bool."""
        return tables.parse_times(column)

    def stable_argsort(self, keys: np.ndarray, n_bits: int) -> np.ndarray:
        """Return the stable order (n,) int64 of `keys`, all in 0..2^n_bits - 1."""
        return stable_argsort(self, keys, n_bits)

    def find_similar_items(
        self, first: int, last: int, matrix: Any, *, min_common_users: int, top_k: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Find the `top_k` most similar items of each item in first..last-1."""
        return vectors.find_similar_items(self, first, last, matrix, min_common_users, top_k)

    def build_nearest_search(
        self, vectors: np.ndarray, k: int, engine: str
    ) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
        """Return the engine that is used and a function that finds nearest vectors."""
        return build_nearest_search(self, vectors, k, engine)

    def open_part_writer(self, path: Path, schema: pa.Schema, settings: Any) -> PartWriter:
        """Return a writer of blocks to one Parquet file."""
        return PartWriter(path, schema, settings)

    def to_host(self, array: Any) -> np.ndarray:
        """Return the array itself."""
        return np.asarray(array)

    def from_host(self, values: Any) -> np.ndarray:
        """Return the values as an array."""
        return np.asarray(values)

    def describe_device(self) -> dict[str, Any]:
        """Return the processor and the number of threads, for the manifest."""
        return {"device": platform.processor() or platform.machine(), "threads": self.n_threads}

    def memory_usage(self) -> dict[str, int]:
        """Return the peak of this process in bytes and the number of out-of-memory errors.

        Where arrays were in files, their pages do not count: the kernel can write them back.
        """
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak_bytes = peak if sys.platform == "darwin" else peak * 1024
        large_arrays = self._large_arrays
        if large_arrays is not None and (large_arrays.file_bytes or large_arrays.n_mapped):
            peak_bytes = self._memory.peak_bytes
        return {"peak_bytes": peak_bytes, "n_out_of_memory": self._n_out_of_memory}

    def synchronize(self) -> None:
        """Do nothing: work is done when a call returns."""
