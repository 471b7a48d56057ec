"""`ContrastiveDataset`: a split as a map-style PyTorch dataset with a bounded cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from ..errors import ConfigError
from .files import SplitFiles, open_split
from .groups import Batch, BatchLayout, select_rows, to_group_batch, to_sample_batch
from .order import make_epoch_order
from .records import Records, concatenate, pack
from .row_groups import RowGroupReader
from .vocabularies import load_vocabularies


class ContrastiveDataset(Dataset[Batch]):
    """A split of a dataset, sample by sample in file order.

    With the layout "samples" an index is a labeled pair: a user and one candidate. With "groups" it
    is a positive with its negatives. A sample has the form of a `Batch`, without the first
    dimension. Codes and indices are int32 and count from 1; 0 is unknown, or padding at the end of
    sequences.

    Row groups are read when they are needed, and the most recently used stay decoded. `DataLoader`
    workers may be forked or spawned. For whole epochs `ContrastiveStream` is faster: it reads each
    row group once.

    Attributes:
        files: The files of the split.
        vocabularies: Ids and category values of the integers; `vocabularies.sizes()` gives the rows
            of each embedding table.
        layout: "samples" or "groups".

    Example:
        >>> dataset = ContrastiveDataset("data/training", "val")
        >>> dataset[0]["label"]
        tensor(1.)
        >>> loader = DataLoader(dataset, batch_size=4096, collate_fn=dataset.collate)
        >>> next(iter(loader))["user_features"]["user_interaction_sequence"].shape
        torch.Size([4096, 32])
    """

    def __init__(
        self,
        path: Path | str,
        split: str | None = None,
        *,
        layout: BatchLayout | None = None,
        columns: Iterable[str] | None = None,
        cache_bytes: int = 256 * 2**20,
    ) -> None:
        """Open a split and check its files; rows are read later.

        Args:
            path: Folder of the dataset, or a split's file or folder inside it.
            split: "train", "val" or "test"; train, or that of `path`, unless given.
            layout: None for that of the files: "samples" for labeled pairs, else "groups".
            columns: Columns to read, by their names in the contract; None for all.
            cache_bytes: Size of the decoded row groups that stay in memory. The most recent one
                always stays.

        Raises:
            InputError: The files cannot be used.
            ConfigError: An argument cannot be used.
        """
        self.files = open_split(path, split)
        self.vocabularies = load_vocabularies(self.files.folder)
        self.layout = resolve_layout(self.files, layout)
        self._reader = RowGroupReader(self.files, self.vocabularies, columns)
        self._firsts = np.array([group.first for group in self.files.row_groups])
        self._samples_per_group = self.files.width if self.layout == "samples" else 1
        self._cache: OrderedDict[int, Records] = OrderedDict()
        self._cache_bytes = cache_bytes

    def __len__(self) -> int:
        return self.files.n_groups * self._samples_per_group

    def __getitem__(self, index: int) -> Batch:
        """Return the sample at `index`, negative ones from the end. IndexError outside.

        Tensors are scalars, (max_length,) for the sequence, and (width,) for candidates with the
        layout "groups".
        """
        return select_rows(self.batch([index]), 0)

    def __getitems__(self, indices: Sequence[int]) -> SampleList:
        """Return the samples at `indices`, which are read together; `DataLoader` calls this."""
        return SampleList(self.batch(indices))

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Return the samples at `indices` stacked in their order: (n, ...) each.

        A row group that several samples need is decoded once. IndexError for an index outside.
        """
        index = np.asarray(indices, dtype=np.int64)
        index = np.where(index < 0, index + len(self), index)
        if not index.size or index.min() < 0 or index.max() >= len(self):
            raise IndexError(f"{list(indices)[:3]}...: expected indices into {len(self):,} samples")
        group, slot = np.divmod(index, self._samples_per_group)
        number = np.searchsorted(self._firsts, group, side="right") - 1
        pieces, places = [], []
        for needed in np.unique(number):
            (place,) = np.nonzero(number == needed)
            records = self._load_row_group(int(needed))
            pieces.append(records.select(group[place] - self._firsts[needed]))
            places.append(place)
        order = np.argsort(np.concatenate(places))
        groups = concatenate(pieces).select(order).to_groups()
        if self.layout == "groups":
            return to_group_batch(groups)
        return to_sample_batch(groups, torch.from_numpy(slot))

    @staticmethod
    def collate(samples: SampleList) -> Batch:
        """Return a batch as it was read; use it as the `collate_fn` of a `DataLoader`.

        PyTorch's default gives the same, by stacking the samples again.
        """
        return samples.stacked

    def sample_id(self, group_number: int, slot: int = 0) -> str:
        """Return the file's `sample_id` of a sample, from its metadata.

        n-tuples and triplets have one per group.
        """
        slot = int(slot) if self.files.shape == "labeled_pair" else 0
        return f"{self.files.split}-{int(group_number):010d}-{slot:02d}"

    def _load_row_group(self, number: int) -> Records:
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        records = pack(self._reader.read(self.files.row_groups[number]))
        self._cache[number] = records
        while len(self._cache) > 1 and self._count_cached_bytes() > self._cache_bytes:
            self._cache.popitem(last=False)
        return records

    def _count_cached_bytes(self) -> int:
        return sum(records.n_bytes for records in self._cache.values())

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the cache: another process begins with an empty one."""
        return {**self.__dict__, "_cache": OrderedDict()}


class SampleList(Sequence[Batch]):
    """Samples that were read together: a sequence of the rows of a batch."""

    def __init__(self, stacked: Batch) -> None:
        """Hold the batch, as `stacked`."""
        self.stacked = stacked

    def __len__(self) -> int:
        return len(self.stacked["label"])

    @overload
    def __getitem__(self, place: int) -> Batch: ...

    @overload
    def __getitem__(self, place: slice) -> list[Batch]: ...

    def __getitem__(self, place: int | slice) -> Batch | list[Batch]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return select_rows(self.stacked, place)


class LocalSampler(Sampler[int]):
    """Indices in a shuffled order that keeps reads local.

    Row groups are permuted, and then the groups within a window of them. The samples of a group
    stay side by side.

    Example:
        >>> sampler = LocalSampler(dataset, seed=1)
        >>> loader = DataLoader(dataset, 4096, sampler=sampler, collate_fn=dataset.collate)
    """

    def __init__(self, dataset: ContrastiveDataset, *, seed: int = 0, window: int = 4) -> None:
        """Order `dataset` by `seed`; `window` row groups are mixed at a time.

        The cache of the dataset should hold a window: `cache_bytes`.
        """
        self._dataset, self._seed, self._window, self._epoch = dataset, seed, window, 0

    def set_epoch(self, epoch: int) -> None:
        """Use the order of this epoch from the next iteration on."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[int]:
        files = self._dataset.files
        samples_per_group = len(self._dataset) // files.n_groups
        order = make_epoch_order(
            [group.n_groups for group in files.row_groups],
            self._seed,
            self._epoch,
            shuffle=True,
            window=self._window,
        )
        for window, members in enumerate(order.windows):
            row_groups = [files.row_groups[number] for number in members]
            groups = np.concatenate([g.first + np.arange(g.n_groups) for g in row_groups])
            for group in groups[order.order_window(window)].tolist():
                yield from range(group * samples_per_group, (group + 1) * samples_per_group)


def resolve_layout(files: SplitFiles, layout: BatchLayout | None) -> BatchLayout:
    """Return the layout that was asked for, or that of the files. ConfigError for another one."""
    if layout not in (None, "samples", "groups"):
        raise ConfigError(f"layout {layout!r}: expected 'samples' or 'groups'.")
    return layout or ("samples" if files.shape == "labeled_pair" else "groups")
