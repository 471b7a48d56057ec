"""Builds by many processes: the same bytes, whoever makes them and whoever dies (the machines here are processes over TCP)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from cpu_fallback import NumpyBackend, PartWriter
from gpu_dcgen import __version__
from gpu_dcgen.config import dataset_config as settings
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.errors import BackendError, MissingPackageError
from gpu_dcgen.outputs import part_writer
from gpu_dcgen.storage.checkpoints import Checkpoints
from tests.support.builds import RecordingTracker, build_and_hash, fail_at_call
from tests.support.command_line import run
from tests.support.shops import DatasetConfig, tiny_config

try:
    import distributed
except ImportError:
    distributed = None

needs_dask = pytest.mark.skipif(
    distributed is None,
    reason="distributed is not installed (pip install 'gpu-dcgen[distributed]')",
)
ROOT = Path(__file__).parents[2]
PATIENCE_S = 60
# What `dask worker --preload` runs: at its `at`-th call, `{name}` says so, and goes no further.
STUCK = """
import importlib, itertools, time
from pathlib import Path
def dask_setup(worker):
    owner, calls = importlib.import_module({module!r}), itertools.count(1)
    original = getattr(owner, {name!r})
    def stuck(*arguments, **options):
        if next(calls) == {at}:
            Path({marker!r}).touch()
            time.sleep({patience})
        return original(*arguments, **options)
    setattr(owner, {name!r}, stuck)
