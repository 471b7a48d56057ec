"""Find out whether a GPU can be used, what it is, and if not, exactly why.

CuPy, pylibcudf and cuML import without a driver; only their first operation fails. So every step
is tried, in the order in which the steps depend on each other, and the first failure is reported.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from packaging.version import Version

from ...errors import BackendError

MIN_CAPABILITY = (7, 5)  # RAPIDS: Turing and later
MIN_VERSIONS = {
    # The release that this package was written against.
    "pylibcudf": "26.10",
    # Earlier releases sort wrongly where memory does not suffice (cupy#9894).
    "cupy": "14.2",
}
# With these, the libraries would not wait for each other's work.
PER_THREAD_STREAMS = (
    "CUDA_PYTHON_CUDA_PER_THREAD_DEFAULT_STREAM",
    "CUDF_PER_THREAD_STREAM",
    "CUPY_CUDA_PER_THREAD_DEFAULT_STREAM",
    "NUMBA_CUDA_PER_THREAD_DEFAULT_STREAM",
)
INSTALL = (
    "pip install 'gpu-dcgen[gpu-cu13]' (or gpu-cu12 for a driver older than 580), "
    "or environment.yml"
)
# Modules that the backend imports; cuDF itself is not one of them.
PACKAGES = ("cupy", "pylibcudf", "rmm", "numba_cuda")
OPTIONAL = ("cuml", "faiss")

T = TypeVar("T")


@dataclass(frozen=True)
class Device:
    """A CUDA device that has run a kernel, and the libraries that drive it."""

    index: int
    name: str
    capability: tuple[int, int]
    n_multiprocessors: int
    memory_bytes: int  # total
    driver: str  # newest CUDA that the driver supports, "13.0"
    runtime: str  # CUDA that CuPy uses
    libraries: dict[str, str]  # version by package

    def describe(self) -> dict[str, Any]:
        """Return the device's properties, for the manifest."""
        return {
            "device": self.name,
            "compute_capability": ".".join(map(str, self.capability)),
            "memory_bytes": self.memory_bytes,
            "cuda_driver": self.driver,
            "cuda_runtime": self.runtime,
            "libraries": self.libraries,
        }


def find_device() -> Device:
    """Return the current CUDA device after first operations ran on it.

    CUDA_VISIBLE_DEVICES chooses it; CuPy, numba-cuda and libcudf each compute something small.
    BackendError names what is missing and what to do, whatever the libraries raise.
    """
    with warnings.catch_warnings():
        # What libraries deprecate among themselves is no reason to refuse a device, even where
        # Python treats warnings as errors.
        warnings.simplefilter("ignore", DeprecationWarning)
        _require_prerequisites()
        cupy = _import("cupy")
        properties = _find_properties(cupy)
        _require_versions()
        for package in ("rmm", "pylibcudf", "numba.cuda"):
            _import(package)
        _run_first_operations(properties["name"].decode())
        return _query("describing the device", lambda: _describe(properties, cupy.cuda.runtime))


def library_versions() -> dict[str, str]:
    """Return versions of the installed GPU libraries by package, without importing them."""
    providers = importlib.metadata.packages_distributions()
    names = {
        package: providers[package][0] for package in (*PACKAGES, *OPTIONAL) if package in providers
    }
    return {package: importlib.metadata.version(name) for package, name in names.items()}


def quote_error(error: Exception) -> str:
    """Return the type and the text of a library's error as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _require_prerequisites() -> None:
    """Raise BackendError unless RAPIDS, one default stream and a driver are there."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise BackendError(f"{package} is not installed.\nInstall RAPIDS: {INSTALL}.")
    if names := [name for name in PER_THREAD_STREAMS if os.environ.get(name, "0") != "0"]:
        raise BackendError(
            f"{names[0]} is set: the libraries would not wait for each other's work.\n"
            f"Unset it: unset {names[0]}"
        )
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendError(
            f"no NVIDIA driver ({error}).\n"
            "Install the driver (580 or later for CUDA 13); in a container, run with --gpus all."
        ) from error


