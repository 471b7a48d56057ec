"""What a build will make and take, before it runs: rows, bytes on disk, memory and time, from a trial on few customers.

All that a share of the customers ever bought goes through the build's own stages, twice: a quarter of the share first, so that
what grows with the log is told from what does not. Three things do not grow in proportion, and are followed separately:

* Pairs of neighbors and items on sale: an item has fewer buyers in a sample. Both follow the trend from the quarter to the whole
  share.
* Reads far apart in memory: the longer the log, the fewer are in a cache. Their time is measured at both lengths.
* Hard negatives: positives are tried that have as many buyers before them as in the whole log.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from .backend import Backend
from .config import DatasetConfig
from .contract import MAX_MEMORY_BYTES, MAX_SECONDS, SPLITS
from .doctor import existing
from .errors import InputError
from .input_files import find_sources
from .log_sample import write_samples_of
from .performance import at_most
from .trial import Output, Probe, run_stages, time_neighbors, write_some
from .rng import fold_array
from .samples import Ingredients
from .synth import generate

SAMPLE_ROWS = 1_500_000  # transactions that are tried at most: a few seconds on two cores
_QUARTER = 0.25
_LEAST_COMMON = 2  # common buyers in a sample: by one alone, half of all items are neighbors of each other
_PAIR_BYTES = 12  # of a neighbor: item, similarity, common users
_WARM_SCALE = 0.0005  # of H&M: a shop that compiles every kernel, or loads it, in a moment
_READS = 1 << 20  # that time a random read

# Reads of a transaction far apart in memory, by stage: permutations of arrays as long as the log, counted in the code.
_FAR_READS = {"interactions": 12, "features": 8, "splits": 4, "prepare": 5}


@dataclass(frozen=True)
class Plan:
    """Predictions for one build, and what they rest on."""

    backend: str
    threads: int
    transactions: int
    share: float  # of the transactions that were tried; 1: all of them, so that rows are exact
    positives: dict[str, int]  # by split
    rows: dict[str, int]  # by split
    pairs: int  # of neighbors
    bytes: dict[str, int]  # by file
    seconds: dict[str, float]  # by stage
    peak_bytes: int | None  # of memory; None on a GPU, where blocks fill what is free
    free_bytes: int  # on the disk of the output
    budgets: dict[str, dict[str, Any]]  # the contract's, as in a manifest
    planning_s: float

    @property
    def total_bytes(self) -> int:
        return sum(self.bytes.values())

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())


def plan(inputs: Path, config: DatasetConfig, backend: Backend, output: Path | None = None) -> Plan:
    """Predict what `build(inputs, output, config)` makes and takes on this machine with these settings.

    Takes seconds, and memory and room in the temporary folder for `SAMPLE_ROWS` transactions. The time is that of kernels
    already compiled; the first build on a machine also compiles them. InputError and ConfigError as of a build, as far as
    the sampled rows show what is wrong.
    """
    began = time.perf_counter()
    sources = find_sources(Path(inputs), config.inputs)
    n_rows = sources["transactions"].n_rows
    with tempfile.TemporaryDirectory(prefix="gpu-dcgen-plan-") as folder:
        scratch = Path(folder)
        _warm_up(scratch / "warm", config, backend)
        base = psutil.Process().memory_info().rss
        if n_rows <= SAMPLE_ROWS:
            whole, have, sequences = run_stages(Path(inputs), config, backend)
            few, share = whole, 1.0
        else:
            shares = (SAMPLE_ROWS / n_rows, _QUARTER * SAMPLE_ROWS / n_rows)
            larger, smaller = write_samples_of(sources, (scratch / "larger", scratch / "smaller"), shares)
            share, common = larger.share, _least_common(larger.share, config)
            few, have, _ = run_stages(smaller.folder, _scaled(smaller.share, common, config), backend)
            few = _without_pairs(few, have, config, backend)
            whole, have, sequences = run_stages(larger.folder, _scaled(share, common, config), backend)
            whole = _without_pairs(whole, have, config, backend)
        n_by_item = have.neighbors.offsets[1:] - have.neighbors.offsets[:-1]
        n_pairs = _pairs(n_by_item, few, whole, share, config, backend)
        made = write_some(have, sequences, share, scratch / "out", config, backend)
        del have, sequences
    model = _Model(few, whole, made, share, n_pairs, n_rows, config, backend)
    positives = model.positives()
    seconds = model.seconds(sum(positives.values()))
    peak = model.peak(base)
    return Plan(
        backend=backend.name,
        threads=backend.n_threads,
        transactions=n_rows,
        share=share,
        positives=positives,
        rows={split: n * config.rows_per_positive for split, n in positives.items()},
        pairs=n_pairs,
        bytes=model.bytes(positives),
        seconds=seconds,
        peak_bytes=peak,
        free_bytes=shutil.disk_usage(existing(output or Path())).free,
        budgets=_budgets(seconds, made.drawing_share, peak),
        planning_s=time.perf_counter() - began,
    )


def _warm_up(folder: Path, config: DatasetConfig, backend: Backend) -> None:
    """Have the kernels compiled, so that the trial does not time the compiler."""
    generate(folder, scale=_WARM_SCALE)
    plain = DatasetConfig(output=config.output, resources=config.resources)
    _, have, sequences = run_stages(folder, plain, backend)
    write_some(have, sequences, 1.0, folder, plain, backend)


def _least_common(share: float, config: DatasetConfig) -> int:
    """Common buyers that make neighbors in a sample."""
    wanted = config.similarity.min_common_users
    return min(wanted, max(_LEAST_COMMON, round(share * wanted)))


def _scaled(share: float, common: int, config: DatasetConfig) -> DatasetConfig:
    """Settings that count an item's buyers, for a log with a share of them."""
    items = max(1, round(share * config.filtering.min_item_interactions))
    filtering = config.filtering.model_copy(update={"min_item_interactions": items})
    similarity = config.similarity.model_copy(update={"min_common_users": common})
    return config.model_copy(update={"filtering": filtering, "similarity": similarity})


