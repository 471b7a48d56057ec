"""The positives of a split by basket, in memory: what the probe trains on and ranks.

The positives of one user and time share a history and all features of the user, so that a model
needs one vector for all of them. Item features are in a table by snapshot and item, which the rows
of all splits fill; an item with a row at a snapshot was on sale then (D11).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .files import SplitFiles, open_split
from .groups import SEQUENCE, CandidateGroups, expand_runs
from .order import permute
from .row_groups import RowGroupReader
from .snapshots import SnapshotGrid, make_snapshot_grid
from .two_tower import ITEM_NUMBERS, USER_COLUMNS
from .vocabularies import ITEM_CATEGORIES, DatasetVocabularies

_CHOICE = 9  # purpose of the random numbers, beside those of `order`
_LOG_Q = "negative_log_q"


@dataclass(frozen=True)
class Catalog:
    """What the rows of a dataset say of every item at each snapshot (D6); 0 where none does."""

    numbers: Tensor  # (n_snapshots, n_items + 1, 2) float32, by `ITEM_NUMBERS`
    is_on_sale: Tensor  # (n_snapshots, n_items + 1) bool
    categories: dict[str, Tensor]  # (n_items + 1,) int32
    grid: SnapshotGrid

    @property
    def n_items(self) -> int:
        """Number of items, without the padding."""
        return self.is_on_sale.shape[1] - 1

    def select(self, items: Tensor, snapshots: Tensor | int) -> dict[str, Tensor]:
        """Return `item_features` of items (m,) at snapshots, (m,) or one of all: (m,) each."""
        numbers = self.numbers[snapshots, items]
        return {
            "item_index": items,
            **{name: table[items] for name, table in self.categories.items()},
            **{name: numbers[..., k] for k, name in enumerate(ITEM_NUMBERS)},
        }


@dataclass(frozen=True)
class Baskets:
    """n baskets with N positives, the positives of a basket side by side."""

    user_features: dict[str, Tensor]  # (n,); the sequence (n, max_length)
    user: Tensor  # (n,) int64 user_index
    snapshot: Tensor  # (n,) int64
    offsets: Tensor  # (n + 1,) int64, first positive of each basket, and the end
    item: Tensor  # (N,) int64 item_index
    is_repurchase: Tensor  # (N,) bool
    negatives: Tensor  # (N, n_hard + n_random) int32 item_index
    detail: Tensor  # (N, n_hard) int32 code of negative_detail
    log_q: Tensor | None  # (N, n_hard + n_random) float32; None where the dataset has none

    def __len__(self) -> int:
        return len(self.user)

    def find_positives(self, baskets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positives of baskets, and the place of each one's basket: (P,) int64 each."""
        return expand_runs(self.offsets, baskets)


def make_catalog(files: SplitFiles, vocabularies: DatasetVocabularies) -> Catalog:
    """Make a catalog without rows yet; `load_baskets` fills it."""
    grid = make_snapshot_grid(files.manifest)
    last = files.manifest.split.windows_ns.last
    shape = (int((last - grid.first_ns) // grid.step_ns) + 1, vocabularies.n_items + 1)
    return Catalog(
        torch.zeros((*shape, len(ITEM_NUMBERS))),
        torch.zeros(shape, dtype=torch.bool),
        {name: torch.from_numpy(vocabularies.item_categories[name]) for name in ITEM_CATEGORIES},
        grid,
    )


def load_baskets(
    folder: Path,
    split: str,
    vocabularies: DatasetVocabularies,
    catalog: Catalog,
    *,
    max_positives: int,
    seed: int,
) -> Baskets:
    """Read the baskets of a split, and enter its rows into the catalog.

    Larger splits are read in part: row groups, a seeded choice, until they have `max_positives`.
    A basket that lies in two row groups is two baskets.

    Raises InputError if the files cannot be used.
    """
    files = open_split(folder, split)
    columns = ["user_id", "timestamp", "is_repurchase", "negative_detail", _LOG_Q]
    reader = RowGroupReader(
        files,
        vocabularies,
        [
            *USER_COLUMNS,
            "item_id",
            *ITEM_NUMBERS,
            *(name for name in columns if name in files.schema.names),
        ],
    )
    pieces, n_read = [], 0
    for number in permute(len(files.row_groups), seed, _CHOICE).tolist():
        if n_read >= max_positives:
            break
        groups = reader.read(files.row_groups[number])
        n_read += len(groups)
        _enter_rows(groups, catalog)
        pieces.append(_make_piece(groups, files, catalog.grid))
    return _concatenate(pieces)


def choose_baskets(baskets: Baskets, n_positives: int, seed: int) -> Tensor:
    """Choose baskets, a seeded choice, until they have `n_positives`: (m,) int64, rising."""
    order = permute(len(baskets), seed, _CHOICE)
    counts = baskets.offsets.diff().numpy()[order]
    n_chosen = int(np.searchsorted(np.cumsum(counts), n_positives)) + 1
    return torch.from_numpy(np.sort(order[:n_chosen]))


def _enter_rows(groups: CandidateGroups, catalog: Catalog) -> None:
    item = groups.item_features["item_index"].long()
    snapshot = catalog.grid.find(groups.metadata["timestamp"])[:, None].expand_as(item)
    catalog.numbers[snapshot, item] = torch.stack(
        [groups.item_features[name] for name in ITEM_NUMBERS], dim=-1
    )
    catalog.is_on_sale[snapshot, item] = True


def _make_piece(groups: CandidateGroups, files: SplitFiles, grid: SnapshotGrid) -> Baskets:
    """Gather the positives of a row group by basket."""
    user = groups.user_features["user_index"].long()
    time = groups.metadata["timestamp"]
    order = torch.from_numpy(np.lexsort((user.numpy(), time.numpy())))
    user, time = user[order], time[order]
    is_first = torch.ones(len(user), dtype=torch.bool)
    is_first[1:] = (user.diff() != 0) | (time.diff() != 0)
    first = torch.nonzero(is_first)[:, 0]
    items = groups.item_features["item_index"][order]
    metadata = {name: tensor[order] for name, tensor in groups.metadata.items()}
    detail = metadata.get("negative_detail", torch.zeros_like(items))
    return Baskets(
        {name: groups.user_features[name][order[first]] for name in USER_COLUMNS},
        user[first],
        grid.find(time[first]),
        torch.cat([first, torch.tensor([len(user)])]),
        items[:, 0].long(),
        _find_repurchases(groups)[order],
        items[:, 1:].clone(),
        detail[:, 1 : 1 + files.n_hard].clone(),
        metadata[_LOG_Q][:, 1:].clone() if _LOG_Q in metadata else None,
    )


def _find_repurchases(groups: CandidateGroups) -> Tensor:
    """Find which positives the user had bought before: (n,) bool.

    Without the column, by the latest purchases, which the sequence has.
    """
    if "is_repurchase" in groups.metadata:
        return groups.metadata["is_repurchase"]
    item = groups.item_features["item_index"][:, :1]
    return (groups.user_features[SEQUENCE] == item).any(dim=1)


def _concatenate(pieces: list[Baskets]) -> Baskets:
    def join(name: str) -> Tensor:
        return torch.cat([getattr(piece, name) for piece in pieces])

    counts = torch.cat([piece.offsets.diff() for piece in pieces])
    names = pieces[0].user_features
    return Baskets(
        {name: torch.cat([piece.user_features[name] for piece in pieces]) for name in names},
        join("user"),
        join("snapshot"),
        torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
        join("item"),
        join("is_repurchase"),
        join("negatives"),
        join("detail"),
        None if pieces[0].log_q is None else join("log_q"),
    )
