"""The contract's limits on speed, resources and machines, each in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

GB = 10**9

# "Pre-Generation": what a machine should have.
RECOMMENDED_DISK_BYTES = 50 * GB
RECOMMENDED_MEMORY_BYTES = 16 * GB
RECOMMENDED_CORES = 8

# "Alerting Thresholds": what is a critical alert.
CRITICAL_QUALITY_SCORE = 0.90  # below
CRITICAL_MEMORY_SHARE = 0.90  # of resources.memory_limit, above


@dataclass(frozen=True)
class Budget:
    """One line of "Performance Requirements": a value and the limit that it should keep to."""

    name: str
    line: str  # the contract's own words
    relation: Literal["<=", "<", ">="]
    limit: float
    unit: str

    def evaluate(self, value: float) -> dict[str, Any]:
        """Return the value beside the limit, as manifest.json has it.

        `margin` is the share of the limit that is left (of a rate: by which it is exceeded),
        negative when the budget is not met.
        """
        is_rate = self.relation == ">="
        return {
            "value": round(value, 3),
            "limit": self.limit,
            "unit": self.unit,
            "margin": round(value / self.limit - 1 if is_rate else 1 - value / self.limit, 4),
            "met": value >= self.limit if is_rate else value <= self.limit,
        }


BUDGETS = {
    budget.name: budget
    for budget in (
        Budget("minimum_rate", "5000 samples/second", ">=", 5_000, "samples/s"),
        Budget("target_rate", "10000 samples/second", ">=", 10_000, "samples/s"),
        Budget("max_memory_usage", "16GB", "<=", 16 * GB, "bytes"),
        Budget("max_cpu_usage", "80%", "<=", 0.80, "share of all cores"),
        Budget("max_disk_io", "200MB/second", "<=", 200 * 10**6, "bytes/s"),
        Budget("similarity_computation", "< 10 minutes", "<", 600, "s"),
        Budget("negative_sampling", "< 15 minutes", "<", 900, "s"),
        Budget("dataset_construction", "< 5 minutes", "<", 300, "s"),
        Budget("total_generation_time", "< 30 minutes", "<", 1_800, "s"),
    )
}


def evaluate_budgets(values: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Return each value, by name of its budget, beside the budget's limit (`Budget.evaluate`)."""
    return {name: BUDGETS[name].evaluate(value) for name, value in values.items()}
