"""The quality gates as data: what each asks for, in which unit, and what to do (D20).

Gates of the contract's "Quality Gates & Validation" quote its words, others a decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from .budgets import REQUIREMENTS

Severity = Literal["critical", "warning", "info"]
Relation = Literal[">=", ">", "<=", "<"]

OURS = "This is a defect of gpu-dcgen, not of your data: please report it."
_DRIFT = (
    "Compare the shares in quality_report.json: seasons and new ranges of goods cause this, and so "
    "do mistakes in the log."
)


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


class _Row(NamedTuple):
    """A gate without its section."""

    name: str
    line: str
    metric: str
    relation: Relation
    threshold: float | None
    severity: Severity
    remedy: str


def _require_none(name: str, line: str, metric: str) -> _Row:
    """Return a gate that counts defects of the build: there must be none."""
    return _Row(name, line, metric, "<=", 0, "critical", OURS)


def _require_all(name: str, line: str, metric: str) -> _Row:
    """Return a gate on a share that only a defect of the build can lower."""
    return _Row(name, line, metric, ">=", 1.0, "critical", OURS)


def _check_requirement(name: str, metric: str, severity: Severity, remedy: str) -> _Row:
    """Return the gate of one of the contract's performance requirements."""
    asked = REQUIREMENTS[name]
    return _Row(name, asked.line, metric, asked.relation, asked.limit, severity, remedy)


def _warn_of_time(name: str) -> _Row:
    remedy = "Raise resources.num_workers, or use a GPU."
    return _check_requirement(name, "seconds", "warning", remedy)


_STRUCTURE = (
    _require_all(
        "no_missing_labels",
        "100% complete",
        "rows neither missing nor too many / rows expected",
    ),
    _require_all(
        "valid_user_item_pairs",
        "100% reference integrity",
        "groups of known items only, share",
    ),
    _require_all(
        "proper_data_types",
        "100% schema compliance",
        "files with the contract's schema, share",
    ),
    _require_none(
        "reasonable_value_ranges",
        "validated against domain knowledge",
        "values outside their range",
    ),
    _require_none("no_duplicates", "D12: distinct items in a group", "groups with an item twice"),
    _require_none(
        "accounted_for",
        "D4, D7: where every transaction went",
        "transactions in no account",
    ),
)

