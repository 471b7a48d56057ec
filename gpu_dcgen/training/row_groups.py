"""Decode one row group of any shape (D19) into `CandidateGroups`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ..contract.schema import get_columns
from ..errors import ConfigError, InputError
from .files import RowGroup, SplitFiles
from .groups import SEQUENCE, CandidateGroups
from .vocabularies import (
    CHANNELS,
    ITEM_CATEGORIES,
    DatasetVocabularies,
    map_dictionary,
    read_values,
)

_INDEX_NAMES = {"user_id": "user_index", "item_id": "item_index"}
# What is known of the time of purchase belongs to the user's features.
_CONTEXT = ("sales_channel", "day_of_week", "month", "season")
_GROUP_METADATA = ("timestamp", "sample_weight", "is_repurchase")
# The first repeats group_number and slot as text, the second is in the manifest.
_SKIPPED = ("sample_id", "generation_timestamp")
_ITEM_COLUMNS = tuple(
    column.name for column in get_columns("train_dataset") if column.name.startswith("item_")
)

# By shape and the contract's column: the file's columns for the positive and for its negatives,
# where they differ; "" stands for 0.
_SOURCES: dict[str, dict[str, tuple[str, ...]]] = {
    "labeled_pair": {},
    "n_tuple": {
        **dict.fromkeys(("item_id", *ITEM_CATEGORIES), ("item_id", "negative_item_index")),
        "item_popularity_score": ("item_popularity_score", "negative_popularity_score"),
        "item_price_normalized": ("item_price_normalized", "negative_price_normalized"),
        "negative_source": ("", "negative_source"),
        "similarity_score": ("", "negative_similarity_score"),
        "negative_detail": ("", "negative_detail"),
        "negative_log_q": ("", "negative_log_q"),
    },
    "triplet": {
        **{name: (name, f"negative_{name}") for name in _ITEM_COLUMNS},
        **{
            name: ("", name)
            for name in (
                "negative_source",
                "similarity_score",
                "negative_detail",
                "negative_log_q",
            )
        },
    },
}
# By shape: columns that are not offered. An n-tuple lacks its negatives' price category; for
# positives alone it would reveal the label.
_UNAVAILABLE: dict[str, tuple[str, ...]] = {
    "labeled_pair": (),
    "n_tuple": ("item_price_category", "label"),
    "triplet": ("label",),
}


class RowGroupReader:
    """Decode row groups of one split; can be pickled, and used by any number of threads."""

    def __init__(
        self,
        files: SplitFiles,
        vocabularies: DatasetVocabularies,
        columns: Iterable[str] | None = None,
    ) -> None:
        """Select the columns to read.

        Args:
            files: The split.
            vocabularies: Those of its dataset.
            columns: Names of the contract; None for all but sample_id and generation_timestamp.

        Raises:
            ConfigError: The dataset does not offer one of the columns.
        """
        self.files, self.vocabularies = files, vocabularies
        self._sources = _SOURCES[files.shape]
        offered = [
            column.name
            for column in get_columns("train_dataset")
            if column.name not in (*_SKIPPED, *_UNAVAILABLE[files.shape])
            and set(self._list_sources(column.name)) <= set(files.schema.names)
        ]
        self.columns = offered if columns is None else list(dict.fromkeys(columns))
        if unknown := [name for name in self.columns if name not in offered]:
            raise ConfigError(
                f"columns: {unknown[0]!r} is not available; this dataset offers"
                f" {', '.join(offered)}."
            )

    def read(self, row_group: RowGroup) -> CandidateGroups:
        """Decode a row group, its groups in file order.

        Raises InputError when it cannot be read, or has an id or category of no vocabulary.
        """
        sources = dict.fromkeys(
            source for name in self.columns for source in self._list_sources(name)
        )
        table = self._read_table(row_group, list(sources))
        where = f"{self.files.parts[row_group.part]}: row group {row_group.number}"
        users: dict[str, Tensor] = {}
        items: dict[str, Tensor] = {}
        metadata = self._make_metadata(row_group)
        for name in self.columns:
            if name == "label":
                _check_groups(self._decode_candidates(table, name, where), where)
            elif name.startswith("user_") or name in _CONTEXT:
                users[_INDEX_NAMES.get(name, name)] = self._decode_shared(table, name, where)
            elif name.startswith("item_"):
                items[_INDEX_NAMES.get(name, name)] = self._decode_candidates(table, name, where)
            elif name in _GROUP_METADATA:
                metadata[name] = self._decode_shared(table, name, where)
            else:
                metadata[name] = self._decode_candidates(table, name, where)
        return CandidateGroups(users, items, metadata)

    def _read_table(self, row_group: RowGroup, names: list[str]) -> Any:
        """Read columns of the file; what a table is, is left to the methods that decode it."""
        return self.files.read(row_group, names, [name for name in names if self._is_text(name)])

    def _make_metadata(self, row_group: RowGroup) -> dict[str, Tensor]:
        """Count the groups within the split, and the candidates within each group."""
        n, width = row_group.n_groups, self.files.width
        return {
            "group_number": torch.arange(row_group.first, row_group.first + n),
            "slot": torch.from_numpy(np.tile(np.arange(width, dtype=np.int16), (n, 1))),
        }

    def _list_sources(self, name: str) -> tuple[str, ...]:
        """List the file's columns that hold the contract's column `name`."""
        return tuple(filter(None, self._sources.get(name, (name,))))

    def _is_text(self, name: str) -> bool:
        return self.files.schema.field(name).type == pa.string()

    def _decode_shared(self, table: Any, name: str, where: str) -> Tensor:
        """(n,) or, for the sequence, (n, max_length): values that the rows of a group share."""
        if name == SEQUENCE:
            return self._decode_sequences(table, name)
        return self._decode_column(table, name, name, where, self.files.rows_per_group)

    def _decode_sequences(self, table: Any, name: str) -> Tensor:
        return torch.from_numpy(
            _pad(_get_array(table, name), self.files.rows_per_group, self.files.max_length)
        )

    def _decode_candidates(self, table: Any, name: str, where: str) -> Tensor:
        """(n, width): the positive's value, then its negatives'."""
        n = table.num_rows // self.files.rows_per_group
        columns = [
            self._decode_column(table, source, name, where).reshape(n, -1)
            for source in self._list_sources(name)
        ]
        has_zeros = "" in self._sources.get(name, ())
        if len(columns) == 1 and not has_zeros:
            return columns[0]
        values = np.concatenate([column.numpy() for column in columns], axis=1)
        if has_zeros:
            values = np.pad(values, ((0, 0), (1, 0)))
        if self._is_looked_up_by_item(name):
            values = self.vocabularies.item_categories[name][values]
        return torch.from_numpy(values)

    def _is_looked_up_by_item(self, name: str) -> bool:
        """Whether a category is that of each candidate's item: n-tuples do not store it."""
        return self.files.shape == "n_tuple" and name in ITEM_CATEGORIES

    def _decode_column(
        self, table: Any, source: str, name: str, where: str, every: int = 1
    ) -> Tensor:
        """Decode each `every`-th entry of the file's column `source`; lists are flattened."""
        array = _get_array(table, source)
        if pa.types.is_fixed_size_list(array.type):
            array = array.flatten()
        if pa.types.is_dictionary(array.type):
            codes = self.vocabularies.encode(self._get_vocabulary(name), array.dictionary, where)
            return torch.from_numpy(map_dictionary(array, codes, every))
        if every == 1 and not array.null_count and array.type in (pa.float32(), pa.int32()):
            return torch.from_dlpack(array)  # no copy: the tensor is Arrow's memory
        values = _decode_numbers(array, every)
        return torch.from_numpy(
            self._get_channel_codes()[values % 256] if name in CHANNELS else values
        )

    def _get_vocabulary(self, name: str) -> str:
        """Return the column that has the vocabulary of the texts in the column `name`."""
        return "item_id" if "item_id" in self._list_sources(name) else name

    def _get_channel_codes(self) -> np.ndarray:
        """(256,) int32, by int8 channel id: its code, from 1; 0 for unknown channels and null."""
        codes = np.zeros(256, dtype=np.int32)
        for channel, code in self.vocabularies.channels.items():
            codes[channel % 256] = code
        return codes


