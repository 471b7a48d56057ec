"""A trial of the build's own stages on few customers: what they take here, by stage, and what they make."""

from __future__ import annotations

import time
import tracemalloc
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Iterator

import pyarrow as pa

from .backend import Backend
from .config import DatasetConfig
from .contract import SPLITS
from .dataset_generator import make_ingredients
from .digest import vocabulary
from .outputs import Staging, item_blocks, sequence_blocks, similarity_blocks, write_file
from .parts import lay_out_parts, write_samples
from .performance import Clock
from .progress import ProgressTracker
from .samples import Ingredients
from .sequence_builder import UserSequences
from .similarity_computer import compute_neighbors
from .splits import Positives

Array = Any
_BLOCKS_A_THREAD = 2  # of samples that are made
_POOLS: list[Any] = []  # that have counted: Arrow's buffers go back to theirs whenever they go, so none may go before them


@dataclass(frozen=True)
class Probe:
    """What the stages made of a sample, and what that took."""

    n_rows: int  # transactions
    n_users: int  # after the filter, as the items and interactions
    n_items: int
    n_interactions: int
    n_sequences: int
    positives: dict[str, int]  # by split
    n_unfit: int  # positives lost because too little was on sale
    n_pairs: int  # of neighbors
    seconds: dict[str, float]  # by stage
    peaks: dict[str, int]  # stage -> most bytes of arrays while it ran; {} where the machine's memory is not the host's
    held_bytes: int  # of arrays, when all stages before the samples are done
    pair_s: float = 0.0  # of `seconds["similarity"]` that a pair would take more, where that stage is told without pairs


@dataclass(frozen=True)
class Output:
    """What was written of a sample's data set, and what that took."""

    n_positives: int
    seconds: float
    drawing_share: float
    bytes: int
    peak_bytes: int  # of arrays, beyond those held before
    tables: dict[str, tuple[float, int]]  # file -> seconds, bytes
    flush_s: float


def run_stages(inputs: Path, config: DatasetConfig, backend: Backend) -> tuple[Probe, Ingredients, UserSequences]:
    """Run every stage before the samples on the tables in `inputs`; errors are those of a build."""
    meter = _Meter(backend)
    with _tracing():
        report, have, _, sequences = make_ingredients(inputs, config, backend, meter, time.time_ns())
        held = tracemalloc.get_traced_memory()[0]
    log, plan = have.interactions, have.plan
    probe = Probe(
        n_rows=report.rows["transactions"]["read"],
        n_users=log.n_users,
        n_items=log.n_items,
        n_interactions=log.n_rows,
        n_sequences=int(sequences.user.shape[0]),
        positives={positives.split: len(positives) for positives in plan.positives},
        n_unfit=plan.ledger["not_on_sale"] + plan.ledger["corpus_too_small"],
        n_pairs=int(have.neighbors.item.shape[0]),
        seconds=meter.seconds,
        peaks={} if backend.name == "gpu" else meter.peaks,
        held_bytes=held,
    )
    return probe, have, sequences


def time_neighbors(have: Ingredients, config: DatasetConfig, backend: Backend) -> tuple[float, int]:
    """Seconds that similarities take with these settings, and pairs found."""
    began = time.perf_counter()
    neighbors = compute_neighbors(have.interactions, have.plan.windows.cut1, config, backend, ProgressTracker())
    backend.synchronize()
    return time.perf_counter() - began, int(neighbors.item.shape[0])


def write_some(
    have: Ingredients, sequences: UserSequences, share: float, folder: Path, config: DatasetConfig, backend: Backend
) -> Output:
    """Write some blocks of samples, and the tables beside them, below `folder`."""
    staging, meter = Staging(folder / "dataset", overwrite=False), _Meter(backend)
    positives = _some_positives(have, share, config, backend)
    few = replace(have, plan=replace(have.plan, positives=(positives, *map(_none_of, have.plan.positives[1:]))))
    part = -(-len(positives) // backend.n_threads)  # as many as are written side by side
    output = config.output.model_copy(update={"groups_per_part": part})
    smaller = config.model_copy(update={"output": output})
    with _tracing():
        with meter.stage("samples"):
            _, _, drawing_share = write_samples(lay_out_parts(staging.path, few, smaller), few, smaller, backend, meter.progress)
    written = _size(staging.path)
    tables = {}
    for name, blocks in (
        ("item_similarity_matrix", similarity_blocks(have, backend)),
        ("user_sequences", sequence_blocks(sequences, have, vocabulary(SPLITS, backend), backend)),
        ("item_vocabulary", item_blocks(have, backend)),
    ):
        path = staging.path / f"{name}.parquet"
        with meter.stage(name):
            write_file(path, blocks, config, backend)
        tables[name] = (meter.seconds[name], path.stat().st_size)
    with meter.stage("flush"):
        staging.flush()
    return Output(
        n_positives=len(positives),
        seconds=meter.seconds["samples"],
        drawing_share=drawing_share,
        bytes=written,
        peak_bytes=meter.peaks["samples"],
        tables=tables,
        flush_s=meter.seconds["flush"],
    )


def _some_positives(have: Ingredients, share: float, config: DatasetConfig, backend: Backend) -> Positives:
    """A few blocks of train positives, spread over time, that cost what the whole log's cost.

    Of a share of the customers an item has only that share of its buyers, and hard negatives come from the latest of them. So
    positives are taken that have as many here, or few in the whole log too.
    """
    xp, log, train = backend.xp, have.interactions, have.plan.positives[0]
    before = xp.empty(log.n_rows, dtype=xp.int64)
    before[log.by_item] = xp.arange(log.n_rows) - log.item_offsets[log.item[log.by_item]]
    n_buyers = before[train.row]
    most = config.negative_sampling.collaborative_buyers
    telling = xp.nonzero((n_buyers >= most) | (n_buyers < share * most))[0]
    size = min(config.resources.batch_size, len(train))
    n_blocks = backend.n_threads * _BLOCKS_A_THREAD
    if int(telling.shape[0]) < size:
        telling = xp.arange(len(train))
    n = int(telling.shape[0])
    n_blocks = max(1, min(n_blocks, n // size))
    starts = [(n - size) * k // max(1, n_blocks - 1) for k in range(n_blocks)]
    chosen = telling[xp.concatenate([xp.arange(start, start + size) for start in starts])]
    return replace(train, row=train.row[chosen], copy=train.copy[chosen])


def _none_of(positives: Positives) -> Positives:
    return replace(positives, row=positives.row[:0], copy=positives.copy[:0])


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


class _Meter(Clock):
    """Seconds and the most bytes of arrays, of NumPy and Arrow, by stage."""

    def __init__(self, machine: Backend) -> None:
        super().__init__(machine, ProgressTracker())
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
    """Have NumPy tell of its arrays."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
