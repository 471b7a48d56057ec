"""build(): the river bed. It calls the stages in order and keeps the time; everything else is theirs."""

from __future__ import annotations

import errno
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import descriptions
from .alerts import EventFile, Watch, open_sinks, write_prometheus
from .backend import Backend, select_backend
from .balancing import Balance, compute_balance, resample
from .config import DatasetConfig
from .contract import SPLITS
from .dataset_statistics import Statistics, describe
from .digest import ContentDigest, vocabulary
from .errors import BackendError, GateError, OutputError
from .features import compute_features
from .inputs import InputReport, load_shop
from .interactions import build_interactions
from .negative_sampler import prepare_sources
from .outputs import (
    Staging,
    item_blocks,
    sequence_blocks,
    similarity_blocks,
    write_file,
    write_json,
)
from .parts import lay_out_parts, require_rows, write_samples
from .performance import Clock
from .progress import ProgressTracker
from .quality_report import conclude, read_baseline, summary_of
from .samples import Ingredients, gather_ingredients
from .sequence_builder import UserSequences, build_calendar, build_user_sequences
from .similarity_computer import compute_neighbors
from .splits import cut_windows, order_positives, plan_splits, require_disjoint_users


@dataclass(frozen=True)
class BuildResult:
    """A published data set: its folder and its manifest (manifest.json in it)."""

    output: Path
    manifest: dict[str, Any]


def build(
    inputs: Path,
    output: Path,
    config: DatasetConfig | None = None,
    *,
    backend: str | Backend = "auto",
    progress: ProgressTracker | None = None,
    overwrite: bool = False,
    baseline: Path | None = None,
) -> BuildResult:
    """Turn a folder of tables into a training data set (contract DC-002), and publish it in one step.

    `inputs` holds articles, customers and transactions (`inputs.load_shop`); `output` must not exist, or hold a data set
    and `overwrite` be set. With `baseline`, another data set, gates that are worse than its own are reported. Raises
    ConfigError, InputError, OutputError, BackendError or GateError; on any error nothing is published, and only a
    GateError leaves its staging folder, for inspection.
    """
    config, progress = config or DatasetConfig(), progress or ProgressTracker()
    generated_at = time.time_ns()
    earlier = None if baseline is None else read_baseline(Path(baseline))
    with ExitStack() as files:
        sinks = open_sinks(config.monitoring, progress, files)
        machine, reason = (backend, "given") if not isinstance(backend, str) else select(backend, config)
        staging = Staging(Path(output), overwrite)
        log = files.enter_context(EventFile(staging.path / "build_log.jsonl"))
        watch = Watch(progress, [*sinks, log])
        watch.message("info", f"backend: {machine.name} ({reason})")
        machine.begin()
        clock = Clock(machine, watch)
        report = manifest = None
        try:
            manifest, found = _run(Path(inputs), staging.path, config, machine, clock, generated_at)
            manifest["backend"] = {"name": machine.name, "reason": reason, **machine.versions()}
            with clock.stage("flush"):
                staging.flush()
            written = sum(file.stat().st_size for file in staging.path.rglob("*") if file.is_file())
            manifest.update(clock.report(manifest["counts"], written, _memory_limit(machine, config)))
            report = conclude(staging.path, found, manifest, earlier, config, clock, watch)
            manifest["quality"] = summary_of(report)
            write_json(staging.path / "manifest.json", manifest)
            staging.publish()
        except BaseException as error:
            manifest = None
            watch.failed(error)
            if isinstance(error, GateError):
                raise
            staging.discard()
            if isinstance(error, machine.exhausted):
                full = f"the memory of the {machine.name} machine is full ({error}); nothing was published"
                raise BackendError(f"{clock.current}: {full}.\n{machine.when_full}") from error
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                text = f"{staging.output.parent}: the disk is full; nothing was published.\nMake room, or choose another OUTPUT."
                raise OutputError(text) from error
            raise
        else:
            watch.completed(sum(split["rows"] for split in manifest["counts"].values()), staging.output)
        finally:
            if config.monitoring.prometheus is not None:
                write_prometheus(config.monitoring.prometheus, report, manifest)
    return BuildResult(staging.output, manifest)


def _memory_limit(machine: Backend, config: DatasetConfig) -> int | None:
    """The limit on the memory whose peak the machine tells."""
    return config.resources.gpu_memory_limit if machine.name == "gpu" else config.resources.memory_limit


