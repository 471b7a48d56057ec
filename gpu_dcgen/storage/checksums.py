"""SHA-256 of files and of this package's sources."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of_code() -> str:
    """SHA-256 over the sources of this package and of the CPU machine."""
    digest, here = hashlib.sha256(), Path(__file__).parents[1]
    for file in sorted([*here.rglob("*.py"), *(here.parent / "cpu_fallback").glob("*.py")]):
        digest.update(f"{file.relative_to(here.parent)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()
