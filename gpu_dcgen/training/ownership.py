"""The positives of a split in memory, and the items that each user is known to own."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .files import SplitFiles, read_table
from .row_groups import RowGroupReader
from .vocabularies import DatasetVocabularies


def scan_positives(
    files: SplitFiles, vocabularies: DatasetVocabularies
) -> tuple[Tensor, Tensor, Tensor]:
    """Read user_index, item_index and time of the positives of a split: (n,) int64 each."""
    reader = RowGroupReader(files, vocabularies, ["user_id", "item_id", "timestamp"])
    users, items, times = [], [], []
    for row_group in files.row_groups:
        groups = reader.read(row_group)
        users.append(groups.user_features["user_index"].long())
        items.append(groups.item_features["item_index"][:, 0].long())
        times.append(groups.metadata["timestamp"])
    return torch.cat(users), torch.cat(items), torch.cat(times)


def list_owned(
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
