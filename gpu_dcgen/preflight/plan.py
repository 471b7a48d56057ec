"""Estimate a build before it runs: rows, bytes on disk, memory and time, from a trial.

All purchases of a share of the customers go through the build's own stages. The results are scaled
to the whole log:

* Time and files, in proportion. What does not grow (articles) and what grows faster (cache misses)
  are a few per cent each, and opposed. The fixed cost of any build is timed on a tiny shop.
* Memory, on the line through the share and a quarter of it, since much of it belongs to items, and
  a sample has all of them.
* Pairs of neighbors, and the positives lost because too little is on sale: an item has fewer buyers
  in a sample. Both follow the trend, a power of the log's length, from the quarter to the share.
* Hard negatives: on positives with as many earlier buyers as in the whole log
  (`trial.write_samples_and_tables`).
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
from .trial import (
    FixedCost,
    Trial,
    TrialOutput,
    measure_fixed_cost,
    try_stages,
    write_samples_and_tables,
)

SAMPLE_ROWS = 1_200_000  # transactions that are tried: a few seconds on two cores
# times as many: a log no longer than this is tried as a whole, and its rows are exact
_MAX_WHOLE = 1.3
_QUARTER = 0.25
# common buyers in a sample: by one alone, half of all items are neighbors of each other
_MIN_COMMON = 2
_PAIR_BYTES = 12  # of a neighbor: item, similarity, common users
# copies of the pairs in memory, by stage: blocks, and the arrays they are joined into
_PAIR_COPIES = {"similarity": 2, "prepare": 1, "samples": 1}


@dataclass(frozen=True)
class Plan:
    """Predictions for one build, and what they are based on."""

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
        """Bytes of all files."""
        return sum(self.bytes.values())

    @property
    def total_seconds(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())


def plan(inputs: Path, config: DatasetConfig, backend: Backend, output: Path | None = None) -> Plan:
    """Predict size, memory and time of `build(inputs, output, config)` on this machine.

    Takes seconds, and memory and room in the temporary folder for about `SAMPLE_ROWS` transactions.
    Kernels count as compiled; the first build on a machine also compiles them. InputError and
    ConfigError as of a build, as far as the sampled rows show what is wrong; BackendError where
    nothing can be built.
    """
    began = time.perf_counter()
    sources = find_sources(Path(inputs), config.inputs)
    n_rows = sources["transactions"].n_rows
    with tempfile.TemporaryDirectory(prefix="gpu-dcgen-plan-") as folder:
        scratch = Path(folder)
        fixed = measure_fixed_cost(scratch / "tiny", config, backend)
        larger = smaller = LogSample(Path(inputs), 1.0)
        if n_rows > _MAX_WHOLE * SAMPLE_ROWS:
            shares = (SAMPLE_ROWS / n_rows, _QUARTER * SAMPLE_ROWS / n_rows)
            larger, smaller = write_log_samples(
                sources, (scratch / "larger", scratch / "smaller"), shares
            )
        common = _min_common_users(
            larger.share, config
        )  # the same in both, so that pairs show a trend
        trial, results, sequences = _try_sample(larger, common, config, backend)
        trial_output = write_samples_and_tables(
            results, sequences, larger.share, scratch / "out", config, backend
        )
        per_item = results.neighbors.offsets[1:] - results.neighbors.offsets[:-1]
        del results, sequences
        few = trial if larger.share == 1 else _try_sample(smaller, common, config, backend)[0]
    growth = _Growth(few, trial, larger.share, n_rows)
    pairs = _pairs(per_item, growth, config, backend)
    positives = _positives(growth)
    files = _bytes(growth, trial_output, positives, pairs)
    seconds = _seconds(growth, fixed, trial_output, positives, files)
    peak = _peak(growth, fixed, trial_output, pairs)
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
        budgets=_budgets(seconds, trial_output.drawing_share, peak),
        planning_s=time.perf_counter() - began,
    )


def _min_common_users(share: float, config: DatasetConfig) -> int:
    """Compute how many common buyers make neighbors in a sample."""
    wanted = config.similarity.min_common_users
    return min(wanted, max(_MIN_COMMON, round(share * wanted)))


def _try_sample(
    sample: LogSample, common: int, config: DatasetConfig, backend: Backend
) -> tuple[Trial, StageResults, UserSequences]:
    """Run the stages on a sample, with limits on an item's buyers scaled to its share."""
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
            f"{error}\n"
            f"Found in a sample of {sample.share:.1%} of the log; rows are counted within it."
        ) from error


