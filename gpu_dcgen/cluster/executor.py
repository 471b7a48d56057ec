"""Hands tasks out to a cluster's workers, and takes in what comes back: `workers.Workers` by Dask."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from .. import __version__
from ..backend.protocol import Array, MatrixByItemAndUser
from ..config import DatasetConfig
from ..context import BuildContext
from ..contract.manifest import ClusterSummary
from ..errors import BackendError, DcgenError, OutputError, spell_option
from ..outputs.parts import Part
from ..samples import StageResults
from .attempts import Attempts
from .connection import CONNECT_S, connect

_LOOK_S = 2.0  # between two looks at who is there, while nothing comes back
# without an answer, until idle workers do what others hold; more where answers took a third as long
# before
_PATIENCE_S = 60.0
_CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)


@contextmanager
def open_workers(
    checkpoint_folder: Path, key: dict[str, Any], context: BuildContext
) -> Iterator["DaskExecutor"]:
    """A cluster as `resources` asks for, whose workers were looked at: they run this code, and see `checkpoint_folder`."""
    with connect(context.config, context.progress) as client:
        for left in checkpoint_folder.glob("work-*"):  # by a build that died
            shutil.rmtree(
                left, ignore_errors=True
            )  # workers that nobody has told may still write there
        folder = checkpoint_folder / f"work-{uuid4().hex}"
        folder.mkdir()
        try:
            executor = DaskExecutor(client, folder, key, context)
            executor.inspect()
            yield executor
            executor.dismiss()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class DaskExecutor:
    """The workers of one build."""

    def __init__(
        self, client: Any, folder: Path, key: dict[str, Any], context: BuildContext
    ) -> None:
        from . import tasks

        if context.checkpoints is None:
            raise ValueError("a cluster reads the checkpoints of the build, which has none")
        self._client, self._kept, self._tasks = client, context.checkpoints, tasks
        self._progress = context.progress
        self._there = set(client.nthreads())
        self._seen_s = time.monotonic()
        self._n_lost, self._halved, self._peaks = 0, 0, dict.fromkeys(self._there, 0)
        self._slow: set[str] = set()  # who did not answer for so long that others did the work
        self._job = tasks.Job(
            folder.parent, folder, key, __version__, _for_one(context.config, len(self._there))
        )

    def inspect(self) -> None:
        """BackendError with what one of the workers found wrong, or with who did not answer."""
        try:
            found = self._client.run(
                self._tasks.inspect, self._job, on_error="return", callback_timeout=CONNECT_S
            )
        except TimeoutError as error:
            raise BackendError(
                f"no answer in {CONNECT_S} s from worker {' and '.join(self._silent()) or 'of the cluster: each is too busy'}.\n"
                "End the process there, or go without this machine."
            ) from error
        for worker, wrong in found.items():
            if isinstance(wrong, DcgenError):
                raise wrong
            if isinstance(wrong, BaseException):
                installed = self._client.run(
                    version, "gpu-dcgen", workers=[worker], on_error="return"
                )[worker]
                raise BackendError(
                    f"worker {worker} cannot take work of gpu-dcgen {__version__} ({type(wrong).__name__}: {wrong}); "
                    f"installed there: {installed!r}.\nInstall the same version everywhere, and start the workers anew."
                ) from wrong

    def _silent(self) -> Iterator[str]:
        for worker in sorted(self._there):
            try:
                self._client.run(int, workers=[worker], on_error="ignore", callback_timeout=_LOOK_S)
            except TimeoutError:
                yield worker

    def dismiss(self) -> None:
        """Have the workers let go of the build's files; who does not hear of it finds out when opening another build's."""
        with suppress(
            OSError, *_CANCELLED
        ):  # nobody is needed any more, so it does not matter who hangs or has gone
            self._client.run(
                self._tasks.forget, self._job, on_error="ignore", callback_timeout=_LOOK_S
            )

    def find_neighbors(
        self, sides: MatrixByItemAndUser, blocks: list[tuple[int, int]], progress: Any
    ) -> list[tuple[Array, ...]]:
        names = [f"similarity-{first:09d}-{last:09d}" for first, last in blocks]
        found = [self._kept.load(name) for name in names]  # of a build that died
        progress.advance(
            sum(
                last - first
                for (first, last), one in zip(blocks, found, strict=True)
                if one is not None
            )
        )
        missing = [number for number, one in enumerate(found) if one is None]
        if missing:
            self._share(self._tasks.SIDES, sides)
            for at, done in self._each(
                "similarity", self._tasks.find_neighbors, [blocks[number] for number in missing]
            ):
                number = missing[at]
                self._kept.import_file(names[number], done.file)
                found[number] = self._kept.load(names[number])
                progress.advance(blocks[number][1] - blocks[number][0])
        return found

    def write_parts(
        self,
        parts: list[Part],
        results: StageResults,
        context: BuildContext,
        finish: Callable[[Part], None],
    ) -> None:
        if not parts:
            return
        self._share(self._tasks.SHARED, replace(results, **dict.fromkeys(self._tasks.FROM_STAGES)))
        parts = sorted(
            parts, key=lambda part: part.first - part.last
        )  # the longest first, so that all end at about one time
        orders = [(part.split, part.first, part.last, part.name) for part in parts]
        for at, done in self._each("samples", self._tasks.write_part, orders):
            part = parts[at]
            part.record = done.record
            done.file.replace(part.path)
            finish(part)
            self._progress.advance(part.n_groups * context.config.rows_per_positive)

    def manifest_entry(self) -> ClusterSummary:
        """Describe the cluster for the manifest."""
        peaks = sorted(self._peaks.values(), reverse=True)
        return ClusterSummary(
            scheduler=self._client.scheduler.address,
            workers=len(self._there),
            lost_workers=self._n_lost,
            slow_workers=len(self._slow),
            halved_blocks=self._halved,
            peak_bytes_by_worker=[peak for peak in peaks if peak],
        )

    def _share(self, name: str, value: Any) -> None:
        """Put down what workers read, with all that stages have put down before."""
        self._kept.save(name, value)
        self._kept.flush()
        if name not in self._kept.names():
            raise OutputError(
                f"{self._job.checkpoints}: {name} cannot be written, and workers read it there.\nMake room. {_resume_hint()}"
            )

    def _each(
        self, what: str, task: Callable[..., Any], orders: list[tuple]
    ) -> Iterator[tuple[int, Any]]:
        """Have `task(job, *order)` done for all orders; each one's number and answer, as they come."""
        attempts = self._ask(
            what, lambda: Attempts(self._client, task, self._job, orders, self._slow)
        )
        self._seen_s = heard_s = time.monotonic()
        longest_s = _PATIENCE_S / 3
        while attempts:
            try:
                number, future = self._ask(what, lambda: attempts.take(_LOOK_S))
            except queue.Empty:
                self._look(what)
                if time.monotonic() - heard_s > 3 * longest_s:
                    self._repeat(what, attempts, time.monotonic() - heard_s)
                    heard_s = time.monotonic()
                continue
            longest_s = max(longest_s, time.monotonic() - heard_s)
            done = self._answer(what, future)
            self._peaks[done.worker] = max(self._peaks.get(done.worker, 0), done.peak_bytes)
            self._halved += done.halved
            yield number, done
            self._look(what)
            heard_s = time.monotonic()

    def _answer(self, what: str, future: Any) -> Any:
        from distributed import KilledWorker

        try:
            return future.result()
        except (OSError, *_CANCELLED) as error:
            if future.status == "error":  # the task's own
                raise
            raise self._unreachable(what, error) from error
        except KilledWorker as error:
            raise BackendError(
                f"{what}: {error.allowed_failures + 1} workers died over the same task, the last at {error.last_worker.address}."
                f"\nIf the system ended them for want of memory: fewer workers, or a lower resources.batch_size. {_resume_hint()}"
            ) from error

    def _look(self, what: str) -> None:
        """See who is there; tell of workers that have gone, whose tasks others do again."""
        there = set(self._ask(what, self._client.nthreads))
        for worker in sorted(self._there - there):
            self._n_lost += 1
            self._progress.message(
                "warning", f"{what}: worker {worker} is gone; what it was making is made again"
            )
        self._there = there
        if there:
            self._seen_s = time.monotonic()
        elif time.monotonic() - self._seen_s > CONNECT_S:
            raise BackendError(
                f"{what}: no worker is left, and none came in {CONNECT_S} s.\nStart workers. {_resume_hint()}"
            )

    def _repeat(self, what: str, attempts: Attempts, quiet_s: float) -> None:
        """Have idle workers do what others have held for long: these may hang, or be slow."""
        for worker in self._ask(what, attempts.repeat):
            text = f"{what}: worker {worker} has not answered for {quiet_s:.0f} s; what it holds is given to others as well"
            self._progress.message("warning", text)

    def _ask(self, what: str, question: Callable[[], Any]) -> Any:
        """What the client answers; BackendError when it has nobody to ask."""
        from distributed.client import ClosedClientError

        try:
            return question()
        except (OSError, RuntimeError, ValueError, ClosedClientError, *_CANCELLED) as error:
            raise self._unreachable(what, error) from error

    def _unreachable(self, what: str, error: BaseException) -> BackendError:
        return BackendError(
            f"{what}: the scheduler of the Dask cluster is gone, and with it who knew of the tasks ({type(error).__name__}).\n"
            f"Start it anew. {_resume_hint()}"
        )


def _resume_hint() -> str:
    return f"Partial results are kept; rerun with {spell_option('resume')} to continue."


def _for_one(config: DatasetConfig, n_workers: int) -> DatasetConfig:
    """The settings as one of `n_workers` keeps to them."""
    rate = config.resources.max_disk_rate
    if rate is None:
        return config
    resources = config.resources.model_copy(update={"max_disk_rate": max(1, rate // n_workers)})
    return config.model_copy(update={"resources": resources})
