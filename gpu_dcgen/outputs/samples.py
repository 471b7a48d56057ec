"""Stage 10a: the samples' files: parts of a fixed number of groups, made block by block by many threads (D16).

Drawing a block of groups costs more than writing it, and a part is written by one writer in order. So threads take
blocks from a few parts in turn, prepare them, and whoever holds the next block of a part writes it, and those that
others have left ready behind it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Lock, Semaphore
from typing import Any, Protocol

from ..backend.blocks import Block
from ..backend.halving import split_on_out_of_memory
from ..backend.protocol import Backend
from ..config import DatasetConfig
from ..contract.manifest import ClusterSummary
from ..contract.schema import make_arrow_schema, make_writer_settings
from ..digest import ContentDigest
from ..errors import GateError
from ..quality_validator.metrics import QualityMetrics
from ..resources import DiskRateLimiter
from ..samples import SHAPES, StageResults, gather_groups
from ..storage.checkpoints import Checkpoints
from ..storage.checksums import sha256_of

_ROW_BYTES = 512  # of a sample: some forty columns, as codes and as what is written of them
_SEQUENCE_COPIES = 3  # of a sample's history while it is written: laid out, encoded, compressed
# positives of a split that go to one file, unless parts of another size are asked for
_ONE_FILE = 65_536
_PART = 32_768  # positives a part else: what a build that dies has to do again, twice at most
_BLOCKS_A_THREAD = 2  # in flight: one it prepares, one that waits for its turn; bounds the memory


@dataclass
class PartRecord:
    """What is known of a part when its file is closed."""

    digest: ContentDigest = field(default_factory=ContentDigest)
    metrics: QualityMetrics = field(default_factory=QualityMetrics)
    drawing_s: float = 0.0  # of the threads' time: drawing negatives
    checking_s: float = 0.0  # proving and counting
    working_s: float = 0.0  # all of it, with laying out, digesting and writing rows
    file_bytes: int = 0
    sha256: str = ""  # of the file

    def add(self, other: "PartRecord") -> None:
        """Add what is known of other rows; the file stays this one's."""
        self.digest.merge(other.digest)
        self.metrics.merge(other.metrics)
        self.drawing_s += other.drawing_s
        self.checking_s += other.checking_s
        self.working_s += other.working_s


@dataclass
class Part:
    """Positives first..last-1 of one split in one file, written in order by whichever thread holds the next block."""

    split: int
    first: int
    last: int
    path: Path
    name: str
    written: int = 0  # groups
    record: PartRecord = field(default_factory=PartRecord)
    # Prepared blocks by their first positive, halves in order, each with its share of the record.
    ready: dict[int, list[tuple[Block, PartRecord]]] = field(default_factory=dict)
    busy: bool = False  # whether a thread is writing; `lock` guards this and `ready`
    lock: Lock = field(default_factory=Lock)
    files: ExitStack = field(default_factory=ExitStack)  # holds the open writer
    writer: Any = None


@dataclass(frozen=True)
class Written:
    """What was written of the samples, all parts together."""

    records: list[PartRecord]  # by split, of all its parts; no file's
    metrics: QualityMetrics
    drawing_share: (
        float  # of the threads' time, as against checking, laying out, digesting and writing rows
    )
    checking_share: float
    seconds_before: float  # that another process has spent on parts that were there
    sha256: dict[Path, str]  # of each part's file


class Workers(Protocol):
    """Processes of this machine or of others (`cluster`). What they make is what this process would have made."""

    def find_neighbors(
        self, sides: Any, blocks: list[tuple[int, int]], progress: Any
    ) -> list[tuple[Any, ...]]:
        """`similarity_computer.exact.find_neighbors_of_block` of each block of items (first, last), in the blocks' order."""

    def write_parts(
        self,
        parts: list[Part],
        results: StageResults,
        config: DatasetConfig,
        finish: Callable[[Part], None],
        progress: Any,
    ) -> None:
        """`write_parts`: write each part's file, and hand the part, with its record, to `finish`."""

    def manifest_entry(self) -> ClusterSummary:
        """Describe the cluster for the manifest."""


def lay_out_parts(folder: Path, results: StageResults, config: DatasetConfig) -> list[Part]:
    """The parts of all splits: a plain file where one part holds the split, else a folder of numbered ones."""
    parts = []
    for k, positives in enumerate(results.plan.positives):
        n, size = len(positives), config.output.groups_per_part
        if size is None:
            size = n if n <= _ONE_FILE else _PART
        path = folder / f"{positives.split}_dataset.parquet"
        if n <= size:
            parts.append(Part(k, 0, n, path, f"{positives.split}-00000"))
            continue
        path.mkdir(exist_ok=True)
        for number, first in enumerate(range(0, n, size)):
            file = path / f"part-{number:05d}.parquet"
            parts.append(
                Part(k, first, min(n, first + size), file, f"{positives.split}-{number:05d}")
            )
    return parts


