"""Measure the memory that only this process can free, and hand back what is not used."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pyarrow as pa

_INTERVAL_S = 0.05  # between two looks


class AnonymousMemory:
    """Resident memory of this process without pages of files, which the kernel can write back."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._ended = threading.Event()
        self.peak_bytes = 0  # most of it while it was watched

    def measure(self) -> int:
        """Return the bytes now."""
        memory = self._process.memory_info()
        # Pages of files and shared memory; not counted by every system.
        return int(memory.rss - getattr(memory, "shared", 0))

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Note the peak while the context lasts, from a thread."""
        self._ended.clear()
        self.peak_bytes = self.measure()
        watcher = threading.Thread(target=self._watch, name="memory", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._ended.set()
            watcher.join()

    def _watch(self) -> None:
        while not self._ended.wait(_INTERVAL_S):
            self.peak_bytes = max(self.peak_bytes, self.measure())


def release_unused() -> None:
    """Hand memory that Arrow and the C library hold for later back to the system."""
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)  # glibc alone has it
