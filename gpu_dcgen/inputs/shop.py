"""Stage 1: Parquet tables -> Shop: checked and encoded, bad rows set aside (D1 to D3)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

from ..backend.protocol import Array, Backend
from ..config import DatasetConfig
from ..contract.budgets import CRITICAL_QUALITY_SCORE
from ..contract.schema import InputTable
from ..errors import InputError, Problems
from .columns import ColumnReader
from .entities import Category, Entities, derive_entities, load_entities
from .logs import Log, LogRows, check_logs, read_rows
from .origins import InputTables, as_tables
from .rejects import (
    CheckedTable,
    RowCounts,
    handle_rejects,
)
from .sources import Source, find_sources

_LOGS: tuple[InputTable, ...] = ("transactions", "views")
_HASH_BYTES = 1 << 20  # read at a time; an error stops hashing after the next of them


class InputFile(NamedTuple):
    """A file that was read."""

    table: str
    file: str  # relative to the input folder
    bytes: int
    rows: int
    sha256: str  # 64 hex digits


@dataclass(frozen=True)
class InputReport:
    """Where every input row went, and what the build must remember of its inputs."""

    rows: dict[str, RowCounts]  # by table
    rejects: dict[str, dict[str, int]]  # by table and reason; sums to `rows`' rejected
    left_out: dict[str, dict[str, int]]  # the same of rows that are left out
    quality_score: float  # clean rows / all rows over all tables, 0..1
    warnings: tuple[str, ...]
    files: tuple[InputFile, ...]
    # Critical by the contract's "Alerting Thresholds", and no reason to stop.
    alerts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shop:
    """The accepted rows: users and items by their sorted ids, transactions in input order."""

    user_ids: Any  # host pyarrow string array (U,), sorted by code point
    item_ids: Any  # host pyarrow string array (I,), sorted by code point
    age: Array  # (U,) int16  -1 for null
    user_columns: dict[str, Category]  # club_status, news_frequency
    # product_, color_, garment_, index_group, department, product_code, section, name
    item_columns: dict[str, Category]
    time: Array  # (T,) int64  nanoseconds since 1970 UTC
    user: Array  # (T,) int32  0..U-1
    item: Array  # (T,) int32  0..I-1
    price: Array  # (T,) int32  code into `prices`; zeros when the log has none
    prices: Any  # host numpy (P,) float64  sorted distinct prices; (0,) when the log has none
    channel: Array  # (T,) int8  sales_channel_id where inputs.channels has it, else -1
    views: tuple[Array, Array, Array] | None  # time int64, user int32, item int32 of accepted views
    report: InputReport = field(repr=False)

    @property
    def n_users(self) -> int:
        """Accepted customers."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Accepted articles."""
        return len(self.item_ids)


@dataclass(frozen=True)
class DecodedTables:
    """Tables that were read whole; their rows are yet to be checked."""

    items: Entities
    users: Entities
    logs: Iterable[LogRows]  # transactions and views
    files: tuple[InputFile, ...]


def load_shop(
    tables: InputTables | Path,
    config: DatasetConfig,
    backend: Backend,
    *,
    rejects: Path | None = None,
) -> Shop:
    """Read, check and encode the tables in a folder of Parquet files (D1 to D3).

    Each of articles, customers, transactions and, if configured, views is NAME.parquet (a file or a
    folder of files) or a folder NAME/; `opening.open_tables` makes such a folder of CSV files.
    Without their tables, articles and customers are those of transactions and views. Every row is
    accepted, collapsed (an identical copy of an article or customer) or rejected for its first
    reason; with `inputs.on_bad_rows: reject`, rejected rows are written to the Parquet file
    `rejects`. Memory: about one table's columns at a time, texts as their distinct values; those of
    transactions and views where articles or customers have no table.

    Raises InputError for tables that are missing, unreadable or of wrong types and for bad rows
    (`handle_rejects`), ConfigError for a mapping of a column that does not exist.
    """
    problems, label = Problems(), as_tables(tables).label
    sources = find_sources(tables, config.inputs)
    with _hash_files(sources.values()) as hashes:
        decoded = _decode(sources, problems, config, backend)
        shop = _accept(decoded, problems, label, config, backend, rejects)
        return _add_files(shop, _record_files(sources.values(), hashes))


