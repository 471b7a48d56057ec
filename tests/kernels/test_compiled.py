"""What numba makes of kernels for the CPU: no reference counts, and no calls between functions."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest

from cpu_fallback import NumpyBackend
from gpu_dcgen.kernels import OPTIONS, RowKernel, choose_options
from tests.gpu.test_compilation import row_kernels, run_all_kernels


class Pair(NamedTuple):
    first: Any
    second: Any


def find_counts(text: str) -> set[str]:
    """Return the functions of numba that count references, in LLVM code that calls them."""
    return set(re.findall(r"call [^\n]*@(NRT_incref|NRT_decref)\b", text))


def find_calls(text: str) -> set[str]:
    """Return our functions that LLVM code calls, by their mangled names.

    A function's wrapper for Python may call it: only functions of this package count.
    """
    bodies = re.findall(r'^define [^\n]*@"?(_ZN9gpu_dcgen[^"(]*)[^\n]*\n(.*?)^}', text, re.M | re.S)
    assert bodies, "no function of this package is defined"
    return {
        name
        for _, body in bodies
        for name in re.findall(r'call [^\n]*@"?(_ZN9gpu_dcgen[^"(]*)', body)
    }


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> dict[str, str]:
    """LLVM code of each kernel's loop with all that it calls, for the types that builds have."""
    run_all_kernels(tmp_path_factory.mktemp("compiled"), NumpyBackend(1))
    return {kernel.python.__name__: compile_loop(kernel) for kernel in row_kernels()}


def compile_loop(kernel: RowKernel) -> str:
    """Compile a loop again, because numba keeps no code of one that it took from its cache."""
    loop = numba.njit(**OPTIONS)(kernel.loop.py_func)
    for signature in kernel.loop.signatures:
        loop.compile(signature)
    return "\n".join(loop.inspect_llvm().values())


def test_no_kernel_counts_references(kernels):
    assert all(kernels.values()), "a kernel has not been compiled"
    assert not {name for name, text in kernels.items() if find_counts(text)}


def test_kernels_and_helpers_are_inlined(kernels):
    """Their arguments are some hundred words, which each call would copy."""
    calls = {name: find_calls(text) for name, text in kernels.items()}
    assert not any(calls.values()), calls


def test_a_function_compiled_as_usual_counts_references():
    """Otherwise the test above would see nothing."""

    @numba.njit
    def add(pair, out):
        for k in range(len(out)):
            out[k] = pair.first[k] + pair.second[k]

    add(Pair(np.ones(3), np.ones(3)), np.ones(3))
    assert find_counts("\n".join(add.inspect_llvm().values()))


def test_a_call_between_functions_is_seen():
    text = "define i32 @_ZN9gpu_dcgen4loop(i64 %n) {\n  call i32 @_ZN9gpu_dcgen4each(i64 %n)\n}\n"
    assert find_calls(text) == {"_ZN9gpu_dcgen4each"}


def test_a_numba_without_the_option_is_a_warning():
    with pytest.warns(RuntimeWarning, match="has no option '_nrt'.*Install an earlier numba"):
        assert choose_options(object()) == {"nogil": True, "no_cfunc_wrapper": True}
