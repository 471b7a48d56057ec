"""Stage 8: join positives, features, histories and negatives into rows (D17, D19)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .backend.blocks import Block, Codes, Lists, Matrix, SampleIds, Values, Vocabulary
from .backend.protocol import Array, Backend
from .backend.runs import gather
from .config import DatasetConfig
from .contract.schema import (
    AGE_GROUPS,
    NEGATIVE_DETAILS,
    NEGATIVE_SOURCES,
    PRICE_CATEGORIES,
    SEASONS,
)
from .digest import vocabulary
from .kernels.item_states import pack_states
from .kernels.logarithms import log_ratio, make_table
from .kernels.rows import ItemColumns, ItemTables, describe_items
from .kernels.sources import SOURCES
from .negative_sampler import Negatives, SamplerInputs, sample_negatives
from .preparation.balancing import Balance, positive_weights
from .preparation.features import ItemSnapshots
from .preparation.interactions import Interactions
from .preparation.splits import Positives, SplitPlan
from .preparation.windows import DAY
from .sequence_builder import Calendar, history_windows

ITEM_CATEGORIES = ("product_group", "color_group", "garment_group", "department", "index_group")
_AGE_BOUNDS = (16, 25, 35, 45, 55)  # lower ends of AGE_GROUPS
_MAX_DAYS = 32767  # user_lifetime_days is int16


@dataclass(frozen=True)
class StageResults(SamplerInputs):
    """All that samples are built from: the stages' results, and the files' vocabularies."""

    balance: Balance | None  # None: every sample weighs 1
    calendar: Calendar
    plan: SplitPlan
    # (I,) int32  item_index of each item: 1..I, those of earlier windows first (D17), 0 is padding
    item_codes: Array
    sequence_items: Array  # (E,) int32  item_index of each interaction, in the rows' order
    vocabularies: dict[str, Vocabulary]
    item_categories: Array  # (I, categories) int32  codes of ITEM_CATEGORIES, -1 null
    item_states: Array  # (K, I) uint64  `kernels.item_states`, by snapshot
    user_categories: dict[str, Array]  # age_group, club_status, news_frequency: (U,) int32
    random_log_q: Array  # (K,) float32  log of a random negative's probability, by snapshot (D13)
    generated_at: int  # nanoseconds since 1970 UTC


def collect_results(
    inputs: SamplerInputs,
    plan: SplitPlan,
    balance: Balance | None,
    calendar: Calendar,
    generated_at: int,
    config: DatasetConfig,
    backend: Backend,
) -> StageResults:
    """Encode what blocks look up: vocabularies with their hashes, codes of users and items.

    With `balance` samples are weighted.
    """
    xp, interactions = backend.xp, inputs.interactions
    age_group = xp.full(interactions.n_users, -1, dtype=xp.int32)
    for lower in _AGE_BOUNDS:
        age_group += (interactions.age >= lower).astype(xp.int32)
    columns, item_codes = interactions.user_columns, _number_items(interactions, plan, backend)
    vocabularies = {
        "user_id": Vocabulary(interactions.user_ids, interactions.user_key),
        "item_id": Vocabulary(interactions.item_ids, interactions.item_key),
        "age_group": vocabulary(AGE_GROUPS, backend),
        "season": vocabulary(SEASONS, backend),
        "price_category": vocabulary(PRICE_CATEGORIES, backend),
        "negative_source": vocabulary(NEGATIVE_SOURCES, backend),
        "negative_detail": vocabulary(NEGATIVE_DETAILS, backend),
        **{name: vocabulary(columns[name].values, backend) for name in columns},
        **{
            name: vocabulary(interactions.item_columns[name].values, backend)
            for name in ITEM_CATEGORIES
        },
    }
    return StageResults(
        **vars(inputs),
        balance=balance,
        calendar=calendar,
        plan=plan,
        item_codes=item_codes,
        sequence_items=gather(backend, item_codes, interactions.item),
        vocabularies=vocabularies,
        item_categories=xp.stack(
            [interactions.item_columns[name].codes for name in ITEM_CATEGORIES], axis=1
        ),
        item_states=_pack_states(inputs.features.snapshots, backend),
        user_categories={"age_group": age_group, **{name: columns[name].codes for name in columns}},
        random_log_q=_random_log_q(inputs, config, backend),
        generated_at=generated_at,
    )


def _pack_states(snapshots: ItemSnapshots, backend: Backend) -> Array:
    """Return `StageResults.item_states`, snapshot by snapshot to save memory."""
    xp = backend.xp
    states = xp.empty(snapshots.on_sale.shape, dtype=xp.uint64)
    for k in range(states.shape[0]):
        states[k] = pack_states(
            xp,
            snapshots.popularity[k],
            snapshots.price[k],
            snapshots.price_category[k],
            snapshots.on_sale[k],
        )
    return states


def _random_log_q(inputs: SamplerInputs, config: DatasetConfig, backend: Backend) -> Array:
    """Compute log(n / C) of n random negatives from the C items on sale at each snapshot."""
    n = config.negative_sampling.random_negatives_per_positive
    xp, table = backend.xp, make_table()
    sizes = backend.to_host(xp.diff(inputs.features.snapshots.corpus.offsets)).tolist()
    log_q = [float(log_ratio(max(n, 1), max(size, 1), table)) for size in sizes]
    return backend.from_host(log_q).astype(xp.float32)


def _number_items(interactions: Interactions, plan: SplitPlan, backend: Backend) -> Array:
    """Compute item_index (I,) int32: by the window of the first purchase, then by id (D17)."""
    xp = backend.xp
    first = interactions.time[interactions.by_item[interactions.item_offsets[:-1]]]
    window = (first >= plan.windows.cut1).astype(xp.int8) + (first >= plan.windows.cut2).astype(
        xp.int8
    )
    codes = xp.empty(interactions.n_items, dtype=xp.int32)
    codes[xp.argsort(window, kind="stable")] = xp.arange(
        1, interactions.n_items + 1, dtype=xp.int32
    )
    return codes


@dataclass(frozen=True)
class Group:
    """A block of positives with all that their rows share, whatever the output's shape."""

    positives: Positives
    rows: slice  # of the split's positives
    row: Array  # (n,) int32 or int64  rows of Interactions
    user: Array  # (n,) int32
    item: Array  # (n, 1 + negatives) int32  the positive's, then its negatives'
    negatives: Negatives
    history_start: Array  # (n,) int64
    history_length: Array  # (n,) int32


