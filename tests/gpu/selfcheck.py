"""`python -m tests.gpu.selfcheck`: everything that only a GPU can tell, as one JSON file.

Looks at the device, runs the tests, builds real and generated shops on both machines and compares
their content, times the stages of a build of H&M's size, and compares the ways to similarities.
What fails is recorded and the rest goes on; the exit code is 1 unless all went well. Generated
tables are kept in --work and found there by the next run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Iterable

import gpu_dcgen
from cpu_fallback import NumpyBackend
from gpu_dcgen.backend.gpu.device import find_device
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.digest import digest_file
from gpu_dcgen.example_data import complete_journey as demo
from gpu_dcgen.example_data.fashion_shop import generate
from tests.gpu.engines import compare_engines
from tests.support.backends import open_gpu

ROOT = Path(__file__).parents[2]


class Report:
    """Answers by name; each question is asked once, and what goes wrong is an answer too."""

    def __init__(self, path: Path) -> None:
        self.path, self.answers, self.failed = (
            path,
            {"gpu_dcgen": gpu_dcgen.__version__, "python": sys.version},
            [],
        )

    def ask(self, name: str, question: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            answer, error = question(*arguments), None
        except Exception:
            answer, error = None, traceback.format_exc()
        took = round(time.perf_counter() - began, 3)
        self.answers[name] = {"answer": answer, "error": error, "seconds": took}
        good = error is None and not (isinstance(answer, dict) and answer.get("good") is False)
        if not good:
            self.failed.append(name)
        print(f"{'ok  ' if good else 'FAIL'} {name} ({took} s)", flush=True)
        self.path.write_text(
            json.dumps({**self.answers, "failed": self.failed}, indent=1, default=str) + "\n"
        )
        return answer


def run_tests() -> dict[str, Any]:
    """The whole suite with the GPU among its machines."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "--maxfail=25",
        "-p",
        "no:cacheprovider",
        "tests",
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    # The reasons of skipped tests are in the output: a GPU that no test saw is a failure.
    good = run.returncode == 0 and "no GPU tested here" not in run.stdout
    return {"good": good, "tail": run.stdout[-6000:]}


def copy_bandwidth() -> dict[str, float]:
    """Bytes a second that a copy on the device reads and writes: the floor of every pass over
    data.
    """
    import cupy

    source = cupy.ones(1 << 28, dtype=cupy.float32)
    target = cupy.empty_like(source)
    target[...] = source
    cupy.cuda.get_current_stream().synchronize()
    began = time.perf_counter()
    for _ in range(10):
        target[...] = source
    cupy.cuda.get_current_stream().synchronize()
    return {"bytes_per_s": 10 * 2 * source.nbytes / (time.perf_counter() - began)}


def build_on(machine: str, tables: Path, output: Path) -> dict[str, Any]:
    """One build; a second one on the GPU, whose kernels are then compiled, is the one that is
    timed.
    """
    backend = open_gpu()[0] if machine == "gpu" else machine
    manifest = build(tables, output, backend=backend, overwrite=True).manifest.to_dict()
    if machine == "gpu":
        first = manifest["performance"]
        manifest = build(tables, output, backend=backend, overwrite=True).manifest.to_dict()
        manifest["performance"]["first_build"] = first
    keys = (
        "content_digest",
        "digests",
        "counts",
        "similarity",
        "timings",
        "performance",
        "backend",
    )
    return {
        **{key: manifest.get(key) for key in keys},
        "digests_of_files": digest_files(output, manifest["digests"]),
    }


def digest_files(dataset: Path, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The digests of a dataset's files by name and column, from what is on disk."""
    return {name: digest_file(dataset / f"{name}.parquet", NumpyBackend(1)) for name in names}


def compare(tables: Path, work: Path, name: str) -> dict[str, Any]:
    """Both machines' builds of the same tables, and where their content differs.

    The GPU's is compared as it was computed, and as it was written.
    """
    cpu, device = (
        build_on(machine, tables, work / f"{name}_{machine}") for machine in ("cpu", "gpu")
    )
    differing = [
        f"{file}.{column}{where}"
        for file, columns in cpu["digests"].items()
        for column in columns
        for digests, where in (("digests", ""), ("digests_of_files", " as written"))
        if columns[column] != device[digests][file].get(column)
    ]
    return {"good": not differing, "differing": differing, "cpu": cpu, "gpu": device}


def tables_of(name: str, work: Path, given: dict[str, Path]) -> Path:
    """The folder of a dataset: given, or made once in `work`: complete_journey, or synth_SCALE."""
    folder = given.get(name, work / name)
    if not (folder / "transactions.parquet").exists():
        if name == "complete_journey":
            demo.write_tables(folder)
        else:
            generate(folder, scale=float(name.removeprefix("synth_")), seed=42)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--work", type=Path, default=Path("selfcheck"), help="folder for tables and datasets"
    )
    parser.add_argument("--output", type=Path, default=Path("selfcheck.json"))
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="tables that are there already",
    )
    parser.add_argument(
        "--compare",
        nargs="*",
        default=["complete_journey", "synth_0.1"],
        help="built on both machines",
    )
    parser.add_argument(
        "--time", nargs="*", default=["synth_1.0"], help="built on the GPU alone, stage by stage"
    )
    parser.add_argument("--no-tests", action="store_true")
    options = parser.parse_args()
    given = {
        name: Path(folder) for name, _, folder in (text.partition("=") for text in options.data)
    }
    report = Report(options.output)
    if report.ask("device", lambda: find_device().describe()) is None:
        print(report.answers["device"]["error"])
        return 1
    report.ask("copy bandwidth", copy_bandwidth)
    if not options.no_tests:
        report.ask("tests", run_tests)
    for name in options.compare:
        if (
            tables := report.ask(f"tables {name}", tables_of, name, options.work, given)
        ) is not None:
            report.ask(f"parity {name}", compare, tables, options.work, name)
    for name in options.time:
        if (
            tables := report.ask(f"tables {name}", tables_of, name, options.work, given)
        ) is not None:
            report.ask(f"build {name}", build_on, "gpu", tables, options.work / f"{name}_gpu")
            report.ask(f"similarity {name}", compare_engines, tables, open_gpu()[0])
    print(f"{len(report.failed)} of {len(report.answers) - 2} failed; written to {options.output}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
