"""Large arrays are in mappings that are used again, and in files beyond a limit."""

from __future__ import annotations

import contextvars
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

from cpu_fallback import NumpyBackend, large_arrays, mappings
from cpu_fallback.large_arrays import LargeArrays, find_large_arrays
from cpu_fallback.mappings import LARGE_BYTES

LARGE = find_large_arrays() if sys.platform == "linux" else None
pytestmark = pytest.mark.skipif(LARGE is None, reason="large arrays are those of Linux")
MB = 1 << 20


def files_of_mappings(folder: Path) -> int:
    """Bytes of mapped files of a folder, as the kernel lists them."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines if str(folder) in line]
    return sum(int(end, 16) - int(start, 16) for start, end in ranges)


def test_beyond_the_limit_arrays_are_files_without_a_name(tmp_path):
    with LARGE.open(tmp_path, 10 * MB):
        within = np.arange(MB)  # 8 MB
        assert files_of_mappings(tmp_path) == 0
        beyond = within + 1
        assert 8 * MB <= files_of_mappings(tmp_path) <= 9 * MB
        assert not list(tmp_path.iterdir())
        assert beyond[-1] == MB and LARGE.file_bytes >= 8 * MB
    assert beyond.sum() == MB * (MB + 1) // 2  # it outlives the context
    del within, beyond
    LARGE.release_spare()
    assert files_of_mappings(tmp_path) == 0


def test_a_freed_mapping_serves_the_next_array(tmp_path):
    with LARGE.open(tmp_path, 1 << 40):
        first = np.full(MB, 7)
        address = first.ctypes.data
        del first
        second = np.empty(MB - 1000)
        assert second.ctypes.data == address
        other = np.empty(MB)  # while that is in use
        assert other.ctypes.data != address
        del second
        cleared = np.zeros(MB)
        assert cleared.ctypes.data == address and not cleared.any()


def test_spare_mappings_do_not_raise_the_peak(tmp_path):
    with LARGE.open(tmp_path, 1 << 40):
        before = LARGE.memory_bytes
        for size in range(1, 12):  # each too small for the next
            array = np.ones(size * MB)
            del array
        live, spare = LARGE._state[[mappings.LIVE, mappings.SPARE]]
        assert live + spare <= LARGE.memory_bytes <= before + 11 * 8 * MB + MB


def save_in(folder: Path, *arrays: np.ndarray) -> Path:
    """A file with the arrays' bytes, each at the beginning of a page; they are mapped to it."""
    path, backend = folder / "saved", NumpyBackend(1)
    backend._large_arrays = LARGE
    with open(path, "w+b") as file:
        for array in arrays:
            start = file.tell() + -file.tell() % 4096
            file.seek(start)
            file.write(array.tobytes())
            file.flush()
            backend.map_saved([(array, start)], file.fileno())
    return path


def test_a_saved_array_is_in_memory_until_another_needs_that(tmp_path):
    with LARGE.open(tmp_path, 20 * MB):
        first, second = np.arange(MB), np.arange(MB) + 1  # 8 MB each
        path = save_in(tmp_path, first, second)
        assert files_of_mappings(path) == 0
        third = first + 2
        assert files_of_mappings(tmp_path) == files_of_mappings(path) == 8 * MB
        assert LARGE.n_mapped == 1 and LARGE.file_bytes == 0
        backend = NumpyBackend(1)
        backend._large_arrays, backend._memory.peak_bytes = LARGE, 12345
        assert backend.memory_usage()["peak_bytes"] == 12345  # not with pages of files
        fourth = first + 3
        assert files_of_mappings(tmp_path) == files_of_mappings(path) == 16 * MB
        fifth = first + 4  # nothing more can make room
        assert files_of_mappings(path) == 16 * MB < files_of_mappings(tmp_path)
        for array, plus in ((first, 0), (second, 1), (third, 2), (fourth, 3), (fifth, 4)):
            assert np.array_equal(array, np.arange(MB) + plus)
        second[5] = 7  # the file does not see it
        assert np.fromfile(path, np.int64)[MB + 5] == 6
    del first, second, array
    LARGE.release_spare()
    assert files_of_mappings(path) == 0


