"""Row kernels over users: one row is one user's run of interactions."""

from __future__ import annotations

from . import row_kernel


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
