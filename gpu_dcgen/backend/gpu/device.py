"""Find out whether a GPU can be used, what it is, and if not, exactly why.

CuPy, cuDF and cuML import without a driver; only their first operation fails. So every step is
tried, in the order in which the steps depend on each other, and the first failure is reported.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
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
    "CUDF_PER_THREAD_STREAM",
    "CUPY_CUDA_PER_THREAD_DEFAULT_STREAM",
    "NUMBA_CUDA_PER_THREAD_DEFAULT_STREAM",
)
INSTALL = (
    "pip install 'gpu-dcgen[gpu-cu13]' (or gpu-cu12 for a driver older than 580), "
    "or environment.yml"
)
PACKAGES = ("cupy", "cudf", "pylibcudf", "rmm", "numba_cuda")
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
    """Return the current CUDA device (CUDA_VISIBLE_DEVICES chooses) after a first kernel ran.

    BackendError names what is missing and what to do.
    """
    _require_prerequisites()
    cupy = _import("cupy")
    n_devices = _query("counting devices", cupy.cuda.runtime.getDeviceCount)
    if n_devices == 0:
        raise BackendError(
            "the driver shows no CUDA device.\n"
            "Check CUDA_VISIBLE_DEVICES; in a container, run with --gpus all."
        )
    index = _query("choosing a device", cupy.cuda.runtime.getDevice)
    properties = _query("querying the device", lambda: cupy.cuda.runtime.getDeviceProperties(index))
    name, capability = properties["name"].decode(), (properties["major"], properties["minor"])
    if capability < MIN_CAPABILITY:
        raise BackendError(
            f"{name} has compute capability {capability[0]}.{capability[1]}; "
            "RAPIDS needs 7.5 (Turing) or later."
        )
    _require_versions()
    result = _query(
        "compiling and running a first kernel", lambda: int((cupy.arange(4) ** 2 + 1).sum())
    )
    if result != 18:
        raise BackendError(f"{name} computes wrongly: a first kernel returned {result}, not 18.")
    _import("numba.cuda")
    return Device(
        index=index,
        name=name,
        capability=capability,
        n_multiprocessors=properties["multiProcessorCount"],
        memory_bytes=properties["totalGlobalMem"],
        driver=_format_cuda_version(cupy.cuda.runtime.driverGetVersion()),
        runtime=_format_cuda_version(cupy.cuda.runtime.runtimeGetVersion()),
        libraries=library_versions(),
    )


def library_versions() -> dict[str, str]:
    """Return versions of the installed GPU libraries by package, without importing them."""
    providers = importlib.metadata.packages_distributions()
    names = {
        package: providers[package][0] for package in (*PACKAGES, *OPTIONAL) if package in providers
    }
    return {package: importlib.metadata.version(name) for package, name in names.items()}


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


def _require_versions() -> None:
    for package, minimum in MIN_VERSIONS.items():
        version = _import(package).__version__
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
            f"{package} cannot be imported: {type(error).__name__}: {error}\n"
            f"Install RAPIDS again: {INSTALL}."
        ) from error


def _query(step: str, query: Callable[[], T]) -> T:
    try:
        return query()
    except Exception as error:
        raise BackendError(
            f"{step} failed: {type(error).__name__}: {error}\n"
            "'gpu-dcgen doctor' shows what is installed."
        ) from error


def _format_cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
