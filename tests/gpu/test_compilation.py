"""Every kernel compiles to PTX for the devices that people have, without a driver: numba-cuda and
NVVM from their wheels.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import pkgutil
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import typeof

import gpu_dcgen.kernels
from cpu_fallback import NumpyBackend, vectors
from gpu_dcgen.backend.gpu import launch, similarity
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.kernels import RowKernel, rows
from gpu_dcgen.negative_sampler import calibration
from gpu_dcgen.similarity_computer import approximate as approximate_neighbors
from tests.support.shops import random_shop, tiny_config, write_shop

# Kernels are compiled for 9.0 by `test_host_kernels` too, which looks at the same PTX.
CAPABILITIES = [pytest.param(capability, marks=pytest.mark.slow) for capability in [(9, 0), (8, 0)]]
ON_THE_HOST = {"hash_texts"}  # hashes vocabularies, which are strings of the host
# Kernels that add to a product before it is rounded, because it is exact:
EXACT_FUSIONS = {
    "list_candidates_grid",  # rounds a float32 times FIXED_ONE, a power of two, by adding 2^52
}
INTEGERS, NARROW, FLOATS = "int64", "int32", "float32"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None,
    reason="numba-cuda is not installed (pip install 'gpu-dcgen[test-cuda]'; no GPU is needed)",
)
if importlib.util.find_spec("numba_cuda") is not None:
    from tests.gpu import ptx


class Recorder(NumpyBackend):
    """The CPU backend, noting the types that each kernel is called with; scratch lies as it does on
    a GPU.
    """

    scratch_order = "F"

    def __init__(self) -> None:
        super().__init__(1)
        self.calls: dict[tuple[RowKernel, tuple[Any, ...]], None] = {}

    def single_threaded(self) -> "Recorder":
        return self

    def for_each(self, kernel, n, *arrays, lanes=1):
        self.calls[kernel, tuple(map(typeof, arrays))] = None
        super().for_each(kernel, n, *arrays, lanes=lanes)


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> list[tuple[RowKernel, tuple[Any, ...]]]:
    """The kernels of builds in every shape, with the types they are called with."""
    recorder = Recorder()
    run_all_kernels(tmp_path_factory.mktemp("recorded"), recorder)
    return list(recorder.calls)


def run_all_kernels(folder: Path, backend: NumpyBackend) -> None:
    """Build datasets that need every kernel."""
    tables = write_shop(random_shop(1, views=True), folder / "input")
    with pytest.MonkeyPatch.context() as patched:
        for name in ("STEP_PRODUCTS", "VECTOR_PRODUCTS", "CELL_PRODUCTS"):
            patched.setattr(approximate_neighbors, name, 0)  # searching is never too much work
        patched.setattr(calibration, "_MAX_POSITIVES", 4)  # so that a sample is taken
        for shape, engine in (("labeled_pair", "exact"), ("n_tuple", "approximate")):
            config = tiny_config(output={"shape": shape}, similarity={"engine": engine})
            build(tables, folder / shape, config, backend=backend)
    copy_lists_twice(backend)


def copy_lists_twice(backend: NumpyBackend) -> list[int]:
    """Lay lists out as the GPU's writer does: no build on the CPU needs this kernel."""
    values, copies = np.arange(9, dtype=np.uint32), np.zeros(10, np.uint32)
    starts, lengths, offsets = np.array([4, 1]), np.array([3, 2], np.int32), np.array([0, 6])
    backend.for_each(rows.copy_lists, 2, values, starts, lengths, 2, offsets, copies)
    return copies.tolist()


@pytest.fixture(params=CAPABILITIES, ids=["sm_90", "sm_80"])
def compile_ptx(request, monkeypatch):
    """Compiles a kernel for one compute capability; numba-cuda asks the device for it where device
    functions are called.
    """
    from numba import cuda
    from numba.cuda import dispatcher

    monkeypatch.setattr(
        dispatcher,
        "get_current_device",
        lambda: types.SimpleNamespace(compute_capability=request.param),
    )
    launch.build_grid.cache_clear()

    def compile_kernel(kernel: Any, arguments: tuple[Any, ...]) -> str:
        text, _ = cuda.compile(
            kernel.py_func, cuda.types.void(*arguments), device=False, abi="numba", cc=request.param
        )[:2]
        assert ".target sm_{}{}".format(*request.param) in text
        return text

    compile_kernel.capability = request.param
    yield compile_kernel
    launch.build_grid.cache_clear()