def write_samples(
    parts: list[Part],
    results: StageResults,
    config: DatasetConfig,
    backend: Backend,
    progress: Any,
    checkpoints: Checkpoints | None = None,
    workers: Workers | None = None,
    taken: Mapping[int, tuple[PartRecord, dict[Path, str]]] | None = None,
) -> Written:
    """Write all parts, with `workers` or this process's threads, but for those that are there and on record in `kept`.

    Splits in `taken` are there as a whole: what is known of them, and the SHA-256 of their files. A block is a pure function of
    the stages' results, so neither who makes it nor its size shows in the files' content.
    """
    total, taken = _Total(len(results.plan.positives), checkpoints), taken or {}
    for split, (record, sha256) in taken.items():
        total.take_over(split, record, sha256)
        progress.advance(len(results.plan.positives[split]) * config.rows_per_positive)
    parts = [part for part in parts if part.split not in taken]
    before = [] if checkpoints is None else _restored(parts, checkpoints, backend.n_threads)
    for part in before:
        total.take(part)
        progress.advance((part.last - part.first) * config.rows_per_positive)
    seconds_before = total.spent().working_s / backend.n_threads
    missing = [part for part in parts if part not in before]
    if workers is not None:
        workers.write_parts(missing, results, config, total.finish, progress)
    else:
        write_parts(missing, results, config, total.finish, progress, backend)
    spent = total.spent()
    working_s = max(spent.working_s, 1e-9)
    shares = spent.drawing_s / working_s, spent.checking_s / working_s
    return Written(total.records, spent.metrics, *shares, seconds_before, total.sha256)


def write_parts(
    parts: list[Part],
    results: StageResults,
    config: DatasetConfig,
    finish: Callable[[Part], None],
    progress: Any,
    backend: Backend,
) -> None:
    """Write parts with `n_threads` threads; `finish` is handed each one whose file is closed, with its record."""
    crew = _SampleWriter(parts, finish, results, config, backend, progress)
    with ThreadPoolExecutor(backend.n_threads, "samples") as pool:
        try:
            threads = [pool.submit(crew.work) for _ in range(backend.n_threads)]
            for thread in threads:
                thread.result()
        except BaseException:
            crew.stop()
            pool.shutdown()
            with ExitStack() as unfinished:  # every one of them, whatever goes wrong with another
                for part in parts:
                    unfinished.push(part.files)
                raise


def _restored(parts: list[Part], checkpoints: Checkpoints, n_threads: int) -> list[Part]:
    """The parts that are on record, with a file that is as it was written; each with its record."""

    def restore(part: Part) -> bool:
        record = checkpoints.load(part.name)
        try:
            same = (
                record is not None
                and part.path.stat().st_size == record.file_bytes
                and sha256_of(part.path) == record.sha256
            )
        except OSError:  # not there, or not to be read: to be written anew
            return False
        if same:
            part.record = record
        return same

    with ThreadPoolExecutor(n_threads, "restore") as pool:
        return [part for part, there in zip(parts, pool.map(restore, parts), strict=True) if there]


class _Total:
    """What all finished parts come to; each one's record is kept, and forgotten here but for its share."""

    def __init__(self, n_splits: int, checkpoints: Checkpoints | None) -> None:
        self.records = [PartRecord() for _ in range(n_splits)]
        self.sha256: dict[Path, str] = {}
        self._kept, self._lock = checkpoints, Lock()

    def finish(self, part: Part) -> None:
        """Take a part that is written, and keep its record."""
        with self._lock:
            if self._kept is not None:
                self._kept.save(part.name, part.record)
        self.take(part)

    def take(self, part: Part) -> None:
        self.take_over(part.split, part.record, {part.path: part.record.sha256})
        part.record = PartRecord()

    def take_over(self, split: int, record: PartRecord, sha256: dict[Path, str]) -> None:
        with self._lock:
            self.records[split].add(record)
            self.sha256.update(sha256)

    def spent(self) -> PartRecord:
        """All splits together; the digest is nobody's."""
        total = PartRecord()
        for record in self.records:
            total.add(record)
        return total


def require_rows(parts: list[Part], config: DatasetConfig) -> None:
    """GateError unless each part's footer, read from disk, counts the rows that its positives come to."""
    from pyarrow.parquet import read_metadata

    for part in parts:
        expected, found = (
            (part.last - part.first) * config.rows_per_positive,
            read_metadata(part.path).num_rows,
        )
        if found != expected:
            raise GateError(
                f"critical gate failed, nothing was published: {part.path} has {found} rows, expected {expected}.\n"
                "This is a defect of gpu-dcgen, not of your data: please report it."
            )


