"""Choose each epoch's negatives from those that the dataset stores.

All that holds for a stored negative (on sale then, not owned, D11 to D13) holds for a chosen one.
Build more than a training step needs (`negative_sampling.random_negatives_per_positive`), and each
epoch shows the model other ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .files import SplitFiles
from .groups import CandidateGroups
from .order import NEGATIVES, make_key, mix


@dataclass(frozen=True)
class NegativeChoice:
    """How many of the stored negatives of a positive to take."""

    n_hard: int
    n_random: int
    is_fresh: bool  # others in each epoch; else the first ones, the best hard ones by score

    def choose_slots(
        self, groups: CandidateGroups, files: SplitFiles, *, seed: int, epoch: int
    ) -> np.ndarray:
        """Choose the slots of each group, the positive first: (n, 1 + n_hard + n_random) int64.

        Each kind comes in its stored order. Fresh ones are drawn without replacement, as a pure
        function of (seed, epoch, sample).
        """
        first_random = 1 + files.n_hard
        if not self.is_fresh:
            slots = [*range(1 + self.n_hard), *range(first_random, first_random + self.n_random)]
            return np.tile(np.array(slots), (len(groups), 1))
        slot, group = (groups.metadata[name].cpu().numpy() for name in ("slot", "group_number"))
        sample = (group[:, None] * files.width + slot).astype(np.uint64)
        keys = mix(make_key(seed, NEGATIVES, epoch) ^ mix(sample))
        positive = np.zeros((len(groups), 1), np.int64)
        hard = 1 + _find_smallest(keys[:, 1:first_random], self.n_hard)
        random = first_random + _find_smallest(keys[:, first_random:], self.n_random)
        return np.concatenate([positive, hard, random], axis=1)


def choose_negatives(
    groups: CandidateGroups, files: SplitFiles, choice: NegativeChoice, *, seed: int, epoch: int
) -> CandidateGroups:
    """Return the groups with the chosen negatives only."""
    if (choice.n_hard, choice.n_random) == (files.n_hard, files.n_random):
        return groups
    slots = choice.choose_slots(groups, files, seed=seed, epoch=epoch)

    def select(tensor: Tensor) -> Tensor:
        if tensor.device.type != "cpu":
            return tensor.gather(1, torch.from_numpy(slots).to(tensor.device))
        return torch.from_numpy(np.take_along_axis(tensor.numpy(), slots, axis=1))

    return CandidateGroups(
        groups.user_features,
        {name: select(tensor) for name, tensor in groups.item_features.items()},
        {
            name: select(tensor) if tensor.dim() == 2 else tensor
            for name, tensor in groups.metadata.items()
        },
    )


def _find_smallest(keys: np.ndarray, k: int) -> np.ndarray:
    """(n, k) int64: the columns of the k smallest keys of each row, in rising order."""
    return np.sort(np.argsort(keys, axis=1, kind="stable")[:, :k], axis=1)
