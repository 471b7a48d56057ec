"""Row kernels and the similarity kernel as CUDA grids, in numba's simulator: a whole build comes
out the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from gpu_dcgen.dataset_generator.builder import build
from tests.support.shops import random_shop, tiny_config, write_shop

ROOT = Path(__file__).parents[2]
SHOP = {"seed": 3, "n_users": 9, "n_items": 14, "n_rows": 130}
CONFIG = {"resources": {"batch_size": 1000, "chunk_size": 9}}


def test_a_build_in_the_cuda_simulator_gives_the_same_content(tmp_path):
    tables = write_shop(random_shop(**SHOP), tmp_path / "input")
    expected = build(
        tables, tmp_path / "expected", tiny_config(**CONFIG), backend="cpu"
    ).manifest.to_dict()
    command = [
        sys.executable,
        "-m",
        "tests.gpu.simulated",
        str(tables),
        str(tmp_path / "simulated"),
        json.dumps(CONFIG),
    ]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["content_digest"] == expected["content_digest"]
    assert found["grids"] > 50 and {
        "mine_hard",
        "draw_random",
        "check_group",
        "find_neighbors",
    } <= set(found["kernels"])
