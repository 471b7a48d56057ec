"""Stage 6: histories of positives, and user sequences with sessions and encodings (D15)."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from typing import Any

from .backend.protocol import Array, Backend
from .backend.runs import count_codes, gather, offsets_from_lengths
from .config import DatasetConfig
from .contract.schema import SEASONS
from .kernels.users import SequenceRules, Sequences, count_rows_before, lay_out_sequence
from .preparation.interactions import Interactions
from .preparation.splits import SplitPlan
from .preparation.windows import DAY

_EPOCH = datetime.date(1970, 1, 1).toordinal()
_HOUR = 3_600_000_000_000


@dataclass(frozen=True)
class Calendar:
    """Calendar values of each UTC day of the log, indexed by day number - `first_day`."""

    first_day: int  # days since 1970-01-01
    day_of_week: Array  # (D,) int8  Monday 0
    month: Array  # (D,) int8  1..12
    season: Array  # (D,) int8  code into contract.SEASONS
    week_angle: Array  # (2, D) float32  sin, cos of 2 pi day_of_week / 7
    year_angle: Array  # (2, D) float32  sin, cos of 2 pi (day of year - 1) / 365.25

    def rows(self, time: Array) -> Array:
        """Return the table rows of times (n,) int64 nanoseconds."""
        return time // DAY - self.first_day


def build_calendar(
    first_time: int, last_time: int, config: DatasetConfig, backend: Backend
) -> Calendar:
    """Compute tables of the days first_time..last_time, with meteorological seasons (D6)."""
    xp = backend.xp
    first_day, last_day = first_time // DAY, last_time // DAY
    days = [datetime.date.fromordinal(_EPOCH + day) for day in range(first_day, last_day + 1)]
    names = ("Winter", "Spring", "Summer", "Fall")
    shift = 0 if config.features.hemisphere == "northern" else 2
    season = [SEASONS.index(names[(day.month % 12 // 3 + shift) % 4]) for day in days]
    week = [2 * math.pi * day.weekday() / 7 for day in days]
    year = [2 * math.pi * (day.timetuple().tm_yday - 1) / 365.25 for day in days]

    def table(values: list, dtype: Any) -> Array:
        return backend.from_host(values).astype(dtype)

    return Calendar(
        first_day=first_day,
        day_of_week=table([day.weekday() for day in days], xp.int8),
        month=table([day.month for day in days], xp.int8),
        season=table(season, xp.int8),
        week_angle=table([[math.sin(a) for a in week], [math.cos(a) for a in week]], xp.float32),
        year_angle=table([[math.sin(a) for a in year], [math.cos(a) for a in year]], xp.float32),
    )


def history_windows(
    interactions: Interactions, rows: Array, max_length: int, backend: Backend
) -> tuple[Array, Array]:
    """Find the latest interactions strictly before those at `rows`.

    Returns starts (n,) int64 and lengths (n,) int32. A user's rows are in (time, item) order, so a
    history is a slice that ends where the row's own basket begins.
    """
    xp = backend.xp
    stop = interactions.basket_start[rows]
    start = xp.maximum(interactions.user_offsets[interactions.user[rows]], stop - max_length)
    return start, (stop - start).astype(xp.int32)


@dataclass(frozen=True)
class UserSequences:
    """The latest interactions of each user before the end of its window; users by id."""

    user: Array  # (n,) int32
    split: Array  # (n,) int8  code into SPLITS
    offsets: Array  # (n+1,) int64  each row's run in the arrays below
    row: Array  # (m,) int32 or int64  rows of Interactions
    session: Array  # (m,) int16  from 0; a gap over `temporal_gap_hours` starts the next
    recency: Array  # (m,) float32  2 ^ (-whole days before the window's end / half-life)


def build_user_sequences(
    interactions: Interactions, plan: SplitPlan, config: DatasetConfig, backend: Backend
) -> UserSequences:
    """Take each user's last `max_sequence_length` interactions before its window's end (D15).

    Users with fewer than `min_sequence_length` are left out. A user who may be in several splits
    counts to the last one that has a positive of the user.
    """
    xp = backend.xp
    split = plan.user_split
    if not config.split.is_disjoint:
        for k, positives in enumerate(plan.positives):
            user = gather(backend, interactions.user, positives.row)
            present = count_codes(xp, user, interactions.n_users) > 0
            split = xp.where(present, k, split).astype(xp.int8)
    settings, n_users = config.sequence_processing, interactions.n_users
    ends, n_inside = backend.from_host(plan.windows.ends), xp.empty(n_users, dtype=xp.int64)
    arguments = interactions.user_offsets, interactions.time, split, ends, n_inside
    backend.for_each(count_rows_before, n_users, *arguments)
    user = xp.nonzero(n_inside >= max(1, settings.min_sequence_length))[0]
    length = xp.minimum(n_inside[user], settings.max_sequence_length)
    offsets = offsets_from_lengths(xp, length)
    n = int(offsets[-1])
    sequences = Sequences(
        row=xp.empty(n, dtype=interactions.by_time.dtype),
        session=xp.empty(n, dtype=xp.int16),
        recency=xp.empty(n, dtype=xp.float32),
    )
    backend.for_each(
        lay_out_sequence,
        int(user.shape[0]),
        offsets,
        interactions.user_offsets[user] + n_inside[user] - length,
        backend.from_host(plan.windows.last_times)[split[user]],
        interactions.time,
        SequenceRules(
            settings.temporal_gap_hours * _HOUR, DAY, _compute_decay(plan, config, backend)
        ),
        sequences,
    )
    return UserSequences(user.astype(xp.int32), split[user], offsets, *sequences)


def _compute_decay(plan: SplitPlan, config: DatasetConfig, backend: Backend) -> Array:
    """Compute 2 ^ (-days / half-life) for each number of whole days in the log, (D,) float32."""
    n_days = (plan.windows.last - plan.windows.first) // DAY + 1
    half_life = config.category_balancing.recency_half_life_days
    decay = [2.0 ** (-day / half_life) for day in range(n_days)]
    return backend.from_host(decay).astype(backend.xp.float32)
