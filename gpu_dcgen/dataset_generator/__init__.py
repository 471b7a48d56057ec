"""Run builds from tables to published datasets (contract module)."""

from .builder import BuildResult, append, build, select
from .folds import build_folds

__all__ = ["BuildResult", "append", "build", "build_folds", "select"]
