"""YAML files and `section.key=value` overrides -> DatasetConfig; every refusal names the key at fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from .config import DatasetConfig
from .errors import ConfigError


def load_config(path: Path | None = None, overrides: list[str] | tuple[str, ...] = ()) -> DatasetConfig:
    """Read a YAML file and apply `section.key=value` overrides (values are YAML); ConfigError names the key at fault."""
    data: Any = {}
    if path is not None:
        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: is not valid YAML.\n{error}") from error
        if not isinstance(data, dict):
            raise ConfigError(f"{path}: expected sections like 'negative_sampling:', found {type(data).__name__}.")
    parameters = data.get("config_parameters")
    if isinstance(parameters, dict) and not parameters.keys() & data.keys():  # so that overrides meet them
        data = {**{name: value for name, value in data.items() if name != "config_parameters"}, **parameters}
    for override in overrides:
        _set(data, override)
    try:
        return DatasetConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(error, path)) from error


def _set(data: dict, override: str) -> None:
    name, separator, text = override.partition("=")
    if not separator or not name.strip():
        raise ConfigError(f"--set {override}: expected section.key=value, as in --set split.train_share=0.7")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML.") from error
    *sections, key = name.strip().split(".")
    for section in sections:
        data[section] = dict(data.get(section) or {}) if isinstance(data.get(section) or {}, dict) else {}
        data = data[section]
    data[key] = value


def _explain(error: ValidationError, path: Path | None) -> str:
    lines = [f"{path or 'configuration'}: {error.error_count()} setting(s) cannot be used:"]
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "configuration"
        fault = f"{problem['msg'].removeprefix('Value error, ')} (found {problem['input']!r:.80})"
        lines.append(f"  {where}: {'unknown key' if problem['type'] == 'extra_forbidden' else fault}.")
    lines.append("'gpu-dcgen config' prints every key with its default and meaning.")
    return "\n".join(lines)
