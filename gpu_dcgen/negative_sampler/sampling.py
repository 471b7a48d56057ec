"""Stage 7: draw the hard and random negatives of a block of positives (D12, D13)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..backend.lanes import allocate_lanes
from ..backend.protocol import Array, Backend
from ..config import DatasetConfig, to_fraction
from ..kernels import rng
from ..kernels.arguments import DrawTables, Log, PositiveRows
from ..kernels.candidates import SCORE_ONE
from ..kernels.draws import N_PLACES, N_STATES, ItemFilter, draw_random, hash_positives
from ..kernels.hard import (
    DrawScratch,
    DrawSettings,
    HardNegatives,
    HardRows,
    HardTables,
    mine_hard,
)
from ..kernels.logarithms import make_table
from ..kernels.sources import SOURCES, NeighborLists
from ..preparation.features import AsOfFeatures
from ..preparation.interactions import Interactions
from ..preparation.splits import Positives
from ..similarity_computer.compute import Neighbors
from .candidates import ItemLists, list_key


@dataclass(frozen=True)
class Candidates:
    """What hard negatives are drawn from."""

    lists: ItemLists
    mining_weight: Array  # (I,) int32  of each item in every list (D13)


@dataclass(frozen=True)
class SamplerInputs:
    """The stages' results that negatives are drawn from."""

    interactions: Interactions
    features: AsOfFeatures
    neighbors: Neighbors
    candidates: Candidates


@dataclass(frozen=True)
class Negatives:
    """Negatives of n positives: the hard ones, then the random ones in order of drawing."""

    item: Array  # (n, hard + random) int32
    source: Array  # (n, hard) int8  code into `kernels.sources.SOURCES`
    similarity: Array  # (n, hard) float32  with the positive, -1 where they are not neighbors
    log_q: Array  # (n, hard) float32  logarithm of the inclusion probability
    n_relaxed: Array  # (n,) int32  hard ones beyond the cap on the positive's own product group
    snapshot: Array  # (n,) int64  number of the positive's item snapshot


def sample_negatives(
    positives: Positives,
    rows: slice,
    inputs: SamplerInputs,
    config: DatasetConfig,
    backend: Backend,
) -> Negatives:
    """Draw the negatives of positives[rows].

    They are on sale at the positive's snapshot, and the user does not buy them before the window's
    end. Hard ones come first, so that the random ones avoid them. A draw depends on the seed and
    on its positive alone.
    """
    xp, settings = backend.xp, config.negative_sampling
    block = gather_positives(
        positives.row[rows], positives.copy[rows], positives.window_end, inputs
    )
    n, n_hard = int(block.user.shape[0]), settings.hard_negatives_per_positive
    negatives = HardNegatives(
        item=xp.empty((n, n_hard + settings.random_negatives_per_positive), dtype=xp.int32),
        source=xp.empty((n, n_hard), dtype=xp.int8),
        similarity=xp.empty((n, n_hard), dtype=xp.float32),
        log_q=xp.empty((n, n_hard), dtype=xp.float32),
        n_relaxed=xp.zeros(n, dtype=xp.int32),
    )
    if n_hard:
        drawing = prepare_drawing(find_lists(block, inputs, backend), inputs, config, backend)
        backend.for_each(mine_hard, n, *drawing, negatives, lanes=drawing.n_lanes)
        items = drawing.scratch.items
    else:
        items, _ = allocate_filter(backend, n)
    key, tables = rng.purpose_key(config.seed, rng.RANDOM_NEGATIVE), _gather_draw_tables(inputs)
    drawn, n_lanes = negatives.item, int(items.state.shape[0])
    backend.for_each(draw_random, n, key, n_hard, block, tables, items, drawn, lanes=n_lanes)
    return Negatives(*negatives, block.snapshot)


def gather_positives(
    row: Array, copy: Array, window_end: int, inputs: SamplerInputs
) -> PositiveRows:
    """Return the positives at rows (n,) int64 of the interactions, as kernels read them."""
    log = inputs.interactions
    user, item, time = log.user[row], log.item[row], log.time[row]
    return PositiveRows(
        user=user,
        item=item,
        time=time,
        copy=copy,
        snapshot=inputs.features.snapshots.number_of(time),
        user_key=log.user_key[user],
        item_key=log.item_key[item],
        window_end=window_end,
    )


def list_sources(interactions: Interactions) -> tuple[str, ...]:
    """List the sources that hard negatives of a log may have: `viewed` needs views."""
    return tuple(name for name in SOURCES if name != "viewed" or interactions.views is not None)


