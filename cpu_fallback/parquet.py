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

GROUP_DIGITS = 10  # of the group's number in a sample id

LaidOut = TypeVar("LaidOut")


class BlockWriter(ABC, Generic[LaidOut]):
    """Base of the part writers: checks a block's columns and cuts them into row groups.

    A backend implements `_open`, `_lay_out` (some rows of a column, with a length and a
    `null_count`), `_append` (a row group of these), `_finish`, and `_abandon`, which closes the
    file after an error, one of `_finish` too. After an error the file is removed.
    """

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
        unit = max(map(_rows_per_entry, block.columns.values()))
        n_units = block.n_rows // unit
        n_row_groups = -(-n_units // max(1, self._settings.rows_per_row_group // unit))
        starts = [n_units * k // n_row_groups * unit for k in range(n_row_groups)]
        for start, stop in pairwise([*starts, n_units * unit]):
            self._append(
                [
                    self._lay_out_rows(field, block.columns[field.name], start, stop)
                    for field in self._schema
                ]
            )

    def _lay_out_rows(self, field: pa.Field, column: Any, start: int, stop: int) -> LaidOut:
        entries = slice(start // _rows_per_entry(column), stop // _rows_per_entry(column))
        try:
            array: Any = self._lay_out(field, column, entries)
            if len(array) != stop - start:
                raise ValueError(f"{len(array)} rows where the block has {stop - start}.")
            if array.null_count and not field.nullable:
                raise ValueError(f"{array.null_count} nulls where the schema allows none.")
        except ValueError as error:
            raise ValueError(f"{self._path.name}: column '{field.name}': {error}") from error
        return array

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _lay_out(self, field: pa.Field, column: Any, entries: slice) -> LaidOut: ...

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


def require_codes(codes: Any, n_strings: int) -> None:
    """Raise ValueError unless the codes are -1 or index a vocabulary of `n_strings`."""
    low, high = (int(codes.min()), int(codes.max())) if len(codes) else (-1, -1)
    if not -1 <= low <= high < n_strings:
        raise ValueError(f"codes {low}..{high} for a vocabulary of {n_strings}.")


def require_lists(
    type_: pa.DataType, values: Any, starts: Any, lengths: Any, n_elements: int
) -> None:
    """Raise ValueError unless lists have the element's type and lie within `values`.

    Also if `n_elements` of a row group are more than Arrow's offsets can count.
    """
    if values.dtype != numpy_type(type_.value_type):
        raise ValueError(f"lists of {values.dtype} for {type_}.")
    if len(starts) and int(lengths.min()) < 0:
        raise ValueError("lists of a length below 0.")
    if len(starts) and not 0 <= int(starts.min()) <= int((starts + lengths).max()) <= len(values):
        raise ValueError(f"lists reach outside their {len(values)} values.")
    if n_elements > np.iinfo(np.int32).max:
        raise ValueError(
            f"{n_elements} list elements in a row group, Arrow takes 2^31 - 1; "
            "write smaller row groups."
        )


def expand(values: Any, repeats: int, xp: Any) -> Any:
    """Return each entry `repeats` times."""
    return values if repeats == 1 else xp.repeat(values, repeats, axis=0)


def expand_values(column: Any, entries: slice, xp: Any) -> tuple[Any, Any]:
    """Return rows of a `Values` or `Matrix` column, and which are valid (None: all)."""
    valid = None if column.valid is None else expand(column.valid[entries], column.repeats, xp)
    return expand(column.values[entries], column.repeats, xp), valid


def expand_cells(type_: pa.DataType, column: Any, entries: slice, xp: Any) -> tuple[Any, Any]:
    """Return the elements of a `Matrix` row by row, and which are valid (None: all).

    Codes of null elements become -1. ValueError if rows have another width than the type.
    """
    cells, valid = expand_values(column, entries, xp)
    n, width = cells.shape
    if width != type_.list_size:
        raise ValueError(f"rows of {width} elements for {type_}.")
    cells = cells.reshape(n * width)
    if valid is None:
        return cells, None
    valid = valid.reshape(n * width)
    if column.vocabulary is None:
        return cells, valid
    return xp.where(valid, cells, cells.dtype.type(-1)), None


def build_sample_ids(
    column: Any, entries: slice, xp: Any, upload: Callable[[np.ndarray], Any] = np.asarray
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
    n, width = entries.stop - entries.start, int(ends[-1])
    group = xp.arange(entries.start, entries.stop, dtype=xp.int64) + column.first_group
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
