"""The quality gates of the splits (D7, D8, D20)."""

from __future__ import annotations

from .gate_rows import GateRow, require_none

_DRIFT = (
    "Compare the shares in quality_report.json: seasons and new ranges of goods cause this, and so "
    "do mistakes in the log."
)
_SMALL = (
    "Look for rows far before or after all others (inputs.time_from, inputs.time_until), cut by "
    "rows (split.windows), or use a longer log."
)

SPLIT_GATES = (
    require_none("temporal_order", "temporal_splitting", "groups outside their split's window"),
    GateRow(
        "temporal_periods",
        "earliest 80%, next 10%, latest 10% of time",
        "largest difference of a window's share of time from the configured one",
        "<=",
        0.02,
        "warning",
        "split.windows: rows cuts by rows; calendar cuts by time.",
    ),
    GateRow(
        "positive_shares",
        "Train (80%), Validation (10%), Test (10%); D7: within 2 points",
        "largest difference of a split's share of positives from the configured one",
        "<=",
        0.02,
        "warning",
        "The log's windows do not allow it: change split.train_share or split.windows.",
    ),
    GateRow(
        "split_size",
        "D7: enough to measure with",
        "positives of the smallest split",
        ">=",
        100,
        "warning",
        _SMALL,
    ),
    GateRow(
        "split_share",
        "D7: enough to measure with",
        "share of the positives that the smallest split has",
        ">=",
        0.02,
        "warning",
        _SMALL,
    ),
    GateRow(
        "split_floor",
        "D7: enough to measure with",
        "positives of the smallest split",
        ">=",
        5,
        "critical",
        _SMALL + " Lower quality.thresholds.split_floor if so few are enough.",
    ),
    require_none(
        "no_user_overlap", "users unique across splits", "users with positives in two splits"
    ),
    require_none(
        "no_future_history", "D6: strictly before", "groups with a history not strictly earlier"
    ),
    require_none(
        "no_future_knowledge",
        "D8: nothing after a split's window may touch it",
        "sources of values that know of purchases after their window",
    ),
    require_none(
        "no_owned_negatives", "D8: false negatives", "groups with a negative that the user owns"
    ),
    require_none(
        "no_sold_out_items",
        "D11: on sale at the moment",
        "groups with an item that is not on sale",
    ),
    require_none(
        "no_siblings",
        "D13: hard negatives",
        "groups with a variant of the positive as a hard negative",
    ),
    GateRow(
        "category_consistency",
        "KS test p > 0.05; D20: total variation <= 0.10",
        "largest total variation of product groups between two splits",
        "<=",
        0.10,
        "warning",
        _DRIFT,
    ),
    GateRow(
        "category_ks_p",
        "KS test p > 0.05",
        "smallest p of a KS test of product group codes between two splits",
        ">",
        None,
        "info",
        "Over many rows p is near 0 for any seasonal shop (D20).",
    ),
    GateRow(
        "category_share_ks_p",
        "KS test p > 0.05",
        "smallest p of a KS test of the product groups' shares between two splits",
        ">",
        None,
        "info",
        "It can hardly fail (D20).",
    ),
    GateRow(
        "user_activity_distribution",
        "similar across splits",
        "largest total variation of earlier purchases between two splits",
        "<=",
        None,
        "info",
        "Windows of unequal length make it differ (D20).",
    ),
    GateRow(
        "price_distribution",
        "maintain original characteristics",
        "largest total variation of normalized prices between two splits",
        "<=",
        0.10,
        "warning",
        _DRIFT,
    ),
)
