"""Connect to a Dask cluster: processes of this machine, one per GPU, or one at an address."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ..config import DatasetConfig, count_usable_cores
from ..errors import BackendError, MissingPackageError
from ..monitoring.progress import ProgressTracker

CONNECT_S = 60  # for a scheduler to answer, and for its first worker to join
# Results of tasks are small, so there is nothing to spill. Dask counts the mapped checkpoints that
# all workers share as memory of each, so it must not pause or end workers for their memory. Blocks
# shrink to the limit instead.
_MEMORY = {
    f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause", "terminate")
}
_ENVIRONMENT = "distributed.nanny.pre-spawn-environ"
# Dask's value returns each freed block to the system; samples then take 1.7 times as long.
_TRIM = "MALLOC_TRIM_THRESHOLD_"
_PRELOAD = "distributed.worker.preload"
# Ctrl-C is for the building process, which ends its workers.
_LEAVE_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
_ANY_PORT = "localhost:0"


@contextmanager
def connect(config: DatasetConfig, progress: ProgressTracker) -> Iterator[Any]:
    """Connect a `distributed.Client` to workers, as `resources` asks for.

    The cluster and the address of its dashboard are reported to `progress`. MissingPackageError
    without the packages; BackendError where no scheduler answers, or there is no worker.
    """
    distributed = _import_package("distributed", "distributed")
    scheduler = config.resources.scheduler
    with ExitStack() as stack:
        stack.enter_context(_quiet_client())
        if scheduler is None:
            address = stack.enter_context(_start_processes(distributed, config))
        elif scheduler == "gpus":
            address = stack.enter_context(_start_gpu_workers())
        else:
            address = scheduler
        try:
            client = stack.enter_context(
                distributed.Client(
                    address, timeout=CONNECT_S, set_as_default=False, name="gpu-dcgen"
                )
            )
            client.wait_for_workers(1, timeout=CONNECT_S)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            raise BackendError(
                f"{scheduler or 'workers of this machine'}: no Dask worker answers "
                f"({type(error).__name__}: {error}).\n"
                "Start a scheduler (dask scheduler) and workers (dask worker ADDRESS --nthreads 1),"
                " and give the scheduler's address."
            ) from error
        threads = client.nthreads()
        progress.message(
            "info",
            f"cluster: {len(threads)} workers, {sum(threads.values())} tasks at a time, "
            f"at {client.scheduler.address}; {_describe_dashboard(client)}",
        )
        yield client


@contextmanager
def _quiet_client() -> Iterator[None]:
    """Silence the log of Dask's client; this package raises errors that say what to do."""
    loggers = [logging.getLogger(name) for name in ("distributed.client", "tornado.application")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _start_processes(distributed: Any, config: DatasetConfig) -> Any:
    """Start a local cluster of single-threaded processes, which share `memory_limit`."""
    n_workers = min(config.resources.num_workers, count_usable_cores())
    limit = config.resources.memory_limit
    with _apply_settings():
        return distributed.LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            memory_limit=None if limit is None else limit // n_workers,
            host="127.0.0.1",
            dashboard_address=_ANY_PORT,
            silence_logs=logging.ERROR,  # `executor` reports lost workers
        )


def _start_gpu_workers() -> Any:
    """Start a worker on each GPU of this machine; each limits its own device memory.

    BackendError where dask-cuda finds no GPU, or cannot ask NVML for them.
    """
    cuda = _import_package("dask_cuda", "distributed-gpu")
    with _apply_settings():
        try:
            return cuda.LocalCUDACluster(
                threads_per_worker=1, dashboard_address=_ANY_PORT, silence_logs=logging.ERROR
            )
        except Exception as error:  # NVML's errors have no class in common with others
            raise BackendError(
                "gpus: dask-cuda cannot start workers on the GPUs of this machine "
                f"({type(error).__name__}: {error}).\n"
                "'gpu-dcgen doctor' shows whether a GPU can be used. For processes of the CPU: "
                "--workers 2, or resources.num_workers without resources.scheduler."
            ) from error


def _apply_settings() -> Any:
    """Apply Dask's settings for workers that only run builds, within the returned context."""
    config = importlib.import_module("dask").config
    environment = {name: value for name, value in config.get(_ENVIRONMENT).items() if name != _TRIM}
    preload = [*config.get(_PRELOAD), _LEAVE_INTERRUPTS]
    return config.set({**_MEMORY, _ENVIRONMENT: environment, _PRELOAD: preload})


def _import_package(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            "Building with many processes (--workers, --scheduler, "
            f"resources.distributed_processing) needs {name}, which is not installed.\n"
            f"pip install 'gpu-dcgen[{extra}]', or leave it out: one process uses all cores."
        ) from error


def _describe_dashboard(client: Any) -> str:
    if importlib.util.find_spec("bokeh") is None:
        return "no dashboard: bokeh is not installed"
    return f"dashboard: {client.dashboard_link}"
