"""What the parts of a build share."""

from __future__ import annotations

from dataclasses import dataclass

from .backend.protocol import Backend
from .config import DatasetConfig
from .monitoring.progress import ProgressTracker
from .monitoring.timing import BuildTimer
from .storage.checkpoints import Checkpoints


@dataclass(frozen=True)
class BuildContext:
    """The settings of a build, the backend that computes it, and who times and checkpoints it."""

    config: DatasetConfig
    backend: Backend
    timer: BuildTimer
    checkpoints: Checkpoints | None = None  # None: nothing is saved for --resume

    @property
    def progress(self) -> ProgressTracker:
        """The tracker of the build's stages."""
        return self.timer.progress
