"""The gates as data: what the contract's "Quality Gates & Validation" asks, by which number, and what to do (D20)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .schema import (
    MAX_CPU_SHARE,
    MAX_DISK_BYTES_PER_S,
    MAX_MEMORY_BYTES,
    MAX_SECONDS,
    MIN_ROWS_PER_S,
    TARGET_ROWS_PER_S,
)

Severity = Literal["critical", "warning", "info"]
Relation = Literal[">=", ">", "<=", "<"]

OURS = "This is a defect of gpu-dcgen, not of your data: please report it."
_DRIFT = "Look at the shares in quality_report.json: seasons and new ranges do this; a mistake in the log does too."


@dataclass(frozen=True)
class Gate:
    """One check: `value relation threshold` is to hold. Without a threshold the value is only reported."""

    name: str
    section: str  # of the contract
    line: str  # the contract's own words, or a decision
    metric: str  # what the value is, with its unit
    relation: Relation
    threshold: float | None
    severity: Severity
    remedy: str


def _gates(section: str, *rows: tuple) -> tuple[Gate, ...]:
    return tuple(Gate(row[0], section, *row[1:]) for row in rows)


GATES = (
    *_gates(
        "structural_integrity",
        (
            "no_missing_labels",
            "100% complete",
            "rows neither missing nor too many / rows expected",
            ">=",
            1.0,
            "critical",
            OURS,
        ),
        (
            "valid_user_item_pairs",
            "100% reference integrity",
            "groups whose items are known, share",
            ">=",
            1.0,
            "critical",
            OURS,
        ),
        (
            "proper_data_types",
            "100% schema compliance",
            "files with the contract's schema, share",
            ">=",
            1.0,
            "critical",
            OURS,
        ),
        (
            "reasonable_value_ranges",
            "validated against domain knowledge",
            "values outside their range",
            "<=",
            0,
            "critical",
            OURS,
        ),
        (
            "no_duplicates",
            "D12: distinct items in a group",
            "groups with an item twice",
            "<=",
            0,
            "critical",
            OURS,
        ),
        (
            "accounted_for",
            "D4, D7: where every transaction went",
            "transactions in no account",
            "<=",
            0,
            "critical",
            OURS,
        ),
    ),
    *_gates(
        "statistical_properties",
        (
            "positive_negative_ratio",
            "1:11 minimum",
            "negatives written per positive",
            ">=",
            11,
            "critical",
            "Raise negative_sampling.random_negatives_per_positive; asking for fewer than 11 makes this a warning.",
        ),
        (
            "category_distribution",
            "similar to source data",
            "total variation of product groups, positives against kept purchases",
            "<=",
            0.10,
            "warning",
            "See the ledger: purchases that are not emitted (short_history, over_cap) take some groups more than others.",
        ),
        (
            "temporal_coverage",
            "maintain original time distribution",
            "weeks of the log with a positive, share",
            ">=",
            0.90,
            "warning",
            "Lower sequence_processing.min_sequence_length, or bring a log without gaps.",
        ),
        (
            "temporal_distribution",
            "maintain original time distribution",
            "total variation of weeks, positives against kept purchases",
            "<=",
            None,
            "info",
            "Disjoint users take a user's other windows out: split.strategy temporal keeps all.",
        ),
        (
            "user_coverage",
            "> 80% of users",
            "users with a positive / users with enough history for one",
            ">",
            0.80,
            "warning",
            "See the ledger for what was not emitted, and why.",
        ),
        (
            "user_coverage_of_all",
            "> 80% of users",
            "users with a positive / users that are kept",
            ">",
            None,
            "info",
            "Users with too few earlier purchases cannot have a positive: sequence_processing.min_sequence_length.",
        ),
        (
            "item_coverage",
            "> 90% of items",
            "items in any row / items that are kept",
            ">",
            0.90,
            "warning",
            "Items that were on sale only before the first positive are in no row: bring a longer log.",
        ),
        (
            "category_coverage",
            ">= 90% of product categories",
            "product groups in any row, share",
            ">=",
            0.90,
            "warning",
            "Rare product groups may be on sale too seldom: raise negative_sampling.live_days.",
        ),
    ),
    *_gates(
        "machine_learning_readiness",
        (
            "feature_cardinality",
            "reasonable for embedding layers; D20: up to 10,000 values",
            "most values of a categorical feature",
            "<=",
            10_000,
            "warning",
            "Map rare values of that column to one before the build.",
        ),
        (
            "class_balance",
            "category weights applied correctly",
            "largest difference of a segment's weighted share from the one computed",
            "<=",
            0.001,
            "critical",
            OURS,
        ),
        (
            "sequence_lengths_at_cap",
            "appropriate distribution; D20: no more than 50% at the cap",
            "positives whose history fills the sequence, share",
            "<=",
            0.50,
            "warning",
            "Raise sequence_processing.max_sequence_length.",
        ),
        (
            "sequence_lengths_median",
            "appropriate distribution; D20: median of 5 or more",
            "median length of a history",
            ">=",
            5,
            "warning",
            "Raise filtering.min_user_interactions or sequence_processing.min_sequence_length.",
        ),
        (
            "negative_quality",
            "diversity metrics > 0.7",
            "mean Gini-Simpson index of a group's departments / its maximum",
            ">",
            0.70,
            "warning",
            "Raise negative_sampling.random_negatives_per_positive or negative_sampling.score.diversity.",
        ),
        (
            "diverse_negatives",
            ">= 80% diverse negatives",
            "negatives of another product group or department than the positive, share",
            ">=",
            0.80,
            "warning",
            "Lower negative_sampling.diversity_threshold, or hard negatives' share.",
        ),
        (
            "hard_shortfall",
            "D13: too few candidates",
            "hard negatives drawn at random for want of candidates, share",
            "<=",
            0.10,
            "warning",
            "Widen the similarity range, or raise collaborative_days or category_draws in negative_sampling.",
        ),
        (
            "later_bought",
            "D8: later purchases are not looked at",
            "negatives that the user buys after the window, share",
            "<=",
            None,
            "info",
            "They cannot be left out without looking into the future.",
        ),
    ),
    *_gates(
        "split_validation",
        (
            "temporal_order",
            "temporal_splitting",
            "groups outside their split's window",
            "<=",
            0,
            "critical",
            OURS,
        ),
        (
            "temporal_periods",
            "earliest 80%, next 10%, latest 10% of time",
            "largest difference of a window's share of time from the one wanted",
            "<=",
            0.02,
            "warning",
            "split.windows: rows cuts by rows; calendar cuts by time.",
        ),
        (
            "positive_shares",
            "Train (80%), Validation (10%), Test (10%); D7: within 2 points",
            "largest difference of a split's share of positives from the one wanted",
            "<=",
            0.02,
            "warning",
            "The log's windows do not allow it: change split.train_share or split.windows.",
        ),
        (
            "no_user_overlap",
            "users unique across splits",
            "users with positives in two splits",
            "<=",
            0,
            "critical",
            OURS,
        ),
        (
            "no_future_history",
            "D6: strictly before",
            "groups whose history is not strictly earlier",
            "<=",
            0,
            "critical",
            OURS,
        ),
        (
            "no_future_knowledge",
            "D8: nothing after a split's window may touch it",
            "sources of values that know of purchases after their window",
            "<=",
            0,
            "critical",
            OURS,
        ),
        (
            "no_owned_negatives",
            "D8: false negatives",
            "groups with a negative that the user owns",
            "<=",
            0,
            "critical",
            OURS,
        ),
        (
            "no_sold_out_items",
            "D11: on sale at the moment",
            "groups with an item that is not on sale",
            "<=",
            0,
            "critical",
            OURS,
        ),
        (
            "no_siblings",
            "D13: hard negatives",
            "groups with a variant of the positive as a hard one",
            "<=",
            0,
            "critical",
            OURS,
        ),
        (
            "category_consistency",
            "KS test p > 0.05; D20: total variation <= 0.10",
            "largest total variation of product groups between two splits",
            "<=",
            0.10,
            "warning",
            _DRIFT,
        ),
        (
            "category_ks_p",
            "KS test p > 0.05",
            "least p of a KS test of product group codes between two splits",
            ">",
            None,
            "info",
            "Over many rows p is near 0 for any seasonal shop (D20).",
        ),
        (
            "category_share_ks_p",
            "KS test p > 0.05",
            "least p of a KS test of the product groups' shares between two splits",
            ">",
            None,
            "info",
            "It can hardly fail (D20).",
        ),
        (
            "user_activity_distribution",
            "similar across splits",
            "largest total variation of earlier purchases between two splits",
            "<=",
            None,
            "info",
            "Windows of unequal length make it differ (D20).",
        ),
        (
            "price_distribution",
            "maintain original characteristics",
            "largest total variation of normalized prices between two splits",
            "<=",
            0.10,
            "warning",
            _DRIFT,
        ),
    ),
    *_gates(
        "performance",
        (
            "no_regression",
            "performance_regression",
            "gates that are worse than in the baseline",
            "<=",
            0,
            "warning",
            "quality_report.json names them with both values; only with --baseline.",
        ),
        (
            "minimum_rate",
            "5000 samples/second",
            "samples/s",
            ">=",
            MIN_ROWS_PER_S,
            "warning",
            "Raise resources.num_workers.",
        ),
        (
            "target_rate",
            "10000 samples/second",
            "samples/s",
            ">=",
            TARGET_ROWS_PER_S,
            "warning",
            "Raise resources.num_workers.",
        ),
        (
            "max_memory_usage",
            "16GB",
            "peak bytes",
            "<=",
            MAX_MEMORY_BYTES,
            "warning",
            "Set resources.memory_limit: blocks shrink to fit.",
        ),
        (
            "max_cpu_usage",
            "80%",
            "share of all cores",
            "<=",
            MAX_CPU_SHARE,
            "info",
            "All cores at work is what threads are for; lower resources.num_workers to leave some.",
        ),
        (
            "max_disk_io",
            "200MB/second",
            "bytes/s",
            "<=",
            MAX_DISK_BYTES_PER_S,
            "warning",
            "Set resources.max_disk_rate.",
        ),
        *(
            (
                name,
                f"< {limit // 60} minutes",
                "seconds",
                "<",
                limit,
                "warning",
                "Raise resources.num_workers, or use a GPU.",
            )
            for name, limit in MAX_SECONDS.items()
        ),
    ),
)
GATE_NAMES = tuple(gate.name for gate in GATES)

# Thresholds that neither the contract nor a decision names, and why they are what they are.
OUR_THRESHOLDS = {
    "category_distribution": "D20's 0.10 between splits, used for the same distance between positives and purchases",
    "temporal_coverage": "D11 loses a log's first week or two; more than a tenth of the weeks is a gap",
    "class_balance": "the weights are solved for those shares: only rounding may differ, at most 1e-4 even over ten years",
    "hard_shortfall": "a tenth of the hard negatives being random still leaves four or five hard ones in a group",
    "temporal_periods": "D7's two points for the shares of positives, used for the shares of time",
    "price_distribution": "D20's 0.10 for categories, used for prices in twenty bins",
}
