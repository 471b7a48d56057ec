"""Rank all items for the positives of a split, and measure the place of the bought item.

The catalog is the whole vocabulary. A ranking knows the train split, or what was known at the time
of the positive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .dataset import ContrastiveDataset
from .files import read_table
from .groups import SEQUENCE, Batch, select_rows
from .order import permute
from .row_groups import RowGroupReader
from .two_tower import ITEM_NUMBERS, USER_COLUMNS
from .vocabularies import IdIndex

_DAY_NS = 86_400 * 10**9
_CHUNK_POSITIVES = 512  # scored at once against all items
_MAX_NEIGHBORS = 100  # of each item in the history
_EVALUATION = 9  # purpose of the random numbers, beside those of `order`

# (batch of n positives, their snapshots (n,) int64) -> scores (n, n_items + 1)
Scorer = Callable[[Batch, Tensor], Tensor]


@dataclass(frozen=True)
class Catalog:
    """What the rows of a split tell about every item at each snapshot (D6); 0 where none does."""

    features: dict[str, Tensor]  # (n_snapshots, n_items + 1) float32
    first_ns: int  # time of snapshot 0
    step_ns: int  # from one snapshot to the next

    def find_snapshots(self, time: Tensor) -> Tensor:
        """Return the latest snapshot at each time: int64, from nanoseconds since 1970 UTC."""
        return (time - self.first_ns) // self.step_ns


@dataclass(frozen=True)
class Evaluation:
    """Positives of a split to rank."""

    positives: Batch  # of layout "groups"
    target: Tensor  # (n,) int64 item_index
    catalog: Catalog


def load_evaluation(folder: Path, split: str, *, n_positives: int, seed: int) -> Evaluation:
    """Read at most `n_positives` positives, a seeded choice, and the catalog at their times."""
    dataset = ContrastiveDataset(
        folder, split, layout="groups", columns=[*USER_COLUMNS, "timestamp", "item_id"]
    )
    chosen = np.sort(permute(len(dataset), seed, _EVALUATION)[:n_positives])
    positives = dataset.batch(chosen)
    target = positives["item_features"]["item_index"][:, 0].long()
    return Evaluation(positives, target, _load_catalog(dataset))


def _load_catalog(dataset: ContrastiveDataset) -> Catalog:
    files, n_items = dataset.files, dataset.vocabularies.n_items
    windows = files.manifest.split.windows_ns
    step: int = files.manifest.config["features"]["snapshot_days"] * _DAY_NS
    first = windows.first // _DAY_NS * _DAY_NS
    n_snapshots = (windows.last - first) // step + 1
    features = {name: torch.zeros((n_snapshots, n_items + 1)) for name in ITEM_NUMBERS}
    catalog = Catalog(features, first, step)
    reader = RowGroupReader(files, dataset.vocabularies, ["item_id", "timestamp", *ITEM_NUMBERS])
    for row_group in files.row_groups:
        groups = reader.read(row_group)
        item = groups.item_features["item_index"].long()
        snapshot = catalog.find_snapshots(groups.metadata["timestamp"])[:, None].expand_as(item)
        for name, table in features.items():
            table[snapshot, item] = groups.item_features[name]
    return catalog


def evaluate(scorer: Scorer, evaluation: Evaluation) -> dict[str, float]:
    """Measure recall@50 and NDCG@10 of a ranking, each in [0, 1].

    recall@50 is the share of positives among the first 50 items. In NDCG@10 each positive has one
    relevant item.
    """
    times = evaluation.positives["metadata"]["timestamp"]
    snapshots = evaluation.catalog.find_snapshots(times)
    ranks = []
    for start in range(0, len(evaluation.target), _CHUNK_POSITIVES):
        rows = slice(start, start + _CHUNK_POSITIVES)
        scores = scorer(select_rows(evaluation.positives, rows), snapshots[rows])
        ranks.append(rank(scores, evaluation.target[rows]))
    place = torch.cat(ranks).double()
    return {
        "recall@50": float((place <= 50).double().mean()),
        "ndcg@10": float(torch.where(place <= 10, 1 / torch.log2(1 + place), 0.0).mean()),
    }


def rank(scores: Tensor, target: Tensor) -> Tensor:
    """Return the place of each target among all items, from 1: (n,) int64.

    Ties: the smaller item comes first. `scores` is (n, n_items + 1), `target` (n,) int64.
    """
    scores = scores.clone()
    scores[:, 0] = -torch.inf  # padding is not an item
    own = scores.gather(1, target[:, None])
    is_before = torch.arange(scores.shape[1]) < target[:, None]
    return 1 + (scores > own).sum(1) + ((scores == own) & is_before).sum(1)


def make_popularity_scorer(folder: Path) -> Scorer:
    """Score an item by how often it is a positive of the train split."""
    dataset = ContrastiveDataset(folder, "train", columns=["item_id"])
    reader = RowGroupReader(dataset.files, dataset.vocabularies, ["item_id"])
    counts = torch.zeros(dataset.vocabularies.n_items + 1)
    for row_group in dataset.files.row_groups:
        item = reader.read(row_group).item_features["item_index"][:, 0]
        counts += torch.bincount(item, minlength=len(counts))
    return lambda positives, _: counts.repeat(len(positives["label"]), 1)


def make_recent_popularity_scorer(catalog: Catalog) -> Scorer:
    """Score an item by `item_popularity_score`: purchases in the 28 days before the snapshot."""
    return lambda _, snapshots: catalog.features["item_popularity_score"][snapshots]


def make_repurchase_scorer(fallback: Scorer) -> Scorer:
    """Rank the history first, the latest purchase at the top, and then as `fallback`.

    The scores of `fallback` must not be negative.
    """

    def score(positives: Batch, snapshots: Tensor) -> Tensor:
        scores = fallback(positives, snapshots)
        sequence = positives["user_features"][SEQUENCE].long()
        below_one = scores / (scores.amax() + 1)
        place = torch.arange(1.0, sequence.shape[1] + 1).expand(sequence.shape)
        return below_one.scatter_reduce(1, sequence, place, "amax")

    return score


def make_item_cf_scorer(folder: Path, items: IdIndex) -> Scorer:
    """Score an item by the sum of its similarities to the items of the history.

    Item-based collaborative filtering (Linden et al. 2003), from item_similarity_matrix.parquet.
    """
    matrix = read_table(
        folder / "item_similarity_matrix.parquet",
        ["item_id", "similar_item_id", "similarity", "rank"],
    )
    is_near = torch.from_numpy(matrix["rank"].to_numpy() <= _MAX_NEIGHBORS)
    from_item, to_item = (
        torch.from_numpy(items.find(matrix[name].combine_chunks()) + 1)[is_near]
        for name in ("item_id", "similar_item_id")
    )
    similarity = torch.from_numpy(matrix["similarity"].to_numpy().copy())[is_near]
    similarities = torch.sparse_coo_tensor(
        torch.stack([to_item, from_item]),
        similarity,
        (len(items) + 1, len(items) + 1),
        check_invariants=True,
    ).coalesce()

    def score(positives: Batch, _: Tensor) -> Tensor:
        sequence = positives["user_features"][SEQUENCE].long()
        history = torch.zeros((len(sequence), len(items) + 1))
        history.scatter_(1, sequence, 1.0)
        history[:, 0] = 0
        return torch.sparse.mm(similarities, history.T).T

    return score
