"""DatasetConfig: everything a build can be told, one section a stage, a doc line under each field.

Sections and keys of the contract ("Configuration & Hyperparameters") keep their names and defaults, so its YAML
can be pasted in, with or without its outer `config_parameters` / `scalability_config`. Our own keys stand beside them.
"""

from __future__ import annotations

import math
import os
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ByteSize, Field, model_validator

from .quality import Monitoring, Quality, Section, Share
from .splitting import Count, Filtering, Split

Days = Annotated[int, Field(ge=1, le=100_000)]  # in nanoseconds, more than these do not fit 64 bits
Factor = Annotated[float, Field(gt=0, le=1000)]
OFF = BeforeValidator(
    lambda value: "off" if value is False else value
)  # YAML reads a plain `off` as false

SHARES_TOLERANCE = 1e-6  # shares written with six decimals sum to 1
PROFILES: dict[str, dict[str, int | bool]] = {
    "local_development": {"num_workers": 4, "batch_size": 10_000, "chunk_size": 1_000},
    "cloud_processing": {
        "num_workers": 32,
        "batch_size": 50_000,
        "chunk_size": 5_000,
        "distributed_processing": True,
    },
}


class Inputs(Section):
    columns: dict[Literal["articles", "customers", "transactions", "views"], dict[str, str]] = {}
    """Other names for columns: `{transactions: {t_dat: order_date}}` reads `order_date` as `t_dat`."""
    article_id_width: Annotated[int, Field(ge=0, le=64)] = 0
    """Pad integer article ids with leading zeros to this width (H&M: 10); 0 leaves them."""
    channels: dict[int, Literal["online", "offline"]] = {1: "offline", 2: "online"}
    """What each `sales_channel_id` (0..127) means (D3); others become null, with a warning."""
    price: Literal["column", "none"] = "column"
    """`none` builds from a log without prices: price features null, price weights 1."""
    on_bad_rows: Literal["fail", "reject"] = "fail"
    """`reject` sets bad rows aside in rejects.parquet and goes on while more than 95 % of rows are clean (D2)."""
    min_quality_score: Share = 0.95
    """With `reject`: the build stops unless clean rows / all rows is above this."""
    views: bool = True
    """Read views.parquet when it is there (D9)."""

    @model_validator(mode="after")
    def _channels_fit_int8(self):
        if bad := [c for c in self.channels if not 0 <= c <= 127]:
            raise ValueError(
                f"inputs.channels: id {bad[0]} does not fit the contract's int8 sales_channel (0..127)"
            )
        return self


class Features(Section):
    snapshot_days: Days = 7
    """Days between item snapshots (D6)."""
    popularity_days: Days = 28
    """Days of sales that popularity and price of a snapshot look back on (D6)."""
    hemisphere: Literal["northern", "southern"] = "northern"
    """Meteorological seasons: in the north, December to February is Winter."""


class Similarity(Section):
    engine: Literal["exact", "approximate", "auto"] = "exact"
    """How neighbors are found (D10): all, or most where that is less work; `auto` is approximate where that halves the work."""
    exact_products: Count = 30_000_000_000
    """`auto` is exact up to this sum of squared purchases of users: minutes on two cores."""
    dimension: Annotated[int, Field(ge=1, le=1024)] = 64
    """With `approximate`: length of the items' vectors."""
    candidates: Annotated[float, Field(ge=1, le=100)] = 2.0
    """With `approximate`: nearest vectors that are scored, as a multiple of `top_k`; a small `top_k` wants more (100: 10)."""
    nearest: Literal["auto", "brute", "faiss", "cuml"] = "auto"
    """With `approximate`: who finds the nearest vectors; faiss needs that package, cuml a GPU."""
    min_common_users: Count = 5
    """Pairs of items with fewer common buyers are not neighbors."""
    top_k: Annotated[int, Field(ge=1, le=10_000)] = 1000
    """Neighbors kept per item."""
    weight_by_price: bool = True
    """Multiply an interaction's weight by log(1 + price) (D9)."""
    channel_weighting: bool = True
    """Multiply an interaction's weight by its channel's weight (D9)."""
    online_weight: Factor = 1.2
    """Weight of an online interaction."""
    offline_weight: Factor = 1.0
    """Weight of an offline or unknown interaction."""
    user_idf: bool = True
    """Down-weight users of many items: log(items / the user's distinct items) (D9)."""
    view_weight: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Weight of a view, times the median price factor (D9)."""


class ScoreWeights(Section):
    similarity: Share = 0.5
    """Weight of the pair's similarity."""
    collaborative: Share = 0.3
    """Weight of the buyers who brought the candidate in."""
    price: Share = 0.2
    """Weight of nearness in price."""
    popularity: Share = 0.1
    """Subtracted: weight of the candidate's popularity."""
    diversity: Share = 0.1
    """Subtracted for each negative already chosen from the candidate's product group."""


