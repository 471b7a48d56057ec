"""Runs builds in children of one warm process, one line of JSON in and out for each: `python -m
tests.faults.driver`.

A child takes a tenth of a second: what takes time, imports and compiled kernels, is there already.
It runs the command line, with its signals and exit codes, and says by which points it came.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import gc
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from itertools import cycle
from pathlib import Path
from typing import Any

from tests.faults.watcher import Watcher

NOW = 1_700_000_000_000_000_000  # when every build began: their files are then equal to the byte
WRITES = {"short": 0, "EIO": errno.EIO, "ENOSPC": errno.ENOSPC}  # as writes.c knows them
ENDING_S = 5  # for threads to end a block
LIMIT_S = 60  # after which a child hangs


def warm(inputs: Path, output: Path, config: Path) -> None:
    """Import all and compile all: a build."""
    from gpu_dcgen.cli import app

    with contextlib.suppress(SystemExit):
        app(
            [
                "build",
                str(inputs),
                str(output),
                "--config",
                str(config),
                "--backend",
                "cpu",
                "--quiet",
            ]
        )
    gc.freeze()  # children then copy less


def run(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Builds side by side, each in a child; its exit code (negative: the signal that ended it),
    points, what it left running.
    """
    children = [_begun(job) for job in jobs]
    return [_ended(child, job) for child, job in zip(children, jobs, strict=True)]


def _begun(job: dict[str, Any]) -> int:
    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("report.json", "stderr.txt"):
        (folder / name).write_text("")
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = _child(job, folder)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def _ended(child: int, job: dict[str, Any]) -> dict[str, Any]:
    folder, began, status = Path(job["folder"]), time.monotonic(), None
    limit, killed = min(LIMIT_S, job.get("kill_after_s", LIMIT_S)), False
    while status is None:
        pid, wait_status = os.waitpid(child, os.WNOHANG)
        if pid:
            status = wait_status
        elif not killed and time.monotonic() - began > limit:
            os.kill(child, signal.SIGKILL)
            killed = True
        else:
            time.sleep(0.002)
    said = (folder / "report.json").read_text()
    report = json.loads(said) if said else {}
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
        report["left"] = "a process of it ran on"
    if killed and "kill_after_s" not in job:
        report["left"] = f"it still ran after {LIMIT_S} s: {(folder / 'stderr.txt').read_text()}"
    return {
        "code": os.waitstatus_to_exitcode(status),
        "stderr": (folder / "stderr.txt").read_text(),
        **report,
    }


def _child(job: dict[str, Any], folder: Path) -> int:
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    report = os.open(folder / "report.json", os.O_WRONLY)
    os.dup2(os.open(folder / "stderr.txt", os.O_WRONLY), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    watcher = Watcher(Path(job["output"]), job.get("fault"), job.get("at"))
    faulthandler.dump_traceback_later(
        LIMIT_S - 2, file=os.fdopen(os.dup(2), "w")
    )  # where it hangs, if it does
    _settle(job)
    watcher.begin()
    from gpu_dcgen.cli import app

    try:
        app(
            [
                "build",
                job["inputs"],
                job["output"],
                "--config",
                job["config"],
                "--backend",
                "cpu",
                *job["options"],
            ]
        )
        code = 0
    except SystemExit as end:
        code = end.code or 0
    left = _still_running(time.monotonic() + ENDING_S)
    said = {
        "points": watcher.points,
        "outside": watcher.outside,
        **({"left": f"threads {left}"} if left else {}),
    }
    os.write(report, json.dumps(said).encode())
    return code


def _still_running(until: float) -> list[str]:
    """The threads that have not ended by then: who interrupts twice does not wait for blocks that
    are begun.
    """
    while True:
        left = [
            thread.name for thread in threading.enumerate() if thread is not threading.main_thread()
        ]
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.01)


def _settle(job: dict[str, Any]) -> None:
    """The surroundings that the job asks for: a clock, free bytes, a limit on memory, a umask, a
    user, failing writes.
    """
    jumps = cycle((0, 10**16, -(10**16), 5))  # months to and fro
    began = time.time_ns
    time.time_ns = (lambda: NOW + next(jumps)) if job.get("clock") == "jumps" else (lambda: NOW)
    if job.get("clock") == "jumps":
        time.time = lambda: (began() + next(jumps)) / 1e9
    if "writes" in job:
        kind, at = job["writes"]
        ctypes.CDLL(None).arm(os.fsencode(Path(job["output"]).parent), WRITES[kind], at)
    if "room" in job:  # what the disk tells of itself; others fill it meanwhile
        free = shutil.disk_usage("/")._replace(free=job["room"])
        shutil.disk_usage = lambda path: free
    if "umask" in job:
        os.umask(job["umask"])
    if "uid" in job:
        os.setgroups([])
        os.setgid(job["uid"])
        os.setuid(job["uid"])
    if "memory" in job:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + job["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> None:
    inputs, output, config = map(Path, sys.argv[1:])
    with contextlib.redirect_stdout(sys.stderr):
        warm(inputs, output, config)
    print("warm", flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
