"""The GPU's kernels on the host: numba-cuda's own NVVM IR of them, compiled for this processor.

From the IR that NVVM turns into PTX, LLVM makes code of the host. Only what a GPU's hardware
answers is replaced: a thread's position is read from an array of its own, `syncthreads` is a
barrier of threads, and shared memory is a global variable, because blocks run one after another.
Integers, memory, atomics and rounding are the kernels' own; that the GPU fuses `a * b + c` is not
seen here (`test_compilation` looks for that).
"""

from __future__ import annotations

import ctypes
import functools
import re
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import typeof
from numba import types as numba_types
from numba.cuda import compiler, dispatcher

from cpu_fallback import NumpyBackend
from cpu_fallback.vectors import Limits
from gpu_dcgen.backend.gpu import launch, similarity
from gpu_dcgen.kernels import RowKernel

CAPABILITY = (9, 0)
LANES = 8  # of kernels with scratch: few, so that each has several rows
SIMILARITY_BLOCKS, SIMILARITY_THREADS = 2, 64  # two warps
_STATE = ("tid", "ntid", "ctaid", "nctaid")  # a thread's position, int32 each
_LIBC = ctypes.CDLL(None)
_BARRIER = ctypes.create_string_buffer(64)  # a pthread_barrier_t
_KEY = ctypes.c_uint32()  # where each thread finds its state
assert _LIBC.pthread_key_create(ctypes.byref(_KEY), None) == 0


# Kernels by name of their function and types of their arguments.
COMPILED: dict[tuple[str, tuple[Any, ...]], _Kernel] = {}


class HostGrid:
    """A kernel of the GPU: `grid[n_blocks, n_threads](*arguments)` runs it on the host.

    One that `synchronizes` runs the threads of a block side by side, any other one by one.
    """

    def __init__(self, function: Callable, *, synchronizes: bool = False) -> None:
        self.function, self.synchronizes = function, synchronizes

    def __getitem__(self, size: tuple[int, int]) -> Callable[..., None]:
        return functools.partial(self._run, *size)

    def _run(self, n_blocks: int, n_threads: int, *arguments: Any) -> None:
        kernel = _compile(self.function, tuple(map(_type_of, arguments)))
        values = [value for argument in arguments for value in _flatten(argument)]
        assert [ctypes.sizeof(value) for value in values] == kernel.sizes
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        if self.synchronizes:
            _run_side_by_side(kernel.run_thread, pointers, n_blocks, n_threads)
        else:
            state = _set_state(0, n_threads, n_blocks)
            kernel.run_grid(pointers, state)


def _set_state(thread: int, n_threads: int, n_blocks: int) -> Any:
    state = (ctypes.c_int32 * len(_STATE))(thread, n_threads, 0, n_blocks)
    assert _LIBC.pthread_setspecific(_KEY, state) == 0
    return state


def _run_side_by_side(run: Callable, pointers: Any, n_blocks: int, n_threads: int) -> None:
    """Run the threads of a block as threads of the host, and the blocks in turn."""
    assert _LIBC.pthread_barrier_init(_BARRIER, None, n_threads) == 0

    def work(thread: int) -> None:
        state = _set_state(thread, n_threads, n_blocks)
        for block in range(n_blocks):
            state[_STATE.index("ctaid")] = block
            run(pointers)
            _LIBC.pthread_barrier_wait(_BARRIER)  # the next block has the same shared memory

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _LIBC.pthread_barrier_destroy(_BARRIER) == 0


def _type_of(value: Any) -> Any:
    """Return the type for which numba-cuda compiles a kernel that is launched with `value`."""
    if isinstance(value, np.ndarray):
        return numba_types.Array(typeof(value).dtype, value.ndim, typeof(value).layout)
    if isinstance(value, tuple):
        return numba_types.NamedTuple(tuple(map(_type_of, value)), type(value))
    return typeof(value)


def _flatten(value: Any) -> Iterator[Any]:
    """Yield the kernel's parameters for a value, as numba-cuda passes them."""
    if isinstance(value, np.ndarray):
        numbers = (0, 0, value.size, value.itemsize, value.ctypes.data)
        yield from map(ctypes.c_int64, (*numbers, *value.shape, *value.strides))
    elif isinstance(value, tuple):
        for part in value:
            yield from _flatten(part)
    elif isinstance(value, bool | np.bool_):
        yield ctypes.c_int8(int(value))
    elif isinstance(value, float):
        yield ctypes.c_double(value)
    else:
        yield getattr(ctypes, f"c_{typeof(value)}")(int(value))


