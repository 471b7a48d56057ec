"""Where a build is made, and how it takes the place of the dataset that it replaces (D23).

Beside an output `name` stands `.name.staging` while a build of it runs, and after one that died:
`data`, what is to be published; `checkpoints`, finished work to go on from; `lock`, held by the build that runs; and for a
moment `publishing`, which says that `data` is complete, and `old`, the dataset that was there before. While `publishing` is
there, the output's manifest decides what happened; so it goes last but for `lock`, without which another build could begin.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import socket
import time
from pathlib import Path

from ..errors import OutputError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_LOST_RACE_ERRNOS = (
    errno.ENOTEMPTY,
    errno.EEXIST,
    errno.ENOENT,
)  # of a folder that another build has taken by now
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)


class Staging:
    """A folder beside the output in which everything is written, and which becomes the output in one step.

    One build at a time holds an output's staging folder. What a build that died has left is set right first: a dataset
    that had stepped aside steps back, and the rest is removed, unless it is to be gone on from (`resume`).
    """

    def __init__(self, output: Path, overwrite: bool, *, resume: bool = False) -> None:
        """Raises OutputError when the output is there and must not be replaced, its parent cannot be written to, or another
        build of it is running."""
        self.output, self._overwrite, self.published = (
            Path(os.path.realpath(output)),
            overwrite,
            False,
        )
        self.folder = self.output.parent / f".{self.output.name}.staging"
        self.path, self.checkpoints = self.folder / "data", self.folder / "checkpoints"
        self._created = [
            folder for folder in self.output.parents if not folder.exists()
        ]  # the nearest first
        try:
            self._lock: int | None = self._take()
        except OSError as error:
            self._remove_parents()
            raise OutputError(
                f"{self.output.parent}: cannot be written to ({error.strerror}).\nChoose another OUTPUT."
            ) from error
        try:
            self.recover_publication()
            self._require_free()
            if self.published or not resume:
                self._remove_all()
            self.published = False
            self.path.mkdir(exist_ok=True)
        except BaseException as error:
            self._abandon()
            if isinstance(error, OSError):
                raise OutputError(
                    f"{self.folder}: cannot be made ready ({error}).\n"
                    f"See that it can be written to; it may be removed where {self.output} is whole, or never was."
                ) from error
            raise

    @property
    def location(self) -> Path | str:
        """The output as its user knows it."""
        return self.output

    def _abandon(self) -> None:
        """Leave what an earlier build has left, and nothing else."""
        self.release_lock() if any(
            left.name != "lock" for left in self.folder.iterdir()
        ) else self.discard()

    def _take(self) -> int:
        """The folder's lock, which ends with the process; the name must still be that of the file that is locked."""
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:
                continue  # a build that ended has just removed its folder
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(handle).st_nlink:
                    os.ftruncate(handle, 0)
                    os.write(
                        handle,
                        f"process {os.getpid()} on {socket.gethostname()}, since {time.ctime()}".encode(),
                    )
                    return handle
            except BlockingIOError:
                holder = os.read(handle, 1000).decode(errors="replace")
                os.close(handle)
                raise OutputError(
                    f"{self.output}: another build of it is running ({holder}).\nWait for its end, or choose another OUTPUT."
                ) from None
            except OSError as error:
                os.close(handle)
                if error.errno not in _NO_LOCKS:
                    raise
                raise OutputError(
                    f"{self.output.parent}: this file system has no locks ({error.strerror}).\n"
                    "Build on a local disk, and copy the dataset there."
                ) from error
            os.close(handle)

    def recover_publication(self) -> None:
        """Say whether what was being published is `published`; if not, have it as it was before."""
        marker, old = self.folder / "publishing", self.folder / "old"
        if not marker.exists():
            return
        self.published = _manifest_digest(self.output) == marker.read_text()
        if not self.published:
            if old.exists() and not self.output.exists():
                old.rename(self.output)
            marker.unlink()

    def _remove_all(self) -> None:
        """Remove all but the lock; last the marker, without which `data` could be taken for this build's."""
        for left in sorted(self.folder.iterdir(), key=lambda left: left.name == "publishing"):
            if left.name != "lock":
                shutil.rmtree(left) if left.is_dir() else left.unlink()

    def _require_free(self) -> None:
        if os.path.ismount(self.output):
            raise OutputError(
                f"{self.output} is a mount point, which no folder can replace.\nChoose a folder in it as OUTPUT."
            )
        if not self.output.exists() or _is_empty_folder(self.output):
            return
        if not self._overwrite:
            raise OutputError(
                f"{self.output} is there already.\nChoose another OUTPUT, or replace it with --overwrite."
            )
        if not (self.output / "manifest.json").is_file():
            raise OutputError(
                f"{self.output} is there already and is no dataset (it holds no manifest.json); --overwrite replaces data "
                "sets only.\nChoose another OUTPUT, or remove it yourself."
            )
        if not os.access(
            self.output, os.W_OK
        ):  # a folder that cannot be written to cannot be moved into another one
            raise OutputError(
                f"{self.output} may not be changed (no permission).\nChoose another OUTPUT, or make it writable."
            )

    def clear(self) -> None:
        """Remove what was written to be published."""
        shutil.rmtree(self.path)
        self.path.mkdir()

    def flush(self) -> None:
        """Have every file and folder on the disk before the name points to them."""
        for folder, _, names in os.walk(self.path):
            for name in (*names, "."):
                _flush(Path(folder) / name)

    def publish(self) -> str | None:
        """Put the data in the output's place, in one step where the file system can; the old dataset goes last.

        Returns a warning where what is left over cannot be removed. `published` is right also after an interrupt.
        """
        # what was written since the last flush; files already on the disk cost a call each
        self.flush()
        self._require_free()  # somebody may have put something there during the build
        marker = self.folder / "publishing"
        marker.write_text(_manifest_digest(self.path))
        _flush(marker)
        _flush(self.folder)
        try:
            if not self.output.exists() or _is_empty_folder(self.output):
                self.path.rename(self.output)
            elif not _exchange(self.path, self.output):
                self.output.rename(self.folder / "old")
                self.path.rename(self.output)
        finally:
            self.recover_publication()
        _flush(self.output.parent)
        try:
            self.discard()
        except OSError as error:
            return f"{self.folder}: cannot be removed ({error}); the next build of {self.output.name} will"
        return None

    def release_lock(self) -> None:
        """Let go of the folder, and leave what is in it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def discard(self) -> None:
        """Remove what was written, and the parent folders that were made for it."""
        try:
            if (
                self._lock is not None and os.fstat(self._lock).st_nlink
            ):  # without the name, another build may be here
                self._remove_all()
                (self.folder / "lock").unlink()
                try:
                    self.folder.rmdir()
                except OSError as error:
                    if error.errno not in _LOST_RACE_ERRNOS:
                        raise
        finally:
            self.release_lock()
        self._remove_parents()

    def _remove_parents(self) -> None:
        for folder in self._created:
            if _is_empty_folder(folder):
                folder.rmdir()


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _manifest_digest(folder: Path) -> str | None:
    """SHA-256 of a dataset's manifest, None where there is none."""
    manifest = folder / "manifest.json"
    return hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else None


def _exchange(one: Path, other: Path) -> bool:
    """Let two names of one file system change places, at once; False where this system or file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    if (code := ctypes.get_errno()) in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
