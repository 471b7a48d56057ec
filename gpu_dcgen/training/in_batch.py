"""Negatives from the batch (D14): which of its positives may serve, and how likely every candidate was to be drawn.

A sampled softmax stands for one over all items that a user could have bought. Its sum over the others is estimated
without bias by giving each sampled item the weight 1 / pi, where pi is the probability that it is among the candidates
at all (Horvitz and Thompson 1952); in logits that is a subtraction of log(pi), "logQ" (Bengio and Senecal 2008; Yi et
al. 2019). An item that the batch and the random draw both offer is a candidate once, so the two add up as

    pi = 1 - (1 - p) ** (n - 1) * (1 - R / C)

with p the item's share of the split's positives, n the positives in the batch, R random negatives out of a corpus of
C items. The positive and the hard negatives are there for certain: log(pi) = 0 (for the positive see Prusskiy et al. 2025).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from .dataset import Sample
from .files import SplitFiles, open_split, read_table
from .row_groups import SEQUENCE, Block, RowGroupReader, as_groups
from .vocabularies import Vocabularies, load_vocabularies


class InBatch:
    """A `collate` for `ContrastiveStream`: batches with layout "groups", and with negatives from the batch itself.

    It reads users and items of the whole split once, to learn how often each item is a positive, what each user owns,
    and how large the corpus was. Memory: 12 bytes a positive.

    Adds to a batch of n positives:

        log_q            (n, width) float32  log(pi) of each candidate of the group
        in_batch.allowed (n, n) bool         whether positive j may be a negative of row i
        in_batch.log_q   (n, n) float32      log(pi) of positive j as a negative of row i

    Not allowed: what the user of row i owns (positives of the split, items of `user_sequences.parquet`, the row's
    history), a candidate that the row has already, and an item's second appearance. Items that a user of val or test
    bought more than `max_sequence_length` purchases before the window, and never again, are not in the files and so
    not known as owned. An item in the batch was on sale when it was bought, maybe not at the moment of row i.
    """

    def __init__(
        self, path: Path | str, split: str | None = None, *, from_batch: bool = True
    ) -> None:
        """`from_batch` False: only `log_q` of the stored negatives. InputError when the files cannot be used."""
        self._files = open_split(path, split)
        vocabularies = load_vocabularies(self._files.folder)
        self._from_batch = from_batch
        self._firsts = torch.tensor([group.first for group in self._files.row_groups])
        users, items, self._corpus = _scan(self._files, vocabularies)
        share = torch.bincount(items, minlength=vocabularies.n_items + 1) / len(items)
        self._log_other = torch.log1p(
            -share.double().clamp(max=1 - 1e-9)
        )  # log(1 - p) by item_index, finite
        self._offsets, self._owned = _owned(self._files, vocabularies, users, items)

    def __call__(self, block: Block) -> Sample:
        """ConfigError when the stream leaves out user_id, item_id or the sequence. Works on the block's device."""
        _require(block)
        slot = block.metadata["slot"]
        self._move(slot.device)
        is_random = slot > self._files.n_hard
        n_random = is_random.sum(dim=1, keepdim=True)
        corpus = self._corpus[
            torch.bucketize(block.metadata["group_number"], self._firsts, right=True) - 1
        ]
        log_not_drawn = torch.log1p(-n_random / torch.maximum(corpus[:, None], n_random + 1))
        item = block.item_features["item_index"].long()
        n_others = len(block) - 1 if self._from_batch else 0

        def log_q(items: Tensor) -> Tensor:
            return torch.log(
                -torch.expm1(n_others * self._log_other[items] + log_not_drawn)
            ).float()

        batch = {**as_groups(block), "log_q": torch.where(is_random, log_q(item), 0.0)}
        if self._from_batch:
            allowed = self._allowed(block, item)
            batch["in_batch"] = {
                "allowed": allowed,
                "log_q": torch.where(allowed, log_q(item[:, 0].expand_as(allowed)), 0.0),
            }
        return batch

    def _move(self, device: torch.device) -> None:
        if self._corpus.device != device:
            for name in ("_firsts", "_corpus", "_log_other", "_offsets", "_owned"):
                setattr(self, name, getattr(self, name).to(device))

    def _allowed(self, block: Block, item: Tensor) -> Tensor:
        """(n, n) bool: see the class."""
        n, device = len(block), item.device
        place = torch.arange(n, device=device)
        offered, column = torch.unique(item[:, 0], return_inverse=True)
        taken = torch.zeros((n, len(offered)), dtype=torch.bool, device=device)

        def take(rows: Tensor, items: Tensor) -> None:
            at = torch.searchsorted(offered, items).clamp_(max=len(offered) - 1)
            same = offered[at] == items
            taken[rows[same], at[same]] = True

        user = block.user_features["user_index"].long()
        begins, owns = self._offsets[user], self._offsets[user + 1] - self._offsets[user]
        rows = place.repeat_interleave(owns)
        nth = torch.arange(len(rows), device=device) - (owns.cumsum(0) - owns)[rows]
        take(rows, self._owned[begins[rows] + nth].long())
        for lists in (item, block.user_features[SEQUENCE].long()):
            take(place.repeat_interleave(lists.shape[1]), lists.reshape(-1))
        first = torch.full((len(offered),), n, device=device).scatter_reduce(
            0, column, place, "amin"
        )
        return ~taken[:, column] & (first[column] == place)


