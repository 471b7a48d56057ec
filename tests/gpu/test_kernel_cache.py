"""Machine code of kernels is kept between processes, until any of their sources changes.

numba-cuda compiles with NVVM and links for a device that is not there; only its driver is replaced.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None,
    reason="numba-cuda is not installed (pip install 'gpu-dcgen[test-cuda]'; no GPU is needed)",
)
ROOT = Path(__file__).parents[2]
PROGRAM = """
import hashlib, sys, types
from pathlib import Path
import numpy as np
from numba.cuda import dispatcher
from numba.cuda.core import caching
from numba.cuda.cudadrv import devices
exec(sys.argv[2])
device = types.SimpleNamespace(compute_capability=(9, 0), id=0)
dispatcher.get_current_device = lambda: device
devices.get_context = lambda: types.SimpleNamespace(device=device)
dispatcher._Kernel.bind = lambda kernel: kernel._codelibrary.get_cubin(cc=(9, 0))
from cpu_fallback import kernel_cache
folder = Path(sys.argv[1])
kernel_cache._cache_folder = lambda sources: folder / "cache" / sources.name
kernel_cache.watch(folder / "helper.py")  # before the kernels, as what they call
from gpu_dcgen.kernels import rng, rows
from gpu_dcgen.kernels.pairs import ItemVectors, score_pairs
from gpu_dcgen.backend.gpu import launch, similarity
from tests.gpu.host_kernels import _type_of
from tests.gpu.test_compilation import similarity_arguments

long, narrow = np.zeros(1, np.int64), np.zeros(1, np.int32)
codes, bits, reals = np.zeros((1, 1), np.int32), np.zeros(1, np.uint64), np.zeros(1)
vectors = ItemVectors(long, narrow, narrow, reals)
scores = np.zeros((1, 1), np.float32)
kernels = [
    (launch.build_grid(rows.add_rows), tuple(map(_type_of, (1, bits, bits, 1, bits)))),
    (
        launch.build_grid(score_pairs),
        tuple(map(_type_of, (1, narrow, codes, vectors, 2, scores, codes))),
    ),
    (similarity.find_neighbors, similarity_arguments()),
]
for grid, arguments in kernels:
    cubin = grid.compile(arguments)._codelibrary.get_cubin(cc=(9, 0)).code
    hits, misses = (sum(n.values()) for n in (grid.stats.cache_hits, grid.stats.cache_misses))
    print(grid.__name__, hits, misses, hashlib.sha256(cubin).hexdigest())
"""
NAMES = ["add_rows_grid", "score_pairs_grid", "find_neighbors"]


@pytest.fixture
def run(tmp_path):
    """Compiles three kernels in a process; returns hits, misses and machine code of each."""
    (tmp_path / "helper.py").write_text("x = 1\n")

    def compile_kernels(preparation: str = "", warnings: str = "default") -> list[tuple]:
        command = [sys.executable, "-W", warnings, "-c", PROGRAM, str(tmp_path), preparation]
        process = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert process.returncode == 0, process.stderr
        compile_kernels.errors = process.stderr
        lines = [line.split() for line in process.stdout.splitlines()]
        assert [line[0] for line in lines] == NAMES
        return [(int(hits), int(misses), code) for _, hits, misses, code in lines]

    return compile_kernels


def test_kernels_are_compiled_once_until_a_source_changes(run, tmp_path):
    first = run()
    assert [counts[:2] for counts in first] == [(0, 1)] * 3
    second = run()
    assert [counts[:2] for counts in second] == [(1, 0)] * 3
    assert [code for *_, code in second] == [code for *_, code in first]
    helper = tmp_path / "helper.py"
    before = helper.stat()
    helper.write_text("x = 2\n")
    os.utime(helper, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [counts[:2] for counts in run()] == [(0, 1)] * 3


def test_with_other_insides_of_numba_cuda_nothing_is_cached_and_that_is_told(run, tmp_path):
    change = "caching.CacheImpl._locator_classes = tuple(caching.CacheImpl._locator_classes)"
    for _ in range(2):
        assert [counts[:2] for counts in run(change)] == [(0, 1)] * 3
        assert run.errors.count("RuntimeWarning") == 1
        assert "each process compiles them again" in run.errors
    assert not list(tmp_path.rglob("*.nbi"))
