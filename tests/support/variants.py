"""Settings that change what a build makes, beside those of `tiny_config`."""

from __future__ import annotations

from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "as the contract": {},
    "row windows": {"split": {"windows": "rows"}},
    "hashed users": {"split": {"strategy": "hash"}},
    "users in all windows": {"split": {"strategy": "temporal"}},
    "whole corpus": {"negative_sampling": {"corpus": "all"}},
    "no repurchases": {"negative_sampling": {"repurchases": "drop"}},
    "percentile band": {
        "negative_sampling": {"hard_band": "percentile", "percentile_range": (0.2, 0.9)}
    },
    "southern seasons": {"features": {"hemisphere": "southern"}},
    "plain matrix": {
        "similarity": {"weight_by_price": False, "channel_weighting": False, "user_idf": False}
    },
    "resampled": {"category_balancing": {"mode": "resample"}},
    "unbalanced": {"category_balancing": {"enable_balancing": False}},
    "shuffled": {"output": {"order": "shuffled"}},
    "no prices": {"inputs": {"price": "none"}},
    "random only": {"negative_sampling": {"hard_negatives_per_positive": 0}},
    "hard only": {"negative_sampling": {"random_negatives_per_positive": 0}},
    "a low cap": {"filtering": {"max_user_interactions": 4}},
    "the last purchase": {"split": {"strategy": "leave_last"}},
    "the last three": {"split": {"strategy": "leave_last", "leave_last": 3}},
    "a gap": {"split": {"gap_days": 3}},
    "a gap between rows": {"split": {"gap_days": 2, "windows": "rows", "strategy": "temporal"}},
    "pinned cuts": {"split": {"val_from": "2018-10-14", "test_from": "2018-10-22T00:00:00"}},
    "counted by window": {
        "filtering": {"counts": "window", "min_user_interactions": 4, "min_item_interactions": 4}
    },
}
