"""The quality gates as data: what each asks for, in which unit, and what to do (D20).

Gates of the contract's "Quality Gates & Validation" quote its words, others a decision.
"""

from __future__ import annotations

from dataclasses import dataclass

from .budgets import REQUIREMENTS
from .gate_rows import OURS, GateRow, Relation, Severity, require_all, require_none
from .split_gates import SPLIT_GATES


@dataclass(frozen=True)
class Gate:
    """One check: `value relation threshold`; without a threshold it only reports the value."""

    name: str
    section: str  # of the contract
    line: str  # the contract's own words, or a decision
    metric: str  # what the value is, with its unit
    relation: Relation
    threshold: float | None
    severity: Severity
    remedy: str


def _check_requirement(name: str, metric: str, severity: Severity, remedy: str) -> GateRow:
    """Return the gate of one of the contract's performance requirements."""
    asked = REQUIREMENTS[name]
    return GateRow(name, asked.line, metric, asked.relation, asked.limit, severity, remedy)


def _warn_of_time(name: str) -> GateRow:
    remedy = "Raise resources.num_workers, or use a GPU."
    return _check_requirement(name, "seconds", "warning", remedy)


_STRUCTURE = (
    require_all(
        "no_missing_labels",
        "100% complete",
        "rows neither missing nor too many / rows expected",
    ),
    require_all(
        "valid_user_item_pairs",
        "100% reference integrity",
        "groups of known items only, share",
    ),
    require_all(
        "proper_data_types",
        "100% schema compliance",
        "files with the contract's schema, share",
    ),
    require_none(
        "reasonable_value_ranges",
        "validated against domain knowledge",
        "values outside their range",
    ),
    require_none("no_duplicates", "D12: distinct items in a group", "groups with an item twice"),
    require_none(
        "accounted_for",
        "D4, D7: where every transaction went",
        "transactions in no account",
    ),
)

_STATISTICS = (
    GateRow(
        "positive_negative_ratio",
        "1:11 minimum",
        "negatives written per positive",
        ">=",
        11,
        "critical",
        "Raise negative_sampling.random_negatives_per_positive; if fewer than 11 negatives are "
        "configured, this is a warning.",
    ),
    GateRow(
        "category_distribution",
        "similar to source data",
        "total variation of product groups, positives against filtered purchases",
        "<=",
        0.10,
        "warning",
        "See the ledger: purchases that are not emitted (short_history, over_cap) take more from "
        "some groups than from others.",
    ),
    GateRow(
        "temporal_coverage",
        "maintain original time distribution",
        "weeks of the log with a positive, share",
        ">=",
        0.90,
        "warning",
        "Lower sequence_processing.min_sequence_length, or bring a log without gaps.",
    ),
    GateRow(
        "temporal_distribution",
        "maintain original time distribution",
        "total variation of weeks, positives against filtered purchases",
        "<=",
        None,
        "info",
        "Disjoint splits leave out a user's purchases in other windows: split.strategy temporal "
        "emits all.",
    ),
    GateRow(
        "user_coverage",
        "> 80% of users",
        "users with a positive / users with enough history for one",
        ">",
        0.80,
        "warning",
        "See the ledger for what was not emitted, and why.",
    ),
    GateRow(
        "user_coverage_of_all",
        "> 80% of users",
        "users with a positive / users after filtering",
        ">",
        None,
        "info",
        "Users with too few earlier purchases cannot have a positive: "
        "sequence_processing.min_sequence_length.",
    ),
    GateRow(
        "item_coverage",
        "> 90% of items",
        "items in any row / items after filtering",
        ">",
        0.90,
        "warning",
        "Items that were on sale only before the first positive are in no row: bring a longer log.",
    ),
    GateRow(
        "category_coverage",
        ">= 90% of product categories",
        "product groups in any row, share",
        ">=",
        0.90,
        "warning",
        "Rare product groups may be on sale too seldom: raise negative_sampling.live_days.",
    ),
)

