"""Measure a case in a process of its own: the seconds of its runs and their peak memory.

    run_case(case, log, tiny)                           start the process, return its answer
    python -m tests.benchmarks.measure REQUEST ANSWER   the process: JSON files in and out

A process first does all its work on a tiny log, unmeasured: modules are then imported and kernels
loaded, for all libraries alike. The cost of compiling is a case of its own (`Case.cold`).
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
LONG_S = 30.0  # a longer run is not repeated
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Log:
    """A shop's tables, and the results of our stages on them (`stages.prepare`)."""

    name: str
    tables: Path
    stages: Path
    n_transactions: int


@dataclass(frozen=True)
class Work:
    """The work of a case after its setup; only `run` is timed."""

    run: Callable[[], Any]
    amount: Callable[[Any], int]  # of work in a run, from its result
    # figures of the last run's result
    examine: Callable[[Any], dict[str, Any]] = lambda result: {}


@dataclass(frozen=True)
class Case:
    """A measurement: `function(log, **arguments)` of module `suite` sets it up: a Work."""

    suite: str
    name: str  # in results and pictures
    function: str
    unit: str  # of what `Work.amount` counts
    arguments: dict[str, Any] = field(default_factory=dict)
    peer: bool = False
    needs: tuple[str, ...] = ()  # modules besides our dependencies
    environment: dict[str, str] = field(default_factory=dict)
    note: str = ""  # how it differs from the other cases of its suite
    needs_stages: bool = True
    # one run, without one on the tiny log, with an empty cache of kernels
    cold: bool = False
    max_transactions: int | None = None  # larger logs take too long or too much memory

    def refusal(self, log: Log) -> str | None:
        """Return why it cannot be measured here, or None."""
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            packages = " ".join(DISTRIBUTIONS.get(name, name) for name in missing)
            return f"not installed: {', '.join(missing)} (pip install {packages})"
        if self.max_transactions is not None and log.n_transactions > self.max_transactions:
            return f"run up to {self.max_transactions:,} transactions only"
        return None


DISTRIBUTIONS = {"sparse_dot_topn": "sparse-dot-topn"}  # module -> what pip calls it


def run_case(case: Case, log: Log, tiny: Log) -> dict[str, Any]:
    """Measure a case in a new process; `status` is measured, skipped or failed."""
    measurement = {
        "suite": case.suite,
        "name": case.name,
        "log": log.name,
        "peer": case.peer,
        "unit": case.unit,
        "note": case.note,
    }
    if (reason := case.refusal(log)) is not None:
        return {**measurement, "status": "skipped", "reason": reason}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        request, answer = Path(name) / "request.json", Path(name) / "answer.json"
        call = {key: getattr(case, key) for key in ("suite", "function", "arguments", "cold")}
        request.write_text(
            json.dumps({**call, "log": vars(log), "tiny": vars(tiny)}, default=str),
            encoding="utf-8",
        )
        # In this TMPDIR, the files of a process that fails are deleted, too.
        environment = {**os.environ, **case.environment, "TMPDIR": name}
        if case.cold:
            environment["NUMBA_CACHE_DIR"] = str(Path(name) / "kernels")
        # Other load on the machine, and our own of the last minute.
        measurement["load_before"] = round(os.getloadavg()[0], 2)
        process = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.measure", str(request), str(answer)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            lines = process.stderr.strip().splitlines()
            reason = lines[-1] if lines else f"exit code {process.returncode}"
            return {**measurement, "status": "failed", "reason": reason}
        return {**measurement, "status": "measured", **json.loads(answer.read_text("utf-8"))}


def measure(set_up: Callable[[Log], Work], log: Log, tiny: Log | None) -> dict[str, Any]:
    """Run the work in this process: on the tiny log, if any, then repeatedly on the log.

    `best_s` is wall-clock time. `core_s` is the CPU time of all threads, which other load on the
    machine changes less.
    """
    if tiny is not None:
        work = set_up(tiny)
        work.examine(work.run())
        del work
    work = set_up(log)
    gc.collect()
    before, is_peak_of_runs = _read_resident_bytes(), _reset_peak()
    seconds: list[float] = []
    core_s: list[float] = []
    while True:
        started, started_core = time.perf_counter(), time.process_time()
        result = work.run()
        seconds.append(time.perf_counter() - started)
        core_s.append(time.process_time() - started_core)
        if len(seconds) == (REPEATS if tiny is not None else 1) or seconds[0] > LONG_S:
            break
        del result
    peak, amount = _read_peak_bytes(), work.amount(result)
    return {
        "seconds": [round(s, 4) for s in seconds],
        "best_s": round(min(seconds), 4),
        "median_s": round(statistics.median(seconds), 4),
        "core_s": round(min(core_s), 4),
        "amount": amount,
        "per_s": round(amount / min(seconds)),
        "resident_before_bytes": before,
        "peak_bytes": peak,
        "peak_is_of": "the runs, with their inputs" if is_peak_of_runs else "the whole process",
        "figures": work.examine(result),
    }


def _reset_peak() -> bool:
    """Reset the process's peak memory; False where the system cannot (Linux can)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _read_peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _read_resident_bytes() -> int:
    import psutil

    return psutil.Process().memory_info().rss


def main() -> None:
    """Read the request, measure, write the answer."""
    request = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    log, tiny = (
        Log(named["name"], Path(named["tables"]), Path(named["stages"]), named["n_transactions"])
        for named in (request["log"], request["tiny"])
    )
    function = getattr(import_module(f"tests.benchmarks.{request['suite']}"), request["function"])
    answer = measure(
        lambda log: function(log, **request["arguments"]), log, None if request["cold"] else tiny
    )
    Path(sys.argv[2]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
