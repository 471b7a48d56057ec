"""A driver that is faked for the real libraries of RAPIDS: what asks the device is answered here.

Only names that exist in the libraries can be replaced. numba-cuda compiles its kernels with NVVM;
RMM's resources are its own, over memory of the host.
"""

from __future__ import annotations

import ctypes
import types
from typing import Any

import cupy
import numpy as np
import pylibcudf as plc
import rmm
from numba import cuda
from numba.cuda import dispatcher
from numba.cuda.cudadrv import devices
from rmm.pylibrmm.memory_resource import _memory_resource

from tests.gpu.device_properties import PROPERTIES

FREE_BYTES, TOTAL_BYTES = 70 << 30, 80 << 30


class FakedDriver:
    """Answers for one device; `compiled` has the PTX of the kernels that were launched."""

    def __init__(self, patch: Any) -> None:
        self.patch, self.compiled = patch, []
        self._answer_for_cupy()
        self._answer_for_numba()
        self._answer_for_libcudf()
        self._answer_for_rmm()

    def _answer_for_cupy(self) -> None:
        load = ctypes.CDLL
        self.patch.setattr(
            ctypes, "CDLL", lambda name, *a, **k: name == "libcuda.so.1" or load(name, *a, **k)
        )
        answers = {
            "getDeviceCount": lambda: 1,
            "getDevice": lambda: 0,
            "getDeviceProperties": lambda index: PROPERTIES,
            "driverGetVersion": lambda: 13010,
        }
        for name, answer in answers.items():
            self.patch.setattr(cupy.cuda.runtime, name, answer)
        self.patch.setattr(cupy, "arange", np.arange)
        self.patch.setattr(cupy, "zeros", np.zeros)
        self.patch.setattr(cupy, "asarray", np.asarray)

    def _answer_for_numba(self) -> None:
        """Let numba compile for the device, and run what it compiles as Python."""
        device = types.SimpleNamespace(compute_capability=(9, 0))
        self.patch.setattr(dispatcher, "get_current_device", lambda: device)
        context = types.SimpleNamespace(device=device)
        self.patch.setattr(devices, "get_context", lambda: context)
        self.patch.setattr(cuda, "as_cuda_array", lambda array, sync: array)
        self.patch.setattr(dispatcher._Kernel, "bind", lambda kernel: None)

        def launch(kernel, args, griddim, blockdim, stream=0, sharedmem=0):
            self.compiled.append(kernel._codelibrary.get_asm_str())
            [numbers] = args
            numbers[:] = np.arange(len(numbers))

        self.patch.setattr(dispatcher._Kernel, "launch", launch)

    def _answer_for_libcudf(self) -> None:
        """Encode the strings by pyarrow; a column of codes is one of memory of the host."""

        def from_arrow(array):
            return types.SimpleNamespace(array=array, null_count=lambda: array.null_count)

        def encode(table):
            [column] = table.columns
            order = column.array.unique().sort()
            codes = np.array([order.index(value).as_py() for value in column.array], np.int32)
            places = types.SimpleNamespace(
                size=lambda: len(codes),
                data=lambda: codes.view(np.uint8),
                null_count=lambda: 0,
            )
            return types.SimpleNamespace(columns=lambda: [order]), places

        assert callable(plc.Column.from_arrow)
        self.patch.setattr(plc, "Column", types.SimpleNamespace(from_arrow=from_arrow))
        self.patch.setattr(plc, "Table", lambda columns: types.SimpleNamespace(columns=columns))
        self.patch.setattr(plc.transform, "encode", encode)

    def _answer_for_rmm(self) -> None:
        blocks: dict[int, Any] = {}

        def allocate(n_bytes, stream):
            block = ctypes.create_string_buffer(n_bytes)
            blocks[ctypes.addressof(block)] = block
            return ctypes.addressof(block)

        def free(address, n_bytes, stream):
            del blocks[address]

        self.patch.setattr(rmm.mr, "available_device_memory", lambda: (FREE_BYTES, TOTAL_BYTES))
        pool = rmm.mr.CallbackMemoryResource(allocate, free)
        self.patch.setattr(rmm.mr, "CudaAsyncMemoryResource", lambda: pool)
        self.patch.setattr(_memory_resource, "getDevice", lambda: 0)
