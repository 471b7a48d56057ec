"""One row group of any shape (D19) as a `Block` of tensors: one row a positive, its candidates side by side.

Columns that a group's rows share (the user, the moment) are kept once; those of its candidates have one column a
candidate: the positive, its hard negatives, its random ones. Unknown is 0 everywhere: codes count from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ..contract.schema import get_columns
from ..errors import ConfigError, InputError
from .files import RowGroup, SplitFiles
from .vocabularies import ITEM_CATEGORIES, Vocabularies, dictionary_codes, entries

PARTS = ("user_features", "item_features", "metadata")
SEQUENCE = "user_interaction_sequence"
_INDEX_NAMES = {"user_id": "user_index", "item_id": "item_index"}
_CONTEXT = (
    "sales_channel",
    "day_of_week",
    "month",
    "season",
)  # what is known of the moment goes with the user
_CHANNELS = ("user_preferred_channel", "sales_channel")
_OF_GROUP = ("timestamp", "sample_weight", "is_repurchase")
_NOT_READ = (
    "sample_id",
    "generation_timestamp",
)  # the first is `sample_number` in words, the second is in the manifest
_ITEM_COLUMNS = tuple(
    column.name for column in get_columns("train_dataset") if column.name.startswith("item_")
)

# Columns of the file that hold a column of the contract for a positive and for its negatives, where
# they differ; "" is 0.
_SOURCES: dict[str, dict[str, tuple[str, ...]]] = {
    "labeled_pair": {},
    "n_tuple": {
        **dict.fromkeys(("item_id", *ITEM_CATEGORIES), ("item_id", "negative_item_index")),
        "item_popularity_score": ("item_popularity_score", "negative_popularity_score"),
        "item_price_normalized": ("item_price_normalized", "negative_price_normalized"),
        "negative_source": ("", "negative_source"),
        "similarity_score": ("", "negative_similarity_score"),
        "negative_detail": ("", "negative_detail"),
    },
    "triplet": {
        **{name: (name, f"negative_{name}") for name in _ITEM_COLUMNS},
        **{name: ("", name) for name in ("negative_source", "similarity_score", "negative_detail")},
    },
}
# An n-tuple does not say its negatives' price category; on positives alone it would give the label
# away.
_NOT_OFFERED = {
    "labeled_pair": (),
    "n_tuple": ("item_price_category", "label"),
    "triplet": ("label",),
}


@dataclass(frozen=True)
class Block:
    """n groups as tensors of equal first dimension; numbers are int32, float32 or bool, times int64 ns since 1970 UTC."""

    user_features: dict[
        str, Tensor
    ]  # (n,), the sequence (n, max_length) int32 item_index, oldest first, padded behind with 0
    item_features: dict[str, Tensor]  # (n, width)
    metadata: dict[
        str, Tensor
    ]  # (n,) of the group, (n, width) of its candidates; `slot`: 0 is the positive

    def __len__(self) -> int:
        return self.metadata["slot"].shape[0]

    @property
    def width(self) -> int:
        """Candidates of a group."""
        return self.metadata["slot"].shape[1]

    def map(self, change: Callable[[Tensor], Tensor]) -> Block:
        """The block with `change` applied to each tensor."""
        return Block(
            *(
                {name: change(tensor) for name, tensor in getattr(self, part).items()}
                for part in PARTS
            )
        )


def as_groups(block: Block) -> dict[str, Any]:
    """The block in the contract's `sample_format`, one row a positive: (n,) and, with a column a candidate, (n, width)."""
    block = block.map(Tensor.contiguous)
    return {
        "user_features": block.user_features,
        "item_features": block.item_features,
        "label": (block.metadata["slot"] == 0).float(),
        "metadata": block.metadata,
    }


