"""Run on a worker: find neighbors of items, and write parts of samples.

A worker opens the checkpoints of a build once per process. They are mapped, so the workers of one
host share them.
"""

from __future__ import annotations

import functools
import socket
import tempfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

from .. import __version__
from ..backend.blocks import Vocabulary
from ..backend.protocol import Array, Backend, MatrixByItemAndUser
from ..backend.select import select_backend
from ..config import DatasetConfig
from ..context import BuildContext
from ..errors import BackendError, OutputError
from ..monitoring.progress import ProgressTracker
from ..monitoring.timing import BuildTimer
from ..outputs.part_writer import write_parts
from ..outputs.parts import Part, PartRecord
from ..preparation.balancing import Balance
from ..samples import StageResults
from ..sequence_builder import Calendar
from ..similarity_computer.exact import find_neighbors_of_block
from ..storage.checkpoints import KEY_FILE, Checkpoints, read_key
from ..storage.checksums import digest_of_code

# Checkpoints that are written for workers, beside those of the stages.
MATRIX, SHARED_RESULTS = "sides", "shared"


@dataclass(frozen=True)
class Job:
    """The build that tasks belong to."""

    checkpoints: Path
    folder: Path  # in `checkpoints`: for the files of workers
    key: dict[str, Any]
    version: str
    config: DatasetConfig


@dataclass(frozen=True)
class NeighborsTask:
    """Find the neighbors of items first..last-1."""

    first: int
    last: int


@dataclass(frozen=True)
class PartTask:
    """Write positives first..last-1 of a split, as the part `name`."""

    split: int
    first: int
    last: int
    name: str


@dataclass(frozen=True)
class TaskResult:
    """What a worker returns: its file, and what it took."""

    file: Path
    worker: str
    peak_bytes: int  # of the worker's process so far, including mapped files that others share
    n_halved: int  # blocks that were retried at half size because memory was full
    record: PartRecord | None = None


@dataclass(frozen=True)
class SharedResults:
    """The StageResults that are in no checkpoint of a stage."""

    balance: Balance | None
    calendar: Calendar
    item_codes: Array
    sequence_items: Array
    vocabularies: dict[str, Vocabulary]
    item_categories: Array
    item_states: Array
    user_categories: dict[str, Array]
    random_log_q: Array
    generated_at: int

    @classmethod
    def select(cls, results: StageResults) -> SharedResults:
        """Select these fields of all results."""
        return cls(**{field.name: getattr(results, field.name) for field in fields(cls)})

    def combine(self, stages: dict[str, Any]) -> StageResults:
        """Return all results; `stages` are those in the checkpoints of stages, by name."""
        _, interactions, _ = stages["interactions"]
        plan, _ = stages["splits"]
        return StageResults(
            interactions=interactions,
            features=stages["features"],
            neighbors=stages["similarity"],
            candidates=stages["candidates"],
            plan=plan,
            **{field.name: getattr(self, field.name) for field in fields(self)},
        )


_STAGES = ("interactions", "features", "splits", "similarity", "candidates")

# What this process has loaded, by the job's folder and the checkpoint's name.
_loaded: dict[tuple[Path, str], Any] = {}
_loading = Lock()


def inspect(job: Job, dask_worker: Any = None) -> None:
    """Raise BackendError unless this worker can take tasks of a build.

    It must run the build's code, have its backend, and share its staging folder. Dask passes
    `dask_worker` where this does not run as a task.
    """
    worker = dask_worker or _current_worker()
    name = f"worker {worker.address} on {socket.gethostname()}"
    code = digest_of_code()
    if code != job.key["code"]:
        raise BackendError(
            f"{name} runs gpu-dcgen {__version__} (code {code[:12]}), "
            f"the build {job.version} (code {job.key['code'][:12]}).\n"
            "Install the same version everywhere, and restart the workers."
        )
    try:
        key = read_key(job.checkpoints)["key"]
        with tempfile.TemporaryFile(dir=job.folder):
            pass
    except OSError as error:
        raise BackendError(
            f"{name} cannot use {job.folder} ({error.strerror}).\n"
            "Choose an OUTPUT on a file system that all workers share under the same path, and can "
            "write to."
        ) from error
    if key != job.key:
        raise BackendError(
            f"{name} finds another build in {job.checkpoints / KEY_FILE}.\n"
            "Choose an OUTPUT on a file system that all workers share, not a folder of the same "
            "name on each."
        )
    _open_backend(job, worker)


