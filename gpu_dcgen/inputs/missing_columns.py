"""Explain columns that a table lacks, with a mapping that can be pasted."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ..config import InputsConfig
from ..contract.schema import InputTable

_PLACEHOLDER = "ITS_NAME"
# Our names of optional columns -> what the samples lack without them.
_LACKS = {
    "product_group_name": "items have no product groups",
    "price": "price features are null, and price weights 1",
}
_MAX_NAMES = 40  # of columns, in a message
_VALUE = re.compile(r"[-+]?\d[-\d.:/ T]*")  # a number or a time


@dataclass(frozen=True)
class MissingColumns:
    """What a table lacks. The dictionaries are by our names of the columns."""

    table: InputTable
    label: str  # of its file or folder
    missing: dict[str, str]  # -> the table's own name that was looked for
    unused: dict[str, str]  # optional columns -> their name in the table, spelled otherwise
    names: list[str]  # of all columns of the table

    def find_close(self) -> dict[str, list[str]]:
        """Return the names of the table that are like those of missing columns."""
        close = {name: _find_close(own, self.names) for name, own in self.missing.items()}
        if close.get("price") == []:
            close["price"] = find_price_columns(self.names)
        return close


def explain_missing(tables: Sequence[MissingColumns], inputs: InputsConfig) -> str:
    """Return the text of an InputError about all columns that are missing.

    One mapping is offered for all of them, with what the configuration maps already.
    """
    lines = [_describe_missing(table) for table in tables]
    mapping = {table: dict(names) for table, names in inputs.columns.items()}
    for table in tables:
        close = {name: names[0] for name, names in table.find_close().items() if names}
        known = mapping.setdefault(table.table, {})
        known |= dict.fromkeys(table.missing, _PLACEHOLDER) | close | table.unused
    n_missing = sum(len(table.missing) for table in tables)
    condition = (
        "it has another name, map it" if n_missing == 1 else "they have other names, map them"
    )
    lines.append(f"If {condition} in the configuration: {show_mapping(mapping)}")
    if any(all(map(_VALUE.fullmatch, table.names[-2:])) for table in tables):
        lines.append("If the first line holds values, write the names of the columns above it.")
    if any("price" in table.missing for table in tables):
        lines.append("If the log has no prices, build with inputs.price: none.")
    return "\n".join(lines)


def find_price_columns(names: Sequence[str]) -> list[str]:
    """Return those of `names` that prices may be under."""
    return [name for name in names if "price" in name.casefold() or _find_close("price", [name])]


def warn_of_absent(table: InputTable, label: str, name: str, names: Sequence[str]) -> Iterator[str]:
    """Yield a warning about an optional column that much depends on, if `name` is one."""
    if (lack := _LACKS.get(name)) is not None:
        yield (
            f"{label}: there is no column {name!r}: {lack}; found {_list_names(names)}. If one of "
            f"them has it, map it: {show_mapping({table: {name: _PLACEHOLDER}})}"
        )


def find_other_spelling(name: str, names: Sequence[str]) -> str | None:
    """Return the first of `names` that differs from `name` in case, blanks or marks only."""
    return next((other for other in names if _fold(other) == _fold(name) and other != name), None)


def warn_of_unused(table: InputTable, label: str, unused: dict[str, str]) -> str:
    """Return a warning about optional columns under names that are spelled otherwise."""
    shown = ", ".join(
        f"column {other!r} is not read, only {name!r} would be" for name, other in unused.items()
    )
    return f"{label}: {shown}; this reads it: {show_mapping({table: unused})}"


def show_mapping(mapping: dict[InputTable, dict[str, str]]) -> str:
    """Return the setting `inputs.columns` as one line of YAML, in double quotes if any."""
    flow: dict[str, Any] = {"default_flow_style": True, "sort_keys": False, "width": float("inf")}
    plain = {str(table): names for table, names in mapping.items() if names}
    text = yaml.safe_dump(plain, allow_unicode=True, **flow).strip()
    if "'" in text or not text.isprintable():  # a shell's quotes are single ones
        text = yaml.safe_dump(plain, default_style='"', **flow).strip()
    return f"inputs.columns: {text}"


def _describe_missing(table: MissingColumns) -> str:
    wanted = [repr(name) for name in table.missing.values()]
    columns = f"column {wanted[0]} is" if len(wanted) == 1 else f"columns {', '.join(wanted)} are"
    close = list(dict.fromkeys(name for names in table.find_close().values() for name in names))
    hint = f" (close: {_list_names(close)})" if close else ""
    return f"{table.label}: {columns} missing; found {_list_names(table.names)}{hint}."


def _list_names(names: Sequence[str]) -> str:
    """List names; those with ends or characters that cannot be seen in quotes."""
    shown = (
        name if name.isprintable() and name == name.strip() else repr(name)
        for name in names[:_MAX_NAMES]
    )
    return ", ".join(shown)


def _find_close(name: str, names: Sequence[str]) -> list[str]:
    """Return up to three of `names` that are like `name`: other spellings of it first."""
    spelled = [other for other in names if _fold(other) == _fold(name)]
    folded = {other.casefold(): other for other in names}
    matches = difflib.get_close_matches(name.casefold(), folded, n=3)
    return list(dict.fromkeys([*spelled, *(folded[match] for match in matches)]))[:3]


def _fold(name: str) -> str:
    """Return the letters and digits of a name, without case."""
    return re.sub(r"[\W_]", "", name).casefold()