class NegativeSampling(Section):
    random_negatives_per_positive: Annotated[int, Field(ge=0, le=256)] = 10
    """Random negatives per positive (D12)."""
    hard_negatives_per_positive: Annotated[int, Field(ge=0, le=64)] = 5
    """Hard negatives per positive (D13)."""
    in_batch_negatives: bool = True
    """Keep `in_batch` in the vocabulary; the loader makes these from the batch (D14)."""
    similarity_threshold: Share = 0.3
    """Neighbors must be more similar than this to be `item_cf` candidates."""
    similarity_ceiling: Share = 0.8
    """Neighbors must not be more similar than this to be `item_cf` candidates."""
    hard_band: Literal["similarity", "percentile"] = "similarity"
    """Take `item_cf` candidates by similarity range, or by rank among the item's own neighbors."""
    percentile_range: tuple[Share, Share] = (0.0, 0.5)
    """With `percentile`: the band of an item's neighbors by rank, 0 the most similar."""
    item_cf_top_k: Annotated[int, Field(ge=0, le=1000)] = 100
    """Nearest neighbors in the band taken as `item_cf` candidates."""
    collaborative_buyers: Annotated[int, Field(ge=0, le=256)] = 64
    """Latest buyers of the positive asked for `collaborative` candidates."""
    collaborative_items: Annotated[int, Field(ge=1, le=64)] = 8
    """Latest interactions of each such buyer taken."""
    collaborative_days: Days = 7
    """How many days back those interactions may lie."""
    category_draws: Annotated[int, Field(ge=0, le=1024)] = 32
    """Draws for `category_crossing` candidates: same price category, another product group."""
    diversity_threshold: Share = 0.7
    """At most this share of the hard negatives from the positive's own product group."""
    score: ScoreWeights = ScoreWeights()
    """Weights of the hard negatives' score."""
    corpus: Literal["live", "all"] = "live"
    """`live`: items sold in the `live_days` before the snapshot; `all`: the whole vocabulary, which leaks (D11)."""
    live_days: Days = 90
    """How long after its last sale an item counts as on sale."""
    repurchases: Literal["keep", "drop"] = "keep"
    """`drop` leaves out positives whose item is already in the user's history (D17)."""

    @model_validator(mode="after")
    def _bands_hold_something(self):
        low, high = self.similarity_threshold, self.similarity_ceiling
        if low >= high:
            raise ValueError(
                f"similarity_threshold {low} is not below similarity_ceiling {high}: no neighbor lies between"
            )
        if self.percentile_range[0] >= self.percentile_range[1]:
            raise ValueError(
                f"percentile_range {self.percentile_range} does not rise: the first share must be the smaller"
            )
        return self


class SequenceProcessing(Section):
    max_sequence_length: Annotated[int, Field(ge=1, le=1024)] = 50
    """Interactions kept in a sequence: the latest."""
    min_sequence_length: Annotated[int, Field(ge=0, le=1024)] = 3
    """Positives with fewer earlier interactions are not emitted (D15)."""
    temporal_gap_hours: Annotated[int, Field(ge=1, le=2_400_000)] = 72
    """A longer gap starts a new session."""


