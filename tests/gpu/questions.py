"""The questions of `first_light`, each a function that a worker calls.

A question takes the settings of the run (`place`, `work`, `online_retail`, `digests`) first, and
returns what is to be written; `good: False` says that it is wrong. The libraries that a question is
about are imported in it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

from tests.gpu.asking import ROOT, NotAsked

PACKAGES = (
    *("numpy", "numba", "scipy", "pyarrow", "pydantic", "filelock", "psutil", "typer", "pyyaml"),
    *("packaging", "rich", "numba-cuda", "nvidia-nvvm", "pytest", "hypothesis"),
)
FAMILIES = ("cupy", "pylibcudf", "libcudf", "rmm", "cuda-", "nvidia-cuda-nvrtc")
DEVICE_TESTS = ("test_gpu_builds", "test_gpu_parquet", "test_gpu_tables")
N_SORTED = 1 << 20
MAX_TEXT = 4000  # characters of an output that are written down

Settings = dict[str, Any]


def list_packages(settings: Settings) -> dict[str, Any]:
    """Versions, and whether what every question needs is there."""
    versions = {
        distribution.name.lower(): distribution.version
        for distribution in importlib.metadata.distributions()
        if distribution.name.lower() in PACKAGES or distribution.name.lower().startswith(FAMILIES)
    }
    needed = ["gpu_dcgen.dataset_generator.builder"]
    if settings["place"] == "device":
        needed += ["cupy", "numba.cuda"]
    for module in needed:
        importlib.import_module(module)
    return {"versions": dict(sorted(versions.items())), "python": sys.executable}


def describe_driver(settings: Settings) -> dict[str, Any]:
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    free, total = runtime.memGetInfo()
    return {
        "device": properties["name"].decode(),
        "compute_capability": [properties["major"], properties["minor"]],
        "n_multiprocessors": properties["multiProcessorCount"],
        "free_bytes": free,
        "total_bytes": total,
        "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(),
    }


def compile_with_nvvm(settings: Settings) -> dict[str, Any]:
    """The library that numba-cuda loads, and whether it makes PTX."""
    from cuda import pathfinder
    from numba import cuda

    def write(numbers):
        numbers[cuda.grid(1)] = 1

    library = pathfinder.load_nvidia_dynamic_lib("nvvm").abs_path
    types = cuda.types.void(cuda.types.int64[:])
    text, _ = cuda.compile(write, types, device=False, abi="numba", cc=(9, 0))[:2]
    return {"good": ".target sm_90" in text, "library": library}


@functools.cache
def _machine(place: str, has_rapids: bool) -> Any:
    from tests.gpu.machines import open_machine

    return open_machine(place, has_rapids=has_rapids)


def run_kernel(settings: Settings) -> dict[str, Any]:
    """A kernel of CuPy's own, and a row kernel as a build runs it, twice."""
    import numpy as np

    from cpu_fallback import NumpyBackend
    from gpu_dcgen.kernels import rows

    backend = _machine(settings["place"], False)
    xp = backend.xp
    total = int((xp.arange(4) * 3 + 1).sum())
    positions, hashes = np.random.default_rng(1).integers(0, 1 << 63, (2, 100_000), dtype=np.uint64)
    n_spans = -(-positions.size // rows.SPAN)
    expected = np.empty(n_spans, np.uint64)
    NumpyBackend(1).for_each(rows.add_rows, n_spans, positions, hashes, 1, expected)
    sums, seconds = xp.zeros(n_spans, dtype=xp.uint64), []
    arrays = (backend.from_host(positions), backend.from_host(hashes), 1, sums)
    for _ in range(2):
        run = functools.partial(backend.for_each, rows.add_rows, n_spans, *arrays)
        seconds.append(_timed(run, backend)[1])
    good = total == 22 and np.array_equal(backend.to_host(sums), expected)
    return {"good": good, "first_s": seconds[0], "second_s": seconds[1]}


def sort(settings: Settings) -> dict[str, Any]:
    """A stable sort with many ties."""
    import numpy as np

    backend = _machine(settings["place"], False)
    keys = np.random.default_rng(2).integers(0, 1 << 20, N_SORTED)
    device_keys = backend.from_host(keys)
    order, _ = _timed(lambda: backend.stable_argsort(device_keys, 20), backend)
    order, seconds = _timed(lambda: backend.stable_argsort(device_keys, 20), backend)
    good = np.array_equal(backend.to_host(order), np.argsort(keys, kind="stable"))
    return {"good": good, "keys": N_SORTED, "seconds": seconds}


def build_shop(
    settings: Settings, shop: str, has_rapids: bool, *, reads_files: bool = True
) -> dict[str, Any]:
    """A whole build, as it was computed and as it was written, beside the expected digests."""
    from gpu_dcgen.dataset_generator.builder import build
    from tests.gpu import expected_digests as expected

    expectation = expected.read_digests(shop, settings)
    tables = expected.find_tables(shop, settings)
    if expected.hash_tables(tables) != expectation["tables"]:
        return {"good": False, "tables": "are not those of the digests: other versions made them"}
    output = Path(settings["work"]) / f"{shop}_{'rapids' if has_rapids else 'cupy'}"
    backend = _machine(settings["place"], has_rapids)
    began = time.perf_counter()
    manifest = build(tables, output, backend=backend, overwrite=True).manifest
    seconds = round(time.perf_counter() - began, 3)
    computed = expected.list_differences(expectation["digests"], manifest.digests)
    stored = []
    if reads_files:
        written = expected.digest_files(output, expectation["digests"])
        stored = expected.list_differences(expectation["digests"], written)
    content = manifest.to_dict()
    return {
        "good": not computed and not stored,
        "computed_otherwise": computed,
        "written_otherwise": stored if reads_files else "not looked at",
        "seconds": seconds,
        **{
            key: content.get(key)
            for key in ("content_digest", "counts", "similarity", "timings", "performance")
        },
        "backend": content["backend"],
    }


def build_again(settings: Settings, shop: str, has_rapids: bool) -> dict[str, Any]:
    """A second build in the same process, whose kernels are compiled: the one to be timed."""
    return build_shop(settings, shop, has_rapids, reads_files=False)


def time_similarity(settings: Settings) -> dict[str, Any]:
    """Seconds of the exact similarities of a log, with the CPU's pairs."""
    from tests.gpu import engines
    from tests.gpu import expected_digests as expected

    shop = "online_retail" if settings["online_retail"] else "tiny"
    tables = expected.find_tables(shop, settings)
    return {"log": shop, **engines.time_exact(tables, _machine(settings["place"], False))}


def open_rapids(settings: Settings) -> dict[str, Any]:
    if settings["place"] == "device":
        for package in ("pylibcudf", "rmm"):
            if importlib.util.find_spec(package) is None:
                raise NotAsked(f"{package} is not installed")
    return _machine(settings["place"], True).describe_device()


def write_and_read(settings: Settings) -> dict[str, Any]:
    """A column of each kind, written on the device, read by pyarrow and on the device."""
    import pyarrow.parquet as pq

    from cpu_fallback import NumpyBackend
    from gpu_dcgen.digest import digest_file
    from tests.gpu.expected_digests import list_differences

    backend, host = _machine(settings["place"], True), NumpyBackend(1)
    ours, theirs = (Path(settings["work"]) / f"block_{name}.parquet" for name in ("gpu", "cpu"))
    for path, writer in ((ours, backend), (theirs, host)):
        _write_block(path, writer)
    digests = [{"block": digest_file(path, host)} for path in (theirs, ours)]
    differing = list_differences(*digests)
    schemas = [pq.read_schema(path) for path in (ours, theirs)]
    codes, values = backend.encode(backend.read_columns([ours], ["user_id"])["user_id"])
    texts = values.take(backend.to_host(codes)).to_pylist()
    is_read = texts == pq.read_table(theirs, columns=["user_id"])["user_id"].to_pylist()
    return {
        "good": not differing and is_read and schemas[0].equals(schemas[1], check_metadata=True),
        "written_otherwise": differing,
        "is_read_on_the_device": is_read,
        "schema": str(schemas[0]),
        "codec": pq.ParquetFile(ours).metadata.row_group(0).column(0).compression,
    }


def _write_block(path: Path, backend: Any) -> None:
    """Write 64 rows, in groups of 4, with some columns of the samples' schema."""
    import numpy as np
    import pyarrow as pa

    from gpu_dcgen.backend.blocks import Block, Codes, Lists, SampleIds, Values
    from gpu_dcgen.contract import schema as contract
    from gpu_dcgen.digest import vocabulary

    rng, width, n_groups = np.random.default_rng(3), 4, 16
    n = width * n_groups
    send = backend.from_host
    is_valid = rng.random(n) < 0.7
    users = vocabulary([f"user-{k:04d}" for k in range(9)], backend)
    seasons = vocabulary(contract.SEASONS, backend)
    days = np.arange(n_groups) * 86_400 * 10**9
    history = rng.integers(1, 99, 100).astype(np.int32)
    starts, lengths = rng.integers(0, 50, n_groups), rng.integers(0, 50, n_groups, np.int32)
    columns = {
        "user_id": Codes(send(rng.integers(0, 9, n_groups).astype(np.int32)), users, width),
        "user_age": Values(send(rng.integers(9, 99, n).astype(np.int16)), send(is_valid)),
        "user_interaction_sequence": Lists(send(history), send(starts), send(lengths), width),
        "timestamp": Values(send(days), None, width),
        "season": Codes(send(rng.integers(0, 4, n_groups).astype(np.int32)), seasons, width),
        "similarity_score": Values(send(rng.random(n).astype(np.float32)), send(is_valid)),
        "sample_id": SampleIds("train", 0, n_groups, width),
    }
    whole = contract.make_arrow_schema("train_dataset")
    schema = pa.schema([whole.field(name) for name in columns], metadata=whole.metadata)
    settings = contract.make_writer_settings("train_dataset", rows_per_row_group=24)
    with backend.open_part_writer(path, schema, settings) as writer:
        writer.write(Block(0, n, columns))


def run_device_tests(settings: Settings) -> dict[str, Any]:
    """The tests that need a device, in this process, whose kernels are compiled."""
    paths = [f"tests/gpu/{name}.py" for name in DEVICE_TESTS]
    return run_tests([*paths, "-k", "device or test_gpu_builds"])


def run_tests(arguments: list[str]) -> dict[str, Any]:
    """Outcomes of tests in this process; a run that saw no GPU is wrong.

    Libraries' deprecations are no errors here: they are not what is asked.
    """
    import pytest

    outcomes = _Outcomes()
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning"]
    code = pytest.main([*options, *arguments], plugins=[outcomes])
    n_passed = outcomes.counts.get("passed", 0)
    is_seen = not any("no GPU tested here" in reason for reason in outcomes.reasons.values())
    return {
        "good": code == 0 and n_passed > 0 and is_seen,
        "exit_code": int(code),
        "counts": outcomes.counts,
        "reasons": outcomes.reasons,
    }


class _Outcomes:
    """A plugin of pytest that counts outcomes, and says why a test failed or was skipped."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.reasons: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] = self.counts.get(report.outcome, 0) + 1
            if report.outcome != "passed":
                self.reasons[report.nodeid] = str(report.longrepr)[-MAX_TEXT:]


def write_tables(settings: Settings, shop: str) -> dict[str, Any]:
    """The tables of a shop that a later question builds."""
    from tests.gpu.expected_digests import find_tables, read_digests

    read_digests(shop, settings)
    folder = find_tables(shop, settings)
    return {"bytes": {path.name: path.stat().st_size for path in sorted(folder.glob("*.parquet"))}}


def measure_copies(settings: Settings) -> dict[str, Any]:
    """Bytes a second that a copy on the device reads and writes: the floor of every pass."""
    backend = _machine(settings["place"], False)
    xp = backend.xp
    source = xp.ones(1 << 26, dtype=xp.float32)
    target = xp.empty_like(source)

    def copy() -> None:
        for _ in range(10):
            target[...] = source

    _timed(copy, backend)
    _, seconds = _timed(copy, backend)
    return {"bytes_per_s": round(10 * 2 * source.nbytes / seconds)}


def compare_ways(settings: Settings, shop: str) -> dict[str, Any]:
    """The ways to similarities side by side."""
    from tests.gpu import engines
    from tests.gpu.expected_digests import find_tables

    backend = _machine(settings["place"], True)
    return engines.compare_engines(find_tables(shop, settings), backend)


def run_all_tests(settings: Settings) -> dict[str, Any]:
    """The whole suite in a process of its own, with the GPU among its machines."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--maxfail=25"]
    run = subprocess.run(
        [*command, "-W", "ignore::DeprecationWarning", "tests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    # The reasons of skipped tests are in the output: a GPU that no test saw is a failure.
    good = run.returncode == 0 and "no GPU tested here" not in run.stdout
    return {"good": good, "tail": run.stdout[-MAX_TEXT:]}


def _timed(question: Callable[[], Any], backend: Any) -> tuple[Any, float]:
    backend.synchronize()
    began = time.perf_counter()
    answer = question()
    backend.synchronize()
    return answer, round(time.perf_counter() - began, 5)
