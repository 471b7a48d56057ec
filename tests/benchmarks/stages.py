"""The results of the build's stages over a log, kept in files: each measurement loads those that it starts from.

`python -m tests.benchmarks.stages TABLES FOLDER THREADS` makes them.
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
from gpu_dcgen.negative_sampler import prepare_sources
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


def setting(threads: int, **sections: Any) -> tuple[DatasetConfig, Backend]:
    """The default settings but for `sections`, and the CPU with so many threads."""
    config = DatasetConfig(resources={"num_workers": threads}, **sections)
    return config, select_backend("cpu", n_threads=threads)[0]


def prepare(tables: Path, folder: Path, threads: int) -> None:
    """Run the stages over the tables with default settings; one pickle a result, and `facts.json`: the log in numbers."""
    config, backend = setting(threads)
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
        with open(folder / f"{name}.pickle", "wb") as file:
            pickle.dump(result, file, protocol=5)
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
    """Prepare the log's stages in a process of their own, unless they are there."""
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


def load(log: Log, *names: str) -> list[Any]:
    """The named results of the log's stages."""
    found = []
    for name in names:
        with open(log.stages / f"{name}.pickle", "rb") as file:
            found.append(pickle.load(file))
    return found


def facts(log: Log) -> dict[str, Any]:
    """The log in numbers; {} where its stages have not been prepared."""
    path = log.stages / "facts.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def ingredients(log: Log, config: DatasetConfig, backend: Backend) -> StageResults:
    """What blocks of samples are made of, as the build gathers it."""
    interactions, features, plan, balance, neighbors = load(
        log, "log", "features", "plan", "balance", "neighbors"
    )
    sources = prepare_sources(interactions, features, config, backend)
    calendar = build_calendar(interactions.first_time, interactions.last_time, config, backend)
    return collect_results(
        interactions, features, neighbors, sources, balance, calendar, plan, 0, backend
    )


def spread_blocks(n: int, size: int, most: int) -> list[slice]:
    """Blocks of `size` out of 0..n-1, no more than `most` rows together, evenly spread: the whole period is seen."""
    starts = range(0, n, size)
    step = max(1, -(-len(starts) // max(1, most // size)))
    return [slice(start, min(n, start + size)) for start in starts[::step]]


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
