"""Exact engine of stage 5: count the purchases that pairs of items have in common (D10)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from ..backend.halving import split_on_out_of_memory
from ..backend.protocol import Array, Backend, MatrixByItemAndUser
from ..config import DatasetConfig, SimilarityConfig
from ..monitoring.progress import ProgressTracker
from .matrix import WeightedMatrix

# The neighbors of consecutive items: lengths (n,) int32; laid end to end, by falling similarity,
# then rising item: item int32, similarity float32, common users int32.
NeighborRuns = tuple[Array, Array, Array, Array]
# of a neighbor in a block and in the result: item, similarity, common users
PAIR_BYTES = 24


class NeighborWorkers(Protocol):
    """Worker processes that find neighbors (`cluster`), with the results of this process."""

    def find_neighbors(
        self,
        matrix: MatrixByItemAndUser,
        blocks: list[tuple[int, int]],
        progress: ProgressTracker,
        /,
    ) -> list[NeighborRuns]:
        """Return `find_neighbors_of_block` of each block (first, last), in the blocks' order."""


def find_neighbors(
    matrix: WeightedMatrix,
    config: DatasetConfig,
    backend: Backend,
    progress: ProgressTracker,
    workers: NeighborWorkers | None = None,
) -> NeighborRuns:
    """Return the neighbors of all items, computed a block of items at a time."""
    by_both, n_items = matrix.by_item_and_user(backend), int(matrix.norms.shape[0])
    size = backend.choose_block_size(
        config.resources.chunk_size, PAIR_BYTES * config.similarity.top_k
    )
    blocks = [(first, min(n_items, first + size)) for first in range(0, n_items, size)]
    if workers is not None:
        return concatenate_runs(workers.find_neighbors(by_both, blocks, progress), backend.xp)
    runs = []
    for first, last in blocks:
        runs.append(find_neighbors_of_block(first, last, by_both, config.similarity, backend))
        progress.advance(last - first)
    return concatenate_runs(runs, backend.xp)


def find_neighbors_of_block(
    first: int, last: int, matrix: MatrixByItemAndUser, settings: SimilarityConfig, backend: Backend
) -> NeighborRuns:
    """Return the neighbors of items first..last-1."""

    def compute(first: int, last: int) -> NeighborRuns:
        return backend.find_similar_items(
            first,
            last,
            matrix,
            min_common_users=settings.min_common_users,
            top_k=settings.top_k,
        )

    blocks = split_on_out_of_memory(compute, first, last, "similarity, items", backend)
    return blocks[0] if len(blocks) == 1 else concatenate_runs(blocks, backend.xp)


def concatenate_runs(blocks: Iterable[NeighborRuns], xp: Any) -> NeighborRuns:
    """Join the neighbors of blocks of items that follow one another."""
    lengths, item, similarity, common_users = map(xp.concatenate, zip(*blocks, strict=True))
    return lengths, item, similarity, common_users
