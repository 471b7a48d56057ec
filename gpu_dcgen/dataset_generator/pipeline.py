"""The river bed: the stages in their order, timed, their results kept for another process; everything else is theirs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..backend.protocol import Backend
from ..config import DatasetConfig
from ..contract.json_files import write_json
from ..contract.schema import SPLITS
from ..digest import ContentDigest, vocabulary
from ..errors import OutputError
from ..inputs.shop import InputReport, load_shop
from ..monitoring.timing import BuildTimer
from ..negative_sampler import SamplerInputs, build_mining_index
from ..outputs.manifest import PipelineResult, category_mappings, vocabularies
from ..outputs.samples import Workers, lay_out_parts, require_rows, write_samples
from ..outputs.tables import item_blocks, sequence_blocks, similarity_blocks, write_file
from ..preparation.balancing import Balance, compute_balance, resample
from ..preparation.features import AsOfFeatures, compute_features
from ..preparation.interactions import Interactions, build_interactions
from ..preparation.splits import SplitPlan, order_positives, plan_splits, require_disjoint_users
from ..preparation.windows import Windows, cut_windows
from ..quality_validator.statistics import describe
from ..resources import estimate_dataset_bytes, require_disk_space, require_open_files
from ..samples import StageResults, collect_results
from ..sequence_builder import UserSequences, build_calendar, build_user_sequences
from ..similarity_computer.compute import Neighbors, compute_neighbors
from ..storage.checkpoints import Checkpoints
from .build_key import key_of_maker
from .fingerprints import fingerprints
from .reuse import FILE, PreviousDataset, describe_splits


def run_pipeline(
    inputs: Path,
    folder: Path,
    config: DatasetConfig,
    backend: Backend,
    timer: BuildTimer,
    checkpoints: Checkpoints | None = None,
    workers: Workers | None = None,
    earlier: PreviousDataset | None = None,
) -> PipelineResult:
    """Run all stages, and write their files into `folder`.

    Splits of `earlier` that would come out the same are taken over.
    """
    rejects = folder / "rejects.parquet"
    report, results, balance, sequences = run_stages(
        inputs, config, backend, timer, rejects, checkpoints, workers
    )
    n_groups = sum(len(positives) for positives in results.plan.positives)
    _require_room(folder, n_groups, results, sequences, config, timer)
    parts = lay_out_parts(folder, results, config)
    require_disjoint_users(results.interactions, results.plan, config.split, backend)
    with timer.stage("samples", total=n_groups * config.rows_per_positive):
        made_by, made_of = key_of_maker(config, backend), {}
        if config.output.appendable:
            made_of = fingerprints(results, config, backend)
        if earlier is not None:
            earlier.take(made_by, made_of, parts, folder, results, config, backend)
            _tell(earlier, timer)
        taken = {} if earlier is None else earlier.taken
        of_splits = {SPLITS.index(split): (one.record, one.sha256) for split, one in taken.items()}
        written = write_samples(
            parts, results, config, backend, timer.progress, checkpoints, workers, of_splits
        )
        require_rows(parts, config)
    timer.record_sampling(written.drawing_share, written.checking_share, written.seconds_before)
    with timer.stage("tables"):
        files = {
            f"{split}_dataset": record.digest
            for split, record in zip(SPLITS, written.records, strict=True)
        }
        files |= write_tables(folder, results, sequences, config, backend)
        write_json(folder / "vocabulary.json", vocabularies(results, config))
        write_json(folder / "category_mappings.json", category_mappings(results, balance))
        if made_of:
            made_at = {split: one.made_at for split, one in taken.items()}
            splits = describe_splits(made_by, made_of, written.records, made_at, results, backend)
            (folder / FILE).write_text(json.dumps(splits) + "\n", encoding="utf-8")
        found = describe(folder, written.metrics, results, balance, report, config, backend)
    append = None if earlier is None else earlier.manifest_entry()
    return PipelineResult(report, results, balance, written, files, found, append)


def _tell(earlier: PreviousDataset, timer: BuildTimer) -> None:
    for split in SPLITS:
        became = (
            f"made anew: {earlier.anew[split]}"
            if split in earlier.anew
            else "kept: it is made of the same"
        )
        timer.progress.message("info", f"{split}: {became}")


def _require_room(
    folder: Path,
    n_groups: int,
    results: StageResults,
    sequences: UserSequences,
    config: DatasetConfig,
    timer: BuildTimer,
) -> None:
    """Ask for the disk and the rest before hours are spent; what lacks is an alert and an error."""
    written_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    n_neighbors, n_users = int(results.neighbors.item.shape[0]), int(sequences.user.shape[0])
    n_bytes = estimate_dataset_bytes(n_groups, config, n_neighbors, n_users)
    try:
        require_disk_space(folder, max(0, n_bytes - written_bytes))
        require_open_files(config.n_threads)
    except OutputError as error:
        timer.progress.message("critical", f"resource_exhaustion: {error}")
        raise


def run_stages(
    inputs: Path,
    config: DatasetConfig,
    backend: Backend,
    timer: BuildTimer,
    rejects: Path | None = None,
    checkpoints: Checkpoints | None = None,
    workers: Workers | None = None,
) -> tuple[InputReport, StageResults, Balance | None, UserSequences]:
    """The stages before any sample is made: what `inputs` hold, all that samples are made of, weights, users' sequences.

    A stage whose result is in `kept` does not run; the results of those that do are put there.
    """

    def once(name: str, make: Callable[[], Any]) -> Any:
        if checkpoints is not None and (found := checkpoints.load(name)) is not None:
            timer.record_restored(name, found["seconds"])
            return found["made"]
        began, made = time.perf_counter(), make()
        if checkpoints is not None:
            checkpoints.save(name, {"seconds": time.perf_counter() - began, "made": made})
        return made

    generated_at = time.time_ns() if checkpoints is None else checkpoints.started_ns
    report, log, windows = once(
        "interactions", lambda: _read(inputs, rejects, config, backend, timer)
    )
    timer.warn(report.warnings)
    timer.warn(report.alerts, "critical")
    features = once("features", lambda: _features(log, windows, config, backend, timer))
    timer.warn(features.warnings)
    plan, balance = once("splits", lambda: _plan(log, features, windows, config, backend, timer))
    timer.warn((*(balance.warnings if balance else ()), *plan.warnings))
    neighbors = once(
        "similarity", lambda: _neighbors(log, windows, config, backend, timer, workers)
    )
    with timer.stage("prepare"):
        calendar = build_calendar(log.first_time, log.last_time, config, backend)
        sequences = build_user_sequences(log, plan, config, backend)
        index = build_mining_index(log, features.snapshots, backend)
        weights = balance if config.category_balancing.mode == "weights" else None
        drawn_from = SamplerInputs(log, features, neighbors, index)
        results = collect_results(drawn_from, plan, weights, calendar, generated_at, backend)
    return report, results, balance, sequences


def _read(
    inputs: Path, rejects: Path | None, config: DatasetConfig, backend: Backend, timer: BuildTimer
) -> tuple[InputReport, Interactions, Windows]:
    with timer.stage("load"):
        shop = load_shop(inputs, config, backend, rejects=rejects)
    with timer.stage("interactions"):
        log = build_interactions(shop, config, backend)
        windows = cut_windows(shop.time, log.first_time, log.last_time, config.split, backend)
    return shop.report, log, windows


def _features(
    log: Interactions, windows: Windows, config: DatasetConfig, backend: Backend, timer: BuildTimer
) -> AsOfFeatures:
    with timer.stage("features"):
        return compute_features(log, windows.cut1, config, backend)


def _plan(
    log: Interactions,
    features: AsOfFeatures,
    windows: Windows,
    config: DatasetConfig,
    backend: Backend,
    timer: BuildTimer,
) -> tuple[SplitPlan, Balance | None]:
    with timer.stage("splits"):
        plan, balance = plan_splits(log, features, windows, config, backend), None
        if config.category_balancing.mode != "off":
            balance = compute_balance(log, plan, config.category_balancing, backend)
        if config.category_balancing.mode == "resample":
            plan = resample(balance, log, plan, config, backend)
        if config.output.order == "shuffled":
            plan = order_positives(plan, config.seed, backend)
    return plan, balance


def _neighbors(
    log: Interactions,
    windows: Windows,
    config: DatasetConfig,
    backend: Backend,
    timer: BuildTimer,
    workers: Workers | None,
) -> Neighbors:
    with timer.stage("similarity", total=log.n_items):
        return compute_neighbors(log, windows.cut1, config, backend, timer.progress, workers)


def write_tables(
    folder: Path,
    results: StageResults,
    sequences: UserSequences,
    config: DatasetConfig,
    backend: Backend,
) -> dict[str, ContentDigest]:
    """Write the Parquet files beside the samples into `folder`; each one's digest, by name."""
    tables = {
        "item_similarity_matrix": similarity_blocks(results, backend),
        "user_sequences": sequence_blocks(sequences, results, vocabulary(SPLITS, backend), backend),
        "item_vocabulary": item_blocks(results, backend),
    }
    return {
        name: write_file(folder / f"{name}.parquet", blocks, config, backend)
        for name, blocks in tables.items()
    }
