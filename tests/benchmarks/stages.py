"""Results of the build's stages in files, which measurements load as their inputs.

`python -m tests.benchmarks.stages TABLES FOLDER THREADS` computes them.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpu_dcgen.backend.protocol import Backend
from gpu_dcgen.backend.select import select_backend
from gpu_dcgen.config import DatasetConfig
from gpu_dcgen.inputs.shop import load_shop
from gpu_dcgen.monitoring.progress import ProgressTracker
from gpu_dcgen.negative_sampler import SamplerInputs, find_candidates
from gpu_dcgen.preparation.balancing import compute_balance
from gpu_dcgen.preparation.features import compute_features
from gpu_dcgen.preparation.interactions import build_interactions
from gpu_dcgen.preparation.splits import plan_splits
from gpu_dcgen.preparation.windows import cut_windows
from gpu_dcgen.samples import StageResults, collect_results
from gpu_dcgen.sequence_builder import build_calendar
from gpu_dcgen.similarity_computer.compute import compute_neighbors
from gpu_dcgen.similarity_computer.matrix import build_matrix

from .measure import ROOT, Log


def make_setting(threads: int, **sections: Any) -> tuple[DatasetConfig, Backend]:
    """Return the default settings but for `sections`, and the CPU with so many threads."""
    config = DatasetConfig(resources={"num_workers": threads}, **sections)
    return config, select_backend("cpu", n_threads=threads)[0]


def prepare(tables: Path, folder: Path, threads: int) -> None:
    """Run the stages with default settings; write a pickle a result, and facts.json."""
    config, backend = make_setting(threads)
    shop = load_shop(tables, config, backend)
    log = build_interactions(shop, config, backend)
    windows = cut_windows(shop.time, log.first_time, log.last_time, config.split, backend)
    features = compute_features(log, windows.cut1, config, backend)
    plan = plan_splits(log, features, windows, config, backend)
    matrix = build_matrix(log, windows.cut1, config, backend)
    results = {
        "log": log,
        "features": features,
        "plan": plan,
        "balance": compute_balance(log, plan, config.category_balancing, backend),
        "neighbors": compute_neighbors(log, windows.cut1, config, backend, ProgressTracker()),
        "matrix": matrix.csr(backend).astype("float32"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, result in results.items():
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(result, protocol=5))
    facts = {
        "transactions": log.n_accepted,
        "interactions": log.n_rows,
        "users": log.n_users,
        "items": log.n_items,
        "positives": {positives.split: len(positives) for positives in plan.positives},
        "matrix_cells": int(matrix.user_item.shape[0]),
        "matrix_products": matrix.n_products,
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def require(log: Log, threads: int) -> None:
    """Prepare the log's stages in another process, unless they exist."""
    if not (log.stages / "facts.json").exists():
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.stages",
            str(log.tables),
            str(log.stages),
            str(threads),
        ]
        subprocess.run(command, cwd=ROOT, check=True)


def load_results(log: Log, *names: str) -> list[Any]:
    """Load the named results of the log's stages."""
    return [pickle.loads((log.stages / f"{name}.pickle").read_bytes()) for name in names]


def read_facts(log: Log) -> dict[str, Any]:
    """Read the log's numbers; {} where its stages have not been prepared."""
    path = log.stages / "facts.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def load_stage_results(log: Log, config: DatasetConfig, backend: Backend) -> StageResults:
    """Load what blocks of samples are made of, as the build collects it."""
    interactions, features, plan, balance, neighbors = load_results(
        log, "log", "features", "plan", "balance", "neighbors"
    )
    stages = interactions, features, neighbors
    inputs = SamplerInputs(*stages, find_candidates(*stages, plan, config, backend))
    calendar = build_calendar(interactions.first_time, interactions.last_time, config, backend)
    return collect_results(inputs, plan, balance, calendar, 0, config, backend)


def spread_blocks(n: int, size: int, max_rows: int) -> list[slice]:
    """Return blocks of `size` evenly spread over 0..n-1, at most `max_rows` together."""
    starts = range(0, n, size)
    step = max(1, -(-len(starts) // max(1, max_rows // size)))
    return [slice(start, min(n, start + size)) for start in starts[::step]]


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
