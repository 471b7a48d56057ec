"""A small two-tower model: enough to see whether a dataset teaches anything, quick enough for two cores.

The user's vector is made of the history's items and of what is known of the user and the moment; the item's of its id,
its categories and what its snapshot knows. The score is their product.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .row_groups import SEQUENCE

_CALENDAR = {"day_of_week": 7, "month": 13}  # rows of their embedding tables
_LOGARITHMIC = ("user_lifetime_days", "user_total_purchases", "user_avg_basket_size")
# weight of a purchase against the one after it, in the second of the two means of the history
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
ITEM_CATEGORIES = (
    "item_product_group",
    "item_color_group",
    "item_garment_group",
    "item_department",
    "item_index_group",
)
ITEM_NUMBERS = ("item_popularity_score", "item_price_normalized")


class TwoTower(nn.Module):
    """Vectors of users and items of `d` + 1 numbers, whose last pair is the item's own score."""

    def __init__(self, sizes: dict[str, int], *, d: int = 64) -> None:
        """`sizes`: values of each integer column, as `Vocabularies.sizes()`."""
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
        self.user_numbers, self.item_numbers = (
            nn.Linear(len(_LOGARITHMIC), d),
            nn.Linear(len(ITEM_NUMBERS), d),
        )
        self.user_layers = nn.Sequential(nn.Linear(3 * d, 2 * d), nn.ReLU(), nn.Linear(2 * d, d))
        self.item_layers = nn.Sequential(nn.Linear(d, 2 * d), nn.ReLU(), nn.Linear(2 * d, d))
        self.item_score = nn.Linear(d, 1)
        for table in (self.item, *self.context.values(), *self.categories.values()):
            nn.init.normal_(table.weight, std=0.1)
        with torch.no_grad():
            self.item.weight[0] = 0

    def users(self, features: dict[str, Tensor]) -> Tensor:
        """(n, d + 1)"""
        sequence = features[SEQUENCE]
        there = (sequence > 0).float()
        from_end = there.flip(1).cumsum(1).flip(1) - 1  # purchases after this one
        weights = torch.stack([there, there * _RECENCY**from_end], dim=1)
        means = (weights / weights.sum(dim=2, keepdim=True).clamp(min=1e-6)) @ self.item(
            sequence
        )  # (n, 2, d)
        context = self.user_numbers(
            torch.stack([features[name].float().log1p() for name in _LOGARITHMIC], dim=1)
        )
        for name, table in self.context.items():
            context = context + table(features[name])
        vector = means[:, 1] + self.user_layers(torch.cat([means.flatten(1), context], dim=1))
        return torch.cat([vector, torch.ones_like(vector[:, :1])], dim=1)

    def items(self, features: dict[str, Tensor]) -> Tensor:
        """(..., d + 1) for columns of any shape."""
        vector = self.item(features["item_index"])
        for name, table in self.categories.items():
            vector = vector + table(features[name])
        vector = vector + self.item_numbers(
            torch.stack([features[name] for name in ITEM_NUMBERS], dim=-1)
        )
        vector = vector + self.item_layers(vector)
        return torch.cat([vector, self.item_score(vector)], dim=-1)
