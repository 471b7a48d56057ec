"""Looking for a GPU: each thing that can be missing is named, with what to do about it."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import types
import warnings

import numpy as np
import pytest

from gpu_dcgen.backend import select
from gpu_dcgen.backend.gpu import device
from gpu_dcgen.backend.select import select_backend
from gpu_dcgen.errors import BackendError
from gpu_dcgen.preflight import doctor
from tests.gpu.device_properties import PROPERTIES

FIRST_OPERATIONS = "gpu_dcgen.backend.gpu.first_operations"


def operation(words: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(description=f"adding {words}", run=lambda: 18, expected=18)


class Machine:
    """A machine with RAPIDS and a device, of which parts can be taken away."""

    def __init__(self, monkeypatch) -> None:
        self.patch = monkeypatch
        self.properties = dict(PROPERTIES)
        runtime = types.SimpleNamespace(
            getDeviceCount=lambda: 1,
            getDevice=lambda: 0,
            getDeviceProperties=lambda index: self.properties,
            driverGetVersion=lambda: 13010,
            runtimeGetVersion=lambda: 12090,
        )
        self.runtime = runtime
        self.versions = {"cupy": "14.2.0", "pylibcudf": "26.10.2", "rmm": "26.10.0"}
        monkeypatch.setattr(device, "library_versions", lambda: self.versions)
        self.operations = [operation("with CuPy"), operation("with numba-cuda")]
        self.modules = {
            "cupy": types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime)),
            "pylibcudf": types.SimpleNamespace(),
            "rmm": types.SimpleNamespace(),
            "numba.cuda": types.SimpleNamespace(),
            FIRST_OPERATIONS: types.SimpleNamespace(OPERATIONS=self.operations),
        }
        monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
        found = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name: types.SimpleNamespace() if name in device.PACKAGES else found(name),
        )
        for name, module in self.modules.items():
            monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def machine(monkeypatch) -> Machine:
    return Machine(monkeypatch)


def fails(text: str):
    def ask(*arguments):
        raise RuntimeError(text)

    return ask


def test_a_device_that_works_is_described(machine):
    found = device.find_device()
    assert (found.name, found.capability, found.n_multiprocessors) == ("NVIDIA Test", (9, 0), 132)
    words = found.describe()
    assert (words["compute_capability"], words["cuda_driver"], words["cuda_runtime"]) == (
        "9.0",
        "13.1",
        "12.9",
    )
    checks = {check.name: check for check in doctor._check_gpu()}
    assert checks["GPU"].actual == "NVIDIA Test, 86 GB, compute capability 9.0"
    assert checks["CUDA"].actual == "driver 13.1, runtime 12.9"


def without_a_package(machine):
    machine.patch.setattr(importlib.util, "find_spec", lambda name: None)


def without_a_driver(machine):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    machine.patch.setattr(ctypes, "CDLL", missing)


def without_a_device(machine):
    machine.runtime.getDeviceCount = lambda: 0


def with_an_old_driver(machine):
    machine.runtime.getDeviceCount = fails("cudaErrorInsufficientDriver")


def with_an_old_device(machine):
    machine.properties.update(major=7, minor=0)


def with_an_old_cudf(machine):
    machine.versions["pylibcudf"] = "26.8.1"


def with_an_old_cupy(machine):
    machine.versions["cupy"] = "14.1.1"


def without_metadata(machine):
    del machine.versions["pylibcudf"]


def with_broken_metadata(machine):
    machine.patch.setattr(device, "library_versions", fails("no such file: RECORD"))


def with_streams_of_their_own(machine):
    machine.patch.setenv("CUPY_CUDA_PER_THREAD_DEFAULT_STREAM", "1")


def with_another_library_of_streams_of_their_own(machine):
    machine.patch.setenv("CUDA_PYTHON_CUDA_PER_THREAD_DEFAULT_STREAM", "1")


def without_nvrtc(machine):
    machine.operations[0].run = fails("libnvrtc.so.13 not found")


def without_nvvm(machine):
    machine.patch.setenv("CUDA_HOME", "/nowhere")
    machine.patch.delenv("CUDA_PATH", raising=False)
    machine.patch.delenv("CONDA_PREFIX", raising=False)
    machine.operations[1].run = fails("libnvvm.so: not found")


def with_a_numpy_that_numba_does_not_know(machine):
    machine.operations[1].run = lambda: np.row_stacks


def with_a_property_that_is_missing(machine):
    del machine.properties["totalGlobalMem"]


def with_a_broken_cudf(machine):
    machine.patch.delitem(sys.modules, "pylibcudf")
    machine.patch.setattr(device.importlib, "import_module", broken)


def broken(package):
    if package == "pylibcudf":
        raise AttributeError("no symbol")
    return sys.modules[package]


def with_wrong_results(machine):
    machine.operations[1].run = lambda: 4


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            without_a_package,
            "cupy is not installed.\nInstall RAPIDS: pip install 'gpu-dcgen[gpu-cu13]'",
        ),
        (
            without_a_driver,
            "no NVIDIA driver (libcuda.so.1: cannot open shared object file).\nInstall the driver",
        ),
        (without_a_device, "the driver shows no CUDA device.\nCheck CUDA_VISIBLE_DEVICES"),
        (
            with_an_old_driver,
            "counting devices failed: RuntimeError: cudaErrorInsufficientDriver\n",
        ),
        (with_an_old_device, "NVIDIA Test has compute capability 7.0; RAPIDS needs 7.5"),
        (
            with_an_old_cudf,
            "pylibcudf 26.8.1 is too old; 26.10 or later is needed.\nInstall it: pip install",
        ),
        (
            with_an_old_cupy,
            "cupy 14.1.1 is too old; 14.2 or later is needed.\nInstall it: pip install",
        ),
        (
            with_streams_of_their_own,
            "CUPY_CUDA_PER_THREAD_DEFAULT_STREAM is set: the libraries would not wait",
        ),
        (
            with_another_library_of_streams_of_their_own,
            "CUDA_PYTHON_CUDA_PER_THREAD_DEFAULT_STREAM is set: the libraries would not wait",
        ),
        (
            without_nvrtc,
            "adding with CuPy failed: RuntimeError: libnvrtc.so.13 not found\n'gpu-dcgen doctor' ",
        ),
        (
            without_nvvm,
            "adding with numba-cuda failed: RuntimeError: libnvvm.so: not found\nnumba-cuda "
            "compiles with NVVM, of the package nvidia-nvvm or of a CUDA toolkit "
            "(CUDA_HOME=/nowhere has no folder nvvm).\nInstall it: pip install 'numba-cuda[cu13]'",
        ),
        (
            with_a_numpy_that_numba_does_not_know,
            "adding with numba-cuda failed: AttributeError: module 'numpy' has no attribute "
            "'row_stacks'\nnumba-cuda names a function that this NumPy does not have; install an "
            "earlier one: pip install 'numpy<2.5'",
        ),
        (
            with_a_property_that_is_missing,
            "describing the device failed: KeyError: 'totalGlobalMem'\n'gpu-dcgen doctor' shows",
        ),
        (
            without_metadata,
            "pylibcudf is installed without its metadata, so its version is unknown; 26.10 or "
            "later is needed.\nInstall it: pip install",
        ),
        (
            with_broken_metadata,
            "reading the versions of the libraries failed: RuntimeError: no such file: RECORD\n",
        ),
        (
            with_a_broken_cudf,
            "pylibcudf cannot be imported: AttributeError: no symbol\nInstall RAPIDS again",
        ),
        (
            with_wrong_results,
            "NVIDIA Test computes wrongly: adding with numba-cuda returned 4, not 18.",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_missing_is_named(change, text, machine):
    change(machine)
    with pytest.raises(BackendError) as error:
        device.find_device()
    assert str(error.value).startswith(text)
    with pytest.raises(BackendError) as asked_for:
        select_backend("gpu")
    assert str(asked_for.value) == f'backend="gpu": {error.value}'
    chosen, reason = select_backend("auto", n_threads=1)
    assert chosen.name == "cpu"
    assert reason == f"no GPU: {str(error.value).splitlines()[0].rstrip('.')}"


def test_libraries_without_a_device_are_worth_a_warning(machine):
    without_a_driver(machine)
    machine.patch.setattr(device, "library_versions", lambda: {"cupy": "14.2.0"})
    (check,) = doctor._check_gpu()
    assert (
        check.verdict == "warn"
        and "no NVIDIA driver" in check.actual
        and check.actual.endswith("Installed: cupy 14.2.0")
    )
    machine.patch.setattr(device, "library_versions", dict)
    (check,) = doctor._check_gpu()
    assert check.verdict == "ok"


def test_a_library_that_deprecates_something_is_no_reason_to_refuse_the_device(machine):
    def warn():
        warnings.warn("The 'generic' unit is deprecated", DeprecationWarning, stacklevel=1)
        return 18

    machine.operations[1].run = warn
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert device.find_device().name == "NVIDIA Test"


def test_neither_is_one_that_opening_the_backend_meets(machine):
    opened = types.SimpleNamespace(name="gpu")
    backend = types.ModuleType("gpu_dcgen.backend.gpu.cuda_backend")
    memory = types.ModuleType("gpu_dcgen.backend.gpu.memory")

    def open_backend(device, memory):
        warnings.warn("The 'generic' unit is deprecated", DeprecationWarning, stacklevel=1)
        return opened

    backend.CudaBackend, memory.DeviceMemory = open_backend, lambda limit: None
    for module in (backend, memory):
        machine.patch.setitem(sys.modules, module.__name__, module)
    select._open_gpu.cache_clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert select_backend("gpu") == (opened, "requested")
    finally:
        select._open_gpu.cache_clear()


def test_auto_takes_the_cpu_whatever_a_library_raises(machine):
    backend = types.ModuleType("gpu_dcgen.backend.gpu.cuda_backend")
    machine.patch.setitem(sys.modules, backend.__name__, backend)
    memory = types.SimpleNamespace(DeviceMemory=lambda limit: None)
    machine.patch.setitem(sys.modules, "gpu_dcgen.backend.gpu.memory", memory)
    for error in (AttributeError("no such name"), MemoryError("std::bad_alloc"), KeyError("x")):

        def fail(*arguments, error=error):
            raise error

        backend.CudaBackend = fail
        chosen, reason = select_backend("auto", n_threads=1)
        assert chosen.name == "cpu"
        assert reason == f"no GPU: the GPU cannot be used: {type(error).__name__}: {error}"
        with pytest.raises(BackendError, match='^backend="gpu": the GPU cannot be used') as raised:
            select_backend("gpu")
        assert raised.value.__cause__.__cause__ is error


def test_an_unknown_backend_is_refused():
    with pytest.raises(BackendError, match="unknown backend 'tpu'; expected auto, cpu or gpu"):
        select_backend("tpu")
