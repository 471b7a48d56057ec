"""`ContrastiveStream`: a split as a PyTorch iterable of batches: prefetched, resumable, the same for any workers and ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import ConfigError
from .dataset import Layout, Sample, layout_of
from .files import open_split
from .negatives import redraw
from .order import EpochOrder, epoch_order, n_rounds, round_slice
from .records import Gathering, Records, join
from .row_groups import Block, RowGroupReader, as_groups, as_samples
from .vocabularies import load_vocabularies

_STATE = 1  # version of `state_dict`


class ContrastiveStream(IterableDataset[Sample]):
    """Batches of a split for training, in the contract's `sample_format` (as `ContrastiveDataset`), stacked.

    Iterate over it as over a `DataLoader`; each iteration is the next epoch, or the rest of one that was left in the
    middle or that `load_state_dict` resumes. The order is a pure function of (seed, epoch, position): workers and ranks
    do not change it, they share it. A rank's batches are as many as any other's; together they are each positive exactly
    once (without `drop_last`).

    Workers are threads: reading and decoding happen outside of Python's lock, and a row group is decoded once an epoch
    and rank, whoever does it. Two windows of decoded row groups are in memory: the one served and the next one.
    """

    def __init__(
        self,
        path: Path | str,
        split: str | None = None,
        *,
        batch_size: int = 256,
        layout: Layout | None = None,
        columns: Iterable[str] | None = None,
        shuffle: bool = True,
        seed: int = 0,
        window: int = 8,
        num_workers: int = 1,
        rank: int = 0,
        n_ranks: int = 1,
        drop_last: bool = False,
        n_hard: int | None = None,
        n_random: int | None = None,
        fresh_negatives: bool = True,
        distinct_items: bool = False,
        device: torch.device | str | None = None,
        reader: Literal["arrow", "cudf"] = "arrow",
        pin_memory: bool = False,
        collate: Callable[[Block], Sample] | None = None,
    ) -> None:
        """What to read, in which order, with whom.

        path, split, layout, columns: as for `ContrastiveDataset`.
        batch_size: positives a batch; with their negatives, `batch_size * width` samples.
        shuffle, seed: off, groups come as in the file; on, row groups are permuted, then groups within `window` of them.
        num_workers: threads that read ahead; 0 reads when asked.
        rank, n_ranks: of this process among those that train together.
        drop_last: leave out the last, smaller round of batches.
        n_hard, n_random: negatives of a positive to take from those stored; None: all. With `fresh_negatives` each epoch
            draws others, else the first ones stay: the best hard ones by score.
        distinct_items: deal groups so that a batch has an item as positive once, as far as the window allows.
        device: where decoded windows lie and batches are made; pin_memory: batches in page-locked memory, for copies of
            your own. Not both.
        reader: "arrow" decodes on the host; "cudf" on the CUDA device that `device` names, with RAPIDS (not yet run on a GPU).
        collate: what makes a batch of a `Block`; None: `layout`. See `in_batch.InBatch`.

        InputError when the files cannot be used, ConfigError when an argument cannot.
        """
        self.files = open_split(path, split)
        self.vocabularies = load_vocabularies(self.files.folder)
        if device is not None and pin_memory:
            raise ConfigError(
                "device and pin_memory: expected one of them; with a device, batches are made on it."
            )
        _check_arguments(batch_size, window, num_workers, rank, n_ranks, self.files.n_groups)
        self.batch_size, self.rank, self.n_ranks, self.drop_last = (
            batch_size,
            rank,
            n_ranks,
            drop_last,
        )
        self._collate = collate or (
            as_groups if layout_of(self.files, layout) == "groups" else as_samples
        )
        self._reader = self._open(reader, columns, device)
        if distinct_items and "item_id" not in self._reader.columns:
            raise ConfigError(
                "distinct_items: the columns leave out item_id.\nLet columns hold it."
            )
        self._shuffle, self._seed, self._window, self._num_workers = (
            shuffle,
            seed,
            window,
            num_workers,
        )
        self._negatives = (
            _share(n_hard, self.files.n_hard, "n_hard"),
            _share(n_random, self.files.n_random, "n_random"),
        )
        self._fresh, self._distinct, self._device, self._pin = (
            fresh_negatives,
            distinct_items,
            device,
            pin_memory,
        )
        self._epoch, self._position = 0, 0
        self._iteration: object | None = None  # the latest one: an older one is not to go on

    def _open(
        self, reader: str, columns: Iterable[str] | None, device: torch.device | str | None
    ) -> RowGroupReader:
        if reader == "arrow":
            return RowGroupReader(self.files, self.vocabularies, columns)
        if reader != "cudf":
            raise ConfigError(f"reader {reader!r}: expected 'arrow' or 'cudf'.")
        from .gpu_row_groups import DeviceRowGroupReader

        return DeviceRowGroupReader(self.files, self.vocabularies, columns, device)

    def __len__(self) -> int:
        """Batches that this rank takes in the epoch at hand, from its beginning."""
        return n_rounds(
            self.files.n_groups, self.batch_size, self.n_ranks, drop_last=self.drop_last
        )

    def set_epoch(self, epoch: int) -> None:
        """Begin that epoch at the next iteration."""
        self._epoch, self._position, self._iteration = epoch, 0, None

    def state_dict(self) -> dict[str, Any]:
        """What comes next, after the batches handed out so far; the same on every rank after equally many batches."""
        return {
            "version": _STATE,
            "epoch": self._epoch,
            "position": self._position,
            **self._order_settings(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; workers and ranks may be other ones, what determines the order may not.

        ConfigError when the state is of another version, dataset, seed or order.
        """
        expected = {"version": _STATE, **self._order_settings()}
        for name, value in expected.items():
            if state.get(name) != value:
                raise ConfigError(
                    f"state_dict: {name} is {state.get(name)!r}, this stream has {value!r}.\n"
                    "Resume with the dataset and the settings that the state was taken with."
                )
        self._epoch, self._position, self._iteration = state["epoch"], state["position"], None

    def __iter__(self) -> Iterator[Sample]:
        if (info := get_worker_info()) is not None:
            raise ConfigError(
                f"ContrastiveStream in a DataLoader with num_workers={info.num_workers}: each process would read every row "
                "group, and keep its place to itself.\n"
                "Iterate over the stream itself, whose own num_workers share the reading (or use DataLoader's num_workers=0)."
            )
        self._iteration = iteration = object()
        order = epoch_order(
            [group.n_groups for group in self.files.row_groups],
            self._seed,
            self._epoch,
            shuffle=self._shuffle,
            window=self._window,
        )
        with _Windows(self, order, order.window_at(self._position)) as windows:
            for _ in range(self._rounds_left()):
                if self._iteration is not iteration:
                    raise ConfigError(
                        "ContrastiveStream: another iteration, set_epoch or load_state_dict has begun: this one lost its place.\n"
                        "Iterate over one stream at a time, or make two."
                    )
                rows, after = round_slice(
                    self._position,
                    order.n_groups,
                    self.batch_size,
                    self.rank,
                    self.n_ranks,
                    drop_last=self.drop_last,
                )
                block = windows.take(rows)
                batch = self._collate(block.map(Tensor.pin_memory) if self._pin else block)
                self._position = after
                yield batch
        if self._iteration is iteration:
            self._epoch, self._position = self._epoch + 1, 0

    def _rounds_left(self) -> int:
        return n_rounds(
            self.files.n_groups - self._position,
            self.batch_size,
            self.n_ranks,
            drop_last=self.drop_last,
        )

    def _order_settings(self) -> dict[str, Any]:
        """All that determines the order; the batch size only where groups are dealt out to batches."""
        return {
            "content_digest": self.files.manifest["content_digest"],
            "split": self.files.split,
            "seed": self._seed,
            "shuffle": self._shuffle,
            "window": self._window,
            "distinct_items": self.batch_size if self._distinct else 0,
            "negatives": [*self._negatives, self._fresh],
        }

    def decode(self, number: int, epoch: int, into: Gathering, first: int) -> None:
        """Put the row group of that number, with the epoch's negatives, where it belongs among those of its window."""
        block = self._reader.read(self.files.row_groups[number])
        into.put(
            redraw(
                block,
                self.files,
                self._negatives,
                seed=self._seed,
                epoch=epoch if self._fresh else None,
            ),
            first,
        )

    def finish(self, order: EpochOrder, window: int, gathered: Gathering) -> Window:
        """A window whose row groups are decoded: where it is wanted, and the order in which its groups come."""
        records = gathered.records()
        item = (
            records.block().item_features["item_index"][:, 0].cpu().numpy()
            if self._distinct
            else None
        )
        places = order.within(window, item, self.batch_size)
        return Window(records if self._device is None else records.to(self._device), places)


