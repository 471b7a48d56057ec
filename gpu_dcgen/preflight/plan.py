"""Estimate rows, bytes, memory and time of a build by its stages on some customers.

All purchases of some customers go through the build's own stages, which then write a few blocks of
samples and all other tables. The estimates are in proportion:

* positives and the seconds of stages to the rows of the log,
* bytes and seconds of samples to the positives,
* pairs of neighbors of an item to its buyers in common with others, up to `similarity.top_k`,
* memory to the rows, but for what the process holds before, the items' snapshots, and the pairs.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backend.protocol import Backend
from ..config import DatasetConfig
from ..contract.budgets import evaluate_budgets
from ..contract.schema import HARD_CANDIDATES, SPLITS
from ..errors import InputError
from ..example_data.fashion_shop import generate
from ..inputs.opening import open_tables
from ..inputs.sources import find_sources
from ..resources import free_disk_bytes
from .log_sample import LogSample, write_log_sample
from .trial import Trial, run_trial

SAMPLE_ROWS = 1_200_000  # transactions of the sample: a few seconds on two cores
_MAX_WHOLE = 1.3  # times as many: a log no longer than this is tried whole, and its rows are exact
_TINY_SCALE = 0.0005  # of H&M: a shop that uses every kernel and takes a moment
# Buyers in common in a sample: by a single one, half of all items are neighbors of each other.
_MIN_COMMON_USERS = 2
_PAIR_BYTES = 24  # of a neighbor: item, similarity and common users, in blocks and joined


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
        """Bytes of all files."""
        return sum(self.bytes.values())

    @property
    def total_seconds(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())


def plan(inputs: Path, config: DatasetConfig, backend: Backend, output: Path | None = None) -> Plan:
    """Estimate what `build(inputs, output, config)` makes and takes on this machine.

    Takes seconds, and memory and space in the temporary folder for about `SAMPLE_ROWS`
    transactions. The time is that of kernels already compiled; the first build on a machine also
    compiles them. Raises the errors of a build, as far as the sample shows what is wrong.
    """
    start_s = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="gpu-dcgen-plan-") as folder:
        scratch = Path(folder)
        tables = open_tables(Path(inputs), config.inputs, scratch / "csv")
        sources = find_sources(tables, config.inputs)
        n_rows = sources["transactions"].n_rows
        warm_up_s = _warm_up(scratch / "tiny", config, backend)
        sample = LogSample(tables, 1.0)
        if n_rows > _MAX_WHOLE * SAMPLE_ROWS:
            sample = write_log_sample(sources, scratch / "sample", SAMPLE_ROWS / n_rows)
        trial = _run_trial(sample, scratch / "out", config, backend)
    share = sample.share
    positives = {split: round(n / share) for split, n in trial.positives.items()}
    pairs = _estimate_pairs(trial, share, config, backend)
    files = _estimate_bytes(trial, share, positives, pairs)
    seconds = {"start": warm_up_s} | _estimate_seconds(trial, share, positives, files)
    peak = None if backend.name == "gpu" else _estimate_peak(trial, share, pairs)
    return Plan(
        backend=backend.name,
        threads=backend.n_threads,
        transactions=n_rows,
        share=share,
        positives=positives,
        rows={split: n * config.rows_per_positive for split, n in positives.items()},
        pairs=pairs,
        bytes=files,
        seconds=seconds,
        peak_bytes=peak,
        free_bytes=free_disk_bytes(output or Path()),
        budgets=_budgets(seconds, trial.drawing_share, peak),
        planning_s=time.perf_counter() - start_s,
    )


def _warm_up(folder: Path, config: DatasetConfig, backend: Backend) -> float:
    """Build a tiny shop, so that all kernels are loaded; return the seconds that takes."""
    generate(folder / "tables", scale=_TINY_SCALE)
    plain = DatasetConfig(output=config.output, resources=config.resources)
    start_s = time.perf_counter()
    run_trial(folder / "tables", folder / "built", plain, backend)
    return time.perf_counter() - start_s


def _run_trial(sample: LogSample, folder: Path, config: DatasetConfig, backend: Backend) -> Trial:
    """Run the stages on a sample, with the settings on an item's buyers scaled to their share."""
    n_buyers = max(1, round(sample.share * config.filtering.min_item_interactions))
    filtering = config.filtering.model_copy(update={"min_item_interactions": n_buyers})
    common = _min_common_users(sample.share, config)
    similarity = config.similarity.model_copy(update={"min_common_users": common})
    scaled = config.model_copy(update={"filtering": filtering, "similarity": similarity})
    try:
        return run_trial(sample.tables, folder, scaled, backend)
    except InputError as error:
        if sample.share == 1:
            raise
        raise InputError(
            f"{error}\nSeen in a sample of {sample.share:.1%} of the log; rows are numbered there."
        ) from error


