"""First operations on a device, one for each library that a build runs kernels with.

Each shows what a build would otherwise find out later: CuPy needs NVRTC, numba-cuda needs NVVM and
a NumPy that it knows, libcudf needs code for the device's architecture. `device` runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cupy
import pyarrow as pa
import pylibcudf as plc
from numba import cuda

from . import launch, libcudf


@dataclass(frozen=True)
class Operation:
    """Something small to compute on the device, and its result."""

    description: str
    run: Callable[[], Any]
    expected: Any


def _sum_with_cupy() -> int:
    return int((cupy.arange(4) ** 2 + 1).sum())


@cuda.jit
def _number_threads(numbers):
    """Write each thread's position to `numbers` (threads,) int64."""
    thread = cuda.grid(1)
    if thread < numbers.shape[0]:
        numbers[thread] = thread


def _number_with_numba() -> list[int]:
    numbers = cupy.zeros(4, dtype=cupy.int64)
    _number_threads[1, launch.BLOCK_THREADS](cuda.as_cuda_array(numbers, sync=False))
    return numbers.tolist()


def _encode_with_libcudf() -> list[int]:
    strings = plc.Column.from_arrow(pa.array(["b", "a", "b"]))
    codes, _ = libcudf.encode_strings(strings, cupy)
    return codes.tolist()


OPERATIONS = (
    Operation("compiling and running a first kernel with CuPy", _sum_with_cupy, 18),
    Operation(
        "compiling and running a first kernel with numba-cuda", _number_with_numba, [0, 1, 2, 3]
    ),
    Operation("encoding first strings with libcudf", _encode_with_libcudf, [1, 0, 1]),
)
