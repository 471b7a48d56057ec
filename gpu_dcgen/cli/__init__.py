"""The `gpu-dcgen` command."""

from . import build_commands, dataset_commands  # noqa: F401 - they register their commands in order
from .app import app

__all__ = ["app"]
