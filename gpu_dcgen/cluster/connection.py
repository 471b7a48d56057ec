"""Dask clusters to work with: processes of this machine, one a GPU, or what runs behind an address."""

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

CONNECT_S = 60  # how long a scheduler may take to answer, and its first worker to come
# Tasks' answers are small, so there is nothing to spill; and Dask's measure of a process's memory
# has in it the mapped
# checkpoints that all workers share, so it must not pause or end workers by that. Blocks shrink to
# the limit instead.
_MEMORY = {
    f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause", "terminate")
}
_ENVIRONMENT = "distributed.nanny.pre-spawn-environ"
# Dask's gives each freed block back to the system, and samples then take 1.7 times as long
_TRIM = "MALLOC_TRIM_THRESHOLD_"
_PRELOAD = "distributed.worker.preload"
# Ctrl-C is for who builds, and ends workers
_LEAVE_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
_ANY_PORT = "localhost:0"


@contextmanager
def connect(config: DatasetConfig, progress: ProgressTracker) -> Iterator[Any]:
    """A `distributed.Client` with workers, as `resources` asks for; told to `progress`, with the dashboard's address.

    MissingPackageError without the packages; BackendError when nobody answers, or there is no worker.
    """
    distributed = _package("distributed", "distributed")
    scheduler = config.resources.scheduler
    with ExitStack() as opened:
        opened.enter_context(_quiet_client())
        if scheduler is None:
            address = opened.enter_context(_processes(distributed, config))
        elif scheduler == "gpus":
            address = opened.enter_context(_one_a_gpu())
        else:
            address = scheduler
        try:
            client = opened.enter_context(
                distributed.Client(
                    address, timeout=CONNECT_S, set_as_default=False, name="gpu-dcgen"
                )
            )
            client.wait_for_workers(1, timeout=CONNECT_S)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            raise BackendError(
                f"{scheduler or 'workers of this machine'}: no Dask worker answers ({type(error).__name__}: {error}).\n"
                "Start a scheduler (dask scheduler) and workers (dask worker ADDRESS --nthreads 1), and give the scheduler's "
                "address."
            ) from error
        threads = client.nthreads()
        text = f"cluster: {len(threads)} workers, {sum(threads.values())} tasks at a time, at {client.scheduler.address}"
        progress.message("info", f"{text}; {_dashboard(client)}")
        yield client


@contextmanager
def _quiet_client() -> Iterator[None]:
    """Keep Dask's client and its loop from logging what this package says itself, as an error that tells what to do."""
    loggers = [logging.getLogger(name) for name in ("distributed.client", "tornado.application")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _processes(distributed: Any, config: DatasetConfig) -> Any:
    """A local cluster of single-threaded processes; `memory_limit` is shared out among them."""
    n_workers = min(config.resources.num_workers, count_usable_cores())
    limit = config.resources.memory_limit
    with _settings():
        return distributed.LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            memory_limit=None if limit is None else limit // n_workers,
            host="127.0.0.1",
            dashboard_address=_ANY_PORT,
            silence_logs=logging.ERROR,  # who dies and is replaced, `executor` tells in our words
        )


def _one_a_gpu() -> Any:
    """A worker on each GPU of this machine; they keep to themselves what memory they hold (`--gpu-memory-limit`)."""
    cuda = _package("dask_cuda", "distributed-gpu")
    with _settings():
        return cuda.LocalCUDACluster(
            threads_per_worker=1, dashboard_address=_ANY_PORT, silence_logs=logging.ERROR
        )


def _settings() -> Any:
    """Dask's settings for workers that do nothing else."""
    config = importlib.import_module("dask").config
    environment = {name: value for name, value in config.get(_ENVIRONMENT).items() if name != _TRIM}
    preload = [*config.get(_PRELOAD), _LEAVE_INTERRUPTS]
    return config.set({**_MEMORY, _ENVIRONMENT: environment, _PRELOAD: preload})


def _package(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            f"Work by many processes (--workers, --scheduler, resources.distributed_processing) needs {name}, which is not "
            f"installed.\npip install 'gpu-dcgen[{extra}]', or leave it out: one process uses all cores."
        ) from error


def _dashboard(client: Any) -> str:
    if importlib.util.find_spec("bokeh") is None:
        return "no dashboard: bokeh is not installed"
    return f"dashboard: {client.dashboard_link}"
