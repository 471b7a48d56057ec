"""Select the backend that a build runs on."""

from __future__ import annotations

import functools
import warnings

from ..errors import BackendError, spell_option
from .protocol import Backend


def select_backend(
    name: str = "auto",
    *,
    n_threads: int = 1,
    memory_limit: int | None = None,
    gpu_memory_limit: int | None = None,
) -> tuple[Backend, str]:
    """Open the backend called `name`, and return it with the reason for its choice.

    `auto` is the GPU if RAPIDS is installed and a device runs first operations, else the CPU,
    whatever the GPU's libraries raise. `gpu` without a device raises BackendError with the exact
    reason (D24: never silently the CPU).
    """
    if name not in ("auto", "cpu", "gpu"):
        raise BackendError(f"unknown backend {name!r}; expected auto, cpu or gpu.")
    reason = "requested"
    if name != "cpu":
        try:
            backend = _open_gpu(gpu_memory_limit)
            return backend, reason if name == "gpu" else "a CUDA device is available"
        except BackendError as error:
            if name == "gpu":
                raise BackendError(f"{spell_option('backend', 'gpu')}: {error}") from error
            reason = f"no GPU: {str(error).splitlines()[0].rstrip('.')}"
    from cpu_fallback import NumpyBackend

    return NumpyBackend(n_threads=n_threads, memory_limit=memory_limit), reason


@functools.cache
def _open_gpu(memory_limit: int | None) -> Backend:
    """Open the GPU, once a process and limit: it takes over the allocators of all libraries."""
    from .gpu.device import find_device, quote_error

    try:
        device = find_device()
        with warnings.catch_warnings():
            # As in `find_device`: what libraries deprecate is no reason to refuse a device.
            warnings.simplefilter("ignore", DeprecationWarning)
            from .gpu.cuda_backend import CudaBackend
            from .gpu.memory import DeviceMemory

            return CudaBackend(device, DeviceMemory(memory_limit))
    except BackendError:
        raise
    except Exception as error:
        raise BackendError(f"the GPU cannot be used: {quote_error(error)}") from error
