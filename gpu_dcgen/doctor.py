"""Is this machine fit for a build? The contract's pre-generation checklist, as data: each check says what to do about it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from .config import DatasetConfig, load_config
from .errors import DcgenError

GB = 10**9

# The contract's "Pre-Generation" checklist.
WANTED_DISK_BYTES = 50 * GB
WANTED_MEMORY_BYTES = 16 * GB
WANTED_CORES = 8

PYTHON_FROM, PYTHON_BELOW = (3, 11), (3, 15)  # as requires-python

# The contract's sizes: 10 GB of samples from H&M's 31.8 million transactions, 16 rows each at most.
BYTES_PER_SAMPLE = 20

TABLES = ("articles", "customers", "transactions")
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # versions 2 and 1


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `fail`: a build cannot work; `warn`: it may be slow or run out of room."""

    name: str
    found: str
    expected: str
    verdict: Literal["ok", "warn", "fail"]
    remedy: str = ""  # what to do, empty when ok


def checks(inputs: Path | None = None, output: Path | None = None, config_file: Path | None = None) -> list[Check]:
    """Look at everything: Python, packages, machine, configuration, and where given the input tables and the output's disk."""
    config, checked = _configuration(config_file)
    found = [_python(), *_packages(), _kernels(), checked, _memory(), _cores(), _gpu()]
    return found + _tables(inputs) + _disk(inputs, output or Path(), config)


def prebuild(inputs: Path, output: Path, config: DatasetConfig) -> list[Check]:
    """What can differ from one build to the next: tables, memory, cores, disk."""
    return [*_tables(inputs), _memory(), _cores(), *_disk(inputs, output, config)]


def _check(name: str, found: str, expected: str, good: bool, otherwise: Literal["warn", "fail"], remedy: str) -> Check:
    return Check(name, found, expected, "ok" if good else otherwise, "" if good else remedy)


def _python() -> Check:
    wanted = f"{'.'.join(map(str, PYTHON_FROM))} up to, not including, {'.'.join(map(str, PYTHON_BELOW))}"
    good = PYTHON_FROM <= sys.version_info[:2] < PYTHON_BELOW
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return _check("Python", found, wanted, good, "fail", "Make a virtual environment with one of these versions.")


def _packages() -> list[Check]:
    """Installed versions against the lower bounds that this package's own metadata name."""
    try:
        requirements = importlib.metadata.requires("gpu-dcgen") or []
    except importlib.metadata.PackageNotFoundError:
        remedy = "Install it (pip install .) to have its dependencies checked."
        return [Check("gpu-dcgen", "not installed: run from a folder", "an installed package", "warn", remedy)]
    bounds = [re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement) for requirement in requirements]
    return [_package(bound[1], bound[2]) for bound in bounds if bound]


def _package(name: str, least: str) -> Check:
    remedy = f"pip install '{name}>={least}'"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, "not installed", f">= {least}", "fail", remedy)
    return _check(name, version, f">= {least}", _release(version) >= _release(least), "fail", remedy)


def _release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (2, 4, 6) of 2.4.6rc1."""
    return tuple(int(number) for number in re.match(r"\d+(\.\d+)*", version)[0].split("."))


def _kernels() -> Check:
    """numba refuses to be imported beside a NumPy that is too new for it."""
    expected = "numba can be imported"
    try:
        importlib.import_module("numba")
    except Exception as error:
        return Check("compiled kernels", f"{type(error).__name__}: {error}", expected, "fail", "pip install -U numba numpy")
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
    total = min([psutil.virtual_memory().total, *_container_limits()])
    expected, good = f">= {WANTED_MEMORY_BYTES // GB} GB", total >= WANTED_MEMORY_BYTES
    remedy = "A large log may not fit: lower resources.batch_size, or use a bigger machine."
    return _check("memory", f"{total / GB:.1f} GB", expected, good, "warn", remedy)


def _container_limits() -> list[int]:
    """Memory limits set on this process's container, if any."""
    texts = [Path(file).read_text().strip() for file in CGROUP_LIMITS if Path(file).exists()]
    return [int(text) for text in texts if text.isdigit()]


def _cores() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _check("cores", str(cores), f">= {WANTED_CORES}", cores >= WANTED_CORES, "warn", "The build works, and takes longer.")


def _gpu() -> Check:
    return Check("GPU", "this version has no GPU backend yet", "none needed: builds run on the CPU", "ok")


def _tables(inputs: Path | None) -> list[Check]:
    return [] if inputs is None else [_table(inputs, name) for name in TABLES]


def _table(inputs: Path, name: str) -> Check:
    """A table is there and its Parquet footers can be read; its contents are the build's to judge."""
    path, expected = inputs / f"{name}.parquet", "a Parquet file, or a folder of them"
    remedy = f"Put {name}.parquet into {inputs}; 'gpu-dcgen demo' shows what such a folder looks like."
    if not path.exists():
        return Check(path.name, f"{path} does not exist", expected, "fail", remedy)
    try:
        rows, size = _extent(path)
    except Exception as error:  # pyarrow's own exceptions, or the system's
        return Check(path.name, f"{path} cannot be read: {error}", expected, "fail", "Write the file anew.")
    found = f"{rows:,} rows, {size / 10**6:,.1f} MB"
    return _check(path.name, found, expected, rows > 0, "fail", "The table is empty: write it anew.")


def _extent(table: Path) -> tuple[int, int]:
    """Rows and bytes of a table's Parquet files."""
    import pyarrow.parquet as pq

    files = sorted(table.rglob("*.parquet")) if table.is_dir() else [table]
    return sum(pq.read_metadata(file).num_rows for file in files), sum(file.stat().st_size for file in files)


def _disk(inputs: Path | None, output: Path, config: DatasetConfig) -> list[Check]:
    """Room on the disk that the output goes to, by the contract and by this build's estimate, and leave to write there."""
    folder = _existing(output)
    free, writable = shutil.disk_usage(folder).free, os.access(folder, os.W_OK)
    found, more = f"{free / GB:.1f} GB free at {folder}", f"Make room on the disk of {folder}, or write elsewhere."
    room = [_check("disk", found, f"> {WANTED_DISK_BYTES // GB} GB", free > WANTED_DISK_BYTES, "warn", more)]
    if (needed := _estimate(inputs, config)) is not None:
        room.append(_check("disk for this build", found, f"about {needed / GB:.1f} GB at most", free > needed, "warn", more))
    found, remedy = f"{folder} is {'' if writable else 'not '}writable", "Choose another folder, or change its permissions."
    return [*room, _check("output", found, "a writable folder", writable, "fail", remedy)]


def _existing(path: Path) -> Path:
    """The path itself, or its nearest parent that exists: the disk that it will be written to."""
    path = path.resolve()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _estimate(inputs: Path | None, config: DatasetConfig) -> int | None:
    """Bytes that a build of `inputs` writes at most, by the contract's sizes; None when there is no readable log."""
    if inputs is None or _table(inputs, "transactions").verdict == "fail":
        return None
    return _extent(inputs / "transactions.parquet")[0] * config.rows_per_positive * BYTES_PER_SAMPLE
