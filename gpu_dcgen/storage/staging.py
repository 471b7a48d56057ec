"""Write a dataset to a staging folder and publish it atomically (D23).

While a build of the output `name` runs, and after one that was interrupted, the folder
`.name.staging` beside it holds:

- `data`: the dataset that is being written,
- `checkpoints`: results for a build that resumes,
- `lock`: locked by the build that runs,
- `publishing`: the SHA-256 of the manifest in `data`, from when `data` is complete until it is
  published,
- `old`: the dataset that is replaced, where two names cannot be exchanged in one step.

Where a build ended while `publishing` existed, the manifest at the output tells whether it was
published before. So `publishing` is removed after the rest, except `lock`, without which another
build could start.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import sys
from pathlib import Path

from ..errors import OutputError, spell_option
from .lock import LockFile, lock_output

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
# Of a folder that another build has begun to use since this one removed its lock.
_LOST_RACE_ERRNOS = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)
_NO_EXCHANGE_ERRNOS = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_FOLDER_NAME = ".{}.staging"
_MAX_NAME_BYTES = 255  # of a file's name, on common file systems
_MAX_PATH_BYTES = 4096  # of a path, with its terminator
_LONGEST_FILE = "data/train_dataset.parquet/item_similarity_matrix.parquet"


class Staging:
    """A folder beside the output to write to, which becomes the output in one step.

    One build at a time holds the staging folder of an output. What an interrupted build has left
    is recovered first: a dataset that was moved aside returns to its place, and the rest is
    removed, except with `resume`.

    Attributes:
        output: The output's absolute path, links resolved.
        folder: The staging folder.
        path: The folder in it to write the dataset to.
        checkpoints: The folder in it for checkpoints.
        published: Whether the dataset has been published.
    """

    def __init__(self, output: Path, overwrite: bool, *, resume: bool = False) -> None:
        """Take the output's staging folder.

        Raises OutputError where the output exists and may not be replaced, its name is too long,
        its parent cannot be written to, or another build of it is running.
        """
        self.output = Path(os.path.realpath(output))
        _require_path_lengths(self.output)
        self.folder = self.output.parent / _FOLDER_NAME.format(self.output.name)
        self.path, self.checkpoints = self.folder / "data", self.folder / "checkpoints"
        self.published, self._overwrite = False, overwrite
        # The nearest first, so that they can be removed in this order.
        self._new_parents = [path for path in self.output.parents if not os.path.exists(path)]
        try:
            self._lock = self._take_lock()
        except OSError as error:
            self._remove_new_parents()
            raise OutputError(
                f"{self.output.parent}: cannot be written to ({error.strerror}).\n"
                "Choose another OUTPUT."
            ) from error
        try:
            self._prepare(resume)
        except BaseException as error:
            self._abandon()
            if isinstance(error, OSError):
                raise OutputError(
                    f"{self.folder}: cannot be prepared ({error}).\n"
                    "Check that it can be written to. It may be removed if "
                    f"{self.output} is complete or has never existed."
                ) from error
            raise

    @property
    def location(self) -> Path | str:
        """The output as the user knows it."""
        return self.output

    def _take_lock(self) -> LockFile:
        return lock_output(self.folder / "lock", self.output, "another build of it is running")

    def _prepare(self, resume: bool) -> None:
        self.recover_publication()
        self._require_free()
        if self.published or not resume:
            self._remove_all()
        self.published = False
        self.path.mkdir(exist_ok=True)

    def _abandon(self) -> None:
        """Release the folder, and remove it unless an earlier build has left something in it."""
        if any(path.name != "lock" for path in self.folder.iterdir()):
            self.release_lock()
        else:
            self.discard()

    def recover_publication(self) -> None:
        """Set `published`; where publication was interrupted before, restore the old dataset."""
        marker, old = self.folder / "publishing", self.folder / "old"
        if not marker.exists():
            return
        self.published = _manifest_digest(self.output) == marker.read_text()
        if not self.published:
            if old.exists() and not self.output.exists():
                old.rename(self.output)
            marker.unlink()

    def _remove_all(self) -> None:
        """Remove all but the lock.

        The marker is removed last: without it, `data` could be taken for this build's.
        """
        for path in sorted(self.folder.iterdir(), key=lambda path: path.name == "publishing"):
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _require_free(self) -> None:
        """Raise OutputError where the output may not be replaced."""
        if os.path.ismount(self.output):
            raise OutputError(
                f"{self.output} is a mount point, which no folder can replace.\n"
                "Choose a folder in it as OUTPUT."
            )
        if not self.output.exists() or _is_empty_folder(self.output):
            return
        if not self._overwrite:
            raise OutputError(
                f"{self.output} already exists.\n"
                f"Choose another OUTPUT, or replace it with {spell_option('overwrite')}."
            )
        if not (self.output / "manifest.json").is_file():
            raise OutputError(
                f"{self.output} already exists and is not a dataset (it has no manifest.json); "
                f"{spell_option('overwrite')} replaces only datasets.\n"
                "Choose another OUTPUT, or remove it yourself."
            )
        # A folder that cannot be written to cannot be moved into another one.
        if not os.access(self.output, os.W_OK):
            raise OutputError(
                f"{self.output} may not be changed (no permission).\n"
                "Choose another OUTPUT, or make it writable."
            )

    def clear(self) -> None:
        """Remove what was written of the dataset."""
        shutil.rmtree(self.path)
        self.path.mkdir()

    def flush(self) -> None:
        """Write every file and folder of the dataset to the disk."""
        for folder, _, names in os.walk(self.path):
            for name in (*names, "."):
                _flush(Path(folder) / name)

    def publish(self) -> str | None:
        """Move the dataset to the output, in one step where the file system can.

        Returns a warning where what is left cannot be removed. `published` is correct also after
        an interrupt.
        """
        self.flush()  # files that are on the disk already cost a call each
        self._require_free()  # the output may have been created during the build
        digest = _manifest_digest(self.path)
        if digest is None:
            raise RuntimeError(f"{self.path}: has no manifest.json, so it is not complete")
        marker = self.folder / "publishing"
        marker.write_text(digest)
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
            return (
                f"{self.folder}: cannot be removed ({error}); "
                f"the next build of {self.output.name} will remove it"
            )
        return None

    def release_lock(self) -> None:
        """Release the staging folder without removing anything."""
        self._lock.release()

    def discard(self) -> None:
        """Remove the staging folder, and the parent folders that were created for it."""
        try:
            if self._lock.is_held:  # else another build may use the folder
                self._remove_all()
                self._lock.remove()
                try:
                    self.folder.rmdir()
                except OSError as error:
                    if error.errno not in _LOST_RACE_ERRNOS:
                        raise
        finally:
            self.release_lock()
        self._remove_new_parents()

    def _remove_new_parents(self) -> None:
        for folder in self._new_parents:
            if _is_empty_folder(folder):
                folder.rmdir()


def _require_path_lengths(output: Path) -> None:
    """Raise OutputError where the staging folder's name or its files' paths would be too long."""
    n_bytes, max_bytes = len(os.fsencode(output.name)), _MAX_NAME_BYTES - len(_FOLDER_NAME) + 2
    if n_bytes > max_bytes:
        raise OutputError(
            f"{output.parent}: the output's name has {n_bytes} bytes, at most {max_bytes} can be "
            "used.\nChoose a shorter name."
        )
    longest = output.parent / _FOLDER_NAME.format(output.name) / _LONGEST_FILE
    n_bytes = len(os.fsencode(longest))
    if n_bytes >= _MAX_PATH_BYTES:
        raise OutputError(
            f"{output.name}: its files' paths would have {n_bytes} bytes, fewer than "
            f"{_MAX_PATH_BYTES:,} can be used.\nChoose an OUTPUT with a shorter path."
        )


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _manifest_digest(folder: Path) -> str | None:
    """Return the SHA-256 of a dataset's manifest, None where there is none."""
    manifest = folder / "manifest.json"
    return hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else None


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names of one file system in one step; False where that is not supported."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    if (code := ctypes.get_errno()) in _NO_EXCHANGE_ERRNOS:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))


def _flush(path: Path) -> None:
    """Write a file or folder to the disk."""
    if sys.platform == "win32":
        if path.is_dir():  # a folder cannot be opened there
            return
        flags = os.O_RDWR  # and a file that was opened for reading cannot be flushed
    else:
        flags = os.O_RDONLY
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