@dataclass(frozen=True)
class _Growth:
    """Extrapolation from a quarter of the share and the share to the whole log."""

    few: Trial  # of the quarter
    trial: Trial  # of the share
    share: float
    n_rows: int  # of the whole log

    def line(self, before: float, after: float) -> float:
        """Extrapolate a figure on the line through those of the quarter and the share."""
        if self.share == 1:
            return after
        slope = max(0.0, after - before) / (self.trial.n_rows - self.few.n_rows)
        return after + slope * (self.n_rows - self.trial.n_rows)

    def power(self, before: float, after: float) -> float:
        """Compute the power of the log's length that a figure grew with."""
        if self.share == 1 or not (before > 0 and after > 0):
            return 0.0
        return math.log(after / before) / math.log(self.trial.n_rows / self.few.n_rows)


def _pairs(per_item: Any, growth: _Growth, config: DatasetConfig, backend: Backend) -> int:
    """Predict the pairs of neighbors: each item's grow as all of them did, up to `top_k`.

    A share of the customers has that share of the common buyers, but a sample requires at least
    `_MIN_COMMON`: where that is too many, the sample counts as one that much smaller.
    """
    share, trial = growth.share, growth.trial
    asked = _min_common_users(share, config) / config.similarity.min_common_users
    longest = min(config.similarity.top_k, trial.n_items - 1)
    times = (asked / share) ** growth.power(growth.few.n_pairs, trial.n_pairs)
    return int(backend.xp.minimum(per_item * times, longest).sum())


def _positives(growth: _Growth) -> dict[str, int]:
    """Predict the positives by split; a larger sample loses fewer as not on sale."""

    def lost(trial: Trial) -> float:
        return trial.n_unfit / max(1, trial.n_unfit + sum(trial.positives.values()))

    before, after = lost(growth.few), lost(growth.trial)
    in_all = after * growth.share ** -min(0.0, growth.power(before, after))
    factor = (1 - in_all) / (1 - after) / growth.share
    return {split: round(n * factor) for split, n in growth.trial.positives.items()}


def _bytes(
    growth: _Growth, trial_output: TrialOutput, positives: dict[str, int], pairs: int
) -> dict[str, int]:
    """Predict the bytes by file."""
    each = trial_output.bytes / max(1, trial_output.n_positives)
    times = {
        "item_similarity_matrix": pairs / max(1, growth.trial.n_pairs),
        "user_sequences": 1 / growth.share,
        "item_vocabulary": 1.0,
    }
    samples = {f"{split}_dataset": round(positives[split] * each) for split in SPLITS}
    return samples | {name: round(size * times[name]) for name, size in trial_output.tables.items()}


def _seconds(
    growth: _Growth,
    fixed: FixedCost,
    trial_output: TrialOutput,
    positives: dict[str, int],
    files: dict[str, int],
) -> dict[str, float]:
    """Predict the seconds by stage; flushing and tables in proportion to their bytes."""
    tried_tables = sum(trial_output.tables.values())
    seconds = {"start": fixed.seconds}
    seconds |= {stage: spent / growth.share for stage, spent in growth.trial.seconds.items()}
    seconds["samples"] = (
        trial_output.seconds * sum(positives.values()) / max(1, trial_output.n_positives)
    )
    seconds["tables"] = (
        trial_output.table_s * sum(files[name] for name in trial_output.tables) / tried_tables
    )
    seconds["flush"] = (
        trial_output.flush_s * sum(files.values()) / (trial_output.bytes + tried_tables)
    )
    return seconds


def _peak(growth: _Growth, fixed: FixedCost, trial_output: TrialOutput, pairs: int) -> int | None:
    """Predict the peak: what any build needs, and the arrays of the stage with the most."""
    if not growth.trial.peaks:
        return None

    def bytes_of_stage(stage: str) -> float:
        each = _PAIR_BYTES * _PAIR_COPIES.get(stage, 0)
        before, after = (
            trial.peaks[stage] - each * trial.n_pairs for trial in (growth.few, growth.trial)
        )
        return (
            growth.line(before, after)
            + each * pairs
            + (trial_output.peak_bytes if stage == "samples" else 0)
        )

    return round(fixed.bytes + max(map(bytes_of_stage, growth.trial.peaks)))


def _budgets(
    seconds: dict[str, float], drawing_share: float, peak: int | None
) -> dict[str, dict[str, Any]]:
    """Compare the predictions with the contract, in the form of `BuildTimer.report`."""
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
