"""Ways to train the model of the probe: which negatives take part, with what weights.

The losses are those of `losses.info_nce`, with one vector for all positives of a basket and one for
all occurrences of an item.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .baskets import Baskets, Catalog
from .frequencies import PositiveShares
from .groups import SEQUENCE, expand_runs
from .history import describe_history
from .order import permute
from .stream import BatchRule
from .two_tower import TwoTower

_BASKETS = 10  # purpose of the random numbers, beside those of `order`
_SMOOTHING = 1000.0


class Recipe(NamedTuple):
    """What a model is trained on."""

    batches: BatchRule = "snapshot"
    has_in_batch: bool = True
    has_random: bool = False
    hard: int | None = None  # code of the negative_detail to use; 0 for all; None for none
    has_history: bool = True
    is_plain: bool = False  # a plain softmax over the stored rows


class TrainSettings(NamedTuple):
    """How models are trained."""

    steps: int = 150
    positives_per_step: int = 2048
    learning_rate: float = 1e-2
    temperature: float = 1.0
    d: int = 32


class TrainData(NamedTuple):
    """What all models of a probe are trained on."""

    baskets: Baskets
    catalog: Catalog
    offsets: Tensor  # (n_users + 2,) int64: of each user_index in `owned`
    owned: Tensor  # item_index, sorted per user
    sizes: dict[str, int]  # of the embedding tables
    n_hard: int


def train(data: TrainData, recipe: Recipe, settings: TrainSettings, seed: int) -> TwoTower:
    """Train a model; the same seed gives all recipes the same first weights and baskets."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TwoTower(data.sizes, d=settings.d)
    shares = _count_shares(data, recipe)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, settings.steps)
    batches = _list_batches(data.baskets, recipe.batches, settings.positives_per_step, seed)
    for _, baskets in zip(range(settings.steps), batches, strict=False):
        loss = _compute_loss(model, data, recipe, baskets, shares, settings)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def _count_shares(data: TrainData, recipe: Recipe) -> PositiveShares:
    baskets = data.baskets
    snapshots = baskets.snapshot.repeat_interleave(baskets.offsets.diff())
    return PositiveShares(
        baskets.item,
        data.catalog.n_items,
        snapshots=snapshots if recipe.batches == "snapshot" else None,
        smoothing=_SMOOTHING,
    )


