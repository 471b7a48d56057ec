"""Blocks of rows on their way to a file: columns as arrays of a backend.

A column has one entry a row, or one entry a group of `repeats` adjacent rows (a group's user, time,
calendar and sequence are the same on all its rows). Writers and digests expand it as late as
possible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .protocol import Array

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Values:
    """Fixed-width values: integers, float32, bool, or timestamps as int64 nanoseconds."""

    values: Array  # (n,)
    valid: Array | None = None  # (n,) bool; None: no nulls
    repeats: int = 1

    @property
    def n_entries(self) -> int:
        """The entries, each of which stands for `repeats` rows."""
        return int(self.values.shape[0])


@dataclass(frozen=True)
class Codes:
    """Codes into a vocabulary of strings; the schema decides between string and dictionary."""

    codes: Array  # (n,) integer  -1 for null
    vocabulary: Vocabulary
    repeats: int = 1

    @property
    def n_entries(self) -> int:
        """The entries, each of which stands for `repeats` rows."""
        return int(self.codes.shape[0])


@dataclass(frozen=True)
class Vocabulary:
    """Strings that codes index, with the digest hash of each (`digest.hash_strings`)."""

    strings: pa.Array  # (v,) string, on the host
    hashes: Array  # (v,) uint64


@dataclass(frozen=True)
class Lists:
    """Lists as slices of `values`: entry e is values[starts[e] : starts[e] + lengths[e]]."""

    values: Array  # (m,) int32, int16, int64 (timestamps) or float32
    starts: Array  # (n,) int64
    lengths: Array  # (n,) int32
    repeats: int = 1

    @property
    def n_entries(self) -> int:
        """The entries, each of which stands for `repeats` rows."""
        return int(self.lengths.shape[0])


@dataclass(frozen=True)
class Matrix:
    """Fixed-size lists, the rows of an array; with a `vocabulary`, its elements are codes."""

    values: Array  # (n, width)
    valid: Array | None = None  # (n, width) bool: which elements are not null
    vocabulary: Vocabulary | None = None
    repeats: int = 1

    @property
    def n_entries(self) -> int:
        """The entries, each of which stands for `repeats` rows."""
        return int(self.values.shape[0])


@dataclass(frozen=True)
class SampleIds:
    """Sample ids `{split}-{group:010d}-{slot:02d}` of whole groups from `first_group` on."""

    split: str
    first_group: int
    n_groups: int
    rows_per_group: int

    @property
    def n_entries(self) -> int:
        """The entries: groups."""
        return self.n_groups


@dataclass(frozen=True)
class Block:
    """Rows of one file in order, which a part writer appends."""

    first_row: int  # position of the first row in the whole file, over all its parts
    n_rows: int
    columns: dict[str, Values | Codes | Lists | Matrix | SampleIds]  # in schema order
