"""Read and write a remote folder through fsspec, with errors that say what to do.

Credentials, endpoints and timeouts come from where each storage library looks for them
(environment, its own files, fsspec's configuration); the libraries retry what fails temporarily.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DcgenError, InputError, MissingPackageError
from ..checksums import sha256_of

RANGE_BYTES = 16 << 20  # of a request
_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
}
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
# Names under which storages report that a file was written again.
_VERSION_KEYS = (
    "ETag",
    "etag",
    "generation",
    "mtime",
    "LastModified",
    "last_modified",
    "Last-Modified",
    "created",
)


def transfer_all(
    n_threads: int, name: str, transfer: Callable[..., None], calls: Iterable[tuple[Any, ...]]
) -> None:
    """Call `transfer` with each of the arguments in `calls`, with `n_threads` threads.

    The first error is raised; calls that have not begun by then are left out.
    """
    with ThreadPoolExecutor(n_threads, name) as pool:
        futures = [pool.submit(transfer, *arguments) for arguments in calls]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@dataclass(frozen=True)
class Entry:
    """A remote file as its storage describes it."""

    size: int | None  # bytes; None where a web server does not report it
    version: str  # changes when the file is written again, as far as the storage reports it
    has_version: bool  # whether `version` contains more than the size
    # Of the content, 32 hex digits, where the storage reports one. That of an encrypted object may
    # be of something else.
    md5: str | None
    has_ranges: bool  # whether parts of it can be requested


class RemoteFolder:
    """A folder at a URL (`locations.parse_location`), for any number of threads.

    Errors of the storage are raised as `error_type`, a missing package as MissingPackageError.
    """

    def __init__(self, url: str, error_type: type[DcgenError] = InputError) -> None:
        self.url, self._error_type, self._scheme = url, error_type, url.partition("://")[0]
        with self._to_user_error(url):
            import fsspec

            self._files, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
        self._root = root.rstrip("/")
        self.is_listed = self._scheme not in ("http", "https")

    def __truediv__(self, name: str) -> str:
        """Return the URL of a file in the folder, for messages."""
        return f"{self.url}/{name}"

    def entry(self, name: str) -> Entry | None:
        """Describe a file; None where there is none."""
        with self._to_user_error(self / name):
            self._files.invalidate_cache()
            try:
                info = self._files.info(self._path(name))
            except FileNotFoundError:
                return None
            return self._entry(info) if info["type"] == "file" else None

    def names(self) -> list[str]:
        """Return the names of the files and folders right in the folder, sorted."""
        with self._to_user_error(self.url):
            self._files.invalidate_cache()
            try:
                paths = self._files.ls(self._root, detail=False)
            except FileNotFoundError:  # of a folder; a missing bucket is an error
                paths = self._files.find(self._root)
        return sorted({path.rstrip("/").rpartition("/")[2] for path in paths})

    def entries(self, under: str = "") -> dict[str, Entry]:
        """Describe all files of the folder, or those below its subfolder `under`.

        Names are relative to the folder; {} where there is no such subfolder.
        """
        with self._to_user_error(self / under if under else self.url):
            self._files.invalidate_cache()
            infos = self._files.find(self._path(under) if under else self._root, detail=True)
        prefix = f"{self._root}/{under}/" if under else f"{self._root}/"
        return {
            path[len(self._root) + 1 :]: self._entry(info)
            for path, info in infos.items()
            if path.startswith(prefix) and not path.endswith("/")
        }

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Return the bytes of a file, or those from `start` up to `end`."""
        with self._to_user_error(self / name):
            return bytes(self._files.cat_file(self._path(name), start=start, end=end))

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a file, all of which is read."""
        with (
            self._to_user_error(self / name),
            self._files.open(self._path(name), "rb", block_size=RANGE_BYTES) as file,
        ):
            return hashlib.file_digest(file, "sha256").hexdigest()

    def fetch(self, name: str, target: Path) -> None:
        """Copy a whole file to a local one, in one request."""
        with self._to_user_error(self / name):
            self._files.get_file(self._path(name), str(target))

    def write(self, name: str, content: bytes, *, create: bool = False) -> bool:
        """Write a small file; with `create` only if it does not exist. Returns whether it did.

        The storage decides about existence in the same step, where it can.
        """
        with self._to_user_error(self / name):
            try:
                self._files.pipe_file(
                    self._path(name), content, **({"mode": "create"} if create else {})
                )
            except FileExistsError:
                return False
        return True

    def put(self, file: Path, name: str) -> None:
        """Copy a local file to the folder."""
        with self._to_user_error(self / name):
            self._files.put_file(str(file), self._path(name))

    def holds(self, file: Path, name: str) -> bool:
        """Return whether the file `name` has the content of `file`.

        Compares the MD5 that the storage reports; where there is none or it differs, the content.
        """
        entry = self.entry(name)
        if entry is None or entry.size != file.stat().st_size:
            return False
        if entry.md5 is not None and entry.md5 == _md5_of(file):
            return True
        return self.sha256(name) == sha256_of(file)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, one after the other; those that do not exist are skipped."""
        for name in names:
            with self._to_user_error(self / name):
                try:
                    self._files.rm_file(self._path(name))
                except FileNotFoundError:
                    continue

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _entry(self, info: dict[str, Any]) -> Entry:
        version = " ".join(str(info[key]) for key in _VERSION_KEYS if info.get(key))
        return Entry(
            size=info["size"],
            version=f"{info['size']} {version}",
            has_version=bool(version),
            md5=_reported_md5(info),
            has_ranges=self.is_listed or bool(info.get("partial")),
        )

    @contextmanager
    def _to_user_error(self, url: str) -> Iterator[None]:
        """Raise the errors of storage libraries as errors that tell a user what to do."""
        try:
            yield
        except DcgenError:
            raise
        except ImportError as error:
            raise self._missing_package(error) from error
        except Exception as error:
            cause, remedy = _explain(error)
            detail = " ".join(str(error).split())
            raise self._error_type(
                f"{url}: {cause} ({type(error).__name__}: {detail:.300}).\n{remedy}"
            ) from error

    def _missing_package(self, error: ImportError) -> MissingPackageError:
        package, remedy = _PACKAGES.get(self._scheme), "pip install 'gpu-dcgen[remote]'"
        if package is None:
            remedy += ", and the package of this storage that fsspec names"
        elif package != "s3fs":  # which is in the extra
            remedy += f" {package}"
        return MissingPackageError(
            f"{self.url}: {self._scheme}:// needs a package that is not installed ({error}).\n"
            f"{remedy}"
        )


