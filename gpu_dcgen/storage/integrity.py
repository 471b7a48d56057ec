"""Whether a dataset is as it was published: every file there, of its size, readable, and the same to the bit.

manifest.json lists the size and the SHA-256 of every other file, and `manifest_sha256`, its own: that of its JSON without this
line. It proves that nothing changed by accident, not who made it: `gpu-dcgen audit --key` signs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..config import count_usable_cores
from ..contract.json_files import as_json
from ..contract.schema import SPLITS
from ..errors import InputError
from .checksums import sha256_of
from .locations import is_url, parse_location

OWN_CHECKSUM = "manifest_sha256"


def own_checksum(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest's JSON without its own checksum, as 64 hex digits."""
    body = {name: value for name, value in manifest.items() if name != OWN_CHECKSUM}
    return hashlib.sha256(as_json(body).encode()).hexdigest()


def validate(dataset: Path | str, *, checksums: bool = False) -> list[str]:
    """What is wrong with a dataset's files, one line a file; [] when nothing is.

    Looks at every file's size and every Parquet file's footer; with `checksums` reads every byte. Files that the manifest does
    not list (reports, certificates) are not looked at. `dataset` may be a URL. InputError where there is no manifest.
    """
    folder = _open(dataset)
    text = folder.manifest()
    try:
        manifest = json.loads(text)
        intact = (
            manifest[OWN_CHECKSUM] == own_checksum(manifest) and as_json(manifest).encode() == text
        )
        files, sha256 = dict(manifest["files"]), manifest["checksums"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"manifest.json: cannot be understood ({type(error).__name__}: {error})"]
    problems = [] if intact else ["manifest.json: was changed after the dataset was published"]
    rows: dict[str, int] = {}
    for name, size in files.items():
        problems += _looks_wrong(folder, name, size, rows)
    whole = {problem.partition(":")[0] for problem in problems}
    problems += _rows_that_lack(manifest, rows, whole)
    if checksums:
        names = [name for name in files if name not in whole]
        with ThreadPoolExecutor(count_usable_cores(), "checksums") as pool:
            for name, found in zip(names, pool.map(folder.sha256, names), strict=True):
                if found != sha256.get(name):
                    listed = str(sha256.get(name))[:12]
                    problems.append(
                        f"{name}: its content changed: SHA-256 {found[:12]}..., {listed}... in the manifest"
                    )
    return problems


def _open(dataset: Path | str) -> Any:
    if is_url(where := parse_location(dataset)):
        from .remote.datasets import RemoteDataset

        return RemoteDataset(where)
    return _Folder(where)


class _Folder:
    """A dataset on this machine; `remote.datasets` has the same for a URL."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def manifest(self) -> bytes:
        """The manifest's bytes; InputError where there is none."""
        path = self._path / "manifest.json"
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read ({error.strerror}).\nGive the folder of a dataset."
            ) from error

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none."""
        path = self._path / name
        return path.stat().st_size if path.is_file() else None

    def sha256(self, name: str) -> str:
        return sha256_of(self._path / name)

    def n_rows(self, name: str) -> int:
        """Rows of a Parquet file, by its footer."""
        from pyarrow.parquet import read_metadata

        return read_metadata(self._path / name).num_rows


def _looks_wrong(folder: Any, name: str, size: int, rows: dict[str, int]) -> Iterator[str]:
    """What is wrong with a file's size or footer; the rows of a Parquet file are noted in `rows`."""
    from pyarrow import ArrowException

    found = folder.size(name)
    if found is None:
        yield f"{name}: is not there"
    elif found != size:
        yield f"{name}: has {found:,} bytes, {size:,} in the manifest"
    elif name.endswith(".parquet"):
        try:
            rows[name] = folder.n_rows(name)
        except (ArrowException, OSError, ValueError) as error:  # also names that are no UTF-8
            yield f"{name}: its footer cannot be read ({error})"


def _rows_that_lack(
    manifest: dict[str, Any], rows: dict[str, int], broken: set[str]
) -> Iterator[str]:
    """Splits whose footers do not add up to the rows that the manifest counts."""
    for split in SPLITS:
        name = f"{split}_dataset.parquet"
        parts = [file for file in manifest["files"] if file == name or file.startswith(f"{name}/")]
        if broken.intersection(parts):
            continue
        found, expected = sum(rows[part] for part in parts), manifest["counts"][split]["rows"]
        if found != expected:
            yield f"{name}: has {found:,} rows, {expected:,} in the manifest"
