"""Row kernels over users: one row is one user's run of interactions."""

from __future__ import annotations

from typing import Any, NamedTuple

from . import row_kernel
from .draws import first_not_before


class SequenceRules(NamedTuple):
    """How the sequences of users are divided and weighted."""

    gap: int  # nanoseconds: a longer one starts the next session
    day: int  # nanoseconds
    decay: Any  # (D,) float32  recency by whole days


class Sequences(NamedTuple):
    """The interactions of users' sequences, end to end."""

    row: Any  # (m,) int32 or int64
    session: Any  # (m,) int16  from 0
    recency: Any  # (m,) float32


@row_kernel(scratch=True)
def preferred_channels(user, lane, user_offsets, basket_start, channel, seen, preferred):
    """Find a user's most frequent known channel before each interaction, -1 if none (D6).

    user_offsets (U+1,) int64; basket_start (E,) int64; channel (E,) int8, -1 unknown; seen (lanes,
    128) int32 scratch; preferred (E,) int8 is written. Ties go to the lower id.
    """
    start, stop = user_offsets[user], user_offsets[user + 1]
    for c in range(seen.shape[1]):
        seen[lane, c] = 0
    counted = start  # interactions before this one are in `seen`
    best = -1
    for row in range(start, stop):
        while counted < basket_start[row]:
            c = channel[counted]
            if c >= 0:
                seen[lane, c] += 1
                if (
                    best < 0
                    or seen[lane, c] > seen[lane, best]
                    or (seen[lane, c] == seen[lane, best] and c < best)
                ):
                    best = c
            counted += 1
        preferred[row] = best


@row_kernel
def number_baskets(user, user_offsets, tick, basket_start, basket):
    """Find a user's baskets, the rows at one time, and count them from 0.

    Written for each row: basket_start (E,), the first row of its basket, and basket (E,) int32.
    """
    first = user_offsets[user]
    start, number = first, 0
    for row in range(first, user_offsets[user + 1]):
        if tick[row] != tick[start]:
            start = row
            number += 1
        basket_start[row] = start
        basket[row] = number


@row_kernel
def mark_over_cap(user, user_offsets, window, refused, cap, is_over):
    """Mark a user's rows that are not among the latest `cap` of their window.

    Written: is_over (E,) bool, of rows that count.
    window (E,) int8 rises within a user; rows with refused (E,) uint8 above 0 do not count.
    """
    counted, previous = 0, -1
    for back in range(user_offsets[user + 1] - user_offsets[user]):
        row = user_offsets[user + 1] - 1 - back
        if window[row] != previous:
            previous = window[row]
            counted = 0
        if refused[row] == 0:
            counted += 1
            is_over[row] = counted > cap


@row_kernel
def count_rows_before(user, user_offsets, time, split, ends, n_before):
    """Count a user's rows before the end of its split's window; 0 in no split, -1.

    time (E,) int64 rises within a user; split (U,) int8; written: n_before (U,) int64.
    """
    first = stop = user_offsets[user]
    if split[user] >= 0:
        stop = first_not_before(time, first, user_offsets[user + 1], ends[split[user]])
    n_before[user] = stop - first


@row_kernel(min_rows=256)
def lay_out_sequence(entry, offsets, first_row, last_time, time, rules, sequences):
    """Write a user's sequence to its run of `offsets` (n+1,): rows from first_row[entry] on.

    Recency is that of the whole days before last_time[entry].
    """
    row, session = first_row[entry], 0
    for place in range(offsets[entry], offsets[entry + 1]):
        if place > offsets[entry] and time[row] - time[row - 1] > rules.gap:
            session += 1
        sequences.row[place] = row
        sequences.session[place] = session
        sequences.recency[place] = rules.decay[(last_time[entry] - time[row]) // rules.day]
        row += 1
