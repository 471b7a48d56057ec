"""The `gpu-dcgen` command."""

from . import build_commands, dataset_commands  # noqa: F401 - they register their commands, in this order
from .options import app

__all__ = ["app"]
