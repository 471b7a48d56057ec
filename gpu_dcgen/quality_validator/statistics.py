"""Compute the gates' values, scores, distributions and the funnel from counts (D20)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backend.protocol import Backend
from ..backend.runs import count_codes
from ..config import DatasetConfig
from ..contract.schema import SPLITS, get_columns, make_arrow_schema
from ..inputs.entities import MAX_AGE
from ..inputs.shop import InputReport
from ..kernels.checks import SAME_KIND, SAME_PLACE_PAIRS, UNPRICED, VIOLATIONS
from ..negative_sampler import list_sources
from ..preparation.balancing import SEGMENTS, Balance
from ..preparation.splits import positive_users
from ..samples import ITEM_CATEGORIES, StageResults
from .candidate_funnel import describe_candidates
from .distances import separability, total_variation
from .metrics import BINS, DRAWN_SOURCES, NULLABLE, WEEK, QualityMetrics, place_column
from .split_comparison import compare_splits, measure_splits

_TOP_SHARES = (0.001, 0.01, 0.1, 0.5)  # of items, most popular first
_SIMILAR_BIN = round(0.3 * BINS)  # the first bin of the similarity that the contract asks for
_KINDS = ("positive", "hard", "random")  # of rows
_DISTRIBUTIONS = ("weeks", "activity", "history", "price", "similarity")  # tallies by value


@dataclass
class Statistics:
    """The figures of quality_report.json beside the verdicts."""

    values: dict[str, float | None]  # by gate; those on performance are added when the build ends
    scores: dict[str, float | None]  # completeness, consistency, diversity, coverage: 0..1
    labels: dict[str, dict[str, int]]
    completeness: dict[str, float]  # column -> share of samples with a value
    distributions: dict[str, dict[str, Any]]  # split -> name -> counts
    # kind of row -> share of its rows that the most popular items take
    popularity: dict[str, dict[str, float]]
    segments: dict[str, float] | None  # weighted shares of the train positives
    funnel: dict[str, Any]


@dataclass(frozen=True)
class _Counts:
    """The tallies of all splits on the host, and what several figures are computed from."""

    tallies: list[dict[str, list[int]]]  # by split
    total: dict[str, list[int]]  # over the splits
    n_items: list[int]  # rows by item, positives and negatives
    categories: list[list[int]]  # positives by product group, by split
    n_negatives: int  # a positive


def describe(
    folder: Path,
    metrics: QualityMetrics,
    results: StageResults,
    balance: Balance | None,
    report: InputReport,
    config: DatasetConfig,
    backend: Backend,
) -> Statistics:
    """Compute the figures of a build when all files are written into `folder`."""
    counts = _collect(metrics, results, config, backend)
    values = {
        **_structure(folder, metrics, results, report, config, backend),
        **_coverage(counts.n_items, results, config, backend),
        **{name: metrics.violations[rule] for name, rule in _RULES.items()},
        **_negative_values(metrics, counts, config),
        **_distribution_values(metrics, counts, results, backend),
        "class_balance": _imbalance(counts.total.get("segment_weight"), balance),
        **compare_splits(counts.tallies, counts.categories),
        **measure_splits(results, config, backend),
        **_skip_gates_on_groups(results),
    }
    completeness = _completeness(counts, metrics.groups, results, backend)
    distributions = {
        split: {
            "product_group": counts.categories[k],
            **{name: counts.tallies[k][name] for name in _DISTRIBUTIONS},
        }
        for k, split in enumerate(SPLITS)
    }
    labels = {
        p.split: {"positive": len(p), "negative": len(p) * counts.n_negatives}
        for p in results.plan.positives
    }
    return Statistics(
        values=values,
        scores=_scores(metrics, values, completeness),
        labels=labels,
        completeness=completeness,
        distributions=distributions,
        popularity={kind: _concentration(counts.total[f"{kind}_items"]) for kind in _KINDS},
        segments=_segment_shares(counts.total.get("segment_weight")),
        funnel={
            "transactions": _transactions(results, report),
            "negatives": _negatives(metrics, counts.total, results),
        },
    )


def _skip_gates_on_groups(results: StageResults) -> dict[str, None]:
    """Return the gates on product groups, and on departments, that a log without them skips."""
    log = results.interactions
    place = log.item_columns[place_column(results)].codes
    has_places = bool((place != place[:1]).any())
    return {
        **({} if log.has_groups else dict.fromkeys(_GATES_ON_GROUPS)),
        **({} if log.has_groups or has_places else {"diverse_negatives": None}),
        **({} if has_places else {"negative_quality": None}),
    }


def _collect(
    metrics: QualityMetrics, results: StageResults, config: DatasetConfig, backend: Backend
) -> _Counts:
    tallies = [
        {name: vector.tolist() for name, vector in metrics.tallies.get_vectors(split).items()}
        for split in SPLITS
    ]
    total = {
        name: [sum(column) for column in zip(*(t[name] for t in tallies if name in t), strict=True)]
        for name in tallies[0]
    }
    by_kind = zip(*(total[f"{kind}_items"] for kind in _KINDS), strict=True)
    categories = [
        _by_category(t["positive_items"], "product_group", results, backend) for t in tallies
    ]
    n_items = [sum(counted) for counted in by_kind]
    return _Counts(tallies, total, n_items, categories, config.negatives_per_positive)


def _negative_values(
    metrics: QualityMetrics, counts: _Counts, config: DatasetConfig
) -> dict[str, float | None]:
    """Compute the gates' values on negatives: ratio, diversity, shortfall, bought later."""
    measured, n_negatives = counts.total["measured"], max(1, metrics.negatives_verified)
    n_hard, train = max(1, sum(metrics.hard_by_source.values())), counts.tallies[0]
    ratio = n_negatives / max(1, metrics.groups)
    return {
        "positive_negative_ratio": 1 if config.output.shape == "triplet" else ratio,
        "negative_quality": _diversity(
            measured[SAME_PLACE_PAIRS], metrics.groups, counts.n_negatives
        ),
        "diverse_negatives": 1 - measured[SAME_KIND] / n_negatives,
        "hard_similarity": _share_similar(counts.total["similarity"], metrics),
        "hard_shortfall": metrics.hard_by_source["fallback"] / n_hard,
        "hard_item_auc": separability(train["positive_items"], train["hard_items"]),
        "later_bought": sum(counts.total["later"]) / n_negatives,
    }


