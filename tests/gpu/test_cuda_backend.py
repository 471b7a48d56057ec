"""The GPU backend as far as RAPIDS without a device shows it: it speaks the protocol, and what it
calls is there.
"""

from __future__ import annotations

import inspect
import types

import numpy as np
import pytest

from gpu_dcgen.backend.protocol import Backend
from tests.test_architecture import parameters, protocol_methods

pytest.importorskip("pylibcudf", reason="RAPIDS is not installed: the backend is not checked")
cupy = pytest.importorskip("cupy")

from gpu_dcgen.backend.gpu import cuda_backend  # noqa: E402  it imports RAPIDS


class Memory:
    """So many bytes are free."""

    budget = 1 << 34

    def __init__(self, free: int) -> None:
        self._free = free

    def free(self) -> int:
        return self._free


@pytest.fixture
def backend():
    """The backend without a device: 132 multiprocessors, and memory that is only counted."""
    device = type("Device", (), {"n_multiprocessors": 132})
    return cuda_backend.CudaBackend(device, Memory(64 << 30))


def test_it_spells_the_protocol(backend):
    methods = protocol_methods()
    spelled = {name: parameters(getattr(cuda_backend.CudaBackend, name)) for name in methods}
    assert spelled == methods
    assert not [name for name in Backend.__annotations__ if not hasattr(backend, name)]


def test_its_memory_calls_are_rmms():
    import rmm
    from rmm.allocators.cupy import rmm_cupy_allocator

    stubs = (
        rmm.mr.LimitingResourceAdaptor,
        rmm.mr.StatisticsResourceAdaptor,
        rmm.mr.CudaAsyncMemoryResource,
    )
    assert all(issubclass(stub, rmm.mr.DeviceMemoryResource) for stub in stubs)
    assert callable(rmm.mr.LimitingResourceAdaptor.get_allocated_bytes)
    assert callable(rmm.mr.StatisticsResourceAdaptor.push_counters)
    assert callable(rmm.mr.available_device_memory) and callable(rmm.mr.set_current_device_resource)
    assert {"current_bytes", "peak_bytes"} <= set(rmm.statistics.Statistics.__annotations__)
    assert list(inspect.signature(rmm_cupy_allocator).parameters) == ["nbytes"]
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)


def test_little_grids_do_not_warn():
    from numba.cuda import config

    assert config.CUDA_LOW_OCCUPANCY_WARNINGS == 0  # cuda_backend sets it


def test_arrays_are_handed_to_numba_without_waiting(monkeypatch):
    from numba import cuda

    class OnDevice:
        """An array that nobody reads."""

    signature = inspect.signature(cuda.as_cuda_array)
    monkeypatch.setattr(cupy, "ndarray", OnDevice)
    monkeypatch.setattr(cuda, "as_cuda_array", lambda *a, **k: signature.bind(*a, **k).arguments)
    array = OnDevice()
    assert cuda_backend._as_argument(array) == {"obj": array, "sync": False}
    assert cuda_backend._as_argument(3) == 3


@pytest.mark.parametrize("free_gib", [80, 16, 4, 1])
def test_scratch_and_blocks_fit_into_what_is_free(free_gib, backend):
    free = free_gib << 30
    backend._memory = Memory(free)
    lane_bytes, entry_bytes = 236_000, 36_000  # as at H&M's size
    lanes = backend.count_lanes(lane_bytes, 10**6)
    assert lanes % cuda_backend.launch.BLOCK_THREADS == 0 and 128 <= lanes <= 132 * 512
    assert lanes * lane_bytes <= free / 4
    assert 1 <= backend.choose_block_size(10_000, entry_bytes) <= 1 << 18
    assert backend.choose_block_size(10_000, entry_bytes) * entry_bytes <= free / 4


def test_one_block_of_lanes_is_the_least(backend):
    backend._memory = Memory(0)
    assert backend.count_lanes(1 << 20, 10**6) == cuda_backend.launch.BLOCK_THREADS
    assert backend.choose_block_size(10_000, 1 << 20) == 1


@pytest.mark.parametrize(("n_rows", "lanes"), [(0, 128), (1, 128), (200, 256), (10**6, 132 * 512)])
def test_there_are_no_more_lanes_than_rows_in_whole_blocks(n_rows, lanes, backend):
    assert backend.count_lanes(1000, n_rows) == lanes


@pytest.mark.parametrize(("free_gib", "n_blocks"), [(80, 132 * 3), (1, 1 << 7)])
def test_similarity_has_scratch_for_the_blocks_that_run_side_by_side(
    free_gib, n_blocks, backend, monkeypatch
):
    """Three a multiprocessor (`test_compilation` counts their registers), if memory suffices."""
    asked = []
    monkeypatch.setattr(
        cuda_backend.similarity, "find_similar_items", lambda grid, *_: asked.append(grid.n_blocks)
    )
    backend._memory = Memory(free_gib << 30)
    n_items = 1 << 16
    matrix = types.SimpleNamespace(norms=np.zeros(n_items), packed=True)
    backend.find_similar_items(0, n_items, matrix, min_common_users=1, top_k=100)
    assert asked == [n_blocks]


def test_recovering_counts(backend):
    backend._memory.peak = lambda: 5
    backend.release_memory()
    assert backend.memory_usage() == {"peak_bytes": 5, "n_out_of_memory": 1}