def _md5_of(file: Path) -> str:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest()


def _reported_md5(info: dict[str, Any]) -> str | None:
    """Return the MD5 that S3 (ETag), Google (md5Hash) or Azure (content_md5) reports.

    The ETag of an S3 object that was uploaded in several parts is not an MD5.
    """
    if "md5Hash" in info:
        return base64.b64decode(info["md5Hash"]).hex()
    if content_md5 := (info.get("content_settings") or {}).get("content_md5"):
        return bytes(content_md5).hex()
    etag = _MD5.fullmatch(str(info.get("ETag")))
    return etag[1] if etag else None


def _explain(error: Exception) -> tuple[str, str]:
    """Return the cause of a storage library's error, and the remedy.

    Libraries with exceptions of their own are recognized by the names of these.
    """
    name = type(error).__name__
    if isinstance(error, PermissionError) or "Credential" in name or "Authentication" in name:
        return (
            "access denied",
            "Give credentials with access, in the environment or the storage library's own files.",
        )
    if isinstance(error, FileNotFoundError):
        return (
            "no such bucket, container or file",
            "Check the URL, the account and the region.",
        )
    if isinstance(error, (TimeoutError, ConnectionError)) or re.search("Timeout|Connect", name):
        return "the storage does not answer", "Check the endpoint and the network, and try again."
    if isinstance(error, ValueError) and "rotocol" in str(error):
        return (
            "unknown kind of storage",
            "Use s3://, gs://, abfs://, https:// or another one that fsspec supports.",
        )
    return (
        "the storage reports an error",
        "Look it up in the storage's documentation, or try again.",
    )
