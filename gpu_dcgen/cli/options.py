"""Arguments and options that several commands have, and their conversion to settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import ConfigError
from ..storage.locations import parse_location, require_local

if TYPE_CHECKING:
    from ..config import DatasetConfig

    PathOrUrl = Path | str
else:
    PathOrUrl = Any  # Typer takes no unions; the type is that of the parser's result


def path_or_url(text: str) -> Path | str:
    """Parse an argument that is a local path or a URL."""
    try:
        return parse_location(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


def local_path(text: str) -> Path:
    """Parse an argument that is a local path."""
    try:
        return require_local(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


InputArgument = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT",
        parser=local_path,
        help="Folder with transactions, and articles, customers and views if any.",
    ),
]
DatasetArgument = Annotated[
    Path,
    typer.Argument(
        metavar="DATASET", parser=local_path, help="Dataset built by 'gpu-dcgen build'."
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="YAML file with settings; see 'gpu-dcgen config'."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting; repeatable."),
]
BackendOption = Annotated[
    Literal["auto", "cpu", "gpu"],
    typer.Option(metavar="auto|cpu|gpu", help="Backend; auto reports its choice and the reason."),
]
SeedOption = Annotated[
    int | None, typer.Option(metavar="N", help="Same seed, inputs and settings: same samples.")
]
ProfileOption = Annotated[
    Literal["local_development", "cloud_processing"] | None,
    typer.Option(
        metavar="NAME",
        help="Defaults of the resources: local_development or cloud_processing.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Threads, at most one per core (resources.num_workers).",
    ),
]
WorkersOption = Annotated[
    str | None,
    typer.Option(
        metavar="N|gpus",
        help="Dask worker processes instead of threads; gpus: one per GPU. Needs the extra"
        " distributed.",
    ),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Use a running Dask cluster, such as tcp://host:8786."),
]
MemoryLimitOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory limit, such as 8GB; blocks shrink to fit, and large arrays go to files "
        "(resources.memory_limit).",
    ),
]
GpuMemoryLimitOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="GPU memory limit, such as 12GiB (resources.gpu_memory_limit)."
    ),
]
DiskRateOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Bytes written per second at most, such as 200MB (resources.max_disk_rate).",
    ),
]
BadRowsOption = Annotated[
    Literal["fail", "reject"] | None,
    typer.Option(
        metavar="fail|reject", help="Stop at bad rows, or set them aside (inputs.on_bad_rows)."
    ),
]
BaselineOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DATASET",
        parser=local_path,
        help="Report gates that are worse than those of this dataset.",
    ),
]
KeyOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Secret key of 16 bytes or more, to sign with HMAC-SHA-256."),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Resume an interrupted build.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print events and the result as JSON lines.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")]


def to_resource_settings(
    threads: int | None,
    workers: str | None,
    scheduler: str | None,
    memory_limit: str | None,
    gpu_memory_limit: str | None,
    max_disk_rate: str | None,
) -> dict[str, object]:
    """Translate the options on resources to settings, None where an option is not given.

    Raises ConfigError for options that exclude each other.
    """
    return {
        **_to_worker_settings(threads, workers, scheduler),
        "resources.memory_limit": memory_limit,
        "resources.gpu_memory_limit": gpu_memory_limit,
        "resources.max_disk_rate": max_disk_rate,
    }


def to_overrides(settings: dict[str, object]) -> list[str]:
    """Format the settings that are not None as the arguments of --set."""
    return [f"{key}={value}" for key, value in settings.items() if value is not None]


def _to_worker_settings(
    threads: int | None, workers: str | None, scheduler: str | None
) -> dict[str, object]:
    """Translate `--threads`, `--workers` and `--scheduler` to settings."""
    if workers is not None:
        for option, value in (("--threads", threads), ("--scheduler", scheduler)):
            if value is not None:
                raise ConfigError(
                    f"--workers {workers} and {option} {value} are both given.\n"
                    "Give only one of them."
                )
    number, address = threads, scheduler
    if workers == "gpus":
        address = workers
    elif workers is not None:
        if not workers.isdecimal() or int(workers) == 0:
            raise ConfigError(f"--workers: expected a number from 1, or gpus, found {workers!r}.")
        number = int(workers)
    is_distributed = workers is not None or scheduler is not None
    return {
        "resources.num_workers": number,
        "resources.scheduler": address,
        "resources.distributed_processing": "true" if is_distributed else None,
    }


def load_settings(
    file: Path | None, overrides: list[str] | None, options: dict[str, object]
) -> DatasetConfig:
    """Load the settings of a file, changed by --set and then by the options that are given."""
    from ..config import load_config

    return load_config(file, [*(overrides or ()), *to_overrides(options)])
