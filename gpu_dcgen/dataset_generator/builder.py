"""Public entry points: `build()` and `append()`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..backend.protocol import Backend
from ..backend.select import select_backend
from ..config import DatasetConfig
from ..context import BuildContext
from ..contract.manifest import Manifest
from ..errors import ConfigError, spell_option
from ..monitoring.alerts import TrackerGroup, open_sinks
from ..monitoring.progress import ProgressTracker
from ..monitoring.timing import BuildTimer
from ..quality_validator.report import read_baseline
from ..storage.checkpoints import Checkpoints
from ..storage.locations import is_url, parse_location
from ..storage.staging import Staging
from .reuse import PreviousDataset
from .run import BuildRun
from .shared_tables import SharedTables


@dataclass(frozen=True)
class BuildResult:
    """A published dataset: its folder, or its URL, and the content of manifest.json."""

    output: Path | str
    manifest: Manifest


def build(
    inputs: Path | str | SharedTables | None = None,
    output: Path | str | None = None,
    config: DatasetConfig | None = None,
    *,
    tables: Mapping[str, Any] | None = None,
    backend: str | Backend = "auto",
    progress: ProgressTracker | None = None,
    overwrite: bool = False,
    baseline: Path | None = None,
    resume: bool = False,
    workplace: Path | None = None,
    earlier: PreviousDataset | None = None,
) -> BuildResult:
    """Turn the tables of a log into a training dataset (DC-002), and publish it in one step.

    Args:
        inputs: Folder or URL of transactions, and of articles, customers and views if any (D1); or
            tables that `build_folds` has read.
        output: Folder or URL of the dataset. It must not exist, unless `overwrite` is set.
        config: The settings; the contract's defaults where None.
        tables: Tables in memory by name, in place of `inputs`: whatever has Arrow's PyCapsule
            interface, such as data frames of pandas, polars or cuDF, or a DuckDB relation.
        backend: `auto`, `cpu` or `gpu`, or an open backend.
        progress: Is notified of stages, advance and messages.
        overwrite: Replace `output` if it is a dataset.
        baseline: Another dataset: gates that are worse than its own are reported.
        resume: Reuse what an interrupted build of `output` has finished, if inputs, settings, code
            and backend are the same (D23).
        workplace: Local folder in which a dataset for a URL is built.
        earlier: A dataset: its splits that would come out the same are reused (`append`).

    Raises:
        DcgenError: ConfigError, InputError, OutputError, BackendError or GateError. On any error
            nothing is published.
    """
    config, progress = config or DatasetConfig(), progress or ProgressTracker()
    if config.split.folds > 1:
        raise ConfigError(
            f"split.folds: found {config.split.folds}; expected 1 for a single dataset.\n"
            "Call gpu_dcgen.build_folds."
        )
    log = inputs if isinstance(inputs, SharedTables) else choose_log(inputs, tables)
    location = parse_location(require_location("output", output))
    gates = None if baseline is None else read_baseline(Path(baseline))
    with ExitStack() as files:
        trackers = TrackerGroup(progress, open_sinks(config.monitoring, progress, files))
        opened, reason = select(backend, config) if isinstance(backend, str) else (backend, "given")
        if is_url(location):
            staging = _open_remote_staging(location, overwrite, resume, workplace, trackers)
        elif workplace is None:
            staging = Staging(Path(location), overwrite, resume=resume)
        else:
            raise ConfigError(
                f"{spell_option('staging', str(workplace))}: a local OUTPUT is built beside "
                "itself.\nLeave the option out."
            )
        checkpoints = Checkpoints(staging.checkpoints, opened, partial(trackers.message, "warning"))
        context = BuildContext(config, opened, BuildTimer(opened, trackers), checkpoints)
        run = BuildRun(context, checkpoints, staging, trackers, progress, reason, files)
        report = manifest = None
        try:
            report, manifest = run.execute(log, gates, earlier)
        except BaseException as error:
            user_error = run.fail(error)
            if user_error is None:
                raise
            raise user_error from error
        else:
            trackers.completed(manifest.n_rows, staging.location)
        finally:
            run.write_metrics(report, manifest)
    return BuildResult(staging.location, manifest)


def append(
    inputs: Path | str | None = None,
    dataset: Path | str | None = None,
    *,
    tables: Mapping[str, Any] | None = None,
    resources: Mapping[str, Any] | None = None,
    backend: str | Backend = "auto",
    progress: ProgressTracker | None = None,
    baseline: Path | None = None,
    resume: bool = False,
) -> BuildResult:
    """Rebuild a dataset with its own settings from tables that have grown.

    The content is what `build` would write, to the digest. Splits that have not changed keep their
    files and the time at which they were generated; the manifest's `append` lists them, and why the
    others were rebuilt.

    Args:
        inputs: Folder or URL of the tables, with the old rows and the new ones.
        dataset: Folder of the dataset, which is replaced.
        tables: As of `build`, with the old rows and the new ones.
        resources: Settings of that section that replace the dataset's own.
        backend: As of `build`.
        progress: As of `build`.
        baseline: As of `build`.
        resume: As of `build`.

    Raises:
        DcgenError: As of `build`.
    """
    previous = PreviousDataset(Path(require_location("dataset", dataset)))
    return build(
        inputs,
        dataset,
        previous.config(resources or {}),
        tables=tables,
        backend=backend,
        progress=progress,
        overwrite=True,
        baseline=baseline,
        resume=resume,
        earlier=previous,
    )


def choose_log(
    inputs: Path | str | None, tables: Mapping[str, Any] | None
) -> Path | str | Mapping[str, Any]:
    """Return where the tables are, or the tables. ConfigError for both and for neither."""
    if (inputs is None) == (tables is None):
        given = "neither" if inputs is None else "both"
        raise ConfigError(
            f"inputs, tables: found {given}; expected one of them.\n"
            'Give a folder or URL, or tables in memory: tables={"transactions": frame}.'
        )
    return parse_location(inputs) if inputs is not None else tables or {}


def require_location(name: str, location: Path | str | None) -> Path | str:
    """Return a location. ConfigError where it is not given."""
    if location is None:
        raise ConfigError(f"{name}: found none; expected a folder.\nGive {name}=FOLDER.")
    return location


def _open_remote_staging(
    url: Path | str, overwrite: bool, resume: bool, workplace: Path | None, trackers: TrackerGroup
) -> Staging:
    from ..storage.remote.staging import RemoteStaging

    return RemoteStaging(str(url), overwrite, resume=resume, workplace=workplace, progress=trackers)


def select(name: str, config: DatasetConfig) -> tuple[Backend, str]:
    """Open the backend called `name` with the settings' threads and limits; return it and why."""
    resources = config.resources
    return select_backend(
        name,
        n_threads=config.n_threads,
        memory_limit=resources.memory_limit,
        gpu_memory_limit=resources.gpu_memory_limit,
    )
