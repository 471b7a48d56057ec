"""Identify what decides the results of a build: inputs, settings, code and backend."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..backend.protocol import Backend
from ..config import DatasetConfig
from ..errors import InputError
from ..inputs.origins import InputTables
from ..inputs.shop import InputFile, InputReport
from ..inputs.sources import find_sources
from ..storage.checksums import digest_of_code, sha256_of

# Sections of the settings that do not change what the stages compute.
WITHOUT_EFFECT = {"profile", "resources", "memory_optimization", "quality", "monitoring"}


def compute_build_key(
    inputs: list[list[str]], config: DatasetConfig, backend: Backend
) -> dict[str, Any]:
    """Return what decides the results of all stages; `inputs` are tables and SHA-256 of files.

    Builds of the same key may use each other's checkpoints.
    """
    return {"inputs": inputs, **_producer(config, backend)}


def hash_inputs(tables: InputTables | Path, config: DatasetConfig) -> list[list[str]]:
    """Return table and SHA-256 of each input file. Reads them all."""
    sources = find_sources(tables, config.inputs)
    return [
        [source.table, sha256_of(file) if origin is None else origin.sha256]
        for source in sources.values()
        for file, origin in zip(source.files, source.origins, strict=True)
    ]


def describe_producer(config: DatasetConfig, backend: Backend) -> dict[str, str]:
    """Return the same without the inputs, each part as text.

    Which processes write the samples is no part of it.
    """
    producer = _producer(config, backend)
    settings = json.dumps(producer["settings"], sort_keys=True).encode()
    return {**producer, "settings": hashlib.sha256(settings).hexdigest()}


def _producer(config: DatasetConfig, backend: Backend) -> dict[str, Any]:
    settings = config.model_dump(mode="json", exclude=WITHOUT_EFFECT)
    return {"settings": settings, "code": digest_of_code(), "backend": backend.name}


def list_hashes(files: Iterable[InputFile]) -> list[list[str]]:
    """Return table and SHA-256 of files that were read."""
    return [[file.table, file.sha256] for file in files]


def require_unchanged_inputs(key: dict[str, Any], report: InputReport) -> None:
    """Raise InputError where a file was read with another content than when the build began."""
    read = list_hashes(report.files)
    for (table, before), (_, now) in zip(key["inputs"], read, strict=True):
        if before != now:
            raise InputError(
                f"{table}: a file changed while it was read: its SHA-256 was {before[:12]} when "
                f"the build began, then {now[:12]}.\n"
                "Build again when no other program writes to the inputs."
            )
