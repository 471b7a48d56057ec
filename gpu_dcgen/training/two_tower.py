"""A small two-tower model: enough to see what a dataset teaches, in minutes on two cores."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .groups import SEQUENCE
from .history import HISTORY_FEATURES
from .vocabularies import ITEM_CATEGORIES

_CALENDAR = {"day_of_week": 7, "month": 13}  # rows of their embedding tables
_LOGARITHMIC = ("user_lifetime_days", "user_total_purchases", "user_avg_basket_size")
# Weight of a purchase against the one after it, in the second of the two means of the history.
_RECENCY = 0.8
USER_COLUMNS = (
    SEQUENCE,
    "user_age_group",
    "user_club_status",
    "user_news_frequency",
    "user_preferred_channel",
    *_LOGARITHMIC,
    *_CALENDAR,
)
ITEM_NUMBERS = ("item_popularity_score", "item_price_normalized")


class TwoTower(nn.Module):
    """Vectors of users and of items; the score of a pair is their product.

    A user's vector is made of the items of the history and of what is known about the user and the
    time; an item's of its id, its categories, and its features at the snapshot. The last number is
    1 for users, and for items a score of their own. To the product of an item that is in the user's
    history a score of its place there is added.

    Example:
        >>> model = TwoTower(stream.vocabularies.sizes())
        >>> users = model.encode_users(batch["user_features"])  # (n, 65)
        >>> items = model.encode_items(batch["item_features"])  # (n, width, 65)
        >>> loss = info_nce(users, items, batch, score_history=model.score_history)
    """

    def __init__(self, sizes: dict[str, int], *, d: int = 64) -> None:
        """Make the layers.

        Args:
            sizes: Values of each integer column, as from `DatasetVocabularies.sizes()`.
            d: Numbers of a vector, without the last one.
        """
        super().__init__()
        sizes = {**sizes, **_CALENDAR}
        self.item = nn.Embedding(sizes["item_index"], d, padding_idx=0)
        self.user_columns = [name for name in USER_COLUMNS if name in sizes]
        self.context = nn.ModuleDict(
            {name: nn.Embedding(sizes[name], d) for name in self.user_columns}
        )
        self.categories = nn.ModuleDict(
            {name: nn.Embedding(sizes[name], d) for name in ITEM_CATEGORIES}
        )
        self.user_numbers = nn.Linear(len(_LOGARITHMIC), d)
        self.item_numbers = nn.Linear(len(ITEM_NUMBERS), d)
        self.user_layers = nn.Sequential(nn.Linear(3 * d, 2 * d), nn.ReLU(), nn.Linear(2 * d, d))
        self.item_layers = nn.Sequential(nn.Linear(d, 2 * d), nn.ReLU(), nn.Linear(2 * d, d))
        self.item_score = nn.Linear(d, 1)
        n_features = len(HISTORY_FEATURES)
        self.history_layers = nn.Sequential(nn.Linear(n_features, 8), nn.ReLU(), nn.Linear(8, 1))
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.1)
        with torch.no_grad():
            self.item.weight[0] = 0

    def encode_users(self, features: dict[str, Tensor]) -> Tensor:
        """Return the vectors of users: (n, d + 1) float32, from `user_features`."""
        sequence = features[SEQUENCE]
        is_item = (sequence > 0).float()
        n_later = is_item.flip(1).cumsum(1).flip(1) - 1  # purchases after this one
        weights = torch.stack([is_item, is_item * _RECENCY**n_later], dim=1)
        weights = weights / weights.sum(dim=2, keepdim=True).clamp(min=1e-6)
        means = weights @ self.item(sequence)  # (n, 2, d)
        numbers = [features[name].float().log1p() for name in _LOGARITHMIC]
        context = self.user_numbers(torch.stack(numbers, dim=1))
        for name, table in self.context.items():
            context = context + table(features[name])
        vector = means[:, 1] + self.user_layers(torch.cat([means.flatten(1), context], dim=1))
        return torch.cat([vector, torch.ones_like(vector[:, :1])], dim=1)

    def encode_items(self, features: dict[str, Tensor]) -> Tensor:
        """Return the vectors of items: (..., d + 1) float32, from `item_features` of any shape."""
        vector = self.item(features["item_index"])
        for name, table in self.categories.items():
            vector = vector + table(features[name])
        numbers = torch.stack([features[name] for name in ITEM_NUMBERS], dim=-1)
        vector = vector + self.item_numbers(numbers)
        vector = vector + self.item_layers(vector)
        return torch.cat([vector, self.item_score(vector)], dim=-1)

    def score_history(self, in_history: Tensor) -> Tensor:
        """Return the score of an item's place in the history: (...) float32, 0 if it is not there.

        `in_history` is (..., 3), as of `compute_in_history`.
        """
        return in_history[..., 0] * self.history_layers(in_history)[..., 0]
