"""Write parts block by block with several threads (D16).

Drawing a block of groups costs more than writing it, and the blocks of a part are written in order.
So threads take blocks from a few parts in turn and prepare them. A thread that holds the next block
of its part writes it, and then the following blocks that other threads have prepared. Files that
are closed get their checksums in another thread, so that a device does not wait for the host.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from threading import Event, Lock, Semaphore
from typing import Any

from ..backend.blocks import Block
from ..backend.halving import split_on_out_of_memory
from ..backend.protocol import Backend
from ..config import DatasetConfig
from ..context import BuildContext
from ..contract.schema import make_arrow_schema, make_writer_settings
from ..resources import DiskRateLimiter
from ..samples import SHAPES, StageResults, gather_groups
from ..storage.checksums import sha256_of
from .parts import Part, PartRecord

# Memory of a sample: about forty columns, as codes and as bytes of a file.
_ROW_BYTES = 512
# Copies of a sample's history while it is written: laid out, encoded, compressed.
_SEQUENCE_COPIES = 3
# Blocks in flight: one that a thread prepares, one that waits to be written. Bounds the memory.
_BLOCKS_PER_THREAD = 2


def write_parts(
    parts: list[Part],
    results: StageResults,
    context: BuildContext,
    finish: Callable[[Part], None],
) -> None:
    """Write parts with the backend's threads.

    When the file of a part is closed, the part is handed to `finish`, with its record, by a thread
    of its own.
    """
    n_threads = context.backend.n_threads
    with (
        ThreadPoolExecutor(1, "samples-checksums") as checksums,
        ThreadPoolExecutor(n_threads, "samples") as pool,
    ):
        writer = _SampleWriter(parts, finish, results, context, checksums)
        try:
            threads = [pool.submit(writer.work) for _ in range(n_threads)]
            for thread in threads:
                thread.result()
            for completed in writer.closed:
                completed.result()
        except BaseException:
            writer.stop()
            pool.shutdown()
            # Close all files, also where closing one of them fails.
            with ExitStack() as unfinished:
                for part in parts:
                    unfinished.push(part.files)
                raise


class _SampleWriter:
    """State shared by writer threads: blocks to be taken, room for those in flight, stop flag."""

    def __init__(
        self,
        parts: list[Part],
        finish: Callable[[Part], None],
        results: StageResults,
        context: BuildContext,
        checksums: Executor,
    ) -> None:
        self.closed: list[Future[None]] = []
        self._checksums = checksums
        self._finish, self._results, self._config = finish, results, context.config
        self._backend, self._progress = context.backend, context.progress
        n_threads = self._backend.n_threads
        self._blocks = _interleave_blocks(
            parts, n_threads, _block_size(self._config, self._backend)
        )
        self._taking, self._stopped = Lock(), Event()
        self._disk = DiskRateLimiter(self._config.resources.max_disk_rate)
        self._room = Semaphore(_BLOCKS_PER_THREAD * n_threads)

    def stop(self) -> None:
        """Let every thread end after its block, also those that wait for room."""
        self._stopped.set()
        self._room.release(self._backend.n_threads)

    def work(self) -> None:
        """Take and write blocks until none is left: the work of one thread."""
        backend = self._backend.single_threaded()
        try:
            while (block := self._next_block()) is not None:
                part, rows = block
                split = self._results.plan.positives[part.split].split
                prepared = split_on_out_of_memory(
                    partial(self._prepare, part, backend),
                    rows.start,
                    rows.stop,
                    f"samples of {split}, positives",
                    self._backend,
                )
                self._hand_over(part, rows.start, prepared)
        except BaseException:
            self.stop()
            raise

    def _next_block(self) -> tuple[Part, slice] | None:
        # Wait for room first, so that the next block of a part never waits for it.
        self._room.acquire()
        with self._taking:
            return None if self._stopped.is_set() else next(self._blocks, None)

    def _prepare(
        self, part: Part, backend: Backend, first: int, last: int
    ) -> tuple[Block, PartRecord]:
        """Lay out the rows of positives first..last-1; digest, check and count them."""
        results, config, record = self._results, self._config, PartRecord()
        start_s = time.perf_counter()
        group = gather_groups(
            results.plan.positives[part.split], slice(first, last), results, config, backend
        )
        drawn_s = time.perf_counter()
        block = SHAPES[config.output.shape](group, results, config, backend)
        laid_out_s = time.perf_counter()
        record.metrics.add(group, results, config, backend)
        checked_s = time.perf_counter()
        record.digest.add(block, backend)
        record.drawing_s, record.checking_s = drawn_s - start_s, checked_s - laid_out_s
        record.working_s = time.perf_counter() - start_s
        return block, record

    def _hand_over(self, part: Part, first: int, blocks: list[tuple[Block, PartRecord]]) -> None:
        """Leave blocks with their part.

        If no other thread writes that part, write for as long as its next blocks are ready.
        """
        with part.lock:
            part.ready[first] = blocks
            if part.busy:
                return
            part.busy = True
        while True:
            with part.lock:
                following = part.ready.pop(part.first + part.written, None)
                if following is None:
                    part.busy = False
                    return
            self._write(part, following)

    def _write(self, part: Part, blocks: list[tuple[Block, PartRecord]]) -> None:
        if part.writer is None:
            part.writer = part.files.enter_context(self._open(part))
        for block, record in blocks:
            start_s = time.perf_counter()
            part.writer.write(block)
            record.working_s += time.perf_counter() - start_s
            self._disk.throttle(part.path)
            part.record.add(record)
            part.written += block.n_rows // self._config.rows_per_positive
            self._progress.advance(block.n_rows)
        if part.written == part.n_groups:
            part.files.close()
            part.writer = None
            self.closed.append(self._checksums.submit(self._complete, part))
        self._room.release()

    def _complete(self, part: Part) -> None:
        """Add the checksum of a closed file to its part's record, and hand the part over."""
        try:
            part.record.file_bytes = part.path.stat().st_size
            part.record.sha256 = sha256_of(part.path)
            self._finish(part)
        except BaseException:
            self.stop()
            raise

    def _open(self, part: Part) -> Any:
        output = self._config.output
        name = f"{self._results.plan.positives[part.split].split}_dataset"
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
        # The file may be a link to one of the dataset that is to be replaced.
        part.path.unlink(missing_ok=True)
        return self._backend.open_part_writer(part.path, schema, settings)


def _block_size(config: DatasetConfig, backend: Backend) -> int:
    """Return the positives of a block, by the memory that one needs until it is written."""
    n_rows = 1 + config.negatives_per_positive
    history = config.sequence_processing.max_sequence_length
    entry_bytes = n_rows * (_ROW_BYTES + 4 * history * _SEQUENCE_COPIES)
    return backend.choose_block_size(
        config.resources.batch_size, entry_bytes * _BLOCKS_PER_THREAD * backend.n_threads
    )


def _interleave_blocks(parts: list[Part], n_open: int, size: int) -> Iterator[tuple[Part, slice]]:
    """Yield the blocks of all parts: each part's in order, `n_open` parts side by side."""
    waiting = iter([(part, iter(range(part.first, part.last, size))) for part in parts])
    side_by_side = deque(next(waiting) for _ in range(min(n_open, len(parts))))
    while side_by_side:
        part, starts = side_by_side.popleft()
        start = next(starts, None)
        if start is not None:
            side_by_side.append((part, starts))
            yield part, slice(start, min(part.last, start + size))
        elif (following := next(waiting, None)) is not None:
            side_by_side.append(following)
