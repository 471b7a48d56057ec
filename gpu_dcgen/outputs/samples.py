"""Write the samples of all splits: reuse what is there, and write the missing parts (D16)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from ..context import BuildContext
from ..contract.manifest import ClusterSummary
from ..errors import spell_option
from ..monitoring.progress import ProgressTracker
from ..quality_validator.metrics import QualityMetrics
from ..samples import StageResults
from ..storage.checksums import sha256_of
from .part_writer import write_parts
from .parts import Part, PartRecord, ReusedSplit


@dataclass(frozen=True)
class WrittenSamples:
    """What was written of the samples, all parts together."""

    records: list[PartRecord]  # by split, of all its parts; file size and checksum unset
    metrics: QualityMetrics
    # Of the threads' time, which also goes into laying out, digesting and writing rows.
    drawing_share: float
    checking_share: float
    restored_s: float  # that an earlier process spent on the parts that were restored
    sha256: dict[Path, str]  # of each part's file


class Workers(Protocol):
    """Processes of this or other hosts (`cluster`). They compute what this process would."""

    def find_neighbors(
        self, sides: Any, blocks: list[tuple[int, int]], progress: ProgressTracker
    ) -> list[tuple[Any, ...]]:
        """Compute the neighbors of each block of items (first, last); return them in order."""

    def write_parts(
        self,
        parts: list[Part],
        results: StageResults,
        context: BuildContext,
        finish: Callable[[Part], None],
    ) -> None:
        """Write each part's file, and hand the part, with its record, to `finish`."""

    def manifest_entry(self) -> ClusterSummary:
        """Describe the cluster for the manifest."""


def write_samples(
    parts: list[Part],
    results: StageResults,
    context: BuildContext,
    workers: Workers | None = None,
    reused: Mapping[int, ReusedSplit] | None = None,
) -> WrittenSamples:
    """Write all parts, with `workers` or this process's threads.

    Left out are splits in `reused`, and parts that have a checkpoint and an unchanged file. A block
    is a pure function of the stages' results, so neither who computes it nor its size changes a
    file's content.
    """
    totals, reused = _Totals(results, context), reused or {}
    for split, entry in reused.items():
        totals.add_split(split, entry)
    parts = [part for part in parts if part.split not in reused]
    restored = _restore(parts, context)
    for part in restored:
        totals.add_part(part)
    restored_s = totals.sum_splits().working_s / context.backend.n_threads
    _report_resumed(restored, parts, restored_s, context)
    missing = [part for part in parts if part not in restored]
    if workers is None:
        write_parts(missing, results, context, totals.finish)
    else:
        workers.write_parts(missing, results, context, totals.finish)
    spent = totals.sum_splits()
    working_s = max(spent.working_s, 1e-9)
    return WrittenSamples(
        records=totals.records,
        metrics=spent.metrics,
        drawing_share=spent.drawing_s / working_s,
        checking_share=spent.checking_s / working_s,
        restored_s=restored_s,
        sha256=totals.sha256,
    )


def _restore(parts: list[Part], context: BuildContext) -> list[Part]:
    """Return the parts with a checkpoint and an unchanged file, each with its record."""
    checkpoints = context.checkpoints
    if checkpoints is None:
        return []

    def restore(part: Part) -> bool:
        record: PartRecord | None = checkpoints.load(part.name)
        if record is None:
            return False
        try:
            is_same = (
                part.path.stat().st_size == record.file_bytes
                and sha256_of(part.path) == record.sha256
            )
        except OSError:  # missing or unreadable: written again
            return False
        if is_same:
            part.record = record
        return is_same

    with ThreadPoolExecutor(context.backend.n_threads, "restore") as pool:
        is_restored = pool.map(restore, parts)
        return [part for part, whole in zip(parts, is_restored, strict=True) if whole]


def _report_resumed(
    restored: list[Part], parts: list[Part], restored_s: float, context: BuildContext
) -> None:
    """Report what a resumed build reuses, and the time that saves."""
    if context.checkpoints is None or not context.checkpoints.is_reused:
        return
    stages, seconds = context.timer.restored_stages, context.timer.restored_s + restored_s
    reused = [f"stages {', '.join(stages)}"] if stages else []
    reused += [f"{len(restored)} of {len(parts)} sample files"] if restored else []
    option = spell_option("resume")
    text = f"{' and '.join(reused)}; saved {seconds:,.1f} s" if reused else "nothing was finished"
    context.progress.message("info", f"{option}: reused {text}" if reused else f"{option}: {text}")


class _Totals:
    """Sum the records of parts by split, and save those of finished parts."""

    def __init__(self, results: StageResults, context: BuildContext) -> None:
        self.records = [PartRecord() for _ in results.plan.positives]
        self.sha256: dict[Path, str] = {}
        self._n_groups = [len(positives) for positives in results.plan.positives]
        self._context, self._lock = context, Lock()

    def finish(self, part: Part) -> None:
        """Save the record of a part that is written, and add it."""
        with self._lock:
            if self._context.checkpoints is not None:
                self._context.checkpoints.save(part.name, part.record)
        self._add(part.split, part.record, {part.path: part.record.sha256})
        part.record = PartRecord()

    def add_part(self, part: Part) -> None:
        """Add a part that an earlier process has written."""
        self._add(part.split, part.record, {part.path: part.record.sha256})
        part.record = PartRecord()
        self._advance(part.n_groups)

    def add_split(self, split: int, entry: ReusedSplit) -> None:
        """Add a split that is reused as a whole."""
        self._add(split, entry.record, entry.sha256)
        self._advance(self._n_groups[split])

    def sum_splits(self) -> PartRecord:
        """Return the sum over splits; its digest has no meaning."""
        total = PartRecord()
        for record in self.records:
            total.add(record)
        return total

    def _add(self, split: int, record: PartRecord, sha256: dict[Path, str]) -> None:
        with self._lock:
            self.records[split].add(record)
            self.sha256.update(sha256)

    def _advance(self, n_groups: int) -> None:
        self._context.progress.advance(n_groups * self._context.config.rows_per_positive)
