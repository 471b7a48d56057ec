"""Read YAML files and `section.key=value` overrides; every error names the key."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ..errors import ConfigError
from .dataset_config import DatasetConfig
from .section import Section

MAX_BYTES = 1 << 18  # of a file; all settings with their meaning take 16 KiB
MAX_VALUES = 10_000  # of a file; there are some hundred settings
# `section.key=value`, or `section.key: value` as in a file.
_OVERRIDE = re.compile(r"(?P<name>[^=:]+)(?:=|:\s)(?P<value>.*)", re.DOTALL)
_MAX_SHOWN = 80  # characters of a value in a message
# Raised on hostile YAML: by deep nests, numbers of many digits, impossible dates.
_YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError)


def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> DatasetConfig:
    """Read a YAML file and apply overrides to it.

    An override is `section.key=value` or `section.key: value`, with a value in YAML. A file may
    name a setting in the same way. Without `path`, overrides apply to the defaults. ConfigError
    names each key that cannot be used.

    Example:
        >>> load_config(overrides=["split.train_share=0.7"]).split.train_share
        0.7
    """
    data: dict[Any, Any] = {} if path is None else _read_file(Path(path))
    parameters = data.get("config_parameters")
    # Unfolded here already, so that an override changes the section that the file has.
    if isinstance(parameters, dict) and not parameters.keys() & data.keys():
        del data["config_parameters"]
        data |= parameters
    for name in [name for name in data if isinstance(name, str) and "." in name]:
        _unfold(data, name, path)
    for override in overrides:
        _apply_override(data, override)
    try:
        return DatasetConfig.model_validate(data)
    except ValidationError as error:
        lines = [
            f"{path or 'configuration'}: {error.error_count()} setting(s) cannot be used:",
            *(f"  {problem}" for problem in describe_problems(error)),
            "'gpu-dcgen config' prints every key with its default and meaning.",
        ]
        raise ConfigError("\n".join(lines)) from error


def describe_problems(error: ValidationError) -> list[str]:
    """Describe each setting that pydantic refused, as "where: found; expected."."""
    lines = []
    for problem in error.errors():
        where = ".".join(map(str, problem["loc"])) or "configuration"
        if problem["type"] == "extra_forbidden":
            fault = "unknown key" + _suggest_key(problem["loc"])
        elif problem["type"] == "value_error":  # of our own validators, which say what they found
            fault = problem["msg"].removeprefix("Value error, ")
        else:
            expected = problem["msg"].replace("Input should be", "expected", 1)
            fault = f"found {problem['input']!r:.{_MAX_SHOWN}}; {expected}"
        lines.append(f"{where}: {fault}.")
    return lines


def _suggest_key(location: tuple[int | str, ...]) -> str:
    """Return the end of a message that suggests a key of the section with a similar name."""
    section: Any = DatasetConfig
    *parents, key = location
    for name in parents:
        section = section.model_fields[name].annotation
        if not (isinstance(section, type) and issubclass(section, Section)):
            return ""
    close = difflib.get_close_matches(str(key), section.model_fields, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _read_file(path: Path) -> dict[Any, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}).\nName a YAML file that you may read."
        ) from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(
            f"{path}: is larger than {MAX_BYTES:,} bytes, which no configuration is.\n"
            "Name the right file."
        )
    try:
        data = _parse_yaml(raw.decode("utf-8")) or {}
    except _YAML_ERRORS as error:
        raise ConfigError(f"{path}: is not valid YAML.\n{error}") from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: found {type(data).__name__}; expected sections like 'negative_sampling:'.\n"
            "'gpu-dcgen config' prints a complete file."
        )
    return data


def _parse_yaml(text: str) -> Any:
    """Parse a document of plain values.

    ValueError where a key occurs twice, or where aliases multiply it beyond MAX_VALUES.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count_values(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count_values(node: yaml.Node, counts: dict[yaml.Node, int]) -> int:
    """Count the values in `node` with its aliases written out; ValueError above MAX_VALUES.

    `counts` holds the counts of nodes seen before, 0 for those that are being counted.
    """
    if node in counts:
        if counts[node] == 0:
            raise ValueError(f"an alias is inside what it repeats{node.start_mark}")
        return counts[node]
    counts[node] = 0
    children: list[yaml.Node] = node.value if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            key = Counter(keys).most_common(1)[0][0]
            raise ValueError(f"key {key!r} occurs twice{node.start_mark}")
        children = [part for pair in node.value for part in pair]
    n = 1
    for child in children:
        n += _count_values(child, counts)
        if n > MAX_VALUES:
            raise ValueError(
                f"it has more than {MAX_VALUES:,} values, with its aliases written out"
            )
    counts[node] = n
    return n


def _unfold(data: dict[Any, Any], name: str, path: Path | None) -> None:
    """Move the value of `section.key` into its section; ConfigError where it is there twice."""
    value = data.pop(name)
    *sections, key = name.split(".")
    section: Any = data
    for part in sections:
        section = section.get(part) if isinstance(section, dict) else None
    if isinstance(section, dict) and key in section:
        raise ConfigError(f"{path}: found {name} twice; expected it once.\nDelete one of them.")
    _set_value(data, name, value)


def _apply_override(data: dict[Any, Any], override: str) -> None:
    match = _OVERRIDE.fullmatch(override)
    if match is None or not match["name"].strip():
        raise ConfigError(
            f"--set {override}: expected section.key=value.\n"
            "For example: --set split.train_share=0.7"
        )
    text = match["value"].strip()
    try:
        # In YAML a per cent sign begins a directive; here it begins a format of times.
        value = text if text.startswith("%") else _parse_yaml(text)
    except _YAML_ERRORS as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML.\n{error}") from error
    _set_value(data, match["name"].strip(), value)


def _set_value(data: dict[Any, Any], name: str, value: Any) -> None:
    """Set `section.key`, in copies of the sections."""
    *sections, key = name.split(".")
    for section in sections:
        current = data.get(section)
        data[section] = dict(current) if isinstance(current, dict) else {}
        data = data[section]
    data[key] = value
