"""The contract's limits on speed, resources and machines, each in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .manifest import Budget

GB = 10**9

# "Pre-Generation": what a machine should have.
RECOMMENDED_DISK_BYTES = 50 * GB
RECOMMENDED_MEMORY_BYTES = 16 * GB
RECOMMENDED_CORES = 8

# "Alerting Thresholds": what is a critical alert.
CRITICAL_QUALITY_SCORE = 0.90  # below
CRITICAL_MEMORY_SHARE = 0.90  # of resources.memory_limit, above

MIN_RATED_SECONDS = 60  # a build of less than a minute says nothing about rates


@dataclass(frozen=True)
class Requirement:
    """One line of "Performance Requirements": the limit that a value should keep to."""

    name: str
    line: str  # the contract's own words
    relation: Literal["<=", "<", ">="]
    limit: float
    unit: str

    def evaluate(self, value: float) -> Budget:
        """Return the value beside the limit, as manifest.json has it.

        `margin` is the share of the limit that is left (of a rate: by which it is exceeded),
        negative when the requirement is not met.
        """
        is_rate = self.relation == ">="
        return Budget(
            value=round(value, 3),
            limit=self.limit,
            unit=self.unit,
            margin=round(value / self.limit - 1 if is_rate else 1 - value / self.limit, 4),
            met=value >= self.limit if is_rate else value <= self.limit,
        )


REQUIREMENTS = {
    requirement.name: requirement
    for requirement in (
        Requirement("minimum_rate", "5000 samples/second", ">=", 5_000, "samples/s"),
        Requirement("target_rate", "10000 samples/second", ">=", 10_000, "samples/s"),
        Requirement("max_memory_usage", "16GB", "<=", 16 * GB, "bytes"),
        Requirement("max_cpu_usage", "80%", "<=", 0.80, "share of all cores"),
        Requirement("max_disk_io", "200MB/second", "<=", 200 * 10**6, "bytes/s"),
        Requirement("similarity_computation", "< 10 minutes", "<", 600, "s"),
        Requirement("negative_sampling", "< 15 minutes", "<", 900, "s"),
        Requirement("dataset_construction", "< 5 minutes", "<", 300, "s"),
        Requirement("total_generation_time", "< 30 minutes", "<", 1_800, "s"),
    )
}


def evaluate_budgets(values: Mapping[str, float]) -> dict[str, Budget]:
    """Return each value, by name of its requirement, beside its limit."""
    return {name: REQUIREMENTS[name].evaluate(value) for name, value in values.items()}
