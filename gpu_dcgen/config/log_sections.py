"""Sections that say how the log is read: inputs, filtering, split and features."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat, model_validator

from ..contract.schema import InputTable
from ..contract.table_names import is_table_name
from .csv_section import CsvConfig
from .section import Count, Days, Section, Share, to_fraction
from .time_settings import Events, TimeFormat, TimeUnit, TimeZone

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIN_TIME, _MAX_TIME = -(2**63), 2**63 - 1  # nanoseconds in int64
Channel = Annotated[int, Field(ge=0, le=127)]  # the contract's column is int8


def _require_date(value: Any) -> Any:
    """Refuse the numbers that pydantic would read as seconds since 1970."""
    if not (isinstance(value, date) or (isinstance(value, str) and _DATE.match(value))):
        raise ValueError(
            f"found {value!r:.80}; expected a date such as 2020-08-01, or a date and time in UTC"
        )
    return value


def _to_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _to_nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


Moment = Annotated[datetime, BeforeValidator(_require_date), AfterValidator(_to_utc)]


class InputsConfig(Section):
    """Which tables and columns are read, and what happens to bad rows (D1 to D3)."""

    files: dict[InputTable, str] = {}
    """Names of files or folders in the input folder where they differ from the tables' names.
    `{transactions: events.csv}` reads `events.csv` as the transactions. Empty: they do not
    differ."""
    csv: CsvConfig = CsvConfig()
    columns: dict[InputTable, dict[str, str]] = {}
    """Names of columns in your files where they differ from ours, per table. `{transactions:
    {t_dat: order_date}}` reads `order_date` as `t_dat`. Empty: they do not differ."""
    article_id_width: Annotated[int, Field(ge=0, le=64)] = 0
    """Characters to which article ids are padded with leading zeros (H&M: 10), where they are
    whole numbers, as integers or as text. 0: they are not padded."""
    customer_id_width: Annotated[int, Field(ge=0, le=64)] = 0
    """Characters to which customer ids are padded with leading zeros, where they are whole
    numbers, as integers or as text. 0: they are not padded."""
    channels: dict[Channel, Literal["online", "offline"]] = {1: "offline", 2: "online"}
    """Meaning of each `sales_channel_id` (0 to 127): `online` or `offline` (D3). The default has
    H&M's ids. Other ids become null, with a warning."""
    price: Literal["auto", "column", "none"] = "auto"
    """Whether transactions have prices. `auto`: they have if there is a column `price`; without
    one, a column with a similar name is an error. `column`: the column `price` is required. `none`:
    the log has no prices; price features are null and price weights 1."""
    events: Events = {}
    """What the values of the column `event` of transactions are: `purchase`, `view` or `ignore`.
    `{transaction: purchase, view: view, addtocart: ignore}` is for RetailRocket's log. Views are
    used like those of a table of views; what is ignored is left out, and a value that is not listed
    is a bad row. Empty: every row is a purchase."""
    min_rating: FiniteFloat | None = None
    """Smallest value of the column `rating` of transactions that counts as a purchase; rows below
    it are left out, and are no bad rows. Null: ratings are not read."""
    time_unit: TimeUnit | None = None
    """Unit of times that are integers, or text of digits, counted from 1970 UTC. Null: such times
    are refused, as a number alone has no unit."""
    time_format: TimeFormat | None = None
    """Format of times that are text, in directives of strptime, such as `%d.%m.%Y %H:%M`. Null: ISO
    8601."""
    time_zone: TimeZone | None = None
    """Name of the zone that times without one are in, such as `Europe/Berlin`. Where a change of
    the clock repeats an hour, the first is taken; a time in an hour that it skips moves forward by
    the skipped time. Null: they are in UTC."""
    on_bad_rows: Literal["fail", "reject"] = "fail"
    """What happens to rows that cannot be used (D2). `fail`: the build stops and names them, so
    that no row is lost unnoticed. `reject`: they go to rejects.parquet, and the others are used."""
    min_quality_score: Share = 0.95
    """With `on_bad_rows: reject`, the build stops unless clean rows / all rows is above this share.
    The default is the contract's."""
    time_from: Moment | None = None
    """First moment of the rows to read: a date, or a date and time, in UTC. Earlier transactions
    and views are left out, and are no bad rows. Null: all are read."""
    time_until: Moment | None = None
    """End of the rows to read: a date, or a date and time, in UTC. Transactions and views at or
    after it are left out, and are no bad rows. Null: all are read."""
    views: bool = True
    """Whether views.parquet is read where the folder holds it; views add to similarities (D9)
    and offer hard negatives (D13)."""

    @model_validator(mode="after")
    def _require_names(self) -> Self:
        for table, name in self.files.items():
            if name in ("", ".", "..") or "/" in name or "\\" in name:
                raise ValueError(
                    f"files: found {name!r} for {table}; expected the name of a file or folder in "
                    "the input folder"
                )
        return self

    @model_validator(mode="after")
    def _require_a_period(self) -> Self:
        if self.time_from and self.time_until and self.time_from >= self.time_until:
            raise ValueError(
                f"found time_from {self.time_from.isoformat()} and time_until "
                f"{self.time_until.isoformat()}; expected time_from before time_until"
            )
        return self

    def is_table(self, name: str, table: InputTable) -> bool:
        """Return whether a file or folder of this name in the input folder is the table."""
        return name == self.files[table] if table in self.files else is_table_name(name, table)

    @property
    def has_event_views(self) -> bool:
        """Whether some events of transactions are views that are used."""
        return self.views and "view" in self.events.values()

    @property
    def period(self) -> tuple[int, int] | None:
        """The times to read, from and until in nanoseconds since 1970 UTC; None: all."""
        if self.time_from is None and self.time_until is None:
            return None
        start = _MIN_TIME if self.time_from is None else _to_nanoseconds(self.time_from)
        end = _MAX_TIME if self.time_until is None else _to_nanoseconds(self.time_until)
        return max(start, _MIN_TIME), min(end, _MAX_TIME)


