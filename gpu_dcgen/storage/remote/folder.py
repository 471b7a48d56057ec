"""A remote folder through fsspec: what it holds, reading, writing, and what went wrong in words.

Credentials, endpoints and time limits come from where each storage library looks for them (environment, its own files, fsspec's
configuration); the libraries repeat what fails in passing.
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
_MARKS = (
    "ETag",
    "etag",
    "generation",
    "mtime",
    "LastModified",
    "last_modified",
    "Last-Modified",
    "created",
)


def at_once(n: int, name: str, transfer: Callable[..., None], arguments: Iterable[tuple]) -> None:
    """Call `transfer` with each of `arguments`, `n` side by side; the first error ends it, and what has not begun is left out."""
    with ThreadPoolExecutor(n, name) as pool:
        begun = [pool.submit(transfer, *given) for given in arguments]
        try:
            for one in begun:
                one.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@dataclass(frozen=True)
class Entry:
    """A remote file as its storage tells of it."""

    size: int | None  # bytes; None where a web server does not say
    mark: str  # another one where the file was written again, as far as the storage tells
    marked: bool  # whether it tells more than the size
    md5: (
        str | None
    )  # of the content, 32 hex digits, as far as can be known: that of an encrypted object may be of something else
    ranged: bool  # whether parts of it can be asked for


class RemoteFolder:
    """A folder at a URL (`locations.parse_location`); what goes wrong is raised as `wrong`. May be used by any number of threads."""

    def __init__(self, url: str, wrong: type[DcgenError] = InputError) -> None:
        self.url, self._wrong, self._scheme = url, wrong, url.partition("://")[0]
        with self._in_words(url):
            import fsspec

            self._files, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
        self._root = root.rstrip("/")
        self.is_listed = self._scheme not in ("http", "https")

    def __truediv__(self, name: str) -> str:
        """The URL of what is called `name` here, for messages."""
        return f"{self.url}/{name}"

    def entry(self, name: str) -> Entry | None:
        """The file called `name`; None where there is none."""
        with self._in_words(self / name):
            self._files.invalidate_cache()
            try:
                info = self._files.info(self._path(name))
            except FileNotFoundError:
                return None
            return self._entry(info) if info["type"] == "file" else None

    def entries(self, under: str = "") -> dict[str, Entry]:
        """All files here or below the folder `under`, by their names from here; {} where there is no such folder."""
        with self._in_words(self / under if under else self.url):
            self._files.invalidate_cache()
            found = self._files.find(self._path(under) if under else self._root, detail=True)
        within = f"{self._root}/{under}/" if under else f"{self._root}/"
        files = {
            path: info
            for path, info in found.items()
            if path.startswith(within) and not path.endswith("/")
        }
        return {path[len(self._root) + 1 :]: self._entry(info) for path, info in files.items()}

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """A file's bytes, or those from `start` up to `end`."""
        with self._in_words(self / name):
            return self._files.cat_file(self._path(name), start=start, end=end)

    def sha256(self, name: str) -> str:
        """SHA-256 of a file's bytes, all of which are read."""
        with (
            self._in_words(self / name),
            self._files.open(self._path(name), "rb", block_size=RANGE_BYTES) as file,
        ):
            return hashlib.file_digest(file, "sha256").hexdigest()

    def fetch(self, name: str, target: Path) -> None:
        """Copy a whole file to a local one, in one request."""
        with self._in_words(self / name):
            self._files.get_file(self._path(name), str(target))

    def write(self, name: str, content: bytes, *, create: bool = False) -> bool:
        """Write a small file; with `create` only if there is none, as one step where the storage knows how: whether it was."""
        with self._in_words(self / name):
            try:
                self._files.pipe_file(
                    self._path(name), content, **({"mode": "create"} if create else {})
                )
            except FileExistsError:
                return False
        return True

    def put(self, file: Path, name: str) -> None:
        """Copy a local file here."""
        with self._in_words(self / name):
            self._files.put_file(str(file), self._path(name))

    def holds(self, file: Path, name: str) -> bool:
        """Whether the file called `name` is `file`: by the storage's MD5 of it, or where that is none, by reading it."""
        entry = self.entry(name)
        if entry is None or entry.size != file.stat().st_size:
            return False
        if entry.md5 is not None:
            with file.open("rb") as stream:
                if (
                    hashlib.file_digest(
                        stream, lambda: hashlib.md5(usedforsecurity=False)
                    ).hexdigest()
                    == entry.md5
                ):
                    return True
        return self.sha256(name) == sha256_of(file)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, one after the other."""
        for name in names:
            with self._in_words(self / name):
                try:
                    self._files.rm_file(self._path(name))
                except FileNotFoundError:
                    continue  # somebody else has removed it

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _entry(self, info: dict[str, Any]) -> Entry:
        mark = " ".join(str(info[name]) for name in _MARKS if info.get(name))
        ranged = self.is_listed or bool(info.get("partial"))
        return Entry(info["size"], f"{info['size']} {mark}", bool(mark), _md5(info), ranged)

    @contextmanager
    def _in_words(self, where: str) -> Iterator[None]:
        """Raise what storage libraries raise, each in its own manner, as what it means for the user."""
        try:
            yield
        except DcgenError:
            raise
        except ImportError as error:
            raise self._missing(error) from error
        except Exception as error:
            found, remedy = _meaning(error)
            detail = " ".join(str(error).split())
            raise self._wrong(
                f"{where}: {found} ({type(error).__name__}: {detail:.300}).\n{remedy}"
            ) from error

    def _missing(self, error: ImportError) -> MissingPackageError:
        package = _PACKAGES.get(self._scheme, self._scheme)
        how = (
            "pip install 'gpu-dcgen[remote]'"
            if package == "s3fs"
            else f"pip install 'gpu-dcgen[remote]' {package}"
        )
        if package == self._scheme:
            how = (
                "pip install 'gpu-dcgen[remote]', and the package of this storage that fsspec names"
            )
        return MissingPackageError(
            f"{self.url}: {self._scheme}:// needs a package that is not installed ({error}).\n{how}"
        )


def _md5(info: dict[str, Any]) -> str | None:
    """MD5 that S3 (ETag of what came in one piece), Google (md5Hash) or Azure (content_md5) tell."""
    if "md5Hash" in info:
        return base64.b64decode(info["md5Hash"]).hex()
    if told := (info.get("content_settings") or {}).get("content_md5"):
        return bytes(told).hex()
    etag = _MD5.fullmatch(str(info.get("ETag")))
    return etag[1] if etag else None


def _meaning(error: Exception) -> tuple[str, str]:
    """What was found, and what to do. Libraries without classes of Python's own are known by the names of theirs."""
    name = type(error).__name__
    if isinstance(error, PermissionError) or "Credential" in name or "Authentication" in name:
        return (
            "access is refused",
            "Give credentials that may, in the environment or the storage library's own files.",
        )
    if isinstance(error, FileNotFoundError):
        return (
            "there is no such bucket, container or file",
            "Check the URL, and in which account and region it lies.",
        )
    if isinstance(error, (TimeoutError, ConnectionError)) or re.search("Timeout|Connect", name):
        return "the storage does not answer", "Check the endpoint and the network, and try again."
    if isinstance(error, ValueError) and "rotocol" in str(error):
        return (
            "this kind of storage is not known",
            "Use s3://, gs://, abfs://, https:// or another that fsspec knows.",
        )
    return (
        "the storage refuses",
        "Look the message up in the storage's documentation, or try again.",
    )
