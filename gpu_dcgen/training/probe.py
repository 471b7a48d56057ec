"""The probe: does a model learn from this dataset, and what do its hard negatives and in-batch negatives add? (D21)

A small two-tower model is trained once for each kind of negatives, with equal seeds, steps and settings, and ranks all
items for positives of val and test beside rankings that need no training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .dataset import Sample
from .in_batch import InBatch
from .losses import info_nce
from .rankings import (
    Catalog,
    Scores,
    evaluate,
    item_cf,
    popularity,
    read_evaluation,
    recent_popularity,
    repurchase,
)
from .stream import ContrastiveStream
from .two_tower import ITEM_CATEGORIES, ITEM_NUMBERS, USER_COLUMNS, TwoTower
from .vocabularies import Vocabularies

RECALL_TARGET = 0.10  # contract, "success_metrics": recall_50_target
EVALUATED = ("val", "test")
# Kind of negatives -> whether the stored hard ones and those of the batch take part; the stored
# random ones always do.
KINDS = {
    "random": (False, False),
    "random + hard": (True, False),
    "random + in-batch": (False, True),
    "random + hard + in-batch": (True, True),
}
_LEARNING_RATE = 2e-3
_BATCH_SIZE = 256


def probe(
    folder: Path,
    *,
    epochs: int = 3,
    n_positives: int = 10_000,
    seed: int = 0,
    notify: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train and rank; figures by ranking and split, as a dict fit for JSON. `notify` receives a line for each step.

    `n_positives`: of each of val and test, at most so many are ranked, a seeded choice. Same dataset, arguments, machine
    and torch: same figures. InputError when the dataset cannot be used.
    """
    evaluations = {
        split: read_evaluation(folder, split, n_positives=n_positives, seed=seed)
        for split in EVALUATED
    }
    stream = ContrastiveStream(folder, "train")
    figures: dict[str, dict[str, dict[str, float]]] = {}

    def measure(name: str, scores: Callable[[Catalog], Scores]) -> None:
        notify(f"ranking by {name}")
        figures[name] = {
            split: evaluate(scores(found.catalog), found) for split, found in evaluations.items()
        }

    most_bought, similar = popularity(folder), item_cf(folder, stream.vocabularies.items)
    measure("popularity", lambda _: most_bought)
    measure("recent popularity", recent_popularity)
    measure("item CF", lambda _: similar)
    measure("repurchase", lambda catalog: repurchase(recent_popularity(catalog)))
    losses = {}
    for kind, (hard, from_batch) in KINDS.items():
        if hard and not stream.files.n_hard:
            continue
        model, losses[kind] = train(
            folder, hard=hard, from_batch=from_batch, epochs=epochs, seed=seed, notify=notify
        )
        measure(
            f"model, {kind}",
            lambda catalog, model=model: of_model(model, catalog, stream.vocabularies),
        )
    best = max(
        (name for name in figures if name.startswith("model")),
        key=lambda name: figures[name]["val"]["recall@50"],
    )
    return {
        "dataset": str(folder),
        "content_digest": stream.files.manifest["content_digest"],
        "settings": {
            "epochs": epochs,
            "seed": seed,
            "batch_size": _BATCH_SIZE,
            "learning_rate": _LEARNING_RATE,
        },
        "positives": {split: len(found.target) for split, found in evaluations.items()},
        "items": stream.vocabularies.n_items,
        "figures": figures,
        "last_loss": losses,
        "best_model": best,
        "recall_target": RECALL_TARGET,
        "target_reached": figures[best]["val"]["recall@50"] >= RECALL_TARGET,
        "ratio_to_popularity": figures[best]["val"]["recall@50"]
        / max(figures["popularity"]["val"]["recall@50"], 1e-9),
    }


def train(
    folder: Path,
    *,
    hard: bool,
    from_batch: bool,
    epochs: int,
    seed: int,
    notify: Callable[[str], None],
) -> tuple[TwoTower, float]:
    """A model trained for so many epochs, and its mean loss over the last one."""
    stream = ContrastiveStream(
        folder,
        "train",
        columns=["user_id", *USER_COLUMNS, "item_id", *ITEM_CATEGORIES, *ITEM_NUMBERS],
        batch_size=_BATCH_SIZE,
        seed=seed,
        n_hard=None if hard else 0,
        collate=InBatch(folder, "train", from_batch=from_batch),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TwoTower(stream.vocabularies.sizes())
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
    kind = next(name for name, parts in KINDS.items() if parts == (hard, from_batch))
    mean = float("nan")
    for epoch in range(epochs):
        total = torch.zeros(())
        for batch in stream:
            loss = info_nce(
                model.users(batch["user_features"]), model.items(batch["item_features"]), batch
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        mean = float(total) / len(stream)
        notify(f"model, {kind}: epoch {epoch + 1} of {epochs}, loss {mean:.3f}")
    return model.eval(), mean


@torch.no_grad()
def of_model(model: TwoTower, catalog: Catalog, vocabularies: Vocabularies) -> Scores:
    """Scores of all items as of the positive's snapshot."""
    static = {
        name: torch.from_numpy(vocabularies.item_categories[name]) for name in ITEM_CATEGORIES
    }
    static["item_index"] = torch.arange(vocabularies.n_items + 1)

    @torch.no_grad()
    def scores(positives: Sample, snapshots: torch.Tensor) -> torch.Tensor:
        users = model.users(positives["user_features"])
        found = users.new_empty((len(users), vocabularies.n_items + 1))
        for snapshot in snapshots.unique():
            items = model.items(
                {**static, **{name: table[snapshot] for name, table in catalog.features.items()}}
            )
            rows = snapshots == snapshot
            found[rows] = users[rows] @ items.T
        return found

    return scores
