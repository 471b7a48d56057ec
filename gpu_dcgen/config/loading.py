"""YAML files and `section.key=value` overrides -> DatasetConfig; every refusal names the key at fault."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ..errors import ConfigError
from .dataset_config import DatasetConfig

MOST_BYTES = 1 << 18  # of a file; all settings with their meaning take 16 KiB
MOST_VALUES = 10_000  # of a file; there are some hundred settings


def load_config(
    path: Path | None = None, overrides: list[str] | tuple[str, ...] = ()
) -> DatasetConfig:
    """Read a YAML file and apply `section.key=value` overrides (values are YAML); ConfigError names the key at fault."""
    data: Any = {} if path is None else _read(Path(path))
    parameters = data.get("config_parameters")
    if (
        isinstance(parameters, dict) and not parameters.keys() & data.keys()
    ):  # so that overrides meet them
        data = {
            **{name: value for name, value in data.items() if name != "config_parameters"},
            **parameters,
        }
    for override in overrides:
        _set(data, override)
    try:
        return DatasetConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(error, path)) from error


def _read(path: Path) -> dict:
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from error
    if len(raw) > MOST_BYTES:
        raise ConfigError(
            f"{path}: is larger than {MOST_BYTES:,} bytes, which no configuration is.\nName the right file."
        )
    try:
        data = _parsed(raw.decode("utf-8")) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not valid YAML.\n{error}") from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: expected sections like 'negative_sampling:', found {type(data).__name__}."
        )
    return data


def _parsed(text: str) -> Any:
    """The YAML document's plain values. ValueError where keys are doubled, or aliases multiply it beyond any configuration."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _require_plain(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _require_plain(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """Values in `node` with its aliases written out; `sizes` holds those of nodes seen before, 0 while one is being counted."""
    if node in sizes:
        if sizes[node] == 0:
            raise ValueError(f"an alias stands within what it repeats{node.start_mark}")
        return sizes[node]
    sizes[node] = 0
    children: list[yaml.Node] = node.value if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            raise ValueError(
                f"key {Counter(keys).most_common(1)[0][0]!r} is given twice{node.start_mark}"
            )
        children = [part for pair in node.value for part in pair]
    n = 1
    for child in children:
        n += _require_plain(child, sizes)
        if n > MOST_VALUES:
            raise ValueError(
                f"it has more than {MOST_VALUES:,} values, with its aliases written out"
            )
    sizes[node] = n
    return n


def _set(data: dict, override: str) -> None:
    name, separator, text = override.partition("=")
    if not separator or not name.strip():
        raise ConfigError(
            f"--set {override}: expected section.key=value, as in --set split.train_share=0.7"
        )
    try:
        value = _parsed(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML.\n{error}") from error
    *sections, key = name.strip().split(".")
    for section in sections:
        data[section] = (
            dict(data.get(section) or {}) if isinstance(data.get(section) or {}, dict) else {}
        )
        data = data[section]
    data[key] = value


def _explain(error: ValidationError, path: Path | None) -> str:
    lines = [f"{path or 'configuration'}: {error.error_count()} setting(s) cannot be used:"]
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "configuration"
        fault = f"{problem['msg'].removeprefix('Value error, ')} (found {problem['input']!r:.80})"
        lines.append(
            f"  {where}: {'unknown key' if problem['type'] == 'extra_forbidden' else fault}."
        )
    lines.append("'gpu-dcgen config' prints every key with its default and meaning.")
    return "\n".join(lines)
