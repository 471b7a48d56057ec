"""build(): one dataset from one folder of tables: staged, logged, judged, published; or what failed, said clearly."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..backend.protocol import Backend
from ..backend.select import select_backend
from ..config import DatasetConfig
from ..contract.manifest import (
    BackendSummary,
    Manifest,
)
from ..contract.quality_report import QualityReport
from ..errors import BackendError, ConfigError, DcgenError, GateError, InputError, OutputError
from ..inputs.sources import find_sources
from ..monitoring.alerts import EventFile, TrackerGroup, open_sinks
from ..monitoring.progress import ProgressTracker
from ..monitoring.prometheus import write_prometheus
from ..monitoring.timing import BuildTimer
from ..outputs.manifest import RunRecord, build_manifest, describe_balance
from ..outputs.samples import Workers
from ..quality_validator.report import (
    Measures,
    manifest_summary,
    read_baseline,
    write_quality_report,
)
from ..storage.checkpoints import Checkpoints
from ..storage.locations import is_url, parse_location
from ..storage.staging import Staging
from .build_key import key_of_build, require_same_inputs
from .pipeline import run_pipeline
from .reuse import PreviousDataset

_UNALTERABLE = (ConfigError, InputError)  # what would fail in the same way again


@dataclass(frozen=True)
class BuildResult:
    """A published dataset: its folder, or the URL of it, and its manifest (manifest.json in it)."""

    output: Path | str
    manifest: Manifest


def build(
    inputs: Path | str,
    output: Path | str,
    config: DatasetConfig | None = None,
    *,
    backend: str | Backend = "auto",
    progress: ProgressTracker | None = None,
    overwrite: bool = False,
    baseline: Path | None = None,
    resume: bool = False,
    workplace: Path | None = None,
    earlier: PreviousDataset | None = None,
) -> BuildResult:
    """Turn a folder of tables into a training dataset (contract DC-002), and publish it in one step.

    `inputs` holds articles, customers and transactions (`inputs.load_shop`); `output` must not exist, or hold a dataset
    and `overwrite` be set. Either may be a URL (`remote`); a dataset for one is built in the local folder `workplace`. With
    `baseline`, another dataset, gates that are worse than its own are reported. With `resume`, the build goes on from what
    an earlier one that died has finished, if inputs, settings and code are the same. Splits of a dataset `earlier` that would
    come out the same are taken over (`append`).
    Raises ConfigError, InputError, OutputError, BackendError or GateError; on any error nothing is published.
    """
    config, progress = config or DatasetConfig(), progress or ProgressTracker()
    inputs, output = parse_location(inputs), parse_location(output)
    compared = None if baseline is None else read_baseline(Path(baseline))
    with ExitStack() as files:
        watch = TrackerGroup(progress, open_sinks(config.monitoring, progress, files))
        reason = "given"
        if isinstance(backend, str):
            backend, reason = select(backend, config)
        staging = _open_staging(output, overwrite, resume, workplace, watch)
        checkpoints, timer = (
            Checkpoints(staging.checkpoints, backend, partial(watch.message, "warning")),
            BuildTimer(backend, watch),
        )
        report: QualityReport | None = None
        manifest: Manifest | None = None
        try:
            if is_url(inputs):
                from ..storage.remote.inputs import copy_tables

                inputs = copy_tables(inputs, staging.folder / "inputs", config.inputs, watch)
            if earlier is not None:
                earlier.require_longer(
                    find_sources(inputs, config.inputs)["transactions"].n_rows, inputs
                )
            key = key_of_build(inputs, config, backend)
            differs = checkpoints.open(key, staging.clear)
            log = files.enter_context(EventFile(staging.path / "build_log.jsonl", progress))
            watch.add(log)
            watch.message("info", f"backend: {backend.name} ({reason})")
            if differs:
                watch.message(
                    "warning",
                    f"--resume: begun anew: other {' and '.join(differs)} than those of the build that died",
                )
            backend.reset_counters()
            with _workers(staging.checkpoints, key, config, checkpoints, watch) as workers:
                built = run_pipeline(
                    inputs, staging.path, config, backend, timer, checkpoints, workers, earlier
                )
                cluster = None if workers is None else workers.manifest_entry()
            require_same_inputs(key, built.report)
            backend_summary = BackendSummary.model_validate(
                {"name": backend.name, "reason": reason, **backend.describe_device()}
            )
            with timer.stage("flush"):
                staging.flush()
            written = sum(file.stat().st_size for file in staging.path.rglob("*") if file.is_file())
            n_rows = sum(map(len, built.results.plan.positives)) * config.rows_per_positive
            performance = timer.report(n_rows, written, _memory_limit(backend, config))
            measures = Measures(
                performance, built.report.quality_score, describe_balance(built.balance)
            )
            report = write_quality_report(
                staging.path, built.statistics, measures, compared, config, timer, watch
            )
            watch.remove(log)
            log.close()
            run = RunRecord(
                backend_summary,
                cluster,
                timings=timer.timings,
                performance=performance,
                quality=manifest_summary(report),
                warnings=timer.warnings,
            )
            manifest = build_manifest(staging.path, config, built, run)
            manifest.write(staging.path / "manifest.json")
            checkpoints.close(save_pending=False)
            if (left := staging.publish()) is not None:
                watch.message("warning", left)
        except BaseException as error:
            manifest = None
            watch.failed(error)
            _put_away(error, staging, checkpoints, watch)
            if (words := _in_words(error, backend, timer, staging)) is not None:
                watch.message("critical", f"resource_exhaustion: {words}")
                raise words from error
            raise
        else:
            watch.completed(manifest.n_rows, staging.location)
        finally:
            if config.monitoring.prometheus is not None:
                write_prometheus(config.monitoring.prometheus, report, manifest, watch)
    return BuildResult(staging.location, manifest)


def append(
    inputs: Path | str,
    dataset: Path,
    *,
    resources: Mapping[str, Any] | None = None,
    backend: str | Backend = "auto",
    progress: ProgressTracker | None = None,
    baseline: Path | None = None,
    resume: bool = False,
) -> BuildResult:
    """Build a dataset anew in its place, by its own settings, from tables that have grown, and make no more than has changed.

    `inputs` holds the old rows and the new ones. The result is what `build` would make of them, to the digest; of the splits
    whose samples would be the same the files are taken over, with the moment at which they were made. The manifest's `append`
    says which, and why the others were not. `resources` replaces settings of that section. Raises as `build` does.
    """
    earlier = PreviousDataset(Path(dataset))
    how = {"backend": backend, "progress": progress, "baseline": baseline, "resume": resume}
    return build(
        inputs, dataset, earlier.config(resources or {}), overwrite=True, earlier=earlier, **how
    )


def _open_staging(
    output: Path | str, overwrite: bool, resume: bool, workplace: Path | None, watch: TrackerGroup
) -> Staging:
    if is_url(output):
        from ..storage.remote.staging import RemoteStaging

        return RemoteStaging(output, overwrite, resume=resume, workplace=workplace, progress=watch)
    if workplace is not None:
        raise ConfigError(
            f"--staging {workplace}: a local OUTPUT is built beside itself.\nLeave the option out."
        )
    return Staging(output, overwrite, resume=resume)


def _workers(
    folder: Path,
    key: dict[str, Any],
    config: DatasetConfig,
    checkpoints: Checkpoints,
    progress: ProgressTracker,
) -> AbstractContextManager[Workers | None]:
    """The cluster that the settings ask for, if any."""
    if not config.resources.distributed_processing:
        return nullcontext()
    from ..cluster import open_workers

    return open_workers(folder, key, config, checkpoints, progress)


def _put_away(
    error: BaseException, staging: Staging, checkpoints: Checkpoints, watch: TrackerGroup
) -> None:
    """What becomes of the staging folder after an error: it is kept for who goes on from it, or removed; the lock goes."""
    try:
        staging.recover_publication()  # again: what interrupted it may have done so there
        checkpoints.close(save_pending=not staging.published)
        resumable = (
            not staging.published
            and not isinstance(error, _UNALTERABLE)
            and bool(checkpoints.names())
        )
        if not resumable:
            staging.discard()
    finally:
        staging.release_lock()
    if staging.published:
        watch.message("warning", f"the dataset had been published: {staging.location}")
    elif resumable and not isinstance(error, GateError):
        watch.message(
            "warning",
            f"what is finished is kept in {staging.folder}: the same command with --resume goes on",
        )


def _in_words(
    error: BaseException, backend: Backend, timer: BuildTimer, staging: Staging
) -> DcgenError | None:
    """What a full memory or disk means for the user, unless all was done."""
    if staging.published:
        return None
    if isinstance(error, backend.out_of_memory_errors):
        full = f"the memory of the {backend.name} machine is full ({error}); nothing was published"
        return BackendError(f"{timer.current}: {full}.\n{backend.out_of_memory_hint}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"{staging.output.parent}: the disk is full; nothing was published.\nMake room, and give the same command with "
            f"--resume, or choose another OUTPUT and remove {staging.folder}."
        )
    return None


def _memory_limit(backend: Backend, config: DatasetConfig) -> int | None:
    """The limit on the memory whose peak the machine tells."""
    return (
        config.resources.gpu_memory_limit
        if backend.name == "gpu"
        else config.resources.memory_limit
    )


def select(name: str, config: DatasetConfig) -> tuple[Backend, str]:
    """The backend called `name`, opened with the settings' threads and limits, and why it was taken."""
    resources = config.resources
    return select_backend(
        name,
        n_threads=config.n_threads,
        memory_limit=resources.memory_limit,
        gpu_memory_limit=resources.gpu_memory_limit,
    )