_STATISTICS = (
    _Row(
        "positive_negative_ratio",
        "1:11 minimum",
        "negatives written per positive",
        ">=",
        11,
        "critical",
        "Raise negative_sampling.random_negatives_per_positive; if fewer than 11 negatives are "
        "configured, this is a warning.",
    ),
    _Row(
        "category_distribution",
        "similar to source data",
        "total variation of product groups, positives against filtered purchases",
        "<=",
        0.10,
        "warning",
        "See the ledger: purchases that are not emitted (short_history, over_cap) take more from "
        "some groups than from others.",
    ),
    _Row(
        "temporal_coverage",
        "maintain original time distribution",
        "weeks of the log with a positive, share",
        ">=",
        0.90,
        "warning",
        "Lower sequence_processing.min_sequence_length, or bring a log without gaps.",
    ),
    _Row(
        "temporal_distribution",
        "maintain original time distribution",
        "total variation of weeks, positives against filtered purchases",
        "<=",
        None,
        "info",
        "Disjoint splits leave out a user's purchases in other windows: split.strategy temporal "
        "emits all.",
    ),
    _Row(
        "user_coverage",
        "> 80% of users",
        "users with a positive / users with enough history for one",
        ">",
        0.80,
        "warning",
        "See the ledger for what was not emitted, and why.",
    ),
    _Row(
        "user_coverage_of_all",
        "> 80% of users",
        "users with a positive / users after filtering",
        ">",
        None,
        "info",
        "Users with too few earlier purchases cannot have a positive: "
        "sequence_processing.min_sequence_length.",
    ),
    _Row(
        "item_coverage",
        "> 90% of items",
        "items in any row / items after filtering",
        ">",
        0.90,
        "warning",
        "Items that were on sale only before the first positive are in no row: bring a longer log.",
    ),
    _Row(
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
    _Row(
        "feature_cardinality",
        "reasonable for embedding layers; D20: up to 10,000 values",
        "most values of a categorical feature",
        "<=",
        10_000,
        "warning",
        "Map rare values of that column to one value before the build.",
    ),
    _Row(
        "class_balance",
        "category weights applied correctly",
        "largest difference of a segment's weighted share from the one computed",
        "<=",
        0.001,
        "critical",
        OURS,
    ),
    _Row(
        "sequence_lengths_at_cap",
        "appropriate distribution; D20: no more than 50% at the cap",
        "positives with a history that fills the sequence, share",
        "<=",
        0.50,
        "warning",
        "Raise sequence_processing.max_sequence_length.",
    ),
    _Row(
        "sequence_lengths_median",
        "appropriate distribution; D20: median of 5 or more",
        "median length of a history",
        ">=",
        5,
        "warning",
        "Raise filtering.min_user_interactions or sequence_processing.min_sequence_length.",
    ),
    _Row(
        "negative_quality",
        "diversity metrics > 0.7",
        "mean Gini-Simpson index of a group's departments / its maximum",
        ">",
        0.70,
        "warning",
        "Raise negative_sampling.random_negatives_per_positive or "
        "negative_sampling.score.diversity.",
    ),
    _Row(
        "diverse_negatives",
        ">= 80% diverse negatives",
        "negatives of another product group or department than the positive, share",
        ">=",
        0.80,
        "warning",
        "Lower negative_sampling.diversity_threshold, or the share of hard negatives.",
    ),
    _Row(
        "hard_shortfall",
        "D13: too few candidates",
        "hard negatives drawn at random for want of candidates, share",
        "<=",
        0.10,
        "warning",
        "Widen the similarity range, or raise collaborative_days or category_draws in "
        "negative_sampling.",
    ),
    _Row(
        "later_bought",
        "D8: later purchases are not looked at",
        "negatives that the user buys after the window, share",
        "<=",
        None,
        "info",
        "They cannot be left out without looking into the future.",
    ),
)

_SPLITS = (
    _require_none("temporal_order", "temporal_splitting", "groups outside their split's window"),
    _Row(
        "temporal_periods",
        "earliest 80%, next 10%, latest 10% of time",
        "largest difference of a window's share of time from the configured one",
        "<=",
        0.02,
        "warning",
        "split.windows: rows cuts by rows; calendar cuts by time.",
    ),
    _Row(
        "positive_shares",
        "Train (80%), Validation (10%), Test (10%); D7: within 2 points",
        "largest difference of a split's share of positives from the configured one",
        "<=",
        0.02,
        "warning",
        "The log's windows do not allow it: change split.train_share or split.windows.",
    ),
    _require_none(
        "no_user_overlap", "users unique across splits", "users with positives in two splits"
    ),
    _require_none(
        "no_future_history", "D6: strictly before", "groups with a history not strictly earlier"
    ),
    _require_none(
        "no_future_knowledge",
        "D8: nothing after a split's window may touch it",
        "sources of values that know of purchases after their window",
    ),
    _require_none(
        "no_owned_negatives", "D8: false negatives", "groups with a negative that the user owns"
    ),
    _require_none(
        "no_sold_out_items",
        "D11: on sale at the moment",
        "groups with an item that is not on sale",
    ),
    _require_none(
        "no_siblings",
        "D13: hard negatives",
        "groups with a variant of the positive as a hard negative",
    ),
    _Row(
        "category_consistency",
        "KS test p > 0.05; D20: total variation <= 0.10",
        "largest total variation of product groups between two splits",
        "<=",
        0.10,
        "warning",
        _DRIFT,
    ),
    _Row(
        "category_ks_p",
        "KS test p > 0.05",
        "smallest p of a KS test of product group codes between two splits",
        ">",
        None,
        "info",
        "Over many rows p is near 0 for any seasonal shop (D20).",
    ),
    _Row(
        "category_share_ks_p",
        "KS test p > 0.05",
        "smallest p of a KS test of the product groups' shares between two splits",
        ">",
        None,
        "info",
        "It can hardly fail (D20).",
    ),
    _Row(
        "user_activity_distribution",
        "similar across splits",
        "largest total variation of earlier purchases between two splits",
        "<=",
        None,
        "info",
        "Windows of unequal length make it differ (D20).",
    ),
    _Row(
        "price_distribution",
        "maintain original characteristics",
        "largest total variation of normalized prices between two splits",
        "<=",
        0.10,
        "warning",
        _DRIFT,
    ),
)

_PERFORMANCE = (
    _Row(
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
        ("split_validation", _SPLITS),
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
    "price_distribution": "D20's 0.10 for categories, used for prices in twenty bins",
}
