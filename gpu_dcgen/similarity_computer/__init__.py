"""Stage 5: compute the most similar items of each item (module of the contract)."""

from .compute import Neighbors, compute_neighbors

__all__ = ["Neighbors", "compute_neighbors"]
