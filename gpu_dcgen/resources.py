"""Check free memory, free disk space and the limit on open files; limit the disk rate."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import psutil

from .config import DatasetConfig
from .contract.budgets import GB
from .errors import InputError, OutputError

if sys.platform != "win32":
    import resource


class _ControlGroup(NamedTuple):
    """Files in which Linux reports the memory limit of a container and its use."""

    limit: Path
    usage: Path
    statistics: Path
    cache: str  # the line of `statistics` that counts pages of files, which can be freed


_CGROUP = Path("/sys/fs/cgroup")
CONTROL_GROUPS = (
    _ControlGroup(  # version 2
        _CGROUP / "memory.max",
        _CGROUP / "memory.current",
        _CGROUP / "memory.stat",
        "inactive_file",
    ),
    _ControlGroup(  # version 1
        _CGROUP / "memory/memory.limit_in_bytes",
        _CGROUP / "memory/memory.usage_in_bytes",
        _CGROUP / "memory/memory.stat",
        "total_inactive_file",
    ),
)

# Bytes on disk, at the upper end of what builds have written: 7 to 11 per sample with its share of
# the history, 6.3 to 7.4 per neighbor, up to 6.5 per element of a sequence, 9.5 per candidate.
_SAMPLE_BYTES, _POSITIVE_BYTES, _NEIGHBOR_BYTES, _ELEMENT_BYTES = 12, 64, 9, 8
_CANDIDATE_BYTES = 11
_OTHER_BYTES = 16 << 20  # vocabularies, manifest, reports
_DISK_MARGIN = 1.25  # on the estimate: other shops may compress less well
FILES_PER_THREAD = 2  # the part that is written, and the next one
OTHER_OPEN_FILES = 64  # libraries, logs, pipes


def total_memory() -> int:
    """Return the bytes of memory of the machine, or of its container where that has fewer."""
    limits = [limit for group in CONTROL_GROUPS if (limit := _read_limit(group)) is not None]
    return min([psutil.virtual_memory().total, *limits])


def available_memory() -> int:
    """Return the bytes that this process may still take of its machine and of its container."""
    free = [room for group in CONTROL_GROUPS if (room := _free_memory(group)) is not None]
    return min([psutil.virtual_memory().available, *free])


def _read_limit(group: _ControlGroup) -> int | None:
    """Return a control group's limit in bytes; None where there is no group or no limit."""
    try:
        text = group.limit.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _free_memory(group: _ControlGroup) -> int | None:
    """Return the bytes that a control group leaves; cached pages of files count as free."""
    limit = _read_limit(group)
    if limit is None:
        return None
    try:
        used = int(group.usage.read_text())
        lines = [line.split() for line in group.statistics.read_text().splitlines()]
    except OSError:
        return None
    cached = sum(int(line[1]) for line in lines if line[0] == group.cache)
    return max(0, limit - used + cached)


def require_memory(n_bytes: int, label: str) -> None:
    """Raise InputError unless `n_bytes` of memory are available to read what `label` names."""
    if n_bytes > (available := available_memory()):
        raise InputError(
            f"{label} need {_format_bytes(n_bytes)} of memory to be read, and "
            f"{_format_bytes(available)} are available.\n"
            "Use a bigger machine, or write the table with fewer rows or shorter texts; if it "
            "should be small, write it again."
        )


def free_disk_bytes(path: Path) -> int:
    """Return the free bytes of the disk that holds `path`, or will hold it."""
    return shutil.disk_usage(nearest_existing(path)).free


def nearest_existing(path: Path) -> Path:
    """Return the path itself where it exists, else its nearest parent that does."""
    path = path.resolve()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def estimate_dataset_bytes(
    n_positives: int,
    config: DatasetConfig,
    n_neighbors: int = 0,
    n_users: int = 0,
    n_candidates: int | None = None,
) -> int:
    """Estimate the bytes of a dataset's files, at the upper end of those that were measured.

    `n_neighbors` counts the rows of item_similarity_matrix, `n_users` those of user_sequences,
    `n_candidates` those of hard_candidates if that is written; None for as many as there can be.
    """
    if n_candidates is None:
        n_candidates = n_positives * config.negative_sampling.candidates
    if not config.output.hard_candidates:
        n_candidates = 0
    return (
        n_positives * (config.rows_per_positive * _SAMPLE_BYTES + _POSITIVE_BYTES)
        + n_neighbors * _NEIGHBOR_BYTES
        + n_users * config.sequence_processing.max_sequence_length * _ELEMENT_BYTES
        + n_candidates * _CANDIDATE_BYTES
        + _OTHER_BYTES
    )


def add_disk_margin(n_bytes: int) -> int:
    """Return the free bytes that a disk should have for files of about `n_bytes`."""
    return int(n_bytes * _DISK_MARGIN)


def require_disk_space(folder: Path, n_bytes: int) -> None:
    """Raise OutputError unless `n_bytes` and a margin are free on the disk of `folder`."""
    needed, free = add_disk_margin(n_bytes), free_disk_bytes(folder)
    if needed > free:
        raise OutputError(
            f"{nearest_existing(folder)}: {_format_bytes(free)} are free on its disk, and the "
            f"dataset needs about {_format_bytes(n_bytes)} ({_format_bytes(needed)} with a margin "
            f"of {_DISK_MARGIN - 1:.0%}).\nFree up disk space, or choose another OUTPUT."
        )


def require_open_files(n_threads: int) -> None:
    """Raise OutputError unless `n_threads` writers may open their files at the same time."""
    if sys.platform == "win32":  # a process there has no such limit
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = OTHER_OPEN_FILES + FILES_PER_THREAD * n_threads
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise OutputError(
            f"{limit} files may be open at the same time, and the build needs about {needed}.\n"
            f"Raise the limit (ulimit -n {needed}), or lower resources.num_workers."
        )


def _format_bytes(n_bytes: int) -> str:
    return f"{n_bytes / GB:,.2f} GB" if n_bytes >= GB // 100 else f"{n_bytes:,} bytes"


class DiskRateLimiter:
    """Delays writers so that files grow by `bytes_per_s` on average; None: no limit.

    May be used by any number of threads.
    """

    def __init__(self, bytes_per_s: int | None) -> None:
        self._rate, self._lock = bytes_per_s, Lock()
        self._sizes: dict[Path, int] = {}
        self._start_s = time.monotonic()

    def throttle(self, path: Path) -> None:
        """Sleep, after a write to `path`, until the growth of all files is within the rate."""
        if self._rate is None:
            return
        with self._lock:
            self._sizes[path] = path.stat().st_size
            due_s = sum(self._sizes.values()) / self._rate - (time.monotonic() - self._start_s)
        if due_s > 0:
            time.sleep(due_s)
