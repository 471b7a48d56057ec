"""Allocate device memory for all libraries from one RMM pool with a limit and a peak."""

from __future__ import annotations

import functools
from typing import Any

import cupy
import rmm
from rmm.allocators.cupy import rmm_cupy_allocator

from ...errors import BackendError, spell_option

_USABLE_SHARE = 0.95  # of free memory
_MIN_SPARE_BYTES = 1 << 30  # CUDA loads kernels and libraries when they are first used
MIN_BUDGET_BYTES = 1 << 30


class DeviceMemory:
    """A stream-ordered pool behind CuPy, cuDF and numba, of at most `limit` bytes.

    Without a limit, most of the memory that is free at the start. Never managed memory: an
    allocation that does not fit raises an error, and the build continues with smaller blocks.
    """

    def __init__(self, limit: int | None) -> None:
        pool, free, total = _create_pool()
        usable = min(int(free * _USABLE_SHARE), free - _MIN_SPARE_BYTES)
        self.budget = usable if limit is None else min(limit, usable)
        if self.budget < MIN_BUDGET_BYTES:
            raise BackendError(
                f"{self.budget / 2**30:.2f} GiB of {total / 2**30:.1f} GiB device memory may be "
                "used; at least 1 GiB is needed.\n"
                f"Raise {spell_option('gpu-memory-limit')}, or stop other processes on the device."
            )
        self._statistics = rmm.mr.StatisticsResourceAdaptor(pool)
        self._limited = rmm.mr.LimitingResourceAdaptor(self._statistics, self.budget)
        self._allocated_at_reset = 0
        rmm.mr.set_current_device_resource(self._limited)
        cupy.cuda.set_allocator(_allocate)

    def free(self) -> int:
        """Return the bytes that are left of the budget."""
        return self.budget - self._limited.get_allocated_bytes()

    def peak(self) -> int:
        """Return the most bytes that were allocated at a time since `reset_counters`."""
        return self._allocated_at_reset + self._statistics.allocation_counts.peak_bytes

    def reset_counters(self) -> None:
        """Reset the peak to what is allocated now."""
        self._allocated_at_reset = self._limited.get_allocated_bytes()
        self._statistics.push_counters()  # these start at zero


@functools.cache
def _create_pool() -> tuple[Any, int, int]:
    """Return the pool of this process, and the device's free and total memory before it.

    Once a process: a pool does not return its memory to the device.
    """
    free, total = rmm.mr.available_device_memory()
    return rmm.mr.CudaAsyncMemoryResource(), free, total


def _allocate(n_bytes: int) -> Any:
    """Allocate memory of RMM for CuPy.

    CuPy tries a smaller workspace only after an error of its own class.
    """
    try:
        return rmm_cupy_allocator(n_bytes)
    except MemoryError as error:
        raise cupy.cuda.memory.OutOfMemoryError(n_bytes, -1) from error
