"""The leakage certificate: a written dataset, proved again from its files and its inputs by other code than the build's.

Nothing here imports a stage of the build. Input tables are read anew, purchases filtered anew, and each split is held
against a log that ends with the split's window, so a value that agrees cannot know of anything later (D8).

    certificate = audit(Path("data/processed"), Path("data/training"))
    certificate["verdict"]              # "holds" or "fails"
    verify(Path("data/training/certificate.json"), Path("data/training"))     # [] when nothing has changed since
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .. import __version__
from ..config import DatasetConfig
from ..contract.schema import CONTRACT
from ..errors import InputError
from ..monitoring.progress import ProgressTracker
from .certificate import read_key, sign, verify, write
from .checks import Findings
from .dataset import (
    SIDE_FILES,
    check_digests,
    check_files,
    check_schemas,
    read_config,
    read_manifest,
    read_side,
    stream_groups,
)
from .groups import Window
from .hashes import ContentDigest
from .log import SPLITS, Cuts, Log, find_cuts, read_log
from .mining import Miner, Pairs, Positive
from .plan import Plan, make_plan
from .probe import Sample, probe
from .rows import RowAudit
from .sides import check_similarities, check_user_sequences, check_vocabularies
from .similarity import Matrix, weigh
from .snapshots import Snapshots, price_edges
from .tables import Tables, read_tables

__all__ = ["World", "audit", "read_key", "read_world", "verify"]

SAMPLE = 500  # groups a split whose negatives are drawn again
PROBE_GROUPS = 4_000
MOST_PRODUCTS = 2_000_000_000  # multiplications of similarities; beyond, a sample of the items


@dataclass(frozen=True)
class World:
    """What the inputs say, whatever was written: the purchases, the cuts, the windows and the plan."""

    tables: Tables
    log: Log
    cuts: Cuts
    edges: tuple[int, ...]  # of prices before the first cut
    windows: list[Window]
    plan: Plan


def read_world(inputs: Path, config: DatasetConfig) -> World:
    """Read the inputs and decide, as the configuration says, what a dataset of them must hold. InputError if none can be."""
    tables = read_tables(inputs, config.inputs)
    if not len(tables.time):
        raise InputError(
            f"{inputs}: transactions has no acceptable row.\nBring the tables of the build."
        )
    cuts = find_cuts(tables.time, config.split)
    if not cuts.first < cuts.cut1 < cuts.cut2 <= cuts.last:
        raise InputError(
            f"{inputs}: the time axis cannot be cut in three windows.\nBring the tables of the build."
        )
    log = read_log(tables, cuts, config.filtering)
    logs = [log.before(end) for end in cuts.ends]
    if not len(logs[0].time):
        raise InputError(
            f"{inputs}: no purchase is left before the first cut.\nBring the tables of the build."
        )
    edges = price_edges(logs[0])
    snapshots = [Snapshots(logs[k], edges, cuts.starts[k], cuts.ends[k], config) for k in range(3)]
    plan = make_plan(log, cuts, snapshots, config)
    windows = []
    for k in range(3):
        rows = plan.rows[k]
        expected = (log.user[rows], log.item[rows], log.time[rows])
        weights = plan.train_weights if k == 0 else None
        windows.append(
            Window(
                k,
                cuts.starts[k],
                cuts.ends[k],
                logs[k],
                snapshots[k],
                expected,
                plan.copies[k],
                weights,
            )
        )
    return World(tables, log, cuts, edges, windows, plan)


def audit(
    inputs: Path,
    dataset: Path,
    *,
    sample: int = SAMPLE,
    seed: int = 0,
    key: bytes | None = None,
    certificate: Path | None = None,
    progress: ProgressTracker | None = None,
) -> dict[str, Any]:
    """Prove a dataset from its files and the tables it was built from; write and return the certificate.

    All rows of all files are checked; the negatives of `sample` seeded groups a split are drawn again, and similarities
    of a seeded sample of items where all would need more than MOST_PRODUCTS multiplications. The certificate goes to
    `certificate`, else to certificate.json in the dataset; it is signed with `key` where there is one. A rule that does
    not hold is a finding, not an error. InputError: no dataset, another shape, or inputs that cannot be read.
    """
    inputs, dataset, progress = Path(inputs), Path(dataset), progress or ProgressTracker()
    manifest = read_manifest(dataset)
    config = read_config(dataset, manifest)
    findings = Findings()
    with progress.stage("files"):
        outputs = check_files(dataset, manifest, findings)
        readable = check_schemas(dataset, config, findings)
    with progress.stage("inputs"):
        world = read_world(inputs, config)
        _check_inputs(world.tables, manifest, findings)
    with progress.stage("similarity"):
        matrix = weigh(world.windows[0].log, config)
        sides = {name: read_side(dataset, name) for name in SIDE_FILES if name in readable}
        digests = {name: digest for name, (_, digest) in sides.items()}
        pairs = None
        if "item_similarity_matrix" in sides:
            items = _items_to_multiply(matrix, seed, findings)
            table = sides["item_similarity_matrix"][0]
            complete = manifest["similarity"]["engine"] == "exact"
            pairs = check_similarities(table, matrix, world.log, items, complete, config, findings)
    with progress.stage("tables"):
        if "user_sequences" in sides:
            check_user_sequences(
                sides["user_sequences"][0], world.log, world.plan, world.cuts, config, findings
            )
        vocabulary = sides["item_vocabulary"][0] if "item_vocabulary" in sides else None
        check_vocabularies(dataset, vocabulary, world.log, world.plan, config, findings)
    with progress.stage(
        "samples", total=sum(split["rows"] for split in manifest["counts"].values())
    ):
        audits = [
            _check_split(
                dataset, window, pairs, config, (sample, seed), digests, findings, progress
            )
            for window in world.windows
            if f"{SPLITS[window.split]}_dataset" in readable
        ]
    _check_disjoint([rows.users for rows in audits], config, findings)
    check_digests(digests, manifest, findings)
    _check_counts(manifest, world, matrix, sides, audits, config, findings)
    body = {
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
        "sample": {"groups_a_split": sample, "probe_groups": PROBE_GROUPS, "seed": seed},
        "checks": [check.as_dict() for check in findings.checks.values()],
        "content_digest": manifest["content_digest"],
        "digests": digests,
        "generator": manifest["generator"],
        "generated_at": manifest["generated_at"],
        "config": manifest["config"],
        "inputs": world.tables.files,
        "outputs": outputs,
    }
    signed = sign(body, key)
    write(certificate or dataset / "certificate.json", signed)
    return signed


def _check_inputs(tables: Tables, manifest: dict[str, Any], findings: Findings) -> None:
    listed = {entry["file"]: entry for entry in manifest["inputs"]["files"]}
    found = {entry["file"]: entry for entry in tables.files}
    for name in sorted(listed.keys() | found.keys()):
        findings.equal("inputs", name, "file", found.get(name), listed.get(name))
    for what, ours in (("rows", tables.rows), ("rejects", tables.rejects)):
        for table in sorted(ours.keys() | manifest["inputs"][what].keys()):
            findings.equal(
                "inputs", table, what, ours.get(table), manifest["inputs"][what].get(table)
            )


def _items_to_multiply(matrix: Matrix, seed: int, findings: Findings) -> np.ndarray:
    """All items, or as many seeded ones as MOST_PRODUCTS allow."""
    every = np.arange(len(matrix.products))
    if matrix.products.sum() <= MOST_PRODUCTS:
        return every
    shuffled = np.random.default_rng(seed).permutation(every)
    items = np.sort(shuffled[np.cumsum(matrix.products[shuffled]) <= MOST_PRODUCTS])
    findings.checks["similarity_matrix"].scope = f"{len(items)} seeded items of {len(every)}"
    return items


def _check_split(
    dataset: Path,
    window: Window,
    pairs: Pairs | None,
    config: DatasetConfig,
    sample: tuple[int, int],
    digests: dict[str, dict[str, str]],
    findings: Findings,
    progress: ProgressTracker,
) -> RowAudit:
    """Stream one split's groups through all checks of rows."""
    n_wanted, seed = sample
    rows, digest = RowAudit(window, pairs, config, findings), ContentDigest()
    n_expected = len(window.copies)
    chance = np.random.default_rng([seed, window.split])
    again = np.sort(chance.choice(n_expected, min(n_wanted, n_expected), replace=False))
    miner = None if pairs is None else Miner(window.log, window.snapshots, pairs, config)
    probed = (
        Sample(n_expected, PROBE_GROUPS, seed)
        if window.split == 0 and config.output.shape == "labeled_pair"
        else None
    )
    for batch in stream_groups(dataset, window.split, config.rows_per_positive, digest, findings):
        progress.advance(batch.table.num_rows)
        if (groups := rows.check(batch)) is None:
            continue
        low, high = np.searchsorted(again, [batch.first_group, batch.first_group + batch.n_groups])
        for group in (again[low:high] - batch.first_group).tolist() if miner else ():
            _draw_again(miner, window, rows, groups, group, config, findings)
        if probed is not None:
            probed.take(groups)
    name = SPLITS[window.split]
    digests[f"{name}_dataset"] = digest.hex()
    if n_expected > n_wanted:
        findings.checks["negatives"].scope = f"{n_wanted} seeded groups a split"
    if rows.n_groups != n_expected:
        findings.fault(
            "positives",
            f"{name}_dataset",
            None,
            f"{rows.n_groups} positives",
            f"{n_expected} positives",
        )
    if probed is not None and probed.n_rows:
        probe(probed, window.log.item_index, config, findings)
    return rows


