"""The time axis, and where it is cut in train, val and test (D7)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction

from ..backend.protocol import Array, Backend
from ..config.dataset_config import DatasetConfig, exactly
from ..errors import InputError

DAY = 86_400_000_000_000  # nanoseconds


def iso(nanoseconds: int) -> str:
    """A time as ISO 8601 in UTC, to the nanosecond."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


@dataclass(frozen=True)
class Windows:
    """The time axis cut in three: train [first, cut1), val [cut1, cut2), test [cut2, last]; nanoseconds."""

    first: int
    cut1: int
    cut2: int
    last: int

    @property
    def starts(self) -> tuple[int, int, int]:
        return self.first, self.cut1, self.cut2

    @property
    def ends(self) -> tuple[int, int, int]:
        """Each split's window holds times strictly before its end."""
        return self.cut1, self.cut2, self.last + 1


def cut_windows(
    times: Array, first: int, last: int, config: DatasetConfig, backend: Backend
) -> Windows:
    """Cut where `split.val_from` and `test_from` say, else at the train share and the train + val share of the time axis,
    exactly, or of the rows (`windows: rows`).

    `times` (T,) int64 are those of all accepted rows, in any order. Raises InputError when a window would be empty.
    """
    settings = config.split
    train, val, _ = wanted_shares(config)
    until_val = train + val
    if settings.cuts is not None:
        cut1, cut2 = settings.cuts
    elif settings.windows == "rows":
        ranked, n = backend.xp.sort(times, kind="stable"), int(times.shape[0])
        cut1, cut2 = (
            int(ranked[min(n - 1, math.floor(share * n))]) for share in (train, until_val)
        )
    else:
        cut1, cut2 = (math.ceil(first + share * (last - first)) for share in (train, until_val))
    if first < cut1 < cut2 <= last:
        return Windows(first, cut1, cut2, last)
    if settings.cuts is not None:
        raise InputError(
            f"transactions: the log runs from {iso(first)} to {iso(last)}, and split.val_from {iso(cut1)} and split.test_from "
            f"{iso(cut2)} do not cut it in three windows.\nName two moments within the log, or leave both out."
        )
    raise InputError(
        f"transactions: the time axis cannot be cut in three windows: {settings.windows} cuts fall on {iso(cut1)} and "
        f"{iso(cut2)} within {iso(first)}..{iso(last)}.\n"
        "Bring a log with more distinct times, or change split.train_share / split.windows."
    )


def wanted_shares(config: DatasetConfig) -> tuple[Fraction, Fraction, Fraction]:
    """Shares of train, val and test as they were written."""
    train, val = exactly(config.split.train_share), exactly(config.split.val_share)
    return train, val, 1 - train - val