@dataclass(frozen=True)
class Window:
    """A window of an epoch in memory."""

    records: Records
    order: np.ndarray | None  # (n,) int64 of the records; None: as they lie

    def take(self, rows: slice) -> Records:
        """The groups at these places of the window."""
        return self.records.rows(rows if self.order is None else self.order[rows])


class _Windows:
    """The windows of an epoch from one position on, read ahead by threads; at most two are there at a time."""

    def __init__(self, stream: ContrastiveStream, order: EpochOrder, first: int) -> None:
        self._stream, self._order = stream, order
        self._number = first - 1  # of the window at hand
        self._window: Window | None = None
        workers = stream._num_workers
        self._decoders = ThreadPoolExecutor(workers, "gpu-dcgen-decode") if workers else None
        self._assembler = ThreadPoolExecutor(1, "gpu-dcgen-window") if workers else None
        self._next: Future[Window] | None = None

    def __enter__(self) -> _Windows:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in (
            self._decoders,
            self._assembler,
        ):  # the second one waits for what the first one has begun
            if pool is not None:
                pool.shutdown(cancel_futures=True)

    def take(self, rows: slice) -> Block:
        """The groups at positions `rows` of the epoch, which never lie before those taken last."""
        pieces = []
        start = rows.start
        while True:
            while self._window is None or start >= self._order.firsts[self._number + 1]:
                self._advance()
            first, end = self._order.firsts[self._number], self._order.firsts[self._number + 1]
            pieces.append(self._window.take(slice(start - first, min(rows.stop, end) - first)))
            if rows.stop <= end:
                return join(pieces).block()
            start = end

    def _advance(self) -> None:
        self._window = None  # before the next one is there: two at a time, not three
        self._number += 1
        if self._decoders is None:
            self._window = self._read(self._number, lambda decode, *arguments: decode(*arguments))
            return
        future = self._next or self._submit(self._number)
        following = self._number + 1
        self._window = future.result()
        self._next = self._submit(following) if following < len(self._order.windows) else None

    def _read(self, window: int, run: Callable[..., Future[None] | None]) -> Window:
        """Decode a window's row groups, each by `run`, into the places that they have in it."""
        members = self._order.windows[window]
        sizes = [self._stream.files.row_groups[number].n_groups for number in members]
        gathering = Gathering(sum(sizes))
        decoding = [
            run(self._stream.decode, number, self._order.epoch, gathering, first)
            for number, first in zip(members, accumulate(sizes, initial=0), strict=False)
        ]
        for future in filter(None, decoding):
            future.result()
        return self._stream.finish(self._order, window, gathering)

    def _submit(self, window: int) -> Future[Window]:
        return self._assembler.submit(self._read, window, self._decoders.submit)


def _check_arguments(
    batch_size: int, window: int, num_workers: int, rank: int, n_ranks: int, n_groups: int
) -> None:
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("window", window, 1),
        ("num_workers", num_workers, 0),
    ):
        if value < least:
            raise ConfigError(f"{name} {value}: expected {least} or more.")
    if not 0 <= rank < n_ranks:
        raise ConfigError(f"rank {rank} of n_ranks {n_ranks}: expected 0 to n_ranks - 1.")
    if n_groups < n_ranks:
        raise ConfigError(
            f"n_ranks {n_ranks}: the split has {n_groups} positives, fewer than one for each rank."
        )


def _share(wanted: int | None, stored: int, name: str) -> int:
    if wanted is not None and not 0 <= wanted <= stored:
        raise ConfigError(
            f"{name} {wanted}: this dataset stores {stored} a positive; ask for 0 to {stored}."
        )
    return stored if wanted is None else wanted
