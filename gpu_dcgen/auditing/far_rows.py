"""Find the purchases that a gap separates from nearly all others (D7)."""

from __future__ import annotations

import math

import numpy as np

N_PARTS = 2**16


def mark_far_rows(time: np.ndarray) -> np.ndarray:
    """Mark the rows of at most 1 % at each end of the log beyond a gap: (n,) bool."""
    is_far = np.zeros(len(time), dtype=bool)
    if len(time) < 20:
        return is_far
    width = -((int(time.min()) - int(time.max()) - 1) // N_PARTS)
    part = (time - time.min()) // width
    ranked = np.sort(part)
    n_end = max(1, len(time) // 100)
    low, high = int(ranked[n_end]), int(ranked[len(time) - 1 - n_end])
    middle = max(1, high - low)
    longest = max(0.03 * middle, math.ceil(20 * middle / len(time)))
    filled = np.unique(part)
    is_gap = np.diff(filled) - 1 > longest
    # Gaps end at filled[k + 1]; those at or before `low` are before the middle.
    ends_before = filled[1:][is_gap & (filled[1:] <= low)]
    starts_after = filled[:-1][is_gap & (filled[:-1] >= high)]
    if len(ends_before):
        is_far |= part < ends_before[-1]
    if len(starts_after):
        is_far |= part > starts_after[0]
    return is_far
