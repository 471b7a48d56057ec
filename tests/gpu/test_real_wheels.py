"""What the GPU backend asks of its libraries holds for their wheels, in an environment of its own.

GPU_DCGEN_RAPIDS_PYTHON names the interpreter of an environment that has them already; without it,
they are downloaded (1.9 GB on disk).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What the extra gpu-cu13 brings, without cuDF, cuML and the math libraries of CUDA, which opening
# the backend does not load.
WHEELS = [
    "pylibcudf-cu13==26.10.*",
    "libcudf-cu13==26.10.*",
    "rmm-cu13==26.10.*",
    "cupy-cuda13x>=14.2",
    "numba-cuda[cu13]>=0.30",
    "pytest>=9.0",
    "hypothesis>=6.100",
]
TESTS = [
    *(
        f"tests/gpu/test_{name}.py"
        for name in ("opening", "libcudf_calls", "cuda_backend", "device")
    ),
    "tests/support/test_strict_array.py",  # looks up what stages call of CuPy
]


@pytest.fixture
def interpreter(tmp_path) -> str:
    """The interpreter of an environment with the wheels and this package's own dependencies."""
    if prepared := os.environ.get("GPU_DCGEN_RAPIDS_PYTHON"):
        return prepared
    folder = tmp_path / "rapids"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", *WHEELS, "-e", "."]
    subprocess.run(install, cwd=ROOT, check=True)
    return python


@pytest.mark.slow
def test_the_backend_opens_with_the_wheels_of_rapids(interpreter):
    command = [interpreter, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *TESTS]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )
    assert run.returncode == 0, run.stdout[-4000:]
    assert "skipped" not in run.stdout
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) > 150
