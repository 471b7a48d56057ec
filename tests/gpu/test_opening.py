"""The GPU backend opens with the real libraries of RAPIDS, of which only the driver is faked."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

import gpu_dcgen.backend.gpu
from gpu_dcgen.backend import select
from gpu_dcgen.backend.gpu import device
from gpu_dcgen.backend.protocol import Backend
from gpu_dcgen.backend.select import select_backend
from gpu_dcgen.errors import BackendError
from gpu_dcgen.preflight import doctor

pytest.importorskip("pylibcudf", reason="RAPIDS is not installed: the backend is not opened")
cupy = pytest.importorskip("cupy", reason="CuPy is not installed: the backend is not opened")

from tests.gpu.faked_driver import (  # noqa: E402  it imports RAPIDS
    FREE_BYTES,
    TOTAL_BYTES,
    FakedDriver,
)
from tests.gpu.machines import open_machine  # noqa: E402

ROOT = Path(__file__).parents[2]
SOURCES = [
    *sorted(Path(gpu_dcgen.backend.gpu.__file__).parent.glob("*.py")),
    ROOT / "gpu_dcgen" / "training" / "gpu_row_groups.py",
]
LIBRARIES = {"cupy", "cupyx", "pylibcudf", "rmm"}


@pytest.fixture
def driver(monkeypatch):
    """A faked driver, and no backend that is open before or after."""
    select._open_gpu.cache_clear()
    yield FakedDriver(monkeypatch)
    select._open_gpu.cache_clear()


def test_the_backend_opens(driver):
    backend, reason = select_backend("gpu")
    assert (backend.name, reason) == ("gpu", "requested")
    assert backend.device.name == "NVIDIA Test"
    assert 0.9 * FREE_BYTES < backend.describe_device()["memory_budget_bytes"] < FREE_BYTES
    assert backend.memory_usage() == {"peak_bytes": 0, "n_out_of_memory": 0}
    backend.reset_counters()
    versions = backend.describe_device()["libraries"]
    distributions = importlib.metadata.packages_distributions()
    for package in device.PACKAGES:
        assert versions[package] == importlib.metadata.version(distributions[package][0])


def test_the_backend_opens_without_rapids(driver):
    driver.patch.setattr(cupy.cuda.runtime, "memGetInfo", lambda: (FREE_BYTES, TOTAL_BYTES))
    pool = mock.Mock(spec=cupy.cuda.MemoryPool)
    pool.free_bytes.return_value = pool.total_bytes.return_value = 0
    driver.patch.setattr(cupy, "get_default_memory_pool", lambda: pool)
    backend = open_machine("device", has_rapids=False)
    assert isinstance(backend, Backend)
    assert backend.describe_device()["memory_budget_bytes"] == FREE_BYTES
    assert backend.count_lanes(1000, 10**6) == 132 * 512
    assert backend.memory_usage() == {"peak_bytes": 0, "n_out_of_memory": 0}
    backend.reset_counters()


def test_all_libraries_allocate_from_one_pool_with_a_limit(driver):
    """CUDA's own stream-ordered pool, never managed memory, whatever was set before."""
    import rmm

    from gpu_dcgen.backend.gpu import memory

    limit = 2 << 30
    backend, _ = select_backend("gpu", gpu_memory_limit=limit)
    resource = rmm.mr.get_current_device_resource()
    assert isinstance(resource, rmm.mr.LimitingResourceAdaptor)
    assert resource.get_allocation_limit() == limit
    statistics = resource.get_upstream()
    assert isinstance(statistics, rmm.mr.StatisticsResourceAdaptor)
    # What stands for the pool where the driver is faked.
    assert isinstance(statistics.get_upstream(), type(rmm.mr.CudaAsyncMemoryResource()))
    assert cupy.cuda.get_allocator() is memory._allocate


def test_auto_takes_it(driver):
    backend, reason = select_backend("auto")
    assert (backend.name, reason) == ("gpu", "a CUDA device is available")


def test_the_doctor_tells_its_versions(driver):
    checks = {check.name: check for check in doctor._check_gpu()}
    assert {check.verdict for check in checks.values()} == {"ok"}
    distributions = importlib.metadata.packages_distributions()
    versions = {
        name: importlib.metadata.version(distributions[name][0]) for name in device.PACKAGES
    }
    assert versions == {
        "cupy": mock.ANY,
        "pylibcudf": mock.ANY,
        "rmm": mock.ANY,
        "numba_cuda": mock.ANY,
    }
    for name, version in versions.items():
        assert f"{name} {version}" in checks["RAPIDS"].actual


def test_numba_compiles_its_first_kernel(driver):
    device.find_device()
    [ptx] = driver.compiled
    assert ".target sm_90" in ptx and "%tid.x" in ptx and "st.global" in ptx


