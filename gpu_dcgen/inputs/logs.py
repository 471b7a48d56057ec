"""Read the rows of transactions and views, and give each its reason (D1 to D3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..backend.protocol import Array, Backend
from ..config import DatasetConfig
from ..contract.schema import InputTable
from .columns import ColumnReader, Numbers, drop_unused_values, map_codes, parse_floats
from .entities import Entities
from .events import RowKinds, find_kinds
from .hints import UnknownIds, find_lost_units
from .periods import check_ends
from .rejects import (
    LEFT_OUT,
    MAX_PRICE,
    CheckedTable,
    count_reasons,
    find_first_reasons,
)
from .sources import Source
from .times import Times, read_times

_MISSING, _UNKNOWN = -1, -2  # codes of what has no value, and of a value that is not accepted
_TIME_END = (datetime(2201, 1, 1) - datetime(1970, 1, 1)).days * 86_400 * 10**9  # ns, exclusive


@dataclass(frozen=True)
class Log:
    """Accepted rows of transactions or views, in input order."""

    time: Array  # (n,) int64
    user: Array  # (n,) int32
    item: Array  # (n,) int32
    price: Array  # (n,) int32
    prices: Any  # host (P,) float64
    channel: Array  # (n,) int8
    checked: CheckedTable
    warnings: tuple[str, ...]
    faults: tuple[str, ...]  # texts of InputErrors


@dataclass(frozen=True)
class LogRows:
    """All rows of a log, decoded, in input order."""

    source: Source
    item: Array  # (n,) int32  _MISSING and _UNKNOWN are none
    user: Array  # (n,) int32
    unknown_ids: tuple[UnknownIds, ...]
    time: Times
    price: Array  # (n,) int32  into `prices`; zeros where the log has none
    prices: pa.Array  # host
    has_price: bool
    channels: Numbers
    kinds: RowKinds


def read_rows(
    reader: ColumnReader, items: Entities, users: Entities, config: DatasetConfig
) -> LogRows:
    """Decode the rows of a log. InputError where a column cannot be read."""
    source, inputs = reader.source, config.inputs
    item, unknown_items = _match_ids(reader, "article_id", inputs.article_id_width, items)
    user, unknown_users = _match_ids(reader, "customer_id", inputs.customer_id_width, users)
    time = read_times(reader, "t_dat", inputs)
    has_price = source.table == "transactions" and (
        inputs.price == "column" or (inputs.price == "auto" and "price" in source.names)
    )
    price, prices = reader.backend.xp.zeros_like(item), pa.array([], pa.float64())
    if has_price:
        price, prices = _match_prices(reader.backend, *reader.read_codes("price"))
    channels, kinds = reader.read_numbers("sales_channel_id"), find_kinds(reader, inputs)
    reader.require()
    return LogRows(
        source,
        item,
        user,
        (unknown_items, unknown_users),
        time,
        price,
        prices,
        has_price,
        channels,
        kinds,
    )


def check_logs(rows: LogRows, config: DatasetConfig, backend: Backend) -> dict[InputTable, Log]:
    """Check the rows of a log; one of events (`inputs.events`) holds transactions and views."""
    table = rows.source.table
    logs = {table: _check_rows(rows, table, config, backend)}
    if table == "transactions" and rows.kinds.has_views:
        logs["views"] = _check_rows(rows, "views", config, backend)
    return logs


def _check_rows(rows: LogRows, table: InputTable, config: DatasetConfig, backend: Backend) -> Log:
    """Give the rows of one table their reasons, and return those that are accepted."""
    inputs, kinds = config.inputs, rows.kinds
    source, xp = replace(rows.source, table=table), backend.xp
    time, has_time = rows.time.values, rows.time.valid
    reason = find_first_reasons(xp, source.n_rows, _check_values(rows, table))
    if inputs.period is not None:
        reason[has_time & ((time < inputs.period[0]) | (time >= inputs.period[1]))] = LEFT_OUT
    kinds.mark(reason, table)
    warnings = list(check_ends(time, reason, source, config, backend))
    checked = count_reasons(source, reason, backend, rows.unknown_ids)
    columns = (time, rows.user, rows.item, rows.price)
    channel = _match_channels(xp, rows.channels.values, rows.channels.valid, inputs.channels)
    if checked.counts.accepted < source.n_rows:
        places = xp.nonzero(checked.reason == 0)[0]
        columns, channel = tuple(array[places] for array in columns), channel[places]
    price, prices = columns[3], rows.prices
    if rows.has_price:
        price, prices = drop_unused_values(backend, price, prices)
    is_first = table == rows.source.table  # what is said of all rows is said once
    if is_first:
        warnings = [*source.warnings, *warnings, *rows.time.warn(f"{source.label}: t_dat", inputs)]
        warnings += _warn_of_channels(rows, channel, config)
    faults = tuple(find_lost_units(source, time, inputs.time_unit)) if is_first else ()
    return Log(*columns[:3], price, prices.to_numpy(), channel, checked, tuple(warnings), faults)


def _check_values(rows: LogRows, table: InputTable) -> Iterator[Array]:
    """Yield whether each row is bad, (n,) bool, for one of REASONS after another."""
    time = rows.time.values
    yield (rows.item == _MISSING) | (rows.user == _MISSING)
    yield rows.item == _UNKNOWN
    yield rows.user == _UNKNOWN
    yield ~rows.time.valid
    yield (time < 0) | (time >= _TIME_END)
    if table == "transactions":
        yield rows.price == _MISSING
        yield rows.price == _UNKNOWN
        yield from rows.kinds.faults


def _warn_of_channels(rows: LogRows, channel: Array, config: DatasetConfig) -> Iterator[str]:
    """Yield warnings of channels that are no numbers, or not known; (n,) of accepted rows."""
    source = rows.source
    yield from rows.channels.warn(f"{source.label}: sales_channel_id")
    if "sales_channel_id" in source.names and (n_unknown := int((channel < 0).sum())):
        known = ", ".join(map(str, sorted(config.inputs.channels)))
        yield (
            f"{source.label}: sales_channel_id is null or not in inputs.channels ({known}) in "
            f"{n_unknown} rows; null is used there."
        )


def _match_ids(
    reader: ColumnReader, column: str, width: int, entities: Entities
) -> tuple[Array, UnknownIds]:
    """Return codes (n,) int32 into the accepted ids, and the ids that are none of them.

    _MISSING is null, _UNKNOWN a text that is none of them.
    """
    codes, texts = reader.read_keys(column, width)
    places = pc.index_in(texts, value_set=entities.ids)
    unknown = texts.filter(places.is_null()) if places.null_count else texts[:0]
    known = reader.source if entities.checked is None else entities.checked.source
    ids = UnknownIds(column, reader.source, known, unknown, entities.ids)
    return map_codes(reader.backend, places.fill_null(_UNKNOWN), codes), ids


def _match_prices(backend: Backend, codes: Array, values: pa.Array) -> tuple[Array, pa.Array]:
    """Return codes (n,) int32 into the sorted distinct good prices, and those prices.

    _MISSING is null, NaN or text that is no number, _UNKNOWN a bad price.
    """
    if pa.types.is_decimal(values.type):
        # By way of text the decimal is rounded correctly; by Arrow's direct cast it is not.
        values = values.cast(pa.string())
    is_text = pa.types.is_string(values.type)
    floats = parse_floats(values) if is_text else values.cast(pa.float64())
    is_good = pc.and_(pc.greater(floats, 0.0), pc.less_equal(floats, MAX_PRICE))
    prices = floats.filter(is_good).unique().sort()
    places = pc.index_in(floats, value_set=prices).fill_null(_UNKNOWN)
    places = pc.if_else(floats.is_null(), _MISSING, places).cast(pa.int32())
    return map_codes(backend, places, codes), prices


def _match_channels(xp: Any, values: Array, is_valid: Array, channels: Mapping[int, str]) -> Array:
    """Return channel ids (n,) int8, -1 where null or not in `channels` (D3)."""
    channel = xp.full(values.shape[0], -1, dtype=xp.int8)
    for known in channels:
        channel = xp.where(is_valid & (values == known), xp.int8(known), channel)
    return channel
