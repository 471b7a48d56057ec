"""Lock a file so that one process at a time builds an output.

`filelock.lock_descriptor` locks the open file, with flock on Linux and macOS and LockFileEx on
Windows, so the lock ends with its process. The file itself is handled here, since
`filelock.FileLock` leaves its file behind when it is released and does not store who holds it:
here the file holds that text, and the build that ends removes it together with its folder.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from pathlib import Path

from filelock import lock_descriptor

from ..errors import OutputError

_UNSUPPORTED_ERRNOS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)
_MAX_HOLDER_BYTES = 1000


class LockHeldError(Exception):
    """Another process holds the lock; the text says which one."""


class LockUnsupportedError(Exception):
    """The file system has no locks; the text is the system's."""


def describe_holder() -> str:
    """Describe this process for the messages of others."""
    return f"process {os.getpid()} on {socket.gethostname()}, since {time.ctime()}"


class LockFile:
    """A file that this process has locked, in a folder that is created with it."""

    def __init__(self, file: Path) -> None:
        """Create the file and lock it; LockHeldError, LockUnsupportedError or OSError."""
        self._file = file
        self._handle: int | None = None
        # A build that ends removes the file: whoever has locked it by then holds nothing.
        while not self.is_held:
            self.release()
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:
                continue  # its folder has just been removed
            try:
                self._lock(self._handle)
            except BaseException:
                self.release()
                raise

    @property
    def is_held(self) -> bool:
        """Whether this process has the lock, and the file still has its name."""
        return self._handle is not None and os.fstat(self._handle).st_nlink > 0

    def remove(self) -> None:
        """Remove the file and release the lock."""
        if sys.platform == "win32":  # an open file cannot be removed there
            self.release()
        self._file.unlink()
        self.release()

    def release(self) -> None:
        """Release the lock; the file stays."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _lock(self, handle: int) -> None:
        try:
            is_locked = lock_descriptor(handle, blocking=False)
        except OSError as error:
            if error.errno not in _UNSUPPORTED_ERRNOS:
                raise
            raise LockUnsupportedError(error.strerror) from error
        if not is_locked:
            raise LockHeldError(_read_holder(handle))
        os.ftruncate(handle, 0)
        os.write(handle, describe_holder().encode())


def lock_output(file: Path, output: Path, state: str) -> LockFile:
    """Lock the file that stands for an output.

    OutputError, which says `state` of the output, while another process holds it; and where the
    file system has no locks.
    """
    try:
        return LockFile(file)
    except LockHeldError as error:
        raise OutputError(
            f"{output}: {state} ({error}).\nWait until it has ended, or choose another OUTPUT."
        ) from None
    except LockUnsupportedError as error:
        raise OutputError(
            f"{output.parent}: this file system has no locks ({error}).\n"
            "Build on a local disk, and copy the dataset there."
        ) from error


def _read_holder(handle: int) -> str:
    try:
        return os.read(handle, _MAX_HOLDER_BYTES).decode(errors="replace")
    except OSError:  # a locked file cannot be read on Windows
        return "another process"
