"""Measure stages and whole builds beside other libraries, on the same data.

    python -m tests.benchmarks --scale 0.01 0.1             synthetic shops of these sizes
    python -m tests.benchmarks --only similarity builds     these suites only
    python -m tests.benchmarks --data online-retail=FOLDER  on real logs, too
    python -m tests.benchmarks --output FILE                the results as JSON
    python -m tests.benchmarks.report FILE ...              as tables in Markdown
    python -m tests.benchmarks.plot FILE ...                as pictures

The other libraries: pip install sparse-dot-topn implicit polars pandas lenskit recbole (the last
two bring PyTorch). Missing ones are reported and skipped. GPU_DCGEN_ONLINE_RETAIL and
GPU_DCGEN_COMPLETE_JOURNEY name folders of tables as --data does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.dataset

from gpu_dcgen.config import count_usable_cores

from . import builds, machine, negatives, sequences, similarity, stages, writing
from .growth import fit_growth
from .measure import ROOT, Case, Log, run_case

SUITES = ("similarity", "negatives", "sequences", "writing", "builds")
TINY = 0.001
REAL_LOGS = {
    "online-retail": "GPU_DCGEN_ONLINE_RETAIL",
    "complete-journey": "GPU_DCGEN_COMPLETE_JOURNEY",
}


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    real = {
        name: os.environ[variable]
        for name, variable in REAL_LOGS.items()
        if os.environ.get(variable)
    }
    real |= dict(options.data)
    tiny = _open_synthetic(TINY, options.shops, options.stages)
    logs = [
        _open_synthetic(scale, options.shops, options.stages) for scale in sorted(options.scale)
    ]
    logs += [open_log(name, Path(folder), options.stages) for name, folder in sorted(real.items())]
    if not set(options.only) <= {"builds"}:
        stages.require(tiny, options.threads)
    facts = machine.describe()
    measurements = []
    for case, log in _list_cases(options.only, logs, tiny, options.threads, options.backend):
        if case.needs_stages and case.refusal(log) is None:
            stages.require(log, options.threads)
        measurement = {
            **run_case(case, log, tiny),
            "threads": case.arguments.get("threads", options.threads),
        }
        measurements.append(measurement)
        print(_render_line(measurement), flush=True)
        results = {
            "machine": facts,
            "threads": options.threads,
            "logs": {
                log.name: {"transactions": log.n_transactions, **stages.read_facts(log)}
                for log in (tiny, *logs)
            },
            "measurements": measurements,
            "growth": fit_growth(measurements),
        }
        if options.output:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for name, fit in fit_growth(measurements).items():
        print(f"{name}: seconds grow with the power {fit['exponent']:.2f} of the amount")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    folder = ROOT / "build" / "benchmarks"
    parser.add_argument(
        "--scale",
        type=float,
        nargs="*",
        default=[0.01, 0.1, 1.0],
        help="sizes of synthetic shops; 1 is H&M's",
    )
    parser.add_argument("--only", nargs="+", choices=SUITES, default=list(SUITES))
    parser.add_argument(
        "--data", type=_named_folder, nargs="+", default=[], metavar="NAME=FOLDER", help="real logs"
    )
    parser.add_argument("--threads", type=int, default=count_usable_cores())
    parser.add_argument(
        "--backend",
        choices=("auto", "cpu", "gpu"),
        default="cpu",
        help="of the builds; the rest is on the CPU",
    )
    parser.add_argument("--output", type=Path, help="JSON file, rewritten after each measurement")
    parser.add_argument(
        "--shops",
        type=Path,
        default=folder,
        help="folder of synthetic shops, synth_SCALE; missing ones are generated",
    )
    parser.add_argument(
        "--stages",
        type=Path,
        default=folder / "stages",
        help="folder for the results of our stages",
    )
    return parser


def _named_folder(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"expected NAME=FOLDER, found {text!r}")
    return name, folder


def _open_synthetic(scale: float, shops: Path, stages_folder: Path) -> Log:
    """Open the synthetic shop of this size; generate it if it does not exist."""
    name = f"synth_{scale}"
    tables = shops / name
    if not (tables / "transactions.parquet").exists():
        command = [
            sys.executable,
            "-m",
            "gpu_dcgen",
            "synth",
            str(tables.resolve()),
            "--scale",
            str(scale),
        ]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return open_log(name, tables, stages_folder)


def open_log(name: str, tables: Path, stages_folder: Path) -> Log:
    n_transactions = pyarrow.dataset.dataset(tables / "transactions.parquet").count_rows()
    return Log(name, tables.resolve(), stages_folder.resolve() / name, n_transactions)


def _list_cases(
    only: Sequence[str], logs: list[Log], tiny: Log, threads: int, backend: str
) -> Iterator[tuple[Case, Log]]:
    """Yield cases and logs in the order of measurement: small logs first."""
    if "builds" in only:
        yield from ((case, tiny) for case in builds.first_cases(threads, backend))
    suites = {
        "similarity": similarity,
        "negatives": negatives,
        "sequences": sequences,
        "writing": writing,
    }
    for log in logs:
        for name, suite in suites.items():
            if name in only:
                yield from ((case, log) for case in suite.cases(threads))
        if "builds" in only:
            yield from ((case, log) for case in builds.cases(threads, backend))


def _render_line(m: dict[str, Any]) -> str:
    head = f"{m['log']:18s}{m['suite']:12s}{m['name']:36s}"
    if m["status"] != "measured":
        return f"{head}{m['status']}: {m['reason']}"
    figures = " ".join(
        f"{key} {value:.6g}"
        for key, value in m["figures"].items()
        if isinstance(value, int | float)
    )
    speed = f"{m['best_s']:9.3f} s {m['per_s']:15,d} {m['unit']}/s"
    memory = f"{m['peak_bytes'] / 1e9:6.2f} GB"
    return f"{head}{speed} {memory}  load {m['load_before']}  {figures}"


if __name__ == "__main__":
    main()
