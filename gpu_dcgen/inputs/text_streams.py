"""Read the text of a file, unpacked, and watch it as it passes."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from ..errors import InputError

_END_BYTES = 16 << 20  # read at a time where nobody parses them
CODECS = {
    "gz": "gzip",
    "zst": "zstd",
    "bz2": "bz2",
    "lz4": "lz4",
    "br": "brotli",
}
_MAX_SUSPECT = 3  # bytes of what a stream looks for


class TextStream(io.RawIOBase):
    """A file's text, unpacked, with its lines counted; its bytes are hashed as they are read.

    Attributes:
        suspect_line: Number of the first line, from 1, with what is looked for; None where none is.
    """

    def __init__(
        self, file: IO[bytes], codec: str | None, suspect: re.Pattern[bytes] | None
    ) -> None:
        """Look for `suspect`, at most `_MAX_SUSPECT` bytes that begin with a backslash, if any."""
        self._source = _HashedFile(file)
        self._text = (
            self._source
            if codec is None
            else pa.CompressedInputStream(pa.PythonFile(self._source, mode="r"), codec)
        )
        self._n_breaks, self._last = 0, b""
        self._suspect, self._tail = suspect, b""
        self.suspect_line: int | None = None

    def readable(self) -> bool:
        """Return True, as readers of CSV ask."""
        return True

    def read(self, n: int = -1) -> bytes:
        """Return the next bytes of text, none at its end."""
        text = bytes(self._text.read(n))
        if self._suspect is not None:
            self._look_for(self._suspect, text)
        self._n_breaks += text.count(b"\n")
        self._last = text[-1:] or self._last
        return text

    def _look_for(self, suspect: re.Pattern[bytes], text: bytes) -> None:
        """Look for the suspect in the next bytes, and across their beginning."""
        head, self._tail = self._tail, text[1 - _MAX_SUSPECT :]
        for start, piece in ((head, head + text[: _MAX_SUSPECT - 1]), (b"", text)):
            # A backslash is rare, and looked for at the speed of memory.
            if b"\\" in piece and (match := suspect.search(piece)):
                n_before = self._n_breaks - start.count(b"\n")
                self.suspect_line = n_before + piece[: match.start()].count(b"\n") + 1
                self._suspect = None
                return

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as one read does; return the number of bytes."""
        text = self.read(len(buffer))
        buffer[: len(text)] = text
        return len(text)

    def read_to_end(self) -> None:
        """Read what is left, so that lines, bytes and hash are those of the whole file."""
        while self.read(_END_BYTES):
            pass
        while self._source.read(_END_BYTES):
            pass

    @property
    def n_lines(self) -> int:
        """Lines that were read."""
        return self._n_breaks + (self._last not in (b"", b"\n"))

    @property
    def n_bytes(self) -> int:
        """Bytes of the file that were read, packed as they are."""
        return self._source.n_bytes

    @property
    def sha256(self) -> str:
        """SHA-256 of these bytes."""
        return self._source.digest.hexdigest()


class _HashedFile(io.RawIOBase):
    """A file that hashes its bytes as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest, self.n_bytes = file, hashlib.sha256(), 0

    def readable(self) -> bool:
        """Return True, as readers ask."""
        return True

    def read(self, n: int = -1) -> bytes:
        """Return the next bytes, none at the end."""
        data = self._file.read(n)
        self.digest.update(data)
        self.n_bytes += len(data)
        return data


@contextmanager
def open_text(file: Path, suspect: re.Pattern[bytes] | None = None) -> Iterator[TextStream]:
    """Open a file's text, unpacked by its suffix. InputError where it cannot be unpacked.

    The stream looks for `suspect`, if it is given.
    """
    codec = CODECS.get(file.name.rpartition(".")[2].lower())
    with file.open("rb") as stream:
        try:
            yield TextStream(stream, codec, suspect)
        except (pa.ArrowException, OSError) as error:
            if codec is None or is_of_the_system(error):
                raise
            reason = " ".join(str(error).split())
            raise InputError(
                f"{file}: cannot be unpacked ({reason:.200}).\nWrite or copy the file again."
            ) from error


def is_of_the_system(error: Exception) -> bool:
    """Return whether an error is one of files and disks; Arrow's own have no number."""
    return isinstance(error, OSError) and error.errno is not None
