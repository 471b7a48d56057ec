"""Customers and articles by their sorted ids: from their tables, or from the log (D1, D2)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..backend.protocol import Array, Backend
from ..backend.runs import count_codes, run_starts
from ..contract.schema import CLUB_STATUS, INPUT_COLUMNS, NEWS_FREQUENCY, InputTable
from .columns import ColumnReader, drop_unused_values, encode_texts, map_codes
from .hints import warn_of_float_ids, warn_of_integer_ids
from .rejects import COLLAPSED, CheckedTable, count_reasons, find_first_reasons
from .sources import Source

# They describe an item; a null in them says nothing.
_NO_CATEGORIES = ("product_code", "section", "name")

# Values beyond the contract's are used as they are, with a warning (D17).
_CONTRACT_VALUES = {"club_status": CLUB_STATUS, "news_frequency": NEWS_FREQUENCY}
_HM_VALUES = ("PRE-CREATE",)  # in H&M's log, where the contract lists PRE-CREATION: no surprise

# H&M's index groups, for files that only have `index_name`; any other index is its own group.
_INDEX_GROUPS = {
    "Ladies Accessories": "Ladieswear",
    "Lingeries/Tights": "Ladieswear",
    "Baby Sizes 50-98": "Baby/Children",
    "Children Sizes 92-140": "Baby/Children",
    "Children Sizes 134-170": "Baby/Children",
    "Children Accessories, Swimwear": "Baby/Children",
}

# What programs write for no value, in lower case.
_NO_IDS = ("nan", "none", "null", "na", "n/a", "<na>", "nat", "\\n", "undefined")

MAX_AGE = 120  # years


@dataclass(frozen=True)
class Category:
    """A categorical column: codes into its sorted distinct values."""

    codes: Array  # (n,) int32  -1 for null
    values: tuple[str, ...]  # sorted by code point


@dataclass(frozen=True)
class Entities:
    """Accepted customers or articles, by sorted id."""

    ids: pa.Array  # (n,) host strings
    columns: dict[str, Category]
    age: Array  # (n,) int16  -1 for null
    checked: CheckedTable | None  # None where there is no table
    warnings: tuple[str, ...]


def load_entities(source: Source, backend: Backend, *, width: int = 0) -> Entities:
    """Read customers or articles; rows of one id collapse, or are bad where they differ.

    Integer ids are padded with zeros to `width`. InputError where the table cannot be read.
    """
    xp = backend.xp
    reader = ColumnReader(source, backend)
    key, *features = INPUT_COLUMNS[source.table]
    own_columns = {column.becomes: column.name for column in features if column.becomes}
    codes, ids = reader.read_keys(key.name, width)
    encoded = {name: reader.read_texts(column) for name, column in own_columns.items()}
    if "index_name" in source.names:  # only read where there is no index_group_name
        encoded["index_group"] = _derive_index_groups(backend, *reader.read_texts("index_name"))
    ages = reader.read_numbers("age", has_bands=True)  # articles have none
    reader.require()
    age, has_age = ages.values, ages.valid

    compared = [column for column, _ in encoded.values()] + [age, has_age]
    checked = count_reasons(source, _check_keys(xp, codes, compared), backend)
    rows = xp.nonzero(checked.reason == 0)[0]
    rows = rows[xp.argsort(codes[rows], kind="stable")]
    warnings, categories = [*source.warnings, *ages.warn(f"{source.label}: age")], {}
    for name, (column, texts) in encoded.items():
        column, texts = drop_unused_values(backend, column[rows], texts)
        categories[name] = Category(column, tuple(texts.to_pylist()))
        warnings += _warn_of_category(source, name, own_columns[name], categories[name])
    age, has_age = age[rows], has_age[rows]
    is_bad_age = has_age & ((age < 0) | (age > MAX_AGE))
    if n_bad := int(is_bad_age.sum()):
        warnings.append(
            f"{source.label}: age is outside 0..{MAX_AGE} in {n_bad} rows; null is used there."
        )
    age = xp.where(has_age & ~is_bad_age, xp.floor(age), -1.0).astype(xp.int16)
    ids = ids.take(pa.array(backend.to_host(codes[rows])))
    warnings += [*warn_of_integer_ids(source, ids), *warn_of_float_ids(source, key.name, ids)]
    return Entities(ids, categories, age, checked, tuple(warnings))


def derive_entities(
    table: InputTable, logs: Sequence[ColumnReader], backend: Backend, *, width: int = 0
) -> Entities:
    """Take the customers or articles from the ids of logs; nothing else is known of them."""
    xp, (key, *features) = backend.xp, INPUT_COLUMNS[table]
    texts = [reader.peek_keys(key.name, width) for reader in logs]
    ids = pa.chunked_array(texts, pa.string()).unique().sort()
    unknown = Category(xp.full(len(ids), -1, dtype=xp.int32), ())
    categories = {column.becomes: unknown for column in features if column.becomes}
    age = xp.full(len(ids), -1, dtype=xp.int16)
    warnings = [text for log in logs[:1] for text in _warn_of_ids(key.name, ids, log.source)]
    return Entities(ids, categories, age, None, tuple(warnings))


def _warn_of_ids(key: str, ids: pa.Array, log: Source) -> Iterator[str]:
    """Yield a warning of ids that may stand for no value; their rows are those of many."""
    yield from warn_of_float_ids(log, key, ids)
    suspects = ids.filter(pc.is_in(pc.utf8_lower(ids), pa.array(_NO_IDS))).to_pylist()
    if suspects:
        yield (
            f"{log.label}: {key} has the values {', '.join(map(repr, suspects))}, which are used "
            "as ids. If they stand for none, write null, or for CSV files state them: "
            f"inputs.csv.null_values: {json.dumps(['', *suspects])}"
        )


def _derive_index_groups(backend: Backend, codes: Array, names: pa.Array) -> tuple[Array, pa.Array]:
    groups, places = encode_texts(
        pa.array([_INDEX_GROUPS.get(name, name) for name in names.to_pylist()], pa.string())
    )
    return map_codes(backend, places, codes), groups


def _check_keys(xp: Any, codes: Array, columns: Sequence[Array]) -> Array:
    """Return reasons (n,) uint8 of rows with ids `codes` (n,).

    Rows of one id collapse onto the first, or are all bad where any differs in `columns`.
    """
    reason = find_first_reasons(xp, codes.shape[0], [codes < 0])
    rows = xp.nonzero(codes >= 0)[0]
    rows = rows[xp.argsort(codes[rows], kind="stable")]
    starts = run_starts(xp, codes[rows])
    run = xp.cumsum(starts) - 1
    first = rows[starts][run]
    differs = xp.zeros(rows.shape[0], dtype=bool)
    for column in columns:
        differs |= column[rows] != column[first]
    conflicts = count_codes(xp, run[differs], rows.shape[0]) > 0
    reason[rows] = xp.where(conflicts[run], 2, xp.where(starts, 0, COLLAPSED)).astype(xp.uint8)
    return reason


def _warn_of_category(source: Source, name: str, column: str, category: Category) -> Iterator[str]:
    if column not in source.names:
        return
    if name not in _NO_CATEGORIES and (n_null := int((category.codes < 0).sum())):
        yield (
            f"{source.label}: {column} is null in {n_null} rows; null acts as a category of its "
            "own."
        )
    listed = _CONTRACT_VALUES.get(name)
    known = (*(listed or ()), *_HM_VALUES)
    if listed and (unlisted := [value for value in category.values if value not in known]):
        yield (
            f"{source.label}: {column} has {', '.join(map(repr, unlisted))}; the contract lists "
            f"{', '.join(map(repr, listed))}. The values are used as they are."
        )
