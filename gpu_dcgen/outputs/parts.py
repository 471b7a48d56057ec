"""The parts of the samples: files of a fixed number of groups (D16)."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from ..backend.blocks import Block
from ..config import DatasetConfig
from ..digest import ContentDigest
from ..errors import GateError
from ..quality_validator.metrics import QualityMetrics
from ..samples import StageResults

# Unless `output.groups_per_part` is set, a split of at most this many positives is one file, a
# larger one has parts of `_PART_GROUPS`: what an interrupted build has to repeat, twice at most.
_MAX_GROUPS_OF_ONE_FILE = 65_536
_PART_GROUPS = 32_768


@dataclass
class PartRecord:
    """What is known of a part when its file is closed."""

    digest: ContentDigest = field(default_factory=ContentDigest)
    metrics: QualityMetrics = field(default_factory=QualityMetrics)
    drawing_s: float = 0.0  # of the threads' time: drawing negatives
    checking_s: float = 0.0  # checking and counting
    working_s: float = 0.0  # all of it, with laying out, digesting and writing rows
    file_bytes: int = 0
    sha256: str = ""  # of the file

    def add(self, other: PartRecord) -> None:
        """Add the record of other rows; size and checksum stay those of this part's file."""
        self.digest.merge(other.digest)
        self.metrics.merge(other.metrics)
        self.drawing_s += other.drawing_s
        self.checking_s += other.checking_s
        self.working_s += other.working_s


@dataclass
class Part:
    """Positives first..last-1 of one split in one file."""

    split: int
    first: int
    last: int
    path: Path
    name: str
    written: int = 0  # groups
    record: PartRecord = field(default_factory=PartRecord)
    # Prepared blocks by their first positive, halves in order, each with its share of the record.
    ready: dict[int, list[tuple[Block, PartRecord]]] = field(default_factory=dict)
    busy: bool = False  # whether a thread is writing; `lock` guards this and `ready`
    lock: Lock = field(default_factory=Lock)
    files: ExitStack = field(default_factory=ExitStack)  # holds the open writer
    writer: Any = None

    @property
    def n_groups(self) -> int:
        """Positives of the part."""
        return self.last - self.first


@dataclass(frozen=True)
class ReusedSplit:
    """A split with the files of another dataset."""

    record: PartRecord
    sha256: dict[Path, str]  # of its files
    generated_at: str  # when its samples were generated, ISO 8601


def lay_out_parts(folder: Path, results: StageResults, config: DatasetConfig) -> list[Part]:
    """Return the parts of all splits.

    A split that fits one part is a plain file, another one a folder of numbered files.
    """
    parts = []
    for k, positives in enumerate(results.plan.positives):
        n, size = len(positives), config.output.groups_per_part
        if size is None:
            size = n if n <= _MAX_GROUPS_OF_ONE_FILE else _PART_GROUPS
        path = folder / f"{positives.split}_dataset.parquet"
        if n <= size:
            parts.append(Part(k, 0, n, path, f"{positives.split}-00000"))
            continue
        path.mkdir(exist_ok=True)
        for number, first in enumerate(range(0, n, size)):
            file = path / f"part-{number:05d}.parquet"
            parts.append(
                Part(k, first, min(n, first + size), file, f"{positives.split}-{number:05d}")
            )
    return parts


def require_rows(parts: list[Part], config: DatasetConfig) -> None:
    """Raise GateError unless each part's footer on disk counts the rows of its positives."""
    from pyarrow.parquet import read_metadata

    for part in parts:
        expected = part.n_groups * config.rows_per_positive
        n_rows = read_metadata(part.path).num_rows
        if n_rows != expected:
            raise GateError(
                f"critical gate failed, nothing was published: {part.path} has {n_rows} rows, "
                f"expected {expected}.\n"
                "This is a defect of gpu-dcgen, not of your data: please report it."
            )
