"""The C library reuses what blocks free, while a build runs."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from cpu_fallback.memory import retain_freed_memory

MB = 1 << 20
ROOT = Path(__file__).parents[2]


def count_page_faults() -> int:
    """Count pages that are asked for while a thread makes and frees the arrays of some blocks."""

    def work() -> None:
        for _ in range(30):
            arrays = [np.ones(n_bytes, np.int8) for n_bytes in (8 * MB, 24 * MB, 20 * MB)]
            del arrays

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def measure() -> tuple[int, int, int]:
    """Count them before, while and after freed memory is retained."""
    before = count_page_faults()
    with retain_freed_memory():
        retained = count_page_faults()
    return before, retained, count_page_faults()


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="glibc has the options"
)
def test_freed_memory_is_used_again_while_it_is_retained():
    """In a process of its own: other tests leave its heaps in pieces."""
    code = f"from {__name__} import measure; print(*measure())"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    before, retained, after = map(int, run.stdout.split())
    assert retained < before / 3  # a third of thirty blocks at least would be seen
    assert after > 3 * retained
