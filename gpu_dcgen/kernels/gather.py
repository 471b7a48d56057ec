"""Row kernels that read arrays in another order, so that no copy in that order is made.

Positions are int32 or int64.
"""

from __future__ import annotations

import numpy as np

from . import row_kernel


@row_kernel
def gather_values(row, values, index, out):
    """Read values[index[row]] into out[row]."""
    out[row] = values[index[row]]


@row_kernel
def add_to_key(row, values, shift, keys):
    """Write a value to the bits of keys[row] (n,) int64 from `shift` on, which are zero."""
    keys[row] |= np.int64(values[row]) << shift


@row_kernel
def mark_changes(row, values, order, starts):
    """Set starts[row] (n,) bool where values[order[row]] differs from the one before."""
    if row == 0 or values[order[row]] != values[order[row - 1]]:
        starts[row] = True


@row_kernel
def find_run_maxima(run, values, order, first, maxima):
    """Find the largest value of each run, which has order[first[run] : first[run + 1]].

    order (n,), first (m,) rising, maxima (m,).
    """
    stop = first[run + 1] if run + 1 < first.shape[0] else order.shape[0]
    largest = values[order[first[run]]]
    for place in range(first[run] + 1, stop):
        if values[order[place]] > largest:
            largest = values[order[place]]
    maxima[run] = largest


@row_kernel
def mark_later(run, values, order, first, is_later):
    """Set is_later[row] (n,) bool where a value is larger than that of its run's first row.

    order (n,) has the rows of run after run; first (m,) where each begins.
    """
    stop = first[run + 1] if run + 1 < first.shape[0] else order.shape[0]
    earliest = values[order[first[run]]]
    for place in range(first[run], stop):
        is_later[order[place]] = values[order[place]] > earliest


@row_kernel
def find_day_starts(item, item_offsets, by_item, time, day, day_start):
    """Find the place in `by_item` (E,) of an item's first sale of the same day as each sale.

    `time` (E,) int64 is in the unit of which a day has `day`. Written: day_start (E,).
    """
    first = item_offsets[item]
    start = first
    for place in range(first, item_offsets[item + 1]):
        if time[by_item[place]] // day != time[by_item[start]] // day:
            start = place
        day_start[place] = start
