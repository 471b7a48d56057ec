"""How often each item is a positive, over a split or around one snapshot, for logQ (D14)."""

from __future__ import annotations

import torch
from torch import Tensor

_MAX_SHARE = 1 - 1e-9  # keeps log(1 - share) finite


class PositiveShares:
    """The share of each item among the positives that a batch is drawn from.

    Without snapshots, an item's share of the split's positives. With snapshots, its share of the
    positives of one snapshot k, smoothed over time and by the whole split:

        share_k(item) = (n_k(item) + smoothing * share(item)) / (n_k + smoothing)

    where n_k counts the positives of the snapshots k - 1, k and k + 1. So the split's share counts
    as `smoothing` more positives, and an item without purchases around k has a share above 0.
    Memory: 16 bytes for each snapshot and item with a positive.
    """

    def __init__(
        self, items: Tensor, n_items: int, *, snapshots: Tensor | None, smoothing: float
    ) -> None:
        """Count the positives.

        Args:
            items: (N,) int64 item_index of the split's positives.
            n_items: Number of items, without the padding.
            snapshots: (N,) int64, their snapshots; None for shares of the whole split.
            smoothing: Weight of the split's share, in positives; above 0.
        """
        counts = torch.bincount(items, minlength=n_items + 1)
        self._share = counts.double() / len(items)
        self._smoothing = smoothing
        self._keys: Tensor | None = None
        if snapshots is not None:
            self._keys, self._counts = torch.unique(
                snapshots * (n_items + 1) + items, return_counts=True
            )
            # One empty snapshot before the first and one after the last.
            totals = torch.bincount(snapshots + 1, minlength=int(snapshots.max()) + 3)
            self._totals = totals

    def to(self, device: torch.device) -> None:
        """Move the counts to a device."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))

    def compute_log_q(self, items: Tensor, snapshot: int, n_draws: int) -> Tensor:
        """Compute the log-probability that `n_draws` positives have an item among them.

        Args:
            items: (m,) int64 item_index.
            snapshot: The snapshot of the batch; not used without snapshots.
            n_draws: Positives of the batch that may be it.

        Returns:
            (m,) float32, log(1 - (1 - share) ** n_draws); -inf with 0 draws.
        """
        share = self._share[items]
        if self._keys is not None:
            count, total = self._count_around(items, snapshot)
            share = (count + self._smoothing * share) / (total + self._smoothing)
        log_absent = n_draws * torch.log1p(-share.clamp(max=_MAX_SHARE))
        return torch.log(-torch.expm1(log_absent)).float()

    def _count_around(self, items: Tensor, snapshot: int) -> tuple[Tensor, int]:
        """Count the items among the positives of three snapshots, and all of these positives."""
        assert self._keys is not None
        width = len(self._share)
        keys = (torch.arange(snapshot - 1, snapshot + 2, device=items.device) * width)[:, None]
        keys = keys + items
        at = torch.searchsorted(self._keys, keys).clamp_(max=len(self._keys) - 1)
        count = torch.where(self._keys[at] == keys, self._counts[at], 0).sum(dim=0)
        return count, int(self._totals[snapshot : snapshot + 3].sum())
