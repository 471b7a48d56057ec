"""Stages 6 and 7: list candidates of hard negatives, and draw the negatives (D11 to D14)."""

from __future__ import annotations

from ..backend.protocol import Backend
from ..config import DatasetConfig
from ..preparation.features import AsOfFeatures
from ..preparation.interactions import Interactions
from ..preparation.splits import SplitPlan
from ..similarity_computer.compute import Neighbors
from .calibration import WEIGHT_ONE, weigh_items
from .candidates import list_item_candidates
from .sampling import (
    Candidates,
    Negatives,
    SamplerInputs,
    allocate_filter,
    find_lists,
    gather_hard_tables,
    gather_positives,
    list_sources,
    sample_negatives,
    select_by_hash,
)
from .views import select_views

__all__ = [
    "WEIGHT_ONE",
    "Candidates",
    "Negatives",
    "SamplerInputs",
    "allocate_filter",
    "find_candidates",
    "find_lists",
    "gather_hard_tables",
    "gather_positives",
    "list_sources",
    "sample_negatives",
    "select_by_hash",
    "select_views",
]


def find_candidates(
    interactions: Interactions,
    features: AsOfFeatures,
    neighbors: Neighbors,
    plan: SplitPlan,
    config: DatasetConfig,
    backend: Backend,
) -> Candidates:
    """List the candidates of all positives' items and snapshots, and weigh the items (D13)."""
    lists = list_item_candidates(interactions, features, neighbors, plan, config, backend)
    train = plan.positives[0]
    weight = weigh_items(interactions, features, neighbors, lists, train, config, backend)
    return Candidates(lists, weight)
