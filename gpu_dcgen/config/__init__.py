"""Every setting of a build, checked: `DatasetConfig`, its sections, reading and printing."""

from .csv_section import DELIMITERS, CsvConfig
from .dataset_config import PROFILES, DatasetConfig, count_usable_cores
from .loading import describe_problems, load_config
from .log_sections import FeaturesConfig, FilteringConfig, InputsConfig, SplitConfig
from .rendering import describe_choices, render_config
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
    ScoreWeights,
    SequenceProcessingConfig,
    SimilarityConfig,
    SourceWeights,
)
from .section import Section, to_fraction
from .time_settings import MONTHS, TIME_DIRECTIVES, list_directives

__all__ = [
    "DELIMITERS",
    "MONTHS",
    "PROFILES",
    "TIME_DIRECTIVES",
    "CategoryBalancingConfig",
    "CsvConfig",
    "DatasetConfig",
    "FeaturesConfig",
    "FilteringConfig",
    "InputsConfig",
    "MemoryOptimizationConfig",
    "MonitoringConfig",
    "NegativeSamplingConfig",
    "OutputConfig",
    "QualityConfig",
    "ResourcesConfig",
    "ScoreWeights",
    "SourceWeights",
    "Section",
    "SequenceProcessingConfig",
    "SimilarityConfig",
    "SplitConfig",
    "count_usable_cores",
    "describe_choices",
    "describe_problems",
    "list_directives",
    "load_config",
    "render_config",
    "to_fraction",
]
