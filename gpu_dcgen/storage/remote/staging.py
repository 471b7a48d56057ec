"""Build a dataset in a local folder and publish it at a URL, manifest.json last.

An object store has no step that replaces a folder. Instead, a dataset is complete where there is a
manifest: the old manifest is removed before the first new file is uploaded, the new one is uploaded
after every other file has been verified there, and files of the old dataset are removed after that.
In between there is no dataset at the URL. The object UNFINISHED marks that time, and stays after a
build that died. The object LOCK belongs to the build that runs.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable
from getpass import getuser
from hashlib import sha256
from pathlib import Path

from ...errors import DcgenError, OutputError, spell_option
from ...monitoring.progress import ProgressTracker
from ..lock import LockFile, describe_holder
from ..staging import Staging
from .folder import RemoteFolder, transfer_all

LOCK, UNFINISHED, MANIFEST = ".gpu-dcgen.lock", ".gpu-dcgen.unfinished", "manifest.json"
_THREADS = 8  # files that are uploaded at the same time
_READ_ONLY = ("http", "https")


def default_workplace() -> Path:
    """Return this user's folder for builds in the folder for temporary files.

    It is the same one each time, so that builds can be resumed.
    """
    return Path(tempfile.gettempdir()) / f"gpu-dcgen-{_user_name()}"


class RemoteStaging(Staging):
    """A local folder to write to that is copied to a URL; locked here and there."""

    def __init__(
        self,
        url: str,
        overwrite: bool,
        *,
        resume: bool = False,
        workplace: Path | None = None,
        progress: ProgressTracker,
    ) -> None:
        """Take the URL and a staging folder in `workplace`.

        Raises OutputError where the storage cannot be reached or written to, the URL holds
        something that may not be replaced, or another build of it is running.
        """
        _require_folder(url)
        self._remote, self._progress = RemoteFolder(url, OutputError), progress
        self._resume, self._replaces = resume, overwrite
        self._has_remote_lock, self._is_publishing = False, False
        workplace = _private(default_workplace()) if workplace is None else Path(workplace)
        name = f"{url.rpartition('/')[2]:.40}-{sha256(url.encode()).hexdigest()[:12]}"
        try:
            super().__init__(workplace / name, overwrite=True, resume=resume)
        except OutputError as error:
            raise OutputError(str(error).replace(str((workplace / name).resolve()), url)) from error

    @property
    def location(self) -> str:
        """The URL."""
        return self._remote.url

    def _take_lock(self) -> LockFile:
        self._lock = super()._take_lock()
        try:
            self._take_remote_lock()
        except BaseException:
            self._abandon()
            raise
        return self._lock

    def _take_remote_lock(self) -> None:
        """Write the lock object, or take over that of a build in this folder.

        As this build has locked the folder, such a build has died.
        """
        self._owner = _folder_identity(self.output.parent)
        content = json.dumps({"owner": self._owner, "holder": describe_holder()}).encode()
        # Checked before and after, as some storages cannot create only what does not exist.
        lock = self._require_lock_free()
        self._remote.write(LOCK, content, create=lock is None)
        self._require_lock_free()
        self._has_remote_lock = True

    def _require_lock_free(self) -> dict[str, str] | None:
        """Return the lock object; OutputError where it is another build's."""
        lock = self._read_remote_lock()
        if lock is not None and lock["owner"] != self._owner:
            raise OutputError(
                f"{self.location}: another build of it is running ({lock['holder']}).\n"
                "Wait until it has ended, or choose another OUTPUT. "
                f"If it has died, remove {self._remote / LOCK}."
            )
        return lock

    def _read_remote_lock(self) -> dict[str, str] | None:
        """Return the owner and the holder of the lock object; None where there is none."""
        if self._remote.entry(LOCK) is None:
            return None
        try:
            content = json.loads(self._remote.read(LOCK))
            return {"owner": str(content["owner"]), "holder": str(content["holder"])}
        except (ValueError, KeyError, TypeError):
            return {"owner": "", "holder": "unknown"}

    def _require_free(self) -> None:
        super()._require_free()
        names = self._remote.entries().keys() - {LOCK}
        if not names or self._is_publishing:
            return
        if UNFINISHED in names:
            if not (self._resume or self._replaces):
                raise OutputError(
                    f"{self.location}: holds a dataset that was not uploaded completely.\n"
                    f"Resume with {spell_option('resume')}, replace it with "
                    f"{spell_option('overwrite')}, or choose another OUTPUT."
                )
        elif MANIFEST not in names:
            raise OutputError(
                f"{self.location} already exists and is not a dataset (it has no {MANIFEST}, but "
                f"{min(names)}); {spell_option('overwrite')} replaces only datasets.\n"
                "Choose another OUTPUT, or remove it yourself."
            )
        elif not self._replaces:
            raise OutputError(
                f"{self.location} already exists.\n"
                f"Choose another OUTPUT, or replace it with {spell_option('overwrite')}."
            )

    def publish(self) -> str | None:
        """Upload the dataset, manifest.json last, and remove other files at the URL.

        Returns a warning where that removal fails.
        """
        files = {
            path.relative_to(self.path).as_posix(): path
            for path in sorted(self.path.rglob("*"))
            if path.is_file()
        }
        self._require_lock_held()
        self._require_free()
        self._is_publishing = True
        note = f"a dataset is being published by {socket.gethostname()} since {time.ctime()}"
        self._remote.write(UNFINISHED, note.encode())
        self._remote.remove([MANIFEST])
        n_bytes = sum(path.stat().st_size for path in files.values())
        with self._progress.stage("upload", n_bytes):
            transfer_all(
                _THREADS,
                "upload",
                self._upload,
                ((path, name) for name, path in files.items() if name != MANIFEST),
            )
            self._require_lock_held()
            self._upload(files[MANIFEST], MANIFEST)
        self.published = True
        warning = self._remove_others(files)
        self.discard()
        return warning

    def _upload(self, file: Path, name: str) -> None:
        """Upload a file and verify it, unless the same content is there already."""
        if not self._remote.holds(file, name):
            self._remote.put(file, name)
            if not self._remote.holds(file, name):
                raise OutputError(
                    f"{self._remote / name}: differs from the file that was uploaded.\n"
                    f"Check what else writes there, and rerun with {spell_option('resume')}."
                )
        self._progress.advance(file.stat().st_size)

    def _remove_others(self, names: Iterable[str]) -> str | None:
        """Remove files of an old dataset, then UNFINISHED; the new one is published by now."""
        try:
            old = self._remote.entries().keys() - {*names, LOCK, UNFINISHED}
            self._remote.remove([*sorted(old), UNFINISHED])
        except DcgenError as error:
            return f"published, but files of the previous dataset could not be removed: {error}"
        return None

    def _require_lock_held(self) -> None:
        if not self._holds_remote_lock():
            raise OutputError(
                f"{self.location}: another process has taken its lock during the build.\n"
                "Check that no other build publishes there, and rerun with "
                f"{spell_option('resume')}."
            )

    def _holds_remote_lock(self) -> bool:
        lock = self._read_remote_lock()
        return lock is not None and lock["owner"] == self._owner

    def release_lock(self) -> None:
        """Release both locks."""
        self._release_remote_lock()
        super().release_lock()

    def _release_remote_lock(self) -> None:
        """Remove the lock object if it is this build's; where that fails, warn."""
        if not self._has_remote_lock:
            return
        self._has_remote_lock = False
        try:
            if self._holds_remote_lock():
                self._remote.remove([LOCK])
        except DcgenError as error:
            self._progress.message(
                "warning", f"the lock {self._remote / LOCK} could not be removed: {error}"
            )


