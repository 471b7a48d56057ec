"""Whole builds with default settings, with the stages of the fastest one."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from gpu_dcgen import DatasetConfig, build
from gpu_dcgen.dataset_generator.builder import BuildResult

from .measure import Case, Log, Work


def cases(threads: int, backend: str) -> list[Case]:
    """List the cases of each log: all threads, and one thread on logs that are not too large."""
    arguments = {"threads": threads, "backend": backend}
    cases = [_make_case("build", arguments)]
    if threads > 1:
        single = {**arguments, "threads": 1}
        cases.append(_make_case("build, one thread", single, max_transactions=5_000_000))
    return cases


def first_cases(threads: int, backend: str) -> list[Case]:
    """List the cases of the tiny log: a first build, which also compiles kernels, and another."""
    arguments = {"threads": threads, "backend": backend}
    return [
        _make_case("first build, kernels compiled", arguments, cold=True),
        _make_case("build", arguments),
    ]


def _make_case(name: str, arguments: dict[str, Any], **options: Any) -> Case:
    return Case("builds", name, "whole", "samples", arguments, needs_stages=False, **options)


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
            (result.manifest.to_dict() for result in results),
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

    return Work(run, lambda result: result.manifest.n_rows, examine)
