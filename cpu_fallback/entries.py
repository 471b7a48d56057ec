"""Measure what the host has to know of columns' entries before they are laid out.

Arrays are those of `xp`, NumPy or CuPy. To ask a device for a number is to wait for all its work,
so all numbers of a block are brought to the host together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entries:
    """A column's entries in one row group; those numbers are set that its kind has."""

    places: slice  # in the block's column
    n_nulls: int = 0  # entries, or elements of a matrix; a list is never null
    n_elements: int = 0  # of lists
    # Of all entries in the block:
    least: int = -1  # code
    greatest: int = -1
    shortest: int = 0  # length of a list
    first: int = 0  # element of a list: the lists lie in values[first:stop]
    stop: int = 0


def measure_entries(
    columns: Mapping[str, Any],
    places: Mapping[str, Sequence[slice]],
    xp: Any,
    to_host: Callable[[list[Any]], list[int]],
) -> dict[str, list[Entries]]:
    """Measure each column's entries in each row group, where `places` has one at least.

    `to_host` brings a list of scalars of `xp` to the host, and is called once.
    """
    scalars = {
        name: _SCALARS[type(column).__name__](column, places[name], xp)
        for name, column in columns.items()
    }
    row_groups = [fields for by_row_group in scalars.values() for fields in by_row_group]
    numbers = iter(to_host([scalar for fields in row_groups for scalar in fields.values()]))
    return {
        name: [
            Entries(part, **{field: next(numbers) for field in fields})
            for part, fields in zip(places[name], by_row_group, strict=True)
        ]
        for name, by_row_group in scalars.items()
    }


Scalars = dict[str, Any]  # fields of `Entries`, each a scalar of `xp`


def _measure_values(column: Any, places: Sequence[slice], xp: Any) -> list[Scalars]:
    return _count_nulls(column.valid, places, xp)


def _measure_codes(column: Any, places: Sequence[slice], xp: Any) -> list[Scalars]:
    return _find_range(column.codes, places, xp)


def _measure_lists(column: Any, places: Sequence[slice], xp: Any) -> list[Scalars]:
    starts, lengths = column.starts, column.lengths
    bounds = {"shortest": lengths.min(), "first": starts.min(), "stop": (starts + lengths).max()}
    return [{"n_elements": lengths[part].sum(dtype=xp.int64), **bounds} for part in places]


def _measure_matrix(column: Any, places: Sequence[slice], xp: Any) -> list[Scalars]:
    if column.vocabulary is None:
        return _count_nulls(column.valid, places, xp)
    return _find_range(mask_codes(column.values, column.valid, xp), places, xp)


def _measure_sample_ids(column: Any, places: Sequence[slice], xp: Any) -> list[Scalars]:
    return [{} for _ in places]


# By the name of the column's class in `gpu_dcgen.backend.blocks`.
_SCALARS: dict[str, Callable[[Any, Sequence[slice], Any], list[Scalars]]] = {
    "Values": _measure_values,
    "Codes": _measure_codes,
    "Lists": _measure_lists,
    "Matrix": _measure_matrix,
    "SampleIds": _measure_sample_ids,
}


def _count_nulls(valid: Any, places: Sequence[slice], xp: Any) -> list[Scalars]:
    if valid is None:
        return [{} for _ in places]
    is_null = ~valid
    return [{"n_nulls": xp.count_nonzero(is_null[part])} for part in places]


def _find_range(codes: Any, places: Sequence[slice], xp: Any) -> list[Scalars]:
    bounds = {"least": codes.min(), "greatest": codes.max()}
    is_null = codes < 0
    return [{"n_nulls": xp.count_nonzero(is_null[part]), **bounds} for part in places]


def mask_codes(codes: Any, valid: Any, xp: Any) -> Any:
    """Return codes with -1 where they are not valid (None: all are)."""
    return codes if valid is None else xp.where(valid, codes, codes.dtype.type(-1))
