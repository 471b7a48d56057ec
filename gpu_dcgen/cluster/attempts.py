"""Submit tasks to the workers of a cluster, possibly twice; the first result counts."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from typing import Any

from .tasks import Job, NeighborsTask, PartTask, TaskResult


class Attempts:
    """Attempts at the tasks of one function, all submitted at once.

    `unresponsive` are workers that get no task. The caller owns the set; `reassign` adds to it.
    """

    def __init__(
        self,
        client: Any,
        function: Callable[[Job, Any], TaskResult],
        job: Job,
        tasks: Sequence[NeighborsTask | PartTask],
        unresponsive: set[str],
    ) -> None:
        self._client, self._function, self._job = client, function, job
        self._tasks, self._unresponsive = tasks, unresponsive
        self._finished: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._futures: dict[int, list[Any]] = {}  # by the task's number, one per attempt
        workers = set(client.nthreads()) - unresponsive if unresponsive else set()
        for number in range(len(tasks)):
            self._submit(number, workers)

    def __len__(self) -> int:
        """Return the number of tasks without a result."""
        return len(self._futures)

    def take(self, timeout_s: float) -> tuple[int, Any]:
        """Return the number of the next finished task, and the future with its result.

        Raises queue.Empty where none finishes in time.
        """
        while True:
            number, future = self._finished.get(timeout=timeout_s)
            attempts = self._futures.pop(number, None)
            if attempts is None:  # another attempt was first
                continue
            slower = [attempt for attempt in attempts if attempt.key != future.key]
            if slower:
                self._client.cancel(slower)
            return number, future

    def reassign(self) -> list[str]:
        """Submit unfinished tasks to idle workers as well, if there are any.

        Returns the workers that were processing them, `unresponsive` from now on.
        """
        processing = {worker: set(keys) for worker, keys in self._client.processing().items()}
        idle = {worker for worker, keys in processing.items() if not keys}
        idle = idle - self._unresponsive or idle
        holders: set[str] = set()
        for number, attempts in self._futures.items() if idle else ():
            keys = {attempt.key for attempt in attempts}
            holders |= {worker for worker, held in processing.items() if keys & held}
            self._submit(number, idle)
        self._unresponsive |= holders
        return sorted(holders)

    def _submit(self, number: int, workers: set[str]) -> None:
        """Submit one more attempt at a task to one of `workers`, to any where it is empty."""
        attempts = self._futures.setdefault(number, [])
        # The dashboard groups tasks by the part of the key before the first hyphen.
        key = f"{self._function.__name__}-{self._job.folder.name}-{number}-{len(attempts)}"
        future = self._client.submit(
            self._function,
            self._job,
            self._tasks[number],
            key=key,
            pure=False,
            workers=sorted(workers) or None,
        )
        future.add_done_callback(lambda future: self._finished.put((number, future)))
        attempts.append(future)