def gather_groups(
    positives: Positives,
    rows: slice,
    results: StageResults,
    config: DatasetConfig,
    backend: Backend,
) -> Group:
    """Draw the negatives of positives[rows] and find their histories."""
    interactions = results.interactions
    row = positives.row[rows]
    negatives = sample_negatives(positives, rows, results, config, backend)
    start, length = history_windows(
        interactions, row, config.sequence_processing.max_sequence_length, backend
    )
    item = backend.xp.concatenate([interactions.item[row][:, None], negatives.item], axis=1)
    return Group(positives, rows, row, interactions.user[row], item, negatives, start, length)


def labeled_pairs(
    group: Group, results: StageResults, config: DatasetConfig, backend: Backend
) -> Block:
    """Lay out the contract's rows: each positive (label 1), then its negatives (label 0)."""
    xp = backend.xp
    n, width = group.item.shape
    label = xp.zeros((n, width), dtype=xp.float32)
    label[:, 0] = 1
    source, detail, similarity, log_q = _negative_columns(group, results, backend)
    columns = {
        **_user_columns(group, results, width, backend),
        **_item_columns("item", group.item, group.negatives.snapshot, results, backend),
        "label": Values(label.reshape(-1)),
        **_time_columns(group, results, width),
        "negative_source": Codes(source.reshape(-1), results.vocabularies["negative_source"]),
        "similarity_score": Values(similarity.reshape(-1), (similarity >= 0).reshape(-1)),
        "sample_id": SampleIds(group.positives.split, group.rows.start, n, width),
        "generation_timestamp": _generated(n, results, width, backend),
    }
    if config.output.extra_columns:
        columns["sample_weight"] = Values(_weights(group, results, backend), repeats=width)
        columns["negative_detail"] = Codes(
            detail.reshape(-1), results.vocabularies["negative_detail"]
        )
        columns["negative_log_q"] = Values(log_q.reshape(-1), (source >= 0).reshape(-1))
        columns["is_repurchase"] = Values(results.features.is_repurchase[group.row], repeats=width)
    return Block(group.rows.start * width, n * width, columns)


