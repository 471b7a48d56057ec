"""Dask schedulers and workers as processes of this machine, which tests stop, kill or let hang."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

ROOT = Path(__file__).parents[2]
MAX_WAIT_S = 60
# What `dask worker --preload` runs: the `at`-th call of `{name}` creates the marker, and hangs.
_HANGING = """
import importlib, itertools, time
from pathlib import Path
def dask_setup(worker):
    owner, calls = importlib.import_module({module!r}), itertools.count(1)
    original = getattr(owner, {name!r})
    def hang(*arguments, **options):
        if next(calls) == {at}:
            Path({marker!r}).touch()
            time.sleep({patience})
        return original(*arguments, **options)
    setattr(owner, {name!r}, hang)
"""


@contextmanager
def run_dask(*command: str) -> Iterator[subprocess.Popen]:
    """Run a `dask` process, killed at the end."""
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


def wait_until(is_true: Callable[[], Any], label: str) -> None:
    """Wait for a condition; AssertionError after a minute."""
    end = time.monotonic() + MAX_WAIT_S
    while not is_true():
        assert time.monotonic() < end, f"{label}: not in {MAX_WAIT_S} s"
        time.sleep(0.02)


@contextmanager
def scheduler(folder: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """Run a scheduler on 127.0.0.1; yields its address and its process."""
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
    with run_dask(*command) as process:
        wait_until(
            lambda: file.exists() and file.stat().st_size, "the scheduler's file"
        )  # it is there before it is written
        yield json.loads(file.read_text())["address"], process


def worker(address: str, *options: str) -> AbstractContextManager[subprocess.Popen]:
    """Run a worker."""
    return run_dask("worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard", *options)


@contextmanager
def hanging_worker(
    address: str, folder: Path, module: str, name: str, at: int = 1
) -> Iterator[tuple[subprocess.Popen, Path]]:
    """Run a worker that hangs in the `at`-th call of a function, and creates the file yielded."""
    marker, script = folder / "marker", folder / "hanging.py"
    script.write_text(
        _HANGING.format(module=module, name=name, at=at, marker=str(marker), patience=MAX_WAIT_S)
    )
    with worker(address, "--preload", str(script)) as process:
        yield process, marker


@contextmanager
def signal_at(
    signal_number: signal.Signals, marker: Path, process: subprocess.Popen
) -> Iterator[None]:
    """Send a signal to a process when the marker appears."""

    def send() -> None:
        wait_until(marker.exists, "the marker")
        process.send_signal(signal_number)

    thread = Thread(target=send)
    thread.start()
    yield
    thread.join()


@contextmanager
def kill_at(marker: Path, process: subprocess.Popen) -> Iterator[None]:
    """Kill a process, as for lack of memory, when the marker appears."""
    with signal_at(signal.SIGKILL, marker, process):
        yield
    assert process.wait() == -signal.SIGKILL


def await_workers(address: str, n_workers: int) -> set[str]:
    """Wait until a cluster has that many workers; returns their addresses."""
    import distributed

    with distributed.Client(address, set_as_default=False) as client:
        wait_until(lambda: len(client.nthreads()) == n_workers, f"{n_workers} workers")
        return set(client.nthreads())
