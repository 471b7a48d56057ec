"""The values of a dataset as integers that models take: codes from 1, and 0 for what is unknown."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..contract.json_files import read_json
from ..errors import InputError
from .files import read_table

ITEM_CATEGORIES = (
    "item_product_group",
    "item_color_group",
    "item_garment_group",
    "item_department",
    "item_index_group",
)
_CHUNK = 65_536  # ids hashed at once: bounds the memory of their bytes as uint64
_PRIMES = (
    0x9E3779B97F4A7C15,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
)  # odd factors of the polynomial, tried in turn


class IdIndex:
    """Finds strings in a list of millions without a Python object or a hash table each time: 16 bytes an id beside the ids."""

    def __init__(self, ids: pa.Array) -> None:
        """`ids` are distinct. Hashes of two that agree would hide one: another hash is taken then."""
        self._ids = ids
        for prime in _PRIMES:
            self._prime = prime
            hashes = _hashes(ids, prime)
            self._order = np.argsort(hashes, kind="stable")
            self._sorted = hashes[self._order]
            if not (self._sorted[1:] == self._sorted[:-1]).any():
                return
        raise InputError(
            f"{len(ids):,} ids: some are there twice.\nCopy the dataset again, or build it anew."
        )

    def __len__(self) -> int:
        return len(self._ids)

    def find(self, values: pa.Array) -> np.ndarray:
        """(n,) int64: the position of each string among the ids, -1 where it is none of them. Exact: candidates are compared."""
        if not len(self._ids) or not len(values):
            return np.full(len(values), -1, dtype=np.int64)
        at = np.searchsorted(self._sorted, _hashes(values, self._prime))
        position = self._order[np.minimum(at, len(self._ids) - 1)]
        same = pc.equal(self._ids.take(pa.array(position)), values).fill_null(False)
        return np.where(same.to_numpy(zero_copy_only=False), position, -1)


def _hashes(strings: pa.Array, prime: int) -> np.ndarray:
    """(n,) uint64: a polynomial of the bytes and the length, mixed."""
    return np.concatenate(
        [
            _hash_chunk(strings.slice(start, _CHUNK), prime)
            for start in range(0, max(1, len(strings)), _CHUNK)
        ]
    )


def _hash_chunk(strings: pa.Array, prime: int) -> np.ndarray:
    strings = strings.cast(pa.large_string())
    offsets = np.frombuffer(strings.buffers()[1], dtype=np.int64)[
        strings.offset : strings.offset + len(strings) + 1
    ]
    lengths = np.diff(offsets)
    data = np.frombuffer(strings.buffers()[2] or b"", dtype=np.uint8)[offsets[0] : offsets[-1]]
    powers = np.cumprod(
        np.full(int(lengths.max(initial=0)) + 1, prime, dtype=np.uint64)
    )  # wraps: all is mod 2^64
    place = np.arange(data.size) - np.repeat(offsets[:-1] - offsets[0], lengths)
    sums = np.concatenate(
        [np.zeros(1, np.uint64), np.cumsum((data + np.uint64(1)) * powers[place], dtype=np.uint64)]
    )
    hashes = sums[offsets[1:] - offsets[0]] - sums[offsets[:-1] - offsets[0]]
    hashes ^= lengths.astype(np.uint64) * np.uint64(_PRIMES[1])
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return hashes ^ (hashes >> np.uint64(31))


@dataclass(frozen=True)
class Vocabularies:
    """What integers mean: item_index and user_index, category codes, channels."""

    items: IdIndex  # position + 1 is item_index (D17)
    users: IdIndex  # of user_sequences.parquet; position + 1 is user_index
    categories: dict[str, dict[str, int]]  # column -> value -> code, from 1
    channels: dict[int, int]  # channel id -> code, from 1
    item_categories: dict[str, np.ndarray] = field(
        default_factory=dict
    )  # column -> (items + 1,) int32 codes by item_index

    @property
    def n_items(self) -> int:
        return len(self.items)

    def sizes(self) -> dict[str, int]:
        """Rows of the embedding table of each integer column: the codes and 0 for unknown."""
        return {
            "user_index": len(self.users) + 1,
            "item_index": len(self.items) + 1,
            **{column: len(values) + 1 for column, values in self.categories.items()},
            **dict.fromkeys(("user_preferred_channel", "sales_channel"), len(self.channels) + 1),
        }

    def codes(self, column: str, values: pa.Array, where: str) -> np.ndarray:
        """(n,) int32 codes of a dictionary's values; InputError naming `where` for a value that is in no vocabulary."""
        if column in ("user_id", "item_id"):
            found = (self.users if column == "user_id" else self.items).find(values) + 1
            for at in np.flatnonzero(found == 0)[:1]:
                raise _unknown(where, column, values[int(at)].as_py())
            return found.astype(np.int32)
        known = self.categories[column]
        try:
            return np.array([known[value] for value in values.to_pylist()], dtype=np.int32)
        except KeyError as error:
            raise _unknown(where, column, error.args[0]) from error


