"""The seam between the stages and workers beyond this process: who makes the neighbors of items, and parts of samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .config import DatasetConfig
    from .parts import Part
    from .samples import Ingredients
    from .weighted_matrix import Sides

Array = Any


class Workers(Protocol):
    """Processes of this machine or of others (`cluster`). What they make is what this process would have made."""

    def find_neighbors(self, sides: "Sides", blocks: list[tuple[int, int]], progress: Any) -> list[tuple[Array, ...]]:
        """`exact_neighbors.nearest_by_buyers` of each block of items (first, last), in the blocks' order."""

    def write_parts(
        self, parts: "list[Part]", have: "Ingredients", config: "DatasetConfig", finish: "Callable[[Part], None]", progress: Any
    ) -> None:
        """`parts.write_parts`: write each part's file, and hand the part, with its record, to `finish`."""

    def told(self) -> dict[str, Any]:
        """What the manifest tells of them."""
