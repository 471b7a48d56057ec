"""Stage 1: Parquet tables -> Shop: validated, encoded, with every bad row set aside under one reason (D1-D3)."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any, Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ..backend.protocol import Array
from ..backend.runs import count_codes, run_starts
from ..config import DatasetConfig
from ..contract.budgets import CRITICAL_QUALITY_SCORE
from ..contract.schema import CLUB_STATUS, NEWS_FREQUENCY
from .columns import Reader, compact, gather, sorted_distinct
from .rejects import COLLAPSED, MAX_PRICE, Verdict, first_reason, settle
from .sources import Source, find_sources

ITEM_COLUMNS = {
    "product_group": "product_group_name",
    "color_group": "colour_group_name",
    "garment_group": "garment_group_name",
    "department": "department_name",
    "index_group": "index_group_name",
    "product_code": "product_code",
    "section": "section_name",
    "name": "prod_name",
}
USER_COLUMNS = {"club_status": "club_member_status", "news_frequency": "fashion_news_frequency"}

NO_CATEGORIES = (
    "product_code",
    "section",
    "name",
)  # they describe an item; a null in them says nothing

# What the data says is kept, and a value beyond the contract's is a warning (D17).
CONTRACT_VALUES = {"club_status": CLUB_STATUS, "news_frequency": NEWS_FREQUENCY}

# H&M's index groups, for files that only have `index_name`; any other index is its own group.
INDEX_GROUPS = {
    "Ladies Accessories": "Ladieswear",
    "Lingeries/Tights": "Ladieswear",
    "Baby Sizes 50-98": "Baby/Children",
    "Children Sizes 92-140": "Baby/Children",
    "Children Sizes 134-170": "Baby/Children",
    "Children Accessories, Swimwear": "Baby/Children",
}

MISSING, UNKNOWN = -1, -2  # codes of what has no value, and of a value that is not accepted
MAX_AGE = 120  # years
HASH_BYTES = 1 << 20  # read at a time, after which an error is heard
TIME_END = (
    (datetime(2201, 1, 1) - datetime(1970, 1, 1)).days * 86_400 * 10**9
)  # nanoseconds; times are in [0, TIME_END)


@dataclass(frozen=True)
class Category:
    """A categorical column: codes into its sorted distinct values."""

    codes: Array  # (n,) int32  -1 for null
    values: tuple[str, ...]  # sorted by code point


@dataclass(frozen=True)
class InputReport:
    """Where every input row went, per table, and what the build must remember of its inputs."""

    rows: dict[
        str, dict[str, int]
    ]  # table -> {"read": n, "kept": n, "rejected": n, "collapsed": n (identical duplicate keys)}
    rejects: dict[str, dict[str, int]]  # table -> reason -> rows; sums to rows[table]["rejected"]
    quality_score: float  # clean rows / all rows over all tables
    warnings: tuple[str, ...]
    files: tuple[
        dict[str, Any], ...
    ]  # {"table", "file" (name relative to the input folder), "bytes", "rows", "sha256"}
    alerts: tuple[
        str, ...
    ] = ()  # critical by the contract's "Alerting Thresholds", and no reason to stop


@dataclass(frozen=True)
class Shop:
    """The accepted rows: users and items by their sorted ids, transactions in input order."""

    user_ids: Any  # host pyarrow string array (U,), sorted by code point
    item_ids: Any  # host pyarrow string array (I,), sorted by code point
    age: Array  # (U,) int16  -1 for null
    user_columns: dict[str, Category]  # club_status, news_frequency
    item_columns: dict[
        str, Category
    ]  # product_, color_, garment_, index_group, department, product_code, section, name
    time: Array  # (T,) int64  nanoseconds since 1970 UTC
    user: Array  # (T,) int32  0..U-1
    item: Array  # (T,) int32  0..I-1
    price: Array  # (T,) int32  code into `prices`; zeros when the log has none
    prices: Any  # host numpy (P,) float64  sorted distinct prices; (0,) when the log has none
    channel: Array  # (T,) int8  sales_channel_id where inputs.channels knows it, else -1
    views: tuple[Array, Array, Array] | None  # time int64, user int32, item int32 of accepted views
    report: InputReport = field(repr=False)

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)


def load_shop(
    folder: Path, config: DatasetConfig, backend: Any, *, rejects: Path | None = None
) -> Shop:
    """Read, check and encode the tables in `folder` (D1-D3).

    Each of articles, customers, transactions and, if wanted and there, views is NAME.parquet (a file or a folder of
    files) or a folder NAME/. Every row is kept, collapsed (an identical copy of an article or customer) or rejected for
    its first reason; with `inputs.on_bad_rows: reject` the rejected rows go to the Parquet file `rejects`.
    Needs about one table's columns in memory at a time, text as its distinct values.
    InputError: tables that are missing, unreadable or of wrong types; bad rows as `settle` says. ConfigError: a mapping of
    a column that does not exist.
    """
    folder = Path(folder)
    inputs = config.inputs
    sources = find_sources(folder, inputs)
    with _digests(sources.values()) as digests:
        items = _load_entities(
            sources["articles"], "article_id", ITEM_COLUMNS, backend, width=inputs.article_id_width
        )
        users = _load_entities(sources["customers"], "customer_id", USER_COLUMNS, backend)
        log = _load_log(sources["transactions"], items.ids, users.ids, inputs, backend)
        views = (
            _load_log(sources["views"], items.ids, users.ids, inputs, backend)
            if "views" in sources
            else None
        )
        verdicts = [part.verdict for part in (items, users, log, views) if part]
        score = settle(verdicts, inputs, backend, rejects)
        files = tuple(_files(sources.values(), digests))
    report = InputReport(
        rows={verdict.source.table: verdict.rows for verdict in verdicts},
        rejects={verdict.source.table: verdict.rejects for verdict in verdicts},
        quality_score=score,
        warnings=tuple(
            text for part in (items, users, log, views) if part for text in part.warnings
        ),
        files=files,
        alerts=tuple(_alerts(score, verdicts)),
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


@dataclass(frozen=True)
class _Entities:
    """Accepted customers or articles, by sorted id."""

    ids: pa.Array  # (n,) host strings
    columns: dict[str, Category]
    age: Array  # (n,) int16  -1 for null
    verdict: Verdict
    warnings: tuple[str, ...]


def _load_entities(
    source: Source, key: str, columns: Mapping[str, str], backend: Any, *, width: int = 0
) -> _Entities:
    xp = backend.xp
    reader = Reader(source, backend)
    codes, ids = reader.keys(key, width)
    coded = {name: reader.texts(theirs) for name, theirs in columns.items()}
    if "index_name" in source.names:  # only read where there is no index_group_name
        coded["index_group"] = _index_groups(backend, *reader.texts("index_name"))
    age, has_age = reader.numbers("age")  # articles have none

    verdict = Verdict.of(
        source,
        _judge_keys(xp, codes, [column for column, _ in coded.values()] + [age, has_age]),
        backend,
    )
    kept = xp.nonzero(verdict.reason == 0)[0]
    kept = kept[xp.argsort(codes[kept], kind="stable")]
    warnings, categories = list(source.warnings), {}
    for name, (column, texts) in coded.items():
        column, texts = compact(backend, column[kept], texts)
        categories[name] = Category(column, tuple(texts.to_pylist()))
        warnings += _category_warnings(source, name, columns[name], categories[name])
    age, has_age = age[kept], has_age[kept]
    bad_age = has_age & ((age < 0) | (age > MAX_AGE))
    if n_bad := int(bad_age.sum()):
        warnings.append(
            f"{source.label}: age is outside 0..{MAX_AGE} in {n_bad} rows and taken as null there."
        )
    age = xp.where(has_age & ~bad_age, xp.floor(age), -1.0).astype(xp.int16)
    return _Entities(
        ids.take(pa.array(backend.to_host(codes[kept]))), categories, age, verdict, tuple(warnings)
    )


def _index_groups(backend: Any, codes: Array, names: pa.Array) -> tuple[Array, pa.Array]:
    groups, place = sorted_distinct(
        pa.array([INDEX_GROUPS.get(name, name) for name in names.to_pylist()], pa.string())
    )
    return gather(backend, place, codes), groups


def _judge_keys(xp: Any, codes: Array, columns: Sequence[Array]) -> Array:
    """Reasons (n,) uint8: rows with one id collapse onto the first, or are all bad where any differs in `columns`."""
    reason = first_reason(xp, codes.shape[0], [codes < 0])
    rows = xp.nonzero(codes >= 0)[0]
    rows = rows[xp.argsort(codes[rows], kind="stable")]
    starts = run_starts(xp, codes[rows])
    run = xp.cumsum(starts) - 1
    first = rows[starts][run]
    differs = xp.zeros(rows.shape[0], dtype=bool)
    for column in columns:
        differs |= column[rows] != column[first]
    conflict = count_codes(xp, run[differs], rows.shape[0]) > 0
    reason[rows] = xp.where(conflict[run], 2, xp.where(starts, 0, COLLAPSED)).astype(xp.uint8)
    return reason


def _category_warnings(source: Source, name: str, column: str, category: Category) -> Iterator[str]:
    if column not in source.names:
        return
    if name not in NO_CATEGORIES and (n_null := int((category.codes < 0).sum())):
        yield f"{source.label}: {column} is null in {n_null} rows; null acts as a category of its own."
    listed = CONTRACT_VALUES.get(name)
    if listed and (unlisted := [value for value in category.values if value not in listed]):
        found, expected = ", ".join(map(repr, unlisted)), ", ".join(map(repr, listed))
        yield f"{source.label}: {column} holds {found}, which the contract does not list ({expected}); kept as it is."


@dataclass(frozen=True)
class _Log:
    """Accepted rows of transactions or views, in input order."""

    time: Array  # (n,) int64
    user: Array  # (n,) int32
    item: Array  # (n,) int32
    price: Array  # (n,) int32
    prices: Any  # host (P,) float64
    channel: Array  # (n,) int8
    verdict: Verdict
    warnings: tuple[str, ...]


def _load_log(
    source: Source, item_ids: pa.Array, user_ids: pa.Array, inputs: Any, backend: Any
) -> _Log:
    xp = backend.xp
    reader = Reader(source, backend)
    item = _match(backend, *reader.keys("article_id", inputs.article_id_width), item_ids)
    user = _match(backend, *reader.keys("customer_id"), user_ids)
    time, has_time = reader.times("t_dat")
    has_price = source.table == "transactions" and inputs.price == "column"
    price, prices = xp.zeros_like(item), pa.array([], pa.float64())
    if has_price:
        price, prices = _match_prices(backend, *reader.encode("price"))
    channel = _channels(xp, *reader.numbers("sales_channel_id"), inputs.channels)

    checks = (  # in the order of REASONS
        (item == MISSING) | (user == MISSING),
        item == UNKNOWN,
        user == UNKNOWN,
        ~has_time,
        (time < 0) | (time >= TIME_END),
        price == MISSING,
        price == UNKNOWN,
    )
    verdict = Verdict.of(source, first_reason(xp, source.n_rows, checks), backend)
    if verdict.rows["kept"] < source.n_rows:
        kept = xp.nonzero(verdict.reason == 0)[0]
        time, user, item, price, channel = (
            array[kept] for array in (time, user, item, price, channel)
        )
    if has_price:
        price, prices = compact(backend, price, prices)
    warnings = list(source.warnings)
    if "sales_channel_id" in source.names and (n_unknown := int((channel < 0).sum())):
        known = ", ".join(map(str, sorted(inputs.channels)))
        where = f"{source.label}: sales_channel_id is null or not in inputs.channels ({known})"
        warnings.append(f"{where} in {n_unknown} rows and taken as null there.")
    return _Log(time, user, item, price, prices.to_numpy(), channel, verdict, tuple(warnings))


def _match(backend: Any, codes: Array, texts: pa.Array, ids: pa.Array) -> Array:
    """Codes (n,) int32 into the accepted `ids`, MISSING for null, UNKNOWN where the text is none of them."""
    return gather(backend, pc.index_in(texts, value_set=ids).fill_null(UNKNOWN), codes)


def _match_prices(backend: Any, codes: Array, values: pa.Array) -> tuple[Array, pa.Array]:
    """Codes (n,) int32 into the sorted distinct good prices, MISSING for null and NaN, UNKNOWN for bad ones; and those prices."""
    if pa.types.is_decimal(values.type):
        values = values.cast(
            pa.string()
        )  # by way of text the decimal is rounded correctly; Arrow's direct cast is not
    floats = values.cast(pa.float64())
    good = pc.and_(pc.greater(floats, 0.0), pc.less_equal(floats, MAX_PRICE))
    prices = floats.filter(good).unique().sort()
    return gather(backend, pc.index_in(floats, value_set=prices).fill_null(UNKNOWN), codes), prices


def _channels(xp: Any, values: Array, valid: Array, channels: Mapping[int, str]) -> Array:
    """Channel ids (n,) int8, -1 where null or not in `channels` (D3)."""
    channel = xp.full(values.shape[0], -1, dtype=xp.int8)
    for known in channels:
        channel = xp.where(valid & (values == known), xp.int8(known), channel)
    return channel


def _alerts(score: float, verdicts: Sequence[Verdict]) -> Iterator[str]:
    if score < CRITICAL_QUALITY_SCORE:
        n_bad, n_read = (
            sum(verdict.rows[what] for verdict in verdicts) for what in ("rejected", "read")
        )
        bad = f"{n_bad} of {n_read} rows are bad"
        yield f"data_quality_score is {score:.6f} ({bad}), below {CRITICAL_QUALITY_SCORE}."


@contextmanager
def _digests(sources: Iterable[Source]) -> Iterator[dict[Path, Future]]:
    """(bytes, SHA-256) of every file, to come: hashing holds no GIL and costs no time beside the reading. An error ends it."""
    over, hasher = Event(), ThreadPoolExecutor(1, "sha256")
    try:
        yield {
            file: hasher.submit(_sha256, file, over) for source in sources for file in source.files
        }
    finally:
        over.set()
        hasher.shutdown(cancel_futures=True)


def _sha256(file: Path, over: Event) -> tuple[int, str]:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while not over.is_set() and (chunk := stream.read(HASH_BYTES)):
            digest.update(chunk)
    return file.stat().st_size, digest.hexdigest()


def _files(sources: Iterable[Source], digests: Mapping[Path, Future]) -> Iterator[dict[str, Any]]:
    for source in sources:
        for file, n_rows in zip(source.files, source.rows, strict=True):
            n_bytes, sha256 = digests[file].result()
            name = file.relative_to(source.folder).as_posix()
            yield {
                "table": source.table,
                "file": name,
                "bytes": n_bytes,
                "rows": n_rows,
                "sha256": sha256,
            }
