"""A bound on how fast a build writes, for disks that others need too (contract: max_disk_io)."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Lock


class DiskRate:
    """Holds writers back so that files grow by `bytes_per_s` on the average; None: no bound. For any number of threads."""

    def __init__(self, bytes_per_s: int | None) -> None:
        self._rate, self._lock = bytes_per_s, Lock()
        self._sizes: dict[Path, int] = {}
        self._began = time.monotonic()

    def wrote(self, path: Path) -> None:
        """Called after each write to `path`: waits until what all files have grown by is due."""
        if self._rate is None:
            return
        with self._lock:
            self._sizes[path] = path.stat().st_size
            due = sum(self._sizes.values()) / self._rate - (time.monotonic() - self._began)
        if due > 0:
            time.sleep(due)
