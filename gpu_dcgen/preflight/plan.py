"""What a build will make and take, before it runs: rows, bytes on disk, memory and time, from a trial on few customers.

All that a share of the customers ever bought goes through the build's own stages. What they take and make grows with the log:

* Time and files, in proportion. What does not grow (articles) and what grows faster (memory further from the processor) are
  a few per cent each, and opposed. What every build takes, whatever its size, is timed on a tiny shop.
* Memory, on the line through the share and a quarter of it, since much of it belongs to items, of which a sample has all.
* Pairs of neighbors, and the positives lost because too little is on sale: an item has fewer buyers in a sample. Both follow
  the trend, a power of the log's length, from the quarter to the share.
* Hard negatives: positives are tried that have as many buyers before them as in the whole log (`trial.write_some`).
"""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backend.protocol import Backend
from ..config import DatasetConfig
from ..contract.budgets import evaluate_budgets
from ..contract.schema import SPLITS
from ..errors import InputError
from ..inputs.sources import find_sources
from ..resources import free_disk_bytes
from ..samples import StageResults
from ..sequence_builder import UserSequences
from .log_sample import LogSample, write_log_samples
from .trial import Output, Start, Trial, start, try_stages, write_some

SAMPLE_ROWS = 1_200_000  # transactions that are tried: a few seconds on two cores
_WHOLE = 1.3  # times as many: a log no longer than this is tried as it is, and its rows are exact
_QUARTER = 0.25
# common buyers in a sample: by one alone, half of all items are neighbors of each other
_LEAST_COMMON = 2
_PAIR_BYTES = 12  # of a neighbor: item, similarity, common users
_PAIR_COPIES = {
    "similarity": 2,
    "prepare": 1,
    "samples": 1,
}  # in memory: blocks, and what they are joined into


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

    Takes seconds, and memory and room in the temporary folder for about `SAMPLE_ROWS` transactions. The time is that of kernels
    already compiled; the first build on a machine also compiles them. InputError and ConfigError as of a build, as far as
    the sampled rows show what is wrong; BackendError where nothing can be built.
    """
    began = time.perf_counter()
    sources = find_sources(Path(inputs), config.inputs)
    n_rows = sources["transactions"].n_rows
    with tempfile.TemporaryDirectory(prefix="gpu-dcgen-plan-") as folder:
        scratch = Path(folder)
        first = start(scratch / "tiny", config, backend)
        larger = smaller = LogSample(Path(inputs), 1.0)
        if n_rows > _WHOLE * SAMPLE_ROWS:
            shares = (SAMPLE_ROWS / n_rows, _QUARTER * SAMPLE_ROWS / n_rows)
            larger, smaller = write_log_samples(
                sources, (scratch / "larger", scratch / "smaller"), shares
            )
        common = _least_common(larger.share, config)  # the same in both, so that pairs show a trend
        trial, results, sequences = _tried(larger, common, config, backend)
        made = write_some(results, sequences, larger.share, scratch / "out", config, backend)
        per_item = results.neighbors.offsets[1:] - results.neighbors.offsets[:-1]
        del results, sequences
        few = trial if larger.share == 1 else _tried(smaller, common, config, backend)[0]
    growth = _Growth(few, trial, larger.share, n_rows)
    pairs = _pairs(per_item, growth, config, backend)
    positives = _positives(growth)
    files = _bytes(growth, made, positives, pairs)
    seconds = _seconds(growth, first, made, positives, files)
    peak = _peak(growth, first, made, pairs)
    return Plan(
        backend=backend.name,
        threads=backend.n_threads,
        transactions=n_rows,
        share=larger.share,
        positives=positives,
        rows={split: n * config.rows_per_positive for split, n in positives.items()},
        pairs=pairs,
        bytes=files,
        seconds=seconds,
        peak_bytes=peak,
        free_bytes=free_disk_bytes(output or Path()),
        budgets=_budgets(seconds, made.drawing_share, peak),
        planning_s=time.perf_counter() - began,
    )


def _least_common(share: float, config: DatasetConfig) -> int:
    """Common buyers that make neighbors in a sample."""
    wanted = config.similarity.min_common_users
    return min(wanted, max(_LEAST_COMMON, round(share * wanted)))


def _tried(
    sample: LogSample, common: int, config: DatasetConfig, backend: Backend
) -> tuple[Trial, StageResults, UserSequences]:
    """The stages on a sample, with the settings that count an item's buyers made for a log with a share of them."""
    items = max(1, round(sample.share * config.filtering.min_item_interactions))
    filtering = config.filtering.model_copy(update={"min_item_interactions": items})
    similarity = config.similarity.model_copy(update={"min_common_users": common})
    scaled = config.model_copy(update={"filtering": filtering, "similarity": similarity})
    try:
        return try_stages(sample.folder, scaled, backend)
    except InputError as error:
        if sample.share == 1:
            raise
        raise InputError(
            f"{error}\nSeen in a sample of {sample.share:.1%} of the log, whose rows are counted here."
        ) from error