class _Kernel:
    """A compiled kernel: `run_thread(pointers)`, `run_grid(pointers, state)`, parameter sizes.

    `ptx` is what NVVM makes of the same IR.
    """

    def __init__(self, module: Any, name: str, ptx: str) -> None:
        self.ptx = ptx
        parameters = [str(argument.type) for argument in module.get_function(name).arguments]
        bits = {"ptr": 64, "double": 64} | {f"i{n}": n for n in (8, 16, 32, 64)}
        self.sizes = [bits[parameter] // 8 for parameter in parameters]
        for text in (_define_hardware(), _define_entries(name, parameters)):
            module.link_in(llvm.parse_assembly(_target() + text))
        undefined = _undefined_functions(module)
        assert not undefined, f"{name} calls {sorted(undefined)}, which the host does not have"
        machine = _create_machine()
        passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(2))
        passes.getModulePassManager().run(module, passes)
        self._engine = llvm.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()
        pointer = ctypes.c_void_p
        self.run_thread = self._function("host.run_thread", pointer)
        self.run_grid = self._function("host.run_grid", pointer, pointer)

    def _function(self, name: str, *parameters: Any) -> Any:
        address = self._engine.get_function_address(name)
        return ctypes.CFUNCTYPE(None, *parameters)(address)  # lets go of the GIL


@functools.cache
def _compile(function: Callable, argument_types: tuple[Any, ...]) -> _Kernel:
    kernel = _compile_ir(function, argument_types)
    COMPILED[function.__name__, argument_types] = kernel
    return kernel


def _compile_ir(function: Callable, argument_types: tuple[Any, ...]) -> _Kernel:
    library, _ = compiler._compile_pyfunc_with_fixup(
        function,
        numba_types.void(*argument_types),
        device=False,
        abi="numba",
        cc=CAPABILITY,
        opt=True,
    )
    name, linked = "", None
    for text in map(str, library.modules):  # before NVVM, which optimizes them
        for line in text.splitlines():
            if '!"kernel"' in line:
                name = re.search(r'@"?([^",( ]+)', line)[1]
        module = llvm.parse_assembly(_replace_hardware(text))
        if linked is None:
            linked = module
        else:
            linked.link_in(module)
    linked.verify()
    return _Kernel(linked, name, library.get_asm_str(cc=CAPABILITY))


def _replace_hardware(text: str) -> str:
    """Return NVVM IR as IR of the host, with functions of ours for what the hardware answers."""
    text = text.replace("llvm.nvvm.read.ptx.sreg.", "host.").replace("llvm.nvvm.", "host.")
    text = text.replace("addrspace(3)", "").replace("addrspacecast", "bitcast")
    text = re.sub(r"target triple = .*|target datalayout = .*", "", text)
    # An annotated kernel would get the calling convention of PTX.
    text = re.sub(r'@"?llvm\.used"? = .*|!"?nvvm\.annotations"? = .*', "", text)
    return _target() + text


def _target() -> str:
    layout = _create_machine().target_data
    return f'target triple = "{llvm.get_default_triple()}"\ntarget datalayout = "{layout}"\n'


def _create_machine() -> Any:
    return llvm.Target.from_default_triple().create_target_machine(opt=2, jit=True)


def _define_hardware() -> str:
    wait = f"call i32 @pthread_barrier_wait(ptr inttoptr (i64 {ctypes.addressof(_BARRIER)} to ptr))"
    lines = [
        "declare ptr @pthread_getspecific(i32)",
        "declare i32 @pthread_barrier_wait(ptr)",
        "declare double @llvm.minnum.f64(double, double)",
        f"define void @host.barrier0() {{ {wait} ret void }}",
        "define double @__nv_fmin(double %a, double %b) {",
        "%m = call double @llvm.minnum.f64(double %a, double %b) ret double %m }",
    ]
    for position, name in enumerate(_STATE):
        lines += [
            f"define i32 @host.{name}.x() {{",
            f"%state = call ptr @pthread_getspecific(i32 {_KEY.value})",
            f"%place = getelementptr i32, ptr %state, i64 {position}",
            "%value = load i32, ptr %place ret i32 %value }",
        ]
        for axis in "yz":
            lines.append(f"define i32 @host.{name}.{axis}() {{ ret i32 {name.count('n')} }}")
    return "\n".join(lines)


