"""Rank the items on sale for the baskets of a split, and find the places of purchases.

A ranking knows the train split, and what was known at the time of the basket. Candidates are the
items with a row at the basket's snapshot: those on sale then (D11).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .baskets import Baskets, Catalog
from .files import read_table
from .groups import SEQUENCE
from .history import describe_history
from .two_tower import ITEM_NUMBERS, TwoTower
from .vocabularies import IdIndex

_CHUNK_BASKETS = 256
_CHUNK_POSITIVES = 512  # compared at once with all items
_MAX_NEIGHBORS = 100  # of each item in the history
METRICS = ("recall@10", "recall@50", "ndcg@10")

# (user_features of n baskets, their snapshot) -> scores (n, n_items + 1)
Scorer = Callable[[dict[str, Tensor], int], Tensor]


class Evaluation(NamedTuple):
    """Baskets of a split to rank items for."""

    baskets: Baskets
    chosen: Tensor  # (m,) int64
    catalog: Catalog


class Places(NamedTuple):
    """The places of P positives, from 1, in the order of `list_positives`."""

    among_all: Tensor  # (P,) int64
    among_new: Tensor  # (P,) int64, without the items of the history


def list_positives(evaluation: Evaluation) -> Tensor:
    """Return the positives in the order of `rank_positives`, by snapshot: (P,) int64."""
    return torch.cat([evaluation.baskets.find_positives(rows)[0] for _, rows in _cut(evaluation)])


@torch.no_grad()
def rank_positives(scorer: Scorer, evaluation: Evaluation) -> Places:
    """Find the place of each positive. Ties: the smaller item comes first."""
    baskets, catalog = evaluation.baskets, evaluation.catalog
    pieces = []
    for snapshot, rows in _cut(evaluation):
        features = {name: tensor[rows] for name, tensor in baskets.user_features.items()}
        scores = scorer(features, snapshot).masked_fill_(~catalog.is_on_sale[snapshot], -torch.inf)
        sequence = features[SEQUENCE].long()
        history = torch.where(_find_first(sequence), sequence, 0)
        positives, basket = baskets.find_positives(rows)
        for at, place in zip(
            positives.split(_CHUNK_POSITIVES), basket.split(_CHUNK_POSITIVES), strict=True
        ):
            pieces.append(rank(scores[place], baskets.item[at], history[place]))
    return Places(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))


def rank(scores: Tensor, target: Tensor, history: Tensor) -> Places:
    """Return the place of each target among all items, and among new ones.

    Args:
        scores: (n, n_items + 1) float; item 0 is padding, its score is overwritten. The target
            has a finite one.
        target: (n,) int64.
        history: (n, max_length) int64, each item once, 0 elsewhere; items not in it are new.
    """
    scores[:, 0] = -torch.inf
    own = scores.gather(1, target[:, None])
    n_before = (scores > own).sum(dim=1)
    is_tied = (scores >= own).sum(dim=1) > n_before + 1
    if is_tied.any():
        tied, items = scores[is_tied], torch.arange(scores.shape[1])
        is_smaller = (tied == own[is_tied]) & (items < target[is_tied][:, None])
        n_before[is_tied] += is_smaller.sum(dim=1)
    theirs = scores.gather(1, history)
    is_before = (theirs > own) | ((theirs == own) & (history < target[:, None]))
    return Places(1 + n_before, 1 + n_before - is_before.sum(dim=1))


def _find_first(sequence: Tensor) -> Tensor:
    """Find where each item of a sequence comes first: (n, max_length) bool."""
    order = torch.argsort(sequence, dim=1, stable=True)
    ordered = sequence.gather(1, order)
    is_first = torch.ones_like(sequence, dtype=torch.bool)
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.empty_like(is_first).scatter_(1, order, is_first)


def compute_values(place: Tensor) -> dict[str, Tensor]:
    """Compute each positive's METRICS by its place: (P,) float64 each.

    In NDCG@10 each positive has one relevant item.
    """
    place = place.double()
    return {
        "recall@10": (place <= 10).double(),
        "recall@50": (place <= 50).double(),
        "ndcg@10": torch.where(place <= 10, 1 / torch.log2(1 + place), 0.0),
    }


def _cut(evaluation: Evaluation) -> list[tuple[int, Tensor]]:
    """Cut the chosen baskets into chunks of one snapshot: (snapshot, baskets)."""
    snapshot = evaluation.baskets.snapshot[evaluation.chosen]
    return [
        (value, rows)
        for value in snapshot.unique().tolist()
        for rows in evaluation.chosen[snapshot == value].split(_CHUNK_BASKETS)
    ]


def make_popularity_scorer(train: Baskets, catalog: Catalog) -> Scorer:
    """Score an item by how often it is a positive of the train split."""
    counts = torch.bincount(train.item, minlength=catalog.n_items + 1).float()
    return lambda features, _: counts.repeat(len(features[SEQUENCE]), 1)


def make_recent_popularity_scorer(catalog: Catalog) -> Scorer:
    """Score an item by `item_popularity_score`: purchases in the 28 days before the snapshot."""
    column = ITEM_NUMBERS.index("item_popularity_score")
    return lambda features, snapshot: catalog.numbers[snapshot, :, column].repeat(
        len(features[SEQUENCE]), 1
    )


def make_repurchase_scorer(fallback: Scorer) -> Scorer:
    """Rank the history first, the latest purchase at the top, and then as `fallback`.

    The scores of `fallback` must not be negative.
    """

    def score(features: dict[str, Tensor], snapshot: int) -> Tensor:
        scores = fallback(features, snapshot)
        sequence = features[SEQUENCE].long()
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

    def score(features: dict[str, Tensor], _: int) -> Tensor:
        sequence = features[SEQUENCE].long()
        history = torch.zeros((len(sequence), len(items) + 1))
        history.scatter_(1, sequence, 1.0)
        history[:, 0] = 0
        return torch.sparse.mm(similarities, history.T).T

    return score


def make_model_scorer(model: TwoTower, catalog: Catalog, *, has_history: bool) -> Scorer:
    """Score all items by a model, with their features at the basket's snapshot.

    With `has_history`, items of the history have the score of their place there as well.
    """
    items = torch.arange(catalog.n_items + 1)

    def score(features: dict[str, Tensor], snapshot: int) -> Tensor:
        vectors = model.encode_items(catalog.select(items, snapshot))
        scores = model.encode_users(features) @ vectors.T
        if has_history:
            sequence = features[SEQUENCE].long()
            added = scores.gather(1, sequence) + model.score_history(describe_history(sequence))
            # Places of one item have the same score, so that it does not matter which is written.
            scores = scores.scatter(1, sequence, added)
        return scores

    return score
