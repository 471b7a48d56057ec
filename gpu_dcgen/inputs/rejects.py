"""Give every bad row its first reason, and stop the build or set bad rows aside (D2)."""

from __future__ import annotations

import itertools
import json
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ..backend.protocol import Array, Backend
from ..backend.runs import count_codes
from ..config import InputsConfig
from ..contract.schema import InputTable
from ..errors import InputError, spell_option
from .hints import (
    UnknownIds,
    explain_unknown_events,
    explain_unknown_ids,
    explain_unread_numbers,
    explain_unread_times,
)
from .sources import Source, explain_unreadable

COLLAPSED = 255  # number of the reason of an identical copy of an accepted row
# And of rows that are left out: outside the period that is read, events that are ignored, ratings
# below the least that counts.
LEFT_OUT, IGNORED, LOW_RATING = 254, 253, 252
OF_ANOTHER_TABLE = 251  # and of a row of the same file that belongs to another table
LEFT_OUT_REASONS = {"outside_period": LEFT_OUT, "ignored": IGNORED, "low_rating": LOW_RATING}
_LEFT_OUT_BY = {  # reason -> settings
    "outside_period": "inputs.time_from, inputs.time_until",
    "ignored": "inputs.events",
    "low_rating": "inputs.min_rating",
}
# Dearer than anything in any currency; `preparation.features` says what sums of prices may reach.
MAX_PRICE = 1e9
_MAX_SHOWN = 120  # characters of a bad value in a message
_MAX_REJECTED = 0.9  # share of a table's rows that may be bad where setting them aside is offered
_MANY = 0.5  # share of a table's rows that are bad for one reason
_MAX_VALUES = 20  # bad values that are looked at for what they have in common
_BATCH_ROWS = 65_536  # decoded at a time when bad rows are read again


class Reason(NamedTuple):
    """Why a row is bad."""

    meaning: str
    columns: tuple[str, ...]  # that show it


FAR_FROM_OTHERS = "far_from_others"  # only with `on_bad_rows: reject` (D7)

# Reasons in their order of precedence; the first that holds is the row's.
_KEYS = ("customer_id", "article_id")
_LOG_REASONS = {
    "missing_key": Reason("an id is null or empty", _KEYS),
    "unknown_article": Reason("the article is not among the accepted articles", ("article_id",)),
    "unknown_customer": Reason(
        "the customer is not among the accepted customers", ("customer_id",)
    ),
    "missing_time": Reason(
        "the time is null, unparsable or outside the years 1677 to 2262", ("t_dat",)
    ),
    "time_out_of_range": Reason("the time lies outside the years 1970 to 2200", ("t_dat",)),
}


def _list_key_reasons(key: str) -> dict[str, Reason]:
    return {
        "missing_key": Reason("the id is null or empty", (key,)),
        "duplicate_key": Reason("the id occurs again with other values", (key,)),
    }


REASONS: dict[InputTable, dict[str, Reason]] = {
    "articles": _list_key_reasons("article_id"),
    "customers": _list_key_reasons("customer_id"),
    "transactions": {
        **_LOG_REASONS,
        "missing_price": Reason("the price is null or not a number", ("price",)),
        "bad_price": Reason(
            f"the price is infinite, zero, negative or above {MAX_PRICE:,.0f}", ("price",)
        ),
        "unknown_event": Reason("the event is null or not listed in inputs.events", ("event",)),
        "missing_rating": Reason("the rating is null or not a number", ("rating",)),
        FAR_FROM_OTHERS: Reason("the time is far from those of all other rows", ("t_dat",)),
    },
    "views": _LOG_REASONS,
}


class _Explanation(NamedTuple):
    """Says what bad values of a column have in common, where a share of the rows is bad."""

    reasons: tuple[str, ...]
    column: str
    min_share: float  # of the table's rows, exclusive
    explain: Callable[[Iterable[Any]], Iterator[str]]


_EXPLANATIONS = (
    _Explanation(("missing_time", "time_out_of_range"), "t_dat", _MANY, explain_unread_times),
    # Whole numbers among decimal commas are good rows.
    _Explanation(("missing_price",), "price", 0.0, explain_unread_numbers),
    _Explanation(("missing_rating",), "rating", 0.0, explain_unread_numbers),
)

# `position` is the row's place in its table, from 0; `row` has the columns that were read, as JSON.
REJECTS_SCHEMA = pa.schema(
    [
        ("table", pa.string()),
        ("position", pa.int64()),
        ("reason", pa.string()),
        ("row", pa.string()),
    ]
)


class RowCounts(NamedTuple):
    """Where the rows of a table went; read is the sum of the others.

    Rows of its files that belong to another table are not among them.
    """

    read: int
    accepted: int
    rejected: int
    collapsed: int  # identical copies of an article or customer
    left_out: int = 0  # for one of LEFT_OUT_REASONS


