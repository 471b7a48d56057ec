"""Read the JSON files of a finished dataset, and find the files of its tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..contract.folds import suggest_fold
from ..contract.json_files import read_json
from ..contract.manifest import Manifest
from ..contract.quality_report import QUALITY_REPORT, QualityReport
from ..errors import InputError

_REBUILD = "Build the dataset again with this version."
SIMILARITY_BINS = 20  # of width 0.05
_BATCH_ROWS = 1 << 18


@dataclass(frozen=True)
class Documents:
    """The JSON files of a dataset."""

    folder: Path
    manifest: Manifest
    quality_report: QualityReport
    vocabulary: dict[str, Any]
    certificate: dict[str, Any] | None  # None before an audit
    probe: dict[str, Any] | None  # None before a probe, or where it is of another dataset

    def list_parts(self, name: str) -> list[Path]:
        """List the Parquet files of a table, in order."""
        path = self.folder / f"{name}.parquet"
        return sorted(path.glob("*.parquet")) if path.is_dir() else [path]

    def list_product_groups(self) -> list[str | None]:
        """List product groups in the order of quality_report.json: first None for those without."""
        return [None, *self.vocabulary["item_features"]["product_groups"]]


def read_documents(folder: Path) -> Documents:
    """Read the JSON files of the dataset in `folder`.

    Raises InputError where it holds no dataset, or one of another version.
    """
    if not (folder / "manifest.json").is_file():
        raise InputError(
            f"{folder}: is no dataset (it holds no manifest.json).\n"
            + suggest_fold(folder, "Name a folder that 'gpu-dcgen build' published.")
        )
    certificate = folder / "certificate.json"
    manifest = Manifest.load(folder / "manifest.json")
    return Documents(
        folder,
        manifest,
        QualityReport.load(folder / QUALITY_REPORT),
        read_json(folder / "vocabulary.json", _REBUILD),
        read_json(certificate, _REBUILD) if certificate.is_file() else None,
        _read_probe(folder / "probe.json", manifest.content_digest),
    )


def _read_probe(path: Path, content_digest: str) -> dict[str, Any] | None:
    """Read the result of 'gpu-dcgen probe', if it is of this dataset."""
    if not path.is_file():
        return None
    result = read_json(path, "Run 'gpu-dcgen probe' again.")
    return result if result.get("content_digest") == content_digest else None


def count_similarities(documents: Documents) -> list[int]:
    """Count the pairs of item_similarity_matrix in SIMILARITY_BINS bins of similarity.

    Memory: a batch of rows.
    """
    counts: Counter[int] = Counter()
    for part in documents.list_parts("item_similarity_matrix"):
        with pq.ParquetFile(part) as parquet:
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=["similarity"]):
                bins = pc.floor(pc.multiply(batch.column(0), float(SIMILARITY_BINS)))
                for entry in pc.value_counts(pc.cast(bins, pa.int32())).to_pylist():
                    counts[min(entry["values"], SIMILARITY_BINS - 1)] += entry["counts"]
    return [counts[k] for k in range(SIMILARITY_BINS)]