def _draw_again(
    miner: Miner,
    window: Window,
    rows: RowAudit,
    groups: Any,
    group: int,
    config: Any,
    findings: Findings,
) -> None:
    place = groups.batch.first_group + group
    user, item, time = (int(column[place]) for column in window.expected)
    if (int(groups.user[group]), int(groups.item[group, 0]), int(groups.time[group])) != (
        user,
        item,
        time,
    ):
        return  # another positive stands there, which `positives` reports
    mined = miner.mine(Positive(user, item, time, int(window.copies[place])))
    findings.count("negatives", 1)
    expected = [negative.item for negative in mined.negatives]
    details = (
        [negative.detail for negative in mined.negatives] if config.output.extra_columns else None
    )
    found, seen = groups.item[group, 1:].tolist(), rows.details_of(groups, group)
    if found == expected and seen == details:
        return
    ids = window.log.item_ids
    shown = [ids[j].as_py() if j >= 0 else "unknown" for j in found]
    wanted = [ids[j].as_py() for j in expected]
    row = groups.batch.first_row + group * config.rows_per_positive
    findings.fault("negatives", groups.batch.file, row, f"{shown} {seen}", f"{wanted} {details}")


def _check_disjoint(users: list[np.ndarray], config: DatasetConfig, findings: Findings) -> None:
    if config.split.strategy == "temporal" or not users:
        return
    n_splits = np.sum(users, axis=0)
    findings.count("disjoint_users", int((n_splits > 0).sum()))
    if n_shared := int((n_splits > 1).sum()):
        findings.fault(
            "disjoint_users",
            "all splits",
            None,
            f"{n_shared} users in several splits",
            "none",
            n_shared,
        )


