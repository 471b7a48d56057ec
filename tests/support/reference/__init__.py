"""The oracle: a second, slow and obvious writing of the decisions, for shops of a few hundred rows.

Sets, dicts, lists and loops over plain Python values; it shares no code with the package and reads
nothing of it but a `DatasetConfig`. NumPy appears only to round to float32 and for elementary
functions. Each module names in its docstring the readings it took where the decisions leave room.

    world = reference.build(tables, config)     # rows as dicts, `t_dat` in nanoseconds
    reference.digest(values, "list<int>")       # content digest of one column (D22)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import samples, splits, weights
from .content import digest
from .features import Snapshots
from .negatives import Miner
from .similarity import Neighbor, find_neighbors
from .splits import Positive
from .world import SPLITS, Cuts, Interaction, Log, Tables, read_log

__all__ = [
    "SPLITS",
    "Cuts",
    "Interaction",
    "Log",
    "Neighbor",
    "Positive",
    "Snapshots",
    "Tables",
    "Unbuildable",
    "World",
    "build",
    "digest",
]


class Unbuildable(Exception):
    """No dataset can be made of the tables under the configuration; the text says why."""


@dataclass(frozen=True)
class World:
    """Everything a build must come to. Users and items are codes into `users` and `items`; splits
    are 0, 1, 2.
    """

    users: list[str]  # kept user ids, sorted
    items: list[str]  # kept item ids, sorted
    item_index: dict[str, int]  # by id, from 1
    mining_weights: list[int]  # by item: how much more often than others it is drawn, x 256
    interactions: list[Interaction]  # in (user, item, time) order
    dropped: dict[str, int]  # collapsed lines; cold_user and cold_item interactions
    cuts: Cuts  # t0, cut1, cut2, t1
    assignment: dict[
        int, int | None
    ]  # user -> split; None: in no split (with `temporal`: everybody)
    ledger: dict[
        str, int
    ]  # bucket -> interactions; sums to len(interactions); emitted_train, emitted_val, emitted_test
    # popularity(k, item), price(k, item) in 2^-20 units, normalized, category, on_sale(k), at(time)
    snapshots: Snapshots
    neighbors: list[list[Neighbor]]  # by item: (item, similarity, common)
    positives: list[list[Positive]]  # by split, in file order, resampled
    rows: list[list[dict[str, Any]]]  # by split, in file order
    similarity_rows: list[dict[str, Any]]
    hard_candidate_rows: list[dict[str, Any]]
    user_sequence_rows: list[dict[str, Any]]
    category_weights: dict[str | None, float]
    segment_weights: dict[str, float]  # of the segments that have train positives
    relaxed: int  # hard negatives chosen beyond the cap on the positive's own group
    shortfall: int  # hard negatives that had to be fallbacks


def build(tables: Tables, config: Any, *, partly: bool = False) -> World:
    """The whole build of clean tables, as `config` (a DatasetConfig) says; Unbuildable where no
    dataset exists.

    `partly` puts up with splits that have no positive.
    """
    log = read_log(tables, config)
    _require(log.interactions, "no interaction is left")
    _require(
        config.split.strategy == "leave_last"
        or log.cuts.t0 < log.cuts.cut1 < log.cuts.cut2 <= log.cuts.t1,
        "a window is empty",
    )
    _require(len(log.items) > config.negatives_per_positive, "too few items for a group")
    snapshots = Snapshots(log, config)
    assignment = splits.assign(log, config)
    planned, ledger = splits.emit(log, config, snapshots, assignment)
    _require(partly or all(planned), "a split has no positive")
    by_category = weights.category_weights(log, config, planned[0])
    by_segment = weights.segment_weights(log, config, planned[0], by_category)
    planned[0] = weights.weigh(log, config, planned[0], by_category, by_segment)
    _require(partly or planned[0], "resampling leaves no train positive")
    positives = [samples.in_file_order(planned[split], split, config) for split in range(3)]
    neighbors = find_neighbors(log, config)
    miner = Miner(log, config, snapshots, neighbors, positives[0])
    rows = [
        [
            row
            for group, positive in enumerate(positives[split])
            for row in samples.group_rows(log, config, snapshots, miner, positive, group)
        ]
        for split in range(3)
    ]
    return World(
        users=log.users,
        items=log.items,
        item_index={log.items[item]: index for index, item in enumerate(log.in_order, start=1)},
        mining_weights=miner.hard.mining_weights,
        interactions=log.interactions,
        dropped=log.dropped,
        cuts=log.cuts,
        assignment=assignment,
        ledger=ledger,
        snapshots=snapshots,
        neighbors=neighbors,
        positives=positives,
        rows=rows,
        similarity_rows=samples.similarity_rows(log, neighbors),
        hard_candidate_rows=samples.hard_candidate_rows(log, config, snapshots, miner, positives),
        user_sequence_rows=samples.user_sequence_rows(log, config, assignment),
        category_weights=by_category,
        segment_weights=by_segment,
        relaxed=miner.relaxed,
        shortfall=miner.shortfall,
    )


def _require(condition: Any, otherwise: str) -> None:
    if not condition:
        raise Unbuildable(otherwise)
