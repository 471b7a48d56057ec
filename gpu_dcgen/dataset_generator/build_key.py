"""What decides the results of a build: inputs, settings, code, machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..backend.protocol import Backend
from ..config import DatasetConfig
from ..errors import InputError
from ..inputs.shop import InputReport
from ..inputs.sources import find_sources
from ..storage.checksums import digest_of_code, sha256_of

_WITHOUT_EFFECT = {
    "profile",
    "resources",
    "memory_optimization",
    "quality",
    "monitoring",
}  # on what stages make


def key_of_build(inputs: Path, config: DatasetConfig, backend: Backend) -> dict[str, Any]:
    """All that decides what a build's stages make: their results may be used by another build of the same key."""
    sources = find_sources(inputs, config.inputs)
    files = [
        [source.table, sha256_of(file)] for source in sources.values() for file in source.files
    ]
    return {"inputs": files, **_maker(config, backend)}


def key_of_maker(config: DatasetConfig, backend: Backend) -> dict[str, str]:
    """The same but for the inputs, each part as a text; which processes made the samples is none of it."""
    maker = _maker(config, backend)
    settings = json.dumps(maker["settings"], sort_keys=True).encode()
    return {**maker, "settings": hashlib.sha256(settings).hexdigest()}


def _maker(config: DatasetConfig, backend: Backend) -> dict[str, Any]:
    settings = config.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    return {"settings": settings, "code": digest_of_code(), "machine": backend.name}


def require_same_inputs(key: dict[str, Any], report: InputReport) -> None:
    """InputError where the files that were read are not those that the build began with."""
    read = [[file.table, file.sha256] for file in report.files]
    for (table, before), (_, found) in zip(key["inputs"], read, strict=True):
        if before != found:
            raise InputError(
                f"{table}: a file changed while it was read: SHA-256 {before[:12]} when the build began, {found[:12]} then.\n"
                "Build again when nobody writes to the inputs."
            )
