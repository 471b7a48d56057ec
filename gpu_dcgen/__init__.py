"""Contrastive training data from a shop's purchase log.

Example:
    >>> import gpu_dcgen
    >>> config = gpu_dcgen.load_config(overrides=["split.train_share=0.7"])
    >>> result = gpu_dcgen.build("data/processed", "data/training", config)
    >>> gpu_dcgen.validate("data/training", checksums=True)  # problems of its files
    []
    >>> samples = gpu_dcgen.ContrastiveStream("data/training", "train", layout="groups")

`import gpu_dcgen` loads nothing heavy; each name is imported when it is first used.

What's where:

| package or module     | content |
|-----------------------|---|
| `contract`            | data contract DC-002 as data: columns, budgets, gates, JSON documents |
| `config`              | `DatasetConfig`, one section per subject |
| `errors`              | exceptions with exit codes |
| `backend`             | the protocol of a backend, its selection, the GPU backend |
| `kernels`             | functions of one row that numba compiles for CPU and GPU |
| `thrift`              | a reader of Thrift's compact protocol, for Parquet footers |
| `resources`           | checks of free memory, disk, open files and lengths of paths |
| `storage`             | locations, staging and publishing, checkpoints, remote storage |
| `inputs`              | stage 1: tables -> `Shop`, bad rows set aside |
| `preparation`         | stages 2 to 4: interactions, features, windows, splits, weights |
| `similarity_computer` | stage 5: most similar items |
| `sequence_builder`    | stage 6: histories of users |
| `negative_sampler`    | stage 7: hard and random negatives |
| `samples`             | stage 8: blocks of samples |
| `quality_validator`   | stage 9: checks, statistics, gates |
| `outputs`             | stage 10: the files of a dataset |
| `digest`, `tallies`   | digests of content, and counts: sums over blocks |
| `dataset_generator`   | `build` and `append`: the stages in order, published in one step |
| `cluster`             | builds by many processes and machines (Dask) |
| `monitoring`          | progress, events, alerts, timings |
| `preflight`           | `init`, `doctor` and `plan` |
| `auditing`            | a second implementation of the rules, and certificates |
| `reporting`, `cards`  | a page on a dataset, and its descriptions for catalogs |
| `training`            | datasets, losses and exports for PyTorch and others |
| `example_data`        | tables to try the package on |
| `cli`                 | the command `gpu-dcgen` |

The CPU backend is the package `cpu_fallback`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auditing import audit
    from .config import DatasetConfig, load_config
    from .dataset_generator import BuildResult, append, build, build_folds
    from .errors import (
        BackendError,
        ConfigError,
        DcgenError,
        GateError,
        InputError,
        MissingPackageError,
        OutputError,
    )
    from .monitoring.progress import ProgressTracker
    from .quality_validator import QualityMetrics
    from .reporting import write_report as report
    from .storage.integrity import validate
    from .training.dataset import ContrastiveDataset
    from .training.history import compute_in_history
    from .training.in_batch import InBatch
    from .training.losses import info_nce, ranking_loss
    from .training.stream import ContrastiveStream

__version__ = "0.1.0"

# Public name -> module below this package, and the name there.
_HOMES = {
    "BackendError": ("errors", "BackendError"),
    "BuildResult": ("dataset_generator", "BuildResult"),
    "ConfigError": ("errors", "ConfigError"),
    "ContrastiveDataset": ("training.dataset", "ContrastiveDataset"),
    "ContrastiveStream": ("training.stream", "ContrastiveStream"),
    "DatasetConfig": ("config", "DatasetConfig"),
    "DcgenError": ("errors", "DcgenError"),
    "GateError": ("errors", "GateError"),
    "InBatch": ("training.in_batch", "InBatch"),
    "InputError": ("errors", "InputError"),
    "MissingPackageError": ("errors", "MissingPackageError"),
    "OutputError": ("errors", "OutputError"),
    "ProgressTracker": ("monitoring.progress", "ProgressTracker"),
    "QualityMetrics": ("quality_validator", "QualityMetrics"),
    "append": ("dataset_generator", "append"),
    "audit": ("auditing", "audit"),
    "build": ("dataset_generator", "build"),
    "build_folds": ("dataset_generator", "build_folds"),
    "compute_in_history": ("training.history", "compute_in_history"),
    "info_nce": ("training.losses", "info_nce"),
    "load_config": ("config", "load_config"),
    "ranking_loss": ("training.losses", "ranking_loss"),
    "report": ("reporting", "write_report"),
    "validate": ("storage.integrity", "validate"),
}

__all__ = [
    "BackendError",
    "BuildResult",
    "ConfigError",
    "ContrastiveDataset",
    "ContrastiveStream",
    "DatasetConfig",
    "DcgenError",
    "GateError",
    "InBatch",
    "InputError",
    "MissingPackageError",
    "OutputError",
    "ProgressTracker",
    "QualityMetrics",
    "__version__",
    "append",
    "audit",
    "build",
    "build_folds",
    "compute_in_history",
    "info_nce",
    "load_config",
    "ranking_loss",
    "report",
    "validate",
]

# Type checkers read the imports above. With a `__getattr__` they would accept any name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import a public name from its module."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, attribute = _HOMES[name]
        return getattr(import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