@dataclass(frozen=True)
class CheckedTable:
    """A table with the reason of each bad row."""

    source: Source
    reason: Array  # (n,) uint8  0 accepted, k the k-th of REASONS[table], COLLAPSED
    counts: RowCounts
    rejects: dict[str, int]  # reason -> rows, of reasons that occur
    left_out: dict[str, int]  # the same, of LEFT_OUT_REASONS
    unknown_ids: tuple[UnknownIds, ...] = ()  # of a log


def find_first_reasons(xp: Any, n_rows: int, checks: Iterable[Array]) -> Array:
    """Return the number of the first check that finds a row bad: (n,) uint8 from 1, else 0.

    A check is (n,) bool.
    """
    reason = xp.zeros(n_rows, dtype=xp.uint8)
    for number, is_bad in enumerate(checks, 1):
        reason[is_bad & (reason == 0)] = number
    return reason


def count_reasons(
    source: Source, reason: Array, backend: Backend, unknown_ids: tuple[UnknownIds, ...] = ()
) -> CheckedTable:
    """Count the rows of a table by their reason (n,) uint8."""
    counts = [int(count) for count in backend.to_host(count_codes(backend.xp, reason, 256))]
    names = enumerate(REASONS[source.table], 1)
    rejects = {name: counts[number] for number, name in names if counts[number]}
    left_out = {name: counts[code] for name, code in LEFT_OUT_REASONS.items() if counts[code]}
    rows = RowCounts(
        read=source.n_rows - counts[OF_ANOTHER_TABLE],
        accepted=counts[0],
        rejected=sum(rejects.values()),
        collapsed=counts[COLLAPSED],
        left_out=sum(left_out.values()),
    )
    return CheckedTable(source, reason, rows, rejects, left_out, unknown_ids)


def handle_rejects(
    tables: Sequence[CheckedTable], inputs: InputsConfig, backend: Backend, path: Path | None
) -> float:
    """Apply `inputs.on_bad_rows`; return the quality score, the share of rows not rejected.

    `fail`: any bad row is an InputError. `reject`: bad rows are written to the Parquet file `path`
    (by table and row, REJECTS_SCHEMA), and a score that is not above `inputs.min_quality_score` is
    an InputError. So is a table without accepted rows, but for views.
    """
    n_read = sum(table.counts.read for table in tables)
    n_bad = sum(table.counts.rejected for table in tables)
    score = (n_read - n_bad) / max(1, n_read)
    if n_bad and inputs.on_bad_rows == "fail":
        raise _make_error(
            f"inputs: found {n_bad} bad rows; expected none:",
            tables,
            _offer_to_reject(tables, score, inputs),
            backend,
        )
    if n_bad and score <= inputs.min_quality_score:
        raise _make_error(
            f"inputs: found a quality score of {score:.6f} ({n_bad} of {n_read} rows are bad); "
            f"expected above {inputs.min_quality_score}:",
            tables,
            "Fix the rows, or if you accept the loss, lower the limit: "
            f"inputs.min_quality_score: {_below(score)}",
            backend,
        )
    for table in tables:
        if table.source.table != "views" and table.counts.accepted == 0:
            left_out = ", ".join(f"{n} rows are {name}" for name, n in table.left_out.items())
            settings = ", ".join(_LEFT_OUT_BY[name] for name in table.left_out)
            raise _make_error(
                f"{table.source.label}: found no row that can be used:"
                + (f" {left_out}." if left_out else ""),
                tables,
                f"Change what leaves them out: {settings}." if left_out else "Fix the rows.",
                backend,
            )
    if path is not None and inputs.on_bad_rows == "reject":
        _write_rejects(tables, backend, path)
    return score


def _offer_to_reject(tables: Sequence[CheckedTable], score: float, inputs: InputsConfig) -> str:
    """Return the remedy for bad rows: to set them aside, unless that leaves little of a table."""
    if any(
        table.counts.rejected > _MAX_REJECTED * (table.counts.read - table.counts.collapsed)
        for table in tables
    ):
        return "Fix the rows: too many are bad to set them aside."
    remedy = (
        f"Fix the rows, or build with {spell_option('on-bad-rows', 'reject')} "
        "(inputs.on_bad_rows) to set them aside."
    )
    if score <= inputs.min_quality_score:
        remedy += f" So many also need a lower limit: inputs.min_quality_score: {_below(score)}"
    return remedy


def _below(score: float) -> float:
    """Return a short number below a score."""
    return max(0.0, math.ceil(score * 100 - 1) / 100)


def _make_error(
    head: str, tables: Sequence[CheckedTable], remedy: str, backend: Backend
) -> InputError:
    lines = [head]
    for table in tables:
        lines += [f"  {line}" for line in _describe_rejects(table, backend)]
        for ids in table.unknown_ids:
            lines += [f"  {line}" for line in explain_unknown_ids(ids)]
        if "unknown_event" in table.rejects:
            values = _read_first_values(table, "unknown_event", "event", backend)
            lines += [f"  {line}" for line in explain_unknown_events(values)]
        for explanation in _EXPLANATIONS:
            many = [
                reason
                for reason in explanation.reasons
                if table.rejects.get(reason, 0) > explanation.min_share * table.counts.read
            ]
            for reason in many[:1]:
                values = _read_first_values(table, reason, explanation.column, backend)
                lines += [f"  {line}" for line in explanation.explain(values)]
    return InputError("\n".join([*lines, remedy]))


