"""Compiled kernels are kept between processes, and never outlive a change of anything they were
compiled from.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], {root!r}]
from cpu_fallback import kernel_cache
kernel_cache.watch(Path(sys.argv[1]))
import kernel
print(kernel.twice(3), sum(kernel.twice.stats.cache_hits.values()))
""".format(root=str(Path(__file__).parents[2]))
KERNEL = (
    "import numba\nimport helper\n@numba.njit(cache=True)\ndef twice(x):\n    return "
    "helper.times_two(x)\n"
)
HELPER = "import numba\n@numba.njit(cache=True)\ndef times_two(x):\n    return x * 2\n"


@pytest.fixture
def run(tmp_path):
    """Runs kernel.py beside helper.py in a process of its own; what it answers, and whether it was
    compiled before.
    """
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "kernel.py").write_text(KERNEL)
    (folder / "helper.py").write_text(HELPER)

    def answer(**environment: str) -> tuple[int, int]:
        command = [sys.executable, "-W", "error", "-c", PROGRAM, str(folder)]
        told = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
        done = subprocess.run(
            command, env=told, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        value, hits = done.stdout.split()
        return int(value), int(hits)

    answer.folder = folder
    return answer


def test_a_change_of_a_helper_in_another_file_compiles_its_kernels_anew(run):
    assert run() == (6, 0)
    assert run() == (6, 1)
    helper = run.folder / "helper.py"
    stamp = helper.stat()
    helper.write_text(HELPER.replace("* 2", "* 5"))
    os.utime(helper, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert run() == (15, 0)
    assert run() == (15, 1)


def test_a_folder_that_was_asked_for_is_used(run, tmp_path):
    chosen = {"NUMBA_CACHE_DIR": str(tmp_path / "chosen")}
    assert run(**chosen) == (6, 0)
    assert run(**chosen) == (6, 1)
    assert list((tmp_path / "chosen").rglob("*.nbi")) and not list(run.folder.rglob("*.nbi"))


def test_without_any_writable_folder_kernels_are_compiled_each_time(run, tmp_path):
    (run.folder / "__pycache__").write_text("a file where the folder would be")
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder would be")
    places = {
        "HOME": str(blocked),
        "XDG_CACHE_HOME": str(blocked),
        "TMPDIR": str(tmp_path / "temporary"),
    }
    (tmp_path / "temporary").mkdir()
    assert run(**places) == (6, 0)
    assert run(**places) == (6, 0)
    assert not list((tmp_path / "temporary").iterdir())
    shutil.rmtree(tmp_path / "temporary")
