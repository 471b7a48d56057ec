"""The CPU machine: NumPy, SciPy, numba and pyarrow behind the interface of `gpu_dcgen.backend.Backend`.

It imports nothing of `gpu_dcgen`: kernels, blocks and settings are handed in and used by their attributes.
"""

from __future__ import annotations

import platform
import resource
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Sequence

import numpy as np
import psutil
import scipy.sparse

from . import kernel_cache

kernel_cache.watch(Path(__file__).parent)  # before any function is compiled

from . import tables  # noqa: E402
from .nearest import nearest_vectors  # noqa: E402
from .parquet import PartWriter  # noqa: E402
from .sorting import stable_order  # noqa: E402
from .vectors import similarity_block  # noqa: E402

_CHUNKS_PER_THREAD = 8  # rows differ in work: small chunks keep all threads busy to the end
_BLOCK_SHARE = 0.5  # of what a memory limit leaves when blocks begin
_LEAST_ROWS = 2048  # fewer rows are not worth a hand-over


class NumpyBackend:
    """Runs stages on the host with `n_threads` threads; compiled loops hold no GIL. `memory_limit` bytes size blocks."""

    name = "cpu"
    xp = np
    sparse = scipy.sparse
    out_of_memory_errors = (MemoryError,)
    out_of_memory_hint = (
        "Free memory, lower resources.batch_size or resources.chunk_size, or take a bigger machine."
    )
    scratch_order = "C"

    def __init__(self, n_threads: int = 1, memory_limit: int | None = None) -> None:
        self.n_threads, self._memory_limit, self._n_exhausted = n_threads, memory_limit, 0
        self._pool = ThreadPoolExecutor(n_threads, "rows") if n_threads > 1 else None

    def single_threaded(self) -> "NumpyBackend":
        return NumpyBackend(1)

    def for_each(self, kernel: Any, n: int, *arrays: np.ndarray, lanes: int = 1) -> None:
        if not kernel.scratch:
            self.in_chunks(lambda start, stop, lane: kernel.loop(start, stop, *arrays), n)
        elif lanes < self.n_threads:
            raise ValueError(f"{lanes} lanes of scratch for {self.n_threads} threads")
        else:
            self.in_chunks(lambda start, stop, lane: kernel.loop(start, stop, lane, *arrays), n)

    def lanes(self, lane_bytes: int) -> int:
        return self.n_threads

    def block_size(self, asked: int, entry_bytes: int) -> int:
        if self._memory_limit is None:
            return asked
        room = self._memory_limit - psutil.Process().memory_info().rss
        return max(1, min(asked, int(room * _BLOCK_SHARE) // entry_bytes))

    def reset_counters(self) -> None:
        self._n_exhausted = 0

    def release_memory(self) -> None:
        self._n_exhausted += 1

    def in_chunks(self, work: Any, n: int, least: int = _LEAST_ROWS) -> None:
        """Call work(start, stop, lane) over 0..n-1: each lane is one thread that takes the next chunk when it is free."""
        if self._pool is None or n < 2 * least:
            work(0, n, 0)
            return
        size = max(least, -(-n // (self.n_threads * _CHUNKS_PER_THREAD)))
        chunks = iter(range(0, n, size))  # next() on it is atomic under the GIL

        def lane_of_work(lane: int) -> None:
            try:
                for start in chunks:
                    work(start, min(n, start + size), lane)
            except BaseException:
                deque(chunks, maxlen=0)  # leave the other lanes nothing
                raise

        for done in [self._pool.submit(lane_of_work, lane) for lane in range(self.n_threads)]:
            done.result()

    def in_parts(self, work: Any, n_parts: int) -> None:
        """Call work(part) for 0..n_parts-1, side by side where there are threads."""
        if self._pool is None:
            for part in range(n_parts):
                work(part)
        else:
            list(self._pool.map(work, range(n_parts)))

    def read_columns(self, files: Sequence[Path], names: Sequence[str]) -> dict[str, Any]:
        return tables.read_columns(files, names)

    def encode(self, column: Any) -> tuple[np.ndarray, Any]:
        return tables.encode(column)

    def numbers(self, column: Any) -> tuple[np.ndarray, np.ndarray]:
        return tables.numbers(column)

    def times(self, column: Any) -> tuple[np.ndarray, np.ndarray]:
        return tables.times(column)

    def stable_order(self, keys: np.ndarray, n_bits: int) -> np.ndarray:
        return stable_order(self, keys, n_bits)

    def similarity_block(
        self, first: int, last: int, by_item: Any, by_user: Any, norms: np.ndarray, **limits: int
    ) -> Any:
        return similarity_block(self, first, last, by_item, by_user, norms, **limits)

    def nearest(
        self, vectors: np.ndarray, k: int, engine: str
    ) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
        return nearest_vectors(self, vectors, k, engine)

    def part_writer(self, path: Path, schema: Any, settings: Any) -> PartWriter:
        return PartWriter(path, schema, settings)

    def to_host(self, array: Any) -> np.ndarray:
        return np.asarray(array)

    def from_host(self, values: Any) -> np.ndarray:
        return np.asarray(values)

    def versions(self) -> dict[str, Any]:
        return {"device": platform.processor() or platform.machine(), "threads": self.n_threads}

    def memory(self) -> dict[str, int]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "peak_bytes": peak if sys.platform == "darwin" else peak * 1024,
            "exhausted": self._n_exhausted,
        }

    def synchronize(self) -> None:
        return None
