"""Row kernels as CUDA grids: a thread a row, and for kernels with scratch a thread a lane.

The kernels are those of `gpu_dcgen.kernels`, compiled by numba-cuda from the functions as written. Only numba is named
here, so that its CUDA simulator runs this file too.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from numba import cuda

from ...kernels import RowKernel, recompiled

BLOCK_THREADS = 128  # a multiple of a warp; small, because most kernels need many registers
MOST_BLOCKS = 1 << 16  # grids are strided: more blocks than the device holds at a time buy nothing


def run(
    kernel: RowKernel, n: int, *arrays: Any, lanes: int, block_threads: int = BLOCK_THREADS
) -> None:
    """Launch `kernel` over rows 0..n-1; a kernel with scratch on exactly `lanes` threads at most."""
    if n == 0:
        return
    threads = min(block_threads, lanes) if kernel.scratch else block_threads
    n_blocks = lanes // threads if kernel.scratch else MOST_BLOCKS
    grid_of(kernel)[min(n_blocks, -(-n // threads)), threads](n, *arrays)


@functools.cache
def grid_of(kernel: RowKernel) -> Any:
    """The kernel with its grid-strided loop over rows, to be compiled at its first launch for each set of types."""
    name, device = kernel.python.__name__, recompiled(kernel.python, cuda.jit(device=True))
    first, *names = inspect.signature(kernel.python).parameters
    lane = names.pop(0) if kernel.scratch else ""
    arrays = ", ".join(names)
    source = f"""
def {name}_grid(n_rows, {arrays}):
    thread = cuda.grid(1)
    for {first} in range(thread, n_rows, cuda.gridsize(1)):
        {name}({first}, {"thread, " if lane else ""}{arrays})
"""
    scope = {"cuda": cuda, name: device}
    exec(source, scope)
    return cuda.jit(scope[f"{name}_grid"])
