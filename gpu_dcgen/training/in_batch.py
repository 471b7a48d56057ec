"""Negatives from the batch (D14): which are allowed, and how likely each candidate was.

A sampled softmax stands for one over all items that a user could have bought. Its sum over the
negatives is estimated without bias by giving each sampled item the weight 1 / pi, where pi is the
probability that it is among the candidates at all (Horvitz and Thompson 1952). In logits that is a
subtraction of log(pi), "logQ" (Bengio and Senecal 2008; Yi et al. 2019). The positive is not
sampled, so that its logit stays: that is the point of Khrylchenko et al. (2025), "Correcting the
LogQ Correction", RecSys, arXiv:2507.09331. Their loss also weighs each sample by the model's
uncertainty; `losses.info_nce` does not.

A row's candidates are independent samples of the items that its user does not own:

- The batch: pi = 1 - (1 - q) ** (n - 1), with q the item's share of the positives that the batch is
  drawn from (`frequencies.PositiveShares`), n positives in the batch. Its terms sum up to S, the
  sum over all items but the positive.
- R random negatives, uniform over a corpus of C items, each with the weight 1: their terms sum up
  to (R / C) * S. A common factor of all items moves no item against another, and for ten rows of
  thousands the exact weight C / R would only add noise.
- Hard negatives, each with its own pi from `negative_log_q`: their terms sum up to S over the items
  of the positive's list of candidates.

With all three, an item's expected weight is 1 + R / C, and 1 more if it is on the list: a softmax
in which these items count up to twice, and which is exact up to a constant without hard negatives.
Without in-batch negatives all weights are R / C times as large, so that random rows still have the
weight 1, and hard ones (R / C) / pi.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError
from .files import open_split
from .frequencies import PositiveShares
from .groups import SEQUENCE, Batch, CandidateGroups, expand_runs, to_group_batch
from .history import compute_in_history
from .ownership import list_owned, scan_positives
from .snapshots import make_snapshot_grid
from .stream import BatchRule
from .vocabularies import load_vocabularies

_LOG_Q = "negative_log_q"


class InBatch:
    """A `collate` for `ContrastiveStream` that adds negatives from the batch itself.

    Batches have the layout "groups", and for n positives also

    - `log_q`: (n, width) float32, what `info_nce` subtracts from the logit of each candidate of the
      group: 0 for the positive and random negatives, for hard ones their log(pi);
    - `item_features["in_history"]`: (n, width, 3) float32, as of `compute_in_history`;
    - `in_batch`: a dict of `allowed`, (n, n) bool, whether positive j may be a negative of row i;
      `log_q`, (n, n) float32, log(pi) of positive j as a negative of row i; and `in_history`,
      (n, n, 3) float32, of positive j in the history of row i.

    Not allowed are the row's own item, items that the user of row i owns (positives of the split,
    items of `user_sequences.parquet`, the row's history), and second appearances of an item. Items
    that a user of val or test bought more than `max_sequence_length` purchases before the window,
    and never again, are not in the files, so they are not known as owned.

    With `batches="snapshot"`, the default, the stream makes each batch of positives of one item
    snapshot. The item features of positive j are then as of row i's snapshot too, and log(pi) is as
    of that week. With "shuffled" a batch mixes all times, as other libraries do: positive j carries
    the features of its own snapshot, which may be years from row i's, and log(pi) is that of the
    whole split.

    Users, items and times of the whole split are read once, to learn how often each item is a
    positive and what each user owns. These are probabilities of how this split's batches are made,
    so they are counted over this split: for train, over train positives only. Memory: 28 bytes per
    positive.

    Attributes:
        batches: How the stream makes batches: "snapshot" or "shuffled".

    Example:
        >>> stream = ContrastiveStream("data/training", n_hard=0, collate=InBatch("data/training"))
        >>> batch = next(iter(stream))
        >>> batch["in_batch"]["allowed"].shape
        torch.Size([256, 256])
    """

    needs_probabilities = True  # of hard negatives: `ContrastiveStream` looks at it

    def __init__(
        self,
        path: Path | str,
        split: str | None = None,
        *,
        batches: BatchRule = "snapshot",
        from_batch: bool = True,
        smoothing: float = 1000.0,
    ) -> None:
        """Read the users, items and times of a split.

        Args:
            path: Folder of the dataset, or a split's file or folder inside it.
            split: "train", "val" or "test"; train, or that of `path`, unless given.
            batches: "snapshot" for batches of one item snapshot, "shuffled" for batches of all.
            from_batch: False for the stored negatives only, without `in_batch`.
            smoothing: Weight of an item's share of the whole split in its share of a week, in
                positives; above 0. See `PositiveShares`.

        Raises:
            InputError: The files cannot be used.
            ConfigError: An argument cannot be used.
        """
        if batches not in ("snapshot", "shuffled"):
            raise ConfigError(f"batches {batches!r}: expected 'snapshot' or 'shuffled'.")
        if smoothing <= 0:
            raise ConfigError(f"smoothing {smoothing}: expected a number above 0.")
        self.batches = batches
        self._files = open_split(path, split)
        vocabularies = load_vocabularies(self._files.folder)
        self._from_batch = from_batch
        self._grid = make_snapshot_grid(self._files.manifest)
        users, items, times = scan_positives(self._files, vocabularies)
        self._shares = PositiveShares(
            items,
            vocabularies.n_items,
            snapshots=self._grid.find(times) if batches == "snapshot" else None,
            smoothing=smoothing,
        )
        self._offsets, self._owned = list_owned(self._files, vocabularies, users, items)

    def __call__(self, groups: CandidateGroups) -> Batch:
        """Make a batch, on the device of the groups.

        Raises:
            ConfigError: The stream leaves out a column that this needs, its hard negatives have no
                known probability, or it mixes snapshots although `batches` is "snapshot".
        """
        self._require_columns(groups)
        items = groups.item_features["item_index"].long()
        sequence = groups.user_features[SEQUENCE]
        self._move_to(items.device)
        batch = to_group_batch(groups)
        batch["item_features"]["in_history"] = compute_in_history(sequence, items)
        batch["log_q"] = self._compute_stored_log_q(groups)
        if self._from_batch:
            positives, n = items[:, 0], len(groups)
            allowed = self._find_allowed(groups, items)
            log_q = self._shares.compute_log_q(positives, self._find_snapshot(groups), n - 1)
            batch["in_batch"] = {
                "allowed": allowed,
                "log_q": torch.where(allowed, log_q.expand(n, n), 0.0),
                "in_history": compute_in_history(sequence, positives),
            }
        return batch

    def _require_columns(self, groups: CandidateGroups) -> None:
        names = {*groups.user_features, *groups.item_features, *groups.metadata}
        for name in ("user_index", "item_index", SEQUENCE, "timestamp"):
            if name not in names:
                raise ConfigError(
                    f"InBatch: the stream gives no {name}.\n"
                    f"Add user_id, item_id, {SEQUENCE} and timestamp to its columns."
                )
        slot = groups.metadata["slot"][0]
        if _LOG_Q in names or not ((slot > 0) & (slot <= self._files.n_hard)).any():
            return
        if _LOG_Q in self._files.schema.names:
            raise ConfigError(
                f"InBatch: the stream gives hard negatives, but no {_LOG_Q}.\n"
                f"Add {_LOG_Q} to its columns, or leave the hard negatives out with n_hard=0."
            )
        raise ConfigError(
            f"InBatch: this dataset has no column {_LOG_Q}, so that its hard negatives cannot be"
            " weighed in a softmax.\nLeave them out: give the stream n_hard=0. Or build the dataset"
            " again with this version."
        )

    def _compute_stored_log_q(self, groups: CandidateGroups) -> Tensor:
        """Return what to subtract from the logits of a group's candidates: (n, width) float32."""
        slot = groups.metadata["slot"]
        is_hard = (slot > 0) & (slot <= self._files.n_hard)
        if _LOG_Q not in groups.metadata:
            return torch.zeros_like(slot, dtype=torch.float32)
        log_q = groups.metadata[_LOG_Q]
        # Some of those stored, chosen at random, were less likely by their share.
        n_hard = is_hard.sum(dim=1, keepdim=True)
        log_q = log_q + torch.log(n_hard / max(self._files.n_hard, 1))
        if not self._from_batch:
            is_random = slot > self._files.n_hard
            n_random = is_random.sum(dim=1, keepdim=True)
            scale = torch.where(is_random, groups.metadata[_LOG_Q], -torch.inf).amax(
                1, keepdim=True
            )
            scale = scale + torch.log(n_random / max(self._files.n_random, 1))
            log_q = log_q - torch.where(n_random > 0, scale, 0.0)
        return torch.where(is_hard, log_q, 0.0)

    def _find_snapshot(self, groups: CandidateGroups) -> int:
        """Return the snapshot that the groups share; 0 where they need not share one."""
        if self.batches == "shuffled":
            return 0
        snapshots = self._grid.find(groups.metadata["timestamp"])
        first, last = int(snapshots.min()), int(snapshots.max())
        if first != last:
            raise ConfigError(
                f"InBatch: a batch has positives of the item snapshots {first} to {last}, expected"
                " of one.\nIterate over a ContrastiveStream with this collate, or give InBatch"
                " batches='shuffled'."
            )
        return first

    def _move_to(self, device: torch.device) -> None:
        if self._offsets.device != device:
            self._shares.to(device)
            self._offsets, self._owned = self._offsets.to(device), self._owned.to(device)

    def _find_allowed(self, groups: CandidateGroups, items: Tensor) -> Tensor:
        """Find which positives may be negatives of which rows: (n, n) bool; see the class."""
        n, device = len(groups), items.device
        place = torch.arange(n, device=device)
        offered, column = torch.unique(items[:, 0], return_inverse=True)
        is_excluded = torch.zeros((n, len(offered)), dtype=torch.bool, device=device)

        def exclude(rows: Tensor, excluded: Tensor) -> None:
            at = torch.searchsorted(offered, excluded.contiguous()).clamp_(max=len(offered) - 1)
            is_offered = offered[at] == excluded
            is_excluded[rows[is_offered], at[is_offered]] = True

        user = groups.user_features["user_index"].long()
        owned, rows = expand_runs(self._offsets, user)
        exclude(rows, self._owned[owned].long())
        for lists in (items[:, :1], groups.user_features[SEQUENCE].long()):
            exclude(place.repeat_interleave(lists.shape[1]), lists.reshape(-1))
        first = torch.full((len(offered),), n, device=device)
        first = first.scatter_reduce(0, column, place, "amin")
        return ~is_excluded[:, column] & (first[column] == place)
