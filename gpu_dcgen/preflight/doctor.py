"""Is this machine fit for a build? The contract's pre-generation checklist, as data: each check says what to do about it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from packaging.version import Version

from ..config import DatasetConfig, count_usable_cores, load_config
from ..contract.budgets import (
    GB,
    RECOMMENDED_CORES,
    RECOMMENDED_DISK_BYTES,
    RECOMMENDED_MEMORY_BYTES,
)
from ..errors import BackendError, DcgenError
from ..resources import (
    add_disk_margin,
    estimate_dataset_bytes,
    free_disk_bytes,
    nearest_existing,
    total_memory,
)
from ..storage.locations import is_url

if TYPE_CHECKING:
    from ..inputs.sources import Source

PYTHON_FROM, PYTHON_BELOW = (3, 11), (3, 15)  # as requires-python


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `fail`: a build cannot work; `warn`: it may be slow or run out of room."""

    name: str
    found: str
    expected: str
    verdict: Literal["ok", "warn", "fail"]
    remedy: str = ""  # what to do, empty when ok


def checks(
    inputs: Path | None = None, output: Path | None = None, config_file: Path | None = None
) -> list[Check]:
    """Look at everything: Python, packages, machine, configuration, and where given the input tables and the output's disk."""
    config, checked = _configuration(config_file)
    sources, tables = ({}, []) if inputs is None else _tables(inputs, config)
    backend = [_python(), *_packages(), _kernels(), checked, _memory(), _cores(), *_gpu()]
    folder = nearest_existing(output or Path())
    return [*backend, *tables, *_room(sources, folder, config), _writable(folder)]


def prebuild(inputs: Path | str, output: Path | str, config: DatasetConfig) -> list[Check]:
    """What may slow a build down or leave it short of room; what makes it impossible, the build says itself, and better."""
    sources = {} if is_url(inputs) else _tables(inputs, config)[0]
    folder = Path(tempfile.gettempdir()) if is_url(output) else output
    return [_memory(), _cores(), *_room(sources, nearest_existing(folder), config)]


def _check(
    name: str,
    found: str,
    expected: str,
    good: bool,
    otherwise: Literal["warn", "fail"],
    remedy: str,
) -> Check:
    return Check(name, found, expected, "ok" if good else otherwise, "" if good else remedy)


def _python() -> Check:
    wanted = f"{'.'.join(map(str, PYTHON_FROM))} up to, not including, {'.'.join(map(str, PYTHON_BELOW))}"
    good = PYTHON_FROM <= sys.version_info[:2] < PYTHON_BELOW
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return _check(
        "Python",
        found,
        wanted,
        good,
        "fail",
        "Make a virtual environment with one of these versions.",
    )


def _packages() -> list[Check]:
    """Installed versions against the lower bounds that this package's own metadata name."""
    try:
        requirements = importlib.metadata.requires("gpu-dcgen") or []
    except importlib.metadata.PackageNotFoundError:
        remedy = "Install it (pip install .) to have its dependencies checked."
        return [
            Check(
                "gpu-dcgen",
                "not installed: run from a folder",
                "an installed package",
                "warn",
                remedy,
            )
        ]
    bounds = [re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement) for requirement in requirements]
    return [_package(bound[1], bound[2]) for bound in bounds if bound]


def _package(name: str, least: str) -> Check:
    remedy = f"pip install '{name}>={least}'"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, "not installed", f">= {least}", "fail", remedy)
    # Pre-releases count as the release that they lead to.
    is_new_enough = Version(Version(version).base_version) >= Version(least)
    return _check(name, version, f">= {least}", is_new_enough, "fail", remedy)


def _kernels() -> Check:
    """numba refuses to be imported beside a NumPy that is too new for it."""
    expected = "numba can be imported"
    try:
        importlib.import_module("numba")
    except Exception as error:
        return Check(
            "compiled kernels",
            f"{type(error).__name__}: {error}",
            expected,
            "fail",
            "pip install -U numba numpy",
        )
    return Check("compiled kernels", "numba loads", expected, "ok")


def _configuration(file: Path | None) -> tuple[DatasetConfig, Check]:
    """The configuration to go on with (the defaults where the file cannot be used) and its check."""
    expected = "a configuration that can be used"
    try:
        return load_config(file), Check("configuration", str(file or "defaults"), expected, "ok")
    except DcgenError as error:
        remedy = "Mend the file; 'gpu-dcgen config' prints every key."
        return DatasetConfig(), Check("configuration", str(error), expected, "fail", remedy)