class _SampleWriter:
    """What the threads share: the blocks still to be taken, room for those in flight, and the word to stop."""

    def __init__(
        self,
        parts: list[Part],
        finish: Callable[[Part], None],
        results: StageResults,
        config: DatasetConfig,
        backend: Backend,
        progress: Any,
    ) -> None:
        self._finish, self._have, self._config, self._backend, self._progress = (
            finish,
            results,
            config,
            backend,
            progress,
        )
        self._tasks = _in_turn(parts, backend.n_threads, _block_size(config, backend))
        self._taking, self._stopped = Lock(), Event()
        self._disk = DiskRateLimiter(config.resources.max_disk_rate)
        self._room = Semaphore(_BLOCKS_A_THREAD * backend.n_threads)

    def stop(self) -> None:
        """Let every thread end after its block, also those that wait for room."""
        self._stopped.set()
        self._room.release(self._backend.n_threads)

    def work(self) -> None:
        """One thread's turn: take blocks until none is left."""
        backend = self._backend.single_threaded()
        try:
            while (task := self._take()) is not None:
                part, rows = task
                split = self._have.plan.positives[part.split].split
                make = partial(self._make, part, backend)
                made = split_on_out_of_memory(
                    make, rows.start, rows.stop, f"samples of {split}, positives", self._backend
                )
                self._hand_over(part, rows.start, made)
        except BaseException:
            self.stop()
            raise

    def _make(
        self, part: Part, backend: Backend, first: int, last: int
    ) -> tuple[Block, PartRecord]:
        """The rows of some positives, with their digest, proved and counted."""
        results, config, record = self._have, self._config, PartRecord()
        began = time.perf_counter()
        group = gather_groups(
            results.plan.positives[part.split], slice(first, last), results, config, backend
        )
        drawn = time.perf_counter()
        block = SHAPES[config.output.shape](group, results, config, backend)
        laid_out = time.perf_counter()
        record.metrics.add(group, results, config, backend)
        counted = time.perf_counter()
        record.digest.add(block, backend)
        record.drawing_s, record.checking_s = drawn - began, counted - laid_out
        record.working_s = time.perf_counter() - began
        return block, record

    def _take(self) -> tuple[Part, slice] | None:
        # before the block is taken, so that the next block of a part never waits for room
        self._room.acquire()
        with self._taking:
            return None if self._stopped.is_set() else next(self._tasks, None)

    def _hand_over(self, part: Part, first: int, blocks: list[tuple[Block, PartRecord]]) -> None:
        """Leave the blocks with their part; if nobody writes there, write on for as long as the next ones are ready."""
        with part.lock:
            part.ready[first] = blocks
            if part.busy:
                return
            part.busy = True
        while True:
            with part.lock:
                blocks = part.ready.pop(part.first + part.written, None)
                if blocks is None:
                    part.busy = False
                    return
            self._write(part, blocks)

    def _write(self, part: Part, blocks: list[tuple[Block, PartRecord]]) -> None:
        if part.writer is None:
            part.writer = part.files.enter_context(self._open(part))
        for block, record in blocks:
            began = time.perf_counter()
            part.writer.write(block)
            record.working_s += time.perf_counter() - began
            self._disk.throttle(part.path)
            part.record.add(record)
            part.written += block.n_rows // self._config.rows_per_positive
            self._progress.advance(block.n_rows)
        if part.first + part.written == part.last:
            part.files.close()
            part.writer = None
            part.record.file_bytes, part.record.sha256 = (
                part.path.stat().st_size,
                sha256_of(part.path),
            )
            self._finish(part)
        self._room.release()

    def _open(self, part: Part) -> Any:
        output = self._config.output
        name = f"{self._have.plan.positives[part.split].split}_dataset"
        schema = make_arrow_schema(
            name, output.extra_columns, output.shape, self._config.negatives_per_positive
        )
        rows = output.groups_per_row_group * self._config.rows_per_positive
        settings = make_writer_settings(
            name,
            compression_level=output.compression_level,
            rows_per_row_group=rows,
            shape=output.shape,
        )
        part.path.unlink(
            missing_ok=True
        )  # what stands there may be a link to a file of the dataset that is to be replaced
        return self._backend.open_part_writer(part.path, schema, settings)


def _block_size(config: DatasetConfig, backend: Backend) -> int:
    """Positives a block, by about how much memory one takes from drawing its negatives to its rows in a file."""
    rows, history = (
        1 + config.negatives_per_positive,
        config.sequence_processing.max_sequence_length,
    )
    entry_bytes = rows * (_ROW_BYTES + 4 * history * _SEQUENCE_COPIES)
    return backend.choose_block_size(
        config.resources.batch_size, entry_bytes * _BLOCKS_A_THREAD * backend.n_threads
    )


def _in_turn(parts: list[Part], n_open: int, size: int) -> Iterator[tuple[Part, slice]]:
    """The blocks of all parts: each part's in order, `n_open` parts side by side."""
    waiting = iter([(part, iter(range(part.first, part.last, size))) for part in parts])
    side_by_side = deque(next(waiting) for _ in range(min(n_open, len(parts))))
    while side_by_side:
        part, starts = side_by_side.popleft()
        start = next(starts, None)
        if start is None:
            side_by_side.extend(
                [following] if (following := next(waiting, None)) is not None else []
            )
        else:
            side_by_side.append((part, starts))
            yield part, slice(start, min(part.last, start + size))
