"""Read the files of a published dataset at a URL."""

from __future__ import annotations

from ...errors import InputError
from .folder import RemoteFolder

_TAIL_BYTES = 1 << 16  # requested at once: most footers fit


class RemoteDataset:
    """The files of a dataset at a URL; InputError where the storage cannot be reached."""

    def __init__(self, url: str) -> None:
        self._remote = RemoteFolder(url)
        self._sizes = {name: entry.size for name, entry in self._remote.entries().items()}

    def manifest(self) -> bytes:
        """Return the bytes of the manifest; InputError where there is none."""
        if "manifest.json" not in self._sizes:
            raise InputError(
                f"{self._remote / 'manifest.json'}: not found.\n"
                "Give the URL of a published dataset."
            )
        return self._remote.read("manifest.json")

    def size(self, name: str) -> int | None:
        """Return the bytes of a file, None where there is none."""
        return self._sizes.get(name)

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a file, all of which is read."""
        return self._remote.sha256(name)

    def n_rows(self, name: str) -> int:
        """Return the rows of a Parquet file; only its footer is read."""
        from pyarrow import BufferReader
        from pyarrow.parquet import read_metadata

        size = self._sizes[name]
        if size is None:  # only web servers leave it out, and datasets cannot be published there
            raise InputError(
                f"{self._remote / name}: the storage does not give its size.\nCopy it."
            )
        tail = self._remote.read(name, max(0, size - _TAIL_BYTES), size)
        footer_bytes = int.from_bytes(tail[-8:-4], "little") + 8
        if len(tail) < footer_bytes <= size:
            tail = self._remote.read(name, size - footer_bytes, size)
        return int(read_metadata(BufferReader(tail)).num_rows)
