"""`ContrastiveStream`: a split as a PyTorch iterable of batches, prefetched and resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import ConfigError
from .dataset import resolve_layout
from .files import SplitFiles, open_split
from .groups import Batch, BatchLayout, CandidateGroups, to_group_batch, to_sample_batch
from .hard_candidates import HardNegativeDrawer
from .negatives import NegativeChoice
from .order import EpochOrder, count_rounds, list_rounds, make_epoch_order
from .row_groups import RowGroupReader
from .snapshot_order import SnapshotOrder, count_dealt_rounds, deal_batches, make_snapshot_order
from .snapshots import read_snapshots
from .vocabularies import DatasetVocabularies, load_vocabularies
from .windows import WindowDecoder, WindowReader

_STATE_VERSION = 3  # of `state_dict`

BatchRule = Literal["shuffled", "snapshot"]
HardNegatives = Literal["stored", "drawn"]


class ContrastiveStream(IterableDataset[Batch]):
    """Batches of a split for training.

    Iterate over it as over a `DataLoader`. Each iteration is the next epoch, or the rest of one
    that was interrupted or that `load_state_dict` resumes. A batch is a `Batch`: dicts of tensors.

    The order is a pure function of (seed, epoch, position). Workers and ranks do not change it,
    they share it: every rank gets equally many batches, and together they hold each positive
    exactly once (unless `drop_last`).

    With `batches="snapshot"` the positives of a batch share one item snapshot (D6), so that their
    item features are of one moment; a snapshot with few positives makes a smaller batch.

    Workers are threads; reading and decoding happen without Python's lock. A rank decodes each row
    group once per epoch. Two windows of decoded row groups are in memory: the current one and the
    next one.

    Attributes:
        files: The files of the split.
        vocabularies: Ids and category values of the integers; `vocabularies.sizes()` gives the rows
            of each embedding table.
        batch_size: Positives per batch.
        rank: Of this process.
        n_ranks: Number of processes that train together.
        drop_last: Whether a last, smaller round of batches is left out.

    Example:
        >>> collate = InBatch("data/training", "train")
        >>> stream = ContrastiveStream("data/training", "train", n_hard=0, collate=collate)
        >>> for batch in stream:
        ...     users = model.encode_users(batch["user_features"])
        ...     items = model.encode_items(batch["item_features"])
        ...     loss = info_nce(users, items, batch, score_history=model.score_history)
        >>> torch.save(stream.state_dict(), "stream.pt")
    """

    # Keyword-only options, as those of `DataLoader`, which users of PyTorch know.
    def __init__(
        self,
        path: Path | str,
        split: str | None = None,
        *,
        batch_size: int = 256,
        layout: BatchLayout | None = None,
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
        hard_negatives: HardNegatives = "stored",
        fresh_negatives: bool = True,
        distinct_items: bool = False,
        batches: BatchRule | None = None,
        device: torch.device | str | None = None,
        reader: Literal["arrow", "cudf"] = "arrow",
        pin_memory: bool = False,
        collate: Callable[[CandidateGroups], Batch] | None = None,
    ) -> None:
        """Open a split and check its files; rows are read later.

        Args:
            path: Folder of the dataset, or a split's file or folder inside it.
            split: "train", "val" or "test"; train, or that of `path`, unless given.
            batch_size: Positives per batch. With the layout "samples" a batch has
                `batch_size * width` rows.
            layout: None for that of the files: "samples" for labeled pairs, else "groups".
            columns: Columns to read, by their names in the contract; None for all.
            shuffle: Whether to permute row groups, and then groups within `window` of them. If not,
                groups come in the order of the file.
            seed: Seed of the order and of fresh negatives.
            window: Row groups that are mixed at a time.
            num_workers: Threads that read ahead; with 0 nothing is read ahead.
            rank: Number of this process among those that train together.
            n_ranks: Number of these processes.
            drop_last: Whether to leave out the last round of batches where it is smaller, or, with
                `batches="snapshot"`, has fewer batches than ranks.
            n_hard: Hard negatives per positive; None for all that are stored.
            n_random: Random negatives per positive; None for all that are stored.
            hard_negatives: "stored" takes those of the rows; "drawn" draws others in each epoch, by
                the law of the build, from the lists of candidates that a build with
                `output.hard_candidates: true` writes. See `HardNegativeDrawer`.
            fresh_negatives: Whether each epoch draws others from those stored. If not, the first
                ones are taken, which are the best hard ones by score.
            distinct_items: Whether to deal groups so that an item is a positive of a batch only
                once, as far as the window allows.
            batches: "shuffled" mixes the positives of a window; "snapshot" makes each batch of
                positives of one item snapshot, and reads their times when the stream is opened.
                None for `collate.batches` where `collate` has it, as `InBatch` does, else
                "shuffled".
            device: Where decoded windows lie and batches are made; None for the host.
            reader: "arrow" decodes on the host, "cudf" on the CUDA device `device`, with RAPIDS
                (not yet run on a GPU).
            pin_memory: Whether batches are in page-locked memory, to copy them to a device. Not
                together with `device`.
            collate: Makes a batch of groups, as `InBatch` does; None for that of `layout`.

        Raises:
            InputError: The files cannot be used.
            ConfigError: An argument cannot be used.
        """
        self.files = open_split(path, split)
        self.vocabularies = load_vocabularies(self.files.folder)
        _check_at_least("batch_size", batch_size, 1)
        _check_at_least("window", window, 1)
        _check_at_least("num_workers", num_workers, 0)
        _check_ranks(rank, n_ranks, self.files.n_groups)
        if device is not None and pin_memory:
            raise ConfigError(
                "device and pin_memory: expected only one of them; with a device, batches are made"
                " on it."
            )
        layout = resolve_layout(self.files, layout)
        self.batch_size, self.rank, self.n_ranks = batch_size, rank, n_ranks
        self.drop_last = drop_last
        self._collate = collate or (to_group_batch if layout == "groups" else to_sample_batch)
        self._reader = _open_reader(reader, self.files, self.vocabularies, columns, device)
        if distinct_items and "item_id" not in self._reader.columns:
            raise ConfigError("distinct_items: needs the column item_id.\nAdd it to columns.")
        self._choice = NegativeChoice(
            n_hard=_resolve_count("n_hard", n_hard, self.files.n_hard),
            n_random=_resolve_count("n_random", n_random, self.files.n_random),
            is_fresh=fresh_negatives,
        )
        self._hard_negatives = hard_negatives
        self._drawer = _open_drawer(hard_negatives, self._reader, self._choice.n_hard)
        self._shuffle, self._seed, self._window = shuffle, seed, window
        self._batches = _resolve_batches(batches, collate)
        _check_probabilities(self._choice, self.files.n_hard, collate)
        self._snapshots = (
            read_snapshots(self.files, self.vocabularies) if self._batches == "snapshot" else None
        )
        self._distinct_items, self._num_workers = distinct_items, num_workers
        self._device, self._pin_memory = device, pin_memory
        self._epoch, self._position = 0, 0
        self._iteration: object | None = None  # the latest one; earlier ones must not continue

    def __len__(self) -> int:
        """Return the number of batches of this rank in a whole epoch, the same for each epoch."""
        order = self._make_order()
        if isinstance(order, SnapshotOrder):
            n_batches = len(order.list_batch_bounds()) - 1
            return count_dealt_rounds(n_batches, self.n_ranks, drop_last=self.drop_last)
        return count_rounds(order.n_groups, self.batch_size, self.n_ranks, drop_last=self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Begin this epoch with the next iteration."""
        self._epoch, self._position, self._iteration = epoch, 0, None

    def state_dict(self) -> dict[str, Any]:
        """Return what follows the batches returned so far, to resume from.

        It is plain JSON, and the same on every rank after equally many batches.
        """
        return {
            "version": _STATE_VERSION,
            "epoch": self._epoch,
            "position": self._position,
            **self._get_order_settings(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume where `state` was taken.

        The number of workers and ranks may differ; with `distinct_items`, or batches of one
        snapshot, the batch size may not.

        Raises:
            ConfigError: The state is of another version, dataset, seed or order.
        """
        expected = {"version": _STATE_VERSION, **self._get_order_settings()}
        for name, value in expected.items():
            if state.get(name) != value:
                raise ConfigError(
                    f"state_dict: {name} is {state.get(name)!r}, this stream has {value!r}.\n"
                    "Resume with the dataset and the settings that the state was taken with."
                )
        self._epoch, self._position, self._iteration = state["epoch"], state["position"], None

    def __iter__(self) -> Iterator[Batch]:
        """Yield the remaining batches of the epoch.

        Raises:
            ConfigError: In a worker process of a `DataLoader`, or when another iteration,
                `set_epoch` or `load_state_dict` has begun meanwhile.
            InputError: A row group cannot be read.
        """
        if (info := get_worker_info()) is not None:
            raise ConfigError(
                f"ContrastiveStream in a DataLoader with num_workers={info.num_workers}: each"
                " process would read every row group, and the stream would not know its position.\n"
                "Iterate over the stream itself: its num_workers are threads. Or use a DataLoader"
                " with num_workers=0."
            )
        self._iteration = iteration = object()
        order = self._make_order()
        first_window = order.find_window(self._position)
        decoder = self._make_decoder(order)
        with WindowReader(decoder, first_window, self._num_workers) as windows:
            for rows, position in self._list_rounds(order):
                if self._iteration is not iteration:
                    raise ConfigError(
                        "ContrastiveStream: another iteration, set_epoch or load_state_dict has"
                        " begun, so this one cannot continue.\n"
                        "Iterate over a stream once at a time, or make two streams."
                    )
                groups = windows.read(rows)
                batch = self._collate(groups.map(Tensor.pin_memory) if self._pin_memory else groups)
                self._position = position
                yield batch
        if self._iteration is iteration:
            self._epoch, self._position = self._epoch + 1, 0

    def _make_order(self) -> EpochOrder:
        if self._snapshots is not None:
            return make_snapshot_order(
                self._snapshots,
                self._seed,
                self._epoch,
                shuffle=self._shuffle,
                window=self._window,
                batch_size=self.batch_size,
            )
        return make_epoch_order(
            [group.n_groups for group in self.files.row_groups],
            self._seed,
            self._epoch,
            shuffle=self._shuffle,
            window=self._window,
            batch_size=self.batch_size,
        )

    def _list_rounds(self, order: EpochOrder) -> Iterator[tuple[slice, int]]:
        """Yield the groups of this rank in each remaining round, and the end of the round."""
        if isinstance(order, SnapshotOrder):
            return deal_batches(
                order.list_batch_bounds(),
                self._position,
                self.rank,
                self.n_ranks,
                drop_last=self.drop_last,
            )
        return list_rounds(
            self._position,
            order.n_groups,
            self.batch_size,
            self.rank,
            self.n_ranks,
            drop_last=self.drop_last,
        )

    def _make_decoder(self, order: EpochOrder) -> WindowDecoder:
        return WindowDecoder(
            reader=self._reader,
            order=order,
            drawer=self._drawer,
            choice=self._choice,
            is_distinct=self._distinct_items,
            device=self._device,
        )

    def _get_order_settings(self) -> dict[str, Any]:
        """Return all that determines the order, and the negatives.

        The batch size is part of it only where it decides the order.
        """
        return {
            "content_digest": self.files.manifest.content_digest,
            "split": self.files.split,
            "seed": self._seed,
            "shuffle": self._shuffle,
            "window": self._window,
            "batches": self._batches,
            "snapshot_batch_size": self.batch_size if self._snapshots is not None else 0,
            "distinct_items": self.batch_size if self._distinct_items else 0,
            "hard_negatives": self._hard_negatives,
            "negatives": [self._choice.n_hard, self._choice.n_random, self._choice.is_fresh],
        }


def _open_reader(
    name: str,
    files: SplitFiles,
    vocabularies: DatasetVocabularies,
    columns: Iterable[str] | None,
    device: torch.device | str | None,
) -> RowGroupReader:
    if name == "arrow":
        return RowGroupReader(files, vocabularies, columns)
    if name != "cudf":
        raise ConfigError(f"reader {name!r}: expected 'arrow' or 'cudf'.")
    from .gpu_row_groups import DeviceRowGroupReader

    return DeviceRowGroupReader(files, vocabularies, columns, device)


def _open_drawer(
    hard_negatives: HardNegatives, reader: RowGroupReader, n_hard: int
) -> HardNegativeDrawer | None:
    """Open the lists of candidates; None where no hard negative is drawn."""
    if hard_negatives not in ("stored", "drawn"):
        raise ConfigError(f"hard_negatives {hard_negatives!r}: expected 'stored' or 'drawn'.")
    if hard_negatives == "stored" or not n_hard:
        return None
    return HardNegativeDrawer(reader.files, reader.vocabularies, reader.columns)


def _resolve_batches(
    batches: BatchRule | None, collate: Callable[[CandidateGroups], Batch] | None
) -> BatchRule:
    """Return the rule that was asked for, or that of `collate`. ConfigError if they differ."""
    rule: BatchRule | None = getattr(collate, "batches", None)
    if batches not in (None, "shuffled", "snapshot"):
        raise ConfigError(f"batches {batches!r}: expected 'shuffled' or 'snapshot'.")
    if batches and rule and batches != rule:
        raise ConfigError(
            f"batches {batches!r}: collate needs {rule!r}.\n"
            f"Leave out batches, or give {type(collate).__name__} batches={batches!r} as well."
        )
    return batches or rule or "shuffled"


def _check_probabilities(
    choice: NegativeChoice, n_stored: int, collate: Callable[[CandidateGroups], Batch] | None
) -> None:
    """Refuse hard negatives that are chosen by score where their probabilities are needed."""
    is_by_score = not choice.is_fresh and 0 < choice.n_hard < n_stored
    if is_by_score and getattr(collate, "needs_probabilities", False):
        raise ConfigError(
            f"n_hard {choice.n_hard} with fresh_negatives=False: those of the highest score of"
            f" {n_stored} are taken, so that {type(collate).__name__} cannot know how likely they"
            f" were.\nLeave out fresh_negatives, or give n_hard={n_stored} or n_hard=0."
        )


def _check_at_least(name: str, value: int, minimum: int) -> None:
    if value < minimum:
        raise ConfigError(f"{name} {value}: expected {minimum} or more.")


def _check_ranks(rank: int, n_ranks: int, n_groups: int) -> None:
    if not 0 <= rank < n_ranks:
        raise ConfigError(f"rank {rank} of n_ranks {n_ranks}: expected 0 to n_ranks - 1.")
    if n_groups < n_ranks:
        raise ConfigError(
            f"n_ranks {n_ranks}: the split has {n_groups} positives, fewer than one for each rank."
        )


def _resolve_count(name: str, count: int | None, n_stored: int) -> int:
    """Return the count that was asked for, or all that are stored."""
    if count is not None and not 0 <= count <= n_stored:
        raise ConfigError(
            f"{name} {count}: this dataset stores {n_stored} per positive; give 0 to {n_stored}."
        )
    return n_stored if count is None else count
