"""Write to stdout and stderr, either of which may be closed, full or read by nobody.

A stream that fails ends no build: what a command has made stays made.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

_STANDARD_NUMBERS = (1, 2)  # stdout and stderr


def open_closed_streams() -> None:
    """Open the null device for the standard streams that are closed.

    Files of a dataset would get their numbers otherwise, and what libraries print would be written
    into them.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one


class ResilientStream:
    """Passes text on to a stream until writing to it fails; the rest is dropped.

    `on_error` is called once, when the first write fails. A stream that was closed before the
    process began (None) takes everything, as `print` has it.
    """

    def __init__(
        self, stream: TextIO | None, on_error: Callable[[OSError], None] | None = None
    ) -> None:
        self._stream, self._on_error = stream, on_error

    def write(self, text: str) -> int:
        """Write text; return its length."""
        if self._stream is not None:
            try:
                self._stream.write(text)
            except (OSError, ValueError) as error:
                self._disable(error)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._disable(error)

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _disable(self, error: OSError | ValueError) -> None:
        stream, self._stream = self._stream, None
        try:
            number = stream.fileno() if stream is not None else None
        except (OSError, ValueError):  # it is closed, or no file of the system
            number = None
        if number in _STANDARD_NUMBERS:
            # The interpreter flushes the stream when it ends, and would fail again.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)
        if self._on_error is not None:
            # A closed stream is a ValueError.
            closed = OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._on_error(error if isinstance(error, OSError) else closed)


def print_error(text: str) -> None:
    """Print a line to stderr, as far as that is possible."""
    stream = ResilientStream(sys.stderr)
    stream.write(f"{text}\n")
    stream.flush()