def _require(block: Block) -> None:
    there = {*block.user_features, *block.item_features}
    for name in ("user_index", "item_index", SEQUENCE):
        if name not in there:
            raise ConfigError(
                f"InBatch: the stream gives no {name}.\nLet its columns hold user_id, item_id and {SEQUENCE}."
            )


def _scan(files: SplitFiles, vocabularies: Vocabularies) -> tuple[Tensor, Tensor, Tensor]:
    """user_index (n,) and item_index (n,) int64 of the split's positives, and each row group's size of the corpus (int64)."""
    reader = RowGroupReader(files, vocabularies, ["user_id", "item_id"])
    users, items, corpus = [], [], []
    for row_group in files.row_groups:
        block = reader.read(row_group)
        item = block.item_features["item_index"].long()
        users.append(block.user_features["user_index"].long())
        items.append(item[:, 0])
        drawn = item[:, 1 + files.n_hard :]
        corpus.append(
            corpus_size(int(torch.unique(drawn).numel()), drawn.numel(), vocabularies.n_items)
        )
    return torch.cat(users), torch.cat(items), torch.tensor(corpus)


def corpus_size(n_distinct: int, n_drawn: int, n_items: int) -> int:
    """How many items uniform draws came from: the C with C * (1 - exp(-n_drawn / C)) = n_distinct, at most `n_items`."""
    low, high = max(n_distinct, 1), max(n_items, 1)
    while low < high:
        middle = (low + high) // 2
        if -middle * np.expm1(-n_drawn / middle) < n_distinct:
            low = middle + 1
        else:
            high = middle
    return low


def _owned(
    files: SplitFiles, vocabularies: Vocabularies, users: Tensor, items: Tensor
) -> tuple[Tensor, Tensor]:
    """The items that each user is known to own: offsets (users + 2,) int64 by user_index, and item_index int32, sorted."""
    latest = read_table(files.folder / "user_sequences.parquet", ["item_indices"])[
        "item_indices"
    ].combine_chunks()
    lengths = torch.from_numpy(np.diff(latest.offsets.to_numpy()))
    user = torch.cat([users, torch.arange(1, len(lengths) + 1).repeat_interleave(lengths)])
    item = torch.cat([items, torch.from_numpy(latest.values.to_numpy().astype(np.int64))])
    pairs = torch.unique(user * (vocabularies.n_items + 1) + item)
    user, item = pairs // (vocabularies.n_items + 1), pairs % (vocabularies.n_items + 1)
    counts = torch.bincount(user, minlength=len(vocabularies.users) + 1)
    return torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]), item.int()