def read_shop(
    tables: InputTables, config: DatasetConfig, backend: Backend
) -> tuple[Shop, DecodedTables]:
    """Load the shop as `load_shop` does, and return its decoded tables as well.

    Memory: all rows decoded, some 30 bytes each, besides those of the shop. Raises as `load_shop`.
    """
    problems = Problems()
    sources = find_sources(tables, config.inputs)
    with _hash_files(sources.values()) as hashes:
        decoded = _decode(sources, problems, config, backend)
        decoded = replace(decoded, logs=tuple(decoded.logs))
        shop = _accept(decoded, problems, tables.label, config, backend)
        shop = _add_files(shop, _record_files(sources.values(), hashes))
        return shop, replace(decoded, files=shop.report.files)


def accept_rows(
    decoded: DecodedTables,
    label: str,
    config: DatasetConfig,
    backend: Backend,
    *,
    rejects: Path | None = None,
) -> Shop:
    """Return what `load_shop` makes of tables that are decoded.

    The settings may be others than those that the tables were read with, in their period
    (`inputs.time_from`, `inputs.time_until`) and outside of the section `inputs`. `label` names the
    tables in messages. Raises InputError for bad rows.
    """
    shop = _accept(decoded, Problems(), label, config, backend, rejects)
    return _add_files(shop, decoded.files)


def check_tables(
    tables: InputTables | Path,
    config: DatasetConfig,
    backend: Backend,
    problems: Problems | None = None,
) -> InputReport:
    """Read the tables as `load_shop` does, to find all that is wrong with them at once.

    The rows of tables without a problem are read also where another table has some: InputError
    names all, after those that are in `problems` already.
    """
    problems = problems or Problems()
    sources = find_sources(tables, config.inputs, problems)
    with _hash_files(sources.values()) as hashes:
        decoded = _decode(sources, problems, config, backend)
        shop = _accept(decoded, problems, as_tables(tables).label, config, backend)
        return _add_files(shop, _record_files(sources.values(), hashes)).report


def _decode(
    sources: Mapping[InputTable, Source],
    problems: Problems,
    config: DatasetConfig,
    backend: Backend,
) -> DecodedTables:
    """Read the tables, the logs one after another as they are asked for.

    What is wrong with them is added to `problems`.
    """
    readers = _LogReaders(sources, backend)
    items = _find_entities("articles", sources, readers, problems, config)
    users = _find_entities("customers", sources, readers, problems, config)
    return DecodedTables(items, users, _decode_logs(readers, items, users, problems, config), ())


def _decode_logs(
    readers: _LogReaders,
    items: Entities,
    users: Entities,
    problems: Problems,
    config: DatasetConfig,
) -> Iterator[LogRows]:
    for table in readers.tables:
        with problems.collect():
            yield read_rows(readers.take(table), items, users, config)


def _accept(
    decoded: DecodedTables,
    problems: Problems,
    label: str,
    config: DatasetConfig,
    backend: Backend,
    rejects: Path | None = None,
) -> Shop:
    """Check the rows and return the shop, or raise `problems` and what is wrong with the rows.

    The shop's files are yet to be added.
    """
    items, users, loaded = decoded.items, decoded.users, dict[InputTable, Log]()
    # Rows have no name here, so that those of a table are released before the next are decoded.
    for new in map(partial(check_logs, config=config, backend=backend), decoded.logs):
        loaded |= new
        problems.errors += [InputError(text) for log in new.values() for text in log.faults]
    parts: list[Entities | Log] = [items, users, *loaded.values()]
    checked = [part.checked for part in parts if part.checked]
    with problems.collect():
        # Rows are set aside only where a build does not end here.
        rejects = None if problems.errors else rejects
        score = handle_rejects(checked, config.inputs, backend, rejects)
    problems.raise_all(label)
    log, views = loaded["transactions"], loaded.get("views")
    report = InputReport(
        rows={table.source.table: table.counts for table in checked},
        rejects={table.source.table: table.rejects for table in checked},
        left_out={table.source.table: table.left_out for table in checked if table.left_out},
        quality_score=score,
        warnings=tuple(text for part in parts for text in part.warnings),
        files=(),
        alerts=tuple(_find_alerts(score, checked)),
    )
    return Shop(
        user_ids=users.ids,
        item_ids=items.ids,
        age=users.age,
        user_columns=users.columns,
        item_columns=items.columns,
        time=log.time,
        user=log.user,
        item=log.item,
        price=log.price,
        prices=log.prices,
        channel=log.channel,
        views=(views.time, views.user, views.item) if views else None,
        report=report,
    )


