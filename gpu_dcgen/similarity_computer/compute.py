"""Stage 5: Interactions before cut1 -> weighted matrix -> each item's nearest neighbors by common buyers (D9, D10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backend.protocol import Array, Backend
from ..backend.runs import offsets_from_lengths
from ..config import DatasetConfig
from ..preparation.interactions import Interactions
from . import approximate as approximate_neighbors
from . import exact as exact_neighbors
from .exact import NeighborWorkers
from .matrix import WeightedMatrix, build_matrix


@dataclass(frozen=True)
class Neighbors:
    """Each item's most similar items, in the train window."""

    offsets: Array  # (I+1,) int64
    item: Array  # (E,) int32  neighbor, by falling similarity, then rising item
    similarity: Array  # (E,) float32  in (0, 1]
    common_users: Array  # (E,) int32
    known_until: (
        int  # nanoseconds: the time of the latest purchase or view that they were computed from
    )
    info: dict[
        str, Any
    ]  # engine and why, scale_bits, packed, products, nonzeros, pairs, items_with_neighbors; measured recall


def compute_neighbors(
    interactions: Interactions,
    cut1: int,
    config: DatasetConfig,
    backend: Backend,
    progress: Any,
    workers: NeighborWorkers | None = None,
) -> Neighbors:
    """Keep each item's `similarity.top_k` most similar items by buyers in common.

    Cosine over the train window's weighted matrix (D9, D10; Linden et al. 2003), in (0, 1]. Ties: smaller item first.
    Items with fewer than `min_common_users` common buyers are not neighbors. Memory: one block of items at a time. With
    `similarity.engine` approximate some neighbors may be missing; those that are there are the same. `workers` help with the
    exact engine.
    """
    xp = backend.xp
    matrix = build_matrix(interactions, cut1, config, backend)
    engine, reason = choose_engine(matrix, config, backend)
    progress.message("info", f"similarity: {engine} ({reason})")
    if engine == "approximate":
        parts, more = approximate_neighbors.find_neighbors(
            matrix, config, backend, progress, workers
        )
    else:
        parts, more = exact_neighbors.find_neighbors(matrix, config, backend, progress, workers), {}
    lengths, item, similarity, common_users = parts
    info = {
        "engine": engine,
        "reason": reason,
        "scale_bits": matrix.scale_bits,
        "packed": matrix.packed,
        "products": matrix.n_products,
        "nonzeros": int(matrix.user_item.shape[0]),
        "pairs": int(item.shape[0]),
        "items_with_neighbors": int((lengths > 0).sum()),
        **more,
    }
    return Neighbors(
        offsets_from_lengths(xp, lengths), item, similarity, common_users, matrix.known_until, info
    )


def choose_engine(
    matrix: WeightedMatrix, config: DatasetConfig, backend: Backend
) -> tuple[str, str]:
    """The engine to use, and why, from sizes alone (D10); `auto` is approximate where that leaves half the work or less."""
    settings, n_products = config.similarity, matrix.n_products
    if settings.engine != "auto":
        return settings.engine, "asked for"
    if n_products <= settings.exact_products:
        return "exact", f"{n_products:,} products are within similarity.exact_products"
    _, n_left = approximate_neighbors.less_work(matrix, config, backend)
    found = f"{n_products:,} products are beyond similarity.exact_products, and searching where that is less work"
    if 2 * n_left > n_products:
        return "exact", f"{found} would be as much work as {n_left:,}"
    return "approximate", f"{found} is as much work as {n_left:,}"
