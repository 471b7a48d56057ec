"""Run the tasks of a build on the workers of a Dask cluster (`outputs.samples.Workers`)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from .. import __version__
from ..backend.protocol import MatrixByItemAndUser
from ..config import DatasetConfig
from ..context import BuildContext
from ..contract.manifest import ClusterSummary
from ..errors import BackendError, DcgenError, OutputError, spell_option
from ..monitoring.progress import ProgressTracker
from ..outputs.parts import Part
from ..samples import StageResults
from ..similarity_computer.exact import NeighborRuns
from . import tasks
from .attempts import Attempts
from .connection import CONNECT_S, connect
from .tasks import Job, NeighborsTask, PartTask, SharedResults, TaskResult

_CHECK_INTERVAL_S = 2.0  # between two checks of the workers, while no result comes
# Without a result, until unfinished tasks are reassigned to idle workers; longer where a third of
# it has been exceeded between two results.
_REASSIGN_AFTER_S = 60.0
_CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)

T = TypeVar("T")


@contextmanager
def open_workers(
    folder: Path, key: dict[str, Any], context: BuildContext
) -> Iterator[DaskExecutor]:
    """Open a cluster as `resources` asks for, and inspect its workers.

    They must run this code and share `folder`, that of the checkpoints of the build `key`.
    """
    with connect(context.config, context.progress) as client:
        # Left by a build that died; workers that do not know may still write there.
        for old_folder in folder.glob("work-*"):
            shutil.rmtree(old_folder, ignore_errors=True)
        work_folder = folder / f"work-{uuid4().hex}"
        work_folder.mkdir()
        try:
            config = _share_disk_rate(context.config, n_workers=len(client.nthreads()))
            job = Job(folder, work_folder, key, __version__, config)
            executor = DaskExecutor(client, job, context)
            executor.inspect()
            yield executor
            executor.close()
        finally:
            shutil.rmtree(work_folder, ignore_errors=True)


class DaskExecutor:
    """Runs the tasks of one build on workers, and reports lost and unresponsive ones."""

    def __init__(self, client: Any, job: Job, context: BuildContext) -> None:
        if context.checkpoints is None:
            raise ValueError("workers read the checkpoints of a build, and this one has none")
        self._client, self._job = client, job
        self._checkpoints, self._progress = context.checkpoints, context.progress
        self._workers = set(client.nthreads())
        self._seen_s = time.monotonic()  # when there was a worker
        self._n_lost, self._n_halved = 0, 0
        self._peaks = dict.fromkeys(self._workers, 0)
        self._unresponsive: set[str] = set()  # workers from which tasks were reassigned

    def inspect(self) -> None:
        """Raise BackendError where a worker cannot take tasks, or does not answer."""
        try:
            answers = self._client.run(
                tasks.inspect, self._job, on_error="return", callback_timeout=CONNECT_S
            )
        except TimeoutError as error:
            names = " and ".join(self._find_unresponsive())
            raise BackendError(
                f"no answer in {CONNECT_S} s from worker {names or 'of the cluster: all are busy'}."
                "\nStop that worker process, or exclude the host."
            ) from error
        for worker, answer in answers.items():
            if isinstance(answer, DcgenError):
                raise answer
            if isinstance(answer, BaseException):
                installed = self._client.run(
                    version, "gpu-dcgen", workers=[worker], on_error="return"
                )[worker]
                raise BackendError(
                    f"worker {worker} cannot run tasks of gpu-dcgen {__version__} "
                    f"({type(answer).__name__}: {answer}); installed there: {installed!r}.\n"
                    "Install the same version everywhere, and restart the workers."
                ) from answer

    def _find_unresponsive(self) -> Iterator[str]:
        for worker in sorted(self._workers):
            try:
                self._client.run(
                    int, workers=[worker], on_error="ignore", callback_timeout=_CHECK_INTERVAL_S
                )
            except TimeoutError:
                yield worker

    def close(self) -> None:
        """Let the workers release the build's files.

        Those that do not answer release them when they take a task of another build.
        """
        with suppress(OSError, *_CANCELLED):
            self._client.run(
                tasks.unload, self._job, on_error="ignore", callback_timeout=_CHECK_INTERVAL_S
            )

    def find_neighbors(
        self,
        matrix: MatrixByItemAndUser,
        blocks: list[tuple[int, int]],
        progress: ProgressTracker,
    ) -> list[NeighborRuns]:
        """Find the neighbors of blocks of items (first, last); saved ones are loaded."""
        names = [f"similarity-{first:09d}-{last:09d}" for first, last in blocks]
        runs: dict[str, NeighborRuns] = {}
        missing: list[tuple[str, NeighborsTask]] = []
        for name, (first, last) in zip(names, blocks, strict=True):
            saved = self._checkpoints.load(name)
            if saved is None:
                missing.append((name, NeighborsTask(first, last)))
            else:
                runs[name] = saved
                progress.advance(last - first)
        if missing:
            self._share(tasks.MATRIX, matrix)
        results = self._run_all("similarity", tasks.find_neighbors, [task for _, task in missing])
        for number, result in results:
            name, task = missing[number]
            self._checkpoints.import_file(name, result.file)
            saved = self._checkpoints.load(name)
            if saved is None:
                raise OutputError(
                    f"{self._job.checkpoints}: {name} cannot be read after a worker has written it."
                    f"\nCheck the file system. {_resume_hint()}"
                )
            runs[name] = saved
            progress.advance(task.last - task.first)
        return [runs[name] for name in names]

    def write_parts(
        self,
        parts: list[Part],
        results: StageResults,
        context: BuildContext,
        finish: Callable[[Part], None],
    ) -> None:
        """Write the file of each part, and pass the part with its record to `finish`."""
        if not parts:
            return
        self._share(tasks.SHARED_RESULTS, SharedResults.select(results))
        # The longest first, so that all workers end at about the same time.
        parts = sorted(parts, key=lambda part: part.first - part.last)
        part_tasks = [PartTask(part.split, part.first, part.last, part.name) for part in parts]
        for number, result in self._run_all("samples", tasks.write_part, part_tasks):
            part = parts[number]
            if result.record is not None:
                part.record = result.record
            result.file.replace(part.path)
            finish(part)
            self._progress.advance(part.n_groups * context.config.rows_per_positive)

    def manifest_entry(self) -> ClusterSummary:
        """Describe the cluster for the manifest."""
        peaks = sorted(self._peaks.values(), reverse=True)
        return ClusterSummary(
            scheduler=self._client.scheduler.address,
            workers=len(self._workers),
            lost_workers=self._n_lost,
            slow_workers=len(self._unresponsive),
            halved_blocks=self._n_halved,
            peak_bytes_by_worker=[peak for peak in peaks if peak],
        )

    def _share(self, name: str, value: Any) -> None:
        """Save a checkpoint for the workers, and wait until it and all before it are written."""
        self._checkpoints.save(name, value)
        self._checkpoints.flush()
        if name not in self._checkpoints.names():
            raise OutputError(
                f"{self._job.checkpoints}: {name} cannot be written for the workers.\n"
                f"Free up disk space. {_resume_hint()}"
            )

    def _run_all(
        self,
        stage: str,
        function: Callable[[Job, Any], TaskResult],
        todo: Sequence[NeighborsTask | PartTask],
    ) -> Iterator[tuple[int, TaskResult]]:
        """Run all tasks; yields the number and result of each, in the order they finish."""
        if not todo:
            return
        attempts = self._call(
            stage, lambda: Attempts(self._client, function, self._job, todo, self._unresponsive)
        )
        self._seen_s = result_s = time.monotonic()
        longest_s = _REASSIGN_AFTER_S / 3
        while attempts:
            try:
                number, future = self._call(stage, lambda: attempts.take(_CHECK_INTERVAL_S))
            except queue.Empty:
                self._check_workers(stage)
                if time.monotonic() - result_s > 3 * longest_s:
                    self._reassign(stage, attempts, time.monotonic() - result_s)
                    result_s = time.monotonic()
                continue
            longest_s = max(longest_s, time.monotonic() - result_s)
            result = self._result(stage, future)
            peak = max(self._peaks.get(result.worker, 0), result.peak_bytes)
            self._peaks[result.worker] = peak
            self._n_halved += result.n_halved
            yield number, result
            self._check_workers(stage)
            result_s = time.monotonic()

    def _result(self, stage: str, future: Any) -> TaskResult:
        from distributed import KilledWorker

        try:
            result: TaskResult = future.result()
        except (OSError, *_CANCELLED) as error:
            if future.status == "error":  # raised by the task itself
                raise
            raise self._lost_scheduler(stage, error) from error
        except KilledWorker as error:
            raise BackendError(
                f"{stage}: {error.allowed_failures + 1} workers died during the same task, the "
                f"last at {error.last_worker.address}.\nIf the system has killed them for lack of "
                f"memory, use fewer workers or a lower resources.batch_size. {_resume_hint()}"
            ) from error
        return result

    def _check_workers(self, stage: str) -> None:
        """Warn of lost workers; BackendError where there has been none for too long.

        The scheduler assigns the tasks of lost workers to others.
        """
        workers = set(self._call(stage, self._client.nthreads))
        for worker in sorted(self._workers - workers):
            self._n_lost += 1
            self._progress.message(
                "warning", f"{stage}: worker {worker} was lost; its tasks are run again"
            )
        self._workers = workers
        if workers:
            self._seen_s = time.monotonic()
        elif time.monotonic() - self._seen_s > CONNECT_S:
            raise BackendError(
                f"{stage}: no worker is left, and none has joined in {CONNECT_S} s.\n"
                f"Start workers. {_resume_hint()}"
            )

    def _reassign(self, stage: str, attempts: Attempts, silent_s: float) -> None:
        """Let idle workers run the unfinished tasks of others, which may hang or be slow."""
        for worker in self._call(stage, attempts.reassign):
            self._progress.message(
                "warning",
                f"{stage}: worker {worker} has not answered for {silent_s:.0f} s; its tasks were "
                "also assigned to idle workers",
            )

    def _call(self, stage: str, function: Callable[[], T]) -> T:
        """Call a function of the client; BackendError where it has lost the scheduler."""
        from distributed.client import ClosedClientError

        try:
            return function()
        except (OSError, RuntimeError, ValueError, ClosedClientError, *_CANCELLED) as error:
            raise self._lost_scheduler(stage, error) from error

    def _lost_scheduler(self, stage: str, error: BaseException) -> BackendError:
        return BackendError(
            f"{stage}: the connection to the scheduler of the Dask cluster is lost, and with it "
            f"the state of the tasks ({type(error).__name__}).\n"
            f"Restart the cluster. {_resume_hint()}"
        )


def _resume_hint() -> str:
    return f"Finished work is saved; rerun with {spell_option('resume')} to continue."


def _share_disk_rate(config: DatasetConfig, n_workers: int) -> DatasetConfig:
    """Return the settings with the share of the disk rate that each of `n_workers` may use."""
    rate = config.resources.max_disk_rate
    if rate is None:
        return config
    resources = config.resources.model_copy(update={"max_disk_rate": max(1, rate // n_workers)})
    return config.model_copy(update={"resources": resources})
