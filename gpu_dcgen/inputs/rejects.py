"""Bad rows: every one gets its first reason; they stop the build or are set aside, and all rows add up (D2)."""

from __future__ import annotations

import itertools
import json
import math
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from ..backend.protocol import Array
from ..backend.runs import count_codes
from ..errors import InputError
from .sources import Source, explain_unreadable

COLLAPSED = 255  # in a verdict: an identical copy of a kept row
SHOWN_CHARACTERS = 120  # of a bad value in a message
BATCH_ROWS = 65_536  # rows decoded at a time when bad rows are looked up again
# dearer than anything in any currency; what sums of prices may reach is for `features` to say
MAX_PRICE = 1e9

# Reasons in their order of precedence, what each means, and the columns that show it.
_KEYS = ("customer_id", "article_id")
_LOG: dict[str, tuple[str, tuple[str, ...]]] = {
    "missing_key": ("an id is null or empty", _KEYS),
    "unknown_article": ("the article is not among the accepted articles", ("article_id",)),
    "unknown_customer": ("the customer is not among the accepted customers", ("customer_id",)),
    "missing_time": ("the time is null, unparsable or outside the years 1677 to 2262", ("t_dat",)),
    "time_out_of_range": ("the time lies outside the years 1970 to 2200", ("t_dat",)),
}
REASONS: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    table: {
        "missing_key": ("the id is null or empty", (key,)),
        "duplicate_key": ("the id occurs again with other values", (key,)),
    }
    for table, key in (("articles", "article_id"), ("customers", "customer_id"))
}
REASONS["views"] = _LOG
REASONS["transactions"] = _LOG | {
    "missing_price": ("the price is null or not a number", ("price",)),
    "bad_price": (f"the price is infinite, zero, negative or above {MAX_PRICE:,.0f}", ("price",)),
}

# `position` is the row's place in its table, from 0; `row` holds the columns that were read, as
# JSON.
REJECTS_SCHEMA = pa.schema(
    [
        ("table", pa.string()),
        ("position", pa.int64()),
        ("reason", pa.string()),
        ("row", pa.string()),
    ]
)


@dataclass(frozen=True)
class Verdict:
    """What became of each row of a table."""

    source: Source
    reason: Array  # (n,) uint8  0 kept, k the k-th of REASONS[table], COLLAPSED
    rows: dict[str, int]  # read, kept, rejected, collapsed
    rejects: dict[str, int]  # reason -> rows, for reasons that occur

    @classmethod
    def of(cls, source: Source, reason: Array, backend: Any) -> "Verdict":
        counts = [int(count) for count in backend.to_host(count_codes(backend.xp, reason, 256))]
        rejects = {name: counts[k] for k, name in enumerate(REASONS[source.table], 1) if counts[k]}
        rows = {
            "read": source.n_rows,
            "kept": counts[0],
            "rejected": sum(rejects.values()),
            "collapsed": counts[COLLAPSED],
        }
        return cls(source, reason, rows, rejects)


def first_reason(xp: Any, n: int, checks: Iterable[Array]) -> Array:
    """For each of n rows the number (from 1) of the first check (n,) bool that finds it bad, else 0: (n,) uint8."""
    reason = xp.zeros(n, dtype=xp.uint8)
    for number, bad in enumerate(checks, 1):
        reason[bad & (reason == 0)] = number
    return reason


def settle(verdicts: Sequence[Verdict], inputs: Any, backend: Any, rejects: Path | None) -> float:
    """Apply `inputs.on_bad_rows` and return the quality score: the share of rows not rejected.

    `fail`: any bad row is an InputError. `reject`: bad rows are written to the Parquet file `rejects` (in table and row
    order, REJECTS_SCHEMA), and the score must be above `inputs.min_quality_score`. No rows left is an InputError.
    """
    n_read = sum(verdict.rows["read"] for verdict in verdicts)
    n_bad = sum(verdict.rows["rejected"] for verdict in verdicts)
    score = (n_read - n_bad) / n_read
    if n_bad and inputs.on_bad_rows == "fail":
        remedy = "Fix the rows, or build with --on-bad-rows reject (inputs.on_bad_rows) to set them aside."
        raise InputError(
            "\n".join([f"The inputs have {n_bad} bad rows:", *_findings(verdicts, backend), remedy])
        )
    if n_bad and score <= inputs.min_quality_score:
        found = f"The quality score is {score:.6f} ({n_bad} of {n_read} rows are bad), not above {inputs.min_quality_score}:"
        remedy = "Fix the rows, or lower inputs.min_quality_score if you accept the loss."
        raise InputError("\n".join([found, *_findings(verdicts, backend), remedy]))
    for verdict in verdicts:
        if verdict.source.table != "views" and verdict.rows["kept"] == 0:
            raise InputError(
                "\n".join(
                    [f"{verdict.source.label}: no rows are left:", *_findings(verdicts, backend)]
                )
            )
    if rejects is not None and inputs.on_bad_rows == "reject":
        _write_rejects(verdicts, backend, rejects)
    return score


