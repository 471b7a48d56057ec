"""Device memory: one RMM pool for all libraries, with a limit and a peak."""

from __future__ import annotations

import cupy
import rmm
from rmm.allocators.cupy import rmm_cupy_allocator

from ..errors import BackendError

_USABLE_SHARE = 0.95  # of what is free: CUDA keeps some for kernels and libraries
LEAST_BYTES = 1 << 30


class DeviceMemory:
    """A stream-ordered pool behind CuPy, cuDF and numba; `limit` bytes at most, else what is free when it is made.

    Never managed memory: where it does not fit, an error comes that the build answers by smaller blocks.
    """

    def __init__(self, limit: int | None) -> None:
        free, total = rmm.mr.available_device_memory()
        self.budget = int(free * _USABLE_SHARE) if limit is None else min(limit, int(free * _USABLE_SHARE))
        if self.budget < LEAST_BYTES:
            raise BackendError(
                f"{self.budget / 2**30:.2f} GiB of {total / 2**30:.1f} GiB device memory may be used; 1 GiB is the least.\n"
                "Raise --gpu-memory-limit, or stop what else runs on the device."
            )
        limited = rmm.mr.LimitingResourceAdaptor(rmm.mr.CudaAsyncMemoryResource(), self.budget)
        self._statistics = rmm.mr.StatisticsResourceAdaptor(limited)
        rmm.mr.set_current_device_resource(self._statistics)
        cupy.cuda.set_allocator(rmm_cupy_allocator)

    def free(self) -> int:
        """Bytes that are left of the budget."""
        return self.budget - self._statistics.allocation_counts.current_bytes

    def peak(self) -> int:
        """The most bytes that were held at a time."""
        return self._statistics.allocation_counts.peak_bytes