def test_row_kernels_compile(calls, compile_ptx):
    from numba import cuda

    for kernel, arguments in calls:
        text = compile_ptx(launch.build_grid(kernel), (cuda.types.int64, *arguments))
        require_exactness(f"{kernel.python.__name__}_grid", text)
        require_thrift(f"{kernel.python.__name__}_grid", text, compile_ptx.capability)


def test_the_similarity_kernel_compiles_and_rounds_correctly(compile_ptx):
    text = compile_ptx(similarity.find_neighbors, similarity_arguments())
    require_rounding(text)
    require_exactness("find_neighbors", text)
    require_thrift("find_neighbors", text, compile_ptx.capability)


def similarity_arguments() -> tuple[Any, ...]:
    """Return the types that the similarity kernel is launched with."""
    from numba import cuda

    def array(name: str, n_dimensions: int = 1) -> Any:
        return cuda.types.Array(getattr(cuda.types, name), n_dimensions, "C")

    def named(kind: type, *parts: Any) -> Any:
        return cuda.types.NamedTuple(parts, kind)

    long = cuda.types.int64
    scratch = (INTEGERS, NARROW, NARROW, FLOATS, INTEGERS, INTEGERS)
    matrix = (INTEGERS, NARROW, NARROW, INTEGERS, INTEGERS, "float64")
    rows = (array(NARROW), array(NARROW, 2), array(FLOATS, 2), array(NARROW, 2))
    return (
        long,
        named(similarity._Queue, array(INTEGERS), array(INTEGERS)),
        named(vectors.Matrix, *map(array, matrix)),
        named(vectors.Limits, long, long, cuda.types.boolean),
        named(similarity._Scratch, *(array(name, 2) for name in scratch)),
        named(vectors.NeighborRows, *rows),
    )


def require_rounding(text: str) -> None:
    """Similarities are divided and rounded once, as on the CPU."""
    assert "div.rn.f64" in text and "cvt.rn.f32.f64" in text
    assert "fma.rn.f64" not in text and "div.approx" not in text


def require_exactness(name: str, text: str) -> None:
    """No product that needs rounding is added to unrounded, which a CPU would not do."""
    fusions = ptx.list_inexact_fusions(text)
    assert not fusions, f"{name} fuses {fusions}"
    assert name in EXACT_FUSIONS or "fma." not in text, f"{name} fuses; say why that is exact"


def require_thrift(name: str, text: str, capability: tuple[int, int]) -> None:
    """Registers suffice, for as many threads as a multiprocessor is given, and so do parameters."""
    usage = ptx.measure(text, capability)
    assert usage.memory_bytes == 0, f"{name} keeps registers in memory"
    if name == "find_neighbors":
        n_blocks = usage.count_blocks(similarity.BLOCK_THREADS)
        assert n_blocks == similarity.BLOCKS_PER_MULTIPROCESSOR
    else:
        n_threads = usage.count_blocks(launch.BLOCK_THREADS) * launch.BLOCK_THREADS
        assert n_threads >= launch.LANES_PER_MULTIPROCESSOR, f"{name} takes {usage.registers}"
    assert ptx.count_parameter_bytes(text) <= ptx.MAX_PARAMETER_BYTES, name


def test_what_threads_share_is_added_to_atomically():
    """A thread that loses an addition of another's would hardly ever show on a host."""
    tree = ast.parse(inspect.getsource(similarity))
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert calls.count("cuda.atomic.add") >= 6
    added = [node.target for node in ast.walk(tree) if isinstance(node, ast.AugAssign)]
    assert added and not [ast.unparse(t) for t in added if not isinstance(t, ast.Name)]


def test_no_kernel_is_left_out(calls):
    named = {kernel.python.__name__ for kernel, _ in calls}
    assert named | ON_THE_HOST == {kernel.python.__name__ for kernel in row_kernels()}


def row_kernels() -> list[RowKernel]:
    modules = [
        importlib.import_module(f"gpu_dcgen.kernels.{m.name}")
        for m in pkgutil.iter_modules(gpu_dcgen.kernels.__path__)
    ]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, RowKernel)
    ]