def _list_batches(baskets: Baskets, rule: BatchRule, size: int, seed: int) -> Iterator[Tensor]:
    """Yield baskets with about `size` positives together, epoch after epoch, without end."""
    counts, snapshot = baskets.offsets.diff().numpy(), baskets.snapshot.numpy()
    epoch = 0
    while True:
        order = permute(len(baskets), seed, _BASKETS, epoch)
        pieces = [order]
        if rule == "snapshot":
            order = order[np.argsort(snapshot[order], kind="stable")]
            pieces = np.split(order, np.flatnonzero(np.diff(snapshot[order])) + 1)
        batches = []
        for piece in pieces:
            end = np.cumsum(counts[piece])
            n_batches = max(1, round(end[-1] / size))
            number = np.minimum((end - 1) * n_batches // end[-1], n_batches - 1)
            batches += np.split(piece, np.flatnonzero(np.diff(number)) + 1)
        for place in permute(len(batches), seed, _BASKETS, epoch, 1):
            yield torch.from_numpy(batches[place])
        epoch += 1


def _compute_loss(
    model: TwoTower,
    data: TrainData,
    recipe: Recipe,
    chosen: Tensor,
    shares: PositiveShares,
    settings: TrainSettings,
) -> Tensor:
    """Compute the mean loss of the positives of the chosen baskets."""
    baskets, catalog = data.baskets, data.catalog
    users = model.encode_users({k: v[chosen] for k, v in baskets.user_features.items()})
    positives, basket = baskets.find_positives(chosen)
    snapshot = baskets.snapshot[chosen]
    item = baskets.item[positives]
    stored = _select_stored(baskets, recipe, positives, data.n_hard)
    # A vector for each item and, as its features differ, snapshot.
    width = catalog.n_items + 1
    keys = torch.cat([item[:, None], stored], dim=1).long() + (snapshot[basket] * width)[:, None]
    unique, column = torch.unique(keys, return_inverse=True)
    vectors = model.encode_items(catalog.select(unique % width, unique // width))
    own_users = functional.embedding(basket, users)
    scores = (own_users[:, None] * functional.embedding(column, vectors)).sum(dim=2)
    own = scores[:, 0]
    if recipe.has_history:
        sequence = baskets.user_features[SEQUENCE][chosen]
        own = own + _score_history(model, sequence, basket, item)
    own = own / settings.temperature
    logits = [own[:, None]]
    if stored.shape[1]:
        stored_logits = scores[:, 1:] / settings.temperature
        logits.append(stored_logits - _correct_stored(baskets, recipe, positives, data.n_hard))
    if recipe.has_in_batch:
        offered, first = _find_first(item)
        log_q = shares.compute_log_q(offered, int(snapshot[0]), len(item) - 1)
        batch_logits = users @ vectors[column[first, 0]].T / settings.temperature - log_q
        is_owned = _find_owned(data, chosen, offered)
        batch_logits = batch_logits.masked_fill(is_owned, -torch.inf)
        in_batch = torch.logsumexp(batch_logits, dim=1)
        logits.append(functional.embedding(basket, in_batch[:, None]))
    return (torch.logsumexp(torch.cat(logits, dim=1), dim=1) - own).mean()


def _find_first(item: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct items, and the place where each comes first."""
    offered, column = torch.unique(item, return_inverse=True)
    first = torch.full((len(offered),), len(item))
    return offered, first.scatter_reduce(0, column, torch.arange(len(item)), "amin")


def _select_stored(baskets: Baskets, recipe: Recipe, positives: Tensor, n_hard: int) -> Tensor:
    start = 0 if recipe.hard is not None else n_hard
    end = baskets.negatives.shape[1] if recipe.has_random else n_hard
    return baskets.negatives[positives, start : max(start, end)]


def _correct_stored(baskets: Baskets, recipe: Recipe, positives: Tensor, n_hard: int) -> Tensor:
    """Return what to subtract from the logits of stored negatives, as `InBatch` does."""
    n_random = baskets.negatives.shape[1] - n_hard if recipe.has_random else 0
    random = torch.zeros((len(positives), n_random))
    if recipe.hard is None:
        return random
    hard = torch.zeros((len(positives), n_hard))
    if not recipe.is_plain:
        assert baskets.log_q is not None
        hard = baskets.log_q[positives, :n_hard]
        if not recipe.has_in_batch:
            hard = hard - baskets.log_q[positives, -1:]
    if recipe.hard:
        hard = hard.masked_fill(baskets.detail[positives] != recipe.hard, torch.inf)
    return torch.cat([hard, random], dim=1)


def _score_history(model: TwoTower, sequence: Tensor, basket: Tensor, item: Tensor) -> Tensor:
    """Score each positive by its place in its basket's history: (P,) float32."""
    is_equal = sequence[basket] == item[:, None]
    place = is_equal.byte().argmax(dim=1)
    features = describe_history(sequence)[basket, place] * is_equal.any(dim=1)[:, None]
    return model.score_history(features)


def _find_owned(data: TrainData, chosen: Tensor, offered: Tensor) -> Tensor:
    """Find which of the offered items the users of the baskets own: (n, m) bool."""
    user = data.baskets.user[chosen]
    owned, row = expand_runs(data.offsets, user)
    is_owned = torch.zeros((len(user), data.catalog.n_items + 1), dtype=torch.bool)
    is_owned[row, data.owned[owned].long()] = True
    is_owned.scatter_(1, data.baskets.user_features[SEQUENCE][chosen].long(), True)
    return is_owned[:, offered]
