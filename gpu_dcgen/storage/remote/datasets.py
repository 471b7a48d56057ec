"""A published dataset at a URL, as `integrity.validate` looks at one."""

from __future__ import annotations

from ...errors import InputError
from .folder import RemoteFolder

_END_BYTES = 1 << 16  # asked for at once: most footers are in it


class RemoteDataset:
    """What there is to see of its files; InputError where the storage cannot be reached."""

    def __init__(self, url: str) -> None:
        self._remote = RemoteFolder(url)
        self._sizes = {name: entry.size for name, entry in self._remote.entries().items()}

    def manifest(self) -> bytes:
        """The manifest's bytes; InputError where there is none."""
        if "manifest.json" not in self._sizes:
            raise InputError(
                f"{self._remote / 'manifest.json'}: is not there.\nGive the folder of a dataset that is published."
            )
        return self._remote.read("manifest.json")

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none."""
        return self._sizes.get(name)

    def sha256(self, name: str) -> str:
        return self._remote.sha256(name)

    def n_rows(self, name: str) -> int:
        """Rows of a Parquet file, by its footer, which is all that is read of it."""
        from pyarrow import BufferReader
        from pyarrow.parquet import read_metadata

        size = self._sizes[name]
        end = self._remote.read(name, max(0, size - _END_BYTES), size)
        footer = int.from_bytes(end[-8:-4], "little") + 8
        if len(end) < footer <= size:
            end = self._remote.read(name, size - footer, size)
        return read_metadata(BufferReader(end)).num_rows