def select_by_hash(
    row: Array, copy: Array, bits: int, key: Any, interactions: Interactions, backend: Backend
) -> Array:
    """Select one positive in 2^bits; returns positions (m,) int64.

    `row` (n,) int64 and `copy` (n,) int32 are those of the positives. One is selected if the
    highest `bits` bits of its hash are zero. `key` is that of a seed and a purpose, uint64.
    """
    xp = backend.xp
    if not bits:
        return xp.arange(row.shape[0], dtype=xp.int64)
    log, n = Log(interactions.user, interactions.item, interactions.time), int(row.shape[0])
    hashed = xp.empty(n, dtype=xp.uint64)
    keys = interactions.user_key, interactions.item_key
    backend.for_each(hash_positives, n, key, row, copy, log, *keys, hashed)
    return xp.nonzero(hashed >> xp.uint64(64 - bits) == 0)[0]


class DrawArguments(NamedTuple):
    """The arguments that the kernels share that draw from lists, or tell what would be drawn."""

    rows: HardRows
    tables: HardTables
    settings: DrawSettings
    scratch: DrawScratch

    @property
    def n_lanes(self) -> int:
        """Rows that may run at the same time."""
        return int(self.scratch.weight.shape[0])


def prepare_drawing(
    rows: HardRows, inputs: SamplerInputs, config: DatasetConfig, backend: Backend
) -> DrawArguments:
    """Collect what kernels draw from for rows, with their scratch space."""
    return DrawArguments(
        rows=rows,
        tables=gather_hard_tables(inputs, config, backend),
        settings=_convert_settings(config, inputs.interactions.has_groups),
        scratch=_allocate_scratch(int(rows.first.shape[0]), config, backend),
    )


def find_lists(positives: PositiveRows, inputs: SamplerInputs, backend: Backend) -> HardRows:
    """Find the list of each positive's item and snapshot."""
    lists, n_items, xp = inputs.candidates.lists, inputs.interactions.n_items, backend.xp
    key = list_key(positives.item, positives.snapshot, n_items, xp)
    number = xp.searchsorted(lists.key, key)
    return HardRows(
        positives,
        lists.offsets[number],
        lists.offsets[number + 1],
        lists.own_first[number],
        lists.own_stop[number],
    )


def _gather_draw_tables(inputs: SamplerInputs) -> DrawTables:
    """Return what decides which items may be drawn."""
    return DrawTables(
        inputs.features.snapshots.corpus,
        inputs.features.ownership,
        inputs.interactions.item_columns["product_code"].codes,
    )


def gather_hard_tables(
    inputs: SamplerInputs, config: DatasetConfig, backend: Backend
) -> HardTables:
    """Return what hard negatives are drawn from."""
    lists, neighbors = inputs.candidates.lists, inputs.neighbors
    weights = dict(config.negative_sampling.source_weights)
    return HardTables(
        draws=_gather_draw_tables(inputs),
        item=lists.item,
        source=lists.source,
        score=lists.score,
        rank=lists.rank,
        source_weight=backend.from_host([weights.get(name, 0) for name in SOURCES]),
        mining_weight=inputs.candidates.mining_weight,
        product_group=inputs.features.snapshots.group,
        neighbors=NeighborLists(neighbors.offsets, neighbors.item, neighbors.similarity),
        log_table=backend.from_host(make_table()),
    )


def _convert_settings(config: DatasetConfig, has_groups: bool) -> DrawSettings:
    settings, seed = config.negative_sampling, config.seed
    n_hard = settings.hard_negatives_per_positive
    max_own_group = math.floor(to_fraction(settings.diversity_threshold) * n_hard)
    return DrawSettings(
        n_hard=n_hard,
        max_own_group=max_own_group if has_groups else n_hard,
        is_greedy=settings.selection == "greedy",
        diversity_weight=round(settings.score.diversity * SCORE_ONE),
        draw_key=rng.purpose_key(seed, rng.HARD_NEGATIVE),
        fallback_key=rng.purpose_key(seed, rng.FALLBACK_NEGATIVE),
    )


def allocate_filter(
    backend: Backend, n_rows: int, **fields: tuple[int, Any]
) -> tuple[ItemFilter, dict[str, Array]]:
    """Allocate a filter of items, and other fields of (n, dtype) with as many lanes."""
    xp = backend.xp
    parts = {"stamps": (N_PLACES, xp.uint8), "state": (N_STATES, xp.int32)}
    lanes = allocate_lanes(backend, n_rows, zeros=tuple(parts), **parts, **fields)
    return ItemFilter(**{name: lanes.pop(name) for name in parts}), lanes


def _allocate_scratch(n_rows: int, config: DatasetConfig, backend: Backend) -> DrawScratch:
    """Return scratch space, as many lanes as the backend runs rows at a time."""
    xp, settings = backend.xp, config.negative_sampling
    width, n_hard = settings.candidates, settings.hard_negatives_per_positive
    items, lanes = allocate_filter(
        backend,
        n_rows,
        is_free=(width, xp.int8),
        weight=(width, xp.int64),
        is_certain=(width, xp.int8),
        log_q=(width, xp.float32),
        chosen=(n_hard, xp.int32),
    )
    return DrawScratch(items=items, **lanes)
