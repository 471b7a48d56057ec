"""The last 50 purchases of users and before positives; beside polars and pandas.

All start from purchases in memory, sorted by (user, time, item), which polars is set to use. Ours
ends each user's list with the user's window and adds sessions and recency. A positive's list holds
what was bought strictly before it; here it is copied from the log into an Arrow list column, block
by block, which the build leaves to the part writer. polars' rolling window is by rows: lists
contain items of the same basket (D6), and every purchase has one, positive or not.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from gpu_dcgen.backend.runs import offsets_from_lengths
from gpu_dcgen.sequence_builder import build_user_sequences, history_windows

from .measure import Case, Log, Work
from .stages import load_results, make_setting

LENGTH = 50


def cases(threads: int) -> list[Case]:
    polars = {
        "peer": True,
        "needs": ("polars",),
        "environment": {"POLARS_MAX_THREADS": str(threads)},
    }
    return [
        Case("sequences", "gpu-dcgen a user", "per_user", "lists", {"threads": threads},
             note="with sessions and recency"),
        Case("sequences", "polars a user", "polars_per_user", "lists", **polars),
        Case("sequences", "pandas a user", "pandas_per_user", "lists", peer=True,
             needs=("pandas",), max_transactions=5_000_000),
        Case("sequences", "gpu-dcgen a positive", "per_positive", "lists", {"threads": threads}),
        Case("sequences", "polars a purchase", "polars_per_purchase", "lists",
             note="lists contain items of their own basket", max_transactions=5_000_000, **polars),
    ]  # fmt: skip


def per_user(log: Log, *, threads: int) -> Work:
    interactions, plan = load_results(log, "log", "plan")
    config, backend = make_setting(threads)

    def run() -> tuple[np.ndarray, ...]:
        sequences = build_user_sequences(interactions, plan, config, backend)
        items, times = interactions.item[sequences.row], interactions.time[sequences.row]
        return sequences.offsets, items, times, sequences.session, sequences.recency

    return Work(run, lambda lists: len(lists[0]) - 1, lambda lists: {"elements": len(lists[1])})


def per_positive(log: Log, *, threads: int) -> Work:
    interactions, plan = load_results(log, "log", "plan")
    config, backend = make_setting(threads)
    rows, size = plan.positives[0].row, config.resources.batch_size

    def copy_block(first: int) -> pa.Array:
        start, length = history_windows(interactions, rows[first : first + size], LENGTH, backend)
        offsets = offsets_from_lengths(np, length)
        items = np.empty(offsets[-1], np.int32)
        _copy_runs(interactions.item, start, offsets, items)
        return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(items))

    def run() -> list[pa.Array]:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(copy_block, range(0, len(rows), size)))

    return Work(
        run,
        lambda blocks: sum(map(len, blocks)),
        lambda blocks: {"elements": sum(len(b.values) for b in blocks)},
    )


@numba.njit(nogil=True, cache=True)
def _copy_runs(values, start, offsets, out):
    for entry in range(len(start)):
        n = offsets[entry + 1] - offsets[entry]
        out[offsets[entry] : offsets[entry + 1]] = values[start[entry] : start[entry] + n]


def polars_per_user(log: Log) -> Work:
    import polars as pl

    frame = _make_frame(log, pl)
    last = [pl.col("item").tail(LENGTH), pl.col("time").tail(LENGTH)]
    return Work(
        run=lambda: frame.group_by("user", maintain_order=True).agg(last),
        amount=len,
        examine=lambda lists: {"elements": int(lists["item"].list.len().sum())},
    )


def polars_per_purchase(log: Log) -> Work:
    import polars as pl

    frame = _make_frame(log, pl).with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    return Work(
        run=lambda: frame.rolling("row", period=f"{LENGTH}i", closed="left", group_by="user").agg(
            "item"
        ),
        amount=len,
        examine=lambda lists: {"elements": int(lists["item"].list.len().sum())},
    )


def pandas_per_user(log: Log) -> Work:
    import pandas as pd

    (interactions,) = load_results(log, "log")
    frame = pd.DataFrame({name: getattr(interactions, name) for name in ("user", "item", "time")})
    return Work(
        run=lambda: frame.groupby("user").tail(LENGTH).groupby("user")[["item", "time"]].agg(list),
        amount=len,
        examine=lambda lists: {"elements": int(lists["item"].str.len().sum())},
    )


def _make_frame(log: Log, pl: Any) -> Any:
    (interactions,) = load_results(log, "log")
    columns = {name: getattr(interactions, name) for name in ("user", "item", "time")}
    return pl.DataFrame(columns).set_sorted("user")