@dataclass(frozen=True)
class _Growth:
    """How figures grow from a quarter of the share to the share, and so to the whole log."""

    few: Trial  # of the quarter
    trial: Trial  # of the share
    share: float
    n_rows: int  # of the whole log

    def line(self, before: float, after: float) -> float:
        """A figure of the whole log, on the line through those of the quarter and the share."""
        if self.share == 1:
            return after
        slope = max(0.0, after - before) / (self.trial.n_rows - self.few.n_rows)
        return after + slope * (self.n_rows - self.trial.n_rows)

    def power(self, before: float, after: float) -> float:
        """The power of the log's length that a figure grew with."""
        if self.share == 1 or not (before > 0 and after > 0):
            return 0.0
        return math.log(after / before) / math.log(self.trial.n_rows / self.few.n_rows)


def _pairs(per_item: Any, growth: _Growth, config: DatasetConfig, backend: Backend) -> int:
    """Pairs of neighbors: each item's grow as all of them did, up to `top_k`.

    A share of the customers has that share of the common buyers, but at least `_LEAST_COMMON` are asked for here: where that is
    too many, a sample is as good as one that much smaller.
    """
    share, trial = growth.share, growth.trial
    asked = _least_common(share, config) / config.similarity.min_common_users
    longest = min(config.similarity.top_k, trial.n_items - 1)
    times = (asked / share) ** growth.power(growth.few.n_pairs, trial.n_pairs)
    return int(backend.xp.minimum(per_item * times, longest).sum())


def _positives(growth: _Growth) -> dict[str, int]:
    """By split. A sample loses positives as not on sale that others' purchases put on sale: fewer, the larger it is."""

    def lost(trial: Trial) -> float:
        return trial.n_unfit / max(1, trial.n_unfit + sum(trial.positives.values()))

    before, after = lost(growth.few), lost(growth.trial)
    in_all = after * growth.share ** -min(0.0, growth.power(before, after))
    factor = (1 - in_all) / (1 - after) / growth.share
    return {split: round(n * factor) for split, n in growth.trial.positives.items()}


def _bytes(growth: _Growth, made: Output, positives: dict[str, int], pairs: int) -> dict[str, int]:
    """By file."""
    each = made.bytes / max(1, made.n_positives)
    times = {
        "item_similarity_matrix": pairs / max(1, growth.trial.n_pairs),
        "user_sequences": 1 / growth.share,
        "item_vocabulary": 1.0,
    }
    samples = {f"{split}_dataset": round(positives[split] * each) for split in SPLITS}
    return samples | {name: round(size * times[name]) for name, size in made.tables.items()}


def _seconds(
    growth: _Growth, first: Start, made: Output, positives: dict[str, int], files: dict[str, int]
) -> dict[str, float]:
    """By stage, after "start"; flushing and tables in proportion to their bytes."""
    tried_tables = sum(made.tables.values())
    seconds = {"start": first.seconds}
    seconds |= {stage: taken / growth.share for stage, taken in growth.trial.seconds.items()}
    seconds["samples"] = made.seconds * sum(positives.values()) / max(1, made.n_positives)
    seconds["tables"] = made.table_s * sum(files[name] for name in made.tables) / tried_tables
    seconds["flush"] = made.flush_s * sum(files.values()) / (made.bytes + tried_tables)
    return seconds


def _peak(growth: _Growth, first: Start, made: Output, pairs: int) -> int | None:
    """Most bytes held at a time: what any build holds, and the arrays of the stage that has most."""
    if not growth.trial.peaks:
        return None

    def of(stage: str) -> float:
        each = _PAIR_BYTES * _PAIR_COPIES.get(stage, 0)
        before, after = (
            trial.peaks[stage] - each * trial.n_pairs for trial in (growth.few, growth.trial)
        )
        return (
            growth.line(before, after)
            + each * pairs
            + (made.peak_bytes if stage == "samples" else 0)
        )

    return round(first.bytes + max(map(of, growth.trial.peaks)))


def _budgets(
    seconds: dict[str, float], drawing_share: float, peak: int | None
) -> dict[str, dict[str, Any]]:
    """Predictions against the contract ("Performance Requirements"), as `performance.BuildTimer.report` has them."""
    drawing = drawing_share * seconds["samples"]
    building = sum(seconds[stage] for stage in ("prepare", "samples", "tables", "flush")) - drawing
    spent = {
        "total_generation_time": sum(seconds.values()),
        "similarity_computation": seconds["similarity"],
        "negative_sampling": drawing,
        "dataset_construction": building,
    }
    peaks = {} if peak is None else {"max_memory_usage": peak}
    budgets = evaluate_budgets({**spent, **peaks})
    return {name: budget.to_dict() for name, budget in budgets.items()}
