"""Verified negatives: ours beside LensKit's and RecBole's, with the defects of each.

All sample for the same positives of the train split. A negative is false if its user bought the
item in the train window, repeated if its group already has it, and not on sale if nobody bought it
in the `live_days` before. The other samplers know no time, so they can only avoid the first.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import Any

import numpy as np

from gpu_dcgen.negative_sampler import SamplerInputs, find_candidates, sample_negatives

from .measure import Case, Log, Work
from .stages import load_results, make_setting, spread_blocks

HARD, RANDOM = 5, 10
MAX_POSITIVES = 1 << 20
_NO_TIME = "knows no time: over the whole vocabulary; one thread"


def cases(threads: int) -> list[Case]:
    own = [
        Case("negatives", f"gpu-dcgen {name}{', one thread' if n == 1 else ''}", "ours",
             "negatives", {"threads": n, "hard": hard}, note=note)
        for name, hard, note in (
            ("random", 0, "verified, distinct, on sale"),
            ("hard and random", HARD, "5 mined from three sources, 10 random"),
        )
        for n in sorted({1, threads})
    ]  # fmt: skip
    return own + [
        Case("negatives", "LensKit", "lenskit", "negatives", peer=True, needs=("lenskit",),
             note=f"verify=True; {_NO_TIME}"),
        Case("negatives", "RecBole", "recbole", "negatives", peer=True, needs=("recbole",),
             note=_NO_TIME, max_transactions=5_000_000),
    ]  # fmt: skip


def ours(log: Log, *, threads: int, hard: int) -> Work:
    interactions, features, plan, neighbors = load_results(
        log, "log", "features", "plan", "neighbors"
    )
    config, backend = make_setting(threads, negative_sampling={"hard_negatives_per_positive": hard})
    stages = interactions, features, neighbors
    inputs = SamplerInputs(*stages, find_candidates(*stages, plan, config, backend))
    positives = plan.positives[0]
    blocks = spread_blocks(len(positives), config.resources.batch_size, MAX_POSITIVES)
    thread = local()

    def sample_block(rows: slice) -> np.ndarray:
        if not hasattr(thread, "backend"):
            thread.backend = backend.single_threaded()
        return sample_negatives(positives, rows, inputs, config, thread.backend).item

    def run() -> np.ndarray:
        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate(list(pool.map(sample_block, blocks)))

    def examine(items: np.ndarray) -> dict[str, Any]:
        rows = _list_rows(positives, blocks)
        defects = measure_defects(items, rows, interactions, features, plan.windows.cut1)
        if any(defects.values()):
            raise AssertionError(f"our negatives must have no defect, found {defects}")
        return defects

    return Work(run, lambda items: items.size, examine)


def lenskit(log: Log) -> Work:
    import pandas as pd
    from lenskit.data import from_interactions_df

    def sampler(
        user: np.ndarray, item: np.ndarray, n_items: int
    ) -> Callable[[np.ndarray], np.ndarray]:
        dataset = from_interactions_df(pd.DataFrame({"user_id": user, "item_id": item}))
        matrix = dataset.interactions().matrix()
        user_number = np.full(user.max() + 1, -1, np.int32)
        user_number[user] = dataset.users.numbers(user)
        item_of = np.asarray(dataset.items.ids())
        seed = np.random.default_rng(7)
        return lambda users: item_of[
            matrix.sample_negatives(user_number[users], n=RANDOM, verify=True, rng=seed)
        ]

    return _peer(log, sampler)


def recbole(log: Log) -> Work:
    from recbole.sampler.sampler import Sampler

    class Column(np.ndarray):
        """An array that RecBole reads as a tensor."""

        def numpy(self) -> np.ndarray:
            return np.asarray(self)

    class Dataset:
        uid_field, iid_field = "user", "item"

        def __init__(self, user: np.ndarray, item: np.ndarray, n_items: int) -> None:
            self.user_num, self.item_num = int(user.max()) + 1, n_items + 1  # its item 0 is padding
            self.inter_feat = {"user": user.view(Column), "item": (item + 1).view(Column)}

    def sampler(
        user: np.ndarray, item: np.ndarray, n_items: int
    ) -> Callable[[np.ndarray], np.ndarray]:
        np.random.seed(7)
        negative_sampler = Sampler("train", Dataset(user, item, n_items)).set_phase("train")

        def draw(users: np.ndarray) -> np.ndarray:
            items = np.asarray(negative_sampler.sample_by_user_ids(users, None, RANDOM))
            return items.reshape(RANDOM, -1).T - 1

        return draw

    return _peer(log, sampler)


def _peer(
    log: Log,
    make_sampler: Callable[[np.ndarray, np.ndarray, int], Callable[[np.ndarray], np.ndarray]],
) -> Work:
    """Set up another sampler on the train window, for our positives, block by block."""
    interactions, features, plan = load_results(log, "log", "features", "plan")
    cut1, positives = plan.windows.cut1, plan.positives[0]
    pairs = np.unique(_pair_keys(interactions, cut1))
    n_items = interactions.n_items
    sample = make_sampler(
        (pairs // n_items).astype(np.int32), (pairs % n_items).astype(np.int32), n_items
    )
    blocks = spread_blocks(len(positives), make_setting(1)[0].resources.batch_size, MAX_POSITIVES)
    users = [interactions.user[positives.row[rows]] for rows in blocks]

    return Work(
        run=lambda: np.concatenate([sample(block) for block in users]),
        amount=lambda items: items.size,
        examine=lambda items: measure_defects(
            items, _list_rows(positives, blocks), interactions, features, cut1
        ),
    )


def measure_defects(
    items: np.ndarray, row: np.ndarray, interactions: Any, features: Any, cut1: int
) -> dict[str, float]:
    """Return shares of the negatives (n, k) that are false, repeated or not on sale.

    Their positives are the interactions `row` (n,). Ownership is read off the interactions, so
    that a defect of a sampler's own tables would show.
    """
    keys = interactions.user[row].astype(np.int64)[:, None] * interactions.n_items + items
    ranked = np.sort(items, axis=1)
    repeated = (ranked[:, 1:] == ranked[:, :-1]).sum() + (
        items == interactions.item[row][:, None]
    ).sum()
    snapshots = features.snapshots
    snapshot = (interactions.time[row] - snapshots.origin) // snapshots.step
    return {
        "false_share": float(np.isin(keys, _pair_keys(interactions, cut1)).mean()),
        "repeated_share": float(repeated / items.size),
        "not_on_sale_share": float(1 - snapshots.on_sale[snapshot[:, None], items].mean()),
    }


def _pair_keys(interactions: Any, cut1: int) -> np.ndarray:
    """Return a number for each purchase before the cut, the same for equal user and item."""
    is_train = interactions.time < cut1
    return (
        interactions.user[is_train].astype(np.int64) * interactions.n_items
        + interactions.item[is_train]
    )


def _list_rows(positives: Any, blocks: list[slice]) -> np.ndarray:
    return np.concatenate([positives.row[rows] for rows in blocks])
