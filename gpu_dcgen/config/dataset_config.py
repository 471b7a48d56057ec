"""`DatasetConfig`: every setting of a build, in one section per subject.

Sections and keys of the contract ("Configuration & Hyperparameters") have its names and defaults,
so its YAML can be used as it is, with or without the outer `config_parameters` and
`scalability_config`. Our own keys are beside them.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from .log_sections import FeaturesConfig, FilteringConfig, InputsConfig, SplitConfig
from .run_sections import (
    MemoryOptimizationConfig,
    MonitoringConfig,
    OutputConfig,
    QualityConfig,
    ResourcesConfig,
)
from .sample_sections import (
    CategoryBalancingConfig,
    NegativeSamplingConfig,
    SequenceProcessingConfig,
    SimilarityConfig,
)
from .section import Section

PROFILES: dict[str, dict[str, int | bool]] = {
    "local_development": {"num_workers": 4, "batch_size": 10_000, "chunk_size": 1_000},
    "cloud_processing": {
        "num_workers": 32,
        "batch_size": 50_000,
        "chunk_size": 5_000,
        "distributed_processing": True,
    },
}


class DatasetConfig(Section):
    """The configuration of a build: frozen; unknown keys are refused.

    Example:
        >>> config = DatasetConfig(seed=7, split=SplitConfig(train_share=0.7))
        >>> config.split.train_share
        0.7
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 42
    """Seed of all random draws. The same seed, inputs and configuration give the same bytes."""
    profile: Literal["local_development", "cloud_processing"] = "local_development"
    """Name of the defaults of section `resources`: 4 threads, or 32 worker processes with larger
    blocks. Both profiles are the contract's."""
    inputs: InputsConfig = InputsConfig()
    filtering: FilteringConfig = FilteringConfig()
    split: SplitConfig = SplitConfig()
    features: FeaturesConfig = FeaturesConfig()
    similarity: SimilarityConfig = SimilarityConfig()
    negative_sampling: NegativeSamplingConfig = NegativeSamplingConfig()
    sequence_processing: SequenceProcessingConfig = SequenceProcessingConfig()
    category_balancing: CategoryBalancingConfig = CategoryBalancingConfig()
    output: OutputConfig = OutputConfig()
    quality: QualityConfig = QualityConfig()
    monitoring: MonitoringConfig = MonitoringConfig()
    resources: ResourcesConfig = ResourcesConfig()
    memory_optimization: MemoryOptimizationConfig = MemoryOptimizationConfig()

    @model_validator(mode="before")
    @classmethod
    def _unfold_the_contract(cls, data: Any) -> Any:
        """Unfold the contract's outer sections, its profiles, and the profile's defaults."""
        if not isinstance(data, dict):
            return data
        data = {name: value for name, value in data.items() if value is not None}
        for name, value in _take_section(data, "config_parameters").items():
            if name in data:
                raise ValueError(
                    f"found section {name} twice, at the top and in config_parameters; "
                    "expected it once"
                )
            data[name] = value
        scalability = _take_section(data, "scalability_config")
        optimization = _take_section(scalability, "memory_optimization") or _take_section(
            data, "memory_optimization"
        )
        if "compression_level" in optimization:
            data["output"] = {
                "compression_level": optimization.pop("compression_level"),
                **_take_section(data, "output"),
            }
        data["memory_optimization"] = optimization
        profiles = {
            name: {**PROFILES[name], **_take_section(scalability, name)} for name in PROFILES
        }
        if scalability:
            raise ValueError(
                f"scalability_config: found unknown key {min(scalability, key=str)!r}; "
                f"expected {', '.join(PROFILES)} or memory_optimization"
            )
        resources = profiles.get(str(data.get("profile", "local_development")), {})
        data["resources"] = {**resources, **_take_section(data, "resources")}
        balancing = _take_section(data, "category_balancing")
        if balancing.get("enable_balancing") is False:
            balancing["mode"] = "off"
        data["category_balancing"] = balancing
        return data

    @model_validator(mode="after")
    def _require_negatives(self) -> Self:
        if self.negatives_per_positive == 0:
            raise ValueError(
                "negative_sampling: found 0 random and 0 hard negatives per positive; "
                "expected at least 1 of either"
            )
        n_hard = self.negative_sampling.hard_negatives_per_positive
        if self.output.shape == "triplet" and n_hard == 0:
            raise ValueError(
                "output.shape triplet: found negative_sampling.hard_negatives_per_positive 0; "
                "expected at least 1"
            )
        return self

    @property
    def n_threads(self) -> int:
        """Threads to use: `resources.num_workers`, at most one per usable core."""
        return min(self.resources.num_workers, count_usable_cores())

    @property
    def negatives_per_positive(self) -> int:
        """Hard and random negatives of one positive."""
        return (
            self.negative_sampling.hard_negatives_per_positive
            + self.negative_sampling.random_negatives_per_positive
        )

    @property
    def rows_per_positive(self) -> int:
        """Rows per positive in `output.shape`."""
        return 1 + self.negatives_per_positive if self.output.shape == "labeled_pair" else 1


def _take_section(data: dict[Any, Any], name: str) -> dict[Any, Any]:
    """Remove section `name` from `data` and return a copy of it, {} where it is absent."""
    section = data.pop(name, None)
    if isinstance(section, BaseModel):
        return section.model_dump()
    if not isinstance(section, dict | None):
        raise ValueError(f"{name}: found {section!r:.80}; expected keys and values")
    return dict(section or {})


def count_usable_cores() -> int:
    """Count the cores that this process may run on; all where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
