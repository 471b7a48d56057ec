"""The `gpu-dcgen` command."""

from . import (  # noqa: F401 - they register their commands in order
    build_commands,
    check_commands,
    dataset_commands,
)
from .app import app

__all__ = ["app"]
