"""Measure the memory that only this process can free, and hand back what is not used."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pyarrow as pa

_INTERVAL_S = 0.05  # between two looks
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of glibc
_TRIM_BYTES = 1 << 27  # unused at the end of a heap before glibc returns them
_HEAP_BYTES = 1 << 25  # the largest array that glibc can take from a heap
_DEFAULT_BYTES = 1 << 17  # of both thresholds


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


@contextmanager
def retain_freed_memory() -> Iterator[None]:
    """Let the C library reuse freed memory, instead of returning it to the system in between.

    A block's arrays take a few MB each; otherwise the system clears their pages for every block.
    glibc alone has these options. Unused memory is returned in the end.
    """
    set_option = _find_c_function("mallopt")
    if set_option is None:
        yield
        return
    set_option(_TRIM_THRESHOLD, _TRIM_BYTES)
    set_option(_MMAP_THRESHOLD, _HEAP_BYTES)
    try:
        yield
    finally:
        set_option(_TRIM_THRESHOLD, _DEFAULT_BYTES)
        set_option(_MMAP_THRESHOLD, _DEFAULT_BYTES)
        release_unused()


def release_unused() -> None:
    """Hand memory that Arrow and the C library hold for later back to the system."""
    pa.default_memory_pool().release_unused()
    if trim := _find_c_function("malloc_trim"):
        trim(0)


def _find_c_function(name: str) -> Any:
    """Return a function of glibc, None in another C library."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
