"""Groups of candidates as tensors, and the batches that are made of them.

A group is a positive and its negatives (D16). Values that its candidates share (the user, the time)
are stored once; other values have one column per candidate: the positive, its hard negatives, its
random negatives. Codes and indices count from 1; 0 is unknown, or padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

import torch
from torch import Tensor

PARTS = ("user_features", "item_features", "metadata")  # of groups and of batches
SEQUENCE = "user_interaction_sequence"

BatchLayout = Literal["samples", "groups"]


class InBatchNegatives(TypedDict):
    """The positives of a batch as negatives: entry [i, j] is positive j for row i."""

    allowed: Tensor
    """(n, n) bool: whether positive j may be a negative of row i."""
    log_q: Tensor
    """(n, n) float32: log-probability that positive j is a candidate; 0 where not allowed."""
    in_history: Tensor
    """(n, n, 3) float32: positive j in the history of row i, as of `compute_in_history`."""


class Batch(TypedDict):
    """A batch in the contract's `sample_format`.

    With the layout "samples" a row is a user and one candidate: every tensor begins with (n,).
    With "groups" a row is a positive with its negatives: item features and labels are (n, width).
    A single sample of `ContrastiveDataset` is the same without the first dimension.
    """

    user_features: dict[str, Tensor]
    """int32, float32 or bool, (n,); the sequence (n, max_length): oldest first, 0 at the end."""
    item_features: dict[str, Tensor]
    """int32 or float32, (n,) or (n, width); from `InBatch` also `in_history`, (n, width, 3)."""
    label: Tensor
    """float32, (n,) or (n, width): 1 for the positive, 0 for negatives."""
    metadata: dict[str, Tensor]
    """Times (int64, ns since 1970 UTC), sources and weights; `group_number` int64, `slot` int16."""
    log_q: NotRequired[Tensor]
    """From `InBatch`: (n, width) float32, what `info_nce` subtracts from the logits."""
    in_batch: NotRequired[InBatchNegatives]
    """From `InBatch`: the batch's positives as negatives."""


@dataclass(frozen=True)
class CandidateGroups:
    """n groups as tensors of equal first dimension: int32, float32 or bool, times int64.

    Times are nanoseconds since 1970 UTC.
    """

    # (n,); the sequence (n, max_length) int32 item_index: oldest first, 0 at the end
    user_features: dict[str, Tensor]
    item_features: dict[str, Tensor]  # (n, width)
    # (n,) of the group or (n, width) of its candidates; `slot` 0 is the positive
    metadata: dict[str, Tensor]

    def __len__(self) -> int:
        return self.metadata["slot"].shape[0]

    @property
    def width(self) -> int:
        """Number of candidates of a group."""
        return self.metadata["slot"].shape[1]

    def map(self, transform: Callable[[Tensor], Tensor]) -> CandidateGroups:
        """Return the groups with `transform` applied to each tensor."""
        return CandidateGroups(
            *(
                {name: transform(tensor) for name, tensor in getattr(self, part).items()}
                for part in PARTS
            )
        )


def to_group_batch(groups: CandidateGroups) -> Batch:
    """Lay the groups out as a batch with one row per positive (layout "groups")."""
    groups = groups.map(Tensor.contiguous)
    return {
        "user_features": groups.user_features,
        "item_features": groups.item_features,
        "label": (groups.metadata["slot"] == 0).float(),
        "metadata": groups.metadata,
    }


def to_sample_batch(groups: CandidateGroups, column: Tensor | None = None) -> Batch:
    """Lay the groups out as a batch with one row per candidate (layout "samples").

    The first dimension is n * width; with `column` (n,) int64 it is n, for that candidate of each
    group only.
    """
    n, width = len(groups), groups.width

    def repeat(tensor: Tensor) -> Tensor:
        if column is not None:
            return tensor.contiguous()
        if tensor.device.type != "cpu":
            return tensor.repeat_interleave(width, dim=0)
        # NumPy copies in this thread; torch would split the copy among its own threads.
        return torch.from_numpy(tensor.numpy().repeat(width, axis=0))

    def select(tensor: Tensor) -> Tensor:
        if column is None:
            return tensor.reshape(n * width)
        return tensor.gather(1, column[:, None])[:, 0]

    metadata = {
        name: (repeat if tensor.dim() == 1 else select)(tensor)
        for name, tensor in groups.metadata.items()
    }
    return {
        "user_features": {name: repeat(tensor) for name, tensor in groups.user_features.items()},
        "item_features": {name: select(tensor) for name, tensor in groups.item_features.items()},
        "label": (metadata["slot"] == 0).float(),
        "metadata": metadata,
    }


def select_rows(batch: Batch, rows: int | slice) -> Batch:
    """Select rows of a batch that `to_group_batch` or `to_sample_batch` made, or a single one."""
    return {
        "user_features": {name: t[rows] for name, t in batch["user_features"].items()},
        "item_features": {name: t[rows] for name, t in batch["item_features"].items()},
        "label": batch["label"][rows],
        "metadata": {name: t[rows] for name, t in batch["metadata"].items()},
    }


def expand_runs(offsets: Tensor, runs: Tensor) -> tuple[Tensor, Tensor]:
    """List the entries of runs (n,) int64, run i being offsets[i] : offsets[i + 1].

    Returns the position of each entry, and the place of its run among `runs`: (m,) int64 each.
    """
    start, device = offsets[runs], offsets.device
    counts = offsets[runs + 1] - start
    place = torch.arange(len(runs), device=device).repeat_interleave(counts)
    nth = torch.arange(len(place), device=device) - (counts.cumsum(0) - counts)[place]
    return start[place] + nth, place
