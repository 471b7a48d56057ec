"""The settings of filters and splits: who and what exists, and where the time axis is cut."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from .quality import Section, Share

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
Count = Annotated[int, Field(ge=1, le=2**62)]


def _not_a_number(value: Any) -> Any:
    if not (isinstance(value, date) or (isinstance(value, str) and _DATE.match(value))):
        raise ValueError("expected a date as 2020-08-01, or a date and time in UTC")
    return value


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


Moment = Annotated[datetime, BeforeValidator(_not_a_number), AfterValidator(_in_utc)]


def _nanoseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


class Filtering(Section):
    min_user_interactions: Count = 5
    """Users with fewer interactions are dropped, together with rare items, to the fixed point (D5)."""
    min_item_interactions: Count = 10
    """Items with fewer interactions are dropped (D5)."""
    max_user_interactions: Count = 1000
    """Cap on a user's emitted positives and, separately, matrix rows: the latest are kept (D5)."""
    counts: Literal["log", "window"] = "log"
    """Count over the whole log, or only up to the end of each window: nothing later then changes who and what is in it (D5)."""


class Split(Section):
    strategy: Literal["temporal_user_disjoint", "temporal", "hash"] = "temporal_user_disjoint"
    """Who becomes a positive where (D7): one split a user, chosen to keep most; or all splits; or by a hash of the user."""
    windows: Literal["calendar", "rows"] = "calendar"
    """Cut the time axis by calendar time or by quantiles of the accepted rows."""
    val_from: Moment | None = None
    """Begin val here, whatever `windows` and the shares say, so that a longer log moves no cut; needs `test_from`."""
    test_from: Moment | None = None
    """Begin test here; a date, or a date and time, in UTC."""
    train_share: Share = 0.8
    """Share of time before the first cut, and of positives wanted in train."""
    val_share: Share = 0.1
    """Share of time between the cuts, and of positives wanted in val; the rest is test."""

    @model_validator(mode="after")
    def _room_for_test(self):
        if self.train_share <= 0 or self.val_share <= 0 or self.train_share + self.val_share >= 1:
            raise ValueError(
                "split: train_share and val_share must be positive and leave a share for test"
            )
        return self

    @model_validator(mode="after")
    def _cuts_rise(self):
        if (self.val_from is None) != (self.test_from is None):
            raise ValueError("split: val_from and test_from are given together or not at all")
        if self.val_from is not None and self.val_from >= self.test_from:
            raise ValueError(
                f"split: val_from {self.val_from.isoformat()} is not before test_from {self.test_from.isoformat()}"
            )
        return self

    @property
    def cuts(self) -> tuple[int, int] | None:
        """`val_from` and `test_from` in nanoseconds since 1970; None where they are not given."""
        return (
            None
            if self.val_from is None
            else (_nanoseconds(self.val_from), _nanoseconds(self.test_from))
        )