def n_tuples(group: Group, results: StageResults, config: DatasetConfig, backend: Backend) -> Block:
    """Lay out one row a positive, its negatives in fixed-size lists of equal order (D19)."""
    n, width = group.item.shape
    negative = group.item[:, 1:]
    snapshots, snapshot = results.features.snapshots, group.negatives.snapshot
    price = snapshots.price[snapshot[:, None], negative]
    source, detail, similarity, log_q = (
        column[:, 1:] for column in _negative_columns(group, results, backend)
    )
    columns = {
        **_positive_columns(group, results, backend),
        "negative_item_id": Matrix(negative, vocabulary=results.vocabularies["item_id"]),
        "negative_item_index": Matrix(results.item_codes[negative]),
        "negative_popularity_score": Matrix(snapshots.popularity[snapshot[:, None], negative]),
        "negative_price_normalized": Matrix(price, price == price),
        "negative_source": Matrix(source, vocabulary=results.vocabularies["negative_source"]),
        "negative_similarity_score": Matrix(similarity, similarity >= 0),
        "sample_id": SampleIds(group.positives.split, group.rows.start, n, 1),
        "generation_timestamp": _generated(n, results, 1, backend),
    }
    if config.output.extra_columns:
        columns["sample_weight"] = Values(_weights(group, results, backend))
        columns["negative_detail"] = Matrix(
            detail, vocabulary=results.vocabularies["negative_detail"]
        )
        columns["negative_log_q"] = Matrix(log_q)
        columns["is_repurchase"] = Values(results.features.is_repurchase[group.row])
    return Block(group.rows.start, n, columns)


def triplets(group: Group, results: StageResults, config: DatasetConfig, backend: Backend) -> Block:
    """Lay out one row a positive, beside it its first hard negative (D19)."""
    n = int(group.row.shape[0])
    source, detail, similarity, _ = (
        column[:, 1] for column in _negative_columns(group, results, backend)
    )
    columns = {
        **_positive_columns(group, results, backend),
        **_item_columns(
            "negative_item", group.item[:, 1:2], group.negatives.snapshot, results, backend
        ),
        "negative_source": Codes(source, results.vocabularies["negative_source"]),
        "similarity_score": Values(similarity, similarity >= 0),
        "sample_id": SampleIds(group.positives.split, group.rows.start, n, 1),
        "generation_timestamp": _generated(n, results, 1, backend),
    }
    if config.output.extra_columns:
        columns["sample_weight"] = Values(_weights(group, results, backend))
        columns["negative_detail"] = Codes(detail, results.vocabularies["negative_detail"])
        columns["is_repurchase"] = Values(results.features.is_repurchase[group.row])
    return Block(group.rows.start, n, columns)


SHAPES = {"labeled_pair": labeled_pairs, "n_tuple": n_tuples, "triplet": triplets}


def _positive_columns(group: Group, results: StageResults, backend: Backend) -> dict[str, Any]:
    return {
        **_user_columns(group, results, 1, backend),
        **_item_columns("item", group.item[:, :1], group.negatives.snapshot, results, backend),
        **_time_columns(group, results, 1),
    }


