"""Tasks that are out at a cluster's workers, each in one attempt or more: the first answer counts."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any


class Attempts:
    """One task for many orders, handed out at once; `slow` are workers that get none, kept by the caller."""

    def __init__(
        self, client: Any, task: Callable[..., Any], job: Any, orders: list[tuple], slow: set[str]
    ) -> None:
        self._client, self._task, self._job, self._orders, self._slow = (
            client,
            task,
            job,
            orders,
            slow,
        )
        self._answers: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._out: dict[int, list[Any]] = {}  # by the order's number: a future an attempt
        workers = set(client.nthreads()) - slow if slow else set()
        for number in range(len(orders)):
            self._submit(number, workers)

    def __len__(self) -> int:
        """Orders without an answer."""
        return len(self._out)

    def take(self, timeout_s: float) -> tuple[int, Any]:
        """The next order that is answered, and the future that has the answer; queue.Empty when none comes in time."""
        while True:
            number, future = self._answers.get(timeout=timeout_s)
            attempts = self._out.pop(number, None)
            if attempts is None:  # another attempt was first
                continue
            others = [other for other in attempts if other.key != future.key]
            if others:
                self._client.cancel(others)
            return number, future

    def repeat(self) -> list[str]:
        """Give what is out to idle workers as well, if there are any; returns who has been holding it, `slow` from now on."""
        processing = {worker: set(keys) for worker, keys in self._client.processing().items()}
        idle = {worker for worker, keys in processing.items() if not keys}
        idle = idle - self._slow or idle
        holders: set[str] = set()
        for number, attempts in self._out.items() if idle else ():
            keys = {attempt.key for attempt in attempts}
            holders |= {worker for worker, held in processing.items() if keys & held}
            self._submit(number, idle)
        self._slow |= holders
        return sorted(holders)

    def _submit(self, number: int, workers: set[str]) -> None:
        """Hand out one more attempt at an order, to one of `workers`: to any if none is named."""
        attempts = self._out.setdefault(number, [])
        # By its first word the dashboard knows what a task is.
        name = f"{self._task.__name__}-{self._job.folder.name}-{number}-{len(attempts)}"
        future = self._client.submit(
            self._task,
            self._job,
            *self._orders[number],
            key=name,
            pure=False,
            workers=sorted(workers) or None,
        )
        future.add_done_callback(lambda future: self._answers.put((number, future)))
        attempts.append(future)
