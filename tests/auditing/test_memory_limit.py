"""An audit within a memory limit keeps large arrays in files, and finds the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from cpu_fallback.large_arrays import find_large_arrays
from gpu_dcgen.cli import app
from gpu_dcgen.dataset_generator.builder import build
from gpu_dcgen.example_data.fashion_shop import generate

RUNNER = CliRunner()


def run_audit(folder: Path, certificate: Path, *options: str) -> dict[str, Any]:
    paths = [str(path) for path in (folder / "input", folder / "output", certificate)]
    result = RUNNER.invoke(app, ["audit", *paths[:2], "--certificate", paths[2], *options])
    assert result.exit_code == 0, result.output
    content = json.loads(certificate.read_text())
    return {name: content[name] for name in content if name not in ("audited_at", "signature")}


def test_a_limit_changes_where_arrays_are_and_nothing_else(tmp_path):
    generate(tmp_path / "input", scale=0.01, seed=5)
    build(tmp_path / "input", tmp_path / "output", backend="cpu")
    options = ["--sample", "5", "--quiet"]
    whole = run_audit(tmp_path, tmp_path / "whole.json", *options)
    large_arrays = find_large_arrays()
    assert large_arrays is not None
    ballast = b"x" * 300_000_000  # the process has more than the limit: all are files
    limited = run_audit(tmp_path, tmp_path / "limited.json", *options, "--memory-limit", "270MB")
    del ballast
    assert large_arrays.file_bytes > 0
    assert limited == whole and whole["verdict"] == "holds"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "input",
        "limited.json",
        "output",
        "whole.json",
    ]