def select(name: str, config: DatasetConfig) -> tuple[Backend, str]:
    """The backend called `name`, opened with the settings' threads and limits, and why it was taken."""
    resources = config.resources
    return select_backend(
        name, n_threads=config.n_threads, memory_limit=resources.memory_limit, gpu_memory_limit=resources.gpu_memory_limit
    )


def make_ingredients(
    inputs: Path, config: DatasetConfig, machine: Backend, clock: Clock, generated_at: int, rejects: Path | None = None
) -> tuple[InputReport, Ingredients, Balance | None, UserSequences]:
    """The stages before any sample is made: what `inputs` hold, all that samples are made of, weights, users' sequences."""
    with clock.stage("load"):
        shop = load_shop(inputs, config, machine, rejects=rejects)
        clock.warn(shop.report.warnings)
        clock.warn(shop.report.alerts, "critical")
    with clock.stage("interactions"):
        log = build_interactions(shop, config, machine)
        windows = cut_windows(shop.time, log.first_time, log.last_time, config, machine)
        report = shop.report
        del shop
    with clock.stage("features"):
        features = compute_features(log, windows.cut1, config, machine)
        clock.warn(features.warnings)
    with clock.stage("splits"):
        plan = plan_splits(log, features, windows, config, machine)
        balance = None
        if config.category_balancing.mode != "off":
            balance = compute_balance(log, plan, config, machine)
            clock.warn(balance.warnings)
            if config.category_balancing.mode == "resample":
                plan = resample(balance, log, plan, config, machine)
        clock.warn(plan.warnings)
        if config.output.order == "shuffled":
            plan = order_positives(plan, config, machine)
    with clock.stage("similarity", total=log.n_items):
        neighbors = compute_neighbors(log, windows.cut1, config, machine, clock.progress)
    with clock.stage("prepare"):
        sources = prepare_sources(log, features, config, machine)
        calendar = build_calendar(log.first_time, log.last_time, config, machine)
        sequences = build_user_sequences(log, plan, config, machine)
        weights = balance if config.category_balancing.mode == "weights" else None
        have = gather_ingredients(log, features, neighbors, sources, weights, calendar, plan, generated_at, machine)
    return report, have, balance, sequences


def write_tables(
    folder: Path, have: Ingredients, sequences: UserSequences, config: DatasetConfig, machine: Backend
) -> dict[str, ContentDigest]:
    """Write the Parquet files beside the samples into `folder`; each one's digest, by name."""
    tables = {
        "item_similarity_matrix": similarity_blocks(have, machine),
        "user_sequences": sequence_blocks(sequences, have, vocabulary(SPLITS, machine), machine),
        "item_vocabulary": item_blocks(have, machine),
    }
    return {name: write_file(folder / f"{name}.parquet", blocks, config, machine) for name, blocks in tables.items()}


def _run(
    inputs: Path, folder: Path, config: DatasetConfig, machine: Backend, clock: Clock, generated_at: int
) -> tuple[dict[str, Any], Statistics]:
    """All stages, into `folder`; returns the manifest but for timings, and what gates judge."""
    rejects = folder / "rejects.parquet"
    report, have, balance, sequences = make_ingredients(inputs, config, machine, clock, generated_at, rejects)
    log, plan = have.interactions, have.plan
    parts = lay_out_parts(folder, have, config)
    n_groups = sum(len(positives) for positives in plan.positives)
    require_disjoint_users(log, plan, config, machine)
    with clock.stage("samples", total=n_groups * config.rows_per_positive):
        digests, metrics, (clock.drawing_share, clock.checking_share) = write_samples(
            parts, have, config, machine, clock.progress
        )
        require_rows(parts, config)
    with clock.stage("tables"):
        files = {f"{split}_dataset": digest for split, digest in zip(SPLITS, digests, strict=True)}
        files |= write_tables(folder, have, sequences, config, machine)
        write_json(folder / "vocabulary.json", descriptions.vocabularies(have, config))
        write_json(folder / "category_mappings.json", descriptions.category_mappings(have, balance))
        found = describe(folder, metrics, have, balance, report, config, machine)
    return descriptions.manifest(folder, config, report, have, balance, files, metrics, clock.warnings, generated_at), found