def _without_pairs(probe: Probe, have: Ingredients, config: DatasetConfig, backend: Backend) -> Probe:
    """The probe with what similarities take but for keeping pairs, whose number does not grow with the log; and a pair's cost."""
    seconds, n_pairs = time_neighbors(have, config, backend)
    taken = probe.seconds["similarity"]
    each = max(0.0, taken - seconds) / (probe.n_pairs - n_pairs) if probe.n_pairs > n_pairs else 0.0
    return replace(probe, seconds=probe.seconds | {"similarity": seconds - each * n_pairs}, pair_s=each)


def _pairs(n_by_item: Any, few: Probe, whole: Probe, share: float, config: DatasetConfig, backend: Backend) -> int:
    """Pairs of neighbors in the whole log: each item's grow as all of them did from the quarter on, up to `top_k`.

    Buyers in common number a share of the log's, but at least `_LEAST_COMMON` are asked for here: where that is too many, a
    sample is as good as one that much smaller.
    """
    if share == 1:
        return whole.n_pairs
    asked = _least_common(share, config) / config.similarity.min_common_users
    growth = (asked / share) ** _trend(few.n_pairs, whole.n_pairs, few, whole)
    longest = min(config.similarity.top_k, whole.n_items - 1)
    return int(backend.xp.minimum(n_by_item * growth, longest).sum())


def _trend(before: float, after: float, few: Probe, whole: Probe) -> float:
    """The power of the log's length that a figure grew with."""
    if not (before > 0 and after > 0):
        return 0.0
    return math.log(after / before) / math.log(whole.n_rows / few.n_rows)