def as_samples(block: Block, place: Tensor | None = None) -> dict[str, Any]:
    """The block in the contract's `sample_format`, one row a sample: (n * width,), the sequence (n * width, max_length).

    With `place` (n,), only that candidate of each group: (n,).
    """
    n, width = len(block), block.width

    def shared(tensor: Tensor) -> Tensor:
        if place is not None:
            return tensor.contiguous()
        if tensor.device.type != "cpu":
            return tensor.repeat_interleave(width, dim=0)
        return torch.from_numpy(
            tensor.numpy().repeat(width, axis=0)
        )  # torch would share the copy between its threads

    def candidates(tensor: Tensor) -> Tensor:
        return (
            tensor.reshape(n * width) if place is None else tensor.gather(1, place[:, None])[:, 0]
        )

    metadata = {
        name: (shared if tensor.dim() == 1 else candidates)(tensor)
        for name, tensor in block.metadata.items()
    }
    return {
        "user_features": {name: shared(tensor) for name, tensor in block.user_features.items()},
        "item_features": {name: candidates(tensor) for name, tensor in block.item_features.items()},
        "label": (metadata["slot"] == 0).float(),
        "metadata": metadata,
    }


class RowGroupReader:
    """Decodes row groups of one split; may be pickled, and used by any number of threads."""

    def __init__(
        self, files: SplitFiles, vocabularies: Vocabularies, columns: Iterable[str] | None = None
    ) -> None:
        """`columns`: those wanted, by the contract's names; None: all but sample_id and generation_timestamp.

        ConfigError for a column that is not there.
        """
        self.files, self.vocabularies = files, vocabularies
        self._sources = _SOURCES[files.shape]
        offered = [
            column.name
            for column in get_columns("train_dataset")
            if column.name not in (*_NOT_READ, *_NOT_OFFERED[files.shape])
            and set(self._in_file(column.name)) <= set(files.schema.names)
        ]
        self.columns = offered if columns is None else list(dict.fromkeys(columns))
        if unknown := [name for name in self.columns if name not in offered]:
            raise ConfigError(
                f"columns: {unknown[0]!r} is not there; this dataset offers {', '.join(offered)}."
            )

    def read(self, row_group: RowGroup) -> Block:
        """The row group's groups, in file order. InputError when it cannot be read or names what no vocabulary knows."""
        wanted = dict.fromkeys(source for name in self.columns for source in self._in_file(name))
        table = self._table(row_group, list(wanted))
        where = f"{self.files.parts[row_group.part]}: row group {row_group.number}"
        users, items, metadata = {}, {}, self._metadata(row_group)
        for name in self.columns:
            if name == "label":
                _check_groups(self._candidates(table, name, where), where)
            elif name.startswith("user_") or name in _CONTEXT:
                users[_INDEX_NAMES.get(name, name)] = self._shared(table, name, where)
            elif name.startswith("item_"):
                items[_INDEX_NAMES.get(name, name)] = self._candidates(table, name, where)
            else:
                metadata[name] = (self._shared if name in _OF_GROUP else self._candidates)(
                    table, name, where
                )
        return Block(users, items, metadata)

    def _table(self, row_group: RowGroup, names: list[str]) -> Any:
        return self.files.read(row_group, names, [name for name in names if self._is_id(name)])

    def _metadata(self, row_group: RowGroup) -> dict[str, Tensor]:
        """What no column says: where each candidate stands in the split."""
        n, width = row_group.n_groups, self.files.width
        return {
            "group_number": torch.arange(row_group.first, row_group.first + n),
            "slot": torch.from_numpy(np.tile(np.arange(width, dtype=np.int16), (n, 1))),
        }

    def _in_file(self, name: str) -> tuple[str, ...]:
        """The file's columns that hold the contract's column `name`."""
        return tuple(filter(None, self._sources.get(name, (name,))))

    def _is_id(self, name: str) -> bool:
        return self.files.schema.field(name).type == pa.string()

    def _shared(self, table: Any, name: str, where: str) -> Tensor:
        """(n,) or, of the sequence, (n, max_length): what the rows of a group have in common."""
        if name == SEQUENCE:
            return self._padded(table, name)
        return self._tensor(table, name, name, where, self.files.rows_per_group)

    def _padded(self, table: Any, name: str) -> Tensor:
        return torch.from_numpy(
            _padded(_array(table, name), self.files.rows_per_group, self.files.max_length)
        )

    def _candidates(self, table: Any, name: str, where: str) -> Tensor:
        """(n, width): the positive's value, then its negatives'."""
        n = table.num_rows // self.files.rows_per_group
        columns = [
            self._tensor(table, source, name, where).reshape(n, -1)
            for source in self._in_file(name)
        ]
        if len(columns) == 1 and "" not in self._sources.get(name, ()):
            return columns[0]
        whole = np.concatenate([column.numpy() for column in columns], axis=1)
        if "" in self._sources[name]:
            whole = np.pad(whole, ((0, 0), (1, 0)))
        if self.files.shape == "n_tuple" and name in ITEM_CATEGORIES:
            whole = self.vocabularies.item_categories[name][whole]
        return torch.from_numpy(whole)

    def _tensor(self, table: Any, source: str, name: str, where: str, every: int = 1) -> Tensor:
        """Each `every`-th entry of the file's column `source` as a number; those of lists one after the other."""
        array = _array(table, source)
        if pa.types.is_fixed_size_list(array.type):
            array = array.flatten()
        if pa.types.is_dictionary(array.type):
            known = (
                "item_id" if "item_id" in self._in_file(name) else name
            )  # categories of an n-tuple are looked up by item
            codes = self.vocabularies.codes(known, array.dictionary, where)
            return torch.from_numpy(dictionary_codes(array, codes, every))
        if every == 1 and not array.null_count and array.type in (pa.float32(), pa.int32()):
            return torch.from_dlpack(array)  # no copy: the tensor is Arrow's memory
        values = _values(array, every)
        return torch.from_numpy(
            self._channel_codes()[values % 256] if self._is_channel(name) else values
        )

    def _is_channel(self, name: str) -> bool:
        return name in _CHANNELS

    def _channel_codes(self) -> np.ndarray:
        """(256,) int32, by int8 channel id: its place among the known ones, from 1; 0 for others and for null."""
        codes = np.zeros(256, dtype=np.int32)
        for channel, code in self.vocabularies.channels.items():
            codes[channel % 256] = code
        return codes


