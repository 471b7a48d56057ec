"""manifest.json: what is needed to trust, repeat and compare a dataset."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from .documents import Document, Number, Section
from .split_summary import SplitSummary


class Generator(Section):
    """The program that built the dataset."""

    name: str
    """`gpu-dcgen`."""
    version: str
    """Its version."""


IN_MEMORY = "memory:"  # in front of the name of a table that was no file


class InputFile(Section):
    """A file, or a table in memory, that the build read."""

    table: str
    """`articles`, `customers`, `transactions` or `views`."""
    file: str
    """Its name, relative to the input folder; of a table in memory `memory:` and the table."""
    bytes: int
    """Its size; of a table in memory, that of the values that were read."""
    rows: int
    """Its rows."""
    sha256: str
    """SHA-256 of its bytes, 64 hex digits; of a table in memory, that of its content."""


class TableRows(Section):
    """Where the rows of an input table went."""

    read: int
    """Rows of its files; those of events that are views count under `views`."""
    accepted: int = Field(validation_alias="kept", serialization_alias="kept")
    """Rows that the build used."""
    rejected: int
    """Bad rows that were set aside in rejects.parquet (D2)."""
    collapsed: int = 0
    """Identical copies of an article or customer."""
    left_out: int = 0
    """Rows that the settings leave out; `left_out` of the section has the reasons."""


class Inputs(Section):
    """The tables that the dataset was built from."""

    files: list[InputFile]
    """The files, in the order of the tables."""
    rows: dict[str, TableRows]
    """By table, where its rows went."""
    rejects: dict[str, dict[str, int]]
    """By table and reason, the rows that were rejected."""
    left_out: dict[str, dict[str, int]] = {}
    """By table and reason, the rows that the settings leave out: `outside_period`
    (`inputs.time_from`, `inputs.time_until`), `ignored` (`inputs.events`), `low_rating`
    (`inputs.min_rating`)."""
    data_quality_score: float
    """Clean rows / all rows, 0..1."""
    accepted_transactions: int
    """Transactions that were accepted, before any filter."""


class VocabularySizes(Section):
    """How many users and items the dataset knows."""

    users: int
    """Users after the filter."""
    items: int
    """Items after the filter; item_index is 1..items, 0 is padding."""


class Ledger(Section):
    """Where each accepted transaction went: they add up to `inputs.accepted_transactions`.

    Beside `emitted`, each key is a reason for which transactions became no positive.
    """

    __pydantic_extra__: dict[str, int] = Field(init=False)

    emitted: dict[str, int]
    """By split, transactions that became a positive (before resampling)."""

    @property
    def losses(self) -> dict[str, int]:
        """By reason, the transactions that became no positive."""
        return dict(self.__pydantic_extra__)


class SegmentBalance(Section):
    """A segment of users among the train positives (D18)."""

    samples: int
    """Train positives of its users."""
    share_before: float
    """Its share of the category and recency weights."""
    share_after: float
    """Its share with the weight below."""
    target: float
    """The share that the settings ask for."""
    weight: float
    """The factor for its positives."""


class Balancing(Section):
    """How train positives were weighted or resampled (D18)."""

    segments: dict[str, SegmentBalance]
    """`new_users`, `active_users` and `churned_users`."""


class SimilaritySummary(Section):
    """How the neighbors of items were computed (D9, D10)."""

    engine: Literal["exact", "approximate"]
    """The engine that was used."""
    reason: str
    """Why that one."""
    scale_bits: int
    """Weights are multiples of 2^-scale_bits."""
    packed: bool
    """Whether a weight and a count share 64 bits while rows are summed."""
    products: int
    """Multiplications that the exact engine needs."""
    nonzeros: int
    """Distinct pairs of user and item in the train window."""
    pairs: int
    """Rows of item_similarity_matrix."""
    items_with_neighbors: int
    """Items with at least one neighbor."""
    searched_items: int | None = None
    """Approximate only: items with neighbors from that search."""
    nearest: str | None = None
    """Approximate only: the method that found the nearest vectors."""
    dimension: int | None = None
    """Approximate only: length of the items' vectors."""
    candidates: int | None = None
    """Approximate only: nearest vectors scored for each item."""
    recall: float | None = None
    """Approximate only: share of the exact neighbors that were found; null where there are none."""
    recall_at_100: float | None = None
    """Approximate only: the same of the first 100 neighbors."""
    recall_sampled_items: int | None = None
    """Approximate only: items on which recall was measured."""


class Prices(Section):
    """The scale of prices."""

    unit: str
    """The unit of the edges."""
    edges_p1_p25_p50_p75_p99: list[int]
    """Percentiles of the prices of train, in units; empty without prices."""


class Negatives(Section):
    """The negatives of all splits."""

    verified: int
    """Negatives that were checked against every rule."""
    violations: int
    """Rules broken; a dataset with one is not published."""
    by_source: dict[str, int]
    """Hard negatives by source; `fallback` are random ones."""
    shortfall: int
    """Hard negatives that no source had, drawn at random instead."""
    relaxed: int | None
    """Hard negatives beyond the cap on the positive's own product group; null without groups."""
    similar_share: float | None = None
    """Share of the hard negatives with a similarity of 0.3 or more, as the contract asks."""