def _find_properties(cupy: Any) -> dict[str, Any]:
    """Return properties of the current device; BackendError if there is none or it is too old."""
    runtime = cupy.cuda.runtime
    if _query("counting devices", runtime.getDeviceCount) == 0:
        raise BackendError(
            "the driver shows no CUDA device.\n"
            "Check CUDA_VISIBLE_DEVICES; in a container, run with --gpus all."
        )
    properties: dict[str, Any] = _query(
        "querying the device", lambda: runtime.getDeviceProperties(runtime.getDevice())
    )
    capability = (properties["major"], properties["minor"])
    if capability < MIN_CAPABILITY:
        raise BackendError(
            f"{properties['name'].decode()} has compute capability "
            f"{capability[0]}.{capability[1]}; RAPIDS needs 7.5 (Turing) or later."
        )
    return properties


def _describe(properties: dict[str, Any], runtime: Any) -> Device:
    return Device(
        index=runtime.getDevice(),
        name=properties["name"].decode(),
        capability=(properties["major"], properties["minor"]),
        n_multiprocessors=properties["multiProcessorCount"],
        memory_bytes=properties["totalGlobalMem"],
        driver=_format_cuda_version(runtime.driverGetVersion()),
        runtime=_format_cuda_version(runtime.runtimeGetVersion()),
        libraries=library_versions(),
    )


def _run_first_operations(name: str) -> None:
    """Raise BackendError unless each library computes something small on the device."""
    for operation in _import("gpu_dcgen.backend.gpu.first_operations").OPERATIONS:
        result = _query(operation.description, operation.run)
        if result != operation.expected:
            raise BackendError(
                f"{name} computes wrongly: {operation.description} returned {result}, "
                f"not {operation.expected}."
            )


def _require_versions() -> None:
    versions = _query("reading the versions of the libraries", library_versions)
    for package, minimum in MIN_VERSIONS.items():
        if package not in versions:
            raise BackendError(
                f"{package} is installed without its metadata, so its version is unknown; "
                f"{minimum} or later is needed.\nInstall it: {INSTALL}."
            )
        version = versions[package]
        # A pre-release counts as the release that it leads to.
        if Version(Version(version).base_version) < Version(minimum):
            raise BackendError(
                f"{package} {version} is too old; {minimum} or later is needed.\n"
                f"Install it: {INSTALL}."
            )


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except Exception as error:
        raise BackendError(
            f"{package} cannot be imported: {quote_error(error)}\nInstall RAPIDS again: {INSTALL}."
        ) from error


def _query(step: str, query: Callable[[], T]) -> T:
    try:
        return query()
    except Exception as error:
        raise BackendError(
            f"{step} failed: {quote_error(error)}\n{_suggest_remedy(error)}"
        ) from error


def _suggest_remedy(error: Exception) -> str:
    """Return what to do about an error of a first operation."""
    text = str(error)
    if isinstance(error, AttributeError) and "numpy" in text:
        return (
            "numba-cuda names a function that this NumPy does not have; install an earlier one: "
            "pip install 'numpy<2.5'"
        )
    if "nvvm" in f"{type(error).__name__} {text}".lower():
        return (
            "numba-cuda compiles with NVVM, of the package nvidia-nvvm or of a CUDA toolkit "
            f"({_list_toolkits()}).\n"
            "Install it: pip install 'numba-cuda[cu13]' (or cu12), or set CUDA_HOME to a toolkit "
            "that has a folder nvvm: export CUDA_HOME=/usr/local/cuda"
        )
    return "'gpu-dcgen doctor' shows what is installed."


def _list_toolkits() -> str:
    """Return where NVVM of a CUDA toolkit is looked for, and whether it is there."""
    places = [
        f"{variable}={folder} has {'a' if (Path(folder) / 'nvvm').is_dir() else 'no'} folder nvvm"
        for variable in ("CUDA_HOME", "CUDA_PATH", "CONDA_PREFIX")
        if (folder := os.environ.get(variable))
    ]
    return "; ".join(places) or "CUDA_HOME, CUDA_PATH and CONDA_PREFIX are not set"


def _format_cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
