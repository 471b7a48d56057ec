"""Weigh the items of candidate lists: each is mined as often as it is bought (D13).

An item's expected number of draws, over a sample of the train positives, is brought into the
proportion of its purchases, by repeated scaling. The expectations are exact sums of integers, so
weights do not depend on the order of summation.
"""

from __future__ import annotations

from typing import Any

from ..backend.protocol import Array, Backend
from ..backend.runs import count_codes
from ..config import DatasetConfig
from ..kernels import rng
from ..kernels.hard import (
    PROBABILITY_ONE,
    Probabilities,
    find_probabilities,
    mark_free_candidates,
)
from ..preparation.features import AsOfFeatures
from ..preparation.interactions import Interactions
from ..preparation.splits import Positives
from ..similarity_computer.compute import Neighbors
from .candidates import ItemLists, list_key
from .sampling import (
    Candidates,
    SamplerInputs,
    find_lists,
    gather_positives,
    prepare_drawing,
    select_by_hash,
)

WEIGHT_ONE = 1 << 8  # the weight of an item that is drawn as often as it should be
_N_ROUNDS = 12
_MAX_POSITIVES = 1 << 17  # to look at, at most
_MAX_FACTOR = 256.0  # by which a weight is raised or lowered, at most
_BLOCK = 1 << 13  # positives at a time


def weigh_items(
    interactions: Interactions,
    features: AsOfFeatures,
    neighbors: Neighbors,
    lists: ItemLists,
    train: Positives,
    config: DatasetConfig,
    backend: Backend,
) -> Array:
    """Compute each item's weight in the lists: `mining_weight` (I,) int32."""
    xp, settings, n_items = backend.xp, config.negative_sampling, interactions.n_items
    factor = xp.ones(n_items, dtype=xp.float64)
    weight = _to_weight(factor, xp)
    is_drawn = settings.selection == "sampled" and settings.hard_negatives_per_positive > 0
    if not (is_drawn and len(train)):
        return weight
    bought = count_codes(xp, interactions.item[train.row], n_items)
    sample = _sample_positives(interactions, train, config.seed, backend)
    # Positives with one list side by side: it then stays in the cache. Sums do not change.
    item, time = interactions.item[train.row[sample]], interactions.time[train.row[sample]]
    key = list_key(item, features.snapshots.number_of(time), n_items, xp)
    sample = sample[xp.argsort(key, kind="stable")]
    inputs = SamplerInputs(interactions, features, neighbors, Candidates(lists, weight))
    blocks = [sample[first : first + _BLOCK] for first in range(0, int(sample.shape[0]), _BLOCK)]
    calibration = _Calibration(blocks, train, inputs, config, backend)
    for _ in range(_N_ROUNDS):
        factor = _adjust(factor, bought, calibration.expect_draws(weight), xp)
        weight = _to_weight(factor, xp)
    return weight


def _sample_positives(
    interactions: Interactions, train: Positives, seed: int, backend: Backend
) -> Array:
    """Return the positions (n,) int64 of the positives to look at.

    One in 2^b, by the highest bits of their hash, with the smallest b that leaves few enough.
    """
    bits = 0
    while len(train) >> bits > _MAX_POSITIVES:
        bits += 1
    key = rng.purpose_key(seed, rng.CALIBRATION_SAMPLE)
    return select_by_hash(train.row, train.copy, bits, key, interactions, backend)


class _Calibration:
    """Blocks of positives, with what stays the same in every round."""

    def __init__(
        self,
        blocks: list[Array],
        train: Positives,
        inputs: SamplerInputs,
        config: DatasetConfig,
        backend: Backend,
    ) -> None:
        """Find the lists of positives, and which of their candidates may be drawn."""
        xp, width = backend.xp, config.negative_sampling.candidates
        self._backend = backend
        self._cells = [xp.empty((_BLOCK, width), dtype=dtype) for dtype in (xp.int64, xp.float64)]
        rows = [
            find_lists(
                gather_positives(train.row[block], train.copy[block], train.window_end, inputs),
                inputs,
                backend,
            )
            for block in blocks
        ]
        drawing = prepare_drawing(rows[0], inputs, config, backend)
        self._drawings = [drawing._replace(rows=each) for each in rows]
        self._is_free = [xp.zeros((int(block.shape[0]), width), dtype=xp.int8) for block in blocks]
        for each, is_free in zip(self._drawings, self._is_free, strict=True):
            n, arguments = int(is_free.shape[0]), (each.rows, each.tables, each.scratch, is_free)
            backend.for_each(mark_free_candidates, n, *arguments, lanes=each.n_lanes)

    def expect_draws(self, weight: Array) -> Array:
        """Sum each item's probabilities: (I,) int64, in units of 1 / PROBABILITY_ONE."""
        xp, n_items = self._backend.xp, int(weight.shape[0])
        total = xp.zeros(n_items, dtype=xp.int64)
        for drawing, is_free in zip(self._drawings, self._is_free, strict=True):
            tables, n = drawing.tables._replace(mining_weight=weight), int(is_free.shape[0])
            probabilities = Probabilities(is_free, *(cells[:n] for cells in self._cells))
            arguments = *drawing._replace(tables=tables), probabilities
            self._backend.for_each(find_probabilities, n, *arguments, lanes=drawing.n_lanes)
            item, value = probabilities.item.reshape(-1), probabilities.value.reshape(-1)
            # Sums of whole numbers below 2^53 are exact in float64.
            total += xp.bincount(item, value, n_items).astype(xp.int64)
        return total


def _adjust(factor: Array, bought: Array, mined: Array, xp: Any) -> Array:
    """Scale factors by (wanted / expected) ^ 0.75, in single operations: equal everywhere.

    One expected draw is added to both, so that rare items change little. Items that could not be
    drawn keep their factors.
    """
    scale = float(mined.sum()) / float(bought.sum())
    ratio = (bought * scale + PROBABILITY_ONE) / (mined + PROBABILITY_ONE)
    scaled = factor * (xp.sqrt(ratio) * xp.sqrt(xp.sqrt(ratio)))
    return xp.where(mined > 0, xp.clip(scaled, 1 / _MAX_FACTOR, _MAX_FACTOR), factor)


def _to_weight(factor: Array, xp: Any) -> Array:
    """Return whole weights: (I,) int32, 1..65536."""
    return xp.clip(xp.rint(factor * WEIGHT_ONE), 1, 1 << 16).astype(xp.int32)
