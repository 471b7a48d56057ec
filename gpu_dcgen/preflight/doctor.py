"""Check whether this machine can run a build: the contract's pre-generation checklist."""

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
from ..errors import BackendError, DcgenError, Problems
from ..resources import (
    add_disk_margin,
    estimate_dataset_bytes,
    free_disk_bytes,
    nearest_existing,
    total_memory,
)
from ..storage.locations import is_url

if TYPE_CHECKING:
    from ..contract.schema import InputTable
    from ..inputs.origins import InputTables
    from ..inputs.sources import Source

PYTHON_FROM, PYTHON_BELOW = (3, 11), (3, 15)  # as requires-python

_READABLE = "tables that a build can read"

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """The result of a check, with what to do about it.

    `fail`: a build cannot work; `warn`: it may be slow, or lack memory or disk space.
    """

    name: str
    actual: str
    expected: str
    verdict: Verdict
    remedy: str = ""  # what to do, empty when ok


def checks(
    inputs: Path | None = None, output: Path | None = None, config_file: Path | None = None
) -> list[Check]:
    """Check Python, packages, machine and configuration; where given, tables and output too."""
    config, config_check = _check_config(config_file)
    sources, tables = ({}, []) if inputs is None else _check_inputs(inputs, config)
    machine = [
        _check_python(),
        *_check_packages(),
        _check_kernels(),
        config_check,
        _check_memory(),
        _check_cores(),
        *_check_gpu(),
    ]
    folder = nearest_existing(output or Path())
    return [*machine, *tables, *_check_disk(sources, folder, config), _check_writable(folder)]


def prebuild(inputs: Path | str, output: Path | str, config: DatasetConfig) -> list[Check]:
    """Check what may leave a build short of memory or disk space.

    What makes a build impossible is left to the build, which explains it better.
    """
    sources = {} if is_url(inputs) else _check_footers(Path(inputs), config)
    folder = Path(tempfile.gettempdir()) if is_url(output) else Path(output)
    disk = _check_disk(sources, nearest_existing(folder), config)
    return [_check_memory(), *disk]


def _judge(
    name: str, actual: str, expected: str, is_ok: bool, otherwise: Verdict, remedy: str
) -> Check:
    """Return a check that is `ok`, or `otherwise` with its remedy."""
    return Check(name, actual, expected, "ok" if is_ok else otherwise, "" if is_ok else remedy)


def _check_python() -> Check:
    first, end = (".".join(map(str, version)) for version in (PYTHON_FROM, PYTHON_BELOW))
    return _judge(
        "Python",
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        f"{first} up to, not including, {end}",
        PYTHON_FROM <= sys.version_info[:2] < PYTHON_BELOW,
        "fail",
        "Create a virtual environment with one of these versions.",
    )


def _check_packages() -> list[Check]:
    """Compare installed versions with the lower bounds in this package's own metadata."""
    try:
        requirements = importlib.metadata.requires("gpu-dcgen") or []
    except importlib.metadata.PackageNotFoundError:
        return [
            Check(
                "gpu-dcgen",
                "not installed: run from a folder",
                "an installed package",
                "warn",
                "Install it (pip install .) to have its dependencies checked.",
            )
        ]
    bounds = [re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement) for requirement in requirements]
    return [_check_package(bound[1], bound[2]) for bound in bounds if bound]


def _check_package(name: str, minimum: str) -> Check:
    expected, remedy = f">= {minimum}", f"pip install '{name}>={minimum}'"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, "not installed", expected, "fail", remedy)
    # Pre-releases count as the release that they lead to.
    is_new_enough = Version(Version(version).base_version) >= Version(minimum)
    return _judge(name, version, expected, is_new_enough, "fail", remedy)


def _check_kernels() -> Check:
    """Import numba, which refuses to work with a NumPy that is too new for it."""
    name, expected = "compiled kernels", "numba can be imported"
    try:
        importlib.import_module("numba")
    except Exception as error:
        actual = f"{type(error).__name__}: {error}"
        return Check(name, actual, expected, "fail", "pip install -U numba numpy")
    return Check(name, "numba loads", expected, "ok")


def _check_config(file: Path | None) -> tuple[DatasetConfig, Check]:
    """Load the configuration; the other checks use the defaults where that fails."""
    name, expected = "configuration", "a valid configuration"
    try:
        return load_config(file), Check(name, str(file or "defaults"), expected, "ok")
    except DcgenError as error:
        remedy = "Fix the file; 'gpu-dcgen config' prints every key."
        return DatasetConfig(), Check(name, str(error), expected, "fail", remedy)


def _check_memory() -> Check:
    total = total_memory()
    return _judge(
        "memory",
        f"{total / GB:.1f} GB",
        f">= {RECOMMENDED_MEMORY_BYTES // GB} GB",
        total >= RECOMMENDED_MEMORY_BYTES,
        "warn",
        "A large log may not fit: lower resources.batch_size, or use a machine with more memory.",
    )


def _check_cores() -> Check:
    cores = count_usable_cores()
    return _judge(
        "cores",
        str(cores),
        f">= {RECOMMENDED_CORES}",
        cores >= RECOMMENDED_CORES,
        "warn",
        "The build works, and takes longer.",
    )