def _define_entries(name: str, parameters: list[str]) -> str:
    loads = []
    for n, parameter in enumerate(parameters):
        loads += [
            f"%p{n} = getelementptr ptr, ptr %pointers, i64 {n}",
            f"%v{n} = load ptr, ptr %p{n}",
            f"%x{n} = load {parameter}, ptr %v{n}",
        ]
    values = ", ".join(f"{parameter} %x{n}" for n, parameter in enumerate(parameters))
    return f"""
declare void @"{name}"({", ".join(parameters)})
define void @host.run_thread(ptr %pointers) {{
{chr(10).join(loads)}
call void @"{name}"({values})
ret void
}}
define void @host.run_grid(ptr %pointers, ptr %state) {{
entry:
  %ntid = getelementptr i32, ptr %state, i64 1
  %ctaid = getelementptr i32, ptr %state, i64 2
  %nctaid = getelementptr i32, ptr %state, i64 3
  %n_threads = load i32, ptr %ntid
  %n_blocks = load i32, ptr %nctaid
  br label %block
block:
  %b = phi i32 [0, %entry], [%next_b, %after]
  store i32 %b, ptr %ctaid
  br label %thread
thread:
  %t = phi i32 [0, %block], [%next_t, %thread]
  store i32 %t, ptr %state
  call void @host.run_thread(ptr %pointers)
  %next_t = add i32 %t, 1
  %more_t = icmp slt i32 %next_t, %n_threads
  br i1 %more_t, label %thread, label %after
after:
  %next_b = add i32 %b, 1
  %more_b = icmp slt i32 %next_b, %n_blocks
  br i1 %more_b, label %block, label %end
end:
  ret void
}}
"""


def _undefined_functions(module: Any) -> set[str]:
    named = {function.name for function in module.functions if function.is_declaration}
    libc = {"pthread_getspecific", "pthread_barrier_wait"}
    return {name for name in named - libc if not name.startswith("llvm.")}


class HostKernelBackend(NumpyBackend):
    """The CPU backend, with row kernels and similarities from the GPU's kernels.

    `n_runs` counts the grids of each kernel.
    """

    name = "host kernels"
    scratch_order = "F"

    def __init__(self) -> None:
        super().__init__(1)
        self.n_runs: dict[str, int] = {}

    def single_threaded(self) -> HostKernelBackend:
        return self

    def count_lanes(self, lane_bytes: int, n_rows: int) -> int:
        return LANES

    def for_each(self, kernel: Any, n: int, *arrays: Any, lanes: int = 1) -> None:
        self._count(kernel.python.__name__)
        launch.run(kernel, n, *arrays, lanes=lanes)

    def find_similar_items(
        self, first: int, last: int, matrix: Any, *, min_common_users: int, top_k: int
    ) -> Any:
        self._count("find_neighbors")
        grid = similarity.Grid(np, SIMILARITY_BLOCKS, block_threads=SIMILARITY_THREADS)
        limits = Limits(min_common_users, top_k, matrix.packed)
        return similarity.find_similar_items(grid, first, last, matrix, limits)

    def _count(self, name: str) -> None:
        self.n_runs[name] = self.n_runs.get(name, 0) + 1


@pytest.fixture(scope="module")
def host_backend() -> Iterator[HostKernelBackend]:
    """A backend that compiles each kernel once for all tests of a module."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for name in ("pthread_getspecific", "pthread_barrier_wait"):
        llvm.add_symbol(name, ctypes.cast(getattr(_LIBC, name), ctypes.c_void_p).value)
    build_grid, find_neighbors = launch.build_grid, similarity.find_neighbors

    @functools.cache
    def build_host_grid(kernel: RowKernel) -> HostGrid:
        return HostGrid(build_grid(kernel).py_func)

    device = types.SimpleNamespace(compute_capability=CAPABILITY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatcher, "get_current_device", lambda: device)
        patch.setattr(launch, "build_grid", build_host_grid)
        host = HostGrid(find_neighbors.py_func, synchronizes=True)
        patch.setattr(similarity, "find_neighbors", host)
        yield HostKernelBackend()
    build_grid.cache_clear()
