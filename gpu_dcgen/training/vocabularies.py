"""The values of a dataset as integers that models take: codes from 1, and 0 for unknown."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..contract.json_files import REBUILD, read_json
from ..errors import InputError
from .files import read_table

ITEM_CATEGORIES = (
    "item_product_group",
    "item_color_group",
    "item_garment_group",
    "item_department",
    "item_index_group",
)
CHANNELS = ("user_preferred_channel", "sales_channel")
_CHUNK_IDS = 65_536  # ids hashed at once: bounds the memory of their bytes as uint64
# Odd factors of the hash polynomial, tried in turn.
_PRIMES = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)


class IdIndex:
    """Positions of millions of ids, in 16 bytes per id beside the ids themselves.

    A sorted array of hashes: no Python object per id, and nothing to build per look-up.
    """

    def __init__(self, ids: pa.Array) -> None:
        """Index distinct ids. InputError if one occurs twice."""
        self._ids = ids
        # Two ids of equal hash would hide one of them: try another hash then.
        for prime in _PRIMES:
            self._prime = prime
            hashes = _hash(ids, prime)
            self._order = np.argsort(hashes, kind="stable")
            self._sorted = hashes[self._order]
            if not (self._sorted[1:] == self._sorted[:-1]).any():
                return
        raise InputError(f"{len(ids):,} ids: some occur twice.\n{REBUILD}")

    def __len__(self) -> int:
        return len(self._ids)

    def find(self, values: pa.Array) -> np.ndarray:
        """Return the position of each text among the ids, -1 if it is not one: (n,) int64.

        Exact: texts of equal hash are compared.
        """
        if not len(self._ids) or not len(values):
            return np.full(len(values), -1, dtype=np.int64)
        place = np.searchsorted(self._sorted, _hash(values, self._prime))
        position = self._order[np.minimum(place, len(self._ids) - 1)]
        is_equal = pc.equal(self._ids.take(pa.array(position)), values).fill_null(False)
        return np.where(is_equal.to_numpy(zero_copy_only=False), position, -1)


def _hash(texts: pa.Array, prime: int) -> np.ndarray:
    """(n,) uint64: a polynomial of the bytes and the length, mixed."""
    return np.concatenate(
        [
            _hash_chunk(texts.slice(start, _CHUNK_IDS), prime)
            for start in range(0, max(1, len(texts)), _CHUNK_IDS)
        ]
    )


def _hash_chunk(texts: pa.Array, prime: int) -> np.ndarray:
    texts = texts.cast(pa.large_string())
    offsets = np.frombuffer(texts.buffers()[1], dtype=np.int64)[
        texts.offset : texts.offset + len(texts) + 1
    ]
    lengths = np.diff(offsets)
    data = np.frombuffer(texts.buffers()[2] or b"", dtype=np.uint8)[offsets[0] : offsets[-1]]
    # All arithmetic wraps: it is modulo 2**64.
    powers = np.cumprod(np.full(int(lengths.max(initial=0)) + 1, prime, dtype=np.uint64))
    place = np.arange(data.size) - np.repeat(offsets[:-1] - offsets[0], lengths)
    terms = (data + np.uint64(1)) * powers[place]
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    hashes = sums[offsets[1:] - offsets[0]] - sums[offsets[:-1] - offsets[0]]
    hashes ^= lengths.astype(np.uint64) * np.uint64(_PRIMES[1])
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return hashes ^ (hashes >> np.uint64(31))


@dataclass(frozen=True)
class DatasetVocabularies:
    """What the integers in batches mean: item_index and user_index, category codes, channels."""

    items: IdIndex  # position + 1 is item_index (D17)
    users: IdIndex  # of user_sequences.parquet; position + 1 is user_index
    categories: dict[str, dict[str, int]]  # column -> value -> code, from 1
    channels: dict[int, int]  # channel id -> code, from 1
    # column -> (n_items + 1,) int32 codes by item_index
    item_categories: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def n_items(self) -> int:
        """Number of items, without the padding."""
        return len(self.items)

    def sizes(self) -> dict[str, int]:
        """Return the rows of the embedding table of each integer column: its codes, and 0."""
        return {
            "user_index": len(self.users) + 1,
            "item_index": len(self.items) + 1,
            **{column: len(values) + 1 for column, values in self.categories.items()},
            **dict.fromkeys(CHANNELS, len(self.channels) + 1),
        }

    def encode(self, column: str, values: pa.Array, where: str) -> np.ndarray:
        """Return the codes of distinct values of a column: (n,) int32.

        Raises InputError, which names `where`, for a value that is in no vocabulary.
        """
        if column in ("user_id", "item_id"):
            codes = (self.users if column == "user_id" else self.items).find(values) + 1
            for place in np.flatnonzero(codes == 0)[:1]:
                raise _make_unknown_error(where, column, values[int(place)].as_py())
            return codes.astype(np.int32)
        known = self.categories[column]
        try:
            return np.array([known[value] for value in values.to_pylist()], dtype=np.int32)
        except KeyError as error:
            raise _make_unknown_error(where, column, error.args[0]) from error


def _make_unknown_error(where: str, column: str, value: str) -> InputError:
    file = {"user_id": "user_sequences.parquet", "item_id": "item_vocabulary.parquet"}.get(
        column, "category_mappings.json"
    )
    return InputError(
        f"{where}: column {column!r} has {value!r}, which is not in {file}.\n"
        f"Files of two datasets are mixed. {REBUILD}"
    )


def load_vocabularies(folder: Path) -> DatasetVocabularies:
    """Read the vocabularies of a dataset.

    Raises InputError when they are missing or damaged, or contradict each other.
    """
    mappings = read_json(folder / "category_mappings.json")["mappings"]
    channels = read_json(folder / "vocabulary.json")["interaction_features"]["channels"]
    path = folder / "item_vocabulary.parquet"
    items = read_table(path, ["item_index", "item_id", *ITEM_CATEGORIES])
    if not np.array_equal(items["item_index"].to_numpy(), np.arange(1, items.num_rows + 1)):
        raise InputError(f"{path}: item_index does not count from 1.\n{REBUILD}")
    users = read_table(folder / "user_sequences.parquet", ["user_id"])
    vocabularies = DatasetVocabularies(
        items=IdIndex(_to_array(items["item_id"])),
        users=IdIndex(_to_array(users["user_id"])),
        categories={
            column: {value: code + 1 for value, code in values.items()}
            for column, values in mappings.items()
        },
        channels={int(channel): code for code, channel in enumerate(sorted(channels, key=int), 1)},
    )
    item_categories = {}
    for name in ITEM_CATEGORIES:
        values = _to_array(items[name])
        codes = vocabularies.encode(name, values.dictionary, str(path))
        padding = np.zeros(1, np.int32)
        item_categories[name] = np.concatenate([padding, map_dictionary(values, codes)])
    return replace(vocabularies, item_categories=item_categories)


def map_dictionary(array: pa.DictionaryArray, codes: np.ndarray, every: int = 1) -> np.ndarray:
    """Return the code of each `every`-th entry, 0 where it is null: (n / every,) int32.

    `codes` are those of the dictionary's values.
    """
    table = np.concatenate([codes, np.zeros(1, np.int32)])  # the last entry is for null
    index, is_valid = read_values(array.indices, every)
    return table.take(index if is_valid is None else np.where(is_valid, index, len(codes)))


def read_values(array: pa.Array, every: int = 1) -> tuple[np.ndarray, np.ndarray | None]:
    """Return each `every`-th entry of an array of numbers, and whether it is valid.

    The first is a view of Arrow's memory, undefined where an entry is null. The second is None if
    no entry of the array is null.
    """
    end = array.offset + len(array)
    # Arrow's names are NumPy's but for these; `to_pandas_dtype` needs pandas in older versions.
    name = str(array.type).replace("timestamp", "datetime64")
    dtype = np.dtype({"float": "float32", "double": "float64"}.get(name, name))
    values = np.frombuffer(array.buffers()[1], dtype=dtype, count=end)[array.offset :: every]
    if not array.null_count:
        return values, None
    bits = np.frombuffer(array.buffers()[0], dtype=np.uint8)
    is_valid = np.unpackbits(bits, count=end, bitorder="little")[array.offset :: every] != 0
    return values, is_valid


def _to_array(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
