"""The exact engine of stage 5: each item's neighbors by counting the purchases that it has in common with every other (D10)."""

from __future__ import annotations

from typing import Any, Protocol

from ..backend.halving import split_on_out_of_memory
from ..backend.protocol import Array, Backend
from ..config import DatasetConfig
from .matrix import MatrixByItemAndUser, WeightedMatrix

# of a neighbor, before and after it is laid end to end: item, similarity, common users
PAIR_BYTES = 24


class NeighborWorkers(Protocol):
    """Other processes that find neighbors (`cluster`); the result is what this process would have computed."""

    def find_neighbors(
        self, sides: MatrixByItemAndUser, blocks: list[tuple[int, int]], progress: Any
    ) -> list[tuple[Array, ...]]:
        """`nearest_by_buyers` of each block of items (first, last), in the blocks' order."""


def find_neighbors(
    matrix: WeightedMatrix,
    config: DatasetConfig,
    backend: Backend,
    progress: Any,
    workers: NeighborWorkers | None = None,
) -> tuple[Array, ...]:
    """All neighbors, a block of items at a time: lengths (I,) int32; laid end to end, by falling similarity, then rising item,
    item int32, similarity float32 and common users int32.
    """
    sides, n_items = matrix.sides(backend), int(matrix.norms.shape[0])
    size = backend.block_size(config.resources.chunk_size, PAIR_BYTES * config.similarity.top_k)
    blocks = [(first, min(n_items, first + size)) for first in range(0, n_items, size)]
    if workers is not None:
        found = workers.find_neighbors(sides, blocks, progress)
    else:
        found = []
        for first, last in blocks:
            found.append(nearest_by_buyers(first, last, sides, config, backend))
            progress.advance(last - first)
    return tuple(backend.xp.concatenate(parts) for parts in zip(*found, strict=True))


def nearest_by_buyers(
    first: int, last: int, sides: MatrixByItemAndUser, config: DatasetConfig, backend: Backend
) -> tuple[Array, ...]:
    """Of items first..last-1, laid end to end: lengths (n,) int32, item int32, similarity float32, common users int32."""
    limits = {
        "min_common": config.similarity.min_common_users,
        "top_k": config.similarity.top_k,
        "packed": sides.packed,
    }

    def block(first: int, last: int) -> tuple[Array, ...]:
        return backend.similarity_block(
            first, last, sides.by_item, sides.by_user, sides.norms, **limits
        )

    halves = split_on_out_of_memory(block, first, last, "similarity, items", backend)
    return (
        halves[0]
        if len(halves) == 1
        else tuple(backend.xp.concatenate(parts) for parts in zip(*halves, strict=True))
    )
