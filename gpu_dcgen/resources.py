"""What a machine has left, asked before it is needed: memory, disk, open files, lengths of paths."""

from __future__ import annotations

import os
import resource
import shutil
import time
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import psutil

from .config import DatasetConfig
from .contract.budgets import GB
from .errors import BackendError, InputError, OutputError


class _ControlGroup(NamedTuple):
    """Where Linux says how much memory a container may use, and does."""

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

# Bytes on the disk. Seen: 7 to 11 a sample with its share of history, 6.3 to 7.4 a neighbor, up to
# 6.5 an element of a sequence.
SAMPLE_BYTES, POSITIVE_BYTES, NEIGHBOR_BYTES, ELEMENT_BYTES = 12, 64, 9, 8
OTHER_BYTES = 16 << 20  # vocabularies, manifest, reports
DISK_MARGIN = 1.25  # on the estimate: what compression makes of other shops
PART_FILES = 2  # open per thread: the part that is written, and the one that comes after
OPEN_FILES = 64  # besides parts: libraries, logs, pipes
NAME_BYTES = 255  # of a file's name on common file systems
PATH_BYTES = 4096  # of a path, its end included
SPLIT_FOLDER, LONGEST_NAME = "data/train_dataset.parquet", "item_similarity_matrix.parquet"
STAGING = ".{}.staging"  # what the folder beside it is called while it is written


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


def require_memory(needed: int, what: str) -> None:
    """InputError where `needed` bytes for `what` are more than are available."""
    if needed > (available := available_memory()):
        raise InputError(
            f"{what} need {_size(needed)} of memory to be read, and {_size(available)} are available.\n"
            "Take a bigger machine, or write the table with fewer rows or shorter texts; if it should be small, write it again."
        )


def require_room(
    output: Path,
    n_positives: int,
    config: DatasetConfig,
    *,
    n_neighbors: int = 0,
    n_users: int = 0,
    block_bytes: int = 0,
    there: int = 0,
) -> int:
    """Ask, before samples are written, whether the machine can take them; the estimate of all files in bytes.

    `output` is the folder to be, `n_neighbors` the rows of item_similarity_matrix, `n_users` those of user_sequences,
    `block_bytes` the memory that the blocks in flight take together, and `there` the bytes of files that an earlier build has
    written. OutputError where the disk, the names' lengths or the
    open files do not suffice, BackendError where the memory does not.
    """
    estimate = estimated_bytes(n_positives, config, n_neighbors, n_users)
    _require_disk(output, max(0, estimate - there))
    _require_names(output)
    _require_open_files(config.n_threads)
    if block_bytes > (available := available_memory()):
        raise BackendError(
            f"samples: the blocks in flight need {_size(block_bytes)} of memory, and {_size(available)} are available.\n"
            "Lower resources.batch_size or resources.num_workers, set resources.memory_limit, or take a bigger machine."
        )
    return estimate


def estimated_bytes(
    n_positives: int, config: DatasetConfig, n_neighbors: int = 0, n_users: int = 0
) -> int:
    """Bytes of a dataset's files, by the densest that were seen: rows are alike, whatever the shop."""
    rows = n_positives * config.rows_per_positive * SAMPLE_BYTES
    length = config.sequence_processing.max_sequence_length
    return (
        rows
        + n_positives * POSITIVE_BYTES
        + n_neighbors * NEIGHBOR_BYTES
        + n_users * length * ELEMENT_BYTES
        + OTHER_BYTES
    )


def _require_disk(output: Path, estimate: int) -> None:
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    needed, free = int(estimate * DISK_MARGIN), shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{folder}: {_size(free)} are free on its disk, and the dataset needs about {_size(estimate)} "
            f"({_size(needed)} with a margin of {DISK_MARGIN - 1:.0%}).\nMake room, or choose another OUTPUT."
        )


def _require_names(output: Path) -> None:
    """Staging's name is longer than the output's, and the files' paths are longer still."""
    staging = STAGING.format(output.name)
    if len(os.fsencode(staging)) > NAME_BYTES:
        most = NAME_BYTES - len(STAGING.format(""))
        raise OutputError(
            f"{output.parent}: the output's name has {len(os.fsencode(output.name))} bytes; at most {most} can be used.\n"
            "Choose a shorter name."
        )
    longest = output.absolute().parent / staging / SPLIT_FOLDER / LONGEST_NAME
    if len(os.fsencode(longest)) >= PATH_BYTES:
        raise OutputError(
            f"{output.name}: its files' paths would have {len(os.fsencode(longest))} bytes; fewer than {PATH_BYTES:,} can be.\n"
            "Choose an OUTPUT nearer to the root."
        )


def _require_open_files(n_threads: int) -> None:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = OPEN_FILES + PART_FILES * n_threads
    if most != resource.RLIM_INFINITY and most < needed:
        raise OutputError(
            f"{most} files may be open at the same time, and the build needs about {needed}.\n"
            f"Raise the limit (ulimit -n {needed}), or lower resources.num_workers."
        )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / GB:,.2f} GB" if n_bytes >= GB // 100 else f"{n_bytes:,} bytes"


def existing(path: Path) -> Path:
    """The path itself, or its nearest parent that exists: the disk that it will be written to."""
    path = path.resolve()
    return next(folder for folder in (path, *path.parents) if folder.exists())


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
