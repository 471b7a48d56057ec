"""This epoch's negatives of each positive, drawn from those that the dataset stores for it.

All that holds of a stored negative (on sale then, not owned, D11 to D13) holds of what is drawn. Build more than a
training step needs (`negative_sampling.random_negatives_per_positive`), and each epoch shows the model others.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .files import SplitFiles
from .order import NEGATIVES, key, mix
from .row_groups import Block


def redraw(
    block: Block, files: SplitFiles, wanted: tuple[int, int], *, seed: int, epoch: int | None
) -> Block:
    """The block with `wanted` = (hard, random) negatives a positive, each kind in its stored order.

    `epoch` None: the first ones. Else drawn without replacement, a pure function of (seed, epoch, sample).
    """
    n_hard, n_random = wanted
    if (n_hard, n_random) == (files.n_hard, files.n_random):
        return block
    first_random = 1 + files.n_hard
    if epoch is None:
        chosen = [*range(1 + n_hard), *range(first_random, first_random + n_random)]
        slots = np.tile(np.array(chosen), (len(block), 1))
    else:
        slot, group = (block.metadata[name].cpu().numpy() for name in ("slot", "group_number"))
        luck = mix(
            key(seed, NEGATIVES, epoch)
            ^ mix((group[:, None] * files.width + slot).astype(np.uint64))
        )
        hard, random = (
            _smallest(luck[:, 1:first_random], n_hard),
            _smallest(luck[:, first_random:], n_random),
        )
        slots = np.concatenate(
            [np.zeros((len(block), 1), np.int64), 1 + hard, first_random + random], axis=1
        )

    def take(tensor: Tensor) -> Tensor:
        if tensor.device.type != "cpu":
            return tensor.gather(1, torch.from_numpy(slots).to(tensor.device))
        return torch.from_numpy(np.take_along_axis(tensor.numpy(), slots, axis=1))

    return Block(
        block.user_features,
        {name: take(tensor) for name, tensor in block.item_features.items()},
        {
            name: take(tensor) if tensor.dim() == 2 else tensor
            for name, tensor in block.metadata.items()
        },
    )


def _smallest(luck: np.ndarray, k: int) -> np.ndarray:
    """(n, k) int64: the columns of the k smallest entries of each row, in rising order of column."""
    return np.sort(np.argsort(luck, axis=1, kind="stable")[:, :k], axis=1)
