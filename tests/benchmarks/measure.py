"""One measurement in a process of its own: the seconds of its runs, and the most memory that they held.

    run_case(case, log, tiny)      from outside: start the process, wait, and return what it found
    python -m tests.benchmarks.measure REQUEST ANSWER      the process: JSON files in and out

A process first does the whole of its work on a tiny log, unmeasured: modules are then imported and kernels loaded, for
peers as for us. What compiling costs is a measurement of its own (`Case.cold`).
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

REPEATS = 3
LONG_S = 30.0  # a run that takes longer is not repeated
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Log:
    """A shop's log: the tables, and the results of our stages over them where a case needs these (`stages.prepare`)."""

    name: str
    tables: Path
    stages: Path
    n_transactions: int


@dataclass(frozen=True)
class Work:
    """What a case does once it is set up; only `run` is timed."""

    run: Callable[[], Any]
    amount: Callable[[Any], int]  # how much a run got through, from its result
    examine: Callable[[Any], dict[str, Any]] = lambda result: {}  # figures of the last run's result


@dataclass(frozen=True)
class Case:
    """A measurement: `function(log, **arguments)` of `tests.benchmarks.<suite>` sets it up and returns its Work."""

    suite: str
    name: str  # as results and pictures call it
    function: str
    unit: str  # of what `Work.amount` counts
    arguments: dict[str, Any] = field(default_factory=dict)
    peer: bool = False
    needs: tuple[str, ...] = ()  # modules that are not among our dependencies
    environment: dict[str, str] = field(default_factory=dict)
    note: str = ""  # in what it differs from the others of its suite
    needs_stages: bool = True
    # without the run on the tiny log, once, with an empty folder for compiled kernels
    cold: bool = False
    most_transactions: int | None = None  # a larger log takes it too long, or too much memory

    def refusal(self, log: Log) -> str | None:
        """Why it cannot be measured here, or None."""
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            wanted = " ".join(DISTRIBUTIONS.get(name, name) for name in missing)
            return f"not installed: {', '.join(missing)} (pip install {wanted})"
        if self.most_transactions is not None and log.n_transactions > self.most_transactions:
            return f"run up to {self.most_transactions:,} transactions only"
        return None


DISTRIBUTIONS = {"sparse_dot_topn": "sparse-dot-topn"}  # module -> what pip calls it


def run_case(case: Case, log: Log, tiny: Log) -> dict[str, Any]:
    """Measure the case on the log in a new process; a JSON object with `status` measured, skipped or failed."""
    found = {
        "suite": case.suite,
        "name": case.name,
        "log": log.name,
        "peer": case.peer,
        "unit": case.unit,
        "note": case.note,
    }
    if (reason := case.refusal(log)) is not None:
        return {**found, "status": "skipped", "reason": reason}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        request, answer = Path(name) / "request.json", Path(name) / "answer.json"
        call = {key: getattr(case, key) for key in ("suite", "function", "arguments", "cold")}
        request.write_text(
            json.dumps({**call, "log": vars(log), "tiny": vars(tiny)}, default=str),
            encoding="utf-8",
        )
        environment = {
            **os.environ,
            **case.environment,
            "TMPDIR": name,
        }  # so that nothing outlives a process that fails
        if case.cold:
            environment["NUMBA_CACHE_DIR"] = str(Path(name) / "kernels")
        found["load_before"] = round(
            os.getloadavg()[0], 2
        )  # what else the machine was doing, and we a moment ago
        process = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.measure", str(request), str(answer)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            reason = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[
                -1
            ]
            return {**found, "status": "failed", "reason": reason}
        return {**found, "status": "measured", **json.loads(answer.read_text("utf-8"))}


def measure(set_up: Callable[[Log], Work], log: Log, tiny: Log | None) -> dict[str, Any]:
    """Run the work in this process: on the tiny log first, if one is given, then up to `REPEATS` times on the log.

    `best_s` is by the clock; `core_s`, all threads' time together, tells less of what else the machine does meanwhile.
    """
    if tiny is not None:
        work = set_up(tiny)
        work.examine(work.run())
        del work
    work = set_up(log)
    gc.collect()
    before, per_part = _resident_bytes(), _forget_peak()
    seconds: list[float] = []
    core_s: list[float] = []
    while True:
        began, began_core = time.perf_counter(), time.process_time()
        result = work.run()
        seconds.append(time.perf_counter() - began)
        core_s.append(time.process_time() - began_core)
        if len(seconds) == (REPEATS if tiny is not None else 1) or seconds[0] > LONG_S:
            break
        del result
    peak, amount = _peak_bytes(), work.amount(result)
    return {
        "seconds": [round(s, 4) for s in seconds],
        "best_s": round(min(seconds), 4),
        "median_s": round(statistics.median(seconds), 4),
        "core_s": round(min(core_s), 4),
        "amount": amount,
        "per_s": round(amount / min(seconds)),
        "resident_before_bytes": before,
        "peak_bytes": peak,
        "peak_is_of": "the runs, with their inputs" if per_part else "the whole process",
        "figures": work.examine(result),
    }


def _forget_peak() -> bool:
    """Start the process's high-water mark of memory anew, where the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _resident_bytes() -> int:
    import psutil

    return psutil.Process().memory_info().rss


def main() -> None:
    """Read the request, measure, leave the answer."""
    request = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    log, tiny = (
        Log(named["name"], Path(named["tables"]), Path(named["stages"]), named["n_transactions"])
        for named in (request["log"], request["tiny"])
    )
    function = getattr(import_module(f"tests.benchmarks.{request['suite']}"), request["function"])
    found = measure(
        lambda log: function(log, **request["arguments"]), log, None if request["cold"] else tiny
    )
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
