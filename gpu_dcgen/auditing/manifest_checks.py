"""Check what the manifest says of inputs, splits, similarities and negatives."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contract.manifest import IN_MEMORY
from ..contract.schema import CONTRACT, NEGATIVE_DETAILS, SPLITS
from ..errors import InputError
from .dataset_files import WrittenDataset
from .expected import ExpectedDataset
from .findings import Findings
from .input_tables import InputCounts
from .similarity import CosineInputs, SimilarityPairs
from .split_checks import SplitResult


def check_inputs(counts: InputCounts, dataset: WrittenDataset, findings: Findings) -> None:
    """Check that the input files are those of the build, with the same rows and rejects."""
    actual: dict[str, dict[str, Any]] = {
        "file": {file.file: file.to_dict() for file in counts.files},
        "rows": {table: rows.to_dict() for table, rows in counts.rows.items()},
        "rejects": dict(counts.rejects),
        "left_out": dict(counts.left_out),
    }
    listed = {
        "file": list_input_files(dataset),
        "rows": dataset.read_object("inputs.rows"),
        "rejects": dataset.read_object("inputs.rejects"),
        "left_out": dataset.read_object("inputs.left_out"),
    }
    for name in actual:
        for key in sorted(actual[name].keys() | listed[name].keys()):
            values = actual[name].get(key), listed[name].get(key)
            findings.check_equal("inputs", key, name, *values)


def require_files(dataset: WrittenDataset) -> None:
    """InputError where a dataset was built from tables in memory, not from files."""
    if any(name.startswith(IN_MEMORY) for name in list_input_files(dataset)):
        names = [name.removeprefix(IN_MEMORY) for name in list_input_files(dataset)]
        shown = ", ".join(f'"{name}": {name}' for name in names)
        raise InputError(
            f"{dataset.folder}: was built from tables in memory; found a folder of tables.\n"
            "Audit it from Python, with the same tables: "
            f"gpu_dcgen.audit({str(dataset.folder)!r}, tables={{{shown}}})"
        )


def require_memory(dataset: WrittenDataset) -> None:
    """InputError where a dataset was built from files, not from tables in memory."""
    names = list_input_files(dataset)
    if not names or not all(name.startswith(IN_MEMORY) for name in names):
        raise InputError(
            f"{dataset.folder}: was built from files; found tables in memory.\n"
            "Give the folder that it was built from: audit(FOLDER, DATASET)."
        )


def list_input_files(dataset: WrittenDataset) -> dict[str, Any]:
    """List the manifest's entries of input files, or tables in memory, by name."""
    entries = dataset.read_entry("inputs.files")
    if not isinstance(entries, list):
        return {}
    return {str(entry["file"]): entry for entry in entries if "file" in entry}


class ManifestChecker:
    """Checks figures of the manifest against those derived from inputs and files."""

    def __init__(self, dataset: WrittenDataset, findings: Findings) -> None:
        self._dataset, self._config, self._findings = dataset, dataset.config, findings

    def _check(self, path: str, expected: Any) -> None:
        actual = self._dataset.read_entry(path)
        self._findings.check_equal("counts", "manifest.json", path, actual, expected)

    def check_splits(self, expected: ExpectedDataset) -> None:
        """Check windows, vocabulary, ledger and counts."""
        log, cuts = expected.log, expected.cuts
        self._check("contract", CONTRACT)
        self._check("seed", self._config.seed)
        windows = {name: getattr(cuts, name) for name in ("first", "cut1", "cut2", "last")}
        self._check("split.windows_ns", windows)
        self._check("inputs.accepted_transactions", expected.inputs.rows["transactions"].accepted)
        self._check("vocabulary", {"users": log.n_users, "items": log.n_items})
        self._check("ledger", {**expected.positives.ledger, **log.dropped})
        for name, rows in zip(SPLITS, expected.positives.rows, strict=True):
            counts = {"groups": len(rows), "rows": len(rows) * self._config.rows_per_positive}
            self._check(f"counts.{name}", counts)
        self._check("prices.edges_p1_p25_p50_p75_p99", list(expected.price_edges))

    def check_similarity(self, pairs: SimilarityPairs | None, inputs: CosineInputs) -> None:
        """Check figures of the similarity matrix; `pairs` is None where it cannot be used."""
        engine = self._config.similarity.engine
        if pairs is not None:
            self._check("similarity.pairs", pairs.n_pairs)
            self._check("similarity.items_with_neighbors", pairs.n_items_with_neighbors)
        if engine in ("exact", "approximate"):
            self._check("similarity.engine", engine)
        self._check("similarity.scale_bits", inputs.scale_bits)
        self._check("similarity.nonzeros", inputs.cells.nnz)

    def check_negatives(self, splits: list[SplitResult], has_views: bool) -> None:
        """Check the numbers of negatives; only a log with views has the source `viewed`."""
        config = self._config
        n_groups = sum(split.n_groups for split in splits)
        self._check("negatives.verified", n_groups * config.negatives_per_positive)
        self._check("negatives.violations", 0)
        has_details = config.output.extra_columns and all(split.is_whole for split in splits)
        if has_details and config.negative_sampling.hard_negatives_per_positive:
            n_by_detail = np.zeros(len(NEGATIVE_DETAILS), dtype=np.int64)
            for split in splits:
                n_by_detail += split.n_by_detail
            hard = dict(zip(NEGATIVE_DETAILS, n_by_detail.tolist(), strict=True))
            del hard["random"]
            if not has_views:
                del hard["viewed"]
            self._check("negatives.by_source", hard)
            self._check("negatives.shortfall", hard["fallback"])
