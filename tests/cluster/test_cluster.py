"""Builds by many processes write the same bytes, also where workers die or hang.

The machines here are processes that communicate over TCP.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from cpu_fallback import PartWriter
from gpu_dcgen.config import dataset_config as settings
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import BackendError, MissingPackageError
from gpu_dcgen.monitoring.progress import ProgressTracker
from gpu_dcgen.outputs import part_writer
from tests.support.builds import RecordingTracker, build_and_hash, fail_at_call
from tests.support.dask_processes import (
    await_workers,
    hanging_worker,
    kill_at,
    scheduler,
    signal_at,
    worker,
)
from tests.support.shops import DatasetConfig, tiny_config

try:
    import distributed
except ImportError:
    distributed = None

needs_dask = pytest.mark.skipif(
    distributed is None,
    reason="distributed is not installed (pip install 'gpu-dcgen[distributed]')",
)
HANG_IN = {
    "similarity": ("gpu_dcgen.similarity_computer.exact", "split_on_out_of_memory"),
    "samples": ("gpu_dcgen.outputs.part_writer", "gather_groups"),
}


LOST_SCHEDULER = (
    "(?s)samples: the connection to the scheduler of the Dask cluster is lost"
    ".*rerun with resume=True to continue"
)


def distributed_config(**resources: Any) -> DatasetConfig:
    return tiny_config(resources={"distributed_processing": True, **resources})


def build_on(
    address: str, inputs: Path, tmp_path: Path, progress: ProgressTracker | None = None
) -> dict[str, str]:
    """Build on a cluster into the folder `output`, and hash its files."""
    config = distributed_config(scheduler=address)
    return build_and_hash(inputs, tmp_path / "output", config=config, progress=progress)


def cluster_entry(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "output" / "manifest.json").read_text())["cluster"]


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """A cluster of two workers, over TCP."""
    with ExitStack() as stack:
        scheduler_address, _ = stack.enter_context(scheduler(tmp_path_factory.mktemp("scheduler")))
        stack.enter_context(worker(scheduler_address))
        stack.enter_context(worker(scheduler_address))
        yield scheduler_address


@needs_dask
def test_two_processes_write_what_one_does(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "count_usable_cores", lambda: 2)
    straight, tracker = build_and_hash(inputs, tmp_path / "straight"), RecordingTracker()
    assert (
        build_and_hash(inputs, tmp_path / "output", config=distributed_config(), progress=tracker)
        == straight
    )
    entry = cluster_entry(tmp_path)
    assert (entry["workers"], entry["lost_workers"]) == (2, 0)
    assert len(entry["peak_bytes_by_worker"]) == 2
    assert any(text.startswith("cluster: 2 workers, 2 tasks at a time") for text in tracker.texts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input", "output", "straight"]


@needs_dask
def test_a_cluster_writes_what_one_process_does(address, inputs, tmp_path, monkeypatch):
    straight = build_and_hash(inputs, tmp_path / "straight")
    monkeypatch.setattr(part_writer, "gather_groups", None)  # this process makes no sample
    assert build_on(address, inputs, tmp_path) == straight


@needs_dask
@pytest.mark.parametrize("during", ["similarity", "samples"])
def test_the_tasks_of_a_killed_worker_are_run_again(during, address, inputs, tmp_path):
    straight, tracker = build_and_hash(inputs, tmp_path / "straight"), RecordingTracker()
    with hanging_worker(address, tmp_path, *HANG_IN[during]) as (process, marker):
        await_workers(address, 3)
        with kill_at(marker, process):
            assert build_on(address, inputs, tmp_path, tracker) == straight
    assert any(
        text.startswith(f"{during}: worker ") and "was lost" in text for text in tracker.texts
    )
    assert cluster_entry(tmp_path)["lost_workers"] == 1


@pytest.mark.slow
@needs_dask
@pytest.mark.parametrize("stopped", [False, True], ids=["hangs in its task", "stopped as a whole"])
@pytest.mark.parametrize("during", ["similarity", "samples"])
def test_the_tasks_of_a_hanging_worker_are_reassigned(
    during, stopped, address, inputs, tmp_path, monkeypatch
):
    monkeypatch.setattr("gpu_dcgen.cluster.executor._CHECK_INTERVAL_S", 0.1)
    # Long enough for the worker to hang by then, also on a busy machine.
    monkeypatch.setattr("gpu_dcgen.cluster.executor._REASSIGN_AFTER_S", 5.0)
    straight, tracker = build_and_hash(inputs, tmp_path / "straight"), RecordingTracker()
    before = await_workers(address, 2)
    with hanging_worker(address, tmp_path, *HANG_IN[during]) as (process, marker):
        (hanging,) = await_workers(address, 3) - before
        with signal_at(signal.SIGSTOP, marker, process) if stopped else nullcontext():
            assert build_on(address, inputs, tmp_path, tracker) == straight
        assert marker.exists()
    # Another worker that compiles its kernels first may take as long.
    assert any(
        text.startswith(f"{during}: worker {hanging} has not answered for ")
        for text in tracker.texts
    )
    cluster = cluster_entry(tmp_path)
    assert (cluster["slow_workers"] > 0, cluster["lost_workers"]) == (True, 0)


class Harm(RecordingTracker):
    """Sends a signal to a process after a stage, and waits."""

    def __init__(
        self, after: str, process: subprocess.Popen, number: signal.Signals, wait_s: float = 0.0
    ) -> None:
        super().__init__()
        self._after, self._process, self._number, self._wait_s = after, process, number, wait_s

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        with super().stage(name, total):
            yield
        if name == self._after:
            self._process.send_signal(self._number)
            time.sleep(self._wait_s)


@pytest.mark.slow
@needs_dask
@pytest.mark.parametrize("victim", ["worker", "scheduler"])
def test_a_worker_or_scheduler_that_fails_after_the_last_task_delays_nothing(
    victim, inputs, tmp_path
):
    straight = build_and_hash(inputs, tmp_path / "straight")
    with (
        scheduler(tmp_path) as (scheduler_address, head),
        worker(scheduler_address) as first,
        worker(scheduler_address),
    ):
        await_workers(scheduler_address, 2)
        harm = (
            Harm("samples", first, signal.SIGSTOP)
            if victim == "worker"
            else Harm("samples", head, signal.SIGKILL)
        )
        assert build_on(scheduler_address, inputs, tmp_path, harm) == straight


@pytest.mark.slow
@needs_dask
@pytest.mark.parametrize(
    "wait_s", [0, 8], ids=["just now", "so long ago that the client has given up"]
)
def test_a_scheduler_that_died_between_two_tasks_is_reported(wait_s, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_dcgen.cluster.connection.CONNECT_S", 4)
    with scheduler(tmp_path) as (scheduler_address, head), worker(scheduler_address):
        await_workers(scheduler_address, 1)
        harm = Harm("prepare", head, signal.SIGKILL, wait_s)
        with pytest.raises(
            BackendError,
            match=LOST_SCHEDULER,
        ):
            build_on(scheduler_address, inputs, tmp_path, harm)


@needs_dask
def test_a_worker_that_does_not_answer_before_the_build_is_named(
    address, inputs, tmp_path, monkeypatch
):
    monkeypatch.setattr("gpu_dcgen.cluster.executor.CONNECT_S", 5)
    before = await_workers(address, 2)
    with worker(address) as process:
        (stopped,) = await_workers(address, 3) - before
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(BackendError, match=f"no answer in 5 s from worker {stopped}\\."):
            build_on(address, inputs, tmp_path)


@needs_dask
def test_a_build_whose_scheduler_died_is_resumed(inputs, tmp_path, monkeypatch):
    straight = build_and_hash(inputs, tmp_path / "straight")
    n_files = sum(name.endswith(".parquet") and name != "rejects.parquet" for name in straight)
    with (
        scheduler(tmp_path) as (scheduler_address, process),
        hanging_worker(
            scheduler_address, tmp_path, "gpu_dcgen.outputs.part_writer", "gather_groups", at=7
        ) as (
            _,
            marker,
        ),
        kill_at(marker, process),
        pytest.raises(
            BackendError,
            match=LOST_SCHEDULER,
        ),
    ):
        build_on(scheduler_address, inputs, tmp_path)
    assert not (tmp_path / "output").exists()
    calls = fail_at_call(monkeypatch, PartWriter, "_finish", at=-1)
    assert build_and_hash(inputs, tmp_path / "output", resume=True) == straight
    assert 0 < len(calls) < n_files - 1, "parts that had come back were made again"


@needs_dask
def test_a_build_does_not_wait_forever_for_workers(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_dcgen.cluster.executor.CONNECT_S", 1)
    with (
        scheduler(tmp_path) as (scheduler_address, _),
        hanging_worker(
            scheduler_address, tmp_path, "gpu_dcgen.outputs.part_writer", "gather_groups"
        ) as (
            process,
            marker,
        ),
        kill_at(marker, process),
        pytest.raises(
            BackendError,
            match="(?s)samples: no worker is left, and none has joined in 1 s.*rerun with resume=",
        ),
    ):
        build_on(scheduler_address, inputs, tmp_path)
    assert (tmp_path / ".output.staging").is_dir()


@needs_dask
def test_an_address_where_nobody_answers_is_said_at_once(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_dcgen.cluster.connection.CONNECT_S", 1)
    with pytest.raises(BackendError, match="tcp://127.0.0.1:9: no Dask worker answers"):
        build(
            inputs,
            tmp_path / "output",
            distributed_config(scheduler="tcp://127.0.0.1:9"),
            backend="cpu",
        )
    assert not (tmp_path / "output").exists()


def test_without_dask_the_error_says_what_to_install(inputs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(
        MissingPackageError,
        match=r"needs distributed, which is not installed.\npip install 'gpu-dcgen\[d",
    ):
        build(inputs, tmp_path / "output", distributed_config(), backend="cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input"]


@needs_dask
def test_gpus_that_dask_cuda_does_not_find_are_an_error(inputs, tmp_path, monkeypatch):
    """Without NVML, dask-cuda raises before it looks for devices."""

    class NVMLError(Exception):
        pass

    def start(**options):
        raise NVMLError("Driver Not Loaded")

    monkeypatch.setitem(sys.modules, "dask_cuda", types.SimpleNamespace(LocalCUDACluster=start))
    config = distributed_config(scheduler="gpus")
    with pytest.raises(BackendError) as raised:
        build(inputs, tmp_path / "output", config, backend="cpu")
    assert str(raised.value).startswith(
        "gpus: dask-cuda cannot start workers on the GPUs of this machine (NVMLError: Driver Not "
        "Loaded).\n'gpu-dcgen doctor' shows"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input"]


def test_a_scheduler_asks_for_distributed_processing():
    with pytest.raises(ValueError, match="found scheduler .* without distributed_processing"):
        tiny_config(resources={"scheduler": "tcp://host:8786"})
