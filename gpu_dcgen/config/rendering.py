"""Print the whole configuration as commented YAML."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import ByteSize
from pydantic.fields import FieldInfo

from .dataset_config import DatasetConfig
from .section import Section

_WIDTH = 100  # characters of a comment line
_TECHNICAL = 2**60  # larger bounds keep numbers within 64 bits, and limit nobody
_HEAD = """\
# Every setting of gpu-dcgen. Keep the lines that you change and delete the rest: a key that is left
# out has its default.
"""


def render_config(config: DatasetConfig) -> str:
    """Render all settings as YAML that can be read back, with comments."""
    return _HEAD + "\n".join(_render_section(config, "")) + "\n"


def describe_choices(field: FieldInfo) -> str:
    """Describe a field's values: "One of: a, b.", "From 0 to 1.", "At least 1.", or ""."""
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if len(choices) > 1:
        return f"One of: {', '.join(choices)}."
    bounds, is_bytes = _find_bounds(field)
    if bounds.keys() == {"ge", "le"}:
        return f"From {bounds['ge']:,} to {bounds['le']:,}."
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    text = ", ".join(
        f"{words[name]} {_format_bound(value, is_bytes)}" for name, value in bounds.items()
    )
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _find_bounds(field: FieldInfo) -> tuple[dict[str, Any], bool]:
    """Return the limits of a field's type, and whether it is a number of bytes."""
    types, constraints = [field.annotation], [*field.metadata]
    # An optional type carries its limits inside: `Annotated[int, Field(ge=1)] | None`.
    if get_origin(field.annotation) in (Union, UnionType, tuple):
        for part in get_args(field.annotation):
            for inner in getattr(part, "__metadata__", ()):
                types.append(part.__origin__)
                constraints += inner.metadata if isinstance(inner, FieldInfo) else [inner]
    bounds = {
        name: value
        for name in ("ge", "gt", "le", "lt")
        for constraint in constraints
        if (value := getattr(constraint, name, None)) is not None and value < _TECHNICAL
    }
    return bounds, ByteSize in types


def _format_bound(value: float, is_bytes: bool) -> str:
    return ByteSize(value).human_readable().replace(".0", "") if is_bytes else f"{value:,}"


def _render_section(section: Section, indent: str) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        doc = field.description or (type(value).__doc__ if isinstance(value, Section) else "") or ""
        if not indent:
            yield ""
        yield from textwrap.wrap(
            f"{doc} {describe_choices(field)}",
            _WIDTH,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        if isinstance(value, Section):
            yield f"{indent}{name}:"
            yield from _render_section(value, indent + "  ")
        else:
            plain = list(value) if isinstance(value, tuple) else value
            text = yaml.safe_dump(plain, default_flow_style=True, width=math.inf)
            yield f"{indent}{name}: {text.splitlines()[0]}"
