"""The lock of a staging folder: one process holds it, says who it is, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_dcgen.errors import OutputError
from gpu_dcgen.storage import lock as module
from gpu_dcgen.storage.lock import LockFile, LockHeldError
from gpu_dcgen.storage.staging import Staging

HOLDER = """
import sys, time
from pathlib import Path
from gpu_dcgen.storage.staging import Staging
staging = Staging(Path(sys.argv[1]), overwrite=False)
(staging.path / "half").write_text("")
print("locked", flush=True)
time.sleep(60)
"""


def test_a_lock_is_held_once_and_says_by_whom(tmp_path):
    first = LockFile(tmp_path / "folder" / "lock")
    for _ in range(2):  # who asks does not erase the holder's text
        with pytest.raises(LockHeldError, match=f"^process {os.getpid()} on .*, since "):
            LockFile(tmp_path / "folder" / "lock")
    assert first.is_held
    first.release()
    assert not first.is_held
    second = LockFile(tmp_path / "folder" / "lock")
    second.remove()
    assert list((tmp_path / "folder").iterdir()) == []


def test_the_lock_of_a_build_that_died_is_no_lock(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "output"], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(OutputError, match=f"process {process.pid} on "):
            Staging(tmp_path / "output", overwrite=False)
        process.kill()
    staging = Staging(tmp_path / "output", overwrite=False)
    assert list(staging.path.iterdir()) == [], "without resume nothing is reused"
    staging.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_removed_meanwhile_is_taken_again(tmp_path, monkeypatch):
    """Between opening the file and locking it, the build that held it has ended and removed it."""
    lock_descriptor, file = module.lock_descriptor, tmp_path / ".output.staging" / "lock"

    def remove_and_lock(handle: int, *, blocking: bool) -> bool:
        monkeypatch.setattr(module, "lock_descriptor", lock_descriptor)
        file.unlink()
        return lock_descriptor(handle, blocking=blocking)

    monkeypatch.setattr(module, "lock_descriptor", remove_and_lock)
    staging = Staging(tmp_path / "output", overwrite=False)
    with pytest.raises(OutputError, match="another build"):
        Staging(tmp_path / "output", overwrite=False)
    staging.discard()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_refused(code, tmp_path, monkeypatch):
    def refuse(handle: int, *, blocking: bool) -> bool:
        raise OSError(code, "No locks available")

    monkeypatch.setattr(module, "lock_descriptor", refuse)
    with pytest.raises(
        OutputError, match=r"has no locks \(No locks available\)\.\nBuild on a local disk"
    ):
        Staging(tmp_path / "output", overwrite=False)


def test_nothing_needs_fcntl_to_be_imported():
    """Windows has none."""
    program = "import sys; sys.modules['fcntl'] = None; import gpu_dcgen.dataset_generator.builder"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)
