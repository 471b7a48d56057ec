"""Sections that say what is written, judged and reported, and what a build may use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import ByteSize, Field, model_validator

from ..contract.gate_rows import Severity
from ..contract.gates import GATE_NAMES
from .section import Section, Share


class OutputConfig(Section):
    """How the files of samples are laid out (D16, D17, D19)."""

    shape: Literal["labeled_pair", "n_tuple", "triplet"] = "labeled_pair"
    """What one row is (D19). `labeled_pair`: a sample with a label, as the contract asks.
    `n_tuple`: a positive with lists of its negatives. `triplet`: a positive and its hardest
    negative."""
    order: Literal["chronological", "shuffled"] = "chronological"
    """Order of the positives, each followed by its negatives (D16). `chronological`: filters by
    time skip row groups. `shuffled`: a seeded permutation, for trainers that read in the files'
    order."""
    extra_columns: bool = True
    """Whether `sample_weight`, `negative_detail`, `negative_log_q` (not in triplets) and
    `is_repurchase` follow the contract's columns (D17)."""
    groups_per_part: Annotated[int, Field(ge=1)] | None = None
    """Positives per file; a split of several files is a folder of them (D16). Null: one file for up
    to 65,536 positives, else files of 32,768, which bounds what an interrupted build repeats."""
    groups_per_row_group: Annotated[int, Field(ge=1)] = 10_000
    """Most positives per Parquet row group. With the default, a block of the default
    `resources.batch_size` is one row group, which is written 10 % faster than as two."""
    compression_level: Annotated[int, Field(ge=1, le=22)] = 3
    """ZSTD level: higher is smaller and slower. The default is the contract's."""
    appendable: bool = True
    """Whether append.json is written, without which `gpu-dcgen append` cannot reuse splits
    (D25)."""
    hard_candidates: bool = False
    """Whether hard_candidates.parquet is written: the lists that hard negatives are drawn from,
    with weights (D13). The loader can then draw other hard negatives in each epoch. It doubles
    small datasets."""


class QualityConfig(Section):
    """Which quality gates must hold (D20)."""

    thresholds: dict[str, float] = {}
    """Thresholds that replace gates' own, by name of the gate: `{negative_quality: 0.6}`."""
    severities: dict[str, Severity] = {}
    """Severities that replace gates' own, by name of the gate. `critical`: a failure stops
    publication. `warning`: a failure is reported. `info`: the value is reported."""
    regression: Share = 0.1
    """With `--baseline`: a value that is worse than the baseline's by more than this share of it
    counts as a regression."""

    @model_validator(mode="after")
    def _require_known_gates(self) -> Self:
        if unknown := sorted({*self.thresholds, *self.severities} - set(GATE_NAMES)):
            raise ValueError(f"found gate {unknown[0]!r}; expected one of {', '.join(GATE_NAMES)}")
        return self


class MonitoringConfig(Section):
    """Where events and metrics of a build are sent, besides the terminal."""

    events: Path | None = None
    """File to which every event is appended as JSON, one per line. Null: events are only in the
    dataset's build_log.jsonl."""
    prometheus: Path | None = None
    """File, ending in .prom, for the textfile collector of Prometheus. Needs the extra
    `monitoring`. Null: no metrics are written."""
    webhook_variable: str | None = None
    """Environment variable that holds the URL to which alerts are posted as JSON; the URL itself is
    written nowhere. Null: alerts are not posted."""


class ResourcesConfig(Section):
    """What a build may use of the machine; samples do not depend on it."""

    num_workers: Annotated[int, Field(ge=1, le=1024)] = 4
    """Threads; with `distributed_processing`, worker processes. At most one per core is used."""
    batch_size: Annotated[int, Field(ge=1)] = 10_000
    """Positives per block of samples. A thread's memory grows with it."""
    chunk_size: Annotated[int, Field(ge=1)] = 1_000
    """Items per block of similarities. A thread's memory grows with it."""
    memory_limit: Annotated[ByteSize, Field(ge=1 << 28)] | None = None
    """Memory that the build should not exceed, such as `8GB`. Blocks shrink to fit; on Linux, what
    does not fit of large arrays is in files beside the output. A peak above 90 % of it is a
    critical alert. Null: blocks have their configured sizes, and arrays what is available."""
    max_disk_rate: Annotated[ByteSize, Field(ge=1 << 16)] | None = None
    """Bytes per second that files may grow by on average, such as `200MB`. Null: no limit."""
    gpu_memory_limit: Annotated[ByteSize, Field(ge=1 << 30)] | None = None
    """Device memory that the GPU backend may use, such as `12GiB`. Null: all that is free."""
    distributed_processing: bool = False
    """Whether Dask computes similarities and samples: in `num_workers` processes of this machine,
    or on the workers of `scheduler`."""
    scheduler: Annotated[str, Field(pattern=r"^(gpus|[a-z]+://.+)$")] | None = None
    """With `distributed_processing`: the address of a running Dask cluster, such as
    `tcp://host:8786`, that sees the output folder under the same path; or `gpus`, for a worker on
    each GPU of this machine. Null: local processes."""

    @model_validator(mode="after")
    def _require_distributed_processing_for_a_scheduler(self) -> Self:
        if self.scheduler is not None and not self.distributed_processing:
            raise ValueError(
                f"found scheduler {self.scheduler!r} without distributed_processing; "
                "expected distributed_processing: true"
            )
        return self


class MemoryOptimizationConfig(Section):
    """The contract's switches. Builds always work this way, so the only value is true."""

    chunked_processing: Literal[True] = True
    """Stages work in blocks."""
    lazy_loading: Literal[True] = True
    """Datasets are read one row group at a time."""
    sparse_matrices: Literal[True] = True
    """The matrix of users and items is sparse (CSR)."""
