"""Compute the SHA-256 of files and of the code that builds datasets."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

# These read published datasets, estimate builds or talk to users: what a build writes does not
# depend on them, so an edit there leaves checkpoints and appended splits valid.
READERS = frozenset(
    ("auditing", "cards", "cli", "example_data", "preflight", "reporting", "training")
)


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, as 64 hex digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.cache
def digest_of_code() -> str:
    """Return `digest_sources` of the code that this process has loaded, as it was at first."""
    return digest_sources(Path(__file__).parents[1])


def digest_sources(package: Path) -> str:
    """Return the SHA-256 over the sources of a package, except `READERS`.

    Those of the package cpu_fallback beside it are part of it.
    """
    digest = hashlib.sha256()
    own = [
        file for file in package.rglob("*.py") if file.relative_to(package).parts[0] not in READERS
    ]
    for file in sorted([*own, *(package.parent / "cpu_fallback").glob("*.py")]):
        name = file.relative_to(package.parent)
        digest.update(f"{name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()
