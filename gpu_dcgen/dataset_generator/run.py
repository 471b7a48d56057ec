"""Run one build from its staging folder to publication, and clean up after an error."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..context import BuildContext
from ..contract.manifest import (
    BackendSummary,
    ClusterSummary,
    Manifest,
)
from ..contract.quality_report import GateResult, QualityReport
from ..errors import (
    BackendError,
    ConfigError,
    DcgenError,
    GateError,
    InputError,
    OutputError,
    spell_option,
)
from ..inputs.frames import write_frames
from ..inputs.opening import open_tables
from ..inputs.origins import InputTables
from ..inputs.sources import find_sources
from ..monitoring.alerts import EventFile, TrackerGroup
from ..monitoring.progress import ProgressTracker
from ..monitoring.prometheus import write_prometheus
from ..outputs.manifest import PipelineResult, RunRecord, build_manifest, describe_balance
from ..outputs.samples import Workers
from ..quality_validator.report import Measures, manifest_summary, write_quality_report
from ..resources import available_memory
from ..storage.checkpoints import Checkpoints
from ..storage.locations import is_url
from ..storage.staging import Staging
from .build_key import compute_build_key, hash_inputs, list_hashes, require_unchanged_inputs
from .pipeline import run_pipeline
from .reuse import PreviousDataset
from .shared_tables import SharedTables

# Errors that a resumed build would meet again.
_LASTING_ERRORS = (ConfigError, InputError)


@dataclass(frozen=True)
class BuildRun:
    """One build, opened and ready to run."""

    context: BuildContext
    checkpoints: Checkpoints
    staging: Staging
    trackers: TrackerGroup
    progress: ProgressTracker  # the caller's, one of `trackers`
    backend_reason: str
    files: ExitStack  # closes the event file when the build has ended or failed

    def execute(
        self,
        inputs: Path | str | Mapping[str, Any] | SharedTables,
        baseline: dict[str, GateResult] | None,
        previous: PreviousDataset | None,
    ) -> tuple[QualityReport, Manifest]:
        """Read the tables, run all stages, judge the dataset and publish it."""
        context, staging, trackers = self.context, self.staging, self.trackers
        config, backend = context.config, context.backend
        tables, files = self._open_tables(inputs)
        if previous is not None and isinstance(tables, InputTables):
            sources = find_sources(tables, config.inputs)
            previous.require_longer_log(sources["transactions"].n_rows, tables.label)
        key = compute_build_key(files, config, backend)
        changes = self.checkpoints.open(key, staging.clear)
        log = self.files.enter_context(EventFile(staging.path / "build_log.jsonl", self.progress))
        trackers.add(log)
        trackers.message("info", f"backend: {backend.name} ({self.backend_reason})")
        if changes:
            trackers.message(
                "warning",
                f"{spell_option('resume')}: starting over, {' and '.join(changes)} changed since "
                "the interrupted build",
            )
        backend.reset_counters()
        held = backend.hold_arrays(staging.folder, available_memory())
        with self._open_workers(key) as workers, held:
            built = run_pipeline(tables, staging.path, context, workers, previous)
            cluster = None if workers is None else workers.manifest_entry()
        require_unchanged_inputs(key, built.report)
        record, report = self._judge(built, cluster, baseline)
        trackers.remove(log)
        log.close()
        manifest = build_manifest(staging.path, config, built, record)
        manifest.write(staging.path / "manifest.json")
        self.checkpoints.close(save_pending=False)
        if (warning := staging.publish()) is not None:
            trackers.message("warning", warning)
        return report, manifest

    def _open_tables(
        self, inputs: Path | str | Mapping[str, Any] | SharedTables
    ) -> tuple[InputTables | SharedTables, list[list[str]]]:
        """Return the tables as Parquet files, and each file's table and SHA-256.

        Those of other formats are written again; those that are decoded already stay as they are.
        """
        if isinstance(inputs, SharedTables):
            return inputs, list_hashes(inputs.files)
        config, timer = self.context.config, self.context.timer
        workplace = self.staging.folder / "tables"
        if isinstance(inputs, Mapping):
            tables = write_frames(inputs, config.inputs, workplace, timer)
        else:
            tables = open_tables(self._local_folder(inputs), config.inputs, workplace, timer)
        return tables, hash_inputs(tables, config)

    def _local_folder(self, inputs: Path | str) -> Path:
        """Return the folder of the tables, where those of a URL are copied first."""
        if not is_url(inputs):
            return Path(inputs)
        from ..storage.remote.inputs import copy_tables

        return copy_tables(
            str(inputs), self.staging.folder / "inputs", self.context.config.inputs, self.trackers
        )

    def _open_workers(self, key: dict[str, Any]) -> AbstractContextManager[Workers | None]:
        """Open the cluster that the settings ask for, if any."""
        if not self.context.config.resources.distributed_processing:
            return nullcontext()
        from ..cluster import open_workers

        return open_workers(self.staging.checkpoints, key, self.context)

    def _judge(
        self,
        built: PipelineResult,
        cluster: ClusterSummary | None,
        baseline: dict[str, GateResult] | None,
    ) -> tuple[RunRecord, QualityReport]:
        """Flush the files, measure the build and judge its quality. GateError where it is bad."""
        context, staging = self.context, self.staging
        config, backend, timer = context.config, context.backend, context.timer
        versions = {
            "name": backend.name,
            "reason": self.backend_reason,
            **backend.describe_device(),
        }
        with timer.stage("flush"):
            staging.flush()
        written = sum(file.stat().st_size for file in staging.path.rglob("*") if file.is_file())
        n_groups = sum(len(positives) for positives in built.results.plan.positives)
        n_rows = n_groups * config.rows_per_positive
        performance = timer.report(n_rows, written, _memory_limit(context))
        measures = Measures(
            performance, built.report.quality_score, describe_balance(built.balance)
        )
        report = write_quality_report(
            staging.path, built.statistics, measures, baseline, config, timer, self.trackers
        )
        record = RunRecord(
            backend=BackendSummary.model_validate(versions),
            cluster=cluster,
            timings=timer.timings,
            performance=performance,
            quality=manifest_summary(report),
            warnings=timer.warnings,
        )
        return record, report

    def fail(self, error: BaseException) -> DcgenError | None:
        """Notify of a failure and clean up; return what to raise instead of `error`, if any."""
        self.trackers.failed(error)
        self._clean_up_after_error(error)
        user_error = self._to_user_error(error)
        if user_error is not None:
            self.trackers.message("critical", f"resource_exhaustion: {user_error}")
        return user_error

    def write_metrics(self, report: QualityReport | None, manifest: Manifest | None) -> None:
        """Write the file for Prometheus, if the settings name one.

        Without a report and a manifest the build has failed.
        """
        path = self.context.config.monitoring.prometheus
        if path is not None:
            write_prometheus(path, report, manifest, self.trackers)

    def _clean_up_after_error(self, error: BaseException) -> None:
        """Remove the staging folder unless a build may resume from it; release its lock."""
        staging, checkpoints, trackers = self.staging, self.checkpoints, self.trackers
        try:
            # Once more: the error may have interrupted the publication.
            staging.recover_publication()
            checkpoints.close(save_pending=not staging.published)
            is_resumable = (
                not staging.published
                and not isinstance(error, _LASTING_ERRORS)
                and bool(checkpoints.names())
            )
            if not is_resumable:
                staging.discard()
        finally:
            staging.release_lock()
        if staging.published:
            trackers.message("warning", f"the dataset had been published: {staging.location}")
        elif is_resumable and not isinstance(error, GateError):
            trackers.message(
                "warning",
                f"partial results are in {staging.folder}; "
                f"rerun with {spell_option('resume')} to continue",
            )

    def _to_user_error(self, error: BaseException) -> DcgenError | None:
        """Explain full memory or a full disk, unless the dataset is published."""
        backend, staging = self.context.backend, self.staging
        if staging.published:
            return None
        if isinstance(error, backend.out_of_memory_errors):
            return BackendError(
                f"{self.context.timer.current}: the {backend.name} backend ran out of memory "
                f"({error}); nothing was published.\n{backend.out_of_memory_hint}"
            )
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OutputError(
                f"{staging.output.parent}: the disk is full; nothing was published.\n"
                f"Free some space and rerun with {spell_option('resume')}, or choose another "
                f"OUTPUT and remove {staging.folder}."
            )
        return None


def _memory_limit(context: BuildContext) -> int | None:
    """Return the limit on the backend's memory."""
    resources = context.config.resources
    return resources.gpu_memory_limit if context.backend.name == "gpu" else resources.memory_limit
