"""Runs builds in children of one warm process, one line of JSON in and out for each: `python -m tests.faults.driver`.

A child takes a tenth of a second: what takes time, imports and compiled kernels, is there already. It runs the command line,
with its signals and exit codes, and says by which points it came.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from tests.faults.watcher import Watcher

NOW = 1_700_000_000_000_000_000  # when every build began: their files are then equal to the byte
LIMIT_S = 60  # after which a child hangs


def warm(inputs: Path, output: Path, config: Path) -> None:
    """Import all and compile all: a build."""
    from gpu_dcgen.config_files import load_config
    from gpu_dcgen.dataset_generator import build

    build(inputs, output, load_config(config, []), backend="cpu")


def run(job: dict[str, Any]) -> dict[str, Any]:
    """A build in a child of its own; its exit code (negative: the signal that ended it), points, and what it left running."""
    folder = Path(job["folder"])
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
    status, hung = _wait(child)
    said = (folder / "report.json").read_text()
    report = json.loads(said) if said else {}
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
        report["left"] = "a process of it ran on"
    if hung:
        report["left"] = "it hung"
    return {"code": os.waitstatus_to_exitcode(status), "stderr": (folder / "stderr.txt").read_text(), **report}


def _wait(child: int) -> tuple[int, bool]:
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status, False
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1], True


def _child(job: dict[str, Any], folder: Path) -> int:
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(folder / "stderr.txt", "w") as stderr:
        os.dup2(stderr.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _settle(job)
    watcher = Watcher(Path(job["output"]), job.get("fault"), job.get("at"))
    report = os.open(folder / "report.json", os.O_WRONLY)
    if uid := job.get("uid"):
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    watcher.begin()
    from gpu_dcgen.cli import app

    try:
        app(["build", job["inputs"], job["output"], "--config", job["config"], "--backend", "cpu", *job["options"]])
        code = 0
    except SystemExit as end:
        code = end.code or 0
    left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    said = {"points": watcher.points, "outside": watcher.outside, **({"left": f"threads {left}"} if left else {})}
    os.write(report, json.dumps(said).encode())
    return code


def _settle(job: dict[str, Any]) -> None:
    """The surroundings that the job asks for: a clock, a limit on memory, a umask."""
    times = iter(range(1, 1 << 30))
    if job.get("clock") == "jumps":
        time.time_ns = lambda: NOW + (-1) ** next(times) * next(times) * 10**15  # weeks to and fro
        time.time = lambda: time.time_ns() / 1e9
    else:
        time.time_ns = lambda: NOW
    if "memory" in job:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + job["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if "umask" in job:
        os.umask(job["umask"])


def main() -> None:
    inputs, output, config = map(Path, sys.argv[1:])
    with contextlib.redirect_stdout(sys.stderr):
        warm(inputs, output, config)
    print("warm", flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
