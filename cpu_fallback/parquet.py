"""What the writers of Parquet files share: checks of blocks, and how they are cut.

Blocks and settings come from `gpu_dcgen.backend.blocks` and `gpu_dcgen.contract.schema` and are
known by class name and attributes. The functions that take `xp`, NumPy or CuPy, are those of both
backends.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numpy as np
import pyarrow as pa

from .entries import Entries, mask_codes, measure_entries

GROUP_DIGITS = 10  # of the group's number in a sample id

LaidOut = TypeVar("LaidOut")


class BlockWriter(ABC, Generic[LaidOut]):
    """Base of the part writers: checks a block's columns and cuts them into row groups.

    A backend implements `_open`, `_lay_out` (some rows of a column), `_append` (a row group of
    these), `_finish`, and `_abandon`, which closes the file after an error, one of `_finish` too.
    After an error the file is removed. A backend with arrays on a device also sets `_xp`, their
    module, and implements `_to_host`.
    """

    _xp: Any = np

    def __init__(self, path: Path, schema: pa.Schema, settings: Any) -> None:
        self._path, self._schema, self._settings = Path(path), schema, settings

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        is_complete = False
        try:
            if kind is None:
                self._finish()
                is_complete = True
        finally:
            if not is_complete:
                try:
                    self._abandon()
                finally:
                    self._path.unlink(missing_ok=True)

    def write(self, block: Any) -> None:
        """Append the rows of a block.

        ValueError if its columns are not the schema's or do not fit their types.
        """
        if list(block.columns) != self._schema.names:
            raise ValueError(
                f"{self._path.name}: block has columns {list(block.columns)}, "
                f"the schema {self._schema.names}."
            )
        row_groups = self._cut(block)
        if not row_groups:
            return
        places = {
            name: [self._find_places(name, column, rows) for rows in row_groups]
            for name, column in block.columns.items()
        }
        entries = measure_entries(block.columns, places, self._xp, self._to_host)
        for k in range(len(row_groups)):
            self._append(
                [
                    self._lay_out_checked(field, block.columns[field.name], entries[field.name][k])
                    for field in self._schema
                ]
            )

    def _cut(self, block: Any) -> list[slice]:
        """Return the rows of each row group, which has whole entries of every column."""
        unit = max(map(_rows_per_entry, block.columns.values()))
        n_units = block.n_rows // unit
        n_row_groups = -(-n_units // max(1, self._settings.rows_per_row_group // unit))
        bounds = [n_units * k // n_row_groups * unit for k in range(n_row_groups)]
        return [slice(*rows) for rows in pairwise([*bounds, n_units * unit])]

    def _find_places(self, name: str, column: Any, rows: slice) -> slice:
        """Return the places of the entries of a column that stand for the rows."""
        per_entry = _rows_per_entry(column)
        places = slice(rows.start // per_entry, rows.stop // per_entry)
        n_rows, n_present = rows.stop - rows.start, len(range(column.n_entries)[places]) * per_entry
        if n_present != n_rows:
            raise self._error(name, f"{n_present} rows where the block has {n_rows}.")
        return places

    def _lay_out_checked(self, field: pa.Field, column: Any, entries: Entries) -> LaidOut:
        try:
            laid_out = self._lay_out(field, column, entries)
            if entries.n_nulls:
                _require_nullable(field, entries.n_nulls * column.repeats)
        except ValueError as error:
            raise self._error(field.name, error) from error
        return laid_out

    def _error(self, column: str, problem: Any) -> ValueError:
        return ValueError(f"{self._path.name}: column '{column}': {problem}")

    def _to_host(self, numbers: list[Any]) -> list[int]:
        """Return integers of the host for scalars of `_xp`."""
        return [int(number) for number in numbers]

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _lay_out(self, field: pa.Field, column: Any, entries: Entries) -> LaidOut: ...

    @abstractmethod
    def _append(self, columns: list[LaidOut]) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _abandon(self) -> None: ...


def encode_metadata(schema: pa.Schema) -> dict[bytes, bytes]:
    """Return the schema's metadata, and the schema itself where Arrow's readers look for it."""
    return {
        **(schema.metadata or {}),
        b"ARROW:schema": base64.b64encode(schema.serialize().to_pybytes()),
    }


def is_list(type_: pa.DataType) -> bool:
    """Return whether a file stores the type as a list, of fixed size or not."""
    return pa.types.is_list(type_) or pa.types.is_fixed_size_list(type_)


def _require_nullable(field: pa.Field, n_nulls: int) -> None:
    """Raise ValueError unless a column of rows, or of lists' elements, may have nulls."""
    if is_list(field.type):
        if not field.type.value_field.nullable:
            raise ValueError("null elements where the schema allows none.")
    elif not field.nullable:
        raise ValueError(f"{n_nulls} nulls where the schema allows none.")


