"""Allocate NumPy's large arrays in mappings that serve again, in files beyond a limit.

NumPy asks the handler of NEP 49 for the memory of every array, also of what an expression makes on
its way. The handler here gives small arrays to the C library. Large ones get mappings of their own:
anonymous memory while that stays within a limit, beyond it files without a name in a folder, which
the kernel writes back when memory is short. A mapping that is freed is spare: it serves the next
array of about its size, so that its pages need not be handed back and cleared. Spare mappings never
raise the peak. An array that has been saved is in memory until that is needed: it then gets the
pages of the file that it was saved to, the one that was saved first before others.

NumPy keeps the handler in a context variable: threads that a build starts have the C library's
memory alone, unless they run in a copy of its context. NumPy calls the handler with the GIL. The
functions are compiled, so that no Python runs within an allocation. Where the interface is not as
expected, or the system is not Linux, arrays stay as NumPy makes them.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import mappings

_SET_HANDLER = 304  # place of PyDataMem_SetHandler in NumPy's table of C functions
_NAME = b"mem_handler"  # of capsules, as NumPy asks for it
_HANDLER_NAME = b"gpu_dcgen_large_arrays"


class _Allocator(ctypes.Structure):
    _fields_ = [
        ("context", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("malloc", "calloc", "realloc", "free")),
    ]


class _Handler(ctypes.Structure):
    """PyDataMem_Handler of NumPy."""

    _fields_ = [
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("allocator", _Allocator),
    ]


class LargeArrays:
    """The handler, its mappings and its limit; there is one in a process, which never ends."""

    def __init__(self) -> None:
        """AttributeError or ValueError where NumPy's functions are not where they should be."""
        core: Any = getattr(np, "core" if np.__version__.startswith("1.") else "_core")
        self._handler_name = core.multiarray.get_handler_name
        table = core._multiarray_umath._ARRAY_API
        pythonapi = ctypes.pythonapi
        pythonapi.PyCapsule_GetPointer.restype = ctypes.c_void_p
        pythonapi.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
        pythonapi.PyCapsule_New.restype = ctypes.py_object
        pythonapi.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        functions = ctypes.cast(
            pythonapi.PyCapsule_GetPointer(table, None), ctypes.POINTER(ctypes.c_void_p)
        )
        self._set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(
            functions[_SET_HANDLER]
        )
        self._state = np.zeros(mappings.TEMPLATE_AT + mappings.TEMPLATE_WORDS, np.int64)
        self._functions = mappings.compile_functions()
        addresses = [function.address for function in self._functions]
        allocator = _Allocator(self._state.ctypes.data, *addresses)
        self._handler = _Handler(_HANDLER_NAME, 1, allocator)
        self._capsule = pythonapi.PyCapsule_New(ctypes.addressof(self._handler), _NAME, None)
        # Arrays may be freed after everything else, when the interpreter ends.
        pythonapi.Py_IncRef(ctypes.py_object(self))
        self.is_open = False

    @contextmanager
    def open(self, folder: Path, limit: int) -> Iterator[None]:
        """Give the large arrays of this thread at most `limit` bytes of memory, and then files.

        Arrays may outlive the context. ValueError where NumPy does not use the handler.
        """
        template = os.fsencode(folder.resolve() / mappings.TEMPLATE) + b"\0"
        names = np.zeros(mappings.TEMPLATE_WORDS * 8, np.uint8)
        names[: len(template)] = np.frombuffer(template, np.uint8)
        self._state[mappings.TEMPLATE_AT :] = names.view(np.int64)
        self._state[mappings.LIMIT], self._state[mappings.ERROR], self._state[mappings.N_MAPPED] = (
            limit,
            0,
            0,
        )
        self._state[mappings.PEAK : mappings.PEAK + 2] = self._state[
            mappings.LIVE : mappings.LIVE + 2
        ]
        previous, self.is_open = self._set_handler(self._capsule), True
        try:
            if self._handler_name(np.empty(1)) != _HANDLER_NAME.decode():
                raise ValueError("NumPy does not use the handler that it was given")
            yield
        finally:
            self._set_handler(previous)
            self.is_open = False
            mappings.forget_all_saved(self._state)
            self.release_spare()

    def note_saved(self, array: npt.NDArray[Any], file: int, offset: int) -> None:
        """Let the pages of an open file that has an array's bytes serve as its memory, if need be.

        That is done for large arrays at the address that they were given. Nothing may write to the
        array from now on.
        """
        copy = os.dup(file)
        # A build may have ended meanwhile.
        if not self.is_open or not mappings.note_saved(
            self._state, array.ctypes.data, array.nbytes, copy, offset
        ):
            os.close(copy)

    def release_saved(self, n_bytes: int) -> None:
        """Free so many bytes of memory of arrays that were saved, or what they have."""
        mappings.release_saved(self._state, n_bytes)

    def release_spare(self) -> None:
        """Hand spare mappings back to the system."""
        mappings.unmap_all_spare(self._state)

    @property
    def is_memory_short(self) -> bool:
        """Whether more than half of the limit was needed."""
        return bool(self.file_bytes or self.memory_bytes > self._state[mappings.LIMIT] // 2)

    @property
    def n_mapped(self) -> int:
        """Number of saved arrays that got the pages of their files since the arrays were opened."""
        return int(self._state[mappings.N_MAPPED])

    @property
    def file_bytes(self) -> int:
        """Most bytes of files at a time since the arrays were opened."""
        return int(self._state[mappings.PEAK + 1])

    @property
    def memory_bytes(self) -> int:
        """Most bytes of anonymous memory at a time since the arrays were opened."""
        return int(self._state[mappings.PEAK])

    @property
    def is_disk_full(self) -> bool:
        """Whether a file could not be made for want of disk space."""
        return int(self._state[mappings.ERROR]) in (errno.ENOSPC, errno.EDQUOT)


@functools.cache
def find_large_arrays() -> LargeArrays | None:
    """Return the process's large arrays; None where the system or NumPy has none.

    Where NumPy is not as expected, a warning is issued once.
    """
    if sys.platform != "linux":
        return None
    try:
        return LargeArrays()
    except (AttributeError, ImportError, ValueError) as error:
        warnings.warn(
            f"NumPy {np.__version__} allocates arrays in another way than expected ({error}): "
            "a memory limit bounds blocks only.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