_READINESS = (
    GateRow(
        "feature_cardinality",
        "reasonable for embedding layers; D20: up to 10,000 values",
        "most values of a categorical feature",
        "<=",
        10_000,
        "warning",
        "Map rare values of that column to one value before the build.",
    ),
    GateRow(
        "class_balance",
        "category weights applied correctly",
        "largest difference of a segment's weighted share from the one computed",
        "<=",
        0.001,
        "critical",
        OURS,
    ),
    GateRow(
        "sequence_lengths_at_cap",
        "appropriate distribution; D20: no more than 50% at the cap",
        "positives with a history that fills the sequence, share",
        "<=",
        0.50,
        "warning",
        "Raise sequence_processing.max_sequence_length.",
    ),
    GateRow(
        "sequence_lengths_median",
        "appropriate distribution; D20: median of 5 or more",
        "median length of a history",
        ">=",
        5,
        "warning",
        "Raise filtering.min_user_interactions or sequence_processing.min_sequence_length.",
    ),
    GateRow(
        "negative_quality",
        "diversity metrics > 0.7",
        "mean Gini-Simpson index of a group's departments / its maximum",
        ">",
        0.70,
        "warning",
        "Raise negative_sampling.random_negatives_per_positive or "
        "negative_sampling.score.diversity.",
    ),
    GateRow(
        "diverse_negatives",
        ">= 80% diverse negatives",
        "negatives of another product group or department than the positive, share",
        ">=",
        0.80,
        "warning",
        "Lower negative_sampling.diversity_threshold, or the share of hard negatives.",
    ),
    GateRow(
        "hard_shortfall",
        "D13: too few candidates",
        "hard negatives drawn at random for want of candidates, share",
        "<=",
        0.10,
        "warning",
        "Widen the similarity range, or raise collaborative_days or category_draws in "
        "negative_sampling.",
    ),
    GateRow(
        "hard_item_auc",
        "D13: the item alone must not tell hard negatives from positives",
        "AUC of how often items of train are bought, relative to how often they are hard negatives",
        "<=",
        None,
        "info",
        "Raise negative_sampling.candidates: in short lists some items cannot be drawn as often as "
        "they are bought. selection: greedy has no such balance.",
    ),
    GateRow(
        "hard_similarity",
        "similarity > 0.3",
        "hard negatives with a similarity of 0.3 or more to the positive, share",
        ">=",
        None,
        "info",
        "Items bought together have it, others are found by co-purchases and categories: raise "
        "negative_sampling.source_weights.item_cf for more.",
    ),
    GateRow(
        "later_bought",
        "D8: later purchases are not looked at",
        "negatives that the user buys after the window, share",
        "<=",
        None,
        "info",
        "They cannot be left out without looking into the future.",
    ),
)

_PERFORMANCE = (
    GateRow(
        "no_regression",
        "performance_regression",
        "gates that are worse than in the baseline",
        "<=",
        0,
        "warning",
        "quality_report.json names them with both values; only with --baseline.",
    ),
    _check_requirement("minimum_rate", "samples/s", "warning", "Raise resources.num_workers."),
    _check_requirement("target_rate", "samples/s", "warning", "Raise resources.num_workers."),
    _check_requirement(
        "max_memory_usage",
        "peak bytes",
        "warning",
        "Set resources.memory_limit: blocks shrink to fit.",
    ),
    _check_requirement(
        "max_cpu_usage",
        "share of all cores",
        "info",
        "Threads are meant to use all cores; lower resources.num_workers to leave some.",
    ),
    _check_requirement("max_disk_io", "bytes/s", "warning", "Set resources.max_disk_rate."),
    _warn_of_time("similarity_computation"),
    _warn_of_time("negative_sampling"),
    _warn_of_time("dataset_construction"),
    _warn_of_time("total_generation_time"),
)

GATES = tuple(
    Gate(row.name, section, *row[1:])
    for section, rows in (
        ("structural_integrity", _STRUCTURE),
        ("statistical_properties", _STATISTICS),
        ("machine_learning_readiness", _READINESS),
        ("split_validation", SPLIT_GATES),
        ("performance", _PERFORMANCE),
    )
    for row in rows
)
GATE_NAMES = tuple(gate.name for gate in GATES)

# Thresholds that neither the contract nor a decision names, and why they are what they are.
OUR_THRESHOLDS = {
    "category_distribution": (
        "D20's 0.10 between splits, used for the same distance between positives and purchases"
    ),
    "temporal_coverage": (
        "D11 loses a log's first week or two; more than a tenth of the weeks is a gap"
    ),
    "class_balance": (
        "the weights are solved for those shares: only rounding may differ, at most 1e-4 even over "
        "ten years"
    ),
    "hard_shortfall": (
        "a tenth of the hard negatives being random still leaves four or five hard ones in a group"
    ),
    "temporal_periods": "D7's two points for the shares of positives, used for the shares of time",
    "split_size": "of 100 positives, a rate is known to about 10 points",
    "split_share": "D7's two points: a split of less has missed any share that is worth wanting",
    "split_floor": "a rate of fewer than 5 positives says nothing",
    "price_distribution": "D20's 0.10 for categories, used for prices in twenty bins",
}
