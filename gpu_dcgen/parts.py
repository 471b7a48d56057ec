"""Stage 10a: the samples' files: parts of a fixed number of groups, made block by block by many threads (D16).

Drawing a block of groups costs more than writing it, and a part is written by one writer in order. So threads take
blocks from a few parts in turn, prepare them, and whoever holds the next block of a part writes it, and those that
others have left ready behind it.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Semaphore
from typing import Any

from .backend import Backend
from .blocks import Block
from .config import DatasetConfig
from .contract import arrow_schema, writer_settings
from .digest import ContentDigest
from .disk_rate import DiskRate
from .errors import GateError
from .halving import in_halves
from .quality_validator import QualityMetrics
from .samples import SHAPES, Ingredients, gather_groups
from .splits import Positives

_ROW_BYTES = 512  # of a sample: some forty columns, as codes and as what is written of them
_SEQUENCE_COPIES = 3  # of a sample's history while it is written: laid out, encoded, compressed
_BLOCKS_A_THREAD = 2  # in flight: one it prepares, one that waits for its turn; bounds the memory


@dataclass
class Part:
    """Positives first..last-1 of one split in one file, written in order by whichever thread holds the next block."""

    split: int
    first: int
    last: int
    path: Path
    written: int = 0  # groups
    ready: dict[int, list[Block]] = field(default_factory=dict)  # prepared blocks by their first positive, halves in order
    busy: bool = False  # whether a thread is writing; `lock` guards this and `ready`
    lock: Lock = field(default_factory=Lock)
    files: ExitStack = field(default_factory=ExitStack)  # holds the open writer
    writer: Any = None


def lay_out_parts(folder: Path, have: Ingredients, config: DatasetConfig) -> list[Part]:
    """The parts of all splits: a plain file where one part holds the split, else a folder of numbered ones."""
    parts, size = [], config.output.groups_per_part
    for k, positives in enumerate(have.plan.positives):
        path = folder / f"{positives.split}_dataset.parquet"
        if len(positives) <= size:
            parts.append(Part(k, 0, len(positives), path))
            continue
        path.mkdir()
        for number, first in enumerate(range(0, len(positives), size)):
            parts.append(Part(k, first, min(len(positives), first + size), path / f"part-{number:05d}.parquet"))
    return parts


def write_samples(
    parts: list[Part], have: Ingredients, config: DatasetConfig, backend: Backend, progress: Any
) -> tuple[list[ContentDigest], QualityMetrics, tuple[float, float]]:
    """Write all parts with `n_threads` threads; digests per split, metrics of all groups, and the shares of drawing and checking.

    Those shares are of the threads' time, as against laying out, digesting and writing rows.

    A block is a pure function of the stages' results, so neither threads nor block sizes show in the files' content.
    """
    crew = _Crew(parts, have, config, backend, progress)
    digests, metrics = [ContentDigest() for _ in have.plan.positives], QualityMetrics()
    with ThreadPoolExecutor(backend.n_threads, "samples") as pool:
        workers = [pool.submit(crew.work) for _ in range(backend.n_threads)]
        try:
            for worker in workers:
                part_digests, part_metrics = worker.result()
                for mine, theirs in zip(digests, part_digests, strict=True):
                    mine.merge(theirs)
                metrics.merge(part_metrics)
        except BaseException:
            crew.stop()
            pool.shutdown()
            for part in parts:
                part.files.__exit__(*sys.exc_info())
            raise
    worked_s = max(crew.working_s, 1e-9)
    return digests, metrics, (crew.drawing_s / worked_s, crew.checking_s / worked_s)


def require_rows(parts: list[Part], config: DatasetConfig) -> None:
    """GateError unless each part's footer, read from disk, counts the rows that its positives come to."""
    from pyarrow.parquet import read_metadata

    for part in parts:
        expected, found = (part.last - part.first) * config.rows_per_positive, read_metadata(part.path).num_rows
        if found != expected:
            raise GateError(
                f"critical gate failed, nothing was published: {part.path} has {found} rows, expected {expected}.\n"
                "This is a defect of gpu-dcgen, not of your data: please report it."
            )


