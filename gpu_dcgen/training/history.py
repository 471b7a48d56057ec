"""What a user's history says of an item: whether it is there, how often, how recently.

The history is the row's own sequence, strictly before its time (D6), so the features of a candidate
are as of the row whether it is stored, from the batch, or any item of the catalog.
"""

from __future__ import annotations

import torch
from torch import Tensor

HISTORY_FEATURES = ("is_there", "log_count", "recency")


def compute_in_history(sequence: Tensor, items: Tensor) -> Tensor:
    """Compute the history features of candidates.

    Args:
        sequence: (n, max_length) integers, `user_interaction_sequence`: item_index, oldest first,
            0 at the end.
        items: (n, width) item_index of each row's own candidates, or (m,) of candidates that all
            rows share; `torch.arange(n_items + 1)` for all items.

    Returns:
        (n, width, 3) or (n, m, 3) float32, by `HISTORY_FEATURES`: 1 if the item is in the history;
        log(1 + its purchases there); 1 / (1 + purchases after the latest of them). All are 0 for
        other items, and for the padding, item 0.
    """
    features = describe_history(sequence)
    if items.dim() == 1:
        return _spread(sequence.long(), features, items)
    is_equal = (sequence[:, None, :] == items[:, :, None]) & (items != 0)[:, :, None]
    place = is_equal.byte().argmax(dim=2)  # the first of equal ones; their features are the same
    gathered = features.gather(1, place[:, :, None].expand(-1, -1, features.shape[2]))
    return gathered * is_equal.any(dim=2)[:, :, None]


def describe_history(sequence: Tensor) -> Tensor:
    """Compute the history features of the items of the history themselves.

    Args:
        sequence: (n, max_length) integers, as for `compute_in_history`.

    Returns:
        (n, max_length, 3) float32: at each place, the features of the item that is there; 0 at the
        padding. Places of the same item have the same features.
    """
    is_item = sequence > 0
    is_equal = (sequence[:, :, None] == sequence[:, None, :]) & is_item[:, :, None]
    n_later = is_item.long().flip(1).cumsum(1).flip(1) - 1  # purchases after this one
    recency = is_item / (1 + n_later.clamp(min=0)).float()
    latest = (is_equal * recency[:, None, :]).amax(dim=2)
    return torch.stack([is_item.float(), is_equal.sum(dim=2).float().log1p(), latest], dim=2)


def _spread(sequence: Tensor, features: Tensor, items: Tensor) -> Tensor:
    """Give each of the shared `items` its features in each row: (n, m, 3)."""
    offered, column = torch.unique(items, return_inverse=True)
    at = torch.searchsorted(offered, sequence.contiguous()).clamp_(max=len(offered) - 1)
    is_offered = (offered[at] == sequence) & (sequence > 0)
    # Places that are not offered write zeros to a column beyond the last.
    at = torch.where(is_offered, at, len(offered))
    spread = features.new_zeros((len(sequence), len(offered) + 1, features.shape[2]))
    spread.scatter_(
        1,
        at[:, :, None].expand(-1, -1, features.shape[2]),
        features * is_offered[:, :, None],
    )
    return spread[:, column]
