"""Measure what a model learns from a dataset, and from each kind of its negatives (D21).

A small two-tower model is trained once for each kind of negatives, with the same seed, steps and
settings. It ranks all items for positives of val and test, beside rankings that need no training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from .groups import Batch
from .in_batch import InBatch
from .losses import info_nce
from .rankings import (
    Catalog,
    Evaluation,
    Scorer,
    evaluate,
    load_evaluation,
    make_item_cf_scorer,
    make_popularity_scorer,
    make_recent_popularity_scorer,
    make_repurchase_scorer,
)
from .stream import ContrastiveStream
from .two_tower import ITEM_NUMBERS, USER_COLUMNS, TwoTower
from .vocabularies import ITEM_CATEGORIES, DatasetVocabularies

RECALL_TARGET = 0.10  # contract, "success_metrics": recall_50_target
EVALUATED_SPLITS = ("val", "test")
_LEARNING_RATE = 2e-3
_BATCH_SIZE = 256

Figures = dict[str, dict[str, float]]  # split -> metric -> value


class NegativeKind(NamedTuple):
    """Which negatives take part beside the stored random ones."""

    has_hard: bool
    has_in_batch: bool


NEGATIVE_KINDS = {
    "random": NegativeKind(has_hard=False, has_in_batch=False),
    "random + hard": NegativeKind(has_hard=True, has_in_batch=False),
    "random + in-batch": NegativeKind(has_hard=False, has_in_batch=True),
    "random + hard + in-batch": NegativeKind(has_hard=True, has_in_batch=True),
}


class ProbeSettings(TypedDict):
    """How the models were trained."""

    epochs: int
    seed: int
    batch_size: int
    learning_rate: float


class ProbeResult(TypedDict):
    """The figures of a probe, fit for JSON."""

    dataset: str
    content_digest: str
    settings: ProbeSettings
    positives: dict[str, int]
    """By split, the positives ranked."""
    items: int
    """Items of the catalog."""
    figures: dict[str, Figures]
    """By ranking and split, recall@50 and ndcg@10."""
    last_loss: dict[str, float]
    """By kind of negatives, the mean loss of the last epoch."""
    best_model: str
    """The model of the highest recall@50 on val."""
    recall_target: float
    target_reached: bool
    ratio_to_popularity: float
    """Recall@50 of the best model on val / that of popularity."""


def probe(
    folder: Path,
    *,
    epochs: int = 3,
    n_positives: int = 10_000,
    seed: int = 0,
    notify: Callable[[str], None] = lambda _: None,
) -> ProbeResult:
    """Train a model with each kind of negatives, and compare the rankings.

    Args:
        folder: Folder of the dataset.
        epochs: Passes over the train split for each model.
        n_positives: Positives of val and of test to rank, at most; a seeded choice.
        seed: Same dataset, arguments, machine and version of PyTorch: same figures.
        notify: Receives a line for each step.

    Raises:
        InputError: The dataset cannot be used.

    Example:
        >>> result = probe(Path("data/training"), epochs=1, notify=print)
        >>> recall = result["figures"][result["best_model"]]["test"]["recall@50"]
    """
    evaluations = {
        split: load_evaluation(folder, split, n_positives=n_positives, seed=seed)
        for split in EVALUATED_SPLITS
    }
    stream = ContrastiveStream(folder, "train")
    vocabularies = stream.vocabularies
    figures = _measure_baselines(folder, vocabularies, evaluations, notify)
    losses: dict[str, float] = {}
    for name, kind in NEGATIVE_KINDS.items():
        if kind.has_hard and not stream.files.n_hard:
            continue
        model, losses[name] = train_model(folder, kind, epochs=epochs, seed=seed, notify=notify)
        notify(f"ranking by model, {name}")
        figures[f"model, {name}"] = {
            split: evaluate(make_model_scorer(model, each.catalog, vocabularies), each)
            for split, each in evaluations.items()
        }
    best = max(
        (f"model, {name}" for name in losses), key=lambda name: figures[name]["val"]["recall@50"]
    )
    recall, baseline = (figures[name]["val"]["recall@50"] for name in (best, "popularity"))
    return {
        "dataset": str(folder),
        "content_digest": stream.files.manifest.content_digest,
        "settings": {
            "epochs": epochs,
            "seed": seed,
            "batch_size": _BATCH_SIZE,
            "learning_rate": _LEARNING_RATE,
        },
        "positives": {split: len(each.target) for split, each in evaluations.items()},
        "items": vocabularies.n_items,
        "figures": figures,
        "last_loss": losses,
        "best_model": best,
        "recall_target": RECALL_TARGET,
        "target_reached": recall >= RECALL_TARGET,
        "ratio_to_popularity": recall / max(baseline, 1e-9),
    }


def _measure_baselines(
    folder: Path,
    vocabularies: DatasetVocabularies,
    evaluations: dict[str, Evaluation],
    notify: Callable[[str], None],
) -> dict[str, Figures]:
    """Measure the rankings that need no training."""
    popularity = make_popularity_scorer(folder)
    item_cf = make_item_cf_scorer(folder, vocabularies.items)
    scorers: dict[str, Callable[[Catalog], Scorer]] = {
        "popularity": lambda _: popularity,
        "recent popularity": make_recent_popularity_scorer,
        "item CF": lambda _: item_cf,
        "repurchase": lambda catalog: make_repurchase_scorer(
            make_recent_popularity_scorer(catalog)
        ),
    }
    figures = {}
    for name, make_scorer in scorers.items():
        notify(f"ranking by {name}")
        figures[name] = {
            split: evaluate(make_scorer(each.catalog), each) for split, each in evaluations.items()
        }
    return figures


def train_model(
    folder: Path,
    kind: NegativeKind,
    *,
    epochs: int,
    seed: int,
    notify: Callable[[str], None] = lambda _: None,
) -> tuple[TwoTower, float]:
    """Train a model on a dataset; returns it and its mean loss over the last epoch."""
    stream = ContrastiveStream(
        folder,
        "train",
        columns=["user_id", *USER_COLUMNS, "item_id", *ITEM_CATEGORIES, *ITEM_NUMBERS],
        batch_size=_BATCH_SIZE,
        seed=seed,
        n_hard=None if kind.has_hard else 0,
        collate=InBatch(folder, "train", from_batch=kind.has_in_batch),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TwoTower(stream.vocabularies.sizes())
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
    name = next(name for name, each in NEGATIVE_KINDS.items() if each == kind)
    mean = float("nan")
    for epoch in range(epochs):
        total = torch.zeros(())
        for batch in stream:
            users = model.encode_users(batch["user_features"])
            items = model.encode_items(batch["item_features"])
            loss = info_nce(users, items, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        mean = float(total) / len(stream)
        notify(f"model, {name}: epoch {epoch + 1} of {epochs}, loss {mean:.3f}")
    return model.eval(), mean


@torch.no_grad()
def make_model_scorer(
    model: TwoTower, catalog: Catalog, vocabularies: DatasetVocabularies
) -> Scorer:
    """Score all items by a model, with their features at the positive's snapshot."""
    static = {
        name: torch.from_numpy(vocabularies.item_categories[name]) for name in ITEM_CATEGORIES
    }
    static["item_index"] = torch.arange(vocabularies.n_items + 1)

    @torch.no_grad()
    def score(positives: Batch, snapshots: Tensor) -> Tensor:
        users = model.encode_users(positives["user_features"])
        scores = users.new_empty((len(users), vocabularies.n_items + 1))
        for snapshot in snapshots.unique():
            numbers = {name: table[snapshot] for name, table in catalog.features.items()}
            items = model.encode_items({**static, **numbers})
            rows = snapshots == snapshot
            scores[rows] = users[rows] @ items.T
        return scores

    return score