def _share_similar(similarity: list[int], metrics: QualityMetrics) -> float | None:
    """Return the share of hard negatives that are as similar as the contract asks."""
    n_hard = sum(metrics.hard_by_source.values())
    return sum(similarity[_SIMILAR_BIN:BINS]) / n_hard if n_hard else None


def _distribution_values(
    metrics: QualityMetrics, counts: _Counts, results: StageResults, backend: Backend
) -> dict[str, float | None]:
    """Compute the gates' values on categories, weeks and sequences, beside those of the log."""
    xp, log, total = backend.xp, results.interactions, counts.total
    by_item = backend.to_host(count_codes(xp, log.item, log.n_items)).tolist()
    source = _by_category(by_item, "product_group", results, backend)
    weeks = count_codes(xp, (log.time - log.first_time) // WEEK, len(total["weeks"]))
    return {
        "category_distribution": total_variation(
            [sum(column) for column in zip(*counts.categories, strict=True)], source
        ),
        "temporal_coverage": sum(n > 0 for n in total["weeks"]) / len(total["weeks"]),
        "temporal_distribution": total_variation(total["weeks"], backend.to_host(weeks).tolist()),
        "feature_cardinality": max(
            len(results.vocabularies[name].strings)
            for name in (*ITEM_CATEGORIES, *results.user_categories)
        ),
        "sequence_lengths_at_cap": total["history"][-1] / max(1, metrics.groups),
        "sequence_lengths_median": _median(total["history"]),
    }


def _scores(
    metrics: QualityMetrics, values: dict[str, float | None], completeness: dict[str, float]
) -> dict[str, float | None]:
    """Compute the four scores of the contract's "Generation Metrics", 0..1 each."""
    present = [share for share in completeness.values() if share]
    n_checks = max(1, metrics.groups * len(VIOLATIONS))
    rules_share = 1 - sum(metrics.violations.values()) / n_checks
    return {
        "completeness": sum(present) / len(present) if present else None,
        "consistency": min(rules_share, values["proper_data_types"] or 0),
        "diversity": values["negative_quality"],
        "coverage": ((values["user_coverage"] or 0) + (values["item_coverage"] or 0)) / 2,
    }


def _segment_shares(weight: list[int] | None) -> dict[str, float] | None:
    if not weight:
        return None
    return {name: w / max(1, sum(weight)) for name, w in zip(SEGMENTS, weight, strict=True)}


_GATES_ON_GROUPS = (
    "category_distribution",
    "category_coverage",
    "category_consistency",
    "category_ks_p",
    "category_share_ks_p",
)
_RULES = {
    "no_duplicates": "item twice in a group",
    "temporal_order": "positive outside its window",
    "no_future_history": "history not strictly before the positive",
    "no_owned_negatives": "negative that the user bought before the window's end",
    "no_sold_out_items": "item not on sale at the snapshot",
    "no_siblings": "sibling of the positive among the hard negatives",
}


def _by_category(
    items: list[int], column: str, results: StageResults, backend: Backend
) -> list[int]:
    """Count rows by a static column of their item, those without a value first."""
    xp, category = backend.xp, results.interactions.item_columns[column]
    weights = backend.from_host(items).astype(xp.float64)  # whole numbers: summed exactly
    counts = xp.bincount(category.codes + 1, weights=weights, minlength=len(category.values) + 1)
    return backend.to_host(counts.astype(xp.int64)).tolist()


def _structure(
    folder: Path,
    metrics: QualityMetrics,
    results: StageResults,
    report: InputReport,
    config: DatasetConfig,
    backend: Backend,
) -> dict[str, float]:
    """Compute the structural gates' values, from the files' footers as they are on the disk."""
    import pyarrow.parquet as pq

    output, n_rows, n_files, n_right = config.output, 0, 0, 0
    for path in sorted(folder.rglob("*.parquet")):
        name = (path if path.parent == folder else path.parent).stem
        if not path.is_file() or name == "rejects":
            continue
        written, n_files = pq.ParquetFile(path), n_files + 1
        wanted = make_arrow_schema(
            name, output.extra_columns, output.shape, config.negatives_per_positive
        )
        n_right += [(f.name, f.type) for f in written.schema_arrow] == [
            (f.name, f.type) for f in wanted
        ]
        n_rows += written.metadata.num_rows if name.endswith("_dataset") else 0
    expected = sum(len(p) for p in results.plan.positives) * config.rows_per_positive
    n_proved = metrics.groups * config.rows_per_positive
    unknown = metrics.violations["item out of the vocabulary"]
    return {
        "no_missing_labels": 1 - max(abs(n_rows - expected), abs(n_proved - expected)) / expected,
        "valid_user_item_pairs": 1 - unknown / max(1, metrics.groups),
        "proper_data_types": n_right / n_files,
        "reasonable_value_ranges": _out_of_range(results, backend),
        "accounted_for": _unaccounted(results, report),
    }


def _out_of_range(results: StageResults, backend: Backend) -> int:
    """Count values outside their range in the arrays from which every row is looked up."""
    log, snapshots = results.interactions, results.features.snapshots
    ranges = (
        (log.age, -1, MAX_AGE),
        (log.channel, -1, 127),
        (snapshots.popularity, 0, 1),
        (snapshots.price, 0, 1),
        (snapshots.price_category, -1, 3),
        (results.neighbors.similarity, 0, 1 + 1e-6),  # rounded to float32
        (results.calendar.day_of_week, 0, 6),
        (results.calendar.month, 1, 12),
        (results.calendar.season, 0, 3),
    )
    return sum(int(((values < low) | (values > high)).sum()) for values, low, high in ranges)


def _unaccounted(results: StageResults, report: InputReport) -> int:
    """Count transactions that are in no account, or in two."""
    log, ledger = results.interactions, results.plan.ledger
    rows = report.rows["transactions"]
    emitted = sum(ledger["emitted"].values())
    n_interactions = emitted + sum(n for reason, n in ledger.items() if reason != "emitted")
    unknown = abs(rows.read - rows.accepted - rows.rejected - rows.collapsed - rows.left_out)
    return (
        unknown
        + abs(rows.accepted - log.n_accepted)
        + abs(log.n_accepted - sum(log.dropped.values()) - n_interactions)
    )


def _coverage(
    n_items: list[int], results: StageResults, config: DatasetConfig, backend: Backend
) -> dict[str, float]:
    xp, log = backend.xp, results.interactions
    last = log.user_offsets[1:] - 1
    long_enough = (
        log.basket_start[last] - log.user_offsets[:-1]
        >= config.sequence_processing.min_sequence_length
    )
    train, val, test = positive_users(log, results.plan, backend)
    n_users = int((train | val | test).sum())
    present = backend.from_host(n_items) > 0
    group = log.item_columns["product_group"].codes + 1
    n_groups = len(log.item_columns["product_group"].values) + 1
    n_log_groups, n_present_groups = (
        int((count_codes(xp, codes, n_groups) > 0).sum()) for codes in (group, group[present])
    )
    return {
        "user_coverage": n_users / max(1, int(long_enough.sum())),
        "user_coverage_of_all": n_users / log.n_users,
        "item_coverage": int(present.sum()) / log.n_items,
        "category_coverage": n_present_groups / n_log_groups,
    }


def _diversity(alike_pairs: int, n_groups: int, n_negatives: int) -> float | None:
    """Compute the mean Gini-Simpson index of groups, over its maximum 1 - 1 / negatives (D20).

    None for single negatives.
    """
    if n_negatives < 2 or not n_groups:
        return None
    squares = (n_groups * n_negatives + 2 * alike_pairs) / (n_groups * n_negatives**2)
    return (1 - squares) / (1 - 1 / n_negatives)


def _imbalance(weight: list[int] | None, balance: Balance | None) -> float | None:
    """Compute how far the segments' shares of the weight are from their targets, at most."""
    if (
        weight is None
        or balance is None
        or not sum(weight)
        or not any(s["share_after"] for s in balance.info["segments"].values())
    ):
        return None
    wanted = [balance.info["segments"][name]["share_after"] for name in SEGMENTS]
    return max(abs(w / sum(weight) - share) for w, share in zip(weight, wanted, strict=True))


def _median(lengths: list[int]) -> int:
    """Return the lower median of values counted by value."""
    seen, half = 0, (sum(lengths) + 1) // 2
    for length, n in enumerate(lengths):
        seen += n
        if seen >= half:
            return length
    return 0


def _completeness(
    counts: _Counts, n_groups: int, results: StageResults, backend: Backend
) -> dict[str, float]:
    """Compute the share of samples with a value, by column.

    Left out are negative_source and similarity_score, which are null where they do not apply.
    """
    total, width = counts.total, 1 + counts.n_negatives
    n_rows = max(1, n_groups * width)
    null = {name: n * width for name, n in zip(NULLABLE, total["nulls"], strict=True)}
    null |= {
        f"item_{name}": _by_category(counts.n_items, name, results, backend)[0]
        for name in ITEM_CATEGORIES
    }
    null |= dict.fromkeys(
        ("item_price_category", "item_price_normalized"), total["measured"][UNPRICED]
    )
    names = [c.name for c in get_columns("train_dataset", extra_columns=False)]
    return {
        n: 1 - null.get(n, 0) / n_rows
        for n in names
        if n not in ("negative_source", "similarity_score")
    }


def _concentration(items: list[int]) -> dict[str, float]:
    """Compute the share of rows of the most popular 0.1 %, 1 %, 10 % and 50 % of the items."""
    ranked, n_rows = sorted(items, reverse=True), max(1, sum(items))
    return {
        f"{share:.1%}": sum(ranked[: max(1, round(share * len(ranked)))]) / n_rows
        for share in _TOP_SHARES
    }


def _transactions(results: StageResults, report: InputReport) -> dict[str, Any]:
    log = results.interactions
    rows = report.rows["transactions"]
    return {
        "read": rows.read,
        "rejected": report.rejects.get("transactions", {}),
        "accepted": log.n_accepted,
        **log.dropped,
        **results.plan.ledger,
    }


def _negatives(
    metrics: QualityMetrics, total: dict[str, list[int]], results: StageResults
) -> dict[str, Any]:
    sources = (*list_sources(results.interactions), "random")
    by_source = {
        source: {
            "drawn": drawn,
            "later_bought": later,
            "later_bought_share": later / drawn if drawn else None,
        }
        for source, drawn, later in zip(DRAWN_SOURCES, total["drawn"], total["later"], strict=True)
        if source in sources
    }
    return {
        "drawn": metrics.negatives_verified,
        "by_source": by_source,
        "candidates": describe_candidates(total["candidates"], results)
        if "candidates" in total
        else None,
        "shortfall": metrics.hard_by_source["fallback"],
        "relaxed": metrics.relaxed if results.interactions.has_groups else None,
    }