def _read_first_values(
    table: CheckedTable, reason: str, column: str, backend: Backend
) -> list[Any]:
    """Return what a column has in the first rows that are bad for a reason."""
    xp, number = backend.xp, [*REASONS[table.source.table]].index(reason) + 1
    positions = backend.to_host(xp.nonzero(table.reason == number)[0][:_MAX_VALUES]).tolist()
    name = table.source.names[column]
    return [row.values.get(name) for row in _read_rows(table.source, positions)]


def _describe_rejects(table: CheckedTable, backend: Backend) -> Iterator[str]:
    """Yield a line for each reason that occurs, with its first row."""
    source = table.source
    for number, (name, reason) in enumerate(REASONS[source.table].items(), 1):
        if name not in table.rejects:
            continue
        position = int(backend.xp.argmax(table.reason == number))
        row = next(_read_rows(source, [position]))
        columns = [source.names[column] for column in reason.columns if column in source.names]
        values = ", ".join(
            f"{column} {_shorten(json.dumps(row.values.get(column)))}" for column in columns
        )
        yield (
            f"{source.label}: {table.rejects[name]} {name}: {reason.meaning} "
            f"(first: {source.locate_row(position)}, {values})."
        )


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


@dataclass(frozen=True)
class _Row:
    position: int  # in the table, from 0
    values: dict[str, Any]  # column of the table -> what JSON can hold


def _read_rows(source: Source, positions: Sequence[int]) -> Iterator[_Row]:
    """Yield the rows at rising positions, with one batch in memory at a time.

    InputError where a file cannot be read.
    """
    names = sorted(set(source.columns.values()))
    start = 0  # position in the table of the file's first row
    try:
        for number, file in enumerate(source.files):
            in_path = {
                source.names[name]: values[number] for name, values in source.partitions.items()
            }
            for position, values in _read_file_rows(file, names, positions, start):
                yield _Row(position, values | in_path)
            start += source.rows[number]
    except MemoryError:
        raise
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(explain_unreadable(str(source.path), error)) from error


def _read_file_rows(
    file: Path, names: list[str], positions: Sequence[int], start: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield position and values of a file's rows at rising positions in the table.

    `start` is the position of the file's first row.
    """
    n_done = bisect_left(positions, start)  # positions before the next batch
    with pq.ParquetFile(file) as parquet:
        for group in range(parquet.num_row_groups):
            group_end = start + parquet.metadata.row_group(group).num_rows
            if bisect_left(positions, group_end) > n_done:
                for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names):
                    n_upto = bisect_left(positions, start + batch.num_rows)
                    chosen = positions[n_done:n_upto]
                    rows = batch.take(pa.array([place - start for place in chosen], pa.int64()))
                    columns = [_to_json_values(column) for column in rows.columns]
                    for row, position in enumerate(chosen):
                        values = (column[row] for column in columns)
                        yield position, dict(zip(rows.schema.names, values, strict=True))
                    start, n_done = start + batch.num_rows, n_upto
            start = group_end


def _to_json_values(column: pa.Array) -> list[Any]:
    """Return values as JSON can hold them: times, decimals, NaN and infinities as text."""
    column.validate(full=True)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type):
        texts: list[str | None] = (
            column.cast(pa.timestamp(column.type.unit)).cast(pa.string()).to_pylist()
        )
        return [text and text + "Z" for text in texts] if column.type.tz else texts
    if pa.types.is_temporal(column.type) or pa.types.is_decimal(column.type):
        column = column.cast(pa.string())
    return [
        str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for value in column.to_pylist()
    ]


def _write_rejects(tables: Sequence[CheckedTable], backend: Backend, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, REJECTS_SCHEMA, compression="zstd") as writer:
        for table in tables:
            names = [None, *REASONS[table.source.table]]
            bad = backend.xp.nonzero((table.reason > 0) & (table.reason < OF_ANOTHER_TABLE))[0]
            positions = backend.to_host(bad).tolist()
            numbers = backend.to_host(table.reason[bad]).tolist()
            rows = zip(_read_rows(table.source, positions), numbers, strict=True)
            while batch := list(itertools.islice(rows, _BATCH_ROWS)):
                columns = [
                    [table.source.table] * len(batch),
                    [row.position for row, _ in batch],
                    [names[number] for _, number in batch],
                    [
                        json.dumps(row.values, ensure_ascii=False, allow_nan=False)
                        for row, _ in batch
                    ],
                ]
                writer.write_table(pa.table(columns, schema=REJECTS_SCHEMA))