def _min_common_users(share: float, config: DatasetConfig) -> int:
    """Return the buyers in common that make neighbors in a sample."""
    wanted = config.similarity.min_common_users
    return min(wanted, max(_MIN_COMMON_USERS, round(share * wanted)))


def _estimate_pairs(trial: Trial, share: float, config: DatasetConfig, backend: Backend) -> int:
    """Estimate the pairs of neighbors: each item's grow with its buyers, up to `top_k`."""
    asked = _min_common_users(share, config) / config.similarity.min_common_users
    longest = min(config.similarity.top_k, int(trial.pairs_by_item.shape[0]) - 1)
    return int(backend.xp.minimum(trial.pairs_by_item * (asked / share), longest).sum())


def _estimate_bytes(
    trial: Trial, share: float, positives: dict[str, int], pairs: int
) -> dict[str, int]:
    """Estimate the bytes of each file."""
    factors = {
        "item_similarity_matrix": pairs / max(1, trial.n_pairs),
        "user_sequences": 1 / share,
        "item_vocabulary": 1.0,
        # At most a list for each item on sale at each snapshot.
        HARD_CANDIDATES: min(1 / share, trial.n_on_sale / max(1, trial.n_lists)),
    }
    per_positive = trial.sample_bytes / max(1, trial.n_written)
    samples = {f"{split}_dataset": round(positives[split] * per_positive) for split in SPLITS}
    return samples | {
        name: round(factors[name] * n_bytes) for name, n_bytes in trial.table_bytes.items()
    }


def _estimate_seconds(
    trial: Trial, share: float, positives: dict[str, int], files: dict[str, int]
) -> dict[str, float]:
    """Estimate the seconds of each stage."""
    table_bytes = sum(trial.table_bytes.values())
    factors = {
        "samples": sum(positives.values()) / max(1, trial.n_written),
        "tables": sum(files[name] for name in trial.table_bytes) / table_bytes,
        "flush": sum(files.values()) / (trial.sample_bytes + table_bytes),
    }
    return {stage: s * factors.get(stage, 1 / share) for stage, s in trial.seconds.items()}


def _estimate_peak(trial: Trial, share: float, pairs: int) -> int:
    """Estimate the peak of memory."""
    fixed = trial.base_bytes + trial.snapshot_bytes
    rows = max(0, trial.stage_bytes - fixed - _PAIR_BYTES * trial.n_pairs)
    return round(fixed + rows / share + _PAIR_BYTES * pairs + trial.block_bytes)


def _budgets(
    seconds: dict[str, float], drawing_share: float, peak: int | None
) -> dict[str, dict[str, Any]]:
    """Return the predictions beside the contract's limits, as a manifest has them."""
    drawing_s = drawing_share * seconds["samples"]
    construction_s = sum(seconds[stage] for stage in ("prepare", "samples", "tables", "flush"))
    values: dict[str, float] = {
        "total_generation_time": sum(seconds.values()),
        "similarity_computation": seconds["similarity"],
        "negative_sampling": seconds["candidates"] + drawing_s,
        "dataset_construction": construction_s - drawing_s,
    }
    if peak is not None:
        values["max_memory_usage"] = peak
    return {name: budget.to_dict() for name, budget in evaluate_budgets(values).items()}
