"""The files beside the samples: similarities, sequences, vocabularies, and the manifest's own figures."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..contract.schema import (
    AGE_GROUPS,
    NEGATIVE_DETAILS,
    NEGATIVE_SOURCES,
    SEASONS,
    make_arrow_schema,
)
from .cells import Want, codes, flat, numbers, want_numbers, want_texts
from .checks import SHOWN, Findings
from .dataset import check_nulls
from .log import DAY, SPLITS, Cuts, Log
from .mining import Pairs
from .plan import Plan
from .rows import ITEM_CATEGORIES
from .similarity import Matrix, Neighbors, neighbors_of
from .snapshots import PRICE_CATEGORIES

HOUR = 3_600 * 10**9
CLOSE = 2.5e-7  # sines and powers of two: two roundings of a float32, whichever libm
PLURALS = ("product_groups", "color_groups", "garment_groups", "departments", "index_groups")


def check_similarities(
    table: pa.Table,
    matrix: Matrix,
    log: Log,
    items: np.ndarray,
    complete: bool,
    config: Any,
    findings: Findings,
) -> Pairs | None:
    """item_similarity_matrix against the products of `items`; the pairs as written, None where they are in no order.

    Where the dataset does not claim to be `complete` (approximate search), pairs may be missing; those written must be exact.
    """
    file, settings = "item_similarity_matrix.parquet", config.similarity
    if not check_nulls(file, 0, table, make_arrow_schema("item_similarity_matrix"), findings):
        return None
    item, other = (
        codes(flat(table[name]), log.item_ids) for name in ("item_id", "similar_item_id")
    )
    values = (
        flat(table[name]).to_numpy(zero_copy_only=False)
        for name in ("similarity", "common_users", "rank")
    )
    written = Neighbors(item, other, *values)
    unknown = (item < 0) | (other < 0)
    findings.bad_rows(
        "references",
        file,
        0,
        unknown,
        lambda row: (table.slice(row, 1).to_pylist()[0], "items that are kept"),
    )
    disorder = np.append(
        False, (np.diff(item) < 0) | ((np.diff(item) == 0) & (np.diff(written.rank) != 1))
    )[: len(item)]
    findings.bad_rows(
        "similarity_matrix",
        file,
        0,
        disorder,
        lambda row: ("a row out of order", "rows by item, then rank"),
    )
    if unknown.any() or disorder.any():
        return None
    offsets = np.searchsorted(item, np.arange(log.n_items + 1))
    for part, wanted in neighbors_of(
        matrix, items, settings.min_common_users, settings.top_k if complete else None
    ):
        lengths = offsets[part + 1] - offsets[part]
        starts = np.repeat(offsets[part] - np.cumsum(lengths) + lengths, lengths)
        rows = starts + np.arange(int(lengths.sum()))
        findings.count("similarity_matrix", len(rows))
        if not complete:
            wanted = _found_of(wanted, written.take(rows), log.n_items, settings.top_k)
        _compare_pairs(file, log, rows, written.take(rows), wanted, findings)
    return Pairs(item, other, written.similarity, log.n_items)


def _found_of(wanted: Neighbors, found: Neighbors, n_items: int, top_k: int) -> Neighbors:
    """The wanted pairs that were found, at most `top_k` an item, ranked among themselves."""
    there = np.isin(wanted.item * n_items + wanted.other, found.item * n_items + found.other)
    wanted = wanted.take(np.flatnonzero(there))
    rank = np.arange(len(wanted.item)) - np.searchsorted(wanted.item, wanted.item) + 1
    return replace(wanted, rank=rank).take(np.flatnonzero(rank <= top_k))


def _compare_pairs(
    file: str, log: Log, rows: np.ndarray, found: Neighbors, want: Neighbors, findings: Findings
) -> None:
    """The written rows of some items against what they must be; by pair alone where their numbers differ."""
    alike = len(found.item) == len(want.item)
    if alike:
        names = [field.name for field in fields(Neighbors)]
        bad = np.logical_or.reduce([getattr(found, name) != getattr(want, name) for name in names])
    else:
        keys, wanted = (pairs.item * log.n_items + pairs.other for pairs in (found, want))
        bad = ~np.isin(keys, wanted)
        n_missing = max(1, len(np.setdiff1d(wanted, keys)))
        findings.fault(
            "similarity_matrix",
            file,
            None,
            f"{len(keys)} rows of these items",
            f"{len(wanted)}",
            n_missing,
        )

    def shown(pairs: Neighbors, at: int) -> str:
        ids = [log.item_ids[int(code[at])].as_py() for code in (pairs.item, pairs.other)]
        values = f"similarity {float(pairs.similarity[at])!r}, {pairs.common[at]} common users, rank {pairs.rank[at]}"
        return f"{ids[0]} and {ids[1]}: {values}"

    for at in np.flatnonzero(bad)[:SHOWN].tolist():
        findings.fault(
            "similarity_matrix",
            file,
            int(rows[at]),
            shown(found, at),
            shown(want, at) if alike else "no such pair",
        )
    findings.checks["similarity_matrix"].n_bad += max(0, int(bad.sum()) - SHOWN)


def check_user_sequences(
    table: pa.Table, log: Log, plan: Plan, cuts: Cuts, config: Any, findings: Findings
) -> None:
    """user_sequences, all rows: who is in it, what was bought before the window's end, sessions and encodings."""
    file, settings = "user_sequences.parquet", config.sequence_processing
    if not check_nulls(file, 0, table, make_arrow_schema("user_sequences"), findings):
        return
    split = plan.user_split.astype(np.int64)
    if config.split.strategy == "temporal":
        for k, rows in enumerate(plan.rows):
            split[log.user[rows]] = k
    ends = np.array(cuts.ends)
    n_known = np.bincount(log.user[log.time < ends[split[log.user]]], minlength=log.n_users)
    users = np.flatnonzero((split >= 0) & (n_known >= max(1, settings.min_sequence_length)))
    found = codes(flat(table["user_id"]), log.user_ids)
    findings.count("user_sequences", max(len(found), len(users)))
    if len(found) != len(users) or (found != users).any():
        wrong = (
            int(np.argmax(found[: len(users)] != users[: len(found)]))
            if len(found) and len(users)
            else 0
        )
        missing, added = len(np.setdiff1d(users, found)), len(np.setdiff1d(found, users))
        seen = f"{len(found)} users, first difference here, {missing} missing, {added} that must not be"
        findings.fault(
            "user_sequences", file, wrong, seen, f"{len(users)} users in order of their ids"
        )
        return
    length = np.minimum(n_known[users], settings.max_sequence_length)
    stop = log.user_offsets[users] + n_known[users]
    starts = np.cumsum(length) - length
    row = np.repeat(stop - length - starts, length) + np.arange(int(length.sum()))
    owner = np.repeat(np.arange(len(users)), length)
    time = log.time[row]
    breaks = np.append(0, np.diff(time) > settings.temporal_gap_hours * HOUR)
    breaks[starts[length > 0]] = 0
    sessions = np.cumsum(breaks)
    days = time // DAY
    week = 2 * math.pi * ((days + 3) % 7) / 7
    dates = days.astype("datetime64[D]")
    year = 2 * math.pi * (dates - dates.astype("datetime64[Y]")).astype(np.int64) / 365.25
    last = np.array([cuts.cut1, cuts.cut2, cuts.last])[split[users]]
    exact = {
        "item_indices": log.item_index[log.item[row]],
        "timestamps": time,
        "session_ids": sessions - sessions[starts][owner],
    }
    close = {
        "recency": np.exp2(
            -((last[owner] - time) // DAY) / config.category_balancing.recency_half_life_days
        ),
        "day_of_week_sin": np.sin(week),
        "day_of_week_cos": np.cos(week),
        "season_sin": np.sin(year),
        "season_cos": np.cos(year),
    }
    names = pa.array(SPLITS)
    _compare_rows(
        findings, file, "split", codes(flat(table["split"]), names), want_texts(split[users], names)
    )
    _compare_rows(
        findings,
        file,
        "sequence_length",
        numbers(flat(table["sequence_length"])),
        want_numbers(length),
    )
    for name, values in (exact | close).items():
        column = flat(table[name])
        lengths = pc.list_value_length(column).to_numpy()
        wrong = lengths != length
        if not wrong.any():
            elements = column.flatten()
            near = (
                np.abs(elements.to_numpy() - values) <= CLOSE
                if name in close
                else numbers(elements) == values
            )
            differs = ~near
            wrong[owner[differs]] = True
        findings.bad_rows(
            "user_sequences", file, 0, wrong,
            lambda r, name=name, column=column, values=values: (
                f"{name}: {column[r].as_py()}"[-200:], f"{name}: {values[owner == r].tolist()}"[-200:]
            ),
        )  # fmt: skip


def _compare_rows(
    findings: Findings,
    file: str,
    name: str,
    found: np.ndarray,
    want: Want,
    check: str = "user_sequences",
) -> None:
    findings.bad_rows(
        check, file, 0, found != want.values,
        lambda row: (f"{name}: {want.show(found[row])}", f"{name}: {want.show(want.values[row])}"),
    )  # fmt: skip


def check_vocabularies(
    dataset: Path, table: pa.Table | None, log: Log, plan: Plan, config: Any, findings: Findings
) -> None:
    """item_vocabulary, vocabulary.json and category_mappings.json against the inputs' values."""
    if table is not None:
        _check_item_vocabulary(table, log, findings)
    listed = {
        name: column.values.to_pylist()
        for name, column in (log.user_columns | log.item_columns).items()
    }
    sources = [
        name
        for name in NEGATIVE_SOURCES
        if name != "in_batch" or config.negative_sampling.in_batch_negatives
    ]
    expected = {
        "user_features": {
            "age_groups": list(AGE_GROUPS),
            "club_status": listed["club_status"],
            "news_frequency": listed["news_frequency"],
        },
        "item_features": {
            **{plural: listed[name] for plural, name in zip(PLURALS, ITEM_CATEGORIES, strict=True)},
            "price_categories": list(PRICE_CATEGORIES),
        },
        "interaction_features": {
            "negative_sources": sources,
            "negative_details": list(NEGATIVE_DETAILS),
            "seasons": list(SEASONS),
            "channels": {
                str(channel): kind for channel, kind in sorted(config.inputs.channels.items())
            },
        },
        "sizes": {"users": log.n_users, "items": log.n_items, "padding_index": 0},
    }
    _compare_json(dataset / "vocabulary.json", expected, findings)
    values = {
        "user_age_group": list(AGE_GROUPS),
        "user_club_status": listed["club_status"],
        "user_news_frequency": listed["news_frequency"],
        **{f"item_{name}": listed[name] for name in ITEM_CATEGORIES},
        "item_price_category": list(PRICE_CATEGORIES),
        "season": list(SEASONS),
        "negative_source": list(NEGATIVE_SOURCES),
        "negative_detail": list(NEGATIVE_DETAILS),
    }
    weights = None
    if plan.category_weights is not None:
        groups = [None, *listed["product_group"]]
        of_group = zip(groups, plan.category_weights.tolist(), strict=True)
        weights = {
            "item_product_group": [
                {"value": group, "weight": weight} for group, weight in of_group if weight
            ],
            "user_segments": {
                f"{name}_users": weight for name, weight in plan.segment_weights.items()
            },
        }
    mappings = {
        name: {value: code for code, value in enumerate(texts)} for name, texts in values.items()
    }
    _compare_json(
        dataset / "category_mappings.json", {"mappings": mappings, "weights": weights}, findings
    )


def _check_item_vocabulary(table: pa.Table, log: Log, findings: Findings) -> None:
    file = "item_vocabulary.parquet"
    good = check_nulls(file, 0, table, make_arrow_schema("item_vocabulary"), findings)
    if not good or not findings.equal("vocabularies", file, "rows", table.num_rows, log.n_items):
        return
    findings.count("vocabularies", log.n_items)
    every = np.argsort(log.item_index)
    index = want_numbers(log.item_index[every])
    _compare_rows(
        findings, file, "item_index", numbers(flat(table["item_index"])), index, "vocabularies"
    )
    found = codes(flat(table["item_id"]), log.item_ids)
    _compare_rows(findings, file, "item_id", found, want_texts(every, log.item_ids), "vocabularies")
    for name, category in log.item_columns.items():
        want = want_texts(category.codes[every], category.values)
        found = codes(flat(table[f"item_{name}"]), category.values)
        _compare_rows(findings, file, f"item_{name}", found, want, "vocabularies")


def _compare_json(path: Path, expected: Any, findings: Findings) -> None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        findings.fault("vocabularies", path.name, None, f"unreadable: {error}", "JSON")
        return
    for where, seen, wanted in _differences("", found, expected):
        findings.fault("vocabularies", path.name, None, f"{where}: {seen}", f"{where}: {wanted}")
    findings.count("vocabularies", 1)


def _differences(where: str, found: Any, expected: Any) -> list[tuple[str, Any, Any]]:
    """Where two JSON values differ; floats may be a rounding apart."""
    if isinstance(found, dict) and isinstance(expected, dict) and found.keys() == expected.keys():
        if list(found) != list(expected):
            return [(where, f"order {list(found)[:8]}", f"order {list(expected)[:8]}")]
        return [
            each
            for name in expected
            for each in _differences(f"{where}/{name}", found[name], expected[name])
        ]
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = enumerate(zip(found, expected, strict=True))
        return [each for n, (a, b) in pairs for each in _differences(f"{where}/{n}", a, b)]
    if (
        isinstance(found, float)
        and isinstance(expected, float)
        and math.isclose(found, expected, rel_tol=1e-9)
    ):
        return []
    return [] if found == expected else [(where, found, expected)]
