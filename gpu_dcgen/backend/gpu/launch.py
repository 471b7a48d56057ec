"""Run row kernels as CUDA grids: a thread a row, or a lane for kernels with scratch.

The kernels are those of `gpu_dcgen.kernels`, compiled by numba-cuda from the functions as written.
Machine code stays on disk until any source changes: compiling takes longer than most builds.
Only numba is imported here, so that kernels compile where there is no CuPy.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import warnings
from pathlib import Path
from threading import Lock
from types import FunctionType
from typing import Any

from numba import cuda
from numba.cuda import config as numba_config

from cpu_fallback import kernel_cache

from ...kernels import RowKernel, recompiled

BLOCK_THREADS = 128  # a multiple of a warp; small, because most kernels need many registers
# Threads with scratch. The registers of every kernel let so many run, of 65,536 a multiprocessor.
LANES_PER_MULTIPROCESSOR = 512
# Grids are strided: blocks beyond those that the device holds at a time gain nothing.
MAX_BLOCKS = 1 << 16
# Small datasets make small grids.
numba_config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # type: ignore[attr-defined]  # set at import


def _install_cache() -> bool:
    """Let numba-cuda cache kernels by all their sources; warn and cache none if it cannot.

    Its own cache would reuse a kernel after a change of a helper in another file. numba's former
    CUDA target, which is there without numba-cuda, is only good for importing this module.
    """
    if importlib.util.find_spec("numba_cuda") is None:
        return False
    try:
        from numba.cuda.core import caching

        kernel_cache.add_locator(caching, caching.CacheImpl, Path(__file__).parent)
    except (AttributeError, ImportError, TypeError) as error:
        warnings.warn(
            f"numba-cuda caches compiled kernels in another way than expected ({error}): "
            "each process compiles them again, for a minute or more.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


CAN_CACHE = _install_cache()
_LAUNCHING = Lock()


def run(kernel: RowKernel, n: int, *arrays: Any, lanes: int) -> None:
    """Launch `kernel` over rows 0..n-1, on at most `lanes` threads if it has scratch."""
    if n == 0:
        return
    threads = min(BLOCK_THREADS, lanes) if kernel.scratch else BLOCK_THREADS
    n_blocks = lanes // threads if kernel.scratch else MAX_BLOCKS
    with _LAUNCHING:  # or two threads would compile the same kernel
        build_grid(kernel)[min(n_blocks, -(-n // threads)), threads](n, *arrays)


@functools.cache
def build_grid(kernel: RowKernel) -> Any:
    """Return the kernel with a grid-strided loop over rows, compiled for each set of types."""
    function = kernel.python
    assert isinstance(function, FunctionType)
    name, device_function = function.__name__, recompiled(function, cuda.jit(device=True))
    first, *names = inspect.signature(function).parameters
    lane = names.pop(0) if kernel.scratch else ""
    arrays = ", ".join(names)
    # numba-cuda compiles no function with `*arrays`, so each kernel gets a loop of its own.
    source = f"""
def {name}_grid(n_rows, {arrays}):
    thread = cuda.grid(1)
    for {first} in range(thread, n_rows, cuda.gridsize(1)):
        {name}({first}, {"thread, " if lane else ""}{arrays})
"""
    scope = {"cuda": cuda, name: device_function}
    exec(source, scope)
    grid = scope[f"{name}_grid"]
    # Placed in its kernel's file: the cache keeps functions by file and line.
    origin = function.__code__
    grid.__code__ = grid.__code__.replace(
        co_filename=origin.co_filename, co_firstlineno=origin.co_firstlineno
    )
    return cuda.jit(grid, cache=CAN_CACHE)
