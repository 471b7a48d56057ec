"""Encode columns as whole numbers: those of a file, and those that it must have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as types

from .texts import Vocabulary, find_positions

NULL = int(np.iinfo(np.int64).min)
NOT_IN_VOCABULARY = NULL + 1


def as_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def encode_column(column: pa.Array, vocabulary: pa.Array | Vocabulary | None) -> np.ndarray:
    """Encode a column of numbers, or of texts where there is a vocabulary: (n,) int64."""
    return encode_numbers(column) if vocabulary is None else encode_texts(column, vocabulary)


def encode_numbers(column: pa.Array) -> np.ndarray:
    """Encode numbers as (n,) int64, NULL for null; a float as its 32 bits, so == is exact."""
    if types.is_floating(column.type):
        values = float_bits(column.fill_null(0.0).to_numpy(zero_copy_only=False))
    elif types.is_timestamp(column.type):
        values = column.cast(pa.timestamp("ns")).view(pa.int64()).fill_null(0).to_numpy()
    elif types.is_boolean(column.type):
        values = column.fill_null(False).to_numpy(zero_copy_only=False).astype(np.int64)
    else:
        values = column.fill_null(0).to_numpy().astype(np.int64)
    if column.null_count:
        values = np.where(column.is_null().to_numpy(zero_copy_only=False), NULL, values)
    return values


def encode_texts(column: pa.Array, vocabulary: pa.Array | Vocabulary) -> np.ndarray:
    """Encode texts as positions in a vocabulary: (n,) int64, NULL or NOT_IN_VOCABULARY."""
    if not types.is_dictionary(column.type):
        column = column.dictionary_encode()
    if isinstance(vocabulary, Vocabulary):
        positions = vocabulary.find(column.dictionary)
    else:
        positions = find_positions(column.dictionary, vocabulary)
    positions = np.append(np.where(positions < 0, NOT_IN_VOCABULARY, positions), NULL)
    return positions[column.indices.cast(pa.int64()).fill_null(len(positions) - 1).to_numpy()]


def float_bits(values: np.ndarray) -> np.ndarray:
    """Return the bits of float32 values as int64."""
    return values.astype(np.float32).view(np.uint32).astype(np.int64)


def float_of_bits(bits: int) -> float:
    """Return the float32 that has these bits."""
    return float(np.uint32(bits).view(np.float32))


@dataclass(frozen=True)
class ExpectedColumn:
    """What a column must hold, encoded as `encode_column` does, and how to show a value."""

    values: np.ndarray  # (n,) int64
    show: Callable[[int], Any]

    def repeat(self, n: int) -> ExpectedColumn:
        """Return each value `n` times in a row."""
        return ExpectedColumn(np.repeat(self.values, n), self.show)


def expect_numbers(values: np.ndarray) -> ExpectedColumn:
    """Expect whole numbers, NULL for null."""
    return ExpectedColumn(values.astype(np.int64), lambda value: None if value == NULL else value)


def expect_optional_numbers(values: np.ndarray) -> ExpectedColumn:
    """Expect whole numbers, null where they are -1."""
    return expect_numbers(_negative_to_null(values))


def expect_floats(values: np.ndarray) -> ExpectedColumn:
    """Expect these float32 to the bit, null where they are NaN."""
    return ExpectedColumn(
        np.where(np.isnan(values), NULL, float_bits(values)),
        lambda bits: None if bits == NULL else float_of_bits(bits),
    )


def expect_texts(codes: np.ndarray, vocabulary: pa.Array) -> ExpectedColumn:
    """Expect the texts of codes into a vocabulary, null where they are -1."""
    return ExpectedColumn(
        _negative_to_null(codes),
        lambda code: None if code == NULL else vocabulary[int(code)].as_py(),
    )


def _negative_to_null(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.int64)
    return np.where(values < 0, NULL, values)
