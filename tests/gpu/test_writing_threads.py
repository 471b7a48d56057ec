"""Two threads prepare and write the blocks of a GPU in turns; the content is the same."""

from __future__ import annotations

import threading
import time

import pytest

import gpu_dcgen.backend.gpu
from gpu_dcgen.backend.gpu import launch
from gpu_dcgen.backend.gpu.parquet import N_WRITING_THREADS
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import GateError
from tests.gpu.expected_digests import digest_files
from tests.gpu.machines import StrictRapidsBackend
from tests.support import libcudf_stand_in
from tests.support.shops import random_shop, tiny_config, write_shop

CONFIG = tiny_config(output={"groups_per_part": 16}, resources={"batch_size": 8})


@pytest.fixture
def machine(monkeypatch):
    """A stand-in for a device with RAPIDS, with the threads of the GPU's backend."""
    monkeypatch.setattr(gpu_dcgen.backend.gpu, "libcudf", libcudf_stand_in, raising=False)
    backend = StrictRapidsBackend()
    backend.n_threads = N_WRITING_THREADS
    return backend


@pytest.fixture
def tables(tmp_path):
    return write_shop(random_shop(4, n_users=30, n_items=30, n_rows=700), tmp_path / "input")


def is_of_samples() -> bool:
    return threading.current_thread().name.startswith("samples_")


def watch_writers(monkeypatch, write) -> None:
    """Let `write(columns)` stand before each row group that libcudf's stand-in writes."""
    write_columns = libcudf_stand_in.RowGroupWriter.write
    monkeypatch.setattr(
        libcudf_stand_in.RowGroupWriter,
        "write",
        lambda writer, columns: (write(columns), write_columns(writer, columns)),
    )


def test_while_libcudf_writes_the_other_thread_launches_kernels(
    machine, tables, tmp_path, monkeypatch
):
    for_each, drawing = machine.single_threaded().for_each, threading.Event()
    writing: list[int] = []
    overlaps: list[bool] = []

    def draw(kernel, n, *arrays, lanes=1):
        if writing and is_of_samples() and threading.get_ident() != writing[0]:
            drawing.set()
        for_each(kernel, n, *arrays, lanes=lanes)

    def write(columns):
        if is_of_samples() and not writing:
            writing.append(threading.get_ident())
            overlaps.append(drawing.wait(30))

    machine.for_each = draw
    machine.single_threaded = lambda: machine
    watch_writers(monkeypatch, write)
    manifest = build(tables, tmp_path / "gpu", CONFIG, backend=machine).manifest
    assert overlaps[0]
    expected = build(tables, tmp_path / "cpu", CONFIG, backend="cpu").manifest
    assert manifest.digests == expected.digests
    assert digest_files(tmp_path / "gpu", expected.digests) == expected.digests


def test_an_error_of_one_thread_ends_the_build(machine, tables, tmp_path, monkeypatch):
    written: list[int] = []

    def write(columns):
        written.append(1)
        if len(written) == 3:
            raise GateError("planted")

    watch_writers(monkeypatch, write)
    with pytest.raises(GateError, match="planted"):
        build(tables, tmp_path / "gpu", CONFIG, backend=machine)
    assert not (tmp_path / "gpu").exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("samples")]


def test_kernels_are_compiled_and_launched_by_one_thread_at_a_time(monkeypatch):
    inside: list[int] = []
    most: list[int] = []

    class Grid:
        def __getitem__(self, shape):
            return self._launch

        def _launch(self, *arguments):
            inside.append(1)
            time.sleep(0.01)  # another thread would come in
            most.append(len(inside))
            inside.pop()

    monkeypatch.setattr(launch, "build_grid", lambda kernel: Grid())
    kernel = type("Kernel", (), {"scratch": False})()
    threads = [
        threading.Thread(target=launch.run, args=(kernel, 5), kwargs={"lanes": 1}) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]
