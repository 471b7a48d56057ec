"""What the commands share: the program, its options, printing, and exit codes.

Exit codes: 0 done, 1 unexpected error, 2 unusable input, configuration, backend or output, 3 a critical gate failed,
130 interrupted, 143 ended by SIGTERM. What was made goes to stdout; progress, warnings and errors go to stderr (with --json:
events to stdout).
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console, RenderableType

from ..errors import ConfigError, DcgenError, OutputError
from ..monitoring.progress import JsonLinesTracker, RichTracker
from ..storage.locations import parse_location, require_local

# A paragraph that begins with \b is printed as it stands.
EXAMPLES = """\b
Examples:
  gpu-dcgen demo                                  real data, built and shown in one go
  gpu-dcgen build data/processed data/training    from your tables
  gpu-dcgen build tables out --seed 7 --set negative_sampling.hard_negatives_per_positive=8
  gpu-dcgen append data/processed data/training   the log has grown: make what has changed
  gpu-dcgen config > mine.yaml                    every setting, to be changed and given to --config
  gpu-dcgen doctor tables --output out            is everything ready?
  gpu-dcgen plan tables                           how much, how long?
  gpu-dcgen audit data/processed data/training    prove that nothing leaks, from the files alone
  gpu-dcgen report data/training                  one page on what was made
  gpu-dcgen cards data/training                   describe it for Hugging Face, Croissant and data contracts
  gpu-dcgen probe data/training                   what does a model learn from it?
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


def anywhere(text: str) -> Path | str:
    """An argument that is a folder here or a URL."""
    try:
        return parse_location(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


def here(text: str) -> Path:
    """An argument that is a folder here."""
    try:
        return require_local(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


Tracker = RichTracker | JsonLinesTracker
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print events and the result as JSON objects, one a line.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is at the output.")]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads: resources.num_workers; at most one a core is used."),
]
Workers = Annotated[
    str | None,
    typer.Option(
        metavar="N|gpus",
        help="Worker processes instead of threads, by Dask; gpus: one on each GPU. Needs gpu-dcgen[distributed].",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="A running Dask cluster to share the work out to, as tcp://host:8786.",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory to keep to, as 8GB; blocks shrink to fit: resources.memory_limit.",
    ),
]
DiskRate = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="Bytes a second to write at most, as 200MB: resources.max_disk_rate."
    ),
]
GpuMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="Device memory that may be used, as 12GiB: resources.gpu_memory_limit."
    ),
]
BadRows = Annotated[
    Literal["fail", "reject"] | None,
    typer.Option(help="Stop at bad rows, or set them aside: inputs.on_bad_rows."),
]
Inputs = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT",
        parser=here,
        help="Folder with articles, customers, transactions (.parquet).",
    ),
]
Baseline = Annotated[
    Any,
    typer.Option(
        metavar="DATASET",
        parser=here,
        help="Another dataset; gates that are worse than its own are reported.",
    ),
]
Key = Annotated[
    Path | None,
    typer.Option(help="File with a secret key of 16 bytes or more: sign with HMAC-SHA-256."),
]
Dataset = Annotated[
    Path, typer.Argument(metavar="DATASET", parser=here, help="Folder that 'gpu-dcgen build' made.")
]
Backend = Annotated[
    Literal["auto", "cpu", "gpu"],
    typer.Option(help="Machine to build on; auto says what it took, and why."),
]


def resources(
    threads: int | None,
    workers: str | None,
    scheduler: str | None,
    memory_limit: str | None,
    gpu_memory_limit: str | None,
    max_disk_rate: str | None,
) -> dict[str, object]:
    """The options about the machine as settings; None where not given. ConfigError for what excludes each other."""
    return {
        **_processes(threads, workers, scheduler),
        "resources.memory_limit": memory_limit,
        "resources.gpu_memory_limit": gpu_memory_limit,
        "resources.max_disk_rate": max_disk_rate,
    }


def _processes(
    threads: int | None, workers: str | None, scheduler: str | None
) -> dict[str, object]:
    """`--threads`, `--workers` and `--scheduler` as settings."""
    given = {"--threads": threads, "--workers": workers, "--scheduler": scheduler}
    if workers is not None and (threads is not None or scheduler is not None):
        also = next(name for name in ("--threads", "--scheduler") if given[name] is not None)
        raise ConfigError(
            f"--workers {workers} and {also} {given[also]} are both given.\nGive one of them."
        )
    number, address = threads, scheduler
    if workers == "gpus":
        address = workers
    elif workers is not None:
        if not workers.isdecimal() or int(workers) == 0:
            raise ConfigError(f"--workers: expected a number from 1, or gpus, found {workers!r}.")
        number = int(workers)
    return {
        "resources.num_workers": number,
        "resources.scheduler": address,
        "resources.distributed_processing": None
        if workers is None and scheduler is None
        else "true",
    }


def tracker_for(as_json: bool, quiet: bool = False) -> Tracker:
    """Who hears of a build: a program, by JSON lines on stdout, or a terminal."""
    return (
        JsonLinesTracker(sys.stdout, quiet=quiet)
        if as_json
        else RichTracker(Console(stderr=True), quiet=quiet)
    )


def refuse_existing(paths: list[Path], overwrite: bool) -> None:
    """Tables that are there already may be somebody's own."""
    if not overwrite and (there := [path for path in paths if path.exists()]):
        raise OutputError(
            f"{there[0]} is there already.\nChoose another folder, or replace it with --overwrite."
        )


def show(what: RenderableType) -> None:
    Console().print(what, crop=False)


class Ended(BaseException):
    """The system asked this process to end (SIGTERM): what is in hand is put away first."""


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # who asks twice does not want to wait
    raise Ended


@contextmanager
def exit_codes(debug: bool, tracker: Tracker | None = None) -> Iterator[None]:
    """Turn what goes wrong inside into its text on stderr and its exit code; the traceback only with `debug`."""
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    except (typer.Exit, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        text, code = "Interrupted.", 130
    except Ended:
        text, code = "Ended by SIGTERM.", 128 + signal.SIGTERM
    except DcgenError as error:
        text, code = str(error), error.exit_code
        if debug:
            traceback.print_exc()
    except Exception as error:
        text, code = (
            f"Unexpected {type(error).__name__}: {error}\nRun it again with --debug to see where.",
            1,
        )
        if debug:
            traceback.print_exc()
    else:
        return
    finally:
        signal.signal(signal.SIGTERM, before)
    typer.echo(text, err=True)
    if isinstance(tracker, JsonLinesTracker):
        tracker.write("error", exit_code=code, text=text)
    raise typer.Exit(code)
