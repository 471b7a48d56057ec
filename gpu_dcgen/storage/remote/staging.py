"""A dataset is built in a local folder and published at a URL: every file but manifest.json, proved there, then manifest.json.

An object store has no step that replaces a folder. Instead a reader who sees a manifest sees a whole dataset: an old manifest
goes before the first file of the new set comes, the new one comes when every other file has been proved there, and files of the
old set go after that. In between there is no dataset at the URL. While it lasts, the object UNFINISHED says so, and after a
build that died. The object LOCK belongs to the build that runs.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
import uuid
from hashlib import sha256
from pathlib import Path

from ...errors import DcgenError, OutputError
from ...monitoring.progress import ProgressTracker
from ..staging import Staging
from .folder import RemoteFolder, at_once

LOCK, UNFINISHED, MANIFEST = ".gpu-dcgen.lock", ".gpu-dcgen.unfinished", "manifest.json"
_THREADS = 8  # files on their way at the same time
_READ_ONLY = ("http", "https")


def default_workplace() -> Path:
    """The folder for this user's builds on the disk for temporary files; the same one again, so that they can be resumed."""
    return Path(tempfile.gettempdir()) / f"gpu-dcgen-{os.getuid()}"


class RemoteStaging(Staging):
    """A local folder in which everything is written, and which is copied to a URL; held by a lock here and one there."""

    def __init__(
        self,
        url: str,
        overwrite: bool,
        *,
        resume: bool = False,
        workplace: Path | None = None,
        progress: ProgressTracker,
    ) -> None:
        """Raises OutputError when the storage cannot be reached or written to, when what is there must not be replaced, or
        when another build of it is running."""
        _require_folder(url)
        self._remote, self._progress = RemoteFolder(url, OutputError), progress
        self._goes_on, self._replaces, self._held, self._publishing = (
            resume,
            overwrite,
            False,
            False,
        )
        workplace = _private(default_workplace()) if workplace is None else Path(workplace)
        name = f"{url.rpartition('/')[2]:.40}-{sha256(url.encode()).hexdigest()[:12]}"
        try:
            super().__init__(workplace / name, overwrite=True, resume=resume)
        except OutputError as error:
            raise OutputError(str(error).replace(str((workplace / name).resolve()), url)) from error

    @property
    def location(self) -> str:
        return self._remote.url

    def _take(self) -> int:
        self._lock = super()._take()
        try:
            self._hold()
        except BaseException:
            self._abandon()
            raise
        return self._lock

    def _hold(self) -> None:
        """Write the lock there, or take over that of a build in this folder: as we hold the folder, that one has died."""
        self._owner = _identity(self.output.parent)
        holder = f"process {os.getpid()} on {socket.gethostname()}, since {time.ctime()}"
        content = json.dumps({"owner": self._owner, "holder": holder}).encode()
        for written in (
            False,
            True,
        ):  # looked at before, as some storages know no conditional writing
            found = self._lock_there()
            if found is not None and found["owner"] != self._owner:
                raise OutputError(
                    f"{self.location}: another build of it is running ({found['holder']}).\n"
                    f"Wait for its end, or choose another OUTPUT. If it has died, remove {self._remote / LOCK}."
                )
            if not written:
                self._remote.write(LOCK, content, create=found is None)
        self._held = True

    def _lock_there(self) -> dict[str, str] | None:
        """Whose lock is there; None where there is none."""
        if self._remote.entry(LOCK) is None:
            return None
        try:
            found = json.loads(self._remote.read(LOCK))
            return {"owner": str(found["owner"]), "holder": str(found["holder"])}
        except (ValueError, KeyError, TypeError):
            return {"owner": "", "holder": "one that left no name"}

    def _require_free(self) -> None:
        super()._require_free()
        there = self._remote.entries().keys() - {LOCK}
        if not there or self._publishing:
            return
        if UNFINISHED in there:
            if not (self._goes_on or self._replaces):
                raise OutputError(
                    f"{self.location}: holds a dataset that a build has begun to publish, and not ended.\n"
                    "Go on with --resume, replace it with --overwrite, or choose another OUTPUT."
                )
        elif MANIFEST not in there:
            raise OutputError(
                f"{self.location} is there already and is no dataset (it holds no {MANIFEST}, but {min(there)}); --overwrite "
                "replaces datasets only.\nChoose another OUTPUT, or remove it yourself."
            )
        elif not self._replaces:
            raise OutputError(
                f"{self.location} is there already.\nChoose another OUTPUT, or replace it with --overwrite."
            )

    def publish(self) -> str | None:
        """Copy the dataset to its URL, manifest.json last, and remove what else is there; a warning where that fails."""
        files = {
            path.relative_to(self.path).as_posix(): path
            for path in sorted(self.path.rglob("*"))
            if path.is_file()
        }
        self._require_held()
        self._require_free()
        self._publishing = True
        self._remote.write(
            UNFINISHED,
            f"a dataset is being published by {socket.gethostname()} since {time.ctime()}".encode(),
        )
        self._remote.remove([MANIFEST])
        n_bytes = sum(path.stat().st_size for path in files.values())
        with self._progress.stage("upload", n_bytes):
            at_once(
                _THREADS,
                "upload",
                self._bring,
                ((path, name) for name, path in files.items() if name != MANIFEST),
            )
            self._require_held()
            self._bring(files[MANIFEST], MANIFEST)
        self.published = True
        left = self._remove_others(files.keys())
        self.discard()
        return left

    def _bring(self, file: Path, name: str) -> None:
        """Have the file there: it may be, from a build that died or of the same content."""
        if not self._remote.holds(file, name):
            self._remote.put(file, name)
            if not self._remote.holds(file, name):
                raise OutputError(
                    f"{self._remote / name}: is not what was written.\nSee who else writes there; --resume tries again."
                )
        self._progress.advance(file.stat().st_size)

    def _remove_others(self, names: set[str]) -> str | None:
        """What the old dataset has left, and at last the word that this one is unfinished: it is published by now."""
        try:
            others = self._remote.entries().keys() - names - {LOCK, UNFINISHED}
            self._remote.remove([*sorted(others), UNFINISHED])
        except DcgenError as error:
            return f"published, but files of the dataset before it are still there: {error}"
        return None

    def _require_held(self) -> None:
        if not self._holds_lock():
            raise OutputError(
                f"{self.location}: its lock has been taken from this build while it ran.\n"
                "See that no other build publishes there; --resume goes on."
            )

    def _holds_lock(self) -> bool:
        found = self._lock_there()
        return found is not None and found["owner"] == self._owner

    def release_lock(self) -> None:
        self._free()
        super().release_lock()

    def _free(self) -> None:
        """Remove the lock there, if it is this build's; a storage that does not answer any more leaves it, which is said."""
        if not self._held:
            return
        self._held = False
        try:
            if self._holds_lock():
                self._remote.remove([LOCK])
        except DcgenError as error:
            self._progress.message(
                "warning", f"the lock {self._remote / LOCK} could not be removed: {error}"
            )


def _require_folder(url: str) -> None:
    scheme, _, rest = url.partition("://")
    if scheme in _READ_ONLY:
        raise OutputError(
            f"{url}: a web server cannot be written to.\nChoose a folder, s3://, gs:// or abfs:// as OUTPUT."
        )
    if "/" not in rest:
        raise OutputError(
            f"{url}: is a whole bucket or container.\nName a folder in it, as {url}/sets/one."
        )


def _private(folder: Path) -> Path:
    """Make a folder in a place that all users share; nobody else may own it or write to it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if (
        not folder.is_dir()
        or folder.is_symlink()
        or status.st_uid != os.getuid()
        or status.st_mode & 0o022
    ):
        raise OutputError(
            f"{folder}: is not a folder of this user alone.\nRemove it, or name another with --staging."
        )
    return folder


def _identity(folder: Path) -> str:
    """A name that no other machine's staging folder has: made once, kept in the folder."""
    file, new = folder / ".gpu-dcgen.identity", folder / f".{uuid.uuid4().hex}"
    if not file.exists():
        new.write_text(new.name)
        try:
            os.link(new, file)  # whole, or not there
        except FileExistsError:
            pass  # another build was faster
        finally:
            new.unlink()
    return file.read_text()
