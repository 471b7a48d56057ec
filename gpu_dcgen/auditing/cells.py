"""Columns as whole numbers that can be compared: one writing for what was read, one for what must be there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

NULL = np.iinfo(np.int64).min
OTHER = NULL + 1  # a text that is not in the vocabulary


def numbers(column: pa.Array) -> np.ndarray:
    """Values (n,) int64, NULL for null; floats as their 32 bits, so that equal means equal to the last bit."""
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


def float_bits(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).view(np.uint32).astype(np.int64)


def floats_or_null(values: np.ndarray) -> np.ndarray:
    """What `numbers` gives of a column of these float32, null where they are NaN."""
    return np.where(np.isnan(values), NULL, float_bits(values))


def codes(column: pa.Array, vocabulary: pa.Array) -> np.ndarray:
    """Positions of texts in a vocabulary (n,) int64; NULL for null, OTHER for what it does not hold."""
    if not types.is_dictionary(column.type):
        column = column.dictionary_encode()
    places = (
        pc.index_in(column.dictionary, value_set=vocabulary)
        .cast(pa.int64())
        .fill_null(OTHER)
        .to_numpy()
    )
    places = np.append(places, NULL)
    return places[column.indices.cast(pa.int64()).fill_null(len(places) - 1).to_numpy()]


@dataclass(frozen=True)
class Want:
    """What a column must hold: whole numbers as `numbers` or `codes` gives them, and how to show one."""

    values: np.ndarray  # (n,) int64
    show: Callable[[int], Any]

    def repeated(self, n: int) -> Want:
        return Want(np.repeat(self.values, n), self.show)


def want_numbers(values: np.ndarray) -> Want:
    return Want(values.astype(np.int64), lambda value: None if value == NULL else value)


def want_optional(values: np.ndarray) -> Want:
    """Whole numbers, -1 for null."""
    return want_numbers(_nulled(values))


def _nulled(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.int64)
    return np.where(values < 0, NULL, values)


def want_floats(values: np.ndarray) -> Want:
    """Float32, NaN for null."""
    return Want(
        floats_or_null(values),
        lambda bits: None if bits == NULL else float(np.uint32(bits).view(np.float32)),
    )


def want_texts(values: np.ndarray, vocabulary: pa.Array) -> Want:
    """Codes into a vocabulary, -1 for null."""
    return Want(
        _nulled(values), lambda code: None if code == NULL else vocabulary[int(code)].as_py()
    )


def read(column: pa.Array, vocabulary: pa.Array | None) -> np.ndarray:
    return numbers(column) if vocabulary is None else codes(column, vocabulary)


def flat(column: Any) -> pa.Array:
    """One plain array of a column."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
