"""Whole builds with default settings: from the tables to the published dataset, by stages as the fastest's manifest has them."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from gpu_dcgen import DatasetConfig, build
from gpu_dcgen.dataset_generator.builder import BuildResult

from .measure import Case, Log, Work


def cases(threads: int, backend: str) -> list[Case]:
    """For each log: on all threads, and on one where that does not take too long."""
    arguments = {"threads": threads, "backend": backend}
    one = Case("builds", "build, one thread", "whole", "samples", {**arguments, "threads": 1}, needs_stages=False,
               most_transactions=5_000_000)  # fmt: skip
    return [Case("builds", "build", "whole", "samples", arguments, needs_stages=False)] + [one] * (
        threads > 1
    )


def first_cases(threads: int, backend: str) -> list[Case]:
    """On the tiny log alone: what a newcomer's first build adds, compiling the kernels."""
    arguments = {"threads": threads, "backend": backend}
    return [
        Case(
            "builds",
            "first build, kernels compiled",
            "whole",
            "samples",
            arguments,
            needs_stages=False,
            cold=True,
        ),
        Case("builds", "build", "whole", "samples", arguments, needs_stages=False),
    ]


def whole(log: Log, *, threads: int, backend: str) -> Work:
    folder = Path(mkdtemp(prefix="benchmark-"))
    config = DatasetConfig(resources={"num_workers": threads})

    results: list[BuildResult] = []

    def run() -> BuildResult:
        results.append(
            build(log.tables, folder / "dataset", config, backend=backend, overwrite=True)
        )
        return results[-1]

    def examine(result: BuildResult) -> dict[str, Any]:
        manifest = min(
            (made.manifest.to_dict() for made in results),
            key=lambda manifest: manifest["performance"]["seconds"],
        )
        n_bytes = sum(path.stat().st_size for path in result.output.rglob("*") if path.is_file())
        shutil.rmtree(folder)
        return {
            "stages": {entry["stage"]: entry["seconds"] for entry in manifest["timings"]},
            "backend": manifest["backend"]["name"],
            "content_digest": manifest["content_digest"],
            "bytes_written": n_bytes,
        }

    return Work(
        run,
        lambda result: result.manifest.n_rows,
        examine,
    )