class _Model:
    """The whole log's figures from those of the samples."""

    def __init__(
        self,
        few: Probe,
        whole: Probe,
        made: Output,
        share: float,
        n_pairs: int,
        n_rows: int,
        config: DatasetConfig,
        backend: Backend,
    ) -> None:
        self._few, self._whole, self._made = few, whole, made
        self._share, self._n_pairs, self._n_rows, self._config = share, n_pairs, n_rows, config
        self._n_threads = backend.n_threads
        self._slower_s = _far_read_s(n_rows, backend) - _far_read_s(whole.n_rows, backend) if share < 1 else 0.0

    def positives(self) -> dict[str, int]:
        """By split. A sample loses positives as not on sale that others' purchases put on sale: fewer, the larger it is."""
        whole, few = self._whole, self._few
        kept, unfit = sum(whole.positives.values()), whole.n_unfit
        if self._share == 1:
            return whole.positives
        lost = unfit / (kept + unfit)
        before = few.n_unfit / (sum(few.positives.values()) + few.n_unfit)
        lost *= (1 / self._share) ** min(0.0, _trend(before, lost, few, whole))
        factor = (1 - lost) * (kept + unfit) / kept / self._share
        return {split: round(n * factor) for split, n in whole.positives.items()}

    def seconds(self, n_positives: int) -> dict[str, float]:
        """By stage."""
        made, whole = self._made, self._whole
        seconds = {
            stage: self._grown(self._few.seconds[stage], taken) + _FAR_READS.get(stage, 0) * self._n_rows * self._slower_s
            for stage, taken in whole.seconds.items()
        }
        seconds["similarity"] += whole.pair_s * self._n_pairs
        far = 2 * self._config.negative_sampling.collaborative_buyers + self._config.negatives_per_positive
        each = made.seconds / made.n_positives + far * self._slower_s / self._n_threads
        factors = self._factors()
        seconds["samples"] = n_positives * each
        seconds["tables"] = sum(taken * factors[file] for file, (taken, _) in made.tables.items())
        total = sum(self.bytes_of(n_positives).values())
        seconds["flush"] = made.flush_s * total / (made.bytes + sum(size for _, size in made.tables.values()))
        return seconds

    def bytes(self, positives: dict[str, int]) -> dict[str, int]:
        """By file."""
        each = self._made.bytes / self._made.n_positives
        return {f"{split}_dataset": round(positives[split] * each) for split in SPLITS} | self._table_bytes()

    def bytes_of(self, n_positives: int) -> dict[str, int]:
        return {"samples": round(n_positives * self._made.bytes / self._made.n_positives)} | self._table_bytes()

    def _table_bytes(self) -> dict[str, int]:
        factors = self._factors()
        return {file: round(size * factors[file]) for file, (_, size) in self._made.tables.items()}

    def _factors(self) -> dict[str, float]:
        """How many times a table's rows are those of the sample."""
        return {
            "item_similarity_matrix": self._n_pairs / max(1, self._whole.n_pairs),
            "user_sequences": 1 / self._share,
            "item_vocabulary": 1.0,
        }

    def peak(self, base: int) -> int | None:
        """Most bytes held at a time: `base`, and the arrays of the stage that has most."""
        few, whole = self._few, self._whole
        if not whole.peaks:
            return None
        more_pairs = self._n_pairs - whole.n_pairs / self._share
        peaks = {stage: self._grown(few.peaks[stage], peak) for stage, peak in whole.peaks.items()}
        peaks["similarity"] += 2 * _PAIR_BYTES * more_pairs  # blocks, and what they are joined into
        peaks["prepare"] += _PAIR_BYTES * more_pairs
        held = self._grown(few.held_bytes, whole.held_bytes) + _PAIR_BYTES * more_pairs
        peaks["samples"] = held + self._made.peak_bytes
        return round(base + max(peaks.values()))

    def _grown(self, before: float, after: float) -> float:
        """A figure of the sample on the line through it and that of the quarter; in proportion where that line falls."""
        if self._share == 1:
            return after
        slope = (after - before) / (self._whole.n_rows - self._few.n_rows)
        if slope <= 0:
            return after
        return min(after / self._share, after + slope * (self._n_rows - self._whole.n_rows))


def _far_read_s(n_rows: int, backend: Backend) -> float:
    """Seconds a random read takes in an array of a number as long as the log."""
    xp = backend.xp
    values = xp.ones(n_rows, dtype=xp.int64)
    where = (fold_array(xp.full(_READS, 1, dtype=xp.uint64), xp.arange(_READS, dtype=xp.int64)) % n_rows).astype(xp.int64)
    best = math.inf
    for _ in range(3):
        began = time.perf_counter()
        values[where].sum()
        backend.synchronize()
        best = min(best, time.perf_counter() - began)
    return best / _READS


def _budgets(seconds: dict[str, float], drawing_share: float, peak: int | None) -> dict[str, dict[str, Any]]:
    """Predictions against the contract ("Performance Requirements"), as `performance.Clock.report` has them."""
    drawing = drawing_share * seconds["samples"]
    building = sum(seconds[stage] for stage in ("prepare", "samples", "tables", "flush")) - drawing
    spent = {
        "total_generation_time": sum(seconds.values()),
        "similarity_computation": seconds["similarity"],
        "negative_sampling": drawing,
        "dataset_construction": building,
    }
    budgets = {name: at_most(value, MAX_SECONDS[name], "s") for name, value in spent.items()}
    return budgets if peak is None else budgets | {"max_memory_usage": at_most(peak, MAX_MEMORY_BYTES, "bytes")}