@pytest.mark.parametrize("n", range(3))
def test_each_first_operation_is_compared_with_its_result(n, driver, monkeypatch):
    operations = importlib.import_module("gpu_dcgen.backend.gpu.first_operations").OPERATIONS
    assert [operation.run() == operation.expected for operation in operations] == [True] * 3
    monkeypatch.setitem(operations[n].__dict__, "run", lambda: "something else")
    with pytest.raises(BackendError, match="NVIDIA Test computes wrongly: .* something else, not"):
        device.find_device()


OPEN = """
import sys, warnings
import numpy, pytest
{broken}
from gpu_dcgen.backend.select import select_backend
from gpu_dcgen.errors import BackendError
from tests.gpu.faked_driver import FakedDriver
with pytest.MonkeyPatch.context() as patch:
    {driver}
    backend, reason = select_backend("auto")
    assert (backend.name, reason[:8]) == ({name!r}, {reason!r}), (backend.name, reason)
    try:
        select_backend("gpu")
    except BackendError as error:
        print(error)
"""
WITHOUT_ROW_STACK = "numpy.__all__.remove('row_stack'); del numpy.row_stack"
WITHOUT_DRIVER = """
import ctypes
load = ctypes.CDLL
def find(name, *arguments, **options):
    if name == "libcuda.so.1":
        raise OSError(f"{name}: no such file")
    return load(name, *arguments, **options)
ctypes.CDLL = find
import cupy, pylibcudf, rmm, numba.cuda
"""
WITHOUT_NVVM = """
import cuda.pathfinder
load = cuda.pathfinder.load_nvidia_dynamic_lib
def find(name):
    if name == "nvvm":
        raise cuda.pathfinder.DynamicLibNotFoundError("Failure finding libnvvm.so: /no/where")
    return load(name)
cuda.pathfinder.load_nvidia_dynamic_lib = find
"""


def open_in_another_process(
    broken: str,
    *,
    name: str = "cpu",
    reason: str = "no GPU: ",
    driver: str = "FakedDriver(patch)",
) -> str:
    code = OPEN.format(broken=broken, name=name, reason=reason, driver=driver)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_numpy_that_numba_does_not_know_is_named():
    text = open_in_another_process(WITHOUT_ROW_STACK)
    assert "numba-cuda failed: AttributeError" in text and "row_stack" in text
    assert "pip install 'numpy<2.5'" in text


def test_nvvm_that_is_missing_is_named():
    text = open_in_another_process(WITHOUT_NVVM)
    assert "numba-cuda failed: DynamicLibNotFoundError" in text and "/no/where" in text
    assert "export CUDA_HOME=/usr/local/cuda" in text


def test_the_wheels_without_a_driver_are_no_gpu():
    """They import as if there were one; only asking the driver tells."""
    text = open_in_another_process(WITHOUT_DRIVER, driver="pass")
    assert "no NVIDIA driver (libcuda.so.1: no such file" in text


def test_warnings_as_errors_are_no_reason_to_refuse_the_device():
    assert open_in_another_process("", name="gpu", reason="a CUDA d") == ""


def aliases(tree: ast.Module) -> dict[str, object]:
    """What the names that a module imports from the libraries stand for."""
    names: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in LIBRARIES:
                    found = importlib.import_module(alias.name)
                    root = importlib.import_module(alias.name.split(".")[0])
                    names[alias.asname or root.__name__] = found if alias.asname else root
        elif isinstance(node, ast.ImportFrom) and not node.level:
            if node.module.split(".")[0] not in LIBRARIES | {"numba"}:
                continue
            for alias in node.names:
                names[alias.asname or alias.name] = resolve(node.module, alias.name)
    return names


def resolve(module: str, name: str) -> object:
    try:
        return importlib.import_module(f"{module}.{name}")
    except ImportError:
        return getattr(importlib.import_module(module), name)


def missing_attributes(tree: ast.Module, names: dict[str, object]) -> tuple[int, list[str]]:
    """Attributes of the libraries that are used, counted, and those that do not exist.

    A chain `a.b.c` is followed as long as it leads through modules and classes.
    """
    n_found, missing = 0, []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        parts, root = [node.attr], node.value
        while isinstance(root, ast.Attribute):
            parts.append(root.attr)
            root = root.value
        if not isinstance(root, ast.Name) or root.id not in names:
            continue
        owner = names[root.id]
        for part in reversed(parts):
            if not isinstance(owner, ModuleType | type):
                break
            if not hasattr(owner, part):
                missing.append(ast.unparse(node))
                break
            owner = getattr(owner, part)
            n_found += 1
    return n_found, missing


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_attribute_that_is_used_exists(path):
    tree = ast.parse(path.read_text())
    names = {"xp": importlib.import_module("cupy"), **aliases(tree)}
    n_found, missing = missing_attributes(tree, names)
    assert not missing
    if path.stem in ("libcudf", "memory", "first_operations", "cuda_backend"):
        assert n_found >= 5


def test_an_attribute_that_does_not_exist_is_found():
    tree = ast.parse("import pylibcudf as plc\nplc.__version__\nplc.io.parquet.ParquetReaders")
    _, missing = missing_attributes(tree, aliases(tree))
    assert missing == ["plc.__version__", "plc.io.parquet.ParquetReaders"]
