"""Try the build's own stages on few customers: time, memory and output by stage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..backend.protocol import Backend
from ..config import DatasetConfig
from ..context import BuildContext
from ..dataset_generator.pipeline import run_stages, write_tables
from ..errors import BackendError
from ..example_data.fashion_shop import generate
from ..monitoring.progress import ProgressTracker
from ..monitoring.timing import BuildTimer
from ..outputs.parts import lay_out_parts
from ..outputs.samples import write_samples
from ..preparation.splits import Positives
from ..samples import StageResults
from ..sequence_builder import UserSequences
from ..storage.staging import Staging

_BLOCKS_A_THREAD = 2  # of samples
_N_TIMED = 2  # repetitions of the timed writing; the shortest counts
_TINY_SCALE = 0.0005  # of H&M: a shop that uses every kernel, in a moment
# Memory pools that were used for counting. Arrow's buffers are freed into their own pool, whenever
# that is, so that no pool may be destroyed before them.
_POOLS: list[Any] = []


@dataclass(frozen=True)
class FixedCost:
    """Time and memory of any build, whatever its size: imports, compiled kernels, threads."""

    seconds: float
    bytes: int  # of memory, at its peak


@dataclass(frozen=True)
class Trial:
    """Results of the stages before the samples, with their time and memory."""

    n_rows: int  # transactions
    n_items: int  # after the filter
    positives: dict[str, int]  # by split
    n_unfit: int  # positives lost because too little was on sale
    n_pairs: int  # of neighbors
    seconds: dict[str, float]  # by stage
    # stage -> most bytes of arrays; of "samples", before its blocks; {} where they are not in RAM
    peaks: dict[str, int]


@dataclass(frozen=True)
class TrialOutput:
    """The samples and tables that were written, with their time and memory."""

    n_positives: int
    seconds: float
    drawing_share: float  # of `seconds`: drawing negatives
    bytes: int
    peak_bytes: int  # of arrays, beyond those held before
    table_s: float
    tables: dict[str, int]  # file -> bytes
    flush_s: float


def measure_fixed_cost(folder: Path, config: DatasetConfig, backend: Backend) -> FixedCost:
    """Build a tiny made-up shop, in this process to load all kernels, then in one of its own.

    BackendError when that build fails.
    """
    generate(folder, scale=_TINY_SCALE)
    plain = DatasetConfig(output=config.output, resources=config.resources)
    _, results, sequences = try_stages(folder, plain, backend)
    write_samples_and_tables(results, sequences, 1.0, folder / "here", plain, backend)
    settings, output = folder / "settings.yaml", folder / "built"
    settings.write_text(plain.model_dump_json(), "utf-8")  # JSON is YAML
    search_path = os.pathsep.join(
        filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")))
    )
    options = [
        "--config",
        str(settings),
        "--threads",
        str(backend.n_threads),
        "--backend",
        backend.name,
        "--quiet",
    ]
    command = [sys.executable, "-m", "gpu_dcgen", "build", str(folder), str(output), *options]
    run = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": search_path},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise BackendError(
            f"The build of a tiny made-up shop failed, exit code {run.returncode}:\n"
            f"{run.stderr.strip()}"
        )
    performance = json.loads((output / "manifest.json").read_text("utf-8"))["performance"]
    return FixedCost(performance["seconds"], performance["peak_memory_bytes"])


def try_stages(
    inputs: Path, config: DatasetConfig, backend: Backend
) -> tuple[Trial, StageResults, UserSequences]:
    """Run the stages before the samples on the tables in `inputs`; errors as of a build."""
    meter = _Meter(backend)
    with _tracing():
        prepared = run_stages(inputs, BuildContext(config, backend, meter))
        report, results, sequences = prepared.report, prepared.results, prepared.sequences
        meter.peaks["samples"] = tracemalloc.get_traced_memory()[0]
    plan = results.plan
    trial = Trial(
        n_rows=report.rows["transactions"].read,
        n_items=results.interactions.n_items,
        positives={positives.split: len(positives) for positives in plan.positives},
        n_unfit=plan.ledger["not_on_sale"] + plan.ledger["corpus_too_small"],
        n_pairs=int(results.neighbors.item.shape[0]),
        seconds=meter.seconds,
        peaks={} if backend.name == "gpu" else meter.peaks,
    )
    return trial, results, sequences


def write_samples_and_tables(
    results: StageResults,
    sequences: UserSequences,
    share: float,
    folder: Path,
    config: DatasetConfig,
    backend: Backend,
) -> TrialOutput:
    """Write some blocks of samples, and all of the other tables, below `folder`.

    The samples are written repeatedly: first to measure the memory, which also warms the allocator
    up, then for the time. The shortest time counts, since other load can only add to it.
    """
    positives = _some_positives(results, share, config, backend)
    few = replace(
        results,
        plan=replace(
            results.plan, positives=(positives, *map(_none_of, results.plan.positives[1:]))
        ),
    )
    part = -(-len(positives) // backend.n_threads)  # as many as are written side by side
    smaller = config.model_copy(
        update={"output": config.output.model_copy(update={"groups_per_part": part})}
    )
    meter = _Meter(backend)

    def write(name: str) -> tuple[float, float, Staging]:
        staging = Staging(folder / name, overwrite=False)
        with meter.stage("samples"):
            parts = lay_out_parts(staging.path, few, smaller)
            written = write_samples(parts, few, BuildContext(smaller, backend, meter))
        return meter.seconds["samples"], written.drawing_share, staging

    with _tracing():
        write("weighed")
    peak = meter.peaks["samples"]
    seconds, drawing_share, staging = min(
        (write(f"timed-{k}") for k in range(_N_TIMED)), key=lambda result: result[0]
    )
    written = _size(staging.path)
    with meter.stage("tables"):
        tables = write_tables(
            staging.path, results, sequences, BuildContext(config, backend, meter)
        )
    with meter.stage("flush"):
        staging.flush()
    return TrialOutput(
        n_positives=len(positives),
        seconds=seconds,
        drawing_share=drawing_share,
        bytes=written,
        peak_bytes=peak,
        table_s=meter.seconds["tables"],
        tables={name: (staging.path / f"{name}.parquet").stat().st_size for name in tables},
        flush_s=meter.seconds["flush"],
    )


def _some_positives(
    results: StageResults, share: float, config: DatasetConfig, backend: Backend
) -> Positives:
    """Choose a few blocks of train positives, spread over time, as costly as the whole log's.

    In a sample an item has only a share of its buyers, and hard negatives come from the latest of
    them. So positives are chosen that have as many in the sample, or few in the whole log too; any,
    if there are not enough of those.
    """
    xp, log, train = backend.xp, results.interactions, results.plan.positives[0]
    chosen = xp.arange(len(train))
    size = min(config.resources.batch_size, len(train))
    if share < 1:
        before = xp.empty(log.n_rows, dtype=xp.int64)
        before[log.by_item] = xp.arange(log.n_rows) - log.item_offsets[log.item[log.by_item]]
        n_buyers, most = before[train.row], config.negative_sampling.collaborative_buyers
        telling = xp.nonzero((n_buyers >= most) | (n_buyers < share * most))[0]
        chosen = telling if int(telling.shape[0]) >= size else chosen
    n = int(chosen.shape[0])
    n_blocks = max(1, min(backend.n_threads * _BLOCKS_A_THREAD, n // max(1, size)))
    starts = [(n - size) * k // max(1, n_blocks - 1) for k in range(n_blocks)]
    chosen = chosen[xp.concatenate([xp.arange(start, start + size) for start in starts])]
    return replace(train, row=train.row[chosen], copy=train.copy[chosen])


def _none_of(positives: Positives) -> Positives:
    return replace(positives, row=positives.row[:0], copy=positives.copy[:0])


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


class _Meter(BuildTimer):
    """Timer that also measures the peak bytes of arrays, of NumPy and Arrow, by stage."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend, ProgressTracker())
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        shared = pa.default_memory_pool()
        counted, held = pa.proxy_memory_pool(shared), shared.bytes_allocated()
        _POOLS.append(counted)
        pa.set_memory_pool(counted)
        if tracemalloc.is_tracing():
            tracemalloc.reset_peak()
        began = time.perf_counter()
        try:
            with super().stage(name, total):
                yield
        finally:
            pa.set_memory_pool(shared)
        self.seconds[name] = time.perf_counter() - began
        self.peaks[name] = tracemalloc.get_traced_memory()[1] + held + (counted.max_memory() or 0)


@contextmanager
def _tracing() -> Iterator[None]:
    """Trace NumPy's allocations."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