def _check_gpu() -> list[Check]:
    """Look for a GPU and its libraries; none is fine, an incomplete setup is a warning."""
    from ..backend.gpu.device import find_device, library_versions

    expected = "none needed: builds run on the CPU"
    try:
        device = find_device()
    except BackendError as error:
        actual, *remedy = str(error).splitlines()
        installed = library_versions()
        # With one of these installed, the user meant to use a GPU.
        if installed.keys() & {"cupy", "pylibcudf"}:
            actual = f"{actual} Installed: {_list_versions(installed)}"
            return [Check("GPU", actual, expected, "warn", " ".join(remedy))]
        return [Check("GPU", actual, expected, "ok")]
    capability = ".".join(map(str, device.capability))
    gpu = f"{device.name}, {device.memory_bytes / GB:.0f} GB, compute capability {capability}"
    cuda = f"driver {device.driver}, runtime {device.runtime}"
    libraries = _list_versions(device.libraries)
    return [
        Check("GPU", gpu, expected, "ok"),
        Check("CUDA", cuda, "driver at or above the runtime", "ok"),
        Check("RAPIDS", libraries, "pylibcudf, CuPy, RMM and numba-cuda", "ok"),
    ]


def _list_versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _check_inputs(
    inputs: Path, config: DatasetConfig
) -> tuple[dict[InputTable, Source], list[Check]]:
    """Find the tables and read their rows, as a build does; CSV files are converted first.

    Returns no sources where a build would refuse the tables.
    """
    try:
        from ..inputs.opening import open_tables

        with tempfile.TemporaryDirectory(prefix="gpu-dcgen-doctor-") as scratch:
            problems = Problems()
            tables = open_tables(inputs, config.inputs, Path(scratch) / "csv", collected=problems)
            sources, sizes = _check_tables(tables, config)
            rows, is_usable = _check_rows(tables, config, problems)
            return sources if is_usable else {}, [*sizes, *rows]
    except DcgenError as error:
        return {}, [_report_problem(part, _READABLE) for part in error.parts]
    except ImportError as error:
        actual = f"cannot be checked: {error}"
        return {}, [Check("tables", actual, _READABLE, "fail", "pip install -U pyarrow")]


def _check_footers(inputs: Path, config: DatasetConfig) -> dict[InputTable, Source]:
    """Find the tables by their footers; none where there are CSV files, or a build would fail."""
    try:
        from ..inputs.opening import has_csv_tables
        from ..inputs.sources import find_sources

        return {} if has_csv_tables(inputs, config.inputs) else find_sources(inputs, config.inputs)
    except (DcgenError, ImportError, OSError):
        return {}


def _check_tables(
    tables: InputTables, config: DatasetConfig
) -> tuple[dict[InputTable, Source], list[Check]]:
    """Find the tables that a build can read, by files, footers and columns; no rows are read."""
    from ..inputs.sources import find_sources

    sources = find_sources(tables, config.inputs, Problems())
    return sources, [
        Check(source.label, _describe_size(source), _READABLE, "ok") for source in sources.values()
    ]


def _report_problem(text: str, expected: str) -> Check:
    """Return a failed check from the text of an error: what is indented belongs to its head."""
    head, *lines = text.splitlines()
    actual = " ".join([head, *(line.strip() for line in lines if line.startswith(" "))])
    remedy = " ".join(line for line in lines if not line.startswith(" "))
    return Check("tables", actual, expected, "fail", remedy)


def _check_rows(
    tables: InputTables, config: DatasetConfig, problems: Problems
) -> tuple[list[Check], bool]:
    """Read the tables as a build does, and report what it would refuse or warn of.

    Returns as well whether a build can use them. `problems` are those of CSV files that could not
    be read.
    """
    from ..backend.select import select_backend
    from ..inputs.shop import check_tables

    expected = "rows that a build can use"
    backend, _ = select_backend("cpu", memory_limit=config.resources.memory_limit)
    try:
        report = check_tables(tables, config, backend, problems)
    except DcgenError as error:
        return [_report_problem(part, expected) for part in error.parts], False
    n_rows = sum(rows.read for rows in report.rows.values())
    n_bad = sum(rows.rejected for rows in report.rows.values())
    actual = f"{n_rows:,} rows, {n_bad:,} of them bad"
    warnings = (Check("rows", text, expected, "warn") for text in report.warnings)
    return [Check("rows", actual, expected, "ok"), *warnings], True


def _describe_size(source: Source) -> str:
    n_bytes = sum(
        file.stat().st_size if origin is None else origin.bytes
        for file, origin in zip(source.files, source.origins, strict=True)
    )
    return f"{source.n_rows:,} rows, {n_bytes / 10**6:,.1f} MB"


def _check_disk(
    sources: dict[InputTable, Source], folder: Path, config: DatasetConfig
) -> list[Check]:
    """Compare free space with the contract's and, with a log, with an estimate for its build."""
    free = free_disk_bytes(folder)
    actual = f"{free / GB:.1f} GB free at {folder}"
    remedy = f"Free up space on the disk of {folder}, or write elsewhere."
    recommended, is_enough = RECOMMENDED_DISK_BYTES // GB, free > RECOMMENDED_DISK_BYTES
    disk = [_judge("disk", actual, f"> {recommended} GB", is_enough, "warn", remedy)]
    if "transactions" in sources:
        needed = add_disk_margin(estimate_dataset_bytes(sources["transactions"].n_rows, config))
        expected = f"about {needed / GB:.1f} GB at most"
        disk.append(_judge("disk for this build", actual, expected, free > needed, "warn", remedy))
    return disk


def _check_writable(folder: Path) -> Check:
    is_writable = os.access(folder, os.W_OK)
    return _judge(
        "output",
        f"{folder} is {'' if is_writable else 'not '}writable",
        "a writable folder",
        is_writable,
        "fail",
        "Choose another folder, or change its permissions.",
    )
