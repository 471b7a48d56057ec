"""The river bed: the stages in their order, timed, their results kept for another process; everything else is theirs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..backend.protocol import Backend
from ..config.dataset_config import DatasetConfig
from ..contract.schema import SPLITS
from ..digest import ContentDigest, vocabulary
from ..errors import BackendError, OutputError
from ..inputs.shop import InputReport, load_shop
from ..monitoring.timing import Clock
from ..negative_sampler import prepare_sources
from ..outputs import manifest as descriptions
from ..outputs.samples import Workers, lay_out_parts, require_rows, write_samples
from ..outputs.tables import item_blocks, sequence_blocks, similarity_blocks, write_file
from ..preparation.balancing import Balance, compute_balance, resample
from ..preparation.features import Features, compute_features
from ..preparation.interactions import Interactions, build_interactions
from ..preparation.splits import SplitPlan, order_positives, plan_splits, require_disjoint_users
from ..preparation.windows import Windows, cut_windows
from ..quality_validator.statistics import Statistics, describe
from ..resources import require_room
from ..samples import Ingredients, gather_ingredients
from ..sequence_builder import UserSequences, build_calendar, build_user_sequences
from ..similarity_computer.compute import Neighbors, compute_neighbors
from ..storage.checkpoints import Checkpoints
from ..storage.json_files import write_json
from .build_key import key_of_maker
from .fingerprints import fingerprints
from .reuse import FILE, Earlier, describe_splits


def run_pipeline(
    inputs: Path,
    folder: Path,
    config: DatasetConfig,
    machine: Backend,
    clock: Clock,
    kept: Checkpoints | None = None,
    workers: Workers | None = None,
    earlier: Earlier | None = None,
) -> tuple[dict[str, Any], Statistics]:
    """All stages, into `folder`; returns the manifest but for timings, and what gates judge.

    Splits of `earlier` that would come out the same are taken over.
    """
    rejects = folder / "rejects.parquet"
    report, have, balance, sequences = make_ingredients(
        inputs, config, machine, clock, rejects, kept, workers
    )
    n_groups = sum(len(positives) for positives in have.plan.positives)
    _require_room(folder, n_groups, have, sequences, config, clock)
    parts = lay_out_parts(folder, have, config)
    require_disjoint_users(have.interactions, have.plan, config, machine)
    with clock.stage("samples", total=n_groups * config.rows_per_positive):
        made_by, made_of = key_of_maker(config, machine), {}
        if config.output.appendable:
            made_of = fingerprints(have, config, machine)
        if earlier is not None:
            earlier.take(made_by, made_of, parts, folder, have, config, machine)
            _tell(earlier, clock)
        taken = {} if earlier is None else earlier.taken
        of_splits = {SPLITS.index(split): (one.record, one.sha256) for split, one in taken.items()}
        written = write_samples(
            parts, have, config, machine, clock.progress, kept, workers, of_splits
        )
        require_rows(parts, config)
    clock.sampled(written.drawing_share, written.checking_share, written.seconds_before)
    with clock.stage("tables"):
        files = {
            f"{split}_dataset": record.digest
            for split, record in zip(SPLITS, written.records, strict=True)
        }
        files |= write_tables(folder, have, sequences, config, machine)
        write_json(folder / "vocabulary.json", descriptions.vocabularies(have, config))
        write_json(folder / "category_mappings.json", descriptions.category_mappings(have, balance))
        if made_of:
            made_at = {split: one.made_at for split, one in taken.items()}
            splits = describe_splits(made_by, made_of, written.records, made_at, have, machine)
            (folder / FILE).write_text(json.dumps(splits) + "\n", encoding="utf-8")
        found = describe(folder, written.metrics, have, balance, report, config, machine)
    made = descriptions.manifest(
        folder, config, report, have, balance, files, written, clock.warnings
    )
    return {**made, "append": None if earlier is None else earlier.told()}, found


def _tell(earlier: Earlier, clock: Clock) -> None:
    for split in SPLITS:
        became = (
            f"made anew: {earlier.anew[split]}"
            if split in earlier.anew
            else "kept: it is made of the same"
        )
        clock.progress.message("info", f"{split}: {became}")


def _require_room(
    folder: Path,
    n_groups: int,
    have: Ingredients,
    sequences: UserSequences,
    config: DatasetConfig,
    clock: Clock,
) -> None:
    """Ask for the disk and the rest before hours are spent; what lacks is an alert and an error."""
    there = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    n_neighbors, n_users = int(have.neighbors.item.shape[0]), int(sequences.user.shape[0])
    try:
        require_room(
            folder, n_groups, config, n_neighbors=n_neighbors, n_users=n_users, there=there
        )
    except (OutputError, BackendError) as error:
        clock.progress.message("critical", f"resource_exhaustion: {error}")
        raise


def make_ingredients(
    inputs: Path,
    config: DatasetConfig,
    machine: Backend,
    clock: Clock,
    rejects: Path | None = None,
    kept: Checkpoints | None = None,
    workers: Workers | None = None,
) -> tuple[InputReport, Ingredients, Balance | None, UserSequences]:
    """The stages before any sample is made: what `inputs` hold, all that samples are made of, weights, users' sequences.

    A stage whose result is in `kept` does not run; the results of those that do are put there.
    """

    def once(name: str, make: Callable[[], Any]) -> Any:
        if kept is not None and (found := kept.get(name)) is not None:
            clock.restored(name, found["seconds"])
            return found["made"]
        began, made = time.perf_counter(), make()
        if kept is not None:
            kept.put(name, {"seconds": time.perf_counter() - began, "made": made})
        return made

    generated_at = time.time_ns() if kept is None else kept.began
    report, log, windows = once(
        "interactions", lambda: _read(inputs, rejects, config, machine, clock)
    )
    clock.warn(report.warnings)
    clock.warn(report.alerts, "critical")
    features = once("features", lambda: _features(log, windows, config, machine, clock))
    clock.warn(features.warnings)
    plan, balance = once("splits", lambda: _plan(log, features, windows, config, machine, clock))
    clock.warn((*(balance.warnings if balance else ()), *plan.warnings))
    neighbors = once(
        "similarity", lambda: _neighbors(log, windows, config, machine, clock, workers)
    )
    with clock.stage("prepare"):
        calendar = build_calendar(log.first_time, log.last_time, config, machine)
        sequences = build_user_sequences(log, plan, config, machine)
        sources = prepare_sources(log, features, config, machine)
        weights = balance if config.category_balancing.mode == "weights" else None
        have = gather_ingredients(
            log, features, neighbors, sources, weights, calendar, plan, generated_at, machine
        )
    return report, have, balance, sequences


def _read(
    inputs: Path, rejects: Path | None, config: DatasetConfig, machine: Backend, clock: Clock
) -> tuple[InputReport, Interactions, Windows]:
    with clock.stage("load"):
        shop = load_shop(inputs, config, machine, rejects=rejects)
    with clock.stage("interactions"):
        log = build_interactions(shop, config, machine)
        windows = cut_windows(shop.time, log.first_time, log.last_time, config, machine)
    return shop.report, log, windows


def _features(
    log: Interactions, windows: Windows, config: DatasetConfig, machine: Backend, clock: Clock
) -> Features:
    with clock.stage("features"):
        return compute_features(log, windows.cut1, config, machine)


def _plan(
    log: Interactions,
    features: Features,
    windows: Windows,
    config: DatasetConfig,
    machine: Backend,
    clock: Clock,
) -> tuple[SplitPlan, Balance | None]:
    with clock.stage("splits"):
        plan, balance = plan_splits(log, features, windows, config, machine), None
        if config.category_balancing.mode != "off":
            balance = compute_balance(log, plan, config, machine)
        if config.category_balancing.mode == "resample":
            plan = resample(balance, log, plan, config, machine)
        if config.output.order == "shuffled":
            plan = order_positives(plan, config, machine)
    return plan, balance


def _neighbors(
    log: Interactions,
    windows: Windows,
    config: DatasetConfig,
    machine: Backend,
    clock: Clock,
    workers: Workers | None,
) -> Neighbors:
    with clock.stage("similarity", total=log.n_items):
        return compute_neighbors(log, windows.cut1, config, machine, clock.progress, workers)


def write_tables(
    folder: Path,
    have: Ingredients,
    sequences: UserSequences,
    config: DatasetConfig,
    machine: Backend,
) -> dict[str, ContentDigest]:
    """Write the Parquet files beside the samples into `folder`; each one's digest, by name."""
    tables = {
        "item_similarity_matrix": similarity_blocks(have, machine),
        "user_sequences": sequence_blocks(sequences, have, vocabulary(SPLITS, machine), machine),
        "item_vocabulary": item_blocks(have, machine),
    }
    return {
        name: write_file(folder / f"{name}.parquet", blocks, config, machine)
        for name, blocks in tables.items()
    }
