"""What runs on a worker: it opens what the build has kept, once a process, and makes neighbors of items and parts of samples."""

from __future__ import annotations

import functools
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

from distributed import get_worker

from .. import __version__
from ..backend.protocol import Backend
from ..backend.select import select_backend
from ..config import DatasetConfig
from ..context import BuildContext
from ..errors import BackendError, OutputError
from ..monitoring.progress import ProgressTracker
from ..monitoring.timing import BuildTimer
from ..outputs.part_writer import write_parts
from ..outputs.parts import Part, PartRecord
from ..samples import StageResults
from ..similarity_computer.exact import find_neighbors_of_block
from ..storage.checkpoints import KEY_FILE, Checkpoints, read_key
from ..storage.checksums import digest_of_code

SIDES, SHARED = "sides", "shared"  # checkpoints that are made for workers
# StageResults that are results of stages, and the checkpoints that they are in; SHARED has the
# others.
FROM_STAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "interactions": lambda made: made["interactions"][1],
    "features": lambda made: made["features"],
    "plan": lambda made: made["splits"][0],
    "neighbors": lambda made: made["similarity"],
}
_STAGES = ("interactions", "features", "splits", "similarity")


@dataclass(frozen=True)
class Job:
    """The build that a task is of."""

    checkpoints: Path
    folder: Path  # in `checkpoints`: what workers write, named for this build
    key: dict[str, Any]
    version: str
    config: DatasetConfig


@dataclass(frozen=True)
class Done:
    """What a worker answers: where its file is, and what is known of it."""

    file: Path
    worker: str
    peak_bytes: int  # of the worker's process so far, mapped files that others share included
    halved: int  # blocks that its memory did not hold
    record: PartRecord | None = None


_opened: dict[tuple[Path, str], Any] = {}  # by the job's folder: machines, and what tasks read
_opening = Lock()


def inspect(job: Job, dask_worker: Any = None) -> None:
    """BackendError unless this worker runs the build's code, has its machine, and sees its staging folder.

    Dask hands in `dask_worker` where this does not run as a task.
    """
    worker = dask_worker or get_worker()
    where = f"worker {worker.address} on {socket.gethostname()}"
    here = _digest_of_code()
    if here != job.key["code"]:
        raise BackendError(
            f"{where} runs gpu-dcgen {__version__} (code {here[:12]}), the build {job.version} (code {job.key['code'][:12]}).\n"
            "Install the same version everywhere, and start the workers anew."
        )
    try:
        found = read_key(job.checkpoints)["key"]
        with tempfile.TemporaryFile(dir=job.folder):
            pass
    except OSError as error:
        raise BackendError(
            f"{where} cannot use {job.folder} ({error.strerror}).\n"
            "Choose an OUTPUT on a file system that all workers see under the same path, and can write to."
        ) from error
    if found != job.key:
        raise BackendError(
            f"{where} finds another build in {job.checkpoints / KEY_FILE}.\n"
            "Choose an OUTPUT on a file system that all workers share, not a folder of the same name on each."
        )
    _backend(job, worker)


def find_neighbors(job: Job, first: int, last: int) -> Done:
    """The neighbors of items first..last-1, as a checkpoint in the job's folder."""
    backend, sides = _open(job, SIDES)
    halved = backend.memory_usage()["n_out_of_memory"]
    file = job.folder / f"{SIDES}-{first}-{uuid4().hex}"
    own = Checkpoints(job.folder, backend, _refuse)
    try:
        own.save(
            file.name, find_neighbors_of_block(first, last, sides, job.config.similarity, backend)
        )
        own.flush()
    finally:
        own.close(save_pending=False)
    return _done(file, backend, halved)


def _refuse(text: str) -> None:
    raise OutputError(f"worker {socket.gethostname()}: {text}")


def write_part(job: Job, split: int, first: int, last: int, name: str) -> Done:
    """Positives first..last-1 of a split, as a Parquet file in the job's folder, and its record."""
    backend, results = _open(job, SHARED)
    halved, written = backend.memory_usage()["n_out_of_memory"], []
    part = Part(split, first, last, job.folder / f"{name}-{uuid4().hex}.parquet", name)
    context = BuildContext(job.config, backend, BuildTimer(backend, ProgressTracker()))
    write_parts([part], results, context, written.append)
    return replace(_done(part.path, backend, halved), record=written[0].record)


def forget(job: Job) -> None:
    """Let go of what was opened for a build that has ended."""
    with _opening:
        for which in [which for which in _opened if which[0] == job.folder]:
            del _opened[which]


def _open(job: Job, what: str) -> tuple[Backend, Any]:
    """This process's machine, and what is kept as `what`: mapped, so that the workers of one host share it."""
    with _opening:
        for which in [
            which for which in _opened if not which[0].is_dir()
        ]:  # builds whose end nobody told
            del _opened[which]
        if (job.folder, what) not in _opened:
            inspect(job)  # workers may come while the build runs
            _opened[job.folder, what] = _get(job, SIDES) if what == SIDES else _ingredients(job)
        return _backend(job, get_worker()), _opened[job.folder, what]


def _ingredients(job: Job) -> StageResults:
    made = {name: _get(job, name)["result"] for name in _STAGES}
    return replace(_get(job, SHARED), **{field: take(made) for field, take in FROM_STAGES.items()})


def _get(job: Job, name: str) -> Any:
    found = Checkpoints(job.checkpoints, _backend(job, get_worker())).load(name)
    if found is None:
        raise BackendError(
            f"worker {get_worker().address} on {socket.gethostname()}: {job.checkpoints / name} is not there, or not as it was "
            "written.\nPut OUTPUT on a file system that shows every worker what the build writes."
        )
    return found


def _backend(job: Job, worker: Any) -> Backend:
    """The machine of this process, which keeps to one task's share of the worker's memory."""
    limit = getattr(worker.memory_manager, "memory_limit", None)
    limit = None if limit is None else int(limit) // worker.state.nthreads
    return _select(job.key["backend"], limit, job.config.resources.gpu_memory_limit)


@functools.cache
def _select(name: str, memory_limit: int | None, gpu_memory_limit: int | None) -> Backend:
    backend, _ = select_backend(
        name, n_threads=1, memory_limit=memory_limit, gpu_memory_limit=gpu_memory_limit
    )
    backend.reset_counters()
    return backend


_digest_of_code = functools.cache(digest_of_code)  # of the code that this process has loaded


def _done(file: Path, backend: Backend, halved: int) -> Done:
    memory = backend.memory_usage()
    return Done(
        file, get_worker().address, memory["peak_bytes"], memory["n_out_of_memory"] - halved
    )
