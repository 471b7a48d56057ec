"""Fused operations, registers and parameters are told of kernels for which they are known."""

from __future__ import annotations

import importlib.util

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None,
    reason="numba-cuda is not installed (pip install 'gpu-dcgen[test-cuda]'; no GPU is needed)",
)
if importlib.util.find_spec("numba_cuda") is not None:
    from numba import cuda

    from tests.gpu import ptx

    FLOATS, DOUBLES = cuda.types.float32[::1], cuda.types.float64[::1]


def compile_kernel(kernel, *types):
    return cuda.compile(kernel, cuda.types.void(*types), device=False, abi="numba", cc=(9, 0))[0]


def fuse(a):
    a[0] = a[1] * a[2] + a[3]


def fuse_exactly(a):
    a[0] = a[1] * 65536.0 + a[3]


def use_three(a, n, b):
    a[n] = b[n, 0]


def keep_in_memory(a, n):
    local = cuda.local.array(100, cuda.types.float64)
    for k in range(n):
        local[k % 100] = a[k]
    a[0] = local[n % 7]


@pytest.mark.parametrize("kind", ["FLOATS", "DOUBLES"])
def test_a_product_that_is_added_unrounded_is_found(kind):
    [fusion] = ptx.list_inexact_fusions(compile_kernel(fuse, globals()[kind]))
    assert fusion.startswith("fma.rn.f")


def test_a_product_by_a_power_of_two_is_exact():
    text = compile_kernel(fuse_exactly, DOUBLES)
    assert "fma.rn.f64" in text and "0d40F0000000000000" in text
    assert ptx.list_inexact_fusions(text) == []
    other = text.replace("0d40F0000000000000", "0d40F0000000000001")
    assert len(ptx.list_inexact_fusions(other)) == 1


LEFT_BY_NVVM = """
.visible .entry kernel()
{{
	add.f64 	%fd9, %fd8, %fd1;
	mul.{rounding}f64 	%fd5, %fd6, %fd7;
	@%p1 neg.f64 	%fd4, %fd5;
	mov.f64 	%fd8, {register};
}}
.func other()
{{
	add.f64 	%fd9, %fd5, %fd1;
}}
"""


@pytest.mark.parametrize(
    ("rounding", "register", "n"),
    [("", "%fd4", 1), ("", "%fd5", 1), ("rn.", "%fd4", 0), ("", "%fd6", 0)],
)
def test_a_product_that_the_assembler_may_fuse_is_found(rounding, register, n):
    """Through a loop, where the sum comes first; registers are a function's own."""
    text = LEFT_BY_NVVM.format(rounding=rounding, register=register)
    assert ptx.list_inexact_fusions(text) == ["add.f64 %fd9, %fd8, %fd1"] * n


def test_a_thread_that_keeps_values_in_memory_is_found():
    text = compile_kernel(fuse, DOUBLES)
    registers, memory_bytes = ptx.measure(text, (9, 0))
    assert 4 <= registers <= 32 and memory_bytes == 0
    usage = ptx.measure(compile_kernel(keep_in_memory, DOUBLES, cuda.types.int64), (9, 0))
    assert usage.memory_bytes == 8 * 100


@pytest.mark.parametrize(
    ("registers", "n_threads", "n_blocks"),
    [(32, 256, 8), (33, 256, 6), (71, 256, 3), (76, 256, 3), (128, 128, 4), (129, 128, 3)],
)
def test_registers_bound_the_blocks_of_a_multiprocessor(registers, n_threads, n_blocks):
    """As the vendor's occupancy calculator has it, for 65,536 registers in units of 8 a thread."""
    assert ptx.Usage(registers, 0).count_blocks(n_threads) == n_blocks


def test_parameters_are_counted():
    """An array is seven numbers of 8 bytes: three of its object, its place, length and stride."""
    types = DOUBLES, cuda.types.int32, cuda.types.float64[:, ::1]
    sizes = [7 * 8, 4, 9 * 8]
    assert ptx.count_parameter_bytes(compile_kernel(use_three, *types)) == sum(sizes)