def _unknown(where: str, column: str, value: str) -> InputError:
    source = {"user_id": "user_sequences.parquet", "item_id": "item_vocabulary.parquet"}.get(
        column, "category_mappings.json"
    )
    return InputError(
        f"{where}: column {column!r} has {value!r}, which {source} does not know.\n"
        "Files of two datasets are mixed: copy the dataset again, or build it anew."
    )


def load_vocabularies(folder: Path) -> Vocabularies:
    """Read the vocabularies of a dataset. InputError when they are missing, damaged, or contradict each other."""
    mappings = read_json(folder / "category_mappings.json")["mappings"]
    categories = {
        column: {value: code + 1 for value, code in values.items()}
        for column, values in mappings.items()
    }
    channels = read_json(folder / "vocabulary.json")["interaction_features"]["channels"]
    items = read_table(
        folder / "item_vocabulary.parquet", ["item_index", "item_id", *ITEM_CATEGORIES]
    )
    if not np.array_equal(items["item_index"].to_numpy(), np.arange(1, items.num_rows + 1)):
        raise InputError(
            f"{folder / 'item_vocabulary.parquet'}: item_index does not count from 1.\nBuild the dataset anew."
        )
    users = read_table(folder / "user_sequences.parquet", ["user_id"])
    known = Vocabularies(
        items=IdIndex(_one_array(items["item_id"])),
        users=IdIndex(_one_array(users["user_id"])),
        categories=categories,
        channels={int(channel): code for code, channel in enumerate(sorted(channels, key=int), 1)},
    )
    where = str(folder / "item_vocabulary.parquet")
    return replace(
        known,
        item_categories={
            name: _static_codes(name, items, known, where) for name in ITEM_CATEGORIES
        },
    )


def _static_codes(column: str, items: pa.Table, known: Vocabularies, where: str) -> np.ndarray:
    values = _one_array(items[column])
    return np.concatenate(
        [
            np.zeros(1, np.int32),
            dictionary_codes(values, known.codes(column, values.dictionary, where)),
        ]
    )


def dictionary_codes(array: pa.DictionaryArray, codes: np.ndarray, every: int = 1) -> np.ndarray:
    """(n / every,) int32: the code of each `every`-th entry, given those of the dictionary's values; 0 where it is null."""
    table = np.concatenate([codes, np.zeros(1, np.int32)])  # the last one for nulls
    index, there = entries(array.indices, every)
    return table.take(index if there is None else np.where(there, index, len(codes)))


def entries(array: pa.Array, every: int = 1) -> tuple[np.ndarray, np.ndarray | None]:
    """Each `every`-th entry of an array of numbers, and whether it is there; None when all are. A view of Arrow's memory.

    Where an entry is null, its value is undefined.
    """
    kind = np.dtype(array.type.to_pandas_dtype())
    values = np.frombuffer(array.buffers()[1], dtype=kind, count=array.offset + len(array))[
        array.offset :: every
    ]
    if not array.null_count:
        return values, None
    bits = np.frombuffer(array.buffers()[0], dtype=np.uint8)
    return values, np.unpackbits(bits, count=array.offset + len(array), bitorder="little")[
        array.offset :: every
    ] != 0


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