def _check_groups(label: Tensor, where: str) -> None:
    if not (label[:, 0] == 1).all() or int(label.count_nonzero()) != len(label):
        raise InputError(
            f"{where}: rows are not in groups of a positive and its {label.shape[1] - 1} negatives"
            " (D16).\nUse the files as 'gpu-dcgen build' wrote them, neither sorted nor filtered."
        )


def _get_array(table: pa.Table, name: str) -> pa.Array:
    column = table[name]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _decode_numbers(array: pa.Array, every: int) -> np.ndarray:
    """(n / every,) int32, float32, bool or int64 (times); 0 where null.

    Always a new array: Arrow's memory must not be written to.
    """
    if pa.types.is_boolean(array.type):  # never null
        return array.to_numpy(zero_copy_only=False)[::every].copy()
    is_time = pa.types.is_timestamp(array.type)
    values, is_valid = read_values(array.view(pa.int64()) if is_time else array, every)
    is_small_int = values.dtype.kind == "i" and values.itemsize < 8
    values = values.astype(np.int32 if is_small_int else values.dtype)
    if is_valid is not None:
        values[~is_valid] = 0
    return values


def _pad(array: pa.ListArray, every: int, width: int) -> np.ndarray:
    """(n / every, width) int32: each `every`-th list, with 0 after its end."""
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int32)[
        array.offset : array.offset + len(array) + 1
    ]
    start, length = offsets[:-1:every], np.diff(offsets)[::every]
    values = array.values.to_numpy()
    if not values.size:
        return np.zeros((len(start), width), dtype=np.int32)
    column = np.arange(width)
    # Beyond the end of a list this takes values of the next one, which are then multiplied by 0.
    padded = values.take(start[:, None] + column, mode="clip")
    padded *= column < length[:, None]
    return padded
