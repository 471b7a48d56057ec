"""Check user_sequences: who is in it, what was bought, sessions and encodings."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..config import DatasetConfig
from ..contract.schema import SPLITS, make_arrow_schema
from .dataset_files import WrittenDataset, check_nulls, stream_side_table
from .expected import ExpectedDataset
from .findings import Findings
from .hashes import ColumnDigests
from .output_columns import as_array, encode_numbers, encode_texts, expect_numbers, expect_texts
from .purchase_log import DAY, find_weekday

NAME = "user_sequences"
FILE = f"{NAME}.parquet"
RULE = "user_sequences"
HOUR = 3_600 * 10**9
TOLERANCE = 2.5e-7  # sines and powers of two: two roundings of a float32, whichever libm
DAYS_A_WEEK, DAYS_A_YEAR = 7, 365.25
MAX_SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class _Users:
    """The users that have a sequence, and where it lies in the log."""

    user: np.ndarray  # (S,) int64
    split: np.ndarray  # (S,) int64
    length: np.ndarray  # (S,) int64
    first_row: np.ndarray  # (S,) int64  in the log

    def slice(self, first: int, stop: int) -> _Users:
        """Return some users in a row."""
        rows = slice(first, stop)
        return _Users(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class _Sequences:
    """The expected sequences of some users, their elements one after the other."""

    users: _Users
    start: np.ndarray  # (S,) int64  of each sequence's elements
    owner: np.ndarray  # (n,) int64  the sequence of each element
    row: np.ndarray  # (n,) int64  in the log


def check_user_sequences(
    dataset: WrittenDataset, expected: ExpectedDataset, findings: Findings
) -> dict[str, str]:
    """Check all rows of user_sequences; return the digests of its columns."""
    config, digests = dataset.config, ColumnDigests()
    users, schema = _select_users(expected, config), make_arrow_schema(NAME)
    actual, first_row, has_values = [np.zeros(0, dtype=np.int64)], 0, True
    for batch in stream_side_table(dataset, NAME, ["user_id"], digests):
        if check_nulls(FILE, first_row, batch, schema, findings):
            actual.append(encode_texts(as_array(batch["user_id"]), expected.log.users))
            part = users.slice(first_row, first_row + batch.num_rows)
            if np.array_equal(actual[-1], part.user):
                _check_batch(batch, first_row, part, expected, config, findings)
        else:
            has_values = False
        first_row += batch.num_rows
    if has_values:
        _check_users(np.concatenate(actual), users.user, findings)
    return digests.to_hex()


def _select_users(expected: ExpectedDataset, config: DatasetConfig) -> _Users:
    """Select each user's latest purchases before the end of the window of the user's split."""
    log, settings = expected.log, config.sequence_processing
    split = expected.positives.user_split.astype(np.int64)
    if not config.split.is_disjoint:
        for k, rows in enumerate(expected.positives.rows):
            split[log.user[rows]] = k  # the last split with a positive of the user
    ends = np.array(expected.cuts.ends)
    n_known = np.bincount(log.user[log.time < ends[split][log.user]], minlength=log.n_users)
    user = np.flatnonzero((split >= 0) & (n_known >= max(1, settings.min_sequence_length)))
    length = np.minimum(n_known[user], settings.max_sequence_length)
    return _Users(user, split[user], length, log.user_offsets[user] + n_known[user] - length)


def _lay_out(users: _Users) -> _Sequences:
    start = np.cumsum(users.length) - users.length
    return _Sequences(
        users=users,
        start=start,
        owner=np.repeat(np.arange(len(users.user)), users.length),
        row=np.repeat(users.first_row - start, users.length) + np.arange(int(users.length.sum())),
    )


def _check_batch(
    batch: pa.RecordBatch,
    first_row: int,
    users: _Users,
    expected: ExpectedDataset,
    config: DatasetConfig,
    findings: Findings,
) -> None:
    """Check the rows of some users."""
    sequences, splits = _lay_out(users), pa.array(SPLITS)
    for name, values, wanted in (
        ("split", encode_texts(batch["split"], splits), expect_texts(users.split, splits)),
        (
            "sequence_length",
            encode_numbers(batch["sequence_length"]),
            expect_numbers(users.length),
        ),
    ):
        findings.check_column(RULE, FILE, name, values, wanted, first_row)
    for name, elements in _expect_exact(sequences, expected, config).items():
        _check_lists(name, batch[name], first_row, elements, sequences, findings)
    for name, elements in _expect_encodings(sequences, expected, config).items():
        _check_lists(name, batch[name], first_row, elements, sequences, findings, TOLERANCE)


def _check_users(actual: np.ndarray, expected: np.ndarray, findings: Findings) -> None:
    """Check that the users are the expected ones in order."""
    findings.count(RULE, max(len(actual), len(expected)))
    if np.array_equal(actual, expected):
        return
    row = 0
    if len(actual) and len(expected):
        row = int(np.argmax(actual[: len(expected)] != expected[: len(actual)]))
    n_missing, n_added = len(np.setdiff1d(expected, actual)), len(np.setdiff1d(actual, expected))
    findings.add_fault(
        RULE,
        FILE,
        row,
        f"{len(actual)} users, first difference here, {n_missing} missing, {n_added} too many",
        f"{len(expected)} users in order of their ids",
    )


def _expect_exact(
    sequences: _Sequences, expected: ExpectedDataset, config: DatasetConfig
) -> dict[str, np.ndarray]:
    """Return the elements of the lists of whole numbers."""
    log, first = expected.log, sequences.start[sequences.users.length > 0]
    time = log.time[sequences.row]
    starts_session = np.append(
        0, np.diff(time) > config.sequence_processing.temporal_gap_hours * HOUR
    )
    starts_session[first] = 0
    session = np.cumsum(starts_session)
    return {
        "item_indices": log.item_index[log.item[sequences.row]],
        "timestamps": time,
        "session_ids": session - session[sequences.start][sequences.owner],
    }


def _expect_encodings(
    sequences: _Sequences, expected: ExpectedDataset, config: DatasetConfig
) -> dict[str, np.ndarray]:
    """Return the elements of the lists of floats, as float64."""
    cuts, time = expected.cuts, expected.log.time[sequences.row]
    days = time // DAY
    week = 2 * math.pi * find_weekday(days) / DAYS_A_WEEK
    dates = days.astype("datetime64[D]")
    day_of_year = (dates - dates.astype("datetime64[Y]")).astype(np.int64)
    year = 2 * math.pi * day_of_year / DAYS_A_YEAR
    reference = np.minimum([cuts.cut1, cuts.cut2, cuts.last], cuts.last)[sequences.users.split]
    age = (reference[sequences.owner] - time) // DAY
    return {
        "recency": np.exp2(-age / config.category_balancing.recency_half_life_days),
        "day_of_week_sin": np.sin(week),
        "day_of_week_cos": np.cos(week),
        "season_sin": np.sin(year),
        "season_cos": np.cos(year),
    }


def _check_lists(
    name: str,
    column: pa.ListArray,
    first_row: int,
    values: np.ndarray,
    sequences: _Sequences,
    findings: Findings,
    tolerance: float | None = None,
) -> None:
    """Check the lengths of all lists, then their elements: equal, or within the tolerance."""
    is_bad = pc.list_value_length(column).to_numpy() != sequences.users.length
    if not is_bad.any():
        elements = column.flatten()
        if tolerance is None:
            is_right = encode_numbers(elements) == values
        else:
            is_right = np.abs(elements.to_numpy() - values) <= tolerance
        is_bad[sequences.owner[~is_right]] = True
    findings.add_bad_rows(
        RULE,
        FILE,
        first_row,
        is_bad,
        lambda row: (
            f"{name}: {column[row].as_py()}"[-MAX_SHOWN_CHARACTERS:],
            f"{name}: {values[sequences.owner == row].tolist()}"[-MAX_SHOWN_CHARACTERS:],
        ),
    )
