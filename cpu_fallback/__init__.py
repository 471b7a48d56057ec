"""The CPU backend: NumPy, SciPy, numba and pyarrow behind `gpu_dcgen.backend.Backend`.

This package imports nothing of `gpu_dcgen`: kernels, blocks and settings are passed in and used
by their attributes.
"""

# `kernel_cache` comes first: it has to be installed before any function is compiled.
from . import kernel_cache
from .backend import NumpyBackend
from .part_writer import PartWriter

__all__ = ["NumpyBackend", "PartWriter", "kernel_cache"]
