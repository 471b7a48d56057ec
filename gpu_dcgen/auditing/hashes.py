"""Draw random numbers and compute content digests (D22) with array operations alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
# What a draw is for.
RANDOM_NEGATIVE, FALLBACK_NEGATIVE, CATEGORY_CROSSING, USER_SPLIT, SHUFFLE, RESAMPLE = range(1, 7)
HARD_NEGATIVE, CALIBRATION_SAMPLE = 9, 10

NULL_HASH = 0x6E756C6C  # "null"
FNV_OFFSET, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
POSITION, LENGTH = 0x706F736974696F6E, 0x6C656E677468  # "position", "length"
NOT_DIGESTED = "generation_timestamp"


def mix(x: int) -> int:
    """Mix the bits of a 64-bit number (splitmix64)."""
    x = (x + GOLDEN) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def mix_all(x: np.ndarray) -> np.ndarray:
    """Return `mix` of each of uint64 (n,)."""
    x = x + np.uint64(GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def make_key(seed: int, purpose: int, *parts: int) -> int:
    """Fold the purpose of a draw and its parts over the seed."""
    h = mix(seed & MASK)
    for part in (purpose, *parts):
        h = mix(h ^ (int(part) & MASK))
    return h


def make_keys(seed: int, purpose: int, *parts: np.ndarray) -> np.ndarray:
    """Return `make_key` of each row of integer arrays (n,): uint64 (n,)."""
    h = np.full(len(parts[0]), make_key(seed, purpose), dtype=np.uint64)
    for part in parts:
        h = mix_all(h ^ part.astype(np.int64).view(np.uint64))
    return h


def draw_below(key: int, counter: int, n: int) -> int:
    """Return draw number `counter` of a key, in 0..n-1."""
    return (mix((key + counter * GOLDEN) & MASK) * n) >> 64


class ColumnDigests:
    """Digests of a file's columns, from its rows in order, any number at a time."""

    def __init__(self) -> None:
        self.n_rows = 0
        self._sums: dict[str, int] = {}

    def add(self, table: pa.Table | pa.RecordBatch, rows_per_group: int = 1) -> None:
        """Add the next rows; a list that all rows of a group share is hashed once."""
        position = mix_all(
            np.arange(self.n_rows, self.n_rows + table.num_rows, dtype=np.uint64)
            ^ np.uint64(POSITION)
        )
        for name in table.schema.names:
            if name != NOT_DIGESTED:
                hashes = hash_column(table[name], rows_per_group)
                total = int(mix_all(position ^ hashes).sum(dtype=np.uint64))
                self._sums[name] = (self._sums.get(name, 0) + total) & MASK
        self.n_rows += table.num_rows

    def to_hex(self) -> dict[str, str]:
        """Return the digest of each column, 16 hexadecimal digits, by name."""
        return {name: f"{total:016x}" for name, total in sorted(self._sums.items())}


def hash_column(column: pa.Array | pa.ChunkedArray, rows_per_group: int = 1) -> np.ndarray:
    """Hash each value of a column: uint64 (n,). TypeError for types that no output has."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if types.is_dictionary(column.type):
        hashes = np.append(hash_texts(column.dictionary), np.uint64(NULL_HASH))
        return hashes[column.indices.cast(pa.int64()).fill_null(len(hashes) - 1).to_numpy()]
    if types.is_string(column.type):
        return hash_texts(column)
    if types.is_fixed_size_list(column.type):
        lengths = np.full(len(column), column.type.list_size)
        return _fold_lists(lengths, hash_column(column.flatten()))
    if types.is_list(column.type):
        return _hash_lists(column, rows_per_group)
    return _hash_numbers(column)


def _hash_numbers(column: pa.Array) -> np.ndarray:
    bits = {"float": np.uint32, "double": np.uint64}.get(str(column.type))
    if bits is not None:
        values = column.fill_null(0.0).to_numpy(zero_copy_only=False).view(bits).astype(np.uint64)
    elif types.is_timestamp(column.type):
        values = (
            column.cast(pa.timestamp("ns")).view(pa.int64()).fill_null(0).to_numpy().view(np.uint64)
        )
    elif types.is_integer(column.type):
        values = column.fill_null(0).to_numpy().astype(np.int64).view(np.uint64)
    elif types.is_boolean(column.type):
        values = column.fill_null(False).to_numpy(zero_copy_only=False).astype(np.uint64)
    else:
        raise TypeError(f"no output has a column of type {column.type}")
    return _set_nulls(mix_all(values), column)


def _set_nulls(hashes: np.ndarray, column: pa.Array) -> np.ndarray:
    """Put NULL_HASH where the column is null."""
    if column.null_count:
        hashes[column.is_null().to_numpy(zero_copy_only=False)] = NULL_HASH
    return hashes


def hash_texts(texts: pa.Array) -> np.ndarray:
    """Hash texts by FNV-1a over their UTF-8 bytes, then `mix`: uint64 (n,)."""
    texts = texts.cast(pa.large_string())
    lengths = pc.binary_length(texts).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    starts = (
        np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts)]
        if len(texts)
        else lengths
    )
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)
    h = np.full(len(texts), FNV_OFFSET, dtype=np.uint64)
    # All texts that are long enough advance by one byte at a time.
    n_common = int(lengths.min()) if len(lengths) else 0
    for position in range(n_common):
        h = (h ^ data[starts + position].astype(np.uint64)) * np.uint64(FNV_PRIME)
    live = np.arange(len(texts))
    for position in range(n_common, int(lengths.max(initial=0))):
        live = live[lengths[live] > position]
        h[live] = (h[live] ^ data[starts[live] + position].astype(np.uint64)) * np.uint64(FNV_PRIME)
    return _set_nulls(mix_all(h), texts)


def _hash_lists(column: pa.ListArray, rows_per_group: int) -> np.ndarray:
    if rows_per_group > 1 and len(column) % rows_per_group == 0:
        n_groups = len(column) // rows_per_group
        firsts = column.take(pa.array(np.arange(n_groups) * rows_per_group))
        if firsts.take(pa.array(np.repeat(np.arange(n_groups), rows_per_group))).equals(column):
            return np.repeat(_hash_lists(firsts, 1), rows_per_group)
    lengths = pc.list_value_length(column).fill_null(0).to_numpy().astype(np.int64)
    return _set_nulls(_fold_lists(lengths, _hash_numbers(column.flatten())), column)


def _fold_lists(lengths: np.ndarray, elements: np.ndarray) -> np.ndarray:
    """Fold the hashes of each list's elements over its length."""
    starts = np.cumsum(lengths) - lengths
    h = mix_all(lengths.astype(np.uint64) ^ np.uint64(LENGTH))
    live = np.arange(len(lengths))
    for position in range(int(lengths.max(initial=0))):
        live = live[lengths[live] > position]
        h[live] = mix_all(h[live] ^ elements[starts[live] + position])
    return h
