"""The whole configuration as commented YAML."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, get_args, get_origin

import yaml

from .dataset_config import DatasetConfig
from .quality import Section


def config_as_yaml(config: DatasetConfig) -> str:
    """The whole configuration as YAML that can be read back, each key under its meaning and choices."""
    head = "# Every setting of gpu-dcgen. Keep what you change and delete the rest: what is left out has its default."
    return "\n".join([head, *_yaml_lines(config, "")]) + "\n"


def _yaml_lines(section: Section, indent: str) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        doc = (
            field.description or (type(value).__doc__ if isinstance(value, Section) else None) or ""
        )
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        notes = [doc, f"One of: {', '.join(choices)}." if len(choices) > 1 else ""]
        if not indent:
            yield ""
        if any(notes):
            yield f"{indent}# {' '.join(' '.join(notes).split())}"
        if isinstance(value, Section):
            yield f"{indent}{name}:"
            yield from _yaml_lines(value, indent + "  ")
        else:
            plain = list(value) if isinstance(value, tuple) else value
            text = yaml.safe_dump(plain, default_flow_style=True, width=math.inf)
            yield f"{indent}{name}: {text.splitlines()[0]}"
