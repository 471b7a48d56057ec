"""gpu-dcgen: from a shop's purchase log to contrastive training samples. `import gpu_dcgen` alone loads nothing heavy."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "ContrastiveDataset": "training.dataset",
    "ContrastiveStream": "training.stream",
    "append": "dataset_generator",
    "build": "dataset_generator",
    "DatasetConfig": "config",
    "ProgressTracker": "monitoring.progress",
    "QualityMetrics": "quality_validator",
}

__all__ = [
    "ContrastiveDataset",
    "ContrastiveStream",
    "DatasetConfig",
    "ProgressTracker",
    "QualityMetrics",
    "__version__",
    "append",
    "build",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
