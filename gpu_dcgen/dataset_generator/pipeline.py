"""Run the build's stages in order, time them and checkpoint their results."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..context import BuildContext
from ..contract.json_files import write_json
from ..contract.schema import HARD_CANDIDATES, SPLITS
from ..digest import ContentDigest, vocabulary
from ..errors import OutputError
from ..inputs.origins import InputTables
from ..inputs.shop import InputReport, load_shop
from ..negative_sampler import Candidates, SamplerInputs, find_candidates
from ..outputs.manifest import PipelineResult, category_mappings, vocabularies
from ..outputs.parts import ReusedSplit, lay_out_parts, require_rows
from ..outputs.samples import Workers, WrittenSamples, write_samples
from ..outputs.tables import (
    candidate_blocks,
    item_blocks,
    sequence_blocks,
    similarity_blocks,
    write_file,
)
from ..preparation.balancing import Balance, compute_balance, resample
from ..preparation.features import AsOfFeatures, compute_features
from ..preparation.interactions import Interactions, build_interactions, warn_of_no_groups
from ..preparation.splits import SplitPlan, order_positives, plan_splits, require_disjoint_users
from ..preparation.windows import Windows, cut_windows
from ..quality_validator.metrics import QualityMetrics
from ..quality_validator.statistics import describe
from ..resources import estimate_dataset_bytes, require_disk_space, require_open_files
from ..samples import StageResults, collect_results
from ..sequence_builder import build_calendar, build_user_sequences
from ..similarity_computer.compute import Neighbors, compute_neighbors
from .fingerprints import Provenance, trace_provenance
from .reuse import FILE, PreviousDataset, ReusePlan, describe_splits
from .shared_tables import SharedTables

T = TypeVar("T")


@dataclass(frozen=True)
class PreparedStages:
    """What the stages before the samples computed."""

    report: InputReport
    results: StageResults
    balance: Balance | None  # `results` has it only where samples have weights

    @property
    def n_groups(self) -> int:
        """Positives of all splits."""
        return sum(len(positives) for positives in self.results.plan.positives)


def run_pipeline(
    inputs: InputTables | SharedTables,
    folder: Path,
    context: BuildContext,
    workers: Workers | None = None,
    previous: PreviousDataset | None = None,
) -> PipelineResult:
    """Run all stages, and write their files into `folder`.

    Splits of `previous` that would come out the same are reused.
    """
    config, backend, timer = context.config, context.backend, context.timer
    prepared = run_stages(inputs, context, folder / "rejects.parquet", workers)
    results = prepared.results
    _require_room(folder, prepared, context)
    parts = lay_out_parts(folder, results, config)
    require_disjoint_users(results.interactions, results.plan, config.split, backend)
    with timer.stage("samples", total=prepared.n_groups * config.rows_per_positive):
        provenance, reuse = None, ReusePlan({}, {})
        if previous is not None:
            provenance = trace_provenance(results, config, backend)
            reuse = previous.reuse_splits(provenance, parts, folder, results, context)
            _report_reuse(reuse, context)
        reused = {SPLITS.index(split): entry for split, entry in reuse.reused.items()}

        def work_aside() -> tuple[dict[str, ContentDigest], Provenance | None]:
            traced = provenance
            if traced is None and config.output.appendable:
                traced = trace_provenance(results, config, backend)
            return write_tables(folder, results, context), traced

        with _run_aside(work_aside, context) as finish_aside:
            written = write_samples(parts, results, context, workers, reused)
        require_rows(parts, config)
    timer.record_sampling(written.drawing_share, written.checking_share, written.restored_s)
    with timer.stage("tables"):
        tables, provenance = finish_aside()
        files = {
            f"{split}_dataset": record.digest
            for split, record in zip(SPLITS, written.records, strict=True)
        }
        files |= tables
        files["item_vocabulary"] = write_items(folder, results, written.metrics, context)
        write_json(folder / "vocabulary.json", vocabularies(results, config))
        write_json(folder / "category_mappings.json", category_mappings(results, prepared.balance))
        if config.output.appendable and provenance is not None:
            _write_provenance(folder, provenance, written, reuse.reused, results, context)
        statistics = describe(
            folder, written.metrics, results, prepared.balance, prepared.report, config, backend
        )
    append = None if previous is None else previous.manifest_entry(reuse)
    return PipelineResult(
        prepared.report, results, prepared.balance, written, files, statistics, append
    )


@contextmanager
def _run_aside(work: Callable[[], T], context: BuildContext) -> Iterator[Callable[[], T]]:
    """Run `work` on a thread beside the `with` block; yields what returns its result.

    Where there is one thread, a limit on the disk rate, or a device, the memory of which both would
    use up, it runs when that is called. Large arrays are held like the caller's.
    """
    backend, rate = context.backend, context.config.resources.max_disk_rate
    if backend.name == "gpu" or backend.n_threads == 1 or rate is not None:
        yield work
        return
    with ThreadPoolExecutor(1, "aside") as pool:
        yield pool.submit(copy_context().run, work).result


def _require_room(folder: Path, prepared: PreparedStages, context: BuildContext) -> None:
    """Check the disk and limits before hours are spent; a lack is an alert and an error."""
    written_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    n_neighbors = int(prepared.results.neighbors.item.shape[0])
    n_rows = context.backend.xp.diff(prepared.results.interactions.user_offsets)
    # At most so many have a sequence.
    n_users = int((n_rows >= context.config.sequence_processing.min_sequence_length).sum())
    n_candidates = int(prepared.results.candidates.lists.item.shape[0])
    n_bytes = estimate_dataset_bytes(
        prepared.n_groups, context.config, n_neighbors, n_users, n_candidates
    )
    try:
        require_disk_space(folder, max(0, n_bytes - written_bytes))
        require_open_files(context.config.n_threads)
    except OutputError as error:
        context.progress.message("critical", f"resource_exhaustion: {error}")
        raise


def _report_reuse(reuse: ReusePlan, context: BuildContext) -> None:
    for split in SPLITS:
        reason = reuse.rebuild_reasons.get(split)
        outcome = "reused: unchanged" if reason is None else f"rebuilt: {reason}"
        context.progress.message("info", f"{split}: {outcome}")


def _write_provenance(
    folder: Path,
    provenance: Provenance,
    written: WrittenSamples,
    reused: dict[str, ReusedSplit],
    results: StageResults,
    context: BuildContext,
) -> None:
    """Write append.json, by which another build decides which splits it reuses."""
    generated_at = {split: entry.generated_at for split, entry in reused.items()}
    content = describe_splits(provenance, written.records, generated_at, results, context.backend)
    (folder / FILE).write_text(json.dumps(content) + "\n", encoding="utf-8")


def run_stages(
    inputs: InputTables | SharedTables | Path,
    context: BuildContext,
    rejects: Path | None = None,
    workers: Workers | None = None,
) -> PreparedStages:
    """Run the stages before the samples on the tables in `inputs`.

    A stage with a checkpoint is loaded instead; the results of the others are saved. Rejected rows
    are written to `rejects`.
    """
    timer, checkpoints = context.timer, context.checkpoints
    generated_at = time.time_ns() if checkpoints is None else checkpoints.started_ns
    report, log, windows = _load_or_compute(
        "interactions", partial(_read, inputs, rejects, context), context
    )
    timer.warn(report.warnings)
    timer.warn(report.alerts, "critical")
    timer.warn(warn_of_no_groups(log))
    features = _load_or_compute("features", partial(_features, log, windows, context), context)
    timer.warn(features.warnings)
    plan, balance = _load_or_compute(
        "splits", partial(_plan, log, features, windows, context), context
    )
    timer.warn((*(balance.warnings if balance else ()), *plan.warnings))
    neighbors = _load_or_compute(
        "similarity", partial(_neighbors, log, windows, context, workers), context
    )
    candidates = _load_or_compute(
        "candidates", partial(_candidates, log, features, neighbors, plan, context), context
    )
    config, backend = context.config, context.backend
    with timer.stage("prepare"):
        calendar = build_calendar(log.first_time, log.last_time, config, backend)
        weights = balance if config.category_balancing.mode == "weights" else None
        sampler_inputs = SamplerInputs(log, features, neighbors, candidates)
        results = collect_results(
            sampler_inputs, plan, weights, calendar, generated_at, config, backend
        )
    return PreparedStages(report, results, balance)


def _load_or_compute(name: str, compute: Callable[[], T], context: BuildContext) -> T:
    """Return the checkpoint called `name`; compute and save it where there is none."""
    checkpoints = context.checkpoints
    if checkpoints is None:
        return compute()
    saved: dict[str, Any] | None = checkpoints.load(name)
    if saved is not None:
        context.timer.record_restored(name, saved["seconds"])
        result: T = saved["result"]
        return result
    start_s = time.perf_counter()
    result = compute()
    checkpoints.save(name, {"seconds": time.perf_counter() - start_s, "result": result})
    return result


def _read(
    inputs: InputTables | SharedTables | Path, rejects: Path | None, context: BuildContext
) -> tuple[InputReport, Interactions, Windows]:
    config, backend = context.config, context.backend
    with context.timer.stage("load"):
        shop = (
            inputs.load(config, backend, rejects)
            if isinstance(inputs, SharedTables)
            else load_shop(inputs, config, backend, rejects=rejects)
        )
    with context.timer.stage("interactions"):
        log = build_interactions(shop, config, backend)
        windows = cut_windows(shop.time, log.first_time, log.last_time, config.split, backend)
    return shop.report, log, windows


def _features(log: Interactions, windows: Windows, context: BuildContext) -> AsOfFeatures:
    with context.timer.stage("features"):
        return compute_features(log, windows.cut1, context.config, context.backend)


def _plan(
    log: Interactions, features: AsOfFeatures, windows: Windows, context: BuildContext
) -> tuple[SplitPlan, Balance | None]:
    config, backend = context.config, context.backend
    with context.timer.stage("splits"):
        plan, balance = plan_splits(log, features, windows, config, backend), None
        if config.category_balancing.mode != "off":
            balance = compute_balance(log, plan, config.category_balancing, backend)
        if balance is not None and config.category_balancing.mode == "resample":
            plan = resample(balance, log, plan, config, backend)
        if config.output.order == "shuffled":
            plan = order_positives(plan, config.seed, backend)
    return plan, balance


def _neighbors(
    log: Interactions, windows: Windows, context: BuildContext, workers: Workers | None
) -> Neighbors:
    with context.timer.stage("similarity", total=log.n_items):
        return compute_neighbors(
            log, windows.cut1, context.config, context.backend, context.progress, workers
        )


def _candidates(
    log: Interactions,
    features: AsOfFeatures,
    neighbors: Neighbors,
    plan: SplitPlan,
    context: BuildContext,
) -> Candidates:
    with context.timer.stage("candidates"):
        return find_candidates(log, features, neighbors, plan, context.config, context.backend)


def write_tables(
    folder: Path, results: StageResults, context: BuildContext
) -> dict[str, ContentDigest]:
    """Write the Parquet files that do not depend on the samples; return their digests by name."""
    config, backend = context.config, context.backend
    sequences = build_user_sequences(results.interactions, results.plan, config, backend)
    tables = {
        "item_similarity_matrix": similarity_blocks(results, backend),
        "user_sequences": sequence_blocks(sequences, results, vocabulary(SPLITS, backend), backend),
    }
    if config.output.hard_candidates:
        tables[HARD_CANDIDATES] = candidate_blocks(results, config, backend)
    return {
        name: write_file(folder / f"{name}.parquet", blocks, config, backend)
        for name, blocks in tables.items()
    }


def write_items(
    folder: Path, results: StageResults, metrics: QualityMetrics, context: BuildContext
) -> ContentDigest:
    """Write item_vocabulary, with the counts of the samples' `metrics`; return its digest."""
    config, backend = context.config, context.backend
    blocks = item_blocks(results, metrics, backend)
    return write_file(folder / "item_vocabulary.parquet", blocks, config, backend)
