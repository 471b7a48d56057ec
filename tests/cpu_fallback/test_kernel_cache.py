"""Compiled kernels are cached between processes until any of their sources changes."""

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
from numba.core import caching
sys.path[:0] = [sys.argv[1], {root!r}]
original = dict(vars(caching))
exec(sys.argv[2])
from cpu_fallback import kernel_cache
vars(caching).update(original)  # numba imports them later on
kernel_cache.watch(Path(sys.argv[1]))
import kernel
print(kernel.twice(3), sum(kernel.twice.stats.cache_hits.values()))
""".format(root=str(Path(__file__).parents[2]))
KERNEL = """
import numba
import helper

@numba.njit(cache=True)
def twice(x):
    return helper.times_two(x)
"""
HELPER = """
import numba

@numba.njit(cache=True)
def times_two(x):
    return x * 2
"""
# Other insides of numba than those that `kernel_cache` expects.
OTHER_INSIDES = {
    "no FunctionCache": "del caching.FunctionCache",
    "no implementation": "caching.FunctionCache = type('FunctionCache', (), {})",
    "no base of locators": "del caching._CacheLocator",
    "a tuple of locators": (
        "implementation = caching.FunctionCache._impl_class\n"
        "implementation._locator_classes = tuple(implementation._locator_classes)"
    ),
    "a locator with another method": (
        "caching._CacheLocator = type('_CacheLocator', (caching._CacheLocator,), "
        "{'get_other_stamp': caching.abstractmethod(lambda self: None)})"
    ),
}


@pytest.fixture
def run(tmp_path):
    """Runs kernel.py beside helper.py in a process of its own.

    Returns its result and the number of functions that came from the cache. `preparation` is run
    before `cpu_fallback` is imported; `run.errors` is what the process wrote to stderr.
    """
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "kernel.py").write_text(KERNEL)
    (folder / "helper.py").write_text(HELPER)

    def answer(preparation: str = "", warnings: str = "error", **changes: str) -> tuple[int, int]:
        command = [sys.executable, "-W", warnings, "-c", PROGRAM, str(folder), preparation]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **changes}
        process = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert process.returncode == 0, process.stderr
        answer.errors = process.stderr
        value, n_hits = process.stdout.split()
        return int(value), int(n_hits)

    answer.folder = folder
    return answer


def test_a_change_of_a_helper_in_another_file_recompiles_its_kernels(run):
    assert run() == (6, 0)
    assert run() == (6, 1)
    helper = run.folder / "helper.py"
    before = helper.stat()
    helper.write_text(HELPER.replace("* 2", "* 5"))
    os.utime(helper, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run() == (15, 0)
    assert run() == (15, 1)


def test_a_type_that_is_gone_does_not_matter(run):
    """The index of an earlier version names the types of its arguments; it is removed."""
    kernel = run.folder / "kernel.py"
    named = KERNEL.replace("helper.times_two(x)", "helper.times_two(pair.left)").replace(
        "def twice(x):",
        "def times(pair):",
    )
    named += """
from typing import NamedTuple

class Pair(NamedTuple):
    left: int

def twice(x):
    return times(Pair(x))

twice.stats = times.stats
"""
    kernel.write_text(named)
    assert run() == (6, 0)
    assert run() == (6, 1)
    earlier = set(run.folder.rglob("*.nbi"))
    kernel.write_text(named.replace("Pair", "Single"))
    assert run() == (6, 0)
    assert run() == (6, 1)
    assert len(earlier) == len(set(run.folder.rglob("*.nbi"))) == 2
    assert not earlier & set(run.folder.rglob("*.nbi"))


@pytest.mark.parametrize("change", OTHER_INSIDES.values(), ids=OTHER_INSIDES)
def test_with_other_insides_of_numba_its_own_cache_is_used_after_one_warning(run, change):
    assert run(change, "always::RuntimeWarning") == (6, 0)
    assert run.errors.count("RuntimeWarning") == 1
    assert "its own cache is used" in run.errors and "delete *.nbi" in run.errors
    assert run(change, "always::RuntimeWarning") == (6, 1)
    assert list(run.folder.rglob("*.nbi"))


def test_a_configured_folder_is_used(run, tmp_path):
    chosen = {"NUMBA_CACHE_DIR": str(tmp_path / "chosen")}
    assert run(**chosen) == (6, 0)
    assert run(**chosen) == (6, 1)
    assert list((tmp_path / "chosen").rglob("*.nbi")) and not list(run.folder.rglob("*.nbi"))


def test_without_any_writable_folder_kernels_are_compiled_each_time(run, tmp_path):
    (run.folder / "__pycache__").write_text("a file where the folder would be")
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder would be")
    folders = {
        "HOME": str(blocked),
        "XDG_CACHE_HOME": str(blocked),
        "TMPDIR": str(tmp_path / "temporary"),
    }
    (tmp_path / "temporary").mkdir()
    assert run(**folders) == (6, 0)
    assert run(**folders) == (6, 0)
    assert not list((tmp_path / "temporary").iterdir())
    shutil.rmtree(tmp_path / "temporary")
