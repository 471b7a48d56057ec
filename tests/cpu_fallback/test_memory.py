"""The C library reuses what blocks free, while a build runs."""

from __future__ import annotations

import platform
import resource
import sys
import threading

import numpy as np
import pytest

from cpu_fallback.memory import retain_freed_memory

MB = 1 << 20


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


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="glibc has the options"
)
def test_freed_memory_is_used_again_while_it_is_retained():
    handed_back = count_page_faults()
    with retain_freed_memory():
        kept = count_page_faults()
    assert kept < handed_back / 3  # a third of thirty blocks at least would be seen
    assert count_page_faults() > 3 * kept