def _findings(verdicts: Sequence[Verdict], backend: Any) -> list[str]:
    """A line for each table and reason, with its first row, and hints at what may lie behind them."""
    lines = []
    for verdict in verdicts:
        source = verdict.source
        for number, (reason, (meaning, columns)) in enumerate(REASONS[source.table].items(), 1):
            if reason in verdict.rejects:
                position = int(backend.xp.argmax(verdict.reason == number))
                row = next(_rows_at(source, [position]))
                values = ", ".join(
                    f"{source.names[name]} {_shortened(json.dumps(row.values.get(source.names[name])))}"
                    for name in columns
                    if name in source.names
                )
                where = f"{source.label}: {verdict.rejects[reason]} {reason}: {meaning}"
                lines.append(f"  {where} (first: {source.place(position)}, {values}).")
    articles = verdicts[0].source
    for verdict in verdicts:
        classes = {
            source.label: source.classes.get("article_id") for source in (articles, verdict.source)
        }
        if "unknown_article" in verdict.rejects and set(classes.values()) == {"text", "integer"}:
            held = " and ".join(f"{class_} in {label}" for label, class_ in classes.items())
            lines.append(
                f"  article_id is {held}: integers lose leading zeros, which inputs.article_id_width restores (H&M: 10)."
            )
    return lines


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


@dataclass(frozen=True)
class _Row:
    position: int  # in the table, from 0
    file: Path
    number: int  # in the file, from 0
    values: dict[str, Any]  # column of the table -> what JSON can hold


def _rows_at(source: Source, positions: Sequence[int]) -> Iterator[_Row]:
    """The rows at rising positions, as the files hold them, with a batch in memory at a time; InputError where one is torn."""
    try:
        yield from _read_rows_at(source, positions)
    except MemoryError:
        raise
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(explain_unreadable(str(source.path), error)) from error


def _read_rows_at(source: Source, positions: Sequence[int]) -> Iterator[_Row]:
    names = sorted(set(source.columns.values()))
    start, done = 0, 0  # of the batch in the table; positions already yielded
    for number, file in enumerate(source.files):
        file_start = start
        path_values = {
            source.names[name]: values[number] for name, values in source.partitions.items()
        }
        with pq.ParquetFile(file) as parquet:
            for group in range(parquet.num_row_groups):
                group_end = start + parquet.metadata.row_group(group).num_rows
                if bisect_left(positions, group_end) > done:
                    for batch in parquet.iter_batches(
                        BATCH_ROWS, row_groups=[group], columns=names
                    ):
                        upto = bisect_left(positions, start + batch.num_rows)
                        chosen = positions[done:upto]
                        rows = batch.take(
                            pa.array([position - start for position in chosen], pa.int64())
                        )
                        columns = [_printable(column) for column in rows.columns]
                        for row, position in enumerate(chosen):
                            values = {
                                name: column[row]
                                for name, column in zip(rows.schema.names, columns, strict=True)
                            }
                            yield _Row(position, file, position - file_start, values | path_values)
                        start, done = start + batch.num_rows, upto
                start = group_end


def _printable(column: pa.Array) -> list[Any]:
    """A column's values as JSON can hold them: times and decimals as text, NaN and infinities too."""
    column.validate(full=True)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type):
        texts = column.cast(pa.timestamp(column.type.unit)).cast(pa.string()).to_pylist()
        return [text and text + "Z" for text in texts] if column.type.tz else texts
    if pa.types.is_temporal(column.type) or pa.types.is_decimal(column.type):
        column = column.cast(pa.string())
    values = column.to_pylist()
    return [
        str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for value in values
    ]


def _write_rejects(verdicts: Sequence[Verdict], backend: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, REJECTS_SCHEMA, compression="zstd") as writer:
        for verdict in verdicts:
            reasons = [None, *REASONS[verdict.source.table]]
            bad = backend.xp.nonzero((verdict.reason > 0) & (verdict.reason < COLLAPSED))[0]
            positions, numbers = (
                backend.to_host(bad).tolist(),
                backend.to_host(verdict.reason[bad]).tolist(),
            )
            rows = zip(_rows_at(verdict.source, positions), numbers, strict=True)
            while batch := list(itertools.islice(rows, BATCH_ROWS)):
                columns = [
                    [verdict.source.table] * len(batch),
                    [row.position for row, _ in batch],
                    [reasons[number] for _, number in batch],
                    [
                        json.dumps(row.values, ensure_ascii=False, allow_nan=False)
                        for row, _ in batch
                    ],
                ]
                writer.write_table(pa.table(columns, schema=REJECTS_SCHEMA))
