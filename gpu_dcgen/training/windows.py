"""Decode the windows of an epoch in advance, with threads; at most two are in memory."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch

from .groups import CandidateGroups
from .hard_candidates import HardNegativeDrawer
from .negatives import NegativeChoice, choose_negatives
from .order import EpochOrder
from .records import RecordBuffer, Records, concatenate
from .row_groups import RowGroupReader


@dataclass(frozen=True)
class DecodedWindow:
    """A window of an epoch in memory."""

    records: Records
    order: np.ndarray | None  # (n,) int64 of the records; None for their own order

    def select(self, rows: slice) -> Records:
        """Return the groups at these places of the window."""
        return self.records.select(rows if self.order is None else self.order[rows])


@dataclass(frozen=True)
class WindowDecoder:
    """Decodes the windows of one epoch."""

    reader: RowGroupReader
    order: EpochOrder
    drawer: HardNegativeDrawer | None  # of other hard negatives than those that are stored
    choice: NegativeChoice
    is_distinct: bool  # whether an item is a positive of a batch only once, where possible
    device: torch.device | str | None  # for the decoded records; None for that of the reader

    def decode(self, window: int, executor: ThreadPoolExecutor | None) -> DecodedWindow:
        """Decode the row groups of a window, in the threads of `executor` or in this one."""
        members = self.order.windows[window]
        sizes = [self.reader.files.row_groups[number].n_groups for number in members]
        buffer = RecordBuffer(sum(sizes))
        tasks = zip(members, accumulate(sizes, initial=0), strict=False)
        if executor is None:
            for number, first in tasks:
                self._decode_row_group(number, buffer, first)
        else:
            futures = [
                executor.submit(self._decode_row_group, number, buffer, first)
                for number, first in tasks
            ]
            for future in futures:
                future.result()
        return self._finish(window, buffer.get_records())

    def _decode_row_group(self, number: int, buffer: RecordBuffer, first: int) -> None:
        """Write a row group, with the epoch's negatives, to its place in the window."""
        files = self.reader.files
        groups = self.reader.read(files.row_groups[number])
        seed, epoch = self.order.seed, self.order.epoch
        if self.drawer is not None:
            groups = self.drawer.replace(groups, seed=seed, epoch=epoch)
        buffer.write(choose_negatives(groups, files, self.choice, seed=seed, epoch=epoch), first)

    def _finish(self, window: int, records: Records) -> DecodedWindow:
        """Order a decoded window and move it to the device."""
        items = None
        if self.is_distinct:
            items = records.to_groups().item_features["item_index"][:, 0].cpu().numpy()
        order = self.order.order_window(window, items)
        return DecodedWindow(records if self.device is None else records.to(self.device), order)


class WindowReader:
    """Reads an epoch's groups in order, and decodes the next window meanwhile.

    A context manager: leaving it ends the threads.
    """

    def __init__(self, decoder: WindowDecoder, first: int, num_workers: int) -> None:
        """Begin at the window `first`; with 0 workers, windows are decoded when they are needed."""
        self._decoder, self._starts = decoder, decoder.order.starts
        self._number = first - 1  # of the current window
        self._window: DecodedWindow | None = None
        self._next: Future[DecodedWindow] | None = None
        self._decoders: ThreadPoolExecutor | None = None
        self._assembler: ThreadPoolExecutor | None = None
        if num_workers:
            # The assembler waits for decoders, so it must not take one of their threads.
            self._decoders = ThreadPoolExecutor(num_workers, "gpu-dcgen-decode")
            self._assembler = ThreadPoolExecutor(1, "gpu-dcgen-window")

    def __enter__(self) -> WindowReader:
        return self

    def __exit__(self, *_: object) -> None:
        # In this order: the assembler waits for what the decoders have begun.
        for executor in (self._decoders, self._assembler):
            if executor is not None:
                executor.shutdown(cancel_futures=True)

    def read(self, rows: slice) -> CandidateGroups:
        """Return the groups at positions `rows` of the epoch, never before those read last."""
        pieces = []
        position = rows.start
        while True:
            while self._window is None or position >= self._starts[self._number + 1]:
                self._window = self._advance()
            start, end = self._starts[self._number], self._starts[self._number + 1]
            pieces.append(self._window.select(slice(position - start, min(rows.stop, end) - start)))
            if rows.stop <= end:
                return concatenate(pieces).to_groups()
            position = end

    def _advance(self) -> DecodedWindow:
        """Return the next window, and begin to decode the one after it."""
        # Drop the current window before the next one is complete: two in memory, not three.
        self._window = None
        self._number += 1
        if self._assembler is None:
            return self._decoder.decode(self._number, None)
        future = self._next or self._submit(self._assembler, self._number)
        window = future.result()
        following = self._number + 1
        has_following = following < len(self._decoder.order.windows)
        self._next = self._submit(self._assembler, following) if has_following else None
        return window

    def _submit(self, assembler: ThreadPoolExecutor, window: int) -> Future[DecodedWindow]:
        return assembler.submit(self._decoder.decode, window, self._decoders)
