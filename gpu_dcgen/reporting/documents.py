"""What a finished dataset says of itself: its JSON files, and where its tables lie."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import InputError
from ..contract.json_files import read_json

_ANEW = "Build the dataset again with this version."
SIMILARITY_BINS = 20  # of width 0.05


@dataclass(frozen=True)
class Documents:
    """A dataset's JSON files as read; `certificate` is None before an audit."""

    folder: Path
    manifest: dict[str, Any]
    quality_report: dict[str, Any]
    vocabulary: dict[str, Any]
    certificate: dict[str, Any] | None

    def parts(self, name: str) -> list[Path]:
        """The Parquet files of a table, in order."""
        path = self.folder / f"{name}.parquet"
        return sorted(path.glob("*.parquet")) if path.is_dir() else [path]

    def categories(self) -> list[str | None]:
        """Product groups in the order in which quality_report.json counts them: first those without one."""
        return [None, *self.vocabulary["item_features"]["product_groups"]]


def read_documents(folder: Path) -> Documents:
    """InputError where the folder holds no dataset, or one of a version without quality_report.json."""
    if not (folder / "manifest.json").is_file():
        remedy = "Name a folder that 'gpu-dcgen build' published."
        raise InputError(f"{folder}: is no dataset (it holds no manifest.json).\n{remedy}")
    names = ("manifest", "quality_report", "vocabulary")
    found = {name: read_json(folder / f"{name}.json", _ANEW) for name in names}
    certificate = folder / "certificate.json"
    return Documents(
        folder,
        **found,
        certificate=read_json(certificate, _ANEW) if certificate.is_file() else None,
    )


def similarity_counts(documents: Documents) -> list[int]:
    """Pairs of item_similarity_matrix by similarity: (SIMILARITY_BINS,) counts; a batch of rows in memory at a time."""
    found: Counter[int] = Counter()
    for part in documents.parts("item_similarity_matrix"):
        with pq.ParquetFile(part) as parquet:
            for batch in parquet.iter_batches(batch_size=1 << 18, columns=["similarity"]):
                bins = pc.cast(
                    pc.floor(pc.multiply(batch.column(0), float(SIMILARITY_BINS))), pa.int32()
                )
                for one in pc.value_counts(bins).to_pylist():
                    found[min(one["values"], SIMILARITY_BINS - 1)] += one["counts"]
    return [found[k] for k in range(SIMILARITY_BINS)]
