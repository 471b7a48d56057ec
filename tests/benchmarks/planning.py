"""What `gpu-dcgen plan` predicts against what a build then makes and takes: errors in per cent.

    python -m tests.benchmarks.planning data/processed        plan, build, compare
    python -m tests.benchmarks.planning data/processed --manifest FILE   compare with that build
    python -m tests.benchmarks.planning data/a data/b --output FILE      several logs, as JSON

Plan and build each run in a process of its own, one after the other: times agree only where the
machine is as busy for both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .machine import describe


def planned(inputs: Path, options: list[str]) -> dict[str, Any]:
    """The plan, as the command line prints it."""
    lines = _run(["plan", str(inputs), "--json", *options]).splitlines()
    return json.loads(lines[-1])["plan"]


def built(inputs: Path, output: Path, options: list[str]) -> dict[str, Any]:
    """The manifest of a build."""
    _run(["build", str(inputs), str(output), "--quiet", *options])
    return json.loads((output / "manifest.json").read_text("utf-8"))


def _run(arguments: list[str]) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "gpu_dcgen", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if run.returncode:
        raise SystemExit(f"gpu-dcgen {' '.join(arguments)}: exit code {run.returncode}")
    return run.stdout


def comparison(plan: dict[str, Any], manifest: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Figure, predicted, true."""
    sizes: dict[str, int] = {}
    for name, size in manifest["files"].items():
        name = name.split("/")[0].removesuffix(".parquet")
        sizes[name] = sizes.get(name, 0) + size
    performance, counts = manifest["performance"], manifest["counts"]
    figures = [
        ("rows", sum(plan["rows"].values()), sum(split["rows"] for split in counts.values())),
        ("bytes", sum(plan["bytes"].values()), sum(manifest["files"].values())),
        ("peak bytes", plan["peak_bytes"], performance["peak_memory_bytes"]),
        ("seconds", sum(plan["seconds"].values()), performance["seconds"]),
        ("pairs", plan["pairs"], manifest["similarity"]["pairs"]),
    ]
    figures += [(f"rows, {split}", plan["rows"][split], counts[split]["rows"]) for split in counts]
    figures += [(f"bytes, {name}", plan["bytes"][name], sizes[name]) for name in plan["bytes"]]
    stage_s = {timing["stage"]: timing["seconds"] for timing in manifest["timings"]}
    return figures + [
        (f"seconds, {stage}", plan["seconds"][stage], stage_s[stage]) for stage in stage_s
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inputs", type=Path, nargs="+")
    parser.add_argument(
        "--manifest", type=Path, nargs="+", help="of a build of each input, in that order"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="JSON file for what was predicted, what was true, and the errors",
    )
    parser.add_argument("--threads", default="4")
    arguments = parser.parse_args()
    options, logs = ["--threads", arguments.threads, "--backend", "cpu"], {}
    for inputs, file in zip(
        arguments.inputs, arguments.manifest or [None] * len(arguments.inputs), strict=True
    ):
        plan = planned(inputs, options)
        if file:
            manifest = json.loads(file.read_text("utf-8"))
        else:
            with tempfile.TemporaryDirectory() as folder:
                manifest = built(inputs, Path(folder) / "dataset", options)
        print(f"{inputs.name}: {plan['share']:.1%} of the log tried in {plan['planning_s']:.1f} s")
        figures = {}
        for name, predicted, true in comparison(plan, manifest):
            error = predicted / max(true, 1e-9) - 1
            print(f"{name:<32} {predicted:>18,.1f} {true:>18,.1f} {error:>+8.1%}")
            figures[name] = {
                "predicted": round(predicted, 3),
                "true": round(true, 3),
                "error": round(error, 4),
            }
        logs[inputs.name] = {
            "share": plan["share"],
            "planning_s": round(plan["planning_s"], 2),
            "figures": figures,
        }
    if arguments.output:
        results = {"machine": describe(), "threads": plan["threads"], "logs": logs}
        arguments.output.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
