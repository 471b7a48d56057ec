"""Negatives from the batch (D14): which are allowed, and how likely each candidate was.

A sampled softmax stands for one over all items that a user could have bought. Its sum over the
negatives is estimated without bias by giving each sampled item the weight 1 / pi, where pi is the
probability that it is among the candidates at all (Horvitz and Thompson 1952). In logits that is a
subtraction of log(pi), "logQ" (Bengio and Senecal 2008; Yi et al. 2019). An item that both the
batch and the random draw offer is a candidate only once, so the two combine to

    pi = 1 - (1 - p) ** (n - 1) * (1 - R / C)

with p the item's share of the split's positives, n the positives in the batch, and R random
negatives from a corpus of C items. The positive and the hard negatives are candidates for certain:
log(pi) = 0. That the positive is not sampled is the point of Khrylchenko et al. (2025), "Correcting
the LogQ Correction", RecSys, arXiv:2507.09331. Their loss also weighs each sample by the model's
uncertainty; `losses.info_nce` does not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from .files import SplitFiles, open_split, read_table
from .groups import SEQUENCE, Batch, CandidateGroups, to_group_batch
from .row_groups import RowGroupReader
from .vocabularies import DatasetVocabularies, load_vocabularies


class InBatch:
    """A `collate` for `ContrastiveStream` that adds negatives from the batch itself.

    Batches have the layout "groups", and for n positives also

    - `log_q`: (n, width) float32, log(pi) of each candidate of the group,
    - `in_batch`: a dict of `allowed`, (n, n) bool, whether positive j may be a negative of row i,
      and `log_q`, (n, n) float32, log(pi) of positive j as a negative of row i.

    Not allowed are items that the user of row i owns (positives of the split, items of
    `user_sequences.parquet`, the row's history), candidates that the row has already, and second
    appearances of an item. Items that a user of val or test bought more than `max_sequence_length`
    purchases before the window, and never again, are not in the files, so they are not known as
    owned. An item in the batch was on sale when it was bought, perhaps not at the time of row i.

    Users and items of the whole split are read once, to learn how often each item is a positive,
    what each user owns, and how large the corpus was. Memory: 12 bytes per positive.

    Example:
        >>> stream = ContrastiveStream("data/training", collate=InBatch("data/training"))
        >>> batch = next(iter(stream))
        >>> batch["in_batch"]["allowed"].shape
        torch.Size([256, 256])
    """

    def __init__(
        self, path: Path | str, split: str | None = None, *, from_batch: bool = True
    ) -> None:
        """Read the users and items of a split.

        Args:
            path: Folder of the dataset, or a split's file or folder inside it.
            split: "train", "val" or "test"; train, or that of `path`, unless given.
            from_batch: False for `log_q` of the stored negatives only, without `in_batch`.

        Raises:
            InputError: The files cannot be used.
        """
        self._files = open_split(path, split)
        vocabularies = load_vocabularies(self._files.folder)
        self._from_batch = from_batch
        self._firsts = torch.tensor([group.first for group in self._files.row_groups])
        users, items, self._corpus_sizes = _scan(self._files, vocabularies)
        share = torch.bincount(items, minlength=vocabularies.n_items + 1) / len(items)
        # log(1 - p) by item_index; finite also for an item that is every positive
        self._log_not_positive = torch.log1p(-share.double().clamp(max=1 - 1e-9))
        self._offsets, self._owned = _list_owned(self._files, vocabularies, users, items)

    def __call__(self, groups: CandidateGroups) -> Batch:
        """Make a batch, on the device of the groups.

        Raises:
            ConfigError: The stream leaves out user_id, item_id or the sequence.
        """
        _require_columns(groups)
        slot = groups.metadata["slot"]
        self._move_to(slot.device)
        is_random = slot > self._files.n_hard
        n_random = is_random.sum(dim=1, keepdim=True)
        row_group = torch.bucketize(groups.metadata["group_number"], self._firsts, right=True) - 1
        corpus_size = torch.maximum(self._corpus_sizes[row_group][:, None], n_random + 1)
        log_not_drawn = torch.log1p(-n_random / corpus_size)
        n_other = len(groups) - 1 if self._from_batch else 0

        def compute_log_q(items: Tensor) -> Tensor:
            log_not_candidate = n_other * self._log_not_positive[items] + log_not_drawn
            return torch.log(-torch.expm1(log_not_candidate)).float()

        items = groups.item_features["item_index"].long()
        batch = to_group_batch(groups)
        batch["log_q"] = torch.where(is_random, compute_log_q(items), 0.0)
        if self._from_batch:
            allowed = self._find_allowed(groups, items)
            log_q = compute_log_q(items[:, 0].expand_as(allowed))
            batch["in_batch"] = {"allowed": allowed, "log_q": torch.where(allowed, log_q, 0.0)}
        return batch

    def _move_to(self, device: torch.device) -> None:
        if self._corpus_sizes.device != device:
            for name in ("_firsts", "_corpus_sizes", "_log_not_positive", "_offsets", "_owned"):
                setattr(self, name, getattr(self, name).to(device))

    def _find_allowed(self, groups: CandidateGroups, items: Tensor) -> Tensor:
        """Find which positives may be negatives of which rows: (n, n) bool; see the class."""
        n, device = len(groups), items.device
        place = torch.arange(n, device=device)
        offered, column = torch.unique(items[:, 0], return_inverse=True)
        is_excluded = torch.zeros((n, len(offered)), dtype=torch.bool, device=device)

        def exclude(rows: Tensor, excluded: Tensor) -> None:
            at = torch.searchsorted(offered, excluded).clamp_(max=len(offered) - 1)
            is_offered = offered[at] == excluded
            is_excluded[rows[is_offered], at[is_offered]] = True

        user = groups.user_features["user_index"].long()
        start = self._offsets[user]
        n_owned = self._offsets[user + 1] - start
        rows = place.repeat_interleave(n_owned)
        nth = torch.arange(len(rows), device=device) - (n_owned.cumsum(0) - n_owned)[rows]
        exclude(rows, self._owned[start[rows] + nth].long())
        for lists in (items, groups.user_features[SEQUENCE].long()):
            exclude(place.repeat_interleave(lists.shape[1]), lists.reshape(-1))
        first = torch.full((len(offered),), n, device=device)
        first = first.scatter_reduce(0, column, place, "amin")
        return ~is_excluded[:, column] & (first[column] == place)


def _require_columns(groups: CandidateGroups) -> None:
    names = {*groups.user_features, *groups.item_features}
    for name in ("user_index", "item_index", SEQUENCE):
        if name not in names:
            raise ConfigError(
                f"InBatch: the stream gives no {name}.\n"
                f"Add user_id, item_id and {SEQUENCE} to its columns."
            )


def _scan(files: SplitFiles, vocabularies: DatasetVocabularies) -> tuple[Tensor, Tensor, Tensor]:
    """Read user_index and item_index of the positives, and the corpus size of each row group.

    All are int64: (n,), (n,) and (n_row_groups,).
    """
    reader = RowGroupReader(files, vocabularies, ["user_id", "item_id"])
    users, items, sizes = [], [], []
    for row_group in files.row_groups:
        groups = reader.read(row_group)
        item = groups.item_features["item_index"].long()
        users.append(groups.user_features["user_index"].long())
        items.append(item[:, 0])
        drawn = item[:, 1 + files.n_hard :]
        n_distinct = int(torch.unique(drawn).numel())
        sizes.append(estimate_corpus_size(n_distinct, drawn.numel(), vocabularies.n_items))
    return torch.cat(users), torch.cat(items), torch.tensor(sizes)


def estimate_corpus_size(n_distinct: int, n_drawn: int, n_items: int) -> int:
    """Estimate how many items uniform draws came from, at most `n_items`.

    It is the C with C * (1 - exp(-n_drawn / C)) = n_distinct.
    """
    low, high = max(n_distinct, 1), max(n_items, 1)
    while low < high:
        middle = (low + high) // 2
        if -middle * np.expm1(-n_drawn / middle) < n_distinct:
            low = middle + 1
        else:
            high = middle
    return low


def _list_owned(
    files: SplitFiles, vocabularies: DatasetVocabularies, users: Tensor, items: Tensor
) -> tuple[Tensor, Tensor]:
    """List the items that each user is known to own.

    Returns offsets (n_users + 2,) int64 by user_index, and item_index int32, sorted per user.
    """
    table = read_table(files.folder / "user_sequences.parquet", ["item_indices"])
    latest = table["item_indices"].combine_chunks()
    lengths = torch.from_numpy(np.diff(latest.offsets.to_numpy()))
    user = torch.cat([users, torch.arange(1, len(lengths) + 1).repeat_interleave(lengths)])
    item = torch.cat([items, torch.from_numpy(latest.values.to_numpy().astype(np.int64))])
    pairs = torch.unique(user * (vocabularies.n_items + 1) + item)
    user, item = pairs // (vocabularies.n_items + 1), pairs % (vocabularies.n_items + 1)
    counts = torch.bincount(user, minlength=len(vocabularies.users) + 1)
    return torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]), item.int()
