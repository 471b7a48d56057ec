"""Which machine a build runs on, and why."""

from __future__ import annotations

import functools

from ..errors import BackendError, spell_option
from .protocol import Backend


def select_backend(
    name: str = "auto",
    *,
    n_threads: int = 1,
    memory_limit: int | None = None,
    gpu_memory_limit: int | None = None,
) -> tuple[Backend, str]:
    """Open the backend called `name` and say why it was taken.

    `auto` takes the GPU when RAPIDS is installed and a device runs a first kernel; `gpu` without one raises BackendError
    with the exact reason (D24: never silently the CPU).
    """
    if name not in ("auto", "cpu", "gpu"):
        raise BackendError(f"unknown backend {name!r}; expected auto, cpu or gpu.")
    reason = "asked for"
    if name != "cpu":
        try:
            return _open_gpu(gpu_memory_limit), reason if name == "gpu" else "a CUDA device answers"
        except BackendError as error:
            if name == "gpu":
                raise BackendError(f"{spell_option('backend', 'gpu')}: {error}") from error
            reason = f"no GPU: {str(error).splitlines()[0].rstrip('.')}"
    from cpu_fallback import NumpyBackend

    return NumpyBackend(n_threads=n_threads, memory_limit=memory_limit), reason


@functools.cache
def _open_gpu(memory_limit: int | None) -> Backend:
    """One a process and limit: it takes over the allocators of all libraries."""
    from .gpu.device import find_device

    device = find_device()
    try:
        from .gpu.cuda_backend import CudaBackend

        return CudaBackend(device, memory_limit)
    except (ImportError, RuntimeError) as error:
        raise BackendError(
            f"{device.name} cannot be used: {type(error).__name__}: {error}"
        ) from error
