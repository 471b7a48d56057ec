"""`ContrastiveDataset`: a split as a map-style PyTorch dataset, read lazily, with a bounded cache of row groups."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from ..errors import ConfigError
from .files import SplitFiles, open_split
from .order import epoch_order
from .records import Records, join, pack
from .row_groups import RowGroupReader, as_groups, as_samples
from .vocabularies import load_vocabularies

Sample = dict[str, Any]
Layout = Literal["samples", "groups"]


class ContrastiveDataset(Dataset[Sample]):
    """A split of a dataset, sample by sample in file order, in the contract's `sample_format`.

    A sample is a dict of `user_features` and `item_features` (dicts of tensors), `label` (float32) and `metadata` (times,
    sources and weights). With layout "samples" an index is a row of labeled pairs: a user and one candidate; with
    "groups" it is a positive with its negatives side by side: `item_features` and `label` of shape (width,). Codes and
    indices are int32 and count from 1; 0 is unknown, and padding behind sequences.

    Row groups are read when needed, and the latest used stay decoded, `cache_bytes` of them at most. `DataLoader` workers
    may be forked or spawned. For whole epochs `ContrastiveStream` is faster: it reads each row group once.
    """

    def __init__(
        self,
        path: Path | str,
        split: str | None = None,
        *,
        layout: Layout | None = None,
        columns: Iterable[str] | None = None,
        cache_bytes: int = 256 * 2**20,
    ) -> None:
        """`path`: a dataset's folder (`split` says which, train unless given), or a split's file or folder in it.

        `layout` None: as the files are, "samples" of labeled pairs, else "groups". `columns`: those to read, by the
        contract's names; None: all. InputError when the files cannot be used, ConfigError when an argument cannot.
        """
        self.files = open_split(path, split)
        self.vocabularies = load_vocabularies(self.files.folder)
        self.layout = layout_of(self.files, layout)
        self._reader = RowGroupReader(self.files, self.vocabularies, columns)
        self._firsts = np.array([group.first for group in self.files.row_groups])
        self._rows = self.files.width if self.layout == "samples" else 1
        self._cache: OrderedDict[int, Records] = OrderedDict()
        self._cache_bytes = cache_bytes

    def __len__(self) -> int:
        return self.files.n_groups * self._rows

    def __getitem__(self, index: int) -> Sample:
        """The sample at `index`: scalars, the sequence (max_length,), with layout "groups" (width,). IndexError outside."""
        return _one(self.batch([index]), 0)

    def __getitems__(self, indices: Sequence[int]) -> Samples:
        """What `DataLoader` asks for: the samples at `indices`, read together; `collate` takes them as they are."""
        return Samples(self.batch(indices))

    def batch(self, indices: Sequence[int]) -> Sample:
        """The samples at `indices`, in their order, stacked: (n, ...) each. A row group that many need is decoded once."""
        wanted = np.asarray(indices, dtype=np.int64)
        wanted = np.where(wanted < 0, wanted + len(self), wanted)
        if not wanted.size or wanted.min() < 0 or wanted.max() >= len(self):
            raise IndexError(f"{list(indices)[:3]}...: expected indices into {len(self):,} samples")
        group, slot = np.divmod(wanted, self._rows)
        number = np.searchsorted(self._firsts, group, side="right") - 1
        taken, places = [], []
        for needed in np.unique(number):
            (place,) = np.nonzero(number == needed)
            taken.append(self._row_group(int(needed)).rows(group[place] - self._firsts[needed]))
            places.append(place)
        block = join(taken).rows(np.argsort(np.concatenate(places))).block()
        return (
            as_groups(block)
            if self.layout == "groups"
            else as_samples(block, torch.from_numpy(slot))
        )

    @staticmethod
    def collate(samples: Samples) -> Sample:
        """`collate_fn` for a `DataLoader`: the batch as it was read; the default one gives the same, stacked anew."""
        return samples.stacked

    def sample_id(self, group_number: int, slot: int = 0) -> str:
        """The file's `sample_id`, from a sample's metadata; n-tuples and triplets have one a group."""
        return f"{self.files.split}-{int(group_number):010d}-{int(slot) if self.files.shape == 'labeled_pair' else 0:02d}"

    def _row_group(self, number: int) -> Records:
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        records = pack(self._reader.read(self.files.row_groups[number]))
        self._cache[number] = records
        while (
            len(self._cache) > 1
            and sum(cached.n_bytes for cached in self._cache.values()) > self._cache_bytes
        ):
            self._cache.popitem(last=False)
        return records

    def __getstate__(self) -> Sample:
        """Another process begins with an empty cache."""
        return {**self.__dict__, "_cache": OrderedDict()}


class Samples(Sequence[Sample]):
    """Samples that were read together: a sequence of them, and the stacked tensors that they are rows of."""

    def __init__(self, stacked: Sample) -> None:
        self.stacked = stacked

    def __len__(self) -> int:
        return len(self.stacked["label"])

    def __getitem__(self, place: int) -> Sample:
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return _one(self.stacked, place)


class LocalSampler(Sampler[int]):
    """Indices in an order for shuffled training that keeps reads local: row groups, then groups within a `window` of them.

    Rows of a group stay side by side. `set_epoch` begins another order.
    """

    def __init__(self, dataset: ContrastiveDataset, *, seed: int = 0, window: int = 4) -> None:
        self._dataset, self._seed, self._window, self._epoch = dataset, seed, window, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[int]:
        row_groups = self._dataset.files.row_groups
        rows = len(self._dataset) // self._dataset.files.n_groups
        sizes = [group.n_groups for group in row_groups]
        order = epoch_order(sizes, self._seed, self._epoch, shuffle=True, window=self._window)
        for window, members in enumerate(order.windows):
            groups = np.concatenate(
                [np.arange(row_groups[m].first, row_groups[m].first + sizes[m]) for m in members]
            )
            for group in groups[order.within(window)].tolist():
                yield from range(group * rows, (group + 1) * rows)


def layout_of(files: SplitFiles, layout: Layout | None) -> Layout:
    """The layout asked for, or the one that the files have."""
    if layout not in (None, "samples", "groups"):
        raise ConfigError(f"layout {layout!r}: expected 'samples' or 'groups'.")
    return layout or ("samples" if files.shape == "labeled_pair" else "groups")


def _one(stacked: Sample, place: int) -> Sample:
    return {
        name: _one(value, place) if isinstance(value, dict) else value[place]
        for name, value in stacked.items()
    }
