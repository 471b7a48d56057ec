"""Device memory: one RMM pool for all libraries, with a limit and a peak."""

from __future__ import annotations

import functools
from typing import Any

import cupy
import rmm
from rmm.allocators.cupy import rmm_cupy_allocator

from ...errors import BackendError

_USABLE_SHARE = 0.95  # of what is free
_SPARED_BYTES = 1 << 30  # at least: CUDA loads kernels and libraries as they are first used
LEAST_BYTES = 1 << 30


class DeviceMemory:
    """A stream-ordered pool behind CuPy, cuDF and numba; `limit` bytes at most, else what is free when it is made.

    Never managed memory: where it does not fit, an error comes that the build answers by smaller blocks.
    """

    def __init__(self, limit: int | None) -> None:
        pool, free, total = _pool()
        usable = min(int(free * _USABLE_SHARE), free - _SPARED_BYTES)
        self.budget = usable if limit is None else min(limit, usable)
        if self.budget < LEAST_BYTES:
            raise BackendError(
                f"{self.budget / 2**30:.2f} GiB of {total / 2**30:.1f} GiB device memory may be used; 1 GiB is the least.\n"
                "Raise --gpu-memory-limit, or stop what else runs on the device."
            )
        self._statistics = rmm.mr.StatisticsResourceAdaptor(pool)
        self._limited = rmm.mr.LimitingResourceAdaptor(self._statistics, self.budget)
        self._held = 0
        rmm.mr.set_current_device_resource(self._limited)
        cupy.cuda.set_allocator(_allocate)

    def free(self) -> int:
        """Bytes that are left of the budget."""
        return self.budget - self._limited.get_allocated_bytes()

    def peak(self) -> int:
        """The most bytes that were held at a time since `begin`."""
        return self._held + self._statistics.allocation_counts.peak_bytes

    def reset_counters(self) -> None:
        """Let the peak start anew, from what is held now."""
        self._held = self._limited.get_allocated_bytes()
        self._statistics.push_counters()  # which count from zero


@functools.cache
def _pool() -> tuple[Any, int, int]:
    """The process's pool, and the free and total memory of the device before it: what a pool has held it keeps."""
    free, total = rmm.mr.available_device_memory()
    return rmm.mr.CudaAsyncMemoryResource(), free, total


def _allocate(n_bytes: int) -> Any:
    """RMM's memory for CuPy, which falls back to smaller workspaces on an error of its own class only."""
    try:
        return rmm_cupy_allocator(n_bytes)
    except MemoryError as error:
        raise cupy.cuda.memory.OutOfMemoryError(n_bytes, -1) from error
