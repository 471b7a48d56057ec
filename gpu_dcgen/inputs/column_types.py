"""Find the class of a column's types, and refuse those that its role cannot have (D1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa

from ..contract.schema import InputRole
from ..errors import InputError
from .footers import Footer


class TableFile(Protocol):
    """A Parquet file of a table."""

    @property
    def path(self) -> Path:
        """Its path."""

    @property
    def schema(self) -> pa.Schema:
        """Its columns."""

    @property
    def footer(self) -> Footer:
        """Its row groups."""


class _AcceptedTypes(NamedTuple):
    """The classes of types that a column of some role may have, and the advice about others."""

    type_classes: frozenset[str]
    remedy: str


_ACCEPTED: dict[InputRole, _AcceptedTypes] = {
    "key": _AcceptedTypes(
        frozenset({"text", "integer"}),
        "Write ids as text; an id that has been a float may have lost digits (pandas: read with "
        'dtype=str, or with dtype="Int64" where integers are missing).',
    ),
    "category": _AcceptedTypes(
        frozenset({"text", "integer"}),
        "Write the column as text; integers with missing values are floats in pandas, unless they "
        'have the type "Int64".',
    ),
    "number": _AcceptedTypes(
        frozenset({"integer", "float", "decimal", "text"}), "Write the column as a number."
    ),
    "price": _AcceptedTypes(
        frozenset({"integer", "float", "decimal"}), "Write the column as a number."
    ),
    "time": _AcceptedTypes(
        frozenset({"date", "timestamp", "text"}),
        "Write the column as a date or timestamp; a bare number has no unit, unless it is stated: "
        "inputs.time_unit: s (or ms, us, ns)",
    ),
}
_TESTS: dict[str, tuple[Callable[[pa.DataType], bool], ...]] = {
    "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    "integer": (pa.types.is_integer,),
    "float": (pa.types.is_floating,),
    "decimal": (pa.types.is_decimal,),
    "date": (pa.types.is_date,),
    "timestamp": (pa.types.is_timestamp,),
}


def find_type_class(
    label: str,
    files: Sequence[TableFile],
    own_name: str,
    role: InputRole,
    also_accepted: Set[str],
) -> str | None:
    """Return the class of a column's types, None where all its values are null.

    `also_accepted` are classes that are accepted besides those of the role. InputError for any
    other.
    """
    accepted, remedy = _ACCEPTED[role]
    accepted |= also_accepted
    is_text = role in ("key", "category")  # in the end
    first_files: dict[str, Path] = {}  # type class -> a file that has it
    kinds: dict[str, Path] = {}  # type -> a file that has it
    for file in files:
        kind = file.schema.field(own_name).type
        type_class = _classify(kind)
        if is_text and type_class == "decimal" and _is_whole(kind):
            type_class = "integer"
        if type_class in accepted:
            first_files.setdefault(type_class, file.path)
            kinds.setdefault(str(kind), file.path)
        # pandas writes a text column without values as floats.
        elif not (pa.types.is_null(kind) or file.footer.is_null_throughout(own_name)):
            shown = f"a nested type, {kind!s:.80}," if pa.types.is_nested(kind) else str(kind)
            raise InputError(
                f"{label}: column {own_name!r} is {shown} in {file.path.name}; "
                f"expected {' or '.join(sorted(accepted))}.\n{remedy}"
            )
    changing = first_files if is_text or (role == "number" and "text" in first_files) else {}
    if is_text and any("decimal" in kind for kind in kinds):
        changing = kinds
    if len(changing) > 1:
        where = ", ".join(f"{name} in {file.name}" for name, file in sorted(changing.items()))
        raise InputError(
            f"{label}: column {own_name!r} changes its type from file to file: {where}.\n{remedy}"
        )
    return min(first_files) if first_files else None


def _is_whole(kind: pa.DataType) -> bool:
    """Return whether a decimal type has no digits after the point, as databases write ids."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(kind.scale == 0)


def _classify(kind: pa.DataType) -> str:
    """Return the class of a type, or the type itself where no role accepts it."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return next((name for name, tests in _TESTS.items() if any(t(kind) for t in tests)), str(kind))
