"""Cut the time axis into the train, val and test windows (D7)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, NamedTuple

from ..backend.protocol import Array, Backend
from ..config import SplitConfig, to_fraction
from ..errors import ConfigError, InputError

DAY = 86_400_000_000_000  # nanoseconds


def format_time(nanoseconds: int) -> str:
    """Format nanoseconds since 1970 as ISO 8601 in UTC, to the nanosecond."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


@dataclass(frozen=True)
class Windows:
    """Three windows of nanoseconds: train [first, cut1), val [cut1, cut2), test [cut2, last].

    With strategy `leave_last` both cuts are after `last`: each split's window is the whole log.
    """

    first: int
    cut1: int
    cut2: int
    last: int

    @property
    def starts(self) -> tuple[int, int, int]:
        """The first time of each split's window."""
        if self.is_whole:
            return self.first, self.first, self.first
        return self.first, self.cut1, self.cut2

    @property
    def is_whole(self) -> bool:
        """Whether the splits do not divide time."""
        return self.cut1 > self.last

    @property
    def last_times(self) -> tuple[int, int, int]:
        """What recency in a split's window counts from."""
        return min(self.cut1, self.last), min(self.cut2, self.last), self.last

    @property
    def ends(self) -> tuple[int, int, int]:
        """The end of each split's window; times in the window are strictly before it."""
        return self.cut1, self.cut2, self.last + 1

    def number_of(self, xp: Any, time: Array) -> Array:
        """Return the window of each `time` (n,) int64 as (n,) int8: 0 train, 1 val, 2 test."""
        return (time >= self.cut1).astype(xp.int8) + (time >= self.cut2).astype(xp.int8)


def cut_windows(
    times: Array, first: int, last: int, split: SplitConfig, backend: Backend
) -> Windows:
    """Cut the time axis at `split.val_from` and `test_from`, or by the shares of the splits.

    Without the two dates, the cuts are at the train share and the train + val share of the time
    axis, computed exactly, or of the rows (`windows: rows`). With strategy `leave_last` time is not
    cut.

    `times` (T,) int64 are those of all accepted rows, in any order. Raises InputError when a
    window would be empty.
    """
    train, val, _ = wanted_shares(split)
    until_val = train + val
    if split.strategy == "leave_last":
        return Windows(first, last + 1, last + 1, last)
    if split.cuts is not None:
        cut1, cut2 = split.cuts
    elif split.windows == "rows":
        ranked, n = backend.xp.sort(times, kind="stable"), int(times.shape[0])
        cut1, cut2 = (
            int(ranked[min(n - 1, math.floor(share * n))]) for share in (train, until_val)
        )
    else:
        cut1, cut2 = split.cut_calendar(first, last)
    if first < cut1 < cut2 <= last:
        return Windows(first, cut1, cut2, last)
    if split.cuts is not None:
        raise InputError(
            f"transactions: the log runs from {format_time(first)} to {format_time(last)}; "
            f"split.val_from {format_time(cut1)} and split.test_from {format_time(cut2)} do not "
            "cut it into three windows.\n"
            "Choose two times within the log, or leave both out."
        )
    raise InputError(
        f"transactions: the time axis cannot be cut in three windows: {split.windows} cuts fall "
        f"on {format_time(cut1)} and {format_time(cut2)} within "
        f"{format_time(first)}..{format_time(last)}.\n"
        "Use a log with more distinct times, or change split.train_share / split.windows."
    )


def wanted_shares(split: SplitConfig) -> tuple[Fraction, Fraction, Fraction]:
    """Return the configured shares of train, val and test as exact decimals."""
    train, val = to_fraction(split.train_share), to_fraction(split.val_share)
    return train, val, 1 - train - val


class Fold(NamedTuple):
    """The windows of one of several builds of a log, in nanoseconds since 1970 UTC."""

    val_from: int
    test_from: int
    until: int | None  # rows at or after it are not read; None: all are


def cut_folds(times: Array, split: SplitConfig, backend: Backend) -> list[Fold]:
    """Cut a log into `split.folds` folds, the earliest first (D7).

    The last one has the windows of the whole log; each of the others lies before the next one by
    the length of test, and ends where test of the next one begins. Cuts are whole microseconds.

    `times` (T,) int64 are those of all accepted rows, in any order. ConfigError where the log has
    no room for so many folds.
    """
    first, last = int(times.min()), int(times.max())
    if split.windows == "rows" and split.cuts is None:
        cuts = _cut_folds_by_rows(times, split, backend)
    else:
        cut1, cut2 = split.cuts or split.cut_calendar(first, last)
        length = last + 1 - cut2
        shifts = [length * n for n in range(split.folds)]
        cuts = [(cut1 - shift, cut2 - shift) for shift in shifts]
    cuts = [(_round_up(cut1), _round_up(cut2)) for cut1, cut2 in cuts]
    ends = [last + 1, *(cut2 for _, cut2 in cuts)]
    room = [first < cut1 < cut2 < end for (cut1, cut2), end in zip(cuts, ends, strict=False)]
    if not all(room) or len(cuts) < split.folds:
        n_folds = (room + [False]).index(False)
        raise ConfigError(
            f"split.folds: found {split.folds}; the log from {format_time(first)} to "
            f"{format_time(last)} has room for {n_folds}, each earlier than the next by the length "
            "of test.\nAsk for fewer, or make test shorter: a larger split.train_share or "
            "split.val_share."
        )
    folds = [Fold(cut1, cut2, ends[n] if n else None) for n, (cut1, cut2) in enumerate(cuts)]
    return folds[::-1]


def _cut_folds_by_rows(times: Array, split: SplitConfig, backend: Backend) -> list[tuple[int, int]]:
    """Return the cuts of the folds, the latest first, as far as the rows reach."""
    train, val, _ = wanted_shares(split)
    ranked, n = backend.xp.sort(times, kind="stable"), int(times.shape[0])
    row1, row2 = (min(n - 1, math.floor(share * n)) for share in (train, train + val))
    shifts = [(n - row2) * fold for fold in range(split.folds)]
    return [
        (int(ranked[row1 - shift]), int(ranked[row2 - shift])) for shift in shifts if shift < row1
    ]


def _round_up(time: int) -> int:
    """Return nanoseconds up to the next microsecond, as settings have them."""
    return -(-time // 1000) * 1000
