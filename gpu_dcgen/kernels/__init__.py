"""Row kernels: functions of one row that compile for the CPU and for CUDA.

A kernel is written as `kernel(row, *arguments)` in the subset of Python that numba compiles for
both. An argument is an array, a number of the host, or a NamedTuple of these (`arguments`).
`@row_kernel` compiles it together with a serial loop over rows. The loop is a function of its own,
named after its kernel and placed in the kernel's file, because numba's on-disk cache cannot store a
loop that closes over a kernel.

Rules: integers and single correctly rounded operations only (the GPU fuses `a * b + c`); no
allocation (scratch space is an argument); every index in range; each output cell is written by one
row alone; helpers are `@kernel_helper`. Positions in the innermost loops may be unsigned: numba
checks signed ones for negative values.
"""

from __future__ import annotations

import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numba
from numba.core.registry import CPUDispatcher

from cpu_fallback import kernel_cache

kernel_cache.watch(Path(__file__).parent)

_njit: Any = numba.njit  # its stub lacks some of the options below


def choose_options(known: Any) -> dict[str, bool]:
    """Return numba's options for kernels, of those that its class of options `known` has."""
    # Loops run without the GIL, and nothing calls kernels from C.
    options = {"nogil": True, "no_cfunc_wrapper": True}
    if hasattr(known, "_nrt"):
        # Kernels allocate nothing, so references need no counting. Otherwise each array read from
        # a NamedTuple costs two atomic operations, by all threads on the same few counters.
        options["_nrt"] = False
    else:
        warnings.warn(
            f"numba {numba.__version__} has no option '_nrt': kernels count references to arrays, "
            "and negatives take about twice as long. Install an earlier numba.",
            RuntimeWarning,
            stacklevel=2,
        )
    return options


OPTIONS = choose_options(CPUDispatcher.targetdescr.options)
# Arrays of a NamedTuple are passed one by one, some hundred words: a call of a kernel or helper
# can cost more than its work. Kernels are compiled once, so there is no second copy of the code.
_INLINED = {**OPTIONS, "forceinline": True}

_MIN_ROWS = 2048  # of kernels with little work a row


@dataclass(frozen=True)
class RowKernel:
    """A kernel in its three forms; `backend.for_each` picks the one it runs."""

    # the function as written: what a backend with needs of its own (bounds checks, CUDA) compiles
    python: Callable
    # loop(start, stop, *arrays) or loop(start, stop, lane, *arrays): compiled, without the GIL
    loop: Any
    # whether the kernel takes (row, lane, *arrays), `lane` naming its row in scratch arrays
    scratch: bool
    min_rows: int  # fewer take less time than their dispatch to another thread


def map_arrays(function: Callable, argument: Any) -> Any:
    """Apply `function` to a kernel argument, or to each field of one that is a NamedTuple."""
    if isinstance(argument, tuple) and hasattr(argument, "_fields"):
        return type(argument)(*(map_arrays(function, field) for field in argument))
    return function(argument)


def recompiled(function: types.FunctionType, compiler: Callable) -> Any:
    """Compile a kernel's function with `compiler`, and so the helpers that it calls."""
    names = dict(function.__globals__)
    for name in function.__code__.co_names:
        if isinstance(names.get(name), CPUDispatcher):
            names[name] = recompiled(names[name].py_func, compiler)
    return compiler(
        types.FunctionType(
            function.__code__, names, function.__name__, function.__defaults__, function.__closure__
        )
    )


def kernel_helper(function: Callable) -> Any:
    """Compile a function that kernels call."""
    return _njit(cache=True, **_INLINED)(function)


def _serial(start, stop, *arrays):
    for row in range(start, stop):
        kernel(row, *arrays)  # noqa: F821 - a global of the copy that row_kernel makes


def _serial_scratch(start, stop, lane, *arrays):
    for row in range(start, stop):
        kernel(row, lane, *arrays)  # noqa: F821


def row_kernel(
    function: Callable | None = None, *, scratch: bool = False, min_rows: int = _MIN_ROWS
) -> Any:
    """Compile `function(row, *arguments)`; with `scratch` `function(row, lane, *arguments)`."""
    if function is None:
        return lambda f: row_kernel(f, scratch=scratch, min_rows=min_rows)
    template = (_serial_scratch if scratch else _serial).__code__
    name = f"{function.__name__}_loop"
    origin = function.__code__
    code = template.replace(
        co_name=name,
        co_qualname=name,
        co_filename=origin.co_filename,
        co_firstlineno=origin.co_firstlineno,
    )
    names = {
        "kernel": _njit(cache=True, no_cpython_wrapper=True, **_INLINED)(function),
        "range": range,
        "__name__": function.__module__,
    }
    loop = types.FunctionType(code, names, name)
    loop.__module__, loop.__qualname__ = function.__module__, name
    return RowKernel(function, _njit(cache=True, **OPTIONS)(loop), scratch, min_rows)
