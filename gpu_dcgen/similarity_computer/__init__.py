"""Stage 5 (contract module): item-item neighbors."""

from .compute import Neighbors, compute_neighbors

__all__ = ["Neighbors", "compute_neighbors"]
