"""Stage 5: compute each item's nearest neighbors by common buyers (D9, D10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backend.protocol import Array, Backend
from ..backend.runs import offsets_from_lengths
from ..config import DatasetConfig, SimilarityConfig
from ..monitoring.progress import ProgressTracker
from ..preparation.interactions import Interactions
from . import approximate, exact
from .exact import NeighborWorkers
from .matrix import WeightedMatrix, build_matrix


@dataclass(frozen=True)
class Neighbors:
    """Each item's most similar items in the train window."""

    offsets: Array  # (I+1,) int64
    item: Array  # (E,) int32  neighbor, by falling similarity, then rising item
    similarity: Array  # (E,) float32  in (0, 1]
    common_users: Array  # (E,) int32
    # nanoseconds: time of the latest purchase or view that they are computed from
    known_until: int
    # engine and its reason, scale_bits, packed, products, nonzeros, pairs, items_with_neighbors; of
    # the approximate engine also the measured recall
    info: dict[str, Any]


def compute_neighbors(
    interactions: Interactions,
    cut1: int,
    config: DatasetConfig,
    backend: Backend,
    progress: ProgressTracker,
    workers: NeighborWorkers | None = None,
) -> Neighbors:
    """Compute each item's `similarity.top_k` most similar items by buyers in common.

    Cosine over the train window's weighted matrix (D9, D10; Linden et al. 2003), in (0, 1]. Ties:
    smaller item first. Items with fewer than `min_common_users` common buyers are not neighbors.
    Memory: one block of items at a time. With `similarity.engine` approximate some neighbors may be
    missing; the values of the others are exact. `workers`, where given, run the exact engine.
    """
    matrix = build_matrix(interactions, cut1, config, backend)
    engine, reason = choose_engine(matrix, config.similarity, backend)
    progress.message("info", f"similarity: {engine} ({reason})")
    details: dict[str, Any] = {}
    if engine == "approximate":
        runs, details = approximate.find_neighbors(matrix, config, backend, progress, workers)
    else:
        runs = exact.find_neighbors(matrix, config, backend, progress, workers)
    lengths, item, similarity, common_users = runs
    info = {
        "engine": engine,
        "reason": reason,
        "scale_bits": matrix.scale_bits,
        "packed": matrix.packed,
        "products": matrix.n_products,
        "nonzeros": int(matrix.user_item.shape[0]),
        "pairs": int(item.shape[0]),
        "items_with_neighbors": int((lengths > 0).sum()),
        **details,
    }
    offsets = offsets_from_lengths(backend.xp, lengths)
    return Neighbors(offsets, item, similarity, common_users, matrix.known_until, info)


def choose_engine(
    matrix: WeightedMatrix, settings: SimilarityConfig, backend: Backend
) -> tuple[str, str]:
    """Return the engine to use and the reason, from sizes alone (D10).

    `auto` is approximate where that takes half the work of the exact engine or less.
    """
    n_products = matrix.n_products
    if settings.engine != "auto":
        return settings.engine, "configured"
    if n_products <= settings.exact_products:
        return "exact", f"{n_products:,} products are within similarity.exact_products"
    _, n_searching = approximate.choose_searched_items(matrix, settings, backend)
    reason = (
        f"{n_products:,} products exceed similarity.exact_products; "
        f"the approximate engine takes the work of {n_searching:,}"
    )
    return ("exact" if 2 * n_searching > n_products else "approximate"), reason