class SplitCounts(Section):
    """The size of a split's files."""

    groups: int
    """Positives, each with its negatives."""
    rows: int
    """Rows of all its files."""


class AppendSummary(Section):
    """Which splits `append` took from the dataset that it replaced (D25)."""

    content_digest: str
    """Of the replaced dataset."""
    reused: dict[str, str] = Field(validation_alias="kept", serialization_alias="kept")
    """By reused split, when its samples were generated."""
    rebuilt: dict[str, str] = Field(validation_alias="anew", serialization_alias="anew")
    """By rebuilt split, the reason."""


class ClusterSummary(Section):
    """The Dask cluster that computed neighbors and samples."""

    scheduler: str
    """Its address."""
    workers: int
    """Workers at the end."""
    lost_workers: int
    """Workers that went away during the build."""
    slow_workers: int
    """Workers that did not answer for so long that others did their tasks as well."""
    halved_blocks: int
    """Blocks that were retried at half size because memory was full."""
    peak_bytes_by_worker: list[int]
    """Peak memory of each worker, the largest first."""


class BackendSummary(Section):
    """The backend that computed the dataset."""

    name: str
    """`cpu` or `gpu`."""
    reason: str
    """Why that one."""
    device: str
    """The processor."""
    threads: int | None = None
    """CPU only: threads of the build."""


class StageTiming(Section):
    """A stage of the build."""

    stage: str
    """Its name."""
    seconds: float
    """Wall-clock time."""
    peak_bytes: int
    """Peak memory of the process after it."""
    restored: bool = False
    """Whether an earlier process did it, and `--resume` read the result."""


class Budget(Section):
    """A limit of the contract ("Performance Requirements") and the value of this build."""

    value: Number
    """The value."""
    limit: Number
    """The limit."""
    unit: str
    """The unit of both."""
    margin: float
    """The share of the limit that is left; negative when it is exceeded."""
    met: bool
    """Whether the limit holds."""


class Performance(Section):
    """Time and resources of the build."""

    seconds: float
    """Wall-clock time, with that of an interrupted build for what was reused from it."""
    restored_seconds: float
    """Of which an interrupted build spent."""
    samples_per_s: int
    """Rows per second of the whole build."""
    peak_memory_bytes: int
    """Peak memory of the process, on a GPU of the device."""
    written_bytes: int
    """Size of all files."""
    halved_blocks: int
    """Blocks that were retried at half size because memory was full."""
    budgets: dict[str, Budget]
    """The contract's limits by name."""


class FailedGates(Section):
    """Names of the gates that failed, by severity."""

    warning: list[str]
    """Gates of severity `warning`."""
    info: list[str]
    """Gates of severity `info`."""


class QualitySummary(Section):
    """What quality_report.json says in short (D20)."""

    verdict: str
    """`passed` or `passed with warnings`."""
    scores: dict[str, float | None]
    """completeness, consistency, diversity, coverage and input_quality, 0..1."""
    passed: int
    """Gates that passed."""
    failed: FailedGates
    """Gates that failed."""


class Manifest(Document):
    """manifest.json, which is written last: a folder with one holds a whole dataset."""

    model_config = ConfigDict(title="manifest.json")

    contract: str
    """Name and version of the data contract."""
    generator: Generator
    """The program that built the dataset."""
    generated_at: str
    """When the build began, ISO 8601 in UTC."""
    seed: int
    """Seed of all random numbers."""
    config: dict[str, Any]
    """Every setting, as in the YAML file."""
    versions: dict[str, str | None]
    """Versions of Python and of the packages that compute."""
    inputs: Inputs
    """The tables that the dataset was built from."""
    vocabulary: VocabularySizes
    """How many users and items the dataset knows."""
    split: SplitSummary
    """How the log was divided into train, val and test."""
    ledger: Ledger
    """Where each accepted transaction went."""
    balancing: Balancing | None
    """How train positives were weighted; null when balancing is off."""
    similarity: SimilaritySummary
    """How the neighbors of items were computed."""
    prices: Prices
    """The scale of prices."""
    negatives: Negatives
    """The negatives of all splits."""
    counts: dict[str, SplitCounts]
    """By split, the size of its files."""
    warnings: list[str]
    """Warnings of the build."""
    digests: dict[str, dict[str, str]]
    """By table and column, a digest of the values whatever their order (D22)."""
    content_digest: str
    """SHA-256 of `digests`: equal for datasets of the same content."""
    checksums: dict[str, str]
    """By file, SHA-256 of its bytes."""
    append: AppendSummary | None
    """Which splits were reused; null unless built by `append`."""
    cluster: ClusterSummary | None
    """The Dask cluster; null without one."""
    backend: BackendSummary
    """The backend that computed the dataset."""
    timings: list[StageTiming]
    """The stages in their order."""
    performance: Performance
    """Time and resources of the build."""
    quality: QualitySummary
    """What quality_report.json says in short."""
    files: dict[str, int]
    """By file, its size in bytes; every file but this one."""
    manifest_sha256: str
    """SHA-256 of this file without this line."""

    @property
    def n_rows(self) -> int:
        """Rows of all splits."""
        return sum(split.rows for split in self.counts.values())

    @property
    def n_groups(self) -> int:
        """Positives of all splits."""
        return sum(split.groups for split in self.counts.values())
