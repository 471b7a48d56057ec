"""Run all checks on a dataset and write the certificate."""

from __future__ import annotations

import platform
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..contract.schema import CONTRACT, HARD_CANDIDATES
from ..errors import ConfigError
from ..monitoring.progress import ProgressTracker
from .certificate import sign, write_certificate
from .dataset_files import (
    WrittenDataset,
    check_digests,
    check_files,
    check_schemas,
    open_dataset,
    read_side_table,
)
from .expected import ExpectedDataset, derive_dataset
from .findings import Findings
from .hard_candidate_checks import check_hard_candidates
from .manifest_checks import (
    ManifestChecker,
    check_inputs,
    list_input_files,
    require_files,
    require_memory,
)
from .memory_tables import write_tables
from .mining_weights import check_mining_weights, read_mining_weights
from .sequence_checks import NAME as SEQUENCES
from .sequence_checks import check_user_sequences
from .similarity import SimilarityPairs, weigh_purchases
from .similarity_checks import NAME as SIMILARITIES
from .similarity_checks import check_similarities
from .split_checks import PROBE_GROUPS, MiningInputs, SampleSize, SplitResult, check_split
from .vocabulary_checks import NAME as VOCABULARY
from .vocabulary_checks import check_train_counts, check_vocabularies

DEFAULT_SAMPLE = 500  # groups a split
# Of rules that other code than `check_split` checks, where not all files are read.
SCOPES_OF_SAMPLE = {
    "disjoint_users": "users of the files that were read",
    "vocabularies": "all but n_train_hard_negatives",
    "counts": "all but the numbers of negatives by source",
    "schema": "columns of all files, nulls of those that were read",
    "digests": "tables that were read whole",
}


def audit(
    inputs: str | Path | None = None,
    dataset: str | Path | None = None,
    *,
    tables: Mapping[str, Any] | None = None,
    sample: int = DEFAULT_SAMPLE,
    parts: int | None = None,
    seed: int = 0,
    key: bytes | None = None,
    certificate: str | Path | None = None,
    progress: ProgressTracker | None = None,
) -> dict[str, Any]:
    """Check a dataset against the tables it was built from, and write a certificate.

    The audit is a second implementation of the rules: it imports no stage of the build. It reads
    the input tables, filters the purchases, and derives what every file must hold. Each split is
    compared with a log that ends with the split's window, so a value that agrees cannot depend
    on anything later (D8). All rows of all files are checked, unless `parts` says otherwise, with
    three exceptions: the negatives of `sample` groups a split are drawn again, labels are probed on
    4,000 groups, and of a very large similarity matrix some items are checked. A broken rule is a
    finding, not an exception.

    Args:
        inputs: The folder of tables that the dataset was built from.
        dataset: The folder that `build` published, with output.shape labeled_pair or n_tuple. With
            `tables` it may be the only argument without a name.
        tables: The tables that the dataset was built from, where it was built from tables in
            memory. Memory: they are written as Parquet into a temporary folder.
        sample: Groups a split to draw the negatives of again.
        parts: Files a split to read, of those of a split that was written in parts; None: all.
            Content digests and counts of what is not read whole are then left unchecked.
        seed: Selects these groups and files, and the items of a very large similarity matrix.
        key: Signs the certificate, from `read_key`; None for a plain SHA-256.
        certificate: Where to write it; None for certificate.json in the dataset.
        progress: Is notified of stages and rows.

    Returns:
        The certificate. Its `verdict` is `holds` or `fails`; `checks` has one entry a rule with
        its verdict, how much was checked, and the first offenders.

    Raises:
        InputError: There is no dataset, its shape is another one, the inputs cannot be read, or
            tables in memory are not those that it was built from.
        OutputError: The certificate cannot be written.

    Example:
        >>> certificate = audit("data/processed", "data/training")
        >>> certificate["verdict"]
        'holds'
    """
    progress = progress or ProgressTracker()
    if dataset is None and tables is not None:
        inputs, dataset = None, inputs
    written, findings = _open_dataset(inputs, dataset, tables), Findings()
    with progress.stage("files"):
        outputs = check_files(written, findings)
        readable = check_schemas(written, findings)
    with progress.stage("inputs"):
        expected = _derive(inputs, tables, written)
        check_inputs(expected.inputs, written, findings)
    digests: dict[str, dict[str, str]] = {}
    with progress.stage("similarity"):
        pairs = _check_matrix(written, readable, expected, seed, digests, findings)
    with progress.stage("tables"):
        if SEQUENCES in readable:
            digests[SEQUENCES] = check_user_sequences(written, expected, findings)
        vocabulary = None
        if VOCABULARY in readable:
            vocabulary, digests[VOCABULARY] = read_side_table(written, VOCABULARY)
        check_vocabularies(written, vocabulary, expected, findings)
        if vocabulary is not None:
            check_mining_weights(vocabulary, expected, pairs, sample, written.config, findings)
        size = SampleSize(sample, seed, parts)
        mining = MiningInputs(pairs, read_mining_weights(vocabulary, expected.log))
        if HARD_CANDIDATES in readable:
            digests[HARD_CANDIDATES] = check_hard_candidates(
                written, expected, mining, size, findings
            )
    results: list[SplitResult] = []
    n_rows = sum(split.n_groups for split in expected.splits) * written.config.rows_per_positive
    with progress.stage("samples", total=n_rows):
        for split in expected.splits:
            if split.table in readable:
                result = check_split(written, split, mining, size, findings, progress)
                results.append(result)
                if result.is_whole:
                    digests[split.table] = result.digests
    if vocabulary is not None and expected.splits[0].table in readable:
        check_train_counts(vocabulary, expected, results[0].n_hard_by_item, findings)
    _check_disjoint_users(written, results, findings)
    is_whole = _note_sample(results, findings)
    check_digests(digests, written, findings, is_whole=is_whole)
    checker = ManifestChecker(written, findings)
    checker.check_splits(expected)
    checker.check_negatives(results, expected.log.views is not None)
    body = {
        **_describe_audit(findings, size),
        "content_digest": written.manifest["content_digest"],
        "digests": digests,
        **{name: written.manifest[name] for name in ("generator", "generated_at", "config")},
        "inputs": [file.to_dict() for file in expected.inputs.files],
        "outputs": outputs,
    }
    signed = sign(body, key)
    write_certificate(Path(certificate or written.folder / "certificate.json"), signed)
    return signed