def test_the_last_array_of_a_file_makes_room_first(tmp_path):
    with LARGE.open(tmp_path, 20 * MB):
        first, second = np.arange(MB), np.arange(MB)  # 8 MB each
        path, backend = tmp_path / "saved", NumpyBackend(1)
        backend._large_arrays = LARGE
        with open(path, "w+b") as file:
            file.write(first.tobytes() + second.tobytes())
            file.flush()
            backend.map_saved([(first, 0), (second, first.nbytes)], file.fileno())
        third = np.zeros(MB)
        (line,) = [
            line for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line
        ]
        assert int(line.split("-")[0], 16) == second.ctypes.data
    del first, second, third


def test_saved_arrays_stay_where_all_of_them_would_not_suffice(tmp_path):
    with LARGE.open(tmp_path, 20 * MB):
        first, second = np.arange(MB), np.arange(MB)  # 8 MB each
        path = save_in(tmp_path, first)
        large = np.ones(3 * MB)
        assert files_of_mappings(path) == 0 and large.sum() == 3 * MB
        assert second[-1] == MB - 1


def test_an_array_that_grows_has_no_saved_bytes(tmp_path):
    with LARGE.open(tmp_path, 20 * MB):
        array = np.arange(MB)
        path = save_in(tmp_path, array)
        array.resize(MB // 2, refcheck=False)
        array.resize(MB, refcheck=False)
        array[:] = 7
        others = [np.arange(MB) for _ in range(2)]  # which need its memory
        assert files_of_mappings(path) == 0 and (array == 7).all() and others[1][5] == 5


def test_room_for_blocks_comes_from_saved_arrays(tmp_path):
    backend = NumpyBackend(1)
    with backend.hold_arrays(tmp_path, 1 << 40):
        arrays = [np.ones(2 * MB) for _ in range(3)]  # 16 MB each
        path = save_in(tmp_path, *arrays[:2])
        backend._held_bytes = backend._memory.measure() + 12 * MB
        assert backend.choose_block_size(MB, 8) == MB  # 8 MB of half of the memory that is left
        assert files_of_mappings(path) == 16 * MB
        backend._memory_limit = backend._held_bytes
        assert backend.choose_block_size(8 * MB, 8) < 8 * MB
        assert files_of_mappings(path) == 32 * MB
        assert all(array.sum() == 2 * MB for array in arrays)


def test_an_array_that_is_a_file_gets_the_pages_of_the_one_it_was_saved_to(tmp_path):
    with LARGE.open(tmp_path, 0):
        array = np.arange(MB)
        path = save_in(tmp_path, array)
        assert files_of_mappings(path) == 8 * MB
        assert files_of_mappings(tmp_path) < 9 * MB  # that without a name is gone, but for its end
        assert np.array_equal(array, np.arange(MB))


def test_files_of_saved_arrays_are_closed(tmp_path):
    n_open = len(os.listdir("/proc/self/fd"))
    with LARGE.open(tmp_path, 1 << 40):
        kept, freed, small = np.arange(MB), np.arange(MB), np.arange(10)
        save_in(tmp_path, kept, freed, small, kept)
        assert len(os.listdir("/proc/self/fd")) == n_open + 2
        del freed
        assert len(os.listdir("/proc/self/fd")) == n_open + 1
    assert len(os.listdir("/proc/self/fd")) == n_open and kept[-1] == MB - 1


def test_what_lies_behind_a_saved_array_stays(tmp_path):
    """A result may be the beginning of a larger array."""
    with LARGE.open(tmp_path, 0):
        whole = np.arange(2 * MB)
        begin, end = whole[: MB + 5], whole[MB + 5 :]
        path = save_in(tmp_path, end, begin)
        assert files_of_mappings(path) == 8 * MB  # the pages that lie within it
        assert np.array_equal(whole, np.arange(2 * MB))
        end[:] = 3
        assert begin[-1] == MB + 4 and end.sum() == 3 * (MB - 5)


def test_the_disk_of_a_file_is_free_once_its_array_was_saved(tmp_path):
    with LARGE.open(tmp_path, 0):
        array = np.arange(8 * MB + 5)

        def used_bytes() -> int:
            ranges = [
                line.split()[0]
                for line in Path("/proc/self/maps").read_text().splitlines()
                if str(tmp_path / "large-array") in line
            ]
            return sum(os.stat(f"/proc/self/map_files/{text}").st_blocks * 512 for text in ranges)

        try:
            assert used_bytes() >= 64 * MB
        except PermissionError:
            pytest.skip("the kernel shows mapped files to administrators alone")
        save_in(tmp_path, array)
        assert used_bytes() <= 2 * MB  # what lies behind the array
        assert array[-1] == 8 * MB + 4


def test_small_arrays_and_other_threads_are_numpys(tmp_path):
    name = LARGE._handler_name
    with LARGE.open(tmp_path, 0):
        assert name(np.empty(3)) == large_arrays._HANDLER_NAME.decode()
        assert contextvars.Context().run(lambda: name(np.empty(MB))) == "default_allocator"
        small = [np.full(LARGE_BYTES // 16, n, np.int64) for n in range(20)]
        assert files_of_mappings(tmp_path) == 0 and [array[-1] for array in small] == [*range(20)]
    assert name(np.empty(3)) == "default_allocator"


def test_arrays_that_grow_and_shrink_keep_their_values(tmp_path):
    with LARGE.open(tmp_path, 10 * MB):
        for n in (10, MB, 3 * MB, MB // 2, 5):
            array = np.arange(MB // 2)
            array.resize(n, refcheck=False)
            kept = min(n, MB // 2)
            assert np.array_equal(array[:kept], np.arange(kept)) and not array[kept:].any()
        read = np.fromiter(iter(range(500_000)), np.int64)  # reallocates as it goes
        assert np.array_equal(read, np.arange(500_000))


def test_more_arrays_than_places_are_numpys(tmp_path, monkeypatch):
    with LARGE.open(tmp_path, 1 << 40):
        arrays = [np.empty(LARGE_BYTES, np.int8) for _ in range(mappings.N_PLACES + 10)]
        for number, array in enumerate(arrays):
            array[-1] = number % 100
        assert [array[-1] for array in arrays] == [n % 100 for n in range(len(arrays))]
    del arrays, array
    gc.collect()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from cpu_fallback import NumpyBackend
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
backend = NumpyBackend(1, memory_limit=1)
with backend.hold_arrays(Path(sys.argv[1]), 1 << 40):
    np.ones(1 << 20)
"""


def test_a_file_that_does_not_fit_is_out_of_memory_and_no_signal(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True
    )
    assert run.returncode == 1 and "Unable to allocate 8.00 MiB" in run.stderr, run.stderr


def test_a_full_disk_is_said_to_be_one(tmp_path, monkeypatch):
    backend = NumpyBackend(1, memory_limit=1)
    full = pytest.raises(OSError, match="No space left on device")
    with full as error, backend.hold_arrays(tmp_path, 1 << 40):
        LARGE._state[mappings.ERROR] = 28  # ENOSPC, as the system says
        raise MemoryError("planted")
    assert error.value.filename == str(tmp_path)
    with pytest.raises(MemoryError), backend.hold_arrays(tmp_path, 1 << 40):
        raise MemoryError("planted")


def test_pages_of_files_are_not_counted_as_memory(tmp_path):
    backend = NumpyBackend(1, memory_limit=1)
    before = backend._memory.measure()
    with backend.hold_arrays(tmp_path, 1 << 40):
        array = np.ones(12 * MB)
        assert backend._memory.measure() - before < 20 * MB
    assert array.sum() == 12 * MB
    assert backend.memory_usage()["peak_bytes"] - before < 40 * MB


def test_what_frees_arrays_is_never_freed():
    arrays = weakref.ref(LargeArrays())
    gc.collect()
    assert arrays() is not None


def test_where_numpy_is_another_arrays_are_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(large_arrays, "_SET_HANDLER", 0)
    monkeypatch.setattr(large_arrays, "LargeArrays", _refuse)
    find_large_arrays.cache_clear()
    warned = pytest.warns(RuntimeWarning, match="a memory limit bounds blocks only")
    with warned, NumpyBackend(1, memory_limit=1).hold_arrays(tmp_path, 1):
        assert LARGE._handler_name(np.empty(3)) == "default_allocator"
    find_large_arrays.cache_clear()


def _refuse():
    raise AttributeError("planted")