class FilteringConfig(Section):
    """Which users and items have enough interactions to take part (D5)."""

    min_user_interactions: Count = 5
    """Interactions that a user needs. Users and items with fewer are dropped repeatedly, until all
    others have enough. The default is the contract's."""
    min_item_interactions: Count = 10
    """Interactions that an item needs; see `min_user_interactions`. The default is the
    contract's."""
    max_user_interactions: Count = 1000
    """Most positives of a user in a split and, separately, most interactions of a user in the
    similarity matrix: the latest are used. Features and histories use all. The default is the
    contract's."""
    counts: Literal["log", "window"] = "log"
    """Up to when interactions are counted. `log`: over the whole log, which drops fewest rows.
    `window`: up to the end of each split's window, so that later rows change no earlier split."""


Strategy = Literal["temporal_user_disjoint", "temporal", "hash", "leave_last"]


class SplitConfig(Section):
    """How users and time are divided into train, val and test (D7)."""

    strategy: Strategy = "temporal_user_disjoint"
    """Which split a user's purchases go to. `temporal_user_disjoint`: each user is in one split,
    chosen so that most positives remain at the wanted shares. `temporal`: a user may be in several
    splits, and all positives remain. `hash`: each user is in the split given by a hash of the id,
    whatever the log holds; val and test get few positives. Of the transactions of The Complete
    Journey, they make 40 %, 80 % and 51 % positives; every build says what it and the others have.
    `leave_last`: the last purchases of each user are test, those before them val, the others train,
    as in many papers; it leaks time, since train then knows purchases after those of val and
    test."""
    leave_last: Annotated[int, Field(ge=1, le=1000)] = 1
    """With `strategy: leave_last`: purchases of each user in test, and as many before them in
    val."""
    gap_days: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Days before val, and before test, in which no purchase becomes a positive: an embargo. They
    remain history of later purchases. 0: none."""
    windows: Literal["calendar", "rows"] = "calendar"
    """What the shares divide. `calendar`: the time from the first row to the last. `rows`: the
    rows, in order of time."""
    val_from: Moment | None = None
    """First moment of val: a date, or a date and time, in UTC. Together with `test_from` it fixes
    the cuts, so that a growing log does not move them. Null: the shares decide."""
    test_from: Moment | None = None
    """First moment of test, later than `val_from`: a date, or a date and time, in UTC. Null: the
    shares decide."""
    train_share: Share = 0.8
    """Share of the time (or rows) before the first cut, and of the positives that train should get.
    The default is the contract's."""
    val_share: Share = 0.1
    """Share of the time (or rows) between the cuts, and of the positives that val should get; test
    gets the rest. The default is the contract's."""

    folds: Annotated[int, Field(ge=1, le=100)] = 1
    """Datasets to build in one run, OUTPUT/fold-0 and so on, with rolling windows: each ends where
    test of the next one begins, and the last one has the whole log."""

    @model_validator(mode="after")
    def _require_a_share_for_test(self) -> Self:
        if self.train_share <= 0 or self.val_share <= 0 or self.train_share + self.val_share >= 1:
            raise ValueError(
                f"found train_share {self.train_share} and val_share {self.val_share}; "
                "expected both above 0, with a sum below 1 that leaves a share for test"
            )
        return self

    @model_validator(mode="after")
    def _require_rising_cuts(self) -> Self:
        if (self.val_from is None) != (self.test_from is None):
            raise ValueError("found one of val_from and test_from; expected both or neither")
        if self.val_from and self.test_from and self.val_from >= self.test_from:
            raise ValueError(
                f"found val_from {self.val_from.isoformat()} and test_from "
                f"{self.test_from.isoformat()}; expected val_from before test_from"
            )
        return self

    def cut_calendar(self, first: int, last: int) -> tuple[int, int]:
        """Return where the time from `first` to `last` is cut by the shares, in nanoseconds."""
        train, val = to_fraction(self.train_share), to_fraction(self.val_share)
        span = last - first
        return math.ceil(first + train * span), math.ceil(first + (train + val) * span)

    @model_validator(mode="after")
    def _require_windows_for_their_settings(self) -> Self:
        given = {"gap_days": self.gap_days, "val_from": self.val_from, "folds": self.folds > 1}
        if self.strategy == "leave_last" and any(given.values()):
            raise ValueError(
                f"found strategy leave_last with {next(name for name in given if given[name])}; "
                "expected a strategy that divides time, or none of gap_days, val_from, test_from "
                "and folds"
            )
        if self.strategy != "leave_last" and self.leave_last != 1:
            raise ValueError(
                f"found leave_last {self.leave_last} with strategy {self.strategy}, which has no "
                "use for it; expected split.strategy: leave_last"
            )
        return self

    @property
    def is_disjoint(self) -> bool:
        """Whether each user is in one split."""
        return self.strategy in ("temporal_user_disjoint", "hash")

    @property
    def cuts(self) -> tuple[int, int] | None:
        """`val_from` and `test_from` in nanoseconds since 1970 UTC; None where they are not set."""
        if self.val_from is None or self.test_from is None:
            return None
        return _to_nanoseconds(self.val_from), _to_nanoseconds(self.test_from)


class FeaturesConfig(Section):
    """How features of items and of time are computed (D6)."""

    snapshot_days: Days = 7
    """Days from one snapshot of the items' features to the next; a sample uses the latest before
    it. The default is a week, so that each snapshot covers all weekdays alike."""
    popularity_days: Days = 28
    """Days before a snapshot that an item's popularity and mean price are computed from. The
    default is four weeks."""
    hemisphere: Literal["northern", "southern"] = "northern"
    """Where the shop is, for the column `season`. Northern: December to February is Winter."""