def _require_folder(url: str) -> None:
    """Raise OutputError unless the URL is one of a folder that can be written to."""
    scheme, _, rest = url.partition("://")
    if scheme in _READ_ONLY:
        raise OutputError(
            f"{url}: a web server cannot be written to.\n"
            "Choose a folder, s3://, gs:// or abfs:// as OUTPUT."
        )
    if "/" not in rest:
        raise OutputError(
            f"{url}: is a whole bucket or container.\n"
            f"Choose a folder in it as OUTPUT, for example {url}/sets/one."
        )


def _user_name() -> str:
    return getuser() if sys.platform == "win32" else str(os.getuid())


def _private(folder: Path) -> Path:
    """Create a folder beside those of other users; none of them may own it or write to it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if sys.platform == "win32":  # the folder for temporary files is private there
        return folder
    status = folder.lstat()
    if (
        not folder.is_dir()
        or folder.is_symlink()
        or status.st_uid != os.getuid()
        or status.st_mode & 0o022
    ):
        raise OutputError(
            f"{folder}: other users may write to it.\n"
            f"Remove it, or choose another folder with {spell_option('staging')}."
        )
    return folder


def _folder_identity(folder: Path) -> str:
    """Return a name that no other machine's folder has: created once, stored in the folder."""
    file, new = folder / ".gpu-dcgen.identity", folder / f".{uuid.uuid4().hex}"
    if not file.exists():
        new.write_text(new.name)
        try:
            os.link(new, file)  # the file appears with its content, or not at all
        except FileExistsError:
            pass  # another build was faster
        finally:
            new.unlink()
    return file.read_text()