def _check_groups(label: Tensor, where: str) -> None:
    if not (label[:, 0] == 1).all() or int(label.count_nonzero()) != len(label):
        raise InputError(
            f"{where}: rows are not in groups of a positive and its {label.shape[1] - 1} negatives (D16).\n"
            "Use files as 'gpu-dcgen build' wrote them: sorted or filtered ones are no dataset any more."
        )


def _array(table: pa.Table, name: str) -> pa.Array:
    column = table[name]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _values(array: pa.Array, every: int) -> np.ndarray:
    """(n / every,) int32, float32, bool or int64 (times); 0 where null. A new array: Arrow's memory is not to be written to."""
    if pa.types.is_boolean(array.type):
        return array.to_numpy(zero_copy_only=False)[::every].copy()  # never null
    values, there = entries(
        array.view(pa.int64()) if pa.types.is_timestamp(array.type) else array, every
    )
    values = values.astype(
        np.int32 if values.dtype.kind == "i" and values.itemsize < 8 else values.dtype
    )
    if there is not None:
        values[~there] = 0
    return values


def _padded(array: pa.ListArray, every: int, width: int) -> np.ndarray:
    """(n / every, width) int32: each `every`-th list, padded behind with 0."""
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int32)[
        array.offset : array.offset + len(array) + 1
    ]
    start, length = offsets[:-1:every], np.diff(offsets)[::every]
    values = array.values.to_numpy()
    if not values.size:
        return np.zeros((len(start), width), dtype=np.int32)
    column = np.arange(width)
    padded = values.take(
        start[:, None] + column, mode="clip"
    )  # what lies behind a list is another's, and goes
    padded *= column < length[:, None]
    return padded
