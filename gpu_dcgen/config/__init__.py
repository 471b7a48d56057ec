"""Every setting of a build, checked."""

from .dataset_config import DatasetConfig
from .loading import load_config

__all__ = ["DatasetConfig", "load_config"]
