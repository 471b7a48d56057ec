"""Find the rows at the ends of a log that are far from all others (D7)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from ..backend.protocol import Array, Backend
from ..backend.runs import count_codes
from ..config import DatasetConfig
from ..errors import spell_option, spell_setting
from .rejects import FAR_FROM_OTHERS, REASONS
from .sources import Source

_SECOND = 10**9  # nanoseconds
_DAY = 86_400 * _SECOND
_N_PARTS = 1 << 16  # of equal length into which the time of the log is divided
_MAX_SHARE = 100  # at most one row in this many is far from the others, at each end
_MIN_GAP_SHARE = 0.03  # of the time between the ends: about the window that such a row distorts
_MIN_GAP_ROWS = 20  # mean distances between rows; by chance, none is as long
_MIN_ROWS = 20  # fewer rows have no mean distance to speak of
_BLOCK_ROWS = 1 << 22  # looked at together; bounds the memory


@dataclass(frozen=True)
class SparseEnds:
    """Rows that are far from all others: those before `first` and those after `last`."""

    first: int  # nanoseconds: time of the first row that is not far
    last: int  # and of the last one
    n_before: int
    n_after: int

    def contain(self, time: Array) -> Array:
        """Return whether each `time` (n,) int64 is far from the others: (n,) bool."""
        return (time < self.first) | (time > self.last)


def check_ends(
    time: Array, reason: Array, source: Source, config: DatasetConfig, backend: Backend
) -> Iterator[str]:
    """Warn of purchases far from all others; with `on_bad_rows: reject`, give them a reason.

    They matter where the shares cut the time. time (n,) int64 and `reason` (n,) uint8 are those of
    all rows; `reason` is changed in place.
    """
    split = config.split
    if source.table != "transactions" or split.windows != "calendar" or split.cuts is not None:
        return
    is_accepted = reason == 0
    ends = find_sparse_ends(time if bool(is_accepted.all()) else time[is_accepted], backend)
    if ends is None:
        return
    yield _describe(ends, time, is_accepted, source, config, backend)
    if config.inputs.on_bad_rows == "reject":
        number = list(REASONS["transactions"]).index(FAR_FROM_OTHERS) + 1
        reason[is_accepted & ends.contain(time)] = number


def find_sparse_ends(time: Array, backend: Backend) -> SparseEnds | None:
    """Find the rows of at most 1 % at each end that a gap separates from all others.

    The time (n,) int64 of the log is divided into 65,536 equal parts. The middle is from the part
    of the first row to that of the last, without 1 % of the rows at each end, at least one. A gap
    is longer than 3 % of the middle, and than 20 times the middle over the number of rows. None
    where there is no such gap, or where there are fewer than 20 rows.
    """
    xp, n_rows = backend.xp, int(time.shape[0])
    if n_rows < _MIN_ROWS:
        return None
    first, last = int(time.min()), int(time.max())
    width = max(1, -(-(last - first + 1) // _N_PARTS))
    counts = sum(
        count_codes(xp, (time[start : start + _BLOCK_ROWS] - first) // width, _N_PARTS)
        for start in range(0, n_rows, _BLOCK_ROWS)
    )
    filled = xp.nonzero(counts)[0]
    parts = backend.to_host(filled).tolist()
    sizes = backend.to_host(counts[filled]).tolist()
    n_end = max(1, n_rows // _MAX_SHARE)
    low = _find_rank(sizes, n_end)
    high = len(sizes) - 1 - _find_rank(sizes[::-1], n_end)
    middle = max(1, parts[high] - parts[low])
    gap = max(_MIN_GAP_SHARE * middle, math.ceil(_MIN_GAP_ROWS * middle / n_rows))
    # The gap next to the middle: all beyond it is far from the others.
    start = next((k for k in range(low, 0, -1) if parts[k] - parts[k - 1] - 1 > gap), 0)
    stop = next(
        (k for k in range(high, len(parts) - 1) if parts[k + 1] - parts[k] - 1 > gap),
        len(parts) - 1,
    )
    if start == 0 and stop == len(parts) - 1:
        return None
    is_near = (time >= first + parts[start] * width) & (time < first + (parts[stop] + 1) * width)
    near = time[is_near]
    return SparseEnds(int(near.min()), int(near.max()), sum(sizes[:start]), sum(sizes[stop + 1 :]))


def _describe(
    ends: SparseEnds,
    time: Array,
    is_accepted: Array,
    source: Source,
    config: DatasetConfig,
    backend: Backend,
) -> str:
    """Say which rows are far, by how much, what they do to the windows, and what helps."""
    split, is_rejected = config.split, config.inputs.on_bad_rows == "reject"
    accepted = time[is_accepted]
    first, last = int(accepted.min()), int(accepted.max())
    place = int(backend.xp.argmax(is_accepted & ends.contain(time)))
    groups = []
    if ends.n_before:
        groups.append(_count_rows(ends.n_before, ends.first - first, "before"))
    if ends.n_after:
        groups.append(_count_rows(ends.n_after, last - ends.last, "after"))
    cuts, better_cuts = (
        " and ".join(_format(cut) for cut in split.cut_calendar(*span))
        for span in ((first, last), (ends.first, ends.last))
    )
    text = (
        f"{source.label}: found {' and '.join(groups)} all others, which run from "
        f"{_format(ends.first)} to {_format(ends.last)} (first: {source.locate_row(place)}, t_dat "
        f"{_format(int(time[place]))}). Between the first time and the last, val and test begin at "
        f"{cuts}; without these rows, at {better_cuts}.\n"
    )
    if is_rejected:
        return f"{text}They are set aside."
    remedies = []
    if ends.n_before:
        remedies.append(spell_setting("inputs.time_from", _format(ends.first)))
    if ends.n_after:
        remedies.append(spell_setting("inputs.time_until", _format(ends.last + _SECOND)))
    return (
        f"{text}Leave them out with {' '.join(remedies)}, set them aside with "
        f"{spell_option('on-bad-rows', 'reject')}, or cut by rows with "
        f"{spell_setting('split.windows', 'rows')}."
    )


def _count_rows(n: int, nanoseconds: int, side: str) -> str:
    rows = "1 row" if n == 1 else f"{n:,} rows up to"
    return f"{rows} {nanoseconds / _DAY:,.1f} days {side}"


def _format(nanoseconds: int) -> str:
    """Format a time in UTC as settings are written, to the second."""
    return f"{datetime.fromtimestamp(nanoseconds // _SECOND, UTC):%Y-%m-%dT%H:%M:%S}"


def _find_rank(sizes: list[int], rank: int) -> int:
    """Return the position of the part that holds the row of this rank, from 0."""
    n_seen = 0
    for position, size in enumerate(sizes):
        n_seen += size
        if n_seen > rank:
            return position
    return len(sizes) - 1
