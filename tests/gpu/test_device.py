"""Looking for a GPU: each thing that can be missing is named, with what to do about it."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import types

import numpy as np
import pytest

from gpu_dcgen.backend.gpu import device
from gpu_dcgen.backend.select import select_backend
from gpu_dcgen.errors import BackendError
from gpu_dcgen.preflight import doctor

PROPERTIES = {
    "name": b"NVIDIA Test",
    "major": 9,
    "minor": 0,
    "multiProcessorCount": 132,
    "totalGlobalMem": 80 << 30,
}


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
        self.cupy = types.SimpleNamespace(
            __version__="14.2.0", cuda=types.SimpleNamespace(runtime=runtime), arange=np.arange
        )
        self.modules = {
            "cupy": self.cupy,
            "pylibcudf": types.SimpleNamespace(__version__="26.10.02"),
            "numba.cuda": types.SimpleNamespace(),
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
    machine.modules["pylibcudf"].__version__ = "26.08.01"


def with_an_old_cupy(machine):
    machine.cupy.__version__ = "14.1.1"


def with_streams_of_their_own(machine):
    machine.patch.setenv("CUPY_CUDA_PER_THREAD_DEFAULT_STREAM", "1")


def without_nvrtc(machine):
    machine.cupy.arange = fails("libnvrtc.so.13 not found")


def with_a_broken_cudf(machine):
    machine.patch.delitem(sys.modules, "pylibcudf")
    machine.patch.setattr(device.importlib, "import_module", broken)


def broken(package):
    if package == "pylibcudf":
        raise AttributeError("numpy has no row_stack")
    return sys.modules[package]


def with_wrong_results(machine):
    machine.cupy.arange = lambda n: np.zeros(n, int)


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
            "pylibcudf 26.08.01 is too old; 26.10 or later is needed.\nInstall it: pip install",
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
            without_nvrtc,
            "compiling and running a first kernel failed: RuntimeError: libnvrtc.so.13 not found\n",
        ),
        (
            with_a_broken_cudf,
            "pylibcudf cannot be imported: AttributeError: numpy has no row_stack\nInstall RAPIDS "
            "again",
        ),
        (
            with_wrong_results,
            "NVIDIA Test computes wrongly: a first kernel returned 4, not 18.",
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


def test_an_unknown_backend_is_refused():
    with pytest.raises(BackendError, match="unknown backend 'tpu'; expected auto, cpu or gpu"):
        select_backend("tpu")
