"""Rankings of all items for the positives of a split, and how high the item stands that was bought.

The catalog is the whole vocabulary. What a ranking knows is of the training period, or as of the positive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .dataset import ContrastiveDataset, Sample
from .files import read_table
from .order import permutation
from .row_groups import SEQUENCE, RowGroupReader
from .two_tower import ITEM_NUMBERS, USER_COLUMNS
from .vocabularies import IdIndex

_DAY_NS = 86_400 * 10**9
_CHUNK = 512  # positives scored at once against all items
_NEIGHBORS = 100  # of each item in the history, the nearest count
_EVALUATION = 9  # purpose of the draw, apart from those of `order`

Scores = Callable[[Sample, Tensor], Tensor]  # (positives, their snapshots (n,)) -> (n, items + 1)


@dataclass(frozen=True)
class Catalog:
    """What the rows of a split tell of every item at each snapshot (D6): (snapshots, items + 1) each; 0 where no row tells."""

    features: dict[str, Tensor]
    first: int  # nanoseconds of snapshot 0
    step: int  # nanoseconds from one to the next

    def snapshot(self, time: Tensor) -> Tensor:
        return (time - self.first) // self.step


@dataclass(frozen=True)
class Evaluation:
    """Positives of a split to be ranked: a seeded choice of at most so many."""

    positives: Sample
    target: Tensor  # (n,) int64 item_index
    catalog: Catalog


def read_evaluation(folder: Path, split: str, *, n_positives: int, seed: int) -> Evaluation:
    """The positives to be ranked, and the catalog as of their moments."""
    dataset = ContrastiveDataset(
        folder, split, layout="groups", columns=[*USER_COLUMNS, "timestamp", "item_id"]
    )
    chosen = np.sort(permutation(len(dataset), seed, _EVALUATION)[:n_positives])
    positives = dataset.batch(chosen)
    return Evaluation(
        positives, positives["item_features"]["item_index"][:, 0].long(), _catalogue(dataset)
    )


def _catalogue(dataset: ContrastiveDataset) -> Catalog:
    files, n_items = dataset.files, dataset.vocabularies.n_items
    windows, step = (
        files.manifest["split"]["windows_ns"],
        files.manifest["config"]["features"]["snapshot_days"] * _DAY_NS,
    )
    first = windows["first"] // _DAY_NS * _DAY_NS
    n_snapshots = (windows["last"] - first) // step + 1
    features = {name: torch.zeros((n_snapshots, n_items + 1)) for name in ITEM_NUMBERS}
    catalog = Catalog(features, first, step)
    reader = RowGroupReader(files, dataset.vocabularies, ["item_id", "timestamp", *ITEM_NUMBERS])
    for row_group in files.row_groups:
        block = reader.read(row_group)
        item = block.item_features["item_index"].long()
        snapshot = catalog.snapshot(block.metadata["timestamp"])[:, None].expand_as(item)
        for name, table in features.items():
            table[snapshot, item] = block.item_features[name]
    return catalog


def evaluate(scores: Scores, evaluation: Evaluation) -> dict[str, float]:
    """recall@50 (the share of positives among the first 50) and NDCG@10 (one relevant item a positive)."""
    ranks = []
    snapshots = evaluation.catalog.snapshot(evaluation.positives["metadata"]["timestamp"])
    for at in range(0, len(evaluation.target), _CHUNK):
        rows = slice(at, at + _CHUNK)
        ranks.append(
            rank(
                scores(_rows(evaluation.positives, rows), snapshots[rows]), evaluation.target[rows]
            )
        )
    place = torch.cat(ranks).double()
    return {
        "recall@50": float((place <= 50).double().mean()),
        "ndcg@10": float(torch.where(place <= 10, 1 / torch.log2(1 + place), 0.0).mean()),
    }


def rank(scores: Tensor, target: Tensor) -> Tensor:
    """(n,) int64: the place of each target among all items, from 1; of equal scores the smaller item comes first."""
    scores = scores.clone()
    scores[:, 0] = -torch.inf  # padding is no item
    own = scores.gather(1, target[:, None])
    before = torch.arange(scores.shape[1]) < target[:, None]
    return 1 + (scores > own).sum(1) + ((scores == own) & before).sum(1)


def _rows(sample: Sample, rows: slice) -> Sample:
    return {
        name: _rows(value, rows) if isinstance(value, dict) else value[rows]
        for name, value in sample.items()
    }


def popularity(folder: Path) -> Scores:
    """How often each item is a positive of the training split."""
    dataset = ContrastiveDataset(folder, "train", columns=["item_id"])
    reader = RowGroupReader(dataset.files, dataset.vocabularies, ["item_id"])
    counts = torch.zeros(dataset.vocabularies.n_items + 1)
    for row_group in dataset.files.row_groups:
        item = reader.read(row_group).item_features["item_index"][:, 0]
        counts += torch.bincount(item, minlength=len(counts))
    return lambda positives, _: counts.repeat(len(positives["label"]), 1)


def recent_popularity(catalog: Catalog) -> Scores:
    """`item_popularity_score`: purchases in the 28 days before the positive's snapshot."""
    return lambda _, snapshots: catalog.features["item_popularity_score"][snapshots]


def repurchase(fallback: Scores) -> Scores:
    """The history, the latest purchase first; then as `fallback`, whose scores must not be negative."""

    def scores(positives: Sample, snapshots: Tensor) -> Tensor:
        rest = fallback(positives, snapshots)
        sequence = positives["user_features"][SEQUENCE].long()
        lifted = rest / (rest.amax() + 1)  # below 1
        place = torch.arange(1.0, sequence.shape[1] + 1).expand(sequence.shape)
        return lifted.scatter_reduce(1, sequence, place, "amax")

    return scores


def item_cf(folder: Path, items: IdIndex) -> Scores:
    """The sum of the similarities to the history's items (Linden et al. 2003), from `item_similarity_matrix.parquet`."""
    matrix = read_table(
        folder / "item_similarity_matrix.parquet",
        ["item_id", "similar_item_id", "similarity", "rank"],
    )
    near = torch.from_numpy(matrix["rank"].to_numpy() <= _NEIGHBORS)
    from_item, to_item = (
        torch.from_numpy(items.find(matrix[name].combine_chunks()) + 1)[near]
        for name in ("item_id", "similar_item_id")
    )
    similarity = torch.from_numpy(matrix["similarity"].to_numpy().copy())[near]
    shape = (len(items) + 1, len(items) + 1)
    into = torch.sparse_coo_tensor(
        torch.stack([to_item, from_item]), similarity, shape, check_invariants=True
    ).coalesce()

    def scores(positives: Sample, _: Tensor) -> Tensor:
        sequence = positives["user_features"][SEQUENCE].long()
        history = torch.zeros((len(sequence), len(items) + 1))
        history.scatter_(1, sequence, 1.0)
        history[:, 0] = 0
        return torch.sparse.mm(into, history.T).T

    return scores