class _Crew:
    """What the threads share: the blocks still to be taken, room for those in flight, and the word to stop."""

    def __init__(self, parts: list[Part], have: Ingredients, config: DatasetConfig, backend: Backend, progress: Any) -> None:
        self._have, self._config, self._backend, self._progress = have, config, backend, progress
        self._tasks = _in_turn(parts, backend.n_threads, _block_size(config, backend))
        # Of all threads; a lost update between two of them would not matter.
        self.drawing_s = self.checking_s = self.working_s = 0.0
        self._taking, self._stopped = Lock(), Event()
        self._disk = DiskRate(config.resources.max_disk_rate)
        self._room = Semaphore(_BLOCKS_A_THREAD * backend.n_threads)

    def stop(self) -> None:
        """Let every thread end after its block, also those that wait for room."""
        self._stopped.set()
        self._room.release(self._backend.n_threads)

    def work(self) -> tuple[list[ContentDigest], QualityMetrics]:
        """One thread's turn: take blocks until none is left; digests per split and metrics of those it made."""
        have, config, machine = self._have, self._config, self._backend.single()
        digests, metrics = [ContentDigest() for _ in have.plan.positives], QualityMetrics()
        try:
            while (task := self._take()) is not None:
                part, rows = task
                began = time.perf_counter()
                positives = have.plan.positives[part.split]

                def make(first: int, last: int, positives: Positives = positives) -> tuple[Block, ContentDigest, QualityMetrics]:
                    began = time.perf_counter()
                    group = gather_groups(positives, slice(first, last), have, config, machine)
                    self.drawing_s += time.perf_counter() - began
                    block = SHAPES[config.output.shape](group, have, config, machine)
                    digest, counted = ContentDigest(), QualityMetrics()
                    began = time.perf_counter()
                    counted.add(group, have, config, machine)
                    self.checking_s += time.perf_counter() - began
                    digest.add(block, machine)
                    return block, digest, counted

                made = in_halves(make, rows.start, rows.stop, f"samples of {positives.split}, positives", self._backend)
                for _, digest, counted in made:
                    digests[part.split].merge(digest)
                    metrics.merge(counted)
                self._hand_over(part, rows.start, [block for block, _, _ in made])
                self.working_s += time.perf_counter() - began
        except BaseException:
            self.stop()
            raise
        return digests, metrics

    def _take(self) -> tuple[Part, slice] | None:
        self._room.acquire()  # before the block is taken, so that the next block of a part never waits for room
        with self._taking:
            return None if self._stopped.is_set() else next(self._tasks, None)

    def _hand_over(self, part: Part, first: int, blocks: list[Block]) -> None:
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

    def _write(self, part: Part, blocks: list[Block]) -> None:
        if part.writer is None:
            part.writer = part.files.enter_context(self._open(part))
        for block in blocks:
            part.writer.write(block)
            self._disk.wrote(part.path)
            part.written += block.n_rows // self._config.rows_per_positive
            self._progress.advance(block.n_rows)
        if part.first + part.written == part.last:
            part.files.close()
        self._room.release()

    def _open(self, part: Part) -> Any:
        output = self._config.output
        name = f"{self._have.plan.positives[part.split].split}_dataset"
        schema = arrow_schema(name, output.extra_columns, output.shape, self._config.negatives_per_positive)
        rows = output.groups_per_row_group * self._config.rows_per_positive
        settings = writer_settings(name, compression_level=output.compression_level, rows_per_row_group=rows, shape=output.shape)
        return self._backend.part_writer(part.path, schema, settings)


def _block_size(config: DatasetConfig, backend: Backend) -> int:
    """Positives a block, by about how much memory one takes from drawing its negatives to its rows in a file."""
    rows, history = 1 + config.negatives_per_positive, config.sequence_processing.max_sequence_length
    entry_bytes = rows * (_ROW_BYTES + 4 * history * _SEQUENCE_COPIES)
    return backend.block_size(config.resources.batch_size, entry_bytes * _BLOCKS_A_THREAD * backend.n_threads)


def _in_turn(parts: list[Part], n_open: int, size: int) -> Iterator[tuple[Part, slice]]:
    """The blocks of all parts: each part's in order, `n_open` parts side by side."""
    waiting = iter([(part, iter(range(part.first, part.last, size))) for part in parts])
    side_by_side = deque(next(waiting) for _ in range(min(n_open, len(parts))))
    while side_by_side:
        part, starts = side_by_side.popleft()
        start = next(starts, None)
        if start is None:
            side_by_side.extend([following] if (following := next(waiting, None)) is not None else [])
        else:
            side_by_side.append((part, starts))
            yield part, slice(start, min(part.last, start + size))