def _user_columns(
    group: Group, results: StageResults, width: int, backend: Backend
) -> dict[str, Any]:
    """Return the user's features strictly before the group's time (D6), and the history (D15)."""
    xp, log = backend.xp, results.interactions
    user, row = group.user, group.row
    first = log.user_offsets[user]
    n_before = log.basket_start[row] - first
    days = xp.minimum((log.time[row] - log.time[first]) // DAY, _MAX_DAYS)
    baskets = xp.maximum(log.basket[row], 1)
    age, channel = log.age[user], results.features.preferred_channel[row]
    return {
        "user_id": Codes(user, results.vocabularies["user_id"], width),
        "user_age": Values(age, age >= 0, width),
        **{
            f"user_{name}": Codes(
                results.user_categories[name][user], results.vocabularies[name], width
            )
            for name in ("age_group", "club_status", "news_frequency")
        },
        "user_lifetime_days": Values(days.astype(xp.int16), repeats=width),
        "user_total_purchases": Values(n_before.astype(xp.int32), repeats=width),
        "user_avg_basket_size": Values((n_before / baskets).astype(xp.float32), repeats=width),
        "user_preferred_channel": Values(channel, channel >= 0, width),
        "user_interaction_sequence": Lists(
            results.sequence_items, group.history_start, group.history_length, width
        ),
        "user_sequence_lengths": Values(group.history_length.astype(xp.int16), repeats=width),
    }


def _item_columns(
    prefix: str, item: Array, snapshot: Array, results: StageResults, backend: Backend
) -> dict[str, Any]:
    """Return categories and snapshot features of items (n, w), of any label alike (D6).

    `snapshot` (n,) int64 is that of each row.
    """
    xp, n_categories = backend.xp, len(ITEM_CATEGORIES)
    columns = ItemColumns(
        category=xp.empty((n_categories, *item.shape), dtype=xp.int32),
        popularity=xp.empty(item.shape, dtype=xp.uint32),
        price=xp.empty(item.shape, dtype=xp.uint32),
        has_price=xp.empty(item.shape, dtype=bool),
        price_category=xp.empty(item.shape, dtype=xp.int8),
    )
    tables = ItemTables(results.item_categories, results.item_states)
    backend.for_each(describe_items, item.shape[0], item, snapshot, tables, columns)
    return {
        f"{prefix}_id": Codes(item.reshape(-1), results.vocabularies["item_id"]),
        **{
            f"{prefix}_{name}": Codes(
                columns.category[number].reshape(-1), results.vocabularies[name]
            )
            for number, name in enumerate(ITEM_CATEGORIES)
        },
        f"{prefix}_popularity_score": Values(columns.popularity.reshape(-1).view(xp.float32)),
        f"{prefix}_price_category": Codes(
            columns.price_category.reshape(-1), results.vocabularies["price_category"]
        ),
        f"{prefix}_price_normalized": Values(
            columns.price.reshape(-1).view(xp.float32), columns.has_price.reshape(-1)
        ),
    }


def _time_columns(group: Group, results: StageResults, width: int) -> dict[str, Any]:
    time, channel = results.interactions.time[group.row], results.interactions.channel[group.row]
    day = results.calendar.rows(time)
    return {
        "timestamp": Values(time, repeats=width),
        "sales_channel": Values(channel, channel >= 0, width),
        "day_of_week": Values(results.calendar.day_of_week[day], repeats=width),
        "month": Values(results.calendar.month[day], repeats=width),
        "season": Codes(results.calendar.season[day], results.vocabularies["season"], width),
    }


def _negative_columns(
    group: Group, results: StageResults, backend: Backend
) -> tuple[Array, Array, Array, Array]:
    """Return source and detail int8, similarity and log_q float32: (n, 1 + negatives).

    Codes and similarities of -1 are null; log_q of the positive, in column 0, means nothing.
    """
    xp = backend.xp
    n, width = group.item.shape
    n_hard = int(group.negatives.source.shape[1])
    source = xp.full((n, width), NEGATIVE_SOURCES.index("random"), dtype=xp.int8)
    source[:, : 1 + n_hard] = NEGATIVE_SOURCES.index("hard")
    source[:, 0] = -1
    detail = xp.full((n, width), NEGATIVE_DETAILS.index("random"), dtype=xp.int8)
    names = backend.from_host([NEGATIVE_DETAILS.index(name) for name in SOURCES]).astype(xp.int8)
    detail[:, 1 : 1 + n_hard] = names[group.negatives.source]
    detail[:, 0] = -1
    similarity = xp.full((n, width), -1, dtype=xp.float32)
    similarity[:, 1 : 1 + n_hard] = group.negatives.similarity
    log_q = xp.repeat(results.random_log_q[group.negatives.snapshot][:, None], width, axis=1)
    log_q[:, 1 : 1 + n_hard] = group.negatives.log_q
    return source, detail, similarity, log_q


def _generated(n: int, results: StageResults, width: int, backend: Backend) -> Values:
    return Values(backend.xp.full(n, results.generated_at, dtype=backend.xp.int64), repeats=width)


def _weights(group: Group, results: StageResults, backend: Backend) -> Array:
    """Return sample_weight (n,) float32: of train positives by D18, else 1."""
    xp = backend.xp
    if results.balance is None or group.positives.split != "train":
        return xp.ones(group.row.shape[0], dtype=xp.float32)
    weights = positive_weights(
        results.balance, results.interactions, group.row, results.plan.windows.cut1, backend
    )
    return weights.astype(xp.float32)