class CategoryBalancing(Section):
    enable_balancing: bool = True
    """False is `mode: off`."""
    mode: Annotated[Literal["weights", "resample", "off"], OFF] = "weights"
    """Write `sample_weight`, or repeat and drop positives to the same effect, or neither (D18)."""
    balance_threshold: Share = 0.2
    """A segment's weighted share further from its target than this part of the target warns."""
    smoothing_factor: Share = 0.5
    """Exponent of the inverse category frequency."""
    min_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    """Least category weight."""
    max_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0
    """Greatest category weight."""
    target_distribution: tuple[Share, Share, Share] = (0.2, 0.6, 0.2)
    """Wanted shares of new, active and churned users' samples."""
    min_samples_per_segment: Annotated[int, Field(ge=0)] = 1000
    """Fewer train positives in a segment than this warns."""
    segment_days: Days = 90
    """New: first purchase within these days before the cut; churned: none within them."""
    recency_half_life_days: Days = 90
    """Days in which a positive's recency weight halves."""

    @model_validator(mode="after")
    def _weights_can_be_met(self):
        if abs((total := math.fsum(self.target_distribution)) - 1) > SHARES_TOLERANCE:
            raise ValueError(f"target_distribution: the shares sum to {total:.7g}, not 1")
        if self.min_weight > self.max_weight:
            raise ValueError(f"min_weight {self.min_weight} is above max_weight {self.max_weight}")
        return self


class Output(Section):
    shape: Literal["labeled_pair", "n_tuple", "triplet"] = "labeled_pair"
    """One row a sample (the contract), one a positive with lists of negatives, or one a positive with its hardest (D19)."""
    order: Literal["chronological", "shuffled"] = "chronological"
    """Order of groups within a file (D16)."""
    extra_columns: bool = True
    """Add sample_weight, negative_detail and is_repurchase to the contract's columns (D17)."""
    groups_per_part: Annotated[int, Field(ge=1)] | None = None
    """Positives a part file; a split of several parts is a folder (D16). Without: 32,768, or one file up to 65,536."""
    groups_per_row_group: Annotated[int, Field(ge=1)] = 10_000
    """Positives a Parquet row group at most; at the default a block is one row group, which wrote 10 % faster than two."""
    compression_level: Annotated[int, Field(ge=1, le=22)] = 3
    """ZSTD level."""
    appendable: bool = True
    """Write append.json, by which `gpu-dcgen append` knows what it need not make again (D25)."""


class Resources(Section):
    num_workers: Annotated[int, Field(ge=1, le=1024)] = 4
    """Threads, or with `distributed_processing` worker processes; at most one a core is used."""
    batch_size: Annotated[int, Field(ge=1)] = 10_000
    """Positives a block: bounds the memory of the last stages."""
    chunk_size: Annotated[int, Field(ge=1)] = 1_000
    """Items a similarity block."""
    memory_limit: Annotated[ByteSize, Field(ge=1 << 28)] | None = None
    """Memory that the build should keep to, such as `8GB`: blocks shrink to fit, a peak above 90 % is a critical alert."""
    max_disk_rate: Annotated[ByteSize, Field(ge=1 << 16)] | None = None
    """Bytes a second that files may grow by on the average, such as `200MB`."""
    gpu_memory_limit: Annotated[ByteSize, Field(ge=1 << 30)] | None = None
    """Device memory that the GPU backend may use, such as `12GiB` (1GiB at least); without, what is free."""
    distributed_processing: bool = False
    """Share out similarities and samples by Dask: to `num_workers` processes of this machine, or to `scheduler`'s workers."""
    scheduler: Annotated[str, Field(pattern=r"^(gpus|[a-z]+://.+)$")] | None = None
    """A running Dask cluster, such as `tcp://host:8786`, whose workers see the output's folder; `gpus`: one on each GPU here."""

    @model_validator(mode="after")
    def _a_scheduler_is_for_distributed_processing(self):
        if self.scheduler is not None and not self.distributed_processing:
            raise ValueError(
                "resources: scheduler is given, but distributed_processing is not true"
            )
        return self