def _open_dataset(
    inputs: str | Path | None, dataset: str | Path | None, tables: Mapping[str, Any] | None
) -> WrittenDataset:
    """Open the dataset. ConfigError and InputError where its inputs are not given as needed."""
    if dataset is None or (inputs is None) == (tables is None):
        raise ConfigError(
            "audit: expected a dataset, and a folder of tables or tables in memory.\n"
            'Call audit(FOLDER, DATASET) or audit(DATASET, tables={"transactions": frame}).'
        )
    command = f"gpu-dcgen audit {shlex.quote(str(inputs))}"
    written = open_dataset(Path(dataset), None if inputs is None else command)
    require_files(written) if tables is None else require_memory(written)
    return written


def _derive(
    inputs: str | Path | None, tables: Mapping[str, Any] | None, written: WrittenDataset
) -> ExpectedDataset:
    """Derive what the dataset must hold from its folder of tables, or from tables in memory."""
    config, listed = written.config, written.list_inputs()
    if tables is None:
        return derive_dataset(Path(str(inputs)), config, listed)
    with tempfile.TemporaryDirectory(prefix="gpu-dcgen-audit-") as scratch:
        folder = Path(scratch)
        files = write_tables(tables, list_input_files(written), config.inputs, folder)
        expected = derive_dataset(folder, config, listed)
    return replace(expected, inputs=replace(expected.inputs, files=files))


def _check_matrix(
    written: WrittenDataset,
    readable: set[str],
    expected: ExpectedDataset,
    seed: int,
    digests: dict[str, dict[str, str]],
    findings: Findings,
) -> SimilarityPairs | None:
    """Check the similarity matrix and the manifest's figures of it; return its pairs, if any."""
    inputs, pairs = weigh_purchases(expected.splits[0].log, written.config), None
    if SIMILARITIES in readable:
        pairs, digests[SIMILARITIES] = check_similarities(
            written, inputs, expected.log, seed, findings
        )
    ManifestChecker(written, findings).check_similarity(pairs, inputs)
    return pairs


def _check_disjoint_users(
    dataset: WrittenDataset, splits: list[SplitResult], findings: Findings
) -> None:
    """Check that no user has positives in two splits, unless the strategy allows it."""
    if not dataset.config.split.is_disjoint or not splits:
        return
    n_splits = np.sum([split.has_positive for split in splits], axis=0)
    findings.count("disjoint_users", int((n_splits > 0).sum()))
    if n_shared := int((n_splits > 1).sum()):
        shown = f"{n_shared} users in several splits", "none"
        findings.add_fault("disjoint_users", "all splits", None, *shown, n_shared)


def _note_sample(results: list[SplitResult], findings: Findings) -> bool:
    """Return whether all files were read; if not, note what rules leave unchecked."""
    is_whole = all(result.is_whole for result in results)
    if not is_whole:
        for rule, scope in SCOPES_OF_SAMPLE.items():
            findings.checks[rule].scope = scope
    return is_whole


def _describe_audit(findings: Findings, sample: SampleSize) -> dict[str, Any]:
    """Return the part of the certificate on the audit itself."""
    return {
        "certificate": "gpu-dcgen leakage certificate, version 1",
        "verdict": "holds" if findings.holds else "fails",
        "contract": CONTRACT,
        "audited_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "auditor": {
            "name": "gpu-dcgen audit",
            "version": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "scipy", "pyarrow")},
        },
        "sample": {
            "groups_a_split": sample.n_groups,
            "parts_a_split": sample.n_parts,
            "probe_groups": PROBE_GROUPS,
            "seed": sample.seed,
        },
        "checks": [check.as_dict() for check in findings.checks.values()],
    }