def find_neighbors(job: Job, task: NeighborsTask) -> TaskResult:
    """Find neighbors, and write them as a checkpoint in the job's folder."""
    matrix: MatrixByItemAndUser = _load_once(job, MATRIX)
    backend = _open_backend(job, _current_worker())
    n_halved = backend.memory_usage()["n_out_of_memory"]
    file = job.folder / f"{MATRIX}-{task.first}-{uuid4().hex}"
    checkpoints = Checkpoints(job.folder, backend, _raise_output_error)
    try:
        runs = find_neighbors_of_block(
            task.first, task.last, matrix, job.config.similarity, backend
        )
        checkpoints.save(file.name, runs)
        checkpoints.flush()
    finally:
        checkpoints.close(save_pending=False)
    return _make_result(file, backend, n_halved)


def _raise_output_error(text: str) -> None:
    raise OutputError(f"worker {socket.gethostname()}: {text}")


def write_part(job: Job, task: PartTask) -> TaskResult:
    """Write a part as a Parquet file in the job's folder; returns its record as well."""
    results: StageResults = _load_once(job, SHARED_RESULTS)
    backend = _open_backend(job, _current_worker())
    n_halved = backend.memory_usage()["n_out_of_memory"]
    file = job.folder / f"{task.name}-{uuid4().hex}.parquet"
    part, written = Part(task.split, task.first, task.last, file, task.name), list[Part]()
    context = BuildContext(job.config, backend, BuildTimer(backend, ProgressTracker()))
    write_parts([part], results, context, written.append)
    return replace(_make_result(file, backend, n_halved), record=written[0].record)


def unload(job: Job) -> None:
    """Release what was loaded for a build that has ended."""
    with _loading:
        _unload({folder for folder, _ in _loaded if folder == job.folder})


def _unload(folders: set[Path]) -> None:
    for key in [key for key in _loaded if key[0] in folders]:
        del _loaded[key]


def _load_once(job: Job, name: str) -> Any:
    """Return the checkpoint `name` (SHARED_RESULTS: all results), loaded once per process."""
    with _loading:
        # Builds that ended without calling `unload` here.
        _unload({folder for folder, _ in _loaded if not folder.is_dir()})
        if (job.folder, name) not in _loaded:
            inspect(job)  # a worker may join while the build runs
            value = _load(job, name)
            if isinstance(value, SharedResults):
                value = value.combine({stage: _load(job, stage)["result"] for stage in _STAGES})
            _loaded[job.folder, name] = value
        return _loaded[job.folder, name]


def _load(job: Job, name: str) -> Any:
    worker = _current_worker()
    value = Checkpoints(job.checkpoints, _open_backend(job, worker)).load(name)
    if value is None:
        raise BackendError(
            f"worker {worker.address} on {socket.gethostname()}: {job.checkpoints / name} is "
            "missing or incomplete.\n"
            "Choose an OUTPUT on a file system that shows every worker what the build writes."
        )
    return value


def _current_worker() -> Any:
    from distributed import get_worker

    return get_worker()


def _open_backend(job: Job, worker: Any) -> Backend:
    """Open this process's backend, limited to one task's share of the worker's memory."""
    limit = getattr(worker.memory_manager, "memory_limit", None)
    limit = None if limit is None else int(limit) // worker.state.nthreads
    return _select_backend(job.key["backend"], limit, job.config.resources.gpu_memory_limit)


@functools.cache
def _select_backend(name: str, memory_limit: int | None, gpu_memory_limit: int | None) -> Backend:
    backend, _ = select_backend(
        name, n_threads=1, memory_limit=memory_limit, gpu_memory_limit=gpu_memory_limit
    )
    backend.reset_counters()
    return backend


def _make_result(file: Path, backend: Backend, n_halved_before: int) -> TaskResult:
    memory = backend.memory_usage()
    return TaskResult(
        file=file,
        worker=_current_worker().address,
        peak_bytes=memory["peak_bytes"],
        n_halved=memory["n_out_of_memory"] - n_halved_before,
    )
