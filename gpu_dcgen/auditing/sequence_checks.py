"""Check user_sequences: who is in it, what was bought, sessions and encodings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..config import DatasetConfig
from ..contract.schema import SPLITS, make_arrow_schema
from .dataset_files import check_nulls
from .expected import ExpectedDataset
from .findings import Findings
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
class _Sequences:
    """The expected sequences, their elements one after the other."""

    user: np.ndarray  # (S,) int64
    split: np.ndarray  # (S,) int64
    length: np.ndarray  # (S,) int64
    start: np.ndarray  # (S,) int64  of each sequence's elements
    owner: np.ndarray  # (n,) int64  the sequence of each element
    row: np.ndarray  # (n,) int64  in the log


def check_user_sequences(
    table: pa.Table, expected: ExpectedDataset, config: DatasetConfig, findings: Findings
) -> None:
    """Check all rows of user_sequences."""
    if not check_nulls(FILE, 0, table, make_arrow_schema(NAME), findings):
        return
    sequences = _select_sequences(expected, config)
    actual_users = encode_texts(as_array(table["user_id"]), expected.log.user_ids)
    if not _check_users(actual_users, sequences.user, findings):
        return
    splits = pa.array(SPLITS)
    split = encode_texts(as_array(table["split"]), splits)
    findings.check_column(RULE, FILE, "split", split, expect_texts(sequences.split, splits))
    name = "sequence_length"
    length = encode_numbers(as_array(table[name]))
    findings.check_column(RULE, FILE, name, length, expect_numbers(sequences.length))
    for name, values in _expect_exact(sequences, expected, config).items():
        _check_lists(name, as_array(table[name]), values, sequences, findings)
    for name, values in _expect_encodings(sequences, expected, config).items():
        _check_lists(name, as_array(table[name]), values, sequences, findings, TOLERANCE)


def _select_sequences(expected: ExpectedDataset, config: DatasetConfig) -> _Sequences:
    """Select each user's latest purchases before the end of the window of the user's split."""
    log, settings = expected.log, config.sequence_processing
    split = expected.positives.user_split.astype(np.int64)
    if not config.split.is_disjoint:
        for k, rows in enumerate(expected.positives.rows):
            split[log.user[rows]] = k  # the last split with a positive of the user
    ends = np.array(expected.cuts.ends)
    n_known = np.bincount(log.user[log.time < ends[split[log.user]]], minlength=log.n_users)
    user = np.flatnonzero((split >= 0) & (n_known >= max(1, settings.min_sequence_length)))
    length = np.minimum(n_known[user], settings.max_sequence_length)
    stop = log.user_offsets[user] + n_known[user]
    start = np.cumsum(length) - length
    return _Sequences(
        user=user,
        split=split[user],
        length=length,
        start=start,
        owner=np.repeat(np.arange(len(user)), length),
        row=np.repeat(stop - length - start, length) + np.arange(int(length.sum())),
    )


def _check_users(actual: np.ndarray, expected: np.ndarray, findings: Findings) -> bool:
    """Whether the users are the expected ones in order."""
    findings.count(RULE, max(len(actual), len(expected)))
    if np.array_equal(actual, expected):
        return True
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
    return False


def _expect_exact(
    sequences: _Sequences, expected: ExpectedDataset, config: DatasetConfig
) -> dict[str, np.ndarray]:
    """Return the elements of the lists of whole numbers."""
    log, first = expected.log, sequences.start[sequences.length > 0]
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
    reference = np.minimum([cuts.cut1, cuts.cut2, cuts.last], cuts.last)[sequences.split]
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
    values: np.ndarray,
    sequences: _Sequences,
    findings: Findings,
    tolerance: float | None = None,
) -> None:
    """Check the lengths of all lists, then their elements: equal, or within the tolerance."""
    is_bad = pc.list_value_length(column).to_numpy() != sequences.length
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
        0,
        is_bad,
        lambda row: (
            f"{name}: {column[row].as_py()}"[-MAX_SHOWN_CHARACTERS:],
            f"{name}: {values[sequences.owner == row].tolist()}"[-MAX_SHOWN_CHARACTERS:],
        ),
    )