def _add_files(shop: Shop, files: Iterable[InputFile]) -> Shop:
    return replace(shop, report=replace(shop.report, files=tuple(files)))


class _LogReaders:
    """The readers of transactions and views; each is opened when it is first needed."""

    def __init__(self, sources: Mapping[InputTable, Source], backend: Backend) -> None:
        self.backend = backend
        self.tables = [table for table in _LOGS if table in sources]
        self._sources = sources
        self._readers: dict[InputTable, ColumnReader] = {}

    def peek(self) -> list[ColumnReader]:
        """Return the readers of all logs."""
        for table in self.tables:
            self._readers[table] = self.take(table)
        return [self._readers[table] for table in self.tables]

    def take(self, table: InputTable) -> ColumnReader:
        """Return the reader of a log, and forget it: its columns take memory."""
        return self._readers.pop(table, None) or ColumnReader(self._sources[table], self.backend)


def _find_entities(
    table: InputTable,
    sources: Mapping[InputTable, Source],
    logs: _LogReaders,
    problems: Problems,
    config: DatasetConfig,
) -> Entities:
    """Read articles or customers from their table, or take them from the logs without one.

    So they are where the table cannot be read, to find what is wrong with the logs too.
    """
    inputs = config.inputs
    width = inputs.article_id_width if table == "articles" else inputs.customer_id_width
    if table in sources:
        with problems.collect():
            return load_entities(sources[table], logs.backend, width=width)
    return derive_entities(table, logs.peek(), logs.backend, width=width)


def _find_alerts(score: float, tables: Sequence[CheckedTable]) -> Iterator[str]:
    if score < CRITICAL_QUALITY_SCORE:
        n_bad = sum(table.counts.rejected for table in tables)
        n_read = sum(table.counts.read for table in tables)
        yield (
            f"inputs: found a data_quality_score of {score:.6f} ({n_bad} of {n_read} rows are "
            f"bad); expected at least {CRITICAL_QUALITY_SCORE}."
        )


_Hashes = dict[Path, "Future[tuple[int, str]]"]  # file -> bytes and SHA-256, once computed


@contextmanager
def _hash_files(sources: Iterable[Source]) -> Iterator[_Hashes]:
    """Hash all files in a thread beside the reading; an error in the block stops it.

    Hashing releases the GIL, so it takes no time of a build that uses another core.
    """
    is_over, hasher = Event(), ThreadPoolExecutor(1, "sha256")
    try:
        yield {
            file: hasher.submit(_hash_file, file, is_over)
            for source in sources
            for file, origin in zip(source.files, source.origins, strict=True)
            if origin is None
        }
    finally:
        is_over.set()
        hasher.shutdown(cancel_futures=True)


def _hash_file(file: Path, is_over: Event) -> tuple[int, str]:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while not is_over.is_set() and (chunk := stream.read(_HASH_BYTES)):
            digest.update(chunk)
    return file.stat().st_size, digest.hexdigest()


def _record_files(sources: Iterable[Source], hashes: _Hashes) -> Iterator[InputFile]:
    for source in sources:
        for file, n_rows, origin in zip(source.files, source.rows, source.origins, strict=True):
            if origin is None:
                name = file.relative_to(source.folder).as_posix()
                n_bytes, sha256 = hashes[file].result()
            else:
                name, n_bytes, sha256 = origin.name, origin.bytes, origin.sha256
            yield InputFile(source.table, name, n_bytes, n_rows, sha256)