def _check_counts(
    manifest: dict[str, Any],
    world: World,
    matrix: Matrix,
    sides: dict[str, tuple[pa.Table, dict[str, str]]],
    audits: list[RowAudit],
    config: DatasetConfig,
    findings: Findings,
) -> None:
    """The manifest's own figures."""

    def hold(what: str, found: Any, expected: Any) -> None:
        findings.equal("counts", "manifest.json", what, found, expected)

    log, cuts, plan = world.log, world.cuts, world.plan
    hold("contract", manifest["contract"], CONTRACT)
    hold("seed", manifest["seed"], config.seed)
    hold(
        "windows_ns",
        manifest["split"]["windows_ns"],
        {n: getattr(cuts, n) for n in ("first", "cut1", "cut2", "last")},
    )
    hold(
        "accepted_transactions", manifest["inputs"]["accepted_transactions"], len(world.tables.time)
    )
    hold("vocabulary", manifest["vocabulary"], {"users": log.n_users, "items": log.n_items})
    hold("ledger", manifest["ledger"], {**plan.ledger, **log.dropped})
    for name, rows in zip(SPLITS, plan.rows, strict=True):
        counts = {"groups": len(rows), "rows": len(rows) * config.rows_per_positive}
        hold(f"counts of {name}", manifest["counts"].get(name), counts)
    hold("price edges", manifest["prices"]["edges_p1_p25_p50_p75_p99"], list(world.edges))
    info = manifest["similarity"]
    if "item_similarity_matrix" in sides:
        table = sides["item_similarity_matrix"][0]
        hold("similarity pairs", info["pairs"], table.num_rows)
        hold("items with neighbors", info["items_with_neighbors"], len(table["item_id"].unique()))
    if config.similarity.engine in ("exact", "approximate"):
        hold("similarity engine", info["engine"], config.similarity.engine)
    hold("similarity scale", info["scale_bits"], matrix.scale_bits)
    hold("similarity cells", info["nonzeros"], matrix.cells.nnz)
    negatives = manifest["negatives"]
    n_groups = sum(rows.n_groups for rows in audits)
    hold("negatives", negatives["verified"], n_groups * config.negatives_per_positive)
    hold("violations", negatives["violations"], 0)
    if config.output.extra_columns and config.negative_sampling.hard_negatives_per_positive:
        by_source = np.sum([rows.details for rows in audits], axis=0).tolist() if audits else []
        hold("hard negatives by source", list(negatives["by_source"].values()), by_source[:4])
        hold("shortfall", negatives["shortfall"], by_source[3] if by_source else None)