def numpy_type(type_: pa.DataType) -> np.dtype:
    """Return the type in which Arrow holds values of a fixed-width type: integers for times."""
    if pa.types.is_temporal(type_):
        return np.dtype(f"int{type_.bit_width}")
    # Arrow's names are NumPy's but for these; `to_pandas_dtype` needs pandas in older versions.
    return np.dtype({"float": "float32", "double": "float64"}.get(str(type_), str(type_)))


def require_fit(type_: pa.DataType, values: Any) -> None:
    """Raise ValueError unless every value of the array's type is one of the Arrow type's."""
    if not np.can_cast(values.dtype, numpy_type(type_), "safe"):
        raise ValueError(f"{values.dtype} values for {type_}: not every value would fit.")


def require_codes(entries: Entries, n_strings: int) -> None:
    """Raise ValueError unless the codes are -1 or index a vocabulary of `n_strings`."""
    least, greatest = entries.least, entries.greatest
    if not -1 <= least <= greatest < n_strings:
        raise ValueError(f"codes {least}..{greatest} for a vocabulary of {n_strings}.")


def require_lists(type_: pa.DataType, column: Any, entries: Entries) -> None:
    """Raise ValueError unless lists have the element's type and lie within their values.

    Also if a row group has more elements than Arrow's offsets can count.
    """
    values, n_elements = column.values, entries.n_elements * column.repeats
    if values.dtype != numpy_type(type_.value_type):
        raise ValueError(f"lists of {values.dtype} for {type_}.")
    if entries.shortest < 0:
        raise ValueError("lists of a length below 0.")
    if not 0 <= entries.first <= entries.stop <= len(values):
        raise ValueError(f"lists reach outside their {len(values)} values.")
    if n_elements > np.iinfo(np.int32).max:
        raise ValueError(
            f"{n_elements} list elements in a row group, Arrow takes 2^31 - 1; "
            "write smaller row groups."
        )


def expand(values: Any, repeats: int, xp: Any) -> Any:
    """Return each entry `repeats` times."""
    return values if repeats == 1 else xp.repeat(values, repeats, axis=0)


def select_valid(column: Any, entries: Entries) -> Any:
    """Return which entries of a `Values` or `Matrix` column are valid (None: all)."""
    has_nulls = column.valid is not None and entries.n_nulls
    return column.valid[entries.places] if has_nulls else None


def expand_cells(type_: pa.DataType, column: Any, entries: Entries, xp: Any) -> tuple[Any, Any]:
    """Return the elements of a `Matrix` row by row, and which are valid (None: all).

    Codes of null elements become -1. ValueError if rows have another width than the type.
    """
    width = column.values.shape[1]
    if width != type_.list_size:
        raise ValueError(f"rows of {width} elements for {type_}.")
    cells, valid = column.values[entries.places], select_valid(column, entries)
    if column.vocabulary is not None:
        cells, valid = mask_codes(cells, valid, xp), None
    cells = expand(cells, column.repeats, xp).reshape(-1)
    return cells, None if valid is None else expand(valid, column.repeats, xp).reshape(-1)


def build_sample_ids(
    column: Any, entries: Entries, xp: Any, upload: Callable[[np.ndarray], Any] = np.asarray
) -> tuple[Any, Any]:
    """Return offsets (n + 1,) int32 and bytes of the ids `{split}-{group:010d}-{slot:02d}`.

    The ids of all groups have the same bytes except for ten digits, which are written into each.
    `upload` makes an array of `xp` from one of NumPy.
    """
    ids = [
        f"{column.split}-{0:0{GROUP_DIGITS}d}-{slot:02d}".encode()
        for slot in range(column.rows_per_group)
    ]
    ends = np.cumsum([len(text) for text in ids])
    places, width = entries.places, int(ends[-1])
    n = places.stop - places.start
    group = xp.arange(places.start, places.stop, dtype=xp.int64) + column.first_group
    powers = upload(10 ** np.arange(GROUP_DIGITS - 1, -1, -1))
    digits = (group[:, None] // powers % 10 + ord("0")).astype(xp.uint8)
    text = xp.tile(upload(np.frombuffer(b"".join(ids), np.uint8)), (n, 1))
    for start in [0, *ends[:-1].tolist()]:
        first = start + len(column.split) + 1
        text[:, first : first + GROUP_DIGITS] = digits
    offsets = xp.zeros(n * len(ids) + 1, dtype=xp.int32)
    offsets[1:] = (
        xp.arange(n, dtype=xp.int32)[:, None] * xp.int32(width) + upload(ends.astype(np.int32))
    ).ravel()
    return offsets, text.reshape(n * width)


def _rows_per_entry(column: Any) -> int:
    return column.rows_per_group if type(column).__name__ == "SampleIds" else column.repeats
