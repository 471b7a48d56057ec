"""Encode sample ids as DELTA_BYTE_ARRAY, without making the ids.

Each id is stored as the number of bytes that it shares with the one before, and the other bytes.
Within a group these are the same in each group; from group to group the ten digits count up.
"""

from __future__ import annotations

from itertools import pairwise
from os.path import commonprefix
from typing import Any, NamedTuple

import numba
import numpy as np

from .hybrid import encode_delta
from .parquet import GROUP_DIGITS


class _Slots(NamedTuple):
    """The ends of ids, `-{slot:02d}`, as they differ from the one before."""

    shared: np.ndarray  # (slots,) int32  bytes of the slot before that a slot begins with
    lengths: np.ndarray  # (slots,) int32  of its other bytes
    text: np.ndarray  # uint8  these bytes of all slots


def encode_sample_ids(column: Any, first: int, last: int) -> list[np.ndarray]:
    """Return the encoded ids of groups first..last-1 of a `SampleIds` column, as buffers."""
    head = np.frombuffer(f"{column.split}-".encode(), np.uint8)
    names = [f"-{slot:02d}" for slot in range(column.rows_per_group)]
    shared = [0, *(len(commonprefix(pair)) for pair in pairwise(names))]
    endings = [name[n:].encode() for name, n in zip(names, shared, strict=True)]
    slots = _Slots(
        np.array(shared, np.int32),
        np.array([len(ending) for ending in endings], np.int32),
        np.frombuffer(b"".join(endings), np.uint8),
    )
    n_groups, n_rows = last - first, (last - first) * len(names)
    prefixes, suffixes = np.empty(n_rows, np.int32), np.empty(n_rows, np.int32)
    # Of the groups after the first, the head is shared.
    text = np.empty(len(head) + n_groups * (GROUP_DIGITS + len(slots.text)), np.uint8)
    digits = np.array([int(digit) for digit in f"{column.first_group + first:0{GROUP_DIGITS}d}"])
    n_bytes = _write_groups(n_groups, head, digits, slots, prefixes, suffixes, text)
    return [encode_delta(prefixes), encode_delta(suffixes), text[:n_bytes]]


def count_group_bytes(column: Any) -> int:
    """Return the bytes of the ids of one group, as they are read."""
    head = len(f"{column.split}-") + GROUP_DIGITS
    return sum(head + len(f"-{slot:02d}") for slot in range(column.rows_per_group))


@numba.njit(nogil=True, cache=True)
def _write_groups(n_groups, head, digits, slots, prefixes, suffixes, text):
    """Write shared bytes and others of each id, and these others; return their bytes in all.

    `digits` are those of the first group, and count up.
    """
    n_head, n_digits, n_slots = len(head), len(digits), len(slots.lengths)
    # The first id is stored whole.
    text[:n_head] = head
    row, at, n_equal = 0, n_head, 0
    for group in range(n_groups):
        prefixes[row] = n_head + n_equal if group > 0 else 0
        suffixes[row] = n_digits - n_equal + slots.lengths[0] + (0 if group > 0 else n_head)
        for place in range(n_equal, n_digits):
            text[at] = digits[place] + 48
            at += 1
        for slot in range(1, n_slots):
            prefixes[row + slot] = n_head + n_digits + slots.shared[slot]
            suffixes[row + slot] = slots.lengths[slot]
        for k in range(len(slots.text)):
            text[at + k] = slots.text[k]
        at += len(slots.text)
        row += n_slots
        n_equal = n_digits - 1
        while n_equal > 0 and digits[n_equal] == 9:
            digits[n_equal] = 0
            n_equal -= 1
        digits[n_equal] += 1
    return at
