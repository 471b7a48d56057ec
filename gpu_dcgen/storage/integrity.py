"""Check that a dataset's files are those that were published, to the bit.

manifest.json lists the size and the SHA-256 of every other file, and as `manifest_sha256` that of
its own JSON without this key. It shows that nothing changed by accident, not who built the dataset:
`gpu-dcgen audit --key` signs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from ..config import count_usable_cores
from ..contract.folds import suggest_fold
from ..contract.json_files import as_json
from ..contract.schema import SPLITS
from ..errors import InputError
from .checksums import sha256_of
from .locations import parse_location

OWN_CHECKSUM = "manifest_sha256"


def own_checksum(manifest: dict[str, Any]) -> str:
    """Return the SHA-256 of a manifest's JSON without its own checksum, as 64 hex digits."""
    body = {name: value for name, value in manifest.items() if name != OWN_CHECKSUM}
    return hashlib.sha256(as_json(body).encode()).hexdigest()


def validate(dataset: Path | str, *, checksums: bool = False) -> list[str]:
    """Return what is wrong with a dataset's files, one line a file; [] when nothing is.

    Checks the size of every file and the footer of every Parquet file; with `checksums`, every
    byte. Files that the manifest does not list (reports, certificates) are not checked. `dataset`
    may be a URL. InputError where there is no manifest.
    """
    files = _open_dataset(dataset)
    text = files.manifest()
    try:
        manifest = json.loads(text)
        is_unchanged = (
            manifest[OWN_CHECKSUM] == own_checksum(manifest) and as_json(manifest).encode() == text
        )
        sizes, sha256 = dict(manifest["files"]), manifest["checksums"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"manifest.json: is not valid ({type(error).__name__}: {error})"]
    problems = (
        [] if is_unchanged else ["manifest.json: was changed after the dataset was published"]
    )
    n_rows: dict[str, int] = {}
    for name, size in sizes.items():
        problems += _check_file(files, name, size, n_rows)
    damaged = {problem.partition(":")[0] for problem in problems}
    problems += _check_row_counts(manifest, n_rows, damaged)
    if checksums:
        names = [name for name in sizes if name not in damaged]
        problems += _check_contents(files, names, sha256)
    return problems


class _DatasetFiles(Protocol):
    """The files of a dataset, on this machine or at a URL."""

    def manifest(self) -> bytes:
        """Return the bytes of the manifest; InputError where there is none."""

    def size(self, name: str) -> int | None:
        """Return the bytes of a file, None where there is none."""

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a file."""

    def n_rows(self, name: str) -> int:
        """Return the rows of a Parquet file, by its footer."""


class _LocalDataset:
    """The files of a dataset on this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def manifest(self) -> bytes:
        path = self._path / "manifest.json"
        try:
            return path.read_bytes()
        except OSError as error:
            remedy = suggest_fold(self._path, "Give the folder of a dataset.", "gpu-dcgen validate")
            raise InputError(f"{path}: cannot be read ({error.strerror}).\n{remedy}") from error

    def size(self, name: str) -> int | None:
        path = self._path / name
        return path.stat().st_size if path.is_file() else None

    def sha256(self, name: str) -> str:
        return sha256_of(self._path / name)

    def n_rows(self, name: str) -> int:
        from pyarrow.parquet import read_metadata

        return int(read_metadata(self._path / name).num_rows)


def _open_dataset(dataset: Path | str) -> _DatasetFiles:
    location = parse_location(dataset)
    if isinstance(location, Path):
        return _LocalDataset(location)
    from .remote.datasets import RemoteDataset

    return RemoteDataset(location)


def _check_file(
    files: _DatasetFiles, name: str, expected_size: int, n_rows: dict[str, int]
) -> Iterator[str]:
    """Check a file's size and footer; the rows of a Parquet file are added to `n_rows`."""
    from pyarrow import ArrowException

    size = files.size(name)
    if size is None:
        yield f"{name}: is missing"
    elif size != expected_size:
        yield f"{name}: has {size:,} bytes, {expected_size:,} in the manifest"
    elif name.endswith(".parquet"):
        try:
            n_rows[name] = files.n_rows(name)
        except (ArrowException, OSError, ValueError) as error:  # also column names not in UTF-8
            yield f"{name}: its footer cannot be read ({error})"


def _check_row_counts(
    manifest: dict[str, Any], n_rows: dict[str, int], damaged: set[str]
) -> Iterator[str]:
    """Check that the footers of each split add up to the rows in the manifest."""
    for split in SPLITS:
        name = f"{split}_dataset.parquet"
        parts = [file for file in manifest["files"] if file == name or file.startswith(f"{name}/")]
        if damaged.intersection(parts):
            continue
        total, expected = sum(n_rows[part] for part in parts), manifest["counts"][split]["rows"]
        if total != expected:
            yield f"{name}: has {total:,} rows, {expected:,} in the manifest"


def _check_contents(
    files: _DatasetFiles, names: list[str], expected: dict[str, str]
) -> Iterator[str]:
    """Check the SHA-256 of files, as many at a time as there are cores."""
    with ThreadPoolExecutor(count_usable_cores(), "checksums") as pool:
        for name, digest in zip(names, pool.map(files.sha256, names), strict=True):
            if digest != expected.get(name):
                listed = str(expected.get(name))[:12]
                yield (
                    f"{name}: its content changed: SHA-256 {digest[:12]}..., "
                    f"{listed}... in the manifest"
                )