"""

STUCK_IN = {
    "similarity": ("gpu_dcgen.similarity_computer.exact", "split_on_out_of_memory"),
    "samples": ("gpu_dcgen.outputs.part_writer", "gather_groups"),
}


def shared_out(**resources: Any) -> DatasetConfig:
    return tiny_config(resources={"distributed_processing": True, **resources})


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen]:
    """A `dask` process of its own, killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *command],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(happened: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < end, f"{what}: not in {PATIENCE_S} s"
        time.sleep(0.02)


@contextmanager
def scheduler(folder: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """A scheduler of its own process on 127.0.0.1, and its address."""
    file = folder / "scheduler.json"
    command = (
        "scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
        "--scheduler-file",
        str(file),
    )
    with running(*command) as process:
        until(
            lambda: file.exists() and file.stat().st_size, "the scheduler's file"
        )  # it is there before it is written
        yield json.loads(file.read_text())["address"], process


def worker(address: str, *options: str) -> Any:
    return running("worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard", *options)


@contextmanager
def stuck_worker(
    address: str, folder: Path, module: str, name: str, at: int = 1
) -> Iterator[tuple[subprocess.Popen, Path]]:
    """A worker that goes no further than the `at`-th call of a function; and the file that says it is there."""
    marker, script = folder / "marker", folder / "stuck.py"
    script.write_text(
        STUCK.format(module=module, name=name, at=at, marker=str(marker), patience=PATIENCE_S)
    )
    with worker(address, "--preload", str(script)) as process:
        yield process, marker


@contextmanager
def sent(number: signal.Signals, marker: Path, process: subprocess.Popen) -> Iterator[None]:
    """Send a process a signal when the marker appears."""

    def send() -> None:
        until(marker.exists, "the marker")
        process.send_signal(number)

    thread = Thread(target=send)
    thread.start()
    yield
    thread.join()


@contextmanager
def killed_at(marker: Path, process: subprocess.Popen) -> Iterator[None]:
    """Kill a process, as for want of memory, when the marker appears."""
    with sent(signal.SIGKILL, marker, process):
        yield
    assert process.wait() == -signal.SIGKILL


def await_workers(address: str, number: int) -> set[str]:
    """The addresses of a cluster's workers, when it has that many."""
    with distributed.Client(address, set_as_default=False) as client:
        until(lambda: len(client.nthreads()) == number, f"{number} workers")
        return set(client.nthreads())


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """A cluster of two workers, over TCP."""
    with ExitStack() as opened:
        found, _ = opened.enter_context(scheduler(tmp_path_factory.mktemp("scheduler")))
        opened.enter_context(worker(found))
        opened.enter_context(worker(found))
        yield found


@needs_dask
def test_two_processes_write_what_one_does(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "count_usable_cores", lambda: 2)
    straight, tracker = build_and_hash(inputs, tmp_path / "straight"), RecordingTracker()
    assert (
        build_and_hash(inputs, tmp_path / "output", config=shared_out(), progress=tracker)
        == straight
    )
    entry = json.loads((tmp_path / "output" / "manifest.json").read_text())["cluster"]
    assert (entry["workers"], entry["lost_workers"], len(entry["peak_bytes_by_worker"])) == (
        2,
        0,
        2,
    )
    assert any(text.startswith("cluster: 2 workers, 2 tasks at a time") for text in tracker.texts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input", "output", "straight"]


@needs_dask
def test_a_cluster_writes_what_one_process_does(address, inputs, tmp_path, monkeypatch):
    straight = build_and_hash(inputs, tmp_path / "straight")
    monkeypatch.setattr(part_writer, "gather_groups", None)  # this process makes no sample
    assert (
        build_and_hash(inputs, tmp_path / "output", config=shared_out(scheduler=address))
        == straight
    )


@needs_dask
@pytest.mark.parametrize("during", ["similarity", "samples"])
def test_what_a_killed_worker_was_making_is_made_again(during, address, inputs, tmp_path):
    straight, tracker = build_and_hash(inputs, tmp_path / "straight"), RecordingTracker()
    with stuck_worker(address, tmp_path, *STUCK_IN[during]) as (process, marker):
        await_workers(address, 3)
        with killed_at(marker, process):
            assert (
                build_and_hash(
                    inputs,
                    tmp_path / "output",
                    config=shared_out(scheduler=address),
                    progress=tracker,
                )
                == straight
            )
    assert any(
        text.startswith(f"{during}: worker ") and "is gone" in text for text in tracker.texts
    )
    assert (
        json.loads((tmp_path / "output" / "manifest.json").read_text())["cluster"]["lost_workers"]
        == 1
    )


@needs_dask
@pytest.mark.parametrize("stopped", [False, True], ids=["stuck in its task", "stopped as a whole"])
@pytest.mark.parametrize("during", ["similarity", "samples"])
def test_what_a_worker_does_not_answer_is_made_by_another(
    during, stopped, address, inputs, tmp_path, monkeypatch
):
    monkeypatch.setattr("gpu_dcgen.cluster.executor._LOOK_S", 0.1)
    monkeypatch.setattr(
        "gpu_dcgen.cluster.executor._PATIENCE_S", 5.0
    )  # on a busy machine, too, the worker is stuck by then
    straight, tracker = build_and_hash(inputs, tmp_path / "straight"), RecordingTracker()
    before = await_workers(address, 2)
    with stuck_worker(address, tmp_path, *STUCK_IN[during]) as (process, marker):
        (stuck,) = await_workers(address, 3) - before
        with sent(signal.SIGSTOP, marker, process) if stopped else nullcontext():
            assert (
                build_and_hash(
                    inputs,
                    tmp_path / "output",
                    config=shared_out(scheduler=address),
                    progress=tracker,
                )
                == straight
            )
        assert marker.exists()
    # Of the others, who first compiles its kernels may take as long.
    assert any(
        text.startswith(f"{during}: worker {stuck} has not answered for ") for text in tracker.texts
    )
    cluster = json.loads((tmp_path / "output" / "manifest.json").read_text())["cluster"]
    assert (cluster["slow_workers"] > 0, cluster["lost_workers"]) == (True, 0)


class Harm(RecordingTracker):
    """Sends a process a signal after a stage, and waits a while."""

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


@needs_dask
@pytest.mark.parametrize("whose", ["worker", "scheduler"])
def test_who_hangs_or_dies_when_all_is_made_holds_nothing_up(whose, inputs, tmp_path):
    straight = build_and_hash(inputs, tmp_path / "straight")
    with scheduler(tmp_path) as (found, head), worker(found) as one, worker(found):
        await_workers(found, 2)
        harm = (
            Harm("samples", one, signal.SIGSTOP)
            if whose == "worker"
            else Harm("samples", head, signal.SIGKILL)
        )
        assert (
            build_and_hash(
                inputs, tmp_path / "output", config=shared_out(scheduler=found), progress=harm
            )
            == straight
        )


@needs_dask
@pytest.mark.parametrize(
    "wait_s", [0, 8], ids=["just now", "for so long that the client has given up"]
)
def test_a_scheduler_that_died_between_two_tasks_is_told(wait_s, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_dcgen.cluster.connection.CONNECT_S", 4)
    with scheduler(tmp_path) as (found, head), worker(found):
        await_workers(found, 1)
        harm = Harm("prepare", head, signal.SIGKILL, wait_s)
        with pytest.raises(
            BackendError,
            match="(?s)samples: the scheduler of the Dask cluster is gone.*rerun with resume=True to continue",
        ):
            build_and_hash(
                inputs, tmp_path / "output", config=shared_out(scheduler=found), progress=harm
            )


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
            build_and_hash(inputs, tmp_path / "output", config=shared_out(scheduler=address))


@needs_dask
def test_a_build_whose_scheduler_died_is_gone_on_from(inputs, tmp_path, monkeypatch):
    straight = build_and_hash(inputs, tmp_path / "straight")
    n_files = sum(name.endswith(".parquet") and name != "rejects.parquet" for name in straight)
    with (
        scheduler(tmp_path) as (found, process),
        stuck_worker(found, tmp_path, "gpu_dcgen.outputs.part_writer", "gather_groups", at=7) as (
            _,
            marker,
        ),
        killed_at(marker, process),
        pytest.raises(
            BackendError,
            match="(?s)samples: the scheduler of the Dask cluster is gone.*rerun with resume=True to continue",
        ),
    ):
        build_and_hash(inputs, tmp_path / "output", config=shared_out(scheduler=found))
    assert not (tmp_path / "output").exists()
    calls = fail_at_call(monkeypatch, PartWriter, "_finish", at=-1)
    assert build_and_hash(inputs, tmp_path / "output", resume=True) == straight
    assert 0 < len(calls) < n_files - 1, "parts that had come back were made again"


@needs_dask
def test_a_build_does_not_wait_forever_for_workers(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_dcgen.cluster.executor.CONNECT_S", 1)
    with (
        scheduler(tmp_path) as (found, _),
        stuck_worker(found, tmp_path, "gpu_dcgen.outputs.part_writer", "gather_groups") as (
            process,
            marker,
        ),
        killed_at(marker, process),
        pytest.raises(
            BackendError,
            match="(?s)samples: no worker is left, and none came in 1 s.*rerun with resume=True to continue",
        ),
    ):
        build_and_hash(inputs, tmp_path / "output", config=shared_out(scheduler=found))
    assert (tmp_path / ".output.staging").is_dir()


@needs_dask
def test_an_address_where_nobody_answers_is_said_at_once(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_dcgen.cluster.connection.CONNECT_S", 1)
    with pytest.raises(BackendError, match="tcp://127.0.0.1:9: no Dask worker answers"):
        build(inputs, tmp_path / "output", shared_out(scheduler="tcp://127.0.0.1:9"), backend="cpu")
    assert not (tmp_path / "output").exists()


@pytest.fixture
def job(tmp_path) -> Any:
    tasks = pytest.importorskip("gpu_dcgen.cluster.tasks", reason="distributed is not installed")
    folder = tmp_path / "checkpoints" / "work-1"
    key = {"code": tasks._digest_of_code(), "backend": "cpu"}
    Checkpoints(folder.parent, NumpyBackend()).open(key)
    folder.mkdir()
    return tasks.Job(folder.parent, folder, key, "9.9", DatasetConfig())


def looked_at(job: Any, **other: Any) -> None:
    from dataclasses import replace

    from gpu_dcgen.cluster.tasks import inspect

    memory = SimpleNamespace(memory_limit=None)
    here = SimpleNamespace(
        address="tcp://w:1", memory_manager=memory, state=SimpleNamespace(nthreads=1)
    )
    inspect(replace(job, **other), here)


def test_a_worker_that_sees_the_build_and_runs_its_code_is_taken(job):
    looked_at(job)


def test_a_worker_with_other_code_is_named_with_both_versions(job):
    code = job.key["code"][:12]
    expected = rf"worker tcp://w:1 on .* runs gpu-dcgen {__version__} \(code {code}\), the build 9.9 \(code abcabc"
    with pytest.raises(BackendError, match=expected):
        looked_at(job, key={**job.key, "code": "abcabc"})


def test_a_worker_that_does_not_see_the_output_is_named(job, tmp_path):
    with pytest.raises(
        BackendError,
        match=r"worker tcp://w:1 on .* cannot use .*elsewhere/work-1 \(No such file or directory\)",
    ):
        looked_at(job, checkpoints=tmp_path / "elsewhere", folder=tmp_path / "elsewhere" / "work-1")


def test_a_worker_with_a_folder_of_the_same_name_is_named(job):
    with pytest.raises(BackendError, match="finds another build in .*key.json"):
        looked_at(job, key={**job.key, "inputs": []})


def test_without_dask_the_error_says_what_to_install(inputs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(
        MissingPackageError,
        match=r"needs distributed, which is not installed.\npip install 'gpu-dcgen\[d",
    ):
        build(inputs, tmp_path / "output", shared_out(), backend="cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input"]


def test_a_scheduler_asks_for_distributed_processing():
    with pytest.raises(
        ValueError, match="scheduler is given, but distributed_processing is not true"
    ):
        tiny_config(resources={"scheduler": "tcp://host:8786"})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--workers", "3"], (True, 3, None)),
        (["--workers", "gpus"], (True, 4, "gpus")),
        (["--scheduler", "tcp://host:8786"], (True, 4, "tcp://host:8786")),
        (["--scheduler", "tcp://host:8786", "--threads", "2"], (True, 2, "tcp://host:8786")),
    ],
)
def test_worker_processes_are_settings_of_resources(options, expected, fake_build):
    assert run("build", "in", "out", *options).exit_code == 0
    resources = fake_build.call.config.resources
    assert (
        resources.distributed_processing,
        resources.num_workers,
        resources.scheduler,
    ) == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--workers", "0"], "--workers: expected a number from 1, or gpus, found '0'"),
        (["--workers", "many"], "--workers: expected a number from 1, or gpus, found 'many'"),
        (["--workers", "2", "--threads", "3"], "--workers 2 and --threads 3 are both given"),
        (
            ["--workers", "2", "--scheduler", "tcp://a:1"],
            "--workers 2 and --scheduler tcp://a:1 are both given",
        ),
        (["--scheduler", "host"], "resources.scheduler"),
    ],
)
def test_worker_processes_that_cannot_be_are_refused(options, text, fake_build):
    result = run("build", "in", "out", *options)
    assert result.exit_code == 2
    assert text in result.output