def _memory() -> Check:
    total = total_memory()
    expected, good = f">= {RECOMMENDED_MEMORY_BYTES // GB} GB", total >= RECOMMENDED_MEMORY_BYTES
    remedy = "A large log may not fit: lower resources.batch_size, or use a bigger machine."
    return _check("memory", f"{total / GB:.1f} GB", expected, good, "warn", remedy)


def _cores() -> Check:
    cores = count_usable_cores()
    return _check(
        "cores",
        str(cores),
        f">= {RECOMMENDED_CORES}",
        cores >= RECOMMENDED_CORES,
        "warn",
        "The build works, and takes longer.",
    )


def _gpu() -> list[Check]:
    """The device, its driver and libraries; none is no fault, a half-installed one is worth a warning."""
    from ..backend.gpu.device import find_device, library_versions

    expected = "none needed: builds run on the CPU"
    try:
        device = find_device()
    except BackendError as error:
        found, *remedy = str(error).splitlines()
        installed = library_versions()
        if installed.keys() & {"cupy", "cudf"}:  # somebody meant to use a GPU
            return [
                Check(
                    "GPU",
                    f"{found} Installed: {_listed(installed)}",
                    expected,
                    "warn",
                    " ".join(remedy),
                )
            ]
        return [Check("GPU", found, expected, "ok")]
    capability = ".".join(map(str, device.capability))
    found = f"{device.name}, {device.memory_bytes / GB:.0f} GB, compute capability {capability}"
    return [
        Check("GPU", found, expected, "ok"),
        Check(
            "CUDA",
            f"driver {device.driver}, runtime {device.runtime}",
            "driver at or above the runtime",
            "ok",
        ),
        Check("RAPIDS", _listed(device.libraries), "cuDF, CuPy, RMM and numba-cuda", "ok"),
    ]


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _tables(inputs: Path, config: DatasetConfig) -> tuple[dict[str, Source], list[Check]]:
    """The tables as a build would find them, none where it would refuse them, and what there is to say of each.

    Files, their footers and columns; the rows are the build's to judge.
    """
    expected = "tables that a build can read"
    try:
        from ..inputs.sources import find_sources

        sources = find_sources(inputs, config.inputs)
    except DcgenError as error:
        found, *remedy = str(error).splitlines()
        return {}, [Check("tables", found, expected, "fail", " ".join(remedy))]
    except ImportError as error:
        return {}, [
            Check(
                "tables",
                f"cannot be looked at: {error}",
                expected,
                "fail",
                "pip install -U pyarrow",
            )
        ]
    return sources, [
        Check(source.label, _extent(source), expected, "ok") for source in sources.values()
    ]


def _extent(source: Source) -> str:
    return f"{source.n_rows:,} rows, {sum(file.stat().st_size for file in source.files) / 10**6:,.1f} MB"


def _room(sources: dict[str, Source], folder: Path, config: DatasetConfig) -> list[Check]:
    """Room on the disk of `folder`, by the contract and, where there is a log, by this build's estimate."""
    free = free_disk_bytes(folder)
    found, remedy = (
        f"{free / GB:.1f} GB free at {folder}",
        f"Make room on the disk of {folder}, or write elsewhere.",
    )
    room = [
        _check(
            "disk",
            found,
            f"> {RECOMMENDED_DISK_BYTES // GB} GB",
            free > RECOMMENDED_DISK_BYTES,
            "warn",
            remedy,
        )
    ]
    if "transactions" in sources:
        estimate = estimate_dataset_bytes(sources["transactions"].n_rows, config)
        needed = add_disk_margin(estimate)
        room.append(
            _check(
                "disk for this build",
                found,
                f"about {needed / GB:.1f} GB at most",
                free > needed,
                "warn",
                remedy,
            )
        )
    return room


def _writable(folder: Path) -> Check:
    writable, remedy = (
        os.access(folder, os.W_OK),
        "Choose another folder, or change its permissions.",
    )
    return _check(
        "output",
        f"{folder} is {'' if writable else 'not '}writable",
        "a writable folder",
        writable,
        "fail",
        remedy,
    )