class MemoryOptimization(Section):
    """The contract's switches; the build always works this way, so they cannot be turned off."""

    chunked_processing: Literal[True] = True
    """Stages work in blocks."""
    lazy_loading: Literal[True] = True
    """Outputs are read row group by row group."""
    sparse_matrices: Literal[True] = True
    """The interaction matrix is CSR."""


class DatasetConfig(Section):
    """The whole configuration of a build; frozen, and refused when it has a key nobody knows."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 42
    """Same seed, same inputs, same config: same bytes."""
    profile: Literal["local_development", "cloud_processing"] = "local_development"
    """Named defaults of the `resources` section."""
    inputs: Inputs = Inputs()
    filtering: Filtering = Filtering()
    split: Split = Split()
    features: Features = Features()
    similarity: Similarity = Similarity()
    negative_sampling: NegativeSampling = NegativeSampling()
    sequence_processing: SequenceProcessing = SequenceProcessing()
    category_balancing: CategoryBalancing = CategoryBalancing()
    output: Output = Output()
    quality: Quality = Quality()
    monitoring: Monitoring = Monitoring()
    resources: Resources = Resources()
    memory_optimization: MemoryOptimization = MemoryOptimization()

    @model_validator(mode="before")
    @classmethod
    def _accept_the_contract(cls, data: Any) -> Any:
        """Unfold the contract's outer sections, its profiles, and the profile's defaults."""
        if not isinstance(data, dict):
            return data
        data = {name: value for name, value in data.items() if value is not None}
        for name, value in _take(data, "config_parameters").items():
            if name in data:
                raise ValueError(
                    f"section {name} is given twice: at the top and in config_parameters"
                )
            data[name] = value
        scalability = _take(data, "scalability_config")
        optimization = _take(scalability, "memory_optimization") or _take(
            data, "memory_optimization"
        )
        if "compression_level" in optimization:
            data["output"] = {
                "compression_level": optimization.pop("compression_level"),
                **_take(data, "output"),
            }
        data["memory_optimization"] = optimization
        profiles = {name: {**PROFILES[name], **_take(scalability, name)} for name in PROFILES}
        if scalability:
            raise ValueError(f"scalability_config: unknown key {sorted(scalability)[0]!r}")
        resources = profiles.get(str(data.get("profile", "local_development")), {})
        data["resources"] = {**resources, **_take(data, "resources")}
        balancing = _take(data, "category_balancing")
        data["category_balancing"] = (
            {**balancing, "mode": "off"}
            if balancing.get("enable_balancing") is False
            else balancing
        )
        return data

    @model_validator(mode="after")
    def _some_negatives(self):
        sampling = self.negative_sampling
        if self.negatives_per_positive == 0:
            raise ValueError(
                "negative_sampling: random and hard negatives per positive are both 0; one must be positive"
            )
        if self.output.shape == "triplet" and sampling.hard_negatives_per_positive == 0:
            raise ValueError(
                "output.shape triplet needs negative_sampling.hard_negatives_per_positive of 1 or more"
            )
        return self

    @property
    def n_threads(self) -> int:
        """Threads to use: `resources.num_workers`, at most one a usable core."""
        return min(self.resources.num_workers, usable_cores())

    @property
    def negatives_per_positive(self) -> int:
        """Hard and random negatives of one positive."""
        return (
            self.negative_sampling.hard_negatives_per_positive
            + self.negative_sampling.random_negatives_per_positive
        )

    @property
    def rows_per_positive(self) -> int:
        """Rows that one positive comes to in `output.shape`."""
        return 1 + self.negatives_per_positive if self.output.shape == "labeled_pair" else 1


def _take(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Take section `name` out of `data`, as a dict of its own; {} when it is absent or empty."""
    section = data.pop(name, None)
    if isinstance(section, BaseModel):
        return section.model_dump()
    if not isinstance(section, dict | None):
        raise ValueError(f"{name}: expected keys and values, found {section!r:.80}")
    return dict(section or {})


def exactly(share: float) -> Fraction:
    """A setting as the decimal that was written, so that 0.29 of 100 is 29."""
    return Fraction(str(share))


def usable_cores() -> int:
    """Cores that this process may run on, where the system says so, else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
